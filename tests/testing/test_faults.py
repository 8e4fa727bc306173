"""Each fault breaks an answer in its own way, in both dialects, streamed and not."""

from __future__ import annotations

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime

import httpx
import pytest

from tidegate.testing import (
    BadBody,
    Cut,
    Drip,
    DuplicateEvent,
    ErrorEvent,
    Fault,
    Filtered,
    Hang,
    Hold,
    InvalidEvent,
    MissingDone,
    MissingField,
    ModelServer,
    Mutate,
    NoUsage,
    Refuse,
    Reset,
    Script,
    Silence,
    SlowFirstToken,
    SlowTokens,
    Stall,
    Step,
    ToolCall,
    UsageWithChoices,
    Words,
)

PATHS = ("/v1/chat/completions", "/v1/messages")
ENDINGS = {PATHS[0]: b"data: [DONE]", PATHS[1]: b"event: message_stop"}
TOKENS = {PATHS[0]: b'"content":"', PATHS[1]: b'"text_delta"'}


class Heard:
    """The bytes of one answer until the connection ended or ``patience`` seconds were silent."""

    def __init__(self, server: ModelServer, path: str, stream: bool, patience: float = 0.3) -> None:
        body = json.dumps(
            {
                "model": "m",
                "max_tokens": 99,
                "messages": [{"role": "user", "content": "hi"}],
                "stream": stream,
                "stream_options": {"include_usage": True},
            }
        ).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
        self.data, self.end = b"", "closed"
        start = time.monotonic()
        with socket.create_connection(("127.0.0.1", server.port)) as raw:
            raw.settimeout(patience)
            raw.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
            try:
                while part := raw.recv(65536):
                    self.data += part
            except TimeoutError:
                self.end = "silent"
            except ConnectionResetError:
                self.end = "reset"
        self.seconds = time.monotonic() - start
        self.tokens = max(0, self.data.count(TOKENS[path]) - (path == PATHS[0] and stream))
        self.finished = ENDINGS[path] in self.data
        self.whole = self.data.endswith(b"0\r\n\r\n")


def hear(fault: Fault, path: str, stream: bool, patience: float = 0.3) -> Heard:
    with ModelServer(Words(6), script=Script.of(fault)) as server:
        heard = Heard(server, path, stream, patience)
        assert server.requests[0].fault == fault.name
        assert server.statistics().faults == {fault.name: 1}
        return heard


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [True, False])
def test_before_the_first_byte(path: str, stream: bool) -> None:
    assert (hear(Reset(), path, stream).end, hear(Reset(), path, stream).data) == ("reset", b"")
    hung = hear(Hang(), path, stream)
    assert (hung.end, hung.data) == ("silent", b"")
    silent = hear(Silence(), path, stream)
    assert silent.end == "silent"
    assert silent.data.startswith(b"HTTP/1.1 200 OK")
    assert silent.data.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("path", PATHS)
def test_a_cut_stream_has_no_ending(path: str) -> None:
    for how, end in (("close", "closed"), ("reset", "reset"), ("clean", "closed")):
        heard = hear(Cut(2, how), path, True)  # type: ignore[arg-type]
        assert (heard.end, heard.tokens, heard.finished) == (end, 2, False)
        assert heard.whole is (how == "clean")
    assert hear(Cut(99), path, True).tokens == 6


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("how", ["close", "clean"])
def test_a_cut_body_is_shorter_than_it_said(path: str, how: str) -> None:
    ask = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    with ModelServer(Words(6), script=Script.of(f"cut how={how}")) as server:
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.post(server.url + path, json=ask)
        assert server.requests[0].status == 200


@pytest.mark.parametrize("path", PATHS)
def test_a_stall_keeps_the_connection_open(path: str) -> None:
    heard = hear(Stall(3), path, True)
    assert (heard.end, heard.tokens, heard.finished, heard.whole) == ("silent", 3, False, False)
    assert hear(Stall(3), path, False).end == "silent"


@pytest.mark.parametrize("path", PATHS)
def test_an_invalid_event_is_followed_by_the_rest(path: str) -> None:
    heard = hear(InvalidEvent(2), path, True)
    assert heard.finished
    events = [x for x in heard.data.split(b"\n") if x.startswith(b"data: {")]
    broken = [x for x in events if not _is_json(x[6:])]
    assert len(broken) == 1
    plain = hear(InvalidEvent(2), path, False)
    assert not _is_json(plain.data.partition(b"\r\n\r\n")[2])


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("path", PATHS)
def test_a_missing_ending_and_an_error_inside_a_200(path: str) -> None:
    missing = hear(MissingDone(), path, True)
    assert (missing.tokens, missing.finished, missing.whole) == (6, False, True)
    error = hear(ErrorEvent(2, "boom"), path, True)
    assert error.data.startswith(b"HTTP/1.1 200 OK")
    assert (error.tokens, error.finished, error.whole) == (2, False, True)
    assert b'"message":"boom"' in error.data
    plain = hear(ErrorEvent(), path, False).data
    assert plain.startswith(b"HTTP/1.1 200 OK")
    assert b'"error"' in plain


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [True, False])
def test_slow_answers_are_whole(path: str, stream: bool) -> None:
    late = hear(SlowFirstToken(0.2), path, stream)
    assert late.seconds > 0.19  # loop timers may fire a clock tick early
    with ModelServer(Words(6)) as server:
        straight = Heard(server, path, stream).data
        server.reset()
        server.script = Script.of(Drip(0.001, 20))
        dripped = Heard(server, path, stream)
    assert dripped.data == straight
    assert dripped.seconds > 0.005


@pytest.mark.parametrize("stream", [True, False])
def test_usage_left_out_or_moved(stream: bool) -> None:
    assert b'"prompt_tokens"' not in hear(NoUsage(), PATHS[0], stream).data
    assert b'"output_tokens"' not in hear(NoUsage(), PATHS[1], stream).data
    moved = hear(UsageWithChoices(), PATHS[0], True).data
    assert b'"choices":[]' not in moved
    [line] = [x for x in moved.split(b"\n") if b'"prompt_tokens"' in x]
    assert json.loads(line[6:])["choices"][0]["finish_reason"] == "stop"


def refusal(fault: Fault, path: str) -> httpx.Response:
    with ModelServer(script=Script.of(fault)) as server:
        ask = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
        return httpx.post(server.url + path, json=ask)


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (Refuse(retry_after=2), 429, "rate_limit_exceeded"),
        (Refuse(status=500), 500, "server_error"),
        (Refuse(status=503), 503, "overloaded"),
        (Refuse(status=401), 401, "invalid_api_key"),
        (Refuse(status=418), 418, "server_error"),
        (Refuse(status=429, code="insufficient_quota"), 429, "insufficient_quota"),
        (Refuse.context_length(), 400, "context_length_exceeded"),
        (Refuse.content_policy(), 400, "content_policy_violation"),
    ],
)
def test_refusals_have_the_providers_shape(fault: Refuse, status: int, code: str) -> None:
    answer = refusal(fault, PATHS[0])
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.headers.get("retry-after") == ("2" if fault.retry_after else None)
    other = refusal(fault, PATHS[1])
    assert (other.status_code, other.json()["type"]) == (status, "error")


def test_a_refusal_can_carry_any_body_and_headers() -> None:
    page = Refuse(status=502, body="<html>no</html>", headers=(("content-type", "text/html"),))
    answer = refusal(page, PATHS[0])
    assert (answer.status_code, answer.text) == (502, "<html>no</html>")
    assert answer.headers["content-type"] == "text/html"


def test_retry_after_in_every_form() -> None:
    for form, header in (("seconds", "retry-after"), ("milliseconds", "retry-after-ms")):
        answer = refusal(Refuse(retry_after=1.5, retry_form=form), PATHS[0])  # type: ignore[arg-type]
        assert answer.headers[header] == ("1.5" if form == "seconds" else "1500")
    before = time.time()
    date = refusal(Refuse(retry_after=30, retry_form="date"), PATHS[0]).headers["retry-after"]
    assert parsedate_to_datetime(date).timestamp() >= before + 30


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (Refuse.key_revoked(), 401, "invalid_api_key"),
        (Refuse.key_forbidden(), 403, "permission_denied"),
        (Refuse.quota(), 429, "insufficient_quota"),
        (Refuse.prefill(), 400, "prefill_unsupported"),
        (Refuse.loading(), 503, "unavailable_error"),
        (Refuse(status=529), 529, "overloaded"),
    ],
)
def test_named_refusals(fault: Refuse, status: int, code: str) -> None:
    answer = refusal(fault, PATHS[0])
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert refusal(fault, PATHS[1]).status_code == status


@pytest.mark.parametrize("path", PATHS)
def test_silences_that_end(path: str) -> None:
    hung = hear(Hang(0.2), path, True, patience=5)
    assert (hung.end, hung.data) == ("closed", b"")
    closed = hear(Stall(2, 0.2), path, True, patience=5)
    assert (closed.end, closed.tokens, closed.finished) == ("closed", 2, False)
    for after in (2, 99):
        resumed = hear(Stall(after, 0.2, "resume"), path, True, patience=5)
        assert (resumed.end, resumed.tokens, resumed.finished) == ("closed", 6, True)
        assert resumed.seconds > 0.19
    slow = hear(SlowTokens(0.05), path, True, patience=5)
    assert (slow.tokens, slow.finished) == (6, True)
    assert slow.seconds > 0.29


def test_a_first_token_drawn_from_a_distribution_is_equal_for_equal_seeds() -> None:
    def waits() -> list[float]:
        with ModelServer(script=Script.of("slow_first_token=lognormal:100ms,1.0"), seed=1) as one:
            return [Heard(one, PATHS[0], True, patience=5).seconds for _ in range(3)]

    first, again = waits(), waits()
    assert max(first) > 1.5 * min(first)
    # What was drawn is a floor: a busy machine only adds.
    assert sorted(range(3), key=first.__getitem__) == sorted(range(3), key=again.__getitem__)


@pytest.mark.parametrize("path", PATHS)
def test_an_event_that_comes_twice(path: str) -> None:
    heard = hear(DuplicateEvent(2), path, True)
    assert (heard.tokens, heard.finished) == (7, True)
    events = [x for x in heard.data.split(b"\n") if TOKENS[path] in x]
    events = events[path == PATHS[0] :]
    assert events[2] == events[3]
    assert len(set(events)) >= 4


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [True, False])
def test_a_200_without_an_answer(path: str, stream: bool) -> None:
    empty = hear(BadBody("empty"), path, stream)
    head, _, body = empty.data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert body == (b"0\r\n\r\n" if stream else b"")
    half = hear(BadBody("truncated"), path, stream)
    assert (half.end, half.finished) == ("closed", False)
    assert b"{" in half.data.partition(b"\r\n\r\n")[2]
    page = hear(BadBody("html"), path, stream).data
    assert b"content-type: text/html" in page
    assert b"<h1>" in page


def test_half_a_body_is_a_whole_http_answer() -> None:
    ask = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    with ModelServer(script=Script.of(BadBody("truncated"))) as server:
        answer = httpx.post(server.url + PATHS[0], json=ask)
    assert answer.status_code == 200
    assert not _is_json(answer.content)


@pytest.mark.parametrize("stream", [True, False])
def test_a_field_that_is_missing(stream: bool) -> None:
    for path, field in ((PATHS[0], "choices"), (PATHS[0], "finish_reason"), (PATHS[1], "usage")):
        assert f'"{field}"'.encode() in hear(MissingField("nothing"), path, stream).data
        heard = hear(MissingField(field), path, stream)
        assert f'"{field}"'.encode() not in heard.data
        assert heard.finished is stream


@pytest.mark.parametrize(
    ("how", "arguments"),
    [
        ("drop", '{"goal":"run"}'),
        ("rename", '{"days_":3,"goal":"run"}'),
        ("retype", '{"days":[3],"goal":"run"}'),
    ],
)
def test_tool_arguments_and_json_answers_are_mutated(how: str, arguments: str) -> None:
    wanted = {"goal": "run", "days": 3}
    script = Script.of(f"mutate={how}")
    for answer in (ToolCall("search", wanted), json.dumps(wanted)):
        with ModelServer(answer, script=script) as server:
            ask = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
            message = httpx.post(server.url + PATHS[0], json=ask).json()["choices"][0]["message"]
            if isinstance(answer, str):
                assert json.loads(message["content"]) == json.loads(arguments)
            else:
                call = message["tool_calls"][0]["function"]
                assert json.loads(call["arguments"]) == json.loads(arguments)


def test_an_answer_that_breaks_its_json() -> None:
    with ModelServer('{"a": 1, "b": 2}', script=Script.of(Mutate("break"))) as server:
        ask = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
        message = httpx.post(server.url + PATHS[0], json=ask).json()["choices"][0]["message"]
    assert not _is_json(message["content"])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [True, False])
def test_the_providers_filter_ends_an_answer(path: str, stream: bool) -> None:
    heard = hear(Filtered(2), path, stream)
    assert (b'"content_filter"' if path == PATHS[0] else b'"refusal"') in heard.data
    if stream:
        assert (heard.tokens, heard.finished) == (2, True)


def test_a_model_that_refuses_a_prefill() -> None:
    said = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "I"}]
    with ModelServer(script=Script.of("when=prefill prefill")) as server:
        url = server.url + PATHS[0]
        assert httpx.post(url, json={"model": "m", "messages": said}).status_code == 400
        assert httpx.post(url, json={"model": "m", "messages": said[:1]}).status_code == 200


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [True, False])
def test_what_is_held_is_whole_once_it_is_released(path: str, stream: bool) -> None:
    with ModelServer(Words(6), script=Script.of(Step(fault=Hold(), first=2))) as server:
        server.release()  # of nothing
        with ThreadPoolExecutor(2) as pool:
            waiting = [pool.submit(Heard, server, path, stream, 20.0) for _ in range(2)]
            server.wait_until(lambda one: len(one.requests) == 2)
            assert server.statistics().in_flight == 2
            assert [one.bytes_sent for one in server.requests] == [0, 0]
            server.release()
            held = {one.result().data for one in waiting}
        server.script = Script()
        server.reset()
        assert held == {Heard(server, path, stream).data for _ in range(2)}


def test_a_client_that_leaves_while_it_is_held_is_seen() -> None:
    with ModelServer(script=Script.of(Step(fault=Hold()))) as server:
        assert Heard(server, PATHS[0], True, patience=0.05).end == "silent"
        server.wait_until(lambda one: one.requests[0].client_closed is not None)
        server.release()
        assert server.statistics().in_flight == 0
