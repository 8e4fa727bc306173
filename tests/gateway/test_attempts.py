"""Real gateways whose models fail: asked again in a budget, left alone, or stood in for."""

from __future__ import annotations

import concurrent.futures
import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import openai
import psycopg
import pytest

from tests.gateway.app import GatewayProcess, own_gateway
from tests.gateway.conftest import ANSWER, SPARE_ANSWER
from tests.gateway.releases import NO_RETRIES, SCHEMA, pinned, sample_release
from tests.gateway.test_bad_input import CHAT, USER
from tests.gateway.test_faults import events, text_of
from tidegate.base.ids import new_id
from tidegate.gateway.plan.budgets import BURST, FLOOR
from tidegate.release.values import (
    Breaker,
    FixedAnswer,
    OutputSchema,
    Release,
    Retries,
    Route,
    Timeouts,
)
from tidegate.secrets import fingerprint
from tidegate.stores.postgres import PostgresPlace
from tidegate.switches import create_key
from tidegate.testing import ModelServer, Script

FIRST, SECOND, SINGLE = "sk-first-0123456789", "sk-second-987654321", "sk-single-5555555"
SECRETS = {"TIDEGATE_SECRET_PAIR": f"{FIRST},{SECOND}", "TIDEGATE_SECRET_SINGLE": SINGLE}
RETRIES = Retries(most=2, backoff=0.02)
SORRY = "We are sorry, please come back later."
LONG = Timeouts(connect=2, first_token=8, idle=8, total=12)
CLOCKS = Timeouts(connect=0.3, first_token=1, idle=1, total=2.5)
SHORT = Timeouts(connect=1, first_token=1.5, idle=5, total=2.5)
OPEN = 2.0
"""Seconds that the breaker of a model which is to recover stays open."""
FOR_GOOD = 60.0
"""Seconds of one that must still be open however long this machine takes to look."""


def fixed(text: str) -> FixedAnswer:
    return FixedAnswer(file=pinned("sorry.txt", text), text=text)


def release_of(upstream: ModelServer, spare: ModelServer, full: str) -> Release:
    release = sample_release(upstream.base_url, spare.base_url, upstream.url, retries=RETRIES)
    breaker = Breaker(minimum=3, window=60, open=FOR_GOOD)

    def like_small(name: str, **changes: Any) -> None:
        small = release.models["small"]
        models[name] = msgspec.structs.replace(small, name=name, upstream=f"mock-{name}", **changes)

    models = dict(release.models)
    like_small("keyed", keys="secret:single")
    like_small("pair", keys="secret:pair")
    like_small("metered", keys="secret:pair")
    like_small("brittle", breaker=breaker)
    like_small("fragile", breaker=breaker)
    like_small("mending", breaker=msgspec.structs.replace(breaker, open=OPEN))
    like_small("toolless", can=("schema",))
    like_small("narrow", context=60)
    like_small("full", base_url=full)
    shape = OutputSchema(file=pinned("s.json", "{}"), json_schema=SCHEMA)
    routes = {
        name: Route(
            name=name,
            kind="chat",
            models=tuple(more.pop("models", ("small",))),
            **{"timeouts": LONG, "retries": NO_RETRIES, **more},
        )
        for name, more in {
            "once": {},
            "again": {"models": ["keyed"], "retries": Retries(backoff=0.02, budget=1.0)},
            "told": {"retries": RETRIES},
            "told-rescued": {"models": ["small", "spare"], "retries": RETRIES},
            "outage": {"retries": Retries(most=10, backoff=0.001, budget=0.2)},
            "unpaid": {"retries": Retries(most=10, backoff=0.001, budget=0.0)},
            "pair": {"models": ["pair"]},
            "metered": {"models": ["metered"]},
            "brittle": {"models": ["brittle"]},
            "mending": {"models": ["mending"]},
            "fragile": {"models": ["fragile", "spare"]},
            "clocks": {"timeouts": CLOCKS, "retries": RETRIES},
            "full": {"models": ["full"], "timeouts": CLOCKS, "retries": RETRIES},
            "all-slow": {"models": ["small", "spare"], "timeouts": SHORT, "retries": RETRIES},
            "tools": {"models": ["toolless", "spare"]},
            "toolless": {"models": ["toolless"]},
            "context": {"models": ["narrow", "spare"]},
            "cached": {"cache_ttl": 60.0},
            "kept": {"stale": 60.0},
            "kept-briefly": {"stale": 60.0, "cache_ttl": 1.0, "template": fixed(SORRY)},
            "sorry": {"models": ["small", "spare"], "template": fixed(SORRY)},
            "shaped-well": {"output": shape, "template": fixed('{"n": 1}')},
            "held-shaped-well": {
                "output": shape,
                "template": fixed('{"n": 1}'),
                "hold": "answer",
            },
            "shaped-ill": {"output": shape, "template": fixed(SORRY)},
        }.items()
    }
    return msgspec.structs.replace(release, models=models, routes={**release.routes, **routes})


@contextmanager
def nobody_accepts() -> Iterator[str]:
    """A server whose queue of connections is full: one more is never made."""
    with socket.socket() as full, ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        yield f"http://127.0.0.1:{full.getsockname()[1]}/v1"


@pytest.fixture(scope="module")
def attempts_gateway(
    tmp_path_factory: pytest.TempPathFactory,
    servers: tuple[ModelServer, ModelServer],
    postgres_server: PostgresPlace,
    valkey_server: Path,
) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("attempts")
    with (
        nobody_accepts() as full,
        own_gateway(
            folder,
            release_of(*servers, full),
            postgres_server,
            valkey_server,
            environment=SECRETS,
        ) as running,
    ):
        yield running


@pytest.fixture
def gateway(
    attempts_gateway: GatewayProcess, upstream: ModelServer, spare: ModelServer, valkey_url: str
) -> GatewayProcess:
    """As ``gateway`` elsewhere, over the release of this module."""
    attempts_gateway.forget()
    return attempts_gateway


def ask(gateway: GatewayProcess, route: str, key: str | None = None, **more: Any) -> httpx.Response:
    headers = {} if key is None else {"idempotency-key": key}
    with gateway.client() as client:
        return client.post(CHAT, json={"model": route, "messages": USER, **more}, headers=headers)


def code(answer: httpx.Response) -> str:
    return str(answer.json()["error"]["code"])


def said(answer: httpx.Response) -> str:
    """The text of an answer, streamed or not."""
    assert answer.status_code == 200, answer.text
    if answer.headers["content-type"].startswith("text/event-stream"):
        assert events(answer)[-1] == "[DONE]"
        return text_of(answer)
    return str(answer.json()["choices"][0]["message"]["content"])


def by(answer: httpx.Response) -> str | None:
    return answer.headers.get("x-tidegate-served-by")


def log_of(gateway: GatewayProcess) -> Path:
    """Where its only worker logs."""
    return gateway.state / "log" / "gateway-1.log"


both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


class TestRetries:
    """Given a model that fails in a way that may pass, it is asked again."""

    @both
    def test_busy_twice_then_well(
        self, gateway: GatewayProcess, upstream: ModelServer, stream: bool
    ) -> None:
        upstream.script = Script.of("first=2 status=503")
        answer = ask(gateway, "again", stream=stream)
        assert said(answer) == ANSWER
        assert by(answer) == "model"
        (receipt,) = gateway.receipts(1)
        assert (receipt.outcome, receipt.served_by, receipt.model) == ("served", "model", "keyed")
        assert [one.status for one in receipt.attempts] == [503, 503, 200]
        assert [one.code for one in receipt.attempts] == ["upstream_error", "upstream_error", None]
        assert {one.key for one in receipt.attempts} == {fingerprint(SINGLE)}
        assert receipt.attempts[0].waited == 0
        assert all(0 < one.waited <= 40 for one in receipt.attempts[1:]), "the backoff"
        assert receipt.cost is not None, "an error is not billed"
        assert SINGLE not in repr(receipt)

    @pytest.mark.parametrize("fault", ["reset", "cut=0", "status=500", "status=408", "loading"])
    @both
    def test_what_may_pass(
        self, gateway: GatewayProcess, upstream: ModelServer, fault: str, stream: bool
    ) -> None:
        upstream.script = Script.of(f"times=1 {fault}")
        assert said(ask(gateway, "again", stream=stream)) == ANSWER

    @pytest.mark.parametrize(
        ("form", "seconds"),
        [
            ("retry_after=1", 1.0),
            ("retry_after=0.4 retry_form=milliseconds", 0.4),
            ("retry_after=1 retry_form=date", 0.9),  # a date has no parts of seconds
        ],
    )
    def test_a_limit_is_waited_for_as_the_provider_says(
        self, gateway: GatewayProcess, upstream: ModelServer, form: str, seconds: float
    ) -> None:
        upstream.script = Script.of(f"times=1 status=429 {form}")
        assert said(ask(gateway, "told")) == ANSWER
        first, second = upstream.requests
        assert second.arrived - first.arrived >= seconds - 0.01, "a clock's grain"
        (receipt,) = gateway.receipts(1)
        assert [one.status for one in receipt.attempts] == [429, 200]
        assert receipt.attempts[1].waited >= seconds * 1000

    def test_a_wait_beyond_the_deadline_is_not_begun(
        self, gateway: GatewayProcess, upstream: ModelServer
    ) -> None:
        upstream.script = Script.of("status=429 retry_after=60")
        answer = ask(gateway, "told")
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "60")
        assert len(upstream.requests) == 1

    def test_a_long_wait_is_not_begun_where_another_model_can_answer(
        self, gateway: GatewayProcess, upstream: ModelServer
    ) -> None:
        upstream.script = Script.of("status=429 retry_after=7")
        answer = ask(gateway, "told-rescued")
        assert (said(answer), by(answer)) == (SPARE_ANSWER, "fallback")
        assert len(upstream.requests) == 1
        (receipt,) = gateway.receipts(1)
        assert receipt.served_by == "fallback"
        assert receipt.attempts[-1].waited == 0, "another model is asked at once"

    def test_another_model_is_asked_once_the_tries_are_used_up(
        self, gateway: GatewayProcess, upstream: ModelServer
    ) -> None:
        upstream.script = Script.of("status=503")
        assert by(ask(gateway, "told-rescued")) == "fallback"
        (receipt,) = gateway.receipts(1)
        assert [one.model for one in receipt.attempts] == ["small", "small", "small", "spare"]
        assert [one.waited > 0 for one in receipt.attempts] == [False, True, True, False]

    def test_without_retries_there_are_none(
        self, gateway: GatewayProcess, upstream: ModelServer
    ) -> None:
        upstream.script = Script.of("status=503")
        assert code(ask(gateway, "once")) == "upstream_error"
        assert len(upstream.requests) == 1

    def test_nor_without_a_budget(self, gateway: GatewayProcess, upstream: ModelServer) -> None:
        upstream.script = Script.of("status=503")
        assert code(ask(gateway, "unpaid")) == "upstream_error"
        assert len(upstream.requests) == 1

    def test_after_content_nothing_is_asked_again(
        self, gateway: GatewayProcess, upstream: ModelServer
    ) -> None:
        upstream.script = Script.of("cut=4")
        answer = ask(gateway, "told", stream=True)
        assert json.loads(events(answer)[-1])["error"]["code"] == "upstream_cut"
        assert len(upstream.requests) == 1

    def test_an_outage_is_not_met_with_a_multiple_of_the_traffic(
        self, gateway: GatewayProcess, upstream: ModelServer
    ) -> None:
        upstream.script = Script.of("status=503")
        started, count = time.monotonic(), 80  # the budget is a rate: more time, more tries
        body = {"model": "outage", "messages": USER}
        with concurrent.futures.ThreadPoolExecutor(8) as pool, gateway.client() as client:
            answers = list(pool.map(lambda _: client.post(CHAT, json=body), range(count)))
        took = time.monotonic() - started
        assert {code(answer) for answer in answers} == {"upstream_error"}
        seen = len(upstream.requests)
        assert count + BURST <= seen <= count * 1.2 + BURST + FLOOR * took
        assert sum(len(receipt.attempts) for receipt in gateway.receipts(count)) == seen

    def test_a_client_that_leaves_while_its_model_is_waited_for(
        self, gateway: GatewayProcess, upstream: ModelServer
    ) -> None:
        upstream.script = Script.of("status=429 retry_after=6")
        body = {"model": "told", "messages": USER}
        with gateway.client() as client, pytest.raises(httpx.ReadTimeout):
            client.post(CHAT, json=body, timeout=0.7)
        (receipt,) = gateway.receipts(1)
        assert (receipt.outcome, receipt.status, receipt.cost) == ("client_gone", 499, 0)
        assert [one.code for one in receipt.attempts] == ["upstream_rate_limited"]
        assert len(upstream.requests) == 1

    def test_embeddings_too(self, gateway: GatewayProcess, upstream: ModelServer) -> None:
        upstream.script = Script.of("first=1 status=503")
        with gateway.client() as client:
            answer = client.post("/v1/embeddings", json={"model": "embed", "input": "again"})
        assert answer.status_code == 200
        assert len(upstream.requests) == 2

    @both
    def test_a_policy_refusal_reaches_one_upstream_and_stays_what_it_is(
        self, gateway: GatewayProcess, upstream: ModelServer, spare: ModelServer, stream: bool
    ) -> None:
        upstream.script = Script.of("content_policy")
        answer = ask(gateway, "told-rescued", stream=stream)
        assert (answer.status_code, code(answer)) == (400, "content_policy_violation")
        assert (len(upstream.requests), len(spare.requests)) == (1, 0)
        assert by(answer) is None


class TestBreaker:
    """Given a model that keeps failing, it is left alone and probed."""

    def test_it_opens(self, gateway: GatewayProcess, upstream: ModelServer) -> None:
        upstream.script = Script.of("status=500")
        assert [code(ask(gateway, "brittle")) for _ in range(3)] == ["upstream_error"] * 3
        answer = ask(gateway, "brittle")
        assert (answer.status_code, code(answer)) == (503, "upstream_breaker_open")
        assert 1 <= int(answer.headers["retry-after"]) <= FOR_GOOD
        assert len(upstream.requests) == 3, "nothing was sent"
        *_, receipt = gateway.receipts(4)
        assert [one.code for one in receipt.attempts] == ["upstream_breaker_open"]
        assert receipt.cost == 0

    def test_it_probes_and_closes(self, gateway: GatewayProcess, upstream: ModelServer) -> None:
        upstream.script = Script.of("status=500")
        assert [code(ask(gateway, "mending")) for _ in range(3)] == ["upstream_error"] * 3
        time.sleep(OPEN + 0.1)
        upstream.reset()
        upstream.script = Script.of("first=1 slow_first_token=1s")
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            probe = pool.submit(ask, gateway, "mending")
            upstream.wait_until(lambda server: len(server.requests) == 1)
            others = list(pool.map(lambda _: ask(gateway, "mending"), range(5)))
            assert said(probe.result()) == ANSWER
        turned_away = [answer for answer in others if answer.status_code == 503]
        assert {code(answer) for answer in turned_away} == {"upstream_breaker_open"}
        assert len(upstream.requests) == 1 + 5 - len(turned_away)
        assert said(ask(gateway, "mending")) == ANSWER, "it is closed again"
        told = log_of(gateway).read_text()
        for words in ("open: 3 of 3 tries failed", "half-open: one probe", "closed: the probe was"):
            assert f"breaker of model mending: {words}" in told

    def test_its_fallback_answers_at_once(
        self, gateway: GatewayProcess, upstream: ModelServer
    ) -> None:
        upstream.script = Script.of("status=500")
        answers = [ask(gateway, "fragile") for _ in range(12)]
        assert {said(answer) for answer in answers} == {SPARE_ANSWER}
        assert {by(answer) for answer in answers} == {"fallback"}
        receipts = gateway.receipts(12)
        assert any(one.attempts[0].code == "upstream_breaker_open" for one in receipts)
        sent = [one for one in receipts if one.attempts[0].code == "upstream_error"]
        assert len(upstream.requests) == len(sent) < 12
        assert all(one.cost is not None and one.cost > 0 for one in receipts), (
            "not sent, not billed"
        )


class TestKeys:
    """Given two keys, one that is refused costs no request, and nobody is told a key."""

    def nowhere(self, gateway: GatewayProcess, answers: list[httpx.Response]) -> None:
        told = "".join(f"{answer.headers} {answer.text}" for answer in answers)
        told += repr(gateway.receipts(len(answers)))
        files = [path for path in gateway.state.rglob("*") if path.is_file()]
        assert log_of(gateway) in files
        for key in (FIRST, SECOND, SINGLE):
            assert key not in told
            assert not [path for path in files if key.encode() in path.read_bytes()]

    @pytest.mark.parametrize(
        ("route", "fault", "known"),
        [
            ("pair", "key_revoked", "upstream_key_rejected"),
            ("metered", "quota", "upstream_rate_limited"),
        ],
    )
    def test_the_other_key_answers(
        self, gateway: GatewayProcess, upstream: ModelServer, route: str, fault: str, known: str
    ) -> None:
        upstream.script = Script.of(f"key={FIRST} {fault}")
        answers = [ask(gateway, route, stream=number % 2 == 1) for number in range(8)]
        assert {said(answer) for answer in answers} == {ANSWER}
        assert {by(answer) for answer in answers} == {"model"}
        assert [request.key for request in upstream.requests] == [FIRST, *[SECOND] * 8]
        first, *later = gateway.receipts(8)
        assert [(one.code, one.key) for one in first.attempts] == [
            (known, fingerprint(FIRST)),
            (None, fingerprint(SECOND)),
        ]
        assert all(len(receipt.attempts) == 1 for receipt in later)
        assert first.cost is not None
        assert f"key {fingerprint(FIRST)} of model {route}" in log_of(gateway).read_text()
        self.nowhere(gateway, answers)

    def test_a_refused_single_key_is_not_quoted(
        self, gateway: GatewayProcess, upstream: ModelServer
    ) -> None:
        upstream.script = Script.of("key_revoked")
        answer = ask(gateway, "again")
        assert (answer.status_code, code(answer)) == (502, "upstream_key_rejected")
        assert len(upstream.requests) == 1, "it is not asked again with the key that it refused"
        self.nowhere(gateway, [answer])


class TestClocks:
    """Given a model that is slow, each of the route's clocks ends it with its own code.

    No time is measured here: each fault ends by itself, or meets the next clock, later than the
    clock that is to end it, and would then have another code.
    """

    @pytest.mark.parametrize(
        ("route", "stream", "fault", "known", "tries"),
        [
            ("full", True, "status=500", "upstream_connect_timeout", 0),
            ("full", False, "status=500", "upstream_connect_timeout", 0),
            ("clocks", True, "hang", "upstream_first_token_timeout", 1),
            ("clocks", True, "silence", "upstream_first_token_timeout", 1),
            ("clocks", False, "hang=8s", "upstream_total_timeout", 1),
            ("clocks", True, "stall=3", "upstream_idle_timeout", 1),
            ("clocks", True, "slow_tokens=400ms", "upstream_total_timeout", 1),
        ],
    )
    def test_each(
        self,
        gateway: GatewayProcess,
        upstream: ModelServer,
        route: str,
        stream: bool,
        fault: str,
        known: str,
        tries: int,
    ) -> None:
        upstream.script = Script.of(fault)
        answer = ask(gateway, route, stream=stream)
        if answer.status_code == 200:
            assert json.loads(events(answer)[-1])["error"]["code"] == known
        else:
            assert (answer.status_code, code(answer)) == (504, known)
        (receipt,) = gateway.receipts(1)
        assert receipt.code == known
        assert len(upstream.requests) == tries

    @both
    def test_all_tries_share_the_one_deadline_of_the_request(
        self, gateway: GatewayProcess, upstream: ModelServer, spare: ModelServer, stream: bool
    ) -> None:
        """The second model has what the first has left: with a whole clock of its own it would
        answer."""
        upstream.script = Script.of("hang")
        spare.script = Script.of("slow_first_token=1.4s")
        answer = ask(gateway, "all-slow", stream=stream)
        assert answer.status_code == 504
        (receipt,) = gateway.receipts(1)
        first = "upstream_first_token_timeout" if stream else "upstream_answer_timeout"
        assert [one.code for one in receipt.attempts] == [first, "upstream_total_timeout"]
        assert code(answer) == first, "what went wrong first is told"
        for server in (upstream, spare):
            server.wait_until(lambda one: one.requests[0].client_closed is not None)

    def test_waits_between_tries_count_too(
        self, gateway: GatewayProcess, upstream: ModelServer
    ) -> None:
        """A model that asks to wait for most of the time leaves the rest of it and no more: with
        all of it the second try would have its answer."""
        upstream.script = Script.of("times=1 status=503 retry_after=1", "slow_first_token=2s")
        answer = ask(gateway, "clocks", stream=False)
        assert (answer.status_code, code(answer)) == (502, "upstream_error")
        (receipt,) = gateway.receipts(1)
        tries = [one.code for one in receipt.attempts]
        assert tries == ["upstream_error", "upstream_total_timeout"]
        assert receipt.attempts[1].waited >= 1000


class TestStandIns:
    """Given that no model answers, a kept answer does, or fixed text; each says what it is."""

    @both
    def test_a_kept_answer(
        self, gateway: GatewayProcess, upstream: ModelServer, stream: bool
    ) -> None:
        well = ask(gateway, "kept", stream=stream)
        assert by(well) == "model"
        assert "age" not in well.headers
        upstream.script = Script.of("status=503")
        answer = ask(gateway, "kept", stream=stream)
        assert (said(answer), by(answer)) == (ANSWER, "stale")
        assert answer.content == well.content
        assert 0 <= int(answer.headers["age"]) < 60
        other = ask(gateway, "kept", stream=stream, messages=[{"role": "user", "content": "else"}])
        assert (other.status_code, code(other)) == (502, "upstream_error")
        upstream.script = Script()
        assert by(ask(gateway, "kept", stream=stream)) == "model", "it is no cache"
        first, stale, failed, _ = gateway.receipts(4)
        assert (stale.served_by, stale.outcome, stale.model) == ("stale", "served", "small")
        assert (stale.cost, stale.usage, stale.replayed) == (0, None, first.usage)
        assert [one.status for one in stale.attempts] == [503]
        assert (failed.served_by, failed.outcome) == (None, "failed")

    def test_it_outlives_the_cache_and_comes_before_the_text(
        self, gateway: GatewayProcess, upstream: ModelServer
    ) -> None:
        ask(gateway, "kept-briefly")
        time.sleep(1.2)
        upstream.script = Script.of("status=503")
        assert by(ask(gateway, "kept-briefly")) == "stale"
        other = [{"role": "user", "content": "not asked before"}]
        answer = ask(gateway, "kept-briefly", messages=other)
        assert (said(answer), by(answer)) == (SORRY, "template")

    def test_a_kept_answer_is_its_tenant_s_own(
        self, gateway: GatewayProcess, upstream: ModelServer
    ) -> None:
        with psycopg.connect(gateway.runtime.database_url) as connection:
            other = create_key(connection, name="other", tenant="umbrella").token
        assert by(ask(gateway, "kept")) == "model"
        upstream.script = Script.of("status=503")

        def asked(token: str) -> httpx.Response:
            headers = {"authorization": f"Bearer {token}"}
            body = {"model": "kept", "messages": USER}
            return httpx.post(gateway.url + CHAT, json=body, headers=headers, timeout=20)

        deadline = time.monotonic() + 10  # the key is known once the next snapshot came
        while (answer := asked(other)).status_code == 401 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert (answer.status_code, code(answer)) == (502, "upstream_error")
        assert by(asked(gateway.key)) == "stale"

    @pytest.mark.parametrize("fault", ["status=503", "status=429", "key_revoked", "reset"])
    @both
    def test_fixed_text(
        self,
        gateway: GatewayProcess,
        upstream: ModelServer,
        spare: ModelServer,
        fault: str,
        stream: bool,
    ) -> None:
        upstream.script = spare.script = Script.of(fault)
        answer = ask(gateway, "sorry", stream=stream)
        assert (said(answer), by(answer)) == (SORRY, "template")
        assert answer.headers["x-tidegate-model"] == "template"
        (receipt,) = gateway.receipts(1)
        assert (receipt.served_by, receipt.outcome, receipt.status) == ("template", "served", 200)
        assert receipt.cost == (None if fault == "reset" else 0), "what broke off may be billed"
        assert [one.model for one in receipt.attempts] == ["small", "spare"]
        assert bool(spare.requests)

    def test_fixed_text_for_the_official_package(
        self, gateway: GatewayProcess, upstream: ModelServer, spare: ModelServer
    ) -> None:
        upstream.script = spare.script = Script.of("status=503")
        with openai.OpenAI(
            base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0
        ) as client:
            whole = client.chat.completions.create(model="sorry", messages=USER)
            assert whole.choices[0].message.content == SORRY
            assert whole.choices[0].finish_reason == "stop"
            assert whole.usage is not None
            assert whole.usage.total_tokens == 0
            chunks = list(
                client.chat.completions.create(
                    model="sorry",
                    messages=USER,
                    stream=True,
                    stream_options={"include_usage": True},
                )
            )
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == SORRY
        assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.total_tokens == 0

    @pytest.mark.parametrize(
        ("fault", "known"),
        [
            ("content_policy", "content_policy_violation"),
            ("status=400 code=invalid_type", "invalid_type"),
            ("context_length", "context_length_exceeded"),
        ],
    )
    def test_what_was_refused_stays_refused(
        self,
        gateway: GatewayProcess,
        upstream: ModelServer,
        spare: ModelServer,
        fault: str,
        known: str,
    ) -> None:
        assert by(ask(gateway, "kept-briefly", seed=1)) == "model"
        time.sleep(1.2)
        upstream.script = spare.script = Script.of(fault)
        for route in ("sorry", "kept-briefly"):
            answer = ask(gateway, route, seed=1)
            assert (answer.status_code, code(answer)) == (400, known)
            assert by(answer) is None

    def test_what_the_client_did_wrong_is_told(self, gateway: GatewayProcess) -> None:
        assert ask(gateway, "sorry", messages=[]).status_code == 400
        assert ask(gateway, "sorry", messages="hi").status_code == 400

    def test_a_text_that_breaks_the_schema_is_no_answer(
        self, gateway: GatewayProcess, upstream: ModelServer
    ) -> None:
        upstream.script = Script.of("status=503")
        assert said(ask(gateway, "shaped-well")) == '{"n": 1}'
        assert code(ask(gateway, "shaped-ill")) == "upstream_error"

    @both
    def test_an_answer_that_breaks_the_schema_is_billed_though_a_text_stands_in(
        self, gateway: GatewayProcess, stream: bool
    ) -> None:
        answer = ask(gateway, "held-shaped-well", stream=stream)
        assert (said(answer), by(answer)) == ('{"n": 1}', "template")
        (receipt,) = gateway.receipts(1)
        (failed,) = receipt.attempts
        assert (failed.model, failed.status, failed.code) == ("small", 200, "output_invalid")
        assert failed.usage is not None
        price = failed.usage.prompt * 1.0 + failed.usage.completion * 2.0
        assert receipt.cost == pytest.approx(price / 1_000_000)
        assert receipt.usage is None, "the text cost nothing"
        assert receipt.stages["call"] >= failed.ms - 0.1, "not what came after it"

    def test_what_the_guard_refused_served_nobody(self, gateway: GatewayProcess) -> None:
        answer = ask(gateway, "shaped-ill")
        assert (answer.status_code, code(answer), by(answer)) == (502, "output_invalid", None)
        (receipt,) = gateway.receipts(1)
        assert (receipt.served_by, receipt.model) == (None, "small")
        assert receipt.cost

    @pytest.mark.parametrize("route", ["kept", "sorry"])
    @both
    def test_a_stand_in_is_not_kept_under_an_idempotency_key(
        self,
        gateway: GatewayProcess,
        upstream: ModelServer,
        spare: ModelServer,
        route: str,
        stream: bool,
    ) -> None:
        ask(gateway, route, stream=stream)
        upstream.script = spare.script = Script.of("status=503")
        key = new_id()
        for _ in range(2):
            answer = ask(gateway, route, key, stream=stream)
            assert by(answer) in ("stale", "template")
            assert "idempotent-replayed" not in answer.headers
        upstream.script = spare.script = Script()
        well = ask(gateway, route, key, stream=stream)
        assert (said(well), by(well)) == (ANSWER, "model")
        again = ask(gateway, route, key, stream=stream)
        assert again.headers["idempotent-replayed"] == "true"
        assert by(again) == "cache"


class TestWhoCan:
    """Given models that say what they can, one that cannot is passed over, and asked nothing."""

    TOOL = {"type": "function", "function": {"name": "search", "parameters": {"type": "object"}}}

    @both
    def test_tools(self, gateway: GatewayProcess, upstream: ModelServer, stream: bool) -> None:
        assert by(ask(gateway, "tools", stream=stream)) == "model"
        answer = ask(gateway, "tools", stream=stream, tools=[self.TOOL])
        assert (said(answer), by(answer)) == (SPARE_ANSWER, "fallback")
        assert len(upstream.requests) == 1
        assert [one.model for one in gateway.receipts(2)[-1].attempts] == ["spare"]

    def test_context(self, gateway: GatewayProcess, upstream: ModelServer) -> None:
        assert by(ask(gateway, "context")) == "model"
        long = [{"role": "user", "content": "word " * 100}]
        assert by(ask(gateway, "context", messages=long)) == "fallback"
        assert by(ask(gateway, "context", max_tokens=500)) == "fallback"
        assert len(upstream.requests) == 1

    def test_where_nobody_can_the_model_itself_says_so(
        self, gateway: GatewayProcess, upstream: ModelServer
    ) -> None:
        assert said(ask(gateway, "toolless", tools=[self.TOOL])) == ANSWER
        assert len(upstream.requests) == 1

    def test_who_answered_is_always_told(
        self, gateway: GatewayProcess, upstream: ModelServer
    ) -> None:
        found = [by(ask(gateway, "cached")), by(ask(gateway, "cached"))]
        upstream.script = Script.of("status=503")
        found.append(by(ask(gateway, "told-rescued")))
        assert found == ["model", "cache", "fallback"]
        assert [one.served_by for one in gateway.receipts(3)] == found
