"""The bearer key of a model server, removed from its environment as soon as it is read."""

from __future__ import annotations

import stat
from collections.abc import MutableMapping
from pathlib import Path

from tidegate.base import PoolError
from tidegate.pools.ports import KEY_VARIABLE


def read_child_key(environment: MutableMapping[str, str], key_file: Path | None) -> str:
    """The key from ``key_file``, else from ``KEY_VARIABLE``, which is then removed.

    Raises PoolError ``pool_key_missing`` or ``pool_key_exposed`` (others may read the file).
    """
    key = environment.pop(KEY_VARIABLE, "")
    if key_file is not None:
        mode = stat.S_IMODE(key_file.stat().st_mode)
        if mode & 0o077:
            raise PoolError(
                "pool_key_exposed",
                f"{key_file} can be read by others (mode {mode:04o})",
                cure=f"chmod 600 {key_file}",
            )
        key = key_file.read_text().strip()
    if not key:
        raise PoolError(
            "pool_key_missing",
            "a model server needs a bearer key",
            cure=f"set {KEY_VARIABLE}, or give --key-file with a file of mode 0600",
        )
    return key
