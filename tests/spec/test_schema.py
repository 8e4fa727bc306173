"""The shipped JSON Schema says the same as the types, and every key has its product copy."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest

import tidegate.spec
from tests.spec.apps import SOUND
from tests.spec.walk import parts
from tidegate.base.durations import duration_text
from tidegate.spec.compose import parse
from tidegate.spec.nodes import YamlMapping
from tidegate.spec.part import SpecPart
from tidegate.spec.places import to_plain
from tidegate.spec.scalars import share_text, size_text
from tidegate.spec.schema import FILE, keys_at, schema, schema_text


@pytest.mark.parametrize("part", [*parts()], ids=lambda part: part.__name__)
def test_every_key_is_documented(part: type[SpecPart]) -> None:
    assert part.__doc__
    assert [name for name, field in part.model_fields.items() if not field.description] == []


def plain(text: str) -> object:
    node = parse(text, "").node
    assert isinstance(node, YamlMapping)
    return to_plain(node, {})[0]


def test_the_shipped_file_is_that_of_the_types() -> None:
    shipped = Path(tidegate.spec.__file__).with_name(FILE).read_text(encoding="utf-8")
    assert shipped == schema_text(), "run make fix"


def test_it_is_a_schema_that_takes_a_sound_spec_and_refuses_others() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    validator = jsonschema.Draft202012Validator(schema())
    validator.validate(plain(SOUND))
    for old, new in (("app:", "apq:"), ("exact: 1h", "exact: 1"), ("goal: string", "goal: strin")):
        assert not validator.is_valid(plain(SOUND.replace(old, new)))


def test_keys_are_known_through_names_lists_and_alternatives() -> None:
    assert "fallback" in keys_at(("routes", "any"))
    assert set(keys_at(("routes", "any", "fallback", 0))) == {"stale", "template"}
    assert "choices" in keys_at(("prompts", "any", "inputs", "any"))
    assert keys_at(("routes",)) == ()
    assert keys_at(("nowhere", 3)) == ()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0s"), (0.8, "0.8s"), (5.0, "5s"), (120.0, "2m"), (7776000.0, "90d")],
)
def test_defaults_are_written_as_a_person_would(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_shares_and_sizes_are_written_as_a_person_would() -> None:
    assert (share_text(0.05), share_text(0.995)) == ("5%", "99.5%")
    assert (size_text(4 << 20), size_text(1000)) == ("4MiB", "1000")
