"""Where what is pinned lies: releases in an OCI image layout, model files by their hash.

Holds:    blobs, the index with its tags, putting and loading a release; fetching artifacts.
Not here: what a release says (release), running a model (pools).
Reads:    release.   Writes: .tidegate/registry, the user's artifact cache.
Words:    registry, blob, manifest, tag, artifact, source, member
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidegate.registry.releases import history, load_release, put, read_file, resolve

if TYPE_CHECKING:
    from tidegate.registry.artifacts import Store, fetch, locate, open_store

__all__ = [
    "Store",
    "fetch",
    "history",
    "load_release",
    "locate",
    "open_store",
    "put",
    "read_file",
    "resolve",
]


def __getattr__(name: str) -> object:
    """Load the half that fetches only when it is asked for: the gateway never is that one."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tidegate.registry import artifacts

    return getattr(artifacts, name)
