-- name: account_exists
-- Whether there is such an account.
SELECT EXISTS (SELECT FROM accounts WHERE id = $1);

-- name: balances
-- What each account's ledger adds up to, beside the balance that it is shown and the one in its wallet.
SELECT a.id AS account_id, what || ' of account ' || a.id AS what, total AS expected, found
  FROM accounts a
 CROSS JOIN LATERAL (SELECT COALESCE(sum(l.amount_nanos), 0)::bigint AS total
                       FROM ledger_entries l WHERE l.account_id = a.id) ledger
  LEFT JOIN wallets w ON w.account_id = a.id
 CROSS JOIN LATERAL (VALUES ('balance', account_balance_v1(a.id)),
                            ('wallet', w.balance_nanos)) AS shown (what, found)
 WHERE ($1::uuid IS NULL OR a.id = $1) AND (what <> 'wallet' OR w.account_id IS NOT NULL)
 ORDER BY a.id, 2;

-- name: charged
-- What each key was charged in all, beside its usage rows.
SELECT k.account_id, 'key ' || k.id AS what, COALESCE(u.total, 0) AS expected, b.charged_nanos AS found
  FROM budgets b JOIN keys k ON k.id = b.key_id
  LEFT JOIN (SELECT key_id, sum(cost_nanos)::bigint AS total FROM usage_events
              WHERE $1::uuid IS NULL OR account_id = $1 GROUP BY key_id) u ON u.key_id = b.key_id
 WHERE $1::uuid IS NULL OR k.account_id = $1 ORDER BY k.id;

-- name: spent
-- What each key has spent in its window, beside the usage rows of that time. A call that was under way when
-- the window began counts in the window of its hold, which no row tells: `sure` leaves such rows out, `more`
-- and `less` are what they can add to it or, as adjustments, take from it.
SELECT k.account_id, 'key ' || k.id AS what, b.spent_nanos AS found,
       COALESCE(sum(u.cost_nanos) FILTER (WHERE u.began >= b.window_start), 0)::bigint AS sure,
       COALESCE(sum(GREATEST(u.cost_nanos, 0)) FILTER (WHERE u.began < b.window_start), 0)::bigint AS more,
       COALESCE(sum(LEAST(u.cost_nanos, 0)) FILTER (WHERE u.began < b.window_start), 0)::bigint AS less
  FROM budgets b JOIN keys k ON k.id = b.key_id
  LEFT JOIN LATERAL (
       SELECT r.cost_nanos, COALESCE(s.started_at, o.created_at - make_interval(secs => o.latency_ms / 1000.0))
                            - interval '1 minute' AS began
         FROM usage_events r JOIN usage_events o ON o.id = COALESCE(r.adjusts, r.id)
         LEFT JOIN steps s ON s.turn_id = o.turn_id AND s.number = o.step
        WHERE r.key_id = b.key_id AND r.created_at >= b.window_start) u ON true
 WHERE $1::uuid IS NULL OR k.account_id = $1 GROUP BY k.id, b.key_id ORDER BY k.id;

-- name: held
-- What is held on each key in its window and on each wallet, beside the holds themselves.
SELECT k.account_id, 'key ' || k.id AS what, b.held_nanos AS found,
       (SELECT COALESCE(sum(h.amount_nanos), 0)::bigint FROM holds h
         WHERE h.key_id = b.key_id AND h.window_start = b.window_start) AS expected
  FROM budgets b JOIN keys k ON k.id = b.key_id WHERE $1::uuid IS NULL OR k.account_id = $1
UNION ALL
SELECT w.account_id, 'wallet of ' || w.account_id, w.held_nanos,
       (SELECT COALESCE(sum(h.amount_nanos), 0)::bigint FROM holds h JOIN keys k ON k.id = h.key_id
         WHERE k.account_id = w.account_id AND h.from_wallet)
  FROM wallets w WHERE $1::uuid IS NULL OR w.account_id = $1 ORDER BY what;

-- name: entries
-- Every usage row with its ledger entry, and every usage entry with its row. Spend from before there was a
-- ledger is one entry per key, under the key's own id (migration 0002), and is held against in `openings`.
SELECT COALESCE(u.account_id, l.account_id) AS account_id, 'usage ' || COALESCE(u.id, l.id) AS what,
       -u.cost_nanos AS expected, l.amount_nanos AS found
  FROM (SELECT * FROM usage_events WHERE $1::uuid IS NULL OR account_id = $1) u
  FULL JOIN (SELECT * FROM ledger_entries WHERE kind = 'usage' AND ($1::uuid IS NULL OR account_id = $1)) l
       ON l.account_id = u.account_id AND l.id = u.id
 WHERE NOT EXISTS (SELECT FROM keys k WHERE k.id = l.id)
   AND NOT (l.id IS NULL AND EXISTS (
       SELECT FROM ledger_entries o
        WHERE o.account_id = u.account_id AND o.id = u.key_id AND o.created_at >= u.created_at));

-- name: openings
-- What a key had spent before there was a ledger, as one entry, beside the usage rows of that time.
SELECT o.account_id, 'opening entry of key ' || o.id AS what, o.amount_nanos AS found,
       -(SELECT COALESCE(sum(u.cost_nanos), 0)::bigint FROM usage_events u
          WHERE u.key_id = o.id AND u.created_at <= o.created_at
            AND NOT EXISTS (SELECT FROM ledger_entries l WHERE l.account_id = u.account_id AND l.id = u.id))
           AS expected
  FROM ledger_entries o JOIN keys k ON k.id = o.id
 WHERE o.kind = 'usage' AND ($1::uuid IS NULL OR o.account_id = $1) ORDER BY o.id;

-- name: costs
-- What each call's charge was made of; when it was rated anew, together with its adjustments.
SELECT u.account_id, 'usage ' || u.id AS what, u.markup_bps,
       u.provider_cost_picos + COALESCE(a.picos, 0) AS picos,
       u.overrun_nanos + COALESCE(a.overrun, 0) AS overrun, u.cost_nanos + COALESCE(a.cost, 0) AS found
  FROM usage_events u
  LEFT JOIN (SELECT adjusts, sum(provider_cost_picos)::bigint AS picos, sum(overrun_nanos)::bigint AS overrun,
                    sum(cost_nanos)::bigint AS cost
               FROM usage_events WHERE adjusts IS NOT NULL GROUP BY adjusts) a ON a.adjusts = u.id
 WHERE u.adjusts IS NULL AND ($1::uuid IS NULL OR u.account_id = $1);

-- name: owners
-- The account that a usage row names, beside the one that its key belongs to (1 for the same).
SELECT u.account_id, 'usage ' || u.id AS what, 1 AS expected, (u.account_id = k.account_id)::integer AS found
  FROM usage_events u JOIN keys k ON k.id = u.key_id WHERE $1::uuid IS NULL OR u.account_id = $1;

-- name: turn_costs
-- What each turn says that it cost when it ended, beside its usage rows without later adjustments.
SELECT t.account_id, 'turn ' || t.id AS what, t.cost_nanos AS found, COALESCE(u.total, 0) AS expected
  FROM turns t
  LEFT JOIN (SELECT turn_id, sum(cost_nanos)::bigint AS total FROM usage_events
              WHERE turn_id IS NOT NULL AND adjusts IS NULL GROUP BY turn_id) u ON u.turn_id = t.id
 WHERE $1::uuid IS NULL OR t.account_id = $1;

-- name: step_costs
-- The same of each step; a row of a turn must have its step, while there is the turn: a deletion leaves the usage.
SELECT COALESCE(t.account_id, u.account_id) AS account_id,
       'step ' || COALESCE(s.number, u.step, 0) || ' of turn ' || COALESCE(s.turn_id, u.turn_id) AS what,
       s.cost_nanos AS found, COALESCE(u.cost_nanos, 0) AS expected
  FROM steps s JOIN turns t ON t.id = s.turn_id
  FULL JOIN (SELECT u.* FROM usage_events u JOIN turns t ON t.id = u.turn_id
              WHERE u.purpose IS NULL AND u.adjusts IS NULL) u
       ON u.turn_id = s.turn_id AND u.step = s.number
 WHERE $1::uuid IS NULL OR COALESCE(t.account_id, u.account_id) = $1;

-- name: orphans
-- Every hold; nothing is expected of one that is older than $2 seconds and that nobody will settle or
-- release: its turn is over or unknown, or its process is dead.
SELECT k.account_id, 'hold ' || h.id AS what, h.amount_nanos AS found,
       CASE WHEN h.created_at > now() - make_interval(secs => $2::float8) OR t.status IN ('queued', 'running')
                 OR (h.turn_id IS NULL AND p.alive_until > now()) THEN h.amount_nanos END AS expected
  FROM holds h JOIN keys k ON k.id = h.key_id
  LEFT JOIN turns t ON t.id = h.turn_id LEFT JOIN processes p ON p.id = h.owner
 WHERE $1::uuid IS NULL OR k.account_id = $1 ORDER BY h.id;

-- name: our_usage
-- What went to a provider on each day (UTC) from $2 until before $3, by model.
SELECT (created_at AT TIME ZONE 'UTC')::date AS day, model_slug, count(*) AS requests,
       sum(input_tokens)::bigint AS input, sum(output_tokens)::bigint AS output,
       sum(cache_read_tokens)::bigint AS cache_read, sum(cache_write_5m_tokens)::bigint AS cache_write_5m,
       sum(cache_write_1h_tokens)::bigint AS cache_write_1h, sum(provider_cost_picos) AS cost_picos,
       count(*) FILTER (WHERE estimated) AS estimated
  FROM usage_events
 WHERE provider_slug = $1 AND created_at >= $2::date AT TIME ZONE 'UTC' AND created_at < $3::date AT TIME ZONE 'UTC'
   AND ($4::uuid IS NULL OR account_id = $4)
 GROUP BY 1, 2 ORDER BY 1, 2;
