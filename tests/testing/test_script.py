"""Which request meets which fault."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from tidegate.base.errors import UsageError
from tidegate.testing import (
    Cut,
    Hang,
    Lognormal,
    ModelServer,
    Refuse,
    Reset,
    Script,
    SeenRequest,
    SlowFirstToken,
    Stall,
    Step,
)
from tidegate.testing.script import parse_step


def seen(index: int, path: str = "/v1/chat/completions", **headers: str) -> SeenRequest:
    return SeenRequest(
        index=index, method="POST", path=path, headers=headers, body=b"{}", arrived=0.0
    )


def hits(script: Script, count: int = 30, model: str = "m", seed: int = 0) -> list[int]:
    return [n for n in range(count) if script.fault_for(seen(n), model, seed) is not None]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("reset", list(range(30))),
        ("every=10 reset", [9, 19, 29]),
        ("index=0,3 reset", [0, 3]),
        ("first=2 reset", [0, 1]),
        ("after=28 reset", [28, 29]),
        ("after=10 every=10 reset", [19, 29]),
        ("model=m first=1 reset", [0]),
        ("model=other reset", []),
        ("path=/v1/chat first=1 reset", [0]),
        ("path=/v1/embeddings reset", []),
    ],
)
def test_conditions(text: str, expected: list[int]) -> None:
    assert hits(Script.of(text)) == expected


def test_a_step_ends_after_its_times() -> None:
    with ModelServer(script=Script.of("times=2 key=a status=401", "key=b status=429")) as server:

        def status(key: str) -> int:
            head = {"authorization": f"Bearer {key}"}
            ask = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
            url = f"{server.base_url}/chat/completions"
            return httpx.post(url, json=ask, headers=head).status_code

        assert [status(key) for key in "abcaba"] == [401, 429, 200, 401, 429, 200]
        assert [seen.key for seen in server.requests] == list("abcaba")
        assert all(seen.bytes_sent > 100 for seen in server.requests)
        server.script = Script.of("times=1 status=500")
        assert [status("c"), status("c")] == [500, 200]


def test_windows_of_time_follow_the_servers_clock() -> None:
    now = [100.0]
    script = Script.of(
        "key=a until_seconds=5 status=429", "period_seconds=60 after_seconds=50 reset"
    )
    with ModelServer(script=script, clock=lambda: now[0]) as server:

        def met(at: float, **headers: str) -> str | None:
            now[0] = 100.0 + at
            ask = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
            try:
                httpx.post(f"{server.base_url}/chat/completions", json=ask, headers=headers)
            except httpx.HTTPError:
                pass
            return server.requests[-1].fault

        mine = {"x-api-key": "a"}
        assert [met(0, **mine), met(4.9, **mine), met(5, **mine)] == ["status", "status", None]
        assert [met(0), met(49), met(50), met(59), met(61), met(115)] == [
            *(None, None, "reset", "reset", None, "reset")
        ]
        server.reset()
        assert met(115) is None  # the clock was set to 0 as well


def test_the_first_step_that_fits_is_played() -> None:
    script = Script.of("index=1 status=500", Step(fault=Reset(), every=2), Cut(1))
    played = [script.fault_for(seen(n), "m", 0) for n in range(4)]
    assert played == [Cut(1), Refuse(status=500), Cut(1), Reset()]


def test_a_predicate_sees_the_request() -> None:
    script = Script.of(Step(fault=Reset(), when=lambda request: "x-canary" in request.headers))
    assert script.fault_for(seen(0), "m", 0) is None
    assert script.fault_for(seen(0, **{"x-canary": "1"}), "m", 0) == Reset()


@given(seed=some.integers(0, 2**32), rate=some.sampled_from([0.0, 0.2, 1.0]))
@settings(max_examples=30, deadline=None)
def test_a_rate_is_kept_and_the_seed_decides_who(seed: int, rate: float) -> None:
    script = Script.of(Step(fault=Reset(), rate=rate))
    met = hits(script, 400, seed=seed)
    assert met == hits(script, 400, seed=seed)
    assert abs(len(met) - 400 * rate) <= 45  # above five standard deviations


def test_the_shares_of_two_steps_are_drawn_apart() -> None:
    script = Script.of("rate=0.2 reset", "rate=0.1 cut=1")
    played = [script.fault_for(seen(n), "m", 7) for n in range(500)]
    assert 60 <= played.count(Reset()) <= 140
    assert 15 <= played.count(Cut(1)) <= 65, "the smaller share is not part of the larger"


def test_details() -> None:
    assert parse_step("status=429 retry_after=2").fault == Refuse(status=429, retry_after=2)
    assert parse_step("status=503 retry_after=1m").fault == Refuse(status=503, retry_after=60)
    assert parse_step("cut=5 how=clean").fault == Cut(5, "clean")
    assert parse_step("cut").fault == Cut()
    assert parse_step("hang=2s").fault == Hang(2)
    assert parse_step("stall=2 seconds=30 then=resume").fault == Stall(2, 30, "resume")
    assert parse_step("slow_first_token=lognormal:2s,0.5").fault == SlowFirstToken(
        Lognormal(2, 0.5)
    )
    assert parse_step("status=429 retry_after=2 retry_form=date").fault == Refuse(
        retry_after=2, retry_form="date"
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "every=10",
        "nope",
        "status=x",
        "reset hang",
        "every=x reset",
        "reset how=clean",
        "drip=2",
        "bad_body=odd",
        "mutate=odd",
        "when=odd reset",
    ],
)
def test_unreadable_faults_say_what_may_be_written(text: str) -> None:
    with pytest.raises(UsageError, match="is not a fault") as error:
        parse_step(text)
    assert error.value.code == "fault_unreadable"
    assert "missing_done" in error.value.cure


def test_a_request_brings_its_own_fault() -> None:
    ask = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    with ModelServer(script=Script.of("index=1 reset")) as server:
        url = f"{server.base_url}/chat/completions"
        for fault, status in (("status=503", 503), ("status=429", 429), ("bogus", 400)):
            answer = httpx.post(url, json=ask, headers={"x-mock-fault": fault})
            assert answer.status_code == status
        assert httpx.post(url, json=ask).status_code == 200
