"""For every k of random histories: `at(k)` by snapshot, from scratch, from a durable projection, and from an export imported elsewhere."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from symphony_es import Symphony
from symphony_es.core.past.opening import open_to_read
from symphony_es.core.past.snapshots import snapshotter
from symphony_es.core.past.states import StateHistory
from symphony_es.events.codec import decode_value, encode_canonical
from symphony_es.events.event import Event
from symphony_es.events.fold import EntityState, Fold
from symphony_es.log.log import EventLog
from symphony_es.transfer import export_jsonl, import_jsonl
from symphony_es_projections import ProjectionRunner, SQLiteProjection
from tests.core.test_every_way import Application, step


class StatesInSQLite(SQLiteProjection):
    """Every state after every event, in the canonical encoding: what a durable projection has seen."""

    name = "states_in_sqlite"
    schema = ("CREATE TABLE states (entity TEXT, position INTEGER, state BLOB, PRIMARY KEY (entity, position))",)

    def apply(self, db: sqlite3.Connection, events: Sequence[Event]) -> None:
        """Keep the state that each event leads to; what was before it is read from the table."""
        for event in events:
            found = db.execute("SELECT state FROM states WHERE entity = ? ORDER BY position DESC LIMIT 1", (event.entity_key,)).fetchone()
            fold = Fold(position=event.position - 1)
            if event.version > 1:
                data = decode_value(found[0]) if found[0] is not None else None
                fold.states[event.entity_key] = EntityState(event.entity_key, data, event.version - 1, event.position - 1)
            fold.apply_event(event)
            data = fold.states[event.entity_key].data
            encoded = None if data is None else encode_canonical(data)
            db.execute("INSERT INTO states VALUES (?, ?, ?)", (event.entity_key, event.position, encoded))


def encoded(fold: Fold) -> dict[str, bytes]:
    """The states of all that is alive, the system's own included; snapshots keep nothing of what is deleted."""
    return {key: encode_canonical(state.data) for key, state in fold.states.items() if state.data is not None}


async def from_projection(projection: StatesInSQLite, position: int) -> dict[str, bytes]:
    """What the projection has of a position."""
    rows = await projection.read(
        "SELECT entity, state FROM states AS s "
        "WHERE position = (SELECT max(position) FROM states WHERE entity = s.entity AND position <= ?)",
        (position,),
    )
    return {entity: state for entity, state in rows if state is not None}


async def check(history: list[Any], directory: Path) -> None:
    """Plays a history, and compares every position."""
    async with Symphony({"state_dir": directory / "state"}, persistence_enabled=True) as symphony:
        application = Application(symphony)
        for one in history:
            await application.do(*one)
        await symphony.flush()
        head = symphony.log.head
        projection = StatesInSQLite()
        async with ProjectionRunner(symphony.log, directory / "projections", batch=3) as runner:
            runner.add(projection)
            await runner.catch_up()
            await export_jsonl(symphony.log, directory / "events.jsonl")
            await import_jsonl(directory / "events.jsonl", directory / "imported")
            imported = await open_to_read(directory / "imported")
            scratch = StateHistory(symphony.log, None)
            try:
                await same_rows(symphony.log, imported.log)
                for position in range(head + 1):
                    expected = encoded(await scratch.states_at(position))
                    assert encoded(await symphony.state_history.states_at(position)) == expected
                    assert await from_projection(projection, position) == expected
                    assert encoded(await imported.history.states_at(position)) == expected
            finally:
                await imported.close()


async def same_rows(one: EventLog, other: EventLog) -> None:
    """Positions, ids and bytes are the same."""
    assert other.head == one.head
    assert await one.read_rows(limit=10**6) == await other.read_rows(limit=10**6)


@given(history=st.lists(step, max_size=14))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
def test_every_position_is_the_same_by_every_way(history: list[Any]) -> None:
    """By the nearest snapshot (they are written at every checkpoint here), from the first event, from SQLite, and from another machine."""
    before = snapshotter.FLOOR_BYTES
    snapshotter.FLOOR_BYTES = 0
    try:
        with tempfile.TemporaryDirectory() as scratch:
            asyncio.run(check(history, Path(scratch)))
    finally:
        snapshotter.FLOOR_BYTES = before
