"""What an operator's program asks of the API: any query is answered, or refused with a code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from tests.fuzz.budget import fuzz
from tidegate.base.runtime import Runtime
from tidegate.console.api import Api, with_errors

NAMES = [
    *("window", "since", "limit", "route", "journey", "tenant", "model", "outcome", "code"),
    *("trace", "status", "content"),
]
WORDS = [
    *("15m", "0s", "1h", "9" * 9, "9" * 400 + "d", "99999999w", "1e400s", "-1s", "nan", "20", "0"),
    *("4xx", "404", "9xx", "\x00", "a\x00b", "%", "\ud7ff", "'; --", "²", "٣", "1_0", " 5 "),
]
QUERIES = st.lists(
    st.tuples(
        st.sampled_from(NAMES) | st.text(max_size=5),
        st.sampled_from(WORDS) | st.text(max_size=12),
    ),
    max_size=4,
)
IDS = st.sampled_from(["0" * 8, "f" * 32, "f" * 33, "\x00", "0" * 7 + "-1", "٣" * 8]) | st.text()


def asked(api: Api, what: str, query: list[tuple[str, str]], id_: str) -> Any:
    text = "&".join(
        f"{quote(name, errors='replace')}={quote(value, errors='replace')}" for name, value in query
    )
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "headers": [],
        "query_string": text.encode(),
        "path_params": {"id": id_},
    }
    return with_errors(getattr(api, what))(Request(scope))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("api")


@pytest.mark.parametrize("what", ["receipts", "profile", "receipt"])
def test_any_question_is_answered_or_refused(what: str, place: Path, database_url: str) -> None:
    runtime = Runtime(
        app="a",
        state=str(place),
        pid=1,
        release="sha256:0",
        database_url=database_url,
        valkey_url="unix:///none",
        gateway_url="http://127.0.0.1:1",
        operator_url="http://127.0.0.1:1",
        operator_token="x",
        pools={},
    )
    api = Api(place, lambda: runtime)  # type: ignore[arg-type]

    @fuzz(80)
    @given(query=QUERIES, id_=IDS)
    def ask(query: list[tuple[str, str]], id_: str) -> None:
        answer = asked(api, what, query, id_)
        body = json.loads(answer.body)
        assert answer.status_code in (200, 400, 404)
        if answer.status_code != 200:
            assert body["error"]["code"]
            assert len(body["error"]["message"]) < 2000

    ask()
