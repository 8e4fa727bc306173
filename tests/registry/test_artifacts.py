"""The store: one file per hash, fetched once, whole, verified; troubles told in words."""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from tests.registry.file_server import Script
from tests.registry.wheels import hash_of
from tidegate.base.errors import ArtifactError, DiskError, TidegateError, UsageError
from tidegate.registry.artifacts import Store, fetch, locate, open_store
from tidegate.registry.settings import read_settings
from tidegate.release.values import Artifact

DATA = b"weights " * 5000
Left = Callable[[], list[str]]


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "m.gguf").write_bytes(DATA)
    return Artifact(source="file", ref="models/m.gguf", sha256=hash_of(DATA))


def refused(artifact: Artifact, store: Store, app: Path, code: str) -> TidegateError:
    with pytest.raises((ArtifactError, DiskError)) as raised:
        fetch(artifact, store, app=app)
    assert raised.value.code == code
    assert raised.value.cure
    return raised.value


def test_a_file_is_kept_by_its_hash(tmp_path: Path, store: Store, artifact: Artifact) -> None:
    assert locate(artifact, store) is None
    path = fetch(artifact, store, app=tmp_path)
    assert path.read_bytes() == DATA
    assert locate(artifact, store) == path
    (tmp_path / "models" / "m.gguf").write_bytes(b"changed later")
    assert fetch(artifact, store, app=tmp_path).read_bytes() == DATA


def test_a_path_may_be_absolute(tmp_path: Path, store: Store, artifact: Artifact) -> None:
    absolute = msgspec.structs.replace(artifact, ref=str(tmp_path / artifact.ref))
    assert fetch(absolute, store, app=tmp_path / "elsewhere").read_bytes() == DATA


def test_a_missing_file_is_named(tmp_path: Path, store: Store, left: Left) -> None:
    artifact = Artifact(source="file", ref="models/none.gguf", sha256=hash_of(b""))
    error = refused(artifact, store, tmp_path, "artifact_not_found")
    assert str(tmp_path / "models" / "none.gguf") in error.message
    assert left() == []


def test_a_file_that_may_not_be_read_is_named(
    tmp_path: Path, store: Store, artifact: Artifact
) -> None:
    path = tmp_path / artifact.ref
    path.chmod(0)
    with reachable(tmp_path), unprivileged():
        # The store itself is this user's own.
        own = Store(msgspec.structs.replace(store.settings, cache=tmp_path / "open" / "cache"))
        error = refused(artifact, own, tmp_path, "artifact_unreadable")
    assert str(path) in error.message


def test_a_wrong_hash_leaves_nothing(
    tmp_path: Path, store: Store, left: Left, artifact: Artifact
) -> None:
    wrong = msgspec.structs.replace(artifact, sha256="0" * 64)
    error = refused(wrong, store, tmp_path, "artifact_hash_mismatch")
    assert hash_of(DATA) in error.message
    assert left() == []
    assert not list((store.root / "work").iterdir())


def test_a_pin_that_is_no_hash_is_refused(tmp_path: Path, store: Store) -> None:
    refused(Artifact(source="file", ref="x", sha256="../../x"), store, tmp_path, "bad_pin")


def test_a_stored_file_that_was_changed_is_fetched_again(
    tmp_path: Path, store: Store, artifact: Artifact
) -> None:
    path = fetch(artifact, store, app=tmp_path)
    path.chmod(0o644)
    path.write_bytes(DATA[:-1] + b"!")
    assert locate(artifact, store) is None
    assert fetch(artifact, store, app=tmp_path).read_bytes() == DATA


def test_a_stored_file_with_a_new_time_is_verified_and_kept(
    tmp_path: Path, store: Store, artifact: Artifact
) -> None:
    path = fetch(artifact, store, app=tmp_path)
    os.utime(path, (1, 1))
    assert locate(artifact, store) == path


def test_a_full_disk_leaves_nothing(
    tmp_path: Path, store: Store, left: Left, artifact: Artifact
) -> None:
    with file_size_limit(10_000):
        refused(artifact, store, tmp_path, "disk_full")
    assert left() == []
    assert fetch(artifact, store, app=tmp_path).read_bytes() == DATA


def test_a_full_disk_in_a_download_leaves_nothing(
    tmp_path: Path, store: Store, left: Left, server: Script
) -> None:
    artifact = Artifact(source="https", ref=f"{server.url}/m", sha256=hash_of(server.body))
    with file_size_limit(10_000):
        refused(artifact, store, tmp_path, "disk_full")
    assert left() == []


def test_what_cannot_fit_is_not_begun(
    tmp_path: Path,
    store: Store,
    left: Left,
    artifact: Artifact,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
    assert "10 are free" in refused(artifact, store, tmp_path, "disk_full").message
    assert left() == []


def test_a_cache_that_cannot_be_written_is_named(
    tmp_path: Path, store: Store, artifact: Artifact
) -> None:
    store.settings.cache.mkdir(mode=0o555)
    with unprivileged():
        refused(artifact, store, tmp_path, "not_writable")


def test_a_cache_that_can_only_be_read_still_serves(
    tmp_path: Path, store: Store, artifact: Artifact
) -> None:
    path = fetch(artifact, store, app=tmp_path)
    os.utime(path, (1, 1))
    for folder in [store.settings.cache, *store.settings.cache.rglob("*")]:
        if folder.is_dir():
            folder.chmod(0o555)
    try:
        with reachable(tmp_path), unprivileged():
            assert fetch(artifact, store, app=tmp_path) == path
    finally:
        for folder in [store.settings.cache, *store.settings.cache.rglob("*")]:
            if folder.is_dir():
                folder.chmod(0o755)


def test_a_cache_that_is_a_file_is_named(tmp_path: Path, store: Store, artifact: Artifact) -> None:
    store.settings.cache.write_text("")
    refused(artifact, store, tmp_path, "disk_failed")


@pytest.mark.parametrize("source", ["wheel", "https", "hf"])
def test_offline_nothing_is_fetched_and_the_command_is_named(
    tmp_path: Path, store: Store, source: str
) -> None:
    offline = Store(msgspec.structs.replace(store.settings, offline=True))
    artifact = Artifact(source=source, ref="a==1", sha256="0" * 64, member="m")  # type: ignore[arg-type]
    error = refused(artifact, offline, tmp_path, "artifact_offline")
    assert "tidegate models fetch" in error.cure


def test_offline_what_is_there_is_used(tmp_path: Path, store: Store, artifact: Artifact) -> None:
    offline = Store(msgspec.structs.replace(store.settings, offline=True))
    assert fetch(artifact, offline, app=tmp_path).read_bytes() == DATA


def test_settings_come_from_the_environment(tmp_path: Path) -> None:
    settings = read_settings({"TIDEGATE_CACHE": str(tmp_path), "TIDEGATE_OFFLINE": "1"})
    assert (settings.cache, settings.offline) == (tmp_path, True)
    assert open_store({"XDG_CACHE_HOME": "/x"}).root == Path("/x/tidegate/artifacts")
    assert open_store({}).root == Path.home() / ".cache/tidegate/artifacts"
    assert not read_settings({"TIDEGATE_OFFLINE": "0"}).offline
    assert read_settings({"HF_ENDPOINT": "http://h/"}).hf_endpoint == "http://h"
    assert read_settings({"TIDEGATE_MAX_ARTIFACT_GIB": "0.5"}).max_bytes == 1 << 29
    with pytest.raises(UsageError) as raised:
        read_settings({"TIDEGATE_MAX_ARTIFACT_GIB": "many"})
    assert raised.value.code == "bad_environment"


def _fetch_in_child(store: Store, artifact: Artifact) -> None:
    fetch(artifact, store)


def test_processes_that_want_one_file_fetch_it_once(store: Store, server: Script) -> None:
    server.pause = 0.05
    artifact = Artifact(source="https", ref=f"{server.url}/m", sha256=hash_of(server.body))
    context = multiprocessing.get_context("spawn")
    children = [context.Process(target=_fetch_in_child, args=(store, artifact)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    assert len(server.requests) == 1
    assert fetch(artifact, store).read_bytes() == server.body


def test_after_a_kill_9_the_next_process_goes_on(store: Store, server: Script) -> None:
    server.pause = 0.2
    artifact = Artifact(source="https", ref=f"{server.url}/m", sha256=hash_of(server.body))
    child = multiprocessing.get_context("spawn").Process(
        target=_fetch_in_child, args=(store, artifact)
    )
    child.start()
    part = store.root / "work" / artifact.sha256 / "download.part"
    while not (part.exists() and part.stat().st_size > 0):
        assert child.is_alive()
        time.sleep(0.01)
    child.kill()
    child.join(30)
    server.pause = 0.0
    assert fetch(artifact, store).read_bytes() == server.body
    assert server.ranges[0] is None
    assert server.ranges[1] is not None


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Writing beyond ``size`` bytes of a file fails with EFBIG, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def reachable(folder: Path) -> Iterator[None]:
    """``folder`` and those above it may be entered by others meanwhile; in it is ``open``, where
    others may write."""
    closed = [f for f in (folder, *folder.parents) if f.stat().st_mode & 0o005 != 0o005]
    modes = {f: f.stat().st_mode for f in closed}
    (folder / "open").mkdir()
    (folder / "open").chmod(0o777)
    try:
        for each in modes:
            each.chmod(0o755)
        yield
    finally:
        for each, mode in modes.items():
            each.chmod(mode)


@contextmanager
def unprivileged() -> Iterator[None]:
    """As a user whom file modes bind, also where the tests run as root."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(was)
