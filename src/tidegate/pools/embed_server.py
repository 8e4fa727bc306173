"""A process that serves sentence embeddings: ``python -m tidegate.pools.embed_server``.

``/v1/embeddings``, ``/v1/models`` and ``/health`` on loopback; the model runs off the event loop.
"""

from __future__ import annotations

import argparse
import hmac
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from tidegate.base import PoolError, RequestError, TidegateError
from tidegate.pools.batches import Batcher, Overloaded
from tidegate.pools.child_key import read_child_key
from tidegate.pools.embed_request import read_request, write_answer, write_error
from tidegate.pools.encoder import Encoder, Vector

MAX_BODY = 16 * 1024 * 1024

_Handler = Callable[[Request], Awaitable[Response]]


class _GoneAway(Exception):
    """The client closed its connection before the answer was there."""


def make_app(encoder: Encoder, name: str, key: str) -> Starlette:
    """The ASGI application that serves ``encoder`` as the model ``name``."""
    batcher = Batcher(encoder.encode)

    async def embeddings(request: Request) -> Response:
        asked, texts = read_request(await _body(request), name, encoder.dimensions)
        vectors: list[Vector] = []
        tokens = 0
        async for part, counts in batcher.slices(texts):
            vectors.extend(part)
            tokens += sum(counts)
            if len(vectors) < len(texts) and await request.is_disconnected():
                raise _GoneAway
        return _json(write_answer(asked, vectors, tokens))

    async def models(request: Request) -> Response:
        entry = {"id": name, "object": "model", "created": 0, "owned_by": "tidegate"}
        return _json(msgspec.json.encode({"object": "list", "data": [entry]}))

    async def health(request: Request) -> Response:
        state = {"status": "ok", **msgspec.structs.asdict(batcher.statistics())}
        return _json(msgspec.json.encode(state))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with batcher.running():
            yield

    routes = [
        Route("/v1/embeddings", _guarded(embeddings, key), methods=["POST"]),
        Route("/v1/models", _guarded(models, key)),
        Route("/health", health),
    ]
    return Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers={HTTPException: _no_such_address, Exception: _engine_failed},
    )


async def _no_such_address(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    refusal = RequestError(
        status,
        "unknown_address",
        f"there is no {request.method} {request.url.path}",
        cure="use POST /v1/embeddings or GET /v1/models",
    )
    return _json(write_error(refusal), status)


async def _engine_failed(request: Request, error: Exception) -> Response:
    """Answers for what the engine raised; the server logs it with its traceback."""
    failure = RequestError(
        500, "engine_failed", "the engine could not encode this", cure="read the pool's log"
    )
    return _json(write_error(failure), 500)


def _guarded(handler: _Handler, key: str) -> _Handler:
    """``handler`` behind the bearer key, with refusals in OpenAI's shape."""
    wanted = f"Bearer {key}".encode()

    async def guarded(request: Request) -> Response:
        try:
            given = request.headers.get("authorization", "").encode()
            if not hmac.compare_digest(given, wanted):
                raise RequestError(
                    401, "invalid_api_key", "the bearer key is wrong", cure="send the pool's key"
                )
            return await handler(request)
        except RequestError as error:
            return _json(write_error(error), error.status)
        except Overloaded:
            busy = RequestError(
                503, "pool_overloaded", "too many texts wait", cure="try again in a second"
            )
            return _json(write_error(busy), 503, {"retry-after": "1"})
        except (_GoneAway, ClientDisconnect):
            return Response(status_code=499)

    return guarded


async def _body(request: Request) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY:
            raise RequestError(
                413,
                "body_too_large",
                f"the body has more than {MAX_BODY} bytes",
                cure="send fewer texts at once",
            )
        parts.append(part)
    return b"".join(parts)


def _json(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(body, status, headers, media_type="application/json")


def load_encoder(weights: Path, tokenizer: Path, threads: int) -> Encoder:
    """The model in memory; PoolError ``pool_file_missing`` or ``engine_failed``."""
    for path in (weights, tokenizer):
        if not path.is_file():
            raise PoolError(
                "pool_file_missing",
                f"there is no file {path}",
                cure="fetch it: tidegate models fetch",
            )
    try:
        return Encoder(weights, tokenizer, threads)
    except Exception as error:  # noqa: BLE001 (both libraries raise bare Exception for a bad file)
        raise PoolError(
            "engine_failed",
            f"{weights} with {tokenizer} is not a sentence encoder: {error}",
            cure="pin an ONNX encoder with its tokenizer.json",
        ) from None


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    try:
        key = read_child_key(os.environ, options.key_file)
        encoder = load_encoder(options.weights, options.tokenizer, options.threads)
    except TidegateError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit
    uvicorn.run(
        make_app(encoder, options.name, key),
        host="127.0.0.1",
        port=options.port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=5,
        server_header=False,
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tidegate.pools.embed_server", description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="the ONNX encoder")
    parser.add_argument("--tokenizer", type=Path, required=True, help="its tokenizer.json")
    parser.add_argument("--name", required=True, help="name of the model in answers")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--key-file", type=Path, help="file of mode 0600 with the bearer key")
    return parser


if __name__ == "__main__":
    sys.exit(main())
