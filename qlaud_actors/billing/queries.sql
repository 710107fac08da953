-- name: place_holds
-- Set money aside for calls: for each as much of what it wants as the limits afford, at least its floor.
SELECT * FROM place_holds_v1($1::text::uuid[], $2::text::uuid[], $3::text::uuid[], $4, $5::text::bigint[],
                             $6::text::bigint[], $7, $8::text::bigint[]);

-- name: change_hold
-- Hold another amount for the same call.
SELECT * FROM change_hold_v1($1, $2, $3, $4, $5, $6);

-- name: settle_calls
-- Turn the holds of calls into spend, usage events and ledger entries.
SELECT * FROM settle_calls_v2(
    calls => $1::text::uuid[], for_keys => $2::text::uuid[], for_turns => $3::text::uuid[],
    for_steps => $4::text::integer[], inputs => $5::text::bigint[], outputs => $6::text::bigint[],
    cache_reads => $7::text::bigint[], cache_writes_5m => $8::text::bigint[],
    cache_writes_1h => $9::text::bigint[], costs_picos => $10::text::bigint[], rated => $11::text::bigint[],
    markups => $12::text::integer[], estimates => $13::text::boolean[], latencies => $14::text::integer[],
    statuses => $15::text::integer[], end_users => $16, models => $17, providers => $18,
    price_versions => $19, units_of => $20);

-- name: release_holds
-- Give holds back; returns how many there still were.
SELECT release_holds_v3($1);

-- name: stay_alive
-- A process says that it lives, for so many seconds.
INSERT INTO processes (id, alive_until) VALUES ($1, now() + make_interval(secs => $2))
ON CONFLICT (id) DO UPDATE SET alive_until = EXCLUDED.alive_until;

-- name: leave
-- A process ends in good order: it holds nothing any more.
DELETE FROM processes WHERE id = $1;

-- name: forget_the_dead
-- Processes that died a day ago.
DELETE FROM processes WHERE alive_until < now() - interval '1 day';

-- name: abandoned_holds
-- Holds whose process died. Those of turns go with their turn.
SELECT h.id FROM holds h
 WHERE h.turn_id IS NULL
   AND NOT EXISTS (SELECT FROM processes p WHERE p.id = h.owner AND p.alive_until > now())
 ORDER BY h.created_at LIMIT 500;

-- name: insert_attempts
-- Candidates that did not answer a call.
INSERT INTO attempts (call_id, number, key_id, turn_id, step, provider_slug, model_slug, status, error, ms)
SELECT $1, a.number, $2, $3, $4, a.provider, a.model, a.status, a.error, a.ms
  FROM unnest($5::integer[], $6::text[], $7::text[], $8::integer[], $9::text[], $10::integer[])
       AS a(number, provider, model, status, error, ms)
ON CONFLICT DO NOTHING;

-- name: plan_for_arguments
-- Plan each statement of this transaction for its own arguments: a filter that is not given must not cost.
SELECT set_config('plan_cache_mode', 'force_custom_plan', true);

-- name: usage_summary
-- Sums of the rows chosen by account, span, key, model and end user: in all (level 3), by model and provider
-- (2), and by key (1), of which only the dearest.
WITH sums AS (
    SELECT GROUPING(key_id, model_slug) AS level, key_id, model_slug, provider_slug,
           sum(cost_nanos)::bigint AS cost_nanos, count(*) FILTER (WHERE adjusts IS NULL) AS request_count,
           sum(input_tokens + cache_read_tokens + cache_write_5m_tokens + cache_write_1h_tokens)::bigint
               AS input_tokens,
           sum(output_tokens)::bigint AS output_tokens, sum(cache_read_tokens)::bigint AS cache_read_tokens,
           sum(cache_write_5m_tokens + cache_write_1h_tokens)::bigint AS cache_write_tokens,
           sum_units_v1(array_agg(units) FILTER (WHERE units IS NOT NULL)) AS units
      FROM usage_events
     WHERE account_id = $1 AND created_at >= to_timestamp($2::float8 / 1000)
       AND created_at < to_timestamp($3::float8 / 1000) AND ($4::uuid IS NULL OR key_id = $4)
       AND ($5::text IS NULL OR model_slug = $5) AND ($6::text IS NULL OR end_user_id = $6)
     GROUP BY GROUPING SETS ((key_id), (model_slug, provider_slug), ())
), ranked AS (
    SELECT *, row_number() OVER (PARTITION BY level ORDER BY cost_nanos DESC, key_id, model_slug, provider_slug)
               AS rank
      FROM sums
)
SELECT r.*, k.name AS key_name, k.prefix AS key_prefix
  FROM ranked r LEFT JOIN keys k ON k.id = r.key_id
 WHERE r.level > 1 OR r.rank <= $7 ORDER BY r.level, r.rank;

-- name: usage_groups
-- Sums of the same rows by what $7 names, behind a place ($8), and the totals of all groups beside each.
WITH groups AS (
    SELECT CASE WHEN 'day' = ANY ($7::text[]) THEN date_bin('1 day', created_at, 'epoch') END AS day,
           CASE WHEN 'hour' = ANY ($7) THEN date_bin('1 hour', created_at, 'epoch') END AS hour,
           CASE WHEN 'key' = ANY ($7) THEN key_id END AS key_id,
           CASE WHEN 'model' = ANY ($7) THEN model_slug END AS model_slug,
           CASE WHEN 'provider' = ANY ($7) THEN provider_slug END AS provider_slug,
           CASE WHEN 'end_user' = ANY ($7) THEN end_user_id END AS end_user_id,
           sum(cost_nanos) AS cost_nanos, count(*) FILTER (WHERE adjusts IS NULL) AS request_count,
           sum(input_tokens + cache_read_tokens + cache_write_5m_tokens + cache_write_1h_tokens)
               AS input_tokens,
           sum(output_tokens) AS output_tokens, sum(cache_read_tokens) AS cache_read_tokens,
           sum(cache_write_5m_tokens + cache_write_1h_tokens) AS cache_write_tokens,
           sum_units_v1(array_agg(units) FILTER (WHERE units IS NOT NULL)) AS units
      FROM usage_events
     WHERE account_id = $1 AND created_at >= to_timestamp($2::float8 / 1000)
       AND created_at < to_timestamp($3::float8 / 1000) AND ($4::uuid IS NULL OR key_id = $4)
       AND ($5::text IS NULL OR model_slug = $5) AND ($6::text IS NULL OR end_user_id = $6)
     GROUP BY 1, 2, 3, 4, 5, 6
), placed AS (
    SELECT *, ARRAY[to_char(day AT TIME ZONE 'UTC', 'YYYY-MM-DD'),
                    to_char(hour AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:00:00"Z"'),
                    key_id::text, model_slug, provider_slug, end_user_id]::text[] COLLATE "C" AS place
      FROM groups
), page AS (
    SELECT p.*, k.name AS key_name, k.prefix AS key_prefix
      FROM placed p LEFT JOIN keys k ON k.id = p.key_id
     WHERE $8::text[] IS NULL OR p.place > $8 ORDER BY p.place LIMIT $9
), totals AS (
    SELECT count(*) AS total_groups, COALESCE(sum(cost_nanos), 0)::bigint AS total_cost_nanos,
           COALESCE(sum(request_count), 0)::bigint AS total_request_count,
           COALESCE(sum(input_tokens), 0)::bigint AS total_input_tokens,
           COALESCE(sum(output_tokens), 0)::bigint AS total_output_tokens,
           COALESCE(sum(cache_read_tokens), 0)::bigint AS total_cache_read_tokens,
           COALESCE(sum(cache_write_tokens), 0)::bigint AS total_cache_write_tokens,
           sum_units_v1(array_agg(units) FILTER (WHERE units IS NOT NULL)) AS total_units
      FROM groups
)
SELECT t.*, p.place, p.key_id, p.key_name, p.key_prefix, p.cost_nanos::bigint AS cost_nanos, p.request_count,
       p.input_tokens::bigint AS input_tokens, p.output_tokens::bigint AS output_tokens,
       p.cache_read_tokens::bigint AS cache_read_tokens, p.cache_write_tokens::bigint AS cache_write_tokens,
       p.units
  FROM totals t LEFT JOIN page p ON true ORDER BY p.place;

-- name: usage_columns
-- The columns of a usage row in their order: an export has every one of them.
SELECT attname FROM pg_attribute
 WHERE attrelid = 'usage_events'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum;

-- name: usage_row_exists
-- Whether there is such a row (of an account, or of any).
SELECT EXISTS (SELECT FROM usage_events WHERE id = $1 AND ($2::uuid IS NULL OR account_id = $2));

-- name: usage_page
-- Whole rows of an account (or of one after another), oldest first, behind the row with an id.
SELECT * FROM usage_events
 WHERE ($1::uuid IS NULL OR account_id = $1) AND created_at >= to_timestamp($2::float8 / 1000)
   AND created_at < to_timestamp($3::float8 / 1000) AND ($4::uuid IS NULL OR key_id = $4)
   AND ($5::text IS NULL OR model_slug = $5) AND ($6::text IS NULL OR end_user_id = $6)
   AND ($7::uuid IS NULL OR $1 IS NULL
        OR (created_at, id) > (SELECT a.created_at, a.id FROM usage_events a WHERE a.id = $7))
   AND ($7 IS NULL OR $1 IS NOT NULL
        OR (account_id, created_at, id) > (
            SELECT a.account_id, a.created_at, a.id FROM usage_events a WHERE a.id = $7))
 ORDER BY account_id, created_at, id LIMIT $8;

-- name: usage_events_of_key
-- The newest rows of a key.
SELECT id, key_id, account_id, turn_id, step, end_user_id, model_slug, provider_slug,
       input_tokens + cache_read_tokens + cache_write_5m_tokens + cache_write_1h_tokens AS input_tokens,
       output_tokens, cache_read_tokens, cache_write_5m_tokens + cache_write_1h_tokens AS cache_write_tokens,
       cost_nanos, price_version, estimated, latency_ms, status,
       (extract(epoch FROM created_at) * 1000)::bigint AS created_at_ms
  FROM usage_events
 WHERE key_id = $1 AND created_at >= to_timestamp($2::float8 / 1000)
   AND created_at < to_timestamp($3::float8 / 1000)
 ORDER BY created_at DESC, id DESC LIMIT $4;

-- name: insert_account
-- A new account, postpaid until it is given a wallet.
INSERT INTO accounts (id, name) VALUES ($1, $2);

-- name: rename_account
-- Another name for an account.
UPDATE accounts SET name = $2 WHERE id = $1;

-- name: set_low_balance
-- Below which balance an account is told; NULL leaves it to its automatic top-ups.
UPDATE accounts SET low_balance_nanos = $2 WHERE id = $1;

-- name: set_billing
-- Make an account prepaid (true) or postpaid.
SELECT set_billing_v2($1, $2);

-- name: accounts
-- All accounts, or one, with what they have and what is held of it, oldest first.
SELECT a.id, a.name, a.low_balance_nanos, w.account_id IS NOT NULL AS prepaid,
       COALESCE(w.balance_nanos, account_balance_v1(a.id)) AS balance_nanos,
       (SELECT COALESCE(sum(h.amount_nanos), 0)::bigint
          FROM holds h JOIN keys k ON k.id = h.key_id WHERE k.account_id = a.id) AS held_nanos,
       (extract(epoch FROM a.created_at) * 1000)::bigint AS created_at_ms
  FROM accounts a LEFT JOIN wallets w ON w.account_id = a.id
 WHERE $1::uuid IS NULL OR a.id = $1 ORDER BY a.created_at, a.id;

-- name: post_entry
-- Write a ledger entry that is not usage, once per idempotency key; false when it was there.
SELECT post_entry_v1($1, $2, $3, $4, $5, $6);

-- name: ledger_page
-- An account's entries before an id, newest first.
SELECT id, kind, amount_nanos, reference, (extract(epoch FROM created_at) * 1000)::bigint AS created_at_ms
  FROM ledger_entries WHERE account_id = $1 AND ($2::uuid IS NULL OR id < $2) ORDER BY id DESC LIMIT $3;

-- name: posted_for
-- What the ledger already says of a payment, by kind.
SELECT kind, sum(amount_nanos)::bigint AS amount_nanos
  FROM ledger_entries WHERE kind <> 'usage' AND reference = $1 GROUP BY kind;

-- name: note_event
-- Remember an event of Stripe; nothing comes back when it was seen before.
INSERT INTO stripe_events (id, type) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING id;

-- name: prune_events
-- Forget some events that came so many days ago. What they told was written in their own transaction.
DELETE FROM stripe_events
 WHERE id IN (SELECT id FROM stripe_events WHERE received_at < now() - make_interval(days => $1)
               ORDER BY received_at LIMIT 1000);

-- name: begin_payment
-- The row of a payment, so that it can be locked.
INSERT INTO payments (id, state) VALUES ($1, $2) ON CONFLICT DO NOTHING;

-- name: lock_payment
-- What is known of a payment, locked until the transaction ends.
SELECT state FROM payments WHERE id = $1 FOR UPDATE;

-- name: save_payment
-- What is known of a payment now.
UPDATE payments SET state = $2 WHERE id = $1;

-- name: save_payment_method
-- Keep what a customer agreed to be charged with, unless a newer event told of another.
INSERT INTO saved_payment_methods (account_id, customer_id, payment_method_id, told_at)
SELECT id, $2, $3, $4 FROM accounts WHERE id = $1
    ON CONFLICT (account_id) DO UPDATE
   SET customer_id = EXCLUDED.customer_id, payment_method_id = EXCLUDED.payment_method_id,
       told_at = EXCLUDED.told_at
 WHERE saved_payment_methods.told_at < EXCLUDED.told_at;

-- name: set_auto_topup
-- Switch automatic top-ups on; what went wrong before is forgotten. Nothing comes back for a postpaid account.
INSERT INTO auto_topup_rules (account_id, threshold_nanos, amount_nanos, ceiling_nanos)
SELECT account_id, $2, $3, $4 FROM wallets WHERE account_id = $1
    ON CONFLICT (account_id) DO UPDATE
   SET threshold_nanos = EXCLUDED.threshold_nanos, amount_nanos = EXCLUDED.amount_nanos,
       ceiling_nanos = EXCLUDED.ceiling_nanos, declines = 0, next_at = now(), disabled_reason = NULL
RETURNING account_id;

-- name: auto_topup_status
-- An account's rule, its month, and its top-up that is not closed, if there is one.
SELECT s.threshold_nanos, s.amount_nanos, s.ceiling_nanos, s.month_nanos, s.declines, s.disabled_reason,
       s.payment_method_id, (extract(epoch FROM s.next_at) * 1000)::bigint AS next_at_ms,
       t.id AS open_id, t.state AS open_state, t.amount_nanos AS open_nanos,
       (extract(epoch FROM t.created_at) * 1000)::bigint AS open_since_ms
  FROM auto_topup_status s
  LEFT JOIN auto_topups t ON t.account_id = s.account_id AND t.state IN ('pending', 'charged')
 WHERE s.account_id = $1;

-- name: stop_auto_topup
-- Switch automatic top-ups off; false when they were.
SELECT stop_auto_topup_v1($1);

-- name: accounts_to_top_up
-- Accounts that look as if an automatic top-up were due.
SELECT s.account_id FROM auto_topup_status s
 WHERE s.due AND s.month_nanos + s.amount_nanos <= s.ceiling_nanos
   AND NOT EXISTS (SELECT FROM auto_topups t
                    WHERE t.account_id = s.account_id AND t.state IN ('pending', 'charged'))
 LIMIT 100;

-- name: open_auto_topup
-- Decide to charge an account, if that is still due; false when it is not.
SELECT open_auto_topup_v1($1, $2);

-- name: claim_auto_topups
-- Take decisions to send; whoever dies with one leaves it to the next try, two minutes later.
UPDATE auto_topups SET attempts = attempts + 1, next_at = now() + interval '2 minutes'
 WHERE id IN (SELECT id FROM auto_topups WHERE state = 'pending' AND next_at <= now()
               ORDER BY next_at LIMIT 20 FOR UPDATE SKIP LOCKED)
RETURNING id, account_id, amount_nanos, customer_id, payment_method_id, attempts,
          extract(epoch FROM created_at)::bigint AS created_s,
          extract(epoch FROM now() - created_at)::bigint AS age_s;

-- name: note_charged
-- Stripe took the money, or is taking it; its event will credit it.
UPDATE auto_topups SET state = 'charged', payment_id = $2 WHERE id = $1 AND state = 'pending';

-- name: fail_auto_topup
-- Nothing was taken: close a top-up, once; false when it was closed before.
SELECT fail_auto_topup_v1($1, $2, $3, $4, $5);

-- name: credit_auto_topup
-- Its event came: close a top-up.
SELECT credit_auto_topup_v2($1, $2, $3);

-- name: set_stripe_meter
-- Push an account's usage from now on; no row comes back when there is no such account.
INSERT INTO stripe_meters (account_id, event_name, value) SELECT id, $2, $3 FROM accounts WHERE id = $1
    ON CONFLICT (account_id) DO UPDATE SET event_name = EXCLUDED.event_name, value = EXCLUDED.value
RETURNING account_id;

-- name: stripe_meter
-- What an account pushes, how much waits, since when, and how much was refused.
SELECT m.event_name, m.value,
       (SELECT count(*) FROM stripe_meter_queue q
         WHERE q.account_id = m.account_id AND q.failed_at IS NULL) AS queued,
       (SELECT (extract(epoch FROM min(q.occurred_at)) * 1000)::bigint FROM stripe_meter_queue q
         WHERE q.account_id = m.account_id AND q.failed_at IS NULL) AS oldest_ms,
       (SELECT count(*) FROM stripe_meter_queue q
         WHERE q.account_id = m.account_id AND q.failed_at IS NOT NULL) AS failed
  FROM stripe_meters m WHERE m.account_id = $1;

-- name: failed_meter_events
-- What Stripe refused, newest first.
SELECT usage_event_id, end_user_id, stripe_customer_id, reason,
       (extract(epoch FROM failed_at) * 1000)::bigint AS failed_at_ms
  FROM stripe_meter_queue WHERE account_id = $1 AND failed_at IS NOT NULL
 ORDER BY failed_at DESC, usage_event_id LIMIT 20;

-- name: stop_stripe_meter
-- Push nothing new; what waits is still sent.
DELETE FROM stripe_meters WHERE account_id = $1 RETURNING account_id;

-- name: retry_meter_events
-- Send again what was refused, to whom the end users are mapped now; returns how many.
WITH again AS (
    UPDATE stripe_meter_queue q
       SET failed_at = NULL, reason = NULL, first_sent_at = NULL, next_at = now(),
           stripe_customer_id = COALESCE((SELECT b.stripe_customer_id FROM end_user_billing b
                                           WHERE b.account_id = q.account_id
                                             AND b.end_user_id = q.end_user_id), q.stripe_customer_id),
           event_name = COALESCE((SELECT m.event_name FROM stripe_meters m
                                   WHERE m.account_id = q.account_id), q.event_name)
     WHERE q.account_id = $1 AND q.failed_at IS NOT NULL RETURNING 1
)
SELECT count(*) FROM again;

-- name: map_end_user
-- Whom Stripe bills for an end user.
INSERT INTO end_user_billing (account_id, end_user_id, stripe_customer_id) VALUES ($1, $2, $3)
    ON CONFLICT (account_id, end_user_id) DO UPDATE SET stripe_customer_id = EXCLUDED.stripe_customer_id;

-- name: end_user_billing
-- Whom Stripe bills for an end user, if anybody.
SELECT stripe_customer_id FROM end_user_billing WHERE account_id = $1 AND end_user_id = $2;

-- name: unmap_end_user
-- Bill nobody for an end user any more.
DELETE FROM end_user_billing WHERE account_id = $1 AND end_user_id = $2 RETURNING end_user_id;

-- name: claim_meter_events
-- Take meter events to send; whoever dies with them leaves them to the next try.
SELECT usage_event_id, stripe_customer_id, event_name, value,
       extract(epoch FROM occurred_at)::bigint AS occurred_s, first_sent_at = now() AS first
  FROM claim_meter_events_v1($1);

-- name: meter_events_delivered
-- Stripe has them.
DELETE FROM stripe_meter_queue WHERE usage_event_id = ANY ($1);

-- name: meter_event_refused
-- Stripe does not take it: a person has to look.
UPDATE stripe_meter_queue SET failed_at = now(), reason = $2 WHERE usage_event_id = $1;

-- name: meter_event_not_counted
-- The only send so far was turned away without being counted: the day has not begun.
UPDATE stripe_meter_queue SET first_sent_at = NULL WHERE usage_event_id = $1;

-- name: give_up_meter_events
-- Stripe knows an identifier for a day: what may have been counted longer ago is not sent again by itself.
UPDATE stripe_meter_queue SET failed_at = now(), reason = 'for 23 hours Stripe did not say whether it counted this'
 WHERE failed_at IS NULL AND first_sent_at < now() - interval '23 hours';
