"""Generated pages are the same for the same source, and a stale one is found."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def generate(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import generate

    return generate


def test_written_pages_are_fresh_and_a_changed_one_is_stale(
    tmp_path: Path, generate: ModuleType
) -> None:
    assert generate.write(tmp_path) == list(generate.PAGES)
    assert generate.stale(tmp_path) == []
    page = tmp_path / "docs" / "map.md"
    page.write_text(page.read_text() + "by hand")
    (tmp_path / "docs" / "errors.md").unlink()
    assert generate.stale(tmp_path) == ["docs/map.md", "docs/errors.md"]
    assert generate.write(tmp_path) == ["docs/map.md", "docs/errors.md"]


def test_the_pages_name_what_is_there(tmp_path: Path, generate: ModuleType) -> None:
    generate.write(tmp_path)
    docs = tmp_path / "docs"
    assert "### `spec`" in (docs / "map.md").read_text()
    assert "`routes.NAME.cache.semantic`" in (docs / "spec-reference.md").read_text()
    assert "| `spec_invalid` |" in (docs / "errors.md").read_text()
    assert "## `tidegate check`" in (docs / "commands.md").read_text()


def test_every_key_of_every_section_is_in_the_reference(generate: ModuleType) -> None:
    from pages import spec_reference

    from tidegate.spec.schema import schema

    page = spec_reference.page()
    for definition in schema()["$defs"].values():
        for key in definition.get("properties", ()):
            assert f"| `{key}` |" in page, key


def test_codes_are_found_with_status_message_and_cure(
    tmp_path: Path, generate: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pages import errors

    (tmp_path / "a.py").write_text(
        "raise RequestError(429, 'too_many', f'{n} is | too' ' many', cure='wait')\n"
        "raise SpecError('bad_spec', 'bad', cure=f'mend {spec.path}')\n"
        "raise ValueError('nothing')\n"
        "raise ValueError('word', 'two')\n"
        "FAULTS = {'upstream_cut': 502}\n"
        "_CURES = {'upstream_cut': 'ask again'}\n"
        "Failure('upstream_late', 'late', 504, True)\n"
        "error(cure=_CURES.get(code, 'wait'))\n"
    )
    monkeypatch.setattr(errors, "SOURCE", tmp_path)
    rows = [line for line in errors.page().splitlines() if line.startswith("| `")]
    assert rows == [
        "| `bad_spec` | SpecError | bad | mend {path} |",
        "| `too_many` | 429 | {n} is \\| too many | wait |",
        "| `upstream_cut` | 502 | ask again |",
        "| `upstream_late` | 504 | wait |",
    ]


def test_check_fails_in_words(
    generate: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["generate.py", "--check"])
    assert generate.main() == 1
    assert "stale: docs/map.md" in capsys.readouterr().err
