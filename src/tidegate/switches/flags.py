"""Flags: a flagd document, evaluated with flagd's own core.

Imported by who evaluates flags only: the library takes a fifth of a second to load.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from openfeature.contrib.tools.flagd.core import FlagdCore
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import OpenFeatureError

from tidegate.base import ReleaseError, UsageError, flag_rules

HASH_FORM = flag_rules.HASH_FORM

VECTORS = {"user-1": 40, "user-2": 22, "user-42": 87, "tenant-acme": 72}
"""Bucket of 100 of each targeting key, for the flag ``answer-model``: what the library is held
against."""
RAW_VECTORS = {"user-1": 26, "user-2": 28, "user-42": 82, "tenant-acme": 0}
"""The same where the plain string is hashed."""

_SAMPLES = 64
"""Users of a dry run."""

# It tells of a rule that cannot be applied to a user on every request.
logging.getLogger("openfeature.contrib").setLevel(logging.CRITICAL)


class Resolution(msgspec.Struct, frozen=True):
    """What a flag says to one request. ``variant``: None where it says nothing."""

    variant: str | None
    reason: str
    """As OpenFeature names it: STATIC, DEFAULT, TARGETING_MATCH, DISABLED, ERROR."""


class Flags:
    """One document, ready to be asked. Raises UsageError ``flags_invalid`` when it is not sound."""

    def __init__(self, body: str) -> None:
        document, problems = flag_rules.read(body)
        if document is None or problems:
            raise invalid(problems)
        self._core = FlagdCore()
        self._ask: dict[str, Callable[[str, EvaluationContext], Any]] = {}
        for name, flag in document["flags"].items():
            self._ask[name] = self._question(next(iter(flag["variants"].values())))
        try:
            self._core.set_flags(msgspec.json.decode(body))
        except (OpenFeatureError, ValueError, LookupError, RecursionError) as error:
            raise invalid((str(error) or type(error).__name__,)) from None

    def names(self) -> frozenset[str]:
        return frozenset(self._ask)

    def resolve(self, flag: str, user: str | None, about: Mapping[str, Any]) -> Resolution:
        """The variant of ``flag`` for ``user``, with what else is known ``about`` the request. A
        flag that is not there, or a rule that fails, is the reason ERROR and no variant."""
        ask = self._ask.get(flag)
        if ask is None:
            return Resolution(None, "ERROR")
        context = EvaluationContext(targeting_key=user, attributes=dict(about))
        try:
            found = ask(flag, context)
        except Exception:  # noqa: BLE001 - the edge to rules that people write: JsonLogic raises anything
            return Resolution(None, "ERROR")
        return Resolution(found.variant, str(found.reason))

    def _question(self, value: object) -> Callable[[str, EvaluationContext], Any]:
        """The call of the core for variants of the type of ``value``."""
        core = self._core
        if isinstance(value, bool):
            return lambda flag, context: core.resolve_boolean_value(flag, False, context)
        if isinstance(value, str):
            return lambda flag, context: core.resolve_string_value(flag, "", context)
        if isinstance(value, int | float):
            return lambda flag, context: core.resolve_float_value(flag, 0.0, context)
        return lambda flag, context: core.resolve_object_value(flag, {}, context)


def check(body: str) -> Flags:
    """The flags of a document that is fit to be put in force: sound, and every flag answers for a
    number of users, with one and without. Raises UsageError ``flags_invalid``."""
    flags = Flags(body)
    users = [None, *(f"user-{n}" for n in range(_SAMPLES))]
    about = {"tenant": "acme", "key": "0" * 12, "route": "r", "journey": "j"}
    failing = [
        f"flag {name}: its targeting cannot be evaluated (for user {user or 'none'})"
        for name in sorted(flags.names())
        for user in users
        if flags.resolve(name, user, about).reason == "ERROR"
    ]
    if failing:
        raise invalid(tuple({line.partition(" (")[0]: line for line in failing}.values()))
    return flags


def hash_form() -> str:
    """How the installed library hashes: ``cbor``, ``raw``, or ``unknown``."""
    shares = [[str(n), 1] for n in range(100)]
    flag = {
        "state": "ENABLED",
        "variants": {str(n): str(n) for n in range(100)},
        "targeting": {"fractional": shares},
    }
    core = FlagdCore()
    core.set_flags({"flags": {"answer-model": flag}})
    found = {
        user: core.resolve_string_value("answer-model", "", EvaluationContext(user)).variant
        for user in VECTORS
    }
    for form, vectors in ((HASH_FORM, VECTORS), ("raw", RAW_VECTORS)):
        if found == {user: str(bucket) for user, bucket in vectors.items()}:
            return form
    return "unknown"


def require_form(pinned: str) -> None:
    """Refuse to evaluate flags whose users would fall into other cohorts than where they were
    pinned. Raises ReleaseError ``flag_hash_changed``."""
    installed = hash_form()
    if pinned != installed:
        raise ReleaseError(
            "flag_hash_changed",
            f"these flags were pinned where users are hashed as {pinned}; openfeature-flagd-core "
            f"here hashes them as {installed}, which would move users between variants",
            cure="install the version of openfeature-flagd-core that tidegate's lock names, or "
            "build a new release and set the flags again, knowing that users move",
        )


def invalid(problems: tuple[str, ...]) -> UsageError:
    """The refusal of a document."""
    return UsageError(
        "flags_invalid",
        f"the flags are not fit to be put in force: {'; '.join(problems[:10])}",
        cure="mend the document as the message says; the flags in force stay as they are",
    )
