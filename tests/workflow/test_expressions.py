"""The language of conditions: what it means, what it refuses, what its errors tell, and that nothing gets out of it."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Any
from uuid import UUID

import pytest

from symphony_es.core.state.tracking.tracked_dict import TrackedDict
from symphony_es.core.state.tracking.tracked_list import TrackedList
from symphony_es.core.state.tracking.tracked_set import TrackedSet
from symphony_es.errors import ExpressionError, TemplateError
from symphony_es.workflow.language.expressions import (
    evaluate,
    truth,
)


class Grade(StrEnum):
    GOOD = "good"


class Rank(IntEnum):
    SECOND = 2


class Color(Enum):
    RED = "red"


SCOPE: dict[str, Any] = {
    "score": 0.7,
    "count": 3,
    "topic": "rain",
    "nothing": None,
    "done": True,
    "empty": [],
    "numbers": [5, 1, 4],
    "tracked": TrackedList([5, {"x": 1}]),
    "members": TrackedSet([1, 2]),
    "pair": (1, "two"),
    "d": {"key": 1, 2: "two", "a b": "spaced", "inner": {"list": [10]}},
    "tracked_dict": TrackedDict({"key": {"deep": 7}}),
    "price": Decimal("12.345"),
    "at": datetime(2026, 1, 2, tzinfo=UTC),
    "naive": datetime(2026, 1, 2),
    "id": UUID(int=7),
    "grade": Grade.GOOD,
    "rank": Rank.SECOND,
    "color": Color.RED,
    "step": {"plan": {"result": "ok"}, "my-step": {"result": 3}},
    "größe": 4,
    "huge": 10**5000,
    "bytes": b"ab",
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", 1),
        ("1_000 + 0x10", 1016),
        ("2.5e1", 25.0),
        ("'it\\'s' + \" \\u00e9\\n\"", "it's é\n"),
        ("None", None),
        ("True", True),
        ("topic", "rain"),
        ("größe * 2", 8),
        ("d.key", 1),
        ("d['a b']", "spaced"),
        ("d[2]", "two"),
        ("d[count - 1]", "two"),
        ("d.inner.list[0]", 10),
        ("tracked[1].x", 1),
        ("tracked_dict.key['deep']", 7),
        ("numbers[-1]", 4),
        ("numbers[1:]", [1, 4]),
        ("numbers[:-1]", [5, 1]),
        ("tracked[:1]", [5]),
        ("topic[1:3]", "ai"),
        ("topic[0]", "r"),
        ("pair[1]", "two"),
        ("pair[:1]", (1,)),
        ("score > 0.5 and step.plan.result == 'ok'", True),
        ("step['my-step'].result", 3),
        ("1 < count <= 3", True),
        ("1 < 5 < 3", False),
        ("count != 3", False),
        ("count in numbers", False),
        ("5 in tracked", True),
        ("2 in members", True),
        ("count not in {1, 2}", True),
        ("topic in ['rain', 'sun']", True),
        ("topic in ('rain',)", True),
        ("'ai' in topic", True),
        ("'key' in d", True),
        ("nothing is None", True),
        ("score is not None", True),
        ("not done", False),
        ("empty or 'default'", "default"),
        ("numbers and 'some'", "some"),
        ("nothing or empty or 0", 0),
        ("done or missing", True),
        ("nothing and missing", None),
        ("1 > 2 > missing_is_still_read if False else 1", 1),
        ("'yes' if count > 2 else missing", "yes"),
        ("7 // 2 + 7 % 4 - 6 / 3", 4.0),
        ("-count + +count", 0),
        ("--count", 3),
        ("price + 1", Decimal("13.345")),
        ("price > 12.3", True),
        ("-price", Decimal("-12.345")),
        ("price // 5", Decimal(2)),
        ("rank + 1", 3),
        ("grade == 'good'", True),
        ("grade + '!'", "good!"),
        ("numbers + [1, [2]]", [5, 1, 4, 1, [2]]),
        ("tracked[:1] + numbers", [5, 5, 1, 4]),
        ("pair + (3,)", (1, "two", 3)),
        ("at == naive", False),
        ("at >= at", True),
        ("color == 'red'", False),
        ("len(numbers) + len(topic) + len(d) + len(members)", 13),
        ("min(numbers)", 1),
        ("max(1, 7, 3)", 7),
        ("max(members)", 2),
        ("abs(-2.5)", 2.5),
        ("abs(-price)", Decimal("12.345")),
        ("round(2.567, 2)", 2.57),
        ("round(2.5)", 2),
        ("round(price, 1)", Decimal("12.3")),
        ("round(price)", 12),
        ("round(1234, -2)", 1200),
        ("(\n  1 +\n\t2\n)", 3),
        ("\n count\n > 2 \n", True),
        ("()", ()),
        ("[]", []),
        ("len(bytes)", 2),
    ],
)
def test_an_expression_means_what_it_means_in_python(text: str, expected: object) -> None:
    """Value and type are those that Python gives; what is not reached is not evaluated."""
    value = evaluate(text, SCOPE)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("numbers", True), ("empty", False), ("nothing", False), ("0.0", False), ("topic", True), ("count > 5", False), ("at", True)],
)
def test_any_value_counts_as_true_or_false(text: str, expected: bool) -> None:
    """A condition may be any value; the answer is a bool."""
    assert truth(text, SCOPE) is expected


@pytest.mark.parametrize(
    ("text", "offset", "told"),
    [
        ("scroe > 0.5", 0, ["there is no 'scroe' in the run's context", "did you mean 'score'?", "(available: "]),
        ("score > 0.5 and tpic", 16, ["did you mean 'topic'?"]),
        ("  d.kee", 4, ["there is no 'kee' in d", "did you mean 'key'?", "available: 2, a b, inner, key"]),
        ("'é' == 'é' and größer", 15, ["did you mean 'größe'?"]),
        ("d['nope']", 2, ["there is no 'nope' in d"]),
        ("d[9]", 2, ["there is no 9 in d"]),
        ("d[0.5]", 2, ["a key is text or a whole number"]),
        ("d[None]", 2, ["not NoneType"]),
        ("d[True]", 2, ["not bool"]),
        ("numbers[3]", 8, ["numbers has 3 elements"]),
        ("numbers[-4]", 8, ["numbers has 3 elements"]),
        ("numbers['x']", 8, ["numbers is a list"]),
        ("numbers[0.5]", 8, ["no 0.5"]),
        ("numbers[1:'x']", 0, ["whole number"]),
        ("d[1:2]", 0, ["only lists and texts have parts"]),
        ("numbers.append", 8, ["numbers is a list"]),
        ("topic.upper", 6, ["topic is a str"]),
        ("count.real", 6, ["count is int"]),
        ("color.value", 6, ["color is Color"]),
        ("nothing.x", 8, ["nothing is NoneType"]),
        ("step.my-step.result", 5, ["write step['my-step']"]),
        ("null", 0, ["did you mean None?"]),
        ("done == true", 8, ["did you mean True?"]),
        ("1 < 2 < 'a'", 4, ["'<' not supported"]),
        ("numbers > 1", 0, ["'>' not supported"]),
        ("at < naive", 0, ["can't compare offset-naive and offset-aware"]),
        ("1 + 1 / 0", 4, ["division by zero"]),
        ("1 % 0", 0, ["modulo"]),
        ("1 // 0.0", 0, ["zero"]),
        ("price / 0", 0, ["DivisionByZero"]),
        ("price + score", 0, ["mixes a Decimal with a float"]),
        ("done + 1", 0, ["not with bool"]),
        ("topic + 1", 0, ["not with str"]),
        ("topic * 2", 0, ["not with str"]),
        ("numbers * 2", 0, ["not with list"]),
        ("'%s' % topic", 0, ["not with str"]),
        ("-topic", 0, ["not with str"]),
        ("at - at", 0, ["not with datetime"]),
        ("1e308 * 10", 0, ["too large for a float"]),
        ("1e999", 0, ["too large for a float"]),
        ("huge + 1", 0, ["4,096 bits"]),
        ("1.5 * (1 << 5)", 9, ["'<<': there are no operations on bits"]),
        ("[] in {1, []}", 6, ["unhashable"]),
        ("numbers in members", 0, ["unhashable"]),
        ("1 in 2", 0, ["nothing can be in int"]),
        ("1 in topic", 0, ["requires string"]),
        ("len(1)", 0, ["int has no length"]),
        ("min(empty)", 0, ["nothing is in it"]),
        ("max(1)", 0, ["not int"]),
        ("max(1, 'a')", 0, ["not supported"]),
        ("round(1, 1000000000)", 0, ["at most 100"]),
        ("round(1e400)", 6, ["too large"]),
        ("len()", 0, ["takes 1 value"]),
        ("round(1, 2, 3)", 0, ["takes 1 to 2 values"]),
        ("count is 3", 9, ["`is` compares with None only"]),
        ("count = 3", 6, ["write == to compare"]),
        ("count && done", 6, ["write and"]),
        ("!done", 0, ["write not"]),
        ("numbers.0", 7, ["read as [0]"]),
        ("numbers[::2]", 10, ["no step"]),
        ("d.class", 2, ["['class']"]),
        ("'open", 0, ["closing quote"]),
        ("'\\d'", 1, ["write \\\\ for a backslash"]),
        ("'é' + '\\x'", 7, ["write \\\\"]),
        ("1if done else 2", 0, ["put a space"]),
        ("{1, 2}", 0, ["a set, but after `in`,"]),
        ("(1", 0, ["never closed"]),
        ("", 0, ["empty"]),
        (" \n ", 0, ["empty"]),
    ],
)
def test_an_error_tells_what_is_wrong_and_where(text: str, offset: int, told: list[str]) -> None:
    """The text, the place of the part at fault in characters, and the reason; names that are there where one is missing."""
    with pytest.raises(ExpressionError) as raised:
        evaluate(text, SCOPE)
    assert raised.value.expression == text
    assert raised.value.offset == offset, str(raised.value)
    assert str(raised.value).startswith(f"{text}: at character {offset}: {raised.value.why}")
    for words in told:
        assert words in str(raised.value)


def test_the_message_of_a_typing_error_reads_well() -> None:
    """One line with all that is needed to put it right."""
    with pytest.raises(ExpressionError) as raised:
        evaluate("scroe > 0.5", {"topic": 1, "step": {}, "score": 1})
    message = "scroe > 0.5: at character 0: there is no 'scroe' in the run's context; did you mean 'score'? (available: score, step, topic)"
    assert str(raised.value) == message
    assert raised.value.available == ["score", "step", "topic"]
    assert isinstance(raised.value, ValueError)
    assert not isinstance(raised.value, TemplateError)
