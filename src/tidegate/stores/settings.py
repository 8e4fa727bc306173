"""Store settings: the URLs of external engines, read once from the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec
import psycopg
from psycopg.conninfo import conninfo_to_dict

from tidegate.base import StoreError, parse_duration

DATABASE_VARIABLE = "TIDEGATE_DATABASE_URL"
VALKEY_VARIABLE = "TIDEGATE_VALKEY_URL"
PATIENCE_VARIABLE = "TIDEGATE_VALKEY_DEADLINE"
_SCHEMES = {
    DATABASE_VARIABLE: ("postgresql://", "postgres://"),
    VALKEY_VARIABLE: ("unix://", "redis://", "rediss://", "valkey://"),
}


class StoreSettings(msgspec.Struct, frozen=True, kw_only=True):
    """URLs of external engines; None: the embedded one is used."""

    database_url: str | None = None
    valkey_url: str | None = None
    valkey_deadline: float = 0.025
    """Seconds that a request waits for one answer of Valkey before it goes on without."""


def read_store_settings(environment: Mapping[str, str] = os.environ) -> StoreSettings:
    """Read ``TIDEGATE_DATABASE_URL``, ``TIDEGATE_VALKEY_URL`` and ``TIDEGATE_VALKEY_DEADLINE`` (a
    duration, as in 25ms); empty counts as not set.

    Errors: ``store_deadline_invalid``; ``store_url_invalid`` for a scheme that is not known, whose
    message does not repeat the URL, as it may hold a password.
    """
    return StoreSettings(
        database_url=_url(environment, DATABASE_VARIABLE),
        valkey_url=_url(environment, VALKEY_VARIABLE),
        valkey_deadline=_deadline(environment.get(PATIENCE_VARIABLE, "").strip() or "25ms"),
    )


def _deadline(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise StoreError(
            "store_deadline_invalid",
            f"{PATIENCE_VARIABLE}: {error}",
            cure="write a duration such as 25ms, or unset it",
        ) from None


def _url(environment: Mapping[str, str], variable: str) -> str | None:
    value = environment.get(variable, "").strip()
    if value and not value.startswith(_SCHEMES[variable]):
        raise StoreError(
            "store_url_invalid",
            f"{variable} has a scheme that is not known",
            cure=f"let it start with {' or '.join(_SCHEMES[variable])}, or unset it",
        )
    if value and not _readable(value, variable):
        raise StoreError(
            "store_url_invalid",
            f"{variable} cannot be read as a URL",
            cure="write a password's signs other than letters and digits as %XX (a % as %25)",
        )
    return value or None


def _readable(url: str, variable: str) -> bool:
    """Whether the client library can parse ``url``: its own error would repeat parts of it, which
    may be the password."""
    try:
        if variable == DATABASE_VARIABLE:
            conninfo_to_dict(url)
        else:
            _ = urlsplit(url).port
    except (psycopg.Error, ValueError):
        return False
    return True
