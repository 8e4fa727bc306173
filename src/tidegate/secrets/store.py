"""Adding and removing keys in a secret's file; a reader sees the keys before or after, never half.

Only the file ``<state>/secrets/<name>`` is changed: keys in the environment belong to who starts
the process. Comment lines stay where they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tidegate.base import SecretError, file_lock, write_private
from tidegate.secrets.resolve import check_keys, place_of, plain_name, read_keys, variable_of
from tidegate.secrets.values import fingerprint


def add_key(name: str, key: str, state_folder: Path, environment: Mapping[str, str]) -> str:
    """Append ``key`` to the secret ``name``, unless it is there; return its fingerprint.

    Errors: those of ``resolve``, and ``secret_in_environment``.
    """
    plain, path = _file_of(name, state_folder, environment)
    # Two commands at once would else each write what it has read, and one key would be lost.
    with file_lock(_lock(path), wait=10.0):
        lines, keys = read_keys(plain, path)
        (clean,) = _checked(plain, key)
        if clean not in keys:
            _write(path, [*lines, clean])
    return fingerprint(clean)


def remove_key(name: str, mark: str, state_folder: Path, environment: Mapping[str, str]) -> None:
    """Remove the key with the fingerprint ``mark`` from the secret ``name``.

    Errors: those of ``resolve``, ``secret_in_environment``, ``secret_key_unknown``, and
    ``secret_last_key`` (a secret keeps at least one key)."""
    plain, path = _file_of(name, state_folder, environment)
    with file_lock(_lock(path), wait=10.0):
        lines, keys = read_keys(plain, path)
        if mark not in map(fingerprint, keys):
            raise SecretError(
                "secret_key_unknown",
                f"secret {plain} has no key {mark[:16]!r}",
                cure=f"see its keys: tidegate secrets list {plain}",
            )
        if len(keys) == 1:
            raise SecretError(
                "secret_last_key",
                f"{mark} is the only key of secret {plain}",
                cure=f"add its successor first: tidegate secrets add {plain}",
            )
        _write(path, [line for line in lines if fingerprint(line.strip()) != mark])


def _file_of(name: str, state_folder: Path, environment: Mapping[str, str]) -> tuple[str, Path]:
    plain = plain_name(name)
    variable = variable_of(plain)
    if environment.get(variable, "").strip():
        raise SecretError(
            "secret_in_environment",
            f"the keys of secret {plain} come from {variable}, which only a restart can change",
            cure=f"move them to {place_of(plain, state_folder)} and unset {variable}",
        )
    return plain, place_of(plain, state_folder)


def _checked(name: str, key: str) -> tuple[str, ...]:
    keys = check_keys(name, [key], "the input")
    if len(keys) != 1:
        raise SecretError(
            "secret_malformed",
            f"no key was given for secret {name}",
            cure="send one key on standard input, or paste it at the prompt",
        )
    return keys


def _lock(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _write(path: Path, lines: list[str]) -> None:
    write_private(path, ("\n".join(lines) + "\n").encode())
