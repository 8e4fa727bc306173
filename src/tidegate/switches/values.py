"""Everything that may flip without a release, as one value at one version."""

from __future__ import annotations

from typing import Literal

import msgspec

from tidegate.switches.rules import KeyRecord

EVERY = ""
"""Stands for every route where a switch is not for one."""

KillKind = Literal["route", "model", "tool", "tenant", "prompts"]


class Kill(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that this names are refused, or go on without what it names."""

    kind: KillKind
    name: str
    """Of kind ``prompts``: a route, or EVERY."""
    tokens: int | None = None
    """Of kind ``prompts``: longer ones are refused."""
    reason: str | None = None


class Cap(msgspec.Struct, frozen=True, kw_only=True):
    """Most that one request may use, set by hand; the tightest of all caps holds."""

    route: str = EVERY
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    surge: Literal["on", "off"] | None = None
    """The release's cap under load: held or not, whatever the load is; None: by load."""
    reason: str | None = None


class Weight(msgspec.Struct, frozen=True, kw_only=True):
    """A release's share of a route's requests. The first one of a route is the stable one."""

    release: str
    """Whole digest."""
    weight: int
    """Percent."""
    route: str = EVERY


class FlagDocument(msgspec.Struct, frozen=True, kw_only=True):
    """One flagd document."""

    number: int
    body: str
    hash: str
    """How its fractional rules hash a user."""


SecretState = Literal["active", "canary", "draining", "revoked"]


class SecretKey(msgspec.Struct, frozen=True, kw_only=True):
    """How one key of a provider serves. A key that no value names is active."""

    secret: str
    """Name of the secret that holds it."""
    fingerprint: str
    state: SecretState
    share: float = 1.0
    """Of a canary: its share of the requests to the model."""


class SwitchSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Every switch at one version."""

    version: int
    keys: tuple[KeyRecord, ...] = ()
    kills: tuple[Kill, ...] = ()
    caps: tuple[Cap, ...] = ()
    traffic: tuple[Weight, ...] = ()
    flags: FlagDocument | None = None
    secrets: tuple[SecretKey, ...] = ()


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker runs: every switch of ``version`` is in force, but for what ``error`` says."""

    version: int
    error: str | None = None
