"""Who is asked next, and what the caller is told when nobody answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.gateway.calls import chat_request, new_journal, plans_of, within
from tests.gateway.loops import run
from tests.gateway.releases import sample_release
from tests.gateway.wire.raw import answering, raw_server, read_request
from tidegate.base.errors import RequestError
from tidegate.gateway.call import ask_whole
from tidegate.gateway.call import run as call_run
from tidegate.gateway.journal import Journal
from tidegate.gateway.render import render
from tidegate.gateway.targets import Target, make_target

BODY = b'{"choices":[{"finish_reason":"stop","message":{"content":"hi"}}]}'
OK = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)
BUSY = b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n"
MODELS = sample_release("http://127.0.0.1:9/v1").models
PLAIN = plans_of()["plain"]


def small(port: int) -> Target:
    return make_target(MODELS["small"], f"http://127.0.0.1:{port}/v1", None)


def claude(port: int) -> Target:
    return make_target(MODELS["claude"], f"http://127.0.0.1:{port}/v1", None)


async def asked(targets: list[Target], **body: object) -> tuple[Journal, bytes | RequestError]:
    """The journal, and the answer or the error; no connection is left."""
    request, journal = chat_request(PLAIN, **body), new_journal()
    ask = (await render(request)).ask
    try:
        answered = await ask_whole(journal, ask, targets, PLAIN.terms, within())
        answered.attempt.answer(answered.answer.usage)
        return journal, answered.answer.body
    except RequestError as error:
        return journal, error
    finally:
        assert [target.pool.statistics().busy for target in targets] == [0] * len(targets)


def over(
    answers: tuple[bytes, ...],
    work: Callable[[int], Awaitable[tuple[Journal, bytes | RequestError]]],
) -> tuple[Journal, bytes | RequestError]:
    async def main() -> tuple[Journal, bytes | RequestError]:
        async with raw_server(answering(*answers)) as server:
            return await work(server.port)

    return run(main())


def test_a_model_that_cannot_be_asked_this_is_passed_over() -> None:
    journal, found = over((OK,), lambda port: asked([claude(port), small(port)], logprobs=True))
    assert found == BODY
    assert [attempt.model for attempt in journal.attempts] == ["small"]


def test_the_first_error_is_told_not_that_of_a_fallback_which_cannot_be_asked() -> None:
    journal, found = over((BUSY,), lambda port: asked([small(port), claude(port)], logprobs=True))
    assert isinstance(found, RequestError)
    assert (found.status, found.code) == (502, "upstream_error")
    assert [attempt.model for attempt in journal.attempts] == ["small"]


def test_when_no_model_can_be_asked_the_caller_is_told_why() -> None:
    journal, found = over((OK,), lambda port: asked([claude(port), claude(port)], logprobs=True))
    assert isinstance(found, RequestError)
    assert (found.status, found.code, found.param) == (400, "parameter_unsupported", "logprobs")
    assert not journal.attempts


@pytest.mark.parametrize(("works", "tries"), [(0.0, 3), (0.1, 2)])
def test_a_request_is_sent_again_only_when_its_connection_had_been_closed(
    monkeypatch: pytest.MonkeyPatch, works: float, tries: int
) -> None:
    """The upstream answers once on each connection, and breaks the second request on it: at once,
    or after having worked on it."""
    monkeypatch.setattr(call_run, "_STALE_MS", 50.0)
    requests = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        await read_request(reader)
        requests += 1
        writer.write(OK)
        await read_request(reader)
        requests += 1
        await asyncio.sleep(works)

    async def main() -> bytes | RequestError:
        async with raw_server(talk) as server:
            target = small(server.port)
            try:
                await asked([target])
                return (await asked([target]))[1]
            finally:
                target.pool.close()

    found = run(main())
    assert requests == tries
    if tries == 3:
        assert found == BODY
    else:
        assert isinstance(found, RequestError)
        assert found.code == "upstream_cut"


ECHO = b'{"error":{"message":"key sk-very-secret is not for this","code":"sk-very-secret"}}'


@pytest.mark.parametrize("status", [400, 401, 429, 500])
def test_an_upstream_that_repeats_our_key_is_not_quoted(status: int) -> None:
    answer = b"HTTP/1.1 %d No\r\ncontent-length: %d\r\n\r\n%b" % (status, len(ECHO), ECHO)

    async def work(port: int) -> tuple[Journal, bytes | RequestError]:
        target = make_target(MODELS["small"], f"http://127.0.0.1:{port}/v1", "sk-very-secret")
        return await asked([target])

    journal, found = over((answer,), work)
    assert isinstance(found, RequestError)
    assert "sk-very-secret" not in f"{found} {found.code} {found.cure} {journal.attempts}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    """It could lead anywhere, with the key and the prompt."""

    async def main() -> None:
        elsewhere = answering(OK)
        async with raw_server(elsewhere) as other:
            there = (
                b"HTTP/1.1 %d Go\r\nlocation: http://127.0.0.1:%d/v1/x\r\ncontent-length: 0\r\n\r\n"
            )
            async with raw_server(answering(there % (status, other.port))) as server:
                _, found = await asked([small(server.port)])
            assert isinstance(found, RequestError)
            assert (found.status, found.code) == (502, "upstream_error")
            assert other.accepted == 0

    run(main())


def test_what_an_upstream_says_is_cut_short() -> None:
    said = b'{"error":{"message":"%b"}}' % (b"blah " * 10_000)
    answer = b"HTTP/1.1 400 No\r\ncontent-length: %d\r\n\r\n%b" % (len(said), said)
    _, found = over((answer,), lambda port: asked([small(port)]))
    assert isinstance(found, RequestError)
    assert len(found.message) < 1100


def test_an_outage_is_told_before_what_another_provider_has_no_counterpart_of() -> None:
    """It may pass, so it is stood in for and never kept for good under an idempotency key."""
    journal, found = over((BUSY,), lambda port: asked([claude(port), small(port)], logprobs=True))
    assert isinstance(found, RequestError)
    assert (found.status, found.code) == (502, "upstream_error")
    assert [attempt.model for attempt in journal.attempts] == ["small"]


def said(code: bytes) -> bytes:
    body = b'{"error":{"message":"no","code":"%b"}}' % code
    return b"HTTP/1.1 400 No\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def test_a_prompt_too_long_for_one_model_may_be_answered_by_another_once_it_is_back() -> None:
    answers = (said(b"context_length_exceeded"), BUSY)
    _, found = over(answers, lambda port: asked([small(port)] * 2))
    assert isinstance(found, RequestError)
    assert (found.status, found.code) == (502, "upstream_error")


def test_a_policy_refusal_is_told_whatever_failed_before_it() -> None:
    answers = (BUSY, said(b"content_policy_violation"))
    _, found = over(answers, lambda port: asked([small(port)] * 3))
    assert isinstance(found, RequestError)
    assert (found.status, found.code) == (400, "content_policy_violation")
