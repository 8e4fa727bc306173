"""Releases on disk: what is put is what is loaded, and damage is named."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import pytest

from tidegate.base.errors import DiskError, ReleaseError
from tidegate.base.hashing import sha256
from tidegate.registry.layout import blob_path, read_index
from tidegate.registry.releases import history, load_release, put, read_file, resolve
from tidegate.release.values import Model, Pinned, Release, Route, Tool

FILES = {"prompts/plan.md": b"Plan for {{ goal }}", "tools/a.json": b"{}", "tools/b.json": b"{}"}


def release_of(files: Mapping[str, bytes] = FILES, app: str = "coach") -> Release:
    pins = {p: Pinned(path=p, sha256=sha256(data), size=len(data)) for p, data in files.items()}
    return Release(
        app=app,
        models={"small": Model(name="small", kind="chat", provider="local", upstream="small")},
        routes={"ask": Route(name="ask", kind="chat", models=("small",), cache_ttl=3600)},
        files=pins,
    )


def put_files(registry: Path, files: Mapping[str, bytes] = FILES, app: str = "coach") -> str:
    return put(registry, release_of(files, app), lambda path: iter([files[path]]))


def code_of(raised: pytest.ExceptionInfo[ReleaseError] | pytest.ExceptionInfo[DiskError]) -> str:
    assert raised.value.cure
    return raised.value.code


def test_what_is_put_is_loaded(tmp_path: Path) -> None:
    digest = put_files(tmp_path)
    assert load_release(tmp_path, digest) == release_of()
    assert read_file(tmp_path, digest, "prompts/plan.md") == FILES["prompts/plan.md"]


def test_the_layout_is_an_oci_image_layout(tmp_path: Path) -> None:
    digest = put_files(tmp_path)
    assert json.loads((tmp_path / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((tmp_path / "index.json").read_bytes())
    assert index["schemaVersion"] == 2
    assert index["mediaType"] == "application/vnd.oci.image.index.v1+json"
    entry = index["manifests"][0]
    assert entry["digest"] == digest
    body = blob_path(tmp_path, digest).read_bytes()
    assert (entry["size"], entry["digest"]) == (len(body), f"sha256:{sha256(body)}")
    assert entry["annotations"] == {"org.opencontainers.image.ref.name": "latest-build"}
    manifest = json.loads(body)
    assert (
        manifest["artifactType"] == entry["artifactType"] == "application/vnd.tidegate.release.v1"
    )
    titles = [x["annotations"]["org.opencontainers.image.title"] for x in manifest["layers"]]
    assert titles == sorted(FILES)
    for blob in [manifest["config"], *manifest["layers"]]:
        data = blob_path(tmp_path, blob["digest"]).read_bytes()
        assert (f"sha256:{sha256(data)}", len(data)) == (blob["digest"], blob["size"])


def test_a_release_without_files_has_the_empty_layer(tmp_path: Path) -> None:
    manifest = json.loads(blob_path(tmp_path, put_files(tmp_path, {})).read_bytes())
    assert [layer["mediaType"] for layer in manifest["layers"]] == [
        "application/vnd.oci.empty.v1+json"
    ]
    assert blob_path(tmp_path, manifest["layers"][0]["digest"]).read_bytes() == b"{}"


def test_order_place_and_umask_do_not_show_in_the_digest(tmp_path: Path) -> None:
    digests = set()
    for seed in range(4):
        names = list(FILES)
        random.Random(seed).shuffle(names)
        before = os.umask(0o077 if seed % 2 else 0o002)
        try:
            files = {name: FILES[name] for name in names}
            digests.add(put_files(tmp_path / str(seed) / "registry", files))
        finally:
            os.umask(before)
    assert len(digests) == 1


def test_integers_and_floats_of_one_value_are_one_release(tmp_path: Path) -> None:
    a = release_of()
    b = msgspec.structs.replace(
        a, routes={"ask": msgspec.structs.replace(a.routes["ask"], cache_ttl=3600.0)}
    )
    read = lambda path: iter([FILES[path]])  # noqa: E731
    assert put(tmp_path / "a", a, read) == put(tmp_path / "b", b, read)


def test_the_order_of_a_schemas_properties_is_kept_and_pinned(tmp_path: Path) -> None:
    def with_parameters(*names: str) -> Release:
        pin = Pinned(path="tools/a.json", sha256=sha256(b"{}"), size=2)
        tool = Tool(
            name="t", file=pin, description="", parameters={"properties": {n: {} for n in names}}
        )
        return Release(app="coach", tools={"t": tool})

    first = put(tmp_path, with_parameters("reasoning", "answer"), lambda _: iter([b"{}"]))
    second = put(tmp_path, with_parameters("answer", "reasoning"), lambda _: iter([b"{}"]))
    assert first != second
    loaded = load_release(tmp_path, first).tools["t"].parameters
    assert list(loaded["properties"]) == ["reasoning", "answer"]


def test_tags_follow_the_builds(tmp_path: Path) -> None:
    one = put_files(tmp_path)
    assert resolve(tmp_path, "latest-build") == one
    assert put_files(tmp_path) == one
    two = put_files(tmp_path, app="other")
    assert (resolve(tmp_path, "latest-build"), resolve(tmp_path, "previous")) == (two, one)
    assert put_files(tmp_path, app="other") == two
    assert resolve(tmp_path, "previous") == one
    put_files(tmp_path, app="third")
    assert resolve(tmp_path, "previous") == two
    assert put_files(tmp_path) == one
    assert len(history(tmp_path)) == 3
    assert history(tmp_path)[-1] == one


def test_digests_may_be_shortened(tmp_path: Path) -> None:
    digest = put_files(tmp_path)
    for text in (digest[:11], digest[7:13], digest, digest[7:].upper()):
        assert resolve(tmp_path, text) == digest
    assert load_release(tmp_path, digest[:15]).app == "coach"


def test_a_short_prefix_of_two_is_refused(tmp_path: Path) -> None:
    import tidegate.registry.releases as releases

    twins = tuple(f"sha256:abcd{n}".ljust(71, "0") for n in range(2))
    entries = tuple(releases.describe("x", b"") for _ in range(2))
    index = [msgspec.structs.replace(e, digest=d) for e, d in zip(entries, twins, strict=True)]
    body = {"schemaVersion": 2, "mediaType": "x", "manifests": msgspec.to_builtins(index)}
    (tmp_path / "index.json").write_text(json.dumps(body))
    with pytest.raises(ReleaseError) as raised:
        resolve(tmp_path, "abcd")
    assert code_of(raised) == "release_ambiguous"
    assert resolve(tmp_path, "abcd1") == twins[1]


@pytest.mark.parametrize("text", ["0000000000", "latest-bild", "sha256:zz", "", "../../etc/passwd"])
def test_an_unknown_release_names_the_nearest(tmp_path: Path, text: str) -> None:
    digest = put_files(tmp_path)
    with pytest.raises(ReleaseError) as raised:
        resolve(tmp_path, text)
    assert code_of(raised) == "release_unknown"
    assert "latest-build" in raised.value.message or digest[7:19] in raised.value.message


def test_before_the_first_build_the_cure_is_to_build(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="nothing was built") as raised:
        load_release(tmp_path, "latest-build")
    assert "tidegate build" in raised.value.cure


def test_a_corrupt_blob_is_named_and_a_new_build_mends_it(tmp_path: Path) -> None:
    digest = put_files(tmp_path)
    manifest = json.loads(blob_path(tmp_path, digest).read_bytes())
    for victim in (manifest["config"]["digest"], digest):
        path = blob_path(tmp_path, victim)
        path.write_bytes(path.read_bytes()[:-1] + b"!")
        with pytest.raises(ReleaseError) as raised:
            load_release(tmp_path, digest)
        assert code_of(raised) == "blob_corrupt"
        assert str(path) in raised.value.message
        assert put_files(tmp_path) == digest
        assert load_release(tmp_path, digest) == release_of()


def test_a_missing_blob_is_named(tmp_path: Path) -> None:
    digest = put_files(tmp_path)
    blob_path(tmp_path, digest).unlink()
    with pytest.raises(ReleaseError) as raised:
        load_release(tmp_path, digest)
    assert code_of(raised) == "blob_missing"


def test_an_index_that_is_no_index_is_named(tmp_path: Path) -> None:
    put_files(tmp_path)
    (tmp_path / "index.json").write_text('{"manifests": 7}')
    with pytest.raises(ReleaseError) as raised:
        resolve(tmp_path, "latest-build")
    assert code_of(raised) == "index_unreadable"


def test_a_release_of_a_later_format_is_refused_in_words(tmp_path: Path) -> None:
    later = msgspec.structs.replace(release_of({}), schema_version=9)
    digest = put(tmp_path, later, lambda _: iter([]))
    with pytest.raises(ReleaseError, match="format 9") as raised:
        load_release(tmp_path, digest)
    assert code_of(raised) == "release_unreadable"


def test_a_file_that_changes_under_the_build_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError) as raised:
        put(tmp_path, release_of(), lambda _: iter([b"something else"]))
    assert code_of(raised) == "content_changed"
    assert not (tmp_path / "index.json").exists()
    assert not list((tmp_path / ".parts").iterdir())


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError) as raised:
        put_files(tmp_path / "file" / "registry")
    assert code_of(raised) == "disk_failed"


def test_a_full_disk_leaves_no_part_and_the_old_index(tmp_path: Path) -> None:
    import resource

    one = put_files(tmp_path)
    big = {"data.bin": b"x" * 300_000}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(DiskError) as raised:
            put_files(tmp_path, big)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code_of(raised) == "disk_full"
    assert history(tmp_path) == (one,)
    assert not list((tmp_path / ".parts").iterdir())
    assert put_files(tmp_path, big) == resolve(tmp_path, "latest-build")


def _build_many(registry: Path, name: str) -> None:
    for n in range(15):
        put_files(registry, {"shared.txt": b"shared", "own.txt": f"{name}{n}".encode()}, name)


def test_builds_at_once_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    builders = [context.Process(target=_build_many, args=(tmp_path, f"app{n}")) for n in range(3)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join(60)
        assert builder.exitcode == 0
    known = history(tmp_path)
    assert len(known) == 45
    assert {load_release(tmp_path, digest).app for digest in known} == {"app0", "app1", "app2"}
    tags = [e for e in read_index(tmp_path).manifests if e.annotations]
    assert len(tags) == 2


def test_large_files_pass_through_in_chunks(tmp_path: Path) -> None:
    """A data set is never whole in memory: its reader is asked chunk by chunk."""
    chunk, count = b"z" * (1 << 16), 64
    whole = chunk * count
    pin = Pinned(path="d.jsonl", sha256=sha256(whole), size=len(whole))
    seen = []

    def read(_: str) -> Iterator[bytes]:
        for n in range(count):
            seen.append(n)
            part = next((tmp_path / ".parts").iterdir())
            assert part.stat().st_size >= (n - 2) * len(chunk)
            yield chunk

    put(tmp_path, Release(app="a", files={"d.jsonl": pin}), read)
    assert len(seen) == count


def test_blobs_are_readable_by_others_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        digest = put_files(tmp_path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(blob_path(tmp_path, digest).stat().st_mode) == 0o644
