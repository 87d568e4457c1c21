"""A definition has the content that its hash names, whatever is done with it and with what it was made of."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Self

import pytest

from symphony_es import Symphony, part
from symphony_es.core.objects.frozen import FrozenDict, FrozenList, FrozenSet, copied, freeze
from symphony_es.errors import DefinitionError
from symphony_es.workflow import RetryPolicy, RunContext, Step, WorkflowBuilder, WorkflowDefinition, register_step_kind
from symphony_es.workflow.definitions.nesting import walk
from symphony_es.workflow.definitions.reading import DataReader
from symphony_es.workflow.kinds.function import FunctionStep


def echo(context: RunContext) -> Any:
    """Give back the inputs, after having changed them: they are the step's own."""
    given = copy.deepcopy(context.inputs)
    for inner in context.inputs.values():
        if isinstance(inner, list):
            inner.append("by the step")
    context.inputs.clear()
    return given


@register_step_kind
@dataclass(frozen=True, kw_only=True)
class PayloadStep(Step):
    """A kind of the application's whose reader copies nothing, and whose output is what it holds."""

    kind: ClassVar[str] = "test-payload"

    payload: dict[str, Any] = field(default_factory=dict)

    def data(self) -> dict[str, Any]:
        return {"payload": {"held": self.payload}}

    @classmethod
    def read(cls, reader: DataReader, **common: Any) -> Self:
        return cls(**common, payload=(reader.value("payload") or {"held": {}})["held"])

    async def perform(self, execution: Any) -> Any:
        return self.payload


def _fn(name: str, **more: Any) -> dict[str, Any]:
    return {"kind": "function", "name": name, "function": "echo", "inputs": {"q": [1, {"deep": [2]}], "s": {3}, "t": ([4],)}, **more}


def _all_kinds() -> dict[str, Any]:
    """The dict of a definition in which every kind that holds data holds containers."""
    inner = {"name": "inner", "steps": [_fn("in child")], "context": {"c": [1]}, "cleanup": [_fn("tidy")]}
    return {
        "name": "all",
        "context": {"list": [1], "dict": {"a": [1]}, "set": {1}},
        "metadata": {"owner": ["me"]},
        "output": {"all": ["{{ list }}", [1]]},
        "retry": {"max_attempts": 2, "on": ["ValueError"]},
        "cleanup_on": ["failure"],
        "cleanup": [_fn("sweep")],
        "steps": [
            _fn("call", undo="echo", retry={"max_attempts": 2, "never_on": ["KeyError"]}),
            {"kind": "task", "name": "ask", "template": "q", "model": "echo", "inputs": {"q": [1]}},
            {"kind": "sequence", "name": "seq", "steps": [_fn("in sequence", undo=_fn("take back"))]},
            {"kind": "conditional", "name": "if", "condition": "True", "then": [_fn("yes")], "else": [_fn("no")]},
            {"kind": "parallel", "name": "par", "branches": [_fn("one"), _fn("two")]},
            {"kind": "map", "name": "map", "over": [[1], {"a": [2]}], "step": _fn("each")},
            {"kind": "loop", "name": "loop", "steps": [_fn("again")], "max_iterations": 2},
            {"kind": "wait", "name": "wait", "signal": "go", "within_s": 5, "default": {"d": [1]}},
            {"kind": "workflow", "name": "child", "definition": inner, "context": {"c": [2]}},
            {"kind": "test-payload", "name": "own", "payload": {"held": {"p": [1, {"s": {2}}]}}},
        ],
    }


def _containers(value: Any) -> Iterator[Any]:
    """Every container in a value, itself first."""
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from _containers(item)
    elif isinstance(value, (list, tuple)):
        yield value
        for item in value:
            yield from _containers(item)
    elif isinstance(value, set):
        yield value
    elif isinstance(value, (Step, WorkflowDefinition)):
        for name in dict.fromkeys([*(item.name for item in fields(value)), *vars(value)]):
            yield from _containers(getattr(value, name))


LISTS: list[Callable[[Any], Any]] = [
    lambda held: held.append(1),
    lambda held: held.extend([1]),
    lambda held: held.insert(0, 1),
    lambda held: held.pop(),
    lambda held: held.remove(held[0]),
    lambda held: held.clear(),
    lambda held: held.reverse(),
    lambda held: held.sort(key=id),
    lambda held: held.__setitem__(0, 1),
    lambda held: held.__setitem__(slice(0, 1), []),
    lambda held: held.__delitem__(0),
    lambda held: held.__iadd__([1]),
    lambda held: held.__imul__(2),
    lambda held: held.__init__([1]),
]
DICTS: list[Callable[[Any], Any]] = [
    lambda held: held.__setitem__("new", 1),
    lambda held: held.__delitem__(next(iter(held))),
    lambda held: held.update(new=1),
    lambda held: held.pop(next(iter(held))),
    lambda held: held.popitem(),
    lambda held: held.setdefault("new", 1),
    lambda held: held.clear(),
    lambda held: held.__ior__({"new": 1}),
    lambda held: held.__init__(new=1),
]
SETS: list[Callable[[Any], Any]] = [
    lambda held: held.add("new"),
    lambda held: held.discard(next(iter(held))),
    lambda held: held.remove(next(iter(held))),
    lambda held: held.pop(),
    lambda held: held.clear(),
    lambda held: held.update(["new"]),
    lambda held: held.difference_update(set(held)),
    lambda held: held.intersection_update(set()),
    lambda held: held.symmetric_difference_update({"new"}),
    lambda held: held.__ior__({"new"}),
    lambda held: held.__iand__(set()),
    lambda held: held.__isub__(set(held)),
    lambda held: held.__ixor__({"new"}),
    lambda held: held.__init__(["new"]),
]


def test_every_mutating_method_of_the_builtin_types_is_refused() -> None:
    """Whatever a list, dict or set has for changing it, a frozen one refuses with an error that says what to do."""
    for frozen, ways in ((freeze([3, 1]), LISTS), (freeze({"a": 1}), DICTS), (freeze({1, 2}), SETS)):
        before = copy.copy(frozen)
        for change in ways:
            with pytest.raises(DefinitionError, match="does not change once it is made"):
                change(frozen)
        assert frozen == before


@pytest.mark.parametrize("kind", [FrozenList, FrozenDict, FrozenSet])
def test_no_method_of_the_builtin_type_is_forgotten(kind: type) -> None:
    """Methods that are inherited as they are do not change what they are called on: the ones of an immutable type, and readers."""
    readers = {"copy", "get", "items", "keys", "values", "fromkeys", "index", "count", "isdisjoint", "issubset", "issuperset"}
    reading = {"union", "difference", "intersection", "symmetric_difference", *readers}
    changing = {name for name in dir(kind.__mro__[1]) if not name.startswith("_")} - reading
    changing |= {name for name in ("__setitem__", "__delitem__", "__init__") if name in dir(kind.__mro__[1])}
    changing |= {
        name for name in dir(kind.__mro__[1]) if name.startswith("__i") and name[3:-2] in ("add", "mul", "or", "and", "sub", "xor")
    }
    assert changing <= vars(kind).keys()


def _made(how: str) -> WorkflowDefinition:
    data = _all_kinds()
    if how == "dict":
        return WorkflowDefinition.from_dict(data)
    if how == "class":
        return WorkflowDefinition(**data)
    if how == "steps made by hand":
        return WorkflowDefinition(**{**data, "steps": [replace(Step.from_dict(step), description="") for step in data["steps"]]})
    if how == "replaced":
        return replace(WorkflowDefinition.from_dict(data), description="another")
    if how == "added to":
        return WorkflowDefinition.from_dict({**data, "steps": data["steps"][:-1]}).add_step(data["steps"][-1])
    if how == "pickled":
        return pickle.loads(pickle.dumps(WorkflowDefinition.from_dict(data)))
    if how == "copied":
        return copy.deepcopy(WorkflowDefinition.from_dict(data))
    if how == "of copied steps":
        given = WorkflowDefinition.from_dict(data)
        return replace(given, steps=copy.deepcopy(given.plan), cleanup=[pickle.loads(pickle.dumps(step)) for step in given.cleanup_plan])
    builder = WorkflowBuilder().create("all", metadata=data["metadata"]).with_context(data["context"]).with_output(data["output"])
    builder.with_retry(data["retry"]).cleanup_on("failure").add_cleanup(*data["cleanup"])
    for step in data["steps"]:
        builder.add_step(step)
    return builder.build()


WAYS = ["dict", "class", "steps made by hand", "replaced", "added to", "pickled", "copied", "of copied steps", "builder"]


@pytest.mark.parametrize("how", WAYS)
def test_nothing_that_a_definition_holds_can_be_changed(how: str) -> None:
    """At any depth, of steps inside of steps, children, undos and clean-up: each container refuses, and the version stays."""
    definition = _made(how)
    version = WorkflowDefinition.from_dict(definition.to_dict()).version
    found = [held for held in _containers(definition) if not isinstance(held, tuple)]
    assert len(found) > 60
    for held in found:
        change = {list: LISTS, dict: DICTS, set: SETS}[type(held).__mro__[1]][0]
        with pytest.raises(DefinitionError, match=r"dataclasses\.replace"):
            change(held)
    assert definition.version == version == WorkflowDefinition.from_dict(definition.to_dict()).version


@pytest.mark.parametrize("read", ["to_dict", "get_steps", "step", "nested", "policy"])
def test_what_a_definition_gives_out_is_a_copy(read: str) -> None:
    """Plain containers that may be changed freely, and the definition stays what it is."""
    definition = WorkflowDefinition.from_dict(_all_kinds())
    before = json.dumps(definition.to_dict(), default=sorted)
    given: Any = {
        "to_dict": definition.to_dict,
        "get_steps": definition.get_steps,
        "step": lambda: [step.to_dict() for _, step in walk(definition.plan)],
        "nested": definition.to_nested_dict,
        "policy": lambda: [definition.retry_policy.to_dict()] if definition.retry_policy else [],
    }[read]()
    held = list(_containers(given))
    assert {type(one) for one in held} <= {list, dict, set, tuple}
    for one in held:
        if not isinstance(one, tuple):
            one.clear()
    assert json.dumps(definition.to_dict(), default=sorted) == before


@pytest.mark.parametrize("how", ["dict", "class", "builder", "steps made by hand"])
def test_what_a_definition_was_made_of_may_change(how: str) -> None:
    """The application's own dicts stay its own: what is done with them afterwards is not in the definition."""
    data = _all_kinds()
    if how == "builder":
        builder = WorkflowBuilder().create("all", metadata=data["metadata"]).with_context(data["context"]).with_output(data["output"])
        for step in data["steps"]:
            builder.add_step(step)
        builder.add_function("more", "echo", inputs=data["context"]).add_sequence("nested", data["cleanup"])
        built = builder.build()
    elif how == "steps made by hand":
        mine = {"q": data["context"]["list"]}
        built = WorkflowDefinition(name="all", steps=[FunctionStep(name="a", function="echo", inputs=mine)])
    else:
        built = WorkflowDefinition.from_dict(data) if how == "dict" else WorkflowDefinition(**data)
    version = WorkflowDefinition.from_dict(built.to_dict()).version
    for held in list(_containers(data)):
        if not isinstance(held, tuple):
            held.clear()
    if how == "builder":
        assert WorkflowDefinition.from_dict(builder.build().to_dict()).version == version, "the builder has copies too"
    assert WorkflowDefinition.from_dict(built.to_dict()).version == version == built.version


def test_frozen_values_are_what_they_were() -> None:
    """They equal plain ones, are written as JSON, and give plain ones where they are copied or put together."""
    value = {"l": [1, [2]], "s": {1}, "t": ([3],), "n": None}
    frozen = freeze(value)
    assert frozen == value
    assert repr(frozen) == repr(value)
    assert json.dumps(frozen["l"]) == "[1, [2]]"
    for plain in (copy.deepcopy(frozen), pickle.loads(pickle.dumps(frozen)), copied(frozen)):
        assert plain == value
        assert {type(held) for held in _containers(plain)} == {dict, list, set, tuple}
    assert [type(frozen["s"] | {2}), type(frozen["s"].copy()), type(frozen["s"] - {1})] == [set] * 3
    assert [type(frozen["l"] + [1]), type(frozen["l"][:1]), type(frozen | {})] == [list, list, dict]


def test_parts_of_one_definition_go_into_another() -> None:
    """What one definition holds can be given to another one, also inside of plain data."""
    one = WorkflowDefinition.from_dict(_all_kinds())
    call = one.step("call")
    assert isinstance(call, FunctionStep)
    other = WorkflowDefinition(name="other", context=one.context, steps=[{**_fn("call"), "inputs": {"again": [call.inputs]}}, one.plan[1]])
    assert other.to_dict()["steps"][0]["inputs"] == {"again": [_fn("call")["inputs"]]}
    assert other.context == _all_kinds()["context"]


def test_a_container_in_itself_is_refused_with_its_path() -> None:
    """What cannot be copied because it has no end is a fault of the definition, not a recursion without one."""
    endless: list[Any] = [1]
    endless.append([endless, endless])
    with pytest.raises(DefinitionError, match="nested too deep"):
        WorkflowDefinition(name="n", context={"c": endless})
    with pytest.raises(DefinitionError, match="nested deeper"):
        WorkflowBuilder().create("n").add_function("f", "echo", inputs={"c": endless}).build()


async def test_runs_execute_what_the_hash_names() -> None:
    """An attempt to change the definition changes no run: not the one that is under way, not the next, not a child."""
    data = _all_kinds()
    del data["steps"][1], data["retry"], data["output"]  # no model here
    async with Symphony() as symphony:
        symphony.functions.register("echo", echo)
        definition = WorkflowDefinition.from_dict(data)
        first = await symphony.workflows.start(definition)
        await first.signal("go", None)
        for held in list(_containers(definition)):
            if isinstance(held, list):
                with pytest.raises(DefinitionError):
                    held.append("late")
        await first.result(timeout_s=20)
        second = await symphony.workflows.start(definition)
        await second.signal("go", None)
        await second.result(timeout_s=20)
        for run in (first.run, second.run):
            assert run.outputs["call"] == _fn("call")["inputs"]
            assert run.outputs["own"] == {"p": [1, {"s": {2}}]}
            assert run.context["list"] == [1]
            assert run.definition_hash == WorkflowDefinition.from_dict(run.definition.to_dict()).content_hash


async def test_a_default_of_a_wait_can_be_changed_by_its_readers() -> None:
    """What a wait gives when its time is up is a value like any other: the next step may change its copy."""
    steps = [{"kind": "wait", "name": "w", "signal": "go", "within_s": 0.001, "default": {"d": [1]}}]
    async with Symphony() as symphony:
        handle = await symphony.workflows.start({"name": "n", "steps": steps})
        result = await handle.result(timeout_s=20)
        result["d"].append(2)
        assert handle.run.outputs["w"] == {"d": [1]}


@part
class FrozenBasket:
    """A part of the caller's."""

    items: list[Any] = field(default_factory=list)
    note: str = ""


def _given() -> dict[str, Any]:
    return {"part": FrozenBasket([1]), "in a list": [FrozenBasket([1])], "list": [[1]], "dict": {"a": {"b": [1]}}, "set": {1}}


def _change(given: dict[str, Any]) -> None:
    for basket in (given["part"], given["in a list"][0]):
        basket.items.append("late")
        basket.note = "late"
    given["list"][0].append("late")
    given["dict"]["a"]["b"].append("late")
    given["set"].add("late")
    given["late"] = 1


@pytest.mark.parametrize("how", ["context", "signal", "metadata"])
async def test_what_a_run_was_given_is_its_own(how: str) -> None:
    """What its caller does with the values afterwards is not in the run: with a part that nothing held before as little as with a list."""
    given, steps = _given(), [{"kind": "wait", "name": "w", "signal": "go"}]
    async with Symphony() as symphony:
        begun = {how: given} if how != "signal" else {}
        handle = await symphony.workflows.start({"name": "n", "steps": steps}, **begun)
        if how == "signal":
            await handle.signal("not waited for", given)
        _change(given)
        held = {
            "context": lambda: handle.run.context,
            "metadata": lambda: handle.run.metadata,
            "signal": lambda: handle.run.signals["not waited for"][0],
        }[how]()
        assert dict(held) == _given()


def test_a_policy_is_made_of_copies() -> None:
    """The lists of names are tuples in a policy."""
    names = ["ValueError"]
    policy = RetryPolicy(on=names)  # type: ignore[arg-type]
    names.append("KeyError")
    assert policy.on == ("ValueError",)


@pytest.mark.parametrize("frozen", [freeze([1, [2]]), freeze({"a": [1]}), freeze({1, 2})], ids=["list", "dict", "set"])
def test_its_type_called_makes_a_plain_one(frozen: Any) -> None:
    """`type(x)(...)` takes what the builtin type takes, and what it makes can be changed."""
    plain = type(frozen).__mro__[1]
    assert (type(type(frozen)()), type(type(frozen)(frozen))) == (plain, plain)
    assert type(frozen)(frozen) == frozen
    if plain is dict:
        assert type(frozen)(frozen, b=2, items=3) == {"a": [1], "b": 2, "items": 3}
