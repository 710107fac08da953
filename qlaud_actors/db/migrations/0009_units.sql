-- What a call used beside text tokens: counts by the name of the unit (`usage.Units`); NULL when nothing.
ALTER TABLE usage_events ADD COLUMN units jsonb;
