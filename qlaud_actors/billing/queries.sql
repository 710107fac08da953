-- name: place_hold
-- Set money aside: as much of what is wanted as the limits afford, at least the floor.
SELECT * FROM place_hold_v1($1, $2, $3, $4, $5);

-- name: settle_hold
-- Turn a hold into spend, once; NULLs when it is gone.
SELECT * FROM settle_hold_v1($1, $2);

-- name: release_holds
-- Give holds back; returns how many there still were.
SELECT release_holds_v1($1);

-- name: insert_usage_event
-- One metered call; the same step of a turn is never written twice (then no id comes back).
INSERT INTO usage_events (id, account_id, key_id, turn_id, step, end_user_id, model_slug, provider_slug,
                          input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens,
                          cache_write_1h_tokens, provider_cost_picos, cost_nanos, overrun_nanos,
                          price_version, markup_bps, estimated, latency_ms, status)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)
ON CONFLICT (turn_id, step) DO NOTHING
RETURNING id;

-- name: take_back_spend
-- Undo a charge within the transaction that made it.
UPDATE budgets SET spent_nanos = spent_nanos - $2 WHERE key_id = $1;

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
