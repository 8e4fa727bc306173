"""Releases in the registry: put one, find one by digest, prefix or tag, load one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from tidegate.base import ReleaseError
from tidegate.registry.layout import add_manifest, read_blob, read_index, tag_of, write_blob
from tidegate.release import (
    ARTIFACT_TYPE,
    EMPTY_BODY,
    MANIFEST_TYPE,
    TITLE,
    Manifest,
    Release,
    decode_release,
    describe,
    pack,
)

LATEST, PREVIOUS = "latest-build", "previous"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PREFIX = re.compile(r"(?:sha256:)?([0-9a-f]{4,64})")


def put(registry: Path, release: Release, open_file: Callable[[str], Iterable[bytes]]) -> str:
    """Write ``release`` with its files and tag it ``latest-build``; return ``sha256:<hex>``.

    ``open_file`` gives the bytes of a file by its path in the release, in chunks. Blobs come
    before the manifest and the manifest before the index, so a reader never finds a hole.
    """
    packed = pack(release)
    for path, file in sorted(release.files.items()):
        write_blob(registry, f"sha256:{file.sha256}", open_file(path))
    if not release.files:
        write_blob(registry, describe("", EMPTY_BODY).digest, [EMPTY_BODY])
    write_blob(registry, describe("", packed.config).digest, [packed.config])
    write_blob(registry, packed.digest, [packed.manifest])
    entry = describe(MANIFEST_TYPE, packed.manifest)
    entry = msgspec.structs.replace(entry, artifact_type=ARTIFACT_TYPE)
    add_manifest(registry, entry, LATEST, PREVIOUS)
    return packed.digest


def load_release(registry: Path, digest: str) -> Release:
    """The release with the whole ``digest``; every byte that is read is checked.

    Errors: release_unknown, blob_missing, blob_corrupt, release_unreadable.
    """
    return decode_release(read_blob(registry, _manifest(registry, digest).config.digest))


def read_file(registry: Path, digest: str, path: str) -> bytes:
    """One file of a release, as it was when it was built."""
    for layer in _manifest(registry, digest).layers:
        if layer.annotations.get(TITLE) == path:
            return read_blob(registry, layer.digest)
    raise ReleaseError(
        "file_not_pinned",
        f"release {digest} pins no file {path}",
        cure=f"list its files: tidegate build --show {digest}",
    )


def history(registry: Path) -> tuple[str, ...]:
    """Digests of all releases, newest build last."""
    return tuple(dict.fromkeys(entry.digest for entry in read_index(registry).manifests))


def resolve(registry: Path, reference: str) -> str:
    """The digest that a tag, a digest or a unique prefix of one (4 hex digits or more) names.

    Errors: release_unknown with the nearest names, release_ambiguous.
    """
    tags = {tag: e.digest for e in read_index(registry).manifests if (tag := tag_of(e))}
    if reference in tags:
        return tags[reference]
    known = history(registry)
    prefix = _PREFIX.fullmatch(reference.lower())
    found = [d for d in known if prefix and d.startswith(f"sha256:{prefix.group(1)}")]
    if len(found) == 1:
        return found[0]
    if found:
        raise ReleaseError(
            "release_ambiguous",
            f"{reference} names {len(found)} releases: {', '.join(short(d) for d in found[:5])}",
            cure="write more digits of the digest",
        )
    raise _unknown(registry, reference, (*tags, *known))


def short(digest: str) -> str:
    """Twelve hex digits, enough for people."""
    return digest.removeprefix("sha256:")[:12]


def _manifest(registry: Path, digest: str) -> Manifest:
    if not _DIGEST.fullmatch(digest) or digest not in history(registry):
        digest = resolve(registry, digest)
    try:
        return msgspec.json.decode(read_blob(registry, digest), type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ReleaseError(
            "release_unreadable",
            f"{digest} is not a release of tidegate: {error}",
            cure="build it again with this version of tidegate: tidegate build",
        ) from None


def _unknown(registry: Path, reference: str, names: tuple[str, ...]) -> ReleaseError:
    if not names:
        return ReleaseError(
            "release_unknown",
            f"nothing was built yet in {registry}",
            cure="build the first release: tidegate build",
        )
    plain = {short(n) if n.startswith("sha256:") else n: n for n in names}
    wanted = reference.removeprefix("sha256:")[:12]
    near = difflib.get_close_matches(wanted, plain, n=3, cutoff=0.4) or [*plain][:1] + [*plain][-2:]
    return ReleaseError(
        "release_unknown",
        f"no release is called {reference}; the nearest are {', '.join(dict.fromkeys(near))}",
        cure="use one of those, or a longer part of a digest that tidegate build printed",
    )
