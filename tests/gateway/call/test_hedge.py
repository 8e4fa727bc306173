"""Two models under way for one request: what is told when both fail, and what each is billed."""

from __future__ import annotations

import asyncio

from tests.gateway.calls import chat_request, new_journal, plans_of, within
from tests.gateway.loops import run, until
from tests.gateway.releases import sample_release
from tests.gateway.wire.raw import Conversation, raw_server, read_request
from tidegate.base.errors import RequestError
from tidegate.gateway.call import ask_whole
from tidegate.gateway.journal import Journal
from tidegate.gateway.record.rules import cost
from tidegate.gateway.render import render
from tidegate.gateway.targets import make_target
from tidegate.gateway.values import Answer

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
) -> tuple[Journal, Answer | RequestError | None, tuple[int, int]]:
    """Journal, what came of it (None where the client ``leave``s), requests of each upstream."""

    async def main() -> tuple[Journal, Answer | RequestError | None, tuple[int, int]]:
        async with raw_server(first) as one, raw_server(second) as two:
            targets = [
                make_target(MODELS[name], f"http://127.0.0.1:{port}/v1", None, pooled=pooled)
                for name, port in (("small", one.port), ("spare", two.port))
            ]
            request, journal = chat_request(plans_of()["hedged"]), new_journal()
            ask = (await render(request)).ask
            on = request.plan.terms
            task = asyncio.ensure_future(ask_whole(journal, ask, targets, on, within()))
            if leave:
                await until(lambda: two.accepted)
                await asyncio.sleep(0.1)
                task.cancel()
            try:
                answered = await task
                found: Answer | RequestError | None = answered.answer
                answered.attempt.answer(answered.answer.usage)
            except RequestError as error:
                found = error
            except asyncio.CancelledError:
                found = None
            journal.abandon()
            assert [target.pool.statistics().busy for target in targets] == [0, 0]
            assert [one.in_flight for t in targets for one in t.keys.statistics(0.0)] == [0, 0]
            return journal, found, (one.accepted, two.accepted)

    return run(main())


def test_a_policy_refusal_of_the_hedge_is_not_shopped_elsewhere() -> None:
    journal, found, asks = asked(saying(0.4, BUSY), saying(REFUSAL))
    assert isinstance(found, RequestError)
    assert (found.status, found.code) == (400, "content_policy_violation")
    assert "'spare'" in found.message
    assert asks == (1, 1)
    assert [(one.model, one.code) for one in journal.attempts] == [
        ("spare", "content_policy_violation"),
        ("small", "upstream_error"),
    ], "in the order in which they ended"


def test_the_first_still_answers_where_the_policy_of_the_hedge_refuses() -> None:
    body = b'{"choices":[{"finish_reason":"stop","message":{"content":"hi"}}]}'
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    _, found, asks = asked(saying(0.4, answer), saying(REFUSAL))
    assert isinstance(found, Answer)
    assert asks == (1, 1)


def test_an_answer_that_lost_half_way_is_billed_for_what_it_gave() -> None:
    journal, found, _ = asked(saying(HEAD, PIECE, 5.0), saying(HEAD, PIECE, END, DONE), pooled=True)
    assert isinstance(found, Answer)
    assert found.model == "spare"
    lost, won = journal.in_order()
    assert (lost.model, lost.code, won.model, won.code) == ("small", "hedge_lost", "spare", None)
    assert lost.usage is not None
    assert lost.usage.completion == 2
    assert journal.usage == found.usage, "that of the answer is the receipt's own"


def test_a_client_that_leaves_two_answers_half_way_is_billed_for_both() -> None:
    journal, found, _ = asked(
        saying(HEAD, PIECE, 5.0), saying(HEAD, PIECE, PIECE, 5.0), pooled=True, leave=True
    )
    assert found is None
    second, first = journal.in_order()
    assert [(one.model, one.code) for one in (second, first)] == [
        ("spare", "client_gone"),
        ("small", "client_gone"),
    ]
    assert second.usage is not None
    assert second.usage.completion == 4
    usage = journal.usage
    assert usage is not None
    assert usage.completion == 2
    prompt = second.usage.prompt + usage.prompt
    assert cost(journal.bill(), MODELS) == (prompt * 1.0 + 6 * 2.0) / 1_000_000
