"""The unit of repetition is a step: what is taken back is done anew under keys and ids of its own, and what is beside it keeps its own."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symphony_es import Symphony, step_context
from symphony_es.errors import ConfigurationError, EntityNotFoundError
from symphony_es.events.event import Event, EventMetadata
from symphony_es.events.fold import REWIND_EVENT
from symphony_es.workflow import RunContext, Workflow, WorkflowDefinition, gather, run_workflow, step
from symphony_es.workflow.engine.generations import Generations
from symphony_es.workflow.engine.histories import read_timeline
from symphony_es.workflow.engine.timeline import COMPLETION, RETRY_EVENT, Timeline

addresses = st.sampled_from(["a", "b", "fan", "fan/x", "fan/y", "fan/y/in", "loop", "loop/0/a", "loop/1/a"])


async def until(holds: Callable[[], bool]) -> None:
    """Returns when something has come to hold."""
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0)


class Shop:
    """Functions of steps, and what they were called with.

    Attributes:
        keys: idempotency keys of the bodies that began, in order.
        broken: names of the steps that fail.
        held: names of the steps that wait before they end.
    """

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.broken: set[str] = set()
        self.held: set[str] = set()

    async def act(self, context: RunContext) -> str:
        """One step."""
        self.keys.append(context.idempotency_key)
        name = context.step.rpartition("/")[2]
        if name in self.held:
            await asyncio.Event().wait()
        if name in self.broken:
            raise OSError(f"{name} is down")
        return context.idempotency_key

    def register(self, symphony: Symphony) -> None:
        """Makes the functions known to a process."""
        symphony.functions.register("act", self.act, replace=True)


def act(name: str) -> dict[str, Any]:
    """A function step."""
    return {"kind": "function", "name": name, "function": "act"}


def wait(name: str) -> dict[str, Any]:
    """A step that waits for a signal of its name."""
    return {"kind": "wait", "name": name, "signal": name}


def child(name: str, *steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A workflow step."""
    return {"kind": "workflow", "name": name, "definition": {"name": name, "steps": list(steps)}, **more}


def fan(*branches: dict[str, Any]) -> dict[str, Any]:
    """A parallel."""
    return {"kind": "parallel", "name": "fan", "branches": list(branches)}


@pytest.fixture
def shop() -> Shop:
    """The steps of a test."""
    return Shop()


async def fails_with_charge_under_way(symphony: Symphony, shop: Shop, *around: str) -> Workflow:
    """A run whose left branch has failed while the charge beside it was under way."""
    shop.broken, shop.held = {"left"}, {"charge"}
    inner: dict[str, Any] = fan(act("charge"), act("left"))
    for name in reversed(around):
        inner = {"kind": "sequence", "name": name, "steps": [inner]}
    return await symphony.workflows.execute_workflow({"name": "w", "steps": [act("first"), inner]}, run_id="r", auto_checkpoint=False)


@pytest.mark.parametrize("around", [(), ("a",), ("a", "b")])
@pytest.mark.parametrize("times", [1, 2, 3])
async def test_what_is_beside_a_step_that_is_taken_back_keeps_its_key(
    symphony: Symphony, shop: Shop, around: tuple[str, ...], times: int
) -> None:
    """However often and however deep: the step that was under way is tried again with the key that it had."""
    shop.register(symphony)
    run = await fails_with_charge_under_way(symphony, shop, *around)
    before = "/".join((*around, "fan"))
    for number in range(1, times + 1):
        shop.keys.clear()
        if number == times:
            shop.broken, shop.held = set(), set()
        await symphony.workflows.retry_from(run, f"{before}/left", auto_checkpoint=False)
        assert sorted(shop.keys) == [f"r:{before}/charge:0", f"r:{before}/left:{number}"]
    assert run.status == "completed"
    shop.keys.clear()
    await symphony.workflows.retry_from(run, before, auto_checkpoint=False)
    assert sorted(shop.keys) == [f"r:{before}/charge:1", f"r:{before}/left:{times + 1}"], "now both are taken back"


async def test_what_is_beside_it_keeps_its_key_in_another_process(symphony: Symphony, shop: Shop, reopen: Any) -> None:
    """Generations are on record: whoever takes the run up next reads them there."""
    shop.register(symphony)
    await fails_with_charge_under_way(symphony, shop)
    again = await reopen()
    await again.resume()
    shop.register(again)
    await again.workflows.retry_from("r", "fan/left", auto_checkpoint=False)
    third = await reopen()
    await third.resume()
    shop.register(third)
    shop.keys, shop.broken, shop.held = [], set(), set()
    run = await third.workflows.resume("r", auto_checkpoint=False)
    assert (run.status, sorted(shop.keys)) == ("completed", ["r:fan/charge:0", "r:fan/left:1"])


async def test_a_strand_beside_another_one_keeps_its_step(symphony: Symphony, shop: Shop) -> None:
    """Strands of a `gather` run beside each other, whichever of them began first."""

    async def act(name: str) -> str:
        shop.keys.append(step_context().idempotency_key)
        return name

    async def strand(name: str) -> str:
        return await step(act, name, name=name)

    @symphony.workflow
    async def order() -> list[str]:
        await step(act, "first", name="first")
        both = await gather(strand("left"), strand("right"))
        return [*both, await step(act, "last", name="last")]

    run = await symphony.workflows.execute_workflow(order, run_id="r", auto_checkpoint=False)
    for taken_back, again in (("gather/0/left", ["gather/0/left", "last"]), ("gather/1/right", ["gather/1/right", "last"])):
        shop.keys.clear()
        await symphony.workflows.retry_from(run, taken_back, auto_checkpoint=False)
        assert [key.split(":")[1] for key in shop.keys] == again
    assert (run.status, run.result) == ("completed", ["left", "right", "last"])


@pytest.mark.parametrize(("caught", "goes_down"), [(False, False), (False, True), (True, False)])
async def test_steps_that_code_runs_beside_each_other_keep_their_keys(
    symphony: Symphony, shop: Shop, caught: bool, goes_down: bool
) -> None:
    """Called as arguments of one `gather`, they are of one strand; what has begun before the other's end has not waited for it."""
    shop.broken, shop.held = {"left"}, {"charge"} if goes_down else set()

    async def act(name: str) -> str:
        shop.keys.append(step_context().idempotency_key)
        if name == "charge" and shop.broken and not caught:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if "charge" in shop.held:
                    raise OSError("went down with it") from None
                raise
        if name in shop.broken:
            raise OSError("down")
        return name

    @symphony.workflow
    async def order() -> list[Any]:
        await step(act, "first", name="first")
        both = await gather(step(act, "left", name="left"), step(act, "charge", name="charge"), return_exceptions=caught)
        failed = [each for each in both if isinstance(each, Exception)]
        if failed:
            raise ExceptionGroup("both", failed)
        return [*both, await step(act, "last", name="last")]

    run = await symphony.workflows.execute_workflow(order, run_id="r", auto_checkpoint=False)
    assert run.status == "failed"
    shop.broken, shop.keys = set(), []
    await symphony.workflows.retry_from(run, "left", auto_checkpoint=False)
    assert run.status == "completed", run.error
    assert sorted(shop.keys) == [*([] if caught else ["r:charge:0"]), "r:last:0", "r:left:1"]
    shop.keys.clear()
    await symphony.workflows.retry_from(run, "left", auto_checkpoint=False)
    assert sorted(shop.keys) == ["r:last:1", "r:left:2"]
    shop.keys.clear()
    await symphony.workflows.retry_from(run, "first", auto_checkpoint=False)
    assert sorted(shop.keys) == ["r:charge:1", "r:first:1", "r:last:2", "r:left:3"]


@pytest.mark.parametrize("taken_back", ["fan/left", "fan", "first"])
async def test_a_child_run_that_is_taken_back_is_ended_first(symphony: Symphony, shop: Shop, reopen: Any, taken_back: str) -> None:
    """One that is dropped is cancelled before another one begins, and no process takes it up again; one beside the step goes on."""
    shop.register(symphony)
    shop.broken = {"left"}
    kid = child("kid", act("reserve"), wait("go"), act("charge"))
    steps = [act("first"), fan({"kind": "sequence", "name": "slow", "steps": [kid]}, {**act("left"), "retry": 2})]
    await symphony.workflows.start({"name": "w", "steps": steps}, run_id="r", auto_checkpoint=False)
    run = await symphony.workflows.get_run("r")
    await until(lambda: "fan/slow/kid" in run.children and run.children["fan/slow/kid"].is_completed("reserve"))
    await symphony.registry.get("workflow_engine").interrupt()
    again = await reopen()
    await again.resume()
    shop.register(again)
    shop.keys, shop.broken = [], set()
    going = asyncio.ensure_future(again.workflows.retry_from("r", taken_back, auto_checkpoint=False))
    run = await again.workflows.get_run("r")
    dropped = taken_back != "fan/left"
    now = "r/fan/slow/kid@1" if dropped else "r/fan/slow/kid"
    await until(lambda: "fan/slow/kid" in run.children and run.children["fan/slow/kid"].id == now)
    await until(lambda: "go" in run.children["fan/slow/kid"].attempts)
    await again.workflows.signal(now, "go")
    assert (await going).status == "completed"
    charged = [key for key in shop.keys if ":charge:" in key]
    assert charged == [f"{now}:charge:0"]
    assert [key for key in shop.keys if ":reserve:" in key] == ([f"{now}:reserve:0"] if dropped else [])
    third = await reopen()
    await third.resume()
    shop.register(third)
    shop.keys.clear()
    assert (await third.workflows.recover(), shop.keys) == ([], [])
    ended = {each.id: str(each.status) for each in await third.workflows.get_all_runs()}
    assert ended == {"r": "completed", now: "completed", **({"r/fan/slow/kid": "cancelled"} if dropped else {})}


@pytest.mark.parametrize("further", [0, 1, 2, 3])
async def test_a_rewind_takes_back_what_came_after_it_and_nothing_else(symphony: Symphony, shop: Shop, further: int) -> None:
    """A child run that was under way at the checkpoint goes on as that child run; what it had completed there is not done again."""
    shop.register(symphony)
    kid = child("kid", act("reserve"), wait("go"), act("charge"))
    definition = {"name": "w", "steps": [fan(kid, wait("ask")), act("last")]}
    handle = await symphony.workflows.start(definition, run_id="r", auto_checkpoint=False)
    await until(lambda: "go" in getattr(handle.run.children.get("fan/kid"), "attempts", ()))
    checkpoint = await symphony.create_checkpoint("here")
    if further > 0:
        await symphony.workflows.signal("r/fan/kid", "go")
        await until(lambda: handle.run.is_completed("fan/kid"))
    if further > 1:
        await handle.signal("ask")
        await handle.result()
    if further > 2:
        await symphony.workflows.retry_from("r", "last", auto_checkpoint=False)
    shop.keys.clear()
    await symphony.resume_from_checkpoint(checkpoint, stop_runs=True)
    recovered = asyncio.ensure_future(symphony.workflows.recover(auto_checkpoint=False))
    run = await symphony.workflows.get_run("r")
    await symphony.workflows.signal("r/fan/kid", "go")
    await symphony.workflows.signal("r", "ask")
    assert [each.id for each in await recovered] == ["r"]
    charge, last = (1 if further > 0 else 0), max(0, further - 1)
    assert shop.keys == [f"r/fan/kid:charge:{charge}", f"r:last:{last}"]
    assert await symphony.workflows.recover() == []
    assert {each.id: str(each.status) for each in await symphony.workflows.get_all_runs()} == {"r": "completed", "r/fan/kid": "completed"}
    assert run.status == "completed"


@pytest.mark.parametrize("rewinds", [1, 2, 3])
async def test_fork_and_retry_from_after_a_rewind_see_what_holds_now(symphony: Symphony, shop: Shop, rewinds: int) -> None:
    """The answer that was taken back is not used again; what the new one led to is."""
    shop.register(symphony)

    async def use(context: RunContext) -> str:
        return f"used {context.outputs['answer']}"

    symphony.functions.register("use", use)
    steps = [act("first"), wait("answer"), {"kind": "function", "name": "use", "function": "use"}]
    handle = await symphony.workflows.start({"name": "w", "steps": steps}, run_id="r", auto_checkpoint=False)
    await until(lambda: "answer" in handle.run.attempts)
    checkpoint = await symphony.create_checkpoint("here")
    await handle.signal("answer", "0")
    await handle.result()
    for number in range(1, rewinds + 1):
        await symphony.resume_from_checkpoint(checkpoint)
        await symphony.workflows.signal("r", "answer", str(number))
        (run,) = await symphony.workflows.recover(auto_checkpoint=False)
        assert run.result == f"used {number}"
    fork = await symphony.workflows.fork(run, at="use")
    assert (await symphony.workflows.resume(fork, auto_checkpoint=False)).result == f"used {rewinds}"
    head = symphony.log.head
    await symphony.workflows.retry_from(run, "use", auto_checkpoint=False)
    assert (run.status, run.result) == ("completed", f"used {rewinds}")
    said = next(event for event in await symphony.log.read_entity("Workflow:r", 0) if event.position > head)
    assert (said.name, said.data["dropped"]) == ("WorkflowRetryRequested", ["use"])
    history = await read_timeline(symphony, run)
    assert (set(history.begun), set(history.completed)) == (set(run.attempts), set(run.outputs))


async def test_a_rewind_forwards_is_a_rewind_like_any_other(symphony: Symphony, shop: Shop) -> None:
    """Back to the beginning, then to a later checkpoint of what was taken back: steps stand as they did there, in new generations."""
    shop.register(symphony)
    handle = await symphony.workflows.start({"name": "w", "steps": [act("a"), wait("go"), act("b"), act("c")]}, run_id="r")
    early = await symphony.create_checkpoint("early")
    await until(lambda: "go" in handle.run.attempts)
    late = await symphony.create_checkpoint("late")
    await handle.signal("go")
    await handle.result()
    await symphony.resume_from_checkpoint(early)
    assert (await symphony.workflows.get_run("r")).status == "running"
    await symphony.resume_from_checkpoint(late)
    run = await symphony.workflows.get_run("r")
    assert dict(run.attempts) == {"a": 1, "go": 1}
    history = await read_timeline(symphony, run)
    assert (set(history.begun), set(history.completed)) == ({"a", "go"}, {"a"})
    shop.keys.clear()
    await symphony.workflows.signal("r", "go")
    await symphony.workflows.recover(auto_checkpoint=False)
    assert shop.keys == ["r:b:1", "r:c:1"]


LIVES: dict[str, Callable[[Symphony], Any]] = {
    "forked of one": lambda symphony: symphony.workflows.fork("one", "b", run_id="f"),
    "forked of two": lambda symphony: symphony.workflows.fork("two", "c", run_id="f"),
    "started": lambda symphony: symphony.workflows.execute_workflow(LETTERS, {"n": 3}, run_id="f"),
    "forked of a fork": lambda symphony: symphony.workflows.fork("between", "b", run_id="f"),
}
LETTERS = WorkflowDefinition(id="letters", name="letters", steps=[act("a"), act("b"), act("c")])


@pytest.mark.parametrize("brought_back", [0, 1])
@pytest.mark.parametrize("lives", [*itertools.pairwise([*LIVES, "forked of one"]), ("forked of one", "forked of two", "started")])
async def test_the_run_that_a_rewind_brings_back_has_the_past_that_it_had(
    symphony: Symphony, shop: Shop, lives: tuple[str, ...], brought_back: int
) -> None:
    """However many runs have had its id since: it is forked, taken back and asked for as before, and so is what was forked of it."""
    shop.register(symphony)
    workflows = symphony.workflows
    for number, name in enumerate(["one", "two"], 1):
        await workflows.execute_workflow(LETTERS, {"n": number}, run_id=name, auto_checkpoint=False)
    between = await workflows.fork("two", "c", {"n": 4}, run_id="between")
    before, positions, states = symphony.log.head, [], []
    for life in lives:
        if positions:
            await symphony.rewind(before)
        await LIVES[life](symphony)
        run = await workflows.get_run("f")
        await symphony.flush()
        positions.append(symphony.log.head)
        states.append((dict(run.context), list(run.attempts)))
    await symphony.rewind(positions[brought_back])
    run = await workflows.get_run("f")
    context, attempts = states[brought_back]
    assert (dict(run.context), list(run.attempts)) == (context, attempts)
    assert (await workflows.start(LETTERS, {"n": context["n"]}, run_id="f", if_exists="return")).run is run
    for number, address in enumerate(attempts):
        fork = await workflows.fork(run, address)
        assert (dict(fork.context), list(fork.attempts)) == (context, attempts[:number])
        again = await workflows.fork(fork, attempts[0]) if fork.attempts else fork
        assert (dict(again.context), list(again.attempts)) == (context, [])
    await workflows.resume(run, auto_checkpoint=False) if run.status == "pending" else None
    await workflows.retry_from(run, "a", auto_checkpoint=False)
    assert (run.status, sorted(run.outputs), between.status) == ("completed", ["a", "b", "c"], "pending")
    assert max(Counter(shop.keys).values()) == 1


SHARES = {"a": "a", "b": "b", "c": "c", "all": "go"}
"""The step that a fork begins with; it shares those before."""

OWN = {"a": "abc", "b": "bc", "c": "c", "all": ""}
"""What it does itself."""


@pytest.mark.parametrize("brought_back", [False, True])
@pytest.mark.parametrize("goes", [False, True])
@pytest.mark.parametrize("lives", ["aa", "ba", "cb", "ab", "cca", "bac", ["all", "a"], ["c", "all"]])
async def test_what_forks_of_one_id_share_is_not_raised(
    symphony: Symphony, shop: Shop, lives: Sequence[str], goes: bool, brought_back: bool
) -> None:
    """A step is of the generation after the one in which a run of that id has done it last; of the first one where none of them has."""
    shop.register(symphony)
    workflows = symphony.workflows
    definition = WorkflowDefinition(id="w", name="w", steps=[act("a"), act("b"), act("c"), wait("go")])
    attempts: Callable[[str], Any] = lambda run_id: symphony.world.get(f"Workflow:{run_id}").attempts  # noqa: E731
    await workflows.start(definition, run_id="one", auto_checkpoint=False)
    await until(lambda: "go" in attempts("one"))
    await symphony.flush()
    before, made = symphony.log.head, 0
    expected = dict.fromkeys("abc", 1)  # the second run of an id begins with it
    for life in lives:
        run = await workflows.fork("one", SHARES[life], run_id="f")
        await symphony.flush()
        made = made or symphony.log.head
        if goes:
            shop.keys.clear()
            await workflows.start(run, auto_checkpoint=False)
            await until(lambda: "go" in attempts("f"))
            for key in shop.keys:
                expected[key.split(":")[1]] = int(key.split(":")[2]) + 1
        await symphony.rewind(before, stop_runs=True)
    if brought_back:
        await symphony.rewind(made)
    run = await workflows.get_run("f") if brought_back else await workflows.fork("one", SHARES[lives[0]], run_id="f")
    shop.keys.clear()
    await workflows.start(run, auto_checkpoint=False)
    await until(lambda: "go" in attempts("f"))
    assert shop.keys == [f"f:{name}:{expected[name]}" for name in "abc" if name in OWN[lives[0]]]


@pytest.mark.parametrize("place", ["b", "go"])
async def test_what_a_fork_does_anew_since_it_was_undone_is_its_first_execution(symphony: Symphony, shop: Shop, place: str) -> None:
    """The fork does not share that, and has used no key for it: taken back once, it is of the generation after the first."""
    shop.register(symphony)
    workflows = symphony.workflows
    undo = {"undo": "act"}
    steps = [{**act("a"), **undo}, {**act("b"), **undo}, wait("go"), act("c")]
    handle = await workflows.start({"name": "w", "steps": steps}, run_id="one", auto_checkpoint=False)
    await until(lambda: "go" in handle.run.attempts)
    await handle.cancel()
    fork = await workflows.fork(handle.run, place, run_id="f")
    assert list(fork.outputs) == [], "all of it is undone"
    shop.keys.clear()
    going = (await workflows.start(fork, auto_checkpoint=False)).run
    await until(lambda: "go" in going.attempts)
    await symphony.registry.get("workflow_engine").interrupt()
    await symphony.workflows.signal(going, "go")
    await workflows.retry_from(going, "b", auto_checkpoint=False)
    assert shop.keys == ["f:a:0", "f:b:0", "f:b:1", "f:c:0"]
    history = await read_timeline(symphony, going)
    assert (history.execution("a").generation, history.execution("b").generation) == (0, 1)


@pytest.mark.parametrize("how", ["rewound", "removed"])
async def test_a_run_with_the_id_of_one_that_is_gone_has_new_keys(symphony: Symphony, shop: Shop, reopen: Any, how: str) -> None:
    """Its id may be used again; the keys under which its steps were done are not, in any process."""
    shop.register(symphony)
    start = await symphony.create_checkpoint("start")
    definition = {"name": "w", "steps": [act("a"), child("kid", act("b")), wait("go"), act("c")]}
    for _ in range(2):
        handle = await symphony.workflows.start(definition, run_id="r", auto_checkpoint=False)
        await handle.signal("go")
        await handle.result()
        if how == "rewound":
            await symphony.resume_from_checkpoint(start)
        else:
            with pytest.raises(EntityNotFoundError, match=r"at rest in the log: await symphony\.entities\.load\('Workflow:r'\)"):
                symphony.entities.remove("Workflow:r")
            await symphony.entities.load("Workflow:r")
            symphony.entities.remove("Workflow:r")
            symphony.entities.remove(handle.run.children["kid"])
    handle = await symphony.workflows.start(definition, run_id="r", auto_checkpoint=False)
    await until(lambda: "go" in handle.run.attempts)
    await symphony.workflows.signal("r", "go")
    again = await reopen()
    await again.resume()
    shop.register(again)
    await again.workflows.recover(auto_checkpoint=False)
    assert Counter(shop.keys).most_common(1)[0][1] == 1, shop.keys
    assert len(shop.keys) == 9


@pytest.mark.parametrize("how", ["rewound", "removed"])
@pytest.mark.parametrize(("before", "after"), [("fork", "fork"), ("run", "fork"), ("fork", "run"), ("fork of a fork", "fork")])
async def test_a_fork_with_the_id_of_one_that_is_gone_has_new_keys(
    symphony: Symphony, shop: Shop, reopen: Any, how: str, before: str, after: str
) -> None:
    """Whoever had the id, and whoever has it now: no key is used twice, and it can be taken back to, and forked at, what it shares."""
    shop.register(symphony)
    definition = {"name": "w", "steps": [act("a"), act("b"), act("c")]}
    workflows = symphony.workflows
    for run_id in ("first", "second"):
        await (await workflows.start(definition, run_id=run_id, auto_checkpoint=False)).result()
    start = await symphony.create_checkpoint("start")

    async def make(what: str, origin: str, run_id: str) -> Workflow:
        if what == "run":
            return (await workflows.start(definition, run_id=run_id, auto_checkpoint=False)).run
        if what == "fork of a fork":
            origin = (await workflows.fork(origin, "c", run_id=f"between {origin} and {run_id}")).id
        return await workflows.fork(origin, "b", run_id=run_id)

    for origin in ("first", "second"):
        made = await make(before, origin, "r")
        if made.status == "pending":
            await workflows.start(made, auto_checkpoint=False)
        await workflows.handle(made).wait()
        if how == "rewound":
            await symphony.rewind(start)
        else:
            await symphony.entities.load("Workflow:r")
            symphony.entities.remove("Workflow:r")
            await symphony.flush()
    await make(after, "second", "r")
    again = await reopen()
    await again.resume()
    shop.register(again)
    run = await again.workflows.get_run("r")
    done = set(shop.keys)
    shop.keys.clear()
    await (again.workflows.resume(run, False) if run.status == "pending" else again.workflows.recover(False))
    ran, whole = [key.split(":")[1] for key in shop.keys], ["a", "b", "c"]
    assert ran == (["b", "c"] if after == "fork" else whole[3 - len(ran) :]), "a run may have come to any step before the reopening"
    fork = await again.workflows.fork("r", "b", run_id="fork of r")
    assert dict(fork.outputs) == {"a": run.outputs["a"]}
    await again.workflows.retry_from(run, "a", False)
    assert run.status == "completed"
    assert not done.intersection(shop.keys), shop.keys
    assert Counter(shop.keys).most_common(1)[0][1] == 1, shop.keys


@pytest.mark.parametrize("taken", ["child", "task"])
async def test_an_id_that_somebody_else_has_is_not_taken_for_ones_own(symphony: Symphony, shop: Shop, taken: str) -> None:
    """A run of the user's that has the id which a child run would get is left alone, and so is a task."""
    shop.register(symphony)
    if taken == "child":
        other = await symphony.workflows.execute_workflow({"name": "other", "steps": [act("mine")]}, run_id="r/kid", auto_checkpoint=False)
        run = await symphony.workflows.execute_workflow(
            {"name": "w", "steps": [child("kid", act("own"))]}, run_id="r", auto_checkpoint=False
        )
        assert (run.status, run.result) == ("completed", f"{run.children['kid'].id}:own:0")
        assert run.children["kid"] is not other
        assert other.parent is None
    else:

        async def echo(task: Any) -> str:
            return "answered"

        symphony.models.register("echo", echo, replace=True)
        mine = await symphony.tasks.create_task("mine", input_data={"query": "x"}, id="r/ask")
        await symphony.tasks.update_task_status(mine, "completed", result="mine")
        step_ = {"kind": "task", "name": "ask", "template": "x", "model": "echo"}
        run = await symphony.workflows.execute_workflow({"name": "w", "steps": [step_]}, run_id="r", auto_checkpoint=False)
        assert (run.status, run.result) == ("completed", "answered")


async def test_a_child_run_of_a_code_first_workflow_beside_a_strand_goes_on(symphony: Symphony, shop: Shop) -> None:
    """Taken back to the strand beside it, the run waits for the child run that it has, which does nothing twice."""
    shop.register(symphony)
    kid = {"name": "kid", "steps": [act("reserve"), wait("go")]}
    definition = WorkflowDefinition.from_dict(kid)

    async def quick() -> None:
        shop.keys.append("quick")

    async def left() -> None:
        await step(quick, name="quick")

    async def right() -> Any:
        return await run_workflow(definition, name="kid")

    @symphony.workflow
    async def order() -> None:
        await gather(left(), right())

    handle = await symphony.workflows.start(order, run_id="r", auto_checkpoint=False)
    await until(lambda: "go" in getattr(handle.run.children.get("gather/1/kid"), "attempts", ()) and "gather/0/quick" in handle.run.outputs)
    await symphony.registry.get("workflow_engine").interrupt()
    going = asyncio.ensure_future(symphony.workflows.retry_from("r", "gather/0/quick", auto_checkpoint=False))
    await until(lambda: shop.keys.count("quick") == 2)
    await symphony.workflows.signal("r/gather/1/kid", "go")
    assert (await going).status == "completed"
    assert shop.keys.count("r/gather/1/kid:reserve:0") == 1
    assert len(await symphony.workflows.get_all_runs()) == 2


async def test_a_clean_up_step_is_no_place_to_fork_at(symphony: Symphony, shop: Shop) -> None:
    """A fork would go on with the main line of a run that was cancelled: refused, with what to do, and nothing is appended."""
    shop.register(symphony)
    handle = await symphony.workflows.start({"name": "w", "steps": [act("a"), wait("go")], "cleanup": [act("tidy")]}, auto_checkpoint=False)
    await handle.cancel()
    head = symphony.log.head
    with pytest.raises(ConfigurationError, match="clean-up step"):
        await symphony.workflows.fork(handle.run, "cleanup/tidy")
    assert symphony.log.head == head


# -- the history by itself ----------------------------------------------------------------------------------------------


class Plain:
    """A run's steps, rewound by keeping a copy of everything at each position: what a timeline is held against."""

    def __init__(self) -> None:
        self.at: list[tuple[dict[str, int], dict[str, int]]] = [({}, {})]
        self.raised: dict[str, int] = {}

    def generation(self, address: str) -> int:
        """The largest of an address and those above it."""
        parts = address.split("/")
        return max(self.raised.get("/".join(parts[:length]), 0) for length in range(1, len(parts) + 1))

    def apply(self, event: Event) -> None:
        """Goes on."""
        begun, completed = (dict(each) for each in self.at[-1])
        address = event.metadata.step or ""
        lost: set[str] = set()
        if event.name == COMPLETION:
            completed[address] = event.position
        elif event.name == RETRY_EVENT:
            lost = set(event.data["dropped"])
            begun = {each: at for each, at in begun.items() if each not in lost}
            above = {each for each in completed if any(other.startswith(f"{each}/") for other in lost)}
            completed = {each: at for each, at in completed.items() if each not in lost | above}
        elif event.name == REWIND_EVENT:
            then = self.at[event.data["to"]]
            lost = {each for each, at in begun.items() if then[0].get(each) != at}
            composites = {each for each in completed if any(other.startswith(f"{each}/") for other in begun)}
            lost |= {each for each, at in completed.items() if then[1].get(each) != at and each not in composites}
            begun, completed = (dict(each) for each in then)
        else:
            begun.setdefault(address, event.position)
        self.raised.update({each: self.generation(each) + 1 for each in lost})
        self.at.append((begun, completed))


@given(st.lists(st.tuples(st.sampled_from(["start", "complete", "retry", "rewind"]), addresses, st.integers(0, 99)), max_size=40))
def test_a_history_is_read_as_if_everything_had_been_kept(moves: list[tuple[str, str, int]]) -> None:
    """Starts, completions, retries and rewinds to any position, also of what had been taken back, in any order."""
    timeline, plain = Timeline(), Plain()
    for position, (what, address, number) in enumerate(moves, start=1):
        data: Any = None
        begun = plain.at[-1][0]
        if what == "retry":
            first = begun.get(address)
            if first is None:
                what = "start"
            else:
                dropped = [each for each, at in begun.items() if at >= first]
                data = {"step": address, "dropped": dropped, "position": first - 1}
        elif what == "rewind":
            data = {"to": number % position}
        name = {"start": "WorkflowStepStarted", "complete": COMPLETION, "retry": RETRY_EVENT, "rewind": REWIND_EVENT}[what]
        if what == "complete" and address not in begun:
            name = "WorkflowStepStarted"
        event = Event(
            position=position,
            time_ns=position,
            entity_key="Workflow:r",
            version=position,
            name=name,
            event_id=bytes(16),
            transaction_id=bytes(16),
            changes=(),
            metadata=EventMetadata(step=address),
            data=data,
        )
        timeline.apply(event)
        plain.apply(event)
        assert (timeline.begun, timeline.completed) == plain.at[-1]
        assert {each: Generations(timeline.raised).of(each) for each in timeline.raised} == {
            each: plain.generation(each) for each in plain.raised
        }
        if timeline.begun:
            first = min(timeline.begun, key=timeline.begun.__getitem__)
            assert timeline.since(first) == sorted(timeline.begun, key=timeline.begun.__getitem__)
