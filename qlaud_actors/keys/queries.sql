-- name: insert_key
-- A new key.
INSERT INTO keys (id, account_id, name, scope, prefix, end_user_id, thread_access, is_master)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8);

-- name: insert_secret
-- The current secret of a key, as its hash.
INSERT INTO key_secrets (hash, key_id) VALUES ($1, $2);

-- name: insert_budget
-- What a key may spend in each period; NULL is no limit.
INSERT INTO budgets (key_id, limit_nanos, cap_period) VALUES ($1, $2, $3);

-- name: key_by_hash
-- The living key that this secret opens now, its budget as it is now, and its account's wallet.
SELECT k.*, b.limit_nanos, b.cap_period, b.spent_nanos, b.held_nanos, b.resets_at_ms,
       w.balance_nanos AS wallet_nanos, false AS revoked, k.xmin::text::bigint AS version,
       (extract(epoch FROM k.expires_at) * 1000)::bigint AS expires_at_ms,
       COALESCE(k.expires_at <= now(), false) AS expired,
       (extract(epoch FROM k.created_at) * 1000)::bigint AS created_at_ms,
       (extract(epoch FROM k.last_used_at) * 1000)::bigint AS last_used_at_ms,
       (k.last_used_at IS NULL OR k.last_used_at < now() - interval '1 minute') AS stale
  FROM key_secrets s JOIN keys k ON k.id = s.key_id JOIN current_budgets b ON b.key_id = k.id
       LEFT JOIN wallets w ON w.account_id = k.account_id
 WHERE s.hash = $1 AND (s.expires_at IS NULL OR s.expires_at > now()) AND k.revoked_at IS NULL;

-- name: touch_key
-- Note that a key is in use.
UPDATE keys SET last_used_at = now()
 WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute');

-- name: list_keys
-- All keys of an account, or one of them, also revoked ones, oldest first.
SELECT k.*, b.limit_nanos, b.cap_period, b.spent_nanos, b.held_nanos, b.resets_at_ms,
       w.balance_nanos AS wallet_nanos, k.revoked_at IS NOT NULL AS revoked,
       (extract(epoch FROM k.expires_at) * 1000)::bigint AS expires_at_ms,
       (extract(epoch FROM k.created_at) * 1000)::bigint AS created_at_ms,
       (extract(epoch FROM k.last_used_at) * 1000)::bigint AS last_used_at_ms
  FROM keys k JOIN current_budgets b ON b.key_id = k.id LEFT JOIN wallets w ON w.account_id = k.account_id
 WHERE k.account_id = $1 AND ($2::uuid IS NULL OR k.id = $2)
 ORDER BY k.created_at, k.id;

-- name: rename_key
-- Another name for a living key.
UPDATE keys SET name = $3 WHERE id = $1 AND account_id = $2 AND revoked_at IS NULL;

-- name: set_limit
-- Another cap for a key.
UPDATE budgets SET limit_nanos = $2 WHERE key_id = $1;

-- name: set_cap_period
-- Another period for a key's cap; what the new one has seen counts as spent.
SELECT set_cap_period_v1($1, $2);

-- name: set_limits
-- Another pace, other models, another end for a key.
UPDATE keys SET rpm = $2, tpm = $3, max_concurrent = $4, allowed_models = $5,
                expires_at = to_timestamp($6::bigint / 1000.0)
 WHERE id = $1;

-- name: lock_key
-- Nobody else changes the secrets of a living key until this transaction ends.
SELECT id FROM keys WHERE id = $1 AND revoked_at IS NULL FOR UPDATE;

-- name: end_replaced_secrets
-- At most two secrets of a key are alive: the one that was replaced before goes now.
DELETE FROM key_secrets WHERE key_id = $1 AND expires_at IS NOT NULL;

-- name: replace_secret
-- The current secret works for a while longer; returns until when, in ms since the epoch.
UPDATE key_secrets SET expires_at = now() + make_interval(secs => $2)
 WHERE key_id = $1 AND expires_at IS NULL
RETURNING (extract(epoch FROM expires_at) * 1000)::bigint;

-- name: set_prefix
-- What is shown of a key is of its current secret.
UPDATE keys SET prefix = $2 WHERE id = $1;

-- name: revoke_key
-- End a key for good; its row and its usage stay.
UPDATE keys SET revoked_at = now() WHERE id = $1 AND account_id = $2 AND revoked_at IS NULL RETURNING id;

-- name: revoke_other_masters
-- There is one master key: the one that is configured.
UPDATE keys k SET revoked_at = now()
 WHERE k.is_master AND k.revoked_at IS NULL
   AND NOT EXISTS (SELECT FROM key_secrets s WHERE s.key_id = k.id AND s.hash = $1);

-- name: revive_master
-- The configured master key works, also when it was replaced in between.
UPDATE keys k SET revoked_at = NULL FROM key_secrets s
 WHERE s.hash = $1 AND k.id = s.key_id AND k.is_master;

-- name: hash_exists
-- Whether a key with this hash was ever made.
SELECT EXISTS (SELECT FROM key_secrets WHERE hash = $1);

-- name: lock_master
-- One process at a time decides about the master key.
SELECT pg_advisory_xact_lock($1);
