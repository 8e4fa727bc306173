"""Limits, end to end: what is reserved, what is settled, whom a limit refuses and with what."""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psycopg
import pytest

from tests.gateway.app import GatewayProcess
from tests.gateway.releases import TIMEOUTS, sample_release
from tests.gateway.test_bad_input import CHAT, USER, eventually
from tests.gateway.test_bad_luck import workers
from tests.gateway.test_cache import plan
from tidegate.base.children import Child
from tidegate.release.values import Limit, Release
from tidegate.stores.counters import CounterState, read_counters
from tidegate.stores.valkey import valkey_socket, valkey_spec
from tidegate.stores.valkey_client import ValkeyClient
from tidegate.stores.windows import NANO, PREFIX
from tidegate.switches import create_key
from tidegate.testing import Constant, ModelServer, Script

DAY = "day"


def limit(name: str, unit: str, amount: float, **more: Any) -> Limit:
    """A budget for a day of the whole app, unless ``more`` says otherwise."""
    more = {"per": "app", **more}
    if "every" not in more:
        more.setdefault("calendar", DAY)
    return Limit(name=name, unit=unit, amount=amount, **more)


def limited(
    upstream: ModelServer, *limits: Limit, spare: ModelServer | None = None, **more: Any
) -> Release:
    release = sample_release(
        upstream.base_url, spare.base_url if spare else "http://127.0.0.1:9/v1", **more
    )
    return msgspec.structs.replace(release, limits={one.name: one for one in limits})


@contextmanager
def serving(
    folder: Path, release: Release, database_url: str, valkey_url: str, **more: Any
) -> Iterator[GatewayProcess]:
    folder.mkdir(exist_ok=True)
    process = GatewayProcess(folder, release, database_url, valkey_url, **more)
    try:
        yield process.start()
    finally:
        process.stop()


def counters(url: str) -> dict[str, CounterState]:
    """Every counter, by its name without the prefix."""

    async def read() -> dict[str, CounterState]:
        store = ValkeyClient(url, deadline=2.0)
        await store.start()
        try:
            return await read_counters(store, PREFIX)
        finally:
            await store.stop()

    return {name.removeprefix(PREFIX): state for name, state in asyncio.run(read()).items()}


def the_counter(url: str, start: str) -> CounterState:
    """The one counter of a limit; one that holds nothing is no more."""
    found = [state for name, state in counters(url).items() if name.startswith(start)]
    assert len(found) < 2
    return found[0] if found else CounterState(0, 0, 0)


def use_up(url: str, start: str, amount: int) -> None:
    """As if others had used ``amount`` of the one limit whose counter begins with ``start``."""

    async def write() -> None:
        store = ValkeyClient(url, deadline=2.0)
        await store.start()
        try:
            (name,) = await read_counters(store, PREFIX + start)
            await store.call(b"HSET", name, b"u", amount)
        finally:
            await store.stop()

    asyncio.run(write())


def holds(url: str, start: str, used: float, reserved: int = 0) -> bool:
    state = the_counter(url, start)
    return (state.used, state.reserved) == (used, reserved)


def ask(gateway: GatewayProcess, model: str = "plain", **more: Any) -> httpx.Response:
    with gateway.client() as client:
        return client.post(CHAT, json={"model": model, "messages": USER, **more})


def error(answer: httpx.Response) -> dict[str, Any]:
    found: dict[str, Any] = answer.json()["error"]
    return found


def test_given_a_rate_when_it_is_used_up_then_429_says_when_to_come_back(
    tmp_path: Path, database_url: str, valkey_url: str, upstream: ModelServer
) -> None:
    release = limited(upstream, limit("key-rate", "requests", 60, per="key", every=60.0, burst=3))
    with serving(tmp_path, release, database_url, valkey_url) as gateway:
        answers = [ask(gateway) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        first, refused = answers[0], answers[3]
        assert first.headers["x-ratelimit-limit-requests"] == "3"
        assert first.headers["x-ratelimit-remaining-requests"] == "2"
        assert first.headers["x-ratelimit-reset-requests"].endswith("s")
        assert error(refused)["code"] == "limit_requests"
        assert "key-rate" in error(refused)["message"]
        assert 1 <= int(refused.headers["retry-after"]) <= 2
        # the bucket refills by itself
        eventually(lambda: ask(gateway).status_code == 200, 10)
        # another key has a bucket of its own
        with psycopg.connect(database_url) as connection:
            other = create_key(connection, name="other", tenant="acme").token
        with httpx.Client(base_url=gateway.url, headers={"authorization": f"Bearer {other}"}) as c:
            body = {"model": "plain", "messages": USER}
            eventually(lambda: c.post(CHAT, json=body).status_code == 200, 5)
        receipt = next(r for r in gateway.receipts(5) if r.code == "limit_requests")
        assert (receipt.outcome, receipt.status, receipt.attempts) == ("refused", 429, ())


def test_a_budget_is_settled_with_the_truth_and_what_is_left_is_free(
    tmp_path: Path, database_url: str, valkey_url: str, upstream: ModelServer
) -> None:
    # 1 and 2 dollars a million tokens; 9 words of answer
    release = limited(
        upstream,
        limit("spend", "dollars", 0.5, per="tenant"),
        limit("small-tokens", "tokens", 20_000, per="model", models=("small",)),
    )
    with serving(tmp_path, release, database_url, valkey_url) as gateway:
        assert ask(gateway, max_tokens=1000).status_code == 200
        assert ask(gateway, max_tokens=1000, stream=True).status_code == 200
        receipts = gateway.receipts(2)
        assert receipts[0].usage == receipts[1].usage
        assert receipts[0].cost == receipts[1].cost, "a stream costs what a whole answer costs"
        spent = sum(receipt.cost or 0 for receipt in receipts)
        tokens = sum(r.usage.prompt + r.usage.completion for r in receipts if r.usage)

        def settled() -> bool:
            return holds(valkey_url, "spend:", round(spent * NANO)) and holds(
                valkey_url, "small-tokens:", tokens
            )

        eventually(settled, 5)
        names = counters(valkey_url)
        assert any(name.startswith("spend:d:d2") and name.endswith(":acme") for name in names)
        # a request that could take more than there is at all has a cure of its own
        never = ask(gateway, max_tokens=30_000)
        assert (never.status_code, error(never)["code"]) == (400, "limit_too_small")
        assert "max_tokens" in error(never)["cure"]
        # one that may take more than is left is refused, and reserves nothing on the other limit
        much = ask(gateway, max_tokens=19_990)
        assert (much.status_code, error(much)["code"]) == (429, "limit_tokens")
        assert "resets" in error(much)["cure"] or "ends" in error(much)["cure"]
        assert int(much.headers["retry-after"]) <= 86_400
        assert settled()
        assert ask(gateway, max_tokens=1000).status_code == 200


def test_answers_from_the_cache_cost_nothing_but_count_as_requests(
    tmp_path: Path, database_url: str, valkey_url: str, upstream: ModelServer
) -> None:
    release = limited(upstream, limit("rate", "requests", 100), limit("tokens", "tokens", 100_000))
    with serving(tmp_path, release, database_url, valkey_url) as gateway:
        assert plan(gateway).headers["x-tidegate-cache"] == "miss"
        receipt = gateway.receipts(1)[0]
        assert receipt.usage is not None
        for _ in range(3):
            assert plan(gateway).headers["x-tidegate-cache"] == "hit"
        tokens = receipt.usage.prompt + receipt.usage.completion
        eventually(lambda: the_counter(valkey_url, "rate:").used == 4, 5)
        eventually(lambda: holds(valkey_url, "tokens:", tokens), 5)


def test_an_answer_from_the_cache_is_given_when_its_tokens_could_not_be(
    tmp_path: Path, database_url: str, valkey_url: str, upstream: ModelServer
) -> None:
    release = limited(upstream, limit("rate", "requests", 5), limit("tokens", "tokens", 5000))
    with serving(tmp_path, release, database_url, valkey_url) as gateway:
        assert plan(gateway).headers["x-tidegate-cache"] == "miss"
        use_up(valkey_url, "tokens:", 5000)
        assert error(ask(gateway))["code"] == "limit_tokens"  # which counts nothing
        for _ in range(4):  # one of them from the store, the rest at hand
            assert plan(gateway).headers["x-tidegate-cache"] == "hit"
        assert error(plan(gateway))["code"] == "limit_requests"


def test_failed_tries_are_refunded_unless_they_may_be_billed(
    tmp_path: Path, database_url: str, valkey_url: str, upstream: ModelServer
) -> None:
    release = limited(upstream, limit("tokens", "tokens", 100_000))
    with serving(tmp_path, release, database_url, valkey_url) as gateway:
        upstream.script = Script.of("status=500")
        assert ask(gateway, max_tokens=100).status_code == 502
        eventually(lambda: the_counter(valkey_url, "tokens:").reserved == 0, 5)
        assert the_counter(valkey_url, "tokens:").used == 0
        # it was asked and nobody knows what it took: the worst that it may have taken
        upstream.script = Script.of("hang")
        assert ask(gateway, max_tokens=100).status_code == 504
        eventually(lambda: 100 < the_counter(valkey_url, "tokens:").used < 130, 5)
        assert the_counter(valkey_url, "tokens:").reserved == 0


def test_a_client_that_leaves_gives_back_what_it_did_not_use(
    tmp_path: Path, database_url: str, valkey_url: str, upstream: ModelServer
) -> None:
    release = limited(upstream, limit("tokens", "tokens", 100_000))
    upstream.behaviour = msgspec.structs.replace(upstream.behaviour, inter_token=Constant(0.1))
    with serving(tmp_path, release, database_url, valkey_url) as gateway:
        body = {"model": "plain", "messages": USER, "stream": True, "max_tokens": 5000}
        with gateway.client() as client, client.stream("POST", CHAT, json=body) as answer:
            parts = answer.iter_bytes()
            next(parts)
            assert the_counter(valkey_url, "tokens:").reserved > 5000
        receipt = gateway.receipts(1)[0]
        assert receipt.outcome == "client_gone"
        assert receipt.usage is not None
        used = receipt.usage.prompt + receipt.usage.completion
        eventually(lambda: the_counter(valkey_url, "tokens:").reserved == 0, 5)
        assert the_counter(valkey_url, "tokens:").used == used < 100


def test_a_models_own_limit_sends_requests_to_its_fallback(
    tmp_path: Path,
    database_url: str,
    valkey_url: str,
    upstream: ModelServer,
    spare: ModelServer,
) -> None:
    release = limited(upstream, limit("small", "requests", 2, models=("small",)), spare=spare)
    with serving(tmp_path, release, database_url, valkey_url) as gateway:
        models = [ask(gateway, "rescued").headers["x-tidegate-model"] for _ in range(3)]
        assert models == ["small", "small", "spare"]
        assert ask(gateway, "plain").status_code == 429, "there nothing else may answer"
        assert the_counter(valkey_url, "small:").used == 2


def test_money_is_never_counted_as_nothing(
    tmp_path: Path, database_url: str, valkey_url: str, upstream: ModelServer
) -> None:
    release = limited(upstream, limit("spend", "dollars", 10, on_outage="closed"))
    with serving(tmp_path, release, database_url, valkey_url) as gateway:
        answer = ask(gateway, "unpriced")
        assert (answer.status_code, error(answer)["code"]) == (503, "price_unknown")
        assert len(upstream.requests) == 0
        assert ask(gateway, "plain").status_code == 200


@pytest.mark.parametrize("unit", ["requests", "tokens", "dollars"])
def test_each_scope_counts_by_itself(
    tmp_path: Path,
    database_url: str,
    valkey_url: str,
    upstream: ModelServer,
    spare: ModelServer,
    unit: str,
) -> None:
    """Each limit has room for one request; the key, tenant, route or model beside it is no part
    of that."""
    # 65 to 70 tokens at worst, of which an answer takes 10 or more
    amount = {"requests": 1, "tokens": 72, "dollars": 135e-6}[unit]
    release = limited(
        upstream,
        limit("by-key", unit, amount, per="key", routes=("plain",)),
        limit("by-tenant", unit, amount, per="tenant", routes=("private",)),
        limit("by-route", unit, amount, per="route", routes=("rescued", "held")),
        limit("by-model", unit, amount, per="model", routes=("hedged", "hedged-alone")),
        spare=spare,
    )
    with psycopg.connect(database_url) as connection:
        twin = create_key(connection, name="twin", tenant="acme").token
        other = create_key(connection, name="other", tenant="umbrella").token

    with serving(tmp_path, release, database_url, valkey_url) as gateway:
        mine = gateway.key

        def refused(route: str, key: str) -> str | None:
            """The limit that refused; None when an answer came."""
            body = {"model": route, "messages": USER, "max_tokens": 60}
            headers = {"authorization": f"Bearer {key}"}
            answer = httpx.post(gateway.url + CHAT, json=body, headers=headers, timeout=20)
            if answer.status_code == 429:
                assert error(answer)["code"] == f"limit_{unit}"
                return str(error(answer)["message"])
            assert answer.status_code == 200, answer.text
            return None

        def once(route: str, key: str, name: str) -> None:
            """One answer, and then no more."""
            assert refused(route, key) is None
            eventually(lambda: all(one.reserved == 0 for one in counters(valkey_url).values()), 5)
            assert name in (refused(route, key) or "")

        once("plain", mine, "by-key")
        once("plain", twin, "by-key")
        once("private", mine, "by-tenant")
        assert "by-tenant" in (refused("private", twin) or "")
        once("private", other, "by-tenant")
        once("rescued", mine, "by-route")
        assert "by-route" in (refused("rescued", other) or "")
        once("held", other, "by-route")
        once("hedged-alone", mine, "by-model")
        once("hedged", other, "by-model")  # its first model has nothing left, its second has
        assert [one.model for one in gateway.receipts(18)[-2:]] == ["spare", None]


def test_64_callers_over_4_workers_and_two_gateways_never_pass_a_budget(
    tmp_path: Path, database_url: str, valkey_url: str, upstream: ModelServer
) -> None:
    """Each request may use 12 tokens at worst by the estimate; what it really uses is settled."""
    most = 1000
    release = limited(upstream, limit("tokens", "tokens", most))
    with (
        serving(tmp_path / "a", release, database_url, valkey_url, workers=2) as first,
        serving(tmp_path / "b", release, database_url, valkey_url, workers=2) as second,
    ):
        gateways = [first, second]

        def caller(number: int) -> collections.Counter[int]:
            statuses: collections.Counter[int] = collections.Counter()
            with gateways[number % 2].client() as client:
                for turn in range(6):
                    body = {"model": "plain", "messages": USER, "max_tokens": 24}
                    body["stream"] = turn % 2 == 1
                    statuses[client.post(CHAT, json=body).status_code] += 1
            return statuses

        with concurrent.futures.ThreadPoolExecutor(64) as pool:
            statuses = sum(pool.map(caller, range(64)), collections.Counter())
        receipts = first.receipts(192) + second.receipts(192)
        used = [r.usage.prompt + r.usage.completion for r in receipts if r.usage]
        assert statuses[200] == len(used)
        assert statuses[429] == 64 * 6 - len(used) > 0
        assert sum(used) <= most + max(used)
        assert sum(used) > most / 2, "what was given back was reserved again"
        eventually(lambda: the_counter(valkey_url, "tokens:").reserved == 0, 5)
        assert the_counter(valkey_url, "tokens:").used == sum(used)


def test_what_a_killed_worker_has_reserved_returns_by_itself(
    tmp_path: Path, database_url: str, valkey_url: str, upstream: ModelServer
) -> None:
    timeouts = msgspec.structs.replace(TIMEOUTS, total=2.0, first_token=2.0)
    release = limited(upstream, limit("tokens", "tokens", 6000), timeouts=timeouts)
    upstream.script = Script.of("hang first=1")
    with serving(tmp_path, release, database_url, valkey_url) as gateway:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            cut = pool.submit(lambda: ask(gateway, max_tokens=5000))
            eventually(lambda: len(upstream.requests) == 1, 5)
            os.kill(workers(gateway)[0].pid, signal.SIGKILL)
            assert cut.exception(10) is not None
        state = the_counter(valkey_url, "tokens:")
        assert state.reserved > 5000
        eventually(lambda: serves_again(gateway), 20)
        refused = ask(gateway, max_tokens=5000)
        assert (refused.status_code, error(refused)["code"]) == (429, "limit_tokens")
        assert refused.headers["retry-after"] == "1", "it is only reserved"
        eventually(lambda: ask(gateway, max_tokens=5000).status_code == 200, 25)
        eventually(lambda: the_counter(valkey_url, "tokens:").reserved == 0, 5)


def serves_again(gateway: GatewayProcess) -> bool:
    try:
        return httpx.get(f"{gateway.url}/ready", timeout=1).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture
def own_valkey(app_folder: Path) -> Iterator[tuple[list[Child], str]]:
    """A Valkey that the test may hurt: the child stands first in the list."""
    spec = valkey_spec(app_folder)
    children = [Child(spec)]
    children[0].wait_ready()
    try:
        yield children, f"unix://{valkey_socket(app_folder)}"
    finally:
        for child in children:
            try:
                os.kill(child.pid, signal.SIGCONT)
            except ProcessLookupError:
                pass
            child.kill()


def test_given_valkey_away_or_frozen_then_each_limit_does_what_it_states(
    tmp_path: Path,
    database_url: str,
    own_valkey: tuple[list[Child], str],
    upstream: ModelServer,
    app_folder: Path,
) -> None:
    children, url = own_valkey
    release = limited(
        upstream,
        limit("open-rate", "requests", 1000, routes=("plain", "private"), on_outage="open"),
        limit("closed-money", "dollars", 10, routes=("private",), on_outage="closed"),
    )
    environment = {"TIDEGATE_VALKEY_DEADLINE": "200ms"}
    with serving(tmp_path, release, database_url, url, environment=environment) as gateway:
        log = gateway.state / "log" / "gateway-1.log"

        def stands() -> None:
            for _ in range(12):
                # within the deadline of the route, or the one that passes would fail
                passed, refused = ask(gateway, "plain"), ask(gateway, "private")
                assert passed.status_code == 200
                assert (refused.status_code, error(refused)["code"]) == (503, "limits_unavailable")
                assert refused.headers["retry-after"] == "1"

        def recovers(times: int) -> None:
            eventually(lambda: ask(gateway, "private").status_code == 200, 10)
            assert log.read_text().count("limits are counted again") == times
            assert log.read_text().count("limits cannot be counted") == times

        assert ask(gateway, "private").status_code == 200
        os.kill(children[0].pid, signal.SIGSTOP)
        stands()
        os.kill(children[0].pid, signal.SIGCONT)
        recovers(1)
        # what passed uncounted was told when the store was back, where it had not been sent
        eventually(lambda: the_counter(url, "open-rate:").used >= 2, 5)
        children[0].kill()
        stands()
        children.insert(0, Child(valkey_spec(app_folder)))
        children[0].wait_ready()
        recovers(2)
        assert len(gateway.receipts(50)) >= 50


def test_given_valkey_away_at_the_start_then_each_limit_does_what_it_states_until_it_comes(
    tmp_path: Path,
    database_url: str,
    own_valkey: tuple[list[Child], str],
    upstream: ModelServer,
    app_folder: Path,
) -> None:
    children, url = own_valkey
    children[0].kill()
    release = limited(
        upstream,
        limit("open", "tokens", 100_000, routes=("plain",), on_outage="open"),
        limit("closed", "tokens", 100_000, routes=("private",), on_outage="closed"),
    )
    with serving(tmp_path, release, database_url, url) as gateway:
        assert ask(gateway, "plain").status_code == 200
        refused = ask(gateway, "private")
        assert (refused.status_code, error(refused)["code"]) == (503, "limits_unavailable")
        assert len(upstream.requests) == 1
        children.insert(0, Child(valkey_spec(app_folder)))
        children[0].wait_ready()
        eventually(lambda: ask(gateway, "private").status_code == 200, 10)
        assert ask(gateway, "plain").status_code == 200
        receipts = [one for one in gateway.receipts(4) if one.usage is not None]
        passed = [one for one in receipts if one.route == "plain"]
        used = sum(one.usage.prompt + one.usage.completion for one in passed if one.usage)
        # what passed uncounted is counted now
        eventually(lambda: holds(url, "open:", used), 5)


def test_a_route_without_limits_is_served_as_before(
    tmp_path: Path, database_url: str, valkey_url: str, upstream: ModelServer
) -> None:
    release = limited(upstream, limit("rate", "requests", 1, routes=("private",)))
    with serving(tmp_path, release, database_url, valkey_url) as gateway:
        answers = [ask(gateway, "plain") for _ in range(3)]
        assert {answer.status_code for answer in answers} == {200}
        assert not any(name.startswith("x-ratelimit") for name in answers[0].headers)
        assert counters(valkey_url) == {}


def test_given_a_broken_key_of_another_kind_then_the_limit_counts_as_away(
    tmp_path: Path, database_url: str, valkey_url: str, upstream: ModelServer
) -> None:
    """Somebody else's value under a counter's name: the limit does what it states, nothing 500s."""
    release = limited(upstream, limit("rate", "requests", 5, every=60.0, on_outage="closed"))
    with serving(tmp_path, release, database_url, valkey_url) as gateway:

        async def spoil() -> None:
            store = ValkeyClient(valkey_url, deadline=2.0)
            await store.start()
            await store.call(b"SET", b"tg:l:rate:r:b:app", b"?")
            await store.stop()

        asyncio.run(spoil())
        answer = ask(gateway)
        assert (answer.status_code, error(answer)["code"]) == (503, "limits_unavailable")
