"""``tidegate receipts`` lists, filters and shows one whole; content only when asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.ledger.samples import make_receipt, spool
from tests.ledger.test_loader import load_all
from tidegate.base.errors import UsageError
from tidegate.base.money import Usage
from tidegate.cli.main import root
from tidegate.ledger.receipts import Attempt
from tidegate.ledger.run import connect

SERVED = make_receipt(id="01" * 16, journey="get-plan", first_token=12.5, stream=True)
REFUSED = make_receipt(
    id="02" * 16,
    status=404,
    outcome="refused",
    code="[bold]route_unknown[/nope]\x1b[31m",
    route="x" * 90,
    usage=None,
    cost=None,
    attempts=(),
    cache="off",
)
UNKNOWN = make_receipt(id="03" * 16, cost=None)


@pytest.fixture
def app(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TIDEGATE_DATABASE_URL", database_url)
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "tidegate.yaml").write_text("app: x\n")
    folder = tmp_path / ".tidegate" / "spool"
    spool(
        folder, [SERVED, REFUSED, UNKNOWN], b'{"secret":"prompt"}', b"plain \x1b[2J answer"
    ).close()
    with connect(database_url) as connection:
        assert load_all(folder, connection) == 3
    return tmp_path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(root, ["receipts", *map(str, arguments)])


def test_the_list_is_newest_first_and_bears_any_name(app: Path) -> None:
    for columns in ("80", "140"):
        result = CliRunner(env={"COLUMNS": columns}).invoke(root, ["receipts", str(app)])
        assert result.exit_code == 0, result.output
        assert "\x1b" not in result.output
        lines = result.output.splitlines()
        assert max(map(len, lines)) <= int(columns)
        ids = [line.split()[0] for line in lines[1:]]
        assert ids == [r.id[:16] for r in (UNKNOWN, REFUSED, SERVED)]
        assert "unknown" in lines[1]


def test_what_went_wrong_is_readable_in_80_columns(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """given routes with short names; then their columns leave room for the error codes."""
    monkeypatch.setenv("TIDEGATE_DATABASE_URL", database_url)
    (tmp_path / "tidegate.yaml").write_text("app: x\n")
    folder = tmp_path / ".tidegate" / "spool"
    codes = ("upstream_cut", "upstream_error")
    failed = [make_receipt(status=502, outcome="failed", route="plan", code=c) for c in codes]
    spool(folder, failed).close()
    with connect(database_url) as connection:
        load_all(folder, connection)
    listed = CliRunner(env={"COLUMNS": "80"}).invoke(root, ["receipts", str(tmp_path)]).output
    assert max(map(len, listed.splitlines())) <= 80
    for code in codes:
        assert f" 502 {code} " in listed


def test_filters_and_json_lines(app: Path) -> None:
    result = run(app, "--status", "2xx", "--journey", "get-plan", "--since", "1h", "--json")
    (line,) = result.output.splitlines()
    assert json.loads(line)["id"] == SERVED.id
    assert run(app, "--tenant", "nobody").output.strip() == "No receipts match."


def test_one_is_shown_whole_without_its_content(app: Path) -> None:
    result = run(app, SERVED.id[:31])
    assert result.exit_code == 0, result.output
    for expected in (SERVED.id, "200 served", "get-plan", "12.5ms", "guard", "attempt"):
        assert expected in result.output
    assert "secret" not in result.output
    assert "secret" not in run(app, SERVED.id, "--json").output


def test_what_a_broken_attempt_is_billed_is_shown(app: Path, database_url: str) -> None:
    usage = Usage(prompt=40, completion=3, estimated=True)
    broken = Attempt(
        model="small", ms=9, code="upstream_cut", usage=usage, skipped=2, key="1a2b3c4d", waited=250
    )
    receipt = make_receipt(id="04" * 16, attempts=(broken, Attempt(model="spare", ms=5)))
    folder = app / ".tidegate" / "spool"
    spool(folder, [receipt]).close()
    with connect(database_url) as connection:
        load_all(folder, connection)
    wide = CliRunner(env={"COLUMNS": "160"})
    shown = wide.invoke(root, ["receipts", str(app), receipt.id]).output
    assert "about 40 + 3 tokens, 2 unreadable events passed over" in shown
    (tried,) = [line for line in shown.splitlines() if "1a2b3c4d" in line]
    assert "250ms" in tried


def test_content_is_shown_when_asked_and_cannot_command_the_terminal(app: Path) -> None:
    result = run(app, SERVED.id, "--content")
    assert '"secret": "prompt"' in result.output
    assert "plain" in result.output
    assert "\x1b" not in result.output
    told = json.loads(run(app, SERVED.id, "--content", "--json").output)
    assert told["request"] == '{"secret":"prompt"}'


def test_an_id_alone_means_the_app_here(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(app)
    assert SERVED.id in run(SERVED.id).output
    assert run().exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("ffffffff",), "receipt_unknown"),
        (("zz",), "receipt_id_invalid"),
        (("--status", "9"), "status_invalid"),
        (("--limit", "0"), "limit_invalid"),
        (("--since", "once"), "window_invalid"),
        (("--route", "\x00"), "value_invalid"),
    ],
)
def test_wrong_calls_have_a_code(app: Path, arguments: tuple[str, ...], code: str) -> None:
    result = run(app, *arguments)
    assert isinstance(result.exception, UsageError)
    assert result.exception.code == code
