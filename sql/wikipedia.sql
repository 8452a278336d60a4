-- The views of the Wikipedia demo: who edits, right now.
--
-- The wikimedia source lands one compact JSON document a line in data/recentchanges; the path is relative to where mzd runs. The text is
-- safe to run again: what exists and is the same stays as it is.

CREATE SOURCE IF NOT EXISTS wikirecent
FROM FILE 'data/recentchanges' WITH (tail = true)
FORMAT TEXT;

-- A plain view is not kept anywhere: it is planned into the views that name it, which compute only what they need of it. So memory
-- is bounded by what the views below hold, not by how many edits there have been.
CREATE VIEW IF NOT EXISTS recentchanges AS
SELECT
    val->>'$schema' AS schema,
    (val->'bot')::bool AS bot,
    val->>'comment' AS comment,
    (val->'id')::float::bigint AS id,
    (val->'length'->'new')::float::bigint AS length_new,
    (val->'length'->'old')::float::bigint AS length_old,
    val->'meta'->>'uri' AS meta_uri,
    val->'meta'->>'id' AS meta_id,
    val->'meta'->>'dt' AS meta_dt,
    (val->'minor')::bool AS minor,
    (val->'namespace')::float AS namespace,
    val->>'parsedcomment' AS parsedcomment,
    (val->'revision'->'new')::float::bigint AS revision_new,
    (val->'revision'->'old')::float::bigint AS revision_old,
    val->>'server_name' AS server_name,
    val->>'server_url' AS server_url,
    (val->'timestamp')::float AS r_ts,
    val->>'title' AS title,
    val->>'type' AS type,
    val->>'user' AS user,
    val->>'wiki' AS wiki
FROM (SELECT text::jsonb AS val FROM wikirecent);

-- How many edits there have been.
CREATE MATERIALIZED VIEW IF NOT EXISTS counter AS
SELECT count(*) FROM recentchanges;

-- How many edits each user has made.
CREATE MATERIALIZED VIEW IF NOT EXISTS useredits AS
SELECT user, count(*) FROM recentchanges GROUP BY user;

-- The ten busiest users.
CREATE MATERIALIZED VIEW IF NOT EXISTS top10 AS
SELECT * FROM useredits ORDER BY count DESC LIMIT 10;
