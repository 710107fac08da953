-- Holds and settlements for less: their plans are kept, and usage is told of once for all of a statement.

-- Postgres would plan the statements of both functions anew in each call, because they look cheaper with
-- the few members of one call in view; planning cost more than it saved (a third of all their time).
ALTER FUNCTION place_holds_v1 SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION settle_calls_v2 SET plan_cache_mode = force_generic_plan;

-- As `queue_usage_v1`, for all events that one statement adds. Still a trigger, so that no way of writing
-- usage can forget it.
CREATE FUNCTION queue_usage_v2() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO usage_queue (webhook_id, usage_id)
    SELECT w.id, a.id FROM added a JOIN webhooks w ON w.account_id = a.account_id
     WHERE w.deleted_at IS NULL AND 'usage.recorded' = ANY (w.events)
     ORDER BY a.id;
    RETURN NULL;
END $$;
DROP TRIGGER usage_is_told ON usage_events;
CREATE TRIGGER usage_is_told AFTER INSERT ON usage_events REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION queue_usage_v2();
DROP FUNCTION queue_usage_v1;
