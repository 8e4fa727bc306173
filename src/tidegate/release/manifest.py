"""The OCI manifest of a release: pure bytes, so the digest is known before anything is written.

OCI image specification 1.1, "image manifest" and "guidelines for artifact usage". No time stamps,
no absolute paths, no facts of the host: equal releases have equal digests.
"""

from __future__ import annotations

import msgspec

from tidegate.base import canonical_json, sha256
from tidegate.release.encoding import encode_release
from tidegate.release.values import Release

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
ARTIFACT_TYPE = "application/vnd.tidegate.release.v1"
CONFIG_TYPE = "application/vnd.tidegate.release.config.v1+json"
FILE_TYPE = "application/vnd.tidegate.file.v1"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
EMPTY_BODY = b"{}"
TITLE = "org.opencontainers.image.title"


class Descriptor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A blob by digest. ``size`` is in bytes."""

    media_type: str
    digest: str
    size: int
    artifact_type: str | None = None
    annotations: dict[str, str] = {}


class Manifest(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One artifact: a config and its layers."""

    schema_version: int = 2
    media_type: str = MANIFEST_TYPE
    artifact_type: str = ARTIFACT_TYPE
    config: Descriptor
    layers: tuple[Descriptor, ...]


class Packed(msgspec.Struct, frozen=True, kw_only=True):
    """A release ready to be written: its digest, manifest bytes and config bytes."""

    digest: str
    manifest: bytes
    config: bytes


def pack(release: Release) -> Packed:
    """The manifest and config of ``release``; one layer per file, sorted by path."""
    config = encode_release(release)
    layers = tuple(
        Descriptor(
            media_type=FILE_TYPE,
            digest=f"sha256:{file.sha256}",
            size=file.size,
            annotations={TITLE: path},
        )
        for path, file in sorted(release.files.items())
    )
    manifest = canonical_json(
        Manifest(
            config=describe(CONFIG_TYPE, config),
            layers=layers or (describe(EMPTY_TYPE, EMPTY_BODY),),
        )
    )
    return Packed(digest=f"sha256:{sha256(manifest)}", manifest=manifest, config=config)


def describe(media_type: str, body: bytes) -> Descriptor:
    """The descriptor of ``body``."""
    return Descriptor(media_type=media_type, digest=f"sha256:{sha256(body)}", size=len(body))
