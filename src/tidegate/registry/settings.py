"""Settings of fetching, read from the environment here and nowhere else in this room."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from tidegate.base import UsageError

GIB = 1 << 30


class FetchSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a fetch. ``cache`` is absolute; ``max_bytes`` bounds one file; times are in
    seconds."""

    cache: Path
    offline: bool = False
    hf_endpoint: str = "https://huggingface.co"
    max_bytes: int = 100 * GIB
    connect_timeout: float = 10.0
    idle_timeout: float = 60.0
    attempts: int = 4
    """Tries of one download; each goes on where the one before ended."""
    backoff: float = 0.5
    """Pause before the second try; doubled before each one after."""


def read_settings(environment: Mapping[str, str]) -> FetchSettings:
    """Settings from TIDEGATE_CACHE, TIDEGATE_OFFLINE, TIDEGATE_MAX_ARTIFACT_GIB, HF_ENDPOINT and
    XDG_CACHE_HOME. Error: bad_environment."""
    base = environment.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    cache = environment.get("TIDEGATE_CACHE") or f"{base}/tidegate"
    size = environment.get("TIDEGATE_MAX_ARTIFACT_GIB") or "100"
    try:
        max_bytes = int(float(size) * GIB)
    except (ValueError, OverflowError):
        raise UsageError(
            "bad_environment",
            f"TIDEGATE_MAX_ARTIFACT_GIB is {size!r}, which is not a number",
            cure="set it to a number of GiB, such as 100, or unset it",
        ) from None
    return FetchSettings(
        cache=Path(cache).expanduser().absolute(),
        offline=environment.get("TIDEGATE_OFFLINE", "").lower() in {"1", "true", "yes", "on"},
        hf_endpoint=(environment.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/"),
        max_bytes=max_bytes,
    )
