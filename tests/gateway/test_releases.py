"""Traffic weights and flags on a running gateway: releases come and go while it serves."""

from __future__ import annotations

import collections
import concurrent.futures
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psycopg

from tests.gateway.app import GatewayProcess
from tests.gateway.releases import sample_release
from tests.gateway.test_bad_input import CHAT, USER, eventually
from tests.gateway.test_limits import serving
from tidegate.registry.releases import put
from tidegate.release.values import PinnedFlags, Release, Timeouts, Variant
from tidegate.switches import EVERY, Weight, Worker, list_workers
from tidegate.switches.changes import Change
from tidegate.switches.flags import HASH_FORM, check
from tidegate.switches.traffic_rules import pick, split_of
from tidegate.switches.write import Author, rollback_flags, set_flags, set_traffic
from tidegate.testing import ModelServer

replace = msgspec.structs.replace
ME = Author(by="test")
DOCUMENT = {
    "flags": {
        "plain-model": {
            "state": "ENABLED",
            "variants": {"off": "off", "large": "large"},
            "defaultVariant": "off",
            "targeting": {"fractional": [["off", 50], ["large", 50]]},
        }
    }
}


def flagged(release: Release, document: dict[str, Any] | None = DOCUMENT) -> Release:
    """``release`` whose route ``plain`` asks the spare model where its flag says ``large``."""
    route = replace(
        release.routes["plain"], flag="plain-model", variants={"large": Variant(models=("spare",))}
    )
    pinned = None
    if document is not None:
        text = json.dumps(document)
        file = release.prompts["plan"].file
        pinned = PinnedFlags(file=file, document=text, hash=HASH_FORM)
    return replace(release, routes={**release.routes, "plain": route}, flags=pinned)


def moved(release: Release, base_url: str) -> Release:
    """``release`` whose model ``small`` is served at ``base_url``."""
    small = replace(release.models["small"], base_url=base_url)
    return replace(release, models={**release.models, "small": small})


class Fleet:
    """A gateway, and the switches of its database."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self.gateway = gateway
        self.registry = gateway.state / "registry"

    def build(self, release: Release) -> str:
        return put(self.registry, release, lambda path: iter(()))

    def divide(self, *weights: tuple[str, int], route: str = "plain") -> str | None:
        """Weigh and wait until every worker says so; what it could not do."""
        with self.connect() as connection:
            lines = [Weight(route=route, release=one, weight=share) for one, share in weights]
            return self.settled(set_traffic(connection, route, lines, ME))

    def flags(self, document: dict[str, Any]) -> str | None:
        with self.connect() as connection:
            return self.settled(set_flags(connection, json.dumps(document), HASH_FORM, ME))

    def roll_back(self) -> str | None:
        with self.connect() as connection:
            return self.settled(rollback_flags(connection, None, ME))

    def settled(self, change: Change) -> str | None:
        found: list[Worker] = []

        def heard() -> bool:  # one look: a worker may enter between two
            found[:] = self.workers(change.version)
            return bool(found)

        eventually(heard, timeout=10)
        return next((one.error for one in found if one.error), None)

    def workers(self, version: int) -> tuple[Worker, ...]:
        """The workers that run ``version``; none while one of them does not."""
        with self.connect() as connection:
            found = list_workers(connection)
        return found if all((one.version or -1) >= version for one in found) else ()

    def connect(self) -> psycopg.Connection:
        return psycopg.connect(self.gateway.runtime.database_url, autocommit=True)

    def ask(self, client: httpx.Client, user: str | None = None, **more: Any) -> httpx.Response:
        body: dict[str, Any] = {"model": "plain", "messages": USER, **more}
        if user is not None:
            body["user"] = user
        answer = client.post(CHAT, json=body)
        assert answer.status_code == 200, answer.text
        return answer

    def served_by(self, user: str) -> str:
        with self.gateway.client() as client:
            return str(self.ask(client, user).headers["x-tidegate-release"])

    def running(self) -> dict[str, int]:
        found = httpx.get(f"{self.gateway.url}/ready", timeout=5).json()["releases"]
        return {str(digest): int(count) for digest, count in found.items()}


@contextmanager
def fleet(
    tmp_path: Path, release: Release, database_url: str, valkey_url: str, **more: Any
) -> Iterator[Fleet]:
    with serving(tmp_path / "app", release, database_url, valkey_url, **more) as process:
        made = Fleet(process)
        # One worker is enough to be ready; who counts acknowledgements needs all of them.
        eventually(lambda: len(made.workers(0)) == more.get("workers", 1), timeout=20)
        yield made


def test_weights_move_under_load_and_no_request_fails(
    tmp_path: Path, database_url: str, valkey_url: str
) -> None:
    with ModelServer(answer="stable") as first, ModelServer(answer="candidate") as second:
        release = sample_release(first.base_url)
        with fleet(tmp_path, release, database_url, valkey_url, workers=2) as app:
            own, other = app.gateway.digest, app.build(moved(release, second.base_url))
            with load(app) as answers:
                for share in (10, 50, 100, 30):
                    assert app.divide((own, 100 - share), (other, share)) is None
                    seen = len(answers)
                    eventually(lambda seen=seen: len(answers) > seen + 60, timeout=20)
                assert app.divide() is None
            told = {"stable": own, "candidate": other}
            by = collections.Counter(answers)
            assert all(digest == told[text] for text, digest in answers), by
            assert by["stable", own] > 50
            assert by["candidate", other] > 50
            receipts = app.gateway.receipts(len(answers))
            assert collections.Counter(r.release for r in receipts) == collections.Counter(
                digest for _, digest in answers
            )
            # Let go: the plans are gone, and so are the connections to what only they needed.
            eventually(lambda: app.running() == {own: 0} and not second.open_connections)


@contextmanager
def load(app: Fleet, callers: int = 6) -> Iterator[list[tuple[str, str]]]:
    """Callers that ask all the time, streamed and not; each answer and which release gave it."""
    answers: list[tuple[str, str]] = []
    over = threading.Event()

    def call(stream: bool) -> None:
        with app.gateway.client() as client:
            while not over.is_set():
                answer = app.ask(client, stream=stream)
                if stream:
                    assert answer.text.endswith("data: [DONE]\n\n")
                    text = "stable" if "stable" in answer.text else "candidate"
                else:
                    text = answer.json()["choices"][0]["message"]["content"]
                answers.append((text, answer.headers["x-tidegate-release"]))

    with concurrent.futures.ThreadPoolExecutor(callers) as pool:
        running = [pool.submit(call, number % 2 == 1) for number in range(callers)]
        try:
            yield answers
        finally:
            over.set()
        for one in running:
            one.result()


def test_a_user_keeps_the_release_when_the_candidate_grows(
    tmp_path: Path, database_url: str, valkey_url: str, upstream: ModelServer, spare: ModelServer
) -> None:
    release = sample_release(upstream.base_url)
    with fleet(tmp_path, release, database_url, valkey_url, workers=2) as app:
        own, other = app.gateway.digest, app.build(moved(release, spare.base_url))
        users = [f"user-{number}" for number in range(40)]
        before: set[str] = set()
        for share in (20, 60):
            weights = [(own, 100 - share), (other, share)]
            app.divide(*weights)
            split = split_of([Weight(release=one, weight=w) for one, w in weights])
            served = {user: app.served_by(user) for user in users}
            assert served == {user: pick(split, f"acme/{user}") for user in users}
            moved_over = {user for user in users if served[user] == other}
            assert before < moved_over
            before = moved_over
        # The gateway's own name for a user divides as the API's does, and stays here.
        with app.gateway.client() as client:
            body = {"tidegate": {"user": "user-1"}, "user": "someone else"}
            answer = app.ask(client, **body)
        assert answer.headers["x-tidegate-release"] == app.served_by("user-1")


def test_a_release_is_let_go_when_its_last_answer_has_ended(
    tmp_path: Path, database_url: str, valkey_url: str, upstream: ModelServer
) -> None:
    patient = Timeouts(connect=5, first_token=30, idle=30, total=90)
    release = sample_release(upstream.base_url, timeouts=patient)
    with (
        ModelServer(answer="word " * 40, inter_token=0.25) as slow,
        fleet(tmp_path, release, database_url, valkey_url) as app,
    ):
        own, other = app.gateway.digest, app.build(moved(release, slow.base_url))
        app.divide((own, 0), (other, 100))
        body = {"model": "plain", "messages": USER, "stream": True}
        with app.gateway.client() as client, client.stream("POST", CHAT, json=body) as answer:
            app.divide()
            assert app.served_by("anyone") == own
            assert app.running() == {own: 0, other: 1}
            text = "".join(answer.iter_text())
        assert text.endswith("data: [DONE]\n\n")
        assert answer.headers["x-tidegate-release"] == other
        eventually(lambda: app.running() == {own: 0} and not slow.open_connections)


def test_a_release_that_cannot_be_loaded_is_named_and_its_share_is_served(
    tmp_path: Path, database_url: str, valkey_url: str, upstream: ModelServer
) -> None:
    release = sample_release(upstream.base_url)
    with fleet(tmp_path, release, database_url, valkey_url) as app:
        nowhere = "sha256:" + "5" * 64
        error = app.divide((app.gateway.digest, 50), (nowhere, 50))
        assert error is not None
        assert "cannot be loaded" in error
        assert nowhere[:19] in error
        assert {app.served_by(f"user-{n}") for n in range(20)} == {app.gateway.digest}
        unbound = app.build(moved(release, "${NO_SUCH_URL}"))
        assert "NO_SUCH_URL" in str(app.divide((app.gateway.digest, 50), (unbound, 50)))
        assert {app.served_by(f"user-{n}") for n in range(20)} == {app.gateway.digest}
        assert app.divide() is None


def test_weights_for_every_route_and_a_route_that_only_the_candidate_has(
    tmp_path: Path, database_url: str, valkey_url: str, upstream: ModelServer
) -> None:
    release = sample_release(upstream.base_url)
    fresh = replace(release.routes["plain"], name="fresh")
    routes = {**release.routes, "fresh": fresh}
    del routes["private"]
    with fleet(tmp_path, release, database_url, valkey_url) as app:
        own, other = app.gateway.digest, app.build(replace(release, routes=routes))
        with app.gateway.client() as client:
            assert client.post(CHAT, json={"model": "fresh", "messages": USER}).status_code == 404
            assert app.divide((own, 0), (other, 100), route=EVERY) is None
            served = {
                route: app.ask(client, model=route).headers["x-tidegate-release"]
                for route in ("plain", "fresh", "private")
            }
            assert served == {"plain": other, "fresh": other, "private": own}
            names = {one["id"] for one in client.get("/v1/models").json()["data"]}
            assert {"fresh", "private"} <= names
            assert "has no route private" in str(app.divide((other, 100), route="private"))
            assert app.ask(client, model="private").headers["x-tidegate-release"] == own


def test_flags_divide_users_as_the_core_says_and_they_stick(
    tmp_path: Path, database_url: str, valkey_url: str, upstream: ModelServer, spare: ModelServer
) -> None:
    release = flagged(sample_release(upstream.base_url, spare.base_url))
    with fleet(tmp_path, release, database_url, valkey_url, workers=2) as app:
        flags = check(json.dumps(DOCUMENT))
        users = [f"user-{number}" for number in range(24)]
        with app.gateway.client() as client:
            for _ in range(2):
                for user in users:
                    answer = app.ask(client, user)
                    variant = flags.resolve("plain-model", user, {}).variant
                    assert answer.headers["x-tidegate-variant"] == variant
                    model = "spare" if variant == "large" else "small"
                    assert answer.headers["x-tidegate-model"] == model
        receipts = app.gateway.receipts(48)
        assert {receipt.variant for receipt in receipts} == {"off", "large"}
        assert {receipt.variant_reason for receipt in receipts} == {"TARGETING_MATCH"}


def test_a_flag_set_by_hand_is_in_force_at_once_and_rolled_back(
    tmp_path: Path, database_url: str, valkey_url: str, upstream: ModelServer, spare: ModelServer
) -> None:
    release = flagged(sample_release(upstream.base_url, spare.base_url), None)
    with fleet(tmp_path, release, database_url, valkey_url) as app, app.gateway.client() as client:
        answer = app.ask(client, "u")  # no document at all: as the route says, and told
        assert "x-tidegate-variant" not in answer.headers
        assert app.gateway.receipts(1)[-1].variant_reason == "ERROR"
        flag = DOCUMENT["flags"]["plain-model"]
        only = {"if": [{"==": [{"var": "plan"}, "gold"]}, "large", "off"]}
        assert app.flags({"flags": {"plain-model": {**flag, "targeting": only}}}) is None
        gold = {"tidegate": {"context": {"plan": "gold"}}}
        assert app.ask(client).headers["x-tidegate-variant"] == "off"
        assert app.ask(client, **gold).headers["x-tidegate-variant"] == "large"
        # What a client says of itself never stands above what the gateway knows.
        mine = {"if": [{"==": [{"var": "tenant"}, "acme"]}, "large", "off"]}
        assert app.flags({"flags": {"plain-model": {**flag, "targeting": mine}}}) is None
        lie = {"tidegate": {"context": {"tenant": "other"}}}
        assert app.ask(client, **lie).headers["x-tidegate-variant"] == "large"
        assert app.roll_back() is None
        assert app.ask(client, **gold).headers["x-tidegate-variant"] == "large"
        assert app.ask(client).headers["x-tidegate-variant"] == "off"
        error = app.flags({"flags": {"another": flag}})
        assert "flag plain-model" in str(error)
        assert "x-tidegate-variant" not in app.ask(client).headers


def test_flags_of_another_hash_form_are_not_evaluated(
    tmp_path: Path, database_url: str, valkey_url: str, upstream: ModelServer
) -> None:
    release = flagged(sample_release(upstream.base_url, upstream.base_url))
    with (
        fleet(tmp_path, release, database_url, valkey_url) as app,
        app.connect() as connection,
        app.gateway.client() as client,
    ):
        before = app.ask(client, "user-1").headers["x-tidegate-variant"]
        error = app.settled(set_flags(connection, json.dumps(DOCUMENT), "raw", ME))
        assert "hashed as raw" in str(error)
        assert app.ask(client, "user-1").headers["x-tidegate-variant"] == before
