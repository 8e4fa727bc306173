"""The rules of the house find what they are for, in small packages made for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))


def package(tmp_path: Path, **files: str) -> Any:
    """A package ``app`` with one file for each argument: ``kitchen__oven`` is kitchen/oven.py."""
    from house.source import Source

    folder = tmp_path / "app"
    for name, text in {"__init__": "", **files}.items():
        path = folder.joinpath(*name.split("__", 1)) if name != "__init__" else folder / name
        path = path.with_name(
            "__init__.py" if path.name in ("face", "__init__") else f"{path.name}.py"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Source(folder)


def test_a_public_name_that_two_modules_define_is_named_with_both_places(tmp_path: Path) -> None:
    from house import names

    source = package(
        tmp_path,
        kitchen__oven="class Porch: ...\nclass _Rack: ...\nTABLE = 1\n",
        hall__entry="import typing\nif typing.TYPE_CHECKING:\n    class Porch: ...\n",
        hall__types="Visitor = int | str\n",
        kitchen__types="Visitor: object = str\nclass _Rack: ...\nTABLE = 2\n",
    )
    porch, visitor = names.problems(source, known={})
    assert "class Porch is defined in hall/entry.py:3 and kitchen/oven.py:1" in porch
    assert "class Visitor is defined in hall/types.py:1 and kitchen/types.py:1" in visitor
    assert names.problems(source, known={"Porch": "two", "Visitor": "of each room"}) == []
    (stale,) = names.problems(source, known={"Porch": "", "Visitor": "", "Window": "gone"})
    assert "Window is defined once now" in stale


def test_an_import_from_inside_another_room_is_named_with_how_to_write_it(tmp_path: Path) -> None:
    from house import faces

    source = package(
        tmp_path,
        kitchen__face='from app.kitchen.oven import Oven\n__all__ = ["Oven"]\n',
        kitchen__oven="class Oven: ...\ndef bake() -> None: ...\n",
        hall__face="__all__: list[str] = []\n",
        hall__entry="from app.kitchen import Oven\n",
        hall__late="def f():\n    from app.kitchen.oven import bake\n    import app.kitchen.oven\n",
        hall__wrong="from app.kitchen import oven\n",
    )
    late, module, wrong = sorted(faces.problems(source, reasons={}))
    assert late == (
        "hall/late.py:2: app.kitchen.oven is inside another room: "
        "write from app.kitchen import bake"
    )
    assert module.startswith("hall/late.py:3: ")
    assert wrong.startswith("hall/wrong.py:1: oven is not in __all__ of app.kitchen")
    reasons = {
        ("app.hall.late", "app.kitchen.oven"): "costly",
        ("app.hall.wrong", "app.kitchen"): "a module",
    }
    assert faces.problems(source, reasons=reasons) == []
    (stale,) = faces.problems(source, reasons=reasons | {("app.hall", "app.attic"): ""})
    assert "app.hall no longer imports app.attic" in stale


def test_a_room_whose_names_are_used_needs_a_face(tmp_path: Path) -> None:
    from house import faces

    source = package(
        tmp_path,
        kitchen__face="",
        kitchen__oven="A = 1\n",
        hall__a="from app.kitchen.oven import A\n",
    )
    found = faces.problems(source, reasons={})
    assert any("kitchen/__init__.py has no __all__" in one for one in found)


LAZY = """
from typing import TYPE_CHECKING
from app.base import lazy
if TYPE_CHECKING:
    from app.kitchen.oven import Oven, bake
    from app.kitchen.stove import stove
else:
    __getattr__ = lazy(__name__, {"oven": ("Oven", "roast"), "stove": ("stove",)})
__all__ = ["Oven", "bake", "stove", "nothing"]
"""


def test_lazy_names_are_those_that_the_type_checker_sees(tmp_path: Path) -> None:
    from house import faces

    source = package(tmp_path, kitchen__face=LAZY, kitchen__oven="", kitchen__stove="")
    bake, roast, stove, nothing = faces.lazy_problems(source)
    assert "bake is named only under TYPE_CHECKING" in bake
    assert "roast is named only for lazy()" in roast
    assert "stove is loaded lazily and is also a module" in stove
    assert "__all__ names nothing, which is not there" in nothing


def test_an_import_of_a_test_that_a_rename_has_forgotten_is_named(tmp_path: Path) -> None:
    from house import users
    from house.source import Source

    package(
        tmp_path,
        kitchen__face="",
        kitchen__oven="if 1:\n    class Oven: ...\nA, B = 1, 2\nfrom os import path as p\n",
    )
    test = tmp_path / "tests" / "test_kitchen.py"
    test.parent.mkdir()
    test.write_text(
        "from app.kitchen import oven\n"
        "from app.kitchen.oven import A, B, Oven, p\n"
        "def f():\n    from app.kitchen.oven import Stove\n"
        "from app.cellar import barrel\n"
    )
    assert users.problems(Source(tmp_path / "app", tmp_path)) == [
        "tests/test_kitchen.py:5: there is no module app.cellar",
        "tests/test_kitchen.py:4: app.kitchen.oven has no Stove: was it renamed?",
    ]


PLAN_OF_FLOORS = '''"""An app.

    1  hall, kitchen      where people are
    0  cellar             below
"""
'''


def test_the_floor_plan_of_the_package_is_the_one_that_is_held(tmp_path: Path) -> None:
    from house import floors
    from house.source import Source

    project = '[[tool.importlinter.contracts]]\nlayers = ["hall | kitchen", "{}"]\n'
    (tmp_path / "pyproject.toml").write_text(project.format("cellar"))
    folder = package(tmp_path).folder
    (folder / "__init__.py").write_text(PLAN_OF_FLOORS)
    assert floors.problems(Source(folder, tmp_path)) == []
    (tmp_path / "pyproject.toml").write_text(project.format("cellar | well"))
    missing, wrong = floors.problems(Source(folder, tmp_path))
    assert "floor 0 is cellar | well in pyproject.toml" in missing
    assert "shows cellar on floor 0, where they are not" in wrong


def test_any_on_the_path_of_a_request_is_named_by_line(tmp_path: Path) -> None:
    from house import anys

    source = package(
        tmp_path,
        gateway__path="from typing import Any\n\ndef plan(call: Any) -> None: ...\n",
        gateway__ports="import typing\n\nx: dict[str, typing.Any] = {}\n",
        ledger__row="from typing import Any\n\nrow: Any = 1\n",
    )
    reasons = {"gateway/ports.py": "clients' JSON", "gateway/wire/": "nobody's"}
    path, stale = anys.problems(source, reasons)
    assert path.startswith("gateway/path.py:3: Any hides")
    assert stale.startswith("gateway/wire/ uses no Any any more")


STAGE = """
from typing import Any
from app.gateway.values import Plan

def typed(plan: Plan) -> int:
    route = plan.route
    return route.ttl + plan.route.timeouts.total

def untyped(plan: Any) -> int:
    return plan.route.ttl
"""
PLAN = """
class Timeouts:
    total = 1
class Route:
    ttl = 1
    timeouts = Timeouts()
class Plan:
    route = Route()
"""


def test_a_misspelt_field_that_the_type_checker_does_not_see_is_named(tmp_path: Path) -> None:
    from house import misspelt
    from house.source import Source

    source = package(tmp_path, gateway__values=PLAN, gateway__stage=STAGE)
    source = Source(source.folder, tmp_path)
    (stage,) = (one for one in source.modules if one.path == "gateway/stage.py")
    tried = [one.written for one in misspelt.misspellings(stage.path, stage.tree)]
    assert sorted(tried) == ["rotue", "tlt", "tlt", "toatl"]
    (found,) = misspelt.problems(source)
    assert found.startswith("gateway/stage.py:10: 'tlt' for 'ttl' passes the type checker")


def test_a_module_that_is_loaded_at_start_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from house import start

    monkeypatch.setattr(start, "LIGHT", {"tidegate.base": ("msgspec", "numpy")})
    (found,) = start.problems()
    assert found.startswith("import tidegate.base loads msgspec")
    monkeypatch.setattr(start, "LIGHT", {"tidegate.nothing": ("numpy",)})
    (found,) = start.problems()
    assert "import tidegate.nothing fails: ModuleNotFoundError" in found


def test_all_names_of_the_faces_are_there() -> None:
    """Lazy ones too: each is loaded here once."""
    import importlib

    from house.source import ROOT, Source

    source = Source(ROOT / "src" / "tidegate")
    for room in sorted(source.rooms):
        face = importlib.import_module(f"tidegate.{room}")
        for name in getattr(face, "__all__", ()):
            if source.has_module(f"tidegate.{room}.{name}") and not hasattr(face, name):
                importlib.import_module(f"tidegate.{room}.{name}")
            assert getattr(face, name) is not None, f"{room}.{name}"
            assert name in vars(face), "the second access is a plain one"


GLOSSARY = """# Glossary

| word | meaning | lives in | is not |
|---|---|---|---|
| bread | What is baked. | `kitchen.oven` | cake |
| Cake | What is baked. With sugar. | `kitchen.shelf` |  |
| cake | What is sweet. | the kitchen | |
| apple | A fruit. | `kitchen` | |
| a row that is none |
"""


def test_the_glossary_has_one_row_a_word_and_names_what_is_there(tmp_path: Path) -> None:
    from house import words

    page = tmp_path / "glossary.md"
    page.write_text(GLOSSARY)
    card = "Bake.\n\nHolds:    it.\nWords:    bread, sour\n          dough, Apple\n"
    source = package(tmp_path, kitchen__face=f'"""{card}"""\n', kitchen__oven="")
    assert [one.removeprefix("docs/glossary.md: ") for one in words.problems(source, page)] == [
        "the meaning of 'Cake' is not one sentence with a full stop",
        "'Cake' lives in kitchen.shelf, which is no module",
        "'cake' names no module that it lives in",
        "not a row of word, meaning, where it lives, what it is not: | a row that is none |",
        "'cake' stands twice: one word has one meaning",
        "'apple' stands after 'cake': sort the rows",
        "kitchen/__init__.py: its card uses the word 'sour dough', which is not in "
        "docs/glossary.md: add a row, or use the field's word that is there",
    ]


def test_a_retired_word_is_named_wherever_it_stands(tmp_path: Path) -> None:
    from house import words

    page = tmp_path / "glossary.md"
    page.write_text("")
    text = "# lent out\ndef borrow_all(calendar): ...\nlatest_loan = 'silent wishes'\n"
    source = package(tmp_path, kitchen__oven=text)
    found = [one.removeprefix("kitchen/oven.py:") for one in words.problems(source, page)]
    assert found == [
        "1: 'lent' is a retired word: write grant",
        "2: 'borrow' is a retired word: write reserve",
        "3: 'loan' is a retired word: write reservation",
        "3: 'wishes' is a retired word: write reservation, or what is asked for",
    ]


def test_each_room_has_a_card_with_words() -> None:
    from house import words
    from house.source import ROOT, Source

    source = Source(ROOT / "src" / "tidegate")
    assert [room for room in source.rooms if not words.card_words(source, room)] == []
