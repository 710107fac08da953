-- name: export_threads
-- Threads of an account behind an id: one of them, or those of an end user.
SELECT id, end_user_id, metadata, title, workspace_id, kind, default_mode, default_model, approval, compaction,
       compaction_threshold, compaction_model, parent_thread_id, branched_at_seq, external_id, ttl_days,
       keep_latest_messages, created_at, last_active_at
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

-- name: export_compaction
-- What models saw in place of a thread's oldest messages, behind a version.
SELECT version AS position, version, summary, summarized_through_seq, trimmed_through_seq, omitted, model,
       cost_nanos, turn_id, created_at
  FROM compactions WHERE thread_id = $1 AND version > $2::bigint ORDER BY version LIMIT $3;

-- name: export_artifact
-- What tools have kept in a thread, behind an id; of its owner only the kind.
SELECT id AS position, id, split_part(owner, ':', 1) AS owner, name, mime, content, created_at, updated_at
  FROM (SELECT * FROM artifacts WHERE thread_id = $1
        UNION ALL
        SELECT * FROM artifacts
         WHERE account_id = (SELECT account_id FROM threads WHERE id = $1)
           AND owner = 'thread:' || $1::uuid AND thread_id IS DISTINCT FROM $1) AS both_ways
 WHERE id > $2::uuid ORDER BY id LIMIT $3;

-- name: export_loose_artifacts
-- What tools have kept for an end user or their keys in none of their threads, behind an id.
SELECT id AS position, id, split_part(owner, ':', 1) AS owner, name, mime, content, created_at, updated_at
  FROM artifacts a
 WHERE account_id = $1 AND id > $3::uuid
   AND owner = ANY (ARRAY['user:' || $2::text]
                    || ARRAY(SELECT 'key:' || id FROM keys WHERE account_id = $1 AND end_user_id = $2::text))
   AND NOT EXISTS (SELECT FROM threads h WHERE h.id = a.thread_id AND h.account_id = $1
                      AND h.end_user_id = $2::text AND h.deleted_at IS NULL)
 ORDER BY id LIMIT $4;

-- name: export_connections
-- What is or was connected for an end user; never the credentials.
SELECT id, connector, connected_as, vendor_account_id, status, settings, created_at, verified_at, last_used_at
  FROM connections WHERE account_id = $1 AND end_user_id = $2 ORDER BY id;

-- name: insert_deletion
-- Begin to delete an end user, unless that is under way.
INSERT INTO deletions (id, account_id, end_user_id) VALUES ($1, $2, $3)
ON CONFLICT (account_id, end_user_id) WHERE end_user_id IS NOT NULL DO NOTHING;

-- name: running_deletion
-- The deletion of an end user that is under way.
SELECT id FROM deletions WHERE account_id = $1 AND end_user_id = $2;

-- name: get_deletion
-- One deletion of an account.
SELECT id, removed, (extract(epoch FROM created_at) * 1000)::bigint AS created_at_ms,
       (extract(epoch FROM completed_at) * 1000)::bigint AS completed_at_ms
  FROM deletions WHERE id = $1 AND account_id = $2;

-- name: due_deletions
-- Deletions that somebody has to go on with, the longest waiting first.
SELECT id FROM deletions WHERE completed_at IS NULL AND due_at <= now() ORDER BY due_at LIMIT 10;

-- name: claim_deletion
-- Go on with a deletion; others leave it alone for some seconds.
UPDATE deletions SET due_at = now() + make_interval(secs => $2)
 WHERE id = $1 AND completed_at IS NULL AND due_at <= now()
RETURNING id, account_id, end_user_id;

-- name: postpone_deletion
-- Somebody is to go on with it in some seconds.
UPDATE deletions SET due_at = now() + make_interval(secs => $2) WHERE id = $1 AND completed_at IS NULL;

-- name: count_removed
-- Add to what a deletion has removed, in the transaction that removes it.
UPDATE deletions d
   SET due_at = now() + make_interval(secs => $3),
       removed = (SELECT COALESCE(jsonb_object_agg(name, rows), '{}')
                    FROM (SELECT name, sum(rows::bigint) AS rows
                            FROM (SELECT * FROM jsonb_each_text(d.removed)
                                  UNION ALL SELECT * FROM jsonb_each_text($2::jsonb)) AS parts(name, rows)
                           GROUP BY name) AS sums)
 WHERE id = $1;

-- name: lock_keys
-- Nothing that names a key of this end user is written until this transaction ends.
SELECT id FROM keys WHERE account_id = $1 AND end_user_id = $2 ORDER BY id FOR UPDATE;

-- name: revoke_keys
-- End the keys of an end user and forget what opens them.
WITH opened AS (
    DELETE FROM key_secrets WHERE key_id = ANY ($1::uuid[])
)
UPDATE keys SET revoked_at = now() WHERE id = ANY ($1::uuid[]) AND revoked_at IS NULL RETURNING id;

-- name: erase_keys
-- The keys stay, for their usage; whose they were is forgotten.
UPDATE keys SET name = 'deleted', end_user_id = NULL, erased_at = now(), revoked_at = COALESCE(revoked_at, now())
 WHERE id = ANY ($1::uuid[]) RETURNING id;

-- name: delete_links
-- Links with which this end user could connect an account.
DELETE FROM connect_links WHERE account_id = $1 AND end_user_id = $2 RETURNING 1;

-- name: delete_connections
-- Connections of this end user, with their secrets.
DELETE FROM connections WHERE account_id = $1 AND end_user_id = $2 RETURNING 1;

-- name: delete_artifacts
-- What tools kept for this end user, for their keys ($3), or in their threads.
WITH mine AS (
    SELECT id FROM threads WHERE account_id = $1 AND end_user_id = $2
)
DELETE FROM artifacts
 WHERE account_id = $1
   AND (owner = 'user:' || $2 OR owner IN (SELECT 'key:' || id FROM unnest($3::uuid[]) AS key(id))
        OR owner IN (SELECT 'thread:' || id FROM mine) OR thread_id IN (SELECT id FROM mine))
RETURNING 1;

-- name: hide_threads
-- From here on nobody finds the threads of this end user, and no turn is added to them.
UPDATE threads SET deleted_at = now(), metadata = NULL, vouched = '{}', title = NULL, external_id = NULL
 WHERE account_id = $1 AND end_user_id = $2 AND deleted_at IS NULL;

-- name: unfinished_turns
-- Turns of this end user's threads that have not ended.
SELECT t.id FROM turns t JOIN threads h ON h.id = t.thread_id
 WHERE h.account_id = $1 AND h.end_user_id = $2 AND t.status IN ('queued', 'running', 'parked')
 ORDER BY t.created_at;

-- name: erasable_threads
-- Some hidden threads of this end user in which nothing runs; locked.
SELECT id FROM threads h
 WHERE account_id = $1 AND end_user_id = $2 AND deleted_at IS NOT NULL
   AND NOT EXISTS (SELECT FROM turns WHERE thread_id = h.id AND status IN ('queued', 'running', 'parked'))
 ORDER BY id LIMIT $3 FOR UPDATE;

-- name: long_deleted_threads
-- Some threads that were deleted a while ago and in which nothing runs; locked.
SELECT id FROM threads h
 WHERE deleted_at < now() - make_interval(secs => $1)
   AND NOT EXISTS (SELECT FROM turns WHERE thread_id = h.id AND status IN ('queued', 'running', 'parked'))
 ORDER BY deleted_at LIMIT $2 FOR UPDATE SKIP LOCKED;

-- name: turns_of_threads
-- The turns of some threads, and whether there may be something of them in Redis.
SELECT id, COALESCE(finished_at, created_at) > now() - interval '1 day' AS recent
  FROM turns WHERE thread_id = ANY ($1::uuid[]);

-- name: erase_messages
-- Search forgets them by the same deletion.
DELETE FROM messages WHERE thread_id = ANY ($1::uuid[]) RETURNING 1;

-- name: erase_tool_calls
-- What the model asked tools, and what they answered.
DELETE FROM tool_calls WHERE turn_id = ANY ($1::uuid[]) RETURNING 1;

-- name: erase_steps
-- The steps of some turns.
DELETE FROM steps WHERE turn_id = ANY ($1::uuid[]) RETURNING 1;

-- name: erase_results
-- Large results that were kept.
DELETE FROM tool_results WHERE thread_id = ANY ($1::uuid[]) OR key_id = ANY ($2::uuid[]) RETURNING 1;

-- name: erase_keyed_calls
-- Outcomes that were kept under callers' own keys.
DELETE FROM keyed_calls WHERE thread_id = ANY ($1::uuid[]) OR key_id = ANY ($2::uuid[]) RETURNING 1;

-- name: erase_artifacts
-- What was written in some threads while they were being deleted, by the rule of `forget_artifacts_v2`.
DELETE FROM artifacts
 WHERE thread_id = ANY ($1::uuid[]) AND (owner = 'thread:' || thread_id OR starts_with(mime, 'image/')) RETURNING 1;

-- name: erase_turns
-- Turns without messages, steps and calls.
DELETE FROM turns WHERE id = ANY ($1::uuid[]) RETURNING 1;

-- name: erase_threads
-- Threads without turns.
DELETE FROM threads WHERE id = ANY ($1::uuid[]) RETURNING 1;

-- name: unfinished_jobs
-- Jobs of this end user's keys that have not ended.
SELECT j.id FROM jobs j JOIN keys k ON k.id = j.key_id
 WHERE k.account_id = $1 AND k.end_user_id = $2 AND j.status IN ('queued', 'running') ORDER BY j.id;

-- name: erase_jobs
-- Some jobs of these keys that have ended, and what told of them.
WITH gone AS (
    DELETE FROM jobs
     WHERE id IN (SELECT id FROM jobs WHERE key_id = ANY ($2::uuid[]) AND status NOT IN ('queued', 'running')
                   ORDER BY id LIMIT $3)
    RETURNING id::text
), told AS (
    DELETE FROM deliveries
     WHERE event = 'job.completed' AND webhook_id IN (SELECT id FROM webhooks WHERE account_id = $1)
       AND substring(body from '"data":\{"id":"([0-9a-f-]{36})"') IN (SELECT id FROM gone)
)
SELECT 1 FROM gone;

-- name: unlink_usage
-- Some usage of this end user stays, as nobody's.
UPDATE usage_events SET end_user_id = NULL
 WHERE id IN (SELECT id FROM usage_events WHERE account_id = $1 AND end_user_id = $2 LIMIT $3) RETURNING 1;

-- name: lock_webhooks
-- Nothing is told to this account's webhooks until this transaction ends.
SELECT id FROM webhooks WHERE account_id = $1 ORDER BY id FOR UPDATE;

-- name: erase_cap_notices
-- What told of these keys' caps: it has their names.
DELETE FROM deliveries d USING unnest($2::text[]) AS key(id)
 WHERE d.webhook_id = ANY ($1::uuid[]) AND d.event = 'key.cap_exceeded'
   AND position('"key_id":"' || key.id || '"' IN d.body) > 0
RETURNING 1;

-- name: unlink_told_usage
-- What is or was told of usage stays, as nobody's. The body is JSON: a quote that ends a name is nowhere else.
UPDATE deliveries SET body = replace(body, '"end_user_id":' || $2, '"end_user_id":null')
 WHERE webhook_id = ANY ($1::uuid[]) AND event = 'usage.recorded'
   AND position('"end_user_id":' || $2 IN body) > 0
RETURNING 1;

-- name: delete_billing
-- Whom Stripe bills for this end user.
DELETE FROM end_user_billing WHERE account_id = $1 AND end_user_id = $2 RETURNING 1;

-- name: unlink_metered
-- What Stripe has not counted yet is still told, for a random name.
UPDATE stripe_meter_queue SET end_user_id = $3 WHERE account_id = $1 AND end_user_id = $2 RETURNING 1;

-- name: has_threads
-- Whether this end user has a thread.
SELECT EXISTS (SELECT FROM threads WHERE account_id = $1 AND end_user_id = $2);

-- name: has_jobs
-- Whether one of these keys has a job.
SELECT EXISTS (SELECT FROM jobs WHERE key_id = ANY ($1::uuid[]));

-- name: complete_deletion
-- All is gone; whose it was is forgotten.
UPDATE deletions SET end_user_id = NULL, completed_at = now() WHERE id = $1;

-- name: put_retention
-- How long conversations of an account are kept.
INSERT INTO retention (account_id, ttl_days, keep_latest_threads, keep_latest_messages) VALUES ($1, $2, $3, $4)
ON CONFLICT (account_id) DO UPDATE
   SET ttl_days = EXCLUDED.ttl_days, keep_latest_threads = EXCLUDED.keep_latest_threads,
       keep_latest_messages = EXCLUDED.keep_latest_messages, changed_at = now();

-- name: get_retention
-- The rule of an account; nothing when it has none.
SELECT ttl_days, keep_latest_threads, keep_latest_messages FROM retention WHERE account_id = $1;

-- name: put_thread_retention
-- A thread's own rule, in the place of its account's.
UPDATE threads SET ttl_days = $2, keep_latest_messages = $3 WHERE id = $1 AND deleted_at IS NULL RETURNING id;

-- name: accounts_with_rules
-- Accounts, or one of them, that have a rule, or a thread with one, oldest first.
SELECT a.id, a.name FROM accounts a
 WHERE ($1::uuid IS NULL OR a.id = $1)
   AND a.id IN (SELECT account_id FROM retention
                UNION SELECT account_id FROM threads
                 WHERE deleted_at IS NULL AND (ttl_days IS NOT NULL OR keep_latest_messages IS NOT NULL))
 ORDER BY a.created_at, a.id;

-- name: account_is_there
-- Whether there is such an account.
SELECT EXISTS (SELECT FROM accounts WHERE id = $1);

-- name: expired_threads
-- Threads of an account that are kept no longer: not active for so many days, or beyond the latest of their end
-- user (without one: of their key). One in which something runs is left alone.
SELECT id AS thread_id, (extract(epoch FROM last_active_at) * 1000)::bigint AS oldest_ms,
       CASE WHEN last_active_at < now() - make_interval(days => own_days) THEN own_days END AS own_days FROM (
    SELECT h.id, h.last_active_at, h.ttl_days AS own_days, COALESCE(h.ttl_days, $2) AS days,
           row_number() OVER (PARTITION BY COALESCE(h.end_user_id, h.key_id::text)
                              ORDER BY h.last_active_at DESC, h.id DESC) AS place
      FROM threads h WHERE h.account_id = $1 AND h.deleted_at IS NULL) ranked
 WHERE (last_active_at < now() - make_interval(days => days) OR place > $3::integer)
   AND NOT EXISTS (SELECT FROM turns WHERE thread_id = ranked.id AND status IN ('queued', 'running', 'parked'))
 ORDER BY id;

-- name: delete_threads
-- Hide threads in which nothing has happened since they were last active at these times; their text is purged
-- by the workers. A turn that is being accepted has locked its thread: this waits, and sees it.
UPDATE threads h SET deleted_at = now(), metadata = NULL, vouched = '{}', title = NULL, external_id = NULL
  FROM unnest($1::uuid[], $2::bigint[]) AS due(id, active_ms)
 WHERE h.id = due.id AND h.deleted_at IS NULL
   AND (extract(epoch FROM h.last_active_at) * 1000)::bigint = due.active_ms
RETURNING h.id;

-- name: long_threads
-- Threads with more messages than are kept, the first message that stays, and how many go. What stays begins
-- with a question: a tool's results are never parted from the calls.
SELECT h.id AS thread_id, h.keep_latest_messages AS own_messages, cut.first,
       (SELECT count(*) FROM messages WHERE thread_id = h.id AND seq < cut.first) AS messages,
       (SELECT (extract(epoch FROM created_at) * 1000)::bigint FROM messages
         WHERE thread_id = h.id ORDER BY seq LIMIT 1) AS oldest_ms
  FROM threads h,
       LATERAL (SELECT max(seq) AS first FROM messages m
                 WHERE m.thread_id = h.id AND m.role = 'user' AND strpos(m.content::text, '"tool_result"') = 0
                   AND m.seq <= h.last_seq - COALESCE(h.keep_latest_messages, $2) + 1) cut
 WHERE h.account_id = $1 AND h.deleted_at IS NULL AND h.last_seq > COALESCE(h.keep_latest_messages, $2)
   AND NOT h.id = ANY ($3::uuid[])
   AND EXISTS (SELECT FROM messages WHERE thread_id = h.id AND seq < cut.first)
   AND NOT EXISTS (SELECT FROM turns WHERE thread_id = h.id AND status IN ('queued', 'running', 'parked'))
 ORDER BY h.id;

-- name: lock_quiet_thread
-- A thread in which nothing runs, and nothing begins until this transaction ends.
SELECT id FROM threads h
 WHERE id = $1 AND deleted_at IS NULL
   AND NOT EXISTS (SELECT FROM turns WHERE thread_id = h.id AND status IN ('queued', 'running', 'parked'))
   FOR UPDATE;

-- name: trim_messages
-- The messages before the first one that stays.
DELETE FROM messages WHERE thread_id = $1 AND seq < $2 RETURNING 1;

-- name: trim_compactions
-- Summaries tell of what is removed; what is left is summarised anew when it has to be.
DELETE FROM compactions WHERE thread_id = $1;

-- name: trim_tool_calls
-- Inputs and outputs of the turns that asked before it.
UPDATE tool_calls SET input = '{}', output = NULL
 WHERE turn_id IN (SELECT id FROM turns WHERE thread_id = $1 AND user_seq < $2);

-- name: trim_turns
-- What those turns repeat of the text. (As for a deleted thread: Postgres has no NUL.)
UPDATE turns
   SET content = 'null',
       request = json_build_object('model', replace(request::text, '\u0000', '\u0020')::json->>'model',
                                   'max_tokens', 0)
 WHERE thread_id = $1 AND user_seq < $2;
