"""``https:`` a file by URL: resumed where it broke off, hashed while it comes in.

RFC 9110: a partial answer is 206 with Content-Range; If-Range with a strong validator makes the
server send the whole file when it is no longer the same one.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urljoin, urlsplit

import httpx
import msgspec

from tidegate.base import ArtifactError
from tidegate.registry.archive import CHUNK
from tidegate.registry.disk import need_room
from tidegate.registry.ports import Job, Obtained

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_REDIRECTS = {301, 302, 303, 307, 308}
_MOST_REDIRECTS = 8
_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)")
PART = "download.part"


class Interrupted(Exception):
    """A connection that ended before the file did; the next try resumes there."""


class Mark(msgspec.Struct, frozen=True):
    """URL and validator of a partial download, kept beside it: without them, bytes of another
    version of the file could be appended."""

    url: str
    validator: str


def obtain(job: Job) -> Obtained:
    """Download ``job.artifact.ref``."""
    got = download(job, job.artifact.ref)
    return msgspec.structs.replace(got, archive=job.artifact.member is not None)


def download(job: Job, url: str) -> Obtained:
    """``url`` as a file in the work folder. Errors: artifact_not_found, artifact_refused,
    artifact_interrupted (its part is kept for the next try), artifact_too_large, bad_pin."""
    allowed(url, job.artifact.ref)
    timeout = httpx.Timeout(job.settings.idle_timeout, connect=job.settings.connect_timeout)
    with httpx.Client(timeout=timeout, follow_redirects=False) as client:
        for attempt in range(1, job.settings.attempts + 1):
            try:
                return _attempt(client, job, url)
            except httpx.InvalidURL as error:
                raise _refused(url, str(error)) from None
            except (httpx.TransportError, Interrupted) as error:
                problem = str(error) or type(error).__name__
                if attempt < job.settings.attempts:
                    time.sleep(job.settings.backoff * 2 ** (attempt - 1))
    have = _size(job.work / PART)
    raise ArtifactError(
        "artifact_interrupted",
        f"{_bare(url)} broke off after {have:,} bytes: {problem}",
        cure="run it again: tidegate models fetch; it goes on where it stopped",
    )


def allowed(url: str, ref: str) -> None:
    """Refuse an address that is neither https nor on this machine. Error: artifact_insecure."""
    scheme, host = _scheme_and_host(url)
    if host and (scheme == "https" or (scheme == "http" and host in _LOOPBACK)):
        return
    raise ArtifactError(
        "artifact_insecure",
        f"{_bare(ref)} leads to {_bare(url)}, which is not https",
        cure="pin an https: address whose redirects stay on https",
    )


def _attempt(client: httpx.Client, job: Job, url: str) -> Obtained:
    part, mark_path = job.work / PART, job.work / "download.json"
    mark = _read_mark(mark_path, url)
    start = _size(part) if mark else 0
    headers = {"Accept-Encoding": "identity"}
    if mark and start:
        headers |= {"Range": f"bytes={start}-", "If-Range": mark.validator}
    at = url
    for _ in range(_MOST_REDIRECTS):
        with client.stream("GET", at, headers=headers) as answer:
            if answer.status_code in _REDIRECTS and "location" in answer.headers:
                at = _next(at, answer.headers["location"], url)
                continue
            start = _start_of(answer, start, url, part)
            _write_mark(mark_path, url, answer)
            digest = _receive(job, answer, part, start)
            return Obtained(path=part, sha256=digest)
    raise ArtifactError(
        "artifact_refused",
        f"{_bare(url)} redirects more than {_MOST_REDIRECTS} times",
        cure="pin the address where the file really lies",
    )


def _next(at: str, location: str, url: str) -> str:
    target = _joined(at, location)
    if _scheme_and_host(at)[0] == "https" and _scheme_and_host(target)[0] != "https":
        raise ArtifactError(
            "artifact_insecure",
            f"{_bare(url)} redirects from https to {_bare(target)}",
            cure="pin an https: address whose redirects stay on https",
        )
    allowed(target, url)
    return target


def _start_of(answer: httpx.Response, start: int, url: str, part: Path) -> int:
    """The offset at which the body of ``answer`` begins."""
    if answer.status_code == 200:
        return 0
    if answer.status_code == 206:
        match = _RANGE.fullmatch(answer.headers.get("content-range", ""))
        if match and int(match.group(1)) == start:
            return start
        raise _refused(url, "it answered a range that was not asked for")
    if answer.status_code == 416:
        # The part is longer than the file: it was another file.
        part.unlink(missing_ok=True)
        raise Interrupted("it has fewer bytes than were fetched before")
    if answer.status_code in {404, 410}:
        raise ArtifactError(
            "artifact_not_found",
            f"{_bare(url)} is not there (HTTP {answer.status_code})",
            cure="mend the address in tidegate.yaml, or pin another source of the same file",
        )
    if answer.status_code >= 500 or answer.status_code in {408, 429}:
        raise Interrupted(f"HTTP {answer.status_code}")
    raise _refused(url, f"HTTP {answer.status_code}")


def _receive(job: Job, answer: httpx.Response, part: Path, start: int) -> str:
    """Append the body to ``part`` from ``start``; the sha256 of the whole file."""
    length = answer.headers.get("content-length", "")
    total = start + int(length) if length.isdigit() else None
    if total is not None and total > job.settings.max_bytes:
        raise _too_large(job, total)
    need_room(job.work, (total or 0) - start)
    digest, done = hashlib.sha256(), start
    with part.open("r+b" if start else "wb") as file:
        for chunk in _first_bytes(file, start):
            digest.update(chunk)
        file.truncate(start)
        for chunk in answer.iter_raw():
            done += len(chunk)
            if done > job.settings.max_bytes:
                raise _too_large(job, done)
            file.write(chunk)
            digest.update(chunk)
            job.progress(f"download {_bare(job.artifact.ref)}", done, total)
    if total is not None and done != total:
        raise Interrupted(f"{done:,} of {total:,} bytes came")
    return digest.hexdigest()


def _first_bytes(file: BinaryIO, size: int) -> Iterator[bytes]:
    while size > 0 and (chunk := file.read(min(CHUNK, size))):
        size -= len(chunk)
        yield chunk


def _read_mark(path: Path, url: str) -> Mark | None:
    """The mark beside a part of ``url``; None when there is none to go on from."""
    try:
        mark = msgspec.json.decode(path.read_bytes(), type=Mark)
    except (FileNotFoundError, ValueError):  # msgspec's errors are ValueErrors
        return None
    return mark if mark.url == url and mark.validator else None


def _write_mark(path: Path, url: str, answer: httpx.Response) -> None:
    etag = answer.headers.get("etag", "")
    validator = etag if etag and not etag.startswith("W/") else ""
    validator = validator or answer.headers.get("last-modified", "")
    if not (validator.isascii() and validator.isprintable()):
        validator = ""  # it can stand in no header of ours
    path.write_bytes(msgspec.json.encode(Mark(url, validator)))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _bare(url: str) -> str:
    """The address without user, password and query, which may hold secrets."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "a broken address"
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path}" if parts.hostname else url


def _scheme_and_host(url: str) -> tuple[str, str]:
    """Both empty for what is not an address."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return "", ""
    return parts.scheme, parts.hostname or ""


def _joined(at: str, location: str) -> str:
    try:
        return urljoin(at, location)
    except ValueError:
        return "a broken address"


def _refused(url: str, problem: str) -> ArtifactError:
    return ArtifactError(
        "artifact_refused",
        f"{_bare(url)} does not give the file: {problem}",
        cure="open the address in a browser, and mend it or the rights it needs",
    )


def _too_large(job: Job, size: int) -> ArtifactError:
    return ArtifactError(
        "artifact_too_large",
        f"{_bare(job.artifact.ref)} sends at least {size:,} bytes",
        cure="raise TIDEGATE_MAX_ARTIFACT_GIB if you trust it",
    )
