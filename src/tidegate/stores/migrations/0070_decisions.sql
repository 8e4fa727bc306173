-- The ledger as the basis of decisions.

-- purpose: whom a request was for (user, eval, preview, shadow, load, chaos). more: fields of a receipt
-- without a column of their own. position: the order in which receipts became visible to readers;
-- null for those that were stored before this column was.
ALTER TABLE receipts
    ADD COLUMN purpose text NOT NULL DEFAULT 'user',
    ADD COLUMN more jsonb,
    ADD COLUMN position bigint;
CREATE INDEX receipts_position ON receipts (position);
CREATE INDEX receipts_release ON receipts (release, at);

-- One row. A loader locks it for its whole transaction, so positions become visible in their order.
CREATE TABLE receipt_positions (
    one   boolean PRIMARY KEY DEFAULT true CHECK (one),
    last  bigint NOT NULL
);
INSERT INTO receipt_positions (last) VALUES (0);

-- One row a minute for each (release, route, variant, purpose) of the gateway: scope 'route'; the same
-- for users' requests by journey instead of variant: scope 'journey_route'; and each journey of an
-- app: scope 'journey'. Rows of scope 'route' that were written before have a journey as well, and
-- count in both.
ALTER TABLE rollups
    ADD COLUMN variant text NOT NULL DEFAULT '',
    ADD COLUMN purpose text NOT NULL DEFAULT 'user',
    DROP CONSTRAINT rollups_scope_check,
    ADD CONSTRAINT rollups_scope_check CHECK (scope IN ('route', 'journey_route', 'journey')),
    DROP CONSTRAINT rollups_pkey,
    ADD PRIMARY KEY (scope, minute, release, route, variant, purpose, journey);

ALTER TABLE ledger_totals
    ADD COLUMN purpose text NOT NULL DEFAULT 'user',
    DROP CONSTRAINT ledger_totals_pkey,
    ADD PRIMARY KEY (scope, name, purpose, tally);

CREATE FUNCTION ledger_is_append_only() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$;

-- What a gate found of a release.
CREATE TABLE verdicts (
    id        uuid PRIMARY KEY,
    at        timestamptz NOT NULL,
    release   text NOT NULL CHECK (release <> ''),
    gate      text NOT NULL,
    value     text NOT NULL CHECK (value IN ('PASS', 'FAIL', 'INCONCLUSIVE')),
    reason    text NOT NULL,
    evidence  jsonb NOT NULL,
    actor     jsonb NOT NULL
);
CREATE INDEX verdicts_release ON verdicts (release, at);
CREATE TRIGGER verdicts_stay BEFORE UPDATE OR DELETE ON verdicts
    FOR EACH ROW EXECUTE FUNCTION ledger_is_append_only();
CREATE TRIGGER verdicts_all_stay BEFORE TRUNCATE ON verdicts
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_is_append_only();

-- What was decided about a release: a step, a rollback, a promotion, an approval.
CREATE TABLE decisions (
    id        uuid PRIMARY KEY,
    at        timestamptz NOT NULL,
    release   text NOT NULL CHECK (release <> ''),
    kind      text NOT NULL,
    subject   text NOT NULL,
    sentence  text NOT NULL,
    evidence  jsonb NOT NULL,
    actor     jsonb NOT NULL
);
CREATE INDEX decisions_release ON decisions (release, at);
CREATE TRIGGER decisions_stay BEFORE UPDATE OR DELETE ON decisions
    FOR EACH ROW EXECUTE FUNCTION ledger_is_append_only();
CREATE TRIGGER decisions_all_stay BEFORE TRUNCATE ON decisions
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_is_append_only();
