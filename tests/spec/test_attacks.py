"""Whatever the bytes are: a spec, or a SpecError with a place; no traceback, no hang."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.spec.apps import SOUND, app, mistakes, only
from tidegate.spec import load

CHAIN = "\n".join(
    ["a0: &a0 [x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9))]
)
DEEP_CHAIN = "\n".join(
    ["a0: &a0 [x]", *(f"a{n}: &a{n} {'[' * 20}*a{n - 1}{']' * 20}" for n in range(1, 400))]
)

ATTACKS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "only comments": (b"# nothing\n", "is empty"),
    "null": (b"null\n", "holds no mapping"),
    "list at the top": (b"- app: x\n", "holds no mapping"),
    "text at the top": (b"hello\n", "holds no mapping"),
    "not UTF-8": (b"app: \xff\xfe\n", "not UTF-8"),
    "UTF-16": ("app: x\n".encode("utf-16"), "not UTF-8"),
    "NUL": (b"app: a\0b\n", "control character (U+0000)"),
    "escape": (b"app: a\x1bb\n", "control character (U+001B)"),
    "tab": (b"models:\n\tsmall: {}\n", "indented with a tab"),
    "open bracket": (b"app: [x\n", "not valid YAML"),
    "open quote": (b'app: "x\n', "not valid YAML"),
    "wrong indent": (b"app: x\n  models: {}\n", "not valid YAML"),
    "huge": (b"#" * (2 << 20), "larger than 1 MiB"),
    "deep flow": (b"app: " + b"[" * 200_000, "nested deeper"),
    "deep map": (b"{a: " * 50_000, "nested deeper"),
    "deep block": (b"".join(b" " * n + b"a:\n" for n in range(500)), "nested deeper"),
    "deep in a key": (b"? " * 5000 + b"x", "nested deeper"),
    "many values": (b"app: [" + b"x," * 30_000 + b"x]", "more than 20000 values"),
    "billion laughs": (CHAIN.encode(), "more than 20000 values"),
    "deep aliases": (DEEP_CHAIN.encode(), "nested deeper"),
    "alias to itself": (b"app: &a [*a]\n", "inside its own anchor"),
    "alias to nothing": (b"app: *a\n", "anchor"),
    "second document": (b"app: x\n---\napp: y\n", "second document"),
    "directive": (b"%YAML 9.9\n---\napp: x\n", "YAML"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_more_can_be_said(tmp_path: Path, name: str) -> None:
    data, message = ATTACKS[name]
    start = time.process_time()  # of this process alone: other work on the machine costs nothing
    mistake = only(mistakes(app(tmp_path, data)))
    assert message in mistake.message
    assert mistake.line >= 1
    assert mistake.column >= 1
    assert time.process_time() - start < 10


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("app: x\napp: y\n", "key app stands twice; first in line 1"),
        ("app: x\n1: y\n", "key 1 is not text"),
        ("app: x\ntrue: y\n", "key true is not text"),
        ("app: x\n? [a]\n: y\n", "a key is a list"),
        ("app: x\n<<: {a: b}\n", "merge keys"),
        ("app: !!python/object:os.system x\n", "tag tag:yaml.org,2002:python/object:os.system"),
        ("app: x\nmodels: !custom {}\n", "tag !custom"),
        ("app: x\ngateway: {direct_models: !!bool maybe}\n", "not of its tag's type"),
        ("app: x\ninclude: tidegate.yaml\n", "in a circle"),
        ("app: x\nmodels: 5\n", "number 5"),
        ("app: x\nmodels: {a: 99999999999999999999999}\n", "mapping"),
        ("app: x\nunknown: 2020-01-01\n", "unknown key"),
    ],
)
def test_one_thing_is_refused(tmp_path: Path, text: str, message: str) -> None:
    assert any(
        message in m.message or message in (m.expected or "") for m in mistakes(app(tmp_path, text))
    )


def test_a_byte_order_mark_and_windows_lines_are_fine(tmp_path: Path) -> None:
    text = b"\xef\xbb\xbf" + SOUND.replace("\n", "\r\n").encode()
    assert load(app(tmp_path, text), {}).spec.app == "coach"


def test_words_that_other_readers_take_for_booleans_stay_text(tmp_path: Path) -> None:
    spec = "app: no\njourneys: {on: {}, off: {}, '404': {}}\ngateway: {keys: off}\n"
    loaded = load(app(tmp_path, spec), {}).spec
    assert (loaded.app, set(loaded.journeys)) == ("no", {"on", "off", "404"})
    assert loaded.gateway.keys == "off"


def test_a_pipe_in_place_of_a_file_does_not_hang(tmp_path: Path) -> None:
    app(tmp_path, **{"prompts/plan.md": None})
    (tmp_path / "prompts").mkdir()
    os.mkfifo(tmp_path / "prompts" / "plan.md")
    assert "not a regular file" in only(mistakes(tmp_path)).message


def test_a_spec_that_is_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "tidegate.yaml")
    assert "not a regular file" in only(mistakes(tmp_path)).message


def test_a_link_does_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("{{ goal }}")
    folder = app(tmp_path / "app", **{"prompts/plan.md": None})
    (folder / "prompts").mkdir()
    (folder / "prompts" / "plan.md").symlink_to(tmp_path / "secret")
    assert "leads out of the app folder" in only(mistakes(folder)).message


WORDS = st.sampled_from(
    [
        *("app", "models", "routes", "prompts", "inputs", "include", "fallback", "cache", "file"),
        *(
            "&a",
            "*a",
            "<<",
            "!!int",
            "!x",
            "-",
            "- ",
            ": ",
            "? ",
            "{",
            "}",
            "[",
            "]",
            ",",
            "|",
            ">",
        ),
        *("\n", "\n  ", "\t", "'", '"', "#", "%", "---", "...", "~", "1", "on", "5%", "1h"),
        *("${X}", "${", "${X:-y}", "$$", "small", "prompts/plan.md", "\u2028", "\ufeff", "é"),
    ]
)


@given(text=st.lists(WORDS, max_size=40).map("".join) | st.text(max_size=60))
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_text_loads_or_is_refused_with_places(tmp_path: Path, text: str) -> None:
    app(tmp_path, text.encode("utf-8", "surrogatepass"))
    for mistake in mistakes(tmp_path, X="z"):
        assert mistake.line >= 1
        assert mistake.column >= 1
        assert mistake.message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | WORDS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=8) | WORDS, inner, max_size=3)
    ),
    max_leaves=8,
)
PATHS = st.lists(st.integers(0, 8), max_size=5)


@given(value=JSON, path=PATHS)
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_value_in_any_place_loads_or_is_refused(
    tmp_path: Path, value: object, path: list[int]
) -> None:
    """Puts a value somewhere into the sound spec, so that every rule meets broken neighbours."""
    tree = yaml.safe_load(SOUND)
    holder = tree
    for step in path:
        keys = list(holder)
        child = holder[keys[step % len(keys)]]
        if not isinstance(child, dict) or not child:
            break
        holder = child
    holder[list(holder)[sum(path) % len(holder)]] = value
    app(tmp_path, yaml.safe_dump(tree, allow_unicode=False))
    for mistake in mistakes(tmp_path):
        assert mistake.path or mistake.message
        assert mistake.line <= len((tmp_path / "tidegate.yaml").read_text().splitlines())


LARGE = {
    "unknown models": "models:\n"
    + "".join(f"  model-{n}: {{provider: local}}\n" for n in range(2000))
    + "routes:\n"
    + "".join(f"  r{n}: {{models: modal-{n}}}\n" for n in range(2000)),
    "a long chain": "environments:\n"
    + "".join(f"  e{n}: {{from: e{n + 1}}}\n" for n in range(4000)),
    "a long circle": "environments:\n"
    + "".join(f"  e{n}: {{from: e{(n + 1) % 4000}}}\n" for n in range(4000)),
}


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.timeout(30)
def test_a_large_spec_full_of_mistakes_takes_seconds(tmp_path: Path, name: str) -> None:
    assert mistakes(app(tmp_path, f"app: x\n{LARGE[name]}"))
