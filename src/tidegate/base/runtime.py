"""The runtime file: where the running parts of an app listen (``.tidegate/run/runtime.json``).

``tidegate up`` writes it once all parts are ready and removes it when it ends; every other
process of the app reads it instead of guessing. It holds addresses with credentials, so it is
readable by its owner only.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import psutil

from tidegate.base.errors import RuntimeStateError

STATE_FOLDER = ".tidegate"


class PoolAddress(msgspec.Struct, frozen=True, kw_only=True):
    """One local model: its OpenAI-compatible base URL (ends in ``/v1``) and its bearer key."""

    base_url: str
    api_key: str


class Runtime(msgspec.Struct, frozen=True, kw_only=True):
    """What runs in one app folder. URLs carry no trailing slash."""

    app: str
    """Absolute folder that holds ``tidegate.yaml``."""
    state: str
    """Absolute ``.tidegate`` folder."""
    pid: int
    """Process id of ``tidegate up``."""
    release: str
    """Digest of the stable release: ``sha256:<64 hex>``."""
    database_url: str
    valkey_url: str
    """``unix:///path/to.sock`` or ``redis://[:password@]host:port/db``."""
    gateway_url: str
    operator_url: str
    operator_token: str
    """Bearer token of the operator's door."""
    pools: dict[str, PoolAddress] = {}
    """Model name to the address of its pool."""

    @property
    def spool(self) -> Path:
        return Path(self.state) / "spool"

    @property
    def registry(self) -> Path:
        return Path(self.state) / "registry"

    @property
    def run(self) -> Path:
        return Path(self.state) / "run"


def write_private(path: Path, data: bytes) -> None:
    """Replace ``path`` atomically with ``data``, readable by its owner only (mode 0600)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    os.replace(part, path)  # a reader sees the old bytes or the new ones, never a part


def write_runtime(runtime: Runtime) -> None:
    write_private(runtime.run / "runtime.json", msgspec.json.format(msgspec.json.encode(runtime)))


def read_runtime(app: Path) -> Runtime:
    """The runtime of the app in folder ``app``; RuntimeStateError ``not_running`` when none is."""
    path = app / STATE_FOLDER / "run" / "runtime.json"
    try:
        runtime = msgspec.json.decode(path.read_bytes(), type=Runtime)
        if not _alive(runtime.pid, path.stat().st_mtime):
            raise FileNotFoundError
    except FileNotFoundError:
        raise RuntimeStateError(
            "not_running",
            f"nothing runs for the app in {app}",
            cure=f"start it in another terminal: tidegate up {app}",
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RuntimeStateError(
            "runtime_unreadable",
            f"{path} was written by another version of tidegate: {error}",
            cure=f"stop tidegate up, delete {path} and start it again",
        ) from None
    return runtime


def _alive(pid: int, written: float) -> bool:
    """Whether ``pid`` is still the process that wrote the file, not a later one with that id."""
    try:
        # A second of slack: the start of a process is computed from the time of boot, and rounded.
        return psutil.Process(pid).create_time() <= written + 1.0
    except psutil.Error:
        return False
