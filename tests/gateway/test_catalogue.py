"""Answers that are none, and odd ones that are: what a client gets, and what is never kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import TEMPLATE, _fresh_database
from tests.gateway.app import GatewayProcess
from tests.gateway.conftest import ANSWER, SPARE_ANSWER
from tests.gateway.releases import sample_release
from tests.gateway.test_cache import plan
from tests.gateway.test_faults import events, post, text_of
from tidegate.stores.postgres import PostgresPlace
from tidegate.testing import ModelServer, Script

NO_ANSWER = [
    ("bad_body=empty", False, "upstream_protocol"),
    ("bad_body=truncated", False, "upstream_protocol"),
    ("bad_body=html", False, "upstream_protocol"),
    ("missing_field=choices", False, "upstream_protocol"),
    ("invalid_event", False, "upstream_protocol"),
    ("error_event", False, "upstream_protocol"),
    ("bad_body=empty", True, "upstream_cut"),
    ("bad_body=truncated", True, "upstream_cut"),
    ("bad_body=html", True, "upstream_protocol"),
    ("missing_field=choices", True, "upstream_cut"),
]


class TestNoAnswer:
    """Given a 200 that holds no answer, it is a failed try like any other."""

    @pytest.mark.parametrize(("fault", "stream", "known"), NO_ANSWER)
    def test_the_next_model_is_asked(
        self, gateway: GatewayProcess, upstream: ModelServer, fault: str, stream: bool, known: str
    ) -> None:
        upstream.script = Script.of(fault)
        answer = post(gateway, "rescued", stream=stream)
        assert (answer.status_code, answer.headers["x-tidegate-served-by"]) == (200, "fallback")
        assert SPARE_ANSWER in (text_of(answer) if stream else answer.text)
        (receipt,) = gateway.receipts(1)
        assert [one.code for one in receipt.attempts] == [known, None]

    @pytest.mark.parametrize(("fault", "stream", "known"), NO_ANSWER)
    def test_with_nobody_left_it_is_a_status_and_is_not_kept(
        self, gateway: GatewayProcess, upstream: ModelServer, fault: str, stream: bool, known: str
    ) -> None:
        upstream.script = Script.of(fault)
        answer = plan(gateway, fault, stream=stream)
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, known)
        upstream.script = Script()
        well = plan(gateway, fault, stream=stream)
        assert (well.status_code, well.headers["x-tidegate-cache"]) == (200, "miss")


class TestOdd:
    """Given an answer that is odd and whole, it is passed on as it came."""

    def test_an_event_that_nobody_can_read_is_passed_over(
        self, gateway: GatewayProcess, upstream: ModelServer
    ) -> None:
        upstream.script = Script.of("invalid_event=3")
        for _ in range(2):
            answer = plan(gateway, "unreadable", stream=True)
            assert (text_of(answer), events(answer)[-1]) == (ANSWER, "[DONE]")
            assert answer.headers["x-tidegate-cache"] == "miss", "it is not kept"
        receipts = gateway.receipts(2)
        assert [one.skipped for receipt in receipts for one in receipt.attempts] == [1, 1]

    def test_an_event_that_comes_twice_is_not_tampered_with(
        self, gateway: GatewayProcess, upstream: ModelServer
    ) -> None:
        upstream.script = Script.of("duplicate=3")
        answer = post(gateway, "plain", stream=True)
        words = ANSWER.split()
        assert text_of(answer).split() == [*words[:4], words[3], *words[4:]]
        assert events(answer)[-1] == "[DONE]"

    @pytest.mark.parametrize("fault", ["drip=1ms", "slow_first_token=300ms", "missing_done"])
    def test_a_slow_one_is_whole(
        self, gateway: GatewayProcess, upstream: ModelServer, fault: str
    ) -> None:
        upstream.script = Script.of(fault)
        answer = post(gateway, "plain", stream=True)
        assert (text_of(answer), events(answer)[-1]) == (ANSWER, "[DONE]")

    @pytest.mark.parametrize("stream", [False, True])
    def test_what_the_providers_filter_ended_is_told_and_not_kept(
        self, gateway: GatewayProcess, upstream: ModelServer, spare: ModelServer, stream: bool
    ) -> None:
        upstream.script = Script.of("filtered=3")
        for _ in range(2):
            answer = plan(gateway, "filtered", stream=stream)
            assert answer.headers["x-tidegate-cache"] == "miss"
            assert "content_filter" in answer.text
        post(gateway, "rescued", stream=stream)
        assert {receipt.finish for receipt in gateway.receipts(3)} == {"content_filter"}
        assert not spare.requests, "a policy refusal is not shopped elsewhere"

    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("how", ["drop", "rename", "retype", "break"])
    def test_an_answer_that_breaks_its_schema_is_told(
        self, gateway: GatewayProcess, upstream: ModelServer, how: str, stream: bool
    ) -> None:
        upstream.script = Script.of(f"mutate={how}")
        answer = post(gateway, "held-shaped", stream=stream)
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "output_invalid")
        (receipt,) = gateway.receipts(1)
        assert receipt.outcome == "failed"
        assert receipt.cost, "the model wrote it, so it is billed"


def test_a_burst_of_refusals_is_no_storm(gateway: GatewayProcess, upstream: ModelServer) -> None:
    """Half of each second every request is refused: none is lost, as another model answers."""
    upstream.script = Script.of("period_seconds=1 until_seconds=0.5 status=429 retry_after=1")
    answers = [post(gateway, "rescued") for _ in range(40)]
    assert {answer.status_code for answer in answers} == {200}
    assert len(upstream.requests) <= 40


@contextmanager
def over(
    base_url: str, spare: ModelServer, folder: Path, place: PostgresPlace, valkey_url: str
) -> Iterator[GatewayProcess]:
    release = sample_release(base_url, spare.base_url)
    with contextmanager(_fresh_database)(place, TEMPLATE) as database_url:
        process = GatewayProcess(folder, release, database_url, valkey_url)
        try:
            yield process.start()
        finally:
            process.stop()


def test_a_name_that_leads_nowhere_is_a_failed_try(
    tmp_path: Path, spare: ModelServer, postgres_server: PostgresPlace, valkey_url: str
) -> None:
    """As long as the name servers take, and no longer than the route's ``connect``."""
    nowhere = "http://nobody.invalid:8000/v1"
    with over(nowhere, spare, tmp_path, postgres_server, valkey_url) as gateway:
        found: list[httpx.Response] = [post(gateway, "plain"), post(gateway, "rescued")]
        assert found[0].status_code in (502, 504)
        code = found[0].json()["error"]["code"]
        assert code in ("upstream_unreachable", "upstream_connect_timeout")
        assert found[1].headers["x-tidegate-served-by"] == "fallback"
        first, second = gateway.receipts(2)
        assert (first.outcome, first.cost) == ("failed", 0), "nothing was sent, nothing is billed"
        assert [one.code for one in second.attempts][1:] == [None]


TOOL = {"type": "function", "function": {"name": "book", "parameters": {"type": "object"}}}
CALLED = {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "book"}}}


@pytest.mark.parametrize(
    ("fault", "more"),
    [
        ("", {}),
        ("", CALLED),
        ("duplicate=3", {}),
        ("drip=1ms", {}),
        ("missing_field=created", {}),
        ("mutate=drop", CALLED),
        ("mutate=break", CALLED),
    ],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_bytes_are_the_models(
    gateway: GatewayProcess,
    upstream: ModelServer,
    fault: str,
    more: dict[str, Any],
    stream: bool,
) -> None:
    """The same request sent straight to the model is answered with the same bytes."""
    upstream.script = Script.of(fault) if fault else Script()
    usage = {"stream_options": {"include_usage": True}} if stream else {}
    through = post(gateway, "plain", stream=stream, **usage, **more)
    asked = upstream.requests[-1].json
    upstream.reset()
    straight = httpx.post(f"{upstream.base_url}/chat/completions", json=asked)
    assert through.content == straight.content
    assert len(through.content) > 100
