"""The registry: releases in an OCI image layout on disk, model files in a cache by their hash.

Holds:    blobs, the index with its tags, putting and loading a release; fetching artifacts.
Not here: what a release says (release), running a model (pools).
Reads:    release.   Writes: .tidegate/registry, the user's artifact cache.
Words:    registry, blob, manifest, tag, artifact, source, member
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidegate.base import lazy
from tidegate.registry.ports import Progress, quiet
from tidegate.registry.releases import LATEST, history, load_release, put, read_file, resolve, short

if TYPE_CHECKING:
    from tidegate.registry.artifacts import Store, fetch, locate, open_store
else:
    # The half that fetches: the gateway never asks for it.
    __getattr__ = lazy(__name__, {"artifacts": ("Store", "fetch", "locate", "open_store")})

__all__ = [
    "LATEST",
    "Progress",
    "Store",
    "fetch",
    "history",
    "load_release",
    "locate",
    "open_store",
    "put",
    "quiet",
    "read_file",
    "resolve",
    "short",
]
