"""One model, bound to where it is served: adapter, connections, credentials, ready request head."""

from __future__ import annotations

from collections.abc import Callable

from tidegate.base.errors import ReleaseError
from tidegate.gateway.call.ports import Encoded, Provider
from tidegate.gateway.call.providers import find_provider
from tidegate.gateway.wire.upstream import Pool, parse_origin
from tidegate.release.values import Model


class Target:
    """Everything about a model that does not change from one request to the next."""

    def __init__(
        self, model: Model, provider: Provider, pool: Pool, key: str | None, *, pooled: bool = False
    ) -> None:
        self.model = model
        self.pooled = pooled
        """Served by a pool of ours. Its engine notices that a caller has left only when it
        streams, so it is always asked for a stream; a whole answer is put together here."""
        self.provider = provider
        self.pool = pool
        lines = [
            ("host", pool.origin.authority),
            ("content-type", "application/json"),
            ("accept-encoding", "identity"),
            ("user-agent", "tidegate"),
            *provider.headers(key),
        ]
        for name, value in lines:
            if "\r" in value or "\n" in value or "\0" in value:
                raise ReleaseError(
                    "credential_invalid",
                    f"the {name} header of model {model.name!r} would hold a line break",
                    cure="store the key again without line breaks",
                )
        self.tell = teller(key)
        """Words of the upstream as a client may read them: short, and without the key."""
        self._head = "".join(f"{name}: {value}\r\n" for name, value in lines).encode()

    def request(self, encoded: Encoded) -> bytes:
        """The bytes of one HTTP/1.1 request."""
        line = f"POST {self.pool.origin.prefix}{encoded.path} HTTP/1.1\r\n".encode()
        return b"%b%bcontent-length: %d\r\n\r\n%b" % (
            line,
            self._head,
            len(encoded.body),
            encoded.body,
        )


_MOST_TOLD = 1000


def teller(*keys: str | None) -> Callable[[str], str]:
    """A function that shortens ``words`` and takes ``keys`` out of them, in a closure so that
    nothing which prints a target prints a key."""

    def tell(words: str) -> str:
        for key in keys:
            if key:
                words = words.replace(key, "<key>")
        return words if len(words) <= _MOST_TOLD else words[:_MOST_TOLD] + " ..."

    return tell


def make_target(model: Model, base_url: str, key: str | None, *, pooled: bool = False) -> Target:
    """Bind a model. Raises ReleaseError for an unknown provider or an unusable URL."""
    provider = find_provider("openai" if pooled else model.provider)
    try:
        origin = parse_origin(base_url)
    except ValueError as error:
        raise ReleaseError(
            "base_url_invalid",
            f"model {model.name!r}: {error}",
            cure="write an http or https URL, as in https://api.example.com/v1",
        ) from None
    return Target(model, provider, Pool(origin), key, pooled=pooled)
