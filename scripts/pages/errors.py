"""``docs/errors.md``: every error code in the source, found without running it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src" / "tidegate"
CODE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")

HEAD = """# Error codes

Every error has a stable code, says what was wrong and how to mend it. Commands print the three and
end with the exit code of the kind of error; with `--json` they print `{"error": {"code", "message",
"cure"}}`. The gateway answers with the status below and the body
`{"error": {"message", "type", "param", "code", "cure"}}`. Words in braces are filled in.

| code | kind or status | message | cure |
|---|---|---|---|
"""

UPSTREAM = """
## When no model answers

The first failure decides; the message names the model and says what it did. Codes of a provider's
own refusal of a request are passed on.

| code | status | cure |
|---|---|---|
"""


@dataclass(frozen=True, order=True)
class Found:
    """One place where an error is made."""

    code: str
    kind: str
    message: str
    cure: str


def page() -> str:
    found = sorted({one for path in sorted(SOURCE.rglob("*.py")) for one in _in_file(path)})
    rows = [f"| `{f.code}` | {f.kind} | {_cell(f.message)} | {_cell(f.cure)} |" for f in found]
    return HEAD + "\n".join(rows) + "\n" + _upstream()


def _upstream() -> str:
    """The codes of failed models, which stand in tables: ``FAULTS`` (code to status), ``_CURES``
    (code to cure), and calls ``Failure(code, words, status, ...)``."""
    statuses: dict[str, int] = {}
    cures: dict[str, str] = {}
    default = ""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
                name = ast.unparse(node.targets[0])
                pairs = ast.literal_eval(node.value) if name in ("FAULTS", "_CURES") else {}
                (statuses if name == "FAULTS" else cures).update(pairs)
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "Failure":
                match node.args:
                    case [ast.Constant(str(code)), _, ast.Constant(int(status)), *_]:
                        statuses[code] = status
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "_CURES.get":
                default = default or _text(node.args[1])
    rows = [
        f"| `{c}` | {s} | {_cell(cures.get(c, default))} |" for c, s in sorted(statuses.items())
    ]
    return UPSTREAM + "\n".join(rows) + "\n" if rows else ""


def _in_file(path: Path) -> Iterator[Found]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and (found := _made(node)):
            yield found


def _made(call: ast.Call) -> Found | None:
    """The error that ``call`` makes, when its code is written there: a call of an error's class, or
    of a function that hands ``cure`` on."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    named = {word.arg: word.value for word in call.keywords if word.arg}
    if "cure" not in named:
        return None
    values = [*call.args]
    status = ""
    if values and isinstance(values[0], ast.Constant) and isinstance(values[0].value, int):
        status = str(values.pop(0).value)
    elif name == "RequestError" and len(values) == 3:
        values.pop(0)
        status = "varies"
    if not values or not isinstance(values[0], ast.Constant) or len(values) < 2:
        return None
    code = values[0].value
    if not isinstance(code, str) or not CODE.fullmatch(code):
        return None
    return Found(code, status or name, _text(values[1]), _text(named["cure"]))


def _text(node: ast.expr) -> str:
    """The words of a string expression; what is filled in stands in braces by its last name."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    if isinstance(node, ast.FormattedValue):
        return _text(node.value)
    if isinstance(node, ast.Call) and node.args and isinstance(node.func, ast.Name):
        return _text(node.args[0]) if not isinstance(node.args[0], ast.Constant) else "{...}"
    names = [n for n in ast.walk(node) if isinstance(n, (ast.Name, ast.Attribute))]
    last = names[0] if names else None
    word = last.attr if isinstance(last, ast.Attribute) else getattr(last, "id", "...")
    return "{" + word + "}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
