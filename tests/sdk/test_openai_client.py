"""Trace context on requests of the official OpenAI client."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable

import httpx
import openai
import pytest
from openai._base_client import BaseClient

from tests.sdk.conftest import Door, ModelServer
from tidegate import sdk
from tidegate.sdk import journey, openai_client, stage, trace_headers

HELLO = [{"role": "user", "content": "hello"}]


def client(server: ModelServer, retries: int = 0) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url + "/v1", api_key="k", max_retries=retries)


def asyncclient(server: ModelServer) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="k", max_retries=0)


def chat(server: ModelServer) -> None:
    with client(server) as c:
        c.chat.completions.create(model="m", messages=HELLO)


def chat_stream(server: ModelServer) -> None:
    with (
        client(server) as c,
        c.chat.completions.create(model="m", messages=HELLO, stream=True) as s,
    ):
        assert [chunk.choices[0].delta.content for chunk in s] == ["hello"]


def embeddings(server: ModelServer) -> None:
    with client(server) as c:
        c.embeddings.create(model="m", input="x", encoding_format="float")


def legacy_httpx(server: ModelServer) -> None:
    with openai.OpenAI(base_url=server.url + "/v1", api_key="k", http_client=httpx.Client()) as c:
        c.chat.completions.create(model="m", messages=HELLO)


async def async_chat(server: ModelServer) -> None:
    async with asyncclient(server) as c:
        await c.chat.completions.create(model="m", messages=HELLO)


async def async_stream(server: ModelServer) -> None:
    async with asyncclient(server) as c:
        stream = await c.chat.completions.create(model="m", messages=HELLO, stream=True)
        assert [chunk.choices[0].delta.content async for chunk in stream] == ["hello"]


CALLS: list[Callable[[ModelServer], Awaitable[None] | None]] = [
    chat,
    chat_stream,
    embeddings,
    legacy_httpx,
    async_chat,
    async_stream,
]


def make(call: Callable[[ModelServer], Awaitable[None] | None], server: ModelServer) -> None:
    if asyncio.iscoroutinefunction(call):
        asyncio.run(call(server))
    else:
        call(server)


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
@pytest.mark.usefixtures("started")
def test_the_gateway_is_told_trace_and_journey(
    call: Callable[[ModelServer], None], gateway: ModelServer, door: Door
) -> None:
    with journey("get-plan"), stage("model") as span:
        make(call, gateway)
        ids = span.get_span_context()
    (headers,) = gateway.headers
    version, trace_id, parent_id, flags = headers["traceparent"].split("-")
    assert (version, trace_id, parent_id) == ("00", f"{ids.trace_id:032x}", f"{ids.span_id:016x}")
    assert int(flags, 16) & 1  # sampled
    assert headers["baggage"] == "tidegate.journey=get-plan"
    assert door.one("model").span_id.hex() == headers["traceparent"][36:52]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
@pytest.mark.usefixtures("started")
def test_a_third_party_is_told_nothing(
    call: Callable[[ModelServer], None], open_model: Callable[[], ModelServer]
) -> None:
    other = open_model()
    with journey("get-plan"), stage("model"):
        make(call, other)
    (headers,) = other.headers
    assert "traceparent" not in headers
    assert "baggage" not in headers


def test_a_client_made_before_start(door: Door, gateway: ModelServer) -> None:
    with client(gateway) as early:
        sdk.start(door.url, token=door.token, gateway_url=gateway.url)
        with journey("early"):
            early.chat.completions.create(model="m", messages=HELLO)
    assert gateway.headers[0]["baggage"] == "tidegate.journey=early"


@pytest.mark.usefixtures("started")
def test_a_retry_carries_it_too(gateway: ModelServer) -> None:
    gateway.fail_first = 1
    with client(gateway, retries=1) as c, journey("again"):
        c.chat.completions.create(model="m", messages=HELLO)
    assert len(gateway.headers) == 2
    assert gateway.headers[0]["traceparent"] == gateway.headers[1]["traceparent"]


@pytest.mark.usefixtures("started")
def test_the_app_s_own_headers_stay(gateway: ModelServer) -> None:
    mine = {"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"}
    with client(gateway) as c, journey("own"):
        c.chat.completions.create(model="m", messages=HELLO, extra_headers=mine)
    assert gateway.headers[0]["traceparent"] == mine["traceparent"]


@pytest.mark.usefixtures("started")
def test_outside_of_a_journey_nothing_is_added(gateway: ModelServer) -> None:
    chat(gateway)
    assert "traceparent" not in gateway.headers[0]
    assert "baggage" not in gateway.headers[0]


def test_start_twice_hooks_once_and_shutdown_gives_the_client_back(
    door: Door, gateway: ModelServer
) -> None:
    before = BaseClient._build_request
    for _ in range(2):
        sdk.start(door.url, token=door.token, gateway_url=gateway.url)
    assert BaseClient._build_request.__wrapped__ is before  # type: ignore[attr-defined]
    sdk.shutdown()
    sdk.shutdown()
    assert BaseClient._build_request is before
    with journey("over"):
        chat(gateway)
    assert "baggage" not in gateway.headers[0]


def test_a_later_wrapper_of_somebody_else_is_left_alone(
    door: Door, gateway: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = BaseClient._build_request
    sdk.start(door.url, token=door.token, gateway_url=gateway.url)
    ours = BaseClient._build_request

    def theirs(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        return ours(self, *args, **kwargs)

    BaseClient._build_request = theirs  # type: ignore[method-assign]
    sdk.shutdown()
    assert BaseClient._build_request is theirs
    sdk.start(door.url, token=door.token, gateway_url=gateway.url)
    with journey("again"):
        chat(gateway)
    assert gateway.headers[0]["baggage"] == "tidegate.journey=again"
    sdk.shutdown()
    BaseClient._build_request = before  # type: ignore[method-assign]


@pytest.mark.usefixtures("started")
def test_headers_for_other_clients(gateway: ModelServer) -> None:
    url = gateway.url + "/v1/chat/completions"
    assert trace_headers(url) == {}
    with journey("plan, déjà vu") as span:
        headers = trace_headers(url)
        assert trace_headers("https://elsewhere.example/") == {}
        assert trace_headers() == headers
    assert f"{span.get_span_context().span_id:016x}" in headers["traceparent"]
    assert headers["baggage"] == "tidegate.journey=plan%2C%20d%C3%A9j%C3%A0%20vu"
    assert headers["baggage"].isascii()


def test_an_openai_that_cannot_be_hooked_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.delattr(BaseClient, "_build_request")
        assert openai_client.install() is False
    assert "cannot be hooked" in caplog.text


WITHOUT_OPENAI = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "openai":
            raise ModuleNotFoundError(name)
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name == "openai" else found(name, *a)
from tidegate import sdk
sdk.start("http://127.0.0.1:9", gateway_url="http://127.0.0.1:9")
with sdk.journey("x"):
    assert sdk.trace_headers("http://127.0.0.1:9/v1")
assert "openai" not in sys.modules
"""


def test_openai_need_not_be_installed() -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_OPENAI], check=True, timeout=60)
