"""Exact building blocks of every room: errors, ids, hashing, money, child processes.

Holds:    the error tree, ids, hashing, money, durations, templates, child processes, the runtime.
Not here: anything that knows what a route, a model or a receipt is.
Reads:    nothing.   Writes: nothing.
Words:    error code, cure, digest, micro-dollar, child, runtime
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidegate.base.addresses import is_metadata
from tidegate.base.durations import (
    duration_text,
    format_duration,
    parse_duration,
    parse_share,
    parse_size,
)
from tidegate.base.errors import (
    ArtifactError,
    DiskError,
    PoolError,
    ReleaseError,
    RequestError,
    RuntimeStateError,
    SecretError,
    SpecError,
    StoreError,
    TidegateError,
    UsageError,
)
from tidegate.base.hashing import canonical_json, sha256, sha256_file
from tidegate.base.ids import make_id_source, new_id
from tidegate.base.lazy import lazy
from tidegate.base.locks import LockHeld, file_lock
from tidegate.base.money import Price, Usage, cost_of, estimated_usage, reported_usage
from tidegate.base.variables import Bound, bind

if TYPE_CHECKING:
    from tidegate.base.children import Child, ChildSpec, log_folder, shim_argv
    from tidegate.base.runtime import (
        STATE_FOLDER,
        PoolAddress,
        Runtime,
        read_runtime,
        write_private,
        write_runtime,
    )
    from tidegate.base.supervision import ChildState, Supervised, Supervisor
    from tidegate.base.templates import ENVIRONMENT, fits, plain_parts
    from tidegate.base.tokens import count_now, count_tokens
else:
    __getattr__ = lazy(
        __name__,
        {
            "children": ("Child", "ChildSpec", "log_folder", "shim_argv"),
            "runtime": (
                "STATE_FOLDER",
                "PoolAddress",
                "Runtime",
                "read_runtime",
                "write_private",
                "write_runtime",
            ),
            "supervision": ("ChildState", "Supervised", "Supervisor"),
            "templates": ("ENVIRONMENT", "fits", "plain_parts"),
            "tokens": ("count_now", "count_tokens"),
        },
    )

__all__ = [
    "ENVIRONMENT",
    "STATE_FOLDER",
    "ArtifactError",
    "Bound",
    "Child",
    "ChildSpec",
    "ChildState",
    "DiskError",
    "LockHeld",
    "PoolAddress",
    "PoolError",
    "Price",
    "ReleaseError",
    "RequestError",
    "Runtime",
    "RuntimeStateError",
    "SecretError",
    "SpecError",
    "StoreError",
    "Supervised",
    "Supervisor",
    "TidegateError",
    "Usage",
    "UsageError",
    "bind",
    "canonical_json",
    "cost_of",
    "count_now",
    "count_tokens",
    "duration_text",
    "estimated_usage",
    "file_lock",
    "fits",
    "flag_rules",
    "format_duration",
    "is_metadata",
    "lazy",
    "log_folder",
    "make_id_source",
    "new_id",
    "parse_duration",
    "parse_share",
    "parse_size",
    "plain_parts",
    "read_runtime",
    "reported_usage",
    "sha256",
    "sha256_file",
    "shim_argv",
    "write_private",
    "write_runtime",
]
