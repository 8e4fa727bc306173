"""Keys are added and taken out on disk, atomically, and what is refused shows no key."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from tidegate.base.errors import SecretError
from tidegate.secrets import resolve
from tidegate.secrets.store import add_key, fingerprint, remove_key


def keys(state: Path) -> tuple[str, ...]:
    return resolve("large", state, {}).reveal()


def refused(code: str, state: Path, environment: dict[str, str] | None = None, **what: str) -> None:
    change = add_key if "key" in what else remove_key
    (value,) = what.values()
    with pytest.raises(SecretError) as raised:
        change("large", value, state, environment or {})
    assert raised.value.code == code
    assert raised.value.cure
    assert "sk-" not in str(raised.value)


def test_a_key_is_added_once_and_taken_out_by_its_fingerprint(tmp_path: Path) -> None:
    first = add_key("secret:large", "sk-1", tmp_path, {})
    second = add_key("large", " sk-2\n", tmp_path, {})
    assert add_key("large", "sk-1", tmp_path, {}) == first == fingerprint("sk-1")
    assert keys(tmp_path) == ("sk-1", "sk-2")
    path = tmp_path / "secrets" / "large"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    remove_key("large", first, tmp_path, {})
    assert keys(tmp_path) == ("sk-2",)
    assert second == fingerprint("sk-2")


def test_comments_stay(tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "large"
    path.parent.mkdir()
    path.write_text("# bought in May\nsk-1\n\n# spare\nsk-2\n")
    path.chmod(0o600)
    remove_key("large", fingerprint("sk-1"), tmp_path, {})
    assert path.read_text() == "# bought in May\n\n# spare\nsk-2\n"


@pytest.mark.parametrize("key", ["", "  \n", "two words", "sk-\x00", "sk-ü"])
def test_what_is_no_key_is_refused(tmp_path: Path, key: str) -> None:
    refused("secret_malformed", tmp_path, key=key)
    assert not (tmp_path / "secrets" / "large").exists()


def test_the_last_key_stays_and_an_unknown_one_is_said(tmp_path: Path) -> None:
    mark = add_key("large", "sk-1", tmp_path, {})
    refused("secret_last_key", tmp_path, mark=mark)
    refused("secret_key_unknown", tmp_path, mark="00000000")
    assert keys(tmp_path) == ("sk-1",)


def test_a_secret_of_the_environment_is_not_changed_here(tmp_path: Path) -> None:
    refused("secret_in_environment", tmp_path, {"TIDEGATE_SECRET_LARGE": "sk-0"}, key="sk-1")


def test_many_writers_lose_nothing(tmp_path: Path) -> None:
    writers = [
        threading.Thread(target=add_key, args=("large", f"sk-{n}", tmp_path, {})) for n in range(12)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(keys(tmp_path)) == sorted(f"sk-{n}" for n in range(12))
