"""Hooks are called in order, after what they are told of is durable; the checkpointer is one of them."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from datetime import timedelta
from typing import Any, get_args

import pytest

from symphony_es import Symphony
from symphony_es.errors import ConfigurationError, HookFailedError
from symphony_es.testing import ManualClock
from symphony_es.workflow import AutoCheckpoint, RunMoment, Workflow, WorkflowDefinition, WorkflowHook, step
from symphony_es.workflow.engine.hooks import HookChain, Stage


def flow(symphony: Symphony, count: int, *, broken_at: int | None = None) -> WorkflowDefinition:
    """`count` steps, of which one may fail as long as the symphony's test switch `broken` is on."""

    def step(context: Any) -> int:
        if context.step == f"s{broken_at}" and context["broken"]:
            raise ValueError("broken")
        return 1

    symphony.functions.register("step", step, replace=True)
    return WorkflowDefinition(
        name="flow",
        steps=[{"kind": "function", "name": f"s{number}", "function": "step"} for number in range(1, count + 1)],
        context={"broken": True},
    )


async def checkpoints(symphony: Symphony) -> list[dict[str, Any]]:
    return list(reversed(await symphony.list_checkpoints()))


async def test_checkpoints_are_taken_at_the_start_every_third_step_and_at_completion(symphony: Symphony) -> None:
    """Names and metadata say run, definition, step and stage, oldest first; each is at the state it names."""
    run = await symphony.workflows.execute_workflow(flow(symphony, 7))
    taken = await checkpoints(symphony)
    prefix = f"workflow_{run.id}"
    assert [one["name"] for one in taken] == [f"{prefix}_start", f"{prefix}_step_3", f"{prefix}_step_6", f"{prefix}_complete"]
    assert taken[1]["metadata"] == {"run_id": run.id, "definition": "flow", "step": "s3", "stage": "step", "completed_steps": 3}
    assert taken[3]["metadata"] == {"run_id": run.id, "definition": "flow", "step": None, "stage": "complete", "completed_steps": 7}
    states = [(await symphony.at(one["position"])).get(f"Workflow:{run.id}") for one in taken]
    assert [len(state["outputs"]) for state in states] == [0, 3, 6, 7]
    assert [len(state["attempts"]) for state in states] == [0, 3, 6, 7], "no checkpoint after a step says that the next one has begun"


async def test_an_error_takes_a_checkpoint_and_the_count_goes_on_after_a_resume(symphony: Symphony, reopen: Any) -> None:
    """A failed run has its error checkpoint; resumed by another process, steps are counted from where the first one stopped."""
    run = await symphony.workflows.execute_workflow(flow(symphony, 6, broken_at=5))
    assert run.status == "failed"
    again = await reopen(resume="latest")
    flow(again, 6)
    run = await again.workflows.execute_workflow_by_id(run.id)
    assert run.status == "completed"
    taken = await checkpoints(again)
    assert [one["name"].partition(run.id)[2] for one in taken] == ["_start", "_step_3", "_error", "_step_6", "_complete"]
    assert (taken[2]["metadata"]["step"], taken[2]["metadata"]["completed_steps"]) == ("s5", 4)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (False, []),
        (AutoCheckpoint(every=1), ["_start", "_step_1", "_step_2", "_complete"]),
        (AutoCheckpoint(every=None), ["_start", "_complete"]),
        (AutoCheckpoint(at_start=False, every=2, at_completion=False), ["_step_2"]),
    ],
)
async def test_the_policy_can_be_chosen_for_a_call(symphony: Symphony, policy: Any, expected: list[str]) -> None:
    """False turns automatic checkpoints off; a policy says when they are taken; the engine's own stays as it is."""
    definition = flow(symphony, 2)
    run = await symphony.workflows.execute_workflow(definition, auto_checkpoint=policy)
    assert [one["name"].partition(run.id)[2] for one in await checkpoints(symphony)] == expected


async def test_the_engines_policy_can_be_set_and_errors_left_out(symphony: Symphony) -> None:
    """What `auto_checkpoint=True` means is the engine's; a policy that makes no sense is refused."""
    symphony.registry.get("workflow_engine").auto_checkpoint = AutoCheckpoint(at_start=False, on_error=False)
    run = await symphony.workflows.execute_workflow(flow(symphony, 2, broken_at=1))
    assert run.status == "failed"
    assert await checkpoints(symphony) == []
    with pytest.raises(ConfigurationError, match="every=0"):
        AutoCheckpoint(every=0)


class Recorder(WorkflowHook):
    def __init__(self, name: str, calls: list[tuple[str, str, str | None]]) -> None:
        self.name = name
        self.calls = calls

    async def note(self, moment: RunMoment) -> None:
        self.calls.append((self.name, moment.stage, moment.step))

    run_started = run_resumed = step_started = step_completed = step_failed = run_completed = run_failed = note
    step_retried = run_paused = run_cancelled = note


async def test_hooks_are_called_in_order_at_every_moment(symphony: Symphony) -> None:
    """The engine's hooks first, then those of the call; an object with some of the methods is a hook as well."""
    calls: list[tuple[str, str, str | None]] = []

    class Partial:
        async def run_failed(self, moment: RunMoment) -> None:
            assert moment.error is not None
            calls.append(("partial", moment.stage, moment.error["step"]))

    symphony.registry.get("workflow_engine").hooks.append(Recorder("engine", calls))
    definition = flow(symphony, 2, broken_at=2)
    run = await symphony.workflows.execute_workflow(definition, hooks=[Partial(), Recorder("call", calls)])
    moments = ["run_started", "step_started", "step_completed", "step_started", "step_failed", "run_failed"]
    assert [stage for name, stage, _ in calls if name == "engine"] == moments
    assert [stage for name, stage, _ in calls if name == "call"] == moments
    assert [name for name, stage, _ in calls if stage == "run_failed"] == ["engine", "partial", "call"]
    assert ("engine", "step_failed", "s2") in calls
    assert ("partial", "run_failed", "s2") in calls

    calls.clear()
    run.context["broken"] = False
    await symphony.workflows.execute_workflow_by_id(run.id)
    assert [stage for _, stage, _ in calls] == ["run_resumed", "step_started", "step_completed", "run_completed"]


async def test_a_hook_that_fails_is_on_record_and_stops_nothing(symphony: Symphony) -> None:
    """The run completes; `WorkflowHookFailed` says which hook, when, and what it raised; later hooks are called."""
    calls: list[tuple[str, str, str | None]] = []

    class Faulty(WorkflowHook):
        async def step_completed(self, moment: RunMoment) -> None:
            raise OSError("no disk")

        async def run_completed(self, moment: RunMoment) -> None:
            raise OSError("still no disk")

    run = await symphony.workflows.execute_workflow(flow(symphony, 1), hooks=[Faulty(), Recorder("after", calls)])
    assert run.status == "completed"
    failures = [event for event in await symphony.log.read_entity(f"Workflow:{run.id}") if event.name == "WorkflowHookFailed"]
    assert [(event.data["hook"].rpartition(".")[2], event.data["stage"]) for event in failures] == [
        ("Faulty", "step_completed"),
        ("Faulty", "run_completed"),
    ]
    assert failures[0].data["message"] == "no disk"
    assert ("after", "step_completed", "s1") in calls


async def test_a_hook_sees_what_is_durable(symphony: Symphony) -> None:
    """When a hook is called, the event it is told of is on disk, and no later step has begun."""
    seen: list[tuple[str, str | None]] = []

    class Reader(WorkflowHook):
        async def step_completed(self, moment: RunMoment) -> None:
            events = await moment.symphony.log.read_entity(f"Workflow:{moment.run.id}")
            seen.append((events[-1].name, events[-1].metadata.step))

    await symphony.workflows.execute_workflow(flow(symphony, 3), auto_checkpoint=False, hooks=[Reader()])
    assert seen == [("WorkflowStepCompleted", f"s{number}") for number in (1, 2, 3)]


async def failures_of(symphony: Symphony, run: Workflow) -> list[dict[str, Any]]:
    """What is on record of hooks that failed."""
    await symphony.world.flush(run)
    return [event.data for event in await symphony.log.read_entity(f"Workflow:{run.id}") if event.name == "WorkflowHookFailed"]


def completed(symphony: Symphony, run: Workflow) -> RunMoment:
    """The moment after a step."""
    return RunMoment(stage="step_completed", symphony=symphony, run=run, step="s1", completed_steps=1)


def test_every_stage_is_a_method() -> None:
    """The base class has an async method for each stage, which does nothing and which nobody waits for; `stops_run` is off."""
    for stage in get_args(Stage):
        assert inspect.iscoroutinefunction(getattr(WorkflowHook, stage))
        assert not WorkflowHook().wants(RunMoment(stage=stage, symphony=None, run=None, completed_steps=0))  # type: ignore[arg-type]
    assert WorkflowHook.stops_run is False


async def test_a_retry_is_told_with_its_moment(symphony: Symphony) -> None:
    """A failed attempt that another one follows is told as failed, then as retried, with when; the last one only as failed."""
    engine = symphony.registry.get("workflow_engine")
    clock = engine.clock = ManualClock()
    told: list[tuple[str, Any, Any]] = []

    class Teller(WorkflowHook):
        async def step_failed(self, moment: RunMoment) -> None:
            told.append((moment.stage, moment.retry_at, moment.error and moment.error["message"]))

        async def step_retried(self, moment: RunMoment) -> None:
            told.append((moment.stage, moment.retry_at, moment.error and moment.error["message"]))
            clock.advance(5)

    definition = flow(symphony, 1, broken_at=1).to_dict() | {"retry": {"max_attempts": 2, "delay_s": 5, "jitter": 0}}
    began = clock.now()
    run = await symphony.workflows.execute_workflow(WorkflowDefinition.from_dict(definition), hooks=[Teller()])
    assert run.status == "failed"
    assert told == [
        ("step_failed", None, "broken"),
        ("step_retried", began + timedelta(seconds=5), "broken"),
        ("step_failed", None, "broken"),
    ]


async def test_pause_and_cancellation_are_told(symphony: Symphony) -> None:
    """A paused run when no step of it is under way any more; a cancelled one after its clean-up steps."""
    calls: list[tuple[str, str, str | None]] = []
    symphony.registry.get("workflow_engine").hooks.append(Recorder("hook", calls))

    async def pause(context: Any) -> None:
        await symphony.workflows.pause(context.run_id)

    symphony.functions.register("pause", pause)
    steps = [{"kind": "function", "name": name, "function": "pause"} for name in ("first", "second")]
    cleanup = [{"kind": "sleep", "name": "tidy", "seconds": 0}]
    run = await symphony.workflows.execute_workflow({"name": "pausing", "steps": steps, "cleanup": cleanup})
    assert [stage for _, stage, _ in calls] == ["run_started", "step_started", "step_completed", "run_paused"]
    calls.clear()
    await symphony.workflows.cancel(run)
    assert [(stage, step) for _, stage, step in calls] == [
        ("step_started", "cleanup/tidy"),
        ("step_completed", "cleanup/tidy"),
        ("run_cancelled", None),
    ]


@pytest.mark.parametrize("stage", ["run_started", "step_started", "step_completed"])
async def test_a_hook_that_declares_it_stops_the_run(symphony: Symphony, stage: str) -> None:
    """The run fails with the hook's error on record, later hooks have seen the moment, and a completed step stays completed."""
    calls: list[tuple[str, str, str | None]] = []

    class Guard:
        stops_run = True
        broken = True

    async def refuse(self: Guard, moment: RunMoment) -> None:
        if self.broken:
            raise PermissionError("not allowed")

    setattr(Guard, stage, refuse)
    guard = Guard()
    run = await symphony.workflows.execute_workflow(flow(symphony, 2), hooks=[guard, Recorder("later", calls)])
    assert run.status == "failed"
    assert run.error is not None
    assert run.error["type"] == "HookFailedError"
    assert run.error["message"].endswith(f"Guard failed at {stage}: PermissionError: not allowed")
    assert [at for _, at, _ in calls][-2:] == [stage, "run_failed"]
    assert dict(run.outputs) == ({"s1": 1} if stage == "step_completed" else {})
    (told,) = await failures_of(symphony, run)
    assert {key: told[key] for key in ("stage", "stops_run", "type", "message")} == {
        "stage": stage,
        "stops_run": True,
        "type": "PermissionError",
        "message": "not allowed",
    }
    assert "PermissionError: not allowed" in told["traceback"]
    guard.broken = False
    assert (await symphony.workflows.resume(run, hooks=[guard])).status == "completed"
    assert run.attempts["s1"] == (2 if stage == "step_started" else 1)


@pytest.mark.parametrize("stage", ["run_completed", "run_failed", "run_paused"])
async def test_at_the_end_it_is_too_late_to_stop_a_run(symphony: Symphony, stage: str) -> None:
    """The run ends as it does; the failure is on record."""

    class Guard:
        stops_run = True

    async def refuse(self: Guard, moment: RunMoment) -> None:
        raise PermissionError("too late")

    setattr(Guard, stage, refuse)

    async def pause(context: Any) -> None:
        await symphony.workflows.pause(context.run_id)

    symphony.functions.register("step", pause if stage == "run_paused" else lambda context: 1 / (stage == "run_completed"))
    steps = [{"kind": "function", "name": name, "function": "step"} for name in ("a", "b")]
    run = await symphony.workflows.execute_workflow({"name": "x", "steps": steps}, hooks=[Guard()])
    assert run.status == stage.removeprefix("run_")
    assert [told["stage"] for told in await failures_of(symphony, run)] == [stage]


async def test_the_first_failure_that_stops_is_raised_after_all_were_called(symphony: Symphony) -> None:
    """One that does not stop comes first and is on record only; of two that do, the first is raised, its cause chained."""
    called: list[str] = []

    def failing(name: str, *, stops: bool) -> Any:
        class Failing(WorkflowHook):
            stops_run = stops

            async def step_completed(self, moment: RunMoment) -> None:
                called.append(name)
                raise ValueError(name)

        return Failing()

    run = await symphony.workflows.execute_workflow(flow(symphony, 1), auto_checkpoint=False)
    chain = HookChain([failing("a", stops=False), failing("b", stops=True), failing("c", stops=True), Recorder("d", [])])
    with pytest.raises(HookFailedError) as caught:
        await chain.call(completed(symphony, run))
    assert called == ["a", "b", "c"]
    assert (caught.value.stage, caught.value.error["message"], caught.value.error["step"]) == ("step_completed", "b", "s1")
    assert isinstance(caught.value.__cause__, ValueError)
    assert [(told["message"], told["stops_run"]) for told in await failures_of(symphony, run)] == [("a", False), ("b", True), ("c", True)]


async def test_a_failure_waits_for_the_transaction_that_holds_the_run(symphony: Symphony) -> None:
    """The record of it is no part of somebody else's transaction, and does not come in between."""

    class Faulty(WorkflowHook):
        async def step_completed(self, moment: RunMoment) -> None:
            raise OSError("no disk")

    run = await symphony.workflows.execute_workflow(flow(symphony, 1), auto_checkpoint=False)
    outside = contextvars.copy_context()
    async with symphony.transaction("RunTagged", claim=[run]):
        run.metadata["tag"] = "x"
        call = asyncio.get_running_loop().create_task(HookChain([Faulty()]).call(completed(symphony, run)), context=outside)
        for _ in range(20):
            await asyncio.sleep(0)
        assert not call.done()
    await call
    await symphony.world.flush(run)
    assert [event.name for event in (await symphony.log.read_entity(f"Workflow:{run.id}"))[-2:]] == ["RunTagged", "WorkflowHookFailed"]


class Undecided:
    """A hook that cannot say what it wants, or says it of a method that it has not."""

    def wants(self, moment: RunMoment) -> bool:
        if moment.stage == "step_completed":
            raise LookupError("undecided")
        return True

    async def step_completed(self, moment: RunMoment) -> None:
        raise AssertionError("not to be called")


async def test_a_hook_that_cannot_say_what_it_wants_stops_nothing(symphony: Symphony) -> None:
    """Its failure to say is on record like any other; wanting a moment without a method for it is no failure."""
    run = await symphony.workflows.execute_workflow(flow(symphony, 1), hooks=[Undecided()])
    assert run.status == "completed"
    assert [(told["stage"], told["message"]) for told in await failures_of(symphony, run)] == [("step_completed", "undecided")]


async def test_a_hooks_own_cancellation_is_a_failure_like_any_other(symphony: Symphony) -> None:
    """It awaits something that was cancelled: the run goes on. A run that is really interrupted passes through a hook at once."""

    class Careless(WorkflowHook):
        async def step_completed(self, moment: RunMoment) -> None:
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future

    run = await symphony.workflows.execute_workflow(flow(symphony, 1), hooks=[Careless()])
    assert run.status == "completed"
    assert [told["type"] for told in await failures_of(symphony, run)] == ["CancelledError"]

    reached = asyncio.Event()

    class Endless(WorkflowHook):
        async def step_completed(self, moment: RunMoment) -> None:
            reached.set()
            await asyncio.get_running_loop().create_future()

    handle = await symphony.workflows.start(flow(symphony, 2), hooks=[Endless()])
    await reached.wait()
    assert await symphony.registry.get("workflow_engine").interrupt() == [handle.run.id]
    assert handle.run.status == "running"
    assert await failures_of(symphony, handle.run) == []


async def test_an_error_that_cannot_be_told_is_on_record_all_the_same(symphony: Symphony) -> None:
    """The message of a hook's error is the application's code as well."""

    class Unspeakable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    class Faulty(WorkflowHook):
        stops_run = True

        async def step_completed(self, moment: RunMoment) -> None:
            raise Unspeakable

    run = await symphony.workflows.execute_workflow(flow(symphony, 1), hooks=[Faulty()])
    assert run.status == "failed"
    assert (await failures_of(symphony, run))[0]["type"] == "Unspeakable"


class StopsAtLeaf:
    """Declares to stop the run, and fails at one step."""

    stops_run = True

    async def step_completed(self, moment: RunMoment) -> None:
        if moment.step in ("both/a", "first"):
            raise ValueError("not this one")


async def test_a_hook_stops_a_run_whatever_its_steps_make_of_failures(symphony: Symphony) -> None:
    """Neither a parallel that collects failures nor code that catches them lets the run go on."""
    begun: list[str] = []

    def body(context: Any) -> str:
        begun.append(context.step)
        return "done"

    symphony.functions.register("f", body)
    branch = {"kind": "function", "function": "f"}
    steps = [
        {"kind": "parallel", "name": "both", "on_error": "collect", "branches": [{**branch, "name": "a"}, {**branch, "name": "b"}]},
        {**branch, "name": "after"},
    ]
    run = await symphony.workflows.execute_workflow({"name": "x", "steps": steps}, auto_checkpoint=False, hooks=[StopsAtLeaf()])
    assert (run.status, "after" in begun) == ("failed", False)
    assert run.error is not None
    assert run.error["type"] == "HookFailedError"

    @symphony.workflow
    async def stubborn() -> str:
        try:
            await step(lambda: 1, name="first")
        except Exception:
            begun.append("caught")
        return "went on"

    coded = await symphony.workflows.execute_workflow(stubborn, auto_checkpoint=False, hooks=[StopsAtLeaf()])
    assert ("caught" in begun, coded.status, coded.result) == (True, "failed", None)


async def test_moments_that_no_hook_has_a_method_for_are_not_described(symphony: Symphony, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook of completed steps costs nothing at their starts; what it is told is the same."""
    described: list[str] = []

    def describe(**told: Any) -> RunMoment:
        described.append(told["stage"])
        return RunMoment(**told)

    monkeypatch.setattr("symphony_es.workflow.engine.telling.RunMoment", describe)
    completed: list[str | None] = []

    class Completed:
        async def step_completed(self, moment: RunMoment) -> None:
            completed.append(moment.step)

    run = await symphony.workflows.execute_workflow(flow(symphony, 3), {}, auto_checkpoint=False, hooks=[Completed()])
    assert run.status == "completed"
    assert described == ["step_completed"] * 3
    assert len(completed) == 3
