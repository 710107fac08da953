-- name: insert_job
-- A queued job, if its key is alive and has not too many. Unique on (key, idempotency key).
INSERT INTO jobs (id, account_id, key_id, endpoint, body, headers, webhook_url, request_id,
                  idempotency_key, fingerprint, body_bytes)
SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11::integer
  FROM (SELECT count(*) AS jobs, COALESCE(sum(body_bytes), 0) AS bytes
          FROM jobs WHERE key_id = $3 AND status IN ('queued', 'running')) AS unfinished,
       (SELECT FROM keys WHERE id = $3 AND revoked_at IS NULL FOR KEY SHARE) AS alive
 WHERE unfinished.jobs < $12 AND unfinished.bytes + $11::integer <= $13
RETURNING id;

-- name: job_by_idempotency_key
-- The job that this key was first used for.
SELECT id, fingerprint FROM jobs WHERE key_id = $1 AND idempotency_key = $2;

-- name: get_job
-- One job.
SELECT *, (extract(epoch FROM created_at) * 1000)::bigint AS created_at_ms,
       (extract(epoch FROM started_at) * 1000)::bigint AS started_at_ms,
       (extract(epoch FROM finished_at) * 1000)::bigint AS finished_at_ms
  FROM jobs WHERE id = $1;

-- name: list_jobs
-- Jobs of an account, or of one key of it, newest first, without what they carry.
SELECT id, account_id, key_id, endpoint, NULL AS body, headers, webhook_url, request_id, status, epoch,
       attempts, cancel_requested, call_id, model_slug, NULL AS response, cost_nanos, error,
       (extract(epoch FROM created_at) * 1000)::bigint AS created_at_ms,
       (extract(epoch FROM started_at) * 1000)::bigint AS started_at_ms,
       (extract(epoch FROM finished_at) * 1000)::bigint AS finished_at_ms
  FROM jobs
 WHERE account_id = $1 AND ($2::uuid IS NULL OR key_id = $2) AND ($3::text IS NULL OR status = $3)
   AND ($4::uuid IS NULL OR id < $4)
 ORDER BY id DESC LIMIT $5;

-- name: claim_jobs
-- Own some jobs that nobody lives to own, or the one that is asked for. Keys take turns: one with few jobs
-- running or before this one comes first, then the oldest.
WITH waiting AS (
    SELECT id, key_id, row_number() OVER (PARTITION BY key_id ORDER BY id) AS nth FROM jobs
     WHERE status IN ('queued', 'running') AND (status = 'queued' OR lease_until < now())
       AND attempts < $5 AND ($1::uuid IS NULL OR id = $1)
), running AS (
    SELECT key_id, count(*) AS jobs FROM jobs
     WHERE status = 'running' AND lease_until >= now() GROUP BY key_id
), next AS (
    SELECT w.id FROM waiting w LEFT JOIN running r USING (key_id)
     ORDER BY w.nth + COALESCE(r.jobs, 0), w.id LIMIT $2
)
UPDATE jobs j
   SET status = 'running', epoch = j.epoch + 1, attempts = j.attempts + 1, owner = $3,
       lease_until = now() + make_interval(secs => $4), started_at = COALESCE(j.started_at, now())
 WHERE j.id IN (SELECT id FROM jobs
                 WHERE id IN (SELECT id FROM next) AND attempts < $5
                   AND (status = 'queued' OR (status = 'running' AND lease_until < now()))
                 FOR UPDATE SKIP LOCKED)
RETURNING *, (extract(epoch FROM created_at) * 1000)::bigint AS created_at_ms,
          (extract(epoch FROM started_at) * 1000)::bigint AS started_at_ms,
          (extract(epoch FROM finished_at) * 1000)::bigint AS finished_at_ms;

-- name: lock_job
-- The fence: holds the job's row if this epoch still owns it.
SELECT id FROM jobs WHERE id = $1 AND epoch = $2 AND status = 'running' FOR UPDATE;

-- name: note_call
-- The call that is about to be made for a job.
UPDATE jobs SET call_id = $2 WHERE id = $1;

-- name: renew_jobs
-- Extend the leases of jobs still owned at their epoch; says which were asked to stop. One whose row is
-- locked by its own transaction is passed over this time.
WITH mine AS (
    SELECT j.id, j.cancel_requested
      FROM jobs j JOIN unnest($1::uuid[], $2::integer[]) AS m(id, epoch) ON m.id = j.id AND m.epoch = j.epoch
     WHERE j.status = 'running'
), free AS (
    SELECT j.id FROM jobs j WHERE j.id IN (SELECT id FROM mine) FOR UPDATE SKIP LOCKED
), renewed AS (
    UPDATE jobs j SET lease_until = now() + make_interval(secs => $3) FROM free
     WHERE j.id = free.id AND j.status = 'running' RETURNING j.id
)
SELECT mine.id, mine.cancel_requested, renewed.id IS NOT NULL AS renewed
  FROM mine LEFT JOIN renewed USING (id);

-- name: hand_back_jobs
-- A worker that stops gives its jobs back: not their fault, so the attempt does not count.
UPDATE jobs j SET status = 'queued', owner = NULL, lease_until = NULL, attempts = j.attempts - 1
  FROM unnest($1::uuid[], $2::integer[]) AS mine(id, epoch)
 WHERE j.id = mine.id AND j.epoch = mine.epoch AND j.status = 'running'
RETURNING j.id;

-- name: end_job
-- The end of a job whose row is locked; its request is not needed any more. Postgres unescapes all texts of a
-- document to read one, and has no NUL.
UPDATE jobs
   SET status = $2, response = $4, cost_nanos = $5, error = $6,
       model_slug = COALESCE($3, replace(body::text, '\u0000', '\u0020')::json->>'model'),
       body = NULL, epoch = epoch + 1, finished_at = now(), owner = NULL, lease_until = NULL
 WHERE id = $1;

-- name: request_cancel
-- Ask a job to stop.
UPDATE jobs SET cancel_requested = true WHERE id = $1 AND status IN ('queued', 'running');

-- name: lock_unowned_job
-- A job that no living worker owns; locked.
SELECT call_id FROM jobs
 WHERE id = $1 AND (status = 'queued' OR (status = 'running' AND lease_until < now())) FOR UPDATE;

-- name: job_beyond_help
-- A job that lost as many workers as it may; locked.
SELECT id, call_id FROM jobs
 WHERE status IN ('queued', 'running') AND (status = 'queued' OR lease_until < now()) AND attempts >= $1
 ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED;

-- name: delete_old_jobs
-- What ended some days ago.
DELETE FROM jobs
 WHERE id IN (SELECT id FROM jobs WHERE status NOT IN ('queued', 'running')
                 AND finished_at < now() - make_interval(days => $1) LIMIT 1000);
