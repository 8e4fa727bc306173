"""PostgreSQL and Valkey, embedded under ``.tidegate/`` or given by URL: one code path.

Holds:    the embedded engines as child processes, store settings, migrations and their runner;
          Valkey's client, and what workers share through it: leases, counters of limits.
Not here: what the tables mean (ledger, switches), supervision itself (base).
Reads:    runtime file, environment.   Writes: .tidegate/postgres, .tidegate/run, the schema.
Words:    embedded, external, engine, migration, lease, counter, reservation, settlement, prefetch
"""
