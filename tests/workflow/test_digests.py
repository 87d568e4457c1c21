"""What the start of a step says of its input, its code, and what it has read."""

from __future__ import annotations

import array
import collections
import datetime as dt
import decimal
import enum
import functools
import itertools
import json
import os
import pathlib
import re
import subprocess
import sys
import threading
import types
import uuid
import zoneinfo
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symphony_es import Symphony, entity
from symphony_es.errors import HistoryMismatchError
from symphony_es.events.rows import decode_row
from symphony_es.workflow import gather, run_workflow, step, step_with
from symphony_es.workflow.code.digest import code_digest
from symphony_es.workflow.record.canonical import Canonical, digest
from symphony_es.workflow.record.functions import function_digest
from symphony_es.workflow.record.inputs import argument_names, input_of_call, input_of_values
from symphony_es.workflow.record.reads import MAX_EDGES, MOST_OF_A_BODY, short_name
from symphony_es.workflow.record.redaction import Redaction


@dataclass
class Point:
    """A dataclass."""

    x: int
    y: Any = None
    tags: list[str] = field(default_factory=list)


class Colour(enum.Enum):
    """An enum."""

    RED = 1
    BLUE = 2


class Rights(enum.Flag):
    """Flags."""

    READ = 1
    WRITE = 2


class Model(pydantic.BaseModel):
    """A pydantic model."""

    name: str
    parts: list[int] = []


class Pair(NamedTuple):
    """A named tuple."""

    a: int
    b: int


class Plain:
    """An ordinary class."""

    def __init__(self, x: int) -> None:
        self.x = x


class Slotted:
    """A class with slots."""

    __slots__ = ("x",)

    def __init__(self, x: int) -> None:
        self.x = x


class Zone(dt.tzinfo):
    """A time zone whose code fails."""

    def utcoffset(self, moment: dt.datetime | None) -> dt.timedelta:
        raise SystemError("no zone")


class Proxy:
    """Pretends to be of another class, and asks for trouble whatever it is asked."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


async def one(a: int, b: int = 2) -> int:
    """A function."""
    return a + b


async def two(a: int, b: int = 2) -> int:
    """A function."""
    return a - b


VALUES: list[Callable[[], Any]] = [
    lambda: None,
    lambda: True,
    lambda: 1,
    lambda: 1.0,
    lambda: float("nan"),
    lambda: float("inf"),
    lambda: -0.5,
    lambda: 10**40,
    lambda: -(10**40),
    lambda: "1",
    lambda: "a long text that says where it came from",
    lambda: "\ud800 alone",
    lambda: b"1",
    lambda: bytearray(b"1"),
    lambda: 1 + 2j,
    lambda: [],
    lambda: {},
    lambda: (),
    lambda: set(),
    lambda: [1, 2],
    lambda: (1, 2),
    lambda: {1, 2},
    lambda: {"frozen", "set"},
    lambda: {"b": 1, "a": {"d": [1], "c": None}},
    lambda: {1: "one"},
    lambda: {"1": "one"},
    lambda: {(1, 2): 3, None: 4},
    lambda: {"\ud800": 1},
    lambda: collections.OrderedDict(a=1),
    lambda: collections.Counter("aab"),
    lambda: collections.defaultdict(list, a=[1]),
    lambda: collections.deque([1, 2]),
    lambda: types.MappingProxyType({"a": 1}),
    lambda: range(3),
    lambda: slice(1, 2),
    lambda: ...,
    lambda: dt.datetime(2030, 1, 2, 3, 4, 5),
    lambda: dt.datetime(2030, 1, 2, 3, 4, 5, tzinfo=dt.UTC),
    lambda: dt.datetime(2030, 1, 2, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
    lambda: dt.date(2030, 1, 2),
    lambda: dt.time(1, 2),
    lambda: dt.timedelta(seconds=1),
    lambda: decimal.Decimal("1.0"),
    lambda: decimal.Decimal("NaN"),
    lambda: uuid.UUID(int=7),
    lambda: pathlib.Path("a/b"),
    lambda: re.compile("a+", re.IGNORECASE),
    lambda: array.array("i", [1, 2, 3]),
    lambda: Colour.RED,
    lambda: Rights.READ | Rights.WRITE,
    lambda: Point(1),
    lambda: Point(1, tags=["a"]),
    lambda: Point(1, Point(2)),
    lambda: Model(name="a"),
    lambda: Model(name="a", parts=[1]),
    lambda: Pair(1, 2),
    lambda: Plain(1),
    lambda: Plain(2),
    lambda: Slotted(1),
    lambda: Slotted(2),
    lambda: one,
    lambda: two,
    lambda: functools.partial(one, 1),
    lambda: functools.partial(one, 2),
    lambda: len,
    lambda: Point,
    lambda: os,
    lambda: Plain(1).__init__,
]
"""All of these are different, and each is the same whenever it is made."""


def digest_of(value: Any) -> str:
    """The digest of an input that holds a value."""
    return input_of_values({"value": value}, None, arguments=True).digest.hex()


def all_digests() -> list[str]:
    """The digests of all values and functions of this module; run in other processes too."""
    functions = [one, two, functools.partial(one), Point, Plain(1).__init__, len, str.join]
    return [*(digest_of(make()) for make in VALUES), *(function_digest(fn).hex() for fn in functions)]


def test_the_same_values_have_the_same_digest_and_others_have_others() -> None:
    """Each value is made twice; all digests are told apart."""
    first, second = [digest_of(make()) for make in VALUES], [digest_of(make()) for make in VALUES]
    assert first == second
    assert len(set(first)) == len(first), [VALUES[place]() for place, made in enumerate(first) if first.count(made) > 1]


def test_digests_are_the_same_in_another_process_with_another_hash_seed() -> None:
    """A process that hashes texts differently makes the same digests of values and of code."""
    code = "import json; from tests.workflow.test_digests import all_digests; print(json.dumps(all_digests()))"
    environment = {**os.environ, "PYTHONHASHSEED": "4711"}
    told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True, text=True)
    assert json.loads(told.stdout) == all_digests()


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=20) | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=6) | st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
)


def shuffled(value: Any) -> Any:
    """The same value, with dicts that were filled the other way round."""
    if isinstance(value, dict):
        return {key: shuffled(value[key]) for key in reversed(list(value))}
    if isinstance(value, (list, tuple)):
        return type(value)(map(shuffled, value))
    return value


@settings(max_examples=150, deadline=None)
@given(PLAIN, PLAIN)
def test_digests_of_plain_data_follow_equality(value: Any, other: Any) -> None:
    """The order of a dict does not count; of two values that are written differently the digests differ."""
    rules = Redaction(enabled=False)
    mine, again, its = (digest(Canonical(None, rules).of(each)) for each in (value, shuffled(value), other))
    assert mine == again
    if sorted_text(value) != sorted_text(other):
        assert mine != its


def sorted_text(value: Any) -> str:
    """A text that is equal for values whose types and parts are equal."""
    if isinstance(value, dict):
        return "{" + ",".join(sorted(f"{key!r}:{sorted_text(item)}" for key, item in value.items())) + "}"
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__}({','.join(map(sorted_text, value))})"
    return repr(value)


def cyclic() -> list[Any]:
    """A list that holds itself."""
    held: list[Any] = [1]
    held.append({"again": held})
    return held


def doubled() -> list[Any]:
    """Lists that hold each other so often that nobody could write them out."""
    held: list[Any] = [1]
    for _ in range(50):
        held = [held, held]
    return held


def deep() -> list[Any]:
    """A list in a list, 2,000 times."""
    held: list[Any] = []
    for _ in range(2_000):
        held = [held]
    return held


@pytest.mark.parametrize(
    "make",
    [cyclic, doubled, deep, threading.Lock, object, lambda: (n for n in "ab"), lambda: dt.datetime(2030, 1, 1, tzinfo=Zone()), Proxy],
)
def test_what_nobody_can_write_has_a_digest_all_the_same(make: Callable[[], Any]) -> None:
    """Circles, objects that fail whatever they are asked, and more than can be looked at: a digest, the same each time, and no error."""
    found = [input_of_values({"value": make(), "other": 1}, None) for _ in range(2)]
    assert found[0].digest == found[1].digest
    assert found[0].complete is (make is cyclic)


def test_what_an_object_holds_is_part_of_the_digest_and_not_of_the_check() -> None:
    """An object that has worked is another input; a replay, which does not let it work, is not told that its arguments have changed."""
    fresh, worked = (input_of_values({"client": Plain(count)}, None) for count in (0, 3))
    assert (fresh.digest == worked.digest, fresh.check == worked.check) == (False, True)


def test_arguments_count_by_their_parameters() -> None:
    """How an argument is handed over, by place, by name, or by a partial, makes no difference; what a method belongs to does."""
    ways = [((1, 3), {}), ((1,), {"b": 3}), ((), {"b": 3, "a": 1})]
    made = {input_of_call(one, args, kwargs, None).digest for args, kwargs in ways}
    made.add(input_of_call(functools.partial(one, 1), (), {"b": 3}, None).digest)
    assert len(made) == 1
    assert argument_names(Plain(1).__init__, (5,), {}).keys() == {"self", "x"}
    assert argument_names(len, ([],), {}) == {"*0": []}
    assert argument_names([1].count, (1,), {}) == {"self": [1], "*0": 1}


def test_a_secret_counts_by_its_name() -> None:
    """Another key, at any depth and in any position, makes no other input; none at all does."""

    async def call(url: str, api_key: str | None) -> None: ...

    first, second, none = (input_of_call(call, ("u", key), {}, None).digest for key in ("k1", "k2", None))
    assert first == second != none
    assert digest_of({"headers": {"X-Api-Key": "a"}}) == digest_of({"headers": {"X-Api-Key": "b"}})


def wrapping(fn: Callable[..., Any], *, names: bool) -> Callable[..., Any]:
    """A decorator, with functools.wraps or without."""

    async def around(*args: Any) -> Any:
        return await fn(*args)

    return functools.wraps(fn)(around) if names else around


def constant(text: str) -> Callable[..., Any]:
    """A function that closes over a text."""

    async def inner() -> str:
        return text

    return inner


class Level(enum.Enum):
    """Closed over."""

    LOW = 1
    HIGH = 2


def closing_over(value: Any) -> Callable[..., Any]:
    """A function that closes over a value, and over another one after it."""
    other = "o"

    async def inner() -> Any:
        return value, other

    return inner


CLOSED_OVER: dict[str, tuple[Any, Any]] = {
    "text": ("a", "b"),
    "type": (1, True),
    "float": (1, 1.0),
    "none": (None, 0),
    "tuple": ((1, (2, 3)), (1, (2, 4))),
    "frozenset": (frozenset({"a", "b"}), frozenset({"a", "c"})),
    "enum": (Level.LOW, Level.HIGH),
    "decimal": (decimal.Decimal("1.0"), decimal.Decimal("1.00")),
    "time": (dt.datetime(2030, 1, 1, tzinfo=dt.UTC), dt.datetime(2030, 1, 2, tzinfo=dt.UTC)),
    "delta": (dt.timedelta(1), dt.timedelta(2)),
    "uuid": (uuid.UUID(int=1), uuid.UUID(int=2)),
    "pattern": (re.compile("a"), re.compile("b")),
    "range": (range(3), range(4)),
    "function": (one, two),
    "partial": (functools.partial(one, 1), functools.partial(one, 2)),
    "partial-keyword": (functools.partial(one, x=1), functools.partial(one, x=2)),
    "method": ("a".join, "a".strip),
    "class": (decimal.Decimal, uuid.UUID),
    "other-class": ([], {}),
}


@pytest.mark.parametrize("what", CLOSED_OVER)
def test_what_a_function_closes_over_is_part_of_its_code(what: str) -> None:
    """Values that cannot change count as they are, functions and classes by their code, other objects by their class."""
    mine, its = (closing_over(value) for value in CLOSED_OVER[what])
    assert function_digest(mine) == function_digest(closing_over(CLOSED_OVER[what][0]))
    assert function_digest(mine) != function_digest(its)
    if what not in ("partial", "partial-keyword", "method", "function", "class"):  # those are looked at in the same package only
        assert code_digest(mine) == code_digest(closing_over(CLOSED_OVER[what][0]))
        assert code_digest(mine) != code_digest(its)


@pytest.mark.parametrize(
    ("before", "after"),
    [([1], [1, 2]), ({}, {"a": 1}), (set(), {1}), (threading.Lock(), threading.Lock())],
    ids=["list", "dict", "set", "lock"],
)
def test_what_changes_while_the_program_runs_is_no_part_of_the_code(before: Any, after: Any) -> None:
    """A counter or a connection that a function closes over: the code is the same in the next process."""
    assert function_digest(closing_over(before)) == function_digest(closing_over(after))
    assert code_digest(closing_over(before)) == code_digest(closing_over(after))


class Callee:
    """Called as a function."""

    async def __call__(self) -> None: ...


class OtherCallee:
    """Called as a function, with other code."""

    async def __call__(self) -> int:
        return 3


def compiled(source: str) -> Callable[..., Any]:
    """What a source defines as `f`, in a module that is always the same."""
    made: dict[str, Any] = {"__name__": "made"}
    exec(compile(source, "made.py", "exec"), made)
    return made["f"]


@pytest.mark.parametrize(
    ("mine", "its"),
    [
        (one, two),
        (wrapping(one, names=True), wrapping(two, names=True)),
        (wrapping(one, names=False), wrapping(two, names=False)),
        (constant("a"), constant("b")),
        (Callee(), OtherCallee()),
        (Callee, OtherCallee),
        (functools.partial(one), functools.partial(two)),
        (len, max),
        (compiled("def f(): return 'a'"), compiled("def f(): return 'b'")),
        (compiled("def f(): return a()"), compiled("def f(): return b()")),
        (compiled("def f(x='a'): return x"), compiled("def f(x='b'): return x")),
        (compiled("def f(*, x='a'): return x"), compiled("def f(*, x='b'): return x")),
        (compiled("def f(): return [g for g in 'ab']"), compiled("def f(): return [g for g in 'abc']")),
        (compiled("def f():\n  def g(): return 1\n  return g"), compiled("def f():\n  def g(): return 2\n  return g")),
        (compiled("def f(x): return x in {'a', 'b'}"), compiled("def f(x): return x in {'a', 'c'}")),
    ],
    ids=range(15),
)
def test_other_code_has_another_digest(mine: Any, its: Any) -> None:
    """A constant, a name, a default, what is wrapped or closed over, a nested function: each makes other code."""
    assert function_digest(mine) == function_digest(mine)
    assert function_digest(mine) != function_digest(its)
    assert len(function_digest(mine)) == 8


def test_lines_and_places_are_no_part_of_the_code() -> None:
    """The same code further down in a file is the same code; so is a copy of it, and what is put in its place is looked at again."""
    mine, its = compiled("def f(x): return x + 1"), compiled("\n\n\n\ndef f(x): return x + 1")
    assert function_digest(mine) == function_digest(its)
    before = function_digest(mine)
    mine.__code__ = compiled("def f(x): return x + 2").__code__  # type: ignore[attr-defined]
    assert function_digest(mine) != before


# -- on record --------------------------------------------------------------------------------------------------------


@entity
class Parcel:
    """An entity."""

    id: str = ""
    weight: int = 0


async def give(context: Any) -> Any:
    """Gives its inputs."""
    return dict(context.inputs)


async def read_context(context: Any) -> Any:
    """Reads two keys, an output and an entity."""
    return [context["topic"], "none" in context, context.outputs["first"]["t"], context["parcel"].weight]


async def said(symphony: Symphony, run: Any, *names: str) -> list[Any]:
    """The data of a run's events."""
    return [decode_row(row).data for row in await symphony.log.read_entity_rows(f"Workflow:{run.id}") if not names or row[3] in names]


async def test_templates_say_exactly_what_they_read(symphony: Symphony) -> None:
    """Outputs, keys at their places, items, iterations, entities with their versions, conditions: every reference is an edge."""
    symphony.functions.register("give", give)
    symphony.functions.register("read", read_context)
    parcel = Parcel(id="7", weight=1)
    symphony.entities.add(parcel)
    await symphony.flush()
    parcel.weight = 2

    def function(name: str, **inputs: Any) -> dict[str, Any]:
        return {"kind": "function", "name": name, "function": "give", "inputs": inputs}

    steps = [
        function("first", t="{{ topic }}", p="{{ parcel }}", c="{{ context.count }}"),
        function("second", t="{{ step.first.result.t }} {{ topic if count > 5 else count }}"),
        {"kind": "map", "name": "map", "over": "{{ [1, 2] }}", "step": function("each", i="{{ item }} {{ step.second.result.t }}")},
        {"kind": "conditional", "name": "choice", "condition": "count > 0", "then": [function("then", m="{{ step['map'].results }}")]},
        {"kind": "loop", "name": "loop", "max_iterations": 1, "steps": [function("turn", n="{{ iteration }} {{ context }}")]},
        {"kind": "function", "name": "reader", "function": "read"},
    ]
    run = await symphony.workflows.execute_workflow({"name": "w", "steps": steps}, {"topic": "rain", "count": 1, "parcel": parcel})
    assert run.status == "completed", run.error
    attempts = {attempt.step: attempt for attempt in await symphony.workflows.step_attempts(run)}
    assert {step: list(map(str, attempt.reads)) for step, attempt in attempts.items()} == {
        "first": ["//topic", "//parcel", "//count", "Parcel:7@2"],
        "second": ["first", "//count"],
        "map": [],
        "map/0": ["map/0//item", "second"],
        "map/1": ["map/1//item", "second"],
        "choice": ["//count"],
        "choice/then/then": ["map"],
        "loop": [],
        "loop/0/turn": ["loop/0//iteration", "//"],
        "reader": [],
    }
    assert list(map(str, attempts["reader"].body_reads)) == ["//topic", "//none", "first", "//parcel", "Parcel:7@2"]
    assert all(len(attempt.input_digest or b"") == 16 for attempt in attempts.values())
    assert {step for step, attempt in attempts.items() if attempt.code_digest is None} == {"map", "choice", "loop"}
    assert attempts["map/0"].input_digest != attempts["map/1"].input_digest
    assert attempts["map/0"].code_digest == attempts["map/1"].code_digest


async def test_arguments_of_code_say_where_they_came_from(symphony: Symphony) -> None:
    """An argument that is the output of an earlier step has that output's digest; an entity its version."""

    async def made() -> list[str]:
        return ["a text that is long enough", "another"]

    async def taken(words: list[str], parcel: Parcel, n: int) -> None: ...

    parcel = Parcel(id="8")
    symphony.entities.add(parcel)

    @symphony.workflow
    async def flow(parcel: Parcel) -> None:
        await step(taken, await step(made), parcel, 3)

    run = await symphony.workflows.execute_workflow(flow, {"parcel": parcel})
    assert run.status == "completed", run.error
    _, second = await symphony.workflows.step_attempts(run)
    words, read = second.reads
    assert words.digest == digest(Canonical(None, Redaction()).of(list(run.outputs["made"])))[:8]
    assert (read.kind, read.name, read.version) == ("entity", "Parcel:8", 1)


async def test_a_body_that_reads_everything_says_so(symphony: Symphony) -> None:
    """What a step says of its reads does not grow with the context."""

    async def all_keys(context: Any) -> int:
        return len(dict(context))

    async def many(context: Any) -> int:
        return sum(context[f"key{n}"] for n in range(200))

    symphony.functions.register("all", all_keys)
    symphony.functions.register("many", many)
    steps = [{"kind": "function", "name": name, "function": name} for name in ("all", "many")]
    run = await symphony.workflows.execute_workflow({"name": "w", "steps": steps}, {f"key{n}": n for n in range(200)})
    reads = [list(map(str, attempt.body_reads)) for attempt in await symphony.workflows.step_attempts(run)]
    assert reads == [["/"], ["/"]]
    assert MOST_OF_A_BODY < 200


async def test_many_entities_in_an_argument_are_cut_at_a_bound(symphony: Symphony) -> None:
    """The start of a step says at most so many edges, whatever its arguments hold."""

    async def count(parcels: list[Parcel]) -> int:
        return len(parcels)

    parcels = [Parcel(id=f"p{n}") for n in range(MAX_EDGES + 50)]
    for parcel in parcels:
        symphony.entities.add(parcel)

    @symphony.workflow
    async def flow() -> int:
        return int(await step(count, parcels))

    run = await symphony.workflows.execute_workflow(flow)
    (attempt,) = await symphony.workflows.step_attempts(run)
    assert run.result == MAX_EDGES + 50
    assert MAX_EDGES // 2 <= len(attempt.reads) <= MAX_EDGES


async def test_the_events_take_no_more_than_they_may(symphony: Symphony) -> None:
    """At most 32 bytes for the digests and 12 for each edge, in a definition and in code."""
    from symphony_es.events.codec import pack

    symphony.functions.register("give", give)
    inputs = {"t": "{{ step['a step with quite a long name'].result.t }} {{ a_long_key_of_the_context }} {{ k }}"}
    steps = [
        {"kind": "function", "name": "a step with quite a long name", "function": "give", "inputs": {"t": "{{ k }}"}},
        {"kind": "function", "name": "second", "function": "give", "inputs": inputs},
        {"kind": "function", "name": "third", "function": "give"},
    ]
    run = await symphony.workflows.execute_workflow({"name": "w", "steps": steps}, {"k": 1, "a_long_key_of_the_context": 2})
    sizes = [len(pack(data)) - 1 for data in await said(symphony, run, "WorkflowStepStarted")]
    assert all(size <= 32 + 12 * edges for size, edges in zip(sizes, (1, 3, 0), strict=True)), sizes

    @symphony.workflow
    async def flow() -> None:
        await step(one, 1)
        await step(len, [1, 2])

    run = await symphony.workflows.execute_workflow(flow)
    sizes = [len(pack(data)) - 1 for data in await said(symphony, run, "WorkflowStepStarted")]
    sizes = [size + len(pack(list(call))) - len(pack(list(call[:2]))) for size, call in zip(sizes, run.calls[""].values(), strict=True)]
    assert all(size <= 32 + 12 * edges for size, edges in zip(sizes, (0, 1), strict=True)), sizes


async def test_an_error_in_a_template_is_the_step_s(symphony: Symphony) -> None:
    """A template that names what is not there fails the attempt, whose start is on record, as before."""
    symphony.functions.register("give", give)
    step_ = {"kind": "function", "name": "a", "function": "give", "inputs": {"t": "{{ nothing }}"}}
    run = await symphony.workflows.execute_workflow({"name": "w", "steps": [step_]})
    assert (run.status, run.error["type"]) == ("failed", "TemplateError")  # type: ignore[index]
    (attempt,) = await symphony.workflows.step_attempts(run)
    assert (attempt.outcome, len(attempt.input_digest or b"")) == ("failed", 16)


# -- replay -----------------------------------------------------------------------------------------------------------


ARGUMENTS: list[tuple[Any, Any]] = [
    (1, 2),
    ("anna", "fred"),
    (True, 1),
    ([1, 2], [2, 1]),
    ({"a": 1}, {"a": 2}),
    (Point(1), Point(2)),
    (Model(name="a"), Model(name="b")),
    (Colour.RED, Colour.BLUE),
    (dt.date(2030, 1, 1), dt.date(2030, 1, 2)),
    (pathlib.Path("a"), pathlib.Path("b")),
    ((1, Point(1)), (1, Point(2))),
    (None, 0),
]


class Change:
    """What the function of a workflow hands to its step; changed between two executions."""

    value: Any = None


@pytest.mark.parametrize(("before", "after"), ARGUMENTS, ids=[repr(pair)[:40] for pair in ARGUMENTS])
@pytest.mark.parametrize("how", ["positional", "keyword", "in a list", "in gather"])
async def test_another_argument_contradicts_the_record(symphony: Symphony, before: Any, after: Any, how: str) -> None:
    """A step that has completed with one argument is called with another when the function runs again: the run is blocked, and says how."""
    fails = [True]

    async def ship(value: Any) -> str:
        return "shipped"

    async def later() -> None:
        if fails[0]:
            raise ValueError("not yet")

    @symphony.workflow
    async def flow() -> None:
        if how == "keyword":
            await step(ship, value=Change.value)
        elif how == "in gather":
            await gather(step(ship, Change.value), step(ship, "same"))
        else:
            await step(ship, [Change.value] if how == "in a list" else Change.value)
        await step(later)

    Change.value = before
    run = await symphony.workflows.execute_workflow(flow)
    assert run.status == "failed"
    fails[0] = False
    Change.value = after
    run = await symphony.workflows.resume(run)
    assert (run.status, run.error["type"]) == ("blocked", HistoryMismatchError.__name__), run.error  # type: ignore[index]
    assert "ship is on record with other arguments" in run.error["message"]  # type: ignore[index]
    Change.value = before
    run = await symphony.workflows.resume(run)
    assert run.status == "completed", run.error


@pytest.mark.parametrize("make", [threading.Lock, lambda: Plain(len(made)), lambda: (n for n in [1]), lambda: Slotted(len(made))])
async def test_objects_that_live_in_a_process_are_no_contradiction(symphony: Symphony, make: Callable[[], Any]) -> None:
    """A lock, a client that counts, a generator: another one of its class is the same argument."""
    fails = [True]

    async def use(thing: Any) -> None:
        made.append(thing)

    async def later() -> None:
        if fails[0]:
            raise ValueError("not yet")

    @symphony.workflow
    async def flow() -> None:
        await step(use, make())
        await step(later)

    run = await symphony.workflows.execute_workflow(flow)
    fails[0] = False
    run = await symphony.workflows.resume(run)
    assert run.status == "completed", run.error


made: list[Any] = []


async def test_arguments_that_are_not_to_be_compared(symphony: Symphony) -> None:
    """`check_arguments=False` takes what is another each time."""
    fails, count = [True], iter(range(10))

    async def later() -> None:
        if fails[0]:
            raise ValueError("not yet")

    @symphony.workflow
    async def flow() -> None:
        await step_with(check_arguments=False)(one, next(count))
        await step(later)

    run = await symphony.workflows.execute_workflow(flow)
    fails[0] = False
    assert (await symphony.workflows.resume(run)).status == "completed"


@pytest.mark.parametrize("compares", [True, False])
async def test_the_context_of_a_child_run_need_not_be_compared(symphony: Symphony, compares: bool) -> None:
    """As the arguments of a step; where it is, the message names the option of this call."""
    fails, count = [True], iter(range(10))

    @symphony.workflow
    async def inner(number: int) -> int:
        return number

    async def later() -> None:
        if fails[0]:
            raise ValueError("not yet")

    @symphony.workflow
    async def flow() -> int:
        number = await run_workflow(inner, {"number": next(count)}, check_arguments=compares)
        await step(later)
        return number

    run = await symphony.workflows.execute_workflow(flow)
    fails[0] = False
    run = await symphony.workflows.resume(run)
    if compares:
        assert run.status == "blocked"
        assert "run_workflow(…, check_arguments=False)" in (run.error or {})["message"]
    else:
        assert (run.status, run.result) == ("completed", 0)


async def test_a_fork_with_other_arguments_keeps_what_is_before_it(symphony: Symphony) -> None:
    """What a fork changes may be an argument of steps that are kept: they are not called again, and contradict nothing."""

    @symphony.workflow
    async def flow(topic: int) -> Any:
        first = await step(one, topic)
        return await step_with(name="second")(one, first, topic)

    run = await symphony.workflows.execute_workflow(flow, {"topic": 1})
    for changes, result in (({}, 4), ({"topic": 10}, 13)):
        fork = await symphony.workflows.fork(run, at="second", changes=changes)
        done = await symphony.workflows.resume(fork)
        assert (done.status, done.result) == ("completed", result), done.error


async def test_digests_survive_what_takes_a_run_up_again(symphony: Symphony, reopen: Any) -> None:
    """After retry_from, a rewind, and a resume from a checkpoint in another world, each step has the digests that it had."""

    @symphony.workflow
    async def flow(topic: str) -> Any:
        first = await step(give_back, {"topic": topic})
        return await step_with(name="second")(give_back, first)

    async def give_back(value: Any) -> Any:
        return value

    run = await symphony.workflows.execute_workflow(flow, {"topic": "rain"})
    before = [(attempt.step, attempt.input_digest, attempt.code_digest) for attempt in await symphony.workflows.step_attempts(run)]
    await symphony.workflows.retry_from(run, "second")
    after = [(attempt.step, attempt.input_digest, attempt.code_digest) for attempt in await symphony.workflows.step_attempts(run)]
    assert after == [*before, before[1]]
    assert run.status == "completed"


@pytest.mark.parametrize("way", ["rewind", "another world", "fork"])
async def test_digests_and_arguments_survive_a_resume(symphony: Symphony, reopen: Any, way: str) -> None:
    """A run that goes on after a rewind, from a snapshot in another world, or as a fork, finds its arguments as they were."""
    stops = [True]

    async def give_back(value: Any) -> Any:
        return value

    async def last(value: Any) -> Any:
        if stops[0]:
            raise ValueError("not yet")
        return value

    async def flow(topic: str) -> Any:
        point = await step(give_back, Point(1, {"topic": topic}, ["a"]))
        again = await step_with(name="again")(give_back, [point, Model(name=topic), {2, 1}, dt.date(2030, 1, 1)])
        return await step(last, again)

    symphony.workflow(flow)
    run = await symphony.workflows.execute_workflow("flow", {"topic": "rain"})
    assert run.status == "failed"
    before = {attempt.step: attempt.input_digest for attempt in await symphony.workflows.step_attempts(run)}
    chosen = symphony
    stops[0] = False
    if way == "rewind":
        checkpoint = await symphony.create_checkpoint("here")
        assert (await symphony.workflows.resume(run)).status == "completed"
        await symphony.rewind(checkpoint)
        run = await symphony.workflows.get_run(run.id)
    elif way == "another world":
        await symphony.create_checkpoint("here")
        chosen = await reopen()
        chosen.workflow(flow)
        for cls in (Point, Model):
            chosen.types.register(cls)
        await chosen.resume()
        run = await chosen.workflows.get_run(run.id)
    else:
        run = await symphony.workflows.fork(run, at="last")
    run = await chosen.workflows.resume(run)
    assert run.status == "completed", run.error
    last_attempt = (await chosen.workflows.step_attempts(run))[-1]
    assert (last_attempt.step, last_attempt.input_digest) == ("last", before["last"])


async def test_listing_attempts_costs_what_there_are(symphony: Symphony) -> None:
    """Names that digests stand for are looked up in a table: each attempt costs the same, however many others and entities there are."""

    async def work(context: Any) -> int:
        return int(context["a_long_name"])

    symphony.functions.register("work", work)
    made = []
    for number in (20, 80):
        each = {
            "kind": "map",
            "name": "items",
            "over": list(range(number)),
            "as": "a_long_name",
            "step": {"kind": "function", "name": "w", "function": "work"},
        }
        run = await symphony.workflows.execute_workflow({"name": "many", "steps": [each]}, auto_checkpoint=False)
        before = short_name.cache_info()
        attempts = await symphony.workflows.step_attempts(run)
        after = short_name.cache_info()
        made.append(after.hits + after.misses - before.hits - before.misses)
        assert [str(read) for attempt in attempts[1:] for read in attempt.body_reads] == [
            f"items/{at}//a_long_name" for at in range(number)
        ]
    assert made[1] <= 5 * made[0]


FLAG: Any = True


async def flagged() -> Any:
    """Reads a flag of its module, in a function inside of it."""
    return [FLAG for _ in range(1)]


def reading(flag: Any, **more: Any) -> types.FunctionType:
    """The function in a module with another value of the flag."""
    return types.FunctionType(flagged.__code__, {"__name__": __name__, "FLAG": flag, **more}, "flagged")


FLAGS = [True, False, None, 1, 2.5, "on", b"on", (1, ("a", 2)), ()]


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(FLAGS, 2)))
def test_a_flag_in_a_module_is_part_of_the_code(one: Any, other: Any) -> None:
    """What blocked a run may have been a flag: with another value of it the code is tried again, with the same one it is not."""
    assert code_digest(reading(one)) == code_digest(reading(one))
    assert code_digest(reading(one)) != code_digest(reading(other))


def test_what_a_module_holds_beside_that_is_no_part_of_the_code() -> None:
    """Other names, what Python gives a module, and lists, dicts and objects, which change while a program runs."""
    assert code_digest(reading(True)) == code_digest(reading(True, OTHER=1, __file__="elsewhere"))
    assert len({code_digest(reading(value)) for value in ([1], [2], {}, {"a": 1}, object())}) == 1


@pytest.mark.parametrize(
    "given",
    [
        lambda work: work,
        lambda work: functools.partial(work, 1),
        lambda work: [{"deep": work}],
        lambda work: type("WithMethod", (), {"__module__": __name__, "__qualname__": "WithMethod", "method": work}),
    ],
    ids=["function", "partial", "inside", "class"],
)
def test_the_code_of_a_function_among_the_arguments_is_no_contradiction(given: Callable[[Any], Any]) -> None:
    """Another version of Python compiles it to other code, and a run goes on there; the digest of the input still tells them apart."""

    def compiled(otherwise: bool) -> Any:
        if otherwise:

            def work(value: int) -> int:
                return value * 2
        else:

            def work(value: int) -> int:
                return value << 1

        return work

    one, other = (input_of_values({"work": given(compiled(otherwise))}, None, arguments=True) for otherwise in (False, True))
    assert one.digest != other.digest
    assert one.check == other.check
