"""Whatever a file server answers: the pinned file, or an ArtifactError with a code."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.budget import fuzz
from tests.fuzz.inputs import broken_bytes
from tidegate.base.errors import ArtifactError
from tidegate.registry.artifacts import Store, fetch
from tidegate.registry.settings import FetchSettings
from tidegate.release.values import Artifact

BODY = bytes(range(256)) * 2
HEAD = b'HTTP/1.1 200 OK\r\netag: "v1"\r\ncontent-length: %d\r\n\r\n' % len(BODY)
WHOLE = HEAD + BODY
HALF = HEAD + BODY[:200]
REST = (
    b"HTTP/1.1 206 Partial\r\ncontent-range: bytes 200-511/512\r\n"
    b'etag: "v1"\r\ncontent-length: 312\r\n\r\n' + BODY[200:]
)
MOVED = b"HTTP/1.1 302 Found\r\nlocation: /there\r\ncontent-length: 0\r\n\r\n"
GONE = b"HTTP/1.1 416 Range\r\ncontent-range: bytes */512\r\ncontent-length: 0\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n200\r\n" + BODY + b"\r\n0\r\n\r\n"
SEEDS = [WHOLE, HALF, REST, MOVED, GONE, CHUNKED]
TOKENS = [
    b"\r\n", b"\xe9", b"\xb2", b"9" * 30, b"9" * 5000, b"-1", b"//", b"[", b"://", b" ", b"\x00",
    b"content-length: 5\r\n", b"bytes ", b"*", b'W/"', b"last-modified: \xe9\r\n", b"#?@",
]  # fmt: skip
ANSWERS = st.lists(
    st.one_of(st.sampled_from(SEEDS), broken_bytes(SEEDS, TOKENS), st.binary(max_size=40)),
    min_size=3,
    max_size=3,
)


class Server:
    """Answers each connection with the next of ``answers``, whatever it is asked."""

    def __init__(self) -> None:
        self.answers: list[bytes] = []
        self._door = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._door.getsockname()[1]}/file"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._door.accept()
            with connection:
                try:
                    if not connection.recv(65536):
                        return
                    connection.sendall(self.answers.pop(0) if self.answers else b"")
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(65536):
                        pass
                except OSError:
                    pass

    def close(self) -> None:
        socket.create_connection(self._door.getsockname()).close()
        self._thread.join(5)
        self._door.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@fuzz(150)
@given(answers=ANSWERS)
def test_any_download_is_the_pinned_file_or_refused(
    server: Server, tmp_path_factory: pytest.TempPathFactory, answers: list[bytes]
) -> None:
    folder: Path = tmp_path_factory.mktemp("store")
    server.answers = list(answers)
    settings = FetchSettings(cache=folder, backoff=0.0, attempts=3, idle_timeout=2.0)
    artifact = Artifact(source="https", ref=server.url, sha256=hashlib.sha256(BODY).hexdigest())
    try:
        found = fetch(artifact, Store(settings))
    except ArtifactError as error:
        assert error.code
        assert len(error.message) < 10_000
        return
    assert found.read_bytes() == BODY
