"""The context of a step: buffered writes, recorded as differences when the step completes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symphony_es import EntityReference, Symphony, entity, part
from symphony_es.workflow import RunContext, Workflow, WorkflowDefinition


@part(name="test_run_context.Point")
class Point:
    x: int = 0


@entity(type="test_run_context.Thing")
class Thing:
    name: str = ""


async def run_once(symphony: Symphony, function: Any, context: dict[str, Any]) -> Workflow:
    symphony.functions.register("step", function, replace=True)
    definition = WorkflowDefinition(name="x", steps=[{"kind": "function", "name": "step", "function": "step"}])
    run = await symphony.workflows.execute_workflow(definition, context, auto_checkpoint=False)
    assert run.status == "completed", run.error
    return run


async def changes_of(symphony: Symphony, run: Workflow) -> list[tuple[Any, ...]]:
    """What the step's completion changed in the context."""
    events = await symphony.log.read_entity(f"Workflow:{run.id}")
    (completed,) = [event for event in events if event.name == "WorkflowStepCompleted"]
    return [tuple(change) for change in completed.changes if change[1][0] == "context"]


async def test_it_is_a_mapping_that_sees_its_own_writes(symphony: Symphony) -> None:
    """Reading, writing, deleting, iterating and counting agree with each other before anything is recorded."""

    def work(context: RunContext) -> None:
        context["new"] = 1
        del context["old"]
        context.setdefault("list", []).append("x")
        context["kept"] = "kept"
        assert (sorted(context), len(context)) == (["kept", "list", "new"], 3)
        assert "old" not in context
        assert "new" in context
        assert context.get("old") is None
        with pytest.raises(KeyError):
            context["old"]
        with pytest.raises(KeyError):
            del context["old"]
        assert context.step == "step"
        assert context.attempt == 1

    run = await run_once(symphony, work, {"old": 1, "kept": "kept"})
    assert run.context == {"kept": "kept", "new": 1, "list": ["x"]}


@pytest.mark.parametrize(
    ("before", "write", "operations"),
    [
        (["a"] * 50, lambda value: value.append("b"), 1),
        (["a"] * 50, lambda value: value.extend(["b", "c"]), 1),
        (["a", "b", "c"], lambda value: value.remove("b"), 1),
        ({"a": {"b": [1]}}, lambda value: value["a"]["b"].append(2), 1),
        ({"a": 1, "b": 2}, lambda value: value.pop("a"), 1),
        ({1, 2}, lambda value: value.add(3), 1),
        ({1, 2}, lambda value: value.discard(1), 1),
        (["a"] * 50, lambda value: value[:], 0),
        ({"a": [1]}, lambda value: value["a"][0], 0),
    ],
)
async def test_only_the_difference_is_recorded(symphony: Symphony, before: Any, write: Any, operations: int) -> None:
    """Changing what the context hands out is one small change, and reading it is none."""
    expected = type(before)(before) if not isinstance(before, dict) else {"a": {"b": [1]}} if before == {"a": {"b": [1]}} else dict(before)
    write(expected)
    run = await run_once(symphony, lambda context: write(context["value"]) and None, {"value": before})
    assert run.context["value"] == expected
    changes = await changes_of(symphony, run)
    assert len(changes) == operations
    assert len(repr(changes)) < 120


async def test_append_costs_the_value_alone(symphony: Symphony) -> None:
    """`context.append` reads nothing; mixed with reads and assignments the order of writes is kept."""

    def work(context: RunContext) -> None:
        context.append("log", 3)
        context.append("log", 4)
        context.append("fresh", 1)
        context.append("read", 2)
        assert context["read"] == [1, 2]
        context.append("read", 3)
        context.append("replaced", 9)
        context["replaced"] = []
        context.append("replaced", 1)

    run = await run_once(symphony, work, {"log": [1, 2], "read": [1], "replaced": [5]})
    assert run.context == {"log": [1, 2, 3, 4], "fresh": [1], "read": [1, 2, 3], "replaced": [1]}


async def test_a_write_that_changes_nothing_is_not_recorded(symphony: Symphony) -> None:
    """Equal by type and value is equal; 1 and True are not."""

    def work(context: RunContext) -> None:
        context["number"] = 1
        context["list"] = [1]
        context["was one"] = True

    run = await run_once(symphony, work, {"number": 1, "list": [1], "was one": 1})
    assert [change[1] for change in await changes_of(symphony, run)] == [("context", "was one")]
    assert run.context["was one"] is True


async def test_entities_and_parts_can_be_held(symphony: Symphony) -> None:
    """An entity is held live and stored as its reference; a part is a copy that can be changed."""
    thing = symphony.entities.add(Thing(name="x"))

    def write(context: RunContext) -> None:
        context["thing"] = thing
        context["point"] = Point(x=1)
        context["mixed"] = [thing, Point(x=2)]

    def change(context: RunContext) -> str:
        context["point"].x += 1
        context["mixed"][1].x += 1
        return str(context["thing"].name)

    symphony.functions.register("write", write)
    symphony.functions.register("change", change)
    definition = WorkflowDefinition(name="x", steps=[{"kind": "function", "name": name, "function": name} for name in ("write", "change")])
    run = await symphony.workflows.execute_workflow(definition, auto_checkpoint=False)
    assert run.outputs["change"] == "x", run.error
    assert (run.context["thing"], run.context["point"].x, run.context["mixed"][1].x) == (thing, 2, 3)
    states = symphony.at(symphony.log.head)
    state = (await states if hasattr(states, "__await__") else states).get(f"Workflow:{run.id}")
    assert state["context"]["thing"] == EntityReference("test_run_context.Thing", thing.id)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


@given(before=st.dictionaries(st.text(max_size=2), plain, max_size=4), after=st.dictionaries(st.text(max_size=2), plain, max_size=4))
@settings(max_examples=40, deadline=None)
def test_whatever_a_step_makes_of_the_context_is_what_the_run_holds(before: dict[str, Any], after: dict[str, Any]) -> None:
    """For any two plain states, writing the second over the first leaves exactly the second."""
    import asyncio

    async def check() -> None:
        async with Symphony() as symphony:
            await symphony.setup()

            def work(context: RunContext) -> None:
                for key in list(context):
                    if key not in after:
                        del context[key]
                context.update(after)

            run = await run_once(symphony, work, before)
            assert run.context == after
            fold = await symphony.workflows.get_workflow_results(run)
            assert fold["context"] == after

    asyncio.run(check())
