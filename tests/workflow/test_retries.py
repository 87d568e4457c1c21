"""Retries and timeouts: how often, how long after, of which errors; counted across restarts, each attempt on record."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symphony_es import Symphony
from symphony_es.errors import DefinitionError, NotRegisteredError, StepTimeoutError, TemplateError, UnstorableValueError
from symphony_es.testing import ManualClock
from symphony_es.workflow import RetryPolicy, RunContext, StepList, Workflow, WorkflowDefinition
from symphony_es.workflow.definitions.retry import HOPELESS


class Flaky(ConnectionError):
    """An error of the application's own."""


def flaky(symphony: Symphony, times: int, error: Exception | None = None) -> list[int]:
    """A function that fails so often; gives the numbers of its attempts."""
    attempts: list[int] = []

    async def fails(context: RunContext) -> str:
        attempts.append(context.attempt)
        if len(attempts) <= times:
            raise error or Flaky(f"attempt {context.attempt}")
        return "at last"

    symphony.functions.register("fails", fails, replace=True)
    return attempts


def one(retry: Any = None, **options: Any) -> WorkflowDefinition:
    """One step."""
    return WorkflowDefinition(name="x", steps=StepList().add_function("s", "fails", retry=retry).to_dicts(), **options)


async def execute(symphony: Symphony, definition: WorkflowDefinition) -> Workflow:
    return await symphony.workflows.execute_workflow(definition, auto_checkpoint=False)


async def test_each_attempt_is_on_record(symphony: Symphony) -> None:
    """Its start, its error with traceback, its number; the failure is gone from the state when the step has completed."""
    flaky(symphony, 2)
    run = await execute(symphony, one({"max_attempts": 3, "delay_s": 0}))
    assert (run.status, run.outputs, run.failures, run.attempts) == ("completed", {"s": "at last"}, {}, {"s": 3})
    events = [event for event in await symphony.log.read_entity(f"Workflow:{run.id}") if event.metadata.step == "s"]
    assert [(event.name, event.metadata.attempt) for event in events] == [
        ("WorkflowStepStarted", None),
        ("WorkflowStepFailed", None),
        ("WorkflowStepRetried", 2),
        ("WorkflowStepFailed", 2),
        ("WorkflowStepRetried", 3),
        ("WorkflowStepCompleted", 3),
    ]
    assert (events[3].data["type"], events[3].data["message"]) == ("Flaky", "attempt 2")
    assert "in fails" in events[3].data["traceback"]


async def test_delays_grow_and_go_by_the_clock(symphony: Symphony) -> None:
    """Exponentially, up to the limit; the moment of the next attempt is on record."""
    clock = symphony.registry.get("workflow_engine").clock = ManualClock()
    attempts = flaky(symphony, 4)
    policy = RetryPolicy(max_attempts=5, delay_s=10, factor=3, max_delay_s=60, jitter=0)
    handle = await symphony.workflows.start(one(policy), auto_checkpoint=False)
    for failed, delay_s in enumerate((10, 30, 60, 60), 1):
        while not clock.sleepers:
            await asyncio.sleep(0.001)
        assert clock.sleepers == [clock.now() + timedelta(seconds=delay_s)]
        assert handle.run.failures["s"]["retry_at"] == clock.sleepers[0]
        assert (handle.run.failures["s"]["count"], len(attempts)) == (failed, failed)
        clock.advance(delay_s)
        while len(attempts) == failed:
            await asyncio.sleep(0.001)
    await handle.result()
    assert attempts == [1, 2, 3, 4, 5]


async def test_failed_attempts_are_counted_across_restarts(symphony: Symphony, reopen: Any) -> None:
    """Two before the restart and one after it are three; the delay that was under way goes on where it was."""
    clock = symphony.registry.get("workflow_engine").clock = ManualClock()
    flaky(symphony, 9)
    handle = await symphony.workflows.start(one({"max_attempts": 3, "delay_s": 10, "jitter": 0, "factor": 1}), run_id="r")
    for _ in range(2):
        while not clock.sleepers:
            await asyncio.sleep(0.001)
        until = clock.sleepers[0]
        if handle.run.failures["s"]["count"] == 1:
            clock.advance(10)
            while handle.run.failures["s"]["count"] == 1:
                await asyncio.sleep(0.001)
    while handle.run.failures["s"]["count"] < 2 or not clock.sleepers:
        await asyncio.sleep(0.001)
    until = clock.sleepers[0]
    again = await reopen()
    await again.resume()
    later = again.registry.get("workflow_engine").clock = ManualClock(clock.now())
    attempts = flaky(again, 9)
    going = asyncio.create_task(again.workflows.recover())
    while not later.sleepers:
        await asyncio.sleep(0.001)
    assert (later.sleepers, attempts) == ([until], [])
    later.advance(10)
    await going
    run = await again.workflows.get_run("r")
    assert (run.status, attempts, run.failures["s"]["count"]) == ("failed", [3], 3)
    attempts.clear()
    resumed = asyncio.create_task(again.workflows.resume(run))
    while not attempts or not later.sleepers:
        await asyncio.sleep(0.001)
    assert run.failures["s"]["count"] == 1, "whoever resumes a failed run gives its step all attempts anew"
    resumed.cancel()
    await asyncio.gather(resumed, return_exceptions=True)


@pytest.mark.parametrize(
    ("policy", "error", "attempts"),
    [
        ({"on": ["ConnectionError"]}, Flaky("x"), 3),
        ({"on": [f"{__name__}.Flaky"]}, Flaky("x"), 3),
        ({"on": ["OSError"], "never_on": ["Flaky"]}, Flaky("x"), 1),
        ({"on": ["KeyError"]}, Flaky("x"), 1),
        ({}, TemplateError("a", 0, "not there"), 1),
        ({}, NotRegisteredError("function", "f", [], "register it"), 1),
        ({}, UnstorableValueError((), "no"), 1),
        ({}, asyncio.CancelledError(), 1),
    ],
)
async def test_which_errors_are_retried(symphony: Symphony, policy: dict[str, Any], error: Any, attempts: int) -> None:
    """By the names of their classes and those they derive from; what the next attempt would meet again never is."""
    made = flaky(symphony, 2, error)
    run = await execute(symphony, one({"max_attempts": 3, "delay_s": 0, **policy}))
    assert len(made) == attempts
    assert run.status == ("completed" if attempts == 3 else "failed")


async def test_the_definition_has_a_policy_for_its_leaves(symphony: Symphony) -> None:
    """A step's own comes first; a composite has none unless it says so, and then its completed branches are not run again."""
    attempts = flaky(symphony, 2)
    run = await execute(symphony, one(retry={"max_attempts": 3, "delay_s": 0}))
    assert (run.status, len(attempts)) == ("completed", 3)
    attempts = flaky(symphony, 2)
    quick: list[str] = []
    symphony.functions.register("quick", lambda context: quick.append(context.step))
    fan = StepList().add_function("quick", "quick").add_function("s", "fails", retry=1)
    steps = StepList().add_parallel("fan", fan, retry={"max_attempts": 3, "delay_s": 0})
    run = await execute(symphony, WorkflowDefinition(name="x", steps=steps.to_dicts(), retry={"delay_s": 0}))
    assert (run.status, len(attempts), quick) == ("completed", 3, ["fan/quick"])
    flaky(symphony, 2)
    run = await execute(symphony, WorkflowDefinition(name="x", steps=StepList().add_parallel("fan", fan).to_dicts(), retry={"delay_s": 0}))
    assert run.status == "failed", "the step's own policy is one attempt, and the definition's is for leaves"


async def test_a_timeout_cancels_the_coroutine(symphony: Symphony) -> None:
    """Its clean-up runs; that is a failure that can be retried; a step without a timeout of its own has the definition's."""
    ended: list[int] = []

    async def slow(context: RunContext) -> str:
        try:
            if context.attempt < 3:
                await asyncio.Event().wait()
        finally:
            ended.append(context.attempt)
        return "in time"

    symphony.functions.register("fails", slow)
    steps = StepList().add_function("s", "fails", timeout_s=0.01, retry={"max_attempts": 3, "delay_s": 0, "on": ["TimeoutError"]})
    run = await execute(symphony, WorkflowDefinition(name="x", steps=steps.to_dicts()))
    assert (run.outputs, ended) == ({"s": "in time"}, [1, 2, 3])
    run = await execute(symphony, one(timeout_s=0.01))
    assert run.error is not None
    assert (run.status, run.error["type"]) == ("failed", StepTimeoutError.__name__)
    assert "longer than its timeout of 0.01 s" in run.error["message"]


async def test_a_timeout_of_a_composite_ends_what_is_inside(symphony: Symphony) -> None:
    """And a function that blocks in a thread is left alone, its outcome dropped."""
    go_on = threading.Event()
    symphony.functions.register("blocks", lambda context: go_on.wait(10))
    steps = StepList().add_parallel("fan", StepList().add_wait("never").add_function("blocks", "blocks"), timeout_s=0.02)
    run = await execute(symphony, WorkflowDefinition(name="x", steps=steps.to_dicts()))
    go_on.set()
    assert run.error is not None
    assert (run.status, run.error["type"], run.error["step"]) == ("failed", "StepTimeoutError", "fan")
    assert dict(run.outputs) == {}


async def test_a_timeout_error_of_the_body_is_its_own(symphony: Symphony) -> None:
    """It is not taken for the step's timeout."""
    flaky(symphony, 1, TimeoutError("mine"))
    run = await execute(symphony, one(timeout_s=60))
    assert run.error is not None
    assert (run.error["type"], run.error["message"]) == ("TimeoutError", "mine")


policies = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 50),
    delay_s=st.floats(0, 1e6),
    factor=st.floats(1, 1e6),
    max_delay_s=st.floats(0, 1e6),
    jitter=st.floats(0, 1),
)


@given(policies, st.integers(1, 10_000), st.floats(0, 1))
def test_delays_stay_within_their_bounds(policy: RetryPolicy, failed: int, chance: float) -> None:
    """Never negative, never beyond the limit, whatever the numbers; without jitter they do not shrink."""
    assert 0 <= policy.delay_before(failed, chance) <= policy.max_delay_s
    steady = RetryPolicy(delay_s=policy.delay_s, factor=policy.factor, max_delay_s=policy.max_delay_s, jitter=0)
    assert steady.delay_before(failed, chance) <= steady.delay_before(failed + 1, chance)
    assert steady.delay_before(1, chance) == min(policy.delay_s, policy.max_delay_s)


@given(policies)
def test_a_policy_survives_its_dict(policy: RetryPolicy) -> None:
    """Written and read back it is equal; a number of attempts is short for one."""
    assert RetryPolicy.read(policy.to_dict(), "retry") == policy
    assert RetryPolicy.read(4, "retry") == RetryPolicy(max_attempts=4)
    assert RetryPolicy.read(None, "retry") is None


def test_attempts_end() -> None:
    """After the last one nothing follows; errors of the definition's making are hopeless."""
    policy = RetryPolicy(max_attempts=2)
    assert [policy.allows(ValueError(), failed) for failed in (1, 2, 3)] == [True, False, False]
    assert not any(issubclass(ConnectionError, hopeless) for hopeless in HOPELESS)
    assert not policy.allows(DefinitionError("steps", "x"), 1)
