"""Taking up what a crash has left: what goes on, what this process lacks, and what contradicts its code."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.errors import (
    ConfigurationError,
    NotRegisteredError,
    RunBlockedError,
    RunInterruptedError,
    RunsLeftAloneError,
)
from symphony_es.workflow import WorkflowDefinition, run_workflow, step, wait_for_signal
from symphony_es.workflow.code.digest import code_digest
from tests.conftest import Opener

WAIT = {"kind": "wait", "name": "ask", "signal": "go", "within_s": 0.001, "default": "late"}


ASK = {"kind": "wait", "name": "ask", "signal": "go"}


def child_of(function: str) -> dict[str, Any]:
    """A definition for a child run."""
    return {"name": "child", "steps": [WAIT, {"kind": "function", "name": "work", "function": function}]}


LACKING: dict[str, tuple[list[dict[str, Any]], str]] = {
    "function": ([{"kind": "function", "name": "a", "function": "work"}], "function 'work'"),
    "in a branch": (
        [{"kind": "parallel", "name": "p", "branches": [{"kind": "function", "name": "a", "function": "work"}]}],
        "function 'work'",
    ),
    "in a child run": ([{"kind": "workflow", "name": "a", "definition": child_of("work")}], "function 'work'"),
    "saved definition": ([{"kind": "workflow", "name": "a", "workflow_id": "saved"}], "saved definition 'saved'"),
    "model client": ([{"kind": "task", "name": "a", "template": "hi", "model": "writer"}], "model 'writer'"),
}


def provide(symphony: Symphony, calls: list[str]) -> None:
    """What a process has that has been deployed well."""

    async def work(context: Any) -> str:
        calls.append("work")
        return "done"

    async def writer(prompt: str) -> str:
        calls.append("writer")
        return "done"

    symphony.functions.register("work", work)
    symphony.models.register("writer", writer)


async def crashed(reopen: Opener, prepare: Callable[[Symphony], Any], *, runs: int = 1) -> None:
    """Start runs of what `prepare` gives, have them begin, and end the process."""
    symphony = await reopen()
    definition = prepare(symphony)
    for number in range(runs):
        await symphony.workflows.start(definition, run_id=f"r{number}", auto_checkpoint=False)
    await symphony.registry.get("workflow_engine").interrupt()


@pytest.mark.parametrize("resume", ["latest", None])
@pytest.mark.parametrize("what", LACKING)
async def test_what_a_process_lacks_is_nobody_s_event(what: str, resume: Any, reopen: Opener, caplog: pytest.LogCaptureFixture) -> None:
    """The run keeps its status, nothing is appended or called, it is named in log and report; a process that has it completes the run."""
    steps, named = LACKING[what]
    calls: list[str] = []

    def prepare(symphony: Symphony) -> Any:
        provide(symphony, calls)
        return {"name": "w", "steps": [{"kind": "wait", "name": "begin", "signal": "begin"}, *steps]}

    await crashed(reopen, prepare, runs=3)
    for _ in range(2):
        symphony = await reopen(resume=resume)
        head = symphony.log.head
        with caplog.at_level(logging.WARNING):
            report = await symphony.workflows.recover(wait=False)
        assert (report.handles, report.blocked) == ([], [])
        assert [(left.run_id, left.name) for left in report.missing] == [("r0", "w"), ("r1", "w"), ("r2", "w")]
        assert all(any(named.split(" ")[-1] in item for item in left.missing) for left in report.missing), report.missing
        assert "run_needs_what_is_missing" in caplog.text
        assert symphony.log.head == head
        assert [run.status for run in await symphony.workflows.get_all_runs()][:3] == ["running"] * 3
        with pytest.raises(NotRegisteredError):
            await symphony.workflows.resume("r0")
        with pytest.raises(RunsLeftAloneError, match="r0: "):
            await symphony.workflows.recover(strict=True)
        assert (symphony.log.head, calls) == (head, [])
    symphony = await reopen(resume=resume)
    provide(symphony, calls)
    if what == "saved definition":
        await symphony.workflows.save_workflow({"id": "saved", **child_of("work")})
    report = await symphony.workflows.recover(wait=False)
    for handle in report.handles:
        await handle.signal("begin")
    assert [handle.id for handle in report.handles] == ["r0", "r1", "r2"]
    ends = [await handle.result(timeout_s=20) for handle in report.handles]
    assert ends == [{"a": "done"} if what == "in a branch" else "done"] * 3
    assert len(calls) == 3


async def test_a_workflow_function_that_is_missing_is_one_of_them(reopen: Opener) -> None:
    """Also where the run of it is a child run that its parent waits for."""
    calls: list[str] = []

    def define(symphony: Symphony, *, with_child: bool) -> Any:
        @symphony.workflow
        async def parent() -> str:
            from_child = await run_workflow(child)
            return str(from_child)

        async def flow() -> str:
            calls.append("child")
            return str(await wait_for_signal("go"))

        child = symphony.workflow(flow) if with_child else None
        return parent

    symphony = await reopen()
    await symphony.workflows.start(define(symphony, with_child=True), run_id="r")
    while not calls:
        await asyncio.sleep(0)
    (child,) = [run for run in await symphony.workflows.get_all_runs() if run.parent is not None]
    await symphony.registry.get("workflow_engine").interrupt()
    symphony = await reopen()
    define(symphony, with_child=False)
    report = await symphony.workflows.recover(wait=False)
    assert [(left.run_id, left.missing) for left in report.missing] == [("r", ("workflow function 'flow'",))]
    symphony = await reopen()
    define(symphony, with_child=True)
    report = await symphony.workflows.recover(wait=False)
    await symphony.workflows.signal(child.id, "go", "gone")
    assert await report.handles[0].result(timeout_s=20) == "gone"


async def test_what_is_missing_of_completed_steps_is_not_needed(reopen: Opener) -> None:
    """A function that has done its work for all runs may be gone."""

    def prepare(symphony: Symphony) -> Any:
        symphony.functions.register("old", lambda context: "old")
        steps = [{"kind": "function", "name": "old", "function": "old"}, {"kind": "wait", "name": "ask", "signal": "go"}]
        return {"name": "w", "steps": steps}

    symphony = await reopen()
    handle = await symphony.workflows.start(prepare(symphony), run_id="r")
    while "old" not in handle.run.outputs:
        await asyncio.sleep(0)
    await symphony.registry.get("workflow_engine").interrupt()
    symphony = await reopen()
    report = await symphony.workflows.recover(wait=False)
    await symphony.workflows.signal("r", "go", 1)
    assert await report.handles[0].result() == 1


async def test_what_is_missing_in_the_middle_of_a_run_interrupts_it(symphony: Symphony) -> None:
    """A child's definition names what is missing: parent and child keep their statuses, and whoever asks gets the error, early or late."""
    calls: list[str] = []
    await symphony.workflows.save_workflow({"id": "saved", **child_of("work")})
    definition = {"name": "w", "steps": [{"kind": "workflow", "name": "a", "workflow_id": "saved", "retry": 3}]}
    handle = await symphony.workflows.start(definition, run_id="r")
    for _ in range(3):
        with pytest.raises(NotRegisteredError, match="'work'"):
            await handle.result(timeout_s=20)
    assert (handle.status, handle.run.failures) == ("running", {})
    assert symphony.registry.get("workflow_engine").active_runs == []
    provide(symphony, calls)
    run = await symphony.workflows.resume("r")
    assert (run.status, calls) == ("completed", ["work"])
    assert await handle.result() == "done"


async def test_code_cannot_go_on_past_what_is_missing(symphony: Symphony) -> None:
    """Whatever it catches: no later step of it runs, and none is on record."""
    calls: list[str] = []
    child = WorkflowDefinition.from_dict(child_of("work"))

    async def after() -> None:
        calls.append("after")

    @symphony.workflow
    async def flow() -> Any:
        try:
            return await run_workflow(child)
        except BaseException:  # as careless code has it
            await step(after)
            return "went on"
        finally:
            await step(after, name="finally")

    for _ in range(2):
        handle = await symphony.workflows.start(flow)
        with pytest.raises(NotRegisteredError):
            await handle.result(timeout_s=20)
        assert (handle.status, calls, list(handle.run.outputs)) == ("running", [], [])


async def test_branches_beside_what_is_missing_are_interrupted_too(symphony: Symphony) -> None:
    """Nothing is on record of it: they run again when it is there."""
    calls: list[str] = []
    symphony.functions.register("waits", lambda context: calls.append("waits"))
    await symphony.workflows.save_workflow({"id": "saved", **child_of("work")})
    branches = [{"kind": "workflow", "name": "a", "workflow_id": "saved"}, {"kind": "wait", "name": "b", "signal": "go"}]
    handle = await symphony.workflows.start({"name": "w", "steps": [{"kind": "parallel", "name": "p", "branches": branches}]}, run_id="r")
    with pytest.raises(NotRegisteredError):
        await handle.result(timeout_s=20)
    names = [event.name for event in await symphony.log.read_entity("Workflow:r")]
    assert not {"WorkflowBranchesCancelled", "WorkflowStepFailed", "WorkflowFailed"} & set(names)
    provide(symphony, calls)
    again = await symphony.workflows.start(handle.run)
    await again.signal("go", "went")
    assert await again.result(timeout_s=20) == {"a": "done", "b": "went"}


async def test_whoever_asks_late_gets_the_error_that_has_stopped_the_run(symphony: Symphony) -> None:
    """Results, waits and events end, until somebody takes the run up again."""
    symphony.functions.register("work", lambda context: "done")
    handle = await symphony.workflows.start({"name": "w", "steps": [{"kind": "wait", "name": "ask", "signal": "go"}]}, run_id="r")
    await symphony.registry.get("workflow_engine").interrupt()
    for _ in range(2):
        with pytest.raises(RunInterruptedError):
            await handle.result(timeout_s=20)
        with pytest.raises(RunInterruptedError):
            await handle.wait()
        with pytest.raises(RunInterruptedError):
            async for _event in handle.events():
                pass
    await symphony.workflows.signal("r", "go", 5)
    again = await symphony.workflows.start(handle.run)
    assert (await handle.result(), await again.result()) == (5, 5)


# -- contradictions ---------------------------------------------------------------------------------------------------


def helped(text: str) -> str:
    """What a workflow calls."""
    return text.upper()


def plans(calls: list[str], *names: str, tail: str = "") -> Any:
    """A workflow function that calls steps of these names, then waits."""

    async def act() -> str:
        calls.append("step")
        return "acted"

    if len(names) == 1:

        async def flow() -> str:
            calls.append("flow")
            await step(act, name=names[0])
            return str(await wait_for_signal("go"))
    else:

        async def flow() -> str:
            calls.append("flow")
            for name in names:
                await step(act, name=name)
            return str(await wait_for_signal("go"))

    return flow


async def blocked_run(reopen: Opener, calls: list[str]) -> Symphony:
    """A run of one code, taken up by another one that contradicts it."""
    symphony = await reopen()
    handle = await symphony.workflows.start(symphony.workflow(plans(calls, "a"), name="flow"), run_id="r")
    while not handle.run.outputs:
        await asyncio.sleep(0)
    await symphony.registry.get("workflow_engine").interrupt()
    symphony = await reopen()
    symphony.workflow(plans(calls, "b", "a"), name="flow")
    (run,) = await symphony.workflows.recover()
    assert (run.status, run.error["type"]) == ("blocked", "HistoryMismatchError")
    return symphony


async def test_a_contradiction_blocks_the_run_and_is_not_met_again(reopen: Opener) -> None:
    """One event with reason and digest; the same code is not run again at the next start; other code completes the run."""
    calls: list[str] = []
    symphony = await blocked_run(reopen, calls)
    blocked = [event for event in await symphony.log.read_entity("Workflow:r") if event.name == "WorkflowBlocked"]
    assert len(blocked) == 1
    with pytest.raises(RunBlockedError, match="the function called b"):
        await symphony.workflows.handle("r").result(timeout_s=20)
    assert [run.id for run in await symphony.workflows.list_runs(status="blocked")] == ["r"]
    calls.clear()
    for _ in range(2):
        symphony = await reopen()
        symphony.workflow(plans(calls, "b", "a"), name="flow")
        head = symphony.log.head
        report = await symphony.workflows.recover(wait=False)
        assert [(left.run_id, left.missing) for left in report.blocked] == [("r", ())]
        assert "the function called b" in report.blocked[0].reason
        with pytest.raises(RunsLeftAloneError):
            await symphony.workflows.recover(strict=True)
        assert (symphony.log.head, calls) == (head, [])
    symphony = await reopen()
    symphony.workflow(plans(calls, "a"), name="flow")
    await symphony.resume()
    await symphony.workflows.signal("r", "go", "went")
    (run,) = await symphony.workflows.recover()
    assert (run.status, run.result, run.error) == ("completed", "went", None)
    assert calls == ["flow"], "its step is on record"


async def test_a_blocked_run_can_be_asked_for_by_name(reopen: Opener) -> None:
    """Resuming tries it at once, whatever the digest; cancelling ends it."""
    calls: list[str] = []
    symphony = await blocked_run(reopen, calls)
    calls.clear()
    run = await symphony.workflows.resume("r")
    assert (run.status, calls) == ("blocked", ["flow"])
    assert (await symphony.workflows.cancel("r")).status == "cancelled"


async def test_arguments_that_no_longer_fit_block_the_run(reopen: Opener) -> None:
    """They fitted when the run was made: a parameter with another name, or of another kind, contradicts the record."""

    def define(symphony: Symphony, which: str) -> Any:
        async def first(topic: str) -> str:
            return topic + str(await wait_for_signal("go"))

        async def renamed(subject: str) -> str:
            return subject + str(await wait_for_signal("go"))

        async def other(topic: int) -> str:
            return str(topic) + str(await wait_for_signal("go"))

        return symphony.workflow({"first": first, "renamed": renamed, "other": other}[which], name="flow")

    symphony = await reopen()
    await symphony.workflows.start(define(symphony, "first"), {"topic": "rain"}, run_id="r")
    for which in ("renamed", "other"):
        symphony = await reopen()
        define(symphony, which)
        (run,) = await symphony.workflows.recover()
        assert (run.status, run.error["type"]) == ("blocked", "HistoryMismatchError"), which
    symphony = await reopen()
    define(symphony, "first")
    report = await symphony.workflows.recover(wait=False)
    await symphony.workflows.signal("r", "go", "!")
    assert await report.handles[0].result() == "rain!"


async def test_a_parent_waits_for_a_child_run_that_is_blocked(reopen: Opener) -> None:
    """It is neither failed nor driven; other runs go on."""
    calls: list[str] = []

    def define(symphony: Symphony, *names: str) -> Any:
        child = symphony.workflow(plans(calls, *names), name="flow")

        @symphony.workflow
        async def parent() -> str:
            return str(await run_workflow(child))

        return parent

    symphony = await reopen()
    handle = await symphony.workflows.start(define(symphony, "a"), run_id="r")
    while not any(run.outputs for run in await symphony.workflows.get_all_runs()):
        await asyncio.sleep(0)
    del handle
    await symphony.workflows.start(WorkflowDefinition(name="beside", steps=[ASK]), run_id="beside")
    await symphony.registry.get("workflow_engine").interrupt()
    for round_ in range(3):
        symphony = await reopen()
        define(symphony, "b", "a")
        report = await symphony.workflows.recover(wait=False)
        if round_ == 0:
            await symphony.workflows.signal("beside", "go", "went")
        ends = await asyncio.gather(*(handle.result(timeout_s=20) for handle in report.handles), return_exceptions=True)
        statuses = {run.id: run.status.value for run in await symphony.workflows.get_all_runs()}
        if round_ == 0:
            assert sorted(type(end).__name__ for end in ends) == ["RunBlockedError", "str"]
        else:
            assert (ends, [left.run_id for left in report.blocked]) == ([], ["r"])
        assert sorted(statuses.values()) == ["blocked", "completed", "running"]
        assert statuses["r"] == "running"


def orders(*fields: Any) -> type:
    """Another version of a class."""
    return dataclasses.make_dataclass("Order", fields, namespace={"__module__": "shop.models"})


async def test_a_run_with_a_value_that_cannot_be_made_is_blocked(reopen: Opener) -> None:
    """Its class is known, and has changed too far: nothing is appended, it is listed, and it goes on when the class fits again."""
    first = orders(("item", str), ("total", int, 0))

    def define(symphony: Symphony, cls: type) -> Any:
        async def flow() -> str:
            order = await step(lambda: cls("tea"), name="make")
            return str(order.item) + str(await wait_for_signal("go"))

        symphony.types.register(cls, "shop.Order")
        return symphony.workflow(flow, name="flow")

    symphony = await reopen()
    handle = await symphony.workflows.start(define(symphony, first), run_id="r")
    while "make" not in handle.run.outputs:
        await asyncio.sleep(0)
    await symphony.registry.get("workflow_engine").interrupt()
    for resume in ("latest", None):
        symphony = await reopen()
        define(symphony, orders("item", "owner"))
        if resume is not None:
            await symphony.resume()
        head = symphony.log.head
        report = await symphony.workflows.recover(wait=False)
        assert (report.handles, report.missing) == ([], [])
        assert [left.run_id for left in report.blocked] == ["r"]
        assert "owner" in report.blocked[0].reason
        assert symphony.log.head == head
    symphony = await reopen()
    define(symphony, first)
    report = await symphony.workflows.recover(wait=False)
    await symphony.workflows.signal("r", "go", "!")
    assert await report.handles[0].result(timeout_s=20) == "tea!"


def digest_of(source: str) -> str:
    """The digest of the function `flow` in a text."""
    names: dict[str, Any] = {"__name__": "shop.flows"}
    exec(source, names)  # a module of its own, as another version of a file is
    return code_digest(names["flow"])


BASE = """
LIMIT = 3
class Order:
    total: int = 0
    def check(self): return self.total > 1
def inner(x): return x + 1
def helper(x): return inner(x)
async def flow(order: Order, n=1):
    if n in {1, 2, 3}: return helper(order.total)
    return "a"
"""


@pytest.mark.parametrize(
    "change",
    [
        ('return "a"', 'return "b"'),
        ("x + 1", "x + 2"),
        ("n=1", "n=2"),
        ("self.total > 1", "self.total > 2"),
        ("total: int", "total: str"),
        ("{1, 2, 3}", "{1, 2, 4}"),
        ("return helper(order.total)", "return helper(order.total) or None"),
    ],
)
def test_the_digest_is_that_of_the_code_and_of_what_it_calls(change: tuple[str, str]) -> None:
    """Any change that may mend a workflow gives another one; comments and the same text again do not."""
    before, after = change
    assert before in BASE
    assert digest_of(BASE) == digest_of(BASE.replace("\n", "  # told\n", 3)) != digest_of(BASE.replace(before, after))


# -- setup ------------------------------------------------------------------------------------------------------------


async def test_setup_goes_on_with_what_a_crash_has_left(reopen: Opener) -> None:
    """With resume or without; it does not wait for the runs, and keeps the report."""
    for resume in (None, "latest"):
        symphony = await reopen()
        handle = await symphony.workflows.start({"name": "w", "steps": [{"kind": "wait", "name": "ask", "signal": "go"}]})
        run_id = handle.id
        await symphony.registry.get("workflow_engine").interrupt()
        symphony = await reopen(recover=True, resume=resume)
        assert symphony.last_recover is not None
        assert [handle.id for handle in symphony.last_recover.handles] == [run_id]
        await symphony.workflows.signal(run_id, "go", 7)
        assert await symphony.last_recover.handles[0].result() == 7
    assert (await reopen()).last_recover is None


async def test_recovering_without_a_resume_loads_no_more_than_is_needed(reopen: Opener) -> None:
    """Unfinished runs, and the agents and definitions that their steps name; what has ended stays in the log."""
    symphony = await reopen()
    agent = await symphony.agents.create_agent({"name": "Ada", "model": "echo"})
    other = await symphony.agents.create_agent({"name": "Bob", "model": "echo"})
    await symphony.workflows.save_workflow({"id": "saved", "name": "saved", "steps": [{"kind": "sleep", "name": "z", "seconds": 0}]})
    await symphony.workflows.execute_workflow({"name": "ended", "steps": [WAIT]}, run_id="ended")
    steps = [
        {"kind": "wait", "name": "ask", "signal": "go"},
        {"kind": "task", "name": "say", "template": "hi", "agent_id": agent.id},
        {"kind": "workflow", "name": "sub", "workflow_id": "saved"},
    ]
    await symphony.workflows.start({"name": "w", "steps": steps}, run_id="r")
    await symphony.registry.get("workflow_engine").interrupt()
    symphony = await reopen()
    report = await symphony.workflows.recover(wait=False)
    assert [handle.id for handle in report.handles] == ["r"]
    assert symphony.world.find("Workflow:ended") is None
    assert symphony.world.find(f"Agent:{other.id}") is None
    await symphony.workflows.signal("r", "go")
    await report.handles[0].result()
    assert (await symphony.workflows.get_run("r")).outputs["say"] == "hi"


async def test_recovering_needs_a_symphony_that_writes(tmp_path: Any, reopen: Opener) -> None:
    """A reader is refused before it opens anything."""
    await reopen()
    reader = Symphony(tmp_path / "state", read_only=True)
    with pytest.raises(ConfigurationError, match="open the Symphony for writing"):
        await reader.setup(recover=True)


async def test_hooks_can_be_given_to_a_recovery(reopen: Opener) -> None:
    """They are told of the runs that go on."""
    told: list[str] = []

    class Listens:
        async def run_completed(self, moment: Any) -> None:
            told.append(moment.run.id)

    await crashed(reopen, lambda symphony: {"name": "w", "steps": [ASK]}, runs=2)
    symphony = await reopen()
    report = await symphony.workflows.recover(wait=False, hooks=[Listens()])
    for handle in report.handles:
        await handle.signal("go")
        await handle.result()
    assert sorted(told) == ["r0", "r1"]


# -- functions of programs --------------------------------------------------------------------------------------------

PROGRAM = """
import asyncio, sys
from symphony_es import Symphony

async def pay(context):
    print("{name} pays")
    return "{name}"

async def main():
    symphony = Symphony(persistence_enabled=True)
    await symphony.setup(state_dir=sys.argv[1])
    definition = symphony.build_workflow().create("w").add_wait("go").add_function("pay", pay).build()
    if sys.argv[2] == "start":
        await symphony.workflows.start(definition, run_id="r")
    else:
        report = await symphony.workflows.recover(wait=False)
        for handle in report.handles:
            await handle.signal("go")
            print("result", await handle.result())
        for left in report.missing:
            print("missing", *left.missing)
    await symphony.close()

asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["file", "module"])
def test_a_function_of_a_program_is_never_that_of_another_one(tmp_path: Path, how: str) -> None:
    """The run waits for the program that it began with; the other one names what it lacks, and calls nothing of its own."""
    for name in ("shop", "payroll"):
        (tmp_path / f"{name}.py").write_text(PROGRAM.format(name=name))

    def run(name: str, what: str) -> list[str]:
        started = ["-m", name] if how == "module" else [str(tmp_path / f"{name}.py")]
        command = [sys.executable, *started, str(tmp_path / "state"), what]
        paths = os.pathsep.join([str(tmp_path), *sys.path])
        ended = subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths}
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.splitlines()

    assert run("shop", "start") == []
    assert run("payroll", "recover") == ["missing function 'shop:pay'"]
    assert run("shop", "recover") == ["shop pays", "result shop"]
