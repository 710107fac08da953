-- A vendor's hosted MCP server may be used with each end user's own credential instead of the account's.

ALTER TABLE mcp_servers
    ADD COLUMN auth_mode text NOT NULL DEFAULT 'tenant' CHECK (auth_mode IN ('tenant', 'per_user')),
    ADD CONSTRAINT per_user_is_of_the_catalogue CHECK (auth_mode = 'tenant' OR catalog_slug IS NOT NULL),
    ALTER COLUMN tools_cache_at DROP NOT NULL;            -- NULL: nobody has connected yet, so no tools are known

-- What of a thread's metadata an admin key has written last: locked inputs of tools take nothing else.
ALTER TABLE threads ADD COLUMN vouched text[] NOT NULL DEFAULT '{}';   -- names

-- The names that an admin key has written last, once somebody has merged `given`.
CREATE FUNCTION vouched_v1(known text[], given jsonb, by_admin boolean) RETURNS text[] LANGUAGE sql IMMUTABLE AS $$
    SELECT COALESCE(array_agg(name ORDER BY name), '{}')
      FROM (SELECT unnest(known) AS name
            EXCEPT SELECT jsonb_object_keys(COALESCE(given, '{}'))
            UNION SELECT jsonb_object_keys(COALESCE(given, '{}')) WHERE by_admin) AS names
$$;

-- Of an outcome that was cut: where the whole is kept, so that the same call again can say so.
ALTER TABLE keyed_calls ADD COLUMN cut json;
