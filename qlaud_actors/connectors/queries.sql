-- name: data_keys
-- An account's data keys, or the one that is named, newest first.
SELECT id, wrapped FROM data_keys
 WHERE account_id = $1 AND ($2::text IS NULL OR id = $2) ORDER BY created_at DESC, id;

-- name: insert_data_key
-- Another data key for an account.
INSERT INTO data_keys (id, account_id, wrapped) VALUES ($1, $2, $3);

-- name: note_openings
-- Secrets that are about to be opened.
INSERT INTO vault_audit (account_id, owner, field, purpose, process)
SELECT opening.*, $5 FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[]) AS opening;

-- name: forget_openings
-- Openings of more than some days ago.
DELETE FROM vault_audit
 WHERE id IN (SELECT id FROM vault_audit WHERE at < now() - make_interval(days => $1) ORDER BY at LIMIT $2);

-- name: keys_in_use
-- What each key of the ring is needed for.
SELECT key_id, what, count(*) AS rows
  FROM (SELECT sealed_key_v1(wrapped) AS key_id, 'data_keys' AS what FROM data_keys
        UNION ALL SELECT sealed_key_v1(secret), 'tools' FROM tools WHERE old_form_v1(secret)
        UNION ALL SELECT sealed_key_v1(secret), 'webhooks' FROM webhooks WHERE old_form_v1(secret)) used
 GROUP BY key_id, what ORDER BY key_id, what;

-- name: old_data_keys
-- Data keys that are not wrapped with the newest key.
SELECT id AS row_id, account_id, wrapped AS sealed
  FROM data_keys WHERE id > $1 AND sealed_key_v1(wrapped) IS DISTINCT FROM $2::text ORDER BY id LIMIT $3;

-- name: old_tool_secrets
-- Secrets of tools in the old form.
SELECT id AS row_id, account_id, secret AS sealed
  FROM tools WHERE id > $1 AND old_form_v1(secret) ORDER BY id LIMIT $2;

-- name: old_webhook_secrets
-- Secrets of webhooks in the old form.
SELECT id::text AS row_id, account_id, secret AS sealed
  FROM webhooks WHERE id > $1::text::uuid AND old_form_v1(secret) ORDER BY webhooks.id LIMIT $2;

-- name: replace_data_key
-- Another wrapping, unless somebody has replaced it since it was read.
UPDATE data_keys SET wrapped = $3 WHERE id = $1 AND wrapped = $2 RETURNING id;

-- name: replace_tool_secret
-- The same secret, sealed anew, unless somebody has replaced it since it was read.
UPDATE tools SET secret = $3 WHERE id = $1 AND secret = $2 RETURNING id;

-- name: replace_webhook_secret
-- The same secret, sealed anew, unless somebody has replaced it since it was read.
UPDATE webhooks SET secret = $3 WHERE id = $1::text::uuid AND secret = $2 RETURNING id;
