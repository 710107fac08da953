-- A vendor's hosted MCP server may be used with each end user's own credential instead of the account's.

ALTER TABLE mcp_servers
    ADD COLUMN auth_mode text NOT NULL DEFAULT 'tenant' CHECK (auth_mode IN ('tenant', 'per_user')),
    ADD CONSTRAINT per_user_is_of_the_catalogue CHECK (auth_mode = 'tenant' OR catalog_slug IS NOT NULL),
    ALTER COLUMN tools_cache_at DROP NOT NULL;            -- NULL: nobody has connected yet, so no tools are known
