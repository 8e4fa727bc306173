"""Looking up the keys of a secret: in the environment, then in a file with mode 0600."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from tidegate.base import SecretError
from tidegate.secrets.values import Secret

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_PREFIX = "secret:"
_MOST_BYTES = 64 * 1024


def resolve(name: str, state_folder: Path, environment: Mapping[str, str]) -> Secret:
    """The keys of ``secret:name`` (the prefix may be left out).

    Looked up in ``TIDEGATE_SECRET_<NAME>`` (several keys parted by commas or lines), then in
    ``<state_folder>/secrets/<name>`` (one key a line, ``#`` starts a comment line, mode 0600).
    Errors: secret_name, secret_missing, secret_exposed, secret_unreadable, secret_malformed. No
    message holds any part of a key.
    """
    plain = plain_name(name)
    variable, path = variable_of(plain), place_of(plain, state_folder)
    text = environment.get(variable)
    if text is not None and text.strip():
        return Secret(plain, check_keys(plain, re.split(r"[,\n]", text), f"${variable}"))
    _, keys = read_keys(plain, path)
    if not keys:
        raise SecretError(
            "secret_missing",
            f"secret {plain} has no key: {variable} is not set and {path} "
            + ("is empty" if path.exists() else "does not exist"),
            cure=f"set {variable}, or write the key to {path} and run chmod 600 on it",
        )
    return Secret(plain, keys)


def plain_name(name: str) -> str:
    """The name without its prefix; SecretError ``secret_name`` when it is none."""
    plain = name.removeprefix(_PREFIX)
    if not _NAME.fullmatch(plain):
        raise SecretError(
            "secret_name",
            f"{plain[:80]!r} is not a secret's name",
            cure="name it with letters, digits, _ . or -, and keep keys out of tidegate.yaml",
        )
    return plain


def place_of(plain: str, state_folder: Path) -> Path:
    """Path of a secret's file, whether it exists or not."""
    return state_folder / "secrets" / plain


def read_keys(plain: str, path: Path) -> tuple[list[str], tuple[str, ...]]:
    """(every line, the keys among them) of a secret's file; nothing when there is no file."""
    lines = _read_private(path)
    found = (line for line in lines if not line.lstrip().startswith("#"))
    return lines, check_keys(plain, found, str(path))


def variable_of(name: str) -> str:
    """The environment variable of a secret: ``large-eu`` is in ``TIDEGATE_SECRET_LARGE_EU``."""
    return "TIDEGATE_SECRET_" + re.sub(r"[^A-Za-z0-9]", "_", name).upper()


def _read_private(path: Path) -> list[str]:
    """The lines of a file that only its owner may read; none when there is no file."""
    try:
        # Not blocking: a FIFO in its place must not hold the process.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unreadable(path, str(error.strerror)) from None
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise _unreadable(path, "it is not a plain file")
        if status.st_mode & 0o077:
            raise SecretError(
                "secret_exposed",
                f"{path} is open to others (mode {stat.S_IMODE(status.st_mode):04o})",
                cure=f"run chmod 600 {path}, and renew the key if others use this machine",
            )
        data = os.read(handle, _MOST_BYTES + 1)
    finally:
        os.close(handle)
    if len(data) > _MOST_BYTES:
        raise _unreadable(path, f"it is larger than {_MOST_BYTES >> 10} KiB")
    try:
        return data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise _unreadable(path, "it is not text") from None


def check_keys(name: str, parts: Iterable[str], where: str) -> tuple[str, ...]:
    """The keys in ``parts``, without doubles; each must be able to stand in an HTTP header."""
    keys = tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))
    for number, key in enumerate(keys, 1):
        if not all("!" <= letter <= "~" for letter in key):
            raise SecretError(
                "secret_malformed",
                f"key {number} of secret {name} in {where} holds a space or a letter outside ASCII",
                cure="copy the key again, one key a line, nothing around it",
            )
    return keys


def _unreadable(path: Path, problem: str) -> SecretError:
    return SecretError(
        "secret_unreadable",
        f"{path} cannot be read: {problem}",
        cure="make it a small text file of this user, one key a line, mode 600",
    )
