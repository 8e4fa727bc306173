-- How the keys of a secret serve, where somebody said so: a key without a row is active. The key
-- itself is never here, only the first digits of its sha256. A revoked one stays, so that no gateway
-- whose file still has it takes it up again.
CREATE TABLE secret_keys (
    secret       text NOT NULL,
    fingerprint  text NOT NULL,
    state        text NOT NULL CHECK (state IN ('active', 'canary', 'draining', 'revoked')),
    share        double precision NOT NULL DEFAULT 1 CHECK (share > 0 AND share <= 1),
    PRIMARY KEY (secret, fingerprint)
);
