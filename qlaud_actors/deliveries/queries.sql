-- name: insert_webhook
-- A new webhook; nothing when the account has as many as it may, or one without a URL already.
INSERT INTO webhooks (id, account_id, url, events, secret)
SELECT $1, $2, $3, $4, $5
 WHERE (SELECT count(*) FROM webhooks WHERE account_id = $2 AND deleted_at IS NULL) < $6
ON CONFLICT (account_id) WHERE url IS NULL AND deleted_at IS NULL DO NOTHING
RETURNING *, (extract(epoch FROM created_at) * 1000)::bigint AS created_at_ms;

-- name: webhooks
-- The living webhooks of an account, or one of them, oldest first.
SELECT id, account_id, url, events, (extract(epoch FROM created_at) * 1000)::bigint AS created_at_ms
  FROM webhooks
 WHERE account_id = $1 AND deleted_at IS NULL AND ($2::uuid IS NULL OR id = $2)
 ORDER BY created_at, id;

-- name: replace_secret
-- Another secret for a living webhook.
UPDATE webhooks SET secret = $3 WHERE account_id = $1 AND id = $2 AND deleted_at IS NULL RETURNING id;

-- name: delete_webhook
-- End a webhook and forget its secret; what is still on its way is given up by the next sweep.
UPDATE webhooks SET deleted_at = now(), secret = ''
 WHERE account_id = $1 AND id = $2 AND deleted_at IS NULL RETURNING id;

-- name: webhooks_for
-- Who of an account wants to be told of an event.
SELECT id, url FROM webhooks
 WHERE account_id = $1 AND deleted_at IS NULL AND url IS NOT NULL AND $2 = ANY (events) ORDER BY id;

-- name: job_webhook
-- The account's webhook without a URL, whose secret signs what goes to addresses that jobs name.
SELECT id FROM webhooks WHERE account_id = $1 AND deleted_at IS NULL AND url IS NULL;

-- name: insert_delivery
-- Something to tell, due at once.
INSERT INTO deliveries (id, webhook_id, event, url, body) VALUES ($1, $2, $3, $4, $5);

-- name: claim_deliveries
-- Take due deliveries, or the one that is asked for, for an attempt: as many as there are hands, but of each
-- webhook only some, so that one slow receiver does not keep all of them. The lease is that the next attempt
-- lies ahead; a process that dies in between only delays it.
UPDATE deliveries d
   SET epoch = d.epoch + 1, attempts = d.attempts + 1, last_attempt_at = now(),
       next_attempt_at = now() + make_interval(secs => $5)
  FROM (SELECT id FROM deliveries
         WHERE id IN (SELECT id FROM (
                   SELECT id, next_attempt_at,
                          row_number() OVER (PARTITION BY webhook_id ORDER BY next_attempt_at, id) AS place
                     FROM deliveries
                    WHERE status = 'pending' AND next_attempt_at <= now() AND attempts < $6
                      AND ($1::uuid IS NULL OR id = $1) AND NOT webhook_id = ANY ($3::uuid[])) due
               WHERE place <= $4 ORDER BY next_attempt_at, id LIMIT $2)
           AND status = 'pending' AND next_attempt_at <= now()
         FOR UPDATE SKIP LOCKED) mine, webhooks w
 WHERE d.id = mine.id AND w.id = d.webhook_id AND w.deleted_at IS NULL
RETURNING d.id, d.webhook_id, w.account_id, d.event, d.url, d.body, d.epoch, d.attempts, w.secret;

-- name: note_delivered
-- The receiver has it.
UPDATE deliveries SET status = 'delivered', ended_at = now(), last_status = $3, last_error = NULL
 WHERE id = $1 AND epoch = $2 AND status = 'pending';

-- name: note_failed
-- An attempt failed: another one after some seconds, or none any more.
UPDATE deliveries
   SET last_status = $3, last_error = $4,
       status = CASE WHEN $5::float8 IS NULL THEN 'dead' ELSE 'pending' END,
       ended_at = CASE WHEN $5::float8 IS NULL THEN now() END,
       next_attempt_at = CASE WHEN $5::float8 IS NULL THEN next_attempt_at
                              ELSE now() + make_interval(secs => $5) END
 WHERE id = $1 AND epoch = $2 AND status = 'pending';

-- name: give_up_deliveries
-- Deliveries whose last attempt died with its process, and those of deleted webhooks.
UPDATE deliveries d SET status = 'dead', ended_at = now(), last_error = COALESCE(d.last_error, $2)
 WHERE d.id IN (SELECT p.id FROM deliveries p JOIN webhooks w ON w.id = p.webhook_id
                 WHERE p.status = 'pending' AND p.next_attempt_at <= now()
                   AND (p.attempts >= $1 OR w.deleted_at IS NOT NULL)
                 LIMIT 500 FOR UPDATE OF p SKIP LOCKED)
RETURNING d.id;

-- name: deliveries_of_webhook
-- The newest deliveries of a webhook.
SELECT id, event, url, status, attempts, last_status, last_error,
       CASE WHEN status = 'pending' THEN (extract(epoch FROM next_attempt_at) * 1000)::bigint END
           AS next_attempt_at_ms,
       (extract(epoch FROM last_attempt_at) * 1000)::bigint AS last_attempt_at_ms,
       (extract(epoch FROM created_at) * 1000)::bigint AS created_at_ms,
       (extract(epoch FROM ended_at) * 1000)::bigint AS ended_at_ms
  FROM deliveries WHERE webhook_id = $1 ORDER BY id DESC LIMIT $2;

-- name: redeliver
-- From the beginning, at once; the answer to an attempt that is under way counts no more.
UPDATE deliveries
   SET status = 'pending', epoch = epoch + 1, attempts = 0, next_attempt_at = now(), ended_at = NULL
 WHERE webhook_id = $1 AND id = $2 RETURNING id;

-- name: webhooks_with_usage
-- Webhooks that were not told of some usage.
SELECT DISTINCT q.webhook_id, w.deleted_at IS NULL AS alive
  FROM usage_queue q JOIN webhooks w ON w.id = q.webhook_id LIMIT 1000;

-- name: lock_webhook
-- One process at a time tells a webhook of usage.
SELECT id, account_id, url FROM webhooks
 WHERE id = $1 AND deleted_at IS NULL FOR NO KEY UPDATE SKIP LOCKED;

-- name: take_usage
-- The next usage events that a webhook was not told of, as they were priced, in the order of writing.
WITH taken AS (
    DELETE FROM usage_queue q USING (
        SELECT position FROM usage_queue WHERE webhook_id = $1 ORDER BY position LIMIT $2) next
     WHERE q.webhook_id = $1 AND q.position = next.position
    RETURNING q.position, q.usage_id
)
SELECT u.*, u.cache_write_5m_tokens + u.cache_write_1h_tokens AS cache_write_tokens,
       (extract(epoch FROM u.created_at) * 1000)::bigint AS created_at_ms
  FROM taken JOIN usage_events u ON u.id = taken.usage_id ORDER BY taken.position;

-- name: count_batch
-- The number of a delivery of usage to a webhook.
UPDATE webhooks SET usage_batches = usage_batches + 1 WHERE id = $1 RETURNING usage_batches;

-- name: drop_usage
-- Nobody is left who wants to be told.
DELETE FROM usage_queue WHERE webhook_id = $1;

-- name: cap_untold
-- Whether somebody wants to know of a refusal by a key's cap who was not told in this window.
SELECT EXISTS (
    SELECT FROM budgets b JOIN keys k ON k.id = b.key_id
           JOIN webhooks w ON w.account_id = k.account_id AND w.deleted_at IS NULL
                          AND 'key.cap_exceeded' = ANY (w.events)
           LEFT JOIN cap_notices n ON n.key_id = b.key_id
     WHERE b.key_id = $1 AND b.limit_nanos IS NOT NULL
       AND (n.window_start, n.limit_nanos)
           IS DISTINCT FROM (cap_window_v1(b.cap_period, now()), b.limit_nanos));

-- name: note_cap
-- The key's figures, if this is the first refusal of its window and cap.
WITH noted AS (
    INSERT INTO cap_notices (key_id, window_start, limit_nanos)
    SELECT key_id, cap_window_v1(cap_period, now()), limit_nanos
      FROM budgets WHERE key_id = $1 AND limit_nanos IS NOT NULL
    ON CONFLICT (key_id) DO UPDATE
       SET window_start = EXCLUDED.window_start, limit_nanos = EXCLUDED.limit_nanos
     WHERE (cap_notices.window_start, cap_notices.limit_nanos)
           IS DISTINCT FROM (EXCLUDED.window_start, EXCLUDED.limit_nanos)
    RETURNING key_id
)
SELECT k.id, k.account_id, k.name, k.prefix, k.end_user_id, b.limit_nanos, b.cap_period, b.spent_nanos,
       b.held_nanos, b.resets_at_ms
  FROM noted JOIN keys k ON k.id = noted.key_id JOIN current_budgets b ON b.key_id = k.id;

-- name: rearm_wallets
-- Wallets that are up again, or have another threshold, are told of when they are low the next time.
DELETE FROM wallet_notices n
 WHERE NOT EXISTS (SELECT FROM wallet_thresholds t
                    WHERE t.account_id = n.account_id AND t.threshold_nanos = n.threshold_nanos
                      AND t.balance_nanos < t.threshold_nanos);

-- name: low_wallets
-- Some accounts that are below their threshold, want to know it, and were not told.
SELECT t.account_id FROM wallet_thresholds t
 WHERE t.balance_nanos < t.threshold_nanos
   AND NOT EXISTS (SELECT FROM wallet_notices n WHERE n.account_id = t.account_id)
   AND EXISTS (SELECT FROM webhooks w WHERE w.account_id = t.account_id AND w.deleted_at IS NULL
                                        AND w.url IS NOT NULL AND 'wallet.low' = ANY (w.events))
 LIMIT 100;

-- name: note_low_wallet
-- The figures of a wallet that is low, if nobody has told them.
WITH noted AS (
    INSERT INTO wallet_notices (account_id, threshold_nanos)
    SELECT account_id, threshold_nanos FROM wallet_thresholds
     WHERE account_id = $1 AND balance_nanos < threshold_nanos
    ON CONFLICT DO NOTHING
    RETURNING account_id
)
SELECT t.* FROM noted JOIN wallet_thresholds t ON t.account_id = noted.account_id;

-- name: delete_old_deliveries
-- What ended some days ago.
DELETE FROM deliveries
 WHERE id IN (SELECT id FROM deliveries WHERE status <> 'pending' AND ended_at < now() - make_interval(days => $1)
               LIMIT 1000);
