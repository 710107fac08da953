-- Wallets, the ledger, caps that begin anew each period, payments through Stripe.
--
-- Locks are taken in one order everywhere: turn, account, wallet, budget, hold. Who changes several keys
-- in one transaction goes by (account_id, key_id).

-- An account with a wallet is prepaid; one without is postpaid. So the row itself is the answer to
-- "may this account spend only what it has?", and a postpaid account has no row that all of its keys
-- would queue for.
ALTER TABLE accounts DROP COLUMN billing;

CREATE TABLE wallets (
    account_id     uuid PRIMARY KEY REFERENCES accounts,
    balance_nanos  bigint NOT NULL,             -- a refund or a dispute may take it below zero
    held_nanos     bigint NOT NULL DEFAULT 0 CHECK (held_nanos >= 0)
);

-- What a key may spend, per period. `spent` and `held` are of the window that began at `window_start`;
-- the first hold of a newer window begins it (nothing has to run at midnight). `charged` is of all time.
ALTER TABLE budgets
    ADD COLUMN cap_period text NOT NULL DEFAULT 'lifetime'
        CHECK (cap_period IN ('lifetime', 'day', 'week', 'month')),
    ADD COLUMN window_start timestamptz NOT NULL DEFAULT '-infinity',
    ADD COLUMN charged_nanos bigint NOT NULL DEFAULT 0;
UPDATE budgets SET charged_nanos = spent_nanos;

-- A hold belongs to the window and to the wallet that it was taken from.
ALTER TABLE holds
    ADD COLUMN window_start timestamptz NOT NULL DEFAULT '-infinity',
    ADD COLUMN from_wallet boolean NOT NULL DEFAULT false;

-- Every movement of an account's money, signed: in is positive. The sum is the balance.
-- A usage entry has the id of its usage event, which is what makes it unique; others have a key.
CREATE TABLE ledger_entries (
    id               uuid NOT NULL,
    account_id       uuid NOT NULL REFERENCES accounts,
    kind             text NOT NULL
                     CHECK (kind IN ('topup', 'usage', 'refund', 'dispute', 'credit', 'adjustment')),
    amount_nanos     bigint NOT NULL,
    idempotency_key  text,
    reference        text NOT NULL,             -- the key that spent, the payment, or the reason
    created_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account_id, id),
    CHECK (kind = 'usage' OR idempotency_key IS NOT NULL)
);
CREATE UNIQUE INDEX ledger_entries_once ON ledger_entries (idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX ledger_entries_not_usage ON ledger_entries (account_id) WHERE kind <> 'usage';
CREATE INDEX ledger_entries_by_reference ON ledger_entries (reference) WHERE kind <> 'usage';

-- What was spent before there was a ledger.
INSERT INTO ledger_entries (id, account_id, kind, amount_nanos, reference)
SELECT k.id, k.account_id, 'usage', -b.spent_nanos, k.id::text
  FROM budgets b JOIN keys k ON k.id = b.key_id WHERE b.spent_nanos > 0;

CREATE FUNCTION refuse_change_v1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is append-only: correct it with an entry of kind adjustment';
END $$;
CREATE TRIGGER ledger_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_entries
    EXECUTE FUNCTION refuse_change_v1();

-- Events of Stripe that were seen, and what they told of each payment (billing/payment.py reads `state`).
CREATE TABLE stripe_events (
    id           text PRIMARY KEY,
    type         text NOT NULL,
    received_at  timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE payments (
    id     text PRIMARY KEY,                    -- the payment intent
    state  json NOT NULL
);

-- When the window began that this moment lies in (UTC calendar; weeks begin on Monday), and when it ends.
CREATE FUNCTION cap_window_v1(period text, at timestamptz) RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT CASE period WHEN 'lifetime' THEN '-infinity'::timestamptz ELSE date_trunc(period, at, 'UTC') END
$$;
CREATE FUNCTION cap_resets_v1(period text, at timestamptz) RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT CASE period WHEN 'lifetime' THEN NULL::timestamptz
           ELSE (date_trunc(period, at AT TIME ZONE 'UTC') + ('1 ' || period)::interval) AT TIME ZONE 'UTC' END
$$;

-- Budgets as they are now: one whose window has passed is untouched, though nobody has begun the new one.
CREATE VIEW current_budgets AS
SELECT key_id, limit_nanos, cap_period, charged_nanos,
       CASE WHEN window_start >= cap_window_v1(cap_period, now()) THEN spent_nanos ELSE 0 END AS spent_nanos,
       CASE WHEN window_start >= cap_window_v1(cap_period, now()) THEN held_nanos ELSE 0 END AS held_nanos,
       (extract(epoch FROM cap_resets_v1(cap_period, now())) * 1000)::bigint AS resets_at_ms
  FROM budgets;

-- What an account has: paid in, less what its keys were charged. Equals the sum of its ledger without
-- reading every usage entry. A prepaid account's wallet holds the same figure.
CREATE FUNCTION account_balance_v1(account uuid) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT (SELECT COALESCE(sum(amount_nanos), 0) FROM ledger_entries
             WHERE account_id = account AND kind <> 'usage')::bigint
         - (SELECT COALESCE(sum(b.charged_nanos), 0) FROM budgets b JOIN keys k ON k.id = b.key_id
             WHERE k.account_id = account)::bigint
$$;

-- A key's budget, locked, and in the window of `at`: a newer window than its own begins here.
-- A clock that is a little behind stays in the newer window.
CREATE FUNCTION lock_budget_v1(for_key uuid, at timestamptz) RETURNS budgets LANGUAGE plpgsql AS $$
DECLARE
    budget budgets;
BEGIN
    SELECT * INTO budget FROM budgets WHERE key_id = for_key FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'key % has no budget', for_key;
    END IF;
    IF cap_window_v1(budget.cap_period, at) > budget.window_start THEN
        UPDATE budgets SET spent_nanos = 0, held_nanos = 0, window_start = cap_window_v1(cap_period, at)
         WHERE key_id = for_key RETURNING * INTO budget;
    END IF;
    RETURN budget;
END $$;

-- Set money aside for a call: as much of `want` as the key's cap and the wallet both afford, but no less
-- than `floor`. Returns the amount held, or NULL with the scope that refused and its figures (a wallet's
-- limit is its balance).
CREATE FUNCTION place_hold_v2(
    hold_id uuid, for_key uuid, for_turn uuid, want bigint, floor bigint, at timestamptz DEFAULT now(),
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
    INSERT INTO holds (id, key_id, turn_id, amount_nanos, window_start, from_wallet)
    VALUES (hold_id, for_key, for_turn, granted, budget.window_start, wallet.account_id IS NOT NULL);
END $$;

-- Turn a hold into spend, once: key, wallet and ledger together. Charges the rated cost, but past the hold
-- only what cap and wallet still afford: what a provider bills beyond that is returned as overrun and is
-- the operator's. A hold of a window that has passed counts in that window and nowhere else.
-- Returns NULL when the hold is gone (settled or released before).
CREATE FUNCTION settle_hold_v2(
    the_hold uuid, rated bigint, entry uuid, OUT charged bigint, OUT overrun bigint
) LANGUAGE plpgsql AS $$
DECLARE
    owner keys;
    wallet wallets;
    budget budgets;
    hold holds;
    present boolean;
    room bigint;
BEGIN
    SELECT k.* INTO owner FROM holds h JOIN keys k ON k.id = h.key_id WHERE h.id = the_hold;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    PERFORM FROM accounts WHERE id = owner.account_id FOR KEY SHARE;  -- it stays prepaid or postpaid
    SELECT * INTO wallet FROM wallets WHERE account_id = owner.account_id FOR UPDATE;
    SELECT * INTO budget FROM budgets WHERE key_id = owner.id FOR UPDATE;
    DELETE FROM holds WHERE id = the_hold RETURNING * INTO hold;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    present := hold.window_start = budget.window_start;
    room := LEAST(
        CASE WHEN budget.limit_nanos IS NULL THEN rated
             WHEN present THEN GREATEST(budget.limit_nanos - budget.spent_nanos - budget.held_nanos, 0)
             ELSE 0 END,
        GREATEST(COALESCE(wallet.balance_nanos - wallet.held_nanos, rated), 0));
    charged := LEAST(rated, hold.amount_nanos + room);
    overrun := rated - charged;
    UPDATE budgets
       SET held_nanos = held_nanos - CASE WHEN present THEN hold.amount_nanos ELSE 0 END,
           spent_nanos = spent_nanos + CASE WHEN present THEN charged ELSE 0 END,
           charged_nanos = charged_nanos + charged
     WHERE key_id = owner.id;
    IF wallet.account_id IS NOT NULL THEN
        UPDATE wallets
           SET held_nanos = held_nanos - CASE WHEN hold.from_wallet THEN hold.amount_nanos ELSE 0 END,
               balance_nanos = balance_nanos - charged
         WHERE account_id = wallet.account_id;
    END IF;
    INSERT INTO ledger_entries (id, account_id, kind, amount_nanos, reference)
    VALUES (entry, owner.account_id, 'usage', -charged, owner.id::text);
END $$;

-- Give holds back: each id that still exists is released exactly once. Returns how many were.
CREATE FUNCTION release_holds_v2(the_holds uuid[]) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    owner record;
    begun timestamptz;
    gone record;
    released integer := 0;
BEGIN
    FOR owner IN SELECT DISTINCT k.account_id, k.id FROM holds h JOIN keys k ON k.id = h.key_id
                  WHERE h.id = ANY (the_holds) ORDER BY k.account_id, k.id
    LOOP
        PERFORM FROM wallets WHERE account_id = owner.account_id FOR UPDATE;
        SELECT window_start INTO begun FROM budgets WHERE key_id = owner.id FOR UPDATE;
        WITH deleted AS (
            DELETE FROM holds h WHERE h.id = ANY (the_holds) AND h.key_id = owner.id RETURNING *
        )
        SELECT count(*) AS holds,
               COALESCE(sum(amount_nanos) FILTER (WHERE window_start = begun), 0)::bigint AS of_key,
               COALESCE(sum(amount_nanos) FILTER (WHERE from_wallet), 0)::bigint AS of_wallet
          INTO gone FROM deleted;
        UPDATE budgets SET held_nanos = held_nanos - gone.of_key WHERE key_id = owner.id;
        IF gone.of_wallet > 0 THEN
            UPDATE wallets SET held_nanos = held_nanos - gone.of_wallet WHERE account_id = owner.account_id;
        END IF;
        released := released + gone.holds;
    END LOOP;
    RETURN released;
END $$;

-- Another period for a key's cap. Spent is then what the new window has seen; holds move into it.
CREATE FUNCTION set_cap_period_v1(for_key uuid, period text, at timestamptz DEFAULT now())
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    begun timestamptz := cap_window_v1(period, at);
BEGIN
    PERFORM FROM budgets WHERE key_id = for_key AND cap_period <> period FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    UPDATE holds SET window_start = begun WHERE key_id = for_key;
    UPDATE budgets
       SET cap_period = period, window_start = begun,
           spent_nanos = (SELECT COALESCE(sum(cost_nanos), 0) FROM usage_events
                           WHERE key_id = for_key AND created_at >= begun),
           held_nanos = (SELECT COALESCE(sum(amount_nanos), 0) FROM holds WHERE key_id = for_key)
     WHERE key_id = for_key;
END $$;

-- Write an entry that is not usage, once per idempotency key. Returns whether it was written now
-- (not when it was there, nor when there is no such account).
CREATE FUNCTION post_entry_v1(
    entry uuid, account uuid, entry_kind text, amount bigint, once text, about text
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM accounts WHERE id = account FOR KEY SHARE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO ledger_entries (id, account_id, kind, amount_nanos, idempotency_key, reference)
    VALUES (entry, account, entry_kind, amount, once, about) ON CONFLICT DO NOTHING;
    IF FOUND THEN
        UPDATE wallets SET balance_nanos = balance_nanos + amount WHERE account_id = account;
        RETURN true;
    END IF;
    RETURN false;
END $$;

-- Make an account prepaid or postpaid. The account's lock keeps every settlement out meanwhile.
CREATE FUNCTION set_billing_v1(account uuid, prepaid boolean) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM accounts WHERE id = account FOR UPDATE;
    IF prepaid THEN
        INSERT INTO wallets (account_id, balance_nanos)
        VALUES (account, account_balance_v1(account)) ON CONFLICT DO NOTHING;
        RETURN;
    END IF;
    PERFORM FROM wallets WHERE account_id = account FOR UPDATE;
    UPDATE holds h SET from_wallet = false FROM keys k
     WHERE k.id = h.key_id AND k.account_id = account AND h.from_wallet;
    DELETE FROM wallets WHERE account_id = account;
END $$;

DROP FUNCTION place_hold_v1, settle_hold_v1, release_holds_v1;
