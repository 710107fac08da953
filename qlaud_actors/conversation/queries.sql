-- name: insert_thread
-- A new, empty thread, unless its key was revoked meanwhile.
INSERT INTO threads (id, account_id, key_id, end_user_id, metadata, title, workspace_id, kind,
                     default_mode, default_model, approval, compaction, compaction_threshold, compaction_model,
                     vouched)
SELECT $1, $2, k.id, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, vouched_v1('{}', $5, $15)
  FROM (SELECT id FROM keys WHERE id = $3 AND revoked_at IS NULL FOR KEY SHARE) k
RETURNING *, (extract(epoch FROM created_at) * 1000)::bigint AS created_at_ms,
          (extract(epoch FROM last_active_at) * 1000)::bigint AS last_active_at_ms;

-- name: get_thread
-- One thread, if this key may see it: its own, its end user's, or any of the account.
SELECT *, (extract(epoch FROM created_at) * 1000)::bigint AS created_at_ms,
       (extract(epoch FROM last_active_at) * 1000)::bigint AS last_active_at_ms
  FROM threads
 WHERE id = $1 AND account_id = $2 AND deleted_at IS NULL
   AND ($3 OR key_id = $4 OR end_user_id = $5);

-- name: list_threads
-- Threads that this key may see, the most recently active first.
SELECT *, (extract(epoch FROM created_at) * 1000)::bigint AS created_at_ms,
       (extract(epoch FROM last_active_at) * 1000)::bigint AS last_active_at_ms
  FROM threads
 WHERE account_id = $1 AND deleted_at IS NULL
   AND ($2 OR key_id = $3 OR end_user_id = $4)
   AND ($5::text IS NULL OR end_user_id = $5)
   AND ($6::uuid IS NULL OR (last_active_at, id) < (SELECT last_active_at, id FROM threads WHERE id = $6))
 ORDER BY last_active_at DESC, id DESC
 LIMIT $7;

-- name: patch_thread
-- Merge metadata (shallow) and note whose word it is, set the title and the policies when asked to.
UPDATE threads
   SET metadata = CASE WHEN $2::jsonb IS NULL THEN metadata ELSE COALESCE(metadata, '{}') || $2 END,
       vouched = vouched_v1(vouched, $2, $11),
       title = CASE WHEN $3 THEN $4 ELSE title END,
       approval = CASE WHEN $5 THEN $6 ELSE approval END,
       compaction = COALESCE($7, compaction),
       compaction_threshold = COALESCE($8, compaction_threshold),
       compaction_model = CASE WHEN $9 THEN $10 ELSE compaction_model END
 WHERE id = $1 AND deleted_at IS NULL
RETURNING *, (extract(epoch FROM created_at) * 1000)::bigint AS created_at_ms,
          (extract(epoch FROM last_active_at) * 1000)::bigint AS last_active_at_ms;

-- name: delete_thread
-- Hide a thread at once; its turns are cancelled, its text is purged beside it.
UPDATE threads SET deleted_at = now(), metadata = NULL, vouched = '{}', title = NULL, external_id = NULL
 WHERE id = $1 AND deleted_at IS NULL RETURNING id;

-- name: unpurged_threads
-- Deleted threads that still have text: their turns had not ended, or a process died.
SELECT id FROM threads WHERE deleted_at < now() - interval '1 second' AND purged_at IS NULL
 ORDER BY deleted_at LIMIT 50;

-- name: mark_purged
-- A deleted thread has no text any more, and no turn that could write some.
UPDATE threads SET purged_at = now()
 WHERE id = $1 AND NOT EXISTS (SELECT FROM turns WHERE thread_id = $1 AND status IN ('queued', 'running', 'parked'));

-- name: purge_messages
-- Remove the text of a deleted thread.
DELETE FROM messages WHERE thread_id = $1;

-- name: purge_compactions
-- Remove the summaries of a deleted thread.
DELETE FROM compactions WHERE thread_id = $1;

-- name: purge_turn_texts
-- Remove what the turns of a deleted thread repeat of its text. Postgres unescapes all texts of a document to
-- read one, and has no NUL.
UPDATE turns
   SET content = 'null',
       request = json_build_object('model', replace(request::text, '\u0000', '\u0020')::json->>'model',
                                   'max_tokens', 0)
 WHERE thread_id = $1;

-- name: purge_tool_texts
-- Remove inputs and outputs of a deleted thread's tool calls.
UPDATE tool_calls SET input = '{}', output = NULL
 WHERE turn_id IN (SELECT id FROM turns WHERE thread_id = $1);

-- name: unfinished_turns
-- Ids of a thread's turns that are not finished.
SELECT id FROM turns WHERE thread_id = $1 AND status IN ('queued', 'running', 'parked');

-- name: delete_empty_threads
-- Threads of this key that never had a message, older than a minute, not bound to a workspace.
UPDATE threads t SET deleted_at = now()
 WHERE t.account_id = $1 AND t.deleted_at IS NULL AND ($2 OR t.key_id = $3 OR t.end_user_id = $4)
   AND t.last_turn = 0 AND t.last_seq = 0 AND t.created_at < now() - interval '60 seconds'
   AND t.workspace_id IS NULL AND NOT COALESCE(t.metadata ? 'workspace_id', false)
RETURNING id;

-- name: list_messages_asc
-- Messages after a seq, oldest first.
SELECT seq, role, content, request_id, (extract(epoch FROM created_at) * 1000)::bigint AS created_at_ms
  FROM messages WHERE thread_id = $1 AND seq > $2 AND seq < $3 ORDER BY seq LIMIT $4;

-- name: list_messages_desc
-- Messages before a seq, newest first.
SELECT seq, role, content, request_id, (extract(epoch FROM created_at) * 1000)::bigint AS created_at_ms
  FROM messages WHERE thread_id = $1 AND seq > $2 AND seq < $3 ORDER BY seq DESC LIMIT $4;

-- name: turn_messages
-- The messages of one turn, in order.
SELECT seq, role, content, request_id, (extract(epoch FROM created_at) * 1000)::bigint AS created_at_ms
  FROM messages WHERE turn_id = $1 ORDER BY seq;

-- name: next_turn_number
-- Takes the next place in a thread's mailbox; locks the thread's row until the transaction ends.
UPDATE threads SET last_turn = last_turn + 1, last_active_at = now()
 WHERE id = $1 AND deleted_at IS NULL RETURNING last_turn;

-- name: insert_turn
-- A queued turn. Unique on (key, idempotency key).
INSERT INTO turns (id, thread_id, account_id, key_id, number, request, content, request_id,
                   idempotency_key, fingerprint, wake_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, now() + interval '2 seconds');

-- name: count_unfinished
-- How many turns of a thread have not ended.
SELECT count(*) FROM turns WHERE thread_id = $1 AND status IN ('queued', 'running', 'parked');

-- name: turn_by_idempotency_key
-- The turn that this key was first used for.
SELECT id, thread_id, fingerprint FROM turns WHERE key_id = $1 AND idempotency_key = $2;

-- name: place_user_message
-- The user's message takes its place in the thread when its turn reaches the head of the line.
WITH head AS (
    SELECT t.id, t.thread_id, t.content, t.request_id FROM turns t
     WHERE t.id = $1 AND t.user_seq IS NULL
       AND NOT EXISTS (SELECT FROM turns e WHERE e.thread_id = t.thread_id AND e.number < t.number
                          AND e.status IN ('queued', 'running', 'parked'))
), thread AS (
    UPDATE threads SET last_seq = last_seq + 1 FROM head WHERE threads.id = head.thread_id
    RETURNING last_seq
), message AS (
    INSERT INTO messages (thread_id, seq, role, content, turn_id, request_id)
    SELECT head.thread_id, thread.last_seq, 'user', head.content, head.id, head.request_id
      FROM head, thread
)
UPDATE turns SET user_seq = thread.last_seq FROM head, thread WHERE turns.id = head.id;

-- name: append_message
-- The next message of a thread, written by a turn.
WITH thread AS (
    UPDATE threads SET last_seq = last_seq + 1, last_active_at = now() WHERE id = $1 RETURNING last_seq
)
INSERT INTO messages (thread_id, seq, role, content, turn_id, request_id)
SELECT $1, last_seq, $2, $3, $4, $5 FROM thread RETURNING seq;

-- name: get_turn
-- One turn, with the tokens of its steps and of summaries made for it: input, output, read and written caches.
SELECT t.*, th.end_user_id,
       (SELECT ARRAY[sum(input_tokens), sum(output_tokens), sum(cache_read_tokens), sum(cache_write_tokens)]::bigint[]
          FROM steps WHERE turn_id = t.id) AS used,
       (SELECT ARRAY[sum(input_tokens), sum(output_tokens), sum(cache_read_tokens),
                     sum(cache_write_5m_tokens + cache_write_1h_tokens)]::bigint[]
          FROM usage_events WHERE turn_id = t.id AND purpose = 'compaction') AS used_for_summaries,
       (extract(epoch FROM t.created_at) * 1000)::bigint AS created_at_ms,
       (extract(epoch FROM t.started_at) * 1000)::bigint AS started_at_ms,
       (extract(epoch FROM t.finished_at) * 1000)::bigint AS finished_at_ms
  FROM turns t JOIN threads th ON th.id = t.thread_id
 WHERE t.id = $1;

-- name: claim_turn
-- Own a turn that nobody lives to own, if it is at the head of its thread's line.
UPDATE turns t
   SET status = 'running', epoch = t.epoch + 1, attempts = t.attempts + 1, owner = $2,
       lease_until = now() + make_interval(secs => $3), started_at = COALESCE(t.started_at, now())
 WHERE t.id = $1 AND t.attempts < $4
   AND (t.status = 'queued' OR (t.status = 'running' AND t.lease_until < now()))
   AND NOT EXISTS (SELECT FROM turns e WHERE e.thread_id = t.thread_id AND e.number < t.number
                      AND e.status IN ('queued', 'running', 'parked'))
RETURNING t.id;

-- name: renew_leases
-- Extend the leases of turns still owned at their epoch; says which were asked to stop. A turn whose row
-- is locked by its own transaction is passed over this time: one that is stuck must not hold up the rest.
WITH mine AS (
    SELECT t.id, t.cancel_requested
      FROM turns t JOIN unnest($1::uuid[], $2::integer[]) AS m(id, epoch) ON m.id = t.id AND m.epoch = t.epoch
     WHERE t.status = 'running'
), free AS (
    SELECT t.id FROM turns t WHERE t.id IN (SELECT id FROM mine) FOR UPDATE SKIP LOCKED
), renewed AS (
    UPDATE turns t SET lease_until = now() + make_interval(secs => $3) FROM free
     WHERE t.id = free.id AND t.status = 'running' RETURNING t.id
)
SELECT mine.id, mine.cancel_requested, renewed.id IS NOT NULL AS renewed
  FROM mine LEFT JOIN renewed USING (id);

-- name: hand_back_turns
-- A worker that stops gives its turns back: not their fault, so the attempt does not count.
UPDATE turns t
   SET status = 'queued', owner = NULL, lease_until = NULL, attempts = t.attempts - 1, wake_at = now()
  FROM unnest($1::uuid[], $2::integer[]) AS mine(id, epoch)
 WHERE t.id = mine.id AND t.epoch = mine.epoch AND t.status = 'running'
RETURNING t.id;

-- name: lock_turn
-- The fence: holds the turn's row if this epoch still owns it.
SELECT id FROM turns WHERE id = $1 AND epoch = $2 AND status = 'running' FOR UPDATE;

-- name: finish_turn
-- The end of a turn that this epoch owns.
UPDATE turns
   SET status = $3, error = $4, hit_max_iterations = $5, finished_at = now(), owner = NULL, lease_until = NULL,
       final_seq = (SELECT max(seq) FROM messages WHERE turn_id = $1 AND role = 'assistant')
 WHERE id = $1 AND epoch = $2 AND status = 'running'
RETURNING thread_id;

-- name: request_cancel
-- Ask a running turn to stop.
UPDATE turns SET cancel_requested = true WHERE id = $1 AND status IN ('queued', 'running', 'parked');

-- name: cancel_unowned_turn
-- End a turn that no living worker owns. The epoch moves, so that a zombie is fenced off.
UPDATE turns
   SET status = 'cancelled', epoch = epoch + 1, finished_at = now(), owner = NULL, lease_until = NULL,
       error = $2,
       final_seq = (SELECT max(seq) FROM messages WHERE turn_id = $1 AND role = 'assistant')
 WHERE id = $1 AND (status IN ('queued', 'parked') OR (status = 'running' AND lease_until < now()))
RETURNING thread_id;

-- name: holds_of_turn
-- The holds that a turn still has.
SELECT id FROM holds WHERE turn_id = $1;

-- name: next_queued_turn
-- The turn that waits at the head of a thread's line.
SELECT id FROM turns WHERE thread_id = $1 AND status IN ('queued', 'running', 'parked') ORDER BY number LIMIT 1;

-- name: requeue_lost_turns
-- Turns whose worker is gone go back to the queue.
UPDATE turns SET status = 'queued', owner = NULL, lease_until = NULL, wake_at = now(), wakes = 0
 WHERE id IN (SELECT id FROM turns WHERE status = 'running' AND lease_until < now() AND attempts < $1
               ORDER BY lease_until LIMIT 200 FOR UPDATE SKIP LOCKED)
RETURNING id;

-- name: turn_beyond_help
-- A turn that lost as many workers as it may.
SELECT id FROM turns
 WHERE status IN ('queued', 'running') AND attempts >= 3 AND attempts >= $1
   AND (status = 'queued' OR lease_until < now())
 ORDER BY created_at LIMIT 1 FOR UPDATE SKIP LOCKED;

-- name: abandon_turn
-- Fail one of them; the epoch moves, so that a zombie is fenced off.
UPDATE turns
   SET status = 'failed', epoch = epoch + 1, error = $2, finished_at = now(), owner = NULL, lease_until = NULL,
       final_seq = (SELECT max(seq) FROM messages WHERE turn_id = $1 AND role = 'assistant')
 WHERE id = $1
RETURNING thread_id;

-- name: turns_to_wake
-- Queued turns at the head of their line that nobody took; asked for again ever less often.
UPDATE turns SET wakes = wakes + 1,
                 wake_at = now() + make_interval(secs => LEAST(2 ^ LEAST(wakes + 1, 6), 60))
 WHERE id IN (SELECT t.id FROM turns t
               WHERE t.status = 'queued' AND t.wake_at < now()
                 AND NOT EXISTS (SELECT FROM turns e WHERE e.thread_id = t.thread_id AND e.number < t.number
                                    AND e.status IN ('queued', 'running', 'parked'))
               ORDER BY t.wake_at LIMIT 200 FOR UPDATE SKIP LOCKED)
RETURNING id;

-- name: queue_figures
-- How many turns wait, run, are parked, and the age of the oldest waiting one in seconds.
SELECT count(*) FILTER (WHERE status = 'queued') AS queued,
       count(*) FILTER (WHERE status = 'running') AS running,
       count(*) FILTER (WHERE status = 'parked') AS parked,
       COALESCE(extract(epoch FROM now() - min(created_at) FILTER (WHERE status = 'queued')), 0)::float8
           AS oldest_seconds
  FROM turns WHERE status IN ('queued', 'running', 'parked');

-- name: turn_cost
-- What a turn was charged so far.
SELECT cost_nanos FROM turns WHERE id = $1;

-- name: open_step
-- A step begins, or begins anew with another model or under another owner.
INSERT INTO steps (turn_id, number, state, epoch, model_slug, hold_id, max_tokens, view_digest)
VALUES ($1, $2, 'started', $3, $4, $5, $6, $7)
ON CONFLICT (turn_id, number) DO UPDATE
   SET state = 'started', epoch = EXCLUDED.epoch, model_slug = EXCLUDED.model_slug,
       hold_id = EXCLUDED.hold_id, max_tokens = EXCLUDED.max_tokens, view_digest = EXCLUDED.view_digest,
       started_at = now();

-- name: finish_step
-- What came of a step.
UPDATE steps
   SET state = $3, message_id = $4, message_seq = $5, stop_reason = $6, stop_sequence = $7,
       input_tokens = $8, output_tokens = $9, cache_read_tokens = $10, cache_write_tokens = $11,
       cost_nanos = $12, log_seq = $13, finished_at = now()
 WHERE turn_id = $1 AND number = $2;

-- name: add_to_turn
-- A step's part in its turn.
UPDATE turns SET iterations = GREATEST(iterations, $2), cost_nanos = cost_nanos + $3 WHERE id = $1;

-- name: list_steps
-- The steps of a turn.
SELECT *, (extract(epoch FROM started_at) * 1000)::bigint AS started_at_ms,
       (extract(epoch FROM finished_at) * 1000)::bigint AS finished_at_ms
  FROM steps WHERE turn_id = $1 ORDER BY number;

-- name: saved_log_seq
-- Where the event log of a turn stood when its last complete step was saved, or when it was parked after that.
SELECT GREATEST((SELECT parked_seq FROM turns WHERE id = $1), COALESCE(max(log_seq), 0))
  FROM steps WHERE turn_id = $1 AND state = 'done';

-- name: steps_done
-- How many steps of a turn are complete.
SELECT count(*)::integer FROM steps WHERE turn_id = $1 AND state = 'done';

-- name: step_state
-- How far a step is; NULL when it was never opened.
SELECT state FROM steps WHERE turn_id = $1 AND number = $2;

-- name: failed_step
-- Whether a step of a turn broke; such a turn is over, also when its worker died before it said so.
SELECT EXISTS (SELECT FROM steps WHERE turn_id = $1 AND state = 'failed');

-- name: last_role
-- Who wrote the last message of a turn.
SELECT role FROM messages WHERE turn_id = $1 ORDER BY seq DESC LIMIT 1;

-- name: insert_tool_call
-- Note a call. The same call noted again (after a takeover) keeps its row.
INSERT INTO tool_calls (id, turn_id, step, ordinal, tool_use_id, name, input, effect, kind, state, epoch)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'intended', $10)
ON CONFLICT (id) DO NOTHING;

-- name: lock_tool_call
-- One call, held until the transaction ends.
SELECT *, (extract(epoch FROM deadline - now()))::float8 AS seconds_left
  FROM tool_calls WHERE id = $1 FOR UPDATE;

-- name: start_tool_call
-- The call goes out now, as the tool that it is now.
UPDATE tool_calls
   SET state = 'started', epoch = $2, effect = $3, kind = $4, started_at = now(),
       deadline = COALESCE(deadline, now() + make_interval(secs => $5))
 WHERE id = $1;

-- name: finish_tool_call
-- What came of a call; the first result counts.
UPDATE tool_calls SET state = $2, output = $3, is_error = $4, finished_at = now()
 WHERE id = $1 AND state IN ('intended', 'started')
RETURNING id;

-- name: list_tool_calls
-- The calls of a turn: of its steps, then those that were made inside of them.
SELECT *, (extract(epoch FROM started_at) * 1000)::bigint AS started_at_ms,
       (extract(epoch FROM finished_at) * 1000)::bigint AS finished_at_ms,
       (extract(epoch FROM approval_expires_at) * 1000)::bigint AS approval_expires_at_ms
  FROM tool_calls WHERE turn_id = $1 ORDER BY step, ordinal, id;

-- name: awaited_client_call
-- The parked call of a thread that waits for this result.
SELECT c.id FROM tool_calls c JOIN turns t ON t.id = c.turn_id
 WHERE t.thread_id = $1 AND c.tool_use_id = $2 AND c.kind = 'client'
   AND c.state IN ('intended', 'started') AND COALESCE(c.deadline > now(), true)
   AND t.status IN ('queued', 'running')
 ORDER BY c.created_at DESC LIMIT 1;

-- name: client_call_state
-- Whether the caller has answered a parked call, and how long it may still take.
SELECT state, output, is_error, (extract(epoch FROM deadline - now()))::float8 AS seconds_left
  FROM tool_calls WHERE id = $1;

-- name: ask_approvals
-- Calls that were not made yet wait for a person's word, if nobody has given it.
UPDATE tool_calls SET state = 'awaiting_approval', approval_expires_at = now() + make_interval(secs => $2)
 WHERE id = ANY ($1) AND state = 'intended' AND approved IS NULL;

-- name: awaited_approvals
-- What waits for a person's word: in a thread, or in one of its turns.
SELECT c.turn_id, c.tool_use_id, c.name, c.input, c.step,
       (extract(epoch FROM c.approval_expires_at) * 1000)::bigint AS expires_at_ms
  FROM tool_calls c JOIN turns t ON t.id = c.turn_id
 WHERE t.thread_id = $1 AND ($2::uuid IS NULL OR t.id = $2)
   AND t.status IN ('queued', 'running', 'parked') AND c.state = 'awaiting_approval'
 ORDER BY c.step, c.ordinal;

-- name: park_turn
-- Leave a turn to whoever comes when all is decided: not an attempt. Nothing when all is decided, or when it
-- was asked to stop. The caller holds its fence.
UPDATE turns t
   SET status = 'parked', parked_epoch = t.epoch, parked_seq = $2, attempts = t.attempts - 1,
       owner = NULL, lease_until = NULL
 WHERE t.id = $1 AND NOT t.cancel_requested
   AND EXISTS (SELECT FROM tool_calls WHERE turn_id = $1 AND state = 'awaiting_approval')
RETURNING t.id;

-- name: asked_call
-- The call of a thread that a person was asked about; of several the one that waits.
SELECT c.id, c.turn_id FROM tool_calls c JOIN turns t ON t.id = c.turn_id
 WHERE t.thread_id = $1 AND c.tool_use_id = $2 AND c.approval_expires_at IS NOT NULL
 ORDER BY c.state = 'awaiting_approval' DESC, c.created_at DESC LIMIT 1;

-- name: lock_turn_of_call
-- Hold a turn, whoever owns it: deciding and parking take turns.
SELECT status FROM turns WHERE id = $1 FOR UPDATE;

-- name: approval_state
-- How far a call is that a person was asked about.
SELECT state, approved, approval_expires_at < now() AS expired FROM tool_calls WHERE id = $1;

-- name: approve_call
-- It may be made.
UPDATE tool_calls SET state = 'intended', approved = true, decided_by = $2, decided_at = now()
 WHERE id = $1 AND state = 'awaiting_approval';

-- name: decline_call
-- It is not made, and the model is told.
UPDATE tool_calls
   SET state = 'failed', approved = false, decided_by = $2, decided_at = now(), finished_at = now(),
       output = $3, is_error = true
 WHERE id = $1 AND state = 'awaiting_approval';

-- name: expire_approvals
-- Nobody decided in time: the calls of this turn count as declined.
UPDATE tool_calls
   SET state = 'failed', approved = false, decided_at = now(), finished_at = now(), output = $2, is_error = true
 WHERE turn_id = $1 AND state = 'awaiting_approval' AND approval_expires_at < now();

-- name: expired_turns
-- Turns with calls that nobody decided about in time.
SELECT DISTINCT turn_id FROM tool_calls
 WHERE state = 'awaiting_approval' AND approval_expires_at < now() LIMIT 100;

-- name: drop_approvals
-- The turn has ended without them.
UPDATE tool_calls SET state = 'failed', finished_at = now(), output = $2, is_error = true
 WHERE turn_id = $1 AND state = 'awaiting_approval';

-- name: resume_turn
-- A parked turn in which nothing is left undecided waits for a worker again.
UPDATE turns SET status = 'queued', wakes = 0, wake_at = now() + interval '2 seconds'
 WHERE id = $1 AND status = 'parked'
   AND NOT EXISTS (SELECT FROM tool_calls WHERE turn_id = $1 AND state = 'awaiting_approval')
RETURNING id;

-- name: purge_results
-- Remove the large results of a deleted thread.
DELETE FROM tool_results WHERE thread_id = $1;

-- name: purge_keyed_calls
-- Remove the outcomes that its calls' own keys would be answered with.
DELETE FROM keyed_calls WHERE thread_id = $1;

-- name: keep_thread
-- A thread that stays until the end of the transaction.
SELECT id FROM threads WHERE id = $1 AND deleted_at IS NULL FOR SHARE;

-- name: settled_before
-- The last message before a seq, and before all that an unfinished turn has written.
SELECT COALESCE(max(seq), 0) FROM messages
 WHERE thread_id = $1 AND seq < $2
   AND seq < COALESCE((SELECT min(m.seq) FROM messages m JOIN turns t ON t.id = m.turn_id
                        WHERE m.thread_id = $1 AND t.status NOT IN ('completed', 'failed', 'cancelled')), $2);

-- name: insert_branch
-- A thread like its parent: of the same key and end user.
INSERT INTO threads (id, account_id, key_id, end_user_id, metadata, title, workspace_id, kind,
                     default_mode, default_model, approval, compaction, compaction_threshold,
                     compaction_model, last_seq, parent_thread_id, branched_at_seq, vouched)
SELECT $1, account_id, key_id, end_user_id,
       CASE WHEN $4::jsonb IS NULL THEN metadata ELSE COALESCE(metadata, '{}') || $4 END,
       COALESCE($5, title), workspace_id, kind, default_mode, default_model, approval, compaction,
       compaction_threshold, compaction_model, $3::integer, id, $3::integer, vouched_v1(vouched, $4, $6)
  FROM threads WHERE id = $2
RETURNING *, (extract(epoch FROM created_at) * 1000)::bigint AS created_at_ms,
          (extract(epoch FROM last_active_at) * 1000)::bigint AS last_active_at_ms;

-- name: copy_messages
-- The first messages of a thread, for another one.
INSERT INTO messages (thread_id, seq, role, content, request_id, created_at)
SELECT $2, seq, role, content, request_id, created_at FROM messages WHERE thread_id = $1 AND seq <= $3;

-- name: copy_compactions
-- What the first messages of a thread are shown as, for another one; it was paid for once.
INSERT INTO compactions (thread_id, version, summary, summarized_through_seq, trimmed_through_seq, omitted,
                         model, created_at)
SELECT $2, version, summary, summarized_through_seq, LEAST(trimmed_through_seq, $3::integer), omitted, model,
       created_at
  FROM compactions WHERE thread_id = $1 AND summarized_through_seq <= $3;

-- name: list_branches
-- Branches of a thread that this key may see, newest first.
SELECT *, (extract(epoch FROM created_at) * 1000)::bigint AS created_at_ms,
       (extract(epoch FROM last_active_at) * 1000)::bigint AS last_active_at_ms
  FROM threads
 WHERE account_id = $1 AND deleted_at IS NULL AND ($2 OR key_id = $3 OR end_user_id = $4)
   AND parent_thread_id = $5 AND ($6::uuid IS NULL OR id < $6)
 ORDER BY id DESC LIMIT $7;

-- name: by_external_id
-- The living thread that was imported under a name.
SELECT id FROM threads WHERE account_id = $1 AND external_id = $2 AND deleted_at IS NULL;

-- name: import_message
-- A message that was said elsewhere.
INSERT INTO messages (thread_id, seq, role, content, request_id, created_at)
VALUES ($1, $2, $3, $4, $5, COALESCE(to_timestamp($6::bigint / 1000.0), now()));

-- name: import_compaction
-- What stood for the oldest messages elsewhere.
INSERT INTO compactions (thread_id, version, summary, summarized_through_seq, trimmed_through_seq, omitted,
                         model, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, to_timestamp($8::bigint / 1000.0));

-- name: imported
-- A thread that was filled by an import; it was last active when the last thing was said in it.
UPDATE threads
   SET last_seq = $2, external_id = $3,
       last_active_at = COALESCE((SELECT max(created_at) FROM messages WHERE thread_id = $1), last_active_at)
 WHERE id = $1;

-- name: compaction_policy
-- How a thread is kept within its model's window.
SELECT compaction, compaction_threshold, compaction_model FROM threads WHERE id = $1;

-- name: latest_compaction
-- What a model sees of a thread now in place of its oldest messages.
SELECT *, (extract(epoch FROM created_at) * 1000)::bigint AS created_at_ms
  FROM compactions WHERE thread_id = $1 ORDER BY version DESC LIMIT 1;

-- name: compactions_of_turn
-- How a turn moved its thread's view: the last version before each of its steps, and what they cost together.
SELECT step, max(version) AS version, max(summarized_through_seq) AS summarized_through_seq,
       max(trimmed_through_seq) AS trimmed_through_seq, bool_or(omitted) AS omitted,
       sum(cost_nanos)::bigint AS cost_nanos
  FROM (SELECT c.*, (SELECT count(*) + 1 FROM steps s
                      WHERE s.turn_id = $2 AND s.started_at < c.created_at)::integer AS step
          FROM compactions c WHERE c.thread_id = $1 AND c.turn_id = $2) AS moves
 GROUP BY step ORDER BY step;

-- name: insert_compaction
-- The next version; nothing when it is there.
INSERT INTO compactions (thread_id, version, summary, summarized_through_seq, trimmed_through_seq, omitted,
                         model, cost_nanos, turn_id, usage_event_id)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING;

-- name: compaction_charge
-- What a call for a summary was charged; no row when it was not settled.
SELECT cost_nanos FROM usage_events WHERE id = $1;

-- name: mark_compaction
-- Say of a usage event that it was for a summary.
UPDATE usage_events SET purpose = 'compaction' WHERE id = $1;

-- name: measured_steps
-- How many input tokens the latest steps of a thread had with a model, by their reply's seq.
SELECT s.message_seq, s.view_digest, s.input_tokens + s.cache_read_tokens + s.cache_write_tokens AS tokens
  FROM turns t JOIN steps s ON s.turn_id = t.id
 WHERE t.thread_id = $1 AND s.state = 'done' AND s.model_slug = $2 AND s.message_seq > $3
   AND s.view_digest IS NOT NULL
   AND NOT EXISTS (SELECT FROM usage_events u WHERE u.turn_id = s.turn_id AND u.step = s.number AND u.estimated)
 ORDER BY t.number DESC, s.number DESC LIMIT 1000;
