"""A simulated model server: real sockets, exact timing, failures by script.

    with ModelServer(answer="hello", script=Script.of("index=0 status=503")) as server:
        client = openai.OpenAI(base_url=server.base_url, api_key="any")

Speaks OpenAI (/v1/chat/completions, /v1/embeddings, /v1/models) and Anthropic (/v1/messages).
The same seed, script and order of requests give the same bytes and the same waits.
"""

from __future__ import annotations

import asyncio
import random
import signal
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from types import TracebackType

import uvloop

from tidegate.base import PoolError, UsageError
from tidegate.testing.answers import ScriptedAnswer, Words
from tidegate.testing.anthropic_dialect import AnthropicDialect
from tidegate.testing.beats import Beats, encode, plain
from tidegate.testing.connection import ServerConnection
from tidegate.testing.dialects import ServerDialect
from tidegate.testing.openai_dialect import OpenAIDialect
from tidegate.testing.replies import (
    CREATED,
    Behaviour,
    ProviderRefusal,
    decode_body,
    embed,
    make_reply,
    waits_of,
)
from tidegate.testing.rewrites import play
from tidegate.testing.script import Script
from tidegate.testing.seen import SeenRequest, Statistics
from tidegate.testing.timings import Constant, Timing

_OPENAI, _ANTHROPIC = OpenAIDialect(), AnthropicDialect()
_DIALECTS: dict[str, ServerDialect] = {
    "/v1/chat/completions": _OPENAI,
    "/v1/embeddings": _OPENAI,
    "/v1/messages": _ANTHROPIC,
}


class ModelServer:
    """A simulated model server that follows its script. ``with``, ``async with``, or
    ``serve_forever``.

    ``answer``: a text, ``Echo()``, ``Words(n)``, ``ToolCall(...)``, or a function of the request's
    JSON. ``first_token`` and ``inter_token``: seconds or a Timing. ``keep``: how many requests
    ``requests`` remembers. ``clock`` is what the time windows of the script are measured with,
    from when the server is made or ``reset``. Once bound the port stays the same over stop and
    start.
    """

    def __init__(
        self,
        answer: ScriptedAnswer = Words(16),  # noqa: B008 (frozen)
        *,
        script: Script = Script(),  # noqa: B008 (frozen)
        first_token: Timing | float = 0.0,
        inter_token: Timing | float = 0.0,
        seed: int = 0,
        models: tuple[str, ...] = ("mock",),
        any_model: bool = True,
        api_key: str | None = None,
        cached_share: float = 0.0,
        reasoning_tokens: int = 0,
        dimensions: int = 384,
        host: str = "127.0.0.1",
        port: int = 0,
        keep: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.behaviour = Behaviour(
            answer=answer,
            first_token=_timing(first_token),
            inter_token=_timing(inter_token),
            seed=seed,
            models=models,
            any_model=any_model,
            api_key=api_key,
            cached_share=cached_share,
            reasoning_tokens=reasoning_tokens,
            dimensions=dimensions,
        )
        self._clock = clock
        self.script = script
        self.host, self.port = host, port
        self._seen: deque[SeenRequest] = deque(maxlen=keep)
        self._connections: set[ServerConnection] = set()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._zero()

    # -- what it saw -------------------------------------------------------------------------
    @property
    def base_url(self) -> str:
        """``http://host:port/v1``: what an OpenAI client wants as its base URL."""
        return f"{self.url}/v1"

    @property
    def url(self) -> str:
        """``http://host:port``: what an Anthropic client wants as its base URL."""
        return f"http://{self.host}:{self.port}"

    @property
    def requests(self) -> tuple[SeenRequest, ...]:
        """Model requests seen since the start or the last ``reset``, oldest first."""
        return tuple(self._seen)

    @property
    def open_connections(self) -> int:
        return len(self._connections)

    @property
    def script(self) -> Script:
        """Which request meets which fault. A new one counts its ``times`` from 0."""
        return self._script

    @script.setter
    def script(self, script: Script) -> None:
        self._script, self._played = script, Counter[int]()

    def statistics(self) -> Statistics:
        return Statistics(
            requests=self._index,
            in_flight=self._index - self._completed - self._client_closed,
            completed=self._completed,
            client_closed=self._client_closed,
            open_connections=len(self._connections),
            connections=self._accepted,
            faults=dict(self._faults),
        )

    @property
    def played(self) -> dict[int, int]:
        """How often each step of the script was played, by its place."""
        return dict(self._played)

    def reset(self) -> None:
        """Forget all requests, count and measure time from 0 again; open connections stay."""
        self._seen.clear()
        self._zero()

    def release(self) -> None:
        """Let every answer that is held (``Hold``) go on; one asked later is held again."""
        if self._loop is not None and self._thread is not None:
            # In the loop's turn: a request that ``requests`` shows is held before this runs.
            self._loop.call_soon_threadsafe(self._release)

    def _release(self) -> None:
        for connection in tuple(self._connections):
            connection.release()

    def wait_until(self, condition: Callable[[ModelServer], bool], timeout: float = 10.0) -> None:
        """Return once ``condition(self)`` holds; raises TimeoutError with the statistics."""
        deadline = time.monotonic() + timeout
        while not condition(self):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {timeout} s; {self.statistics()}")
            time.sleep(0.005)

    def _zero(self) -> None:
        self._index = self._completed = self._client_closed = self._accepted = 0
        self._faults: Counter[str] = Counter()
        self._played = Counter[int]()
        self._zero_time = self._clock()

    # -- answering ---------------------------------------------------------------------------
    def _answer(self, seen: SeenRequest) -> Beats:
        path = seen.path.partition("?")[0]
        if seen.method == "GET":
            return self._get(seen, path)
        dialect = _DIALECTS.get(path)
        if dialect is None or seen.method != "POST":
            return ProviderRefusal(404, f"Unknown address: {seen.method} {path}").beats(_OPENAI)
        seen.index, seen.at = self._index, self._clock() - self._zero_time
        self._index += 1
        self._seen.append(seen)
        try:
            return self._model_answer(seen, path, dialect)
        except ProviderRefusal as refused:
            return refused.beats(dialect)
        except UsageError as error:
            return ProviderRefusal(400, str(error), error.code).beats(dialect)

    def _model_answer(self, seen: SeenRequest, path: str, dialect: ServerDialect) -> Beats:
        behaviour = self.behaviour
        if not self._allowed(seen):
            raise ProviderRefusal(401, "Incorrect API key provided.")
        request = decode_body(seen.body, behaviour)
        fault = self._script.fault_for(seen, request["model"], behaviour.seed, self._played)
        if path == "/v1/embeddings":
            beats = plain(200, embed(request, behaviour), waits_of(1, seen.index, behaviour)[0])
        else:
            reply = make_reply(request, seen.index, behaviour, fault)
            beats = dialect.stream(reply) if request.get("stream") else dialect.whole(reply)
        if fault is None:
            return beats
        seen.fault = fault.name
        self._faults[fault.name] += 1
        return play(fault, beats, dialect, random.Random(f"{behaviour.seed}/{seen.index}"))

    def _get(self, seen: SeenRequest, path: str) -> Beats:
        if path == "/health":
            return plain(200, b'{"status":"ok"}')
        if not self._allowed(seen):
            return ProviderRefusal(401, "Incorrect API key provided.").beats(_OPENAI)
        if path == "/v1/models":
            models = [
                {"id": name, "object": "model", "created": CREATED, "owned_by": "tidegate"}
                for name in self.behaviour.models
            ]
            return plain(200, encode({"object": "list", "data": models}))
        return ProviderRefusal(404, f"Unknown address: GET {path}").beats(_OPENAI)

    def _allowed(self, seen: SeenRequest) -> bool:
        return self.behaviour.api_key in (None, seen.key)

    def _finished(self, seen: SeenRequest) -> None:
        if seen.index >= 0:
            self._completed += seen.completed is not None
            self._client_closed += seen.completed is None

    def _opened(self, connection: ServerConnection) -> None:
        self._accepted += 1
        self._connections.add(connection)

    # -- running -----------------------------------------------------------------------------
    def _bind(self, reuse_port: bool = False) -> socket.socket:
        listener = socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            listener.bind((self.host, self.port))
        except OSError as error:
            listener.close()
            raise PoolError(
                "port_taken",
                f"the simulated model server cannot listen on {self.host}:{self.port}: {error}",
                cure="choose another port, or 0 for a free one",
            ) from None
        self.port = listener.getsockname()[1]
        return listener

    async def _serve(self, listener: socket.socket, ready: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        self._loop, self._stop = loop, asyncio.Event()
        server = await loop.create_server(
            lambda: ServerConnection(
                self._answer, self._opened, self._connections.discard, self._finished
            ),
            sock=listener,
            backlog=1024,
        )
        ready()
        await self._stop.wait()
        server.close()
        for connection in tuple(self._connections):
            connection.drop()
        await server.wait_closed()

    def start(self) -> ModelServer:
        """Listen and serve in a thread; returns once connections are accepted."""
        if self._thread is not None:
            return self
        listener, ready = self._bind(), threading.Event()

        def run() -> None:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve(listener, ready.set))

        self._thread = threading.Thread(target=run, name=f"model-server-{self.port}", daemon=True)
        self._thread.start()
        ready.wait()
        return self

    def stop(self) -> None:
        """Stop listening and break every connection; ``start`` serves on the same port again."""
        if self._thread is None or self._loop is None or self._stop is None:
            return
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._thread = None

    def serve_forever(
        self, ready: Callable[[], None] = lambda: None, *, reuse_port: bool = False
    ) -> None:
        """Serve in this thread until SIGINT or SIGTERM. ``reuse_port``: share it with others."""
        listener = self._bind(reuse_port)

        def on_ready() -> None:
            loop, stop = self._loop, self._stop
            for number in (signal.SIGINT, signal.SIGTERM):
                if loop is not None and stop is not None:
                    loop.add_signal_handler(number, stop.set)
            ready()

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve(listener, on_ready))

    def __enter__(self) -> ModelServer:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    async def __aenter__(self) -> ModelServer:
        return self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.stop)


def _timing(value: Timing | float) -> Timing:
    return Constant(float(value)) if isinstance(value, int | float) else value
