"""Every key that a person may write is in the digest, and every default stands once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from tests.spec.walk import edits, parts, sample
from tidegate import release
from tidegate.spec import build_release
from tidegate.spec.part import SpecPart
from tidegate.spec.resolve import Surroundings, resolve
from tidegate.spec.scalars import Items
from tidegate.spec.types import Spec

FLAGS = '{"flags": {"f": {"state": "ENABLED", "variants": {"v": 1}, "defaultVariant": "v"}}}'
INERT = {
    (Spec, "include"): "an app is the same in one file and in several",
}
"""Keys that are not in the digest, and why."""


class AnyFile:
    """Gives every file of an app: flags where the name says so, else a JSON Schema."""

    def open(self, path: str) -> Iterator[bytes]:
        yield FLAGS.encode() if path.endswith("flags.json") else b'{"type": "object"}'


def digest(spec: Spec) -> str:
    return release.pack(build_release(spec, AnyFile())).digest


WHOLE: Spec = sample(Spec)
EDITS = list(edits(WHOLE))
KEYS = [(part, key) for part in parts() for key in part.model_fields]


@pytest.fixture(scope="module")
def before() -> str:
    return digest(WHOLE)


@pytest.mark.parametrize(("part", "key"), KEYS, ids=[f"{p.__name__}.{k}" for p, k in KEYS])
def test_each_key_is_in_the_digest(part: type[SpecPart], key: str, before: str) -> None:
    tried = [edit for edit in EDITS if (edit.part, edit.key) == (part, key)]
    assert tried, "no spec was tried with another value of this key"
    for edit in tried:
        assert (digest(edit.value) != before) == ((part, key) not in INERT), edit


def test_a_key_that_is_left_out_has_the_default_of_the_release() -> None:
    model = {"provider": "openai", "name": "m-1", "base_url": "https://h/v1"}
    plain = {"app": "a", "models": {"m": model}, "routes": {"r": {"models": "m"}}}
    built = build_release(Spec.model_validate(plain), AnyFile())
    made = release.Model(
        name="m", kind="chat", provider="openai", upstream="m-1", base_url="https://h/v1"
    )
    route = release.Route(name="r", kind="chat", models=("m",))
    assert built == release.Release(app="a", models={"m": made}, routes={"r": route})


def test_a_default_cannot_stand_twice() -> None:
    class Resolved(msgspec.Struct):
        most: int = 2

    with pytest.raises(TypeError, match=r"Authored\.most: its default stands twice"):

        class Authored(SpecPart, resolves=Resolved):
            """A part."""

            most: int = 3


class Inner(msgspec.Struct, frozen=True):
    share: float = 0.5


class Outer(msgspec.Struct, frozen=True):
    words: tuple[str, ...] = ("a",)
    inner: Inner = Inner()
    named: dict[str, Inner] = {}


class InnerSpec(SpecPart, resolves=Inner):
    """Inside."""

    share: float


class OuterSpec(SpecPart, resolves=Outer):
    """Outside."""

    words: Items[str]
    inner: InnerSpec
    named: dict[str, InnerSpec]


def test_a_key_that_passes_through_needs_no_other_line() -> None:
    """Authored under a name, resolved under the same: text, a list, parts by name."""

    def resolved(**plain: Any) -> Outer:
        around = Surroundings("", WHOLE, release.Pins(AnyFile()))
        made = resolve(OuterSpec.model_validate(plain), around)
        assert isinstance(made, Outer)
        return made

    assert resolved() == Outer()
    changed = resolved(words=["b"], inner={"share": 0.1}, named={"n": {}})
    assert changed == Outer(words=("b",), inner=Inner(share=0.1), named={"n": Inner()})
