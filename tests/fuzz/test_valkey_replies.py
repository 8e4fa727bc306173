"""Whatever answers at Valkey's address: every command ends in a reply, an error or ValkeyDown."""

from __future__ import annotations

import asyncio

import hiredis
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.budget import fuzz
from tests.fuzz.inputs import broken_bytes, pieces_of
from tests.fuzz.wires import Wire, turns
from tests.gateway.loops import run
from tidegate.stores.valkey_client import ValkeyDown, _Resp

SEEDS = [
    b"+OK\r\n$5\r\nhello\r\n:7\r\n",
    b"*3\r\n:1\r\n$-1\r\n*1\r\n+a\r\n-ERR no\r\n",
    b"%1\r\n+k\r\n~1\r\n#t\r\n,1.5\r\n_\r\n(123\r\n>2\r\n+push\r\n+x\r\n",
    b"-NOSCRIPT no\r\n-LOADING wait\r\n",
]
TOKENS = [
    b"\r\n",
    b"$",
    b"*",
    b"-1",
    b"$99999999999\r\n",
    b"*1\r\n" * 200,
    b"\x00",
    b"HTTP/1.1 400",
]


@fuzz(300)
@given(
    st.one_of(broken_bytes(SEEDS, TOKENS), st.binary(max_size=40)).flatmap(pieces_of),
    st.integers(0, 4),
)
def test_every_command_ends(pieces: list[bytes], commands: int) -> None:
    async def main() -> None:
        protocol = _Resp(deadline=60.0)
        wire = Wire(protocol)
        waiting = [protocol.send((b"GET", str(n))) for n in range(commands)]
        await turns(1)
        await wire.feed(pieces)
        wire.lose()
        await turns()
        for answer in await asyncio.gather(*waiting, return_exceptions=True):
            if isinstance(answer, BaseException):
                assert isinstance(answer, (ValkeyDown, hiredis.ReplyError))
        assert protocol.lost.done()
        assert not protocol.pending

    run(main())
