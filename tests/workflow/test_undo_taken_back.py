"""What `retry_from` or a rewind has taken back was done all the same: it is undone with the rest, once for each execution that began."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.workflow import RunContext, Workflow, WorkflowDefinition, step, step_context, wait_for_signal

WAIT: dict[str, Any] = {"kind": "wait", "name": "wait", "signal": "go"}


def do(name: str, **more: Any) -> dict[str, Any]:
    return {"kind": "function", "name": name, "function": "do", "undo": "undo", **more}


def child(name: str, *steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"kind": "workflow", "name": name, "definition": {"name": name, "steps": list(steps), **more}}


def mapped(inner: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "map", "name": "m", "over": ["p", "q"], "max_concurrency": 1, "step": inner}


def loop(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "loop", "name": "l", "max_iterations": 2, "steps": list(steps)}


def parallel(*branches: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "parallel", "name": "p", "branches": list(branches)}


class Provider:
    """An outside party that keeps a ledger: what was done, and what was undone of it, by idempotency key."""

    def __init__(self, symphony: Symphony) -> None:
        self.done: list[str] = []
        self.undone: list[str] = []
        self.keys: Counter[str] = Counter()
        self.seen: dict[str, Any] = {}
        self.failing: set[str] = set()
        self.price = 1
        self.serve(symphony)

    def serve(self, symphony: Symphony) -> None:
        for name in ("do", "undo", "quote"):
            symphony.functions.register(name, getattr(self, name), replace=True)

    async def quote(self, context: RunContext) -> int:
        context["price"] = self.price
        return self.price

    async def do(self, context: RunContext) -> str:
        self.keys[context.idempotency_key] += 1
        self.done.append(context.idempotency_key)
        if context.step in self.failing:
            raise OSError(f"{context.step} is down")
        context["paid"] = context.idempotency_key
        return f"{context.idempotency_key} {context.get('item')} {context.get('price')}"

    async def undo(self, context: RunContext) -> str:
        assert context.undoes is not None
        if context.step in self.failing:
            raise OSError(f"{context.step} is down")
        self.keys[context.idempotency_key] += 1
        self.undone.append(context.undoes.idempotency_key)
        self.seen[context.undoes.idempotency_key] = (context.undoes.output, context.get("paid"), context.get("price"), context.get("item"))
        return context.undoes.address

    def is_settled(self) -> None:
        """Everything that was done was undone, once, and nothing was done twice under one key."""
        assert sorted(self.undone) == sorted(self.done)
        assert set(self.keys.values()) <= {1}, self.keys


@pytest.fixture
def provider(symphony: Symphony) -> Provider:
    """The functions, registered."""
    return Provider(symphony)


async def until(condition: Callable[[], Any]) -> None:
    """Return when a condition holds; fails after ten seconds."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def waits(run: Workflow) -> bool:
    waiting = [address for address in run.attempts if address.rpartition("/")[2] in ("wait", "wait go") and address not in run.outputs]
    return bool(waiting) or any(waits(below) for below in run.children.values())


async def waiting(symphony: Symphony, definition: Any, run_id: str = "r") -> Workflow:
    run: Workflow = (await symphony.workflows.start(definition, run_id=run_id, auto_checkpoint=False)).run
    await until(lambda: waits(run))
    return run


async def again(symphony: Symphony, run: Workflow, address: str) -> None:
    """Pause the run, take it back to a step, and have it come to its wait again."""
    await symphony.workflows.pause(run)
    going = asyncio.ensure_future(symphony.workflows.retry_from(run, address, auto_checkpoint=False))
    await until(lambda: going.done() or (run.status == "running" and waits(run)))
    if going.done():
        await going
    going.add_done_callback(lambda task: task.exception())


SHAPES: dict[str, list[dict[str, Any]]] = {
    "plain": [do("a"), do("b"), WAIT],
    "map": [do("a"), mapped(do("b")), WAIT],
    "loop": [do("a"), loop(do("b")), WAIT],
    "parallel": [parallel(do("a"), do("b")), WAIT],
    "child": [do("a"), child("k", do("b")), WAIT],
    "child of a child": [child("j", do("a"), child("k", do("b"))), WAIT],
}


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
async def test_each_execution_is_undone_once(symphony: Symphony, provider: Provider, shape: str, times: int) -> None:
    """Under which keys it was done, all of it is undone; what it sees is what it saw."""
    definition = WorkflowDefinition(name="w", steps=SHAPES[shape])
    run = await waiting(symphony, definition)
    for _ in range(times):
        await again(symphony, run, definition.plan[0].id)
    before = Counter(provider.done)
    await symphony.workflows.cancel(run)
    assert run.status == "cancelled"
    assert run.error is None
    assert len(before) == len(provider.done)
    assert len(provider.undone) == len(before)
    provider.is_settled()
    for key, (output, paid, _, item) in provider.seen.items():
        assert output.split()[:2] == [key, str(item)]
        assert paid in before


async def test_the_newest_is_undone_first(symphony: Symphony, provider: Provider) -> None:
    """In the reverse order in which they have completed, whenever they were taken back; each at an address and under a key of its own."""
    run = await waiting(symphony, WorkflowDefinition(name="w", steps=[do("a"), do("b"), WAIT]))
    await again(symphony, run, "b")
    await symphony.workflows.cancel(run)
    assert provider.undone == ["r:b:1", "r:b:0", "r:a:0"]
    assert [address for address in run.outputs if address.startswith("undo/")] == ["undo/b", "undo/@0/b", "undo/a"]
    assert provider.keys["r:undo/b:0"] == provider.keys["r:undo/b:1"] == 1


async def test_it_is_undone_where_it_has_not_begun_again(symphony: Symphony, provider: Provider) -> None:
    """A run that fails before it comes to the step again can be cancelled: it has something to undo."""
    run = await waiting(
        symphony, WorkflowDefinition(name="w", steps=[{"kind": "function", "name": "q", "function": "quote"}, do("b"), WAIT])
    )
    symphony.functions.register("quote", lambda context: 1 / 0, replace=True)
    await symphony.workflows.pause(run)
    await symphony.workflows.retry_from(run, "q", auto_checkpoint=False)
    assert run.status == "failed"
    await symphony.workflows.cancel(run)
    assert (run.status, provider.undone) == ("cancelled", ["r:b:0"])


async def test_it_sees_the_run_as_it_was(symphony: Symphony, provider: Provider) -> None:
    """The context and the outputs are those of then, also where the run has others now; what it writes goes to the run as it is."""
    steps = [{"kind": "function", "name": "q", "function": "quote"}, do("b"), WAIT]
    run = await waiting(symphony, WorkflowDefinition(name="w", steps=steps))
    provider.price = 7
    await again(symphony, run, "q")
    await symphony.workflows.cancel(run)
    assert {key: (paid, price) for key, (_, paid, price, _) in provider.seen.items()} == {
        "r:b:0": ("r:b:0", 1),
        "r:b:1": ("r:b:1", 7),
    }


@pytest.mark.parametrize("cut_off", ["failed", "under way"])
async def test_an_undo_that_has_begun_goes_on_under_its_key(symphony: Symphony, provider: Provider, cut_off: str) -> None:
    """A refund that has failed, or was cut off, may have gone through: what is done later is the same refund."""
    keys: list[str] = []

    async def refund(context: RunContext) -> None:
        keys.append(context.idempotency_key)
        if len(keys) == 1 and cut_off == "failed":
            raise OSError("no answer")
        if len(keys) == 1:
            await asyncio.Event().wait()

    symphony.functions.register("undo", refund, replace=True)
    run = await waiting(symphony, WorkflowDefinition(name="w", steps=[do("a"), WAIT]))
    if cut_off == "failed":
        await symphony.workflows.cancel(run)
    else:
        cancelling = asyncio.ensure_future(symphony.workflows.cancel(run))
        await until(lambda: keys)
        await symphony.workflows.cancel(run, grace_s=0, cleanup=False)
        await cancelling
    assert run.status == "cancelled"
    going = asyncio.ensure_future(symphony.workflows.retry_from(run, "a", auto_checkpoint=False))
    await until(lambda: run.status == "running" and waits(run))
    assert provider.done == ["r:a:0", "r:a:1"]
    await symphony.workflows.cancel(run)
    going.add_done_callback(lambda task: task.exception())
    assert sorted(keys) == ["r:undo/a:0", "r:undo/a:0", "r:undo/a:1"]
    assert run.status == "cancelled"
    assert run.error is None


async def test_what_was_undone_is_not_undone_again(symphony: Symphony, provider: Provider) -> None:
    """Cancelled, done again, and cancelled again: the first execution was undone the first time."""
    run = await waiting(symphony, WorkflowDefinition(name="w", steps=[do("a"), do("b"), WAIT]))
    for _ in range(3):
        await symphony.workflows.cancel(run)
        going = asyncio.ensure_future(symphony.workflows.retry_from(run, "b", auto_checkpoint=False))
        await until(lambda: run.status == "running" and waits(run))
        await again(symphony, run, "b")
        going.add_done_callback(lambda task: task.exception())
    await symphony.workflows.cancel(run)
    provider.is_settled()
    assert not [address for address in run.attempts if run.step_status(address) != "completed" and address != "wait"]


async def test_one_that_was_undone_can_be_asked_for_again(symphony: Symphony, provider: Provider) -> None:
    """By its address, under another key."""
    run = await waiting(symphony, WorkflowDefinition(name="w", steps=[do("a"), WAIT]))
    await again(symphony, run, "a")
    await symphony.workflows.cancel(run)
    await symphony.workflows.retry_from(run, "undo/@0/a", auto_checkpoint=False)
    assert provider.undone == ["r:a:1", "r:a:0", "r:a:0"]
    assert set(provider.keys.values()) == {1}


@pytest.mark.parametrize("there", ["before it", "in the clean-up", "before the clean-up"])
async def test_a_rewind_takes_no_undo_back(symphony: Symphony, provider: Provider, there: str) -> None:
    """What was done outside was done, and what was undone was undone: each execution once, wherever a rewind leads."""
    run = await waiting(symphony, WorkflowDefinition(name="w", steps=[do("a"), do("b"), WAIT]))
    await symphony.flush()
    starts = [event for event in await symphony.log.read_entity("Workflow:r") if event.metadata.step in ("b", "wait")]
    before = starts[0].position - 1 if there == "before it" else symphony.log.head
    if there != "before it":
        await symphony.workflows.cancel(run)
    if there == "in the clean-up":
        undone = [event for event in await symphony.log.read_entity("Workflow:r") if event.metadata.step == "undo/b"]
        before = undone[-1].position
    await symphony.rewind(before, stop_runs=True)
    run = await symphony.workflows.get_run("r")
    if there == "in the clean-up":
        await symphony.workflows.resume(run, auto_checkpoint=False)
    else:
        await symphony.workflows.start(run, auto_checkpoint=False)
        await until(lambda: waits(run))
        await symphony.workflows.cancel(run)
    assert run.status == "cancelled"
    assert run.error is None
    provider.is_settled()
    assert provider.done == (["r:a:0", "r:b:0", "r:b:1"] if there == "before it" else ["r:a:0", "r:b:0"])


@pytest.mark.parametrize("of", ["a", "b"])
async def test_an_undo_that_a_rewind_brings_back_is_not_done_again(symphony: Symphony, provider: Provider, of: str) -> None:
    """A clean-up was over, the run taken back, and a rewind leads into that clean-up: what it had undone by then is undone."""
    run = await waiting(symphony, WorkflowDefinition(name="w", steps=[do("a"), do("b"), WAIT]))
    await symphony.workflows.cancel(run)
    undone = [event for event in await symphony.log.read_entity("Workflow:r") if event.metadata.step == f"undo/{of}"]
    going = asyncio.ensure_future(symphony.workflows.retry_from(run, "a", auto_checkpoint=False))
    await until(lambda: going.done() or (run.status == "running" and waits(run)))
    going.add_done_callback(lambda task: task.exception())
    await symphony.rewind(undone[-1].position, stop_runs=True)
    run = await symphony.workflows.resume(await symphony.workflows.get_run("r"), auto_checkpoint=False)
    assert (run.status, run.error) == ("cancelled", None)
    assert provider.done == ["r:a:0", "r:b:0", "r:a:1", "r:b:1"]
    provider.is_settled()


@pytest.mark.parametrize("how", ["retry_from", "rewind"])
async def test_what_an_atomic_step_has_done_is_taken_back_by_a_rewind(symphony: Symphony, provider: Provider, how: str) -> None:
    """It has changed entities, which a rewind has put back: undoing them once more would be wrong. `retry_from` puts nothing back."""
    steps = [do("a"), {**do("b"), "atomic": True}, WAIT]
    run = await waiting(symphony, WorkflowDefinition(name="w", steps=steps))
    if how == "retry_from":
        await again(symphony, run, "b")
    else:
        start = next(event for event in await symphony.log.read_entity("Workflow:r") if event.metadata.step == "b")
        await symphony.rewind(start.position - 1, stop_runs=True)
        run = await symphony.workflows.get_run("r")
        await symphony.workflows.start(run, auto_checkpoint=False)
        await until(lambda: waits(run))
    await symphony.workflows.cancel(run)
    assert provider.undone == ["r:b:1", *(["r:b:0"] if how == "retry_from" else []), "r:a:0"]


async def test_a_rewind_that_fails_before_the_step_can_be_cancelled(symphony: Symphony, provider: Provider) -> None:
    """The run knows that it has something to undo, though the rewind has taken that out of its state."""
    quote = {"kind": "function", "name": "q", "function": "quote"}
    run = await waiting(symphony, WorkflowDefinition(name="w", steps=[quote, do("b"), WAIT]))
    start = next(event for event in await symphony.log.read_entity("Workflow:r") if event.metadata.step == "q")
    await symphony.rewind(start.position - 1, stop_runs=True)
    symphony.functions.register("quote", lambda context: 1 / 0, replace=True)
    run = await symphony.workflows.get_run("r")
    await symphony.workflows.resume(run, auto_checkpoint=False)
    assert run.status == "failed"
    await symphony.workflows.cancel(run)
    assert (run.status, provider.undone) == ("cancelled", ["r:b:0"])


async def test_a_fork_owes_what_it_has_begun_itself(symphony: Symphony, provider: Provider) -> None:
    """What it takes back of what it shares was done by its original, which still holds it."""
    original = await waiting(symphony, WorkflowDefinition(name="w", steps=[do("a"), do("b"), WAIT]))
    await again(symphony, original, "b")
    fork = await symphony.workflows.fork(original, "wait", run_id="f")
    await symphony.workflows.start(fork, auto_checkpoint=False)
    await until(lambda: waits(fork))
    await again(symphony, fork, "a")
    await again(symphony, fork, "b")
    await symphony.workflows.cancel(fork)
    assert sorted(provider.undone) == ["f:a:1", "f:b:1", "f:b:2"]
    await symphony.workflows.cancel(original)
    provider.is_settled()


@pytest.mark.parametrize("how", ["removed", "rewound"])
async def test_a_fork_under_a_used_id_owes_what_it_has_begun_itself(symphony: Symphony, provider: Provider, how: str) -> None:
    """Also where another run had its id: what the fork shares was done by its original, and what that other run did is none of it."""
    original = await waiting(symphony, WorkflowDefinition(name="w", steps=[do("a"), do("b"), WAIT]))
    await symphony.flush()
    before = symphony.log.head
    other = await waiting(symphony, WorkflowDefinition(name="v", steps=[do("a"), WAIT]), "f")
    if how == "removed":
        await symphony.workflows.cancel(other)
        await symphony.workflows.delete_run(other) if hasattr(symphony.workflows, "delete_run") else symphony.entities.remove(other)
        await symphony.flush()
    else:
        await symphony.rewind(before, stop_runs=True)
        original = await symphony.workflows.get_run("r")
        await symphony.workflows.start(original, auto_checkpoint=False)
    fork = await symphony.workflows.fork(original, "b", run_id="f")
    await symphony.workflows.start(fork, auto_checkpoint=False)
    await until(lambda: waits(fork))
    provider.undone.clear()
    await symphony.workflows.cancel(fork)
    assert [key for key in provider.undone if key.startswith("f:")] == ["f:b:1"]
    assert len(provider.undone) == 1


OTHERS: dict[str, Callable[[Symphony], Any]] = {
    "the same": lambda symphony: waiting(symphony, WorkflowDefinition(name="w", steps=[do("a"), do("b"), WAIT])),
    "a longer one": lambda symphony: waiting(symphony, WorkflowDefinition(name="v", steps=[mapped(do("a")), do("b"), do("c"), WAIT])),
    "a fork": lambda symphony: forked(symphony),
}


async def forked(symphony: Symphony) -> Workflow:
    fork = await symphony.workflows.fork("model", "b", run_id="r")
    await symphony.workflows.start(fork, auto_checkpoint=False)
    await until(lambda: waits(fork))
    return fork


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize(
    ("back", "how"),
    [("to the first", "rewound"), ("to before its second execution", "removed"), ("to the first and to the other again", "rewound")],
)
async def test_runs_of_one_id_owe_each_their_own(symphony: Symphony, provider: Provider, other: str, back: str, how: str) -> None:
    """A rewind may bring each of them back: what it has begun is undone then, taken back or not, and what the others did is none of it."""
    await waiting(symphony, WorkflowDefinition(name="w", steps=[do("a"), do("b"), WAIT]), "model")
    before = symphony.log.head
    run = await waiting(symphony, WorkflowDefinition(name="w", steps=[do("a"), do("b"), WAIT]))
    await symphony.flush()
    early = symphony.log.head
    await again(symphony, run, "b")
    await symphony.flush()
    late = symphony.log.head
    if how == "removed":
        await symphony.workflows.signal(run, "go")
        await symphony.workflows.handle("r").result()
        symphony.entities.remove(await symphony.entities.load("Workflow:r"))
    else:
        await symphony.rewind(before, stop_runs=True)
    first = [key for key in provider.done if key.startswith("r:")]
    await OTHERS[other](symphony)
    await symphony.flush()
    there = symphony.log.head
    second = [key for key in provider.done if key.startswith("r:") and key not in first]
    await symphony.rewind(early if back == "to before its second execution" else late, stop_runs=True)
    if back == "to the first and to the other again":
        await symphony.rewind(there, stop_runs=True)
    run = await symphony.workflows.cancel("r")
    assert (run.status, run.error) == ("cancelled", None)
    assert sorted(provider.undone) == sorted(second if back == "to the first and to the other again" else first)


async def test_what_a_removed_run_did_after_the_place_of_a_rewind_is_undone(symphony: Symphony, provider: Provider) -> None:
    """The rewind brings the run back as it was before; its undo sees what the run was before its removal."""
    run = await waiting(symphony, WorkflowDefinition(name="w", steps=[WAIT, do("b")]))
    await symphony.flush()
    before = symphony.log.head
    await symphony.workflows.signal(run, "go")
    await symphony.workflows.handle("r").result()
    symphony.entities.remove(await symphony.entities.load("Workflow:r"))
    await symphony.rewind(before, stop_runs=True)
    run = await symphony.workflows.cancel("r")
    assert (run.status, provider.undone) == ("cancelled", ["r:b:0"])
    assert provider.seen["r:b:0"][0] == "r:b:0 None None"


async def under_way(symphony: Symphony, provider: Provider, run_id: str = "r") -> tuple[Workflow, asyncio.Event]:
    """A run at its second step, which ends when it is let."""
    let = asyncio.Event()

    async def hold(context: RunContext) -> str:
        done = await provider.do(context)
        await let.wait()
        return done

    symphony.functions.register("hold", hold, replace=True)
    definition = WorkflowDefinition(name="w", steps=[do("a"), {**do("b"), "function": "hold"}, WAIT])
    run = (await symphony.workflows.start(definition, run_id=run_id, auto_checkpoint=False)).run
    await until(lambda: [key for key in provider.done if key.startswith(f"{run_id}:b:")])
    await symphony.flush()
    return run, let


@pytest.mark.parametrize("goes_on", [False, True])
@pytest.mark.parametrize("away", ["its creation", "a", "b", "nothing"])
async def test_a_step_that_was_under_way_where_a_rewind_leads(symphony: Symphony, provider: Provider, away: str, goes_on: bool) -> None:
    """It was begun under one key, and goes on under another: each that has begun is undone, and none that has not."""
    position = symphony.log.head
    run, let = await under_way(symphony, provider)
    there = symphony.log.head
    if away == "nothing":
        let.set()
        await until(lambda: waits(run))
    else:
        starts = [event for event in await symphony.log.read_entity("Workflow:r") if event.metadata.step == away]
        await symphony.rewind(starts[0].position - 1 if starts else position, stop_runs=True)
    await symphony.rewind(there, stop_runs=True)
    run = await symphony.workflows.get_run("r")
    if goes_on:
        let.set()
        await symphony.workflows.start(run, auto_checkpoint=False)
        await until(lambda: waits(run))
    assert provider.done == ["r:a:0", "r:b:0", *(["r:b:1"] if goes_on else [])]
    await symphony.workflows.cancel(run)
    assert (run.status, run.error) == ("cancelled", None)
    provider.is_settled()


async def test_another_process_undoes_it(symphony: Symphony, provider: Provider, reopen: Any) -> None:
    """All that it goes by is in the log."""
    definition = WorkflowDefinition(name="w", steps=[do("a"), mapped(do("b")), child("k", do("c")), WAIT])
    await again(symphony, await waiting(symphony, definition), "m")
    there = await reopen(resume="latest")
    provider.serve(there)
    run = await there.workflows.get_run("r")
    await there.workflows.cancel(run)
    assert run.status == "cancelled"
    provider.is_settled()


async def test_a_run_that_fails_undoes_it_where_its_definition_says_so(symphony: Symphony, provider: Provider) -> None:
    """With `cleanup_on`, what was taken back is undone when the run fails before it comes to the step again."""
    steps = [{"kind": "function", "name": "q", "function": "quote"}, do("b"), WAIT]
    run = await waiting(symphony, WorkflowDefinition(name="w", steps=steps, cleanup_on=["failure"]))
    symphony.functions.register("quote", lambda context: 1 / 0, replace=True)
    await symphony.workflows.pause(run)
    await symphony.workflows.retry_from(run, "q", auto_checkpoint=False)
    assert (run.status, provider.undone) == ("failed", ["r:b:0"])


async def test_a_completed_run_keeps_it_for_later(symphony: Symphony, provider: Provider) -> None:
    """A run that completes is not undone; one that is taken back once more and cancelled then undoes all executions."""
    run = await waiting(symphony, WorkflowDefinition(name="w", steps=[do("a"), WAIT]))
    await again(symphony, run, "a")
    await symphony.workflows.signal(run, "go")
    await symphony.workflows.handle("r").result()
    assert provider.undone == []
    going = asyncio.ensure_future(symphony.workflows.retry_from(run, "wait", auto_checkpoint=False))
    await until(lambda: run.status == "running" and waits(run))
    await symphony.workflows.cancel(run)
    going.add_done_callback(lambda task: task.exception())
    assert provider.undone == ["r:a:1", "r:a:0"]


class Code:
    """A workflow in code that quotes a price, charges it, and waits."""

    def __init__(self, symphony: Symphony, *, atomic: bool = False) -> None:
        self.price = 1
        self.charged: list[tuple[int, str]] = []
        self.refunded: list[tuple[int, str, Any]] = []
        self.cleaned = 0

        async def quote() -> int:
            return self.price

        async def charge(amount: int) -> str:
            self.charged.append((amount, step_context().idempotency_key))
            return step_context().idempotency_key

        async def refund(amount: int) -> None:
            undone = step_context().undoes
            assert undone is not None
            self.refunded.append((amount, undone.idempotency_key, undone.output))

        async def tidy() -> None:
            self.cleaned += 1

        @symphony.workflow(name="order")
        async def order() -> None:
            amount = await step(quote)
            try:
                await step(charge, amount, undo=refund, atomic=atomic)
                await wait_for_signal("go")
            finally:
                await step(tidy)

        self.order = order


@pytest.mark.parametrize("back", ["quote", "charge"])
async def test_code_undoes_it_with_the_arguments_of_then(symphony: Symphony, back: str) -> None:
    """Its function runs once more with what was on record then: what undoes a call is called as that was, whatever holds now."""
    code = Code(symphony)
    run = await waiting(symphony, code.order)
    for price in (2, 3):
        code.price = price
        await again(symphony, run, back)
    await symphony.workflows.cancel(run)
    assert run.status == "cancelled"
    assert run.error is None
    assert code.charged == [(price if back == "quote" else 1, f"r:charge:{at}") for at, price in enumerate((1, 2, 3))]
    assert sorted(code.refunded, key=lambda each: each[1]) == [(amount, key, key) for amount, key in code.charged]
    assert code.cleaned == 1


async def test_code_that_was_rewound_undoes_it(symphony: Symphony) -> None:
    """A rewind to before the call: it is made again, and both are undone; the function's own clean-up runs once."""
    code = Code(symphony)
    run = await waiting(symphony, code.order)
    start = next(event for event in await symphony.log.read_entity("Workflow:r") if event.metadata.step == "quote")
    await symphony.rewind(start.position - 1, stop_runs=True)
    code.price = 2
    run = await symphony.workflows.get_run("r")
    await symphony.workflows.start(run, auto_checkpoint=False)
    await until(lambda: waits(run))
    await symphony.workflows.cancel(run)
    assert code.charged == [(1, "r:charge:0"), (2, "r:charge:1")]
    assert code.refunded == [(2, "r:charge:1", "r:charge:1"), (1, "r:charge:0", "r:charge:0")]
    assert code.cleaned == 1
    assert run.error is None


async def test_code_that_makes_the_call_no_more_says_so(symphony: Symphony) -> None:
    """Only code says how its calls are undone: the run is cancelled, and its error names the key of what nobody undoes."""
    code = Code(symphony)
    run = await waiting(symphony, code.order)

    async def quote() -> int:
        return 5

    @symphony.workflow(name="order", replace=True)
    async def order() -> None:
        await step(quote)
        await wait_for_signal("go")

    await again(symphony, run, "charge")
    await symphony.workflows.cancel(run)
    assert run.status == "cancelled"
    assert run.error is not None
    assert "r:charge:0" in run.error["message"]
    assert "symphony.history('Workflow:r'), and is to be undone by hand" in run.error["message"]
    assert "resume" not in run.error["message"]  # that would be refused: nothing is left that it could do
    assert code.refunded == []


@pytest.mark.parametrize("inner", ["owes", "deep", "atomic", "nothing", "cancelled"])
async def test_child_runs_that_a_rewind_took_away_are_named(symphony: Symphony, provider: Provider, inner: str) -> None:
    """They are there no more, and cannot undo themselves: the error of the parent names them, and those alone that owe something."""
    steps = {
        "owes": [do("a")],
        "deep": [child("kid", do("a"))],
        "atomic": [do("a", atomic=True)],
        "nothing": [{"kind": "function", "name": "a", "function": "do"}],
        "cancelled": [do("a"), {**WAIT, "name": "hold"}],
    }[inner]
    begin = {**WAIT, "name": "begin", "signal": "begin"}
    definition = {"name": "w", "steps": [begin, child("kid", *steps), WAIT]}
    handle = await symphony.workflows.start(definition, run_id="r", auto_checkpoint=False)
    position = await reached(symphony, "r", "begin")
    await handle.signal("begin")
    if inner == "cancelled":
        await reached(symphony, "r/kid", "hold")
        await symphony.workflows.cancel("r/kid")
        await handle.wait()
    else:
        await reached(symphony, "r", "wait")
    await symphony.rewind(position, stop_runs=True)
    run = await symphony.workflows.cancel("r")
    lost = {"owes": "r/kid", "deep": "r/kid/kid"}.get(inner)
    assert (run.error is not None) is (lost is not None)
    if run.error is not None:
        assert run.error["type"] == "CleanupUnfinishedError"
        assert f"has an undo: {lost})" in run.error["message"]
        assert f"symphony.history('Workflow:{lost}')" in run.error["message"]
        assert len(await symphony.history(f"Workflow:{lost}")) > 3


async def reached(symphony: Symphony, run_id: str, step_id: str) -> int:
    """The position at which a run has come to wait at a step."""
    while True:
        await asyncio.sleep(0.001)
        if not symphony.log.entity_status_now(f"Workflow:{run_id}")[1]:
            continue
        run = await symphony.workflows.get_run(run_id)
        if run.attempts and run.step_status(step_id) == "running":
            await symphony.flush()
            return symphony.log.head
