"""Downloads that break off, servers that lie: the pinned bytes come, or nothing does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tests.registry.file_server import Script
from tests.registry.wheels import hash_of, make_zip
from tidegate.base.errors import ArtifactError
from tidegate.registry.artifacts import Store, fetch
from tidegate.registry.sources import https
from tidegate.release.values import Artifact

Left = Callable[[], list[str]]
PART = ["download.json", "download.part"]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def pin(server: Script, **changed: object) -> Artifact:
    artifact = Artifact(source="https", ref=f"{server.url}/m.gguf", sha256=hash_of(server.body))
    return msgspec.structs.replace(artifact, **changed)


def refused(artifact: Artifact, store: Store, code: str) -> ArtifactError:
    with pytest.raises(ArtifactError) as raised:
        fetch(artifact, store)
    assert raised.value.code == code
    assert raised.value.cure
    return raised.value


def test_a_file_comes_whole_with_progress(store: Store, server: Script, left: Left) -> None:
    steps: list[tuple[int, int | None]] = []
    path = fetch(pin(server), store, lambda step, done, total: steps.append((done, total)))
    assert path.read_bytes() == server.body
    assert steps[-1] == (len(server.body), len(server.body))
    assert left() == [path.name, f"{path.name}.stamp"]


def test_a_cut_download_goes_on_by_itself(store: Store, server: Script) -> None:
    server.cut_after = [100_000]
    assert fetch(pin(server), store).read_bytes() == server.body
    assert server.ranges == [None, "bytes=100000-"]


def test_a_later_run_goes_on_where_it_stopped(store: Store, server: Script, left: Left) -> None:
    server.cut_after = [100_000, 50_000]
    error = refused(pin(server), store, "artifact_interrupted")
    assert "150,000" in error.message
    assert left() == PART
    assert fetch(pin(server), store).read_bytes() == server.body
    assert server.ranges == [None, "bytes=100000-", "bytes=150000-"]
    assert not list((store.root / "work").iterdir())


def test_ctrl_c_keeps_what_came(store: Store, server: Script, left: Left) -> None:
    server.pause = 0.01

    def press(step: str, done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(pin(server), store, press)
    assert left() == PART
    server.pause = 0.0
    assert fetch(pin(server), store).read_bytes() == server.body
    assert server.ranges[1] is not None


def test_a_file_that_changed_meanwhile_starts_again(store: Store, server: Script) -> None:
    server.cut_after = [100_000, 0]
    old = server.body
    refused(pin(server), store, "artifact_interrupted")
    server.body, server.etag = old[::-1], '"v2"'
    artifact = pin(server, sha256=hash_of(old))
    assert artifact.sha256 != hash_of(server.body)
    refused(artifact, store, "artifact_hash_mismatch")
    server.body, server.etag = old, '"v3"'
    assert fetch(artifact, store).read_bytes() == old


def test_a_server_without_ranges_starts_again(store: Store, server: Script) -> None:
    server.ranges_work, server.cut_after = False, [100_000]
    assert fetch(pin(server), store).read_bytes() == server.body


@pytest.mark.parametrize("etag", [None, 'W/"weak"', '"v\xe9"'])
def test_without_a_strong_validator_nothing_is_resumed(
    store: Store, server: Script, etag: str | None
) -> None:
    server.etag, server.cut_after = etag, [100_000]
    assert fetch(pin(server), store).read_bytes() == server.body
    assert server.ranges == [None, None]


def test_another_range_than_asked_is_refused(store: Store, server: Script, left: Left) -> None:
    server.cut_after, server.wrong_offset = [100_000], True
    refused(pin(server), store, "artifact_refused")
    assert left() == []


def test_a_file_that_shrank_starts_again(store: Store, server: Script) -> None:
    whole = server.body
    server.cut_after = [100_000, 0]
    refused(pin(server), store, "artifact_interrupted")
    server.body = whole[:50_000]
    artifact = pin(server, sha256=hash_of(whole))
    refused(artifact, store, "artifact_hash_mismatch")


def test_a_wrong_hash_leaves_nothing(store: Store, server: Script, left: Left) -> None:
    refused(pin(server, sha256="0" * 64), store, "artifact_hash_mismatch")
    assert left() == []


def test_a_length_beyond_the_truth_is_an_interruption(store: Store, server: Script) -> None:
    server.extra_length = 1000
    refused(pin(server), store, "artifact_interrupted")


def test_a_length_below_the_truth_fails_the_hash(store: Store, server: Script, left: Left) -> None:
    server.extra_length = -1000
    refused(pin(server), store, "artifact_hash_mismatch")
    assert left() == []


def test_a_length_beyond_the_bound_is_not_fetched(store: Store, server: Script, left: Left) -> None:
    small = Store(msgspec.structs.replace(store.settings, max_bytes=1000))
    refused(pin(server), small, "artifact_too_large")
    assert left() == []


def test_a_body_without_end_is_cut_at_the_bound(store: Store, server: Script, left: Left) -> None:
    server.endless = True
    small = Store(msgspec.structs.replace(store.settings, max_bytes=3_000_000))
    refused(pin(server), small, "artifact_too_large")
    assert left() == []


def test_a_server_that_stalls_is_left(store: Store, server: Script) -> None:
    server.pause = 1.0
    hasty = Store(msgspec.structs.replace(store.settings, idle_timeout=0.1, attempts=1))
    refused(pin(server), hasty, "artifact_interrupted")


def test_a_server_in_trouble_is_asked_again(store: Store, server: Script) -> None:
    server.statuses = [503]
    assert fetch(pin(server), store).read_bytes() == server.body


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (404, "artifact_not_found"),
        (410, "artifact_not_found"),
        (401, "artifact_refused"),
        (403, "artifact_refused"),
        (204, "artifact_refused"),
    ],
)
def test_a_refusal_is_told_at_once(
    store: Store, server: Script, left: Left, status: int, code: str
) -> None:
    server.statuses = [status]
    assert server.url in refused(pin(server), store, code).message
    assert len(server.requests) == 1
    assert left() == []


def test_nobody_there_is_an_interruption(store: Store) -> None:
    artifact = Artifact(source="https", ref="http://127.0.0.1:9/m", sha256="0" * 64)
    refused(artifact, store, "artifact_interrupted")


def test_redirects_on_this_machine_are_followed(store: Store, server: Script) -> None:
    server.redirect = lambda path: "/real" if path == "/m.gguf" else None
    assert fetch(pin(server), store).read_bytes() == server.body
    assert server.requests == ["/m.gguf", "/real"]


def test_a_redirect_to_plain_http_elsewhere_is_refused(
    store: Store, server: Script, left: Left
) -> None:
    server.redirect = lambda path: "http://192.0.2.1/m.gguf"
    refused(pin(server), store, "artifact_insecure")
    assert left() == []


@pytest.mark.parametrize("target", ["http://[", "http://127.0.0.1:99999/", "https://"])
def test_a_redirect_to_no_address_is_refused(
    store: Store, server: Script, left: Left, target: str
) -> None:
    server.redirect = lambda path: target
    refused(pin(server), store, "artifact_insecure")
    assert left() == []


def test_redirects_in_a_circle_end(store: Store, server: Script) -> None:
    server.redirect = lambda path: "/m.gguf"
    refused(pin(server), store, "artifact_refused")
    assert len(server.requests) < 20


@pytest.mark.parametrize(
    "target",
    ["http://example.com/m", "http://127.0.0.1/m", "ftp://example.com/m", "file:///etc/passwd"],
)
def test_https_never_leads_to_anything_else(target: str) -> None:
    with pytest.raises(ArtifactError) as raised:
        https._next("https://example.com/a", target, "https://example.com/a")
    assert raised.value.code == "artifact_insecure"
    assert https._next("https://a.example/x", "/y", "u") == "https://a.example/y"


@pytest.mark.parametrize(
    "ref",
    [
        "http://example.com/m",
        "http://127.0.0.1.example.com/",
        "file:///etc/passwd",
        "m",
        "https://[x",
        "https://h:x/",
    ],
)
def test_only_https_or_this_machine(store: Store, ref: str) -> None:
    artifact = Artifact(source="https", ref=ref, sha256="0" * 64)
    refused(artifact, store, "artifact_insecure")


def test_credentials_in_an_address_are_not_told(store: Store, server: Script) -> None:
    server.statuses = [403]
    ref = server.url.replace("//", "//user:hunter2@") + "/m?token=hunter2"
    error = refused(pin(server, ref=ref), store, "artifact_refused")
    assert "hunter2" not in str(error)


def test_a_member_of_an_archive_by_address(store: Store, server: Script, tmp_path: Path) -> None:
    archive_hash = make_zip(tmp_path / "a.zip", {"x/m.gguf": b"weights"})
    server.body = (tmp_path / "a.zip").read_bytes()
    artifact = pin(server, sha256=hash_of(b"weights"), source_sha256=archive_hash, member="*.gguf")
    assert fetch(artifact, store).read_bytes() == b"weights"


def hub(store: Store, server: Script) -> Store:
    return Store(msgspec.structs.replace(store.settings, hf_endpoint=server.url))


def test_a_file_of_a_hub_repository(store: Store, server: Script) -> None:
    server.redirect = lambda path: "/blob" if path != "/blob" else None
    artifact = Artifact(
        source="hf",
        ref=f"owner/repo@{COMMIT}",
        member="onnx/model q4.onnx",
        sha256=hash_of(server.body),
    )
    assert fetch(artifact, hub(store, server)).read_bytes() == server.body
    assert server.requests[0] == f"/owner/repo/resolve/{COMMIT}/onnx/model%20q4.onnx"


@pytest.mark.parametrize(
    ("ref", "member"),
    [
        ("owner/repo@main", "m"),
        ("owner/repo@0123456", "m"),
        (f"owner@{COMMIT}", "m"),
        (f"o/../x@{COMMIT}", "m"),
        (f"owner/repo@{COMMIT}", None),
        (f"owner/repo@{COMMIT}", "*.gguf"),
        (f"owner/repo@{COMMIT}", "../other"),
    ],
)
def test_only_a_commit_and_one_path_are_a_pin(
    store: Store, server: Script, ref: str, member: str | None
) -> None:
    artifact = Artifact(source="hf", ref=ref, member=member, sha256="0" * 64)
    refused(artifact, hub(store, server), "bad_pin")
    assert server.requests == []
