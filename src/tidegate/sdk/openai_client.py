"""A hook in the official OpenAI client that adds trace context to requests to the gateway.

The client has no public hook for every instance: those of its ``http_client`` are for one
instance at a time. ``BaseClient._build_request`` is the one place where synchronous and
asynchronous clients, made before or after, streaming or not, build each request and each retry.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
from typing import Any, Protocol, cast

from tidegate.sdk.propagation import trace_headers

log = logging.getLogger("tidegate.sdk")

_MODULE = "openai._base_client"
_original: Any = None
_installed: Any = None
_active = False


class _Request(Protocol):
    url: object
    headers: dict[str, str]


def add_trace(request: _Request) -> None:
    """Set the headers that the request lacks; those that the app set itself stay."""
    for name, value in trace_headers(str(request.url)).items():
        if name not in request.headers:
            request.headers[name] = value


def install() -> bool:
    """Hook the client. Idempotent; False when openai is not installed or is built differently."""
    global _original, _installed, _active
    if _active or importlib.util.find_spec("openai") is None:
        return _active
    try:
        client = importlib.import_module(_MODULE).BaseClient
        original = client._build_request
    except (ImportError, AttributeError) as error:
        log.warning(
            "gateway requests are not joined with journeys: openai cannot be hooked: %s", error
        )
        return False
    if _installed is None or original is not _installed:
        _original, _installed = original, _wrap(original)
        client._build_request = _installed
    _active = True
    return True


def uninstall() -> None:
    """Restore the client's own method, unless another library has wrapped ours since: removing it
    then would remove theirs, so it stays and does nothing."""
    global _original, _installed, _active
    if not _active:
        return
    _active = False
    client = importlib.import_module(_MODULE).BaseClient
    if client._build_request is _installed:
        client._build_request = _original
        _original = _installed = None


def _wrap(original: Any) -> Any:
    @functools.wraps(original)
    def _build_request(self: object, *args: Any, **kwargs: Any) -> Any:
        request = original(self, *args, **kwargs)
        if _active:
            add_trace(cast(_Request, request))
        return request

    return _build_request
