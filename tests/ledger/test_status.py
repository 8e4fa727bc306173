"""The loader's word about itself: a disk that does not take it is told once, not every second."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tidegate.ledger.run import Loop
from tidegate.ledger.status import LedgerStatus, read_status


def test_given_a_full_disk_then_the_log_says_once_that_the_status_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """given no room; when the loader reports; then one line, and a new one for a new outage."""
    full = True
    written: list[LedgerStatus] = []

    def write(state: Path, status: LedgerStatus) -> None:
        if full:
            raise OSError(28, "No space left on device")
        written.append(status)

    monkeypatch.setattr("tidegate.ledger.run.write_status", write)
    stop = threading.Event()
    stop.set()  # nothing to load: each run reports once and ends
    loop = Loop(tmp_path, stop)
    for _ in range(3):
        loop.run()
    assert (len(caplog.messages), len(written)) == (1, 0)
    full = False
    loop.run()
    full = True
    loop.run()
    assert (len(caplog.messages), len(written)) == (2, 1)
    assert read_status(tmp_path) is None
