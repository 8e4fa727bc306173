"""Loading: ``tidegate.yaml`` to a typed spec, or every mistake in it at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tidegate.base import UsageError
from tidegate.spec import contents, notices, plugins, rules, unbuilt
from tidegate.spec.files import SpecFiles, read_files
from tidegate.spec.include import SECTIONS, Reading, read_tree
from tidegate.spec.mistakes import Finding, Mistake, Notice, dotted, spec_invalid
from tidegate.spec.mistakes import Path as SpecPath
from tidegate.spec.places import Places, to_plain
from tidegate.spec.schema import text_at
from tidegate.spec.types import Spec
from tidegate.spec.validate import check_types, sound_part

FILE = "tidegate.yaml"


@dataclass(frozen=True, slots=True)
class LoadedSpec:
    """A spec without mistakes."""

    spec: Spec
    notices: tuple[Notice, ...]
    sources: tuple[str, ...]
    """Spec files read, relative to ``folder``: ``tidegate.yaml`` first, then what it includes."""
    folder: Path
    """The app folder, absolute. Every path in the spec is relative to it."""
    files: Mapping[str, bytes]
    """Bytes of the prompts, templates and schemas that the spec names, by path; data sets and
    model files are not read."""


def locate(app: str | Path) -> Path:
    """The spec file of ``app``, a folder that holds ``tidegate.yaml`` or the file itself. Raises
    UsageError ``no_app``."""
    path = Path(app)
    try:
        file = path / FILE if path.is_dir() else path
        if file.exists() and not file.is_dir():
            return file
    except (OSError, ValueError):
        pass
    raise UsageError(
        "no_app",
        f"there is no app in {app}",
        cure=f"name a folder that holds {FILE}, or start one: tidegate init FOLDER",
    )


def load(path: str | Path, environment: Mapping[str, str]) -> LoadedSpec:
    """Load the spec at ``path`` (file or folder) with the variables of ``environment``.

    Raises SpecError ``spec_invalid`` whose ``mistakes`` are all that were found, in the order of
    their places; UsageError ``no_app`` when there is no file.
    """
    file = locate(path)
    reading = Reading(folder=file.parent.resolve(), shown=file.parent, environment=environment)
    top = read_tree(reading, file.name)
    if top is None or reading.incomplete:
        raise spec_invalid(str(file), reading.mistakes)
    plain, places = to_plain(top, environment, text_at)
    if reading.includes:
        plain["include"] = list(reading.includes)
    here = plugins.installed()
    spec, files, found = _check(reading.folder, plain, places, here)
    locator = _Locator(reading, places, files)
    mistakes = [*reading.mistakes, *(locator.mistake(one) for one in found)]
    if mistakes or spec is None:
        raise spec_invalid(str(file), _in_order(mistakes, reading))
    noticed = [
        *places.notices,
        *unbuilt.notices(plain),
        *plugins.unknown_providers(spec, here),
        # Mistakes, but for an experimental spec (see _unbuilt).
        *plugins.unknown_checks(spec, here),
        *notices.asked_twice(spec),
        *notices.unknown_prices(spec),
    ]
    return LoadedSpec(
        spec=spec,
        notices=tuple(
            sorted(map(locator.notice, noticed), key=lambda n: (n.file, n.line, n.column))
        ),
        sources=tuple(reading.sources),
        folder=reading.folder,
        files=files.bytes_of,
    )


def _check(
    folder: Path, plain: dict[str, object], places: Places, here: plugins.Installed
) -> tuple[Spec | None, SpecFiles, list[Finding]]:
    """The valid part of the spec, the files that it names, and every finding."""
    found = list(places.mistakes)
    wrong = {finding.path for finding in found}
    found += [one for one in check_types(plain, places.authored) if one.path not in wrong]
    wrong |= {finding.path for finding in found}
    spec = sound_part(plain, wrong)
    if spec is None:
        return None, SpecFiles({}, {}), found
    files = read_files(folder, spec)
    names = {section: _names(plain, section) for section in SECTIONS}
    found += _unrelated(rules.findings(spec, names), wrong)
    found += _unrelated(rules.missing_files(spec, files), wrong)
    found += _unrelated(contents.findings(spec, files), wrong)
    found += _unbuilt(spec, plain, here, wrong | {finding.path for finding in found})
    return spec, files, found


def _unbuilt(
    spec: Spec, plain: dict[str, object], here: plugins.Installed, wrong: set[SpecPath]
) -> list[Finding]:
    """Keys and names that protect nobody yet, where nothing else is wrong with them."""
    keys = unbuilt.mistakes(plain, experimental=spec.experimental)
    found = [one for one in keys if one.path not in wrong]
    wrong |= {one.path for one in found}
    # An experimental spec may be ahead of what is built, but hardly means what it nearly names.
    names = _unrelated(plugins.unknown_checks(spec, here), wrong)
    return found + [one for one in names if one.nearest or not spec.experimental]


def _names(plain: dict[str, object], section: str) -> frozenset[str]:
    entries = plain.get(section)
    return frozenset(entries) if isinstance(entries, dict) else frozenset()


def _unrelated(findings: Iterable[Finding], wrong: set[SpecPath]) -> Iterator[Finding]:
    """Findings without those that only follow from a mistake at, above or below their place."""
    for finding in findings:
        path = finding.path
        if not any(path[: len(w)] == w[: len(path)] for w in wrong if w):
            yield finding


def _in_order(mistakes: list[Mistake], reading: Reading) -> list[Mistake]:
    order = {reading.name(path): at for at, path in enumerate(reading.sources)}
    return sorted(mistakes, key=lambda m: (order.get(m.file, len(order)), m.file, m.line, m.column))


@dataclass(frozen=True, slots=True)
class _Locator:
    """Findings to mistakes and notices: adds file, line, column and the quoted line."""

    reading: Reading
    places: Places
    files: SpecFiles

    def _place(self, finding: Finding) -> tuple[str, int, int, str]:
        if finding.file is None:
            at = self.places.at(finding.path, key=finding.at_key or not finding.path)
            return at.file, at.line, at.column, self.reading.quote(at.file, at.line)
        text = self.files.bytes_of.get(finding.file, b"").decode("utf-8", "replace")
        lines = text.splitlines()
        quoted = lines[finding.line - 1][:400] if 0 < finding.line <= len(lines) else ""
        return self.reading.name(finding.file), finding.line, finding.column, quoted

    def mistake(self, finding: Finding) -> Mistake:
        file, line, column, source = self._place(finding)
        return Mistake(
            file=file,
            line=line,
            column=column,
            path=dotted(finding.path),
            message=finding.message,
            expected=finding.expected,
            nearest=finding.nearest,
            source=_shown(finding.path, source, column - 1),
        )

    def notice(self, finding: Finding) -> Notice:
        file, line, column, _ = self._place(finding)
        return Notice(
            file=file,
            line=line,
            column=column,
            path=dotted(finding.path),
            message=finding.message,
        )


def _shown(path: SpecPath, source: str, start: int) -> str:
    """``source``, without its value where that may be a provider's key, or hold one, by mistake."""
    if len(path) != 3 or path[0] != "models":
        return source
    in_url = path[2] == "base_url" and any(sign in source[start:] for sign in "@?#")
    return source[:start] + "..." if path[2] == "keys" or in_url else source
