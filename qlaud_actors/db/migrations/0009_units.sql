-- What a call used beside text tokens: counts by the name of the unit (`usage.Units`); NULL when nothing.
ALTER TABLE usage_events ADD COLUMN units jsonb;

-- As `settle_calls_v1` (of the next migration), with the units of each call on its usage event.
CREATE FUNCTION settle_calls_v2(
    calls uuid[], for_keys uuid[], for_turns uuid[], for_steps integer[], end_users text[], models text[],
    providers text[], inputs bigint[], outputs bigint[], cache_reads bigint[], cache_writes_5m bigint[],
    cache_writes_1h bigint[], costs_picos bigint[], rated bigint[], price_versions text[], markups integer[],
    estimates boolean[], latencies integer[], statuses integer[], units_of text[]
) RETURNS TABLE (charged bigint, overrun bigint) LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY SELECT * FROM settle_calls_v1(
        calls, for_keys, for_turns, for_steps, end_users, models, providers, inputs, outputs, cache_reads,
        cache_writes_5m, cache_writes_1h, costs_picos, rated, price_versions, markups, estimates, latencies,
        statuses);
    IF array_remove(units_of, NULL) <> '{}' THEN
        UPDATE usage_events e SET units = u.units::jsonb
          FROM unnest(calls, units_of) AS u(call, units) WHERE u.units IS NOT NULL AND e.id = u.call;
    END IF;
END $$;
