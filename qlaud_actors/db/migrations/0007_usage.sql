-- What reports and exports of usage read by. Measured with a million rows: docs/howto/reconcile.md.

-- An export goes through an account's rows by (created_at, id); the index on (account_id, created_at) alone
-- would make it sort every page that begins in the middle of a moment.
CREATE INDEX usage_events_in_order ON usage_events (account_id, created_at, id);
DROP INDEX usage_events_by_account;

-- One end user among thousands: 2 ms instead of a scan of the account's whole span.
CREATE INDEX usage_events_by_end_user ON usage_events (account_id, end_user_id, created_at)
    WHERE end_user_id IS NOT NULL;
