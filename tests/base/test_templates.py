"""What a template may do, and that plain ones are joined to what rendering gives."""

from __future__ import annotations

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.base.templates import ENVIRONMENT, fits, plain_parts

words = st.text(alphabet=st.sampled_from("ab {}%#\n-é.'\""), max_size=8)
values = st.one_of(st.text(max_size=8), st.integers(), st.booleans(), st.floats(allow_nan=False))


@given(
    st.lists(st.one_of(words, st.sampled_from(["{{ a }}", "{{b}}", "{{- a -}}"])), max_size=8),
    values,
    values,
)
def test_joining_a_plain_template_is_rendering_it(pieces: list[str], a: object, b: object) -> None:
    text = "".join(pieces)
    try:
        parts = plain_parts(text)
    except jinja2.TemplateSyntaxError:
        return
    if parts is None:
        return
    given_values = {"a": a, "b": b}
    joined = "".join(w + (str(given_values[n]) if n else "") for w, n in parts)
    assert joined == ENVIRONMENT.from_string(text).render(given_values)


@pytest.mark.parametrize(
    "text", ["{{ a | upper }}", "{% if a %}x{% endif %}", "{{ a.b }}", "{{ 1 + 1 }}", "{{ f(a) }}"]
)
def test_everything_else_is_left_to_jinja(text: str) -> None:
    assert plain_parts(text) is None


def test_no_template_can_hold_the_process() -> None:
    template = ENVIRONMENT.from_string("{{ 9 ** 9 ** 9 }}")  # compiling it computes nothing
    with pytest.raises(jinja2.TemplateRuntimeError):
        template.render()


def test_a_boolean_is_no_number() -> None:
    assert fits(1, "integer")
    assert not fits(True, "integer")
    assert fits(True, "boolean")
    assert not fits("c", "string", ("a", "b"))
