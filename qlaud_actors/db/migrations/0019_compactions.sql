-- Long histories: what a model sees of a thread in place of its oldest messages.

-- `auto` keeps a thread within the model's window; with `off` a turn that does not fit is refused.
-- The threshold is a share of the window; the model writes the summaries (NULL: the operator's choice).
ALTER TABLE threads
    ADD COLUMN compaction           text NOT NULL DEFAULT 'auto' CHECK (compaction IN ('auto', 'off')),
    ADD COLUMN compaction_threshold double precision NOT NULL DEFAULT 0.8
        CHECK (compaction_threshold BETWEEN 0.1 AND 0.95),
    ADD COLUMN compaction_model     text;

-- Each version tells the whole view: a summary that stands for all messages up to `summarized_through_seq`,
-- and results of tools that are shown cut up to `trimmed_through_seq`. Messages stay as they are.
-- `omitted`: some of those messages are in no summary. `usage_event_id` is what the summary was charged as.
CREATE TABLE compactions (
    thread_id               uuid NOT NULL REFERENCES threads ON DELETE CASCADE,
    version                 integer NOT NULL,
    summary                 text,
    summarized_through_seq  integer NOT NULL,
    trimmed_through_seq     integer NOT NULL,
    omitted                 boolean NOT NULL DEFAULT false,
    model                   text,
    cost_nanos              bigint NOT NULL DEFAULT 0,
    turn_id                 uuid,
    usage_event_id          uuid,
    created_at              timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (thread_id, version)
);

-- Which view of the history a step was asked with: steps of one view and model measure what lies between them.
ALTER TABLE steps ADD COLUMN view_digest bytea;

-- What a call was for, where it was no step of a turn and nobody's own request: `compaction`.
ALTER TABLE usage_events ADD COLUMN purpose text;
