"""Releases of the version before load; what this version does not know is refused."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import tidegate
from tests.release.walk import fields, kinds
from tidegate.base import ReleaseError
from tidegate.registry import history, load_release, read_file
from tidegate.release import (
    Canary,
    Dataset,
    Environment,
    Eval,
    Gate,
    Release,
    SemanticCache,
    Slo,
    SmallModel,
    Train,
    decode_release,
    encode_release,
)
from tidegate.spec.unbuilt import UNBUILT

BEFORE = Path(__file__).with_name("built_before")
"""A registry written by the version that had format 1, with every section of its spec."""
DIGEST = "sha256:d779c7ee3c36060beba612f44c11f4fe9cd7119fd8d40605fdc7a6e78eb93351"


def test_a_release_of_the_version_before_loads_under_its_digest() -> None:
    assert history(BEFORE) == (DIGEST,)
    release = load_release(BEFORE, DIGEST)
    route = release.routes["recommend"]
    assert (route.models, route.hold, route.store_content) == (("large", "small"), "answer", False)
    assert (route.guard, release.experimental) == ((), False)
    assert release.journeys["get-plan"].slo.cost is not None
    plans = release.datasets["plans"]
    assert plans == Dataset(
        path="datasets/plans.jsonl", sha256=plans.sha256, size=17, cluster="client_id"
    )
    gate = Gate(test="noninferiority", margin=0.03)
    assert release.evals == {"accuracy": Eval(dataset="plans", evaluator="judge", gate=gate)}
    assert release.environments["prod"] == Environment(source="dev", approvals=2)
    stages = ("static", "evals", "canary", "full")
    assert release.train == Train(stages=stages, canary=Canary(steps=(0.01, 0.5)))
    assert release.limits["spend"].on_outage == "closed"
    assert release.ledger.keep_content == 604800.0
    assert read_file(BEFORE, DIGEST, "prompts/plan.md").startswith(b"Plan for")


def refused(data: bytes) -> ReleaseError:
    with pytest.raises(ReleaseError) as caught:
        decode_release(data)
    assert caught.value.code == "release_unreadable"
    assert "build it again" in caught.value.cure
    return caught.value


def test_a_field_that_this_version_does_not_know_is_refused_by_name() -> None:
    """It may be a guard that a newer version added: a gateway must not serve without it."""
    tree = msgspec.json.decode(encode_release(load_release(BEFORE, DIGEST)))
    assert decode_release(msgspec.json.encode(tree)) == load_release(BEFORE, DIGEST)
    tree["models"]["small"]["price"]["thought"] = 9.0
    assert "thought" in refused(msgspec.json.encode(tree)).message
    del tree["models"]["small"]["price"]["thought"]
    tree["routes"]["recommend"]["newer_guard"] = ["pii"]
    assert "newer_guard" in refused(msgspec.json.encode(tree)).message


@pytest.mark.parametrize("kind", sorted(kinds(Release), key=lambda kind: kind.__name__))
def test_every_part_of_a_release_refuses_what_it_does_not_know(kind: type[msgspec.Struct]) -> None:
    assert kind.__struct_config__.forbid_unknown_fields


@pytest.mark.parametrize("version", [0, 3])
def test_a_format_that_this_version_does_not_know_is_refused(version: int) -> None:
    data = msgspec.json.encode({"app": "a", "schema_version": version})
    assert f"format {version}, this tidegate reads formats 1 and 2" in refused(data).message


@pytest.mark.parametrize("evals", [[], {"e": []}, "x"])
def test_a_broken_release_of_format_1_is_refused(evals: object) -> None:
    refused(msgspec.json.encode({"app": "a", "schema_version": 1, "evals": evals}))


def attributes() -> Iterator[str]:
    """Names that are read as attributes outside of the rooms that write a release."""
    (source,) = tidegate.__path__
    for path in Path(source).rglob("*.py"):
        if path.relative_to(source).parts[0] not in ("spec", "release", "testing"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Attribute):
                    yield node.attr


NOT_READ = {
    "schema_version": "read by decode_release",
    "experimental": "acted on by tidegate check",
    "train": "the section release, which is not built",
    "cluster": "of data sets, which are not built",
}
"""Fields that no room reads, beside those of keys that are not built."""


def test_a_field_that_nothing_reads_is_of_a_key_that_is_said_not_to_be_built() -> None:
    known = {pattern[-1] for pattern in UNBUILT} | NOT_READ.keys()
    read = set(attributes())
    not_built = kinds(Slo, Eval, Train, Environment, SmallModel, SemanticCache)
    for kind in kinds(Release) - not_built:
        for name in fields(kind).keys() - read:
            assert name in known, f"nothing reads {kind.__name__}.{name}: say so in spec/unbuilt.py"
