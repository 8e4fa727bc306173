"""An OCI image layout on disk: blobs named by their sha256, and an index of tagged manifests.

OCI image specification 1.1, "image layout": ``oci-layout``, ``index.json``,
``blobs/sha256/<hex>``. Blobs are verified when read, the index changes only under ``.lock``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from tidegate.base import ReleaseError, canonical_json, sha256, sha256_file
from tidegate.registry.disk import disk_errors, locked, write_whole
from tidegate.release import Descriptor

INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
REF_NAME = "org.opencontainers.image.ref.name"
_LAYOUT = canonical_json({"imageLayoutVersion": "1.0.0"})


class Index(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``index.json``: manifests in the order they were added; a tag is an annotation on one."""

    schema_version: int = 2
    media_type: str = INDEX_TYPE
    manifests: tuple[Descriptor, ...] = ()


def blob_path(registry: Path, digest: str) -> Path:
    """Where the blob ``sha256:<hex>`` lies."""
    return registry / "blobs" / "sha256" / digest.removeprefix("sha256:")


def write_blob(registry: Path, digest: str, chunks: Iterable[bytes]) -> None:
    """Write ``chunks`` as blob ``digest``, unless it is there and intact.

    Raises ReleaseError ``content_changed`` when the chunks do not have that digest.
    """
    path = blob_path(registry, digest)
    with disk_errors(registry):
        if path.is_file() and f"sha256:{sha256_file(path)[0]}" == digest:
            return
        write_whole(path, _checked(chunks, digest), registry / ".parts")


def read_blob(registry: Path, digest: str) -> bytes:
    """The bytes of a blob, whose hash is checked. Errors: blob_missing, blob_corrupt."""
    path = blob_path(registry, digest)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ReleaseError(
            "blob_missing",
            f"{path} cannot be read: {error.strerror}",
            cure="build the release again: tidegate build",
        ) from None
    if f"sha256:{sha256(data)}" != digest:
        raise ReleaseError(
            "blob_corrupt",
            f"{path} does not hold what its name says (it hashes to {sha256(data)[:12]}..)",
            cure="build the release again, which rewrites that file: tidegate build",
        )
    return data


def read_index(registry: Path) -> Index:
    """The index; an empty one when nothing was built. Error: index_unreadable."""
    path = registry / "index.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Index)
    except FileNotFoundError:
        return Index()
    except (OSError, msgspec.DecodeError) as error:
        raise ReleaseError(
            "index_unreadable",
            f"{path} is not an OCI image index: {error}",
            cure=f"delete {path} and build again: tidegate build (blobs are kept)",
        ) from None


def add_manifest(registry: Path, manifest: Descriptor, tag: str, previous: str) -> None:
    """Add ``manifest`` to the index under ``tag``; what ``tag`` named before gets the tag
    ``previous``, unless it is the same release."""
    with disk_errors(registry), locked(registry / ".lock"):
        index = read_index(registry)
        tags = {ref: entry for entry in index.manifests if (ref := tag_of(entry))}
        before = tags.get(tag)
        if before is not None and before.digest != manifest.digest:
            tags[previous] = before
        tags[tag] = manifest
        plain = {entry.digest: untagged(entry) for entry in index.manifests}
        # Newest last: a release that is built again moves to the end.
        plain.pop(manifest.digest, None)
        plain[manifest.digest] = manifest
        entries = [*_tagged(plain.values(), tags)]
        body = canonical_json(Index(manifests=tuple(entries)))
        write_whole(registry / "oci-layout", [_LAYOUT], registry / ".parts")
        write_whole(registry / "index.json", [body], registry / ".parts")


def tag_of(entry: Descriptor) -> str | None:
    """The tag on an index entry."""
    return entry.annotations.get(REF_NAME)


def untagged(entry: Descriptor) -> Descriptor:
    """The entry without its tag."""
    kept = {name: text for name, text in entry.annotations.items() if name != REF_NAME}
    return msgspec.structs.replace(entry, annotations=kept)


def _tagged(plain: Iterable[Descriptor], tags: dict[str, Descriptor]) -> Iterator[Descriptor]:
    """One entry per tag; a manifest that no tag names stays as one entry without."""
    for entry in plain:
        names = sorted(name for name, target in tags.items() if target.digest == entry.digest)
        for name in names:
            annotations = {**entry.annotations, REF_NAME: name}
            yield msgspec.structs.replace(entry, annotations=annotations)
        if not names:
            yield entry


def _checked(chunks: Iterable[bytes], digest: str) -> Iterator[bytes]:
    running = hashlib.sha256()
    for chunk in chunks:
        running.update(chunk)
        yield chunk
    if f"sha256:{running.hexdigest()}" != digest:
        raise ReleaseError(
            "content_changed",
            f"a file changed while it was built (wanted {digest}, got {running.hexdigest()})",
            cure="run tidegate build again when nothing writes into the app folder",
        )
