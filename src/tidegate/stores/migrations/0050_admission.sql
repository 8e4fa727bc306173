-- Priority of a key's requests in a route's queue: high, normal or low.
ALTER TABLE keys ADD COLUMN priority text NOT NULL DEFAULT 'normal'
    CHECK (priority IN ('high', 'normal', 'low'));

-- Milliseconds that a request waited for a place, and what tightened its length limit.
ALTER TABLE receipts ADD COLUMN queued double precision, ADD COLUMN capped text;
