"""What comes back from a store, a registry or a pool, whoever wrote it: read, or no value."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.budget import fuzz
from tests.fuzz.inputs import broken_bytes
from tests.gateway.calls import ANSWER
from tests.gateway.releases import sample_release
from tidegate.base.errors import ReleaseError, RequestError
from tidegate.gateway.idempotency.run import KeptOutcome, Refusal, _outcome
from tidegate.gateway.values import Answer
from tidegate.pools.embed_request import read_request
from tidegate.pools.loopback import names_model
from tidegate.release.encoding import decode_release, encode_release
from tidegate.release.values import Release

REFUSAL = Refusal(status=400, code="no", message="no", cure="none", param=None)
KEPT = [
    msgspec.msgpack.encode(one)
    for one in (KeptOutcome(answer=ANSWER), KeptOutcome(refusal=REFUSAL), KeptOutcome())
]
TOKENS = [b"\xff", b"\xc1", b"\xdd\xff\xff\xff\xff", b"\x91" * 3000, b"\x80", b"\xa1\xff", b"\xc0"]
JSON_TOKENS = [b'"', b"{", b"}", b"\xff", b"[" * 3000, b"null", b"1e999", b"\\ud800", b"-1"]


@fuzz(300)
@given(value=st.one_of(broken_bytes(KEPT, TOKENS), st.binary(max_size=40)))
def test_any_kept_outcome_is_an_answer_or_a_refusal(value: bytes) -> None:
    assert isinstance(_outcome(value), (Answer, RequestError))


@fuzz(100)
@given(
    broken_bytes([encode_release(sample_release("http://h/v1"))], JSON_TOKENS)
    | st.binary(max_size=40)
)
def test_any_release_is_read_or_unreadable(data: bytes) -> None:
    try:
        assert isinstance(decode_release(data), Release)
    except ReleaseError as error:
        assert error.code == "release_unreadable"


EMBED = [b'{"model":"m","input":["a","b"],"encoding_format":"base64","dimensions":3}']


@fuzz(300)
@given(broken_bytes(EMBED, JSON_TOKENS) | st.binary(max_size=40))
def test_any_embeddings_request_is_read_or_refused(body: bytes) -> None:
    try:
        _, texts = read_request(body, "m", 3)
    except RequestError as error:
        assert error.status in (400, 404)
        return
    assert all(isinstance(text, str) and text.strip() for text in texts)


MODELS = [b'{"object":"list","data":[{"id":"m","object":"model"},{"id":"n","meta":{"n":1}}]}']


@fuzz(300)
@given(broken_bytes(MODELS, JSON_TOKENS) | st.binary(max_size=40))
def test_any_list_of_models_names_the_model_or_does_not(body: bytes) -> None:
    assert names_model(body, "m") in (True, False)
    assert not names_model(body, "no such name at all")
