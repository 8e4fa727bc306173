"""What makes a stream too slow or incomplete. Pure."""

from __future__ import annotations

from tidegate.base import Usage

RATE_WINDOW = 5.0
"""Seconds of waiting over which the rate of a stream is judged."""


def too_slow(chars: int, waited: float, rate: float) -> str | None:
    """Words when a stream that was waited for gave fewer than ``rate`` characters a second; None
    when it did not, and until a whole window was waited."""
    if waited < RATE_WINDOW or chars >= rate * waited:
        return None
    return f"{chars / waited:.1f} characters a second for {waited:.1f} s, below {rate:g}"


def lost_nothing(pieces: int, usage: Usage | None) -> bool:
    """Whether the skipped, unreadable events held no content: the provider's token count equals the
    events that were read. So it is where a token comes as an event, as most servers send it."""
    return usage is not None and not usage.estimated and usage.completion == pieces
