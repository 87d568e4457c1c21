"""Time within a process and across processes: a clock that is set moves no timer back."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symphony_es import Symphony, steady
from symphony_es.errors import ConfigurationError
from symphony_es.testing import ManualClock
from symphony_es.workflow import SystemClock
from symphony_es.workflow.engine.clock import SteadyClock

HOUR_NS = 3_600 * 1_000_000_000


class Shifted:
    """The machine's clock, which somebody sets."""

    def __init__(self) -> None:
        self.shift = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.shift

    async def sleep_until(self, moment: datetime) -> None:
        while (left_s := (moment - self.now()).total_seconds()) > 0:
            await asyncio.sleep(min(left_s, 0.01))


def failing_once(context: Any) -> None:
    if context.attempt == 1:
        raise OSError("down")


STEPS: dict[str, dict[str, Any]] = {
    "retry": {"kind": "function", "name": "a", "function": "f", "retry": {"delay_s": 0.3, "jitter": 0}},
    "sleep": {"kind": "sleep", "name": "a", "seconds": 0.3},
    "wait": {"kind": "wait", "name": "a", "signal": "x", "within_s": 0.3, "default": 0},
    "deadline": {"kind": "wait", "name": "a", "signal": "x"},
}


@pytest.mark.parametrize("kind", STEPS)
@pytest.mark.parametrize("hours", [-1, -24 * 365, 1])
async def test_setting_the_clock_prolongs_no_wait(symphony: Symphony, kind: str, hours: int) -> None:
    """A delay before another attempt, a sleep, a wait, a deadline: each ends when its time has passed, or sooner."""
    clock = Shifted()
    symphony.registry.get("workflow_engine").clock = clock
    symphony.functions.register("f", failing_once)
    deadline_s = 0.3 if kind == "deadline" else None
    handle = await symphony.workflows.start({"name": "w", "steps": [STEPS[kind]]}, deadline_s=deadline_s, auto_checkpoint=False)
    async with asyncio.timeout(20):
        while "a" not in handle.run.attempts:
            await asyncio.sleep(0)
        clock.shift = timedelta(hours=hours)
        run = await handle.wait()
    assert run.status == ("failed" if kind == "deadline" else "completed")


@given(st.lists(st.tuples(st.integers(-10_000, 10_000), st.integers(0, 100)), max_size=30))
def test_a_clock_that_is_set_never_goes_back(moves: list[tuple[int, int]]) -> None:
    """What it shows never falls, and grows by at least what has passed, whatever it is set to."""
    passed, inner = 0.0, ManualClock()
    clock = SteadyClock(inner, lambda: passed)
    shown = clock.now()
    for moved, seconds in moves:
        passed += seconds
        inner.advance(moved)
        before, shown = shown, clock.now()
        assert shown >= before + timedelta(seconds=min(seconds, max(moved, 0)) if moved >= 0 else seconds)


def test_a_clock_s_own_names_are_there() -> None:
    """A test moves the engine's clock on as it likes."""
    clock: Any = SteadyClock(ManualClock())
    before = clock.now()
    clock.advance(90)
    assert clock.now() - before == timedelta(seconds=90)


def test_the_time_of_a_process_is_steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's clock is set back by a year: the time of this process goes on."""
    clock, before = SystemClock(), SystemClock().now()
    monkeypatch.setattr("time.time_ns", lambda: 0)
    monkeypatch.setattr("time.time", lambda: 0.0)
    assert timedelta(0) <= clock.now() - before < timedelta(minutes=1)


@pytest.mark.parametrize("hours", [0, 1, 24 * 365])
async def test_a_process_is_never_before_the_last_event(
    symphony: Symphony, reopen: Any, hours: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine's clock was set back between two processes: timers and events go on from the last event, and do not stand still."""
    definition = {"name": "w", "steps": [{"kind": "sleep", "name": "a", "seconds": 0.2}]}
    handle = await symphony.workflows.start(definition, run_id="r", auto_checkpoint=False)
    async with asyncio.timeout(20):
        while "a" not in handle.run.progress:
            await asyncio.sleep(0)
    await symphony.flush()
    last_ns = symphony.log.last_time_ns
    monkeypatch.setattr("symphony_es.steady._BEGAN_NS", steady._BEGAN_NS - hours * HOUR_NS)
    again = await reopen()
    await again.resume()
    async with asyncio.timeout(60):
        [run] = await again.workflows.recover()
    assert run.status == "completed"
    times = [event.time_ns for event in await again.log.read_entity("Workflow:r")]
    assert last_ns < times[-1] < last_ns + 60 * 1_000_000_000
    assert times == sorted(times)


async def test_a_forward_jump_while_nothing_runs_is_time_that_has_passed(
    symphony: Symphony, reopen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine was off for a day, or its clock was set forward: a sleep of an hour has ended."""
    definition = {"name": "w", "steps": [{"kind": "sleep", "name": "a", "seconds": 3_600}]}
    handle = await symphony.workflows.start(definition, run_id="r", auto_checkpoint=False)
    async with asyncio.timeout(20):
        while "a" not in handle.run.progress:
            await asyncio.sleep(0)
    await symphony.flush()
    monkeypatch.setattr("symphony_es.steady._BEGAN_NS", steady._BEGAN_NS + 24 * HOUR_NS)
    again = await reopen()
    await again.resume()
    async with asyncio.timeout(60):
        [run] = await again.workflows.recover()
    assert run.status == "completed"


class NaiveClock(ManualClock):
    """Tells a moment that nobody can compare with another."""

    def now(self) -> datetime:
        return super().now().replace(tzinfo=None)


class AsyncClock:
    """Whose moment has to be awaited."""

    async def now(self) -> datetime:
        return datetime.now(UTC)

    async def sleep_until(self, moment: datetime) -> None:
        return None


@pytest.mark.parametrize(
    "clock", [None, 3, "now", object(), datetime, ManualClock, time, NaiveClock(), AsyncClock(), lambda: datetime.now(UTC)]
)
async def test_what_is_no_clock_is_refused_when_it_is_assigned(symphony: Symphony, clock: Any) -> None:
    """The error says what a clock has, and the clock that was there stays; later a run would fail at its first moment."""
    engine = symphony.registry.get("workflow_engine")
    before = engine.clock
    with pytest.raises(ConfigurationError, match=r"now\(\), which gives the present moment with its time zone"):
        engine.clock = clock
    assert engine.clock is before
