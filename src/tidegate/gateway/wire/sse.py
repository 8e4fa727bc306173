"""Server-sent events: split a byte stream into events without changing a byte.

Events end at a blank line; lines end with LF, CR or CRLF (WHATWG HTML, 9.2.5). Feeding the same
bytes in any pieces gives the same events.
"""

from __future__ import annotations

import re

_END = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2}")
_LINE = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


class EventSplitter:
    """``feed`` returns the complete events of what has come so far, end markers included.

    The work of a feed does not grow with the length of the event that is under way.
    """

    def __init__(self, limit: int = 4 << 20) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._limit = limit
        self.window = b""
        """The last bytes so far: an end marker that is only now complete began among them."""

    def feed(self, data: bytes) -> list[bytes]:
        """Complete events in order. Raises ValueError when one grows beyond the limit."""
        if self._parts:
            window = self.window + data
            if (_END.search(window) is None) if b"\r" in window else (b"\n\n" not in window):
                self._hold(data, window)
                return []
            self._parts.append(data)
            data = b"".join(self._parts)
            self._parts.clear()
            self._size = 0
        events: list[bytes] = []
        start = 0
        # The usual framing, found without the regular expression.
        if b"\r" not in data:
            while (end := data.find(b"\n\n", start)) >= 0:
                events.append(data[start : end + 2])
                start = end + 2
        else:
            for match in _END.finditer(data):
                # A lone CR at the very end may be the first half of CRLF: wait for the next byte.
                if match.end() == len(data) and data.endswith(b"\r"):
                    break
                events.append(data[start : match.end()])
                start = match.end()
        if start < len(data):
            rest = data[start:]
            self._hold(rest, rest)
        return events

    def _hold(self, data: bytes, window: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)
        self.window = window[-3:]
        if self._size > self._limit:
            raise ValueError(f"one event is larger than {self._limit} bytes")

    @property
    def rest(self) -> bytes:
        """Bytes of an event that has not ended."""
        return b"".join(self._parts)

    def end(self) -> bytes:
        """Nothing comes any more: the event under way, with a blank line if it has none; b"" when
        there is none. Asked again there is none."""
        rest = self.rest
        self._parts.clear()
        self._size = 0
        if not rest.strip(b"\r\n"):
            return b""
        return rest if any(m.end() == len(rest) for m in _END.finditer(rest)) else rest + b"\n\n"


def data_of(event: bytes) -> bytes | None:
    """The data of an event (lines joined with LF), None when it has none (a comment, a ping).

    White space around a line means nothing: the data of every API here is JSON or a word.
    """
    if event.startswith(b"data:") and event.find(b"\n", 5, -2) < 0 and b"\r" not in event:
        return event[5:].strip()
    lines = _LINE.split(event.removeprefix(_BOM))  # one may stand before the first event
    lines = [line[5:].strip() for line in lines if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None
