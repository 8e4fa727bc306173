"""Tools of the coach. The model picks one; the numbers come from the question itself, because a
model of 135 million parameters does not copy them reliably."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from examples.fitness.workouts import Workout

_MET = {  # Ainsworth et al., Compendium of Physical Activities, 2011
    "run": 9.8,
    "jog": 7.0,
    "walk": 4.3,
    "cycl": 7.5,
    "bike": 7.5,
    "swim": 5.8,
    "row": 7.0,
    "yoga": 2.5,
    "squat": 5.0,
    "strength": 5.0,
    "lift": 5.0,
}
_RACES = {"half marathon": 21.1, "marathon": 42.2}
_USUAL_KG = 70


class Fact(NamedTuple):
    """What a tool found out: the tool that really ran, and a sentence."""

    tool: str
    text: str


def run_tool(picked: str, question: str, found: Sequence[Workout]) -> Fact:
    """The picked tool's answer; ``search`` when the question lacks the numbers that it needs."""
    text = TOOLS.get(picked, _nothing)(question.lower())
    if text is not None:
        return Fact(picked, text)
    if not found:
        return Fact("search", "No workout in the collection fits this question.")
    return Fact("search", f"A workout that fits is {found[0].sentence()}.")


def heart_rate(question: str) -> str | None:
    """Zones from the highest rate, 208 - 0.7 * age (Tanaka et al., 2001)."""
    age = next((int(n) for n in re.findall(r"\b(\d{2})\b", question) if 10 <= int(n) <= 95), None)
    if age is None:
        return None
    top = 208 - 0.7 * age
    return (
        f"At age {age}, easy training is at {top * 0.6:.0f} to {top * 0.7:.0f} beats a minute "
        f"and hard training at {top * 0.8:.0f} to {top * 0.9:.0f}."
    )


def calories(question: str) -> str | None:
    """kcal = MET * 3.5 * kg / 200 * minutes (American College of Sports Medicine)."""
    activity = next((word for word in _MET if word in question), None)
    minutes = minutes_in(question)
    if activity is None or minutes is None:
        return None
    weight = _number(r"(\d{2,3})\s*(?:kg|kilo)", question) or _USUAL_KG
    kcal = _MET[activity] * 3.5 * weight / 200 * minutes
    doing = next(word for word in re.findall(r"[a-z]+", question) if activity in word)
    effort = f"{minutes:.0f} minutes of {doing}"
    return f"{effort} burn about {kcal:.0f} kcal for a person of {weight:.0f} kg."


def pace(question: str) -> str | None:
    """Minutes a kilometre for a distance and a time."""
    usual = next((km for name, km in _RACES.items() if name in question), None)
    distance = _number(r"(\d+(?:\.\d+)?)\s*k(?:m|ilomet)?", question) or usual
    minutes = minutes_in(question)
    if not distance or minutes is None:
        return None
    whole, seconds = divmod(round(minutes * 60 / distance), 60)
    race = f"{distance:g} km in {minutes:.0f} minutes"
    return f"{race} is a pace of {whole}:{seconds:02d} minutes per km."


def minutes_in(question: str) -> float | None:
    """``45 minutes``, ``2 hours``, ``an hour``, ``1 hour 45``, ``half an hour``."""
    if "half an hour" in question:
        return 30
    hours = _number(r"(\d+(?:\.\d+)?)\s*h(?:our|\b)", question)
    if hours is None and re.search(r"\ban hour\b", question):
        hours = 1
    rest = _number(r"(\d+)\s*min", question) or _number(r"hours?\s*(?:and\s*)?(\d+)", question)
    return None if hours is None and rest is None else (hours or 0) * 60 + (rest or 0)


def _number(pattern: str, question: str) -> float | None:
    match = re.search(pattern, question)
    return float(match.group(1)) if match else None


def _nothing(question: str) -> None:
    return None


TOOLS: dict[str, Callable[[str], str | None]] = {
    "heart_rate": heart_rate,
    "calories": calories,
    "pace": pace,
}
