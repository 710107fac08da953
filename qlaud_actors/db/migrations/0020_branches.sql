-- A thread may have begun as a copy of another one's messages, up to some seq.
ALTER TABLE threads
    ADD COLUMN parent_thread_id uuid REFERENCES threads ON DELETE SET NULL,
    ADD COLUMN branched_at_seq  integer;
CREATE INDEX threads_by_parent ON threads (parent_thread_id, id) WHERE deleted_at IS NULL;

-- A message that was copied was written by no turn of its thread.
ALTER TABLE messages ALTER COLUMN turn_id DROP NOT NULL;
