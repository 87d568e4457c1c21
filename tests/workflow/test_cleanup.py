"""The clean-up is a phase of its own: it survives crashes whole, can be tried again, and never goes on with the main line."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.errors import ConfigurationError, IllegalTransitionError
from symphony_es.workflow import RunContext, Workflow

Reopen = Callable[..., Awaitable[Symphony]]


def function(name: str, **more: Any) -> dict[str, Any]:
    return {"kind": "function", "name": name, "function": "work", **more}


def child(name: str, *steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"kind": "workflow", "name": name, "definition": {"name": name, "steps": list(steps), **more}}


WAIT: dict[str, Any] = {"kind": "wait", "name": "wait", "signal": "go"}


async def until(condition: Callable[[], Any]) -> None:
    """Return when a condition holds; fails after five seconds."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


class Work:
    """What the functions of steps do: they are noted by run and address, and fail or hang where they are told to."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.done: list[str] = []
        self.keys: list[str] = []
        self.failing: set[str] = set()
        self.hanging: set[str] = set()
        self.stop_at = -1
        self.stopped = asyncio.Event()
        self.places = 0

    def serve(self, symphony: Symphony) -> None:
        symphony.functions.register("work", self.work)
        symphony.registry.get("workflow_engine").hooks = [self]

    async def work(self, context: RunContext) -> str:
        await self._point(context.run_id, context.step)
        self.begun.append(context.step)
        if context.step in self.hanging:
            self.stopped.set()
            await asyncio.Event().wait()
        if context.step in self.failing:
            raise OSError(f"{context.step} is down")
        self.done.append(context.step)
        self.keys.append(context.idempotency_key)
        await self._point(context.run_id, context.step)
        return context.step

    async def step_started(self, moment: Any) -> None:
        await self._point(moment.run.id, moment.step)

    async def step_completed(self, moment: Any) -> None:
        await self._point(moment.run.id, moment.step)

    async def step_failed(self, moment: Any) -> None:
        await self._point(moment.run.id, moment.step)

    async def _point(self, run_id: str, step: str) -> None:
        """One of the places at which the process may die: those of the clean-up, and of the child runs of it."""
        if "cleanup/" not in f"{run_id}/{step}":
            return
        self.places += 1
        if self.places == self.stop_at:
            self.stopped.set()
            await asyncio.Event().wait()


@pytest.fixture
def work(symphony: Symphony) -> Work:
    """The functions, registered."""
    made = Work()
    made.serve(symphony)
    return made


async def begun(symphony: Symphony, definition: dict[str, Any], run_id: str = "r") -> Workflow:
    """A run that waits for its signal, or has ended without one."""
    handle = await symphony.workflows.start(definition, run_id=run_id, auto_checkpoint=False)
    run: Workflow = handle.run
    await until(lambda: "wait" in run.attempts or run.status in ("failed", "completed"))
    return run


BRANCHING = [
    function("first"),
    {"kind": "conditional", "name": "gate", "condition": "'book' in step", "then": [function("cancel booking")]},
    {"kind": "parallel", "name": "fan", "branches": [function("left"), function("right")]},
    function("last"),
]
ALL_DONE = [
    "cleanup/first",
    "cleanup/gate/then/cancel booking",
    "cleanup/fan/left",
    "cleanup/fan/right",
    "cleanup/last",
]


@pytest.mark.parametrize("failing", ALL_DONE)
@pytest.mark.parametrize("again", ["resume", "start", "retry_from", "retry_from the step of the first level"])
async def test_a_failed_cleanup_can_be_tried_again(symphony: Symphony, work: Work, failing: str, again: str) -> None:
    """What has failed is done, what has completed is not repeated, the run is cancelled without an error, and its main line stays ended."""
    run = await begun(symphony, {"name": "w", "steps": [function("book"), WAIT, function("ship")], "cleanup": BRANCHING})
    work.failing = {failing}
    await symphony.workflows.cancel(run)
    assert (run.status, run.error["message"]) == ("cancelled", f"{failing} is down")  # type: ignore[index]
    assert "cleanup/last" in work.done or failing == "cleanup/last", "one that fails does not keep the others from running"
    work.failing.clear()
    if again == "resume":
        await symphony.workflows.resume(run, auto_checkpoint=False)
    elif again == "start":
        await (await symphony.workflows.start(run, auto_checkpoint=False)).wait()
    else:
        step = failing if again == "retry_from" else "/".join(failing.split("/")[:2])
        await symphony.workflows.retry_from(run, step, auto_checkpoint=False)
    assert (run.status, run.error) == ("cancelled", None)
    repeated = {one for one in ALL_DONE if again.startswith("retry_from the") and one.startswith(f"{'/'.join(failing.split('/')[:2])}/")}
    assert sorted({*work.done} - {"book"}) == sorted(ALL_DONE)
    assert all(work.done.count(one) == 1 for one in ALL_DONE if one not in repeated), work.done
    assert len(set(work.keys)) == len(work.keys)
    with pytest.raises(IllegalTransitionError):
        await symphony.workflows.resume(run)
    assert "ship" not in work.done


WHERE_IT_FAILED = ["undo/book", "cleanup/first", "cleanup/gate/then/cancel booking", "cleanup/fan/left"]
HANGING_LAST = [*BRANCHING[:-1], {"kind": "wait", "name": "last", "signal": "never"}]


async def left_in_its_cleanup(symphony: Symphony, reopen: Reopen, work: Work, failing: str, main: str) -> tuple[Symphony, Workflow]:
    """A process dies in a clean-up of which one step has failed for good; the next one finds that step mended."""
    work.failing = {failing, "ship"}
    steps = [function("book", undo="work"), *([WAIT] if main == "waits" else []), function("ship")]
    run = await begun(symphony, {"name": "w", "steps": steps, "cleanup": HANGING_LAST})
    cancelling = asyncio.ensure_future(symphony.workflows.cancel(run))
    await until(lambda: "cleanup/last" in run.attempts)
    assert run.step_status(failing) == "failed"
    symphony = await reopen(resume="latest")
    await asyncio.gather(cancelling, return_exceptions=True)
    work.serve(symphony)
    work.failing.clear()
    return symphony, await symphony.workflows.get_run("r")


@pytest.mark.parametrize(
    ("asked", "failing", "main"),
    [
        *(("resume", failing, main) for failing, main in zip(WHERE_IT_FAILED, ["waits", "has failed"] * 2, strict=True)),
        *(("start", failing, "has failed") for failing in WHERE_IT_FAILED[:2]),
        *(("start in a transaction", failing, "waits") for failing in WHERE_IT_FAILED[2:]),
        *(("retry_from", failing, "has failed") for failing in WHERE_IT_FAILED[::2]),
    ],
)
async def test_a_cleanup_that_a_crash_has_left_is_tried_again_where_somebody_asks(
    symphony: Symphony, reopen: Reopen, work: Work, failing: str, main: str, asked: str
) -> None:
    """As one that has ended: what has failed is done, with what the call says, what has completed is not, the main line keeps its error."""
    symphony, run = await left_in_its_cleanup(symphony, reopen, work, failing, main)
    error, workflows = run.error and run.error["message"], symphony.workflows
    if asked == "resume":
        going: asyncio.Future[Any] = asyncio.ensure_future(workflows.resume(run, auto_checkpoint=False, deadline_s=60))
    elif asked == "retry_from":
        going = asyncio.ensure_future(workflows.retry_from(run, failing, auto_checkpoint=False))
    elif asked == "start":
        going = asyncio.ensure_future((await workflows.start(run, auto_checkpoint=False, deadline_s=60)).wait())
    else:
        async with symphony.transaction("GoingOn", claim=[run]):
            handle = await workflows.start(run, auto_checkpoint=False, deadline_s=60)
        going = asyncio.ensure_future(handle.wait())
    await until(lambda: failing in work.done)
    assert (run.status, run.error and run.error["message"]) == ("cancelling", error)
    await workflows.signal(run, "never")
    await going
    assert (run.status, run.error and run.error["message"]) == ("cancelled", error)
    assert error == (None if main == "waits" else "ship is down")
    assert (run.deadline is not None) == (asked != "retry_from")
    assert len(work.done) == len(set(work.done)), "nothing is done twice"
    assert {"undo/book", "cleanup/fan/right"} <= set(work.done)


@pytest.mark.parametrize(("asked", "failing"), [("recover", "undo/book"), ("cancel", "cleanup/fan/left")])
async def test_a_cleanup_that_a_crash_has_left_goes_on_where_nobody_asks_for_more(
    symphony: Symphony, reopen: Reopen, work: Work, failing: str, asked: str
) -> None:
    """What has failed for good stays failed, and is the run's error, until somebody asks that it be tried again."""
    symphony, run = await left_in_its_cleanup(symphony, reopen, work, failing, "waits")
    workflows = symphony.workflows
    if asked == "recover":
        await workflows.recover(auto_checkpoint=False, wait=False)
        going: asyncio.Future[Any] = asyncio.ensure_future(workflows.handle("r").wait())
    else:
        going = asyncio.ensure_future(workflows.cancel(run))
    await workflows.signal(run, "never")
    await going
    assert (run.status, failing in work.done) == ("cancelled", False)
    assert run.error is not None
    assert run.error["message"] == f"{failing} is down"


@pytest.mark.parametrize("then", ["completed", "failed", "waits", "is cancelled again"])
async def test_an_undo_that_a_retry_has_left_is_not_asked_for_alone(symphony: Symphony, reopen: Reopen, work: Work, then: str) -> None:
    """That would undo all of a run that has gone on since: it is refused, and the undo is tried again with the next clean-up."""
    steps = [function("order", undo="work"), function("pay", undo="work"), WAIT, function("ship")]
    run = await begun(symphony, {"name": "w", "steps": steps})
    work.failing = {"undo/pay"}
    await symphony.workflows.cancel(run)
    work.failing = {"ship"} if then == "failed" else set()
    going = asyncio.ensure_future(symphony.workflows.retry_from(run, "order", auto_checkpoint=False))
    await until(lambda: run.status == "running" and "wait" in run.attempts)
    if then in ("completed", "failed"):
        await symphony.workflows.signal(run, "go")
        await going
    elif then == "waits":
        symphony = await reopen(resume="latest")
        await asyncio.gather(going, return_exceptions=True)
        work.serve(symphony)
        run = await symphony.workflows.get_run("r")
    else:
        await symphony.workflows.cancel(run)
        await going
    before, head = list(work.done), symphony.log.head
    if then == "is cancelled again":
        assert before == ["order", "pay", "undo/order", "order", "pay", "undo/pay", "undo/order", "undo/@0/pay"]
        await symphony.workflows.retry_from(run, "undo/@0/pay", auto_checkpoint=False)
        assert work.done == [*before, "undo/@0/pay"]
        return
    with pytest.raises(IllegalTransitionError, match="gone on since its clean-up"):
        await symphony.workflows.retry_from(run, "undo/@0/pay", auto_checkpoint=False)
    assert (work.done, symphony.log.head) == (before, head)


async def test_a_cleanup_step_that_has_completed_is_done_again_with_another_key(symphony: Symphony, work: Work) -> None:
    """Where somebody asks for it by its address; the others keep what they gave, and the main line is left alone."""
    definition = {"name": "w", "steps": [WAIT, function("ship")], "cleanup": [function("a"), function("b")]}
    run = await begun(symphony, definition)
    await symphony.workflows.cancel(run)
    await symphony.workflows.retry_from(run, "cleanup/a", auto_checkpoint=False)
    assert run.status == "cancelled"
    assert work.done == ["cleanup/a", "cleanup/b", "cleanup/a"]
    assert len(set(work.keys)) == 3


async def test_a_fork_does_not_begin_in_the_cleanup(symphony: Symphony, work: Work) -> None:
    """It is refused with the call that goes on with the clean-up; nothing has been appended."""
    run = await begun(symphony, {"name": "w", "steps": [WAIT, function("ship")], "cleanup": [function("a")]})
    await symphony.workflows.cancel(run)
    head = symphony.log.head
    with pytest.raises(ConfigurationError, match=r"retry_from\(run, 'cleanup/a'\)"):
        await symphony.workflows.fork(run, "cleanup/a")
    with pytest.raises(ConfigurationError, match="has not begun a clean-up step 'cleanup/b'"):
        await symphony.workflows.retry_from(run, "cleanup/b")
    assert (symphony.log.head, work.done) == (head, ["cleanup/a"])


async def test_the_main_line_can_begin_again_after_a_cleanup(symphony: Symphony, work: Work) -> None:
    """`retry_from` at a step of it leads out of the phase: a later cancellation cleans up anew, under keys of its own."""
    run = await begun(symphony, {"name": "w", "steps": [function("book"), WAIT], "cleanup": [function("a")]})
    await symphony.workflows.cancel(run)
    await symphony.workflows.signal((await symphony.workflows.fork(run, "wait")).id, "go")
    again = asyncio.ensure_future(symphony.workflows.retry_from(run, "book", auto_checkpoint=False))
    await until(lambda: run.status == "running" and "wait" in run.attempts)
    assert run.cleanup is None
    await symphony.workflows.cancel(run)
    await again
    assert (run.status, run.cleanup) == ("cancelled", {"ends": "cancelled"})
    assert work.done == ["book", "cleanup/a"] * 2
    assert len(set(work.keys)) == 4


@pytest.mark.parametrize("when", ["before", "while the clean-up waits"])
async def test_a_wait_in_the_cleanup_gets_its_signal(symphony: Symphony, work: Work, when: str) -> None:
    """The run takes signals until it has ended."""
    confirmed = {"kind": "wait", "name": "confirmed", "signal": "confirmed"}
    run = await begun(symphony, {"name": "w", "steps": [WAIT], "cleanup": [confirmed, function("after")]})
    if when == "before":
        await symphony.workflows.signal(run, "confirmed", 7)
    cancelling = asyncio.ensure_future(symphony.workflows.cancel(run))
    if when != "before":
        await until(lambda: "cleanup/confirmed" in run.attempts)
        await symphony.workflows.signal(run, "confirmed", 7)
    await asyncio.wait_for(cancelling, 5)
    assert (run.status, run.outputs["cleanup/confirmed"], work.done) == ("cancelled", 7, ["cleanup/after"])


HANGING: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]], str]] = {
    "a function": ([WAIT], [function("hang"), function("b")], "cleanup/hang"),
    "a step of a parallel": (
        [WAIT],
        [{"kind": "parallel", "name": "fan", "branches": [function("hang"), function("b")]}],
        "cleanup/fan/hang",
    ),
    "the clean-up of a child run": ([child("kid", WAIT, cleanup=[function("hang"), function("b")])], [], "cleanup/hang"),
    "a child run of the clean-up": ([WAIT], [child("kid", function("hang"), function("b"))], "hang"),
    "a wait": ([WAIT], [{"kind": "wait", "name": "hang", "signal": "never"}, function("b")], ""),
}


@pytest.mark.parametrize("process", ["the same", "another"])
@pytest.mark.parametrize("what", list(HANGING))
async def test_a_cleanup_that_hangs_can_be_ended(symphony: Symphony, reopen: Reopen, work: Work, what: str, process: str) -> None:
    """`cancel(run, cleanup=False)`: the run is cancelled, its error says what was left out, and `resume` makes up for it."""
    steps, cleanup, hanging = HANGING[what]
    handle = await symphony.workflows.start({"name": "w", "steps": steps, "cleanup": cleanup}, run_id="r", auto_checkpoint=False)
    run: Workflow = handle.run
    await until(lambda: "wait" in run.attempts or ("kid" in run.children and "wait" in run.children["kid"].attempts))
    work.hanging = {hanging}
    waiting = asyncio.ensure_future(symphony.workflows.cancel(run))
    await until(lambda: work.stopped.is_set() or "cleanup/hang" in run.attempts)
    if process == "another":
        symphony = await reopen(resume="latest")
        await asyncio.gather(waiting, return_exceptions=True)
        work.serve(symphony)
        run = await symphony.workflows.get_run("r")
        assert run.status == "cancelling"
    async with asyncio.timeout(5):
        assert (await symphony.workflows.cancel(run, cleanup=False, grace_s=0)).status == "cancelled"
    assert run.error is not None
    assert run.error["type"] == "CleanupUnfinishedError"
    assert "resume(run) goes on with it" in run.error["message"]
    assert [one for one in work.done if one.endswith("/b") and "fan" not in one] == []
    work.hanging.clear()
    if what == "a wait":
        going = asyncio.ensure_future(symphony.workflows.resume(run, auto_checkpoint=False))
        await until(lambda: run.status == "cancelling")
        await symphony.workflows.signal(run, "never")
        await going
    else:
        await symphony.workflows.resume(run, auto_checkpoint=False)
    assert (run.status, run.error) == ("cancelled", None)
    assert len([one for one in work.done if one == "b" or one.endswith("/b")]) == 1
    assert (process, waiting.done()) != ("the same", False)


async def test_a_run_can_be_cancelled_without_its_cleanup(symphony: Symphony, work: Work) -> None:
    """Also from the main line: nothing of the clean-up begins, and `resume` makes up for it."""
    kid = child("kid", {**WAIT, "name": "inner"}, cleanup=[function("kids")])
    fan = {"kind": "parallel", "name": "fan", "branches": [kid, function("slow")]}
    run = (await symphony.workflows.start({"name": "w", "steps": [fan], "cleanup": [function("own")]}, auto_checkpoint=False)).run
    await until(lambda: "fan/kid" in run.children and "inner" in run.children["fan/kid"].attempts)
    await symphony.workflows.cancel(run, cleanup=False)
    assert (run.status, run.children["fan/kid"].status, work.done) == ("cancelled", "cancelled", ["fan/slow"])
    await symphony.workflows.resume(run, auto_checkpoint=False)
    assert (run.status, run.error, work.done) == ("cancelled", None, ["fan/slow", "cleanup/kids", "cleanup/own"])


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("parent", ["failed", "waiting"])
async def test_cancelling_reaches_failed_child_runs(symphony: Symphony, work: Work, parent: str, depth: int) -> None:
    """Those that have something to clean up, at any depth; one that has nothing stays failed."""
    inner = child("kid 1", function("breaks"), cleanup=[function("tidy")])
    for level in range(2, depth + 1):
        inner = child(f"kid {level}", inner)
    bare = child("bare", function("breaks"))
    fan = {"kind": "parallel", "name": "fan", "branches": [inner, bare], "on_error": "collect"}
    steps = [fan, WAIT] if parent == "waiting" else [fan, function("breaks"), WAIT]
    work.failing = {"breaks"}
    run = await begun(symphony, {"name": "w", "steps": steps})
    assert run.status == {"failed": "failed", "waiting": "running"}[parent]
    deepest, others = run.children[f"fan/kid {depth}"], []
    while deepest.name != "kid 1":
        others.append(deepest)
        (deepest,) = deepest.children.values()
    assert (deepest.status, run.children["fan/bare"].status) == ("failed", "failed")
    await symphony.workflows.cancel(run)
    assert (run.status, deepest.status, run.children["fan/bare"].status) == ("cancelled", "cancelled", "failed")
    assert all(one.status == "cancelled" for one in others)
    assert work.done == ["cleanup/tidy"]


async def test_a_child_run_whose_cleanup_fails_leaves_that_of_its_parent_open(symphony: Symphony, work: Work) -> None:
    """The parent says so, and its `resume` goes on with the child's clean-up."""
    run = (
        await symphony.workflows.start(
            {"name": "w", "steps": [child("kid", WAIT, cleanup=[function("tidy")])], "cleanup": [function("own")]}, auto_checkpoint=False
        )
    ).run
    await until(lambda: "kid" in run.children and "wait" in run.children["kid"].attempts)
    work.failing = {"cleanup/tidy"}
    await symphony.workflows.cancel(run)
    assert (run.status, run.error["type"]) == ("cancelled", "CleanupUnfinishedError")  # type: ignore[index]
    assert run.children["kid"].id in run.error["message"]  # type: ignore[index]
    work.failing.clear()
    await symphony.workflows.resume(run, auto_checkpoint=False)
    assert (run.status, run.error, run.children["kid"].error) == ("cancelled", None, None)
    assert work.done == ["cleanup/own", "cleanup/tidy"]


@pytest.mark.parametrize("kid", ["waits", "has completed", "has failed", "was cancelled before"])
async def test_a_cleanup_of_a_child_run_that_has_failed_stays_so_until_somebody_asks(symphony: Symphony, work: Work, kid: str) -> None:
    """Its parent's clean-up goes on after each interruption, and does not try that of the child run again; a resume does."""
    main = {"waits": WAIT, "has failed": function("ship"), "was cancelled before": WAIT, "has completed": function("pack")}[kid]
    rests = [{"kind": "wait", "name": name, "signal": name} for name in "012"]
    steps = [child("kid", function("book", undo="work"), main), WAIT]
    work.failing = {"ship", "undo/book"}
    workflows = symphony.workflows
    run = (await workflows.start({"name": "w", "steps": steps, "cleanup": rests}, run_id="r", auto_checkpoint=False)).run
    await until(lambda: {"waits": 1, "was cancelled before": 1}.get(kid, 0) <= len(waiting_in(run)) and (waiting_in(run) or run.error))
    if kid == "was cancelled before":
        await workflows.cancel(run.children["kid"])
        await until(lambda: run.status == "failed")
    tries = [work.begun.count("undo/book")]
    cancelling = [asyncio.ensure_future(workflows.cancel(run))]
    for name in "012":
        if name != "0":
            await symphony.registry.get("workflow_engine").interrupt()
            await workflows.recover(auto_checkpoint=False, wait=False)
            await workflows.signal(run, str(int(name) - 1))
        await until(lambda: f"cleanup/{name}" in run.attempts)  # noqa: B023
        tries.append(work.begun.count("undo/book"))
    assert tries == [tries[0], *[tries[0] + 1] * 3]
    work.failing.clear()
    await symphony.registry.get("workflow_engine").interrupt()
    going = asyncio.ensure_future(workflows.resume(run, auto_checkpoint=False))
    await until(lambda: "undo/book" in work.done)
    await workflows.signal(run, "2")
    await asyncio.gather(going, *cancelling, return_exceptions=True)
    assert (run.status, work.begun.count("undo/book")) == ("cancelled", tries[0] + 2)


async def cancelled_behind_another(symphony: Symphony, first: dict[str, Any]) -> tuple[Workflow, Workflow, Workflow, asyncio.Task[Any]]:
    """A run that is cancelled, and undoes its second child run: run, first child run, whose turn comes then, second one, call."""
    second = child("second", function("ship", undo="work"), cleanup=[{**WAIT, "name": "slow"}])
    workflows = symphony.workflows
    run = (await workflows.start({"name": "w", "steps": [first, second, WAIT]}, auto_checkpoint=False)).run
    await until(lambda: "first" in run.children and "inner" in run.children["first"].attempts)
    await workflows.signal(run.children["first"], "go")
    await until(lambda: "wait" in run.attempts)
    cancelling = asyncio.create_task(workflows.cancel(run))
    await until(lambda: "cleanup/slow" in run.children["second"].attempts)
    return run, run.children["first"], run.children["second"], cancelling


@pytest.mark.parametrize("then", ["waits", "paused", "failed", "cancelled", "completed"])
async def test_a_child_run_taken_back_before_its_turn_ends_with_its_parent(symphony: Symphony, work: Work, then: str) -> None:
    """Its parent undoes those that have completed one after the other: what somebody does to the last one meanwhile outlives nobody."""
    first = child("first", function("book", undo="work"), {**WAIT, "name": "inner"}, cleanup=[function("tidy")])
    workflows = symphony.workflows
    run, kid, other, cancelling = await cancelled_behind_another(symphony, first)
    if then == "failed":
        work.failing.add("book")
    again = asyncio.create_task(workflows.retry_from(kid, "book", auto_checkpoint=False))
    await until(lambda: kid.status == "failed" if then == "failed" else kid.status == "running" and "inner" in kid.attempts)
    work.failing.clear()
    if then == "completed":
        await workflows.signal(kid, "go")
        await until(lambda: kid.status == "completed")
    elif then in ("paused", "cancelled"):
        await (workflows.pause if then == "paused" else workflows.cancel)(kid)
    await workflows.signal(other, "go")
    await asyncio.wait_for(cancelling, 5)
    await asyncio.gather(again, return_exceptions=True)
    assert (run.status, run.error, kid.status, other.status) == ("cancelled", None, "cancelled", "cancelled")
    undone = [step for step in work.done if step.startswith("undo/") and step.endswith("/book")]
    assert len(undone) == len(set(undone)) == work.begun.count("book") == 2
    assert work.done.count("tidy") + work.done.count("cleanup/tidy") == 1


@pytest.mark.parametrize("policy", ["terminate", "abandon"])
async def test_a_child_run_taken_back_before_its_turn_ends_as_its_step_says(symphony: Symphony, work: Work, policy: str) -> None:
    """Cut off without its clean-up, or let go: then it runs on."""
    first = {**child("first", function("book", undo="work"), {**WAIT, "name": "inner"}), "on_parent_end": policy}
    workflows = symphony.workflows
    run, kid, other, cancelling = await cancelled_behind_another(symphony, first)
    again = asyncio.create_task(workflows.retry_from(kid, "book", auto_checkpoint=False))
    await until(lambda: kid.status == "running" and "inner" in kid.attempts)
    await workflows.signal(other, "go")
    await asyncio.wait_for(cancelling, 5)
    assert (run.status, kid.status) == ("cancelled", "running" if policy == "abandon" else "cancelled")
    assert [step for step in work.done if step.startswith("undo/") and step.endswith("book")] == []
    if policy == "abandon":
        await workflows.signal(kid, "go")
        await until(lambda: kid.status == "completed")
    await asyncio.gather(again, return_exceptions=True)


def waiting_in(run: Workflow) -> list[str]:
    """The waits of a run and of its child runs that have begun and not ended."""
    own = [address for address in run.attempts if address == "wait" and address not in run.outputs]
    return [*own, *(address for below in run.children.values() for address in waiting_in(below))]


async def test_a_second_cancel_waits_and_stops_nothing_of_the_cleanup(symphony: Symphony, work: Work) -> None:
    """Neither its steps nor the child runs of its steps, however short the time it gives."""
    run = await begun(symphony, {"name": "w", "steps": [WAIT], "cleanup": [child("kid", {**WAIT, "name": "inner"}, function("tidy"))]})
    first = asyncio.ensure_future(symphony.workflows.cancel(run))
    await until(lambda: "cleanup/kid" in run.children and "inner" in run.children["cleanup/kid"].attempts)
    second = asyncio.ensure_future(symphony.workflows.cancel(run, grace_s=0))
    await asyncio.wait([second], timeout=0.05)
    assert not second.done()
    await symphony.workflows.signal(run.children["cleanup/kid"], "go")
    await asyncio.gather(first, second)
    assert (run.status, run.error, work.done) == ("cancelled", None, ["tidy"])


SCENES: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]], set[str]]] = {
    "steps": ([function("book"), WAIT], [function("a"), function("b")], set()),
    "one that fails": ([function("book"), WAIT], [function("a"), function("b")], {"cleanup/a"}),
    "a child run of the clean-up": ([WAIT], [child("kid", function("x"), function("y")), function("b")], set()),
    "nested": ([function("book"), WAIT], BRANCHING, set()),
    "child runs": (
        [{"kind": "parallel", "name": "fan", "branches": [child("kid", {**WAIT, "name": "in"}, cleanup=[function("k")]), WAIT]}],
        [function("b")],
        set(),
    ),
}


async def _cancelled(symphony: Symphony, work: Work, steps: list[dict[str, Any]], cleanup: list[dict[str, Any]]) -> Workflow:
    run = (await symphony.workflows.start({"name": "w", "steps": steps, "cleanup": cleanup}, run_id="r", auto_checkpoint=False)).run
    await until(lambda: any(address.endswith("wait") for address in run.attempts))
    kids = str(steps).count("'kid'") // 2
    await until(lambda: len(run.children) == kids and all("in" in one.attempts for one in run.children.values()))
    await symphony.workflows.cancel(run)
    return run


def _end(run: Workflow) -> tuple[Any, ...]:
    error = run.error and (run.error["type"], run.error["message"], run.error["step"])
    return run.status, sorted(run.outputs), error, sorted((one.status, *one.outputs) for one in run.children.values())


@pytest.mark.parametrize("scene", list(SCENES))
async def test_a_cleanup_survives_a_crash_at_every_place(tmp_path: Path, scene: str) -> None:
    """Wherever the process dies, the next one ends the run as an undisturbed one ends; what is on record is not done twice."""
    steps, cleanup, failing = SCENES[scene]
    plain = Work()
    plain.failing = failing
    async with Symphony() as undisturbed:
        plain.serve(undisturbed)
        expected = _end(await _cancelled(undisturbed, plain, steps, cleanup))
    for place in range(1, plain.places + 1):
        directory = tmp_path / f"{scene}-{place}"
        work = Work()
        work.failing, work.stop_at = failing, place
        async with Symphony({"state_dir": str(directory)}, persistence_enabled=True) as symphony:
            work.serve(symphony)
            going = asyncio.ensure_future(_cancelled(symphony, work, steps, cleanup))
            stopped = asyncio.ensure_future(work.stopped.wait())
            await asyncio.wait([going, stopped], return_when=asyncio.FIRST_COMPLETED)
            assert (await symphony.workflows.get_run("r")).status == "cancelling"
            going.cancel()
            await symphony.registry.get("workflow_engine").interrupt()
            await asyncio.gather(going, stopped, return_exceptions=True)
        symphony = Symphony(persistence_enabled=True)
        await symphony.setup(state_dir=directory, resume="latest")
        async with symphony:
            await _recover(symphony, work, expected, place)
    assert plain.places > 3


async def _recover(symphony: Symphony, work: Work, expected: tuple[Any, ...], place: int) -> None:
    work.serve(symphony)
    run = await symphony.workflows.get_run("r")
    settled = {address for address in run.attempts if run.step_status(address) in ("completed", "failed")}
    before = len(work.begun)
    await symphony.workflows.recover(auto_checkpoint=False)
    assert _end(await symphony.workflows.get_run("r")) == expected, place
    assert not {*work.begun[before:]} & settled, place
    assert len({*work.keys}) == len({*work.done}), (place, work.keys)
