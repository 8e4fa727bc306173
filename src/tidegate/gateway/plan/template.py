"""A pinned Jinja2 template whose inputs are declared, typed and complete before it is rendered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jinja2

from tidegate.base import ENVIRONMENT, RequestError, fits, plain_parts
from tidegate.release import Input, Prompt


class PromptTemplate:
    """``text(inputs)`` gives the content of one message of ``role``."""

    def __init__(self, prompt: Prompt) -> None:
        self._prompt = prompt
        self._inputs = prompt.inputs
        self._template = ENVIRONMENT.from_string(prompt.text)
        self.role = prompt.role
        parts = plain_parts(prompt.text)
        declared = parts is not None and all(name in prompt.inputs for _, name in parts[:-1])
        self._parts = parts if declared else None

    def text(self, given: Mapping[str, Any]) -> str:
        """Raises RequestError when an input is wrong."""
        values = check_inputs(self._prompt.name, self._inputs, given)
        if self._parts is not None:
            return _join(self._parts, values)
        try:
            # As PromptTemplate.render does, without copying the globals for each request.
            context = self._template.new_context({**ENVIRONMENT.globals, **values}, shared=True)
            return "".join(self._template.root_render_func(context))
        except jinja2.TemplateError as error:
            raise RequestError(
                400,
                "template_failed",
                f"prompt {self._prompt.name!r} cannot be rendered: {error}",
                cure="check the inputs against the template",
                param="tidegate.inputs",
            ) from None
        except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            raise RequestError(
                400,
                "template_failed",
                f"prompt {self._prompt.name!r} cannot be rendered with these inputs: {error}",
                cure="check the inputs against the template",
                param="tidegate.inputs",
            ) from None


def _join(parts: tuple[tuple[str, str], ...], values: dict[str, Any]) -> str:
    out: list[str] = []
    for words, name in parts[:-1]:
        value = values[name]
        out += (words, value if isinstance(value, str) else str(value))
    out.append(parts[-1][0])
    return "".join(out)


def check_inputs(
    prompt: str, declared: Mapping[str, Input], given: Mapping[str, Any]
) -> dict[str, Any]:
    """The value of every declared input. Raises RequestError naming the first that is wrong."""
    for name in given:
        if name not in declared:
            raise _wrong(prompt, name, "is not declared", f"inputs are: {_names(declared)}")
    values: dict[str, Any] = {}
    for name, spec in declared.items():
        if name not in given:
            if spec.required and spec.default is None:
                raise RequestError(
                    400,
                    "input_missing",
                    f"prompt {prompt!r} needs the input {name!r} ({_expected(spec)})",
                    cure=f'send it in the body: "tidegate": {{"inputs": {{"{name}": ...}}}}',
                    param=f"tidegate.inputs.{name}",
                )
            values[name] = spec.default
            continue
        value = given[name]
        if not fits(value, spec.type, spec.choices):
            raise _wrong(prompt, name, "has a wrong value", f"expected {_expected(spec)}")
        values[name] = value
    return values


def _wrong(prompt: str, name: str, what: str, cure: str) -> RequestError:
    return RequestError(
        400,
        "input_invalid",
        f"input {name[:80]!r} of prompt {prompt!r} {what}",
        cure=cure,
        param=f"tidegate.inputs.{name[:80]}",
    )


def _expected(spec: Input) -> str:
    return "one of " + ", ".join(spec.choices) if spec.choices else spec.type


def _names(declared: Mapping[str, Input]) -> str:
    return ", ".join(declared) or "none"
