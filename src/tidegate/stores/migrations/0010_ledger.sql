-- The ledger: partitioned by time, so that retention drops partitions and never deletes rows.
-- The loader makes the partitions; it is the only writer of these tables.

CREATE TABLE receipts (
    id uuid NOT NULL,
    at timestamptz NOT NULL,
    kind text NOT NULL,
    status integer NOT NULL,
    outcome text NOT NULL,
    release text,
    route text,
    journey text,
    tenant text,
    key text,
    model text,
    stream boolean NOT NULL,
    code text,
    finish text,
    prompt_tokens bigint,
    completion_tokens bigint,
    cached_tokens bigint,
    reasoning_tokens bigint,
    estimated boolean,
    replayed jsonb,
    cost double precision,
    cache text NOT NULL,
    stages jsonb NOT NULL,
    first_token double precision,
    total double precision NOT NULL,
    attempts jsonb,
    trace text,
    parent text,
    worker integer NOT NULL,
    request_sha bytea,
    response_sha bytea,
    PRIMARY KEY (id, at)
) PARTITION BY RANGE (at);
CREATE INDEX receipts_trace ON receipts (trace) WHERE trace IS NOT NULL;
COMMENT ON TABLE receipts IS 'One row for every request; times in milliseconds, cost in US dollars, null is unknown';

-- Content is stored once a day, however often it was seen; days end together with their content.
CREATE TABLE content (
    sha256 bytea NOT NULL,
    day date NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (sha256, day)
) PARTITION BY RANGE (day);

-- How far each spool file is committed: moves in the transaction that stores its records.
CREATE TABLE spool_progress (
    file text PRIMARY KEY,
    position bigint NOT NULL,
    moved_at timestamptz NOT NULL DEFAULT now()
);

-- One row a minute for each (release, route, journey) of the gateway and each journey of an app.
CREATE TABLE rollups (
    minute timestamptz NOT NULL,
    scope text NOT NULL CHECK (scope IN ('route', 'journey')),
    release text NOT NULL,
    route text NOT NULL,
    journey text NOT NULL,
    count bigint NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (scope, minute, release, route, journey)
) PARTITION BY RANGE (minute);
ALTER TABLE rollups ALTER COLUMN body SET STORAGE EXTERNAL;

-- Sums since the ledger began, for counters that only ever grow.
CREATE TABLE ledger_totals (
    scope text NOT NULL,
    name text NOT NULL,
    tally text NOT NULL,
    value double precision NOT NULL,
    PRIMARY KEY (scope, name, tally)
);

-- By the day of arrival: an app's clock may say anything.
CREATE TABLE spans (
    trace text NOT NULL,
    span text NOT NULL,
    day date NOT NULL,
    seen timestamptz NOT NULL,
    parent text,
    name text NOT NULL,
    service text NOT NULL,
    start_ns bigint NOT NULL,
    end_ns bigint NOT NULL,
    error boolean NOT NULL,
    journey text,
    stage text,
    attributes jsonb NOT NULL,
    PRIMARY KEY (trace, span, day)
) PARTITION BY RANGE (day);

-- Traces whose journey span has arrived and that wait for their stragglers.
CREATE TABLE pending_journeys (
    trace text PRIMARY KEY,
    due timestamptz NOT NULL
);
CREATE INDEX pending_journeys_due ON pending_journeys (due);

CREATE TABLE journeys (
    trace text NOT NULL,
    span text NOT NULL,
    at timestamptz NOT NULL,
    journey text NOT NULL,
    total double precision NOT NULL,
    stages jsonb NOT NULL,
    first_token double precision,
    prompt_tokens bigint NOT NULL,
    completion_tokens bigint NOT NULL,
    cost double precision NOT NULL,
    cost_unknown integer NOT NULL,
    requests integer NOT NULL,
    cache_hits integer NOT NULL,
    cache_asked integer NOT NULL,
    error boolean NOT NULL,
    spans integer NOT NULL,
    late_spans integer NOT NULL DEFAULT 0,
    PRIMARY KEY (trace, span, at)
) PARTITION BY RANGE (at);
COMMENT ON TABLE journeys IS 'One row for each journey of a user; times in milliseconds, cost in US dollars';
