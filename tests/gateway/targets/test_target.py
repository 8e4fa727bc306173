"""Credentials: sent with every request as they are, or a signature over each request."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging

import pytest

from tests.gateway.calls import chat_request, new_journal, plans_of, within
from tests.gateway.loops import run
from tests.gateway.releases import sample_release
from tests.gateway.wire.raw import raw_server
from tidegate.base import ReleaseError
from tidegate.gateway.call import ask_whole
from tidegate.gateway.ports import UnsignedRequest
from tidegate.gateway.providers.openai import OpenAIProvider
from tidegate.gateway.targets import KeySetting, Target
from tidegate.gateway.wire.http_server import HeaderList
from tidegate.gateway.wire.upstream import ConnectionPool, parse_origin

MODEL = sample_release("http://127.0.0.1:9/v1").models["small"]
PLAN = plans_of()["plain"]
SECRET = "wJalrXUtnFEMI-K7MDENG-bPxRfiCYEXAMPLEKEY"
BODY = b'{"choices":[{"finish_reason":"stop","message":{"content":"hi"}}]}'
OK = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)


def signature(secret: str, method: str, path: str, host: str, at: str, body: bytes) -> str:
    """As AWS Signature Version 4 goes about it: a key derived from the day, over the canonical
    request."""
    canonical = "\n".join((method, path, host, at, hashlib.sha256(body).hexdigest()))
    day = hmac.new(f"AWS4{secret}".encode(), at[:8].encode(), "sha256").digest()
    return hmac.new(day, canonical.encode(), "sha256").hexdigest()


class SigningProvider(OpenAIProvider):
    """A provider that wants each request signed."""

    signs_each = True

    def sign(self, request: UnsignedRequest, key: str | None) -> HeaderList:
        at = f"{int(request.at * 1000)}"
        path = request.path
        signed = signature(key or "", request.method, path, request.authority, at, request.body)
        return [("x-date", at), ("authorization", f"HMAC {signed}")]


async def received(
    provider: OpenAIProvider, key: str, count: int, instead: str | None = None
) -> tuple[Target, list[tuple[dict[str, str], str, bytes]]]:
    """A target, and headers, path and body of ``count`` requests that it sent; ``instead``: a key
    that takes the place of ``key`` before."""
    seen: list[tuple[dict[str, str], str, bytes]] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            line, *lines = head.strip().split("\r\n")
            headers = dict(one.split(": ", 1) for one in lines)
            body = await reader.readexactly(int(headers["content-length"]))
            seen.append((headers, line.split(" ")[1], body))
            writer.write(OK)

    async with raw_server(talk) as server:
        target = target_of(provider, key, port=server.port)
        if instead is not None:
            target.set_keys([KeySetting(instead)])
        for n in range(count):
            ask = chat_request(PLAN, messages=[{"role": "user", "content": f"question {n}"}]).ask
            await ask_whole(new_journal(), ask, [target], PLAN.terms, within())
        target.pool.close()
    return target, seen


def target_of(provider: OpenAIProvider, key: str, port: int = 9) -> Target:
    pool = ConnectionPool(parse_origin(f"http://127.0.0.1:{port}/base/v1"))
    return Target(MODEL, provider, pool, [key])


def test_each_request_is_signed_over_what_is_sent(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    target, (first, second) = run(received(SigningProvider(), SECRET, 2))
    for headers, path, body in (first, second):
        assert path == "/base/v1/chat/completions"
        expected = signature(SECRET, "POST", path, headers["host"], headers["x-date"], body)
        assert headers["authorization"] == f"HMAC {expected}"
    assert first[0]["authorization"] != second[0]["authorization"]
    shown = repr(vars(target)) + repr(target.keys.ready(0.0)[0].sign) + caplog.text
    assert SECRET not in shown


def test_a_key_that_is_replaced_signs_from_then_on() -> None:
    _, sent = run(received(SigningProvider(), SECRET, 1, instead="another-key"))
    ((headers, path, body),) = sent
    expected = signature("another-key", "POST", path, headers["host"], headers["x-date"], body)
    assert headers["authorization"] == f"HMAC {expected}"


def test_a_plain_key_is_written_once_for_all_requests() -> None:
    target, sent = run(received(OpenAIProvider(), "sk-plain", 2))
    (credential,) = target.keys.ready(0.0)
    assert credential.sign is None
    assert b"authorization: Bearer sk-plain\r\n" in credential.head
    assert [headers["authorization"] for headers, _, _ in sent] == ["Bearer sk-plain"] * 2


@pytest.mark.parametrize("key", ["a\r\nb", "a\nb", "a\0b"])
def test_a_key_that_no_header_can_hold_is_refused(key: str) -> None:
    with pytest.raises(ReleaseError) as raised:
        target_of(OpenAIProvider(), key)
    assert raised.value.code == "credential_invalid"
    assert key not in str(raised.value)
