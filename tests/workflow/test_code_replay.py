"""What code is called with when it runs again, what it may call where, and what replaying it costs."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from types import FrameType, SimpleNamespace
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.errors import ConfigurationError, StepFailedError
from symphony_es.workflow import (
    CodeWorkflow,
    Workflow,
    WorkflowHook,
    gather,
    patched,
    sleep,
    step,
    step_context,
    step_with,
    wait_for_signal,
)
from symphony_es.workflow.code.strands import Strand


async def until(run: Workflow, address: str) -> None:
    """Returns when a step of a run has begun."""
    async with asyncio.timeout(20):
        while address not in run.attempts:
            assert run.status == "running", run.error
            await asyncio.sleep(0.001)


def add_key() -> None:
    step_context()["note"] = "seen"


def change_argument() -> None:
    step_context()["topic"] = "other"


def remove_argument() -> None:
    del step_context()["topic"]


def change_inside() -> None:
    step_context()["tags"].append("more")


def append_to_argument() -> None:
    step_context().append("tags", "more")


@pytest.mark.parametrize("write", [add_key, change_argument, remove_argument, change_inside, append_to_argument])
@pytest.mark.parametrize("how", ["resume", "reopen", "retry_from"])
async def test_arguments_are_those_that_the_run_began_with(symphony: Symphony, reopen: Any, write: Callable[[], None], how: str) -> None:
    """Whatever a step writes to the context: the context has it, and the function is called with what it was called with first."""

    def define(where: Symphony) -> CodeWorkflow:
        @where.workflow
        async def flow(topic: str, tags: list[str]) -> list[Any]:
            await step(write, name="write")
            await wait_for_signal("go")
            return [topic, tags, await step(lambda: dict(step_context()), name="look")]

        assert isinstance(flow, CodeWorkflow)
        return flow

    handle = await symphony.workflows.start(define(symphony), {"topic": "rain", "tags": ["a"]}, run_id="r", auto_checkpoint=False)
    await until(handle.run, "wait go")
    here = symphony
    if how == "reopen":
        here = await reopen()
        await here.resume()
        define(here)
    else:
        await handle.pause()
        await handle.wait("paused")
    run = await here.workflows.get_run("r")
    held = dict(run.context)
    await here.workflows.signal(run, "go")
    if how == "retry_from":
        run = await here.workflows.retry_from(run, "wait go", auto_checkpoint=False)
    else:
        run = await here.workflows.resume(run, auto_checkpoint=False)
    assert run.result[:2] == ["rain", ["a"]]
    assert run.result[2] == held != {"topic": "rain", "tags": ["a"]}


@pytest.mark.parametrize(
    ("before", "write", "after"),
    [
        ([1], lambda value: value.append(3), [1, 2, 3]),
        ({"a": [0], "b": {"c": 1}}, lambda value: value["b"].update(d=2), {"a": [0, 9], "b": {"c": 1, "d": 2}}),
        ({"a": [0], "b": 1}, lambda value: value.pop("b"), {"a": [0, 9]}),
        ({1}, lambda value: value.add(3), {1, 2, 3}),
        ({1, 5}, lambda value: value.discard(5), {1, 2}),
        ([1], len, [1, 2]),
        ({"a": [0]}, dict, {"a": [0, 9]}),
        ({1}, set, {1, 2}),
    ],
)
async def test_only_what_a_step_has_changed_is_written_back(
    symphony: Symphony, before: Any, write: Callable[[Any], Any], after: Any
) -> None:
    """A step that has read a value keeps what others write meanwhile: reading writes nothing, and a change is written as a change."""
    read, written = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        value = step_context()["shared"]
        read.set()
        await written.wait()
        write(value)

    async def quick() -> None:
        await read.wait()
        value = step_context()["shared"]
        if isinstance(value, list):
            value.append(2)
        elif isinstance(value, set):
            value.add(2)
        else:
            value["a"].append(9)

    async def strand() -> None:
        await step(quick)
        written.set()

    @symphony.workflow
    async def flow(shared: Any) -> None:
        await gather(step(slow), strand())

    run = await symphony.workflows.execute_workflow(flow, {"shared": before}, auto_checkpoint=False)
    assert run.status == "completed", run.error
    assert run.context["shared"] == after


async def test_what_a_branch_has_removed_shows_what_lies_around_it(symphony: Symphony) -> None:
    """At once as in the next step of the branch."""
    seen: list[Any] = []

    def first(context: Any) -> None:
        context["n"] = 2
        seen.append(context["n"])

    def second(context: Any) -> None:
        del context["n"]
        seen.append([context["n"], "n" in context, dict(context)["n"]])
        with pytest.raises(KeyError):
            del context["n"]

    def third(context: Any) -> None:
        seen.append(context["n"])

    for function in (first, second, third):
        symphony.functions.register(function)
    steps = [{"kind": "function", "name": name, "function": name} for name in ("first", "second", "third")]
    branch = {"kind": "sequence", "name": "s", "steps": steps}
    definition = {"name": "w", "context": {"n": 1}, "steps": [{"kind": "parallel", "name": "p", "branches": [branch]}]}
    run = await symphony.workflows.execute_workflow(definition, auto_checkpoint=False)
    assert (run.status, seen) == ("completed", [2, [1, True, 1], 1]), run.error


async def inner() -> int:
    return 1


CALLS: dict[str, Callable[[], Any]] = {
    "step": lambda: step(inner),
    "step_with": lambda: step_with(name="x")(inner),
    "sleep": lambda: sleep(0),
    "wait": lambda: wait_for_signal("x", timeout_s=0),
    "gather": lambda: gather(inner()),
    "patched": lambda: patched("x"),
}


async def called(call: Callable[[], Any]) -> Any:
    made = call()
    return await made if isinstance(made, Awaitable) else made


@pytest.mark.parametrize("kind", CALLS)
@pytest.mark.parametrize("where", ["coroutine", "plain", "task", "thread", "handed over", "hook", "foreign task"])
async def test_calls_that_are_not_the_function_s_own_are_refused(symphony: Symphony, kind: str, where: str) -> None:
    """In a step, in what a step starts, in a hook, in a task that is no strand: a ConfigurationError, and nothing of it is on record."""
    refused: list[ConfigurationError] = []
    call = CALLS[kind]

    async def note() -> None:
        try:
            await called(call)
        except ConfigurationError as error:
            refused.append(error)

    def plain() -> None:
        try:
            made = call()
            if isinstance(made, Awaitable):
                asyncio.run(called(lambda: made))
        except ConfigurationError as error:
            refused.append(error)

    async def task() -> None:
        await asyncio.create_task(note())

    async def thread() -> None:
        await asyncio.to_thread(plain)

    async def handed_over(made: Any) -> None:
        try:
            await made
        except ConfigurationError as error:
            refused.append(error)

    class Hook(WorkflowHook):
        async def step_completed(self, moment: Any) -> None:
            await note()

    if where == "handed over" and kind in ("patched", "gather"):
        return  # neither gives a coroutine that is on its way already

    @symphony.workflow
    async def flow() -> str:
        if where == "foreign task":
            await asyncio.create_task(note())
        elif where == "handed over":
            await step(handed_over, call(), name="outer")
        else:
            body: Any = {"coroutine": note, "plain": plain, "task": task, "thread": thread, "hook": inner}[where]
            await step(body, name="outer")
        return "ended"

    hooks = [Hook()] if where == "hook" else []
    handle = await symphony.workflows.start(flow, auto_checkpoint=False, hooks=hooks)
    run = await handle.wait()
    assert (run.status, len(refused)) == ("completed", 1), run.error
    assert set(run.attempts) <= {"outer"}
    recorded = [recorded for calls in run.calls.values() for recorded in calls.values()]
    assert [list(one[:2]) for one in recorded] == ([["outer", "step"]] if where != "foreign task" else [])


async def test_a_call_that_is_left_under_way_is_an_error(symphony: Symphony) -> None:
    """The function ends without awaiting it: it is stopped, and the run fails; after the run's end there is no event of a step."""
    begun = asyncio.Event()

    async def slow() -> None:
        begun.set()
        await asyncio.Event().wait()

    @symphony.workflow
    async def flow() -> None:
        kept.append(asyncio.ensure_future(step(slow)))
        await begun.wait()

    kept: list[Any] = []
    run = await symphony.workflows.execute_workflow(flow, auto_checkpoint=False)
    assert run.error is not None
    assert (run.status, run.error["type"]) == ("failed", "ConfigurationError")
    assert "slow was under way" in run.error["message"]
    assert kept[0].done()
    assert [event.name async for event in symphony.workflows.handle(run).events()][-1] == "WorkflowFailed"


class OrderFailed(Exception):
    pass


async def raised_from(pay: Any) -> Any:
    try:
        return await step(pay)
    except StepFailedError as error:
        raise OrderFailed("order") from error


async def raised_during(pay: Any) -> Any:
    try:
        return await step(pay)
    except StepFailedError:
        raise OrderFailed("order") from None


async def raised_twice_over(pay: Any) -> Any:
    try:
        return await raised_from(pay)
    except OrderFailed as error:
        raise LookupError("again") from error


async def raised_in_a_group(pay: Any) -> Any:
    found = await gather(step(pay), return_exceptions=True)
    if isinstance(found[0], Exception):
        raise ExceptionGroup("some", [ExceptionGroup("inner", [found[0]])])
    return found[0]


async def raised_by_a_task_group(pay: Any) -> Any:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(step(pay))
    return task.result()


async def raised_in_a_strand(pay: Any) -> Any:
    return (await gather(raised_from(pay)))[0]


async def with_a_step_in_finally(pay: Any) -> Any:
    try:
        return await step(pay)
    finally:
        await step(inner, name="tidy")


@pytest.mark.parametrize(
    "way",
    [
        raised_from,
        raised_during,
        raised_twice_over,
        raised_in_a_group,
        raised_by_a_task_group,
        raised_in_a_strand,
        with_a_step_in_finally,
    ],
)
async def test_a_failure_that_code_has_wrapped_is_tried_again(symphony: Symphony, way: Any) -> None:
    """Each resume makes another attempt at the step, whatever error the code has made of its failure."""
    attempts: list[int] = []

    async def pay() -> str:
        attempts.append(1)
        if len(attempts) < 3:
            raise OSError("down")
        return "paid"

    @symphony.workflow
    async def flow() -> Any:
        return await way(pay)

    run = await symphony.workflows.execute_workflow(flow, auto_checkpoint=False)
    assert (run.status, len(attempts)) == ("failed", 1)
    run = await symphony.workflows.resume(run, auto_checkpoint=False)
    assert (run.status, len(attempts)) == ("failed", 2)
    run = await symphony.workflows.resume(run, auto_checkpoint=False)
    assert (run.status, run.result, len(attempts)) == ("completed", "paid", 3)


@pytest.mark.parametrize("end", ["raises", "gathers", "returns"])
@pytest.mark.parametrize("name", ["refund", "ship"])
async def test_code_that_made_up_for_a_failure_goes_another_way_when_the_step_succeeds(symphony: Symphony, end: str, name: str) -> None:
    """What an `except` called is taken back, is done anew where it is called again, and is kept where the code calls it as before."""
    keys: list[str] = []
    down = True

    def pay() -> str:
        if down:
            raise OSError("down")
        return "paid"

    def note() -> str:
        keys.append(step_context().idempotency_key)
        return "noted"

    async def charged() -> str:
        try:
            return await step(pay)
        except StepFailedError as error:
            await step(note, name="refund")
            await step(note, name="tell")
            raise OrderFailed("order") from error

    @symphony.workflow
    async def flow() -> Any:
        paid = await gather(charged(), name="fan") if end == "gathers" else await charged()
        if end == "returns":
            return paid
        return [paid, await step(note, name=name)]

    run = await symphony.workflows.execute_workflow(flow, auto_checkpoint=False, run_id="r")
    before = "fan/0/" if end == "gathers" else ""
    assert (run.status, keys) == ("failed", [f"r:{before}refund:0", f"r:{before}tell:0"])
    run = await symphony.workflows.resume(run, auto_checkpoint=False)
    assert (run.status, len(keys)) == ("failed", 2), "what has completed is not done again while the step fails"
    down = False
    keys.clear()
    run = await symphony.workflows.resume(run, auto_checkpoint=False)
    assert run.status == "completed", run.error
    if end != "returns":
        assert run.result[1] == "noted"
    kept = end == "returns" or (end == "raises" and name == "refund")
    assert keys == ([] if kept else [f"r:{name}:0"])


async def test_what_was_taken_back_and_is_called_again_later_has_a_key_of_its_own(symphony: Symphony) -> None:
    """It is another execution: its output is its own, and so is its key."""
    keys: list[str] = []
    down = True

    def pay() -> str:
        if down:
            raise OSError("down")
        return "paid"

    def note() -> str:
        keys.append(step_context().idempotency_key)
        return step_context().idempotency_key

    @symphony.workflow
    async def flow() -> Any:
        try:
            await step(pay)
        except StepFailedError as error:
            await step(note, name="tell")
            raise OrderFailed("order") from error
        await step(note, name="ship")
        return await step(note, name="tell")

    run = await symphony.workflows.execute_workflow(flow, auto_checkpoint=False, run_id="r")
    down = False
    run = await symphony.workflows.resume(run, auto_checkpoint=False)
    assert (run.status, run.result, keys) == ("completed", "r:tell:1", ["r:tell:0", "r:ship:0", "r:tell:1"])


def takes_name(who: str, name: str = "nobody") -> list[str]:
    return [who, name]


def takes_all(name: str, retry: int, timeout_s: int, atomic: str) -> list[Any]:
    return [name, retry, timeout_s, atomic]


def takes_fn(fn: str) -> str:
    return fn


@pytest.mark.parametrize(
    ("call", "result", "address"),
    [
        (lambda: step(takes_name, "a", name="b"), ["a", "b"], "takes_name"),
        (lambda: step(takes_name, "a", "b", name="called"), ["a", "b"], "called"),
        (lambda: step(partial(takes_name, name="b"), "a", name="called"), ["a", "b"], "called"),
        (lambda: step_with(name="called")(takes_name, "a", name="b"), ["a", "b"], "called"),
        (lambda: step(takes_all, name="a", retry=2, timeout_s=3, atomic="no"), ["a", 2, 3, "no"], "takes_all"),
        (lambda: step(takes_fn, fn="x"), "x", "takes_fn"),  # type: ignore[call-overload]
        (lambda: step_with()(lambda **given: given, name="x", retry=2), {"name": "x", "retry": 2}, "<lambda>"),
    ],
)
async def test_an_argument_with_the_name_of_an_option_reaches_the_function(
    symphony: Symphony, call: Callable[[], Any], result: Any, address: str
) -> None:
    """It is an option only where the function cannot take it; `step_with` keeps both apart."""

    @symphony.workflow
    async def flow() -> Any:
        return await call()

    run = await symphony.workflows.execute_workflow(flow, auto_checkpoint=False)
    assert (run.result, list(run.attempts)) == (result, [address]), run.error


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: step(lambda **given: given, name="x"), "step_with"),
        (lambda: step(inner, name="x" * 101), "1 to 100 characters"),
        (lambda: step(inner, name=""), "1 to 100 characters"),
        (lambda: step(inner, name=7), "1 to 100 characters"),
        (lambda: step(inner, timeout_s=-1), "timeout_s=-1"),
        (lambda: step(inner, timeout_s=0), "timeout_s=0"),
        (lambda: step(inner, timeout_s=float("nan")), "timeout_s=nan"),
        (lambda: step(inner, timeout_s=True), "timeout_s=True"),
        (lambda: step(inner, retry=True), "retry=True"),
        (lambda: step(inner, retry=0), "retry=0"),
        (lambda: step(inner, retry="3"), "retry='3'"),
        (lambda: step(inner, atomic="yes"), "atomic='yes'"),
        (lambda: step_with(timeout_s=-1), "timeout_s=-1"),
        (lambda: sleep(-1), "seconds=-1"),
        (lambda: sleep(float("inf")), "seconds=inf"),
        (lambda: sleep(1, name="x" * 101), "1 to 100 characters"),
        (lambda: wait_for_signal("x", timeout_s=-1), "timeout_s=-1"),
        (lambda: gather(inner(), name="x" * 101), "1 to 100 characters"),
        (lambda: patched("x" * 101), "1 to 100 characters"),
    ],
)
async def test_options_that_make_no_sense_are_refused(symphony: Symphony, call: Callable[[], Any], message: str) -> None:
    """When the call is made, by name, and nothing of it is recorded."""

    @symphony.workflow
    async def flow() -> Any:
        return await called(call)

    run = await symphony.workflows.execute_workflow(flow, auto_checkpoint=False)
    assert run.error is not None
    assert run.error["type"] == "ConfigurationError"
    assert message in run.error["message"]
    assert not run.attempts


async def lines_run(symphony: Symphony, steps: int, *, in_patches: bool, replayed: bool) -> tuple[int, int]:
    """Lines of the library's code-first rooms that so many further steps run through, live or replayed; and turns of the event loop."""
    lines, rounds, counting, ended = 0, 0, False, False

    async def read(number: int) -> int:
        return number

    @symphony.workflow(name=f"{steps}{in_patches}{replayed}")
    async def flow(n: int) -> Any:
        nonlocal counting
        counting = replayed
        for number in range(n):
            if not replayed and number == n - 50:
                counting = True
                sys.settrace(trace)
            if in_patches:
                patched(f"p{number}")
            await step(read, number)
        counting = False
        sys.settrace(None)
        return await wait_for_signal("go")

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal lines
        if "workflow/code" not in frame.f_code.co_filename:
            return None
        if counting and event == "line":
            lines += 1
        return trace

    async def beat() -> None:
        nonlocal rounds
        while not ended:
            rounds += counting
            await asyncio.sleep(0)

    try:
        handle = await symphony.workflows.start(flow, {"n": steps}, auto_checkpoint=False)
        await until(handle.run, "wait go")
        if replayed:
            await handle.pause()
            await handle.wait("paused")
            await handle.signal("go")
            sys.settrace(trace)
            beating = asyncio.create_task(beat())
            await handle.resume()
            ended = True
            await beating
    finally:
        sys.settrace(None)
    return lines, rounds


@pytest.mark.parametrize("in_patches", [False, True])
async def test_a_live_call_costs_the_same_however_many_came_before(symphony: Symphony, in_patches: bool) -> None:
    """Counted in lines of code: the last 50 of 100 and of 1,000 calls of one name."""
    few, _ = await lines_run(symphony, 100, in_patches=in_patches, replayed=False)
    many, _ = await lines_run(symphony, 1_000, in_patches=in_patches, replayed=False)
    assert few > 0
    assert many <= few * 1.05


@pytest.mark.parametrize("in_patches", [False, True])
async def test_replaying_is_linear_and_gives_the_loop_back(symphony: Symphony, in_patches: bool) -> None:
    """Counted in lines of code per call; and others have their turns meanwhile."""
    few, _ = await lines_run(symphony, 100, in_patches=in_patches, replayed=True)
    many, rounds = await lines_run(symphony, 1_000, in_patches=in_patches, replayed=True)
    assert few > 0
    assert many <= few * 10.5
    assert rounds > 1


class _LookedUp(dict[str, Any]):
    """Calls on record that may be looked up one by one, and not gone through."""

    def _gone_through(self, *_: object) -> Any:
        raise AssertionError("all calls on record were gone through")

    __iter__ = keys = values = items = copy = _gone_through  # type: ignore[assignment]


@pytest.mark.parametrize("places", [[500], [500, 501], [3, 500]])
def test_noting_a_call_looks_at_no_other(places: list[int]) -> None:
    """What a call's step puts on record costs the same with 500 calls before it: they are not gone through, by no means of Python or C."""
    recorded = _LookedUp({str(place): ["step", "function"] for place in range(500)})
    strand: Any = object.__new__(Strand)
    strand.flow = SimpleNamespace(run=SimpleNamespace(calls={"": recorded}))
    strand.name, strand.found, strand._after_last, strand._unrecorded = "", 0, 500, {}
    changes = strand.noted({place: ["step", "function"] for place in places})
    assert strand.found == sum(place >= 500 for place in places)
    assert [change[1] for change in changes] == [("calls", "", str(place)) for place in places]
