-- What tools keep: texts, JSON, pictures. Small enough for rows; what is larger belongs elsewhere.

CREATE TABLE artifacts (
    id          uuid PRIMARY KEY,
    account_id  uuid NOT NULL REFERENCES accounts,
    owner       text NOT NULL,                   -- user:<end user>, thread:<id>, key:<id> or account
    thread_id   uuid,                            -- where it was made
    name        text NOT NULL,
    mime        text NOT NULL,
    content     bytea NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (account_id, owner, name)
);
-- Pictures are compressed already, and texts this small are not worth the work.
ALTER TABLE artifacts ALTER COLUMN content SET STORAGE EXTERNAL;

-- What belongs to a thread goes with it, in the same transaction.
CREATE FUNCTION forget_artifacts_v1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM artifacts WHERE account_id = NEW.account_id AND owner = 'thread:' || NEW.id;
    RETURN NULL;
END $$;
CREATE TRIGGER threads_forget_artifacts AFTER UPDATE OF deleted_at ON threads
    FOR EACH ROW WHEN (OLD.deleted_at IS NULL AND NEW.deleted_at IS NOT NULL) EXECUTE FUNCTION forget_artifacts_v1();
