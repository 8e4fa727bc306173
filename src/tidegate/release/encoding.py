"""The encoding of a release: bytes that are the same on every machine, and back.

Names are sorted, so the order of keys in ``tidegate.yaml`` does not matter. The two places that
hold a JSON Schema keep the order of their author: models write an object's properties in the
order of the schema, so that order is part of what is pinned.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tidegate.base import ReleaseError
from tidegate.release.values import FORMAT, Release

_AUTHORED_ORDER = {("tools", "*", "parameters"), ("routes", "*", "output", "json_schema")}


def encode_release(release: Release) -> bytes:
    """Canonical JSON of ``release``: UTF-8, no spaces, sorted, numbers in their declared type."""
    typed = msgspec.convert(msgspec.to_builtins(release), Release)
    return msgspec.json.encode(_sorted(msgspec.to_builtins(typed), ()))


def decode_release(data: bytes) -> Release:
    """The release in ``data``, as this version of tidegate has it. Raises ReleaseError
    ``release_unreadable`` for what it does not know: a field of a newer version could be a
    protection, so none is dropped in silence.

    The digest of a release stays that of the bytes in the registry, whatever is read from them.
    """
    try:
        version = msgspec.json.decode(data, type=_Version).schema_version
        if version == FORMAT:
            return msgspec.json.decode(data, type=Release)
        if version == 1:
            tree = msgspec.json.decode(data, type=dict[str, Any])
            return msgspec.convert(_from_format_1(tree), Release)
        problem = f"it has format {version}, this tidegate reads formats 1 and {FORMAT}"
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        problem = str(error)
    raise ReleaseError(
        "release_unreadable",
        f"the release cannot be read: {problem}",
        cure="build it again with this version of tidegate: tidegate build",
    )


def _from_format_1(tree: dict[str, Any]) -> dict[str, Any]:
    """Format 1 named the cluster field of a data set in each eval that uses it."""
    evals = msgspec.convert(tree.get("evals", {}), dict[str, dict[str, Any]])
    datasets = msgspec.convert(tree.get("datasets", {}), dict[str, dict[str, Any]])
    for one in evals.values():
        cluster, dataset = one.pop("cluster", None), datasets.get(str(one.get("dataset")))
        if cluster is not None and dataset is not None:
            dataset["cluster"] = cluster
    return {**tree, "schema_version": FORMAT, "evals": evals, "datasets": datasets}


class _Version(msgspec.Struct):
    schema_version: int = 1


def _sorted(value: Any, at: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        if _keeps_order(at):
            return value
        return {key: _sorted(value[key], (*at, key)) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [_sorted(item, (*at, "[]")) for item in value]
    return value


def _keeps_order(at: tuple[str, ...]) -> bool:
    return any(
        len(at) == len(pattern)
        and all(want in ("*", have) for want, have in zip(pattern, at, strict=True))
        for pattern in _AUTHORED_ORDER
    )
