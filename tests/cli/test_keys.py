"""``tidegate keys`` as a person and as a script uses it: the token once, then never again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.command import run

SPEC = "app: tiny\nmodels: {}\nroutes: {}\n"


@pytest.fixture
def app(app_folder: Path) -> Path:
    (app_folder / "tidegate.yaml").write_text(SPEC)
    return app_folder


def test_create_list_revoke_without_anything_running(app: Path) -> None:
    created = run("keys", "create", str(app), "--name", "web", "--tenant", "acme")
    assert created.returncode == 0, created.stderr
    token = created.stdout.strip()
    assert len(token) == 59
    listed = run("keys", "list", str(app), "--json")
    assert token[16:] not in listed.stdout
    key = json.loads(listed.stdout)["keys"][0]
    assert (key["name"], key["tenant"], key["status"]) == ("web", "acme", "active")
    assert run("keys", "revoke", str(app), "--name", "web").returncode == 0
    again = json.loads(run("keys", "list", str(app), "--json").stdout)["keys"][0]
    assert again["status"] == "revoked"
    logs = (app / ".tidegate" / "log").glob("*")
    assert not any(token[16:] in log.read_text() for log in logs)


def test_an_external_database_needs_no_embedded_one(app: Path, database_url: str) -> None:
    words = ("keys", "create", str(app), "--name", "a", "--expires", "12h", "--json")
    words += ("--priority", "low")
    created = run(*words, database_url=database_url)
    made = json.loads(created.stdout)
    assert made["token"].startswith(f"tg-{made['id']}-")
    assert made["expires_at"] > made["created_at"]
    assert made["priority"] == "low"
    assert not (app / ".tidegate").exists()


@pytest.mark.parametrize(
    ("words", "exit_code", "code"),
    [
        (("create", "APP", "--name", "a", "--expires", "soon"), 2, "expires_invalid"),
        (("create", "APP", "--name", "a", "--expires", "99999999w"), 2, "expires_invalid"),
        (("create", "APP", "--name", "a", "--expires", "0d"), 2, "expires_invalid"),
        (("revoke", "APP"), 2, "key_not_named"),
        (("revoke", "APP", "--key", "nobody"), 1, "key_unknown"),
        (("list", "/nowhere"), 2, "no_app"),
    ],
)
def test_mistakes_have_a_code_and_an_exit_code(
    app: Path, database_url: str, words: tuple[str, ...], exit_code: int, code: str
) -> None:
    words = tuple(str(app) if word == "APP" else word for word in words)
    done = run("keys", *words, "--json", database_url=database_url)
    assert done.returncode == exit_code
    assert json.loads(done.stdout)["error"]["code"] == code


@pytest.mark.parametrize("name", ["", " ", "x" * 65, "a\nb"])
def test_a_name_is_a_word_that_can_be_shown(app: Path, database_url: str, name: str) -> None:
    done = run("keys", "create", str(app), "--name", name, database_url=database_url)
    assert done.returncode == 2
    assert "1 to 64 printable characters" in done.stderr
