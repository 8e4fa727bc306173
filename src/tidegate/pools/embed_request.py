"""What ``POST /v1/embeddings`` may ask, and how it is answered: pure."""

from __future__ import annotations

import base64
from typing import Any, Literal

import msgspec

from tidegate.base import RequestError
from tidegate.pools.encoder import Vector

MAX_TEXTS = 2048
"""As at OpenAI."""


class EmbedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The fields that are obeyed; others are ignored, as providers do."""

    model: str
    input: str | list[Any]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


_decoder = msgspec.json.Decoder(EmbedRequest)


def read_request(body: bytes, model: str, dimensions: int) -> tuple[EmbedRequest, list[str]]:
    """The request and its texts; raises RequestError for one that is refused."""
    try:
        request = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(
            400,
            "invalid_request",
            f"the body is not an embeddings request: {error}",
            cure='send {"model": NAME, "input": "text"}',
        ) from None
    if request.model != model:
        raise RequestError(
            404,
            "model_not_found",
            f"this server serves {model!r}, not {request.model!r}",
            cure=f"ask for {model!r}",
            param="model",
        )
    if request.dimensions not in (None, dimensions):
        raise RequestError(
            400,
            "dimensions_unsupported",
            f"the model gives {dimensions} dimensions, asked were {request.dimensions}",
            cure="leave dimensions out",
            param="dimensions",
        )
    return request, _texts(request.input)


def _texts(given: str | list[Any]) -> list[str]:
    texts = [given] if isinstance(given, str) else given
    if not texts or len(texts) > MAX_TEXTS:
        raise _bad_input(f"input has {len(texts)} texts", f"send 1 to {MAX_TEXTS} texts")
    for at, text in enumerate(texts):
        if not isinstance(text, str):
            raise _bad_input(
                f"input[{at}] is no text", "send texts; lists of token ids belong to one tokenizer"
            )
        if not text.strip():
            raise _bad_input(f"input[{at}] is empty", "leave empty texts out")
    return texts


def _bad_input(message: str, cure: str) -> RequestError:
    return RequestError(400, "invalid_input", message, cure=cure, param="input")


def write_answer(request: EmbedRequest, vectors: list[Vector], tokens: int) -> bytes:
    """The body of the answer. base64 is of little-endian float32, which is what the official
    clients ask for."""
    coded = [
        base64.b64encode(vector.astype("<f4").tobytes()).decode()
        if request.encoding_format == "base64"
        else vector.tolist()
        for vector in vectors
    ]
    return msgspec.json.encode(
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": at, "embedding": value}
                for at, value in enumerate(coded)
            ],
            "model": request.model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )


def write_error(error: RequestError) -> bytes:
    """The body of a refusal in OpenAI's shape."""
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    message = f"{error.message}; {error.cure}"
    shape = {"message": message, "type": kind, "param": error.param, "code": error.code}
    return msgspec.json.encode({"error": shape})
