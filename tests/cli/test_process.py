"""The command as a process: its exit codes, a reader that goes away, an interrupt."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

from tests.cli.command import command, run_process

SLOW = """
import signal, sys, time
from tidegate.cli import main
def wait(**_):
    print("waiting", flush=True)
    time.sleep(60)
main.root.main = wait
main.main()
"""


def test_a_mistake_of_the_caller_ends_with_2_and_one_object_for_a_script(tmp_path: Path) -> None:
    done = run_process("keys", "list", tmp_path, "--json")
    assert (done.returncode, done.stderr) == (2, "")
    assert json.loads(done.stdout)["error"]["code"] == "no_app"
    unknown = run_process("no-such-command")
    assert unknown.returncode == 2
    assert "no-such-command" in unknown.stderr
    assert "Traceback" not in unknown.stderr


def test_a_reader_that_goes_away_ends_it_without_a_word() -> None:
    """As in ``tidegate check --schema | head -1``: the schema is longer than a pipe holds."""
    with subprocess.Popen(
        command("check", "--schema"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 1  # what click makes of it


def test_an_interrupt_ends_with_130_and_says_nothing() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SLOW], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"waiting\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == b""
        assert process.wait(30) == 130
