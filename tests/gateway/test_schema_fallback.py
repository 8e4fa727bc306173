"""Given an answer that breaks the schema of its route, the next model is asked, in time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.gateway.app import GatewayProcess
from tests.gateway.releases import SCHEMA, pinned, sample_release
from tests.gateway.test_faults import post, text_of
from tests.gateway.test_limits import serving
from tidegate.release.values import OutputSchema, Route
from tidegate.testing import ModelServer

WELL = '{"n": 1}'


@pytest.fixture
def ill() -> Iterator[ModelServer]:
    with ModelServer(answer="no JSON at all") as server:
        yield server


@pytest.fixture
def gateway(
    tmp_path: Path, database_url: str, valkey_url: str, ill: ModelServer
) -> Iterator[GatewayProcess]:
    shape = OutputSchema(file=pinned("s.json", "{}"), json_schema=SCHEMA)
    with ModelServer(answer=WELL) as well:
        release = sample_release(ill.base_url, well.base_url)
        plain = release.routes["plain"]
        routes: dict[str, Route] = {
            name: msgspec.structs.replace(plain, name=name, output=shape, models=models, hold=hold)
            for name, models, hold in (
                ("pair", ("small", "spare"), "first_content"),
                ("held-pair", ("small", "spare"), "answer"),
                ("nobody", ("small", "unpriced"), "answer"),
            )
        }
        release = msgspec.structs.replace(release, routes={**release.routes, **routes})
        with serving(tmp_path, release, database_url, valkey_url) as running:
            yield running


@pytest.mark.parametrize(("route", "stream"), [("pair", False), ("held-pair", True)])
def test_the_next_model_answers_and_both_are_billed(
    gateway: GatewayProcess, route: str, stream: bool
) -> None:
    answer = post(gateway, route, stream=stream)
    assert (answer.status_code, answer.headers["x-tidegate-served-by"]) == (200, "fallback")
    content = text_of(answer) if stream else answer.json()["choices"][0]["message"]["content"]
    assert content == WELL
    (receipt,) = gateway.receipts(1)
    broken, whole = receipt.attempts
    assert (broken.model, broken.status, broken.code) == ("small", 200, "output_invalid")
    assert (whole.model, whole.code) == ("spare", None)
    assert broken.usage is not None
    assert receipt.usage is not None
    both = (broken.usage, receipt.usage)
    price = sum(one.prompt * 1.0 + one.completion * 2.0 for one in both) / 1_000_000
    assert receipt.cost == pytest.approx(price)


def test_when_nobody_keeps_to_it_the_first_failure_is_told(
    gateway: GatewayProcess, ill: ModelServer
) -> None:
    answer = post(gateway, "nobody")
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "output_invalid")
    assert "s.json" in answer.json()["error"]["message"]
    assert len(ill.requests) == 2


def test_a_stream_that_is_not_held_is_told_in_band(
    gateway: GatewayProcess, ill: ModelServer
) -> None:
    answer = post(gateway, "pair", stream=True)
    assert '"output_invalid"' in answer.text
    assert "[DONE]" not in answer.text
    assert len(ill.requests) == 1, "content had been sent: nobody else is asked"
