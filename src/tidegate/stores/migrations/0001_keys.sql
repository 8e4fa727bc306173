-- Gateway keys. A key is stored as the sha256 of the whole token, never as the token.
CREATE TABLE keys (
    id          text PRIMARY KEY,
    name        text NOT NULL,
    tenant      text,
    hash        bytea NOT NULL UNIQUE CHECK (octet_length(hash) = 32),
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz,
    revoked_at  timestamptz,
    version     bigint NOT NULL
);

-- One row. Whoever changes a switch raises it in the same transaction; its row lock puts the
-- changes in one order, so a reader that saw version N has seen every change up to N.
CREATE TABLE switches_version (
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    version  bigint NOT NULL
);
INSERT INTO switches_version (version) VALUES (0);
