-- Deletions of end users, and how long conversations are kept.

-- One deletion, and what it has removed so far. Whom it is about is forgotten in the transaction that ends it:
-- a receipt names nobody.
CREATE TABLE deletions (
    id            uuid PRIMARY KEY,
    account_id    uuid NOT NULL REFERENCES accounts,
    end_user_id   text,                                     -- NULL once it is done
    removed       jsonb NOT NULL DEFAULT '{}',              -- how many rows of what
    due_at        timestamptz NOT NULL DEFAULT now(),       -- when somebody has to go on with it
    created_at    timestamptz NOT NULL DEFAULT now(),
    completed_at  timestamptz,
    CHECK ((end_user_id IS NULL) = (completed_at IS NOT NULL))
);
CREATE UNIQUE INDEX deletions_running ON deletions (account_id, end_user_id) WHERE end_user_id IS NOT NULL;
CREATE INDEX deletions_due ON deletions (due_at) WHERE completed_at IS NULL;

-- A key whose end user was deleted.
ALTER TABLE keys ADD COLUMN erased_at timestamptz;
CREATE INDEX keys_by_end_user ON keys (account_id, end_user_id) WHERE end_user_id IS NOT NULL;

-- A call that was on its way while its key was erased is still charged, but names nobody. The lock is the one
-- that the reference to `keys` takes anyway; whoever erases a key locks it against that, so of the two one
-- sees the other.
CREATE FUNCTION unlink_usage_v1() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    erased timestamptz;
BEGIN
    SELECT erased_at INTO erased FROM keys WHERE id = NEW.key_id FOR KEY SHARE;
    IF erased IS NOT NULL THEN
        NEW.end_user_id := NULL;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER usage_of_nobody BEFORE INSERT ON usage_events
    FOR EACH ROW WHEN (NEW.end_user_id IS NOT NULL) EXECUTE FUNCTION unlink_usage_v1();

-- How long conversations are kept: of an account, and of a thread that has a rule of its own. NULL: for ever.
CREATE TABLE retention (
    account_id            uuid PRIMARY KEY REFERENCES accounts,
    ttl_days              integer CHECK (ttl_days > 0),          -- since a thread was last active
    keep_latest_threads   integer CHECK (keep_latest_threads > 0),   -- of each end user
    keep_latest_messages  integer CHECK (keep_latest_messages > 0),  -- of each thread
    changed_at            timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE threads
    ADD COLUMN ttl_days integer CHECK (ttl_days > 0),
    ADD COLUMN keep_latest_messages integer CHECK (keep_latest_messages > 0);
CREATE INDEX artifacts_by_thread ON artifacts (thread_id) WHERE thread_id IS NOT NULL;
CREATE INDEX threads_deleted ON threads (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX threads_with_own_rule ON threads (id)
    WHERE deleted_at IS NULL AND (ttl_days IS NOT NULL OR keep_latest_messages IS NOT NULL);
