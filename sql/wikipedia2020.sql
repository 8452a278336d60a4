-- The demo as it was typed in 2020, into Materialize v0.5 and beside it
--
--     curl -N https://stream.wikimedia.org/v2/stream/recentchange >> data/recentchanges
--
-- The file holds the raw event stream, of which the regular expression keeps the data lines. It runs on the embedded engine as it
-- did then, with one thing time has changed: ids, revisions and lengths were cast to int, and most of today's ids do not fit. An
-- error belongs to a view like its rows do, so with such an event in the file recentchanges and the views on it answer "Evaluation
-- error: integer out of range", as they do on Materialize; wikipedia.sql casts to bigint.

CREATE MATERIALIZED SOURCE IF NOT EXISTS wikirecent
FROM FILE 'data/recentchanges' WITH (tail = true)
FORMAT REGEX '^data: (?P<data>.*)';

CREATE MATERIALIZED VIEW IF NOT EXISTS recentchanges AS
SELECT
    val->>'$schema' AS r_schema,
    (val->'bot')::bool AS bot,
    val->>'comment' AS comment,
    (val->'id')::float::int AS id,
    (val->'length'->'new')::float::int AS length_new,
    (val->'length'->'old')::float::int AS length_old,
    val->'meta'->>'uri' AS meta_uri,
    val->'meta'->>'id' AS meta_id,
    (val->'minor')::bool AS minor,
    (val->'namespace')::float AS namespace,
    val->>'parsedcomment' AS parsedcomment,
    (val->'revision'->'new')::float::int AS revision_new,
    (val->'revision'->'old')::float::int AS revision_old,
    val->>'server_name' AS server_name,
    (val->'server_script_path')::text AS server_script_path,
    val->>'server_url' AS server_url,
    (val->'timestamp')::float AS r_ts,
    val->>'title' AS title,
    val->>'type' AS type,
    val->>'user' AS user,
    val->>'wiki' AS wiki
FROM (SELECT data::jsonb AS val FROM wikirecent);

CREATE MATERIALIZED VIEW IF NOT EXISTS counter AS
SELECT COUNT(*) FROM recentchanges;

CREATE MATERIALIZED VIEW IF NOT EXISTS useredits AS
SELECT user, count(*) FROM recentchanges GROUP BY user;

CREATE MATERIALIZED VIEW IF NOT EXISTS top10 AS
SELECT * FROM useredits ORDER BY count DESC LIMIT 10;
