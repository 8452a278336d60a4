-- Edits joined with a table of wikis: which languages are busy, and how it goes by the minute.
--
-- Run it after wikipedia.sql, whose view recentchanges it reads. It too is safe to run again: of the wikis only those are inserted that
-- are not there yet.

CREATE TABLE IF NOT EXISTS wikis (wiki text NOT NULL, language text NOT NULL, project text NOT NULL);

INSERT INTO wikis
SELECT * FROM (VALUES
    ('arwiki', 'Arabic', 'Wikipedia'),
    ('commonswiki', '(any)', 'Commons'),
    ('dewiki', 'German', 'Wikipedia'),
    ('enwiki', 'English', 'Wikipedia'),
    ('enwiktionary', 'English', 'Wiktionary'),
    ('eswiki', 'Spanish', 'Wikipedia'),
    ('eswiktionary', 'Spanish', 'Wiktionary'),
    ('fawiki', 'Persian', 'Wikipedia'),
    ('frwiki', 'French', 'Wikipedia'),
    ('frwiktionary', 'French', 'Wiktionary'),
    ('hewiki', 'Hebrew', 'Wikipedia'),
    ('itwiki', 'Italian', 'Wikipedia'),
    ('jawiki', 'Japanese', 'Wikipedia'),
    ('mgwiktionary', 'Malagasy', 'Wiktionary'),
    ('plwiki', 'Polish', 'Wikipedia'),
    ('ptwiki', 'Portuguese', 'Wikipedia'),
    ('ruwiki', 'Russian', 'Wikipedia'),
    ('svwiki', 'Swedish', 'Wikipedia'),
    ('ukwiki', 'Ukrainian', 'Wikipedia'),
    ('viwiki', 'Vietnamese', 'Wikipedia'),
    ('wikidatawiki', '(any)', 'Wikidata'),
    ('zhwiki', 'Chinese', 'Wikipedia')
) AS known (wiki, language, project)
EXCEPT SELECT * FROM wikis;

-- A join remembers the rows of both its sides. So the edits are counted first, and what is joined are the counts.
CREATE MATERIALIZED VIEW IF NOT EXISTS wikiedits AS
SELECT
    date_trunc('minute', to_timestamp(r_ts)) AS minute,
    wiki,
    count(*) AS edits,
    count(*) FILTER (WHERE bot) AS bots
FROM recentchanges
GROUP BY 1, 2;

-- How many edits each language has had, on all its projects.
CREATE MATERIALIZED VIEW IF NOT EXISTS languages AS
SELECT
    coalesce(w.language, '(others)') AS language,
    count(DISTINCT e.wiki) AS wikis,
    sum(e.bots)::bigint AS bots,
    sum(e.edits)::bigint AS edits
FROM wikiedits e LEFT JOIN wikis w ON e.wiki = w.wiki
GROUP BY 1;

-- The last minutes, and what each project has had of them.
CREATE MATERIALIZED VIEW IF NOT EXISTS minutes AS
SELECT
    e.minute,
    coalesce(sum(e.edits) FILTER (WHERE w.project = 'Wikipedia'), 0)::bigint AS wikipedia,
    coalesce(sum(e.edits) FILTER (WHERE w.project = 'Wikidata'), 0)::bigint AS wikidata,
    coalesce(sum(e.edits) FILTER (WHERE w.project = 'Commons'), 0)::bigint AS commons,
    sum(e.edits)::bigint AS edits
FROM wikiedits e LEFT JOIN wikis w ON e.wiki = w.wiki
GROUP BY e.minute
ORDER BY e.minute DESC
LIMIT 10;
