-- Accounts at vendors that are connected, and the one-time links with which people connect them.

-- Of an end user, or without one the account's own. Connecting again makes a new row, so that what is
-- still going on with the old credential cannot touch the new one.
CREATE TABLE connections (
    id                 uuid PRIMARY KEY,
    account_id         uuid NOT NULL REFERENCES accounts,
    end_user_id        text,
    connector          text NOT NULL,                     -- slug
    scheme             smallint NOT NULL,                 -- which of the connector's ways of signing in
    settings           jsonb NOT NULL,                    -- the fields that are no secrets
    connected_as       text NOT NULL,
    vendor_account_id  text NOT NULL,
    status             text NOT NULL DEFAULT 'connected' CHECK (status IN ('connected', 'expired', 'disconnected')),
    generation         integer NOT NULL DEFAULT 1,        -- of its secrets; a refresh makes the next
    access_expires_at  timestamptz,                       -- NULL: does not expire, or nobody said
    created_at         timestamptz NOT NULL DEFAULT now(),
    verified_at        timestamptz NOT NULL DEFAULT now(),
    last_used_at       timestamptz,
    disconnected_at    timestamptz
);
CREATE UNIQUE INDEX connections_living ON connections (account_id, end_user_id, connector)
    NULLS NOT DISTINCT WHERE status <> 'disconnected';

CREATE TABLE connection_secrets (
    connection_id  uuid NOT NULL REFERENCES connections ON DELETE CASCADE,
    field          text NOT NULL,
    sealed         bytea NOT NULL,
    PRIMARY KEY (connection_id, field)
);

-- Only the hash of a link's token is kept. The rest is known once a sign-in by OAuth has begun.
CREATE TABLE connect_links (
    token_hash   bytea PRIMARY KEY,
    account_id   uuid NOT NULL REFERENCES accounts,
    end_user_id  text,
    connector    text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL,
    used_at      timestamptz,
    scheme       smallint,
    settings     jsonb,                                   -- fields given before the vendor was asked
    state_hash   bytea UNIQUE,
    verifier     bytea                                    -- of PKCE, sealed
);
CREATE INDEX connect_links_by_end ON connect_links (expires_at);

-- A tool is a webhook, or belongs to an MCP server, or is a built-in.
ALTER TABLE tools
    ADD COLUMN provider text,                             -- qlaud-builtin/<name>
    ADD COLUMN auth_mode text CHECK (auth_mode IN ('tenant', 'per_user')),
    ADD COLUMN config bytea,                              -- sealed JSON object
    DROP CONSTRAINT tools_are_of_one_kind,
    ADD CONSTRAINT tools_are_of_one_kind CHECK (num_nonnulls(webhook_url, mcp_server_id, provider) = 1);
