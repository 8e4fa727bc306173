"""The same app gives the same digest anywhere; every input that counts changes it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import yaml

from tests.release.apps import FILES, edit, write_app
from tidegate.base.errors import ReleaseError
from tidegate.base.hashing import sha256
from tidegate.cli.build import build_app
from tidegate.registry import load_release, read_file
from tidegate.release.encoding import encode_release
from tidegate.release.files import AppFiles
from tidegate.release.manifest import pack
from tidegate.release.values import Release, Slo, TimeObjective
from tidegate.spec import build_release, load


def built(folder: Path) -> Release:
    return build_app(folder).release


def digest(folder: Path) -> str:
    return build_app(folder).digest


def test_the_digest_is_the_same_in_another_folder_on_another_day(tmp_path: Path) -> None:
    first = digest(write_app(tmp_path / "a"))
    other = write_app(tmp_path / "deep" / "er" / "b", order=-1)
    for path in other.rglob("*"):
        os.utime(path, (1_000_000, 1_000_000))
        path.chmod(0o700)
    (other / "notes.txt").write_text("not part of the release")
    assert digest(other) == first


def test_the_digest_is_the_same_from_another_process(tmp_path: Path) -> None:
    """Another working folder, umask, hash seed, locale, time zone; and the folder by a link."""
    first = digest(write_app(tmp_path / "a"))
    write_app(tmp_path / "b")
    (tmp_path / "link").symlink_to(tmp_path / "b")
    code = (
        "import os, sys; os.umask(0o077); from tidegate.cli.build import build_app;"
        "print(build_app(sys.argv[1]).digest)"
    )
    environment = {
        **os.environ,
        "PYTHONHASHSEED": "7",
        "TZ": "Asia/Tokyo",
        "LC_ALL": "C",
        "USER": "someone",
    }
    for place in ("b", "link", "link/tidegate.yaml"):
        done = subprocess.run(
            [sys.executable, "-c", code, place],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == first


def test_comments_and_the_order_of_keys_do_not_count(tmp_path: Path) -> None:
    folder = write_app(tmp_path)
    first = digest(folder)
    value = yaml.safe_load(FILES["tidegate.yaml"])
    value["routes"]["recommend"] = dict(reversed(value["routes"]["recommend"].items()))
    text = yaml.safe_dump(dict(reversed(value.items())), sort_keys=False)
    (folder / "tidegate.yaml").write_text(f"# another day\n{text}")
    assert digest(folder) == first


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("exact: 1h", "exact: 2h", "tidegate.yaml"),
        ("Be kind.", "Be kind!", "prompts/plan.md"),
        ("Walk", "Run", "templates/plan.md"),
        ("Find workouts", "Find them", "tools/search.json"),
        ('"why": {}, "answer": {}', '"answer": {}, "why": {}', "schemas/plan.json"),
        ('"client_id": 1', '"client_id": 2', "datasets/plans.jsonl"),
        ("a" * 64, "c" * 64, "tidegate.yaml"),
        ("b" * 64, "c" * 64, "tidegate.yaml"),
        ("vendor-2026-05-01", "vendor-2026-06-01", "tidegate.yaml"),
        ("total: {p95: 6s}", "total: {p95: 7s}", "tidegate.yaml"),
        ("margin: 3%", "margin: 4%", "tidegate.yaml"),
        ("cluster: client_id", "cluster: other", "tidegate.yaml"),
        ("beginner, regular", "regular, beginner", "tidegate.yaml"),
        ("cost: 0.002", "cost: 0.003", "tidegate.yaml"),
        ("first_token: 3s", "first_token: 4s", "tidegate.yaml"),
    ],
)
def test_what_counts_changes_the_digest(tmp_path: Path, old: str, new: str, name: str) -> None:
    folder = write_app(tmp_path)
    first = digest(folder)
    edit(folder, old, new, name)
    assert digest(folder) != first
    edit(folder, new, old, name)
    assert digest(folder) == first


def test_what_is_resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LARGE_BASE_URL", "https://elsewhere.example/v1")
    release = built(write_app(tmp_path))
    small, large = release.models["small"], release.models["large"]
    assert (small.upstream, small.artifacts["weights"].ref) == ("small", "tiny==1.0")
    assert small.artifacts["weights"].source_sha256 == "b" * 64
    assert small.pool is not None
    assert (large.base_url, large.keys, large.pool) == ("${LARGE_BASE_URL}", "secret:large", None)
    assert large.price.input is None
    prompt = release.prompts["plan"]
    assert prompt.text == FILES["prompts/plan.md"]
    assert prompt.file.sha256 == sha256(FILES["prompts/plan.md"])
    assert prompt.inputs["level"].choices == ("beginner", "regular")
    route = release.routes["recommend"]
    assert route.models == ("large", "small")
    assert (route.cache_ttl, route.timeouts.first_token, route.kind) == (3600.0, 3.0, "chat")
    assert route.output is not None
    assert list(route.output.json_schema["properties"]) == ["why", "answer"]
    assert release.tools["search"].description == "Find workouts."
    assert release.journeys["get-plan"].slo == Slo(availability=0.995, total=TimeObjective(p95=6.0))
    assert release.datasets["plans"].cluster == "client_id"
    assert set(release.files) == set(FILES) - {"tidegate.yaml"}


def test_what_is_built_is_what_is_loaded(tmp_path: Path) -> None:
    built = build_app(write_app(tmp_path))
    name, release = built.digest, built.release
    registry = tmp_path / ".tidegate" / "registry"
    assert load_release(registry, name) == release
    for path in release.files:
        assert read_file(registry, name, path) == FILES[path].encode()


def test_no_weights_and_no_facts_of_the_host_are_in_it(tmp_path: Path) -> None:
    packed = pack(built(write_app(tmp_path)))
    for word in (str(tmp_path), str(Path.home()), os.uname().nodename, "created"):
        assert word.encode() not in packed.config + packed.manifest


def test_a_build_does_not_change_the_value(tmp_path: Path) -> None:
    release = built(write_app(tmp_path))
    again = msgspec.json.decode(encode_release(release), type=Release)
    assert again == release
    assert pack(again) == pack(release)


def test_a_file_behind_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = write_app(tmp_path / "app")
    loaded = load(folder, {})
    (tmp_path / "private").write_text("hidden")
    (folder / "prompts" / "plan.md").unlink()
    (folder / "prompts" / "plan.md").symlink_to(tmp_path / "private")
    with pytest.raises(ReleaseError) as raised:
        build_release(loaded.spec, AppFiles(folder))
    assert raised.value.code == "file_outside"


@pytest.mark.parametrize(
    ("data", "code"),
    [(None, "file_missing"), (b"\xff\xfe", "file_not_text")],
)
def test_a_file_that_cannot_be_pinned_is_named(
    tmp_path: Path, data: bytes | None, code: str
) -> None:
    folder = write_app(tmp_path)
    loaded = load(folder, {})
    path = folder / "prompts" / "plan.md"
    path.unlink() if data is None else path.write_bytes(data)
    with pytest.raises(ReleaseError) as raised:
        build_release(loaded.spec, AppFiles(folder))
    assert raised.value.code == code
    assert "prompts/plan.md" in raised.value.message


def test_what_was_checked_is_what_is_built(tmp_path: Path) -> None:
    """A prompt that is saved between check and build does not slip in unchecked."""
    folder = write_app(tmp_path)
    loaded = load(folder, {})
    (folder / "prompts" / "plan.md").write_text("{{ undeclared }}")
    release = build_release(loaded.spec, AppFiles(folder, loaded.files))
    assert release.prompts["plan"].text == FILES["prompts/plan.md"]
