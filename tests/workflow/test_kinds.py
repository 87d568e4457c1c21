"""What each kind of step does, and what its nested steps see."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from symphony_es import Symphony, entity
from symphony_es.testing import ManualClock, check_restores
from symphony_es.workflow import RunContext, StepList, Workflow, WorkflowDefinition
from symphony_es.workflow.runs.spaces import space_at


@entity(type="KindsAccount")
class Account:
    id: str = ""
    balance: int = 0


def functions(symphony: Symphony, **bodies: Any) -> None:
    for name, body in bodies.items():
        symphony.functions.register(name, body, replace=True)


async def execute(symphony: Symphony, steps: StepList, context: dict[str, Any] | None = None, **options: Any) -> Workflow:
    plan = WorkflowDefinition(name="x", steps=steps.to_dicts(), **options)
    return await symphony.workflows.execute_workflow(plan, context, auto_checkpoint=False)


async def names_of(symphony: Symphony, run: Workflow, step: str) -> list[str]:
    return [event.name for event in await symphony.log.read_entity(f"Workflow:{run.id}") if event.metadata.step == step]


async def test_branches_have_key_spaces_of_their_own(symphony: Symphony) -> None:
    """Two branches write the same key: each reads its own, the run's context has what it had, and later steps read both."""

    async def write(context: RunContext) -> Any:
        before = context["shared"]
        context["shared"] = context.step
        context["items"].append(context.step)
        return before

    async def read(context: RunContext) -> Any:
        return [context["shared"], context["items"], sorted(context)]

    functions(symphony, write=write, read=read)
    both = [StepList().add_function("w", "write").add_function("r", "read") for _ in range(2)]
    branches = StepList().add_sequence("a", both[0]).add_sequence("b", both[1])
    steps = (
        StepList()
        .add_parallel("fan", branches)
        .add_conditional(
            "after", "step.fan.contexts.a.shared == 'fan/a/w' and step.fan.results[1][0] == 'fan/b/w'", StepList().add_function("r", "read")
        )
    )
    run = await execute(symphony, steps, {"shared": "outer", "items": [0]})
    assert run.status == "completed", run.error
    assert run.outputs["fan/a/w"] == "outer"
    assert run.outputs["fan"] == {name: [f"fan/{name}/w", [0, f"fan/{name}/w"], ["items", "shared"]] for name in "ab"}
    assert run.context == {"shared": "outer", "items": [0]}
    assert run.outputs["after"] == ["outer", [0], ["items", "shared"]]
    for name in "ab":
        assert dict(space_at(run, f"fan/{name}") or {}) == {"shared": f"fan/{name}/w", "items": [0, f"fan/{name}/w"]}


async def test_what_a_branch_only_reads_is_not_written_to_its_key_space(symphony: Symphony) -> None:
    """A copy of a list that was looked at is no change; what lies around a branch cannot be removed in it."""

    async def read(context: RunContext) -> int:
        return len(context["items"])

    async def remove(context: RunContext) -> str:
        context["mine"] = 1
        del context["mine"]
        try:
            del context["items"]
        except KeyError as error:
            return str(error)
        return "removed"

    functions(symphony, read=read, remove=remove)
    run = await execute(
        symphony, StepList().add_parallel("fan", StepList().add_function("a", "read").add_function("b", "remove")), {"items": [1]}
    )
    assert "belongs to what lies around this branch" in run.outputs["fan"]["b"]
    assert (run.scopes, run.context) == ({}, {"items": [1]})


async def test_the_first_failure_cancels_the_other_branches(symphony: Symphony) -> None:
    """Which is on record; branches that have completed keep their outputs, and a resumed run does the others."""
    ended: list[str] = []
    broken = True

    async def slow(context: RunContext) -> str:
        if not broken:
            return "done at last"
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("slow")
        return "never"

    async def bad(context: RunContext) -> str:
        await asyncio.sleep(0)
        if broken:
            raise ValueError("bad")
        return "mended"

    calls: list[str] = []
    functions(symphony, slow=slow, bad=bad, quick=lambda context: calls.append(context.step) or "quick")
    fan = StepList().add_function("quick", "quick").add_function("slow", "slow").add_sequence("rest", StepList().add_function("bad", "bad"))
    first = WorkflowDefinition(name="x", steps=StepList().add_parallel("fan", fan, max_concurrency=None).to_dicts())
    run = await symphony.workflows.execute_workflow(first)
    assert run.status == "failed"
    assert run.error is not None
    assert (run.error["type"], run.error["step"], ended) == ("ValueError", "fan/rest/bad", ["slow"])
    assert await names_of(symphony, run, "fan") == ["WorkflowStepStarted", "WorkflowBranchesCancelled", "WorkflowStepFailed"]
    broken = False
    await symphony.workflows.resume(run)
    assert run.outputs["fan"] == {"quick": "quick", "slow": "done at last", "rest": "mended"}
    assert calls == ["fan/quick"]


async def test_max_concurrency_bounds_what_runs_at_once(symphony: Symphony) -> None:
    """Of twelve items never more than three are under way."""
    under_way = most = 0
    three = asyncio.Barrier(3)

    async def work(context: RunContext) -> int:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await three.wait()
        under_way -= 1
        return int(context["item"]) ** 2

    functions(symphony, work=work)
    run = await execute(symphony, StepList().add_map("m", list(range(12)), StepList().add_function("w", "work"), max_concurrency=3))
    assert (most, run.outputs["m"]) == (3, [number**2 for number in range(12)])


async def test_a_map_collects_failures_in_the_order_of_its_items(symphony: Symphony) -> None:
    """Item and index are read by templates and functions, under a name of the definition's own."""

    async def divide(context: RunContext) -> float:
        if context["n"] == 0:
            raise ValueError("nothing to divide by")
        return float(12 / context["n"])

    functions(symphony, divide=divide)
    steps = StepList().add_map("m", "{{ numbers }}", StepList().add_function("d", "divide"), item_name="n", on_error="collect")
    steps.add_map("t", "{{ step.m.results }}", StepList().add_task("say", "", "{{ index }}: {{ item }}"))
    run = await execute(symphony, steps, {"numbers": [4, 0, 3]})
    assert run.outputs["m"] == [3.0, {"error": {"type": "ValueError", "message": "nothing to divide by"}}, 4.0]
    assert run.outputs["t"][2] == "2: 4.0"


@pytest.mark.parametrize(("over", "message"), [("{{ text }}", "gives a str"), ("{{ nothing }}", "there is no 'nothing'")])
async def test_a_map_over_what_is_no_list_fails(symphony: Symphony, over: str, message: str) -> None:
    """With what it is, or that it is not there."""
    functions(symphony, f=lambda context: 1)
    run = await execute(symphony, StepList().add_map("m", over, StepList().add_function("f", "f")), {"text": "abc"})
    assert run.status == "failed"
    assert message in run.error["message"]  # type: ignore[index]


async def test_a_map_over_an_empty_list_gives_an_empty_list(symphony: Symphony) -> None:
    """Nothing runs, and the step completes."""
    functions(symphony, f=lambda context: 1)
    run = await execute(symphony, StepList().add_map("m", [], StepList().add_function("f", "f")))
    assert (run.status, run.outputs) == ("completed", {"m": []})


async def test_loops_end_by_their_conditions_and_limits(symphony: Symphony) -> None:
    """`until` after each iteration, `while` before it, neither: so many times; a limit fails a loop only where it is told to."""

    async def count(context: RunContext) -> int:
        context["n"] = context.get("n", 0) + 1
        return int(context["n"])

    functions(symphony, count=count)
    body = StepList().add_function("count", "count")
    run = await execute(symphony, StepList().add_loop("l", body, 10, until="step.count.result >= 3"))
    assert (run.outputs["l"], list(run.attempts)) == ([1, 2, 3], ["l", "l/0/count", "l/1/count", "l/2/count"])
    run = await execute(symphony, StepList().add_loop("l", body, 10, while_="n < 2"), {"n": 0})
    assert run.outputs["l"] == [1, 2]
    run = await execute(symphony, StepList().add_loop("l", body, 10, while_="n < 2"), {"n": 5})
    assert run.outputs["l"] == []
    run = await execute(symphony, StepList().add_loop("l", body, 2))
    assert run.outputs["l"] == [1, 2]
    run = await execute(symphony, StepList().add_loop("l", body, 2, until="results[-1] > 5"))
    assert run.outputs["l"] == [1, 2]
    for conditions in ({"until": "results[-1] > 5"}, {"while_": "n < 9"}):
        run = await execute(symphony, StepList().add_loop("l", body, 2, on_limit="fail", **conditions), {"n": 0})
        assert run.status == "failed"
        assert "max_iterations=2" in run.error["message"]  # type: ignore[index]
    run = await execute(symphony, StepList().add_loop("l", body, 2, while_="n < 2", on_limit="fail"), {"n": 0})
    assert run.outputs["l"] == [1, 2]


async def test_a_condition_with_a_typo_fails_with_what_there_is(symphony: Symphony) -> None:
    """Not False: the message has the expression, the place, the names, and the one that was probably meant."""
    functions(symphony, f=lambda context: {"score": 1})
    steps = StepList().add_function("rate", "f").add_conditional("gate", "step.rate.result.scroe > 0.5", StepList().add_function("f", "f"))
    run = await execute(symphony, steps)
    assert run.status == "failed"
    assert run.error is not None
    assert (run.error["type"], run.error["step"]) == ("ExpressionError", "gate")
    for part in ("step.rate.result.scroe > 0.5", "character", "'scroe'", "did you mean", "'score'"):
        assert part in run.error["message"]
    assert await names_of(symphony, run, "gate") == ["WorkflowStepStarted", "WorkflowStepFailed"], "no branch was chosen"


async def test_inner_names_come_before_outer_ones(symphony: Symphony) -> None:
    """A step of a branch finds its own sibling of a name first, then the one around it; by id as well as by name."""
    functions(symphony, where=lambda context: context.step)
    inner = StepList().add_step({"kind": "function", "name": "Same name", "id": "same", "function": "where"})
    inner.add_task("ask", "", "{{ step.same.result }} {{ step['Same name'].result }} {{ step.outer.result }}")
    steps = StepList().add_function("same", "where").add_function("outer", "where").add_sequence("s", inner)
    steps.add_task("last", "", "{{ step.same.result }} {{ step['s/same'].result }}")
    run = await execute(symphony, steps)
    assert run.outputs["s/ask"] == "s/same s/same outer"
    assert run.outputs["last"] == "same s/same"


async def test_a_child_run_is_linked_both_ways(symphony: Symphony, reopen: Any) -> None:
    """Also in another process; its result is the step's output, its context is rendered by its parent."""
    functions(symphony, double=lambda context: context["n"] * 2)
    inner = WorkflowDefinition(name="inner", steps=StepList().add_function("d", "double").to_dicts(), output={"is": "{{ step.d.result }}"})
    await symphony.workflows.save_workflow(WorkflowDefinition(id="saved", name="saved", steps=inner.plan))
    steps = StepList().add_workflow("a", inner, {"n": "{{ n + 1 }}"}).add_workflow("b", "saved", {"n": "{{ step.a.result.is }}"})
    run = await execute(symphony, steps, {"n": 4})
    assert (run.status, dict(run.outputs)) == ("completed", {"a": {"is": 10}, "b": 20})
    await check_restores(symphony)
    again = await reopen()
    await again.resume()
    parent = await again.workflows.get_run(run.id)
    child = await again.workflows.get_run(f"{run.id}/b")
    assert parent.children["b"] is child
    assert (child.parent, child.parent_step) == (parent, "b")


async def test_a_child_that_failed_is_resumed_by_another_attempt_at_its_step(symphony: Symphony) -> None:
    """What it completed is not done again; its failure is the step's, with the run and the step it came from."""
    calls: list[str] = []
    broken = True

    async def bad(context: RunContext) -> str:
        calls.append(context.step)
        if broken:
            raise ValueError("bad")
        return "mended"

    functions(symphony, good=lambda context: calls.append(context.step), bad=bad)
    inner = WorkflowDefinition(name="inner", steps=StepList().add_function("good", "good").add_function("bad", "bad").to_dicts())
    run = await execute(symphony, StepList().add_workflow("child", inner))
    assert run.status == "failed"
    assert run.error is not None
    assert f"{run.id}/child failed at step bad: ValueError: bad" in run.error["message"]
    broken = False
    await symphony.workflows.resume(run)
    assert (run.status, run.outputs["child"], calls) == ("completed", "mended", ["good", "bad", "bad"])
    assert await symphony.workflows.recover() == []


async def test_children_are_interrupted_and_recovered_with_their_parents(symphony: Symphony, reopen: Any) -> None:
    """Two deep: one call of recover drives the outermost run, which drives the others; nothing is driven twice."""
    entered = asyncio.Event()
    calls: list[str] = []

    async def hangs(context: RunContext) -> None:
        entered.set()
        await asyncio.Event().wait()

    functions(symphony, work=hangs)
    inner = WorkflowDefinition(name="inner", steps=StepList().add_function("work", "work").to_dicts())
    middle = WorkflowDefinition(name="middle", steps=StepList().add_workflow("inner", inner).to_dicts())
    handle = await symphony.workflows.start(
        WorkflowDefinition(name="x", steps=StepList().add_workflow("middle", middle).to_dicts()), run_id="r"
    )
    await entered.wait()
    assert len(symphony.registry.get("workflow_engine").active_runs) == 3
    again = await reopen()
    assert handle.status == "running"
    await again.resume()
    functions(again, work=lambda context: calls.append(context.run_id) or "worked")
    recovered = await again.workflows.recover()
    assert [(run.id, run.status, run.result) for run in recovered] == [("r", "completed", "worked")]
    assert calls == ["r/middle/inner"]


async def test_cancelling_reaches_the_children(symphony: Symphony) -> None:
    """They are cancelled, and clean up for themselves."""
    entered = asyncio.Event()

    async def hangs(context: RunContext) -> None:
        entered.set()
        while not context.stop_requested:
            await asyncio.sleep(0)

    functions(symphony, hangs=hangs, tidy=lambda context: context.run_id)
    tidying = StepList().add_function("tidy", "tidy").to_dicts()
    inner = WorkflowDefinition(name="inner", steps=StepList().add_function("h", "hangs").to_dicts(), cleanup=tidying)
    outer = WorkflowDefinition(name="x", steps=StepList().add_workflow("child", inner).to_dicts(), cleanup=tidying)
    handle = await symphony.workflows.start(outer, run_id="r")
    await entered.wait()
    await handle.cancel()
    child = await symphony.workflows.get_run("r/child")
    assert (handle.status, child.status) == ("cancelled", "cancelled")
    assert (handle.run.outputs["cleanup/tidy"], child.outputs["cleanup/tidy"]) == ("r", "r/child")


async def test_an_atomic_step_and_its_changes_are_one_transaction(symphony: Symphony) -> None:
    """Also beside branches that record at the same time; a failed attempt leaves the entity as it was."""
    account = Account(id="a")
    symphony.entities.add(account)
    seen: list[int] = []

    async def book(context: RunContext) -> int:
        account.balance += 5
        await asyncio.sleep(0)
        seen.append(account.balance)
        if context.attempt < 3:
            raise ConnectionError("again")
        account.balance += 5
        return account.balance

    async def busy(context: RunContext) -> int:
        for _ in range(20):
            await asyncio.sleep(0)
        return int(context["item"])

    functions(symphony, book=book, busy=busy)
    branches = StepList().add_function("book", "book", atomic=True, retry={"max_attempts": 3, "delay_s": 0})
    branches.add_map("busy", list(range(10)), StepList().add_function("b", "busy"))
    run = await execute(symphony, StepList().add_parallel("fan", branches))
    assert run.status == "completed", run.error
    assert (account.balance, run.outputs["fan"]["book"], seen) == (10, 10, [5, 5, 5])
    events = await symphony.log.read_entity(f"Workflow:{run.id}")
    completed = next(event for event in events if event.name == "WorkflowStepCompleted" and event.metadata.step == "fan/book")
    booked = await symphony.log.read_entity("KindsAccount:a")
    assert [event.transaction_id for event in booked[1:]] == [completed.transaction_id]
    assert (booked[1].metadata.step, booked[1].metadata.attempt) == ("fan/book", 3)


async def test_who_meets_the_entity_of_an_atomic_step_is_told_which_step_has_it(symphony: Symphony) -> None:
    """The error of a step that is not atomic, and cannot wait, names the step that has the entity, and its run."""
    account = symphony.entities.add(Account(id="a"))
    booked, met = asyncio.Event(), asyncio.Event()

    async def book(context: RunContext) -> None:
        account.balance += 1
        booked.set()
        await met.wait()

    async def meet(context: RunContext) -> None:
        await booked.wait()
        try:
            account.balance += 1
        finally:
            met.set()

    functions(symphony, book=book, meet=meet)
    branches = StepList().add_function("one", "book", atomic=True, retry=1).add_function("two", "meet", retry=1)
    run = await execute(symphony, StepList().add_parallel("fan", branches))
    assert run.error is not None
    assert run.error["step"] == "fan/two"
    assert f"step fan/one of run {run.id}" in run.error["message"]


async def test_signals_are_taken_in_order_and_once(symphony: Symphony, reopen: Any) -> None:
    """Sent before anyone waits they are kept, also across a restart; two waiters take one each; a late one wakes its waiter."""
    steps = StepList().add_wait("first", "s").add_parallel("both", StepList().add_wait("a", "s").add_wait("b", "s")).add_wait("named")
    handle = await symphony.workflows.start(WorkflowDefinition(name="x", steps=steps.to_dicts()), run_id="r")
    for payload in (1, [2], {"three": 3}):
        await handle.signal("s", payload)
    again = await reopen()
    await again.resume()
    going = asyncio.create_task(again.workflows.recover())
    run = await again.workflows.get_run("r")
    while "named" not in run.attempts:
        await asyncio.sleep(0.001)
    await again.workflows.signal("r", "named", "late")
    await going
    assert run.outputs == {"first": 1, "both/a": [2], "both/b": {"three": 3}, "both": {"a": [2], "b": {"three": 3}}, "named": "late"}
    assert (run.signals, run.progress) == ({}, {})


async def test_a_wait_whose_time_is_up(symphony: Symphony) -> None:
    """Gives its default, be it None; without one it fails; a signal that comes in time is taken instead."""
    clock = symphony.registry.get("workflow_engine").clock = ManualClock()
    steps = StepList().add_wait("a", "s", within_s="{{ limit }}", default=None).add_wait("b", "s", within_s=5)
    handle = await symphony.workflows.start(WorkflowDefinition(name="x", steps=steps.to_dicts(), context={"limit": 30}))
    while len(clock.sleepers) == 0:
        await asyncio.sleep(0.001)
    clock.advance(30)
    while "b" not in handle.run.progress or not clock.sleepers:
        await asyncio.sleep(0.001)
    clock.advance(5)
    await handle.wait()
    assert (handle.status, handle.run.outputs) == ("failed", {"a": None})
    assert handle.run.error is not None
    assert handle.run.error["type"] == "SignalTimeoutError"
    await handle.signal("s", "at last")
    assert (await handle.resume()).outputs == {"a": None, "b": "at last"}


async def test_an_output_template_that_cannot_be_made_fails_the_run(symphony: Symphony) -> None:
    """The steps have completed; the error says what is not there."""
    functions(symphony, f=lambda context: 1)
    run = await execute(symphony, StepList().add_function("f", "f"), output="{{ step.g.result }}")
    assert (run.status, run.outputs) == ("failed", {"f": 1})
    assert run.error is not None
    assert "'g'" in run.error["message"]
