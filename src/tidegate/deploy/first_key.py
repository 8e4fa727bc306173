"""The first gateway key, ``dev``, and the operator's token, made so that an app runs at once."""

from __future__ import annotations

import secrets
from pathlib import Path

import psycopg

from tidegate.base import write_private
from tidegate.switches import create_key, list_keys

NAME = "dev"


def ensure_first_key(database_url: str, run: Path) -> Path | None:
    """Where the token of the key ``dev`` is kept (mode 0600); None when the app has other keys and
    this folder does not hold it. Its revocation is respected: no new one is made then."""
    path = run / "dev.key"
    with psycopg.connect(database_url, autocommit=True) as connection:
        if not list_keys(connection):
            write_private(path, create_key(connection, name=NAME).token.encode())
    return path if path.is_file() else None


def operator_token(run: Path) -> str:
    """The bearer token of the operator's door: made once, the same over restarts (mode 0600)."""
    path = run / "operator.token"
    try:
        if token := path.read_text().strip():
            return token
    except FileNotFoundError:
        pass
    token = secrets.token_urlsafe(32)
    write_private(path, token.encode())
    return token
