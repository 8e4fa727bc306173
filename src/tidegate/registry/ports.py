"""The interface of a source of artifacts."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import msgspec

from tidegate.registry.settings import FetchSettings
from tidegate.release import Artifact


class Progress(Protocol):
    """A listener to the progress of a fetch: the step, bytes done, bytes in all (None: unknown)."""

    def __call__(self, step: str, done: int, total: int | None) -> None: ...


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One fetch. ``work`` is a folder for this artifact alone; ``app`` the base of file paths."""

    artifact: Artifact
    work: Path
    app: Path
    settings: FetchSettings
    progress: Progress


class Obtained(msgspec.Struct, frozen=True, kw_only=True):
    """The file that a source got.

    ``sha256`` is set when the source hashed the bytes while they came in; ``ours`` says that the
    file lies in the work folder and may be moved; ``archive`` that the artifact is a member of it.
    """

    path: Path
    sha256: str | None = None
    ours: bool = True
    archive: bool = False


class Source(Protocol):
    """A source: gets the file of ``job.artifact``, or raises ArtifactError."""

    def __call__(self, job: Job) -> Obtained: ...


def quiet(step: str, done: int, total: int | None) -> None:
    """A Progress that shows nothing."""
