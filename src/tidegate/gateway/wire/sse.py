"""Server-sent events: split a byte stream into events without changing a byte.

Events end at a blank line; lines end with LF, CR or CRLF (WHATWG HTML, 9.2.5). Feeding the same
bytes in any pieces gives the same events.
"""

from __future__ import annotations

import re

_END = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2}")
_LINE = re.compile(rb"\r\n|\n|\r")


class EventSplitter:
    """``feed`` returns the complete events of what has come so far, end markers included."""

    def __init__(self, limit: int = 4 << 20) -> None:
        self._rest = b""
        self._limit = limit

    def feed(self, data: bytes) -> list[bytes]:
        """Complete events in order. Raises ValueError when one grows beyond the limit."""
        # An end marker that is only now complete began at most three bytes before the new data.
        search = max(len(self._rest) - 3, 0)
        rest = self._rest + data if self._rest else data
        events: list[bytes] = []
        start = 0
        # The usual framing, found without the regular expression.
        if b"\r" not in rest:
            while (end := rest.find(b"\n\n", search)) >= 0:
                events.append(rest[start : end + 2])
                start = search = end + 2
        else:
            for match in _END.finditer(rest, search):
                # A lone CR at the very end may be the first half of CRLF: wait for the next byte.
                if match.end() == len(rest) and rest.endswith(b"\r"):
                    break
                events.append(rest[start : match.end()])
                start = match.end()
        self._rest = rest[start:]
        if len(self._rest) > self._limit:
            raise ValueError(f"one event is larger than {self._limit} bytes")
        return events

    @property
    def rest(self) -> bytes:
        """Bytes of an event that has not ended."""
        return self._rest


def data_of(event: bytes) -> bytes | None:
    """The data of an event (lines joined with LF), None when it has none (a comment, a ping)."""
    if event.startswith(b"data:") and event.find(b"\n", 5, -2) < 0 and b"\r" not in event:
        return event[5:].strip()
    lines = [
        line[5:].removeprefix(b" ") for line in _LINE.split(event) if line.startswith(b"data:")
    ]
    return b"\n".join(lines) if lines else None


def name_of(event: bytes) -> bytes:
    """The ``event:`` field, or b"" when there is none."""
    for line in _LINE.split(event):
        if line.startswith(b"event:"):
            return line[6:].strip()
    return b""
