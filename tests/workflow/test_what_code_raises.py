"""The boundary to the application's code: whatever it raises is on record, bounded, and ends its own run at most."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import CoroutineType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symphony_es import Symphony
from symphony_es.workflow import RunMoment, Workflow, gather, step
from symphony_es.workflow.runs import failures
from symphony_es.workflow.runs.failures import describe_error, errors_inside, shortened


class Own(BaseException):
    """An error of the application's own, outside of Exception."""


class Unspeakable(Exception):
    """Its message cannot be made."""

    def __str__(self) -> str:
        raise SystemExit(3)


RAISED: dict[str, Callable[[], BaseException]] = {
    "ValueError": lambda: ValueError("v"),
    "SystemExit": lambda: SystemExit(2),
    "GeneratorExit": lambda: GeneratorExit("g"),
    "CancelledError": lambda: asyncio.CancelledError("c"),
    "Own": lambda: Own("o"),
    "BaseExceptionGroup": lambda: BaseExceptionGroup("many", [Own("inner"), SystemExit(1)]),
    "ExceptionGroup": lambda: ExceptionGroup("many", [ValueError("inner"), ExceptionGroup("deep", [OSError("deeper")])]),
    "Unspeakable": Unspeakable,
}


def place_in_a_step(symphony: Symphony, make: Callable[[], BaseException], plain: bool, branch: bool) -> Any:
    """A definition whose step raises: a coroutine function or one in a thread, on the first level or in a branch."""

    async def awaited(context: Any) -> None:
        raise make()

    def called(context: Any) -> None:
        raise make()

    symphony.functions.register("fails", called if plain else awaited)
    one = {"kind": "function", "name": "a", "function": "fails"}
    return {"name": "w", "steps": [{"kind": "parallel", "name": "p", "branches": [one]} if branch else one]}


@pytest.mark.parametrize("branch", [False, True], ids=["alone", "branch"])
@pytest.mark.parametrize("plain", [False, True], ids=["coroutine", "thread"])
@pytest.mark.parametrize("raised", RAISED)
async def test_whatever_a_step_raises_is_its_failure(symphony: Symphony, raised: str, plain: bool, branch: bool) -> None:
    """The run has failed with that error on record, and another run of the same process is not touched."""
    definition = place_in_a_step(symphony, RAISED[raised], plain, branch)
    symphony.functions.register("fine", lambda context: "fine")
    other = {"name": "other", "steps": [{"kind": "function", "name": "a", "function": "fine"}]}
    run, beside = await asyncio.gather(symphony.workflows.execute_workflow(definition), symphony.workflows.execute_workflow(other))
    assert (run.status, beside.result) == ("failed", "fine")
    assert run.error is not None
    named = "RuntimeError" if plain and raised == "GeneratorExit" else raised
    assert (run.error["type"], run.error["step"]) == (named, "p/a" if branch else "a")
    assert raised in run.error["message"] + run.error["traceback"]
    assert symphony.registry.get("workflow_engine").active_runs == []


async def test_the_interrupt_of_a_thread_is_a_failure(symphony: Symphony) -> None:
    """Nobody has pressed a key: a function in a thread has raised the class."""
    run = await symphony.workflows.execute_workflow(place_in_a_step(symphony, KeyboardInterrupt, plain=True, branch=False))
    assert (run.status, (run.error or {})["type"]) == ("failed", "KeyboardInterrupt")


PROGRAM = """
import asyncio, sys
from symphony_es import Symphony

async def main():
    async with Symphony({"state_dir": sys.argv[1]}, persistence_enabled=True) as symphony:
        async def fails(context):
            raise KeyboardInterrupt
        symphony.functions.register("fails", fails)
        await symphony.workflows.execute_workflow({"name": "w", "steps": [{"kind": "function", "name": "a", "function": "fails"}]})

asyncio.run(main())
"""


def test_the_interrupt_of_the_main_thread_ends_the_program(tmp_path: Path) -> None:
    """It is what a person at the keyboard asks for, and no step may keep it."""
    ended = subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode != 0
    assert "KeyboardInterrupt" in ended.stderr


@pytest.mark.parametrize("stage", ["run_started", "step_started", "step_completed", "run_completed"])
@pytest.mark.parametrize("part", ["method", "wants"])
@pytest.mark.parametrize("raised", RAISED)
async def test_whatever_a_hook_raises_is_on_record(symphony: Symphony, raised: str, part: str, stage: str) -> None:
    """The run completes, and each moment at which the hook failed stands in its history."""

    class Faulty:
        def wants(self, moment: RunMoment) -> bool:
            if moment.stage == stage and part == "wants":
                raise RAISED[raised]()
            return moment.stage == stage

    async def told(self: Faulty, moment: RunMoment) -> None:
        raise RAISED[raised]()

    setattr(Faulty, stage, told)
    symphony.functions.register("fine", lambda context: "fine")
    definition = {"name": "w", "steps": [{"kind": "function", "name": "a", "function": "fine"}]}
    run = await symphony.workflows.execute_workflow(definition, auto_checkpoint=False, hooks=[Faulty()])
    assert (run.status, run.result) == ("completed", "fine")
    failed = [event for event in await symphony.log.read_entity(f"Workflow:{run.id}") if event.name == "WorkflowHookFailed"]
    assert [(event.data["stage"], event.data["type"]) for event in failed] == [(stage, raised)]


@pytest.mark.parametrize("where", ["function", "strand"])
@pytest.mark.parametrize("raised", RAISED)
async def test_whatever_the_function_of_a_workflow_raises_fails_its_run(symphony: Symphony, raised: str, where: str) -> None:
    """Between its steps, or in a coroutine that it gathers."""

    async def fails() -> None:
        await asyncio.sleep(0)
        raise RAISED[raised]()

    @symphony.workflow
    async def flow() -> None:
        if where == "strand":
            await gather(fails(), asyncio.sleep(0))
        await fails()

    run = await symphony.workflows.execute_workflow(flow)
    assert run.status == "failed"
    assert raised in (run.error or {})["type"] + (run.error or {})["traceback"]


async def test_a_strand_may_have_its_own_error_among_the_results(symphony: Symphony) -> None:
    """What is outside of Exception comes as a StepFailedError that names it."""

    async def ends() -> None:
        raise SystemExit(5)

    @symphony.workflow
    async def flow() -> list[str]:
        return [f"{type(result).__name__}: {result}" for result in await gather(ends(), return_exceptions=True)]

    run = await symphony.workflows.execute_workflow(flow)
    assert run.result == ["StepFailedError: step gather/0 failed: SystemExit: 5"]


async def cancel_now() -> None:
    """The task itself."""
    running().cancel()


async def cancel_and_wait() -> None:
    """The task itself, and wait."""
    running().cancel()
    await asyncio.sleep(60)


async def cancel_by_a_timer() -> None:
    """A timer of the code."""
    asyncio.get_running_loop().call_later(0.001, running().cancel)
    await asyncio.sleep(60)


async def cancel_by_a_helper() -> None:
    """A task of the code."""
    task = running()

    async def help_out() -> None:
        task.cancel()

    helper = asyncio.create_task(help_out())
    try:
        await asyncio.sleep(60)
    finally:
        helper.cancel()


async def cancel_and_raise() -> None:
    """The task itself, and fail of something else."""
    running().cancel()
    raise ValueError("and this")


def running() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


CANCELLATIONS = [cancel_now, cancel_and_wait, cancel_by_a_timer, cancel_by_a_helper, cancel_and_raise]


@pytest.mark.parametrize("where", ["step", "branch", "flow", "strand", "code step"])
@pytest.mark.parametrize("cancel", CANCELLATIONS, ids=lambda each: each.__name__)
async def test_code_that_cancels_its_own_task_has_failed(symphony: Symphony, cancel: Callable[[], Awaitable[None]], where: str) -> None:
    """The run has failed, as it has of any other error; it is not interrupted, and not left running."""

    async def fails(context: Any = None) -> None:
        await cancel()

    symphony.functions.register("fails", fails)
    one = {"kind": "function", "name": "a", "function": "fails"}

    @symphony.workflow
    async def flow() -> None:
        if where == "code step":
            await step(fails)
        elif where == "strand":
            await gather(fails(), asyncio.sleep(0))
        else:
            await fails()

    steps = [one] if where == "step" else [{"kind": "parallel", "name": "p", "branches": [one, {**one, "name": "b"}]}]
    definition: Any = {"name": "w", "steps": steps} if where in ("step", "branch") else flow
    run = await asyncio.wait_for(symphony.workflows.execute_workflow(definition), 30)
    assert run.status == "failed"
    assert "CancelledError" in (run.error or {})["type"] + (run.error or {})["message"]


async def test_what_a_step_does_about_its_own_cancellation_is_its_own_affair(symphony: Symphony) -> None:
    """It may catch what it has asked for, use timeouts and groups, and leave a timer behind that comes too late."""

    async def catches(context: Any) -> str:
        running().cancel()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "caught"
        raise AssertionError

    async def limits(context: Any) -> str:
        try:
            async with asyncio.timeout(0.001):
                await asyncio.sleep(60)
        except TimeoutError:
            return "in time"
        raise AssertionError

    async def leaves(context: Any) -> None:
        asyncio.get_running_loop().call_soon(running().cancel)

    async def waits(context: Any) -> str:
        for _ in range(20):
            await asyncio.sleep(0)
        return "waited"

    for function in (catches, limits, leaves, waits):
        symphony.functions.register(function.__name__, function)
    names = ["catches", "limits", "leaves", "waits"]
    run = await symphony.workflows.execute_workflow({"name": "w", "steps": [{"kind": "function", "name": n, "function": n} for n in names]})
    assert run.status == "completed"
    assert run.outputs == {"catches": "caught", "limits": "in time", "leaves": None, "waits": "waited"}


async def test_a_timeout_of_the_workflow_s_code_is_no_failure_of_the_step_in_it(symphony: Symphony) -> None:
    """The function cuts its step off from outside: the step is not on record as failed, and the function goes on."""

    async def waits() -> None:
        await asyncio.sleep(60)

    @symphony.workflow
    async def flow() -> str:
        try:
            async with asyncio.timeout(0.01):
                await step(waits)
        except TimeoutError:
            return await step(str, "too long", name="told")
        raise AssertionError

    run = await symphony.workflows.execute_workflow(flow)
    assert (run.status, run.result, run.failures) == ("completed", "too long", {})


async def test_the_exit_of_a_future_that_a_step_awaits_fails_the_run(symphony: Symphony) -> None:
    """It closes the coroutines of the step, which can put nothing on record; the run does."""

    async def closes() -> None:
        raise GeneratorExit("closed")

    async def awaits(context: Any) -> None:
        await asyncio.create_task(closes())

    symphony.functions.register("awaits", awaits)
    one = {"kind": "function", "name": "a", "function": "awaits"}
    for steps in ([one], [{"kind": "parallel", "name": "p", "branches": [one]}]):
        run = await symphony.workflows.execute_workflow({"name": "w", "steps": steps})
        assert (run.status, (run.error or {})["type"]) == ("failed", "GeneratorExit")


@pytest.mark.parametrize("kind", ["declared", "atomic", "code"])
async def test_a_run_that_is_closed_by_the_garbage_collector_puts_nothing_on_record(symphony: Symphony, kind: str) -> None:
    """Its coroutines end while another task runs: nothing has failed, and that task's context stays as it was."""
    reached = asyncio.Event()

    async def hangs(context: Any = None) -> None:
        reached.set()
        try:
            await asyncio.Event().wait()
        finally:
            if kind != "atomic":
                raise ValueError("its own clean-up")

    symphony.functions.register("hangs", hangs)
    one = {"kind": "function", "name": "a", "function": "hangs", "atomic": kind == "atomic"}

    @symphony.workflow
    async def flow() -> None:
        await step(hangs)

    handle = await symphony.workflows.start(flow if kind == "code" else {"name": "w", "steps": [one]}, run_id="r")
    await reached.wait()
    await symphony.flush()
    head, before = symphony.log.head, dict(contextvars.copy_context())
    (task,) = [task for task in asyncio.all_tasks() if task.get_name() == "steps of run r"]
    coroutine = task.get_coro()
    assert isinstance(coroutine, CoroutineType)
    with contextlib.suppress(ValueError):  # the one that its code raises
        coroutine.close()
    assert dict(contextvars.copy_context()) == before
    await symphony.flush()
    assert (symphony.log.head, handle.run.failures) == (head, {})
    task.cancel()
    await asyncio.wait({task})
    with pytest.raises(RuntimeError, match="already awaited"):
        task.result()


async def test_retry_rules_decide_over_what_is_outside_of_exception(symphony: Symphony) -> None:
    """By default it is not repeated; a rule that names it has it repeated."""
    attempts: list[str] = []

    def leaves(context: Any) -> str:
        attempts.append(context.run_id)
        if len(attempts) % 3:
            raise SystemExit(1)
        return "stayed"

    symphony.functions.register("leaves", leaves)

    async def execute(**retry: Any) -> Workflow:
        policy = {"max_attempts": 3, "delay_s": 0, **retry}
        return await symphony.workflows.execute_workflow(
            {"name": "w", "steps": [{"kind": "function", "name": "a", "function": "leaves", "retry": policy}]}
        )

    assert (await execute()).status == "failed"
    assert len(attempts) == 1
    attempts.clear()
    assert (await execute(on=["SystemExit"])).result == "stayed"


@pytest.mark.parametrize("raised", [*RAISED, "long message"])
async def test_whatever_a_model_client_raises_is_on_record(symphony: Symphony, raised: str) -> None:
    """Its task has failed, with a message that is bounded, and so has the step; the task can be performed again."""
    make = RAISED.get(raised, lambda: ValueError("x" * 20_000_000))
    answers: list[str] = []

    async def client(prompt: str) -> str:
        if answers:
            return answers[0]
        raise make()

    symphony.models.register("client", client)
    steps = [{"kind": "task", "name": "a", "template": "hi", "model": "client"}]
    run = await symphony.workflows.execute_workflow({"name": "w", "steps": steps})
    assert run.status == "failed"
    (task,) = await symphony.tasks.get_tasks_by_workflow(run.id)
    if raised not in ("CancelledError", "GeneratorExit"):
        assert task.status == "failed"
        assert len(task.error) < 5_000
    answers.append("fine")
    assert (await symphony.workflows.resume(run)).result == "fine"


# -- what is put on record --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [3_000, 5 << 20, 17 << 20, 40 << 20])
async def test_a_long_message_is_cut_and_its_length_said(symphony: Symphony, size: int) -> None:
    """Beginning and end are kept; the run fails, can be resumed, and its events stay small."""

    async def fails(context: Any) -> None:
        raise ValueError("begin" + "x" * size + "end")

    symphony.functions.register("fails", fails)
    run = await symphony.workflows.execute_workflow({"name": "w", "steps": [{"kind": "function", "name": "a", "function": "fails"}]})
    assert run.status == "failed"
    message = (run.error or {})["message"]
    assert message.startswith("begin")
    assert message.endswith("end")
    assert size < 4_000 or f"{size + 8:,} characters" in message

    assert (await symphony.workflows.resume(run)).status == "failed"
    assert len(message) < 4_200


def raise_from(depth: int) -> None:
    """An error at the end of a deep recursion."""
    if depth == 0:
        raise ValueError("deep")
    raise_from(depth - 1)


def chain(length: int, text: str) -> BaseException:
    """An error with a long chain."""
    error: BaseException = ValueError(text)
    for number in range(length):
        following = RuntimeError(f"{number} {text}")
        following.__cause__ = error
        error = following
    return error


def nested(depth: int, width: int, text: str) -> BaseException:
    """A group in a group, in a group."""
    group: Exception = ValueError(text)
    for _ in range(depth):
        group = ExceptionGroup(text, [group, *(OSError(text) for _ in range(width))])
    return group


def noted(text: str) -> BaseException:
    error = ValueError("v")
    for _ in range(50):
        error.add_note(text)
    return error


def named(text: str) -> BaseException:
    raised: type[Exception] = type(text[:100_000] or "E", (Exception,), {"__module__": 5})
    return raised(text)


class Texts(str):
    """A text that cannot be written."""

    def encode(self, *args: Any, **kwargs: Any) -> bytes:
        raise OSError("never")


class Odd(Exception):
    """Its message is a text of a class of its own."""

    def __str__(self) -> str:
        return Texts("odd")


class Hollow(ExceptionGroup[Exception]):
    """A group that does not say what is in it."""

    @property
    def exceptions(self) -> Any:
        raise SystemExit(4)

    def __str__(self) -> str:
        return "hollow"


LARGE: dict[str, Callable[[], BaseException]] = {
    "message": lambda: ValueError("x" * 30_000_000),
    "key": lambda: KeyError("x" * 3_000_000),
    "many arguments": lambda: ValueError(*range(200_000)),
    "chain": lambda: chain(5_000, "y" * 1_000),
    "chain of long messages": lambda: chain(12, "y" * 2_000_000),
    "group": lambda: nested(2, 5_000, "z" * 200),
    "deep group": lambda: nested(3_000, 1, "z"),
    "notes": lambda: noted("n" * 1_000_000),
    "name": lambda: named("N" * 1_000_000),
    "surrogates": lambda: OSError("\ud800" * 100_000),
    "unspeakable": Unspeakable,
    "odd text": Odd,
    "hollow group": lambda: Hollow("hollow", [ValueError("v")]),
}


def size_of(described: Any) -> int:
    return len(repr(described).encode())


@pytest.mark.parametrize("kind", LARGE)
def test_what_is_recorded_of_an_error_is_bounded(kind: str) -> None:
    """Whatever it holds: at most 20 kB (escaped text 4 times as much), all of it text that can be written."""
    described = describe_error(LARGE[kind](), "a")
    assert size_of(described) < (80_000 if kind == "surrogates" else 20_000)
    for part in ("type", "message", "traceback"):
        described[part].encode("utf-8")


def test_a_chain_that_is_a_circle_ends() -> None:
    """Each error of it is told once."""
    first, second = ValueError("one"), ValueError("two")
    first.__cause__, second.__cause__ = second, first
    assert describe_error(first, None)["traceback"].count("ValueError: one") == 1


def test_of_a_deep_recursion_the_innermost_calls_are_kept() -> None:
    """And how many are left out is said."""
    with pytest.raises(ValueError, match="deep") as caught:
        raise_from(500)
    told = describe_error(caught.value, None)["traceback"]
    assert "frames left out" in told
    assert told.endswith("ValueError: deep\n")


def test_a_group_says_what_is_in_it() -> None:
    """Its message names the errors inside, and `types` their classes."""
    described = describe_error(RAISED["ExceptionGroup"](), "a")
    assert described["message"] == "many (2 sub-exceptions): ValueError: inner; OSError: deeper"
    assert described["types"] == ["OSError", "ValueError"]
    assert "types" not in describe_error(ValueError("v"), None)


def test_a_chain_is_told_from_its_beginning() -> None:
    """With the sentences that Python has between its errors."""
    try:
        try:
            raise KeyError("first")
        except KeyError as error:
            raise ValueError("second") from error
    except ValueError as error:
        told = describe_error(error, None)["traceback"]
    assert told.index("KeyError") < told.index("direct cause") < told.index("ValueError: second")


@given(st.text(max_size=300), st.integers(1, 200))
def test_a_text_is_shortened_to_its_beginning_and_end(text: str, limit: int) -> None:
    """One that fits stays; of another as many characters as allowed are kept, from both ends."""
    short = shortened(text, limit)
    if len(text) <= limit:
        assert short == text
    else:
        assert short.startswith(text[: limit - limit // 4])
        assert f"{len(text):,}" in short
        assert len(short) <= limit + 60


def test_of_a_large_group_so_many_are_looked_at() -> None:
    """The work is bounded, too."""
    assert len(errors_inside(nested(1, 5_000, "z"))) <= failures.MAX_INSIDE


def test_a_traceback_names_frames_and_lines_without_marks() -> None:
    """What is recorded of an error names its frames and shows their lines; nothing parses them to mark a part of each."""
    try:
        (1 + 1) / (len("") + 0)
    except ZeroDivisionError as error:
        lines = describe_error(error, None)["traceback"].splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert "test_a_traceback_names_frames" in lines[1]
    assert lines[2].strip() == '(1 + 1) / (len("") + 0)'
    assert lines[3:] == ["ZeroDivisionError: division by zero"]
