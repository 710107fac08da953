-- A call of a provider has one id: of its hold, its usage event, its ledger entry and its attempts. Holds
-- have an owner, so that those of a process that died are given back soon, and follow their call to another
-- model.

-- Processes that hold money for calls. One is taken for dead when it has not said so in time.
CREATE TABLE processes (
    id           uuid PRIMARY KEY,
    alive_until  timestamptz NOT NULL
);

ALTER TABLE holds ADD COLUMN owner uuid;        -- the process; a turn's hold belongs to the turn instead

-- A candidate that was asked for a call, or would have been, and did not answer. Who answered is in the
-- usage event.
CREATE TABLE attempts (
    call_id        uuid NOT NULL,
    number         integer NOT NULL,
    key_id         uuid NOT NULL REFERENCES keys,
    turn_id        uuid,
    step           integer,
    provider_slug  text NOT NULL,
    model_slug     text NOT NULL,
    status         integer NOT NULL,
    error          text NOT NULL,
    ms             integer NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (call_id, number)
);
CREATE INDEX attempts_by_turn ON attempts (turn_id, step) WHERE turn_id IS NOT NULL;
CREATE INDEX attempts_by_key ON attempts (key_id, created_at);
