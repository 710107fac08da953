-- Secrets are sealed with a data key of their account; the data key is wrapped with a key of the ring.

-- An account has one, or several after a key of the ring was lost: the newest that opens seals.
CREATE TABLE data_keys (
    id          text PRIMARY KEY,
    account_id  uuid NOT NULL REFERENCES accounts,
    wrapped     bytea NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX data_keys_by_account ON data_keys (account_id, created_at);

-- Who opened which secret, when and what for; written before the secret is used. It holds no secret.
CREATE TABLE vault_audit (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id  uuid NOT NULL,
    owner       text NOT NULL,                   -- the row: tool:<id>, webhook:<id>
    field       text NOT NULL,
    purpose     text NOT NULL,
    process     uuid NOT NULL,
    at          timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX vault_audit_by_account ON vault_audit (account_id, at);
CREATE INDEX vault_audit_by_time ON vault_audit (at);

-- The id of the key that a ciphertext names (its form, the id's length, the id, …); NULL when it names none.
CREATE FUNCTION sealed_key_v1(sealed bytea) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN length(sealed) > 2 THEN encode(substr(sealed, 3, get_byte(sealed, 1)), 'escape') END;

-- Whether a secret is sealed with a key of the ring itself, as before there were data keys.
CREATE FUNCTION old_form_v1(sealed bytea) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN length(sealed) > 0 THEN get_byte(sealed, 0) = 1 ELSE false END;

-- Rotation finds what is still in the old form without reading whole tables, again and again.
CREATE INDEX tools_in_old_form ON tools (id) WHERE old_form_v1(secret);
CREATE INDEX webhooks_in_old_form ON webhooks (id) WHERE old_form_v1(secret);
