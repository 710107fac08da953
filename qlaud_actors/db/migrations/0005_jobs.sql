-- Webhooks that tell an account what happened, and jobs: requests to a model that are answered later.

-- Where an account wants to be told, of which events. One row without a URL is the account's own: its
-- secret signs what goes to addresses that jobs name.
CREATE TABLE webhooks (
    id             uuid PRIMARY KEY,
    account_id     uuid NOT NULL REFERENCES accounts,
    url            text,
    events         text[] NOT NULL,
    secret         bytea NOT NULL,               -- sealed; empty once deleted
    usage_batches  bigint NOT NULL DEFAULT 0,    -- numbers the deliveries of usage.recorded
    created_at     timestamptz NOT NULL DEFAULT now(),
    deleted_at     timestamptz
);
CREATE INDEX webhooks_by_account ON webhooks (account_id) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX webhooks_of_jobs ON webhooks (account_id) WHERE url IS NULL AND deleted_at IS NULL;

-- The outbox: written in the transaction of the fact that it tells. `epoch` is the fence of an attempt,
-- whose lease is that `next_attempt_at` lies behind it.
CREATE TABLE deliveries (
    id               uuid PRIMARY KEY,
    webhook_id       uuid NOT NULL REFERENCES webhooks,
    event            text NOT NULL,
    url              text NOT NULL,
    body             text NOT NULL,
    status           text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'delivered', 'dead')),
    epoch            integer NOT NULL DEFAULT 0,
    attempts         integer NOT NULL DEFAULT 0,
    next_attempt_at  timestamptz NOT NULL DEFAULT now(),
    last_attempt_at  timestamptz,
    last_status      integer,
    last_error       text,
    created_at       timestamptz NOT NULL DEFAULT now(),
    ended_at         timestamptz
);
CREATE INDEX deliveries_due ON deliveries (next_attempt_at) WHERE status = 'pending';
CREATE INDEX deliveries_by_webhook ON deliveries (webhook_id, id);
CREATE INDEX deliveries_ended ON deliveries (ended_at) WHERE status <> 'pending';

-- Usage events that a webhook was not told of yet. A row is written with its event and deleted with the
-- delivery that tells it, so each event is told once, however late its transaction commits; a cursor over
-- ids or times would pass over it. No reference to `webhooks`: its lock would be shared by all settlements.
CREATE TABLE usage_queue (
    webhook_id  uuid NOT NULL,
    position    bigint GENERATED ALWAYS AS IDENTITY,
    usage_id    uuid NOT NULL REFERENCES usage_events ON DELETE CASCADE,
    PRIMARY KEY (webhook_id, position)
);
CREATE INDEX usage_queue_by_usage ON usage_queue (usage_id);

-- A trigger, so that no way of writing usage can forget it.
CREATE FUNCTION queue_usage_v1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO usage_queue (webhook_id, usage_id)
    SELECT id, NEW.id FROM webhooks
     WHERE account_id = NEW.account_id AND deleted_at IS NULL AND 'usage.recorded' = ANY (events);
    RETURN NULL;
END $$;
CREATE TRIGGER usage_is_told AFTER INSERT ON usage_events FOR EACH ROW EXECUTE FUNCTION queue_usage_v1();

-- The window and the cap whose refusal a key's account was told of last.
CREATE TABLE cap_notices (
    key_id        uuid PRIMARY KEY REFERENCES keys,
    window_start  timestamptz NOT NULL,
    limit_nanos   bigint NOT NULL
);

-- Requests to a model that are answered later. Carried as turns are: a claim raises `epoch`, which fences
-- every later write, and lasts until `lease_until` unless it is renewed.
CREATE TABLE jobs (
    id                uuid PRIMARY KEY,
    account_id        uuid NOT NULL REFERENCES accounts,
    key_id            uuid NOT NULL REFERENCES keys,
    endpoint          text NOT NULL,
    body              json,                      -- NULL once the job has ended
    body_bytes        integer NOT NULL,          -- of the request that brought it
    headers           json NOT NULL,
    webhook_url       text,
    request_id        text NOT NULL,
    idempotency_key   text,
    fingerprint       bytea NOT NULL,
    status            text NOT NULL DEFAULT 'queued'
                      CHECK (status IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    epoch             integer NOT NULL DEFAULT 0,
    attempts          integer NOT NULL DEFAULT 0,
    owner             text,
    lease_until       timestamptz,
    cancel_requested  boolean NOT NULL DEFAULT false,
    call_id           uuid,                      -- of the attempt under way: its hold, its usage event
    model_slug        text,
    response          text,
    cost_nanos        bigint NOT NULL DEFAULT 0,
    error             json,
    created_at        timestamptz NOT NULL DEFAULT now(),
    started_at        timestamptz,
    finished_at       timestamptz,
    UNIQUE (key_id, idempotency_key)
);
CREATE INDEX jobs_by_account ON jobs (account_id, id);
CREATE INDEX jobs_by_key ON jobs (key_id, id);
CREATE INDEX jobs_unfinished ON jobs (id) WHERE status IN ('queued', 'running');
CREATE INDEX jobs_unfinished_by_key ON jobs (key_id) WHERE status IN ('queued', 'running');
CREATE INDEX jobs_ended ON jobs (finished_at) WHERE status NOT IN ('queued', 'running');
