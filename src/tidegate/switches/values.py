"""Everything that may flip without a release, as one value at one version."""

from __future__ import annotations

from typing import Literal

import msgspec

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
    """Every switch but the keys, at one version. Each field that SECTIONS names is a section."""

    version: int
    mark: int | None = None
    """Time of the change that made this version, in microseconds of the database's clock: tells
    version 7 from the version 7 of a database that was restored from a backup."""
    history: int = 0
    """How often this worker has seen the versions go backwards. A version of an earlier history
    says nothing about what is in force in this one."""
    kills: tuple[Kill, ...] = ()
    caps: tuple[Cap, ...] = ()
    traffic: tuple[Weight, ...] = ()
    flags: FlagDocument | None = None
    secrets: tuple[SecretKey, ...] = ()


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """Where one section of the snapshot is stored, and so how it is read and written."""

    table: str
    row: type[msgspec.Struct]
    """Its fields are the columns that a worker reads."""
    key: tuple[str, ...]
    """Columns that name one row."""
    order: tuple[str, ...] = ()
    """Columns that the rows are sorted by; empty: the key."""
    only: str = ""
    """Condition that exactly one row fulfils, where the section is one value or none."""


SECTIONS: dict[str, Section] = {
    "kills": Section(table="kills", row=Kill, key=("kind", "name")),
    "caps": Section(table="caps", row=Cap, key=("route",)),
    "traffic": Section(
        table="traffic", row=Weight, key=("route", "release"), order=("route", "place")
    ),
    "flags": Section(
        table="flag_documents",
        row=FlagDocument,
        key=("number",),
        only="number = (SELECT number FROM flags_in_force)",
    ),
    "secrets": Section(table="secret_keys", row=SecretKey, key=("secret", "fingerprint")),
}
"""Name of a field of SwitchSnapshot to where it is stored; its table has a trigger that writes the
same name to ``switch_sections``."""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker runs: every switch of ``version`` is in force, but for what ``error`` says."""

    version: int
    error: str | None = None
    history: int = 0
    """Of the snapshot that is in force."""
