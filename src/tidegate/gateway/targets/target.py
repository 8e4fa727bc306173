"""One model, bound to where it is served: adapter, connections, keys, ready request heads."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from tidegate.base import ReleaseError
from tidegate.gateway.ports import EncodedRequest, Provider, UnsignedRequest
from tidegate.gateway.providers import find_provider
from tidegate.gateway.targets.keys import Credential, KeyPool, KeySetting, Signed
from tidegate.gateway.wire.http_server import HeaderList
from tidegate.gateway.wire.upstream import ConnectionPool, parse_origin
from tidegate.release import Model


class Target:
    """Everything about a model that does not change from one request to the next, and its keys."""

    def __init__(
        self,
        model: Model,
        provider: Provider,
        pool: ConnectionPool,
        keys: Sequence[str | None],
        *,
        pooled: bool = False,
    ) -> None:
        self.model = model
        self.pooled = pooled
        """Served by a pool of ours. Its engine notices that a caller has left only when it
        streams, so it is always asked for a stream; a whole answer is put together here."""
        self.provider = provider
        self.pool = pool
        self.keys = KeyPool(
            model.name, [KeySetting(key) for key in keys], self._signed, model.breaker
        )
        self.tell = self._teller = teller(*keys)
        """Words of the upstream as a client may read them: short, and without the keys."""

    def set_keys(self, settings: Sequence[KeySetting]) -> None:
        """Serve with these keys from the next try on; see ``KeyPool.set_keys``."""
        self.keys.set_keys(settings)
        # What is under way with a key that was taken out may still be answered with it.
        before, now = self._teller, teller(*(setting.key for setting in settings))
        self._teller = now
        self.tell = lambda words: now(before(words))

    def _signed(self, key: str | None) -> Signed:
        common = [
            ("host", self.pool.origin.authority),
            ("content-type", "application/json"),
            ("accept-encoding", "identity"),
            ("user-agent", "tidegate"),
        ]
        if not self.provider.signs_each:
            unsigned = UnsignedRequest("POST", self.pool.origin.authority, "", b"", 0.0)
            return Signed(self._lines([*common, *self.provider.sign(unsigned, key)]))
        sign = self.provider.sign
        return Signed(self._lines(common), lambda request: self._lines(sign(request, key)))

    def _lines(self, headers: HeaderList) -> bytes:
        for name, value in headers:
            if "\r" in value or "\n" in value or "\0" in value:
                raise ReleaseError(
                    "credential_invalid",
                    f"the {name} header of model {self.model.name!r} would hold a line break",
                    cure="store the key again without line breaks",
                )
        return "".join(f"{name}: {value}\r\n" for name, value in headers).encode()

    def request(self, encoded: EncodedRequest, credential: Credential) -> bytes:
        """The bytes of one HTTP/1.1 request."""
        path, body, head = self.pool.origin.prefix + encoded.path, encoded.body, credential.head
        if credential.sign is not None:
            authority = self.pool.origin.authority
            head += credential.sign(UnsignedRequest("POST", authority, path, body, time.time()))
        return b"POST %b HTTP/1.1\r\n%bcontent-length: %d\r\n\r\n%b" % (
            path.encode(),
            head,
            len(body),
            body,
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


def make_target(
    model: Model, base_url: str, keys: str | Sequence[str] | None, *, pooled: bool = False
) -> Target:
    """Bind a model, with no key, one or several. Raises ReleaseError for an unknown provider or an
    unusable URL."""
    provider = find_provider("openai" if pooled else model.provider)
    try:
        origin = parse_origin(base_url)
    except ValueError as error:
        raise ReleaseError(
            "base_url_invalid",
            f"model {model.name!r}: {error}",
            cure="write an http or https URL, as in https://api.example.com/v1",
        ) from None
    several = [keys] if keys is None or isinstance(keys, str) else keys
    return Target(model, provider, ConnectionPool(origin), several, pooled=pooled)
