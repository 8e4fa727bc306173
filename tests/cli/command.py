"""The ``tidegate`` command as it is typed: in this process, or as a process of its own.

A process of its own costs most of a second of one core for imports; so only the tests that are
about a process (its exit code, its pipes, signals to it) pay for it.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from tidegate.cli.main import main

CODE = "from tidegate.cli.main import main; main()"
_STORE = "TIDEGATE_DATABASE_URL"


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


def run(*words: str | Path, database_url: str | None = None, **environment: str) -> Done:
    """Run ``main`` here, with nothing on stdin. The app's own PostgreSQL unless ``database_url``
    names another; ``environment`` is added for this call. What ``main`` does not turn into an
    exit code is raised: it would be a traceback."""
    out, err = _stream(), _stream()
    with (
        mock.patch.object(sys, "argv", ["tidegate", *map(str, words)]),
        mock.patch.object(sys, "stdin", _stream()),
        mock.patch.dict(os.environ, _environment(database_url, environment), clear=True),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    return Done(code, _text(out), _text(err))


def run_process(*words: str | Path, database_url: str | None = None, **environment: str) -> Done:
    """The same as a process of its own."""
    done = subprocess.run(
        command(*words),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=_environment(database_url, environment),
    )
    return Done(done.returncode, done.stdout, done.stderr)


def command(*words: str | Path) -> list[str]:
    """The command line of a process that runs ``tidegate`` with ``words``."""
    return [sys.executable, "-c", CODE, *map(str, words)]


def _environment(database_url: str | None, more: dict[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != _STORE}
    return {**kept, **({} if database_url is None else {_STORE: database_url}), **more}


def _stream() -> io.TextIOWrapper:
    # Over bytes, as the real ones are: commands print JSON as bytes.
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    stream.seek(0)
    return stream.read()
