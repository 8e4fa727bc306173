"""A secret shows its name; its keys come out of ``reveal()`` alone."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import pprint
import traceback
from collections.abc import Callable

import msgspec
import pytest
import rich.pretty

from tidegate.secrets import Secret

KEY = "sk-very-hidden-0123456789"
SECRET = Secret("large", [KEY, "sk-second"])


def test_reveal_gives_every_key() -> None:
    assert SECRET.reveal() == (KEY, "sk-second")
    assert len(SECRET) == 2


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        "{}".format,
        "{:>60}".format,
        "{!r}".format,
        lambda s: f"{s=}",
        lambda s: "%s %r" % (s, s),  # noqa: UP031
        pprint.pformat,
        rich.pretty.pretty_repr,
        lambda s: repr([s, {"k": s}]),
        lambda s: repr([getattr(s, n) for n in dir(s)]),
        lambda s: json.dumps({"key": s}, default=str),
        lambda s: json.dumps({"key": s}, default=repr),
    ],
)
def test_no_way_of_printing_shows_a_key(show: Callable[[Secret], str]) -> None:
    assert "sk-" not in show(SECRET)


@pytest.mark.parametrize(
    "encode", [json.dumps, msgspec.json.encode, msgspec.to_builtins, pickle.dumps, vars]
)
def test_no_encoder_takes_it(encode: Callable[[object], object]) -> None:
    with pytest.raises(TypeError) as raised:
        encode(SECRET)
    assert "sk-" not in str(raised.value)


def test_logs_and_tracebacks_with_locals_do_not_show_it(caplog: pytest.LogCaptureFixture) -> None:
    def fails(secret: Secret) -> None:
        raise ValueError(f"refused with {secret}")

    try:
        fails(SECRET)
    except ValueError as error:
        logging.getLogger("t").error("call with %s failed", SECRET, exc_info=error)
        full = "".join(
            traceback.TracebackException.from_exception(error, capture_locals=True).format()
        )
    assert "secret large" in caplog.text
    assert "sk-" not in caplog.text
    assert "secret = <secret large: 2 keys>" in full


def test_a_copy_is_the_secret_itself() -> None:
    assert copy.copy(SECRET) is SECRET
    assert copy.deepcopy({"k": SECRET})["k"] is SECRET


def test_equality_is_of_name_and_keys() -> None:
    assert Secret("large", [KEY, "sk-second"]) == SECRET
    assert Secret("large", [KEY]) != SECRET
    assert Secret("small", [KEY, "sk-second"]) != SECRET
    assert SECRET != KEY
