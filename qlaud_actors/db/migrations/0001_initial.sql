-- The first schema: accounts, keys and their money, threads and their turns, tools.
-- Money is bigint nano-USD. Times are timestamptz by the database clock.

CREATE TABLE accounts (
    id          uuid PRIMARY KEY,
    name        text NOT NULL,
    billing     text NOT NULL DEFAULT 'postpaid' CHECK (billing IN ('postpaid', 'prepaid')),
    created_at  timestamptz NOT NULL DEFAULT now()
);

-- The account that exists from the start; QLAUD_MASTER_KEY is its first admin key.
INSERT INTO accounts (id, name) VALUES ('00000000-0000-7000-8000-000000000001', 'default');

CREATE TABLE keys (
    id             uuid PRIMARY KEY,
    account_id     uuid NOT NULL REFERENCES accounts,
    name           text NOT NULL,
    scope          text NOT NULL CHECK (scope IN ('standard', 'admin')),
    hash           bytea NOT NULL UNIQUE,
    prefix         text NOT NULL,
    end_user_id    text,
    thread_access  text NOT NULL DEFAULT 'own' CHECK (thread_access IN ('own', 'account')),
    is_master      boolean NOT NULL DEFAULT false,
    created_at     timestamptz NOT NULL DEFAULT now(),
    last_used_at   timestamptz,
    revoked_at     timestamptz
);
CREATE INDEX keys_by_account ON keys (account_id, created_at);

-- What a key may spend: hard, in nano-USD. spent + held never passes the limit.
CREATE TABLE budgets (
    key_id       uuid PRIMARY KEY REFERENCES keys,
    limit_nanos  bigint CHECK (limit_nanos >= 0),
    spent_nanos  bigint NOT NULL DEFAULT 0 CHECK (spent_nanos >= 0),
    held_nanos   bigint NOT NULL DEFAULT 0 CHECK (held_nanos >= 0)
);

-- Money set aside for a call in flight. Deleting the row is what releases it, so that happens once.
CREATE TABLE holds (
    id            uuid PRIMARY KEY,
    key_id        uuid NOT NULL REFERENCES keys,
    turn_id       uuid,
    amount_nanos  bigint NOT NULL CHECK (amount_nanos >= 0),
    created_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX holds_by_turn ON holds (turn_id);

CREATE TABLE usage_events (
    id                     uuid PRIMARY KEY,
    account_id             uuid NOT NULL REFERENCES accounts,
    key_id                 uuid NOT NULL REFERENCES keys,
    turn_id                uuid,
    step                   integer,
    end_user_id            text,
    model_slug             text NOT NULL,
    provider_slug          text NOT NULL,
    input_tokens           bigint NOT NULL,
    output_tokens          bigint NOT NULL,
    cache_read_tokens      bigint NOT NULL,
    cache_write_5m_tokens  bigint NOT NULL,
    cache_write_1h_tokens  bigint NOT NULL,
    provider_cost_picos    bigint NOT NULL,
    cost_nanos             bigint NOT NULL CHECK (cost_nanos >= 0),
    overrun_nanos          bigint NOT NULL DEFAULT 0,
    price_version          text NOT NULL,
    markup_bps             integer NOT NULL,
    estimated              boolean NOT NULL,
    latency_ms             integer NOT NULL,
    status                 integer NOT NULL,
    created_at             timestamptz NOT NULL DEFAULT now(),
    UNIQUE (turn_id, step)
);
CREATE INDEX usage_events_by_key ON usage_events (key_id, created_at);
CREATE INDEX usage_events_by_account ON usage_events (account_id, created_at);

CREATE TABLE threads (
    id              uuid PRIMARY KEY,
    account_id      uuid NOT NULL REFERENCES accounts,
    key_id          uuid NOT NULL REFERENCES keys,
    end_user_id     text,
    metadata        jsonb,
    title           text,
    workspace_id    text,
    kind            text,
    default_mode    text,
    default_model   text,
    last_seq        integer NOT NULL DEFAULT 0,
    last_turn       integer NOT NULL DEFAULT 0,
    created_at      timestamptz NOT NULL DEFAULT now(),
    last_active_at  timestamptz NOT NULL DEFAULT now(),
    deleted_at      timestamptz,
    purged_at       timestamptz
);
CREATE INDEX threads_unpurged ON threads (deleted_at) WHERE deleted_at IS NOT NULL AND purged_at IS NULL;
CREATE INDEX threads_by_account ON threads (account_id, last_active_at DESC) WHERE deleted_at IS NULL;
CREATE INDEX threads_by_key ON threads (key_id, last_active_at DESC) WHERE deleted_at IS NULL;
CREATE INDEX threads_by_end_user ON threads (account_id, end_user_id, last_active_at DESC)
    WHERE deleted_at IS NULL;

-- One user message carried to its answer. `number` orders the turns of a thread.
CREATE TABLE turns (
    id                 uuid PRIMARY KEY,
    thread_id          uuid NOT NULL REFERENCES threads,
    account_id         uuid NOT NULL REFERENCES accounts,
    key_id             uuid NOT NULL REFERENCES keys,
    number             integer NOT NULL,
    status             text NOT NULL DEFAULT 'queued'
                       CHECK (status IN ('queued', 'running', 'completed', 'failed', 'cancelled')),
    request            json NOT NULL,
    content            json NOT NULL,
    request_id         text NOT NULL,
    idempotency_key    text,
    fingerprint        bytea NOT NULL,
    user_seq           integer,
    final_seq          integer,
    epoch              integer NOT NULL DEFAULT 0,
    attempts           integer NOT NULL DEFAULT 0,
    owner              text,
    lease_until        timestamptz,
    wake_at            timestamptz NOT NULL DEFAULT now(),
    wakes              integer NOT NULL DEFAULT 0,
    cancel_requested   boolean NOT NULL DEFAULT false,
    iterations         integer NOT NULL DEFAULT 0,
    hit_max_iterations boolean NOT NULL DEFAULT false,
    cost_nanos         bigint NOT NULL DEFAULT 0,
    error              json,
    created_at         timestamptz NOT NULL DEFAULT now(),
    started_at         timestamptz,
    finished_at        timestamptz,
    UNIQUE (thread_id, number),
    UNIQUE (key_id, idempotency_key)
);
CREATE INDEX turns_unfinished ON turns (thread_id, number) WHERE status IN ('queued', 'running');
CREATE INDEX turns_queued ON turns (wake_at) WHERE status = 'queued';
CREATE INDEX turns_leased ON turns (lease_until) WHERE status = 'running';
CREATE INDEX turns_exhausted ON turns (created_at) WHERE status IN ('queued', 'running') AND attempts >= 3;

CREATE TABLE messages (
    thread_id   uuid NOT NULL REFERENCES threads,
    seq         integer NOT NULL,
    role        text NOT NULL CHECK (role IN ('user', 'assistant')),
    content     json NOT NULL,
    turn_id     uuid NOT NULL REFERENCES turns,
    request_id  text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (thread_id, seq)
);
CREATE INDEX messages_by_turn ON messages (turn_id, seq);

-- The journal of model calls. `log_seq` is where the event log stood when the step was saved.
CREATE TABLE steps (
    turn_id            uuid NOT NULL REFERENCES turns,
    number             integer NOT NULL,
    state              text NOT NULL CHECK (state IN ('started', 'done', 'failed')),
    epoch              integer NOT NULL,
    model_slug         text NOT NULL,
    hold_id            uuid,
    max_tokens         integer NOT NULL,
    message_id         text,
    message_seq        integer,
    stop_reason        text,
    stop_sequence      text,
    input_tokens       bigint,
    output_tokens      bigint,
    cache_read_tokens  bigint,
    cache_write_tokens bigint,
    cost_nanos         bigint NOT NULL DEFAULT 0,
    log_seq            bigint NOT NULL DEFAULT 0,
    started_at         timestamptz NOT NULL DEFAULT now(),
    finished_at        timestamptz,
    PRIMARY KEY (turn_id, number)
);

-- The journal of tool calls. `id` is the idempotency key that webhooks and vendors see.
CREATE TABLE tool_calls (
    id           text PRIMARY KEY,
    turn_id      uuid NOT NULL REFERENCES turns,
    step         integer NOT NULL,
    ordinal      integer,             -- NULL for a call made inside another
    tool_use_id  text NOT NULL,
    name         text NOT NULL,
    input        json NOT NULL,
    effect       text NOT NULL CHECK (effect IN ('read', 'idempotent', 'write')),
    kind         text NOT NULL,
    state        text NOT NULL CHECK (state IN ('intended', 'started', 'done', 'failed', 'unknown')),
    epoch        integer NOT NULL,
    output       json,
    is_error     boolean,
    deadline     timestamptz,
    created_at   timestamptz NOT NULL DEFAULT now(),
    started_at   timestamptz,
    finished_at  timestamptz,
    UNIQUE (turn_id, step, ordinal)
);
CREATE INDEX tool_calls_by_tool_use ON tool_calls (tool_use_id);

CREATE TABLE tools (
    id            text PRIMARY KEY,
    account_id    uuid NOT NULL REFERENCES accounts,
    name          text NOT NULL,
    description   text NOT NULL,
    input_schema  json NOT NULL,
    webhook_url   text NOT NULL,
    timeout_ms    integer NOT NULL,
    effect        text NOT NULL CHECK (effect IN ('read', 'idempotent', 'write')),
    shared        boolean NOT NULL,
    secret        bytea NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    revoked_at    timestamptz
);
CREATE UNIQUE INDEX tools_by_name ON tools (account_id, name) WHERE revoked_at IS NULL;

-- Set money aside for a call: as much of `want` as every limit in force affords, but no less than
-- `floor`. Returns the amount held, or NULL with the figures that refused it.
-- The order of locks is fixed: wallet (when there is one), then the key's budget.
CREATE FUNCTION place_hold_v1(
    hold_id uuid, for_key uuid, for_turn uuid, want bigint, floor bigint,
    OUT granted bigint, OUT limit_nanos bigint, OUT spent_nanos bigint, OUT held_nanos bigint
) LANGUAGE plpgsql AS $$
DECLARE
    room bigint;
BEGIN
    SELECT b.limit_nanos, b.spent_nanos, b.held_nanos
      INTO limit_nanos, spent_nanos, held_nanos
      FROM budgets b WHERE b.key_id = for_key FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'key % has no budget', for_key;
    END IF;
    room := COALESCE(limit_nanos - spent_nanos - held_nanos, want);
    -- A limit of zero refuses everything, also what costs nothing.
    IF room < floor OR limit_nanos = 0 THEN
        RETURN;
    END IF;
    granted := LEAST(want, room);
    UPDATE budgets b SET held_nanos = b.held_nanos + granted WHERE b.key_id = for_key;
    INSERT INTO holds (id, key_id, turn_id, amount_nanos)
    VALUES (hold_id, for_key, for_turn, granted);
END $$;

-- Turn a hold into spend, once. Charges the rated cost, but never past the key's limit: what a
-- provider bills beyond the worst case is returned as overrun and is the operator's.
-- Returns NULL when the hold is gone (settled or released before).
CREATE FUNCTION settle_hold_v1(
    the_hold uuid, rated bigint, OUT charged bigint, OUT overrun bigint
) LANGUAGE plpgsql AS $$
DECLARE
    hold holds;
    room bigint;
BEGIN
    DELETE FROM holds WHERE id = the_hold RETURNING * INTO hold;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT GREATEST(COALESCE(b.limit_nanos - b.spent_nanos - b.held_nanos, rated), 0) INTO room
      FROM budgets b WHERE b.key_id = hold.key_id FOR UPDATE;
    charged := LEAST(rated, hold.amount_nanos + room);
    overrun := rated - charged;
    UPDATE budgets b
       SET held_nanos = b.held_nanos - hold.amount_nanos, spent_nanos = b.spent_nanos + charged
     WHERE b.key_id = hold.key_id;
END $$;

-- Give holds back: each id that still exists is released exactly once. Returns how many were.
CREATE FUNCTION release_holds_v1(the_holds uuid[]) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    released integer;
BEGIN
    WITH gone AS (
        DELETE FROM holds WHERE id = ANY (the_holds) RETURNING key_id, amount_nanos
    ), per_key AS (
        SELECT key_id, sum(amount_nanos)::bigint AS amount, count(*) AS n FROM gone GROUP BY key_id
    ), given_back AS (
        UPDATE budgets b SET held_nanos = b.held_nanos - p.amount
          FROM per_key p WHERE b.key_id = p.key_id
    )
    SELECT COALESCE(sum(n), 0) INTO released FROM per_key;
    RETURN released;
END $$;
