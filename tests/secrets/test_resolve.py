"""Where keys are looked up, and what is refused without showing them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.base.errors import SecretError
from tidegate.secrets import resolve
from tidegate.secrets.resolve import variable_of


def write(state: Path, name: str, text: bytes, mode: int = 0o600) -> Path:
    path = state / "secrets" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text)
    path.chmod(mode)
    return path


def refused(name: str, state: Path, environment: dict[str, str], code: str) -> SecretError:
    with pytest.raises(SecretError) as raised:
        resolve(name, state, environment)
    assert raised.value.code == code
    assert raised.value.cure
    assert "sk-" not in str(raised.value)
    return raised.value


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("sk-1", ("sk-1",)),
        ("sk-1,sk-2", ("sk-1", "sk-2")),
        (" sk-1 ,\n sk-2\n\n,sk-1", ("sk-1", "sk-2")),
    ],
)
def test_keys_come_from_the_environment(tmp_path: Path, text: str, keys: tuple[str, ...]) -> None:
    assert resolve("secret:large", tmp_path, {"TIDEGATE_SECRET_LARGE": text}).reveal() == keys


def test_the_prefix_may_be_left_out_and_signs_become_underscores(tmp_path: Path) -> None:
    assert variable_of("large-eu.1") == "TIDEGATE_SECRET_LARGE_EU_1"
    secret = resolve("large-eu.1", tmp_path, {"TIDEGATE_SECRET_LARGE_EU_1": "sk-1"})
    assert (secret.name, secret.reveal()) == ("large-eu.1", ("sk-1",))


def test_keys_come_from_a_file_one_a_line(tmp_path: Path) -> None:
    write(tmp_path, "large", b"# of the team\r\nsk-1\r\n\n  sk-2,with-comma  \n")
    assert resolve("large", tmp_path, {}).reveal() == ("sk-1", "sk-2,with-comma")


def test_the_environment_goes_before_the_file_unless_it_is_empty(tmp_path: Path) -> None:
    write(tmp_path, "large", b"sk-file")
    assert resolve("large", tmp_path, {"TIDEGATE_SECRET_LARGE": "sk-env"}).reveal() == ("sk-env",)
    assert resolve("large", tmp_path, {"TIDEGATE_SECRET_LARGE": " "}).reveal() == ("sk-file",)


def test_a_missing_secret_names_both_places(tmp_path: Path) -> None:
    error = refused("secret:large", tmp_path, {}, "secret_missing")
    assert "TIDEGATE_SECRET_LARGE" in error.message
    assert str(tmp_path / "secrets" / "large") in error.message


def test_an_empty_file_is_a_missing_secret(tmp_path: Path) -> None:
    write(tmp_path, "large", b"\n# none\n")
    assert "is empty" in refused("large", tmp_path, {}, "secret_missing").message


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o620, 0o602])
def test_a_file_that_others_may_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    write(tmp_path, "large", b"sk-1", mode)
    assert "chmod 600" in refused("large", tmp_path, {}, "secret_exposed").cure


@pytest.mark.parametrize("text", ["sk-1 sk-2", "sk-\x07", "sk-ключ", "sk-1\rX-Evil: 1"])
def test_a_key_that_cannot_stand_in_a_header_is_refused(tmp_path: Path, text: str) -> None:
    refused("large", tmp_path, {"TIDEGATE_SECRET_LARGE": text}, "secret_malformed")


@pytest.mark.parametrize("name", ["../large", "secret:/etc/passwd", "", "a/b", ".hidden", "a\n"])
def test_a_name_that_is_a_path_is_refused(tmp_path: Path, name: str) -> None:
    refused(name, tmp_path, {}, "secret_name")


def test_what_is_not_a_small_text_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secrets" / "folder").mkdir(parents=True)
    refused("folder", tmp_path, {}, "secret_unreadable")
    os.mkfifo(tmp_path / "secrets" / "pipe", 0o600)
    refused("pipe", tmp_path, {}, "secret_unreadable")
    write(tmp_path, "binary", b"sk-\xff\xfe")
    refused("binary", tmp_path, {}, "secret_unreadable")
    write(tmp_path, "large", b"sk-1\n" * 20_000)
    refused("large", tmp_path, {}, "secret_unreadable")


@settings(max_examples=100)
@given(st.text(min_size=3, max_size=60))
def test_no_text_of_a_key_is_ever_in_a_message_or_repr(text: str) -> None:
    marked = f"sk-{text}"
    try:
        shown = repr(resolve("large", Path("/nonexistent"), {"TIDEGATE_SECRET_LARGE": marked}))
    except SecretError as error:
        shown = str(error)
    assert "sk-" not in shown
