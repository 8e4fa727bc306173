"""Flags and variants in the spec: what must exist, and how they are frozen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.spec.apps import SOUND, app, mistakes, only
from tidegate.base.errors import ReleaseError
from tidegate.base.flag_rules import HASH_FORM
from tidegate.release.diff import changes
from tidegate.release.files import AppFiles
from tidegate.release.values import Release, Variant, reachable_models
from tidegate.spec import build_release, load

FLAG = {"state": "ENABLED", "variants": {"off": "off", "terse": "terse"}, "defaultVariant": "off"}
DOCUMENT = json.dumps({"flags": {"style": FLAG}})
ROUTE = "    prompt: plan\n    models: large\n"


def flagged(folder: Path, route: str, document: str | None = DOCUMENT, **more: Any) -> Path:
    """The sound app, whose route has the further keys ``route`` and whose file is ``document``."""
    spec = SOUND.replace(ROUTE, f"{ROUTE}    {route}\n") + "flags: flags.json\n"
    return app(folder, spec, **{"flags.json": document, **more})


@pytest.mark.parametrize(
    ("route", "path", "message", "nearest"),
    [
        ("flag: stile", "flag", "there is no flag stile in flags.json", "style"),
        ("variants: {terse: {models: small}}", "variants", "no flag chooses", None),
        (
            "flag: style\n    variants: {ters: {models: small}}",
            "variants.ters",
            "has no variant ters",
            "terse",
        ),
        (
            "flag: style\n    variants: {terse: {models: smal}}",
            "variants.terse.models",
            "no model smal",
            "small",
        ),
        (
            "flag: style\n    variants: {terse: {models: embed}}",
            "variants.terse.models",
            "is for embeddings",
            None,
        ),
        (
            "flag: style\n    variants: {terse: {prompt: plam}}",
            "variants.terse.prompt",
            "no prompt plam",
            "plan",
        ),
        ("flag: style\n    variants: {terse: {}}", "variants.terse", "changes nothing", None),
    ],
)
def test_a_variant_that_nobody_could_get_is_a_mistake(
    tmp_path: Path, route: str, path: str, message: str, nearest: str | None
) -> None:
    mistake = only(mistakes(flagged(tmp_path, route)))
    assert mistake.path == f"routes.recommend.{path}"
    assert message in mistake.message
    assert mistake.nearest == nearest


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "not JSON"),
        ('{"flags": {"style": {"state": "ON", "variants": {"a": 1}}}}', "ENABLED or DISABLED"),
        (None, "flags.json"),
    ],
)
def test_a_document_that_is_not_sound_is_a_mistake(
    tmp_path: Path, document: str | None, message: str
) -> None:
    assert message in only(mistakes(flagged(tmp_path, "flag: style", document))).message


def test_flags_are_frozen_with_the_form_in_which_they_hash(tmp_path: Path) -> None:
    first = built(flagged(tmp_path, "flag: style\n    variants: {terse: {models: small}}"))
    assert first.flags is not None
    assert (first.flags.document, first.flags.hash) == (DOCUMENT, HASH_FORM)
    assert first.files["flags.json"] == first.flags.file
    route = first.routes["recommend"]
    assert route.flag == "style"
    assert route.variants == {"terse": Variant(models=("small",), prompt="plan")}
    assert {model.name for model in reachable_models(first)} == {"large", "small", "embed"}
    other = msgspec.structs.replace(
        first,
        flags=msgspec.structs.replace(first.flags, document=DOCUMENT + "\n\nmore", hash="raw"),
    )
    assert [str(change) for change in changes(first, other)] == [
        "flags: text changed (3 lines, +2 -0)",
        "flags: hash cbor -> raw",
    ]
    none = msgspec.structs.replace(first, flags=None)
    assert "flags: removed" in [str(change) for change in changes(first, none)]


def test_a_build_refuses_flags_that_nobody_checked(tmp_path: Path) -> None:
    folder = flagged(tmp_path, "flag: style")
    spec = load(folder, {}).spec
    (folder / "flags.json").write_text("{}")
    with pytest.raises(ReleaseError, match="no object 'flags'") as raised:
        build_release(spec, AppFiles(folder))
    assert raised.value.code == "flags_invalid"


def built(folder: Path) -> Release:
    return build_release(load(folder, {}).spec, AppFiles(folder))
