"""The sandbox of prompt templates, and the types of their inputs; for checking and for serving.

Jinja2 in its immutable sandbox. Constants are not folded while a template is read, and the operator
``**`` is refused: either could keep the process busy for hours (``9**9**9``).
"""

from __future__ import annotations

from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

INPUT_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "list": (list,),
    "object": (dict,),
}


def fits(value: object, kind: str, choices: tuple[str, ...] = ()) -> bool:
    """Whether ``value`` is of the input type ``kind`` and, where there are any, a choice."""
    if isinstance(value, bool) and kind != "boolean":
        return False
    return isinstance(value, INPUT_TYPES[kind]) and (not choices or value in choices)


class _Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(("**",))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        raise jinja2.TemplateRuntimeError(f"the operator {operator} is not for prompts")


@jinja2.pass_context
def _unchanged(_: object, value: object) -> object:
    """A ``finalize`` that needs a context: Jinja then folds no constants in templates."""
    return value


# Prompts are text, not HTML: escaping would change what the model reads.
ENVIRONMENT = _Sandbox(
    undefined=jinja2.StrictUndefined, autoescape=False, optimized=False, finalize=_unchanged
)


def plain_parts(text: str) -> tuple[tuple[str, str], ...] | None:
    """The ``(text, name of an input)`` pairs of a template that has nothing else; otherwise None.

    The name of the last pair is empty. Most prompts are of this kind, and joining their parts gives
    what rendering gives, without entering Jinja on every request.
    """
    parts: list[tuple[str, str]] = []
    words = ""
    for node in ENVIRONMENT.parse(text).body:
        if not isinstance(node, nodes.Output):
            return None
        for piece in node.nodes:
            if isinstance(piece, nodes.TemplateData):
                words += piece.data
            elif isinstance(piece, nodes.Name):
                parts.append((words, piece.name))
                words = ""
            else:
                return None
    return (*parts, (words, ""))
