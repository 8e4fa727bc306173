"""The operator's door as a process, attacked before any token is looked at."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import given

from tests.console.test_run import AUTH, TOKEN, health, make_state, wait_for
from tests.fuzz.budget import fuzz
from tests.fuzz.test_http_requests import ANY
from tests.ports import free_port
from tidegate.console import protocol
from tidegate.console.protocol import MAX_HEADER_BYTES
from tidegate.deploy.rules import Doors, part_specs

BEARER = f"authorization: Bearer {TOKEN}\r\n".encode()
METRICS = b"GET /metrics HTTP/1.1\r\nhost: t\r\n" + BEARER + b"\r\n"
HEALTH = b"GET /health HTTP/1.1\r\nhost: t\r\n\r\n"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The door as a process of its own, and nothing else."""
    state, port = make_state(tmp_path_factory.mktemp("console")), free_port()
    log = (state / "console.log").open("wb")
    arguments = ["-m", "tidegate.console", "--state", str(state), "--port", str(port)]
    process = subprocess.Popen([sys.executable, *arguments], stdout=log, stderr=log)
    try:
        wait_for(lambda: health(f"http://127.0.0.1:{port}"))
        yield port
        assert process.poll() is None, "nothing that came ended it"
        assert "Traceback" not in (state / "console.log").read_text()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(15)
        log.close()


def say(port: int, data: bytes, *, wait: float = 10.0) -> bytes:
    """What is answered to ``data`` until the door closes or is silent; ``wait`` seconds at most
    until it begins."""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=wait)) as connection:
        answer = b""
        try:
            connection.sendall(data)
            while part := connection.recv(65536):
                answer += part
                connection.settimeout(0.1)
        except (TimeoutError, ConnectionError):
            pass
        return answer


def statuses(answer: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


def test_it_listens_on_loopback_and_nowhere_else(port: int) -> None:
    """Every address of 127.0.0.0/8 is this machine; a server on 0.0.0.0 would answer at all."""
    assert statuses(say(port, HEALTH)) == [200]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port), timeout=5)


def test_up_keeps_it_on_loopback_also_where_the_gateway_is_not() -> None:
    doors = Doors(host="0.0.0.0", port=8080, operator_port=8081, workers=1)
    console = next(spec for spec in part_specs(Path("/state"), doors) if spec.name == "console")
    gateway = next(spec for spec in part_specs(Path("/state"), doors) if spec.name == "gateway")
    assert console.argv[console.argv.index("--host") + 1] == "127.0.0.1"
    assert gateway.argv[gateway.argv.index("--host") + 1] == "0.0.0.0"
    assert doors.port != doors.operator_port


SMUGGLED = METRICS


@pytest.mark.parametrize(
    "data",
    [
        b"POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n"
        b"0\r\n\r\n" + SMUGGLED,
        b"POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 0\r\ncontent-length: 37\r\n\r\n" + SMUGGLED,
        b"POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: gzip, chunked\r\n\r\n" + SMUGGLED,
        b"POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: xchunked\r\n\r\n" + SMUGGLED,
        b"POST / HTTP/1.1\r\nhost: t\r\nhost: u\r\n\r\n" + SMUGGLED,
        b"POST / HTTP/1.1\nhost: t\n\n" + SMUGGLED,
        b"POST / HTTP/1.1\r\nhost: t\r\nx: y\r\n folded\r\n\r\n" + SMUGGLED,
        b"POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n-1\r\n" + SMUGGLED,
        b"CONNECT t:1 HTTP/1.1\r\nhost: t\r\n\r\n" + SMUGGLED,
        b"\x16\x03\x01\x02\x00\x01" + SMUGGLED,
    ],
)  # fmt: skip
def test_nothing_is_smuggled(port: int, data: bytes) -> None:
    assert statuses(say(port, data)) == [400]


def test_a_trailer_is_no_token(port: int) -> None:
    head = b"GET /metrics HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n"
    answer = say(port, head + b"0\r\n" + BEARER + b"\r\n")
    assert statuses(answer) == [401]


@pytest.mark.parametrize(
    "start",
    [
        b"GET /health HTTP/1.1\r\nhost: t\r\nx: ",
        b"GET /",
        b"POST /health HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: ",
        b"POST /health HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n5;x=",
    ],
    ids=["a header", "a path", "a trailer", "a chunk extension"],
)
def test_what_is_no_content_is_bounded(port: int, start: bytes) -> None:
    with closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as connection:
        connection.sendall(start)
        sent = 0
        try:
            while sent < 64 << 20:
                connection.sendall(b"a" * 65536)
                sent += 65536
        except ConnectionError:
            pass
    assert sent < 16 << 20, "it was read without end"
    assert statuses(say(port, HEALTH)) == [200]


def test_headers_of_a_sound_size_pass_and_larger_ones_do_not(port: int) -> None:
    for size, status in ((MAX_HEADER_BYTES - 200, 200), (MAX_HEADER_BYTES + 1, 400)):
        filler = b"x: " + b"a" * size + b"\r\n\r\n"
        assert statuses(say(port, HEALTH[:-2] + filler)) == [status]


@contextmanager
def impatient(state: Path, bounds: str) -> Iterator[int]:
    """The port of a door of its own with other ``bounds``: the real ones are those of hours."""
    at = free_port()
    code = (
        f"import tidegate.console.protocol as p; {bounds}\n"
        "from tidegate.console.__main__ import main\n"
        f"main(['--state', {str(state)!r}, '--port', '{at}'])"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        wait_for(lambda: health(f"http://127.0.0.1:{at}"))
        yield at
        wait_for(lambda: health(f"http://127.0.0.1:{at}"))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(15)


def is_gone(connection: socket.socket) -> bool:
    """Whether the door closes within the connection's timeout."""
    try:
        while connection.recv(65536):
            pass
        return True
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


@pytest.mark.parametrize("start", [b"", b"GET /", HEALTH + b"GET /"])
def test_whoever_does_not_finish_its_headers_is_let_go(tmp_path: Path, start: bytes) -> None:
    with (
        impatient(make_state(tmp_path), "p.HEADER_SECONDS = 0.3") as at,
        closing(socket.create_connection(("127.0.0.1", at), timeout=10)) as mute,
    ):
        mute.sendall(start)
        assert is_gone(mute)


def test_connections_are_bounded(tmp_path: Path) -> None:
    with impatient(make_state(tmp_path), "p.MAX_CONNECTIONS = 3") as at:
        held = [socket.create_connection(("127.0.0.1", at), timeout=1) for _ in range(8)]
        gone = sum(is_gone(one) for one in held)
        for one in held:
            one.close()
    assert gone >= 5


def test_an_upgrade_is_not_taken(port: int) -> None:
    upgrade = b"upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n"
    answer = say(port, b"GET /metrics HTTP/1.1\r\nhost: t\r\n" + upgrade + b"\r\n", wait=1.0)
    assert statuses(answer) == [401]


@fuzz(30)
@given(data=ANY)
def test_no_bytes_get_past_the_token(port: int, data: bytes) -> None:
    answer = say(port, data, wait=0.3)
    assert set(statuses(answer)) <= {100, 400, 401}
    assert statuses(say(port, HEALTH)) == [200]


def test_errors_show_no_insides(port: int) -> None:
    answer = say(port, b"GET /api/receipts?limit=x HTTP/1.1\r\nhost: t\r\n" + BEARER + b"\r\n")
    assert b"Traceback" not in answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"]
    assert TOKEN.encode() not in answer
    assert AUTH["authorization"].encode() not in answer
    assert protocol.HEADER_SECONDS == 10.0
