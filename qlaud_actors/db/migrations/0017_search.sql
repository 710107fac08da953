-- Search over the messages of threads: by words in Postgres, by meaning in Chroma.
--
-- Postgres is the truth of both. A message that is written is queued for every living index in its own
-- transaction; what becomes of it depends on this queue alone. The vectors are kept here too, so that Chroma
-- may be lost: it is filled again without computing (or paying for) anything twice. All rows go with their
-- message; what Chroma has to forget then is noted by the same deletion.

CREATE TABLE search_indexes (
    id          uuid PRIMARY KEY,
    kind        text NOT NULL CHECK (kind IN ('words', 'vectors')),
    model       text NOT NULL,                    -- of words: the text search configuration
    dimensions  integer NOT NULL,
    state       text NOT NULL CHECK (state IN ('building', 'serving', 'retired')),
    filled_at   timestamptz,                      -- when the messages from before it were queued
    created_at  timestamptz NOT NULL DEFAULT now(),
    served_at   timestamptz
);
CREATE UNIQUE INDEX search_indexes_alive ON search_indexes (kind, state) WHERE state <> 'retired';

-- What an index lacks. A message that is queued again while somebody works on it loses its claim, and with
-- it what is being written for it.
CREATE TABLE search_queue (
    index_id       uuid NOT NULL REFERENCES search_indexes ON DELETE CASCADE,
    thread_id      uuid NOT NULL,
    seq            integer NOT NULL,
    account_id     uuid NOT NULL REFERENCES accounts,
    stage          text NOT NULL DEFAULT 'read' CHECK (stage IN ('read', 'place')),
    queued_at      timestamptz NOT NULL DEFAULT now(),
    due_at         timestamptz NOT NULL DEFAULT now(),
    attempts       integer NOT NULL DEFAULT 0,
    claimed_by     uuid,
    claimed_until  timestamptz,
    PRIMARY KEY (index_id, thread_id, seq),
    FOREIGN KEY (thread_id, seq) REFERENCES messages ON DELETE CASCADE
);
CREATE INDEX search_queue_due ON search_queue (index_id, due_at);
CREATE INDEX search_queue_by_message ON search_queue (thread_id, seq);
CREATE INDEX search_queue_claims ON search_queue (claimed_by) WHERE claimed_by IS NOT NULL;

CREATE TABLE search_words (
    thread_id  uuid NOT NULL,
    seq        integer NOT NULL,
    words      tsvector NOT NULL,
    PRIMARY KEY (thread_id, seq),
    FOREIGN KEY (thread_id, seq) REFERENCES messages ON DELETE CASCADE
);
CREATE INDEX search_words_by_word ON search_words USING gin (words);

-- One row for each chunk of a message: half-precision floats of length 1, little-endian.
CREATE TABLE search_vectors (
    index_id   uuid NOT NULL REFERENCES search_indexes ON DELETE CASCADE,
    thread_id  uuid NOT NULL,
    seq        integer NOT NULL,
    chunk      integer NOT NULL,
    vector     bytea NOT NULL,
    PRIMARY KEY (thread_id, seq, index_id, chunk),
    FOREIGN KEY (thread_id, seq) REFERENCES messages ON DELETE CASCADE
);
ALTER TABLE search_vectors ALTER COLUMN vector SET STORAGE EXTERNAL;

-- An account's collection in Chroma. One that was lost has no id until it is made again, and answers nothing
-- until what was queued by then is back in it.
CREATE TABLE search_collections (
    index_id       uuid NOT NULL REFERENCES search_indexes ON DELETE CASCADE,
    account_id     uuid NOT NULL REFERENCES accounts,
    collection_id  uuid,
    lost_at        timestamptz,
    PRIMARY KEY (index_id, account_id)
);

-- What Chroma has to forget: no text, only the ids of chunks. It is told twice, some time apart, because a
-- process that was placing the same vectors may have been slow.
CREATE TABLE search_forgotten (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    index_id    uuid NOT NULL REFERENCES search_indexes ON DELETE CASCADE,
    account_id  uuid NOT NULL REFERENCES accounts,
    thread_id   uuid NOT NULL,
    seq         integer NOT NULL,
    chunk       integer NOT NULL,
    told        boolean NOT NULL DEFAULT false,
    due_at      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX search_forgotten_due ON search_forgotten (due_at);

-- Which threads a key may search: those that it may read (`get_thread`), narrowed to an end user or a thread.
CREATE FUNCTION searchable_threads_v1(
    account uuid, everything boolean, key uuid, bound_to text, of_end_user text, of_thread uuid
) RETURNS SETOF threads LANGUAGE sql STABLE AS $$
    SELECT * FROM threads t
     WHERE t.account_id = account AND t.deleted_at IS NULL
       AND (everything OR t.key_id = key OR t.end_user_id = bound_to)
       AND (of_end_user IS NULL OR t.end_user_id = of_end_user)
       AND (of_thread IS NULL OR t.id = of_thread)
$$;

-- Queue messages for every living index. A turn's last message is queued anew when the turn ends, because
-- only then is it known to be the last.
CREATE FUNCTION queue_new_messages_v1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO search_queue (index_id, thread_id, seq, account_id)
    SELECT i.id, m.thread_id, m.seq, t.account_id
      FROM new_messages m JOIN threads t ON t.id = m.thread_id
     CROSS JOIN search_indexes i WHERE i.state <> 'retired'
        ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER queue_new_messages AFTER INSERT ON messages REFERENCING NEW TABLE AS new_messages
    FOR EACH STATEMENT EXECUTE FUNCTION queue_new_messages_v1();

CREATE FUNCTION queue_last_message_v1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO search_queue (index_id, thread_id, seq, account_id)
    SELECT i.id, m.thread_id, m.seq, NEW.account_id
      FROM messages m CROSS JOIN search_indexes i
     WHERE m.thread_id = NEW.thread_id AND m.seq = NEW.final_seq AND i.state <> 'retired'
        ON CONFLICT (index_id, thread_id, seq)
        DO UPDATE SET stage = 'read', due_at = now(), claimed_by = NULL, claimed_until = NULL;
    RETURN NULL;
END $$;
CREATE TRIGGER queue_last_message AFTER UPDATE OF final_seq ON turns FOR EACH ROW
    WHEN (NEW.final_seq IS NOT NULL AND NEW.final_seq IS DISTINCT FROM OLD.final_seq)
    EXECUTE FUNCTION queue_last_message_v1();

CREATE FUNCTION forget_vectors_v1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO search_forgotten (index_id, account_id, thread_id, seq, chunk)
    SELECT v.index_id, t.account_id, v.thread_id, v.seq, v.chunk
      FROM old_vectors v JOIN threads t ON t.id = v.thread_id
      JOIN search_indexes i ON i.id = v.index_id AND i.state <> 'retired';
    RETURN NULL;
END $$;
CREATE TRIGGER forget_vectors AFTER DELETE ON search_vectors REFERENCING OLD TABLE AS old_vectors
    FOR EACH STATEMENT EXECUTE FUNCTION forget_vectors_v1();

-- The index by words is there from the beginning. Stemming is English; other languages are found by whole words.
INSERT INTO search_indexes (id, kind, model, dimensions, state, filled_at, served_at)
VALUES ('00000000-0000-0000-0000-000000000017', 'words', 'english', 0, 'serving', now(), now());
INSERT INTO search_queue (index_id, thread_id, seq, account_id)
SELECT '00000000-0000-0000-0000-000000000017', m.thread_id, m.seq, t.account_id
  FROM messages m JOIN threads t ON t.id = m.thread_id WHERE t.deleted_at IS NULL;
