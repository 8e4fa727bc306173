"""The OpenAI embeddings API, ``/v1/embeddings`` (reference of 2026), as clients speak it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from tidegate.base import RequestError
from tidegate.gateway.formats import openai
from tidegate.gateway.formats.openai_counting import content_of
from tidegate.gateway.formats.openai_errors import error_body, error_event
from tidegate.gateway.formats.openai_requests import read_body, user_of
from tidegate.gateway.neutral import Completion, Conversation, Event, OfferedTool, OutputFormat
from tidegate.gateway.ports import (
    NO_EXTENSION,
    Ask,
    ClientRequest,
    EventWriter,
    Extension,
    Fields,
    RouteKind,
)


class EmbeddingsHead(msgspec.Struct):
    model: str
    input: str | list[str | int | list[int]]
    encoding_format: str | None = None
    tidegate: Extension | None = None


_head = msgspec.json.Decoder(EmbeddingsHead)
_OWN = frozenset(("model", "tidegate", "stream", "stream_options"))


class OpenAIEmbeddings:
    name = "openai-embeddings"
    kind: RouteKind = "embeddings"
    path = "/v1/embeddings"
    wire = openai.WIRE
    inert = frozenset(("user", "metadata", "store", "safety_identifier", "prompt_cache_key"))
    stream_end = b""

    def parse(self, body: bytes) -> ClientRequest:
        head, fields = read_body(_head, body)
        kept = {name: bytes(raw) for name, raw in fields.items() if name not in _OWN}
        return ClientRequest(head.model, Ask(self, kept), fields, head.tidegate or NO_EXTENSION)

    def build_inputs(self, inputs: Sequence[str]) -> Ask:
        """A request of the gateway's own for the vectors of ``inputs``."""
        return Ask(self, {"input": msgspec.json.encode(inputs)})

    def prompt(self, fields: Mapping[str, bytes]) -> bytes:
        return fields.get("input", b"")

    def prompt_text(self, prompt: bytes) -> tuple[str, int]:
        return content_of(prompt)

    def user(self, fields: Mapping[str, bytes]) -> str | None:
        return user_of(fields)

    def error_body(self, error: RequestError) -> bytes:
        return error_body(error)

    def error_event(self, error: RequestError) -> bytes:
        return error_event(error)

    def tools_size(self, fields: Mapping[str, bytes]) -> int:
        return 0

    def needs(self, fields: Mapping[str, bytes]) -> frozenset[str]:
        return frozenset()

    def asked_output(self, fields: Mapping[str, bytes]) -> int | None:
        return 0

    def worst_output(self, fields: Mapping[str, bytes]) -> int:
        return 0

    # -- what embeddings have not: nothing of a chat reaches a route of this kind ----------------

    def cap_output(self, fields: Fields, tokens: int) -> None:
        pass

    def put_prompt(self, fields: Fields, role: str, text: str) -> None:
        pass

    def require_prompt(self, fields: Fields) -> None:
        pass

    def put_tools(self, fields: Fields, tools: Sequence[OfferedTool]) -> None:
        pass

    def put_format(self, fields: Fields, form: OutputFormat) -> None:
        pass

    def drop_tools(self, fields: Fields, killed: frozenset[str]) -> None:
        pass

    def build(self, asked: Conversation) -> Ask:
        raise _no_chat()

    def read(self, fields: Mapping[str, bytes]) -> Conversation:
        raise _no_chat()

    def write(self, said: Completion, model: str) -> bytes:
        raise _no_chat()

    def writer(self, model: str, shows_usage: bool) -> EventWriter:
        raise _no_chat()

    def passes(self, events: Sequence[Event], shows_usage: bool) -> bool:
        return True

    def join(self, events: bytes, model: str) -> bytes:
        raise _no_chat()


def _no_chat() -> ValueError:
    return ValueError("embeddings have no neutral form: they go to providers of the same format")
