from __future__ import annotations

import pytest

from examples.fitness.settings import FOLDER
from examples.fitness.tools import minutes_in, run_tool
from examples.fitness.workouts import LEVELS, Workout, read_workouts, vector_text

WALK = Workout("walk", "Brisk walk", "beginner", 20, "nothing", "walk where you can talk")


@pytest.mark.parametrize(
    ("picked", "question", "ran", "says"),
    [
        ("heart_rate", "What pulse should I train at? I am 40.", "heart_rate", "108 to 126"),
        ("calories", "Calories of running 30 minutes?", "calories", "about 360 kcal"),
        ("calories", "I weigh 90 kg, kcal of an hour of swimming?", "calories", "548 kcal"),
        ("pace", "Pace for 10 km in 55 minutes?", "pace", "5:30 minutes per km"),
        ("pace", "Half marathon in 1 hour 45 minutes?", "pace", "4:59 minutes per km"),
        # A tool without its numbers, and a tool that does not exist, give way to the search.
        ("heart_rate", "Is it ok to run every day?", "search", "Brisk walk"),
        ("calories", "Which food is good?", "search", "Brisk walk"),
        ("pace", "How fast?", "search", "Brisk walk"),
        ("search", "What for my back?", "search", "Brisk walk"),
        ("rm -rf", "What for my back?", "search", "Brisk walk"),
    ],
)
def test_tools(picked: str, question: str, ran: str, says: str) -> None:
    fact = run_tool(picked, question, [WALK])
    assert fact.tool == ran
    assert says in fact.text


def test_nothing_found() -> None:
    assert run_tool("search", "?", []).text.startswith("No workout")


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("in 45 minutes", 45),
        ("2 hours", 120),
        ("an hour", 60),
        ("half an hour", 30),
        ("1 hour 45", 105),
        ("1 h 5 min", 65),
        ("soon", None),
    ],
)
def test_minutes(text: str, minutes: float | None) -> None:
    assert minutes_in(text) == minutes


def test_the_collection_is_whole() -> None:
    workouts, source = read_workouts(FOLDER / "data" / "workouts.jsonl")
    assert len(workouts) == len({w.id for w in workouts}) >= 40
    assert {w.level for w in workouts} == set(LEVELS)
    assert len(source) == 64
    for level in LEVELS:  # each wish finds something, even with little time
        allowed = LEVELS[: LEVELS.index(level) + 1]
        assert [w for w in workouts if w.level in allowed and w.minutes <= 8]


def test_vector_text() -> None:
    assert vector_text([0.1, -1, 1e-9]) == "[0.1,-1,1e-09]"
