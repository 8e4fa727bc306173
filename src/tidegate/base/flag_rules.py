"""Validation of flagd documents: each problem in words, before a flag is evaluated; pure.

The form is that of flagd's flag files: ``flags`` (state, variants, defaultVariant, targeting,
metadata), ``$evaluators``, ``metadata``. Targeting is JsonLogic with flagd's own operators. What
flagd would take and answer with a guess (an unknown operator, a weight that is no whole number, a
variant that is not there) is a problem here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

HASH_FORM = "cbor"
"""How ``fractional`` hashes a user: murmur3 over canonical CBOR of [flag key, targeting key]. Some
releases of flagd hash the plain string, and put about a tenth of all users into another cohort of a
5% rollout: so a release and a document name the form that their users were divided by."""
LARGEST = 1 << 20
"""Bytes of a document."""
DEEPEST = 40
"""Rules inside rules."""
MOST_WEIGHT = 2_147_483_647

_OPERATORS = """
    var missing missing_some if ?: == === != !== ! !! or and > >= < <= min max + - * / % in cat
    substr merge map filter reduce all none some log fractional starts_with ends_with sem_ver
"""
OPERATORS = frozenset(_OPERATORS.split())
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
"""Of a variant: it stands in a header and in receipts."""
_TOP = {"$schema", "$id", "$comment", "flags", "$evaluators", "metadata"}
_FLAG = {"state", "variants", "defaultVariant", "targeting", "metadata", "source", "selector"}


def read(text: str) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """The document in ``text``, and what is wrong with it: a sound one has no problems."""
    if len(text.encode(errors="replace")) > LARGEST:
        return None, (f"it is larger than {LARGEST >> 20} MiB",)
    try:
        document = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        return None, (f"line {error.lineno}: not JSON: {error.msg.lower()}",)
    except (ValueError, RecursionError) as error:
        deep = isinstance(error, RecursionError)
        return None, ("it is nested too deeply" if deep else str(error),)
    if not isinstance(document, dict):
        return None, ("it is not a JSON object",)
    return document, tuple(_problems(document))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return made


def _no_constant(word: str) -> object:
    raise ValueError(f"{word} is not JSON")


def _problems(document: dict[str, Any]) -> Iterator[str]:
    for key in document.keys() - _TOP:
        yield f"{key!r} is no key of a flagd document"
    flags, rules = document.get("flags"), document.get("$evaluators", {})
    if not isinstance(flags, dict):
        yield "it has no object 'flags'"
        return
    if not isinstance(rules, dict):
        yield "'$evaluators' is not an object"
        return
    yield from _metadata("the document", document.get("metadata"))
    for name, rule in rules.items():
        yield from _rule(f"evaluator {name}", rule, {}, frozenset(), 0)
    for name, flag in flags.items():
        yield from _flag(name, flag, frozenset(rules))


def _flag(name: str, flag: object, rules: frozenset[str]) -> Iterator[str]:
    what = f"flag {name}"
    if not isinstance(flag, dict):
        yield f"{what} is not an object"
        return
    for key in flag.keys() - _FLAG:
        yield f"{what}: {key!r} is no key of a flag"
    if flag.get("state") not in ("ENABLED", "DISABLED"):
        yield f"{what}: state is {flag.get('state')!r}, not ENABLED or DISABLED"
    variants = flag.get("variants")
    if not isinstance(variants, dict) or not variants:
        yield f"{what} has no variants"
        return
    for variant in variants:
        if not _NAME.fullmatch(variant):
            yield (
                f"{what}: the name of variant {variant[:40]!r} is not 1 to 64 "
                "letters, digits, _ . or -"
            )
    kinds = {_kind(value) for value in variants.values()}
    if None in kinds:
        yield f"{what}: a variant is null"
    elif len(kinds) > 1:
        yield f"{what}: its variants are of several types ({', '.join(sorted(map(str, kinds)))})"
    default = flag.get("defaultVariant")
    if default not in (None, "") and (not isinstance(default, str) or default not in variants):
        yield f"{what}: defaultVariant {default!r} is none of its variants"
    yield from _metadata(what, flag.get("metadata"))
    targeting = flag.get("targeting")
    if targeting is not None and not isinstance(targeting, dict):
        yield f"{what}: targeting is not an object"
    elif targeting:
        yield from _rule(what, targeting, variants, rules, 0)


def _kind(value: object) -> str | None:
    for kind, types in (("boolean", bool), ("number", (int, float)), ("string", str)):
        if isinstance(value, types):
            return kind
    return "object" if isinstance(value, dict | list) else None


def _metadata(what: str, value: object) -> Iterator[str]:
    if value is None:
        return
    if not isinstance(value, dict):
        yield f"{what}: metadata is not an object"
        return
    for key, item in value.items():
        if not key or not isinstance(item, str | int | float | bool):
            yield f"{what}: metadata {key!r} is not a string, number or boolean"


def _rule(
    what: str, rule: object, variants: Mapping[str, Any], known: frozenset[str], depth: int
) -> Iterator[str]:
    """Problems of a JsonLogic rule: every object is one operator and its arguments."""
    if depth > DEEPEST:
        yield f"{what}: its rules are nested more than {DEEPEST} deep"
    elif isinstance(rule, list):
        for item in rule:
            yield from _rule(what, item, variants, known, depth + 1)
    elif isinstance(rule, dict):
        if len(rule) != 1:
            yield f"{what}: a rule has {len(rule)} operators ({', '.join(rule) or 'none'}), not one"
            return
        operator, arguments = next(iter(rule.items()))
        if operator == "$ref":
            if arguments not in known:
                yield f"{what}: there is no evaluator {arguments!r}"
            return
        if operator not in OPERATORS:
            yield f"{what}: there is no operator {operator!r}"
            return
        if operator == "fractional":
            yield from _fractional(what, arguments, variants)
        yield from _rule(what, arguments, variants, known, depth + 1)


def _fractional(what: str, arguments: object, variants: Mapping[str, Any]) -> Iterator[str]:
    if not isinstance(arguments, list) or not arguments:
        yield f"{what}: fractional has no list of shares"
        return
    shares = arguments if isinstance(arguments[0], list) else arguments[1:]
    if not shares:
        yield f"{what}: fractional has no shares"
    total = 0
    for share in shares:
        if not isinstance(share, list) or not 1 <= len(share) <= 2:
            yield f"{what}: a share of fractional is {share!r}, not [variant, weight]"
            return
        name, weight = share[0], share[1] if len(share) == 2 else 1
        if variants and isinstance(name, str) and name not in variants:
            yield f"{what}: fractional names {name!r}, which is none of its variants"
        if isinstance(weight, dict):
            return  # computed for each request: known only then
        if isinstance(weight, bool) or not isinstance(weight, int) or weight < 0:
            yield f"{what}: the weight of {name!r} is {weight!r}, not a whole number from 0 up"
            return
        total += weight
    if not 0 < total <= MOST_WEIGHT:
        yield f"{what}: the weights of fractional add up to {total}"
