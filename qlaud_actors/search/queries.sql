-- name: living_indexes
-- The indexes that messages are queued for.
SELECT id, kind, model, dimensions, state, filled_at IS NOT NULL AS filled
  FROM search_indexes WHERE state <> 'retired' ORDER BY created_at;

-- name: retired_indexes
-- Indexes that were replaced and still have rows or collections.
SELECT id FROM search_indexes WHERE state = 'retired';

-- name: block_new_messages
-- Wait until every message on its way is committed. Those that come later see the new index.
LOCK TABLE messages IN SHARE MODE;

-- name: insert_index
-- An index of vectors: the first one serves at once, another is built beside it. One at a time is built.
INSERT INTO search_indexes (id, kind, model, dimensions, state, served_at)
SELECT $1, 'vectors', $2, $3, CASE WHEN other.n = 0 THEN 'serving' ELSE 'building' END,
       CASE WHEN other.n = 0 THEN now() END
  FROM (SELECT count(*) AS n FROM search_indexes WHERE kind = 'vectors' AND state = 'serving') other
    ON CONFLICT DO NOTHING
RETURNING id;

-- name: queue_old_messages
-- Queue the messages that were there before an index.
INSERT INTO search_queue (index_id, thread_id, seq, account_id)
SELECT $1, m.thread_id, m.seq, t.account_id
  FROM messages m JOIN threads t ON t.id = m.thread_id WHERE t.deleted_at IS NULL
    ON CONFLICT DO NOTHING;

-- name: mark_filled
-- All old messages are queued.
UPDATE search_indexes SET filled_at = COALESCE(filled_at, now()) WHERE id = $1;

-- name: retire_serving
-- The index that has served so far; only if another one is complete.
UPDATE search_indexes SET state = 'retired'
 WHERE kind = 'vectors' AND state = 'serving'
   AND EXISTS (SELECT FROM search_indexes b WHERE b.id = $1 AND b.state = 'building' AND b.filled_at IS NOT NULL)
   AND NOT EXISTS (SELECT FROM search_queue q WHERE q.index_id = $1)
RETURNING id;

-- name: serve_index
-- The complete index serves from now on.
UPDATE search_indexes SET state = 'serving', served_at = now() WHERE id = $1 AND state = 'building';

-- name: retire_building
-- Give an unfinished index up.
UPDATE search_indexes SET state = 'retired' WHERE id = $1 AND state = 'building';

-- name: delete_index
-- Forget a replaced index with its rows.
DELETE FROM search_indexes WHERE id = $1 AND state = 'retired';

-- name: claim_messages
-- Take what an index lacks, the oldest first. Nobody else takes it until the claim ends.
WITH due AS (
    SELECT thread_id, seq FROM search_queue
     WHERE index_id = $1 AND due_at <= now() AND (claimed_until IS NULL OR claimed_until < now())
       AND ($5 OR stage = 'read')
     ORDER BY due_at LIMIT $4 FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE search_queue q SET claimed_by = $2, claimed_until = now() + make_interval(secs => $3)
      FROM due WHERE q.index_id = $1 AND q.thread_id = due.thread_id AND q.seq = due.seq
    RETURNING q.thread_id, q.seq, q.account_id, q.stage
)
SELECT c.*, m.role, CASE WHEN c.stage = 'read' THEN m.content END AS content,
       CASE WHEN c.stage = 'read' AND m.role = 'assistant' THEN q.content END AS question,
       t.deleted_at IS NULL AS alive, u.final_seq = c.seq AS last,
       EXISTS (SELECT FROM search_vectors v
                WHERE v.thread_id = c.thread_id AND v.seq = c.seq AND v.index_id = $1) AS has_vectors
  FROM claimed c
  JOIN messages m ON m.thread_id = c.thread_id AND m.seq = c.seq
  LEFT JOIN turns u ON u.id = m.turn_id
  JOIN threads t ON t.id = c.thread_id
  LEFT JOIN messages q ON q.thread_id = c.thread_id AND q.role = 'user'
       AND q.seq = COALESCE(u.user_seq, c.seq - 1);

-- name: lock_claim
-- What is still there of a claim; its messages stay until the transaction ends.
SELECT thread_id, seq FROM search_queue
 WHERE claimed_by = $1 AND thread_id = ANY ($2::uuid[]) ORDER BY thread_id, seq FOR UPDATE;

-- name: put_words
-- Index texts by their words.
INSERT INTO search_words (thread_id, seq, words)
SELECT n.thread_id, n.seq, to_tsvector('english', n.text)
  FROM unnest($1::uuid[], $2::integer[], $3::text[]) AS n(thread_id, seq, text)
    ON CONFLICT (thread_id, seq) DO UPDATE SET words = EXCLUDED.words;

-- name: put_vectors
-- Keep vectors.
INSERT INTO search_vectors (index_id, thread_id, seq, chunk, vector)
SELECT $1, n.thread_id, n.seq, n.chunk, n.vector
  FROM unnest($2::uuid[], $3::integer[], $4::integer[], $5::bytea[]) AS n(thread_id, seq, chunk, vector)
    ON CONFLICT (thread_id, seq, index_id, chunk) DO UPDATE SET vector = EXCLUDED.vector;

-- name: to_place
-- The vectors of these messages are kept; Chroma lacks them.
UPDATE search_queue q SET stage = 'place', attempts = 0
  FROM unnest($2::uuid[], $3::integer[]) AS n(thread_id, seq)
 WHERE q.claimed_by = $1 AND q.thread_id = n.thread_id AND q.seq = n.seq;

-- name: vectors_of
-- The vectors of some messages.
SELECT v.thread_id, v.seq, v.chunk, v.vector
  FROM search_vectors v JOIN unnest($2::uuid[], $3::integer[]) AS n(thread_id, seq) USING (thread_id, seq)
 WHERE v.index_id = $1;

-- name: finish_messages
-- These are done, unless they were queued again meanwhile.
DELETE FROM search_queue q
 USING unnest($2::uuid[], $3::integer[]) AS n(thread_id, seq)
 WHERE q.claimed_by = $1 AND q.thread_id = n.thread_id AND q.seq = n.seq;

-- name: release_claim
-- Leave the rest of a claim to others: at once, or after a failure in so many seconds (doubled with each one,
-- an hour at most).
UPDATE search_queue
   SET claimed_by = NULL, claimed_until = NULL, attempts = attempts + CASE WHEN $2 > 0 THEN 1 ELSE 0 END,
       due_at = now() + make_interval(secs => LEAST($2 * 2 ^ LEAST(attempts, 12), 3600))
 WHERE claimed_by = $1;

-- name: forget_strays
-- Chunks that were placed although their vectors were removed meanwhile.
INSERT INTO search_forgotten (index_id, account_id, thread_id, seq, chunk)
SELECT $1, $2, n.thread_id, n.seq, n.chunk
  FROM unnest($3::uuid[], $4::integer[], $5::integer[]) AS n(thread_id, seq, chunk)
 WHERE NOT EXISTS (SELECT FROM search_vectors v WHERE v.index_id = $1 AND v.thread_id = n.thread_id
                      AND v.seq = n.seq AND v.chunk = n.chunk);

-- name: forgotten_due
-- What Chroma has to forget now. Ids that have a vector again stay.
SELECT f.id, f.account_id, f.thread_id, f.seq, f.chunk, c.collection_id,
       EXISTS (SELECT FROM search_vectors v WHERE v.index_id = f.index_id AND v.thread_id = f.thread_id
                  AND v.seq = f.seq AND v.chunk = f.chunk) AS back
  FROM search_forgotten f
  LEFT JOIN search_collections c ON c.index_id = f.index_id AND c.account_id = f.account_id
 WHERE f.due_at <= now() ORDER BY f.due_at LIMIT $1;

-- name: told_once
-- Chroma was told; it is told again later.
UPDATE search_forgotten SET told = true, due_at = now() + make_interval(secs => $2)
 WHERE id = ANY ($1::bigint[]) AND NOT told;

-- name: told_twice
-- Chroma was told again, or there is nothing to tell.
DELETE FROM search_forgotten WHERE id = ANY ($1::bigint[]) AND (told OR $2);

-- name: untold
-- How much Chroma has not been told yet.
SELECT count(*) FROM search_forgotten WHERE NOT told AND ($1::uuid IS NULL OR account_id = $1);

-- name: get_collection
-- The collection of an account, in one index.
SELECT collection_id FROM search_collections WHERE index_id = $1 AND account_id = $2;

-- name: note_collection
-- A collection was made.
INSERT INTO search_collections (index_id, account_id, collection_id) VALUES ($1, $2, $3)
    ON CONFLICT (index_id, account_id) DO UPDATE SET collection_id = EXCLUDED.collection_id
    WHERE search_collections.collection_id IS NULL;

-- name: lose_collection
-- Chroma does not know a collection any more.
UPDATE search_collections c SET collection_id = NULL, lost_at = now()
  FROM search_indexes i
 WHERE i.id = c.index_id AND i.state <> 'retired' AND c.collection_id = $1
RETURNING c.index_id, c.account_id;

-- name: queue_lost
-- All vectors of a lost collection are to be placed again.
INSERT INTO search_queue (index_id, thread_id, seq, account_id, stage)
SELECT DISTINCT v.index_id, v.thread_id, v.seq, t.account_id, 'place'
  FROM search_vectors v JOIN threads t ON t.id = v.thread_id
 WHERE v.index_id = $1 AND t.account_id = $2
    ON CONFLICT (index_id, thread_id, seq)
    DO UPDATE SET claimed_by = NULL, claimed_until = NULL, due_at = now();

-- name: refilled
-- Lost collections that have everything back answer again.
UPDATE search_collections c SET lost_at = NULL
 WHERE c.lost_at IS NOT NULL AND c.collection_id IS NOT NULL
   AND NOT EXISTS (SELECT FROM search_queue q WHERE q.index_id = c.index_id AND q.account_id = c.account_id
                      AND q.stage = 'place' AND q.queued_at <= c.lost_at)
RETURNING c.account_id;

-- name: known_collections
-- The collections that Chroma should have.
SELECT c.collection_id FROM search_collections c JOIN search_indexes i ON i.id = c.index_id
 WHERE c.collection_id IS NOT NULL AND i.state <> 'retired';

-- name: serving_index
-- The index of vectors that answers, and an account's collection in it.
SELECT i.id, i.model, i.dimensions, c.collection_id, c.lost_at IS NOT NULL AS lost
  FROM search_indexes i LEFT JOIN search_collections c ON c.index_id = i.id AND c.account_id = $1
 WHERE i.kind = 'vectors' AND i.state = 'serving';

-- name: scope_size
-- How many messages the threads of a scope have at most.
SELECT COALESCE(sum(last_seq), 0)::bigint FROM searchable_threads_v1($1, $2, $3, $4, $5, $6);

-- name: vectors_in_scope
-- All vectors of a scope, or those of its newest messages; a row for each thread, for a row costs the driver more
-- than a vector.
SELECT near.thread_id, array_agg(near.seq) AS seqs, array_agg(near.chunk) AS chunks,
       string_agg(near.vector, '') AS vectors
  FROM (
SELECT v.thread_id, v.seq, v.chunk, v.vector
  FROM searchable_threads_v1($1, $2, $3, $4, $5, $6) t
  JOIN messages m ON m.thread_id = t.id
  JOIN search_vectors v ON v.thread_id = m.thread_id AND v.seq = m.seq AND v.index_id = $10
 WHERE ($7::text IS NULL OR m.role = $7)
   AND ($8::float8 IS NULL OR m.created_at > to_timestamp($8))
   AND ($9::float8 IS NULL OR m.created_at < to_timestamp($9))
 ORDER BY m.created_at DESC LIMIT $11
) near GROUP BY near.thread_id;

-- name: keep_in_scope
-- Which of some messages are in a scope.
SELECT m.thread_id, m.seq
  FROM unnest($10::uuid[], $11::integer[]) AS n(thread_id, seq)
  JOIN searchable_threads_v1($1, $2, $3, $4, $5, $6) t ON t.id = n.thread_id
  JOIN messages m ON m.thread_id = n.thread_id AND m.seq = n.seq
 WHERE ($7::text IS NULL OR m.role = $7)
   AND ($8::float8 IS NULL OR m.created_at > to_timestamp($8))
   AND ($9::float8 IS NULL OR m.created_at < to_timestamp($9));

-- name: words_in_scope
-- Messages of a large scope by words, best first: those with all of them, then those with some. What excludes words
-- or names a phrase is taken as it is. Of words that are everywhere, only so many messages are ranked. OFFSET 0 keeps
-- the order of the joins, the index of words first: the planner cannot know how rare a word is.
WITH wanted AS MATERIALIZED (
    SELECT query, CASE WHEN query::text ~ '[!<]' THEN query
                       ELSE replace(query::text, ' & ', ' | ')::tsquery END AS loose
      FROM (SELECT websearch_to_tsquery('english', $10) AS query) given
), whole AS MATERIALIZED (
    SELECT w.thread_id, w.seq, ts_rank(w.words, loose, 1) AS rank
      FROM wanted
     CROSS JOIN LATERAL (SELECT * FROM search_words f WHERE f.words @@ query OFFSET 0) w
     CROSS JOIN LATERAL (SELECT FROM searchable_threads_v1($1, $2, $3, $4, $5, $6) t
                          WHERE t.id = w.thread_id OFFSET 0) t
     CROSS JOIN LATERAL (SELECT FROM messages m WHERE m.thread_id = w.thread_id AND m.seq = w.seq
                            AND ($7::text IS NULL OR m.role = $7)
                            AND ($8::float8 IS NULL OR m.created_at > to_timestamp($8))
                            AND ($9::float8 IS NULL OR m.created_at < to_timestamp($9)) OFFSET 0) m
     LIMIT $12
), partly AS (
    SELECT w.thread_id, w.seq, ts_rank(w.words, loose, 1) AS rank
      FROM wanted
     CROSS JOIN LATERAL (SELECT * FROM search_words f WHERE f.words @@ loose AND NOT f.words @@ query OFFSET 0) w
     CROSS JOIN LATERAL (SELECT FROM searchable_threads_v1($1, $2, $3, $4, $5, $6) t
                          WHERE t.id = w.thread_id OFFSET 0) t
     CROSS JOIN LATERAL (SELECT FROM messages m WHERE m.thread_id = w.thread_id AND m.seq = w.seq
                            AND ($7::text IS NULL OR m.role = $7)
                            AND ($8::float8 IS NULL OR m.created_at > to_timestamp($8))
                            AND ($9::float8 IS NULL OR m.created_at < to_timestamp($9)) OFFSET 0) m
     LIMIT (SELECT CASE WHEN count(*) < $11 THEN $12 ELSE 0 END FROM whole)
)
SELECT thread_id, seq, ((rank / (1 + rank) + whole) / 2)::float8 AS score
  FROM (SELECT *, 1 AS whole FROM whole UNION ALL SELECT *, 0 FROM partly) found
 ORDER BY score DESC, thread_id, seq LIMIT $11;

-- name: words_of_few
-- The same where the scope has few messages: each of them is compared.
WITH wanted AS MATERIALIZED (
    SELECT query, CASE WHEN query::text ~ '[!<]' THEN query
                       ELSE replace(query::text, ' & ', ' | ')::tsquery END AS loose
      FROM (SELECT websearch_to_tsquery('english', $10) AS query) given
)
SELECT w.thread_id, w.seq,
       ((ts_rank(words, loose, 1) / (1 + ts_rank(words, loose, 1)) + (words @@ query)::integer) / 2)::float8 AS score
  FROM searchable_threads_v1($1, $2, $3, $4, $5, $6) t
  JOIN messages m ON m.thread_id = t.id
  JOIN search_words w ON w.thread_id = m.thread_id AND w.seq = m.seq
  JOIN wanted ON w.words @@ loose
 WHERE ($7::text IS NULL OR m.role = $7)
   AND ($8::float8 IS NULL OR m.created_at > to_timestamp($8))
   AND ($9::float8 IS NULL OR m.created_at < to_timestamp($9))
 ORDER BY score DESC, thread_id, seq LIMIT $11;

-- name: found_messages
-- Messages to be shown.
SELECT m.thread_id, m.seq, m.role, m.content, t.end_user_id,
       (extract(epoch FROM m.created_at) * 1000)::bigint AS created_at_ms
  FROM unnest($1::uuid[], $2::integer[]) AS n(thread_id, seq)
  JOIN messages m ON m.thread_id = n.thread_id AND m.seq = n.seq
  JOIN threads t ON t.id = n.thread_id AND t.deleted_at IS NULL;

-- name: index_figures
-- How far each index is.
SELECT i.id, i.kind, i.model, i.dimensions, i.state,
       (SELECT count(*) FROM search_queue q WHERE q.index_id = i.id) AS queued,
       (SELECT count(*) FROM search_queue q WHERE q.index_id = i.id AND q.attempts > 0) AS failing,
       COALESCE((SELECT extract(epoch FROM now() - min(q.queued_at)) FROM search_queue q
                  WHERE q.index_id = i.id), 0)::float8 AS oldest_seconds,
       CASE i.kind WHEN 'words' THEN (SELECT count(*) FROM search_words)
            ELSE (SELECT count(*) FROM search_vectors v WHERE v.index_id = i.id) END AS entries,
       (SELECT count(*) FROM search_collections c WHERE c.index_id = i.id AND c.lost_at IS NOT NULL) AS lost
  FROM search_indexes i WHERE i.state <> 'retired' ORDER BY i.created_at;

-- name: queue_length
-- How many messages an index lacks.
SELECT count(*) FROM search_queue WHERE index_id = $1;
