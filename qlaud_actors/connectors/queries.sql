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

-- name: connections
-- The living connections of an owner, of one connector if named; an end user's before the account's own.
SELECT c.*, c.access_expires_at < now() + interval '60 seconds' AS stale,
       (extract(epoch FROM c.access_expires_at) * 1000)::bigint AS access_expires_at_ms,
       (extract(epoch FROM c.created_at) * 1000)::bigint AS created_at_ms,
       (extract(epoch FROM c.verified_at) * 1000)::bigint AS verified_at_ms,
       (extract(epoch FROM c.last_used_at) * 1000)::bigint AS last_used_at_ms
  FROM connections c
 WHERE c.account_id = $1 AND (c.end_user_id IS NOT DISTINCT FROM $2::text OR c.end_user_id IS NULL)
   AND ($3::text IS NULL OR c.connector = $3) AND c.status <> 'disconnected'
 ORDER BY c.connector, c.end_user_id NULLS LAST;

-- name: newest_connections
-- Whose connections to one vendor work: the account's own first, then the newest.
SELECT end_user_id FROM connections
 WHERE account_id = $1 AND connector = $2 AND status = 'connected'
 ORDER BY end_user_id IS NOT NULL, verified_at DESC LIMIT 5;

-- name: is_shared
-- Whether somebody is connected to the same account at a vendor, whoever it is.
SELECT EXISTS (SELECT FROM connections
                WHERE connector = $1 AND vendor_account_id = $2 AND connected_as = $3
                  AND status = 'connected');

-- name: is_connected
-- Whether a connection may still be used.
SELECT status = 'connected' FROM connections WHERE id = $1;

-- name: connection_secrets
-- The sealed secrets of a connection.
SELECT field, sealed FROM connection_secrets WHERE connection_id = $1 ORDER BY field;

-- name: lock_owner
-- Until this transaction ends nobody else replaces the connection of this owner.
SELECT pg_advisory_xact_lock(hashtextextended($1::text, 14));

-- name: clock
-- The database's time.
SELECT now();

-- name: deleted_since
-- Whether this end user is being deleted, or somebody of the account was since a moment: of whom is not kept.
SELECT EXISTS (SELECT FROM deletions
                WHERE account_id = $1 AND (end_user_id = $2 OR completed_at >= $3));

-- name: end_connection
-- End the living connection of exactly this owner and forget its secrets.
WITH ended AS (
    UPDATE connections SET status = 'disconnected', disconnected_at = now(), generation = generation + 1
     WHERE account_id = $1 AND end_user_id IS NOT DISTINCT FROM $2::text AND connector = $3
       AND status <> 'disconnected'
    RETURNING id
), forgotten AS (
    DELETE FROM connection_secrets WHERE connection_id IN (SELECT id FROM ended)
)
SELECT id FROM ended;

-- name: insert_connection
-- A connection that was verified just now.
INSERT INTO connections (id, account_id, end_user_id, connector, scheme, settings, connected_as,
                         vendor_account_id, access_expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: put_connection_secret
-- Keep a secret of a connection, in the place of an older one.
INSERT INTO connection_secrets (connection_id, field, sealed) VALUES ($1, $2, $3)
ON CONFLICT (connection_id, field) DO UPDATE SET sealed = excluded.sealed;

-- name: wait_for_refresh
-- Within this transaction, wait for a lock as long as a vendor may take to give a new token.
SET LOCAL lock_timeout = '25s';

-- name: lock_connection
-- Keep a living connection as it is until this transaction ends.
SELECT status, generation FROM connections WHERE id = $1 AND status <> 'disconnected' FOR UPDATE;

-- name: renew_connection
-- Note that a connection has its next credential, unless somebody else was first.
UPDATE connections SET generation = generation + 1, access_expires_at = $3
 WHERE id = $1 AND generation = $2 AND status = 'connected'
RETURNING generation;

-- name: expire_connection
-- Note that the vendor no longer takes a credential, unless there is a newer one.
UPDATE connections SET status = 'expired' WHERE id = $1 AND generation = $2 AND status = 'connected'
RETURNING id;

-- name: touch_connection
-- Note that a connection is used; once a minute is often enough, and nobody is waited for.
UPDATE connections SET last_used_at = now()
 WHERE id = (SELECT id FROM connections
              WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')
                FOR NO KEY UPDATE SKIP LOCKED);

-- name: insert_link
-- A one-time link with which somebody connects an account at a vendor.
INSERT INTO connect_links (token_hash, account_id, end_user_id, connector, expires_at)
VALUES ($1, $2, $3, $4, now() + make_interval(mins => $5))
RETURNING (extract(epoch FROM expires_at) * 1000)::bigint;

-- name: forget_links
-- Some links that ended a day ago.
DELETE FROM connect_links
 WHERE token_hash IN (SELECT token_hash FROM connect_links WHERE expires_at < now() - interval '1 day'
                       ORDER BY expires_at LIMIT $1);

-- name: link
-- A link and the account that it is for, whatever has become of it.
SELECT l.token_hash, l.account_id, l.end_user_id, l.connector, a.name AS account_name,
       l.used_at IS NOT NULL AS used, l.expires_at <= now() AS expired
  FROM connect_links l JOIN accounts a ON a.id = l.account_id
 WHERE l.token_hash = $1;

-- name: use_link
-- The link has made its connection; nothing when another request was faster.
UPDATE connect_links SET used_at = now(), scheme = NULL, settings = NULL, state_hash = NULL, verifier = NULL
 WHERE token_hash = $1 AND used_at IS NULL
RETURNING token_hash;

-- name: begin_sign_in
-- Somebody is about to leave for the vendor; an earlier attempt to sign in with this link is void.
UPDATE connect_links SET scheme = $2, settings = $3, state_hash = $4, verifier = $5
 WHERE token_hash = $1 AND used_at IS NULL AND expires_at > now()
RETURNING token_hash;

-- name: end_sign_in
-- Somebody is back from the vendor: once, with the state that they left with.
WITH begun AS (
    SELECT token_hash, scheme, settings, verifier FROM connect_links
     WHERE token_hash = $1 AND state_hash = $2 AND used_at IS NULL AND expires_at > now()
       FOR UPDATE
)
UPDATE connect_links l SET scheme = NULL, settings = NULL, state_hash = NULL, verifier = NULL
  FROM begun WHERE l.token_hash = begun.token_hash
RETURNING begun.scheme, begun.settings, begun.verifier;
