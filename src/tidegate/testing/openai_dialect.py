"""The OpenAI chat-completions dialect: JSON bodies, ``data:`` events, ``[DONE]``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tidegate.testing.answers import ToolCall
from tidegate.testing.beats import STREAM_END, STREAM_HEAD, Beat, Beats, chunk, encode, plain
from tidegate.testing.dialects import ModelReply


def usage_of(reply: ModelReply) -> dict[str, Any]:
    usage: dict[str, Any] = {
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
        "total_tokens": reply.prompt_tokens + reply.completion_tokens,
    }
    if reply.cached_tokens:
        usage["prompt_tokens_details"] = {"cached_tokens": reply.cached_tokens}
    if reply.reasoning_tokens:
        usage["completion_tokens_details"] = {"reasoning_tokens": reply.reasoning_tokens}
    return usage


def _tool_call(call: ToolCall, arguments: str, reply: ModelReply) -> dict[str, Any]:
    function = {"name": call.name, "arguments": arguments}
    return {"id": f"call_{reply.id[9:]}", "type": "function", "function": function}


class OpenAIDialect:
    """https://platform.openai.com/docs/api-reference/chat"""

    def whole(self, reply: ModelReply) -> Beats:
        message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
        if isinstance(reply.answer, ToolCall):
            message["tool_calls"] = [_tool_call(reply.answer, "".join(reply.tokens), reply)]
        else:
            message["content"] = "".join(reply.tokens)
        body: dict[str, Any] = {
            "id": reply.id,
            "object": "chat.completion",
            "created": reply.created,
            "model": reply.model,
            "choices": [
                {"index": 0, "message": message, "logprobs": None, "finish_reason": reply.finish}
            ],
        }
        if reply.usage != "none":
            body["usage"] = usage_of(reply)
        return plain(200, encode(body), sum(reply.waits))

    def stream(self, reply: ModelReply) -> Beats:
        asked = (reply.request.get("stream_options") or {}).get("include_usage") is True
        own = asked and reply.usage == "own"
        base: dict[str, Any] = {
            "id": reply.id,
            "object": "chat.completion.chunk",
            "created": reply.created,
            "model": reply.model,
        }

        def body(delta: dict[str, Any], finish: str | None = None, **more: object) -> bytes:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
            extra = {"usage": None, **more} if own else more
            return encode({**base, "choices": [choice], **extra})

        waits = reply.waits or [0.0]
        yield Beat(0.0, "head", STREAM_HEAD)
        yield Beat(waits[0], "open", _frame(body(_opening(reply))))
        before, after = _around_token(body, isinstance(reply.answer, ToolCall))
        for at, token in enumerate(reply.tokens):
            data = chunk(before + encode(token) + after)
            yield Beat(waits[at] if at else 0.0, "token", data)
        riding = {"usage": usage_of(reply)} if asked and reply.usage == "with_choices" else {}
        yield Beat(0.0, "finish", _frame(body({}, reply.finish, **riding)))
        if own:
            usage = {**base, "choices": [], "usage": usage_of(reply)}
            yield Beat(0.0, "usage", _frame(encode(usage)))
        yield Beat(0.0, "done", _frame(b"[DONE]"))
        yield STREAM_END

    def error_body(self, status: int, kind: str, code: str, message: str) -> bytes:
        kind = "server_error" if status >= 500 else kind
        return encode({"error": {"message": message, "type": kind, "param": None, "code": code}})

    def error_event(self, body: bytes) -> bytes:
        return _frame(body)

    def event(self, text: str) -> bytes:
        return _frame(text.encode())


def _around_token(body: Callable[[dict[str, Any]], bytes], tool: bool) -> tuple[bytes, bytes]:
    """What stands before and after a token in its event: equal for all tokens of an answer."""
    name = "arguments" if tool else "content"
    text = {name: ""}
    whole = body({"tool_calls": [{"index": 0, "function": text}]} if tool else text)
    # Quotes inside values are escaped, so only the field itself can match.
    before, field, after = whole.partition(f'"{name}":""'.encode())
    return b"data: " + before + field[:-2], after + b"\n\n"


def _opening(reply: ModelReply) -> dict[str, Any]:
    if isinstance(reply.answer, ToolCall):
        call = {"index": 0, **_tool_call(reply.answer, "", reply)}
        return {"role": "assistant", "content": None, "tool_calls": [call]}
    return {"role": "assistant", "content": "", "refusal": None}


def _frame(data: bytes) -> bytes:
    return chunk(b"data: " + data + b"\n\n")
