"""Projections beside each other: a slow one holds up itself alone, waits end, and what is the runner's is left to it."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.errors import ConfigurationError
from symphony_es.log.log import EventLog
from symphony_es.projections import AuditTrail, EntityStates, SQLiteProjection
from tests.application import Customer
from tests.projections.conftest import RunnerMaker, Tally, fill


class Held(Tally):
    """Stands still in `apply` or `after_commit` until it is let go."""

    let_go: threading.Event
    where = "apply"

    def __init__(self, number: int, let_go: threading.Event) -> None:
        super().__init__()
        self.name = f"held{number}"
        self.let_go = let_go
        self.begun = threading.Event()

    def _hold(self) -> None:
        self.begun.set()
        assert self.let_go.wait(60)

    def apply(self, db: sqlite3.Connection, events: Any) -> None:
        if self.where == "apply":
            self._hold()
        super().apply(db, events)

    def after_commit(self, events: Any) -> None:
        if self.where == "after_commit":
            self._hold()


class HeldAfter(Held):
    """The same after the commit."""

    where = "after_commit"


async def begun(projections: list[Any]) -> None:
    for projection in projections:
        assert await asyncio.to_thread(projection.begun.wait, 60)


@pytest.mark.parametrize("kind", [Held, HeldAfter])
@pytest.mark.parametrize("count", [1, 4, 12])
async def test_slow_ones_hold_up_no_other(log: EventLog, run: RunnerMaker, kind: Any, count: int) -> None:
    """However many there are: others, durable and in memory, take events in, answer, are built and are added."""
    let_go = threading.Event()
    slow = [kind(number, let_go) for number in range(count)]
    tally, states, late = Tally(), EntityStates(), AuditTrail()
    await fill(log, 1)
    runner = run(log, tally, states)
    await runner.catch_up()
    let_go.set()
    for projection in slow:
        runner.add(projection)
    await runner.catch_up()
    let_go.clear()
    for projection in slow:
        projection.begun.clear()
    runner.start()
    try:
        await fill(log, 2)
        await begun(slow)
        await runner.wait_for(3, "tally")
        await runner.wait_for(3, "entity_states")
        assert await tally.content() == {"Thing:1": 3}
        await runner.rebuild("tally")
        runner.add(late)
        await runner.wait_for(3, "audit")
        assert await AuditTrail.find(late) == [1, 2, 3]
    finally:
        let_go.set()
    await runner.wait_for(3)


async def test_questions_are_answered_beside_slow_projections(symphony: Symphony) -> None:
    """Those of the audit as well."""
    let_go = threading.Event()
    slow = [Held(number, let_go) for number in range(5)]
    with symphony.acting_as("ann"):
        symphony.entities.add(Customer(id="1"))
        await symphony.flush()
    for projection in slow:
        symphony.projections.add(projection)
    symphony.projections.start()
    try:
        await begun(slow)
        assert len(await symphony.audit.find(actor="ann")) == 1
    finally:
        let_go.set()


async def test_who_waits_hears_at_once_that_the_runner_is_closed(log: EventLog, run: RunnerMaker) -> None:
    """Also while another projection is slow to end."""
    let_go = threading.Event()
    held = Held(1, let_go)
    await fill(log, 1)
    runner = run(log, held, EntityStates())
    following = asyncio.ensure_future(runner.catch_up())
    await begun([held])
    waiting = asyncio.ensure_future(runner.wait_for(9, "entity_states"))
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(runner.close())
    await asyncio.wait([waiting], timeout=60)
    assert waiting.done()
    assert "closed" in str(waiting.exception())
    assert not closing.done()
    let_go.set()
    await asyncio.gather(following, closing, return_exceptions=True)


async def test_a_wait_ends(log: EventLog, run: RunnerMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a minute where nobody says otherwise; the error tells where the projection is, and what to do."""
    await fill(log, 3)
    runner = run(log, Tally(), EntityStates())
    await runner.catch_up("entity_states")
    with pytest.raises(TimeoutError, match=r"position 3 .* after 0.01 s: tally is at 0 \(idle\); start\(\) the runner"):
        await runner.wait_for(3, timeout_s=0.01)
    limits: list[float | None] = []
    timeout = asyncio.timeout

    def noted(delay: float | None) -> Any:
        limits.append(delay)
        return timeout(0)

    monkeypatch.setattr(asyncio, "timeout", noted)
    with pytest.raises(TimeoutError):
        await runner.wait_for(3)
    assert limits == [60]


@pytest.mark.parametrize("timeout_s", [-1, float("nan"), "1", True, [1]])
async def test_a_limit_is_a_number_of_seconds(log: EventLog, run: RunnerMaker, timeout_s: Any) -> None:
    """Anything else is refused before anybody waits."""
    with pytest.raises(ConfigurationError, match="a number of seconds"):
        await run(log, EntityStates()).wait_for(0, timeout_s=timeout_s)


@pytest.mark.parametrize("position", ["1", 1.0, None, True])
async def test_a_position_is_a_whole_number(log: EventLog, run: RunnerMaker, position: Any) -> None:
    """Anything else is refused before anybody waits."""
    with pytest.raises(ConfigurationError, match="a whole number"):
        await run(log, EntityStates()).wait_for(position)


REFUSED = [
    "ROLLBACK TO projection_event",
    "ROLLBACK TO SAVEPOINT Projection_Event",
    'ROLLBACK TRANSACTION TO "projection_event"',
    "RELEASE projection_event",
    "RELEASE SAVEPOINT [PROJECTION_EVENT]",
    "SAVEPOINT projection_event",
    "UPDATE projection_progress SET position = 0",
    "INSERT INTO projection_progress SELECT 'x', version, 0, event_id, 0, '', 0, 0, x'', x'' FROM projection_progress",
    "DELETE FROM projection_progress",
    "DELETE FROM projection_parked",
    "DROP TABLE projection_progress",
    "DROP TABLE projection_parked",
    "ALTER TABLE projection_progress ADD COLUMN other",
    "COMMIT",
    "ROLLBACK",
]


@pytest.mark.parametrize("one_by_one", [False, True])
@pytest.mark.parametrize("statement", REFUSED)
async def test_what_is_the_runners_is_refused(log: EventLog, run: RunnerMaker, statement: str, one_by_one: bool) -> None:
    """Its savepoint and its tables, as COMMIT is; in a batch and event by event; the rows stay."""
    refused: list[str] = []

    class Tries(Tally):
        def apply(self, db: sqlite3.Connection, events: Any) -> None:
            super().apply(db, events)
            if one_by_one and len(events) > 1:
                raise ValueError("one by one")
            try:
                db.execute(statement)
            except sqlite3.DatabaseError as error:
                refused.append(str(error))

    await fill(log, 3)
    tries = Tries()
    runner = run(log, tries, attempts=1)
    await runner.catch_up()
    assert refused == ["not authorized"] * (3 if one_by_one else 1)
    assert (await tries.content(), runner.status()[0].position, runner.parked("tally")) == ({"Thing:1": 3}, 3, [])


async def test_savepoints_of_ones_own_are_allowed(log: EventLog, run: RunnerMaker) -> None:
    """Under other names; what is taken back to one is gone, the rest stays."""

    class Own(SQLiteProjection):
        name = "own"
        schema = ("CREATE TABLE seen (position INTEGER)",)

        def apply(self, db: sqlite3.Connection, events: Any) -> None:
            for event in events:
                db.execute("SAVEPOINT mine")
                db.execute("INSERT INTO seen VALUES (?)", (event.position,))
                if event.position == 2:
                    db.execute("ROLLBACK TO mine")
                db.execute("RELEASE mine")

    await fill(log, 3)
    own = Own()
    await run(log, own).catch_up()
    assert [row[0] for row in await own.read("SELECT position FROM seen")] == [1, 3]


async def test_leaving_the_projections_ends_no_question(tmp_path: Path) -> None:
    """`async with symphony.projections` closes what was added; the audit answers, and the next use has a runner."""
    async with Symphony({"state_dir": str(tmp_path / "state")}, persistence_enabled=True) as symphony:
        with symphony.acting_as("ann"):
            symphony.entities.add(Customer(id="1"))
            await symphony.flush()
        for _ in range(2):
            states = EntityStates()
            async with symphony.projections as runner:
                runner.add(states)
                await runner.catch_up()
            assert states.get("Customer:1") is not None
            assert len(await symphony.audit.find(actor="ann")) == 1
            assert len(await symphony.audit.consequences(1)) == 0
        assert not symphony.projections.closed
