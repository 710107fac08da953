-- Saved payment methods, automatic top-ups, and usage for Stripe's Billing Meters.
--
-- Locks go on from 0002: turn, account, wallet, budget, hold, rule, automatic top-up.

-- What a customer agreed to be charged with while away. The newest event that tells of one stays.
CREATE TABLE saved_payment_methods (
    account_id         uuid PRIMARY KEY REFERENCES accounts,
    customer_id        text NOT NULL,
    payment_method_id  text NOT NULL,
    told_at            bigint NOT NULL              -- seconds, by Stripe's clock
);

CREATE TABLE auto_topup_rules (
    account_id       uuid PRIMARY KEY REFERENCES accounts,
    threshold_nanos  bigint NOT NULL CHECK (threshold_nanos >= 0),
    amount_nanos     bigint NOT NULL CHECK (amount_nanos > 0),
    ceiling_nanos    bigint NOT NULL CHECK (ceiling_nanos >= amount_nanos),
    declines         integer NOT NULL DEFAULT 0,    -- in a row
    next_at          timestamptz NOT NULL DEFAULT now(),
    disabled_reason  text
);

-- A decision to charge, written before Stripe is asked. Its id is the idempotency key, and it keeps whom
-- it charges: the same key must always come with the same request.
CREATE TABLE auto_topups (
    id                 uuid PRIMARY KEY,
    account_id         uuid NOT NULL REFERENCES accounts,
    amount_nanos       bigint NOT NULL,
    customer_id        text NOT NULL,
    payment_method_id  text NOT NULL,
    state              text NOT NULL DEFAULT 'pending'
                       -- pending: what Stripe did is not known; charged: it took the money, its event
                       -- is to come; credited: the event came; failed: nothing was taken
                       CHECK (state IN ('pending', 'charged', 'credited', 'failed')),
    payment_id         text,
    reason             text,
    attempts           integer NOT NULL DEFAULT 0,
    next_at            timestamptz NOT NULL DEFAULT now(),
    created_at         timestamptz NOT NULL DEFAULT now(),
    finished_at        timestamptz
);
CREATE UNIQUE INDEX auto_topups_one_open ON auto_topups (account_id) WHERE state IN ('pending', 'charged');
CREATE INDEX auto_topups_of_month ON auto_topups (account_id, created_at);
CREATE INDEX auto_topups_to_send ON auto_topups (next_at) WHERE state = 'pending';

-- Every rule with its wallet, the month's top-ups (UTC; those that took nothing do not count), and whether
-- there is less than the threshold now. A postpaid account has no wallet and is never due.
CREATE VIEW auto_topup_status AS
SELECT r.*, s.customer_id, s.payment_method_id,
       (SELECT COALESCE(sum(t.amount_nanos), 0)::bigint FROM auto_topups t
         WHERE t.account_id = r.account_id AND t.state <> 'failed'
           AND t.created_at >= date_trunc('month', now(), 'UTC')) AS month_nanos,
       COALESCE(w.balance_nanos - w.held_nanos < r.threshold_nanos, false)
       AND r.disabled_reason IS NULL AND r.next_at <= now() AND s.account_id IS NOT NULL AS due
  FROM auto_topup_rules r
  LEFT JOIN wallets w ON w.account_id = r.account_id
  LEFT JOIN saved_payment_methods s ON s.account_id = r.account_id;

-- Decide to charge an account, if that is due: one at a time, never past the month's ceiling. Returns
-- whether it was decided. The rule's lock makes deciders wait for one another. The row goes in first,
-- because that waits for whoever is just closing the account's previous one: what is read after it
-- is what they have left.
CREATE FUNCTION open_auto_topup_v1(account uuid, topup uuid) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    status auto_topup_status;
BEGIN
    PERFORM FROM auto_topup_rules WHERE account_id = account FOR UPDATE;
    INSERT INTO auto_topups (id, account_id, amount_nanos, customer_id, payment_method_id)
    SELECT topup, account, s.amount_nanos, s.customer_id, s.payment_method_id
      FROM auto_topup_status s WHERE s.account_id = account AND s.due
        ON CONFLICT (account_id) WHERE state IN ('pending', 'charged') DO NOTHING;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    SELECT * INTO status FROM auto_topup_status s WHERE s.account_id = account;
    IF status.due AND status.month_nanos <= status.ceiling_nanos THEN
        RETURN true;
    END IF;
    DELETE FROM auto_topups WHERE id = topup;
    RETURN false;
END $$;

-- Nothing was taken: close the top-up, once. A decline makes the rule wait (1 h, 4 h); the third in a row,
-- or one that is `final`, switches the rule off with the reason.
CREATE FUNCTION fail_auto_topup_v1(topup uuid, payment text, why text, declined boolean, final boolean)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    rule auto_topup_rules;
BEGIN
    SELECT r.* INTO rule FROM auto_topup_rules r
     WHERE r.account_id = (SELECT t.account_id FROM auto_topups t WHERE t.id = topup) FOR UPDATE;
    UPDATE auto_topups SET state = 'failed', payment_id = COALESCE(payment, payment_id), reason = why,
                           finished_at = now()
     WHERE id = topup AND state IN ('pending', 'charged');
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE auto_topup_rules
       SET declines = rule.declines + declined::integer,
           next_at = now() + interval '1 hour' * 4 ^ LEAST(rule.declines, 5),
           disabled_reason = CASE WHEN final THEN why
                                  WHEN declined AND rule.declines >= 2 THEN '3 declines in a row: ' || why
                                  ELSE disabled_reason END
     WHERE account_id = rule.account_id;
    RETURN true;
END $$;

-- Stripe's event says that it is paid: close the top-up, whatever was thought of it before.
CREATE FUNCTION credit_auto_topup_v1(topup uuid, account uuid, payment text)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE auto_topup_rules SET declines = 0 WHERE account_id = account;
    UPDATE auto_topups SET state = 'credited', payment_id = payment, reason = NULL, finished_at = now()
     WHERE id = topup AND account_id = account AND state <> 'credited';
END $$;

-- Remove a rule; what was decided but never sent is not sent any more. Returns whether there was a rule.
CREATE FUNCTION stop_auto_topup_v1(account uuid) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM auto_topup_rules WHERE account_id = account;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE auto_topups SET state = 'failed', reason = 'switched off', finished_at = now()
     WHERE account_id = account AND state = 'pending' AND attempts = 0;
    RETURN true;
END $$;

-- Which accounts push their end users' usage to a meter of Stripe, and what they count.
CREATE TABLE stripe_meters (
    account_id  uuid PRIMARY KEY REFERENCES accounts,
    event_name  text NOT NULL,
    value       text NOT NULL CHECK (value IN ('cost_micros', 'tokens'))
);

-- Whom Stripe bills for an end user. Meters count whole micro-USD: what is below one is carried to the
-- next event, so that the sum is that of the rows.
CREATE TABLE end_user_billing (
    account_id          uuid NOT NULL REFERENCES accounts,
    end_user_id         text NOT NULL,
    stripe_customer_id  text NOT NULL,
    carried_nanos       bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (account_id, end_user_id)
);

-- Usage that Stripe has not confirmed yet; delivered rows are deleted. Each row was written by the
-- transaction of its usage event: there is no cursor that a late commit could slip past.
CREATE TABLE stripe_meter_queue (
    usage_event_id      uuid PRIMARY KEY REFERENCES usage_events,
    account_id          uuid NOT NULL REFERENCES accounts,
    end_user_id         text NOT NULL,
    stripe_customer_id  text NOT NULL,
    event_name          text NOT NULL,
    amount              bigint NOT NULL,            -- tokens, or nano-USD
    carries             boolean NOT NULL,           -- nano-USD, to be told in whole micro-USD
    value               bigint,                     -- what Stripe is told; fixed when first sent
    occurred_at         timestamptz NOT NULL,
    attempts            integer NOT NULL DEFAULT 0,
    next_at             timestamptz NOT NULL DEFAULT now(),
    first_sent_at       timestamptz,                -- of a send that Stripe may have counted
    failed_at           timestamptz,
    reason              text
);
CREATE INDEX stripe_meter_queue_next ON stripe_meter_queue (next_at) WHERE failed_at IS NULL;
CREATE INDEX stripe_meter_queue_by_account ON stripe_meter_queue (account_id, failed_at);

-- Runs when the transaction commits, on the row as it then is: priced, or gone. Only usage with an end user
-- comes here (the trigger's condition), so other calls do not pay for it.
CREATE FUNCTION queue_meter_event_v1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO stripe_meter_queue (usage_event_id, account_id, end_user_id, stripe_customer_id, event_name,
                                    amount, carries, occurred_at)
    SELECT u.id, u.account_id, u.end_user_id, b.stripe_customer_id, m.event_name,
           CASE m.value WHEN 'cost_micros' THEN u.cost_nanos
                ELSE u.input_tokens + u.output_tokens + u.cache_read_tokens
                     + u.cache_write_5m_tokens + u.cache_write_1h_tokens END,
           m.value = 'cost_micros', u.created_at
      FROM usage_events u
      JOIN stripe_meters m ON m.account_id = u.account_id
      JOIN end_user_billing b ON b.account_id = u.account_id AND b.end_user_id = u.end_user_id
     WHERE u.id = NEW.id;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER usage_is_metered AFTER INSERT ON usage_events DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.end_user_id IS NOT NULL) EXECUTE FUNCTION queue_meter_event_v1();

-- Take up to `most` events to send, and fix what each one says: end user by end user, so that two workers
-- never wait for each other in a circle. The next try is set before this one is made, further away each
-- time; if the worker dies in between, it is made then.
CREATE FUNCTION claim_meter_events_v1(most integer) RETURNS SETOF stripe_meter_queue LANGUAGE plpgsql AS $$
DECLARE
    event stripe_meter_queue;
    carried bigint;
BEGIN
    FOR event IN
        WITH taken AS MATERIALIZED (
            SELECT * FROM stripe_meter_queue WHERE failed_at IS NULL AND next_at <= now()
             ORDER BY next_at LIMIT most FOR UPDATE SKIP LOCKED
        )
        SELECT * FROM taken ORDER BY account_id, end_user_id, usage_event_id
    LOOP
        IF event.value IS NULL AND event.carries THEN
            SELECT carried_nanos INTO carried FROM end_user_billing
             WHERE account_id = event.account_id AND end_user_id = event.end_user_id FOR UPDATE;
            event.amount := event.amount + COALESCE(carried, 0);
            event.value := event.amount / 1000;
            UPDATE end_user_billing SET carried_nanos = event.amount % 1000
             WHERE account_id = event.account_id AND end_user_id = event.end_user_id;
        END IF;
        event.value := COALESCE(event.value, event.amount);
        IF event.value = 0 THEN
            DELETE FROM stripe_meter_queue WHERE usage_event_id = event.usage_event_id;
            CONTINUE;
        END IF;
        UPDATE stripe_meter_queue
           SET value = event.value, attempts = attempts + 1, first_sent_at = COALESCE(first_sent_at, now()),
               next_at = now() + LEAST(interval '2 minutes' * 2 ^ LEAST(attempts, 10), interval '1 hour')
         WHERE usage_event_id = event.usage_event_id RETURNING * INTO event;
        RETURN NEXT event;
    END LOOP;
END $$;
