"""Two models under way for one request: what is told when both fail, and what each is billed."""

from __future__ import annotations

import asyncio

from tests.gateway.calls import chat_call, plans_of
from tests.gateway.loops import run, until
from tests.gateway.releases import sample_release
from tests.gateway.wire.raw import Conversation, raw_server, read_request
from tidegate.base.errors import RequestError
from tidegate.gateway.call import ask_whole, make_target
from tidegate.gateway.record.rules import cost
from tidegate.gateway.render import render
from tidegate.gateway.values import Answer, Call

MODELS = sample_release("http://127.0.0.1:9/v1").models
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
PIECE = b'data: {"choices":[{"index":0,"delta":{"content":"eight by"}}]}\n\n'
USAGE = b'"usage":{"prompt_tokens":3,"completion_tokens":1}'
END = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],%b}\n\n' % USAGE
DONE = b"data: [DONE]\n\n"
POLICY = b'{"error":{"message":"no","code":"content_policy_violation"}}'
REFUSAL = b"HTTP/1.1 400 No\r\ncontent-length: %d\r\n\r\n%b" % (len(POLICY), POLICY)
BUSY = b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n"


def saying(*parts: bytes | float) -> Conversation:
    """Say ``parts`` to each request; a number is a time to be silent."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        for part in parts:
            if isinstance(part, float):
                await asyncio.sleep(part)
            else:
                writer.write(part)

    return talk


def asked(
    first: Conversation, second: Conversation, *, pooled: bool = False, leave: bool = False
) -> tuple[Call, Answer | RequestError | None, tuple[int, int]]:
    """The call, what came of it (None where the client ``leave``s), requests of each upstream."""

    async def main() -> tuple[Call, Answer | RequestError | None, tuple[int, int]]:
        async with raw_server(first) as one, raw_server(second) as two:
            targets = [
                make_target(MODELS[name], f"http://127.0.0.1:{port}/v1", None, pooled=pooled)
                for name, port in (("small", one.port), ("spare", two.port))
            ]
            call = chat_call(plans_of()["hedged"])
            await render(call)
            task = asyncio.ensure_future(ask_whole(call, targets))
            if leave:
                await until(lambda: two.accepted)
                await asyncio.sleep(0.1)
                task.cancel()
            try:
                found: Answer | RequestError | None = await task
            except RequestError as error:
                found = error
            except asyncio.CancelledError:
                found = None
            assert [target.pool.statistics().busy for target in targets] == [0, 0]
            assert [one.in_flight for t in targets for one in t.keys.statistics(0.0)] == [0, 0]
            return call, found, (one.accepted, two.accepted)

    return run(main())


def test_a_policy_refusal_of_the_hedge_is_not_shopped_elsewhere() -> None:
    call, found, asks = asked(saying(0.4, BUSY), saying(REFUSAL))
    assert isinstance(found, RequestError)
    assert (found.status, found.code) == (400, "content_policy_violation")
    assert "'spare'" in found.message
    assert asks == (1, 1)
    assert [(one.model, one.code) for one in call.attempts] == [
        ("small", "upstream_error"),
        ("spare", "content_policy_violation"),
    ]


def test_the_first_still_answers_where_the_policy_of_the_hedge_refuses() -> None:
    body = b'{"choices":[{"finish_reason":"stop","message":{"content":"hi"}}]}'
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    _, found, asks = asked(saying(0.4, answer), saying(REFUSAL))
    assert isinstance(found, Answer)
    assert asks == (1, 1)


def test_an_answer_that_lost_half_way_is_billed_for_what_it_gave() -> None:
    call, found, _ = asked(saying(HEAD, PIECE, 5.0), saying(HEAD, PIECE, END, DONE), pooled=True)
    assert isinstance(found, Answer)
    assert found.model == "spare"
    lost, won = call.attempts
    assert (lost.model, lost.code, won.model, won.code) == ("small", "hedge_lost", "spare", None)
    assert lost.usage is not None
    assert lost.usage.completion == 2
    assert (call.model, call.usage) == (None, None)  # that of the answer is told by who sends it


def test_a_client_that_leaves_two_answers_half_way_is_billed_for_both() -> None:
    call, found, _ = asked(
        saying(HEAD, PIECE, 5.0), saying(HEAD, PIECE, PIECE, 5.0), pooled=True, leave=True
    )
    assert found is None
    second, first = call.attempts
    assert [(one.model, one.code) for one in (second, first)] == [
        ("spare", "client_gone"),
        ("small", "client_gone"),
    ]
    assert second.usage is not None
    assert second.usage.completion == 4
    assert call.usage is not None
    assert (call.model, call.usage.completion) == ("small", 2)
    prompt = second.usage.prompt + call.usage.prompt
    assert cost(call, MODELS) == (prompt * 1.0 + 6 * 2.0) / 1_000_000
