"""A child is gone when we are gone, however we go; its log is bounded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from tidegate.base.children import Child, ChildSpec, not_ready, rotate_log
from tidegate.base.errors import RuntimeStateError

SLEEP = "import time; time.sleep(60)"


def spec_of(tmp_path: Path, code: str = SLEEP, **fields: object) -> ChildSpec:
    return ChildSpec(
        name="child",
        argv=(sys.executable, "-c", code),
        log=tmp_path / "child.log",
        **fields,  # type: ignore[arg-type]
    )


def gone(pid: int, within: float = 10.0) -> bool:
    """Whether process ``pid`` ended (a zombie counts as ended) in time."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def read_when_there(path: Path, words: int, within: float = 10.0) -> list[int]:
    until = time.monotonic() + within
    while time.monotonic() < until:
        if path.exists() and len(numbers := path.read_text().split()) >= words:
            return [int(number) for number in numbers]
        time.sleep(0.02)
    raise AssertionError(f"{path} was not written")


def test_output_and_errors_go_to_the_log(tmp_path: Path) -> None:
    child = Child(spec_of(tmp_path, "import sys; print('out'); print('err', file=sys.stderr)"))
    while child.poll() is None:
        time.sleep(0.01)
    assert set((tmp_path / "child.log").read_text().split()) == {"out", "err"}


def test_a_child_does_not_get_what_is_hidden_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_SECRET_ONE", "hunter2")
    code = "import os; print(sorted(n for n in os.environ if n.startswith('TEST_')))"
    child = Child(spec_of(tmp_path, code, hide=("TEST_SECRET_",), env={"TEST_GIVEN": "1"}))
    while child.poll() is None:
        time.sleep(0.01)
    assert (tmp_path / "child.log").read_text() == "['TEST_GIVEN']\n"


def test_stop_asks_first(tmp_path: Path) -> None:
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        "open('up', 'w').close()\n"
        "time.sleep(60)"
    )
    up = tmp_path / "up"
    child = Child(spec_of(tmp_path, code, cwd=tmp_path, probe=up.exists))
    child.wait_ready()
    assert child.stop() == 7


def test_stop_kills_what_does_not_listen(tmp_path: Path) -> None:
    code = (
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "open('up', 'w').close()\n"
        "time.sleep(60)"
    )
    up = tmp_path / "up"
    child = Child(spec_of(tmp_path, code, cwd=tmp_path, probe=up.exists, grace=0.2))
    child.wait_ready()
    assert child.stop() == -signal.SIGKILL


def test_what_a_dead_child_leaves_in_its_session_is_killed(tmp_path: Path) -> None:
    code = f"""
import os, subprocess, sys, time
grandchild = subprocess.Popen([sys.executable, "-c", {SLEEP!r}])
open("pids.part", "w").write(f"{{os.getpid()}} {{grandchild.pid}}")
os.rename("pids.part", "pids")
time.sleep(60)
"""
    child = Child(spec_of(tmp_path, code, cwd=tmp_path))
    pid, grandchild = read_when_there(tmp_path / "pids", 2)
    assert pid == child.pid
    os.kill(pid, signal.SIGKILL)
    while child.poll() is None:
        time.sleep(0.01)
    assert gone(grandchild)


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_kill_9_of_the_parent_leaves_no_orphan(tmp_path: Path) -> None:
    parent_code = f"""
import sys, time
from pathlib import Path
from tidegate.base.children import Child, ChildSpec
argv = (sys.executable, "-c", {SLEEP!r})
pids = [Child(ChildSpec(name=n, argv=argv, log=Path(n + ".log"))).pid for n in "ab"]
Path("pids.part").write_text(" ".join(map(str, pids)))
Path("pids.part").rename("pids")
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", parent_code], cwd=tmp_path)
    try:
        pids = read_when_there(tmp_path / "pids", 2)
        time.sleep(0.3)  # past the shim, so that it is the programs that must die
        assert not any(gone(pid, within=0) for pid in pids)
        assert all(psutil.Process(pid).is_running() for pid in pids)
    finally:
        parent.kill()
        parent.wait()
    assert all(gone(pid) for pid in pids)


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_kill_9_of_the_parent_while_a_child_starts(tmp_path: Path) -> None:
    parent_code = f"""
import os, signal, sys
from pathlib import Path
from tidegate.base.children import Child, ChildSpec
argv = (sys.executable, "-c", {SLEEP!r})
child = Child(ChildSpec(name="a", argv=argv, log=Path("a.log")))
print(child.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    command = [sys.executable, "-c", parent_code]
    parent = subprocess.run(
        command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=False, timeout=30
    )
    assert gone(int(parent.stdout))


def test_a_child_that_ends_before_it_is_ready_is_a_coded_error(tmp_path: Path) -> None:
    child = Child(spec_of(tmp_path, "print('no such model'); raise SystemExit(3)", probe=bool))
    with pytest.raises(RuntimeStateError) as raised:
        child.wait_ready()
    assert raised.value.code == "child_not_ready"
    assert "child ended with 3: no such model" in raised.value.message


def test_a_child_that_hangs_at_start_is_killed(tmp_path: Path) -> None:
    child = Child(spec_of(tmp_path, probe=bool, ready_within=0.2))
    with pytest.raises(RuntimeStateError, match=r"gave no answer in 0\.2 s"):
        child.wait_ready()
    assert gone(child.pid)


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    child = Child(ChildSpec(name="x", argv=("/no/such/program",), log=tmp_path / "x.log"))
    while child.poll() is None:
        time.sleep(0.01)
    assert child.poll() == 127
    assert "/no/such/program: No such file" in (tmp_path / "x.log").read_text()


def test_children_start_in_the_main_thread_only(tmp_path: Path) -> None:
    caught: list[BaseException] = []

    def start() -> None:
        try:
            Child(spec_of(tmp_path))
        except RuntimeError as error:
            caught.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "main thread" in str(caught[0])


def test_the_log_is_moved_when_it_grew_and_the_child_goes_on_in_it(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    with log.open("ab") as writer:  # O_APPEND, as a child has it
        writer.write(b"old" * 100)
        writer.flush()
        assert not rotate_log(log, limit=300)
        assert rotate_log(log, limit=299)
        writer.write(b"new")
        writer.flush()
    assert log.read_bytes() == b"new"
    assert (tmp_path / "a.log.1").read_bytes() == (b"old" * 100)[-299:]


def test_the_reason_of_a_childs_own_child_is_told(tmp_path: Path) -> None:
    (tmp_path / "door.log").write_text("door-1 ended with 1\n")
    (tmp_path / "door-1.log").write_text("the key is missing\n")
    (tmp_path / "door-x.log").write_text("of somebody else\n")
    error = not_ready(ChildSpec(name="door", argv=(), log=tmp_path / "door.log"), None)
    assert "door-1 ended with 1" in error.message
    assert "the key is missing" in error.message
    assert "somebody" not in error.message
    assert error.cure.endswith(f"{tmp_path / 'door-1.log'}")
