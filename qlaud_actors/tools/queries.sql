-- name: insert_tool
-- Register a webhook tool; nothing when the account has a living one of this name.
INSERT INTO tools (id, account_id, name, description, input_schema, webhook_url, timeout_ms, effect, shared, secret)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
ON CONFLICT (account_id, name) WHERE revoked_at IS NULL DO NOTHING
RETURNING *, (extract(epoch FROM created_at) * 1000)::bigint AS created_at_ms;

-- name: list_tools
-- The living tools of an account, oldest first; only those of the given ids when there are any.
SELECT *, (extract(epoch FROM created_at) * 1000)::bigint AS created_at_ms
  FROM tools
 WHERE account_id = $1 AND revoked_at IS NULL AND ($2::text[] IS NULL OR id = ANY ($2))
 ORDER BY created_at, id;

-- name: revoke_tool
-- End a tool, free its name and forget its secret.
UPDATE tools SET revoked_at = now(), secret = '' WHERE account_id = $1 AND id = $2 AND revoked_at IS NULL
RETURNING id;
