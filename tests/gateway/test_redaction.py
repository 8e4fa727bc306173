"""Content passes through the app's own redaction before it reaches the disk."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.gateway.app import GatewayProcess
from tests.gateway.releases import sample_release
from tests.gateway.test_bad_input import CHAT
from tidegate.base.errors import ReleaseError
from tidegate.gateway.plan import load_redactor
from tidegate.ledger.spool_reader import read_chunk, spool_files
from tidegate.release.values import LedgerSettings
from tidegate.testing import ModelServer

HOOK = """
import re
def mask(text):
    if "explode" in text:
        raise RuntimeError("the hook is broken")
    return re.sub(r"[\\w.]+@[\\w.]+", "<email>", text)
"""


def test_given_a_hook_then_no_secret_reaches_the_spool(
    tmp_path: Path, database_url: str, valkey_url: str, upstream: ModelServer
) -> None:
    (tmp_path / "hook_of_the_app.py").write_text(HOOK)
    release = msgspec.structs.replace(
        sample_release(upstream.base_url), ledger=LedgerSettings(redact="hook_of_the_app:mask")
    )
    gateway = GatewayProcess(tmp_path, release, database_url, valkey_url)
    try:
        gateway.start()
        with gateway.client() as client:
            for text in ("write to jo@example.com", "explode jo@example.com"):
                body = {"model": "plain", "messages": [{"role": "user", "content": text}]}
                assert client.post(CHAT, json=body).status_code == 200
        assert len(gateway.receipts(2)) == 2
    finally:
        gateway.stop()
    assert b"jo@example.com" in upstream.requests[0].body, "the model sees what was written"
    kept = b"".join(path.read_bytes() for path in spool_files(gateway.runtime.spool))
    assert b"jo@example.com" not in kept
    assert b"<email>" in kept
    (path,) = spool_files(gateway.runtime.spool)
    second = read_chunk(path, 0, records=10, size=1 << 20).records[1]
    assert second.request == b'{"redaction":"failed"}', "better lost than leaked"


def test_a_hook_that_does_not_exist_is_told_at_the_start() -> None:
    for reference in ("no_such_module:f", "os:no_such_function", "os:sep", ":x"):
        with pytest.raises(ReleaseError) as error:
            load_redactor(reference, "/nowhere")
        assert error.value.code == "redactor_missing"
