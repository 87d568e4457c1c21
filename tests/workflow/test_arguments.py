"""The arguments of a code-first workflow are held against its annotations before a run is created."""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NewType, TypedDict
from uuid import UUID

import pydantic
import pytest

from symphony_es import Symphony
from symphony_es.core.objects.arguments import fit_arguments
from symphony_es.errors import ConfigurationError
from symphony_es.workflow import run_workflow


class Level(enum.Enum):
    LOW = 1
    HIGH = 2


class Mood(enum.StrEnum):
    GOOD = "good"


class Item(pydantic.BaseModel):
    name: str
    count: pydantic.PositiveInt = 1


@dataclass
class Order:
    items: list[Item]
    level: Level = Level.LOW
    when: dt.datetime | None = None
    tags: set[str] = field(default_factory=set)


class Address(TypedDict, total=False):
    street: str
    number: int


UserId = NewType("UserId", int)
UTC_NOON = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)
U = UUID("12345678123456781234567812345678")

FITS: dict[str, tuple[Any, Any, Any]] = {
    "int": (int, 5, 5),
    "float of an int": (float, 5, 5),
    "text": (str, "a", "a"),
    "any": (Any, object, object),
    "object": (object, 3, 3),
    "none": (None, None, None),
    "optional": (int | None, None, None),
    "union": (int | str, "a", "a"),
    "union that becomes one": (Level | dt.datetime, "2026-05-01T12:00:00Z", UTC_NOON),
    "member": (Level, Level.HIGH, Level.HIGH),
    "member by value": (Level, 2, Level.HIGH),
    "text member": (Mood, "good", Mood.GOOD),
    "moment": (dt.datetime, "2026-05-01T12:00:00Z", UTC_NOON),
    "date": (dt.date, "2026-05-01", dt.date(2026, 5, 1)),
    "decimal": (Decimal, "1.10", Decimal("1.10")),
    "uuid": (UUID, str(U), U),
    "path": (Path, "a/b", Path("a/b")),
    "literal": (Literal["a", 1], 1, 1),
    "new type": (UserId, 7, 7),
    "annotated": (Annotated[int, "told"], 7, 7),
    "list": (list[int], [1, 2], [1, 2]),
    "list of moments": (list[dt.date], ["2026-05-01"], [dt.date(2026, 5, 1)]),
    "sequence of a tuple": (Sequence[int], (1, 2), (1, 2)),
    "tuple of a list": (tuple[int, str], [1, "a"], (1, "a")),
    "long tuple": (tuple[int, ...], [1, 2, 3], (1, 2, 3)),
    "set of a list": (set[str], ["a", "b"], {"a", "b"}),
    "frozenset": (frozenset[int], [1], frozenset({1})),
    "dict": (dict[str, int], {"a": 1}, {"a": 1}),
    "mapping": (Mapping[str, Level], {"a": 1}, {"a": Level.LOW}),
    "bare list": (list, [1], [1]),
    "bare tuple": (tuple, [1], (1,)),
    "typed dict": (Address, {"street": "x"}, {"street": "x"}),
    "model": (Item, {"name": "tea"}, Item(name="tea")),
    "model itself": (Item, Item(name="tea"), Item(name="tea")),
    "dataclass": (
        Order,
        {"items": [{"name": "tea"}], "level": 2, "when": "2026-05-01T12:00:00Z", "tags": ["a"]},
        Order([Item(name="tea")], Level.HIGH, UTC_NOON, {"a"}),
    ),
    "several classes": (Item | Order, {"name": "tea"}, {"name": "tea"}),
}
WRONG: dict[str, tuple[Any, Any, str]] = {
    "int": (int, "five", "it is a str"),
    "text": (str, 5, "it is an int"),
    "bool for a float": (float, True, "it is a bool"),
    "none": (int, None, "it is None"),
    "optional": (int | None, "x", "it is a str"),
    "member": (Level, 9, "9 is not a valid Level"),
    "moment": (dt.datetime, "tomorrow", "Invalid isoformat"),
    "decimal": (Decimal, "much", "a str that is not a number"),
    "literal": (Literal["a", "b"], "c", "a str that is none of 'a', 'b'"),
    "literal of another type": (Literal[1], True, "a bool that is none of 1"),
    "list": (list[int], "abc", "it is a str"),
    "item": (list[int], [1, "x"], r"\[1\]: it is a str"),
    "nested": (dict[str, list[int]], {"a": [1, None]}, r"\['a'\]\[1\]: it is None"),
    "key": (dict[int, int], {"a": 1}, "key: it is a str"),
    "tuple": (tuple[int, int], [1], "1 items, and 2 are expected"),
    "typed dict": (Address, {"number": "x"}, "number: it is a str"),
    "model": (Item, {"name": "tea", "count": 0}, "greater than 0"),
    "model of a text": (Item, "tea", "it is a str"),
    "field": (Order, {"items": [{"name": "a"}], "level": 3}, "level: 3 is not a valid Level"),
    "deep field": (Order, {"items": [{"nam": "a"}]}, r"items\[0\]: "),
    "missing field": (Order, {"level": 1}, "items"),
}


def taking(annotation: Any) -> Any:
    async def flow(value: Any) -> Any:
        return value

    flow.__annotations__["value"] = annotation
    return flow


@pytest.mark.parametrize("case", FITS)
def test_what_fits_becomes_what_the_annotation_asks_for(case: str) -> None:
    """Type and value."""
    annotation, given, expected = FITS[case]
    fitted = fit_arguments(taking(annotation), {"value": given})["value"]
    assert fitted == expected
    assert type(fitted) is type(expected)


@pytest.mark.parametrize("case", FITS)
def test_what_fits_fits_again(case: str) -> None:
    """The arguments of a child run, say, are those of its parent: what has become of one is taken as it is."""
    annotation, given, expected = FITS[case]
    once = fit_arguments(taking(annotation), {"value": given})
    assert fit_arguments(taking(annotation), once) == {"value": expected}


@pytest.mark.parametrize("case", WRONG)
async def test_what_does_not_fit_is_refused_before_a_run_is_created(symphony: Symphony, case: str) -> None:
    """By execute and by start: the parameter is named, the place and the value; nothing is appended."""
    annotation, given, why = WRONG[case]
    flow = symphony.workflow(taking(annotation), name="flow")
    head = symphony.log.head
    for call in (symphony.workflows.execute_workflow, symphony.workflows.start):
        with pytest.raises(ConfigurationError, match=rf"(?s)the argument 'value' is not a .*{why}"):
            await call(flow, {"value": given})
    assert symphony.log.head == head
    assert await symphony.workflows.list_runs() == []


async def test_the_arguments_of_a_child_run_are_looked_at_too(symphony: Symphony) -> None:
    """It is not created, and the step of its parent has failed."""
    child = symphony.workflow(taking(int), name="child")

    @symphony.workflow
    async def parent() -> Any:
        return await run_workflow(child, {"value": "five"})

    run = await symphony.workflows.execute_workflow(parent)
    assert run.status == "failed"
    assert "the argument 'value' is not a int: it is a str" in (run.error or {})["message"]
    assert len(await symphony.workflows.list_runs()) == 1


def test_a_parameter_that_is_none_by_default_takes_none() -> None:
    """Whatever its annotation says, as type checkers read it as well."""

    async def flow(value: str = None) -> None:  # type: ignore[assignment]  # noqa: RUF013  what people write
        return None

    assert fit_arguments(flow, {"value": None}) == {"value": None}


def test_annotations_that_cannot_be_read_are_passed_over() -> None:
    """Names that are not there at run time; parameters beside the annotated ones."""

    async def flow(value: Unknown, **more: int) -> None:  # type: ignore[name-defined]  # noqa: F821
        return None

    assert fit_arguments(flow, {"value": "x", "other": "y"}) == {"value": "x", "other": "y"}
