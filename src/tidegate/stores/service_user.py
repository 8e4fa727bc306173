"""The user ``pgserver`` that PostgreSQL runs as when we are root, as which it refuses to run.

The user is made once with ``useradd`` (no home, no login) and stays. Beside owning its own data
folder it gets one right: to pass through (``o+x``) the folders above its data and its programs.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
from pathlib import Path

from tidegate.base import StoreError

SERVICE_USER = "pgserver"


def service_user() -> tuple[int, int] | None:
    """(uid, gid) to run PostgreSQL as; None when we are not root and it runs as we do."""
    if os.geteuid() != 0:
        return None
    if (found := _lookup()) is not None:
        return found
    if shutil.which("useradd") is None:
        raise _cannot_make("useradd is not installed")
    command = ["useradd", "--system", "--no-create-home", "--shell", "/bin/false", SERVICE_USER]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    found = _lookup()
    if found is None:  # else another process may have made it first, which is as good
        raise _cannot_make(made.stderr.strip() or f"useradd ended with {made.returncode}")
    return found


def let_pass(path: Path, user: tuple[int, int] | None) -> None:
    """Give everyone the right to pass through the folders above ``path``, where it is missing."""
    if user is None:
        return
    for folder in path.resolve().parents:
        mode = stat.S_IMODE(folder.stat().st_mode)
        if not mode & stat.S_IXOTH and folder.stat().st_uid != user[0]:
            folder.chmod(mode | stat.S_IXOTH)


def _lookup() -> tuple[int, int] | None:
    try:
        entry = pwd.getpwnam(SERVICE_USER)
    except KeyError:
        return None
    return entry.pw_uid, entry.pw_gid


def _cannot_make(why: str) -> StoreError:
    return StoreError(
        "service_user_missing",
        f"PostgreSQL does not run as root, and its user {SERVICE_USER!r} cannot be made: {why}",
        cure=f"run: useradd {SERVICE_USER}; or run tidegate as another user than root; "
        "or set TIDEGATE_DATABASE_URL",
    )
