"""The sum is bounded as the parts are: whatever a template or a condition is made of, it ends soon, with little memory."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from symphony_es.errors import ExpressionError
from symphony_es.workflow.language import metering
from symphony_es.workflow.language.expressions import evaluate
from symphony_es.workflow.language.templates import render

MANY = 5_000
BIG: dict[str, Any] = {
    "text": "x" * 50_000,
    "nested": [[list(range(100)) for _ in range(10)] for _ in range(5)],
    "numbers": list(range(MANY)),
    "table": {str(number): "v" * 50 for number in range(500)},
    "flags": {False: b"y" * 25_000},
}
NAMES = sorted(BIG)

BOMBS: dict[str, Callable[[str], Any]] = {
    "one text with many": lambda name: f"{{{{ {name} }}}}, " * 2_000,
    "a list of many": lambda name: [f"{{{{ {name} }}}}"] * 2_000,
    "a tuple of many": lambda name: (f"{{{{ {name} }}}}",) * 2_000,
    "a dict of many": lambda name: {str(number): f"{{{{ {name} }}}}" for number in range(2_000)},
    "nested": lambda name: [[{"k": f"a {{{{ {name} }}}}"}] * 40] * 50,
    "lists that an expression makes": lambda name: ["{{ [" + ", ".join([name] * 100) + "] }}"] * 100,
    "lists of lists": lambda name: "{{ " + "[" * 5 + ", ".join([name] * 100) + "]" * 5 + " }}" * 1 + f" {{{{ {name} }}}}" * 1_000,
}


@pytest.fixture(autouse=True)
def a_twentieth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits and values are a twentieth of the real ones, so that the tests are as much faster."""
    for limit in ("MAX_OUTPUT_BYTES", "MAX_WORK"):
        monkeypatch.setattr(metering, limit, getattr(metering, limit) // 20)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bomb", BOMBS)
def test_what_is_written_many_times_is_refused_before_it_takes_memory(bomb: str, name: str) -> None:
    """What stands in memory once is counted as often as it is written."""
    template = BOMBS[bomb](name)
    tracemalloc.start()
    try:
        with pytest.raises(ExpressionError, match="limit"):
            render(template, BIG)
        assert tracemalloc.get_traced_memory()[1] < 6 * metering.MAX_OUTPUT_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("operation", ["{0} == {0}", "{0} != {0}", "{0} in [{0}, {0}]", "max({0}, {0}) == 1", "{0} in {{{0}}}"])
def test_comparing_large_values_again_and_again_is_refused(operation: str) -> None:
    """Each comparison goes through all elements; the sum of them is bounded, whatever parts they stand in."""
    # two lists that are equal and not the same: Python compares every element of them
    scope = {"a": (tuple(range(MANY)), 1)}
    condition = operation.format("a")
    template = [f"{{{{ {condition} }}}}"] * 1_000
    with pytest.raises(ExpressionError, match="elements"):
        render(template, scope)


@pytest.mark.parametrize("operation", ["(n + n)[0]", "n[1:][0]", "len(n + n)", "(t + t)[0]"])
def test_copies_that_are_thrown_away_count_as_well(operation: str) -> None:
    """An element that is read out of a new list costs the list."""
    scope = {"n": list(range(MANY)), "t": "x" * 50_000}
    with pytest.raises(ExpressionError, match="elements"):
        render([f"{{{{ {operation} }}}}"] * 4_000, scope)


def test_the_number_of_parts_that_are_evaluated_is_bounded() -> None:
    """Small expressions, very many of them."""
    condition = " + ".join(["1"] * 90)
    with pytest.raises(ExpressionError, match="elements"):
        render([f"{{{{ {condition} }}}}"] * (metering.MAX_WORK // 500), {})


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ numbers }}", lambda value: value is BIG["numbers"]),
        ("{{ table }}", lambda value: value is BIG["table"]),
        ("{{ text }}" * 16, lambda value: len(value) == 800_000),
        ("{{ 5 in numbers }}", lambda value: value is True),
        (["{{ numbers[7] }}"] * 1_000, lambda value: value == [7] * 1_000),
        (["{{ len(text) }}"] * 1_000, lambda value: value == [50_000] * 1_000),
    ],
)
def test_what_an_event_can_hold_is_still_given(template: Any, expected: Callable[[Any], bool]) -> None:
    """Large values that are handed out once, and small ones out of large values, cost what they are."""
    assert expected(render(template, BIG))


@pytest.mark.parametrize("name", NAMES)
def test_a_condition_has_a_meter_of_its_own(name: str) -> None:
    """What one evaluation has cost is nothing to the next one."""
    for _ in range(30):
        assert evaluate(f"{name} == {name}", BIG) is True


def test_a_value_is_measured_without_recursion() -> None:
    """However deep it is nested."""
    deep: Any = 1
    for _ in range(sys.getrecursionlimit() * 3):
        deep = [deep]
    assert render("{{ deep }}", {"deep": deep}) is deep
