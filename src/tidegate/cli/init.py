"""``tidegate init``: write a working starter app, never over anything."""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path

import click

from tidegate.base import STATE_FOLDER, UsageError
from tidegate.spec import SCHEMA_FILE, plain_value, schema_text

FILES = ("tidegate.yaml", "prompts/triage.md", "schemas/triage.json", "README.md")
IGNORED = f"{STATE_FOLDER}/"


@click.command(
    epilog="""\b
Example:
  tidegate init my-app
  tidegate up my-app

\b
JSON: {"app": name, "folder": path, "written": [paths], "kept": [paths]}.
Exit codes: 0 written, 2 a file would have been overwritten (nothing is written then)."""
)
@click.argument("folder", default=".")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(folder: str, as_json: bool) -> None:
    """Write a working starter app into FOLDER: a local model, two routes, a journey."""
    home = Path(folder)
    name = _name(home)
    written, kept = write_starter(home, name)
    if as_json:
        click.echo(json.dumps({"app": name, "folder": str(home), "written": written, "kept": kept}))
        return
    for path in written:
        click.echo(f"wrote {home / path}")
    for path in kept:
        click.echo(f"kept  {home / path} as it was")
    click.echo(f"\nnext: tidegate check {folder} && tidegate up {folder}")


def write_starter(home: Path, name: str) -> tuple[list[str], list[str]]:
    """Write the starter of app ``name`` into ``home``; return what was written and what was there
    and kept. Raises UsageError ``would_overwrite`` or ``cannot_write``."""
    there = [path for path in FILES if (home / path).exists() or (home / path).is_symlink()]
    kept = [path for path in there if path == "README.md"]
    if there != kept:
        raise UsageError(
            "would_overwrite",
            f"{home} already has {', '.join(path for path in there if path not in kept)}",
            cure="name an empty or a new folder: tidegate init FOLDER",
        )
    texts = {path: _starter(path).replace("starter", name) for path in FILES if path not in kept}
    texts[f"{STATE_FOLDER}/{SCHEMA_FILE}"] = schema_text()
    try:
        (home / STATE_FOLDER).mkdir(parents=True, exist_ok=True, mode=0o700)
        for path, text in texts.items():
            (home / path).parent.mkdir(parents=True, exist_ok=True)
            (home / path).write_text(text, encoding="utf-8")
        ignoring = _ignore(home / ".gitignore")
    except OSError as error:
        raise UsageError(
            "cannot_write",
            f"{home} cannot be written: {error.strerror or error}",
            cure="name a folder that you may write to",
        ) from None
    return [*texts, *([".gitignore"] if ignoring else [])], kept


def _starter(path: str) -> str:
    return resources.files("tidegate.cli").joinpath("starter", path).read_text(encoding="utf-8")


def _ignore(file: Path) -> bool:
    """Add the state folder to ``.gitignore``; False when it stands there."""
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    if IGNORED in text.splitlines():
        return False
    start = text if not text or text.endswith("\n") else text + "\n"
    file.write_text(f"{start}{IGNORED}\n", encoding="utf-8")
    return True


def _name(home: Path) -> str:
    """An app name from the folder's name."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", home.resolve().name).strip("-_.")[:64]
    # A name like 9 or true would be read as a number or a boolean
    return name if isinstance(plain_value(name), str) else f"app-{name or 'starter'}"
