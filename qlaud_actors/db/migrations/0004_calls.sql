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

-- Set money aside for a call: as much of `want` as the key's cap and the wallet both afford, but no less
-- than `floor`. Returns the amount held, or NULL with the scope that refused and its figures (a wallet's
-- limit is its balance).
CREATE FUNCTION place_hold_v3(
    hold_id uuid, for_key uuid, for_turn uuid, for_owner uuid, want bigint, floor bigint,
    at timestamptz DEFAULT now(),
    OUT granted bigint, OUT scope text, OUT limit_nanos bigint, OUT spent_nanos bigint,
    OUT held_nanos bigint, OUT resets_at_ms bigint
) LANGUAGE plpgsql AS $$
DECLARE
    wallet wallets;
    budget budgets;
    key_room bigint;
    wallet_room bigint;
BEGIN
    SELECT w.* INTO wallet FROM wallets w
     WHERE w.account_id = (SELECT k.account_id FROM keys k WHERE k.id = for_key) FOR UPDATE;
    budget := lock_budget_v1(for_key, at);
    key_room := COALESCE(budget.limit_nanos - budget.spent_nanos - budget.held_nanos, want);
    wallet_room := COALESCE(wallet.balance_nanos - wallet.held_nanos, want);
    -- Nothing at all refuses everything, also what costs nothing.
    IF key_room < floor OR budget.limit_nanos = 0 THEN
        scope := 'key';
        limit_nanos := budget.limit_nanos;
        spent_nanos := budget.spent_nanos;
        held_nanos := budget.held_nanos;
        resets_at_ms := extract(epoch FROM cap_resets_v1(budget.cap_period, at)) * 1000;
        RETURN;
    END IF;
    IF wallet_room < floor OR wallet.balance_nanos <= 0 THEN
        scope := 'wallet';
        limit_nanos := wallet.balance_nanos;
        spent_nanos := 0;
        held_nanos := wallet.held_nanos;
        RETURN;
    END IF;
    granted := LEAST(want, key_room, wallet_room);
    UPDATE budgets b SET held_nanos = b.held_nanos + granted WHERE b.key_id = for_key;
    IF wallet.account_id IS NOT NULL THEN
        UPDATE wallets w SET held_nanos = w.held_nanos + granted WHERE w.account_id = wallet.account_id;
    END IF;
    INSERT INTO holds (id, key_id, turn_id, owner, amount_nanos, window_start, from_wallet)
    VALUES (hold_id, for_key, for_turn, for_owner, granted, budget.window_start, wallet.account_id IS NOT NULL);
END $$;

-- Hold another amount for the same call: its next candidate costs more, or less. As `place_hold_v3`; when it
-- is refused nothing is held for the call any more.
CREATE FUNCTION change_hold_v1(
    the_hold uuid, for_key uuid, for_turn uuid, for_owner uuid, want bigint, floor bigint,
    OUT granted bigint, OUT scope text, OUT limit_nanos bigint, OUT spent_nanos bigint,
    OUT held_nanos bigint, OUT resets_at_ms bigint
) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM release_holds_v2(ARRAY[the_hold]);
    SELECT p.* INTO granted, scope, limit_nanos, spent_nanos, held_nanos, resets_at_ms
      FROM place_hold_v3(the_hold, for_key, for_turn, for_owner, want, floor) p;
END $$;

-- Turn a call's hold into spend, once: key, wallet and ledger together. Charges the rated cost, but past
-- the hold only what cap and wallet still afford: what a provider bills beyond that is returned as overrun
-- and is the operator's. A hold of a window that has passed counts in that window and nowhere else.
-- A call whose hold was given back (its process was taken for dead) is charged what is still afforded.
-- The caller has written the usage event of this call in the same transaction, which is what makes it once.
CREATE FUNCTION settle_hold_v3(
    the_call uuid, for_key uuid, rated bigint, OUT charged bigint, OUT overrun bigint
) LANGUAGE plpgsql AS $$
DECLARE
    account uuid := (SELECT account_id FROM keys WHERE id = for_key);
    wallet wallets;
    budget budgets;
    hold holds;
    present boolean;
    room bigint;
BEGIN
    PERFORM FROM accounts WHERE id = account FOR KEY SHARE;  -- it stays prepaid or postpaid
    SELECT * INTO wallet FROM wallets WHERE account_id = account FOR UPDATE;
    SELECT * INTO budget FROM budgets WHERE key_id = for_key FOR UPDATE;
    DELETE FROM holds WHERE id = the_call RETURNING * INTO hold;
    present := NOT FOUND OR hold.window_start = budget.window_start;
    room := LEAST(
        CASE WHEN budget.limit_nanos IS NULL THEN rated
             WHEN present THEN GREATEST(budget.limit_nanos - budget.spent_nanos - budget.held_nanos, 0)
             ELSE 0 END,
        GREATEST(COALESCE(wallet.balance_nanos - wallet.held_nanos, rated), 0));
    charged := LEAST(rated, COALESCE(hold.amount_nanos, 0) + room);
    overrun := rated - charged;
    UPDATE budgets
       SET held_nanos = held_nanos - CASE WHEN present THEN COALESCE(hold.amount_nanos, 0) ELSE 0 END,
           spent_nanos = spent_nanos + CASE WHEN present THEN charged ELSE 0 END,
           charged_nanos = charged_nanos + charged
     WHERE key_id = for_key;
    IF wallet.account_id IS NOT NULL THEN
        UPDATE wallets
           SET held_nanos = held_nanos - CASE WHEN hold.from_wallet THEN hold.amount_nanos ELSE 0 END,
               balance_nanos = balance_nanos - charged
         WHERE account_id = account;
    END IF;
    INSERT INTO ledger_entries (id, account_id, kind, amount_nanos, reference)
    VALUES (the_call, account, 'usage', -charged, for_key::text);
    UPDATE usage_events SET cost_nanos = charged, overrun_nanos = overrun WHERE id = the_call;
END $$;

DROP FUNCTION place_hold_v2, settle_hold_v2;
