"""Hooks are called in order, after what they are told of is durable; the checkpointer is one of them."""

from __future__ import annotations

from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.errors import ConfigurationError
from symphony_es.workflow import AutoCheckpoint, RunMoment, WorkflowDefinition, WorkflowHook


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
    seen: list[tuple[str, str]] = []

    class Reader(WorkflowHook):
        async def step_completed(self, moment: RunMoment) -> None:
            events = await moment.symphony.log.read_entity(f"Workflow:{moment.run.id}")
            seen.append((events[-1].name, events[-1].metadata.step))

    await symphony.workflows.execute_workflow(flow(symphony, 3), auto_checkpoint=False, hooks=[Reader()])
    assert seen == [("WorkflowStepCompleted", f"s{number}") for number in (1, 2, 3)]
