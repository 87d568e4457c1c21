"""Which request may be made in which status: every cell of the table, and the same asked of runs that really stand there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, get_args

import pytest

from symphony_es import Symphony
from symphony_es.errors import IllegalTransitionError
from symphony_es.testing import ManualClock
from symphony_es.workflow import Workflow, WorkflowDefinition
from symphony_es.workflow.runs.transitions import ENDED, TRANSITIONS, UNFINISHED, Request, WorkflowStatus, next_status

STATUSES = ("pending", "queued", "running", "paused", "cancelling", "blocked", "completed", "failed", "cancelled")
EXPECTED: dict[str, dict[str, str]] = {
    "resume": {
        "pending": "running",
        "queued": "running",
        "running": "running",
        "paused": "running",
        "failed": "running",
        "blocked": "running",
        "cancelling": "cancelling",
    },
    "queue": dict.fromkeys(("pending", "running", "paused", "failed", "blocked"), "queued"),
    "pause": {"running": "paused", "queued": "paused"},
    "cancel": dict.fromkeys(("pending", "queued", "running", "paused", "failed", "blocked"), "cancelling"),
    "retry": {
        "running": "running",
        "paused": "running",
        "failed": "running",
        "completed": "running",
        "cancelled": "running",
        "blocked": "running",
    },
    "signal": {status: status for status in ("pending", "queued", "running", "paused", "cancelling", "failed", "blocked")},
    "complete": {"running": "completed"},
    "fail": {"running": "failed", "paused": "failed", "cancelling": "failed"},
    "block": {"running": "blocked", "paused": "blocked"},
    "clean_up": dict.fromkeys(("running", "paused", "failed", "completed", "cancelled"), "cancelling"),
    "end_cancelled": {"cancelling": "cancelled"},
}
"""Written down a second time, so that a change of the table is a decision."""

ASKS_FOR = {
    "resume": "running",
    "queue": "queued",
    "pause": "paused",
    "cancel": "cancelled",
    "retry": "running",
    "signal": "signal",
    "complete": "completed",
    "fail": "failed",
    "block": "blocked",
    "clean_up": "cancelling",
    "end_cancelled": "cancelled",
}
"""What a refusal names: the status that was asked for; of a signal, which asks for none, that."""


def cannot(request: str, status: str) -> str:
    """How a refusal says it."""
    asked = ASKS_FOR[request]
    return "cannot take a signal" if asked == "signal" else f"cannot become {asked}{' again' if asked == status else ''}"


USERS = ("resume", "pause", "cancel", "retry", "signal")
PATIENCE_S = 5.0
REST_S = 10
CLEANUP = [{"kind": "sleep", "name": "rest", "seconds": REST_S}]
PLAN = {
    "name": "plan",
    "steps": [
        {"kind": "wait", "name": "ask", "signal": "go"},
        {"kind": "function", "name": "work", "function": "work"},
        {"kind": "wait", "name": "more", "signal": "more"},
    ],
    "cleanup": CLEANUP,
}


def test_the_table_knows_every_request_and_status() -> None:
    """None is left out, none is there that nobody can make."""
    assert tuple(WorkflowStatus) == STATUSES
    assert set(TRANSITIONS) == set(get_args(Request)) == set(EXPECTED) == set(ASKS_FOR)
    assert {"completed", "failed", "cancelled"} == ENDED
    assert {"queued", "running", "cancelling"} == UNFINISHED


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("request_", get_args(Request))
def test_each_cell_of_the_table(request_: Request, status: str) -> None:
    """The request leads where it should, or is refused with both statuses named; a run is moved, or left as it was."""
    leads_to = EXPECTED[request_].get(status)
    run = Workflow(id="r", status=WorkflowStatus(status))
    now = ManualClock().now()
    if leads_to is None:
        for ask in (lambda: next_status("r", WorkflowStatus(status), request_), lambda: run.move(request_, now)):
            with pytest.raises(IllegalTransitionError, match=f"^run r is {status} and {cannot(request_, status)}($|: )") as refused:
                ask()
            assert (refused.value.entity_id, refused.value.status, refused.value.requested) == ("r", status, ASKS_FOR[request_])
        assert (run.status, run.started_at, run.ended_at) == (status, None, None)
    else:
        assert next_status("r", WorkflowStatus(status), request_) == leads_to
        run.move(request_, now)
        assert run.status == leads_to
        assert (run.ended_at is not None) == (leads_to in ENDED and request_ != "signal")


# -- the same by the public functions -----------------------------------------------------------------------------------


class Scene:
    """A Symphony whose clock stands still, and one run of it."""

    def __init__(self, symphony: Symphony) -> None:
        self.symphony = symphony
        self.workflows = symphony.workflows
        self.engine = symphony.registry.get("workflow_engine")
        self.clock = self.engine.clock = ManualClock()
        self.fails = False
        self.tasks: list[asyncio.Task[Any]] = []
        symphony.functions.register("work", self.work)

    async def work(self, context: Any) -> str:
        if self.fails:
            raise ValueError("it was told to")
        return str(context.step)

    def ask(self, awaitable: Any) -> None:
        """Makes a request that may wait for a run's end."""
        self.tasks.append(asyncio.ensure_future(awaitable))

    async def until(self, condition: Callable[[], Any]) -> None:
        """Lets the event loop go on until something holds; what was asked must not have failed meanwhile."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                for task in self.tasks:
                    if task.done():
                        task.result()
                await self.symphony.flush()
                await asyncio.sleep(0)

    async def interrupt(self) -> None:
        """What a crash leaves, without the process."""
        await self.engine.interrupt()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.tasks.clear()

    async def bring_to(self, status: str) -> Workflow:
        """A run in this status that does not execute."""
        if status == "queued":
            self.workflows.max_concurrent_runs = 1
            await self.workflows.start(WorkflowDefinition.from_dict(PLAN), run_id="before", auto_checkpoint=False)
            queued = await self.workflows.start(WorkflowDefinition.from_dict(PLAN), run_id="first", auto_checkpoint=False)
            await self.interrupt()
            self.workflows.max_concurrent_runs = None
            return queued.run
        handle = await self.workflows.start(WorkflowDefinition.from_dict(PLAN), run_id="first", auto_checkpoint=False)
        run: Workflow = handle.run
        await self.until(lambda: "ask" in run.attempts)
        self.fails = status == "failed"
        if status == "pending":
            fork = await self.workflows.fork(run, "ask")
            await self.interrupt()
            return fork
        if status == "paused":
            await handle.pause()
            await handle.wait("paused")
        elif status in ("completed", "failed"):
            await handle.signal("go")
            await (handle.wait() if status == "failed" else handle.signal("more"))
            await handle.wait()
        elif status in ("cancelling", "cancelled"):
            self.ask(handle.cancel())
            await self.until(lambda: self.clock.sleepers)
            if status == "cancelled":
                self.clock.advance(REST_S)
                await handle.wait()
        await self.interrupt()
        if status == "blocked":  # as code leaves it that contradicts the record; a definition without code has none
            with self.symphony.world.recording("WorkflowBlocked", entity=run):
                run.move("block", self.clock.now())
        self.fails = False
        return run

    def make(self, request: str, run: Workflow) -> Any:
        """A user's request."""
        return {
            "resume": lambda: self.workflows.resume(run, auto_checkpoint=False),
            "pause": lambda: self.workflows.pause(run),
            "cancel": lambda: self.workflows.cancel(run),
            "retry": lambda: self.workflows.retry_from(run, "ask", auto_checkpoint=False),
            "signal": lambda: self.workflows.signal(run, "anything"),
        }[request]()


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("request_", USERS)
async def test_each_request_of_a_user_in_each_status(symphony: Symphony, request_: str, status: str) -> None:
    """A run that does not execute goes where the table says, or refuses with nothing appended; it is asked nothing else."""
    scene = Scene(symphony)
    run = await scene.bring_to(status)
    assert run.status == status
    leads_to = EXPECTED[request_].get(status)
    if request_ == "cancel" and status == "cancelling":
        leads_to = "cancelling"  # no transition: the call takes up the clean-up, and waits for its end
    await symphony.flush()
    head = symphony.log.head
    if leads_to is None:
        with pytest.raises(IllegalTransitionError, match=f"is {status} and {cannot(request_, status)}"):
            await scene.make(request_, run)
        await symphony.flush()
        assert (run.status, symphony.log.head) == (status, head)
        return
    scene.ask(scene.make(request_, run))
    executes = leads_to in ("running", "cancelling") and request_ != "signal"
    await scene.until(lambda: symphony.log.head > head or status == "cancelling")
    await scene.until(lambda: run.status == leads_to and (run.id in scene.engine.active_runs) == executes)
    await scene.interrupt()
    assert run.status == leads_to


# -- where requests meet child runs -------------------------------------------------------------------------------------

PARENT = {
    "name": "parent",
    "steps": [{"kind": "workflow", "name": "kid", "definition": PLAN}, {"kind": "wait", "name": "last", "signal": "last"}],
    "cleanup": CLEANUP,
}


async def start_parent(scene: Scene) -> tuple[Workflow, Workflow]:
    """A run, and its child run, which waits."""
    handle = await scene.workflows.start(WorkflowDefinition.from_dict(PARENT), run_id="parent", auto_checkpoint=False)
    await scene.until(lambda: "kid" in handle.run.children and "ask" in handle.run.children["kid"].attempts)
    return handle.run, handle.run.children["kid"]


async def test_two_cancellations_wait_for_the_same_end(symphony: Symphony) -> None:
    """The second one joins the first: the clean-up steps run once."""
    scene = Scene(symphony)
    run = (await scene.workflows.start(WorkflowDefinition.from_dict(PLAN), auto_checkpoint=False)).run
    scene.ask(scene.workflows.cancel(run))
    await scene.until(lambda: scene.clock.sleepers)
    scene.ask(scene.workflows.cancel(run))
    await asyncio.sleep(0)
    assert not any(task.done() for task in scene.tasks)
    scene.clock.advance(REST_S)
    await asyncio.gather(*scene.tasks)
    assert (run.status, run.attempts["cleanup/rest"]) == ("cancelled", 1)
    names = [event.name for event in await symphony.log.read_entity(f"Workflow:{run.id}")]
    assert names.count("WorkflowCancelRequested") == 1


async def test_a_crash_in_the_middle_of_a_child_runs_clean_up_leaves_no_parent_without_an_end(symphony: Symphony, reopen: Any) -> None:
    """Recovery goes on with both cancellations: the child run's first, then the parent's."""
    scene = Scene(symphony)
    await start_parent(scene)
    scene.ask(scene.workflows.cancel("parent"))
    await scene.until(lambda: scene.clock.sleepers)
    await scene.interrupt()
    again = Scene(await reopen())
    await again.symphony.resume()
    parent = await again.workflows.get_run("parent")
    kid = parent.children["kid"]
    assert (parent.status, kid.status) == ("cancelling", "cancelling")
    again.ask(again.workflows.recover(auto_checkpoint=False))
    for run in (kid, parent):
        await again.until(lambda: again.clock.sleepers)
        again.clock.advance(REST_S)
        await again.until(lambda run=run: run.status == "cancelled")
    (recovered,) = await asyncio.gather(*again.tasks)
    assert recovered == [parent]


async def test_a_fork_has_no_hold_on_the_child_runs_of_its_original(symphony: Symphony) -> None:
    """A child run that was taken back goes on, whatever is asked of a fork that shares what it once gave."""
    scene = Scene(symphony)
    parent, kid = await start_parent(scene)
    await scene.workflows.signal(kid, "go")
    await scene.workflows.signal(kid, "more")
    await scene.until(lambda: "last" in parent.attempts)
    scene.ask(scene.workflows.retry_from(kid, "ask", auto_checkpoint=False))
    await scene.until(lambda: kid.status == "running")
    paused, cancelled = [await scene.workflows.fork(parent, "last") for _ in range(2)]
    for fork in (paused, cancelled):
        assert fork.children["kid"] is kid
        await scene.workflows.start(fork, auto_checkpoint=False)
    await scene.workflows.pause(paused)
    scene.ask(scene.workflows.cancel(cancelled))
    await scene.until(lambda: scene.clock.sleepers)
    scene.clock.advance(REST_S)
    await scene.until(lambda: cancelled.status == "cancelled")
    assert kid.status == "running"
    await scene.interrupt()
