-- Sums of units, small repairs, and what is told of a wallet that runs low.

-- Counts by the name of the unit (`usage.Units`) of many rows together; NULL of none.
CREATE FUNCTION sum_units_v1(units jsonb[]) RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT jsonb_object_agg(name, count)
      FROM (SELECT u.name, sum(u.count::bigint) AS count
              FROM unnest(units) AS one(counts), jsonb_each_text(one.counts) AS u(name, count)
             GROUP BY u.name) AS sums
$$;

-- Old events of Stripe are forgotten (`prune_events`).
CREATE INDEX stripe_events_by_age ON stripe_events (received_at);

-- As `credit_auto_topup_v1`, but an event that comes again long after does not forget later declines.
CREATE FUNCTION credit_auto_topup_v2(topup uuid, account uuid, payment text)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM auto_topup_rules WHERE account_id = account FOR UPDATE;
    UPDATE auto_topups SET state = 'credited', payment_id = payment, reason = NULL, finished_at = now()
     WHERE id = topup AND account_id = account AND state <> 'credited';
    IF FOUND THEN
        UPDATE auto_topup_rules SET declines = 0 WHERE account_id = account;
    END IF;
END $$;

-- Below which balance an account's webhooks are told (`wallet.low`); NULL: as its automatic top-ups say.
ALTER TABLE accounts ADD COLUMN low_balance_nanos bigint CHECK (low_balance_nanos >= 0);
CREATE VIEW wallet_thresholds AS
SELECT w.account_id, w.balance_nanos, w.held_nanos, COALESCE(a.low_balance_nanos, r.threshold_nanos) AS threshold_nanos
  FROM wallets w JOIN accounts a ON a.id = w.account_id LEFT JOIN auto_topup_rules r ON r.account_id = w.account_id;

-- That an account was told, until its balance is up again or its threshold is another one.
CREATE TABLE wallet_notices (
    account_id       uuid PRIMARY KEY REFERENCES accounts,
    threshold_nanos  bigint NOT NULL
);
