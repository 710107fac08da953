-- Turns that wait for a person's word, calls that are repeated under a caller's own key, and large results.

-- A parked turn is at the head of its thread's line and nobody carries it.
-- `parked_epoch` is the epoch that parked it last, `parked_seq` where its event log stood then.
ALTER TABLE turns
    DROP CONSTRAINT turns_status_check,
    ADD CONSTRAINT turns_status_check
        CHECK (status IN ('queued', 'running', 'parked', 'completed', 'failed', 'cancelled')),
    ADD COLUMN parked_epoch integer,
    ADD COLUMN parked_seq bigint NOT NULL DEFAULT 0;
DROP INDEX turns_unfinished;
CREATE INDEX turns_unfinished ON turns (thread_id, number) WHERE status IN ('queued', 'running', 'parked');

-- Asked for at all: `approval_expires_at`. Decided: `approved`; by nobody when the time ran out.
ALTER TABLE tool_calls
    DROP CONSTRAINT tool_calls_state_check,
    ADD CONSTRAINT tool_calls_state_check
        CHECK (state IN ('intended', 'awaiting_approval', 'started', 'done', 'failed', 'unknown')),
    ADD COLUMN approval_expires_at timestamptz,
    ADD COLUMN approved boolean,
    ADD COLUMN decided_by uuid REFERENCES keys,
    ADD COLUMN decided_at timestamptz;
CREATE INDEX tool_calls_awaiting ON tool_calls (approval_expires_at) WHERE state = 'awaiting_approval';
CREATE INDEX tool_calls_awaiting_of_turn ON tool_calls (turn_id) WHERE state = 'awaiting_approval';

-- What its turns do when they do not say.
ALTER TABLE threads ADD COLUMN approval text CHECK (approval IN ('never', 'writes', 'always'));

-- The first outcome of a call that the caller gave an idempotency key: in a thread, or outside of threads of
-- one API key. Without `finished_at` nobody knows it:
-- the call is on its way, or its process died.
CREATE TABLE keyed_calls (
    key_id           uuid NOT NULL REFERENCES keys,
    idempotency_key  text NOT NULL,
    fingerprint      bytea NOT NULL,
    call_id          text NOT NULL,
    thread_id        uuid REFERENCES threads ON DELETE CASCADE,
    output           json,
    is_error         boolean,
    status           text,
    started_at       timestamptz NOT NULL DEFAULT now(),
    finished_at      timestamptz,
    UNIQUE NULLS NOT DISTINCT (key_id, thread_id, idempotency_key)
);
CREATE INDEX keyed_calls_by_age ON keyed_calls (started_at);
CREATE INDEX keyed_calls_by_thread ON keyed_calls (thread_id) WHERE thread_id IS NOT NULL;

-- Results that were larger than what a model gets to read at once: text in UTF-8, named as their calls.
CREATE TABLE tool_results (
    id           text PRIMARY KEY,
    key_id       uuid NOT NULL REFERENCES keys,
    thread_id    uuid REFERENCES threads ON DELETE CASCADE,
    content      bytea NOT NULL,
    expires_at   timestamptz NOT NULL
);
CREATE INDEX tool_results_by_age ON tool_results (expires_at);
CREATE INDEX tool_results_by_thread ON tool_results (thread_id) WHERE thread_id IS NOT NULL;
