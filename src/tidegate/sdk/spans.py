"""``journey`` and ``stage``: one span each, around a block, a function or a stream."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from types import TracebackType
from typing import Any, TypeVar, cast

from opentelemetry import baggage, context, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, Status, StatusCode
from opentelemetry.util.types import AttributeValue

from tidegate.sdk.propagation import JOURNEY, STAGE

_F = TypeVar("_F", bound=Callable[..., Any])
_T = TypeVar("_T")

_CANCELLED = (asyncio.CancelledError, GeneratorExit)


class SpanScope:
    """One span of a journey or a stage.

    As a context manager (``with`` and ``async with``) it gives the OpenTelemetry span. As a
    decorator it opens a new span for each call of a function, coroutine function, generator or
    asynchronous generator; for the last two the span lasts from the first item to the end.

    An exception is recorded with status ERROR and goes on. A cancelled or abandoned block has
    the attribute ``tidegate.cancelled`` instead.
    """

    def __init__(
        self, key: str, name: str, attributes: Mapping[str, AttributeValue] | None
    ) -> None:
        self._key = key
        self._name = name
        self._attributes = {key: name, **(attributes or {})}
        self._span: Span | None = None
        self._token: contextvars.Token[Context] | None = None

    def __enter__(self) -> Span:
        # No links to the tracer are kept: start() may come after the import of the app's modules.
        span = trace.get_tracer("tidegate.sdk").start_span(self._name, attributes=self._attributes)
        inside = trace.set_span_in_context(span)
        if self._key == JOURNEY:
            inside = baggage.set_baggage(JOURNEY, self._name, inside)
        self._span, self._token = span, context.attach(inside)
        return span

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        span, token = self._span, self._token
        self._span = self._token = None
        if token is not None:
            context.detach(token)
        if span is None:
            return
        if isinstance(error, _CANCELLED):
            span.set_attribute("tidegate.cancelled", True)
        elif error is not None:
            span.record_exception(error)
            span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))
        span.end()

    async def __aenter__(self) -> Span:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)

    def _fresh(self) -> SpanScope:
        return SpanScope(self._key, self._name, self._attributes)

    def __call__(self, function: _F) -> _F:
        if inspect.isasyncgenfunction(function):
            wrapped = self._around_async_generator(function)
        elif inspect.iscoroutinefunction(function):
            wrapped = self._around_coroutine(function)
        elif inspect.isgeneratorfunction(function):
            wrapped = self._around_generator(function)
        else:
            wrapped = self._around_function(function)
        return cast(_F, functools.wraps(function)(wrapped))

    def _around_function(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with self._fresh():
                return function(*args, **kwargs)

        return call

    def _around_coroutine(self, function: Callable[..., Any]) -> Callable[..., Any]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            with self._fresh():
                return await function(*args, **kwargs)

        return call

    # A generator's body runs in a context of its own. Otherwise its span would be the current one
    # in the consumer between two items, and a consumer that takes each item in another thread
    # (a web framework) could not leave it.

    def _around_generator(
        self, function: Callable[..., Generator[Any, Any, Any]]
    ) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            own, scope = contextvars.copy_context(), self._fresh()
            own.run(scope.__enter__)
            inner = function(*args, **kwargs)
            step: Callable[[], Any] = functools.partial(next, inner)
            try:
                while True:
                    item = own.run(step)
                    try:
                        step = functools.partial(inner.send, (yield item))
                    except GeneratorExit:
                        raise
                    except BaseException as error:  # noqa: BLE001 - the body's to handle
                        step = functools.partial(inner.throw, error)
            except StopIteration as end:
                own.run(scope.__exit__, None, None, None)
                return end.value
            except BaseException as error:
                own.run(inner.close)
                own.run(scope.__exit__, type(error), error, None)
                raise

        return call

    def _around_async_generator(
        self, function: Callable[..., AsyncGenerator[Any, Any]]
    ) -> Callable[..., Any]:
        async def call(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
            own, scope = contextvars.copy_context(), self._fresh()
            own.run(scope.__enter__)
            inner = function(*args, **kwargs)
            step: Awaitable[Any] = inner.__anext__()
            try:
                while True:
                    item = await _InContext(own, step)
                    try:
                        step = inner.asend((yield item))
                    except GeneratorExit:
                        raise
                    except BaseException as error:  # noqa: BLE001 - the body's to handle
                        step = inner.athrow(error)
            except StopAsyncIteration:
                own.run(scope.__exit__, None, None, None)
            except BaseException as error:
                await _InContext(own, inner.aclose())
                own.run(scope.__exit__, type(error), error, None)
                raise

        return call


class _InContext(Awaitable[_T]):
    """An awaitable whose steps all run in ``own``, whatever context the awaiting task has."""

    def __init__(self, own: contextvars.Context, awaitable: Awaitable[_T]) -> None:
        self._own = own
        self._awaitable = awaitable

    def __await__(self) -> Generator[Any, Any, _T]:
        steps = self._own.run(self._awaitable.__await__)
        send: Callable[[], Any] = functools.partial(next, steps)
        while True:
            try:
                waiting = self._own.run(send)
            except StopIteration as end:
                return cast(_T, end.value)
            try:
                sent = yield waiting
            except BaseException as error:  # noqa: BLE001 - handed to the body as it came
                send = functools.partial(cast(Any, steps).throw, error)
            else:
                send = functools.partial(cast(Any, steps).send, sent)


def journey(name: str, attributes: Mapping[str, AttributeValue] | None = None) -> SpanScope:
    """What one user does, from first to last: ``with journey("get-plan"):`` or
    ``@journey("get-plan")``. Its name goes along with each gateway request made inside."""
    return SpanScope(JOURNEY, name, attributes)


def stage(name: str, attributes: Mapping[str, AttributeValue] | None = None) -> SpanScope:
    """One part of a journey. Usual names: prompt, retrieval, model, tools, database, rendering."""
    return SpanScope(STAGE, name, attributes)
