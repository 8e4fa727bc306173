"""The Anthropic messages dialect: named events, content blocks, ``message_stop``."""

from __future__ import annotations

from typing import Any

import msgspec

from tidegate.testing.answers import ToolCall
from tidegate.testing.beats import STREAM_END, STREAM_HEAD, Beat, Beats, chunk, encode, plain
from tidegate.testing.dialects import ModelReply

_STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}


def _usage(reply: ModelReply, output: int) -> dict[str, int]:
    """``input_tokens`` leaves out what was read from the cache, unlike in the other dialect."""
    return {
        "input_tokens": reply.prompt_tokens - reply.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": reply.cached_tokens,
        "output_tokens": output,
    }


def _block(reply: ModelReply, text: str, arguments: object) -> dict[str, Any]:
    if isinstance(reply.answer, ToolCall):
        id_ = f"toolu_{reply.id[9:]}"
        return {"type": "tool_use", "id": id_, "name": reply.answer.name, "input": arguments}
    return {"type": "text", "text": text}


def _message(reply: ModelReply, content: list[object], stop: str | None) -> dict[str, Any]:
    return {
        "id": f"msg_{reply.id[9:]}",
        "type": "message",
        "role": "assistant",
        "model": reply.model,
        "content": content,
        "stop_reason": stop,
        "stop_sequence": None,
    }


class AnthropicDialect:
    """https://docs.anthropic.com/en/api/messages"""

    def whole(self, reply: ModelReply) -> Beats:
        text = "".join(reply.tokens)
        arguments = _decoded(text) if isinstance(reply.answer, ToolCall) else None
        body = _message(reply, [_block(reply, text, arguments)], _STOP_REASONS[reply.finish])
        if reply.usage != "none":
            body["usage"] = _usage(reply, reply.completion_tokens)
        return plain(200, encode(body), sum(reply.waits))

    def stream(self, reply: ModelReply) -> Beats:
        waits = reply.waits or [0.0]
        start = _message(reply, [], None)
        if reply.usage != "none":
            start["usage"] = _usage(reply, 1)
        yield Beat(0.0, "head", STREAM_HEAD)
        opening = (
            _named("message_start", message=start)
            + _named("content_block_start", index=0, content_block=_block(reply, "", {}))
            + _named("ping")
        )
        yield Beat(waits[0], "open", opening)
        tool = isinstance(reply.answer, ToolCall)
        for at, token in enumerate(reply.tokens):
            delta = (
                {"type": "input_json_delta", "partial_json": token}
                if tool
                else {"type": "text_delta", "text": token}
            )
            event = _named("content_block_delta", index=0, delta=delta)
            yield Beat(waits[at] if at else 0.0, "token", event)
        stop = {"stop_reason": _STOP_REASONS[reply.finish], "stop_sequence": None}
        usage = {"usage": {"output_tokens": reply.completion_tokens}}
        closing = _named("message_delta", delta=stop, **(usage if reply.usage != "none" else {}))
        yield Beat(0.0, "finish", _named("content_block_stop", index=0) + closing)
        yield Beat(0.0, "done", _named("message_stop"))
        yield STREAM_END

    def error_body(self, status: int, kind: str, code: str, message: str) -> bytes:
        return encode({"type": "error", "error": {"type": kind, "message": message}})

    def error_event(self, body: bytes) -> bytes:
        return chunk(b"event: error\ndata: " + body + b"\n\n")

    def event(self, text: str) -> bytes:
        return chunk(b"event: content_block_delta\ndata: " + text.encode() + b"\n\n")


def _named(name: str, **fields: object) -> bytes:
    data = encode({"type": name, **fields})
    return chunk(b"event: " + name.encode() + b"\ndata: " + data + b"\n\n")


def _decoded(text: str) -> object:
    """Arguments are JSON unless the test wants them broken or the token limit cut them."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return {"_raw": text}
