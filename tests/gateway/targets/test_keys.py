"""The keys of one model: whose turn it is, who rests, who comes and goes; and that none is told."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gateway.calls import chat_request, new_journal, plans_of, within
from tests.gateway.loops import run
from tests.gateway.releases import sample_release
from tidegate.base.errors import ReleaseError, RequestError
from tidegate.gateway.call import ask_stream, ask_whole
from tidegate.gateway.journal import Journal
from tidegate.gateway.render import render
from tidegate.gateway.targets import LEFT, AttemptFailed, Failure, make_target, of_fault, of_status
from tidegate.gateway.targets.keys import (
    REJECTED_FOR,
    Credential,
    KeyPool,
    KeySetting,
    KeyStatistics,
    Lease,
    Signed,
    pick,
)
from tidegate.gateway.wire.upstream import UpstreamFault
from tidegate.release.values import Breaker, Retries
from tidegate.secrets import fingerprint
from tidegate.testing import ModelServer, Refuse, Script, Step

BREAKER = Breaker(failures=0.5, minimum=3, window=10, open=5)
FIRST, SECOND = "sk-first-0123456789", "sk-second-987654321"
REJECTED = of_status(401, "invalid_api_key", None, None)
LIMITED = of_status(429, "rate_limit_exceeded", None, None)
QUOTA = of_status(429, "insufficient_quota", None, None)
BUSY = of_status(503, None, None, None)


def mark(key: str | None) -> str | None:
    return None if key is None else fingerprint(key)


class Clock:
    """A pool whose time is moved by hand; ``pool`` runs in a loop whose clock this is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(asyncio, "get_running_loop", lambda: self)

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def pool_of(*keys: str | KeySetting | None, breaker: Breaker | None = BREAKER) -> KeyPool:
    def signed(key: str | None) -> Signed:
        return Signed(b"authorization: %b\r\n" % (key or "").encode())

    made = [one if isinstance(one, KeySetting) else KeySetting(one) for one in keys]
    return KeyPool("small", made, signed, breaker)


def end(lease: Lease, failure: Failure | None = None) -> None:
    lease.end(failure.code if failure else None, failure)


def state(pool: KeyPool, key: str | None, now: float) -> KeyStatistics:
    return next(one for one in pool.statistics(now) if one.fingerprint == mark(key))


def turns(pool: KeyPool, count: int, draw: Callable[[], float] = lambda: 0.999) -> list[str | None]:
    """Whose turn it was, each try over before the next."""
    found = []
    for _ in range(count):
        lease = pool.take(draw())
        found.append(lease.fingerprint)
        end(lease)
    return found


def test_active_keys_take_turns(clock: Clock) -> None:
    pool = pool_of("a", "b", "c")
    assert turns(pool, 6) == [mark(key) for key in "abcabc"]


def test_each_try_carries_its_own_key(clock: Clock) -> None:
    pool = pool_of("a", "b")
    assert [pool.take(0.5).credential.head for _ in "ab"] == [
        *(b"authorization: a\r\n", b"authorization: b\r\n")
    ]


def test_a_canary_takes_its_share(clock: Clock) -> None:
    pool = pool_of("a", "b", KeySetting("new", "canary", 0.2))
    chance = random.Random(5)
    counts = Counter(turns(pool, 2000, chance.random))
    assert 320 < counts[mark("new")] < 480
    assert abs(counts[mark("a")] - counts[mark("b")]) <= 1


def test_a_canary_alone_takes_all(clock: Clock) -> None:
    pool = pool_of(KeySetting("new", "canary", 0.0), KeySetting("old", "draining"))
    assert set(turns(pool, 5)) == {mark("new")}


credentials = st.lists(
    st.tuples(st.sampled_from(["active", "canary"]), st.floats(0, 1), st.integers(0, 50)),
    min_size=1,
    max_size=6,
)


@given(credentials, st.floats(0, 1, exclude_max=True))
def test_one_is_always_picked(made: list[tuple[Any, float, int]], draw: float) -> None:
    ready = []
    for kind, share, turn in made:
        one = Credential(b"", None, Signed(b""), 0.0)
        one.state, one.share, one.turn = kind, share, turn
        ready.append(one)
    assert pick(ready, draw) in ready


def test_a_draining_key_takes_no_new_tries_and_finishes_what_it_has(clock: Clock) -> None:
    pool = pool_of("old", "new")
    under_way = pool.take(0.5)
    assert under_way.fingerprint == mark("old")
    pool.set_keys([KeySetting("old", "draining"), KeySetting("new")])
    assert set(turns(pool, 6)) == {mark("new")}
    assert state(pool, "old", clock.now).in_flight == 1
    end(under_way)
    assert state(pool, "old", clock.now).in_flight == 0


def test_a_key_that_is_taken_out_finishes_too(clock: Clock) -> None:
    pool = pool_of("old", "new")
    under_way = pool.take(0.5)
    pool.set_keys([KeySetting("new")])
    end(under_way, REJECTED)
    assert under_way.credential.in_flight == 0
    assert turns(pool, 2) == [mark("new")] * 2


def test_only_draining_keys_answer_no_one(clock: Clock) -> None:
    pool = pool_of(KeySetting("old", "draining"))
    with pytest.raises(AttemptFailed) as caught:
        pool.take(0.5)
    assert caught.value.failure.code == "upstream_key_rejected"
    assert caught.value.failure.fall_back


@pytest.mark.parametrize(
    ("failure", "rest"),
    [
        (REJECTED, REJECTED_FOR),
        (of_status(402, None, None, None), REJECTED_FOR),
        (of_status(403, None, None, None), REJECTED_FOR),
        (QUOTA, REJECTED_FOR),
        (LIMITED, 1.0),
        (of_status(429, None, None, None, 7.0), 7.0),
        (of_status(429, "insufficient_quota", None, None, 9.0), 9.0),
        (of_status(429, None, None, None, 80_000.0), 3600.0),
    ],
)
def test_a_key_that_is_refused_rests_and_comes_back(
    clock: Clock, failure: Failure, rest: float
) -> None:
    pool = pool_of("a", "b")
    end(pool.take(0.5), failure)
    assert state(pool, "a", clock.now).resting
    assert pool.another(clock.now)
    assert set(turns(pool, 5)) == {mark("b")}
    clock.now += rest - 0.01
    assert set(turns(pool, 5)) == {mark("b")}
    clock.now += 0.02
    assert set(turns(pool, 5)) == {mark("a"), mark("b")}


def test_a_key_that_is_limited_again_rests_longer_until_it_answers(clock: Clock) -> None:
    pool = pool_of("a", KeySetting("b", "draining"), KeySetting("c", "canary", 0.0))
    for rest in (1.0, 2.0, 4.0):
        lease = pool.take(0.5)
        assert lease.fingerprint == mark("a")
        end(lease, LIMITED)
        clock.now += rest - 0.01
        assert state(pool, "a", clock.now).resting
        clock.now += 0.02
        assert not state(pool, "a", clock.now).resting
    end(pool.take(0.5))
    end(pool.take(0.5), LIMITED)
    clock.now += 1.01
    assert not state(pool, "a", clock.now).resting


def test_when_all_keys_rest_the_refusal_is_that_of_the_soonest(clock: Clock) -> None:
    pool = pool_of("a", "b")
    end(pool.take(0.5), REJECTED)
    end(pool.take(0.5), of_status(429, None, None, None, 4.0))
    assert not pool.another(clock.now)
    with pytest.raises(AttemptFailed) as caught:
        pool.take(0.5)
    failure = caught.value.failure
    assert (failure.code, failure.upstream_status) == ("upstream_rate_limited", None)
    assert failure.wait == pytest.approx(4.0)
    end_of_all = [state(pool, key, clock.now).in_flight for key in "ab"]
    assert end_of_all == [0, 0]


def test_when_all_keys_are_rejected_nothing_is_sent(clock: Clock) -> None:
    pool = pool_of("a", "b")
    end(pool.take(0.5), REJECTED)
    end(pool.take(0.5), REJECTED)
    with pytest.raises(AttemptFailed) as caught:
        pool.take(0.5)
    assert caught.value.failure.code == "upstream_key_rejected"
    assert not caught.value.failure.again


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("a", "key ca978112 of model small was rejected (status 401): there is no other key"),
        (None, "model small was rejected (status 401): there is no other key"),
    ],
)
def test_a_single_key_is_not_said_to_rest(
    clock: Clock, caplog: pytest.LogCaptureFixture, key: str | None, words: str
) -> None:
    end(pool_of(key).take(0.5), REJECTED)
    assert caplog.messages == [words]


@pytest.mark.parametrize("failure", [REJECTED, LIMITED, QUOTA])
@pytest.mark.parametrize("key", ["a", None])
def test_a_single_key_is_never_set_aside(clock: Clock, key: str | None, failure: Failure) -> None:
    pool = pool_of(key)
    for _ in range(20):
        lease = pool.take(0.5)
        assert lease.fingerprint == mark(key)
        end(lease, failure)
    assert not pool.another(clock.now)
    assert state(pool, key, clock.now).breaker == "closed", "it is up: it answers, with a refusal"


def test_beside_a_draining_key_a_single_one_has_no_other(clock: Clock) -> None:
    pool = pool_of("a", KeySetting("old", "draining"))
    end(pool.take(0.5), of_status(429, None, None, None, 4.0))
    assert not pool.another(clock.now), "else it were asked again at once, against retry-after"
    assert turns(pool, 1) == [mark("a")]


def test_a_key_that_may_come_back_at_once_is_not_another_one(clock: Clock) -> None:
    pool = pool_of("a", "b")
    end(pool.take(0.5), of_status(429, None, None, None, 0.0))
    end(pool.take(0.5), REJECTED)
    assert not pool.another(clock.now)


def test_set_keys_keeps_the_health_of_those_that_stay(clock: Clock) -> None:
    pool = pool_of("a", "b", "c")
    end(pool.take(0.5), REJECTED)
    for _ in range(6):  # b and c in turn
        end(pool.take(0.5), BUSY)
    before = {key: state(pool, key, clock.now) for key in "abc"}
    assert (before["a"].resting, before["b"].breaker, before["c"].breaker) == (True, "open", "open")
    pool.set_keys([KeySetting("c"), KeySetting("a"), KeySetting("new")])
    after = {key: state(pool, key, clock.now) for key in ("a", "c", "new")}
    assert after["a"] == before["a"]
    assert after["c"] == before["c"]
    assert (after["new"].resting, after["new"].breaker, after["new"].taken) == (False, "closed", 0)
    assert set(turns(pool, 3)) == {mark("new")}


def test_a_key_that_no_header_can_hold_changes_nothing() -> None:
    target = make_target(sample_release("http://h/v1").models["small"], "http://h/v1", ["a", "b"])
    with pytest.raises(ReleaseError) as caught:
        target.set_keys([KeySetting("c"), KeySetting("sk-x\r\nhost: elsewhere")])
    assert "sk-x" not in str(caught.value)
    assert [one.fingerprint for one in target.keys.statistics(0.0)] == [*(mark("a"), mark("b"))]


class TestBreaker:
    """Given a model that fails, its keys have a breaker each."""

    def test_it_opens_probes_and_closes(self, clock: Clock) -> None:
        pool = pool_of("a")
        for _ in range(3):
            end(pool.take(0.5), BUSY)
        assert state(pool, "a", clock.now).breaker == "open"
        with pytest.raises(AttemptFailed) as caught:
            pool.take(0.5)
        failure = caught.value.failure
        assert (failure.code, failure.status, failure.again) == (
            *("upstream_breaker_open", 503, False),
        )
        assert failure.wait == pytest.approx(5.0)
        clock.now += 5.0
        probe = pool.take(0.5)
        with pytest.raises(AttemptFailed):
            pool.take(0.5)  # only one
        end(probe)
        assert state(pool, "a", clock.now).breaker == "closed"

    def test_a_stream_that_begins_frees_the_way_at_once(self, clock: Clock) -> None:
        pool = pool_of("a")
        for _ in range(3):
            end(pool.take(0.5), BUSY)
        clock.now += 5.0
        probe = pool.take(0.5)
        probe.answered()
        assert state(pool, "a", clock.now).breaker == "closed"
        other = pool.take(0.5)
        end(probe)
        end(other)
        assert state(pool, "a", clock.now).in_flight == 0

    def test_a_key_does_not_rest_for_what_a_policy_refuses(self, clock: Clock) -> None:
        pool = pool_of(FIRST, SECOND)
        for _ in range(4):
            end(pool.take(0.999), of_status(403, "content_policy_violation", "no", None))
        assert not any(one.resting for one in pool.statistics(clock.now))
        assert len(pool.ready(clock.now)) == 2

    def test_an_answer_that_broke_off_is_one_failed_try(self, clock: Clock) -> None:
        pool = pool_of(FIRST, breaker=Breaker(failures=0.9, minimum=3, window=10, open=5))
        for _ in range(3):
            lease = pool.take(0.0)
            lease.answered()
            end(lease, of_fault(UpstreamFault("upstream_cut", "it broke")))
        assert state(pool, FIRST, clock.now).breaker == "open"

    def test_a_probe_that_began_to_answer_and_broke_off_counts_as_any_other(
        self, clock: Clock
    ) -> None:
        pool = pool_of("a", breaker=Breaker(minimum=1, window=10, open=5))
        end(pool.take(0.5), BUSY)
        clock.now += 5.0
        probe = pool.take(0.5)
        probe.answered()
        probe.end("upstream_idle_timeout")
        assert state(pool, "a", clock.now).breaker == "open"

    @pytest.mark.parametrize("code", [LEFT.code, "hedge_lost"])
    def test_a_client_that_leaves_during_the_probe_says_nothing(
        self, clock: Clock, code: str
    ) -> None:
        pool = pool_of("a")
        for _ in range(3):
            end(pool.take(0.5), BUSY)
        clock.now += 5.0
        pool.take(0.5).end(code)
        pool.take(0.5)  # the next request is the probe

    def test_what_passed_before_it_opened_is_old(self, clock: Clock) -> None:
        pool = pool_of("a")
        slow = [pool.take(0.5) for _ in range(2)]
        for _ in range(3):
            end(pool.take(0.5), BUSY)
        clock.now += 5.0
        probe = pool.take(0.5)
        end(slow[0])
        end(slow[1], BUSY)
        assert state(pool, "a", clock.now).breaker == "halfopen"
        end(probe, BUSY)
        assert state(pool, "a", clock.now).breaker == "open"

    @pytest.mark.parametrize(
        "failure",
        [
            of_status(400, None, None, None),
            of_status(422, "upstream_error", None, None),
            of_status(413, None, None, None),
            of_status(400, "content_policy_violation", None, None),
            of_status(400, "context_length_exceeded", None, None),
            LIMITED,
            of_fault(UpstreamFault("upstream_too_large", "words")),
        ],
    )
    def test_what_a_client_asked_for_does_not_open_it(self, clock: Clock, failure: Failure) -> None:
        pool = pool_of("a")
        for _ in range(30):
            end(pool.take(0.5), failure)
        assert state(pool, "a", clock.now).breaker == "closed"

    def test_the_other_key_is_used_while_one_is_left_alone(self, clock: Clock) -> None:
        pool = pool_of("a", "b")
        while state(pool, "a", clock.now).breaker == "closed":
            lease = pool.take(0.5)
            end(lease, BUSY if lease.fingerprint == mark("a") else None)
        assert set(turns(pool, 4)) == {mark("b")}

    def test_without_settings_there_is_none(self, clock: Clock) -> None:
        pool = pool_of("a", breaker=None)
        for _ in range(50):
            end(pool.take(0.5), BUSY)
        pool.take(0.5)


endings = st.sampled_from([None, REJECTED, LIMITED, QUOTA, BUSY, LEFT])
acts = st.lists(
    st.tuples(
        st.sampled_from(["take", "answered", "end", "wait", "set"]),
        st.integers(0, 5),
        endings,
        st.floats(0, 1, exclude_max=True),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(acts)
def test_nothing_stays_in_flight(acts: list[tuple[str, int, Failure | None, float]]) -> None:
    """Whatever becomes of the tries, in whatever order, and however often one is ended."""
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock(patch)
        pool = pool_of("a", "b")
        leases: list[Lease] = []
        for act, number, failure, draw in acts:
            if act == "take":
                with suppress(AttemptFailed):
                    leases.append(pool.take(draw))
            elif act == "wait":
                clock.now += number * 3
            elif act == "set":
                names = (("a",), ("a", "b"), ("b", "c"), ("c",), ("a", "b", "c"), ("b",))[number]
                pool.set_keys([KeySetting(name) for name in names])
            elif leases:
                lease = leases[number % len(leases)]
                end(lease, failure) if act == "end" else lease.answered()
        for lease in leases:
            end(lease)
            end(lease)
        assert all(lease.credential.in_flight == 0 for lease in leases)
        assert all(one.in_flight == 0 for one in pool.statistics(clock.now))
        clock.now += 3600.0  # however it went, the model is asked again
        pool.take(0.5)


def test_a_key_is_never_shown(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    pool = pool_of(FIRST, KeySetting(SECOND, "canary", 0.1))
    lease = pool.take(0.5)
    setting = KeySetting(FIRST)
    shown = [repr(one) + str(one) for one in (pool, lease, lease.credential, setting, [setting])]
    shown += [repr(pool.statistics(clock.now)), f"{setting!r}", repr(LEFT)]
    end(lease, REJECTED)
    end(pool.take(0.5), QUOTA)
    with pytest.raises(AttemptFailed) as caught:
        pool.take(0.5)
    shown += [repr(caught.value), repr(caught.value.failure), caplog.text]
    assert len(caplog.records) == 2, "each is said once"
    for key in (FIRST, SECOND):
        assert not any(key in words for words in shown)
        assert mark(key) in caplog.text
        assert len(mark(key) or "") == 8


MODELS = sample_release("http://127.0.0.1:9/v1").models
PLAIN = plans_of(sample_release("http://127.0.0.1:9/v1", retries=Retries(most=0)))["plain"]


def served(
    server: ModelServer, keys: Sequence[str], count: int, stream: bool
) -> list[tuple[Journal, str | RequestError]]:
    """``count`` requests one after the other, each with what became of it."""

    async def main() -> list[tuple[Journal, str | RequestError]]:
        target = make_target(MODELS["small"], server.base_url, list(keys))
        found: list[tuple[Journal, str | RequestError]] = []
        for _ in range(count):
            request, journal = chat_request(PLAIN, stream=stream), new_journal()
            ask, on = (await render(request)).ask, PLAIN.terms
            try:
                if stream:
                    one = await ask_stream(journal, ask, [target], on, within())
                    await one.rest(1 << 20)
                    one.release()
                    one.attempt.answer(one.billed)
                    found.append((journal, one.said.text()))
                else:
                    answered = await ask_whole(journal, ask, [target], on, within())
                    answered.attempt.answer(answered.answer.usage)
                    found.append((journal, str(answered.answer.body)))
            except RequestError as error:
                found.append((journal, error))
        now = asyncio.get_running_loop().time()
        assert [one.in_flight for one in target.keys.statistics(now)] == [0] * len(keys)
        target.pool.close()
        return found

    return run(main())


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", ["key_revoked", "key_forbidden", "quota", "status=429"])
def test_a_key_that_is_refused_costs_no_request(
    fault: str, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    script = Script.of(f"key={FIRST} {fault}")
    with ModelServer(answer="hello", script=script) as server:
        found = served(server, (FIRST, SECOND), 5, stream)
        seen = [request.key for request in server.requests]
    assert all(isinstance(answer, str) and "hello" in answer for _, answer in found)
    assert seen == [FIRST, *[SECOND] * 5], "asked once, then left out"
    first = found[0][0].attempts
    assert [one.key for one in first] == [mark(FIRST), mark(SECOND)]
    assert [one.code is None for one in first] == [False, True]
    assert all(len(journal.attempts) == 1 for journal, _ in found[1:])
    told = repr([[*journal.attempts, answer] for journal, answer in found]) + caplog.text
    assert FIRST not in told
    assert SECOND not in told


def test_when_both_keys_are_rejected_the_client_is_told_and_never_the_keys() -> None:
    words = f"Incorrect API key provided: {FIRST} {SECOND}"
    script = Script.of(Step(fault=Refuse(status=401, message=words)))
    with ModelServer(script=script) as server:
        found = served(server, (FIRST, SECOND), 3, False)
        assert len(server.requests) == 2, "nobody is asked again in vain"
    for journal, error in found:
        assert isinstance(error, RequestError)
        assert (error.status, error.code) == (502, "upstream_key_rejected")
        told = f"{error} {error.cure} {journal.attempts}"
        assert FIRST not in told
        assert SECOND not in told
