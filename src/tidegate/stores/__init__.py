"""PostgreSQL and Valkey, embedded under ``.tidegate/`` or given by URL: one code path.

Holds:    the embedded engines as child processes, store settings, migrations and their runner;
          Valkey's client, and what workers share through it: leases, counters of limits.
Not here: what the tables mean (ledger, switches), supervision itself (base).
Reads:    runtime file, environment.   Writes: .tidegate/postgres, .tidegate/run, the schema.
Words:    embedded, external, engine, migration, lease, counter, reservation, settlement, prefetch
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidegate.base import lazy
from tidegate.stores.counters import CounterReservation, Counters, CounterState, read_counters
from tidegate.stores.leases import ENTRY, LEASE, Leases
from tidegate.stores.migrate import Migration, migrate
from tidegate.stores.reservations import (
    ReservationGranted,
    ReservationPart,
    ReservationRefused,
    ReservationTerms,
    Settlement,
)
from tidegate.stores.settings import StoreSettings, read_store_settings
from tidegate.stores.valkey_client import ValkeyClient, ValkeyDown, ValkeyStatistics
from tidegate.stores.windows import (
    KEEP,
    NANO,
    PREFIX,
    Calendar,
    Unit,
    Window,
    counter_stem,
    grain_of,
    limit_stem,
    window_at,
)

if TYPE_CHECKING:
    from tidegate.stores.open import (
        connected,
        database_for,
        embedded_database,
        postgres_lock,
        running,
    )
    from tidegate.stores.postgres import (
        PostgresPlace,
        ensure_database,
        postgres_place,
        postgres_spec,
    )
    from tidegate.stores.valkey import valkey_socket, valkey_spec, valkey_url
else:
    __getattr__ = lazy(
        __name__,
        {
            "open": ("connected", "database_for", "embedded_database", "postgres_lock", "running"),
            "postgres": ("PostgresPlace", "ensure_database", "postgres_place", "postgres_spec"),
            "valkey": ("valkey_socket", "valkey_spec", "valkey_url"),
        },
    )

__all__ = [
    "ENTRY",
    "KEEP",
    "LEASE",
    "NANO",
    "PREFIX",
    "Calendar",
    "CounterReservation",
    "CounterState",
    "Counters",
    "Leases",
    "Migration",
    "PostgresPlace",
    "ReservationGranted",
    "ReservationPart",
    "ReservationRefused",
    "ReservationTerms",
    "Settlement",
    "StoreSettings",
    "Unit",
    "ValkeyClient",
    "ValkeyDown",
    "ValkeyStatistics",
    "Window",
    "connected",
    "counter_stem",
    "database_for",
    "embedded_database",
    "ensure_database",
    "grain_of",
    "limit_stem",
    "migrate",
    "postgres_lock",
    "postgres_place",
    "postgres_spec",
    "read_counters",
    "read_store_settings",
    "running",
    "valkey_socket",
    "valkey_spec",
    "valkey_url",
    "window_at",
]
