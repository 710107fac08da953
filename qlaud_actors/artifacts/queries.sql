-- name: lock_owner
-- Until this transaction ends nobody else stores for this owner.
SELECT pg_advisory_xact_lock(hashtextextended($1::text, 15));

-- name: lock_key
-- A key that stays in force until this transaction ends.
SELECT id FROM keys WHERE id = $1 AND revoked_at IS NULL FOR KEY SHARE;

-- name: store_artifact
-- Keep under a name, in the place of what had it; nothing when the owner has as much as it may, or in a thread
-- that is gone.
INSERT INTO artifacts AS a (id, account_id, owner, thread_id, name, mime, content)
SELECT $1, $2, $3, $4, $5, $6, $7
 WHERE (SELECT count(*) < $8 AND COALESCE(sum(length(content)), 0) + length($7::bytea) <= $9
          FROM artifacts WHERE account_id = $2 AND owner = $3 AND name <> $5)
   AND ($4::uuid IS NULL OR EXISTS (SELECT FROM threads WHERE id = $4 AND deleted_at IS NULL))
ON CONFLICT (account_id, owner, name)
DO UPDATE SET mime = excluded.mime, content = excluded.content, thread_id = excluded.thread_id, updated_at = now()
RETURNING id, name, mime, length(content) AS size, (extract(epoch FROM updated_at) * 1000)::bigint AS updated_at_ms;

-- name: restore_artifact
-- Keep what was kept elsewhere, unless the name is taken; nothing when the owner has as much as it may.
WITH there AS (
    SELECT id FROM artifacts WHERE account_id = $2 AND owner = $3 AND name = $5
), made AS (
    INSERT INTO artifacts (id, account_id, owner, thread_id, name, mime, content, created_at, updated_at)
    SELECT $1, $2, $3, $4, $5, $6, $7, COALESCE(to_timestamp($8::bigint / 1000.0), now()),
           COALESCE(to_timestamp($9::bigint / 1000.0), now())
     WHERE NOT EXISTS (SELECT FROM there)
       AND (SELECT count(*) < $10 AND COALESCE(sum(length(content)), 0) + length($7::bytea) <= $11
              FROM artifacts WHERE account_id = $2 AND owner = $3)
    RETURNING id
)
SELECT id FROM there UNION ALL SELECT id FROM made;

-- name: artifact
-- The artifact of an owner and name.
SELECT id, name, mime, content, length(content) AS size,
       (extract(epoch FROM updated_at) * 1000)::bigint AS updated_at_ms
  FROM artifacts WHERE account_id = $1 AND owner = $2 AND name = $3;

-- name: artifacts
-- An owner's artifacts whose names begin so, newest first, without their content.
SELECT id, name, mime, length(content) AS size, (extract(epoch FROM updated_at) * 1000)::bigint AS updated_at_ms
  FROM artifacts WHERE account_id = $1 AND owner = $2 AND starts_with(name, $3)
 ORDER BY updated_at DESC, id LIMIT $4;

-- name: thread_artifacts
-- What was last stored in a thread, newest first, without the content; on from one of them.
SELECT id, name, mime, length(content) AS size, (extract(epoch FROM updated_at) * 1000)::bigint AS updated_at_ms
  FROM artifacts
 WHERE account_id = $1 AND thread_id = $2
   AND ($3::uuid IS NULL OR (updated_at, id) < (SELECT updated_at, id FROM artifacts
                                                 WHERE id = $3 AND account_id = $1 AND thread_id = $2))
 ORDER BY updated_at DESC, id DESC LIMIT $4;

-- name: thread_artifact
-- One of them, with its content.
SELECT id, name, mime, content, length(content) AS size,
       (extract(epoch FROM updated_at) * 1000)::bigint AS updated_at_ms
  FROM artifacts WHERE account_id = $1 AND thread_id = $2 AND id = $3;

-- name: visible_artifact
-- An artifact by its id, if the key may see it: any of the account, its end user's, its own, or of its threads.
SELECT a.id, a.name, a.mime, a.content, length(a.content) AS size,
       (extract(epoch FROM a.updated_at) * 1000)::bigint AS updated_at_ms
  FROM artifacts a
 WHERE a.id = $1 AND a.account_id = $2
   AND ($3 OR a.owner = 'user:' || $5 OR a.owner = 'key:' || $4::uuid
        OR EXISTS (SELECT 1 FROM threads t WHERE t.id = a.thread_id AND t.deleted_at IS NULL
                                             AND (t.key_id = $4 OR t.end_user_id = $5)));
