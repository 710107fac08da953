-- Holds and settlements of many calls in one statement: a process commits once for all who wait.
-- The arithmetic stands here alone; one call is a batch of one.
--
-- All functions take their locks in the order of 0002 (account, wallet, budget, hold; several keys by account
-- and key) and then treat their members one after the other, in the order given within a key. The account's
-- is shared: it only keeps the account prepaid or postpaid meanwhile.
-- Tables of short-lived rows look small to the planner: it is kept from reading them whole.

-- Members of a batch do not wait long for a row that one of them needs: they are then written one by one.
CREATE FUNCTION hurry_v1(members integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF members > 1 THEN
        PERFORM set_config('lock_timeout', '250ms', true);
    END IF;
END $$;

-- Write back what was changed under the locks of a budget and of its account's wallet.
CREATE FUNCTION save_money_v1(budget budgets, wallet wallets) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE budgets b
       SET held_nanos = budget.held_nanos, spent_nanos = budget.spent_nanos,
           charged_nanos = budget.charged_nanos
     WHERE b.key_id = budget.key_id;
    IF wallet.account_id IS NOT NULL THEN
        UPDATE wallets w SET held_nanos = wallet.held_nanos, balance_nanos = wallet.balance_nanos
         WHERE w.account_id = wallet.account_id;
    END IF;
END $$;

-- Set money aside for calls: for each as much of what it wants as key and wallet afford, but no less than
-- its floor. One row for each call, in order: the amount held, or NULL with the scope that refused; and the
-- figures that it met (a wallet's limit is its balance). A member with a secret was verified before, from
-- memory: when that secret does not open the key any more, or the key has changed since (`version` is its
-- row's, as Postgres counts), it is refused with the scope `changed`.
CREATE FUNCTION place_holds_v1(
    calls uuid[], for_keys uuid[], for_turns uuid[], for_owner uuid, wants bigint[], floors bigint[],
    secrets bytea[], versions bigint[], at timestamptz DEFAULT now()
) RETURNS TABLE (
    granted bigint, scope text, limit_nanos bigint, spent_nanos bigint, held_nanos bigint, resets_at_ms bigint
) LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    member record;
    wallet wallets;
    budget budgets;
    key_room bigint;
    wallet_room bigint;
    size integer[] := ARRAY[cardinality(calls)];
    amounts bigint[] := array_fill(NULL::bigint, size);
    scopes text[] := array_fill(NULL::text, size);
    limits bigint[] := array_fill(NULL::bigint, size);
    spents bigint[] := array_fill(NULL::bigint, size);
    helds bigint[] := array_fill(NULL::bigint, size);
    resets bigint[] := array_fill(NULL::bigint, size);
    begun timestamptz[] := array_fill(NULL::timestamptz, size);
    present_version bigint;
    from_wallets boolean[] := array_fill(NULL::boolean, size);
BEGIN
    PERFORM hurry_v1(cardinality(calls));
    FOR member IN
        SELECT u.n, u.key_id, u.want, u.lowest, k.account_id, u.version,
               u.secret IS NULL OR COALESCE(
                   k.xmin::text::bigint = u.version AND k.revoked_at IS NULL
                   AND (k.expires_at IS NULL OR k.expires_at > at)
                   AND EXISTS (SELECT FROM key_secrets s
                                WHERE s.hash = u.secret AND s.key_id = k.id
                                  AND (s.expires_at IS NULL OR s.expires_at > at)), false) AS unchanged
          FROM unnest(for_keys, wants, floors, secrets, versions)
               WITH ORDINALITY AS u(key_id, want, lowest, secret, version, n)
          LEFT JOIN keys k ON k.id = u.key_id
         ORDER BY k.account_id, u.key_id, u.n
    LOOP
        IF budget.key_id IS DISTINCT FROM member.key_id THEN
            PERFORM save_money_v1(budget, wallet);
            PERFORM FROM accounts WHERE id = member.account_id FOR KEY SHARE;
            SELECT w.* INTO wallet FROM wallets w WHERE w.account_id = member.account_id FOR UPDATE;
            budget := lock_budget_v1(member.key_id, at);
            -- The key may have changed while its budget was waited for.
            SELECT k.xmin::text::bigint INTO present_version FROM keys k WHERE k.id = member.key_id;
        END IF;
        IF NOT member.unchanged OR member.version <> present_version THEN
            scopes[member.n] := 'changed';
            CONTINUE;
        END IF;
        key_room := COALESCE(budget.limit_nanos - budget.spent_nanos - budget.held_nanos, member.want);
        wallet_room := COALESCE(wallet.balance_nanos - wallet.held_nanos, member.want);
        -- Nothing at all refuses everything, also what costs nothing.
        IF key_room < member.lowest OR budget.spent_nanos >= budget.limit_nanos THEN
            scopes[member.n] := 'key';
            resets[member.n] := extract(epoch FROM cap_resets_v1(budget.cap_period, at)) * 1000;
        ELSIF wallet_room < member.lowest OR wallet.balance_nanos <= 0 THEN
            scopes[member.n] := 'wallet';
            limits[member.n] := wallet.balance_nanos;
            spents[member.n] := 0;
            helds[member.n] := wallet.held_nanos;
            CONTINUE;
        ELSE
            amounts[member.n] := LEAST(member.want, key_room, wallet_room);
            begun[member.n] := budget.window_start;
            from_wallets[member.n] := wallet.account_id IS NOT NULL;
        END IF;
        limits[member.n] := budget.limit_nanos;
        spents[member.n] := budget.spent_nanos;
        helds[member.n] := budget.held_nanos;
        IF amounts[member.n] IS NOT NULL THEN
            budget.held_nanos := budget.held_nanos + amounts[member.n];
            wallet.held_nanos := wallet.held_nanos + amounts[member.n];
        END IF;
    END LOOP;
    PERFORM save_money_v1(budget, wallet);
    INSERT INTO holds (id, key_id, turn_id, owner, amount_nanos, window_start, from_wallet)
    SELECT u.id, u.key_id, u.turn_id, for_owner, u.amount, u.window_start, u.from_wallet
      FROM unnest(calls, for_keys, for_turns, amounts, begun, from_wallets)
           AS u(id, key_id, turn_id, amount, window_start, from_wallet)
     WHERE u.amount IS NOT NULL;
    RETURN QUERY SELECT * FROM unnest(amounts, scopes, limits, spents, helds, resets);
END $$;

-- Give holds back: each id that still exists is released exactly once. Returns how many were.
CREATE FUNCTION release_holds_v3(the_holds uuid[]) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    owner record;
    begun timestamptz;
    gone record;
    released integer := 0;
BEGIN
    FOR owner IN SELECT DISTINCT k.account_id, k.id FROM holds h JOIN keys k ON k.id = h.key_id
                  WHERE h.id = ANY (the_holds) ORDER BY k.account_id, k.id
    LOOP
        PERFORM FROM accounts WHERE id = owner.account_id FOR KEY SHARE;
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

-- Make an account prepaid or postpaid. Its lock keeps every hold and settlement out meanwhile; what is held
-- already is held of the wallet from here on, or of nothing.
CREATE FUNCTION set_billing_v2(account uuid, prepaid boolean) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM accounts WHERE id = account FOR UPDATE;
    IF prepaid = EXISTS (SELECT FROM wallets WHERE account_id = account) THEN
        RETURN;
    END IF;
    UPDATE holds h SET from_wallet = prepaid FROM keys k WHERE k.id = h.key_id AND k.account_id = account;
    IF prepaid THEN
        INSERT INTO wallets (account_id, balance_nanos, held_nanos)
        SELECT account, account_balance_v1(account), COALESCE(sum(h.amount_nanos), 0)
          FROM holds h JOIN keys k ON k.id = h.key_id WHERE k.account_id = account;
    ELSE
        DELETE FROM wallets WHERE account_id = account;
    END IF;
END $$;

-- Hold another amount for the same call: its next candidate costs more, or less. When it is refused nothing
-- is held for the call any more.
CREATE FUNCTION change_hold_v1(
    the_hold uuid, for_key uuid, for_turn uuid, for_owner uuid, want bigint, floor bigint
) RETURNS TABLE (
    granted bigint, scope text, limit_nanos bigint, spent_nanos bigint, held_nanos bigint, resets_at_ms bigint
) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM release_holds_v3(ARRAY[the_hold]);
    RETURN QUERY SELECT * FROM place_holds_v1(
        ARRAY[the_hold], ARRAY[for_key], ARRAY[for_turn], for_owner, ARRAY[want], ARRAY[floor],
        ARRAY[NULL::bytea], ARRAY[NULL::bigint]);
END $$;

-- Turn the holds of calls into spend, each once: usage event, ledger entry, key and wallet together. One row
-- for each call, in order: what it was charged, and what its provider bills beyond what is afforded, which
-- is the operator's. NULLs when its step was charged by another call.
--
-- A call is charged its rated cost, but past its hold only what cap and wallet still afford. A hold of a
-- window that has passed counts in that window and nowhere else. A call whose hold was given back (its
-- process was taken for dead) is charged what is still afforded. One that was settled before gets its
-- figures again, and nothing else happens.
CREATE FUNCTION settle_calls_v1(
    calls uuid[], for_keys uuid[], for_turns uuid[], for_steps integer[], end_users text[], models text[],
    providers text[], inputs bigint[], outputs bigint[], cache_reads bigint[], cache_writes_5m bigint[],
    cache_writes_1h bigint[], costs_picos bigint[], rated bigint[], price_versions text[], markups integer[],
    estimates boolean[], latencies integer[], statuses integer[]
) RETURNS TABLE (charged bigint, overrun bigint) LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    owner record;
    member record;
    wallet wallets;
    budget budgets;
    present boolean;
    room bigint;
    charge bigint;
    size integer[] := ARRAY[cardinality(calls)];
    charges bigint[] := array_fill(NULL::bigint, size);
    overruns bigint[] := array_fill(NULL::bigint, size);
    accounts_of uuid[] := array_fill(NULL::uuid, size);      -- of those that are charged now
BEGIN
    PERFORM hurry_v1(cardinality(calls));
    FOR owner IN SELECT DISTINCT k.account_id, u.key_id FROM unnest(for_keys) AS u(key_id)
                   LEFT JOIN keys k ON k.id = u.key_id ORDER BY k.account_id, u.key_id
    LOOP
        PERFORM FROM accounts WHERE id = owner.account_id FOR KEY SHARE;  -- it stays prepaid or postpaid
        PERFORM FROM wallets WHERE account_id = owner.account_id FOR UPDATE;
        PERFORM FROM budgets WHERE key_id = owner.key_id FOR UPDATE;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'key % has no budget', owner.key_id;
        END IF;
    END LOOP;
    FOR member IN
        WITH gone AS (
            DELETE FROM holds WHERE id = ANY (calls) RETURNING id, amount_nanos, window_start, from_wallet
        )
        SELECT u.n, u.key_id, u.rated, k.account_id, COALESCE(g.amount_nanos, 0) AS held, g.window_start,
               g.id IS NULL AS lost, COALESCE(g.from_wallet, false) AS from_wallet,
               e.id IS NOT NULL AS settled, e.cost_nanos, e.overrun_nanos,
               u.turn_id IS NOT NULL AND EXISTS (SELECT FROM usage_events s
                     WHERE s.turn_id = u.turn_id AND s.step = u.step AND s.id <> u.call) AS taken
          FROM unnest(calls, for_keys, for_turns, for_steps, rated)
               WITH ORDINALITY AS u(call, key_id, turn_id, step, rated, n)
          LEFT JOIN keys k ON k.id = u.key_id LEFT JOIN gone g ON g.id = u.call
          LEFT JOIN usage_events e ON e.id = u.call
         ORDER BY k.account_id, u.key_id, u.n
    LOOP
        IF budget.key_id IS DISTINCT FROM member.key_id THEN
            PERFORM save_money_v1(budget, wallet);
            SELECT w.* INTO wallet FROM wallets w WHERE w.account_id = member.account_id;
            SELECT b.* INTO budget FROM budgets b WHERE b.key_id = member.key_id;
        END IF;
        present := member.lost OR member.window_start = budget.window_start;
        IF member.settled OR member.taken THEN
            charge := 0;
            charges[member.n] := member.cost_nanos;
            overruns[member.n] := member.overrun_nanos;
        ELSE
            room := LEAST(
                CASE WHEN budget.limit_nanos IS NULL THEN member.rated
                     WHEN present THEN GREATEST(budget.limit_nanos - budget.spent_nanos - budget.held_nanos, 0)
                     ELSE 0 END,
                GREATEST(COALESCE(wallet.balance_nanos - wallet.held_nanos, member.rated), 0));
            charge := LEAST(member.rated, member.held + room);
            charges[member.n] := charge;
            overruns[member.n] := member.rated - charge;
            accounts_of[member.n] := member.account_id;
        END IF;
        IF present THEN
            budget.held_nanos := budget.held_nanos - member.held;
            budget.spent_nanos := budget.spent_nanos + charge;
        END IF;
        budget.charged_nanos := budget.charged_nanos + charge;
        IF member.from_wallet THEN
            wallet.held_nanos := wallet.held_nanos - member.held;
        END IF;
        wallet.balance_nanos := wallet.balance_nanos - charge;
    END LOOP;
    PERFORM save_money_v1(budget, wallet);
    INSERT INTO usage_events (id, account_id, key_id, turn_id, step, end_user_id, model_slug, provider_slug,
                              input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens,
                              cache_write_1h_tokens, provider_cost_picos, cost_nanos, overrun_nanos,
                              price_version, markup_bps, estimated, latency_ms, status)
    SELECT u.call, u.account_id, u.key_id, u.turn_id, u.step, u.end_user, u.model, u.provider, u.input,
           u.output, u.cache_read, u.cache_write_5m, u.cache_write_1h, u.picos, u.charge, u.overrun,
           u.price_version, u.markup, u.estimated, u.latency, u.status
      FROM unnest(calls, accounts_of, for_keys, for_turns, for_steps, end_users, models, providers, inputs,
                  outputs, cache_reads, cache_writes_5m, cache_writes_1h, costs_picos, charges, overruns,
                  price_versions, markups, estimates, latencies, statuses)
           AS u(call, account_id, key_id, turn_id, step, end_user, model, provider, input, output, cache_read,
                cache_write_5m, cache_write_1h, picos, charge, overrun, price_version, markup, estimated,
                latency, status)
     WHERE u.account_id IS NOT NULL;
    INSERT INTO ledger_entries (id, account_id, kind, amount_nanos, reference)
    SELECT u.call, u.account_id, 'usage', -u.charge, u.key_id::text
      FROM unnest(calls, accounts_of, charges, for_keys) AS u(call, account_id, charge, key_id)
     WHERE u.account_id IS NOT NULL;
    RETURN QUERY SELECT * FROM unnest(charges, overruns);
END $$;

DROP FUNCTION place_hold_v2, settle_hold_v2, release_holds_v2, set_billing_v1;
