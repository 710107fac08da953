-- name: export_threads
-- Threads of an account behind an id: one of them, or those of an end user.
SELECT id, end_user_id, metadata, title, workspace_id, default_mode, default_model, parent_thread_id,
       branched_at_seq, external_id, created_at, last_active_at
  FROM threads
 WHERE account_id = $1 AND ($2::uuid IS NULL OR id = $2) AND ($3::text IS NULL OR end_user_id = $3)
   AND deleted_at IS NULL AND ($4::uuid IS NULL OR id >= $4)
 ORDER BY id LIMIT $5;

-- name: export_message
-- Messages of a thread behind a seq.
SELECT seq AS position, seq, role, content, request_id, turn_id, created_at FROM messages
 WHERE thread_id = $1 AND seq > $2::bigint ORDER BY seq LIMIT $3;

-- name: export_turn
-- Turns of a thread behind a number.
SELECT number AS position, id, number, status, request, user_seq, final_seq, iterations, hit_max_iterations,
       cost_nanos, error, request_id, created_at, started_at, finished_at
  FROM turns WHERE thread_id = $1 AND number > $2::bigint ORDER BY number LIMIT $3;

-- name: export_tool_call
-- Tool calls of a thread behind a position, in the order in which they were made.
SELECT position, id, turn_id, step, tool_use_id, name, input, effect, state, output, is_error, created_at,
       started_at, finished_at
  FROM (SELECT row_number() OVER (ORDER BY t.number, c.step, c.created_at, c.id) AS position, c.*
          FROM tool_calls c JOIN turns t ON t.id = c.turn_id WHERE t.thread_id = $1) AS calls
 WHERE position > $2 ORDER BY position LIMIT $3;

-- name: export_usage
-- What the turns of a thread used, behind a position.
SELECT position, id, turn_id, step, model_slug, provider_slug, input_tokens, output_tokens, cache_read_tokens,
       cache_write_5m_tokens, cache_write_1h_tokens, cost_nanos, price_version, estimated, created_at
  FROM (SELECT row_number() OVER (ORDER BY u.created_at, u.id) AS position, u.*
          FROM usage_events u JOIN turns t ON t.id = u.turn_id WHERE t.thread_id = $1) AS events
 WHERE position > $2 ORDER BY position LIMIT $3;

-- name: export_connections
-- What is or was connected for an end user; never the credentials.
SELECT id, connector, connected_as, vendor_account_id, status, settings, created_at, verified_at, last_used_at
  FROM connections WHERE account_id = $1 AND end_user_id = $2 ORDER BY id;
