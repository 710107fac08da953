-- name: insert_key
-- A new key.
INSERT INTO keys (id, account_id, name, scope, hash, prefix, end_user_id, thread_access, is_master)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: insert_budget
-- What a key may spend; NULL is no limit.
INSERT INTO budgets (key_id, limit_nanos) VALUES ($1, $2);

-- name: key_by_hash
-- The living key with this hash, and its budget.
SELECT k.*, b.limit_nanos, b.spent_nanos, b.held_nanos, false AS revoked,
       (extract(epoch FROM k.created_at) * 1000)::bigint AS created_at_ms,
       (extract(epoch FROM k.last_used_at) * 1000)::bigint AS last_used_at_ms,
       (k.last_used_at IS NULL OR k.last_used_at < now() - interval '1 minute') AS stale
  FROM keys k JOIN budgets b ON b.key_id = k.id
 WHERE k.hash = $1 AND k.revoked_at IS NULL;

-- name: touch_key
-- Note that a key is in use.
UPDATE keys SET last_used_at = now()
 WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute');

-- name: list_keys
-- All keys of an account, or one of them, also revoked ones, oldest first.
SELECT k.*, b.limit_nanos, b.spent_nanos, b.held_nanos, k.revoked_at IS NOT NULL AS revoked,
       (extract(epoch FROM k.created_at) * 1000)::bigint AS created_at_ms,
       (extract(epoch FROM k.last_used_at) * 1000)::bigint AS last_used_at_ms
  FROM keys k JOIN budgets b ON b.key_id = k.id
 WHERE k.account_id = $1 AND ($2::uuid IS NULL OR k.id = $2)
 ORDER BY k.created_at, k.id;

-- name: rename_key
-- Another name for a living key.
UPDATE keys SET name = $3 WHERE id = $1 AND account_id = $2 AND revoked_at IS NULL;

-- name: set_limit
-- Another cap for a key.
UPDATE budgets SET limit_nanos = $2 WHERE key_id = $1;

-- name: revoke_key
-- End a key for good; its row and its usage stay.
UPDATE keys SET revoked_at = now() WHERE id = $1 AND account_id = $2 AND revoked_at IS NULL RETURNING id;

-- name: revoke_other_masters
-- There is one master key: the one that is configured.
UPDATE keys SET revoked_at = now() WHERE is_master AND hash <> $1 AND revoked_at IS NULL;

-- name: revive_master
-- The configured master key works, also when it was replaced in between.
UPDATE keys SET revoked_at = NULL WHERE is_master AND hash = $1;

-- name: hash_exists
-- Whether a key with this hash was ever made.
SELECT EXISTS (SELECT FROM keys WHERE hash = $1);

-- name: lock_master
-- One process at a time decides about the master key.
SELECT pg_advisory_xact_lock($1);
