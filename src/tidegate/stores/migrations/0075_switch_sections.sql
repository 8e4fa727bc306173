-- Which version each section of the switches was last changed at, so that a worker reads only what
-- changed since the version that it runs. Written by triggers: no writer can forget it.
CREATE TABLE switch_sections (
    section  text PRIMARY KEY,
    version  bigint NOT NULL
);
CREATE FUNCTION switch_section_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO switch_sections (section, version)
        SELECT TG_ARGV[0], version FROM switches_version
        ON CONFLICT (section) DO UPDATE SET version = excluded.version;
    RETURN NULL;
END $$;

CREATE TRIGGER section AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON kills
    FOR EACH STATEMENT EXECUTE FUNCTION switch_section_changed('kills');
CREATE TRIGGER section AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON caps
    FOR EACH STATEMENT EXECUTE FUNCTION switch_section_changed('caps');
CREATE TRIGGER section AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON traffic
    FOR EACH STATEMENT EXECUTE FUNCTION switch_section_changed('traffic');
CREATE TRIGGER section AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON flags_in_force
    FOR EACH STATEMENT EXECUTE FUNCTION switch_section_changed('flags');
CREATE TRIGGER section AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON secret_keys
    FOR EACH STATEMENT EXECUTE FUNCTION switch_section_changed('secrets');

-- Keys carry the version of their own last change, so single keys are read. A key that is gone
-- carries none: workers of a version before that read all keys again.
CREATE INDEX keys_version ON keys (version);
CREATE TRIGGER section AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON keys
    FOR EACH STATEMENT EXECUTE FUNCTION switch_section_changed('keys');
CREATE TRIGGER gone AFTER DELETE OR TRUNCATE ON keys
    FOR EACH STATEMENT EXECUTE FUNCTION switch_section_changed('keys gone');

-- Whether notifications reach this worker; false: it lives by its polls alone.
ALTER TABLE gateway_workers ADD COLUMN listening boolean NOT NULL DEFAULT true;
