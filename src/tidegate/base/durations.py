"""Durations, shares and sizes as people write them: ``800ms``, ``1h``, ``5%``, ``4MiB``."""

from __future__ import annotations

import math
import re

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_BYTES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_BYTES |= {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_SIZE = re.compile(r"(\d{1,15})\s*([KMG]?i?B|)", re.ASCII)
_READABLE = ((0.9995e-3, "us"), (0.9995, "ms"), (120.0, "s"), (7200.0, "m"), (172800.0, "h"))
_EXACT = ((604800, "w"), (86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|m|h|d|w)")


def parse_duration(text: str) -> float:
    """Seconds in ``text`` (``1h30m`` adds up). Raises ValueError with what was expected."""
    parts = list(_DURATION.finditer(text.strip()))
    if not parts or "".join(p.group(0) for p in parts) != text.strip():
        raise ValueError(f"{text!r} is not a duration; write 800ms, 5s, 10m, 1h or 30d")
    seconds = sum(float(p.group(1)) * _UNITS[p.group(2)] for p in parts)
    if seconds == math.inf:
        raise ValueError(f"{text[:40]!r} is longer than any time; write 800ms, 5s, 10m, 1h or 30d")
    return seconds


def format_duration(seconds: float) -> str:
    """The shortest readable form with three significant digits: ``812ms``, ``3.41s``."""
    unit = next((unit for limit, unit in _READABLE if seconds < limit), "d")
    value = seconds / _UNITS[unit]
    # What rounds to 1000 or lies below 0.001 would come out as 1e+03 or 1e-04.
    if value >= 999.5 or value < 1e-3:
        return f"{value:.0f}{unit}"
    return f"{value:.3g}{unit}" if value >= 0.01 else f"{value:.1g}{unit}"


def duration_text(seconds: float) -> str:
    """``seconds`` exactly, in the largest unit that divides them: ``90d``, ``1.5s``."""
    for size, unit in _EXACT:
        if seconds and seconds % size == 0:
            return f"{int(seconds // size)}{unit}"
    text = f"{seconds:.6f}".rstrip("0").rstrip(".")
    return f"{text}s"


def parse_share(text: str | float) -> float:
    """A share in [0, 1] from ``5%`` or ``0.05``. Raises ValueError with what was expected."""
    try:
        value = (
            float(text.strip()[:-1]) / 100
            if isinstance(text, str) and text.strip().endswith("%")
            else float(text)
        )
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ValueError(f"{text!r} is not a share; write 5% or 0.05")
    return value


def parse_size(text: str | int) -> int:
    """Bytes in ``text``: ``4MiB``, ``500KB`` or a plain number. Raises ValueError with what was
    expected."""
    match = _SIZE.fullmatch(str(text).strip())
    if match is None or match.group(2) not in _BYTES:
        raise ValueError(f"{text!r} is not a size; write 512KiB, 4MiB or a number of bytes")
    return int(match.group(1)) * _BYTES[match.group(2)]
