"""Where what is pinned lies: releases in an OCI image layout, model files by their hash.

Holds:    blobs, the index with its tags, putting and loading a release; fetching artifacts.
Not here: what a release says (release), running a model (pools).
Reads:    release.   Writes: .tidegate/registry, the user's artifact cache.
Words:    registry, blob, manifest, tag, artifact, source, member
"""

from tidegate.registry.artifacts import Store, fetch, locate, open_store
from tidegate.registry.releases import history, load_release, put, read_file, resolve

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
