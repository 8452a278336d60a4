-- The views of the Wikipedia demo in the dialect of today's Materialize (v0.27 and later), which has no sources of files: the
-- wikimedia source lands its events in a table, or in a webhook source. With
--
--     materialize: {url: "postgres://materialize@localhost:6875/materialize", init: sql/wikipedia.materialize.sql}
--
-- mzd runs this text at every start; what exists stays as it is.

-- Where events land, in the pipeline's configuration:
--
--     to: {table: recentchanges}
CREATE TABLE IF NOT EXISTS recentchanges (data jsonb);

-- Or, instead of the table, a webhook source, for
--
--     to: {webhook: "http://localhost:6876/api/webhook/materialize/public/recentchanges", secret: "${SOURCE_SECRET}"}
--
-- The secret is made once, by hand: it does not belong into a file, and CREATE SECRET IF NOT EXISTS would not change it.
--
--     CREATE SECRET recentchanges_secret AS '...';
--
--     CREATE SOURCE IF NOT EXISTS recentchanges_posted FROM WEBHOOK
--         BODY FORMAT JSON
--         CHECK (
--             WITH (HEADERS, BODY AS request_body, SECRET recentchanges_secret AS validation_secret)
--             constant_time_eq(
--                 decode(headers->'x-signature', 'base64'),
--                 hmac(request_body, validation_secret, 'sha256')
--             )
--         );
--
--     CREATE VIEW IF NOT EXISTS recentchanges AS SELECT body AS data FROM recentchanges_posted;
--
-- The address ends in the name of the source then: .../public/recentchanges_posted.

-- Events land at least once: after a restart some come again. Each has an id of its own, so that what is counted is counted once.
-- This is what it costs: the ids of all events are kept. Where a count may be off by a few, select from recentchanges instead.
CREATE VIEW IF NOT EXISTS edits AS
SELECT DISTINCT ON (data->'meta'->>'id') data
FROM recentchanges;

-- The fields of an edit. A plain view costs nothing: it is planned into the views that name it.
CREATE VIEW IF NOT EXISTS fields AS
SELECT
    data->>'$schema' AS schema,
    (data->'bot')::bool AS bot,
    data->>'comment' AS comment,
    (data->'id')::float::bigint AS id,
    (data->'length'->'new')::float::bigint AS length_new,
    (data->'length'->'old')::float::bigint AS length_old,
    data->'meta'->>'uri' AS meta_uri,
    data->'meta'->>'id' AS meta_id,
    data->'meta'->>'dt' AS meta_dt,
    (data->'minor')::bool AS minor,
    (data->'namespace')::float AS namespace,
    data->>'parsedcomment' AS parsedcomment,
    (data->'revision'->'new')::float::bigint AS revision_new,
    (data->'revision'->'old')::float::bigint AS revision_old,
    data->>'server_name' AS server_name,
    data->>'server_url' AS server_url,
    (data->'timestamp')::float AS r_ts,
    data->>'title' AS title,
    data->>'type' AS type,
    data->>'user' AS "user",
    data->>'wiki' AS wiki
FROM edits;

-- How many edits there have been.
CREATE MATERIALIZED VIEW IF NOT EXISTS counter AS
SELECT count(*) FROM fields;

-- How many edits each user has made.
CREATE MATERIALIZED VIEW IF NOT EXISTS useredits AS
SELECT "user", count(*) FROM fields GROUP BY "user";

-- The ten busiest users.
CREATE MATERIALIZED VIEW IF NOT EXISTS top10 AS
SELECT * FROM useredits ORDER BY count DESC LIMIT 10;
