"""runtime.json is private, replaced at once, and tells who runs no more."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tidegate.base.errors import RuntimeStateError
from tidegate.base.runtime import PoolAddress, Runtime, read_runtime, write_private, write_runtime


def runtime(app: Path, pid: int) -> Runtime:
    return Runtime(
        app=str(app),
        state=str(app / ".tidegate"),
        pid=pid,
        release="sha256:" + "0" * 64,
        database_url="postgresql://localhost/x",
        valkey_url="unix:///x.sock",
        gateway_url="http://127.0.0.1:1",
        operator_url="http://127.0.0.1:2",
        operator_token="secret",
        pools={"small": PoolAddress(base_url="http://127.0.0.1:3/v1", api_key="k")},
    )


def test_what_was_written_is_read(tmp_path: Path) -> None:
    value = runtime(tmp_path, os.getpid())
    write_runtime(value)
    assert read_runtime(tmp_path) == value
    path = value.run / "runtime.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in value.run.iterdir()] == ["runtime.json"]
    assert (value.spool, value.registry) == (
        tmp_path / ".tidegate" / "spool",
        tmp_path / ".tidegate" / "registry",
    )


def test_nothing_runs(tmp_path: Path) -> None:
    with pytest.raises(RuntimeStateError) as caught:
        read_runtime(tmp_path)
    assert caught.value.code == "not_running"


def test_whoever_wrote_it_has_died(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    write_runtime(runtime(tmp_path, child.pid))
    with pytest.raises(RuntimeStateError) as caught:
        read_runtime(tmp_path)
    assert caught.value.code == "not_running"


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b'{"pid": "x"}'])
def test_another_version_wrote_it(tmp_path: Path, content: bytes) -> None:
    path = runtime(tmp_path, 1).run / "runtime.json"
    write_private(path, content)
    with pytest.raises(RuntimeStateError) as caught:
        read_runtime(tmp_path)
    assert caught.value.code == "runtime_unreadable"


def test_fields_of_a_newer_version_are_passed_over(tmp_path: Path) -> None:
    value = msgspec.to_builtins(runtime(tmp_path, os.getpid())) | {"later": 1}
    write_private(tmp_path / ".tidegate/run/runtime.json", msgspec.json.encode(value))
    assert read_runtime(tmp_path).release == value["release"]


def test_a_reader_sees_the_old_or_the_new_and_never_a_part(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_private(path, b"a" * 100_000)
    with path.open("rb") as before:
        write_private(path, b"b" * 50)
        assert before.read() == b"a" * 100_000
    assert path.read_bytes() == b"b" * 50
