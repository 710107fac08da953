-- What a thread was called where it came from, so that importing it again makes no second one.
ALTER TABLE threads ADD COLUMN external_id text;
CREATE UNIQUE INDEX threads_by_external_id ON threads (account_id, external_id)
    WHERE external_id IS NOT NULL AND deleted_at IS NULL;
