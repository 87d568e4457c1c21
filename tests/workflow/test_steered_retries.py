"""Retries that the error steers: its classes wherever they stand, what it says of the next attempt, and a predicate."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symphony_es import Symphony
from symphony_es.errors import DefinitionError, NotRegisteredError
from symphony_es.testing import ManualClock
from symphony_es.workflow import RetryPolicy, RunContext, StepList, Workflow, WorkflowDefinition, step
from symphony_es.workflow.definitions.error_rules import related_errors, retry_moment

Wrap = Callable[[BaseException], BaseException]


class RateLimitError(RuntimeError):
    """An error of the application's own."""

    def __init__(self, retry_after: Any = None) -> None:
        super().__init__("too many requests")
        self.retry_after = retry_after


def caused(error: BaseException) -> BaseException:
    outer = ValueError("wrapped")
    outer.__cause__ = error
    return outer


def met(error: BaseException) -> BaseException:
    outer = ValueError("met")
    outer.__context__ = error
    return outer


def grouped(error: BaseException) -> BaseException:
    return BaseExceptionGroup("several", [KeyError("k"), error])


def hidden(error: BaseException) -> BaseException:
    outer = met(error)
    outer.__suppress_context__ = True
    return outer


WRAPS = [caused, met, grouped]


@given(st.lists(st.sampled_from(WRAPS), max_size=6), st.sampled_from(["RateLimitError", f"{__name__}.RateLimitError", "RuntimeError"]))
def test_a_class_is_found_wherever_it_stands(wraps: list[Wrap], name: str) -> None:
    """In causes, contexts and groups, at any depth: `on` allows the attempt, and `never_on` refuses it."""
    error: BaseException = RateLimitError()
    for wrap in wraps:
        error = wrap(error)
    assert RetryPolicy(on=(name,)).allows(error, 1)
    assert not RetryPolicy(never_on=(name,)).allows(error, 1)
    assert not RetryPolicy(on=(name,)).allows(hidden(error), 1), "what `from None` hides does not count"


def test_a_chain_that_is_a_circle_is_looked_at_once() -> None:
    """And one that is very long is looked at in part."""
    error = ValueError()
    error.__context__ = other = KeyError()
    other.__context__ = error
    assert related_errors(error) == [error, other]
    for _ in range(5_000):
        error = caused(error)  # type: ignore[assignment]
    assert len(related_errors(error)) == 1_000


def test_an_error_that_ends_programs_is_not_retried_for_what_it_was_raised_from() -> None:
    """It has to be named itself."""
    error = SystemExit(2)
    error.__context__ = OSError()
    assert not RetryPolicy().allows(error, 1)
    assert RetryPolicy(on=("SystemExit",)).allows(error, 1)


def test_a_name_that_a_package_offers_stands_for_the_class_that_a_module_of_it_defines() -> None:
    """As `asyncio.TimeoutError`, which is the built-in one."""
    assert RetryPolicy(on=("asyncio.TimeoutError",)).allows(TimeoutError(), 1)
    assert RetryPolicy(on=("asyncio.QueueEmpty",)).allows(asyncio.QueueEmpty(), 1)


@pytest.mark.parametrize("raised", [ValueError, SystemExit, asyncio.CancelledError])
def test_an_error_that_cannot_say_when_does_not_ask(raised: type[BaseException]) -> None:
    """Whatever its property raises, the failure is one like any other."""

    class UnreadableError(RuntimeError):
        @property
        def retry_after(self) -> float:
            raise raised

    assert retry_moment(UnreadableError(), NOW) is None


NOW = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.mark.parametrize("wrap", [lambda error: error, *WRAPS])
@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        (7, 7.0),
        (0, 0.0),
        (2.5, 2.5),
        ("30", 30.0),
        (timedelta(minutes=2), 120.0),
        (NOW + timedelta(hours=1), 3600.0),
        ((NOW + timedelta(hours=1)).astimezone(timezone(timedelta(hours=5))), 3600.0),
        (NOW - timedelta(hours=1), 0.0),
        (1e12, 100 * 365 * 86_400.0),
        (datetime.max.replace(tzinfo=timezone(timedelta(hours=-5))), 100 * 365 * 86_400.0),
        (datetime.min.replace(tzinfo=timezone(timedelta(hours=5))), 0.0),
        *[(nonsense, None) for nonsense in (None, -1, math.nan, math.inf, True, "soon", [1], datetime(2026, 5, 1))],
    ],
)
def test_what_an_error_asks_for(wrap: Wrap, asked: Any, seconds: float | None) -> None:
    """Seconds, a text of them, a timedelta or a moment; what makes no sense is passed over."""
    moment = retry_moment(wrap(RateLimitError(asked)), NOW)
    assert (None if moment is None else (moment - NOW).total_seconds()) == seconds


def one(symphony: Symphony, error: Callable[[], BaseException], own: Any, **options: Any) -> tuple[WorkflowDefinition, list[int]]:
    """A step that fails once."""
    attempts: list[int] = []

    async def fails(context: RunContext) -> str:
        attempts.append(context.attempt)
        if len(attempts) == 1:
            raise error()
        return "at last"

    symphony.functions.register("fails", fails, replace=True)
    return WorkflowDefinition(name="x", steps=StepList().add_function("s", "fails", retry=own).to_dicts(), **options), attempts


@pytest.mark.parametrize("wrap", [lambda error: error, *WRAPS])
async def test_the_next_attempt_begins_when_the_error_says(symphony: Symphony, wrap: Wrap) -> None:
    """In place of the policy's delay, longer than its longest one; on record, so that another process keeps to it."""
    clock = symphony.registry.get("workflow_engine").clock = ManualClock()
    definition, attempts = one(symphony, lambda: wrap(RateLimitError(5_000)), {"max_attempts": 2, "max_delay_s": 60})
    handle = await symphony.workflows.start(definition, auto_checkpoint=False)
    async with asyncio.timeout(5):
        while not clock.sleepers:
            await asyncio.sleep(0.001)
    assert handle.run.failures["s"]["retry_at"] == clock.now() + timedelta(seconds=5_000)
    clock.advance(4_999)
    await asyncio.sleep(0)
    assert attempts == [1]
    clock.advance(1)
    assert (await handle.result(), attempts) == ("at last", [1, 2])


def is_busy(error: BaseException) -> bool:
    """A predicate: told the error that left the step."""
    return "busy" in str(error)


async def is_busy_later(error: BaseException) -> bool:
    """The same as a coroutine function."""
    await asyncio.sleep(0)
    return "busy" in str(error)


@pytest.mark.parametrize("predicate", [is_busy, is_busy_later])
@pytest.mark.parametrize("given_as", ["function", "registered name", "definition", "code"])
@pytest.mark.parametrize("busy", [True, False])
async def test_a_predicate_says_whether_there_is_another_attempt(symphony: Symphony, predicate: Any, given_as: str, busy: bool) -> None:
    """A definition holds its name, code may give any function."""
    symphony.functions.register("busy", predicate)
    when = "busy" if given_as == "registered name" else predicate
    policy = RetryPolicy(2, delay_s=0, when=when)

    def error() -> BaseException:
        return OSError("busy" if busy else "gone")

    if given_as == "code":
        attempts: list[int] = []

        def fails() -> None:
            attempts.append(1)
            if len(attempts) == 1:
                raise error()

        @symphony.workflow
        async def flow() -> None:
            await step(fails, retry=RetryPolicy(2, delay_s=0, when=lambda error: predicate(error)))

        run: Workflow = await symphony.workflows.execute_workflow(flow, auto_checkpoint=False)
    else:
        options = {"retry": policy} if given_as == "definition" else {}
        definition, attempts = one(symphony, error, None if options else policy, **options)
        assert WorkflowDefinition.from_json(definition.to_json()) == definition
        run = await symphony.workflows.execute_workflow(definition, auto_checkpoint=False)
    assert (run.status, len(attempts)) == (("completed", 2) if busy else ("failed", 1))


@pytest.mark.parametrize("fault", [ValueError("odd"), SystemExit(3)])
async def test_a_predicate_that_fails_is_on_record(symphony: Symphony, fault: BaseException) -> None:
    """There is no other attempt, the step's own error is that of the run, and says why."""

    def broken(error: BaseException) -> bool:
        raise fault

    symphony.functions.register("broken", broken)
    definition, attempts = one(symphony, lambda: OSError("gone"), {"max_attempts": 3, "delay_s": 0, "when": "broken"})
    run = await symphony.workflows.execute_workflow(definition, auto_checkpoint=False)
    assert (run.status, run.error["message"], attempts) == ("failed", "gone", [1])  # type: ignore[index]
    assert type(fault).__name__ in run.error["traceback"]  # type: ignore[index]


async def test_a_predicate_that_nobody_registered_is_told_before_a_run_begins(symphony: Symphony) -> None:
    """Of a step and of the definition; nothing has been appended."""
    head = symphony.log.head
    for definition in (
        one(symphony, OSError, {"when": "missing"})[0],
        one(symphony, OSError, None, retry={"when": "missing"})[0],
    ):
        with pytest.raises(NotRegisteredError, match="'missing'"):
            await symphony.workflows.execute_workflow(definition)
    assert symphony.log.head == head
    with pytest.raises(DefinitionError, match=r"^steps\[0\]\.retry\.when: .*lambda"):
        one(symphony, OSError, {"when": lambda error: True})
    with pytest.raises(DefinitionError, match=r"^when: "):
        RetryPolicy(when=7)  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match=r"^retry_if: .*it is called when"):
        RetryPolicy(retry_if=is_busy)  # type: ignore[call-arg]


@pytest.mark.parametrize("key", ["on", "never_on"])
@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("ConectionError", "ConnectionError"),
        ("Timeouterror", "TimeoutError"),
        ("RateLimitEror", "RateLimitError"),
        (f"{__name__}.RateLimitErr", f"{__name__}.RateLimitError"),
        ("asyncio.exceptions.TimeoutErrror", ""),
        ("Whatever", ""),
    ],
)
@pytest.mark.parametrize("place", ["step", "definition", "nested"])
async def test_a_misspelt_class_is_told_before_a_run_begins(symphony: Symphony, key: str, name: str, near: str, place: str) -> None:
    """With its path and near misses; nothing has been appended."""
    policy = {key: ["OSError", name]}
    definition, _ = one(symphony, OSError, policy if place == "step" else None, **({"retry": policy} if place == "definition" else {}))
    if place == "nested":
        inner = StepList().add_function("s", "fails", retry=policy)
        definition = WorkflowDefinition(name="x", steps=StepList().add_loop("l", inner, 2).to_dicts())
    head = symphony.log.head
    with pytest.raises(DefinitionError, match=rf"retry\.{key}: .*{name!r}.*{near}"):
        await symphony.workflows.execute_workflow(definition)
    assert symphony.log.head == head


@pytest.mark.parametrize("name", ["httpx.ConnectError", "shop.errors.Busy", "concurrent.later.Error"])
async def test_a_class_of_a_module_that_is_not_loaded_is_taken(symphony: Symphony, name: str) -> None:
    """It may be loaded by the step; a stored definition is read by processes that do not know the class."""
    definition, attempts = one(symphony, lambda: OSError("gone"), {"on": [name, "OSError"], "delay_s": 0})
    run = await symphony.workflows.execute_workflow(definition, auto_checkpoint=False)
    assert (run.status, attempts) == ("completed", [1, 2])
    assert WorkflowDefinition(name="x", steps=StepList().add_function("s", "f", retry={"on": ["Misspelt"]}).to_dicts())


async def test_code_that_names_a_misspelt_class_is_told_with_the_failure(symphony: Symphony) -> None:
    """What the run has on record of the step's failure names it."""

    def fails() -> None:
        raise ConnectionError("gone")

    @symphony.workflow
    async def flow() -> None:
        await step(fails, retry=RetryPolicy(3, delay_s=0, on=("ConectionError",)))

    run = await symphony.workflows.execute_workflow(flow, auto_checkpoint=False)
    events = await symphony.log.read_entity(f"Workflow:{run.id}")
    (failed,) = [event.data for event in events if event.name == "WorkflowStepFailed"]
    assert "'ConectionError', which the retry policy names" in failed["traceback"]
