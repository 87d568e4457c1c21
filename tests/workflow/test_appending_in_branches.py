"""Appending to a list inside a branch costs what it appends, and reads as if the branch had a list of its own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from symphony_es import Symphony
from symphony_es.events.values import plain_equal
from symphony_es.workflow.runs.outputs import Frame, TemplateScope
from symphony_es.workflow.runs.spaces import space_at
from symphony_es.workflow.runs.thawing import thaw
from tests.conftest import Opener

Body = Callable[[Any], Any]


def definition(*functions: str, items: int = 3, kind: str = "map") -> dict[str, Any]:
    """A definition whose branches call functions one after the other, and which gives what they wrote."""
    steps = [{"kind": "function", "id": name, "name": name, "function": name} for name in functions]
    inner = {"kind": "sequence", "id": "all", "name": "all", "steps": steps}
    if kind == "map":
        outer: dict[str, Any] = {"kind": "map", "id": "m", "name": "m", "over": list(range(items)), "step": inner}
    else:
        branches = [{**inner, "id": f"b{at}", "name": f"b{at}"} for at in range(items)]
        outer = {"kind": "parallel", "id": "m", "name": "m", "branches": branches}
    return {"name": "w", "id": "w", "steps": [outer]}


def appends(context: Any) -> None:
    context.append("log", "new")


def reads_and_appends(context: Any) -> None:
    context["log"].append("new")


def appends_twice(context: Any) -> None:
    context.append("log", "a")
    context.append("log", ["b"])


def appends_after_a_look(context: Any) -> None:
    assert "new" not in context["log"]
    context.append("log", "new")


ONLY_BEHIND = (appends, reads_and_appends, appends_twice, appends_after_a_look)


@pytest.mark.parametrize("kind", ["map", "parallel"])
@pytest.mark.parametrize("body", ONLY_BEHIND)
async def test_what_is_recorded_does_not_grow_with_the_list(symphony: Symphony, body: Body, kind: str) -> None:
    """What branches record that append has as many bytes with a list of 5,000 around them as with one of 200."""
    symphony.functions.register("body", body)
    sizes = []
    for size in (200, 5_000):
        run = await symphony.workflows.execute_workflow(definition("body", kind=kind), {"log": [7] * size}, auto_checkpoint=False)
        rows = await symphony.log.read_entity_rows(f"Workflow:{run.id}", 1)
        sizes.append(sum(len(row[4]) for row in rows if row[3] == "WorkflowStepCompleted"))
        view = TemplateScope(Frame(run, steps=run.definition.plan))["step"]["m"]["contexts"]
        for branch in view:
            assert thaw(view[branch]["log"])[: size + 1][:-1] == [7] * size
            assert len(view[branch]["log"]) == size + (2 if body is appends_twice else 1)
    assert abs(sizes[0] - sizes[1]) <= 6 * 3  # the number of the items before


def plain_append(log: list[Any], at: int) -> None:
    log.append(at)


def several(log: list[Any], at: int) -> None:
    log += [at, [at]]


def put_first(log: list[Any], at: int) -> None:
    log.insert(0, at)


def clear(log: list[Any], at: int) -> None:
    log.clear()


def change_inside(log: list[Any], at: int) -> None:
    log[0] = at


def nothing(log: list[Any], at: int) -> None:
    assert len(log) >= 0


EDITS = (plain_append, several, put_first, clear, change_inside, nothing)
SEQUENCES = st.lists(
    st.tuples(st.sampled_from(["append", "edit", "set", "delete", "read"]), st.sampled_from(range(len(EDITS)))), max_size=5
)


class _Own:
    """What a branch is to see: the list around it, until it has a list of its own."""

    def __init__(self, around: list[Any]) -> None:
        self.around = around
        self.own: list[Any] | None = None

    def read(self) -> list[Any]:
        return self.around if self.own is None else self.own

    def do(self, action: str, edit: int, at: int) -> None:
        if action == "append":
            self.own = [*self.read(), at]
        elif action == "edit":
            changed = copy.deepcopy(self.read())
            EDITS[edit](changed, at)
            if changed != self.read():
                self.own = changed
        elif action == "set":
            self.own = [at]
        elif action == "delete":
            self.own = None


def do(context: Any, expected: _Own, action: str, edit: int, at: int) -> None:
    """One action in a step, and in the plain model of it."""
    if action == "append":
        context.append("log", at)
    elif action == "edit":
        if not (edit in (3, 4) and not expected.read()):
            EDITS[edit](context["log"], at)
    elif action == "set":
        context["log"] = [at]
    elif action == "delete" and expected.own is not None:
        del context["log"]
    if not (action == "edit" and edit in (3, 4) and not expected.read()):
        expected.do(action, edit, at)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(SEQUENCES, min_size=1, max_size=4), around=st.lists(st.sampled_from([1, "x", [2]]), max_size=4))
async def test_a_branch_reads_what_it_would_with_a_list_of_its_own(steps: list[Any], around: list[Any]) -> None:
    """Whatever the steps of a branch do to a list, each step reads what a plain list would have, and so does a new process's fold."""
    symphony = Symphony(persistence_enabled=False)
    await symphony.setup()
    expected = _Own(copy.deepcopy(around))

    def body(context: Any) -> None:
        number = int(context.step.rpartition("s")[2])
        assert context["log"] == expected.read()
        context_again = context
        for at, (action, edit) in enumerate(steps[number]):
            do(context_again, expected, action, edit, number * 10 + at)
            if action == "read":
                assert context["log"] == expected.read()

    names = [f"s{number}" for number in range(len(steps))]
    for name in names:
        symphony.functions.register(name, body)
    run = await symphony.workflows.execute_workflow(definition(*names, items=1), {"log": around}, auto_checkpoint=False)
    assert run.status == "completed", run.error
    assert thaw(run.context["log"]) == around
    frame = Frame(run, "m/0/", outer=Frame(run), key_space="m/0")
    assert thaw(TemplateScope(frame)["log"]) == expected.read()
    folded = (await symphony.state_history.states_at(symphony.log.head)).states[f"Workflow:{run.id}"]
    assert plain_equal(folded.data["appended"], thaw(run.appended))
    assert plain_equal(folded.data["scopes"], thaw(run.scopes))
    await symphony.close()


async def test_branches_inside_branches_stand_on_each_other(symphony: Symphony) -> None:
    """A list that is appended to at three levels is, at each, what stands around it and what that level has put behind."""
    seen: dict[str, list[Any]] = {}

    def body(context: Any) -> None:
        context.append("log", context.step)
        seen[context.step] = list(context["log"])

    symphony.functions.register("body", body)
    call = {"kind": "function", "function": "body"}
    inner = {"kind": "map", "id": "in", "name": "in", "over": [0, 1], "step": {**call, "id": "c", "name": "c"}}
    both = {"kind": "sequence", "id": "s", "name": "s", "steps": [{**call, "id": "before", "name": "before"}, inner]}
    nested = {
        "name": "w",
        "steps": [{**call, "id": "f", "name": "f"}, {"kind": "map", "id": "out", "name": "out", "over": [0], "step": both}],
    }
    run = await symphony.workflows.execute_workflow(nested, {"log": ["given"]}, auto_checkpoint=False)
    assert run.status == "completed", run.error
    assert sorted(map(len, seen.values())) == [2, 3, 4, 4]
    for step, log in seen.items():
        assert log[-1] == step
        assert log[:2] == ["given", "f"]


async def test_a_fork_a_retry_and_a_restart_keep_what_was_appended(symphony: Symphony, reopen: Opener) -> None:
    """What a branch has appended is taken over by a fork, dropped with its item by `retry_from`, and there after a restart."""

    def look(context: Any) -> list[Any]:
        return list(context["log"])

    symphony.functions.register("appends", appends)
    symphony.functions.register("look", look)
    run = await symphony.workflows.execute_workflow(
        definition("appends", "look", items=3), {"log": [1]}, auto_checkpoint=False, run_id="run"
    )
    assert thaw(run.outputs["m"]) == [[1, "new"]] * 3
    fork = await symphony.workflows.fork(run, at="m/1/look", run_id="fork")
    await symphony.workflows.resume(fork, auto_checkpoint=False)
    assert thaw(fork.outputs["m"]) == [[1, "new"]] * 3
    await symphony.workflows.retry_from(run, "m/1", auto_checkpoint=False)
    assert thaw(run.outputs["m"]) == [[1, "new"]] * 3
    again = await reopen()
    again.functions.register("appends", appends)
    again.functions.register("look", look)
    await again.entities.load("Workflow:run")
    held = again.world.get("Workflow:run")
    assert {address: list(space_at(held, address)["log"]) for address in held.appended} == {f"m/{at}": [1, "new"] for at in range(3)}
