"""A key is replaced while streams run: added, tried with a share, drained, revoked, nobody cut."""

from __future__ import annotations

import asyncio
from collections import Counter

from tests.gateway.calls import chat_request, new_journal, plans_of, within
from tests.gateway.loops import run, until
from tests.gateway.releases import sample_release
from tidegate.gateway.call import ask_stream
from tidegate.gateway.render import render
from tidegate.gateway.targets import KeySetting, Target, make_target
from tidegate.gateway.targets.keys import KeyStatistics
from tidegate.testing import ModelServer, Refuse, Script, Step

OLD, NEW = "key-that-was", "key-that-comes"
CLIENTS = 8


class Load:
    """Clients that ask for one stream after the other until they are told to end."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.plan = plans_of()["plain"]
        self.ended = 0
        self.stop = False

    async def client(self) -> None:
        while not self.stop:
            request, on = chat_request(self.plan, stream=True), self.plan.terms
            ask = (await render(request)).ask
            stream = await ask_stream(new_journal(), ask, [self.target], on, within(30.0))
            while await stream.next():
                pass
            stream.release()
            self.ended += 1

    async def more(self, count: int) -> None:
        """Until so many more streams have ended."""
        enough = self.ended + count
        await until(lambda: self.ended >= enough, 30)


def keys(target: Target) -> dict[str | None, KeyStatistics]:
    now = asyncio.get_running_loop().time()
    return {one.state: one for one in target.keys.statistics(now)}


def seen(server: ModelServer) -> Counter[str | None]:
    found = Counter(request.key for request in server.requests)
    server.reset()
    return found


def test_a_key_is_replaced_under_load_and_no_stream_is_cut() -> None:
    async def main(server: ModelServer) -> None:
        model = sample_release(server.base_url).models["small"]
        target = make_target(model, server.base_url, (OLD,))
        load = Load(target)
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(load.client())
            await load.more(20)
            assert set(seen(server)) == {OLD}

            target.set_keys([KeySetting(OLD), KeySetting(NEW, "canary", 0.25)])
            await load.more(200)
            shares = seen(server)
            assert 20 <= shares[NEW] <= 90, "about a quarter"
            assert shares[OLD] > shares[NEW]

            target.set_keys([KeySetting(OLD, "draining"), KeySetting(NEW)])
            await until(lambda: not keys(target)["draining"].in_flight, 30)
            seen(server)
            server.script = Script.of(Step(fault=Refuse.key_revoked(), key=OLD))

            target.set_keys([KeySetting(NEW)])
            await load.more(40)
            assert set(seen(server)) == {NEW}
            load.stop = True
        (left,) = target.keys.statistics(0.0)
        assert (left.state, left.in_flight) == ("active", 0)
        target.pool.close()

    with ModelServer(answer="one two three four five", inter_token=0.005) as server:
        run(main(server))
