-- Prices that the operator sets, and usage that is rated anew.

-- What was set through the API, append-only: who, when, from when on, what it was and became, and why. A row
-- without `after` ends the overrides of its model. Ids follow the order of commits (writers take a lock), so
-- whoever asks for rows behind the last id it has seen misses none.
CREATE TABLE price_overrides (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    provider_slug   text NOT NULL,
    model_slug      text NOT NULL,
    effective_from  timestamptz NOT NULL,
    before          json NOT NULL,
    after           json,
    version         text,                       -- as usage rows carry it
    source          text NOT NULL,
    reason          text NOT NULL,
    made_by         uuid NOT NULL REFERENCES keys,
    created_at      timestamptz NOT NULL DEFAULT now(),
    CHECK ((after IS NULL) = (version IS NULL))
);
CREATE INDEX price_overrides_by_model ON price_overrides (provider_slug, model_slug, id);

CREATE FUNCTION refuse_price_change_v1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'price overrides are append-only: set another one';
END $$;
CREATE TRIGGER price_overrides_are_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON price_overrides
    EXECUTE FUNCTION refuse_price_change_v1();

-- An adjustment is a usage row of its own, of the same key, turn, model and time, without tokens: what its
-- `adjusts` row is charged more (or, below zero, less) at another price. So every sum over usage rows includes
-- it, and its ledger entry has its id like that of any usage row. No row is ever changed.
ALTER TABLE usage_events
    ADD COLUMN adjusts uuid REFERENCES usage_events,
    DROP CONSTRAINT usage_events_cost_nanos_check,
    ADD CONSTRAINT usage_events_cost_nanos_check CHECK (cost_nanos >= 0 OR adjusts IS NOT NULL);
CREATE UNIQUE INDEX usage_events_adjusted_once ON usage_events (adjusts, price_version)
    WHERE adjusts IS NOT NULL;

-- Rate a usage row at another price: `picos` is what its tokens cost there, `rated` the charge for that. What
-- was charged too much goes back. What was charged too little is charged as far as cap and wallet afford, by
-- the rule of settle_calls_v1: nothing more in a window that has passed; the rest is overrun, the operator's.
-- One adjustment per row and price version; returns what was charged, or NULL when there was one before.
CREATE FUNCTION rerate_usage_v1(
    the_event uuid, adjustment uuid, version text, picos bigint, rated bigint, OUT charged bigint
) LANGUAGE plpgsql AS $$
DECLARE
    event usage_events;
    wallet wallets;
    budget budgets;
    so_far record;
    present boolean;
    room bigint;
BEGIN
    SELECT * INTO event FROM usage_events WHERE id = the_event AND adjusts IS NULL;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    PERFORM FROM accounts WHERE id = event.account_id FOR KEY SHARE;  -- it stays prepaid or postpaid
    SELECT * INTO wallet FROM wallets WHERE account_id = event.account_id FOR UPDATE;
    SELECT * INTO budget FROM budgets WHERE key_id = event.key_id FOR UPDATE;  -- one at a time per key
    PERFORM FROM usage_events WHERE adjusts = the_event AND price_version = version;
    IF FOUND THEN
        RETURN;
    END IF;
    SELECT sum(u.provider_cost_picos)::bigint AS picos, sum(u.cost_nanos)::bigint AS cost,
           sum(u.overrun_nanos)::bigint AS overrun
      INTO so_far FROM usage_events u WHERE u.id = the_event OR u.adjusts = the_event;
    present := event.created_at >= budget.window_start;
    room := GREATEST(rated - so_far.cost, 0);
    IF budget.limit_nanos IS NOT NULL THEN
        room := LEAST(room, CASE WHEN present
            THEN GREATEST(budget.limit_nanos - budget.spent_nanos - budget.held_nanos, 0) ELSE 0 END);
    END IF;
    IF wallet.account_id IS NOT NULL THEN
        room := LEAST(room, GREATEST(wallet.balance_nanos - wallet.held_nanos, 0));
    END IF;
    charged := LEAST(rated, so_far.cost + room) - so_far.cost;
    -- A hold of a window that has passed counts there, though its row is of the next: never below zero.
    UPDATE budgets
       SET spent_nanos = GREATEST(spent_nanos + CASE WHEN present THEN charged ELSE 0 END, 0),
           charged_nanos = charged_nanos + charged
     WHERE key_id = event.key_id;
    IF wallet.account_id IS NOT NULL THEN
        UPDATE wallets SET balance_nanos = balance_nanos - charged WHERE account_id = event.account_id;
    END IF;
    INSERT INTO ledger_entries (id, account_id, kind, amount_nanos, idempotency_key, reference)
    VALUES (adjustment, event.account_id, 'usage', -charged, 'rerate:' || the_event || ':' || version,
            event.key_id::text);
    INSERT INTO usage_events (id, account_id, key_id, turn_id, end_user_id, model_slug, provider_slug,
                              input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens,
                              cache_write_1h_tokens, provider_cost_picos, cost_nanos, overrun_nanos,
                              price_version, markup_bps, estimated, latency_ms, status, created_at, adjusts)
    VALUES (adjustment, event.account_id, event.key_id, event.turn_id, event.end_user_id, event.model_slug,
            event.provider_slug, 0, 0, 0, 0, 0, picos - so_far.picos, charged,
            rated - so_far.cost - charged - so_far.overrun, version, event.markup_bps, event.estimated, 0,
            event.status, event.created_at, the_event);
END $$;
