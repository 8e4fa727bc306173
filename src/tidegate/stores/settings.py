"""Which engines are external: the environment, read once into a value."""

from __future__ import annotations

import os
from collections.abc import Mapping

import msgspec

from tidegate.base.errors import StoreError

DATABASE_VARIABLE = "TIDEGATE_DATABASE_URL"
VALKEY_VARIABLE = "TIDEGATE_VALKEY_URL"
_SCHEMES = {
    DATABASE_VARIABLE: ("postgresql://", "postgres://"),
    VALKEY_VARIABLE: ("unix://", "redis://", "rediss://", "valkey://"),
}


class StoreSettings(msgspec.Struct, frozen=True, kw_only=True):
    """URLs of external engines; None: the embedded one is used."""

    database_url: str | None = None
    valkey_url: str | None = None


def read_store_settings(environment: Mapping[str, str] = os.environ) -> StoreSettings:
    """Read ``TIDEGATE_DATABASE_URL`` and ``TIDEGATE_VALKEY_URL``; empty counts as not set.

    StoreError ``store_url_invalid`` when one has a scheme that is not known; the message does not
    repeat the URL, which may hold a password.
    """
    return StoreSettings(
        database_url=_url(environment, DATABASE_VARIABLE),
        valkey_url=_url(environment, VALKEY_VARIABLE),
    )


def _url(environment: Mapping[str, str], variable: str) -> str | None:
    value = environment.get(variable, "").strip()
    if value and not value.startswith(_SCHEMES[variable]):
        raise StoreError(
            "store_url_invalid",
            f"{variable} has a scheme that is not known",
            cure=f"let it start with {' or '.join(_SCHEMES[variable])}, or unset it",
        )
    return value or None
