-- name: lock_overrides
-- One writer at a time, until its transaction ends: so ids follow the order of commits.
SELECT pg_advisory_xact_lock($1);

-- name: insert_override
-- A price that counts from a moment on, at least so many seconds ahead; nothing comes back when that is too soon.
INSERT INTO price_overrides (provider_slug, model_slug, effective_from, before, after, version, source, reason,
                             made_by)
SELECT $1::text, $2::text, to_timestamp($3::float8 / 1000), $4::json, $5::json, $6::text, $7::text, $8::text,
       $9::uuid
 WHERE to_timestamp($3::float8 / 1000) >= clock_timestamp() + make_interval(secs => $10::float8)
RETURNING id;

-- name: overrides_after
-- All that was set behind an id, in the order of commits.
SELECT id, provider_slug, model_slug, after, version, source,
       (extract(epoch FROM effective_from) * 1000)::bigint AS effective_from_ms
  FROM price_overrides WHERE id > $1 ORDER BY id;

-- name: audit
-- Who set what, when and why, newest first.
SELECT o.id, o.provider_slug, o.model_slug, o.before, o.after, o.version, o.source, o.reason, o.made_by,
       k.prefix AS key_prefix, (extract(epoch FROM o.effective_from) * 1000)::bigint AS effective_from_ms,
       (extract(epoch FROM o.created_at) * 1000)::bigint AS created_at_ms
  FROM price_overrides o JOIN keys k ON k.id = o.made_by
 WHERE ($1::text IS NULL OR o.provider_slug = $1) AND ($2::text IS NULL OR o.model_slug = $2)
   AND ($3::bigint IS NULL OR o.id < $3)
 ORDER BY o.id DESC LIMIT $4;

-- name: usage_to_rate
-- Metered calls of a span of time between two ids, oldest first, as they are rated now.
SELECT u.id, u.model_slug, u.provider_slug, u.input_tokens, u.output_tokens, u.cache_read_tokens,
       u.cache_write_5m_tokens, u.cache_write_1h_tokens, u.units, u.markup_bps, u.latency_ms,
       (extract(epoch FROM t.started_at) * 1000)::bigint AS turn_started_ms,
       (extract(epoch FROM u.created_at) * 1000)::bigint AS created_at_ms,
       COALESCE(a.price_version, u.price_version) AS price_version,
       u.provider_cost_picos + COALESCE(a.picos, 0) AS picos,
       u.cost_nanos + COALESCE(a.cost, 0) AS cost_nanos, u.overrun_nanos + COALESCE(a.overrun, 0) AS overrun_nanos
  FROM usage_events u
  LEFT JOIN turns t ON t.id = u.turn_id
  LEFT JOIN LATERAL (
        SELECT sum(o.provider_cost_picos)::bigint AS picos, sum(o.cost_nanos)::bigint AS cost,
               sum(o.overrun_nanos)::bigint AS overrun,
               (array_agg(o.price_version ORDER BY o.id DESC))[1] AS price_version
          FROM usage_events o WHERE o.adjusts = u.id) a ON true
 WHERE u.adjusts IS NULL AND u.created_at >= to_timestamp($1::float8 / 1000)
   AND u.created_at < to_timestamp($2::float8 / 1000)
   AND ($3::text IS NULL OR u.model_slug = $3) AND ($4::text IS NULL OR u.provider_slug = $4)
   AND u.id > $5 AND u.id < $6
 ORDER BY u.id LIMIT $7;

-- name: rerate
-- Rate a usage row at another price, once per version; NULL when that was done before.
SELECT rerate_usage_v1($1, $2, $3, $4, $5);
