"""A build that has parked what the content in place has taken in does not replace it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from symphony_es.errors import ProjectionFailedError
from symphony_es.events.event import Event
from symphony_es.log.log import EventLog
from symphony_es.projections import Projection, SQLiteProjection, open_current
from tests.projections.conftest import NewTally, RunnerMaker, Tally, fill, scratch

WHOLE = "SELECT coalesce(sum(count), 0) FROM tally"


class Wider(Tally):
    """Another schema, of which its apply knows nothing."""

    schema = ("CREATE TABLE tally (key TEXT PRIMARY KEY, count INTEGER NOT NULL, last INTEGER NOT NULL, more TEXT)",)


class Positions(Projection):
    """In memory; its objects fail where the class is told to."""

    name = "positions"
    poison: Callable[[Event], bool] = staticmethod(lambda event: False)

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def apply(self, event: Event) -> None:
        if type(self).poison(event):
            raise ValueError("poison")
        self.seen.append(event.position)


def raising(error: type[BaseException], at: Callable[[int], bool]) -> Callable[[Event], bool]:
    def poison(event: Event) -> bool:
        if at(event.position):
            raise error("poison")
        return False

    return poison


def served(directory: Path) -> int:
    """How many events the content has that other processes read."""
    with open_current(directory, "tally") as reader:
        return int(reader.read_now(WHOLE)[0][0])


async def built(log: EventLog, run: RunnerMaker, *, poison: Callable[[Event], bool] | None = None) -> None:
    """Content of the first version, with 30 positions; its runner is closed."""
    await fill(log, 30)
    tally = Tally()
    tally.poison = poison or tally.poison
    runner = run(log, tally)
    await runner.catch_up()
    await runner.close()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, asyncio.CancelledError, StopIteration])
@pytest.mark.parametrize("at", [lambda position: True, lambda position: position == 1, lambda position: position in (17, 30)])
async def test_another_version_that_fails(
    log: EventLog, run: RunnerMaker, directory: Path, error: type[BaseException], at: Callable[[int], bool]
) -> None:
    """Readers keep what they have, whatever is raised; the corrected one goes on by itself after a restart."""
    await built(log, run)
    first = next(position for position in range(1, 31) if at(position))
    wrong = NewTally()
    wrong.poison = raising(error, at)
    runner = run(log, wrong, batch=10)
    said = rf"'Changed' of 'Thing:1' at position {first} \({error.__name__}.*accept_parked=True"
    for _ in range(2):
        with pytest.raises(ProjectionFailedError, match=said):
            await runner.catch_up()
    assert (runner.status()[0].state, served(directory)) == ("failed", 30)
    with pytest.raises(ProjectionFailedError, match=f"position {first} "):
        await runner.rebuild("tally")
    assert sum((await wrong.content()).values()) == 30
    await runner.close()
    right = NewTally()
    runner = run(log, right)
    await runner.catch_up()
    assert await right.content() == await scratch(log)
    assert (runner.status()[0].state, runner.parked("tally")) == ("idle", [])


async def test_another_schema_that_apply_does_not_know(log: EventLog, run: RunnerMaker, directory: Path) -> None:
    """Each event fails, which a log of few events would hide; a runner that follows says so as well."""
    await built(log, run)
    runner = run(log, Wider())
    runner.start()
    with pytest.raises(ProjectionFailedError, match=r"at position 1 \(OperationalError"):
        await runner.wait_for(log.head, timeout_s=30)
    assert served(directory) == 30
    await runner.rebuild("tally", accept_parked=True)
    assert (served(directory), len(runner.parked("tally"))) == (0, 30)


@pytest.mark.parametrize("in_memory", [False, True])
async def test_a_rebuild_that_parks_more(log: EventLog, run: RunnerMaker, *, in_memory: bool) -> None:
    """It is refused, and the one in place goes on; what that one has parked too is no hindrance."""
    await fill(log, 30)
    tally = Tally()
    tally.poison = lambda event: event.position == 7
    runner = run(log, tally, in_memory=in_memory)
    await runner.catch_up()
    await runner.rebuild("tally")
    tally.poison = lambda event: event.position in (7, 20)
    with pytest.raises(ProjectionFailedError, match="position 20 "):
        await runner.rebuild("tally")
    assert (runner.status()[0].state, [one.position for one in runner.parked("tally")]) == ("idle", [7])
    assert await tally.content() == {"Thing:1": 29}
    await runner.rebuild("tally", accept_parked=True)
    assert ([one.position for one in runner.parked("tally")], await tally.content()) == ([7, 20], {"Thing:1": 28})


async def test_a_rebuild_in_memory_that_parks_more(log: EventLog, run: RunnerMaker) -> None:
    """The object that readers hold stays as it is."""
    await fill(log, 30)
    kind = type("PositionsToLose", (Positions,), {})
    projection = kind()
    runner = run(log, projection)
    await runner.catch_up()
    kind.poison = staticmethod(lambda event: event.position > 28)
    with pytest.raises(ProjectionFailedError, match="position 29 "):
        await runner.rebuild("positions")
    assert (len(projection.seen), runner.parked("positions")) == (30, [])
    await runner.rebuild("positions", accept_parked=True)
    assert (len(projection.seen), len(runner.parked("positions"))) == (28, 2)


@pytest.mark.parametrize("case", ["no content", "parked by both", "not come to"])
async def test_what_holds_up_no_build(log: EventLog, run: RunnerMaker, case: str) -> None:
    """A first build, what the content in place has parked itself, and events after it."""
    poison: dict[str, Callable[[Event], bool]] = {
        "no content": lambda event: True,
        "parked by both": lambda event: event.position == 9,
        "not come to": lambda event: event.position == 31,
    }
    if case == "no content":
        await fill(log, 30)
    else:
        await built(log, run, poison=poison[case])
    await fill(log, 1)
    tally = NewTally()
    tally.poison = poison[case]
    runner = run(log, tally)
    await runner.catch_up()
    assert runner.status()[0].state == "idle"
    assert len(runner.parked("tally")) == (31 if case == "no content" else 1)


async def test_a_build_that_was_killed_with_events_lost(log: EventLog, run: RunnerMaker, monkeypatch: Any) -> None:
    """What it left is not gone on with: the corrected one begins anew, without a failure."""
    await built(log, run)
    wrong = NewTally()
    wrong.poison = lambda event: event.position == 3
    runner = run(log, wrong, batch=10)
    monkeypatch.setattr("symphony_es_projections.durable_feed.DurableFeed._drop", lambda self, build: build.database.close())
    with pytest.raises(ProjectionFailedError):
        await runner.catch_up()
    await runner.close()
    monkeypatch.undo()
    right: SQLiteProjection = NewTally()
    await run(log, right).catch_up()
    assert [row["count"] for row in await right.read("SELECT count FROM tally")] == [30]
