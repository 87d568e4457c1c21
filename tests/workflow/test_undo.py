"""Undo: each step that began is undone once, in reverse order, under a key of its own; then the clean-up steps run."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symphony_es import Symphony
from symphony_es.errors import ConfigurationError, DefinitionError, IllegalTransitionError
from symphony_es.testing import ManualClock
from symphony_es.workflow import (
    RetryPolicy,
    RunContext,
    StepList,
    Workflow,
    WorkflowDefinition,
    gather,
    run_workflow,
    step,
    step_context,
    wait_for_signal,
)

Reopen = Callable[..., Awaitable[Symphony]]
WAIT: dict[str, Any] = {"kind": "wait", "name": "wait", "signal": "go"}


def do(name: str, **more: Any) -> dict[str, Any]:
    return {"kind": "function", "name": name, "function": "do", "undo": "undo", **more}


def child(name: str, *steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"kind": "workflow", "name": name, "definition": {"name": name, "steps": list(steps), **more}}


def mapped(step_: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "map", "name": "m", "over": ["p", "q"], "max_concurrency": 1, "step": step_}


def sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "sequence", "name": "s", "steps": list(steps)}


async def until(condition: Callable[[], Any]) -> None:
    """Return when a condition holds; fails after five seconds."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


class Ledger:
    """What was done and undone, by run and address, with keys; places at which the process may die are counted."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.keys: dict[str, list[str]] = {}
        self.failing: set[str] = set()
        self.hanging: set[str] = set()
        self.begun: list[str] = []
        self.seen: dict[str, Any] = {}
        self.places = 0
        self.stop_at = -1
        self.stopped = asyncio.Event()

    def serve(self, symphony: Symphony) -> None:
        for name in ("do", "undo", "tidy"):
            symphony.functions.register(name, getattr(self, name), replace=True)
        symphony.registry.get("workflow_engine").hooks = [self]

    async def do(self, context: RunContext) -> str:
        return await self.perform(context, "did")

    async def undo(self, context: RunContext) -> None:
        await self.perform(context, "undid")

    async def tidy(self, context: RunContext) -> None:
        await self.perform(context, "tidied")

    async def perform(self, context: RunContext, what: str) -> str:
        address = context.step
        await self._point(context.run_id, address)
        self.begun.append(address)
        if address in self.hanging:
            await asyncio.Event().wait()
        if address in self.failing:
            raise OSError(f"{address} is down")
        place = f"{context.run_id}:{address}" if "/" in context.run_id else address
        self.log.append(place)
        self.keys.setdefault(place, []).append(context.idempotency_key)
        self.seen[place] = (context.get("item"), context.undoes)
        await self._point(context.run_id, address)
        return f"{what} {address}"

    async def step_started(self, moment: Any) -> None:
        await self._point(moment.run.id, moment.step)

    async def step_completed(self, moment: Any) -> None:
        await self._point(moment.run.id, moment.step)

    async def step_failed(self, moment: Any) -> None:
        await self._point(moment.run.id, moment.step)

    async def _point(self, run_id: str, step: str) -> None:
        if step.startswith(("undo/", "cleanup/")):
            self.places += 1
            if self.places == self.stop_at:
                self.stopped.set()
                await asyncio.Event().wait()

    def undone(self) -> list[str]:
        return [place for place in self.log if "undo/" in place or "cleanup/" in place]


@pytest.fixture
def ledger(symphony: Symphony) -> Ledger:
    """The functions, registered."""
    made = Ledger()
    made.serve(symphony)
    return made


async def waiting(symphony: Symphony, definition: Any, run_id: str = "r", context: Any = None) -> Workflow:
    """A run that has come to its wait, in itself or in a child run."""
    run: Workflow = (await symphony.workflows.start(definition, context, run_id=run_id, auto_checkpoint=False)).run

    def waits(one: Workflow) -> bool:
        named = ("wait", "wait go")
        mine = any(address.rpartition("/")[2] in named and address not in one.outputs for address in one.attempts)
        return mine or any(waits(below) for below in one.children.values())

    await until(lambda: waits(run))
    return run


FORMS: dict[str, tuple[list[dict[str, Any]], list[str]]] = {
    "steps": ([do("a"), do("b"), do("c"), WAIT], ["undo/c", "undo/b", "undo/a"]),
    "a step without undo": ([do("a"), {**do("b"), "undo": None}, do("c"), WAIT], ["undo/c", "undo/a"]),
    "a sequence": (
        [do("a"), {"kind": "sequence", "name": "s", "steps": [do("x"), do("y")], "undo": "undo"}, WAIT],
        ["undo/s", "undo/s/y", "undo/s/x", "undo/a"],
    ),
    "a conditional": (
        [{"kind": "conditional", "name": "gate", "condition": "1 == 1", "then": [do("x"), do("y")], "else": [do("z")]}, WAIT],
        ["undo/gate/then/y", "undo/gate/then/x"],
    ),
    "a loop": (
        [{"kind": "loop", "name": "l", "max_iterations": 2, "steps": [do("x"), do("y")]}, WAIT],
        ["undo/l/1/y", "undo/l/1/x", "undo/l/0/y", "undo/l/0/x"],
    ),
    "a map that has completed": (
        [{"kind": "map", "name": "m", "over": ["p", "q", "r"], "max_concurrency": 1, "step": do("x")}, do("a"), WAIT],
        ["undo/a", "undo/m/2", "undo/m/1", "undo/m/0"],
    ),
    "a map of sequences": (
        [mapped(sequence(do("x"), do("y"))), WAIT],
        ["undo/m/1/y", "undo/m/1/x", "undo/m/0/y", "undo/m/0/x"],
    ),
    "branches": (
        [{"kind": "parallel", "name": "fan", "max_concurrency": 1, "branches": [do("x"), sequence(do("y"), do("z"))]}, WAIT],
        ["undo/fan/s/z", "undo/fan/s/y", "undo/fan/x"],
    ),
    "deep": (
        [
            {
                "kind": "loop",
                "name": "l",
                "max_iterations": 1,
                "steps": [mapped({"kind": "parallel", "name": "f", "branches": [do("x")]})],
            },
            WAIT,
        ],
        ["undo/l/0/m/1/x", "undo/l/0/m/0/x"],
    ),
    "a child run under way": ([do("a"), child("kid", do("x"), do("y"), WAIT)], ["r/kid:undo/y", "r/kid:undo/x", "undo/a"]),
    "child runs that have completed": (
        [do("a"), child("kid", do("x")), do("b"), child("late", do("y")), child("plain", {**do("z"), "undo": None}), WAIT],
        ["r/late:undo/y", "r/kid:undo/x", "undo/b", "undo/a"],
    ),
    "a child run of a child run": ([child("kid", child("inner", do("x")), do("y")), WAIT], ["r/kid/inner:undo/x", "r/kid:undo/y"]),
}


@pytest.mark.parametrize("form", list(FORMS))
async def test_steps_are_undone_in_reverse_order(symphony: Symphony, ledger: Ledger, form: str) -> None:
    """Those of the child runs first; then the clean-up list; each once, each under a key of its own; what was done keeps its output."""
    steps, expected = FORMS[form]
    run = await waiting(symphony, {"name": "w", "steps": steps, "cleanup": [{"kind": "function", "name": "tidy", "function": "tidy"}]})
    did = [place for place in ledger.log if not place.startswith("undo")]
    await symphony.workflows.cancel(run)
    assert (run.status, run.error) == ("cancelled", None)
    assert ledger.undone() == [*expected, "cleanup/tidy"]
    assert ledger.log[: len(did)] == did
    keys = [key for several in ledger.keys.values() for key in several]
    assert len(set(keys)) == len(keys)
    assert ledger.keys["cleanup/tidy"] == ["r:cleanup/tidy:0"]
    with pytest.raises(IllegalTransitionError):
        await symphony.workflows.resume(run)


@pytest.mark.parametrize("form", ["a map that has completed", "a map of sequences", "deep"])
async def test_an_undo_sees_what_its_step_saw(symphony: Symphony, ledger: Ledger, form: str) -> None:
    """The item of a map, also of one that has completed; and the step with its output and key."""
    run = await waiting(symphony, {"name": "w", "steps": FORMS[form][0]})
    await symphony.workflows.cancel(run)
    for place in (place for place in ledger.undone() if "m/" in place):
        item, undoes = ledger.seen[place]
        assert item == ledger.seen[place.removeprefix("undo/")][0]
        assert item is not None
        assert (undoes.address, undoes.status, undoes.output) == (place[5:], "completed", f"did {place[5:]}")
        assert [undoes.idempotency_key] == ledger.keys[place[5:]]


async def test_an_undo_is_a_step_with_inputs_of_its_own(symphony: Symphony, ledger: Ledger) -> None:
    """Templates read the outputs of the run, the one of its step as well; it has a retry and a policy of its own."""
    seen: list[Any] = []

    async def refund(context: RunContext) -> None:
        seen.append((dict(context.inputs), context.attempt))
        if context.attempt == 1:
            raise OSError("busy")

    symphony.functions.register("refund", refund)
    inputs = {"charge": "{{ step.a.result }}", "who": "{{ name }}"}
    undo = {"kind": "function", "function": "refund", "inputs": inputs, "retry": {"delay_s": 0}}
    run = await waiting(symphony, {"name": "w", "context": {"name": "Ada"}, "steps": [do("a", undo=undo), WAIT]})
    await symphony.workflows.cancel(run)
    assert (run.status, run.error) == ("cancelled", None)
    assert seen == [({"charge": "did a", "who": "Ada"}, 1), ({"charge": "did a", "who": "Ada"}, 2)]


@pytest.mark.parametrize("end", ["cut off", "timed out", "failed", "waits for another attempt"])
async def test_what_has_begun_is_undone_though_it_has_not_completed(symphony: Symphony, ledger: Ledger, end: str) -> None:
    """It may have done its work; it comes first, and its undo is told."""
    more: dict[str, Any] = {"cut off": {}, "timed out": {"timeout_s": 0.01}, "failed": {}}.get(end, {"retry": {"delay_s": 1000}})
    ledger.hanging, ledger.failing = ({"b"}, set()) if end in ("cut off", "timed out") else (set(), {"b"})
    handle = await symphony.workflows.start({"name": "w", "steps": [do("a"), do("b", **more), do("c")]}, auto_checkpoint=False)
    run = handle.run
    await (handle.wait() if end in ("timed out", "failed") else until(lambda: "b" in ledger.begun))
    if end == "waits for another attempt":
        await until(lambda: "b" in run.failures)
    await symphony.workflows.cancel(run, grace_s=0)
    assert (run.status, ledger.undone()) == ("cancelled", ["undo/b", "undo/a"])
    undoes = ledger.seen["undo/b"][1]
    assert (undoes.status, undoes.output) == ("running" if end == "cut off" else "failed", None)


ENDS = ["failure", "deadline"]


@pytest.mark.parametrize("says", [(), ("failure",), ("deadline",), ("failure", "deadline")])
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("kid", [False, True])
async def test_a_run_that_fails_undoes_where_its_definition_says_so(
    symphony: Symphony, ledger: Ledger, end: str, says: tuple[str, ...], kid: bool
) -> None:
    """It has failed then, with the error that it failed with; otherwise nothing is undone, and a resume goes on with the run."""
    clock = symphony.registry.get("workflow_engine").clock = ManualClock()
    ledger.failing = {"b"}
    below = child("kid", do("x"), WAIT if end == "deadline" else do("b"))
    last = below if kid else WAIT if end == "deadline" else do("b")
    definition = {
        "name": "w",
        "steps": [do("a"), last],
        "deadline_s": 50,
        "cleanup_on": list(says),
        "cleanup": [{"kind": "function", "name": "tidy", "function": "tidy"}],
    }
    run = (await symphony.workflows.start(definition, run_id="r", auto_checkpoint=False)).run
    if end == "deadline":
        await until(lambda: "wait" in run.attempts or (kid and "kid" in run.children and "wait" in run.children["kid"].attempts))
        clock.advance(60)
    await symphony.workflows.handle(run).wait()
    assert run.error["type"] == {"deadline": "DeadlineExceededError", "failure": "RunFailedError" if kid else "OSError"}[end]  # type: ignore[index]
    if end not in says:
        assert not [place for place in ledger.undone() if not place.startswith("r/kid")]
        assert run.cleanup is None
        return
    theirs = [f"r/kid:undo/{name}" for name in (["x"] if end == "deadline" else ["b", "x"])] if kid else []
    assert ledger.undone() == [*theirs, *([] if kid or end == "deadline" else ["undo/b"]), "undo/a", "cleanup/tidy"]
    with pytest.raises(IllegalTransitionError, match="its clean-up has run"):
        await symphony.workflows.resume(run)
    await symphony.workflows.cancel(run)
    assert (run.status, ledger.log.count("undo/a"), ledger.log.count("cleanup/tidy")) == ("cancelled", 1, 1)


async def test_a_failed_undo_can_be_tried_again(symphony: Symphony, ledger: Ledger) -> None:
    """The others have run; what has completed is not repeated. The same for a run that has failed, which stays failed."""
    for run_id, on in (("r1", []), ("r2", ["failure"])):
        ledger.log.clear()
        ledger.failing = {"undo/b", "d"}
        steps = [do("a"), do("b"), do("c"), do("d") if on else WAIT]
        definition = {"name": "w", "steps": steps, "cleanup_on": on}
        if on:
            run = await symphony.workflows.execute_workflow(definition, run_id=run_id, auto_checkpoint=False)
        else:
            run = await waiting(symphony, definition, run_id)
            await symphony.workflows.cancel(run)
        assert ledger.undone() == ["undo/d", "undo/c", "undo/a"][0 if on else 1 :]
        ledger.failing = set()
        await symphony.workflows.resume(run, auto_checkpoint=False)
        assert ledger.undone()[-1] == "undo/b"
        assert max(Counter(ledger.undone()).values()) == 1
        assert run.status == ("failed" if on else "cancelled")
        assert (run.error or {}).get("message") == ("d is down" if on else None)


@pytest.mark.parametrize("again", ["a", "b", "s/x", "late"])
async def test_what_was_undone_is_done_again_and_undone_again(symphony: Symphony, ledger: Ledger, again: str) -> None:
    """Whichever step `retry_from` names: what was undone holds no longer. Each time under keys that nobody has seen."""
    steps = [do("a"), {"kind": "sequence", "name": "s", "steps": [do("x")]}, do("b"), {**do("late"), "undo": None}, WAIT]
    run = await waiting(symphony, {"name": "w", "steps": steps})
    await symphony.workflows.cancel(run)
    for _ in range(2):
        going = asyncio.ensure_future(symphony.workflows.retry_from(run, again, auto_checkpoint=False))
        await until(lambda: run.status == "running" and "wait" in run.attempts)
        assert not [address for address in run.attempts if address.startswith("undo/")]
        await symphony.workflows.cancel(run)
        await going
    assert ledger.undone() == ["undo/b", "undo/s/x", "undo/a"] * 3
    for name in ("a", "b", "s/x", "undo/a", "undo/b", "undo/s/x"):
        assert ledger.keys[name] == [f"r:{name}:{generation}" for generation in range(3)]


def chosen(condition: str, *then: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "conditional", "name": "gate", "condition": condition, "then": list(then), "else": [do("other")]}


AGAIN: dict[str, tuple[list[dict[str, Any]], list[str]]] = {
    "branches": (
        [{"kind": "parallel", "name": "fan", "branches": [do("x"), {**do("y"), "undo": None}, do("z")]}],
        ["fan/x", "fan/z"],
    ),
    "items": ([mapped(sequence(do("x"), {**do("y"), "undo": None}))], ["m/0/x", "m/1/x"]),
    "iterations": (
        [{"kind": "loop", "name": "l", "max_iterations": 2, "steps": [{**do("y"), "undo": None}, do("x")]}],
        ["l/0/x", "l/1/x"],
    ),
    "a choice that would be another one now": (
        [chosen("flips == 0", do("x")), {"kind": "function", "name": "flip", "function": "flip"}],
        ["gate/then/x"],
    ),
}


@pytest.mark.parametrize("how", ["retry_from", "fork"])
@pytest.mark.parametrize("form", list(AGAIN))
async def test_what_was_undone_inside_of_a_step_is_done_again(symphony: Symphony, ledger: Ledger, form: str, how: str) -> None:
    """Also where that step has completed, and in a fork: each once more under a new key, what has no undo not again, choices stand."""

    async def flip(context: RunContext) -> None:
        context["flips"] = 1

    symphony.functions.register("flip", flip)
    steps, undoable = AGAIN[form]
    run = await waiting(symphony, {"name": "w", "context": {"flips": 0}, "steps": [*steps, do("last", undo=None), WAIT]})
    done = list(ledger.log)
    await symphony.workflows.cancel(run)
    assert sorted(ledger.undone()) == sorted(f"undo/{address}" for address in undoable)
    if how == "fork":
        run = await symphony.workflows.fork(run, "last", run_id="f")
        going = asyncio.ensure_future(symphony.workflows.resume(run, auto_checkpoint=False))
    else:
        going = asyncio.ensure_future(symphony.workflows.retry_from(run, "last", auto_checkpoint=False))
    await until(lambda: run.status == "running" and "wait" in run.attempts)
    await symphony.workflows.signal(run, "go")
    await going
    assert run.status == "completed"
    assert sorted(ledger.log[len(done) + len(undoable) :]) == sorted([*undoable, "last"])
    keys = [key for several in ledger.keys.values() for key in several]
    assert len(set(keys)) == len(keys)


async def test_an_iteration_is_taken_back_with_the_earlier_ones_that_were_undone(symphony: Symphony, ledger: Ledger) -> None:
    """`retry_from` in the second iteration of a loop does the undone step of the first one again, too."""
    loop = {"kind": "loop", "name": "l", "max_iterations": 3, "steps": [{**do("y"), "undo": None}, do("x")]}
    run = await waiting(symphony, {"name": "w", "steps": [loop, WAIT]})
    await symphony.workflows.cancel(run)
    first = len(ledger.log)
    going = asyncio.ensure_future(symphony.workflows.retry_from(run, "l/1/x", auto_checkpoint=False))
    await until(lambda: run.status == "running" and "wait" in run.attempts)
    await symphony.workflows.signal(run, "go")
    await going
    assert (run.status, run.outputs["l"]) == ("completed", [f"did l/{number}/x" for number in range(3)])
    assert ledger.log[first:] == ["l/0/x", "l/1/x", "l/2/y", "l/2/x"]


@pytest.mark.parametrize("place", ["gather/0/l", "gather/1/m", "inner", "plain", "a"])
async def test_what_was_undone_of_code_is_done_again(symphony: Symphony, ledger: Ledger, place: str) -> None:
    """In every strand, and by a child run of its own; what has no undo, and came before the step that is named, not again."""
    run = await waiting(symphony, coded(symphony, ledger))
    await symphony.workflows.cancel(run)
    first = len(ledger.log)
    going = asyncio.ensure_future(symphony.workflows.retry_from(run, place, auto_checkpoint=False))
    await until(lambda: run.status == "running" and "wait go" in run.attempts)
    await symphony.workflows.signal(run, "go")
    await going
    assert run.status == "completed"
    again = ledger.log[first:]
    assert sorted(one for one in again if not one.endswith(":x")) == ["a", "gather/0/l", "gather/1/m", "plain"]
    assert len([one for one in again if one.endswith(":x")]) == 1
    keys = [key for several in ledger.keys.values() for key in several]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("at", ["begun", "undone", "cleaned up", "ended"])
async def test_a_fork_at_a_position_of_the_cleanup_goes_on_with_the_main_line(symphony: Symphony, ledger: Ledger, at: str) -> None:
    """It has nothing of the clean-up, and does again what was undone."""
    tidy = {"kind": "function", "name": "tidy", "function": "tidy"}
    run = await waiting(symphony, {"name": "w", "steps": [do("a"), do("b", undo=None), WAIT], "cleanup": [tidy]})
    await symphony.workflows.cancel(run)
    events = await symphony.log.read_entity("Workflow:r")
    named = {
        "begun": ("WorkflowCancelRequested", None),
        "undone": ("WorkflowStepCompleted", "undo/a"),
        "cleaned up": ("WorkflowStepCompleted", "cleanup/tidy"),
        "ended": ("WorkflowCancelled", None),
    }[at]
    (position,) = [event.position for event in events if event.name == named[0] and named[1] in (None, event.metadata.step)]
    fork = await symphony.workflows.fork(run, position, run_id="f")
    assert not [address for address in fork.attempts if address.startswith(("undo/", "cleanup/"))]
    await symphony.workflows.signal(fork, "go")
    first = len(ledger.log)
    await symphony.workflows.resume(fork, auto_checkpoint=False)
    assert (fork.status, ledger.log[first:]) == ("completed", ["a"])


async def test_an_undo_that_is_asked_for_again_has_another_key(symphony: Symphony, ledger: Ledger) -> None:
    """`retry_from` at its address does that one again, and nothing else."""
    run = await waiting(symphony, {"name": "w", "steps": [do("a"), do("b"), WAIT]})
    await symphony.workflows.cancel(run)
    await symphony.workflows.retry_from(run, "undo/a", auto_checkpoint=False)
    assert (run.status, ledger.undone()) == ("cancelled", ["undo/b", "undo/a", "undo/a"])
    assert ledger.keys["undo/a"] == ["r:undo/a:0", "r:undo/a:1"]


async def test_a_fork_undoes_what_it_has_begun_itself(symphony: Symphony, ledger: Ledger) -> None:
    """What it shares with its original was done by that one, and holds for it."""
    run = await waiting(symphony, {"name": "w", "steps": [do("a"), do("b"), WAIT]})
    fork = await symphony.workflows.fork(run, "b", run_id="f")
    going = asyncio.ensure_future(symphony.workflows.resume(fork, auto_checkpoint=False))
    await until(lambda: "wait" in fork.attempts)
    await symphony.workflows.cancel(fork)
    await going
    assert (fork.status, ledger.undone()) == ("cancelled", ["undo/b"])
    assert ledger.keys["undo/b"] == ["f:undo/b:0"]
    await symphony.workflows.cancel(run)
    assert ledger.undone() == ["undo/b", "undo/b", "undo/a"]


CRASHES: dict[str, list[dict[str, Any]]] = {
    "steps": [do("a"), do("b"), WAIT],
    "deep": FORMS["deep"][0],
    "child runs": FORMS["child runs that have completed"][0],
    "a child run under way": FORMS["a child run under way"][0],
}


@pytest.mark.parametrize(
    ("scene", "failing"), [*[(scene, set()) for scene in CRASHES], ("steps", {"undo/a"}), ("child runs", {"undo/a", "undo/x"})]
)
async def test_undoing_survives_a_crash_at_every_place(tmp_path: Path, scene: str, failing: set[str]) -> None:
    """The next process goes on: each undo on record is not repeated, no key is used for two things, the end is that of no crash."""
    definition = {"name": "w", "steps": CRASHES[scene], "cleanup": [{"kind": "function", "name": "tidy", "function": "tidy"}]}
    plain = Ledger()
    plain.failing = failing
    async with Symphony() as undisturbed:
        plain.serve(undisturbed)
        run = await waiting(undisturbed, definition)
        await undisturbed.workflows.cancel(run)
        expected = (run.status, sorted(run.outputs), run.error and (run.error["type"], run.error["message"], run.error["step"]))
    assert plain.places > 4
    for place in range(1, plain.places + 1):
        ledger = Ledger()
        ledger.failing, ledger.stop_at = failing, place
        async with Symphony({"state_dir": str(tmp_path / str(place))}, persistence_enabled=True) as symphony:
            ledger.serve(symphony)
            run = await waiting(symphony, definition)
            going = asyncio.ensure_future(symphony.workflows.cancel(run))
            await ledger.stopped.wait()
            await symphony.registry.get("workflow_engine").interrupt()
            await asyncio.gather(going, return_exceptions=True)
        symphony = Symphony(persistence_enabled=True)
        await symphony.setup(state_dir=tmp_path / str(place), resume="latest")
        async with symphony:
            ledger.serve(symphony)
            await symphony.workflows.recover(auto_checkpoint=False)
            run = await symphony.workflows.get_run("r")
            ended = (run.status, sorted(run.outputs), run.error and (run.error["type"], run.error["message"], run.error["step"]))
            assert ended == expected, place
        assert all(len(set(keys)) == 1 for keys in ledger.keys.values()), place
        assert set(ledger.undone()) == set(plain.undone()), place
        assert sum(map(len, ledger.keys.values())) <= sum(map(len, plain.keys.values())) + 1, "only the one under way is called again"


async def test_undoing_of_a_failed_run_survives_a_crash_at_every_place(tmp_path: Path) -> None:
    """It stays `cancelling` meanwhile, and ends `failed` with the error that it failed with, in whichever process."""
    definition = {"name": "w", "steps": [do("a"), do("b"), do("c")], "cleanup_on": "failure"}
    for place in range(1, 100):
        ledger = Ledger()
        ledger.failing, ledger.stop_at = {"c"}, place
        async with Symphony({"state_dir": str(tmp_path / str(place))}, persistence_enabled=True) as symphony:
            ledger.serve(symphony)
            handle = await symphony.workflows.start(definition, run_id="r", auto_checkpoint=False)
            ended, stopped = asyncio.ensure_future(handle.wait()), asyncio.ensure_future(ledger.stopped.wait())
            await asyncio.wait([ended, stopped], return_when=asyncio.FIRST_COMPLETED)
            over = ended.done()
            assert handle.status == ("failed" if over else "cancelling")
            await symphony.registry.get("workflow_engine").interrupt()
            stopped.cancel()
            await asyncio.gather(ended, stopped, return_exceptions=True)
        symphony = Symphony(persistence_enabled=True)
        await symphony.setup(state_dir=tmp_path / str(place), resume="latest")
        async with symphony:
            ledger.serve(symphony)
            await symphony.workflows.recover(auto_checkpoint=False)
            run = await symphony.workflows.get_run("r")
            assert (run.status, run.error["message"]) == ("failed", "c is down")  # type: ignore[index]
        assert list(dict.fromkeys(ledger.undone())) == ["undo/c", "undo/b", "undo/a"]
        assert all(len(set(keys)) == 1 for keys in ledger.keys.values())
        if over:
            return
    raise AssertionError("the run never came to its end")


shapes = st.recursive(
    st.sampled_from(["do", "plain"]),
    lambda inner: st.tuples(st.sampled_from(["sequence", "parallel", "map", "loop"]), st.lists(inner, min_size=1, max_size=3)),
    max_leaves=8,
)


def built(shape: Any, name: str) -> dict[str, Any]:
    if shape == "do":
        return do(name)
    if shape == "plain":
        return {**do(name), "undo": None}
    kind, inner = shape
    steps = [built(one, f"{name}{index}") for index, one in enumerate(inner)]
    whole: dict[str, Any] = {"kind": "sequence", "name": f"{name}s", "steps": steps}
    if kind == "parallel":
        return {"kind": "parallel", "name": name, "branches": steps}
    if kind == "map":
        return {"kind": "map", "name": name, "over": [1, 2], "step": whole}
    if kind == "loop":
        return {"kind": "loop", "name": name, "max_iterations": 2, "steps": steps}
    return {**whole, "name": name}


@settings(max_examples=25, deadline=None)
@given(st.lists(shapes, min_size=1, max_size=3))
def test_any_definition_is_undone_in_the_reverse_order_of_its_completions(given_shapes: list[Any]) -> None:
    """What is undone is what was done, backwards, in the order of the log, whatever is inside of what."""

    async def run_it() -> None:
        async with Symphony() as symphony:
            ledger = Ledger()
            ledger.serve(symphony)
            steps = [built(shape, f"n{index}") for index, shape in enumerate(given_shapes)]
            run = await waiting(symphony, {"name": "w", "steps": [*steps, WAIT]})
            undoable = {path for path, one in _walked(run.definition) if one.undo is not None}
            events = await symphony.log.read_entity("Workflow:r")
            completed = [event.metadata.step for event in events if event.name == "WorkflowStepCompleted"]
            await symphony.workflows.cancel(run)
            expected = [f"undo/{address}" for address in reversed(completed) if _path(run.definition, str(address)) in undoable]
            assert ledger.undone() == expected

    asyncio.run(run_it())


def _walked(definition: WorkflowDefinition) -> Any:
    from symphony_es.workflow.definitions.nesting import walk

    return walk(definition.plan)


def _path(definition: WorkflowDefinition, address: str) -> str | None:
    from symphony_es.workflow.definitions.nesting import path_at

    return path_at(definition.plan, address)


# -- code-first --------------------------------------------------------------------------------------------------------


def coded(symphony: Symphony, ledger: Ledger, last: str = "waits", **options: Any) -> Any:
    """A function whose steps have undos, also in strands and in a child run."""

    async def work(name: str, note: list[str] | None = None) -> str:
        return await ledger.perform(step_context(), "did")

    async def put_back(name: str, note: list[str] | None = None) -> None:
        context = step_context()
        await ledger.perform(context, "undid")
        ledger.seen[f"{context.step} arguments"] = (name, note)

    def call(name: str, **more: Any) -> Any:
        return step(work, name, note=[name], name=name, undo=put_back, **more)

    async def strand(name: str) -> str:
        return await call(name)

    @symphony.workflow(name="inner")
    async def inner() -> str:
        return await call("x")

    @symphony.workflow(name="flow", **options)
    async def flow() -> None:
        first = await call("a")
        assert first == "did a"
        await gather(strand("l"), strand("m"))
        await run_workflow(inner)
        await step(work, "plain", name="plain")
        if last == "cut off":
            await call("hangs")
        elif last == "fails":
            await call("fails")
        elif last == "catches":
            try:
                await wait_for_signal("go")
            finally:
                await call("late")
        else:
            await wait_for_signal("go")

    return flow


CODED = {
    "waits": ["r/inner:undo/x", "undo/gather/1/m", "undo/gather/0/l", "undo/a"],
    "cut off": ["r/inner:undo/x", "undo/hangs", "undo/gather/1/m", "undo/gather/0/l", "undo/a"],
    "catches": ["r/inner:undo/x", "undo/late", "undo/gather/1/m", "undo/gather/0/l", "undo/a"],
    "fails": ["r/inner:undo/x", "undo/fails", "undo/gather/1/m", "undo/gather/0/l", "undo/a"],
}


@pytest.mark.parametrize("process", ["the same", "another"])
@pytest.mark.parametrize("last", list(CODED))
async def test_the_steps_of_code_are_undone(symphony: Symphony, reopen: Reopen, ledger: Ledger, last: str, process: str) -> None:
    """With the arguments that they were called with, made anew from what is on record; any function will do, found by nothing."""
    ledger.hanging, ledger.failing = {"hangs"}, {"fails"}
    flow = coded(symphony, ledger, last)
    run = (await symphony.workflows.start(flow, run_id="r", auto_checkpoint=False)).run
    await until(lambda: run.status == "failed" or "wait go" in run.attempts or "hangs" in ledger.begun)
    if process == "another":
        symphony = await reopen(resume="latest")
        ledger.serve(symphony)
        coded(symphony, ledger, last)
        run = await symphony.workflows.get_run("r")
    await symphony.workflows.cancel(run, grace_s=0)
    assert run.status == "cancelled"
    assert ledger.undone() == CODED[last]
    assert ledger.seen["undo/a arguments"] == ("a", ["a"])
    assert ledger.seen["undo/a"][1].output == "did a"
    assert all(len(keys) == 1 for keys in ledger.keys.values())


@pytest.mark.parametrize("on", [(), ("failure",)])
async def test_code_that_fails_undoes_where_its_definition_says_so(symphony: Symphony, ledger: Ledger, on: tuple[str, ...]) -> None:
    """The run has failed, with the error that it failed with; `retry_from` does again what was undone."""
    ledger.failing = {"fails"}
    run = await symphony.workflows.execute_workflow(coded(symphony, ledger, "fails", cleanup_on=on), run_id="r", auto_checkpoint=False)
    assert (run.status, run.error["step"]) == ("failed", "fails")  # type: ignore[index]
    assert ledger.undone() == (CODED["fails"] if on else [])
    if on:
        ledger.failing = set()
        await symphony.workflows.retry_from(run, "fails", auto_checkpoint=False)
        assert run.status == "completed"
        assert ledger.keys["a"] == ["r:a:0", "r:a:1"]
        assert len(ledger.keys["plain"]) == 1


async def test_code_is_undone_whole_after_a_crash_at_every_place(tmp_path: Path) -> None:
    """Each undo on record is not repeated; no key is used for two things."""
    plain = Ledger()
    async with Symphony() as undisturbed:
        plain.serve(undisturbed)
        await undisturbed.workflows.cancel(await waiting(undisturbed, coded(undisturbed, plain, "catches")))
    for place in range(1, plain.places + 1):
        ledger = Ledger()
        ledger.stop_at = place
        async with Symphony({"state_dir": str(tmp_path / str(place))}, persistence_enabled=True) as symphony:
            ledger.serve(symphony)
            run = await waiting(symphony, coded(symphony, ledger, "catches"))
            going = asyncio.ensure_future(symphony.workflows.cancel(run))
            await ledger.stopped.wait()
            await symphony.registry.get("workflow_engine").interrupt()
            await asyncio.gather(going, return_exceptions=True)
        symphony = Symphony(persistence_enabled=True)
        await symphony.setup(state_dir=tmp_path / str(place), resume="latest")
        async with symphony:
            ledger.serve(symphony)
            coded(symphony, ledger, "catches")
            await symphony.workflows.recover(auto_checkpoint=False)
            run = await symphony.workflows.get_run("r")
            assert (run.status, run.error) == ("cancelled", None), place
        assert all(len(set(keys)) == 1 for keys in ledger.keys.values()), place
        assert list(dict.fromkeys(ledger.undone())) == CODED["catches"], place


# -- definitions -------------------------------------------------------------------------------------------------------


def put_back(context: RunContext) -> None:
    """An undo that a definition finds by its name."""


def test_the_forms_of_an_undo() -> None:
    """The name of a function, a function, a step and its dict; what it says nothing of is as in the step it undoes."""
    here = f"{__name__}:put_back"
    settings_ = {"retry": RetryPolicy(5), "timeout_s": 7}
    for given_as in (here, put_back):
        (made,) = StepList().add_function("a", "do", undo=given_as, **settings_).to_dicts()
        (read,) = WorkflowDefinition(name="w", steps=[made]).plan
        assert read.undo is not None
        assert read.undo.to_dict() == {
            **{"kind": "function", "id": "undo", "name": "undo a", "function": here},
            **{"retry": {"max_attempts": 5}, "timeout_s": 7},
        }
    own = {"kind": "function", "name": "x", "function": "back", "id": "undo"}
    for given_as in (own, StepList().add_function("x", "back", id="undo")):
        (made,) = StepList().add_function("a", "do", undo=given_as, **settings_).to_dicts()
        definition = WorkflowDefinition(name="w", steps=[made], cleanup_on="failure")
        assert definition.plan[0].undo is not None
        assert definition.plan[0].undo.to_dict() == own
        assert WorkflowDefinition.from_json(definition.to_json()) == definition
        assert definition.cleanup_on == ("failure",)


@pytest.mark.parametrize(
    ("definition", "path"),
    [
        ({"steps": [do("a", undo={"kind": "sequence", "steps": [do("x")]})]}, r"steps\[0\]\.undo"),
        ({"steps": [do("a", undo=do("x"))]}, r"steps\[0\]\.undo\.undo"),
        ({"steps": [do("a", undo=[do("x")])]}, r"steps\[0\]\.undo"),
        ({"steps": [do("a", undo=7)]}, r"steps\[0\]\.undo"),
        ({"steps": [do("undo")]}, r"steps\[0\]\.id"),
        ({"steps": [WAIT], "cleanup": [do("a")]}, r"cleanup \(a\)\.undo"),
        ({"steps": [WAIT], "cleanup_on": ["cancel"]}, "cleanup_on"),
        ({"steps": [WAIT], "cleanup_on": 7}, "cleanup_on"),
    ],
)
def test_definitions_that_make_no_sense(definition: dict[str, Any], path: str) -> None:
    """They are refused with the path of the fault."""
    with pytest.raises(DefinitionError, match=f"^{path}"):
        WorkflowDefinition.from_dict({"name": "w", **definition})


async def test_code_that_takes_the_names_of_the_cleanup_is_refused(symphony: Symphony, ledger: Ledger) -> None:
    """A `gather` of that name would have addresses of clean-up steps; an undo is a function."""

    @symphony.workflow
    async def flow() -> None:
        with pytest.raises(ConfigurationError, match="undo=7"):
            await step(lambda: 1, name="a", undo=7)  # type: ignore[call-overload]
        await gather(name="undo")

    run = await symphony.workflows.execute_workflow(flow, auto_checkpoint=False)
    assert (run.status, run.error["type"]) == ("failed", "ConfigurationError")  # type: ignore[index]
