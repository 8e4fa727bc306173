"""Every request ends in one place: first its receipt, then the last bytes, once."""

from __future__ import annotations

from typing import Any

import pytest

from tests.gateway.calls import CHAT, new_journal, plans_of, targets_of
from tests.gateway.releases import sample_release
from tidegate.base import RequestError
from tidegate.gateway.finish import finish, left, refused
from tidegate.gateway.journal import Journal
from tidegate.gateway.plan import LoadedRelease
from tidegate.gateway.values import Ending, Steering

RELEASE = sample_release("http://127.0.0.1:9/v1")
PLANS = plans_of(RELEASE)
NO = RequestError(503, "upstream_error", "no", cure="retry", retry_after="7")


class Witness:
    """A worker's state and a client's connection that write down what is done, in order."""

    def __init__(self, *, begun: bool = False, gone: bool = False, broken: bool = False) -> None:
        self.begun, self.gone = begun, gone
        self.broken = broken
        self.done: list[Any] = []

    @property
    def recorder(self) -> Witness:
        return self

    @property
    def releases(self) -> Witness:
        return self

    def record(self, journal: Journal, ending: Ending, now: int) -> None:
        self.done.append(("receipt", ending.outcome, [one.code for one in journal.attempts]))
        if self.broken:
            raise OSError("a bug")

    def leave(self, release: LoadedRelease) -> None:
        self.done.append("left")

    def headers(self, journal: Journal, stored_at: float | None = None) -> list[tuple[str, str]]:
        return [("x-request-id", journal.id)]

    def whole(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.done.append(("whole", status, dict(headers).get("retry-after"), body))

    def end(self, body: bytes) -> None:
        self.done.append(("end", body))


def ended(witness: Witness, ending: Ending, journal: Journal | None = None) -> list[Any]:
    journal = journal or new_journal()
    journal.steering = Steering(
        LoadedRelease("sha256:0", PLANS, targets_of(RELEASE)), PLANS["plain"]
    )
    finish(witness, journal, ending, witness)  # type: ignore[arg-type]
    finish(witness, journal, ending, witness)  # type: ignore[arg-type]
    return witness.done


def test_the_receipt_comes_before_the_last_bytes_and_both_once() -> None:
    served = Ending(status=200, outcome="served", body=b"{}")
    assert ended(Witness(), served) == [
        ("receipt", "served", []),
        "left",
        ("whole", 200, None, b"{}"),
    ]
    stream = Ending(status=200, outcome="served", body=b"data: [DONE]\n\n")
    assert ended(Witness(begun=True), stream)[-1] == ("end", b"data: [DONE]\n\n")


def test_a_refusal_says_when_to_come_back() -> None:
    journal = new_journal()
    done = ended(Witness(), refused(journal, CHAT, NO, begun=False), journal)
    assert done[-1][:3] == ("whole", 503, "7")
    assert done[0] == ("receipt", "refused", [])


def test_after_a_stream_has_begun_an_error_is_told_in_band() -> None:
    journal = new_journal()
    journal.begin("small")
    done = ended(Witness(begun=True), refused(journal, CHAT, NO, begun=True), journal)
    assert done[0] == ("receipt", "failed", ["upstream_error"]), "what was open is closed"
    assert done[-1] == ("end", CHAT.error_event(NO))


def test_nobody_is_told_when_nobody_is_there() -> None:
    journal = new_journal()
    journal.begin("small")
    assert ended(Witness(gone=True), left(begun=False), journal) == [
        ("receipt", "client_gone", ["client_gone"]),
        "left",
    ]


def test_a_release_is_given_back_whatever_happens_to_the_receipt() -> None:
    witness = Witness(broken=True)
    with pytest.raises(OSError, match="a bug"):
        ended(witness, Ending(status=200, outcome="served"))
    assert witness.done[-1] == "left"
