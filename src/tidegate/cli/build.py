"""``tidegate build``: freeze the app into one digest; show what is pinned; say what changed."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from tidegate.base import STATE_FOLDER, SpecError, UsageError
from tidegate.cli.check import print_found, print_notices
from tidegate.cli.models import size_text
from tidegate.registry import LATEST, history, load_release, put, resolve, short
from tidegate.release import AppFiles, Release, changes
from tidegate.spec import Mistake, Notice, build_release, load, locate

SECTIONS = {
    "models": "model",
    "prompts": "prompt",
    "tools": "tool",
    "routes": "route",
    "journeys": "journey",
    "datasets": "data set",
    "evals": "eval",
    "files": "file",
}


@click.command(
    epilog="""\b
Examples:
  tidegate build examples/fitness
  tidegate build --show latest-build
  tidegate build --diff previous latest-build
A release is named by its digest, by the first digits of it, or by the tags latest-build and
previous. Exit codes: 0 built or shown, 1 a mistake in the app or no such release, 2 usage."""
)
@click.argument("app", default=".", metavar="[APP]")
@click.option("--show", metavar="DIGEST", help="List everything that a release pins.")
@click.option("--diff", nargs=2, metavar="A B", help="Say in words what changed from A to B.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(app: str, show: str | None, diff: tuple[str, str] | None, as_json: bool) -> None:
    """Freeze the app into one release and print its digest.

    Prompts, models, tools, schemas and data sets are resolved to sha256 and kept in the app's
    .tidegate/registry. The same inputs give the same digest, in any folder, on any day.
    """
    if show is not None and diff is not None:
        raise UsageError(
            "two_questions", "--show and --diff do not go together", cure="ask one at a time"
        )
    registry = locate(app).parent / STATE_FOLDER / "registry"
    if show is not None:
        answer, text = show_release(registry, show)
    elif diff is not None:
        answer, text = diff_releases(registry, *diff)
    else:
        answer, text = _checked(app, registry, as_json)
    click.echo(msgspec.json.encode(answer) if as_json else text)


def _checked(app: str, registry: Path, as_json: bool) -> tuple[dict[str, Any], str]:
    """Build; for people, mistakes in the spec are shown as ``tidegate check`` shows them."""
    try:
        return build(app, registry, as_json)
    except SpecError as error:
        mistakes = tuple(m for m in error.mistakes if isinstance(m, Mistake))
        if as_json or not mistakes:
            raise
        print_found(mistakes, ())
        sys.exit(error.exit)


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """A release that was built and put into the app's registry."""

    digest: str
    release: Release
    notices: tuple[Notice, ...]
    """What is valid in the spec and yet worth knowing."""


def build(app: str, registry: Path, as_json: bool = False) -> tuple[dict[str, Any], str]:
    """Build the app; the answer for machines and the text for people. Notices go to stderr, so
    that what is printed begins with the digest, or into the JSON."""
    before = build_before(registry)
    built = build_app(app)
    digest, release = built.digest, built.release
    if not as_json:
        print_notices(built.notices, err=True)
    found = changes(load_release(registry, before), release) if before not in (None, digest) else ()
    answer = {
        "digest": digest,
        "app": release.app,
        "before": before,
        "changes": found,
        "notices": built.notices,
        "pinned": {section: len(getattr(release, section)) for section in SECTIONS},
    }
    lines = [digest, f"  {release.app}: {counts(release)}"]
    if before == digest:
        lines.append("  nothing changed since the last build")
    elif before is not None:
        lines.append(f"  since {short(before)}:")
        lines += [f"    {change}" for change in found]
    lines.append(f"  list what is pinned: tidegate build {app} --show {short(digest)}")
    return answer, "\n".join(lines)


def build_app(app: str | Path) -> Built:
    """Load the spec of ``app``, build its release, put it in the registry.

    Raises SpecError with every mistake, UsageError no_app, ReleaseError.
    """
    loaded = load(app, os.environ)
    files = AppFiles(loaded.folder, loaded.files)
    release = build_release(loaded.spec, files)
    digest = put(loaded.folder / STATE_FOLDER / "registry", release, files.open)
    return Built(digest=digest, release=release, notices=loaded.notices)


def build_before(registry: Path) -> str | None:
    """Digest of the newest build, or None before the first."""
    return resolve(registry, LATEST) if history(registry) else None


def counts(release: Release) -> str:
    """``2 models, 1 prompt, 5 files (12.3 KiB)``."""
    parts = [
        f"{n} {word}{'s' * (n != 1)}"
        for section, word in SECTIONS.items()
        if (n := len(getattr(release, section)))
    ]
    return ", ".join(parts) + f" ({size_text(sum(f.size for f in release.files.values()))})"


def show_release(registry: Path, reference: str) -> tuple[dict[str, Any], str]:
    """Everything that a release pins."""
    digest = resolve(registry, reference)
    release = load_release(registry, digest)
    answer = {"digest": digest, "release": release}
    lines = [digest, f"app {release.app}"]
    for name, model in release.models.items():
        where = model.base_url or model.provider
        lines.append(f"model {name}: {model.kind}, {model.upstream} at {where}")
        for role, artifact in model.artifacts.items():
            member = f" {artifact.member}" if artifact.member else ""
            lines.append(f"  {role}: {artifact.source} {artifact.ref}{member}")
            lines.append(f"    sha256 {artifact.sha256}")
            if artifact.source_sha256:
                lines.append(f"    source sha256 {artifact.source_sha256}")
            lines.append(f"    licence {artifact.licence or 'not stated'}")
    for name, prompt in release.prompts.items():
        inputs = ", ".join(prompt.inputs) or "no inputs"
        lines.append(f"prompt {name}: {prompt.file.path} ({inputs})")
    for name, tool in release.tools.items():
        lines.append(f"tool {name}: {tool.file.path}")
    for name, route in release.routes.items():
        output = f", output {route.output.file.path}" if route.output else ""
        lines.append(f"route {name}: {' then '.join(route.models)}{output}")
    for name, journey in release.journeys.items():
        lines.append(f"journey {name}: {', '.join(journey.routes) or 'no routes'}")
    for name, dataset in release.datasets.items():
        lines.append(f"data set {name}: {dataset.path}")
    lines += [f"eval {name}: on {value.dataset}" for name, value in release.evals.items()]
    for path, file in release.files.items():
        lines.append(f"file {path}  {size_text(file.size)}  sha256 {file.sha256}")
    return answer, "\n".join(lines)


def diff_releases(registry: Path, a: str, b: str) -> tuple[dict[str, Any], str]:
    """What changed from ``a`` to ``b``."""
    digest_a, digest_b = resolve(registry, a), resolve(registry, b)
    found = changes(load_release(registry, digest_a), load_release(registry, digest_b))
    answer = {"a": digest_a, "b": digest_b, "changes": found}
    lines = [str(change) for change in found] or ["nothing changed"]
    return answer, "\n".join([f"{short(digest_a)} -> {short(digest_b)}", *lines])
