-- MCP servers of accounts, and the tools that they offer.

CREATE TABLE mcp_servers (
    id              uuid PRIMARY KEY,
    account_id      uuid NOT NULL REFERENCES accounts,
    name            text NOT NULL,
    server_url      text NOT NULL,
    auth_headers    bytea NOT NULL,            -- sealed JSON object; empty when there are none, or no more
    timeout_ms      integer NOT NULL,
    effect          text CHECK (effect IN ('read', 'idempotent', 'write')),  -- NULL: as the tools' hints say
    tools_cache_at  timestamptz NOT NULL DEFAULT now(),
    created_at      timestamptz NOT NULL DEFAULT now(),
    revoked_at      timestamptz
);
CREATE UNIQUE INDEX mcp_servers_by_name ON mcp_servers (account_id, name) WHERE revoked_at IS NULL;

-- A tool is a webhook or belongs to an MCP server. The latter has no secret of its own.
ALTER TABLE tools
    ADD COLUMN mcp_server_id uuid REFERENCES mcp_servers,
    ALTER COLUMN webhook_url DROP NOT NULL,
    ADD CONSTRAINT tools_are_of_one_kind CHECK (num_nonnulls(webhook_url, mcp_server_id) = 1);
CREATE INDEX tools_by_mcp_server ON tools (mcp_server_id) WHERE revoked_at IS NULL;
