"""The files that a spec names, with the bytes of those whose contents are checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tidegate.spec.folder import Unreadable, find, read
from tidegate.spec.mistakes import Path as SpecPath
from tidegate.spec.types import Spec, TemplateStep


@dataclass(frozen=True, slots=True)
class Use:
    """One mention of a file in the spec. ``kind`` says what the file must hold."""

    place: SpecPath
    path: str
    kind: str
    """``prompt``, ``template``, ``schema``, ``flags`` (read), ``data`` (must only exist)."""


@dataclass(frozen=True, slots=True)
class SpecFiles:
    """``bytes_of`` by path for what was read; ``missing`` by path for what cannot be used."""

    bytes_of: dict[str, bytes]
    missing: dict[str, Unreadable]


def uses(spec: Spec) -> Iterator[Use]:
    """Every place that names a file of the folder."""
    for name, prompt in spec.prompts.items():
        yield Use(("prompts", name, "file"), prompt.file, "prompt")
    for name, tool in spec.tools.items():
        yield Use(("tools", name, "schema"), tool.schema_file, "schema")
    for name, dataset in spec.datasets.items():
        yield Use(("datasets", name, "file"), dataset.file, "data")
    for name, route in spec.routes.items():
        if route.output:
            yield Use(("routes", name, "output"), route.output, "schema")
        for at, step in enumerate(route.fallback):
            if isinstance(step, TemplateStep):
                yield Use(("routes", name, "fallback", at, "template"), step.template, "template")
    if spec.flags:
        yield Use(("flags",), spec.flags, "flags")
    for name, model in spec.models.items():
        if model.artifact and model.artifact.file:
            yield Use(("models", name, "artifact", "file"), model.artifact.file, "data")
        for role, artifact in model.artifacts.items():
            if artifact.file:
                yield Use(("models", name, "artifacts", role, "file"), artifact.file, "data")


def read_files(folder: Path, spec: Spec) -> SpecFiles:
    """The files of ``spec``: read where rules check the contents, else only looked for."""
    bytes_of: dict[str, bytes] = {}
    missing: dict[str, Unreadable] = {}
    for use in uses(spec):
        try:
            if use.kind == "data":
                find(folder, use.path)
            elif use.path not in bytes_of:
                bytes_of[use.path] = read(folder, use.path)
        except Unreadable as error:
            missing[use.path] = error
    return SpecFiles(bytes_of, missing)
