"""Values at a step's boundary: what steps return and workflows are given, as objects of the application's classes."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import enum
import ipaddress
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple

import attrs
import pydantic
import pytest

from symphony_es import Symphony
from symphony_es.errors import ConfigurationError
from symphony_es.naming import stored_name
from symphony_es.workflow import step, wait_for_signal


class Mood(enum.StrEnum):
    GOOD = "good"


class Answer(pydantic.BaseModel):
    text: str
    mood: Mood = Mood.GOOD
    notes: list[str] = []


@dataclass
class Usage:
    tokens: int
    answers: list[Answer] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Point:
    x: int


@attrs.define
class Wheel:
    size: int
    at: Point | None = None


class Pair(NamedTuple):
    one: Any
    two: Any


class OtherZone(dt.tzinfo):
    def utcoffset(self, moment: dt.datetime | None) -> dt.timedelta:
        return dt.timedelta(hours=2)

    def dst(self, moment: dt.datetime | None) -> dt.timedelta:
        return dt.timedelta(0)


class Filed(pydantic.BaseModel):
    place: Path
    tags: frozenset[str]
    recent: deque[int]


ANSWER = Answer(text="yes", notes=["a"])
VALUES: dict[str, Any] = {
    "model": ANSWER,
    "dataclass": Usage(5, [ANSWER]),
    "frozen": Point(1),
    "attrs": Wheel(3, Point(1)),
    "named tuple": Pair({"a": 1}, [ANSWER]),
    "list of models": [ANSWER, Answer(text="no")],
    "dict of models": {"a": ANSWER, "b": [Usage(1)]},
    "tuple of a dict and a list": ({"text": "yes"}, [1, 2]),
    "tuple of models": (ANSWER, Usage(2), Point(3)),
    "enum": Mood.GOOD,
    "moment of pydantic": pydantic.TypeAdapter(dt.datetime).validate_python("2026-05-01T10:00:00Z"),
    "path": Path("a") / "b.txt",
    "path of another system": PureWindowsPath("c:/a"),
    "list of paths": [Path("a"), {"b": Path("c")}],
    "model of everyday classes": Filed(place=Path("a/b"), tags=frozenset({"x", "y"}), recent=deque([1, 2], 3)),
    "frozen set": frozenset({1, 2}),
    "deque": deque([Point(1)], maxlen=4),
    "ordered dict": OrderedDict([("b", ANSWER), ("a", 2)]),
    "counter": Counter("aab"),
    "dict with a default": defaultdict(list, a=[Point(2)]),
    "dict with keys of its own": OrderedDict([(("a", 1), 2), (None, 3)]),
    "byte array": bytearray(b"ab"),
    "range": range(1, 9, 2),
    "complex": 1 + 2j,
    "fraction": Fraction(1, 3),
    "address": ipaddress.ip_address("10.0.0.1"),
    "network": ipaddress.ip_network("10.0.0.0/8"),
    "moment of another zone": dt.datetime(2026, 5, 1, tzinfo=OtherZone()),
}
each = pytest.mark.parametrize("value", VALUES.values(), ids=list(VALUES))


def give(value: Any) -> Any:
    async def made() -> Any:
        return value

    return made


@pytest.mark.exhaustive
@each
async def test_a_step_returns_it_and_it_is_the_same_after_a_crash(reopen: Any, value: Any) -> None:
    """In the process that ran the step, and in the next one, which does not run it: type and value, at any depth."""
    seen: list[Any] = []

    def define(symphony: Symphony) -> Any:
        @symphony.workflow
        async def flow() -> Any:
            got = await step(give(value), name="ask")
            seen.append(got)
            await wait_for_signal("go")
            return got

        symphony.restore_manager.types.learn(Answer, Usage, Point, Wheel, Pair, Mood, Filed)
        return flow

    symphony = await reopen()
    handle = await symphony.workflows.start(define(symphony))
    while not seen:
        await asyncio.sleep(0)
    symphony = await reopen()
    define(symphony)
    await symphony.resume()
    await symphony.workflows.signal(symphony.entities.get(f"Workflow:{handle.id}"), "go")
    (run,) = await symphony.workflows.recover()
    assert run.status == "completed"
    for got in (*seen, run.result):
        assert type(got) is type(value)
        assert got == value
    assert len(seen) == 2


@each
async def test_it_is_an_argument_a_signal_and_a_part_of_the_context(symphony: Symphony, value: Any) -> None:
    """Whatever a run is handed comes to its functions as it was given."""
    symphony.functions.register("look", lambda context: context.update(seen=context["given"], more=[context["given"]]))
    definition = symphony.build_workflow().create("w").add_function("look", "look").add_wait("go", output_key="taken").build()
    if isinstance(value, tuple) and type(value) is tuple and isinstance(value[0], dict):
        context, definition_context = {}, value
        symphony.functions.register("look", lambda context: context.update(given=value, seen=value, more=[value]), replace=True)
    else:
        context, definition_context = {"given": value}, value
    handle = await symphony.workflows.start(definition, context)
    await handle.signal("go", value)
    await handle.wait()
    run = await symphony.workflows.get_run(handle.id)
    assert run.status == "completed", run.error
    assert run.context["given"] == run.context["seen"] == run.context["more"][0] == run.context["taken"] == definition_context


async def test_what_a_step_returned_cannot_be_changed_from_outside(symphony: Symphony) -> None:
    """Neither by the step that kept its object, nor by whoever reads it: each has a copy of its own."""
    kept = Answer(text="yes")

    @symphony.workflow
    async def flow() -> Any:
        first = await step(give(kept), name="ask")
        kept.notes.append("by the step")
        first.notes.append("by the flow")
        return first

    run = await symphony.workflows.execute_workflow(flow)
    assert run.outputs["ask"] == Answer(text="yes")
    assert run.result.notes == ["by the flow"]
    run.result.notes.append("by a reader")
    assert run.result.notes == ["by the flow"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"answer": {"text": "a"}}, Answer(text="a")),
        ({"answer": Answer(text="a")}, Answer(text="a")),
        ({"answer": None}, None),
    ],
)
async def test_a_dict_becomes_the_model_that_the_parameter_asks_for(symphony: Symphony, given: Any, expected: Any) -> None:
    """A dump as an HTTP request brings it, an object, or None where that is allowed."""

    @symphony.workflow
    async def takes(answer: Answer | None) -> Any:
        assert answer == expected
        return answer

    run = await symphony.workflows.execute_workflow(takes, given)
    assert (run.status, run.result) == ("completed", expected)


async def test_parameters_of_other_kinds_fit_too(symphony: Symphony) -> None:
    """Nested dataclasses, attrs classes, lists and dicts of models; what is annotated otherwise stays as it is."""

    @symphony.workflow
    async def takes(usage: Usage, wheel: Wheel, many: list[Answer], named: dict[str, Point], plain: dict[str, Any], rest: Any) -> Any:
        return [usage, wheel, many, named, plain, rest]

    given = {
        "usage": {"tokens": 1, "answers": [{"text": "a"}]},
        "wheel": {"size": 2, "at": {"x": 3}},
        "many": [{"text": "b"}],
        "named": {"p": {"x": 4}},
        "plain": {"text": "c"},
        "rest": {"x": 5},
    }
    run = await symphony.workflows.execute_workflow(takes, given)
    assert run.result == [
        Usage(1, [Answer(text="a")]), Wheel(2, Point(3)), [Answer(text="b")], {"p": Point(4)}, {"text": "c"}, {"x": 5},
    ]  # fmt: skip


async def test_a_dict_that_does_not_fit_names_the_parameter(symphony: Symphony) -> None:
    """It is refused before anything is appended, with a message that says which argument, and why."""

    @symphony.workflow
    async def takes(answer: Answer) -> Any:
        return answer

    head = symphony.log.head
    with pytest.raises(ConfigurationError, match="the argument 'answer' is not a Answer"):
        await symphony.workflows.execute_workflow(takes, {"answer": {"score": 1}})
    assert symphony.log.head == head


@pytest.mark.parametrize(
    "wrong", [object(), lambda: 1, [object()], Answer.model_construct(text=object()), defaultdict(lambda: 1), ValueError()]
)
async def test_what_cannot_be_stored_still_fails_its_step_by_name(symphony: Symphony, wrong: Any) -> None:
    """With the place of the value."""
    symphony.functions.register("wrong", lambda context: wrong)
    definition = symphony.build_workflow().create("w").add_function("wrong", "wrong").build()
    run = await symphony.workflows.execute_workflow(definition)
    assert run.status == "failed"
    assert run.error is not None
    assert run.error["type"] == "UnstorableValueError"


async def test_a_model_in_an_ordinary_entity_is_refused_as_before(symphony: Symphony) -> None:
    """There it could change without being recorded."""
    from symphony_es.errors import UnstorableValueError
    from tests.application import Customer

    customer = symphony.entities.add(Customer(id="c"))
    with pytest.raises(UnstorableValueError, match="Answer"):
        customer.notes["a"] = ANSWER


def releases(kind: str) -> tuple[Any, type[Any], dict[str, Any]]:
    """An object of the first release, the class of the second one, and what its fields are then."""
    if kind == "pydantic":

        class Model1(pydantic.BaseModel):
            text: str = "t"

        class Model2(pydantic.BaseModel):
            text: str = "t"
            more: list[int] = [1]

        return Model1(), Model2, {"text": "t", "more": [1]}
    make = dataclasses.make_dataclass
    if kind == "dataclass":
        return make("Data1", [("text", str, "t")])(), make("Data2", ["text", ("more", int, 1)]), {"text": "t", "more": 1}
    if kind == "attrs":
        first = attrs.make_class("Attrs1", {"text": attrs.field(default="t")})
        return first(), attrs.make_class("Attrs2", {"text": attrs.field(), "more": attrs.field(factory=list)}), {"text": "t", "more": []}
    if kind == "removed":
        return make("Gone1", [("text", str, "t"), ("gone", int, 1)])(), make("Gone2", ["text"]), {"text": "t"}

    @dataclass
    class Normalising:
        text: str = "t"

        def __post_init__(self) -> None:
            self.text = self.text.upper()

    made = Normalising()
    made.text = "t"
    return made, Normalising, {"text": "t"}


@pytest.mark.parametrize("kind", ["pydantic", "dataclass", "attrs", "removed", "same"])
@pytest.mark.parametrize("place", ["bare", "list", "tuple", "dict"])
async def test_a_run_whose_values_have_got_other_fields_is_closed_and_goes_on(reopen: Any, kind: str, place: str) -> None:
    """The difference is reported and adopted before the run's next change; nobody takes it for a change past the library's methods."""
    value, second, fields = releases(kind)
    given = {"bare": value, "list": [value], "tuple": (1, value), "dict": {"k": value}}[place]

    async def flow() -> Any:
        first = await step(give(given), name="give")
        await wait_for_signal("go")
        return await step(give(first), name="last")

    async def started() -> Symphony:
        opened: Symphony = await reopen()
        opened.workflow(flow)
        if second is type(value):
            opened.types.register(second)
        else:
            opened.types.alias(stored_name(type(value)), second)
        return opened

    symphony = await reopen()
    await symphony.workflows.start(symphony.workflow(flow), run_id="r")
    while "give" not in (await symphony.workflows.get_run("r")).outputs:
        await asyncio.sleep(0)
    for _ in ("it is only looked at", "again"):
        symphony = await started()
        report = await symphony.resume()
        assert [item.entity for item in report.different] == ([] if kind == "same" else ["Workflow:r"])
        await symphony.create_checkpoint("looked at")
        await symphony.close()
    symphony = await started()
    await symphony.resume()
    await symphony.workflows.signal("r", "go")
    (run,) = await symphony.workflows.recover()
    assert run.status == "completed", run.error
    made = run.result if place == "bare" else run.result["k"] if place == "dict" else run.result[-1]
    assert type(made) is second
    assert {name: getattr(made, name) for name in fields} == fields
    await symphony.create_checkpoint("done")
    names = [event.name for event in await symphony.log.read_entity("Workflow:r")]
    assert names.count("StateAdopted") == (0 if kind == "same" else 1)
