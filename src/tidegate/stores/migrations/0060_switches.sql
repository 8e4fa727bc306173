-- What may flip without a release. Whoever changes a row raises switches_version in the same
-- transaction and writes one row of switch_changes with that version.

CREATE TABLE kills (
    kind    text NOT NULL CHECK (kind IN ('route', 'model', 'tool', 'tenant', 'prompts')),
    name    text NOT NULL,                       -- of kind 'prompts': a route, '' for every route
    tokens  bigint CHECK (tokens >= 0),          -- of kind 'prompts': longer ones are refused
    reason  text,
    CHECK ((kind = 'prompts') = (tokens IS NOT NULL)),
    PRIMARY KEY (kind, name)
);

CREATE TABLE caps (
    route          text PRIMARY KEY,             -- '' for every route
    prompt_tokens  bigint CHECK (prompt_tokens >= 1),
    output_tokens  bigint CHECK (output_tokens >= 1),
    surge          text CHECK (surge IN ('on', 'off')),   -- null: by load
    reason         text
);

CREATE TABLE traffic (
    route    text NOT NULL,                      -- '' for every route
    place    integer NOT NULL,                   -- 0 is the stable release
    release  text NOT NULL,
    weight   integer NOT NULL CHECK (weight BETWEEN 0 AND 100),
    PRIMARY KEY (route, place),
    UNIQUE (route, release)
);

-- One flagd document as a whole is in force, or none; older ones stay, for a rollback.
CREATE TABLE flag_documents (
    number    integer PRIMARY KEY,
    body      text NOT NULL,
    hash      text NOT NULL,                     -- how its fractional rules hash a user
    made_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    made_by   text NOT NULL,
    reason    text
);
CREATE TABLE flags_in_force (
    one     boolean PRIMARY KEY DEFAULT true CHECK (one),
    number  integer REFERENCES flag_documents (number)
);
INSERT INTO flags_in_force (number) VALUES (NULL);

CREATE TABLE switch_changes (
    version  bigint PRIMARY KEY,
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    by       text NOT NULL,
    what     text NOT NULL,
    old      jsonb,
    new      jsonb,
    reason   text
);
CREATE FUNCTION switch_changes_stay() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'switch_changes is append-only'; END $$;
CREATE TRIGGER switch_changes_stay BEFORE UPDATE OR DELETE ON switch_changes
    FOR EACH ROW EXECUTE FUNCTION switch_changes_stay();
CREATE TRIGGER switch_changes_all_stay BEFORE TRUNCATE ON switch_changes
    FOR EACH STATEMENT EXECUTE FUNCTION switch_changes_stay();

-- One row for each place of a worker: its successor takes the row over. All times are those of
-- this server, so clocks of hosts do not matter.
CREATE TABLE gateway_workers (
    gateway   text NOT NULL,
    name      text NOT NULL,
    host      text NOT NULL,
    pid       integer NOT NULL,
    started   timestamptz NOT NULL DEFAULT clock_timestamp(),
    beat      timestamptz NOT NULL DEFAULT clock_timestamp(),
    version   bigint,                            -- wholly in force there; null while it starts
    since     timestamptz,                       -- when it wrote that
    error     text,                              -- what of that version it cannot do
    PRIMARY KEY (gateway, name)
) WITH (fillfactor = 50);

ALTER TABLE receipts ADD COLUMN variant text, ADD COLUMN variant_reason text;
