"""Two sides installed beside each other: each tree in a folder of its own, one set of packages.

``pip install --target`` gives a side its own metadata, so that its entry points (the provider
adapters) are its own too. The folder goes first on PYTHONPATH; everything else, the interpreter
included, is this environment's for both sides.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

from bench.gateway.children import BenchError, Product
from bench.gateway.tidegate import Program

WORKING_TREE = ""
"""Stands for the files as they are now, committed or not."""

_WHERE = (
    "import importlib.metadata as m, tidegate;"
    "print(tidegate.__file__); print(m.distribution('tidegate').locate_file(''))"
)
_PARTS = ("tidegate.gateway", "tidegate.ledger", "tidegate.console", "tidegate up")
"""What the command line of a process that runs our code holds."""


@dataclass(frozen=True)
class Side:
    """One of the two that are compared."""

    name: str
    """``base`` or ``head``."""
    commit: str
    """Its short hash; ``+changes`` behind it when files differ from that commit."""
    packages: Path
    requires: tuple[str, ...]

    @property
    def program(self) -> Program:
        """How its command is started."""
        return Program(self.packages / "bin/tidegate", {"PYTHONPATH": str(self.packages)})


def install(repository: Path, commit: str, name: str, folder: Path) -> Side:
    """Install ``commit`` of ``repository``, or its WORKING_TREE. Raises BenchError when it cannot
    be had, does not install, or is not what its own folder then imports."""
    source, packages = folder / "source", folder / "packages"
    source.mkdir(parents=True)
    (_copy_of_files if commit == WORKING_TREE else _copy_of_commit)(repository, commit, source)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "--no-deps", "--no-build-isolation", "--target", str(packages), str(source)])
    side = Side(name, _label(repository, commit), packages, _requirements(source))
    told = _run([sys.executable, "-P", "-c", _WHERE], environ=side.program.environ)
    places = [Path(line) for line in told.splitlines()]
    if not all(packages in (place, *place.parents) for place in places):
        raise BenchError(f"{name} imports tidegate from {places}, not from {packages}")
    return side


def require_own_code(side: Side, product: Product) -> None:
    """Every process of Tidegate in ``product`` looks for its code in the folder of ``side`` first.
    Raises BenchError otherwise: figures of the wrong code are worse than none."""
    expected = f"PYTHONPATH={side.packages}".encode()
    for process in product.processes():
        ours = any(part in process.command for part in _PARTS)
        if ours and expected not in process.environ.split(b"\0"):
            raise BenchError(f"not {side.name}'s code: {process.command[:200]}")


def differing_requirements(one: Side, other: Side) -> list[str]:
    """What only one of the two asks of the environment that both run in."""
    return sorted(set(one.requires) ^ set(other.requires))


def _label(repository: Path, commit: str) -> str:
    short = _git(repository, "rev-parse", "--short", commit or "HEAD").decode().strip()
    dirty = commit == WORKING_TREE and _git(repository, "status", "--porcelain", "--", "src")
    return f"{short}+changes" if dirty else short


def _copy_of_commit(repository: Path, commit: str, to: Path) -> None:
    archive = _git(repository, "archive", "--format=tar", commit)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(to, filter="data")


def _copy_of_files(repository: Path, _: str, to: Path) -> None:
    listed = _git(repository, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in listed.decode().split("\0"):
        if name and (repository / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(repository / name, to / name)


def _requirements(source: Path) -> tuple[str, ...]:
    return tuple(tomllib.loads((source / "pyproject.toml").read_text())["project"]["dependencies"])


def _git(repository: Path, *words: str) -> bytes:
    done = subprocess.run(["git", "-C", str(repository), *words], capture_output=True, check=False)
    if done.returncode:
        raise BenchError(f"git {' '.join(words)}: {done.stderr.decode().strip()}")
    return done.stdout


def _run(command: list[str], environ: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command,
        env={**os.environ, **(environ or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BenchError(f"{' '.join(command[:6])} failed: {done.stderr[-2000:]}")
    return done.stdout
