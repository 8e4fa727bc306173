"""A prompt is rendered with exactly its declared inputs, or the request is refused by name."""

from __future__ import annotations

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.gateway.releases import pinned
from tidegate.base.errors import RequestError
from tidegate.gateway.plan import PromptTemplate
from tidegate.release.values import Input, Prompt

JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5)
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
KINDS = {
    "string": str, "integer": int, "number": (int, float), "boolean": bool, "list": list,
    "object": dict,
}  # fmt: skip


def prompt(text: str, **inputs: Input) -> Prompt:
    return Prompt(name="p", file=pinned("p.md", text), text=text, role="user", inputs=inputs)


def render(text: str, given: dict[str, object], **inputs: Input) -> str:
    template = PromptTemplate(prompt(text, **inputs))
    assert template.role == "user"
    return template.text(given)


@given(st.text(max_size=40))
def test_an_input_is_never_read_as_a_template_or_as_html(value: str) -> None:
    assert render("<{{ x }}>", {"x": value}, x=Input(type="string")) == f"<{value}>"


@pytest.mark.parametrize("text", ["plain", "plain\n", "plain\n\n", "a\r\nb", "", "{ x }", "a } b"])
def test_a_plain_prompt_reads_as_jinja_would(text: str) -> None:
    assert render(text, {}) == jinja2.Environment().from_string(text).render()


@given(kind=st.sampled_from(sorted(KINDS)), value=JSON)
def test_a_value_is_taken_exactly_when_it_has_the_declared_type(kind: str, value: object) -> None:
    right = isinstance(value, KINDS[kind]) and (kind == "boolean" or not isinstance(value, bool))
    spec = Input(type=kind)  # type: ignore[arg-type]
    if right:
        render("{{ x is none }}", {"x": value}, x=spec)
        return
    with pytest.raises(RequestError) as caught:
        render("{{ x }}", {"x": value}, x=spec)
    assert (caught.value.code, caught.value.param) == ("input_invalid", "tidegate.inputs.x")


@pytest.mark.parametrize(
    ("given", "code", "param"),
    [
        ({}, "input_missing", "tidegate.inputs.goal"),
        ({"goal": "run", "goal2": "x"}, "input_invalid", "tidegate.inputs.goal2"),
        ({"goal": "run", "level": "god"}, "input_invalid", "tidegate.inputs.level"),
        ({"goal": None}, "input_invalid", "tidegate.inputs.goal"),
    ],
)
def test_wrong_inputs_are_named(given: dict[str, object], code: str, param: str) -> None:
    with pytest.raises(RequestError) as caught:
        render(
            "{{ goal }} {{ level }}",
            given,
            goal=Input(type="string"),
            level=Input(type="string", choices=("low", "high"), required=False, default="low"),
        )
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, code, param)
    assert caught.value.cure


def test_defaults_stand_in() -> None:
    spec = Input(type="string", required=False, default="low")
    assert render("{{ level }}", {}, level=spec) == "low"
    assert render("{{ level is none }}", {}, level=Input(type="string", required=False)) == "True"


@pytest.mark.parametrize(
    "text",
    ["{{ x.y.z }}", "{{ x[0][1] }}", "{{ 1 // n }}", "{{ n + x }}", "{{ x.__class__.__mro__ }}",
     "{{ ''.__class__ }}", "{{ n ** 9 }}", "{{ missing }}", "{{ x.format(x) }}{{ x() }}"],
)  # fmt: skip
def test_what_cannot_be_rendered_is_a_refusal_and_nothing_escapes(text: str) -> None:
    inputs = {"x": Input(type="string"), "n": Input(type="integer")}
    with pytest.raises(RequestError) as caught:
        render(text, {"x": "{}", "n": 0}, **inputs)
    assert caught.value.code == "template_failed"
