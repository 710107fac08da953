-- What people say must not live on in the planner's statistics, which keep common values and, of a table that
-- has become empty, keep them for ever. No plan needs them: such columns are looked up by equality or not at all.
DO $$
DECLARE
    place record;
BEGIN
    FOR place IN SELECT * FROM (VALUES
        ('threads', 'end_user_id'), ('threads', 'title'), ('threads', 'metadata'), ('threads', 'workspace_id'),
        ('threads', 'external_id'), ('keys', 'end_user_id'), ('keys', 'name'), ('turns', 'idempotency_key'),
        ('jobs', 'response'), ('jobs', 'idempotency_key'), ('jobs', 'webhook_url'), ('deliveries', 'body'),
        ('deliveries', 'url'),
        ('deliveries', 'last_error'), ('usage_events', 'end_user_id'), ('end_user_billing', 'end_user_id'),
        ('stripe_meter_queue', 'end_user_id'), ('connections', 'end_user_id'), ('connections', 'settings'),
        ('connections', 'connected_as'), ('connections', 'vendor_account_id'), ('connect_links', 'end_user_id'),
        ('connect_links', 'settings'), ('keyed_calls', 'idempotency_key'), ('tool_results', 'content'),
        ('artifacts', 'owner'), ('artifacts', 'name'), ('artifacts', 'content'),
        ('deletions', 'end_user_id')) AS places(table_name, column_name)
    LOOP
        EXECUTE format('ALTER TABLE %I ALTER COLUMN %I SET STATISTICS 0', place.table_name, place.column_name);
        IF to_regproc('pg_clear_attribute_stats') IS NOT NULL THEN  -- from PostgreSQL 18 on
            EXECUTE format('SELECT pg_clear_attribute_stats(current_schema(), %L, %L, false)',
                           place.table_name, place.column_name);
        END IF;
    END LOOP;
END $$;
