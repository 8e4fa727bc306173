"""The drawn tree of errors is the tree of classes; each error says its cure."""

from __future__ import annotations

import inspect
import re

from tidegate.base import errors
from tidegate.base.errors import RequestError, SpecError, TidegateError


def test_the_drawing_is_the_classes() -> None:
    lines = re.findall(r"[├└]── (\w+) .*?(?:exit (\d)|HTTP status)$", errors.__doc__ or "", re.M)
    drawn = {name: int(code) if code else 1 for name, code in lines}
    classes = {
        name: one.exit
        for name, one in vars(errors).items()
        if inspect.isclass(one) and issubclass(one, TidegateError) and one is not TidegateError
    }
    assert drawn == classes
    assert all(getattr(errors, name).__base__ is TidegateError for name in drawn)
    assert (errors.__doc__ or "").split("\n")[2].strip() == "TidegateError"


def test_an_error_shows_its_code_and_cure_as_json() -> None:
    error = TidegateError("some_code", "what was wrong", cure="mend it")
    assert error.to_json() == {
        "code": "some_code", "message": "what was wrong", "cure": "mend it",
    }  # fmt: skip
    assert "mend it" in str(error)
    assert SpecError("x", "y", cure="z").to_json()["mistakes"] == ()


def test_a_request_error_has_a_status() -> None:
    error = RequestError(404, "route_unknown", "no route", cure="name one", param="model")
    assert (error.status, error.param) == (404, "model")
