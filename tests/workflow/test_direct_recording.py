"""The engine records its runs directly: encoded first, changed afterwards; with the effect that assignments have."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import dataclasses
import enum
import functools
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symphony_es import Symphony, entity, part
from symphony_es.core.objects.plain import kind_of, locate, plain_of
from symphony_es.errors import EntityBusyError, LimitExceededError, UnstorableValueError
from symphony_es.events.changes import APPEND, REMOVE, SET, SPLICE, Change
from symphony_es.events.values import plain_equal
from symphony_es.workflow import RunMoment, Workflow, WorkflowDefinition, WorkflowHook
from symphony_es.workflow.runs.assigning import assign
from tests.core.shadowing import order_of, states_agree

KEYS = ("a", "b", "ä", 7)
MOMENT = datetime(2026, 1, 2, tzinfo=UTC)


class Colour(enum.Enum):
    RED = "red"


@part(name="test_direct_recording.Pin")
class Pin:
    x: int = 0


@entity(type="test_direct_recording.Thing")
class Thing:
    id: str = ""


@dataclasses.dataclass
class Foreign:
    n: int = 0
    of: list[int] = dataclasses.field(default_factory=list)


SCALARS = st.sampled_from([None, True, 0, 1, 2.5, "", "text", "äöü", "long " * 300, b"bytes", Decimal("1.5"), MOMENT])
LIVE = (
    st.sampled_from([(1, "two"), ([1], {"k": [2]}), {1, "x"}, Colour.RED]) | st.builds(Pin) | st.builds(Foreign, st.just(1), st.just([2]))
)
VALUES = st.recursive(
    SCALARS | LIVE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=8,
)
OPERATIONS = st.tuples(st.sampled_from(["set", "append", "extend", "remove", "below", "field"]), st.sampled_from(KEYS), VALUES)


def new_run() -> Workflow:
    definition = WorkflowDefinition(name="d", steps=[{"kind": "function", "name": "s", "function": "f"}])
    return Workflow.of(definition, {"a": [1], "b": {"k": "v"}}, MOMENT)


def change_of(run: Workflow, operation: str, key: Any, value: Any) -> Change:
    """A change that fits the run as it is."""
    held = run.context.get(key)
    if operation == "append" and isinstance(held, list):
        return (APPEND, ("context", key), value)
    if operation == "extend" and isinstance(held, list):
        return (SPLICE, ("context", key), len(held), len(held), [value, value])
    if operation == "remove" and key in run.context:
        return (REMOVE, ("context", key))
    if operation == "below" and isinstance(held, dict):
        return (SET, ("context", key, "k"), value)
    return (SET, ("returned",), value) if operation == "field" else (SET, ("context", key), value)


def places_are_known(node: Any) -> None:
    """Each container and part knows the path at which it stands, so that its next change is recorded there."""

    def walk(value: Any, path: tuple[Any, ...]) -> None:
        if kind_of(value) in ("container", "part"):
            assert locate(value) == (node.__dict__["_symphony_record"], path)
        if isinstance(value, (dict, list)):
            for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                walk(item, (*path, key))

    for name in ("context", "returned", "metadata"):
        walk(getattr(node, name), (name,))


TWICE: dict[str, list[Change]] = {
    "two large items": [(APPEND, ("context", "l"), ["x" * 9000]), (APPEND, ("context", "l"), ["y" * 9000])],
    "an item, and several": [(APPEND, ("context", "l"), 1), (APPEND, ("context", "l"), ["y" * 9000])],
    "a text, twice longer": [(SET, ("context", "t"), "t" * 2000 + "u"), (SET, ("context", "t"), "t" * 2000 + "uv")],
    "replaced, and put in": [(SET, ("context", "l"), 5), (SET, ("context", "m", "k"), 1), (SET, ("context", "m"), 6)],
    "put in, and removed": [(SET, ("context", "m", "k"), 1), (REMOVE, ("context", "m"))],
    "a field, and in it": [(SET, ("returned",), {"a": 1}), (SET, ("returned", "a"), 2)],
    "in a field, and the field": [(SET, ("returned", "b"), 2), (SET, ("returned",), 3)],
    "new, and in it": [(SET, ("context", "n"), [1]), (APPEND, ("context", "n"), 2)],
    "removed, and new": [(REMOVE, ("context", "l")), (SET, ("context", "l"), {"a": [1]})],
}


@pytest.mark.parametrize("changes", TWICE.values(), ids=list(TWICE))
async def test_changes_of_one_place_are_made_in_their_order(changes: list[Change]) -> None:
    """Where a change is of what another one of the same event makes, object, shadow and fold agree all the same."""
    async with Symphony() as symphony:
        run = new_run()
        symphony.entities.add(run)
        run.record("WorkflowNoted", [(SET, ("returned",), {"b": 1}), (SET, ("context", "l"), [0]), (SET, ("context", "m"), {"k": [1]})])
        run.record("WorkflowNoted", [(SET, ("context", "t"), "t" * 2000)])
        run.record("WorkflowNoted", changes)
        await symphony.flush()
        folded = (await symphony.at("latest")).get(f"Workflow:{run.id}")
        held = symphony.world.records[f"Workflow:{run.id}"]
        for name in ("context", "returned"):
            assert plain_equal(folded[name], held.shadow[name])
            assert plain_equal(plain_of(getattr(run, name), symphony.world), held.shadow[name])
        places_are_known(run)


@given(events=st.lists(st.lists(OPERATIONS, min_size=1, max_size=3, unique_by=lambda one: one[1]), min_size=1, max_size=6))
@settings(max_examples=25, deadline=None)
async def test_what_is_recorded_directly_is_what_assignments_record(events: list[list[tuple[str, Any, Any]]]) -> None:
    """For any changes: object, shadow and the fold of the log agree, are what assignments make, and everything knows its place."""
    async with Symphony() as symphony:
        recorded, assigned = new_run(), new_run()
        symphony.entities.add(recorded)
        symphony.entities.add(assigned)
        for operations in events:
            given_to = {run: [change_of(run, *operation) for operation in operations] for run in (recorded, assigned)}
            recorded.record("WorkflowNoted", given_to[recorded], step="s", attempt=2)
            with symphony.world.recording("WorkflowNoted", entity=assigned, step="s", attempt=2):
                assign(assigned, given_to[assigned])
            await states_agree(symphony)
            shadows = [run.__dict__["_symphony_record"].shadow for run in (recorded, assigned)]
            for name in ("context", "returned"):
                assert plain_equal(shadows[0][name], shadows[1][name])
                assert order_of(getattr(recorded, name)) == order_of(getattr(assigned, name))
            places_are_known(recorded)
        heads = [await symphony.log.read_entity(f"Workflow:{run.id}") for run in (recorded, assigned)]
        said = [[(event.version, event.name, event.metadata) for event in events] for events in heads]
        assert said[0] == said[1]


REFUSED: dict[str, tuple[Any, type[Exception]]] = {
    "a surrogate": ("\ud800", UnstorableValueError),
    "a surrogate inside": ({"k": ["\ud800"]}, UnstorableValueError),
    "a key": ({1.5: 1}, UnstorableValueError),
    "a key that is a surrogate": ({"\ud800": 1}, UnstorableValueError),
    "a class": (object(), UnstorableValueError),
    "a class inside": ([{"k": object()}], UnstorableValueError),
    "too deep": (functools.reduce(lambda inner, _: [inner], range(70)), UnstorableValueError),
}


@pytest.mark.parametrize("why", REFUSED)
@pytest.mark.parametrize("change", ["outputs", "append", "field"])
async def test_what_cannot_be_stored_leaves_all_as_it_was(symphony: Symphony, why: str, change: str) -> None:
    """A refusal names the run and where in it; neither run, nor version, nor log has changed, and the next event is recorded."""
    run = new_run()
    symphony.entities.add(run)
    await symphony.flush()
    value, expected = REFUSED[why]
    path = {"outputs": ("outputs", "s"), "append": ("context", "a"), "field": ("returned",)}[change]
    record = run.__dict__["_symphony_record"]
    before = (record.version, symphony.log.head, list(run.context["a"]))
    with pytest.raises(expected) as refused:
        run.record("WorkflowNoted", [(SET, ("attempts", "s"), 1), (APPEND if change == "append" else SET, path, value)])
    assert f"Workflow:{run.id}" in str(refused.value)
    await states_agree(symphony)
    assert (record.version, symphony.log.head, list(run.context["a"])) == before
    assert run.attempts == {}
    run.record("WorkflowNoted", [(SET, ("attempts", "s"), 1)])
    await states_agree(symphony)
    assert run.attempts == {"s": 1}


async def test_what_is_too_large_leaves_all_as_it_was() -> None:
    """An event that nothing can divide is refused with the largest value's place; the run is as it was."""
    async with Symphony() as symphony:
        run = new_run()
        symphony.entities.add(run)
        with pytest.raises(LimitExceededError, match="outputs"):
            run.record("WorkflowNoted", [(SET, ("attempts", "s"), 1), (SET, ("outputs", "s"), b"x" * (20 * 1024 * 1024))])
        assert (run.attempts, run.outputs) == ({}, {})
        await states_agree(symphony)


BROUGHT: list[Any] = [1, "long " * 300, [1, [2]], {"k": {"l": 1}}, (1, [2]), {1}, ["long " * 300], Colour.RED]


@pytest.mark.parametrize("index", range(len(BROUGHT)))
@pytest.mark.parametrize("operation", ["set", "append", "extend", "below", "field"])
async def test_what_has_come_records_its_own_changes(operation: str, index: int) -> None:
    """Each kind of value, put each way: the next change of what it holds is recorded where it stands; the caller's own is not kept."""
    async with Symphony() as symphony:
        value = copy.deepcopy(BROUGHT[index])
        run = new_run()
        symphony.entities.add(run)
        run.record("WorkflowNoted", [change_of(run, operation, "b" if operation == "below" else "a", value)])
        await states_agree(symphony)
        places_are_known(run)
        if isinstance(value, (list, dict, set)):
            value.clear()
        for held in (run.context["a"], run.context["b"].get("k"), run.returned):
            if isinstance(held, list):
                held.append(0)
                held[:] = [*held, 0]
        await states_agree(symphony)


@pytest.mark.parametrize("leaves", [(REMOVE, ("context", "b")), (SET, ("context", "b"), 1)])
async def test_what_has_left_is_free(leaves: Change) -> None:
    """A dict that was taken out or replaced belongs nowhere: changing it records nothing, and it can be put somewhere again."""
    async with Symphony() as symphony:
        run = new_run()
        symphony.entities.add(run)
        held = run.context["b"]
        run.record("WorkflowNoted", [leaves])
        held["k"] = "changed"
        await states_agree(symphony)
        run.metadata["again"] = held
        held["k"] = "once more"
        assert run.metadata["again"] is held
        await states_agree(symphony)


@pytest.mark.parametrize("claim", [True, False])
async def test_an_event_in_a_transaction_is_taken_back_with_it(symphony: Symphony, claim: bool) -> None:
    """Whether the transaction had the run before or not: nothing of the event is left when it is rolled back."""
    run = new_run()
    symphony.entities.add(run)
    await symphony.flush()
    head = symphony.log.head
    with pytest.raises(ZeroDivisionError):
        async with symphony.transaction("Held", claim=[run] if claim else []):
            assert run.record("WorkflowNoted", [(SET, ("outputs", "s"), {"k": [1]})]) is None
            assert run.outputs == {"s": {"k": [1]}}
            raise ZeroDivisionError
    assert run.outputs == {}
    await states_agree(symphony)
    assert symphony.log.head == head


async def test_a_run_that_a_transaction_claims_is_refused(symphony: Symphony) -> None:
    """Outside of the transaction the engine is refused like anybody, and the run is as it was."""
    run = new_run()
    symphony.entities.add(run)
    async with symphony.transaction("Held", claim=[run]):
        with pytest.raises(EntityBusyError):
            await in_another_context(lambda: run.record("WorkflowNoted", [(SET, ("attempts", "s"), 1)]))
    await states_agree(symphony)
    assert run.attempts == {}


async def in_another_context(call: Callable[[], Any]) -> Any:
    async def late() -> Any:
        return call()

    return await asyncio.get_running_loop().create_task(late(), context=contextvars.Context())


async def test_changes_before_it_come_before_it(symphony: Symphony) -> None:
    """What was assigned in any entity before is in the log before the run's event."""
    run, thing = new_run(), Thing()
    symphony.entities.add(run)
    symphony.entities.add(thing)
    run.metadata["tag"] = "x"
    run.record("WorkflowNoted", [(SET, ("attempts", "s"), 1)])
    await symphony.flush()
    names = [event.name for event in await symphony.log.read_entity(f"Workflow:{run.id}")]
    assert names[-1] == "WorkflowNoted"
    assert run.metadata == {"tag": "x"}
    await states_agree(symphony)


@pytest.mark.parametrize("check", ["0", "1"])
async def test_after_each_step_the_run_is_what_the_log_has(monkeypatch: pytest.MonkeyPatch, check: str) -> None:
    """A run of steps of all kinds, with retries, key spaces and all kinds of values: at each moment object, shadow and fold agree."""
    monkeypatch.setenv("SYMPHONY_CHECK", check)
    seen: list[str] = []

    class Compare(WorkflowHook):
        durable = True
        name = "compare"

        async def step_started(self, moment: RunMoment) -> None:
            seen.append(moment.stage)
            await states_agree(moment.symphony)
            places_are_known(moment.run)

        step_completed = step_failed = step_retried = run_completed = step_started

    async with Symphony() as symphony:
        things = {"pin": Pin(1), "foreign": Foreign(1), "colour": Colour.RED, "thing": Thing(), "tuple": (1, [2])}

        def work(context: Any) -> Any:
            context.append("log", {"step": context.step})
            context["last"] = [context.step]
            context.setdefault("names", {})[context.step] = "long " * 300
            if context.attempt < 2:
                raise ValueError(context.step)
            return {**things, "step": context.step}

        symphony.functions.register("work", work)
        step = {"kind": "function", "name": "w", "function": "work", "retry": {"max_attempts": 3, "delay_s": 0}}
        branches = [{**step, "id": name, "name": name, "output_key": "out"} for name in ("one", "two")]
        definition = {
            "name": "all",
            "steps": [
                {**step, "id": "first", "name": "first", "output_key": "said"},
                {"kind": "loop", "id": "l", "name": "l", "max_iterations": 3, "steps": [{**step, "id": "in", "name": "in"}]},
                {"kind": "parallel", "id": "p", "name": "p", "branches": branches},
            ],
        }
        run = await symphony.workflows.execute_workflow(definition, {"log": []}, hooks=[Compare()], auto_checkpoint=False)
        assert run.status == "completed", run.error
        assert seen.count("step_failed") == 6
        await states_agree(symphony)
