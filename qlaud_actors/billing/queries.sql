-- name: place_hold
-- Set money aside: as much of what is wanted as the limits afford, at least the floor.
SELECT * FROM place_hold_v3($1, $2, $3, $4, $5, $6);

-- name: change_hold
-- Hold another amount for the same call.
SELECT * FROM change_hold_v1($1, $2, $3, $4, $5, $6);

-- name: settle_hold
-- Turn a call's hold into spend and a ledger entry.
SELECT * FROM settle_hold_v3($1, $2, $3);

-- name: release_holds
-- Give holds back; returns how many there still were.
SELECT release_holds_v2($1);

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

-- name: insert_usage_event
-- One metered call, not charged yet; the same call, or step of a turn, is never written twice (then no id
-- comes back).
INSERT INTO usage_events (id, account_id, key_id, turn_id, step, end_user_id, model_slug, provider_slug,
                          input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens,
                          cache_write_1h_tokens, provider_cost_picos, cost_nanos,
                          price_version, markup_bps, estimated, latency_ms, status, units)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, 0, $15, $16, $17, $18, $19, $20)
ON CONFLICT DO NOTHING
RETURNING id;

-- name: settlement
-- What a call was charged.
SELECT cost_nanos AS charged, overrun_nanos AS overrun FROM usage_events WHERE id = $1;

-- name: insert_attempts
-- Candidates that did not answer a call.
INSERT INTO attempts (call_id, number, key_id, turn_id, step, provider_slug, model_slug, status, error, ms)
SELECT $1, a.number, $2, $3, $4, a.provider, a.model, a.status, a.error, a.ms
  FROM unnest($5::integer[], $6::text[], $7::text[], $8::integer[], $9::text[], $10::integer[])
       AS a(number, provider, model, status, error, ms)
ON CONFLICT DO NOTHING;

-- name: usage_by_key
-- Sums per key of an account in a span of time.
SELECT u.key_id, k.name AS key_name, k.prefix AS key_prefix,
       sum(u.cost_nanos)::bigint AS cost_nanos, count(*) AS request_count,
       sum(u.input_tokens + u.cache_read_tokens + u.cache_write_5m_tokens + u.cache_write_1h_tokens)::bigint
           AS input_tokens,
       sum(u.output_tokens)::bigint AS output_tokens
  FROM usage_events u JOIN keys k ON k.id = u.key_id
 WHERE u.account_id = $1 AND u.created_at >= to_timestamp($2::float8 / 1000)
   AND u.created_at < to_timestamp($3::float8 / 1000)
 GROUP BY u.key_id, k.name, k.prefix ORDER BY cost_nanos DESC, u.key_id;

-- name: usage_by_model
-- Sums per model, of an account or of one of its keys, in a span of time.
SELECT model_slug, provider_slug, sum(cost_nanos)::bigint AS cost_nanos, count(*) AS request_count,
       sum(input_tokens + cache_read_tokens + cache_write_5m_tokens + cache_write_1h_tokens)::bigint
           AS input_tokens,
       sum(output_tokens)::bigint AS output_tokens
  FROM usage_events
 WHERE account_id = $1 AND ($2::uuid IS NULL OR key_id = $2)
   AND created_at >= to_timestamp($3::float8 / 1000) AND created_at < to_timestamp($4::float8 / 1000)
 GROUP BY model_slug, provider_slug ORDER BY cost_nanos DESC, model_slug;

-- name: usage_events_of_key
-- The newest rows of a key.
SELECT id, key_id, account_id, turn_id, step, end_user_id, model_slug, provider_slug, input_tokens,
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

-- name: set_billing
-- Make an account prepaid (true) or postpaid.
SELECT set_billing_v1($1, $2);

-- name: accounts
-- All accounts, or one, with what they have and what is held of it, oldest first.
SELECT a.id, a.name, w.account_id IS NOT NULL AS prepaid,
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

-- name: begin_payment
-- The row of a payment, so that it can be locked.
INSERT INTO payments (id, state) VALUES ($1, $2) ON CONFLICT DO NOTHING;

-- name: lock_payment
-- What is known of a payment, locked until the transaction ends.
SELECT state FROM payments WHERE id = $1 FOR UPDATE;

-- name: save_payment
-- What is known of a payment now.
UPDATE payments SET state = $2 WHERE id = $1;
