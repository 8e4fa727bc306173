"""The simulated server keeps to both dialects, through the official clients and to the byte."""

from __future__ import annotations

import json
import socket
import statistics
import time
from collections.abc import Iterator
from itertools import pairwise

import anthropic
import httpx
import openai
import pytest

from tidegate import testing
from tidegate.base.errors import PoolError
from tidegate.testing import Constant, Echo, Exponential, ModelServer, ToolCall, Words

ASK = [{"role": "user", "content": "hello there"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "search",
        "parameters": {
            "type": "object",
            "properties": {"goal": {"enum": ["run", "lift"]}, "days": {"type": "integer"}},
            "required": ["goal", "days"],
        },
    },
}


def openai_client(server: ModelServer, key: str = "any") -> openai.OpenAI:
    return openai.OpenAI(base_url=server.base_url, api_key=key, max_retries=0, timeout=5)


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer(Words(5), cached_share=0.5, reasoning_tokens=2) as running:
        yield running


@pytest.fixture
def client(server: ModelServer) -> Iterator[openai.OpenAI]:
    with openai_client(server) as made:
        yield made


def chat(server: ModelServer, **more: object) -> httpx.Response:
    body = {"model": "m", "messages": ASK, **more}
    return httpx.post(f"{server.base_url}/chat/completions", json=body)


def test_the_door_names_what_is_there() -> None:
    assert sorted(testing.__all__) == testing.__all__
    assert all(hasattr(testing, name) for name in testing.__all__)


def test_answers_with_text_and_detailed_usage(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="m", messages=ASK)
    assert len((answer.choices[0].message.content or "").split()) == 5
    assert answer.choices[0].finish_reason == "stop"
    usage = answer.usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (5, 7, 12)
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens == 2
    assert usage.completion_tokens_details is not None
    assert usage.completion_tokens_details.reasoning_tokens == 2


def test_streams_the_same_words_and_usage_only_when_asked(client: openai.OpenAI) -> None:
    for asked in (True, False):
        options = {"stream_options": {"include_usage": True}} if asked else {}
        chunks = list(
            client.chat.completions.create(model="m", messages=ASK, stream=True, **options)  # type: ignore[call-overload]
        )
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert len(text.split()) == 5
        usages = [c.usage for c in chunks if c.usage]
        assert len(usages) == (1 if asked else 0)
        assert (chunks[-1].choices == []) is asked


def test_a_token_limit_cuts_and_says_so(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="m", messages=ASK, max_tokens=2)
    assert len((answer.choices[0].message.content or "").split()) == 2
    assert answer.choices[0].finish_reason == "length"


def test_echo_and_callables() -> None:
    with ModelServer(Echo()) as server:
        assert chat(server).json()["choices"][0]["message"]["content"] == "hello there"
    with ModelServer(lambda request: request["model"].upper()) as server:
        assert chat(server).json()["choices"][0]["message"]["content"] == "M"


@pytest.mark.parametrize("stream", [False, True])
def test_tool_calls_scripted_and_forced(stream: bool) -> None:
    forced = {"type": "function", "function": {"name": "search"}}
    for answer, more in (
        (ToolCall("search", {"goal": "run", "days": 1}), {}),
        (Words(3), {"tool_choice": forced}),
        (Words(3), {"tool_choice": "required"}),
    ):
        with ModelServer(answer) as server, openai_client(server) as client:
            given = client.chat.completions.create(
                model="m", messages=ASK, tools=[TOOL], stream=stream, **more
            )  # type: ignore[call-overload]
            if stream:
                calls = [
                    call
                    for chunk in given
                    for call in (chunk.choices[0].delta.tool_calls or [])
                    if chunk.choices
                ]
                name = calls[0].function.name
                arguments = "".join(call.function.arguments or "" for call in calls)
            else:
                assert given.choices[0].finish_reason == "tool_calls"
                call = given.choices[0].message.tool_calls[0]
                name, arguments = call.function.name, call.function.arguments
            assert name == "search"
            assert json.loads(arguments) == {"goal": "run", "days": 1}


def test_generated_answers_keep_to_a_json_schema(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"days": {"type": "array", "items": {"$ref": "#/$defs/day"}, "minItems": 2}},
        "required": ["days"],
        "$defs": {"day": {"type": "string", "minLength": 6}},
    }
    form = {"type": "json_schema", "json_schema": {"name": "plan", "schema": schema}}
    answer = client.chat.completions.create(model="m", messages=ASK, response_format=form)  # type: ignore[call-overload]
    assert json.loads(answer.choices[0].message.content) == {"days": ["text..", "text.."]}


def test_embeddings_are_unit_vectors_of_the_text_alone(client: openai.OpenAI) -> None:
    coded = client.embeddings.create(model="m", input=["a", "b"])
    plain = client.embeddings.create(model="m", input="a", encoding_format="float", dimensions=384)
    first, second = (entry.embedding for entry in coded.data)
    assert first == pytest.approx(plain.data[0].embedding, abs=1e-6)
    assert sum(x * x for x in first) == pytest.approx(1, abs=1e-4)
    assert abs(sum(x * y for x, y in zip(first, second, strict=True))) < 0.3


def test_the_anthropic_dialect(server: ModelServer) -> None:
    ask = {"model": "m", "max_tokens": 50, "messages": ASK, "system": "be brief"}
    with anthropic.Anthropic(base_url=server.url, api_key="k", max_retries=0) as client:
        message = client.messages.create(**ask)  # type: ignore[call-overload]
        assert message.stop_reason == "end_turn"
        assert len(message.content[0].text.split()) == 5
        assert (message.usage.input_tokens, message.usage.cache_read_input_tokens) == (4, 3)
        with client.messages.stream(**ask) as stream:  # type: ignore[arg-type]
            assert len("".join(stream.text_stream).split()) == 5
            assert stream.get_final_message().usage.output_tokens == 7
        tool = {"name": "search", "input_schema": TOOL["function"]["parameters"]}  # type: ignore[index]
        with client.messages.stream(
            **ask,  # type: ignore[arg-type]
            tools=[tool],
            tool_choice={"type": "tool", "name": "search"},
        ) as stream:
            final = stream.get_final_message()
        assert final.stop_reason == "tool_use"
        assert final.content[0].input == {"goal": "run", "days": 1}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "invalid_request"),
        (b"[]", 400, "invalid_request"),
        (b'{"messages":[{"role":"user","content":"x"}]}', 400, "invalid_request"),
        (b'{"model":"m"}', 400, "invalid_request"),
        (b'{"model":"m","messages":["x"]}', 400, "invalid_request"),
        (b'{"model":"m","messages":[{"role":"user"}],"n":2}', 400, "invalid_request"),
        (b'{"model":"m","messages":[{"role":"user"}],"max_tokens":0}', 400, "invalid_request"),
        (b'{"model":"gone","messages":[{"role":"user"}]}', 404, "model_not_found"),
    ],
)
def test_a_wrong_request_is_refused_as_a_provider_does(body: bytes, status: int, code: str) -> None:
    with ModelServer(models=("m",), any_model=False) as server:
        answer = httpx.post(f"{server.base_url}/chat/completions", content=body)
        assert answer.status_code == status
        assert answer.json()["error"]["code"] == code


def test_keys_models_health_and_unknown_addresses() -> None:
    with ModelServer(api_key="right", models=("a", "b")) as server:
        with openai_client(server, "wrong") as client, pytest.raises(openai.AuthenticationError):
            client.chat.completions.create(model="a", messages=ASK)
        with openai_client(server, "right") as client:
            assert [model.id for model in client.models.list()] == ["a", "b"]
        assert httpx.get(f"{server.url}/health").json() == {"status": "ok"}
        assert httpx.post(f"{server.url}/nowhere", json={}).status_code == 404


def test_what_is_no_http_is_refused_and_closed() -> None:
    with ModelServer() as server, socket.create_connection(("127.0.0.1", server.port)) as raw:
        raw.sendall(b"\x16\x03\x01 tls?\r\n\r\n")
        assert raw.makefile("rb").read().startswith(b"HTTP/1.1 400")


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    def bytes_of(seed: int) -> list[bytes]:
        with ModelServer(Words(8), seed=seed) as server:
            return [chat(server, stream=stream).content for stream in (False, True, False)]

    assert bytes_of(7) == bytes_of(7)
    assert bytes_of(7) != bytes_of(8)


def test_waits_are_those_of_the_distributions_and_nothing_is_held_back() -> None:
    # Waits are only bounded from below: a busy machine adds to them. What is held back would come
    # all at once.
    with (
        ModelServer(Words(9), first_token=1.0, inter_token=Constant(0.05)) as server,
        openai_client(server) as client,
    ):
        start = time.monotonic()
        stream = client.chat.completions.create(model="m", messages=ASK, stream=True)
        assert server.requests[0].tokens_sent == 0  # the headers do not wait for the first token
        times = [time.monotonic() - start for c in stream if c.choices[0].delta.content]
    assert times[0] >= 0.99
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert statistics.median(gaps) >= 0.02
    assert times[-1] >= 0.99 + 8 * 0.05 - 0.01


def test_an_answer_that_is_not_streamed_takes_as_long_as_its_tokens() -> None:
    with ModelServer(Words(5), first_token=0.1, inter_token=0.02) as server:
        start = time.monotonic()
        chat(server)
        assert time.monotonic() - start >= 0.17


def test_requests_are_recorded_with_headers_body_and_end(server: ModelServer) -> None:
    httpx.post(
        f"{server.base_url}/chat/completions?x=1",
        json={"model": "m", "messages": ASK, "stream": True},
        headers={"Traceparent": "00-1-2-01"},
    )
    [seen] = server.requests
    assert (seen.index, seen.method, seen.path) == (0, "POST", "/v1/chat/completions?x=1")
    assert seen.headers["traceparent"] == "00-1-2-01"
    assert seen.json["messages"] == ASK
    assert (seen.status, seen.tokens_sent, seen.client_closed) == (200, 5, None)
    assert seen.completed is not None
    counts = server.statistics()
    assert (counts.requests, counts.completed, counts.in_flight) == (1, 1, 0)
    server.reset()
    assert server.requests == ()
    assert server.statistics().requests == 0


def test_a_client_that_goes_away_is_seen() -> None:
    with ModelServer(Words(50), inter_token=0.05) as server:
        with (
            openai_client(server) as client,
            client.chat.completions.create(model="m", messages=ASK, stream=True) as stream,
        ):
            next(iter(stream))
            assert server.statistics().in_flight == 1
            assert server.open_connections == 1
        server.wait_until(lambda s: s.requests[0].client_closed is not None, timeout=1)
        assert server.requests[0].tokens_sent < 50
        assert server.statistics().client_closed == 1
        server.wait_until(lambda s: s.open_connections == 0)


def test_wait_until_gives_up_with_words(server: ModelServer) -> None:
    with pytest.raises(TimeoutError, match="requests=0"):
        server.wait_until(lambda s: bool(s.requests), timeout=0.02)


def test_stop_refuses_and_start_serves_on_the_same_port() -> None:
    server = ModelServer().start()
    port = server.port
    assert chat(server).status_code == 200
    server.stop()
    with pytest.raises(httpx.ConnectError):
        chat(server)
    with server:
        assert server.port == port
        assert chat(server).status_code == 200


def test_a_taken_port_is_named() -> None:
    with ModelServer() as first, pytest.raises(PoolError) as error:
        ModelServer(port=first.port).start()
    assert error.value.code == "port_taken"


def test_many_requests_on_one_connection_also_sent_ahead() -> None:
    body = json.dumps({"model": "m", "messages": ASK}).encode()
    request = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b"
    one = request % (len(body), body)
    with (
        ModelServer(Echo(), first_token=Exponential(0.005)) as server,
        socket.create_connection(("127.0.0.1", server.port)) as raw,
    ):
        raw.sendall(one * 19 + one.replace(b"host: x", b"host: x\r\nconnection: close"))
        received = raw.makefile("rb").read()
        assert received.count(b"HTTP/1.1 200 OK") == 20
        assert [f'"chatcmpl-{n:08x}"'.encode() in received for n in range(20)] == [True] * 20
        assert server.statistics().connections == 1


def test_a_reader_that_is_slow_holds_the_answer_back_and_loses_nothing() -> None:
    text = "word " * 300_000
    with ModelServer(text) as server, httpx.Client(timeout=30) as client:
        body = {"model": "m", "messages": ASK}
        with client.stream("POST", f"{server.base_url}/chat/completions", json=body) as answer:
            time.sleep(0.2)
            said = json.loads(answer.read())["choices"][0]["message"]["content"]
    assert said == text
