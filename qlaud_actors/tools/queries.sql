-- name: insert_tool
-- Register a webhook tool or a built-in; nothing when the account has a living one of this name.
INSERT INTO tools (id, account_id, name, description, input_schema, webhook_url, timeout_ms, effect, shared, secret,
                   provider, auth_mode, config)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
ON CONFLICT (account_id, name) WHERE revoked_at IS NULL DO NOTHING
RETURNING *, (extract(epoch FROM created_at) * 1000)::bigint AS created_at_ms;

-- name: list_tools
-- The living tools of an account, oldest first, those of MCP servers with their server; only those of the
-- given ids when there are any.
SELECT t.*, (extract(epoch FROM t.created_at) * 1000)::bigint AS created_at_ms,
       s.name AS server_name, s.server_url, s.auth_headers, s.effect AS server_effect,
       s.timeout_ms AS server_timeout_ms, s.catalog_slug, s.auth_mode AS server_auth_mode,
       (extract(epoch FROM s.tools_cache_at) * 1000)::bigint AS tools_cache_at_ms
  FROM tools t LEFT JOIN mcp_servers s ON s.id = t.mcp_server_id
 WHERE t.account_id = $1 AND t.revoked_at IS NULL AND ($2::text[] IS NULL OR t.id = ANY ($2))
 ORDER BY t.created_at, t.id;

-- name: revoke_tool
-- End a tool, free its name and forget what is secret of it.
UPDATE tools SET revoked_at = now(), secret = '', config = NULL
 WHERE account_id = $1 AND id = $2 AND revoked_at IS NULL
RETURNING id;

-- name: session_metadata
-- What was said of a living thread, and which of it an admin key said last.
SELECT COALESCE(metadata, '{}') AS metadata, vouched FROM threads WHERE account_id = $1 AND id = $2 AND deleted_at IS NULL;

-- name: insert_mcp_server
-- Register an MCP server; nothing when the name is taken or the account has as many as it may.
INSERT INTO mcp_servers (id, account_id, name, server_url, auth_headers, timeout_ms, effect, catalog_slug, auth_mode,
                         tools_cache_at)
SELECT $1, $2, $3, $4, $5, $6, $7, $9, $10, CASE WHEN $11 THEN now() END
 WHERE (SELECT count(*) FROM mcp_servers WHERE account_id = $2 AND revoked_at IS NULL) < $8
ON CONFLICT (account_id, name) WHERE revoked_at IS NULL DO NOTHING
RETURNING id;

-- name: mcp_servers
-- The living MCP servers of an account, newest first; only the one of an id or a name when there is one.
SELECT s.id AS mcp_server_id, s.account_id, s.name AS server_name, s.server_url, s.auth_headers,
       s.effect AS server_effect, s.timeout_ms AS server_timeout_ms, s.catalog_slug,
       s.auth_mode AS server_auth_mode,
       (SELECT count(*) FROM tools t
         WHERE t.mcp_server_id = s.id AND t.revoked_at IS NULL AND s.tools_cache_at IS NOT NULL) AS tools_cached,
       (extract(epoch FROM s.tools_cache_at) * 1000)::bigint AS tools_cache_at_ms,
       (extract(epoch FROM s.created_at) * 1000)::bigint AS server_created_at_ms
  FROM mcp_servers s
 WHERE s.account_id = $1 AND s.revoked_at IS NULL
   AND ($2::uuid IS NULL OR s.id = $2) AND ($3::text IS NULL OR s.name = $3)
 ORDER BY s.created_at DESC, s.id DESC;

-- name: lock_mcp_server
-- Keep a living MCP server as it is until this transaction ends, and note that its tools were listed.
UPDATE mcp_servers SET tools_cache_at = now() WHERE account_id = $1 AND id = $2 AND revoked_at IS NULL
RETURNING id;

-- name: list_first
-- The account's servers of a vendor whose tools nobody has listed yet; they are now.
UPDATE mcp_servers s SET tools_cache_at = now()
 WHERE account_id = $1 AND catalog_slug = $2 AND auth_mode = 'per_user'
   AND revoked_at IS NULL AND tools_cache_at IS NULL
RETURNING s.id AS mcp_server_id, s.account_id, s.name AS server_name, s.server_url, s.auth_headers,
          s.effect AS server_effect, s.timeout_ms AS server_timeout_ms, s.catalog_slug,
          s.auth_mode AS server_auth_mode;

-- name: mcp_tools
-- The living tools of an MCP server, oldest first.
SELECT *, (extract(epoch FROM created_at) * 1000)::bigint AS created_at_ms
  FROM tools
 WHERE mcp_server_id = $1 AND revoked_at IS NULL
 ORDER BY created_at, id;

-- name: insert_mcp_tool
-- Add a tool of an MCP server; nothing when the account has a living one of this name. Those of one
-- transaction keep the order in which the server lists them.
INSERT INTO tools (id, account_id, name, description, input_schema, mcp_server_id, timeout_ms, effect, shared,
                   secret, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, '', clock_timestamp())
ON CONFLICT (account_id, name) WHERE revoked_at IS NULL DO NOTHING
RETURNING id;

-- name: change_mcp_tool
-- Take over what an MCP server says of a tool now.
UPDATE tools SET description = $2, input_schema = $3, timeout_ms = $4, effect = $5
 WHERE id = $1 AND revoked_at IS NULL;

-- name: revoke_mcp_tools
-- End tools of an MCP server: those of these ids, or all.
UPDATE tools SET revoked_at = now()
 WHERE mcp_server_id = $1 AND revoked_at IS NULL AND ($2::text[] IS NULL OR id = ANY ($2));

-- name: revoke_mcp_server
-- End an MCP server, free its name and forget its headers.
UPDATE mcp_servers SET revoked_at = now(), auth_headers = ''
 WHERE account_id = $1 AND id = $2 AND revoked_at IS NULL
RETURNING id;

-- name: begin_keyed_call
-- The first call under a caller's key, or the first again when the one before is too old to count.
INSERT INTO keyed_calls (key_id, thread_id, idempotency_key, fingerprint, call_id)
SELECT k.id, $2, $3, $4, $5
  FROM (SELECT id FROM keys WHERE id = $1 AND revoked_at IS NULL FOR KEY SHARE) k
ON CONFLICT (key_id, thread_id, idempotency_key) DO UPDATE
   SET fingerprint = EXCLUDED.fingerprint, call_id = EXCLUDED.call_id,
       output = NULL, is_error = NULL, status = NULL, cut = NULL, started_at = now(), finished_at = NULL
 WHERE keyed_calls.started_at < now() - make_interval(secs => $6)
RETURNING call_id;

-- name: keyed_call
-- What is known of a call under a caller's key.
SELECT fingerprint, call_id, output, is_error, status, cut, finished_at IS NOT NULL AS finished
  FROM keyed_calls WHERE key_id = $1 AND thread_id IS NOT DISTINCT FROM $2 AND idempotency_key = $3;

-- name: finish_keyed_call
-- What came of it; the first word counts.
UPDATE keyed_calls SET output = $5, is_error = $6, status = $7, cut = $8, finished_at = now()
 WHERE key_id = $1 AND thread_id IS NOT DISTINCT FROM $2 AND idempotency_key = $3 AND call_id = $4
   AND finished_at IS NULL;

-- name: forget_keyed_call
-- It was not made: its key is free again.
DELETE FROM keyed_calls
 WHERE key_id = $1 AND thread_id IS NOT DISTINCT FROM $2 AND idempotency_key = $3 AND call_id = $4
   AND finished_at IS NULL;

-- name: delete_old_keyed_calls
-- Outcomes that are not answered with any more.
DELETE FROM keyed_calls
 WHERE ctid IN (SELECT ctid FROM keyed_calls WHERE started_at < now() - make_interval(secs => $1) LIMIT 1000);

-- name: keep_result
-- A result that was larger than what is shown; the same call's again replaces it.
INSERT INTO tool_results (id, key_id, thread_id, content, expires_at)
SELECT $1, k.id, $3, $4, now() + make_interval(secs => $5)
  FROM (SELECT id FROM keys WHERE id = $2 AND revoked_at IS NULL FOR KEY SHARE) k
ON CONFLICT (id) DO UPDATE
   SET key_id = EXCLUDED.key_id, thread_id = EXCLUDED.thread_id, content = EXCLUDED.content, expires_at = EXCLUDED.expires_at;

-- name: kept_result
-- A kept result: for a thread its own, for a key outside of threads its own.
SELECT content FROM tool_results
 WHERE id = $1 AND expires_at > now()
   AND CASE WHEN $3::uuid IS NULL THEN key_id = $2 ELSE thread_id = $3 END;

-- name: delete_old_results
-- Results that are kept no longer.
DELETE FROM tool_results
 WHERE id IN (SELECT id FROM tool_results WHERE expires_at < now() LIMIT 1000);
