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

-- As `forget_artifacts_v1`; and the pictures that were made in a thread go with it, whoever they belong to. What
-- was stored for somebody under a name stays, and where it was stored is forgotten.
CREATE FUNCTION forget_artifacts_v2() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM artifacts WHERE account_id = NEW.account_id AND owner = 'thread:' || NEW.id;
    DELETE FROM artifacts WHERE thread_id = NEW.id AND starts_with(mime, 'image/');
    UPDATE artifacts SET thread_id = NULL WHERE thread_id = NEW.id;
    RETURN NULL;
END $$;
DROP TRIGGER threads_forget_artifacts ON threads;
CREATE TRIGGER threads_forget_artifacts AFTER UPDATE OF deleted_at ON threads
    FOR EACH ROW WHEN (OLD.deleted_at IS NULL AND NEW.deleted_at IS NOT NULL) EXECUTE FUNCTION forget_artifacts_v2();

-- Erasing a thread lets go of its branches, also of deleted ones.
CREATE INDEX threads_by_any_parent ON threads (parent_thread_id) WHERE parent_thread_id IS NOT NULL;

-- That an account was told, until its balance is up again or its threshold is another one.
CREATE TABLE wallet_notices (
    account_id       uuid PRIMARY KEY REFERENCES accounts,
    threshold_nanos  bigint NOT NULL
);
