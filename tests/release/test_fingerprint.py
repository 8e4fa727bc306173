"""A route's fingerprint changes with what may change an answer, and with nothing else."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.release.walk import Edit, edits, fields, kinds, sample
from tidegate.release.fingerprint import COUNTS, INERT, fingerprint
from tidegate.release.values import Model, Prompt, Release, Route, Tool

replace = msgspec.structs.replace
ROUTE = replace(sample(Route), models=("first", "second"), prompt="one", tools=("one",))
RELEASE = Release(
    app="a",
    models={"first": sample(Model), "second": sample(Model, 1)},
    prompts={"one": sample(Prompt), "two": sample(Prompt, 1)},
    tools={"one": sample(Tool), "two": sample(Tool, 1)},
)
NAMES: dict[str, Any] = {
    "models": [("first",), ("second", "first")],
    "prompt": ["two", None],
    "tools": [("two",), ("one", "two"), ()],
}
"""Values of the fields that name something: other names that are there."""


def of(
    release: Release = RELEASE, route: Route = ROUTE, address: str | None = "https://h"
) -> bytes:
    return fingerprint(release, route, [address] * len(route.models))


def route_edits() -> list[tuple[Edit, bytes]]:
    named = [
        Edit(Route, name, replace(ROUTE, **{name: v})) for name, vs in NAMES.items() for v in vs
    ]
    free = [one for one in edits(ROUTE) if not (one.kind is Route and one.field in NAMES)]
    return [(one, of(route=one.value)) for one in (*named, *free)]


def part_edits() -> list[tuple[Edit, bytes]]:
    """Edits of the prompt, the tool and the first model of the route."""
    found = []
    for section, name in (("prompts", "one"), ("tools", "one"), ("models", "first")):
        parts = getattr(RELEASE, section)
        for one in edits(parts[name]):
            changed = replace(RELEASE, **{section: {**parts, name: one.value}})
            found.append((one, of(changed)))
    return found


EDITS = [*route_edits(), *part_edits()]
KINDS = sorted(kinds(Route, Prompt, Tool, Model), key=lambda kind: kind.__name__)
FIELDS = [(kind, name) for kind in KINDS for name in fields(kind)]


@pytest.mark.parametrize(("kind", "name"), FIELDS, ids=[f"{k.__name__}.{n}" for k, n in FIELDS])
def test_each_field_counts_or_not_as_the_tables_say(kind: type[msgspec.Struct], name: str) -> None:
    counts, inert = name in COUNTS.get(kind, ()), name in INERT.get(kind, ())
    assert counts != inert, "the field stands in neither table or in both; say why it is there"
    tried = [(edit, result != of()) for edit, result in EDITS if edit[:2] == (kind, name)]
    assert tried, "no edit of this field was tried"
    for edit, changed in tried:
        within_inert = any(field in INERT.get(kind, ()) for kind, field in edit.around)
        assert changed == (counts and not within_inert), edit


def test_the_tables_name_no_field_that_is_not_there() -> None:
    named = {(kind, name) for table in (COUNTS, INERT) for kind in table for name in table[kind]}
    assert named == set(FIELDS)
    assert all(why for table in (COUNTS, INERT) for one in table.values() for why in one.values())


@pytest.mark.parametrize("other", [None, "https://elsewhere"])
def test_where_a_base_url_leads_counts(other: str | None) -> None:
    assert of(address=other) != of()


def test_the_order_of_a_schema_counts_and_the_order_of_names_does_not() -> None:
    """Models write an object's fields in the order of its schema."""
    assert ROUTE.output is not None

    def with_schema(*names: str) -> Route:
        schema = {"properties": {name: {} for name in names}}
        return replace(ROUTE, output=replace(ROUTE.output, json_schema=schema))

    def with_files(*roles: str) -> Release:
        (artifact,) = RELEASE.models["first"].artifacts.values()
        model = replace(RELEASE.models["first"], artifacts=dict.fromkeys(roles, artifact))
        return replace(RELEASE, models={**RELEASE.models, "first": model})

    assert of(route=with_schema("why", "answer")) != of(route=with_schema("answer", "why"))
    assert of(with_files("weights", "tokenizer")) == of(with_files("tokenizer", "weights"))


def test_each_model_has_one_address() -> None:
    with pytest.raises(ValueError, match="argument 2"):
        fingerprint(RELEASE, ROUTE, ["https://h"])
