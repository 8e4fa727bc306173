"""The keys of one model: which one a try uses, how each is doing, replacing them while serving.

A try holds a ``Lease`` on one key until it is over, so a key that is taken out finishes what it
began. A key that the provider rejects, or that has used up its quota, leaves the rotation for a
time, and the next one is tried within the same request. A model with one key has nowhere to move:
it is never set aside, each request asks and obeys for itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from tidegate.gateway.ports import UnsignedRequest
from tidegate.gateway.targets import breaker
from tidegate.gateway.targets.failures import HEDGE_LOST, LEFT, AttemptFailed, Failure
from tidegate.release import Breaker
from tidegate.secrets import fingerprint

log = logging.getLogger("tidegate.gateway.keys")

REJECTED_FOR = 60.0
"""Seconds that a rejected key is left out, unless the provider says otherwise."""
LIMITED_FOR = 1.0
"""Seconds that a limited key rests when the provider does not say; doubled each time in a row."""
LEAST_REST = 0.1
"""So that the next try of the same request has another key, even if the provider says 0."""
MOST_REST = 3600.0

_SAYS_NOTHING = frozenset((LEFT.code, HEDGE_LOST))
_HEALTHY = frozenset(
    ("upstream_too_large", "upstream_rate_limited", "upstream_key_rejected", "output_invalid")
)
"""Codes of tries at a model that is up, beside its refusals of the request itself."""
_REFUSALS = (400, 413, 422)
"""Statuses of those, whatever their code is."""

KeyState = Literal["active", "canary", "draining"]


class KeySetting(msgspec.Struct, frozen=True):
    """One key as it shall serve: ``canary`` takes ``share`` of the tries, ``draining`` no new ones
    and finishes what it has. ``key`` is None for a model that needs none."""

    key: str | None
    state: KeyState = "active"
    share: float = 1.0

    def __repr__(self) -> str:
        return f"<key {_named(self.key)}: {self.state}>"


class KeyStatistics(msgspec.Struct, frozen=True):
    """How one key does. The key itself is never shown."""

    fingerprint: str | None
    state: KeyState
    in_flight: int
    taken: int
    """Tries since it was set."""
    resting: bool
    breaker: str


def _named(key: str | None) -> str | None:
    return None if key is None else fingerprint(key)


class Signed(msgspec.Struct, frozen=True):
    """What a key puts on each request: header lines that are always the same, and where the
    provider signs each request the function that gives the others. It closes over the key, so that
    nothing which prints this prints a key."""

    head: bytes
    sign: Callable[[UnsignedRequest], bytes] | None = None


class Credential:
    """One key and its health."""

    __slots__ = (
        "breaker",
        "digest",
        "fingerprint",
        "head",
        "in_flight",
        "limited",
        "rest_code",
        "rests_until",
        "share",
        "sign",
        "state",
        "taken",
        "turn",
    )

    def __init__(self, digest: bytes, name: str | None, signed: Signed, now: float) -> None:
        self.digest, self.fingerprint = digest, name
        self.head, self.sign = signed.head, signed.sign
        self.state: KeyState = "active"
        self.share = 1.0
        self.in_flight = self.taken = self.turn = self.limited = 0
        self.rests_until = 0.0
        self.rest_code = ""
        self.breaker: breaker.State = breaker.Closed(now)


def pick(ready: Sequence[Credential], draw: float) -> Credential:
    """Of the keys that can be used: a canary for its share of ``draw`` in [0, 1), else the active
    one whose turn is longest ago, else any canary. ``ready`` is not empty."""
    active = [one for one in ready if one.state == "active"]
    canaries = [one for one in ready if one.state == "canary"]
    upto = 0.0
    for one in canaries:
        upto += one.share
        if draw < upto:
            return one
    return min(active or canaries, key=lambda one: one.turn)


class KeyPool:
    """All keys of one model in one worker."""

    def __init__(
        self, model: str, keys: Sequence[KeySetting], signed: Callable[[str | None], Signed],
        settings: Breaker | None,
    ) -> None:  # fmt: skip
        self._model = model
        self._signed = signed
        self._settings = settings
        self._keys: list[Credential] = []
        self._turn = 0
        self._serving: list[Credential] = []
        """Those of the keys that take tries."""
        self.set_keys(keys)

    def set_keys(self, settings: Sequence[KeySetting]) -> None:
        """Serve with these keys from the next try on. One that stays keeps its health; one that is
        left out finishes what it began. Raises ReleaseError for a key no header can hold, and then
        nothing has changed."""
        known = {one.digest: one for one in self._keys}
        kept: list[tuple[Credential, KeySetting]] = []
        for setting in settings:
            digest = hashlib.sha256((setting.key or "").encode()).digest()
            one = known.get(digest) or Credential(
                digest, _named(setting.key), self._signed(setting.key), 0.0
            )
            kept.append((one, setting))
        for one, setting in kept:
            one.state, one.share = setting.state, setting.share
        self._keys = [one for one, _ in kept]
        self._serving = [one for one in self._keys if one.state != "draining"]

    def statistics(self, now: float) -> tuple[KeyStatistics, ...]:
        return tuple(
            KeyStatistics(
                one.fingerprint,
                one.state,
                one.in_flight,
                one.taken,
                one.rests_until > now,
                type(one.breaker).__name__.lower(),
            )
            for one in self._keys
        )

    def ready(self, now: float) -> list[Credential]:
        """The keys that a try may use now."""
        serving = self._serving
        if len(serving) == 1:
            return serving if breaker.admits(serving[0].breaker, now) else []
        return [
            one for one in serving if one.rests_until <= now and breaker.admits(one.breaker, now)
        ]

    def another(self, now: float) -> bool:
        """Whether several keys serve, and one that a try may use now: after one was set aside that
        is another one."""
        return len(self._serving) > 1 and bool(self.ready(now))

    def __len__(self) -> int:
        return len(self._keys)

    def take(self, draw: float) -> Lease:
        """A key for one try. Raises AttemptFailed, without having sent anything, when there is
        none now: the breaker is open, or all keys rest."""
        now = asyncio.get_running_loop().time()
        ready = self.ready(now)
        if not ready:
            raise AttemptFailed(self._refusal(now))
        chosen = ready[0] if len(ready) == 1 else pick(ready, draw)
        probe = not isinstance(chosen.breaker, breaker.Closed)
        if probe:
            self._step(chosen, "ask", now)
        self._turn += 1
        chosen.turn = self._turn
        chosen.taken += 1
        chosen.in_flight += 1
        return Lease(self, chosen, probe)

    def _refusal(self, now: float) -> Failure:
        """Why no key can be used, by the one that can be soonest."""
        serving = self._serving
        if not serving:
            words = "the model has no key that takes requests"
            return Failure("upstream_key_rejected", words, 502, True)
        soonest = min(serving, key=lambda one: self._ready_at(one, now))
        wait = max(0.1, self._ready_at(soonest, now) - now)
        if not breaker.admits(soonest.breaker, now):
            words = "it failed too often, so it is left alone and probed now and then"
            return Failure("upstream_breaker_open", words, 503, True, wait=wait)
        if soonest.rest_code == "upstream_key_rejected":
            words = "the upstream refused every key that the gateway has"
            return Failure("upstream_key_rejected", words, 502, True)
        words = "every key has used up what the upstream allows for now"
        return Failure("upstream_rate_limited", words, 429, True, again=True, wait=wait)

    def _ready_at(self, one: Credential, now: float) -> float:
        match one.breaker:
            case breaker.Open(until=until):
                return max(until, one.rests_until)
            case breaker.HalfOpen():
                return max(now + 1.0, one.rests_until)
            case _:
                return one.rests_until

    def _step(self, one: Credential, event: breaker.BreakerEvent, now: float) -> None:
        if self._settings is None:
            return
        one.breaker, words = breaker.step(one.breaker, event, now, self._settings)
        if words:
            key = f", key {one.fingerprint}" if one.fingerprint else ""
            log.warning("breaker of model %s%s: %s", self._model, key, words)

    def _rest(self, one: Credential, failure: Failure, now: float) -> None:
        """Set a key aside that the provider rejected or limits; said once in the log."""
        rejected = failure.upstream_status in (401, 403)
        again, one.limited = one.limited > 0, one.limited + 1
        wait = failure.wait
        if wait is None:
            short = not rejected and failure.again
            wait = LIMITED_FOR * 2.0 ** min(one.limited - 1, 16) if short else REJECTED_FOR
        one.rests_until = now + min(max(wait, LEAST_REST), MOST_REST)
        one.rest_code = failure.code
        if not again:
            who = f"key {one.fingerprint} of model" if one.fingerprint else "model"
            what = "was rejected" if rejected else "is used up"
            then = "it rests" if len(self._keys) > 1 else "there is no other key"
            log.log(
                logging.ERROR if rejected else logging.WARNING,
                "%s %s %s (status %s): %s",
                *(who, self._model, what, failure.upstream_status, then),
            )

    def over(self, lease: Lease, code: str | None, failure: Failure | None) -> None:
        """Update the key's health from an attempt, under way or over. Called by its lease."""
        one, now = lease.credential, asyncio.get_running_loop().time()
        of_key = failure is not None and failure.upstream_status in (401, 402, 403, 429)
        if failure is not None and of_key and not failure.policy:
            self._rest(one, failure, now)
        elif code is None:
            one.limited = 0
        if lease.probe != isinstance(one.breaker, breaker.HalfOpen):
            return  # it passed before the breaker opened: what it says is old
        refused = failure is not None and failure.upstream_status in _REFUSALS
        if code in _SAYS_NOTHING:
            self._step(one, "abandoned", now)
        elif code is None or refused or code in _HEALTHY or not code.startswith("upstream_"):
            if not lease.told:
                self._step(one, "answered", now)
        else:
            self._step(one, "broke" if lease.told else "failed", now)


class Lease:
    """One try's hold on a key. ``end`` must be called; only the first call counts."""

    __slots__ = ("_ended", "_pool", "credential", "probe", "told")

    def __init__(self, pool: KeyPool, credential: Credential, probe: bool) -> None:
        self._pool = pool
        self.credential = credential
        self.probe = probe
        self.told = self._ended = False
        """``told``: that the model has begun to answer."""

    @property
    def fingerprint(self) -> str | None:
        return self.credential.fingerprint

    def answered(self) -> None:
        """The model has begun to answer; the key stays in use."""
        if not self.told:
            self._pool.over(self, None, None)
            self.told, self.probe = True, False

    def end(self, code: str | None = None, failure: Failure | None = None) -> None:
        """End the lease; ``code`` is that of the failure, if there was one."""
        if self._ended:
            return
        self._ended = True
        self.credential.in_flight -= 1
        if code is None:
            self.answered()
        elif not (self.told and code in _SAYS_NOTHING):
            self._pool.over(self, code, failure)
