"""Limits in the spec: one unit, a time, and something to count."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.spec.apps import SOUND, app, mistakes, only
from tidegate.release.files import AppFiles
from tidegate.spec import build_release, load

UNPRICED = SOUND.replace("price: {input: 1, output: 2.5}", "price: {input: 1}")


def limited(folder: Path, text: str, spec: str = SOUND) -> Path:
    return app(folder, f"{spec}limits:\n  one: {text}\n")


@pytest.mark.parametrize(
    ("text", "path", "message", "nearest"),
    [
        ("{every: day}", "", "nothing is limited", None),
        ("{every: day, tokens: 1, requests: 2}", "", "at once", None),
        ("{requests: 5}", "", "every", None),
        ("{requests: 5, every: dya}", "every", "is no time", None),
        ("{requests: 5, every: 10ms}", "every", "out of range", None),
        ("{requests: 0, every: 1m}", "requests", "0", None),
        ("{requests: 5, every: day, burst: 2}", "burst", "has no burst", None),
        ("{requests: 5, every: 1m, burst: 0.5}", "burst", "burst of 0.5", None),
        ("{requests: 5, every: 1m, per: keys}", "per", "keys", "key"),
        ("{requests: 5, every: 1m, on_outage: shut}", "on_outage", "shut", None),
        (
            "{requests: 5, every: 1m, match: {route: recomend}}",
            "match.route",
            "no route",
            "recommend",
        ),
        ("{requests: 5, every: 1m, match: {model: smal}}", "match.model", "no model", "small"),
        (
            "{requests: 5, every: 1m, match: {route: embed, model: small}}",
            "match.model",
            "no request that this limit counts",
            None,
        ),
    ],
)
def test_a_limit_that_is_wrong_or_counts_nothing_is_a_mistake(
    tmp_path: Path, text: str, path: str, message: str, nearest: str | None
) -> None:
    mistake = only(mistakes(limited(tmp_path, text)))
    assert mistake.path == f"limits.one.{path}".rstrip(".")
    assert message in mistake.message
    assert mistake.nearest == nearest


def test_who_has_no_key_has_no_limit_per_key(tmp_path: Path) -> None:
    off = SOUND + "gateway: {keys: off}\n"
    off = off.replace("keys: off", 'keys: "off"')
    mistake = only(mistakes(limited(tmp_path, "{requests: 5, every: 1m, per: tenant}", off)))
    assert "no request has a tenant" in mistake.message


def test_dollars_are_not_counted_of_a_model_without_a_price(tmp_path: Path) -> None:
    mistake = only(mistakes(limited(tmp_path, "{dollars: 5, every: day}", UNPRICED)))
    assert "output price of model large is unknown" in mistake.message
    assert mistakes(limited(tmp_path, "{tokens: 5, every: day}", UNPRICED)) == ()


def test_what_is_left_out_is_filled_in_the_release(tmp_path: Path) -> None:
    folder = app(
        tmp_path,
        SOUND
        + """limits:
  spend: {per: tenant, dollars: 50, every: day}
  rate:
    {per: key, match: {route: recommend, model: [large, small]}, requests: 60, every: 1m, burst: 10}
""",
    )
    release = build_release(load(folder, {}).spec, AppFiles(folder))
    spend, rate = release.limits["spend"], release.limits["rate"]
    assert (spend.unit, spend.amount, spend.calendar, spend.every) == ("dollars", 50, "day", None)
    assert (spend.on_outage, rate.on_outage) == ("closed", "open")
    assert (rate.every, rate.burst, rate.calendar) == (60.0, 10, None)
    assert (rate.routes, rate.models) == (("recommend",), ("large", "small"))
