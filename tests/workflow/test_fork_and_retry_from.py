"""Forks and retries: a run's history up to a step, taken up by a new run, or by itself in a new generation."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.errors import ConfigurationError, IllegalTransitionError, PositionInsideTransactionError, PositionNotFoundError
from symphony_es.workflow import RunContext, StepList, Workflow, WorkflowDefinition, step, step_context

STEPS = 10


def register(symphony: Symphony, calls: list[tuple[str, str, str]] | None = None) -> None:
    """Functions whose results depend on all that came before."""

    def note(context: RunContext) -> None:
        if calls is not None:
            calls.append((context.run_id, context.step, context.idempotency_key))

    async def add(context: RunContext) -> int:
        note(context)
        context.append("trail", (context.step, context["factor"]))
        context["total"] = context["total"] * context["factor"] + 1
        return int(context["total"])

    async def side(context: RunContext) -> str:
        note(context)
        context["side"] = f"{context.step} with {context['factor']}"
        return str(context["side"])

    async def broken(context: RunContext) -> str:
        note(context)
        if context["factor"] == 2:
            raise ValueError("two is not allowed")
        return "fine"

    for body in (add, side, broken):
        symphony.functions.register(body.__name__, body, replace=True)


def ten() -> WorkflowDefinition:
    """Ten steps in a row."""
    steps = StepList()
    for number in range(STEPS):
        steps.add_function(f"s{number}", "add", output_key=f"out{number}")
    return WorkflowDefinition(name="ten", steps=steps.to_dicts(), context={"factor": 2, "total": 1, "trail": []})


def state_of(run: Workflow) -> dict[str, Any]:
    """What two runs on the same path have in common."""
    return {
        "status": run.status,
        "context": dict(run.context),
        "outputs": dict(run.outputs),
        "scopes": dict(run.scopes),
        "result": run.result,
        "failures": dict(run.failures),
        "progress": dict(run.progress),
    }


async def fresh_on_that_path(symphony: Symphony, at: int, factor: int) -> Workflow:
    """A run whose factor is another one from a step on: the value is changed by the step before it."""

    async def change(context: RunContext) -> None:
        context["factor"] = factor

    symphony.functions.register("change", change, replace=True)
    plan = ten().to_dict()
    plan["steps"].insert(at, {"kind": "function", "name": "change", "function": "change"})
    run = await symphony.workflows.execute_workflow(WorkflowDefinition.from_dict(plan), auto_checkpoint=False)
    return run


@pytest.mark.parametrize("at", range(STEPS))
async def test_a_fork_with_one_changed_value_is_a_run_that_took_that_path(symphony: Symphony, at: int) -> None:
    """Forked before any of ten steps: outputs, context and result are those of a fresh run that had the value from there on."""
    register(symphony)
    original = await symphony.workflows.execute_workflow(ten(), auto_checkpoint=False)
    before = state_of(original)
    fork = await symphony.workflows.fork(original, f"s{at}", {"factor": 3})
    assert (fork.status, fork.completed_steps) == ("pending", at)
    await symphony.workflows.resume(fork, auto_checkpoint=False)
    fresh = await fresh_on_that_path(symphony, at, 3)
    expected = state_of(fresh)
    assert expected["outputs"].pop("change") is None
    assert state_of(fork) == expected
    assert state_of(original) == before, "the run itself is not touched"
    assert fork.forked_from is not None
    assert (fork.forked_from["run"], fork.forked_from["step"]) == (original, f"s{at}")


async def test_a_fork_runs_only_what_comes_after(symphony: Symphony, reopen: Any) -> None:
    """Steps before the fork are not run again, keys are those of the new run, and all that stays in another process."""
    calls: list[tuple[str, str, str]] = []
    register(symphony, calls)
    original = await symphony.workflows.execute_workflow(ten(), auto_checkpoint=False)
    fork = await symphony.workflows.fork(original, "s7", run_id="fork", metadata={"why": "to see"})
    calls.clear()
    again = await reopen()
    await again.resume()
    register(again, calls)
    assert await again.workflows.recover() == [], "a fork waits for its start"
    found = await again.workflows.get_run("fork")
    assert (found.forked_from["run"].id, dict(found.metadata)) == (original.id, {"why": "to see"})  # type: ignore[index]
    await again.workflows.resume("fork", auto_checkpoint=False)
    assert calls == [("fork", f"s{number}", f"fork:s{number}:0") for number in (7, 8, 9)]
    assert found.outputs == fork.outputs | {f"s{n}": original.outputs[f"s{n}"] for n in (7, 8, 9)}
    names = [event.name for event in await again.log.read_entity("Workflow:fork")]
    assert names[:2] == ["WorkflowForked", "WorkflowStarted"]


async def test_a_fork_by_position(symphony: Symphony) -> None:
    """Right after any event of the run that is no inside of a transaction; elsewhere it is refused with the reason."""
    register(symphony)
    run = await symphony.workflows.execute_workflow(ten(), auto_checkpoint=False)
    events = await symphony.log.read_entity(f"Workflow:{run.id}")
    third = [event for event in events if event.name == "WorkflowStepCompleted"][2]
    fork = await symphony.workflows.fork(run, third.position)
    assert fork.completed_steps == 3
    await symphony.workflows.resume(fork, auto_checkpoint=False)
    assert state_of(fork) == state_of(run)
    with pytest.raises(PositionInsideTransactionError):
        await symphony.workflows.fork(run, events[0].position)
    with pytest.raises(PositionNotFoundError, match="did not exist"):
        await symphony.workflows.fork(fork, events[3].position)
    with pytest.raises(PositionNotFoundError):
        await symphony.workflows.fork(run, 10_000)
    with pytest.raises(ConfigurationError, match=r"has not begun a step 'x' \(begun: s0"):
        await symphony.workflows.fork(run, "x")
    with pytest.raises(ConfigurationError, match=r"has not begun a step 'S3'; did you mean s3\?$"):
        await symphony.workflows.fork(run, "S3")


async def test_a_step_that_has_not_begun_is_told_with_those_alike_only(symphony: Symphony) -> None:
    """Of hundreds of items those that are written alike are named, or those that have the name inside; else a dozen, and how many more."""

    async def item(context: RunContext) -> int:
        return int(context["item"])

    symphony.functions.register("item", item)
    inner = StepList().add_sequence("one", StepList().add_function("rate", "item"))
    definition = symphony.build_workflow("batch").add_map("all", list(range(60)), inner).build()
    run = await symphony.workflows.execute_workflow(definition, auto_checkpoint=False)
    for asked, said in (("al/49", "; did you mean all/49"), ("rate", "; did you mean all/0/rate or"), ("zzz", r" \(begun: 109 others, ")):
        with pytest.raises(ConfigurationError, match=f"has not begun a step '{asked}'{said}") as raised:
            await symphony.workflows.retry_from(run, asked)
        assert len(str(raised.value)) < 400


def nested() -> WorkflowDefinition:
    """A loop around a parallel, and steps before and after it."""
    fan = StepList().add_function("left", "side").add_function("right", "side")
    inner = StepList().add_function("first", "add").add_parallel("fan", fan).add_function("last", "add")
    return WorkflowDefinition(
        name="nested",
        context={"factor": 2, "total": 1, "trail": []},
        steps=StepList().add_function("begin", "add").add_loop("loop", inner, 3).add_function("end", "add").to_dicts(),
    )


@pytest.mark.parametrize("step", ["begin", "loop", "loop/0/first", "loop/1/fan", "loop/1/fan/left", "loop/2/last", "end"])
async def test_a_fork_inside_of_nested_steps_ends_as_the_run_did(symphony: Symphony, step: str) -> None:
    """Before a step of an iteration or a branch: iterations and branches before it are not run again."""
    calls: list[tuple[str, str, str]] = []
    register(symphony, calls)
    run = await symphony.workflows.execute_workflow(nested(), auto_checkpoint=False)
    order = [address for _, address, _ in calls]
    calls.clear()
    fork = await symphony.workflows.fork(run, step)
    await symphony.workflows.resume(fork, auto_checkpoint=False)
    assert state_of(fork) == state_of(run)
    first = next(index for index, address in enumerate(order) if address == step or address.startswith(f"{step}/"))
    assert [address for _, address, _ in calls] == order[first:]


@pytest.mark.parametrize(
    ("step", "again"),
    [
        ("s0", [f"s{n}" for n in range(10)]),
        ("s4", [f"s{n}" for n in range(4, 10)]),
        ("s9", ["s9"]),
    ],
)
async def test_retry_from_does_a_step_and_what_came_after_it_again(symphony: Symphony, step: str, again: list[str]) -> None:
    """The context is what it was before the step; the generation, and so the idempotency keys, are new; the log keeps both."""
    calls: list[tuple[str, str, str]] = []
    register(symphony, calls)
    run = await symphony.workflows.execute_workflow(ten(), auto_checkpoint=False)
    before = state_of(run)
    calls.clear()
    assert await symphony.workflows.retry_from(run, step, auto_checkpoint=False) is run
    assert state_of(run) == before
    assert calls == [(run.id, address, f"{run.id}:{address}:1") for address in again]
    events = await symphony.log.read_entity(f"Workflow:{run.id}")
    said = next(event for event in events if event.name == "WorkflowRetryRequested")
    assert (said.data["step"], said.data["dropped"]) == (step, again)
    assert sum(event.name == "WorkflowStepCompleted" for event in events) == STEPS + len(again)


async def test_retry_from_twice_and_in_another_process(symphony: Symphony, reopen: Any) -> None:
    """Each time another generation, counted in the log; a step that was dropped and has not begun again is not known."""
    calls: list[tuple[str, str, str]] = []
    register(symphony, calls)
    run = await symphony.workflows.execute_workflow(ten(), auto_checkpoint=False)
    await symphony.workflows.retry_from(run, "s8", auto_checkpoint=False)
    again = await reopen()
    await again.resume()
    register(again, calls)
    calls.clear()
    await again.workflows.retry_from(run.id, "s9", auto_checkpoint=False)
    assert calls == [(run.id, "s9", f"{run.id}:s9:2")]
    assert state_of(await again.workflows.get_run(run.id)) == state_of(run)


async def test_a_failed_run_is_retried_from_an_earlier_step(symphony: Symphony) -> None:
    """The error is gone, the step before the failed one runs again, and the run completes when the cause is mended."""
    register(symphony)
    plan = StepList().add_function("a", "add").add_function("b", "broken")
    run = await symphony.workflows.execute_workflow(
        WorkflowDefinition(name="x", steps=plan.to_dicts(), context={"factor": 2, "total": 1}), auto_checkpoint=False
    )
    assert run.status == "failed"

    async def mended(context: RunContext) -> str:
        return "mended"

    symphony.functions.register("broken", mended, replace=True)
    await symphony.workflows.retry_from(run, "a", auto_checkpoint=False)
    assert (run.status, run.error, run.outputs, run.failures) == ("completed", None, {"a": 3, "b": "mended"}, {})


@pytest.mark.parametrize(
    ("step", "again"),
    [
        (
            "loop/1/fan/left",
            ["loop/1/fan/left", "loop/1/last", "loop/2/first", "loop/2/fan/left", "loop/2/fan/right", "loop/2/last", "end"],
        ),
        ("loop/2/last", ["loop/2/last", "end"]),
        ("loop/2", None),
        ("end", ["end"]),
    ],
)
async def test_retry_from_inside_of_nested_steps(symphony: Symphony, step: str, again: list[str] | None) -> None:
    """A branch beside the step keeps its output, iterations before it stay; an address at which nothing begins is refused."""
    calls: list[tuple[str, str, str]] = []
    register(symphony, calls)
    run = await symphony.workflows.execute_workflow(nested(), auto_checkpoint=False)
    before = state_of(run)
    calls.clear()
    if again is None:
        with pytest.raises(ConfigurationError):
            await symphony.workflows.retry_from(run, step)
        return
    await symphony.workflows.retry_from(run, step, auto_checkpoint=False)
    assert [address for _, address, _ in calls] == again
    assert state_of(run) == before


async def test_retry_from_is_refused_where_it_makes_no_sense(symphony: Symphony) -> None:
    """A run that has not begun, and a run that executes; nothing is appended."""
    register(symphony)
    run = await symphony.workflows.execute_workflow(ten(), auto_checkpoint=False)
    fork = await symphony.workflows.fork(run, "s3")
    head = symphony.log.head
    with pytest.raises(IllegalTransitionError, match="pending and cannot become running"):
        await symphony.workflows.retry_from(fork, "s1")
    assert symphony.log.head == head


async def test_a_fork_is_forked_and_retried_at_steps_that_it_shares(symphony: Symphony) -> None:
    """What it shares with the run it came from is its own past: before its own beginning its values had not been changed."""
    register(symphony)
    original = await symphony.workflows.execute_workflow(ten(), auto_checkpoint=False)
    fork = await symphony.workflows.fork(original, "s5", {"factor": 3})
    await symphony.workflows.resume(fork, auto_checkpoint=False)
    deeper = await symphony.workflows.fork(fork, "s2")
    assert (deeper.completed_steps, deeper.context["factor"], deeper.forked_from["run"]) == (2, 2, fork)  # type: ignore[index]
    await symphony.workflows.resume(deeper, auto_checkpoint=False)
    assert state_of(deeper) == state_of(original)
    deepest = await symphony.workflows.fork(deeper, "s1")  # its origin's own events all come after what the two share
    assert (deepest.completed_steps, deepest.context["factor"], deepest.forked_from["run"]) == (1, 2, deeper)  # type: ignore[index]
    again = await symphony.workflows.fork(fork, "s7")
    await symphony.workflows.resume(again, auto_checkpoint=False)
    assert state_of(again) == state_of(fork)
    await symphony.workflows.retry_from(fork, "s1", auto_checkpoint=False)
    assert state_of(fork) == state_of(original)


@pytest.mark.parametrize("where", ["z", "m/500", "m"])
async def test_a_large_run_is_forked_and_taken_back_without_holding_the_loop(symphony: Symphony, where: str) -> None:
    """Its history is read in parts of at most 200 events, between which others have their turns; the fork is what the run was."""

    async def body(context: RunContext) -> int:
        return 1

    symphony.functions.register("body", body)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    size = 1_000
    steps = [
        {"kind": "map", "name": "m", "over": list(range(size)), "step": {"kind": "function", "name": "a", "function": "body"}},
        {"kind": "function", "name": "z", "function": "body"},
    ]
    run = await symphony.workflows.execute_workflow({"name": "w", "steps": steps}, auto_checkpoint=False)
    before = state_of(run)
    counting = asyncio.ensure_future(count())
    turns = 0
    fork = await symphony.workflows.fork(run, where)
    assert turns >= 2 * size / 200
    expected = {"z": size, "m/500": len(fork.outputs), "m": 0}[where]
    assert fork.completed_steps - (where == "z") == expected
    assert fork.outputs == {address: run.outputs[address] for address in fork.outputs}
    turns = 0
    await symphony.workflows.retry_from(run, where, auto_checkpoint=False)
    assert turns >= 2 * size / 200
    counting.cancel()
    assert state_of(run) == before


@pytest.mark.parametrize("shape", ["step", "map", "parallel", "child", "beside what was collected", "code"])
async def test_a_fork_of_a_failed_run_tries_again_what_that_failed_of(symphony: Symphony, shape: str) -> None:
    """Right behind the failure, with all attempts that the step is allowed; a failure that was collected stays what it was."""
    calls: list[str] = []
    works = False

    async def act(context: RunContext) -> str:
        calls.append(context.step)
        if not works and (context.step.endswith("a") or context.get("item") == 1):
            raise ValueError("no")
        return "done"

    symphony.functions.register("act", act)
    one: dict[str, Any] = {"kind": "function", "name": "a", "function": "act", "retry": {"max_attempts": 2, "delay_s": 0}}
    other = {**one, "name": "b"}
    steps: dict[str, list[dict[str, Any]]] = {
        "step": [other, one],
        "map": [{"kind": "map", "name": "m", "over": [0, 1], "max_concurrency": 1, "step": other}],
        "parallel": [{"kind": "parallel", "name": "p", "branches": [one, {**other, "name": "c"}], "max_concurrency": 1}],
        "child": [{"kind": "workflow", "name": "w", "definition": {"name": "inner", "steps": [other, one]}}],
        "beside what was collected": [{"kind": "map", "name": "m", "over": [0, 1], "on_error": "collect", "step": other}, one],
    }

    @symphony.workflow
    async def code() -> None:
        await step(lambda: act(step_context()), name="a")

    definition: Any = code if shape == "code" else {"name": "w", "steps": steps[shape]}
    run = await symphony.workflows.execute_workflow(definition, run_id="r")
    assert run.status == "failed"
    failed = len(calls)
    works = True
    fork = await symphony.workflows.resume(await symphony.workflows.fork("r", symphony.log.head, run_id="f"))
    assert (fork.status, fork.error, run.status) == ("completed", None, "failed")
    assert len(calls) > failed
    if shape == "beside what was collected":
        assert fork.outputs["m"] == ["done", {"error": {"type": "ValueError", "message": "no"}}]
        assert calls[failed:] == ["a"]
