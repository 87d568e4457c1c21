"""Whatever a projection raises is an error of its own: tried again, parked, told. Nothing ends its task or the program in silence."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from symphony_es.errors import ProjectionFailedError
from symphony_es.log.log import EventLog
from symphony_es.projections import EntityStates, Projection
from tests.projections.conftest import RunnerMaker, Tally, fill, new


class Odd(BaseException):
    """Somebody's own."""


class NoText(Exception):
    """Its text cannot be made."""

    def __str__(self) -> str:
        raise ZeroDivisionError


class NoTextAtAll(Exception):
    """Its text ends the program."""

    def __str__(self) -> str:
        raise SystemExit(3)


RAISED: dict[str, Callable[[], BaseException]] = {
    "CancelledError": asyncio.CancelledError,
    "SystemExit": lambda: SystemExit(3),
    "GeneratorExit": GeneratorExit,
    "Odd": Odd,
    "BaseExceptionGroup": lambda: BaseExceptionGroup("several", [SystemExit(3), ValueError("x")]),
    "ValueError": lambda: ValueError("\ud800 and \udfff"),
    "NoText": NoText,
    "NoTextAtAll": NoTextAtAll,
}
IN_A_THREAD = {**RAISED, "KeyboardInterrupt": KeyboardInterrupt}


class Raises(Tally):
    """Raises at position 2, in `apply` or `after_commit`."""

    def __init__(self, stage: str, error: Callable[[], BaseException]) -> None:
        super().__init__()
        self.stage, self.error, self.poisoned = stage, error, 2

    def _raise(self, events: Any) -> None:
        if self.poisoned in [event.position for event in events]:
            raise self.error()

    def apply(self, db: Any, events: Any) -> None:
        super().apply(db, events)
        if self.stage == "apply":
            self._raise(events)

    def after_commit(self, events: Any) -> None:
        if self.stage == "after_commit":
            self._raise(events)
        super().after_commit(events)


class RaisesInMemory(Projection):
    """Raises at position 2."""

    name = "in_memory"

    def __init__(self, error: Callable[[], BaseException]) -> None:
        super().__init__()
        self.error, self.poisoned = error, 2
        self.seen: list[int] = []

    def apply(self, event: Any) -> None:
        if event.position == self.poisoned:
            raise self.error()
        self.seen.append(event.position)


def writable(text: str) -> bool:
    return text.encode().decode() == text


@pytest.mark.parametrize("stage", ["apply", "after_commit"])
@pytest.mark.parametrize("case", IN_A_THREAD)
async def test_a_durable_one_parks_whatever_is_raised(
    log: EventLog, run: RunnerMaker, directory: Path, stage: str, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The error's class and message are on record, the others of the batch are taken in, the next process knows."""
    await fill(log, 1)
    projection, other = Raises(stage, IN_A_THREAD[case]), EntityStates()
    runner = run(log, projection, other, attempts=2)
    await runner.catch_up()
    await fill(log, 3)
    with caplog.at_level(logging.WARNING):
        await runner.catch_up()
    (parked,) = runner.parked("tally")
    assert (parked.position, parked.error_type, parked.stage, parked.attempts) == (2, case, stage, 3)
    assert writable(parked.message)
    assert "projection_event_parked" in caplog.text
    assert [(status.state, status.position) for status in runner.status()] == [("idle", 4)] * 2
    assert projection.effects == [3, 4]
    assert await runner.retry_parked("tally") == 0
    await runner.close()
    again = Raises(stage, IN_A_THREAD[case])
    runner = run(log, again)
    await runner.catch_up()
    assert [(parked.error_type, parked.attempts) for parked in runner.parked("tally")] == [(case, 4)]
    again.poisoned = 0
    assert await runner.retry_parked("tally") == 1
    assert await again.content() == {"Thing:1": 4}


@pytest.mark.parametrize("case", RAISED)
async def test_one_in_memory_parks_whatever_is_raised(log: EventLog, run: RunnerMaker, case: str) -> None:
    """In the event loop as well."""
    await fill(log, 4)
    projection = RaisesInMemory(RAISED[case])
    runner = run(log, projection, attempts=2)
    await runner.catch_up()
    (parked,) = runner.parked("in_memory")
    assert (parked.position, parked.error_type, projection.seen) == (2, case, [1, 3, 4])
    assert writable(parked.message)
    assert await runner.retry_parked("in_memory") == 0
    projection.error = lambda: ValueError("later")
    assert await runner.retry_parked("in_memory") == 0
    assert runner.parked("in_memory")[0].error_type == "ValueError"


@pytest.mark.parametrize("stage", ["apply", "memory"])
@pytest.mark.parametrize("case", RAISED)
async def test_one_that_follows_fails_and_goes_on_later(
    log: EventLog, run: RunnerMaker, stage: str, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Where nothing may be parked: `failed`, with its error and its log line; who waits hears of it; it tries again by itself."""
    projection: Any = RaisesInMemory(RAISED[case]) if stage == "memory" else Raises(stage, RAISED[case])
    states = EntityStates()
    runner = run(log, projection, states, max_parked=0, attempts=1, retry_s=0.01)
    with caplog.at_level(logging.ERROR):
        runner.start()
        await fill(log, 3)
        with pytest.raises(ProjectionFailedError, match=case):
            await runner.wait_for(3, projection.name, timeout_s=60)
    await runner.wait_for(3, "entity_states", timeout_s=60)
    assert runner.status()[0].state == "failed"
    assert case in (runner.status()[0].error or "")
    assert "projection_failed" in caplog.text
    projection.poisoned = 0
    async with asyncio.timeout(60):
        while runner.status()[0].position < 3 or runner.status()[0].error is not None:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("method", ["for_rebuild", "make"])
@pytest.mark.parametrize("case", RAISED)
async def test_what_makes_the_object_of_a_build_may_raise_it_too(log: EventLog, run: RunnerMaker, method: str, case: str) -> None:
    """The rebuild fails, for who asked; the one in place goes on."""

    def raises(*arguments: Any) -> Any:
        raise RAISED[case]()

    await fill(log, 3)
    runner = run(log)
    if method == "make":
        runner.add(EntityStates(), make=raises)
    else:
        runner.add(Tally())
    await runner.catch_up()
    if method != "make":
        runner._feeds["tally"]._projection.for_rebuild = raises  # type: ignore[attr-defined]
    (name,) = [status.name for status in runner.status()]
    with pytest.raises(ProjectionFailedError, match=case):
        await runner.rebuild(name)
    assert [(status.state, status.position) for status in runner.status()] == [("idle", 3)]


@pytest.mark.parametrize("error", [OSError("the directory cannot be made"), asyncio.CancelledError(), SystemExit(3), Odd()])
async def test_what_the_runner_itself_meets_is_told(
    log: EventLog, run: RunnerMaker, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by the projection, but on its way to it: the task goes on, `failed`, and tries again."""
    runner = run(log, EntityStates(), retry_s=0.01)

    async def raises(*arguments: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(runner, "_open", raises)
        runner.start()
        with pytest.raises(ProjectionFailedError, match=type(error).__name__):
            await runner.wait_for(1, timeout_s=60)
        assert runner.status()[0].state == "failed"
    await log.append([new("Thing:1", 1)])
    async with asyncio.timeout(60):
        while (runner.status()[0].position, runner.status()[0].state) != (1, "following"):
            await asyncio.sleep(0.01)


async def test_a_task_that_the_application_cancels(log: EventLog, run: RunnerMaker, caplog: pytest.LogCaptureFixture) -> None:
    """It ends, as who cancels all tasks wants; and says so. `start` makes another one; `stop` says nothing."""
    runner = run(log, EntityStates())
    runner.start()
    waiting = asyncio.ensure_future(runner.wait_for(1, timeout_s=60))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    (task,) = [task for task in asyncio.all_tasks() if task.get_name() == "projection entity_states"]
    with caplog.at_level(logging.ERROR):
        task.cancel()
        with pytest.raises(ProjectionFailedError, match="has cancelled the task"):
            await waiting
    assert task.cancelled()
    assert runner.status()[0].state == "failed"
    assert "projection_failed" in caplog.text
    caplog.clear()
    runner.start()
    await log.append([new("Thing:1", 1)])
    async with asyncio.timeout(60):
        while (runner.status()[0].position, runner.status()[0].state) != (1, "following"):
            await asyncio.sleep(0.01)
    await runner.stop()
    assert (runner.status()[0].state, caplog.text) == ("idle", "")
