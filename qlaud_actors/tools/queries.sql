-- name: insert_tool
-- Register a webhook tool; its name is unique among the account's living tools.
INSERT INTO tools (id, account_id, name, description, input_schema, webhook_url, timeout_ms, effect, shared, secret)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
RETURNING *, (extract(epoch FROM created_at) * 1000)::bigint AS created_at_ms;

-- name: list_tools
-- The living tools of an account.
SELECT *, (extract(epoch FROM created_at) * 1000)::bigint AS created_at_ms
  FROM tools WHERE account_id = $1 AND revoked_at IS NULL ORDER BY created_at, id;

-- name: revoke_tool
-- End a tool and free its name.
UPDATE tools SET revoked_at = now() WHERE account_id = $1 AND id = $2 AND revoked_at IS NULL RETURNING id;
