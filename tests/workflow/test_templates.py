"""Templates read paths of the context and outputs of steps, or compute with them in the language of conditions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symphony_es.errors import TemplateError
from symphony_es.workflow.language.templates import check_template, parse_template, render

SCOPE: dict[str, Any] = {
    "topic": "rain",
    "count": 3,
    "none": None,
    "a": {"b": [10, {"c d": 2}], "1": "text", 2: "number"},
    "step": {"plan": {"result": {"title": "Rain", "score": 0.5}}, "my-step": {"result": 7}},
    "not": 1,
    "odd": {"}}": "closed", "{{": "open", "it's": "quoted", "é": "accent"},
    "braces": "{{ topic }}",
}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("no expression", "no expression"),
        ("", ""),
        ("{{ topic }}", "rain"),
        ("{{topic}}", "rain"),
        ("{{ count }}", 3),
        ("{{ none }}", None),
        ("{{ a.b }}", [10, {"c d": 2}]),
        ("{{ a.b[0] }}", 10),
        ("{{ a.b[-2] }}", 10),
        ("{{ a.b.1['c d'] }}", 2),
        ('{{ a["1"] }}', "text"),
        ("{{ a[2] }}", "number"),
        ("{{ step.plan.result.score }}", 0.5),
        ("on {{ topic }}, {{ count }} times", "on rain, 3 times"),
        (" {{ count }}", " 3"),
        ("}} {{ topic }} }", "}} rain }"),
        ({"x": ["{{ count }}", ("{{ topic }}", 7)]}, {"x": [3, ("rain", 7)]}),
        (None, None),
    ],
)
def test_an_expression_gives_the_value_it_names(template: object, expected: object) -> None:
    """A text that is one expression keeps the value's type; inside a longer text it becomes text; containers are entered."""
    assert render(template, SCOPE) == expected


def test_what_was_put_in_is_not_rendered_again() -> None:
    """A value that looks like a template is data: nobody can smuggle an expression in through the context."""
    assert render("{{ braces }} and {{ topic }}", SCOPE) == "{{ topic }} and rain"


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{{ nope }}", ["nope", "in the run's context", "topic"]),
        ("{{ step.plan.reslt }}", ["reslt", "step.plan", "available: result"]),
        ("{{ a.b[7] }}", ["a.b has 2 elements"]),
        ("{{ a.b.first }}", ["a.b is a list"]),
        ("{{ topic.x }}", ["topic is a str"]),
        ("{{ none.x }}", ["none is NoneType"]),
        ("{{ topik }}", ["did you mean 'topic'?"]),
        ("{{ step.my-step.result }}", ["write step['my-step']"]),
        ("{{ count > 'a' }}", ["'>' not supported"]),
    ],
)
def test_a_name_that_is_not_there_is_an_error_with_those_that_are(template: str, told: list[str]) -> None:
    """The message names the expression, where it stands, and what could have been meant."""
    with pytest.raises(TemplateError) as raised:
        render(f"at: {template}", SCOPE)
    assert raised.value.expression in template
    assert f"at character {raised.value.offset}: {raised.value.why}" in str(raised.value)
    for words in told:
        assert words in str(raised.value)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ 1 }}", 1),
        ("{{ None }}", None),
        ("{{ count + 1 }}", 4),
        ("{{ len(a.b) > 1 and step['my-step'].result }}", 7),
        ("{{\n  topic\n  + '!'\n}}", "rain!"),
        ("{{ 'yes' if count > 2 else 'no' }}: {{ count - 1 }}", "yes: 2"),
        ("{{ odd['}}'] }}", "closed"),
        ("{{ odd['}}'] + '{{' }} {{ topic }}", "closed{{ rain"),
        ("{{ odd['{{'] }}", "open"),
        ('{{ odd["it\'s"] }}', "quoted"),
        ("{{ odd['it\\'s'] }}", "quoted"),
        ("{{ odd.é + topic }}", "accentrain"),
        ("{{ count in {1, 3}}}", True),
        ("{{ count in {1, 3} }} {{ count }}", "True 3"),
        ("{{ not }}", 1),
        ("{{ a.b[0] * 2 }}", 20),
    ],
)
def test_what_is_no_path_is_an_expression(template: str, expected: object) -> None:
    """It is evaluated as a condition is, and its value keeps its type; braces inside quotes close nothing."""
    assert render(template, SCOPE) == expected


@pytest.mark.parametrize(
    ("template", "offset"),
    [
        ("at: {{ nope }}", 7),
        ("{{ topic }} {{step.plan.reslt}}", 24),
        ("{{ topic }} {{ count + nope }}", 23),
        ("é {{ 'é' + nope }}", 11),
        ("{{ a.b [7] }}", 8),
        ("x {{ lambda: 1 }}", 5),
        ("x {{ it's }} it's {{ topic }}", 5),
        ("x {{ topic", 2),
        ("{{ topic }} {{ 9 ** 9 }}", 17),
    ],
)
def test_an_error_tells_where_in_the_template_the_fault_stands(template: str, offset: int) -> None:
    """In characters from the beginning of the text, whether it is found when the template is read or when it is rendered."""
    with pytest.raises(TemplateError) as raised:
        render(template, SCOPE)
    assert raised.value.offset == offset


class Mute:
    """Cannot be written."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize("value", [Mute(), 10**5000], ids=["mute", "huge"])
def test_a_value_that_cannot_be_written_is_the_declared_error(value: object) -> None:
    """As a whole it is handed on; inside a text it is refused by the name of the expression."""
    assert render("{{ x }}", {"x": value}) is value
    with pytest.raises(TemplateError, match="cannot be written"):
        render("it is {{ x }}", {"x": value})


@pytest.mark.parametrize(
    "template",
    [
        "{{ }}",
        "{{ a b }}",
        "{{ f() }}",
        "{{ a..b }}",
        "{{ a[ }}",
        "{{ a['x }}",
        "{{ a.__class__() }}",
        "{{ x",
        "{{ d['}} }}",
        "{{ {1: 2} }}",
        "{{ [x for x in a] }}",
        "{{ " + "a." * 400 + "b }}",
    ],
)
def test_what_is_no_expression_is_refused_when_it_is_read(template: str) -> None:
    """Definitions check their templates before anything runs: nested ones too, and no value is read for it."""
    with pytest.raises(TemplateError):
        check_template(template)
    with pytest.raises(TemplateError):
        check_template({"deep": [("fine", template)]})


def test_a_template_nested_too_deep_is_refused() -> None:
    """A structure deeper than a state may be ends in the declared error, not in a RecursionError."""
    deep: object = "x"
    for _ in range(100):
        deep = [deep]
    with pytest.raises(TemplateError, match="nested deeper"):
        render(deep, SCOPE)


def test_parsing_gives_texts_and_placeholders_in_order() -> None:
    """Offsets are characters from the beginning of the template."""
    before, placeholder, after = parse_template("a {{ b.c[1] }}!")
    assert (before, after) == ("a ", "!")
    assert not isinstance(placeholder, str)
    assert (placeholder.expression.text, placeholder.offset) == ("b.c[1]", 5)


@given(st.text(alphabet="{}[]().'\"ab_1-+>, \\\n", max_size=60))
def test_any_text_gives_a_value_or_the_declared_error(text: str) -> None:
    """Whatever a template holds, nothing but TemplateError leaves; without braces it comes back as it was."""
    try:
        rendered = render(text, {"a": {"b": [1, 2]}, "b": "x"})
    except TemplateError:
        return
    if "{{" not in text:
        assert rendered == text


def test_many_unclosed_braces_cost_linear_time() -> None:
    """A hostile text of half a million braces is refused at once."""
    with pytest.raises(TemplateError, match="closing"):
        render("{{" * 250_000, {})
