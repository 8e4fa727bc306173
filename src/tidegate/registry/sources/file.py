"""``file:`` a path, absolute or relative to the folder of ``tidegate.yaml``."""

from __future__ import annotations

from pathlib import Path

from tidegate.base import ArtifactError
from tidegate.registry.ports import Job, Obtained


def obtain(job: Job) -> Obtained:
    """The file where it lies; it is copied, so that a later change of it does not matter."""
    path = job.app / Path(job.artifact.ref).expanduser()
    if not path.is_file():
        raise ArtifactError(
            "artifact_not_found",
            f"there is no file {path}",
            cure="put the file there, or mend the path after file: in tidegate.yaml",
        )
    try:
        path.open("rb").close()
    except OSError as error:
        raise ArtifactError(
            "artifact_unreadable",
            f"{path} cannot be read: {error.strerror}",
            cure="give this user the right to read it",
        ) from None
    if path.stat().st_size > job.settings.max_bytes:
        raise ArtifactError(
            "artifact_too_large",
            f"{path} has {path.stat().st_size:,} bytes",
            cure="raise TIDEGATE_MAX_ARTIFACT_GIB if you trust it",
        )
    return Obtained(path=path, ours=False, archive=job.artifact.member is not None)
