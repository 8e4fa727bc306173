"""A child process: in a session of its own, with a bounded log, killed when its parent dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tidegate.base import child_shim
from tidegate.base.errors import RuntimeStateError

LOG_BYTES = 8 * 1024 * 1024
"""A log that grows past this is moved to ``<name>.log.1``: at most twice as much is kept."""

Probe = Callable[[], bool]
"""Says whether a child answers; runs in a thread and may block for seconds, bounded by itself."""


@dataclass(frozen=True, kw_only=True)
class ChildSpec:
    """How one child is run."""

    name: str
    """Also the name of its log file."""
    argv: tuple[str, ...]
    log: Path
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to this process's environment."""
    hide: tuple[str, ...] = ()
    """Prefixes of variables of this process's environment that the child does not get."""
    cwd: Path | None = None
    user: tuple[int, int] | None = None
    """(uid, gid) to run as; None: as we are. Needs root."""
    death_signal: int = signal.SIGKILL
    """What the kernel sends to the child when this process dies; nobody is left to send a second
    one, so anything gentler is for a child that is sure to end by it."""
    stop_signal: int = signal.SIGTERM
    grace: float = 10.0
    """Seconds between ``stop_signal`` and SIGKILL."""
    probe: Probe | None = None
    """None: a child is ready as soon as it runs."""
    ready_within: float = 60.0
    """Seconds from start until the probe must have said yes once."""
    pass_fds: tuple[int, ...] = ()
    """Open file descriptors that it inherits under the same numbers."""
    prepare: Callable[[], None] | None = None
    """Runs before every start, in a thread: clears what a killed predecessor left behind."""


def shim_argv(spec: ChildSpec) -> list[str]:
    """The command that starts ``spec`` so that it dies with this process."""
    uid, gid = ("-", "-") if spec.user is None else (str(spec.user[0]), str(spec.user[1]))
    shim = [sys.executable, "-I", "-S", child_shim.__file__]
    return [*shim, str(os.getpid()), str(int(spec.death_signal)), uid, gid, "--", *spec.argv]


def _environment(spec: ChildSpec) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(spec.hide)}
    return {**kept, **spec.env}


def log_folder(state: Path) -> Path:
    """Where the children of an app log: ``.tidegate/log``."""
    return state / "log"


class Child:
    """A running child process.

    Start it from the main thread: the kernel sends the death signal when the *thread* that started
    the child ends (prctl(2)), and a thread of a pool may end long before its process."""

    def __init__(self, spec: ChildSpec) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("start children in the main thread: the kernel ties them to it")
        self.spec = spec
        self.started = time.monotonic()
        spec.log.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(spec.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self._process = subprocess.Popen(
                shim_argv(spec),
                stdin=subprocess.DEVNULL,
                stdout=handle,
                stderr=handle,
                cwd=spec.cwd,
                env=_environment(spec),
                start_new_session=True,
                pass_fds=spec.pass_fds,
            )
        finally:
            os.close(handle)

    @property
    def pid(self) -> int:
        return self._process.pid

    def age(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self.started

    def poll(self) -> int | None:
        """The exit code, or None while it runs. What is left of its session is killed with it."""
        if self._process.returncode is None:
            # WNOWAIT leaves the ended child as a zombie: until it is reaped, no other process can
            # get its id, which is the id of its group too, so killing the group hits nobody else.
            seen = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if seen is None:
                return None
            self._signal_group(signal.SIGKILL)
        return self._process.poll()

    def ask_to_stop(self) -> None:
        """Send ``stop_signal`` to a child that still runs, and return at once."""
        if self.poll() is None:
            self._process.send_signal(self.spec.stop_signal)

    def kill(self) -> None:
        """Send SIGKILL to the child and all that it started, and reap it."""
        if self.poll() is None:
            self._signal_group(signal.SIGKILL)
            self._process.wait()

    def stop(self) -> int:
        """Ask it to stop, kill it after ``grace`` seconds; the exit code."""
        self.ask_to_stop()
        until = time.monotonic() + self.spec.grace
        while self.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        self.kill()
        return self._process.wait()

    def wait_ready(self) -> None:
        """Block until the probe says yes; RuntimeStateError with the log's end if it does not."""
        while self.spec.probe is not None and not self.spec.probe():
            code = self.poll()
            if code is not None or self.age() > self.spec.ready_within:
                self.kill()
                raise not_ready(self.spec, code)
            time.sleep(0.02)

    def _signal_group(self, number: int) -> None:
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            pass  # the group is empty, or what is left in it changed user


def not_ready(spec: ChildSpec, code: int | None) -> RuntimeStateError:
    """The error of a child that ended with ``code``, or hung (None), before it was ready."""
    what = (
        f"ended with {code}" if code is not None else f"gave no answer in {spec.ready_within:g} s"
    )
    said = log_tail(spec.log) or "its log is empty"
    read = [str(spec.log)]
    for log in _logs_below(spec.log):  # a child that runs children: the reason is theirs
        said += f"; {log.stem}: {log_tail(log, lines=2)}"
        read.append(str(log))
    return RuntimeStateError(
        "child_not_ready", f"{spec.name} {what}: {said}", cure=f"read {' and '.join(read)}"
    )


def _logs_below(log: Path, most: int = 1) -> list[Path]:
    """Logs of the children of the child that writes ``log``: ``gateway-1.log`` of ``gateway.log``.
    One is enough: what keeps one worker from its start keeps all."""
    found = sorted(log.parent.glob(f"{log.stem}-[0-9]*.log"))
    return [one for one in found if log_tail(one)][:most]


def log_tail(log: Path, lines: int = 5) -> str:
    """The last lines of a log, in one line; empty when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4096))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return " | ".join(line.strip() for line in text.splitlines()[-lines:] if line.strip())


def rotate_log(log: Path, limit: int = LOG_BYTES) -> bool:
    """Move the content of a log that grew past ``limit`` bytes to ``<log>.1``.

    The child keeps its O_APPEND handle and goes on at the new start; what it writes between copy
    and cut is lost.
    """
    try:
        if log.stat().st_size <= limit:
            return False
        kept = log.with_name(log.name + ".1")
        with log.open("rb") as file:
            file.seek(-limit, os.SEEK_END)
            kept.write_bytes(file.read(limit))
        kept.chmod(0o600)
        os.truncate(log, 0)
    except FileNotFoundError:
        return False
    return True
