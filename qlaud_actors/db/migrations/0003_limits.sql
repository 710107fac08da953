-- What a key may do beside spending, and secrets apart from the keys that they open.

ALTER TABLE keys
    ADD COLUMN rpm integer CHECK (rpm > 0),                        -- requests per minute
    ADD COLUMN tpm bigint CHECK (tpm > 0),                         -- tokens per minute
    ADD COLUMN max_concurrent integer CHECK (max_concurrent > 0),
    ADD COLUMN allowed_models text[],                              -- slugs; NULL is all of them
    ADD COLUMN expires_at timestamptz;

-- A key is who somebody is, a secret is how they show it. The current secret of a key has no end; the one
-- that it replaced works until its end has come.
CREATE TABLE key_secrets (
    hash        bytea PRIMARY KEY,
    key_id      uuid NOT NULL REFERENCES keys,
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz
);
CREATE UNIQUE INDEX key_secrets_current ON key_secrets (key_id) WHERE expires_at IS NULL;
CREATE INDEX key_secrets_replaced ON key_secrets (key_id) WHERE expires_at IS NOT NULL;

INSERT INTO key_secrets (hash, key_id, created_at) SELECT hash, id, created_at FROM keys;
ALTER TABLE keys DROP COLUMN hash;
