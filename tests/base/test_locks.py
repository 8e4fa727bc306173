"""A lock has one holder, who can be named, and is free as soon as that one is gone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tidegate.base.locks import LockHeld, file_lock

HOLD = """
import sys, time
from pathlib import Path
from tidegate.base.locks import file_lock
with file_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_second_is_told_who_holds_it_and_kill_9_frees_it(tmp_path: Path) -> None:
    path = tmp_path / "run" / "lock"
    path.parent.mkdir()
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(LockHeld) as raised, file_lock(path):
            pass
        holder.kill()
    assert raised.value.pid == holder.pid
    with file_lock(path):
        assert path.read_text() == str(os.getpid())


def test_waiting_ends_when_there_is_no_more_need(tmp_path: Path) -> None:
    needs = iter([False, False, True])  # a fourth question would have no answer
    with (
        file_lock(tmp_path / "lock"),
        pytest.raises(LockHeld),
        file_lock(tmp_path / "lock", wait=1e9, give_up=lambda: next(needs)),
    ):
        pass
