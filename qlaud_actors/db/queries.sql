-- name: lock_migrations
-- One migrator at a time; released when the session ends.
SELECT pg_advisory_lock($1);

-- name: migrations_table_exists
-- Whether any migration was ever applied here.
SELECT to_regclass('public.migrations') IS NOT NULL;

-- name: create_migrations_table
-- Remembers which migrations were applied, with the hash of their text.
CREATE TABLE IF NOT EXISTS migrations (
    name text PRIMARY KEY,
    sha256 text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- name: applied_migrations
-- All applied migrations.
SELECT name, sha256 FROM migrations;

-- name: record_migration
-- Note one as applied.
INSERT INTO migrations (name, sha256) VALUES ($1, $2);
