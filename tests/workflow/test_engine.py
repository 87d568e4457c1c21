"""Runs: what a sequential run does, and what stands in the log afterwards."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.errors import (
    ConfigurationError,
    DefinitionError,
    DetachedEntityError,
    IllegalTransitionError,
    NotRegisteredError,
    RunInterruptedError,
    RunsInProgressError,
    UnstorableValueError,
)
from symphony_es.workflow import RunContext, WorkflowDefinition, WorkflowStatus


def steps(*names: str) -> list[dict[str, Any]]:
    return [{"kind": "function", "name": name, "function": name} for name in names]


def flow(*names: str, **fields: Any) -> WorkflowDefinition:
    return WorkflowDefinition(name="flow", steps=steps(*names), **fields)


async def events_of(symphony: Symphony, key: str) -> list[Any]:
    return [event for event in await symphony.log.read_entity(key) if True]


async def test_a_run_carries_values_from_step_to_step(symphony: Symphony) -> None:
    """Functions read the context and the outputs of earlier steps, write the context, and return their output."""

    async def plan(context: RunContext) -> dict[str, Any]:
        context["sections"] = ["a", "b"]
        return {"title": context["topic"].upper(), "missing": context.get("nothing", 7)}

    def write(context: RunContext) -> str:
        context["sections"].append("c")
        return f"{context.outputs['plan']['title']}: {len(context['sections'])} in thread {threading.current_thread().name}"

    symphony.functions.register("plan", plan)
    symphony.functions.register("write", write)
    run = await symphony.workflows.execute_workflow(flow("plan", "write", context={"topic": "sun"}), {"topic": "rain"})
    assert run.status == "completed"
    assert run.status is WorkflowStatus.COMPLETED
    assert run.outputs["plan"] == {"title": "RAIN", "missing": 7}
    assert run.outputs["write"].startswith("RAIN: 3 in thread ")
    assert "MainThread" not in run.outputs["write"]
    assert run.context == {"topic": "rain", "sections": ["a", "b", "c"]}
    assert run.error is None
    assert run.created_at <= run.started_at <= run.ended_at  # type: ignore[operator]
    assert run.definition == flow("plan", "write", context={"topic": "sun"})
    assert symphony.registry.get("workflow_engine").active_runs == []


async def test_a_step_is_two_small_events_whose_metadata_name_it(symphony: Symphony) -> None:
    """Start and completion change their own keys only; the run id is not repeated where the entity says it."""
    symphony.functions.register("one", lambda context: context.append("log", "x" * 10))
    symphony.functions.register("two", lambda context: context.append("log", "y"))
    run = await symphony.workflows.execute_workflow(flow("one", "two"), auto_checkpoint=False)
    events = await events_of(symphony, f"Workflow:{run.id}")
    assert [event.name for event in events] == [
        "WorkflowCreated",
        "WorkflowStarted",
        "WorkflowStepStarted",
        "WorkflowStepCompleted",
        "WorkflowStepStarted",
        "WorkflowStepCompleted",
        "WorkflowCompleted",
    ]
    started, completed = events[4], events[5]
    assert [list(change) for change in started.changes] == [[0, ("attempts", "two"), 1]]
    paths = {tuple(change[1]) for change in completed.changes}
    assert paths == {("context", "log"), ("outputs", "two")}
    assert (started.metadata.step, completed.metadata.step) == ("two", "two")
    assert {event.metadata.run_id for event in events} == {None}
    assert run.context["log"] == ["x" * 10, "y"]


async def test_what_a_step_changes_elsewhere_is_attributed_and_stands_before_its_completion(symphony: Symphony) -> None:
    """Other entities' events name run, step, attempt and the start as their cause; actor and reason stay the caller's."""
    agent = await symphony.agents.create_agent(name="worker")

    def work(context: RunContext) -> None:
        assert threading.current_thread() is not threading.main_thread()
        agent.config["seen"] = context.run_id

    symphony.functions.register("work", work)
    with symphony.acting_as("alice"):
        run = await symphony.workflows.execute_workflow(flow("work"), auto_checkpoint=False)
    changed = (await events_of(symphony, f"Agent:{agent.id}"))[-1]
    by_name = {event.name: event for event in await events_of(symphony, f"Workflow:{run.id}")}
    assert changed.name == "AgentChanged"
    assert (changed.metadata.run_id, changed.metadata.step, changed.metadata.attempt) == (run.id, "work", 1)
    assert changed.metadata.cause == by_name["WorkflowStepStarted"].event_id
    assert changed.metadata.actor == by_name["WorkflowCompleted"].metadata.actor == "alice"
    assert by_name["WorkflowStepStarted"].position < changed.position < by_name["WorkflowStepCompleted"].position


async def test_a_failing_step_ends_the_run_and_leaves_nothing_in_the_context(symphony: Symphony) -> None:
    """The run is returned as failed with type, message, traceback and step; what the attempt wrote is dropped; it can be resumed."""
    broken = True

    def shaky(context: RunContext) -> str:
        context["half"] = "written"
        if broken:
            raise ValueError("no such weather \udcff")
        return "done"

    symphony.functions.register("first", lambda context: 1)
    symphony.functions.register("shaky", shaky)
    run = await symphony.workflows.execute_workflow(flow("first", "shaky"))
    assert run.status == "failed"
    assert run.error is not None
    assert (run.error["type"], run.error["message"], run.error["step"]) == ("ValueError", "no such weather \\udcff", "shaky")
    assert "in shaky" in run.error["traceback"]
    assert run.context == {}
    assert run.steps == {"first": {"status": "completed", "attempts": 1}, "shaky": {"status": "failed", "attempts": 1}}
    assert run.failures == {"shaky": {"type": "ValueError", "message": "no such weather \\udcff", "attempt": 1, "count": 1}}
    assert (run.step_status("shaky"), run.step_status("never")) == ("failed", "pending")
    failed = [event for event in await events_of(symphony, f"Workflow:{run.id}") if event.name == "WorkflowStepFailed"]
    assert failed[0].data["message"] == "no such weather \\udcff"
    assert await symphony.workflows.recover() == []

    broken = False
    assert await symphony.workflows.execute_workflow_by_id(run.id) is run
    assert run.status == "completed"
    assert run.error is None
    assert run.outputs == {"first": 1, "shaky": "done"}
    assert run.steps["shaky"] == {"status": "completed", "attempts": 2}
    assert run.failures == {}
    assert run.context == {"half": "written"}


@pytest.mark.parametrize(
    ("function", "error_type", "told"),
    [
        (lambda context: object(), "UnstorableValueError", "outputs.step"),
        (lambda context: {"a": [1, {2.5: "x"}]}, "UnstorableValueError", "outputs.step.a[1]"),
        (lambda context: context.update(bad=lambda: 1), "UnstorableValueError", "context.bad"),
        (lambda context: context.append("topic", 1), "TypeError", "not a list"),
        (lambda context: context["nothing"], "KeyError", "nothing"),
        (lambda context: context.outputs["nothing"], "KeyError", "there is no step 'nothing'"),
        (lambda context: context.outputs["step"], "KeyError", "has not completed yet"),
        (lambda: 1, "TypeError", "positional argument"),
    ],
)
async def test_what_cannot_be_stored_or_found_fails_the_step_with_its_path(
    symphony: Symphony, function: Any, error_type: str, told: str
) -> None:
    """Nothing is dropped in silence: the step fails, the message says where, and the run can be resumed."""
    symphony.functions.register("step", function)
    run = await symphony.workflows.execute_workflow(flow("step"), {"topic": "rain"}, auto_checkpoint=False)
    assert run.status == "failed"
    assert run.error is not None
    assert run.error["type"] == error_type
    assert told in run.error["message"]
    assert run.context == {"topic": "rain"}
    assert run.outputs == {}


async def test_an_error_whose_message_cannot_be_made_is_still_on_record(symphony: Symphony) -> None:
    """An exception with a broken __str__ ends the run like any other; a long traceback keeps its innermost calls."""

    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    def deep(context: RunContext, n: int = 400) -> None:
        if n == 0:
            raise Broken
        (deep if n % 2 else lambda c, m: deep(c, m))(context, n - 1)

    symphony.functions.register("deep", deep)
    run = await symphony.workflows.execute_workflow(flow("deep"), auto_checkpoint=False)
    assert run.error is not None
    assert run.error["message"] == "(its message could not be made: RuntimeError)"
    assert len(run.error["traceback"]) <= 8_001


async def test_faults_of_the_call_raise_before_anything_is_appended(symphony: Symphony) -> None:
    """A missing function, a faulty definition, an unstorable context, a wrong policy: the log stays as it was."""
    before = symphony.log.head
    with pytest.raises(NotRegisteredError, match="nobody"):
        await symphony.workflows.execute_workflow(flow("nobody"))
    with pytest.raises(DefinitionError):
        await symphony.workflows.execute_workflow({"name": "x", "steps": [{"kind": "nothing", "name": "x"}]})
    with pytest.raises(UnstorableValueError, match=r"context\.bad"):
        await symphony.workflows.execute_workflow(flow(), {"bad": object()})
    with pytest.raises(ConfigurationError, match="auto_checkpoint"):
        await symphony.workflows.execute_workflow(flow(), auto_checkpoint=3)  # type: ignore[arg-type]
    await symphony.flush()
    assert symphony.log.head == before


async def test_the_output_key_puts_an_output_into_the_context(symphony: Symphony) -> None:
    """The output is written with the completion, under both names."""
    symphony.functions.register("make", lambda context: [1, 2])
    symphony.functions.register("use", lambda context: sum(context["made"]))
    definition = WorkflowDefinition(name="x", steps=[{**steps("make")[0], "output_key": "made"}, *steps("use")])
    run = await symphony.workflows.execute_workflow(definition)
    assert (run.outputs["use"], run.context["made"]) == (3, [1, 2])


async def test_inputs_are_rendered_for_the_function(symphony: Symphony) -> None:
    """Templates in inputs read the context and outputs by name or id, keep types, and are copies."""

    def first(context: RunContext) -> dict[str, Any]:
        return {"numbers": [1, 2]}

    def second(context: RunContext) -> Any:
        context.inputs["all"].append(3)
        return context.inputs

    symphony.functions.register("first", first)
    symphony.functions.register("second", second)
    inputs = {"all": "{{ step.one.result.numbers }}", "last": "{{ step['number one'].result.numbers[-1] }}", "text": "on {{ topic }}"}
    definition = WorkflowDefinition(
        name="x",
        steps=[
            {"kind": "function", "id": "one", "name": "number one", "function": "first"},
            {"kind": "function", "name": "second", "function": "second", "inputs": inputs},
        ],
    )
    run = await symphony.workflows.execute_workflow(definition, {"topic": "rain"})
    assert run.outputs == {"one": {"numbers": [1, 2]}, "second": {"all": [1, 2, 3], "last": 2, "text": "on rain"}}
    context_of_names = await symphony.workflows.execute_workflow(
        WorkflowDefinition(name="y", steps=[{**steps("second")[0], "inputs": {"all": "{{ step.nobody.result }}"}}])
    )
    assert context_of_names.error is not None
    assert context_of_names.error["type"] == "TemplateError"
    assert "step.nobody.result" in context_of_names.error["message"]


async def test_many_runs_at_once_do_not_disturb_each_other(symphony: Symphony) -> None:
    """Runs of one process are concurrent: each has its own context and outputs, all complete."""

    async def slow(context: RunContext) -> int:
        await asyncio.sleep(0)
        context["own"] = context["n"]
        return int(context["n"])

    symphony.functions.register("a", slow)
    symphony.functions.register("b", slow)
    runs = await asyncio.gather(*(symphony.workflows.execute_workflow(flow("a", "b"), {"n": n}, auto_checkpoint=False) for n in range(20)))
    assert [run.outputs for run in runs] == [{"a": n, "b": n} for n in range(20)]
    assert all(run.context["own"] == run.context["n"] for run in runs)


async def test_a_run_inside_a_transaction_is_no_part_of_it(symphony: Symphony) -> None:
    """A run's events are durable as they happen, also when its caller's transaction is rolled back."""
    symphony.functions.register("one", lambda context: 1)
    with pytest.raises(ZeroDivisionError):
        async with symphony.transaction("Tried"):
            run = await symphony.workflows.execute_workflow(flow("one"), auto_checkpoint=False)
            raise ZeroDivisionError
    assert run.status == "completed"
    assert (await events_of(symphony, f"Workflow:{run.id}"))[-1].name == "WorkflowCompleted"


async def test_an_interrupted_run_raises_for_its_caller_and_can_go_on(symphony: Symphony) -> None:
    """`interrupt` cancels the step under way; what was completed stays, the interrupted step runs again."""
    under_way = asyncio.Event()
    hang = True
    calls: list[str] = []

    async def slow(context: RunContext) -> str:
        calls.append(context.idempotency_key)
        under_way.set()
        if hang:
            await asyncio.Event().wait()
        return f"attempt {context.attempt}"

    symphony.functions.register("quick", lambda context: "quick")
    symphony.functions.register("slow", slow)
    engine = symphony.registry.get("workflow_engine")
    caller = asyncio.create_task(engine.execute_workflow(flow("quick", "slow"), auto_checkpoint=False))
    await under_way.wait()
    (run_id,) = engine.active_runs
    with pytest.raises(IllegalTransitionError, match="in this process"):
        await symphony.workflows.execute_workflow_by_id(run_id)
    assert await engine.interrupt(["another"]) == []
    assert await engine.interrupt() == [run_id]
    with pytest.raises(RunInterruptedError, match=run_id):
        await caller
    assert engine.active_runs == []
    run = await symphony.workflows.get_run(run_id)
    assert (run.status, run.outputs) == ("running", {"quick": "quick"})

    hang = False
    assert await symphony.workflows.recover() == [run]
    assert run.outputs["slow"] == "attempt 2"
    assert calls[0] == calls[1] == f"{run_id}:slow:0"
    with pytest.raises(IllegalTransitionError, match=r"completed.*running"):
        await symphony.workflows.execute_workflow_by_id(run_id)


async def test_cancelling_the_call_stops_the_run(symphony: Symphony) -> None:
    """The caller's cancellation is its own; the run stays running in the log and can be resumed."""
    under_way = asyncio.Event()

    async def slow(context: RunContext) -> None:
        under_way.set()
        await asyncio.Event().wait()

    symphony.functions.register("slow", slow)
    caller = asyncio.create_task(symphony.workflows.execute_workflow(flow("slow"), auto_checkpoint=False))
    await under_way.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert symphony.registry.get("workflow_engine").active_runs == []
    assert [run.status for run in await symphony.workflows.get_all_runs()] == ["running"]


async def test_a_step_cannot_interrupt_its_own_run(symphony: Symphony) -> None:
    """It would wait for its own end: refused with its id, and the run goes on."""

    async def suicidal(context: RunContext) -> str:
        with pytest.raises(RunsInProgressError, match=context.run_id):
            await context.symphony.registry.get("workflow_engine").interrupt()
        return "alive"

    symphony.functions.register("suicidal", suicidal)
    run = await symphony.workflows.execute_workflow(flow("suicidal"), auto_checkpoint=False)
    assert run.outputs == {"suicidal": "alive"}


async def test_a_step_that_changes_what_cannot_be_appended_fails(symphony: Symphony) -> None:
    """An object of a foreign class that holds something unstorable fails the step that did it, and is named."""

    class Thing:
        def __init__(self) -> None:
            self.id = "t1"
            self.value: Any = 1

    thing = symphony.entities.add(Thing())

    def spoil(context: RunContext) -> None:
        context.symphony.entities.get("Thing:t1").value = object()

    symphony.functions.register("spoil", spoil)
    run = await symphony.workflows.execute_workflow(flow("spoil"), auto_checkpoint=False)
    assert run.status == "failed"
    assert run.error is not None
    assert "Thing:t1" in run.error["message"]
    thing.value = 2


async def test_the_engine_without_persistence_runs_the_same(tmp_path: Any) -> None:
    """On the memory log everything works but checkpoints, which are quietly off."""
    async with Symphony() as memory:
        await memory.setup()
        memory.functions.register("one", lambda context: 1)
        run = await memory.workflows.execute_workflow(flow("one"))
        assert run.status == "completed"
        names = [event.name for event in await memory.log.read_entity(f"Workflow:{run.id}")]
        assert "WorkflowHookFailed" not in names


async def test_a_step_whose_changes_cannot_be_appended_fails_with_the_entity(symphony: Symphony) -> None:
    """A change too large for an event puts its entity out of step with the log: the step that made it fails and names it."""
    agent = await symphony.agents.create_agent(id="ada")

    async def swell(context: RunContext) -> None:
        agent.config["large"] = "x" * (17 * 1024 * 1024)

    symphony.functions.register("swell", swell)
    symphony.functions.register("fine", lambda context: 1)
    run = await symphony.workflows.execute_workflow(flow("swell"), auto_checkpoint=False)
    assert run.status == "failed"
    assert run.error is not None
    assert run.error["type"] == "EntityOutOfStepError"
    assert "Agent:ada" in run.error["message"]
    other = await symphony.workflows.execute_workflow(flow("fine"), auto_checkpoint=False)
    assert other.status == "completed", "a run that did not touch the entity is not concerned"
    await symphony.refresh(agent)


async def test_a_step_that_does_not_stop_is_named(symphony: Symphony, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupting waits for a bounded time; a coroutine that swallows its cancellation and completes is not interrupted at all."""
    monkeypatch.setattr("symphony_es.workflow.engine.active.INTERRUPTION_TIMEOUT_S", 0.01)
    under_way, go_on = asyncio.Event(), asyncio.Event()

    async def stubborn(context: RunContext) -> str:
        under_way.set()
        while not go_on.is_set():
            try:
                await go_on.wait()
            except asyncio.CancelledError:
                continue
        return "went on"

    symphony.functions.register("stubborn", stubborn)
    engine = symphony.registry.get("workflow_engine")
    caller = asyncio.create_task(engine.execute_workflow(flow("stubborn"), auto_checkpoint=False))
    await under_way.wait()
    with pytest.raises(RunsInProgressError, match=engine.active_runs[0]):
        await engine.interrupt()
    go_on.set()
    assert (await caller).outputs == {"stubborn": "went on"}

    under_way.clear()
    go_on.clear()
    caller = asyncio.create_task(engine.execute_workflow(flow("stubborn"), auto_checkpoint=False))
    await under_way.wait()
    caller.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert [run.status for run in await symphony.workflows.get_all_runs()] == ["completed", "completed"]


async def test_recovering_tells_when_a_run_was_interrupted_again(symphony: Symphony) -> None:
    """The error of one run is raised when all have ended: nothing goes on unseen."""
    under_way = asyncio.Event()

    async def slow(context: RunContext) -> None:
        under_way.set()
        await asyncio.Event().wait()

    symphony.functions.register("slow", slow)
    caller = asyncio.create_task(symphony.workflows.execute_workflow(flow("slow"), auto_checkpoint=False))
    await under_way.wait()
    caller.cancel()
    await asyncio.wait({caller})
    under_way.clear()
    recovering = asyncio.create_task(symphony.workflows.recover(auto_checkpoint=False))
    await under_way.wait()
    await symphony.registry.get("workflow_engine").interrupt()
    with pytest.raises(RunInterruptedError):
        await recovering


async def test_templates_of_a_run_know_every_name(symphony: Symphony) -> None:
    """`step` leads to outputs, also when the context has a key of that name; an error lists the context's keys and `step`."""
    symphony.functions.register("one", lambda context: context.inputs)

    async def inputs_of(template: str, context: dict[str, Any]) -> Any:
        definition = WorkflowDefinition(name="x", steps=[*steps("one"), {**steps("one")[0], "name": "two", "inputs": {"x": template}}])
        run = await symphony.workflows.execute_workflow(definition, context, auto_checkpoint=False)
        return run.outputs["two"]["x"] if run.error is None else run.error["message"]

    assert await inputs_of("{{ step.one.result }}", {"step": "hidden"}) == {}
    assert await inputs_of("{{ context.step }}", {"step": "hidden"}) == "hidden"
    assert await inputs_of("{{ context }}", {"context": "own"}) == "own"
    assert "available: a, b, step)" in await inputs_of("{{ c }}", {"a": 1, "b": 2})
    assert "completed: one" in await inputs_of("{{ step.nobody.result }}", {})
    assert "has not completed yet" in await inputs_of("{{ step.two.result }}", {})


async def test_a_rewind_stops_runs_only_when_it_is_told_to(symphony: Symphony) -> None:
    """Refused with their ids; with stop_runs=True they are interrupted, and go on from the checkpoint in a new generation."""
    under_way = asyncio.Event()
    keys: list[str] = []
    hang = True

    async def slow(context: RunContext) -> str:
        keys.append(context.idempotency_key)
        under_way.set()
        if hang:
            await asyncio.Event().wait()
        return "done"

    async def rewinding(context: RunContext) -> None:
        await context.symphony.resume_from_checkpoint("before", stop_runs=True)

    symphony.functions.register("quick", lambda context: context.append("trail", context.step))
    symphony.functions.register("slow", slow)
    symphony.functions.register("rewinding", rewinding)
    caller = asyncio.create_task(symphony.workflows.execute_workflow(flow("quick", "slow")))
    await under_way.wait()
    (run_id,) = symphony.registry.get("workflow_engine").active_runs
    old = await symphony.workflows.get_run(run_id)
    start = f"workflow_{run_id}_start"
    with pytest.raises(RunsInProgressError, match=run_id):
        await symphony.resume_from_checkpoint(start)
    await symphony.resume_from_checkpoint(start, stop_runs=True)
    with pytest.raises(RunInterruptedError, match=run_id):
        await caller
    with pytest.raises(DetachedEntityError, match=run_id):
        old.name = "changed"
    hang = False
    (run,) = await symphony.workflows.recover()
    assert run is not old
    assert (run.status, run.context["trail"], run.attempts) == ("completed", ["quick"], {"quick": 1, "slow": 1})
    assert keys == [f"{run_id}:slow:0", f"{run_id}:slow:1"]

    await symphony.create_checkpoint("before")
    own = await symphony.workflows.execute_workflow(flow("rewinding"), auto_checkpoint=False)
    assert own.error is not None
    assert own.error["type"] == "RunsInProgressError", "a step cannot rewind the world that its own run is a part of"


async def test_a_run_is_shown_in_one_line(symphony: Symphony) -> None:
    """Neither what it holds nor the runs around it: they may be large, or secret; so in whatever holds a run."""
    symphony.functions.register("work", lambda context: "output " * 1000)
    run = await symphony.workflows.execute_workflow(
        {"name": "w", "steps": [{"kind": "function", "name": "a", "function": "work"}]}, {"password": "hunter2"}, run_id="r"
    )
    fork = await symphony.workflows.fork(run, "a", run_id="f")
    assert repr(run) == "<Workflow 'r' of 'w': completed, steps completed: 1>"
    assert "hunter2" not in repr([run, fork]) + repr(fork.forked_from)
