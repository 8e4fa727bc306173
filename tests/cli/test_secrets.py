"""``tidegate secrets``: a provider's key is exchanged while requests run, and none is lost."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest
from click.testing import CliRunner, Result

from tests.gateway.conftest import ANSWER
from tests.gateway.releases import sample_release
from tests.gateway.test_bad_input import CHAT, USER
from tests.gateway.test_releases import Fleet, fleet
from tidegate.base.errors import TidegateError
from tidegate.cli import secrets, switches
from tidegate.secrets import fingerprint
from tidegate.switches import SecretKey
from tidegate.switches.write import Author, set_secret_key
from tidegate.testing import Lognormal, ModelServer, Script

OLD, NEW = "sk-old-key-0001", "sk-new-key-0002"


@pytest.fixture
def upstream() -> Iterator[ModelServer]:
    with ModelServer(
        answer=ANSWER, first_token=Lognormal(median=0.03, sigma=0.5), inter_token=0.002, keep=5000
    ) as server:
        yield server


@pytest.fixture
def app(
    tmp_path: Path, database_url: str, valkey_url: str, upstream: ModelServer
) -> Iterator[Fleet]:
    release = sample_release(upstream.base_url)
    models = {**release.models}
    models["small"] = msgspec.structs.replace(models["small"], keys="secret:large")
    release = msgspec.structs.replace(release, models=models)
    folder = tmp_path / "app" / ".tidegate" / "secrets"
    folder.mkdir(parents=True)
    (folder / "large").write_text(OLD + "\n")
    (folder / "large").chmod(0o600)
    with fleet(tmp_path, release, database_url, valkey_url, workers=2) as running:
        (tmp_path / "app" / "tidegate.yaml").write_text("app: sample\n")
        yield running


def run(app: Fleet, *words: str, code: int = 0, given: str | None = None) -> Result:
    arguments = [*words, "--app", app.gateway.runtime.app]
    result = CliRunner().invoke(secrets.command, arguments, input=given)
    if isinstance(result.exception, TidegateError):
        raise result.exception
    assert result.exit_code == code, result.output
    assert OLD not in result.output
    assert NEW not in result.output
    return result


def states(app: Fleet) -> dict[str, str]:
    told = json.loads(run(app, "list", "large", "--json").output)
    return {one["key"]: one["state"] for one in told["keys"]}


class Load:
    """Requests from several threads until it is left; every answer counts."""

    def __init__(self, app: Fleet, threads: int = 6) -> None:
        self._app = app
        self.bad: list[str] = []
        self.good = 0
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(threads)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)

    def _ask(self, number: int) -> None:
        with self._app.gateway.client() as client:
            while not self._over.is_set():
                try:
                    body = {"model": "plain", "messages": USER, "stream": number % 2 == 0}
                    answer = client.post(CHAT, json=body)
                    whole = answer.status_code == 200 and (
                        not body["stream"] or answer.text.rstrip().endswith("data: [DONE]")
                    )
                    self.good += whole
                    if not whole:
                        self.bad.append(answer.text[-300:])
                except httpx.HTTPError as error:
                    self.bad.append(repr(error))


def used(upstream: ModelServer) -> set[str | None]:
    return {request.key for request in upstream.requests}


def test_given_load_when_a_key_is_rotated_then_no_request_is_dropped(
    app: Fleet, upstream: ModelServer
) -> None:
    old, new = fingerprint(OLD), fingerprint(NEW)
    with Load(app) as load:
        assert states(app) == {old: "active"}
        told = run(app, "add", "large", "--share", "30%", "--json", given=NEW + "\n")
        assert len(json.loads(told.output)["acknowledged"]) == 2
        assert states(app) == {old: "active", new: "canary"}
        tried = len(upstream.requests)
        while len(upstream.requests) < tried + 120:
            threading.Event().wait(0.05)
        shares = [request.key for request in upstream.requests][-100:]
        assert 5 < shares.count(NEW) < 70
        assert OLD in shares

        run(app, "promote", "large", new)
        assert "drained: nothing runs" in run(app, "drain", "large", old).output
        before = len(upstream.requests)
        run(app, "revoke", "large", old)
        while len(upstream.requests) < before + 60:
            threading.Event().wait(0.05)
        assert {request.key for request in upstream.requests[before:]} == {NEW}
    assert load.bad == []
    assert load.good > 100
    assert states(app) == {new: "active", old: "revoked"}
    kept = app.gateway.state / "secrets" / "large"
    assert kept.read_text() == NEW + "\n"
    receipts = app.gateway.receipts(load.good)
    assert {one.key for receipt in receipts for one in receipt.attempts} == {old, new}
    for text in (app.gateway.log.read_text(), *(str(receipt) for receipt in receipts[:50])):
        assert OLD not in text
        assert NEW not in text


def test_given_a_key_that_the_provider_refuses_when_it_is_a_canary_then_nobody_notices(
    app: Fleet, upstream: ModelServer
) -> None:
    upstream.script = Script.of(f"key={NEW} status=401")
    run(app, "add", "large", "--share", "50%", given=NEW)
    with Load(app, threads=3) as load:
        while load.good < 40 and not load.bad:
            threading.Event().wait(0.05)
    assert load.bad == []
    assert NEW in used(upstream)
    tries = [one for receipt in app.gateway.receipts(load.good) for one in receipt.attempts]
    refused = [one.key for one in tries if one.code == "upstream_key_rejected"]
    # set aside at once: each worker meets the refusal once, or a few times side by side
    assert refused
    assert set(refused) == {fingerprint(NEW)}
    assert len(refused) < 10


SENSELESS: list[tuple[tuple[str, ...], str | None, str]] = [
    (("drain", "large", fingerprint(OLD)), None, "secret_last_key"),
    (("revoke", "large", fingerprint(OLD)), None, "secret_last_key"),
    (("promote", "large", "00000000"), None, "secret_key_unknown"),
    (("add", "large", "--share", "0%"), NEW, "share_invalid"),
    (("add", "large", "--share", "much"), NEW, "share_invalid"),
    (("add", "large"), "two keys", "secret_malformed"),
    (("add", "large"), "", "secret_malformed"),
    (("add", "large"), OLD, "secret_key_known"),
    (("add", "larg"), NEW, "switch_name_unknown"),
    (("add", "../large"), NEW, "secret_name"),
]


def test_what_makes_no_sense_is_refused_and_changes_nothing(app: Fleet) -> None:
    for words, given, code in SENSELESS:
        with pytest.raises(TidegateError) as caught:
            run(app, *words, given=given)
        assert caught.value.code == code
        assert NEW not in str(caught.value)
    assert states(app) == {fingerprint(OLD): "active"}


def test_switches_show_the_keys_that_are_tried_or_drained(app: Fleet) -> None:
    run(app, "add", "large", "--share", "5%", given=NEW)
    shown = CliRunner().invoke(switches.command, [app.gateway.runtime.app])
    assert f"key {fingerprint(NEW)} of secret large: canary for 5%" in shown.output


def test_a_gateway_that_does_not_have_the_key_says_so_and_goes_on(app: Fleet) -> None:
    """As on a second machine, whose disk the command cannot reach."""
    elsewhere = SecretKey(secret="large", fingerprint="deadbeef", state="active")
    with app.connect() as connection:
        told = app.settled(set_secret_key(connection, elsewhere, Author()))
    assert told == "secret large has no key deadbeef here"
    shown = run(app, "list", "large").output
    assert "deadbeef  active, not here" in shown
    with app.gateway.client() as client:
        app.ask(client)
