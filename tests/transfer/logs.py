"""Logs to export, copy and damage, made row by row."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from uuid import UUID

from symphony_es.core.past.snapshots.store import SnapshotInfo, SnapshotStore
from symphony_es.events.changes import SET
from symphony_es.events.event import EventMetadata, NewEvent
from symphony_es.events.fold import Fold
from symphony_es.events.rows import Row, commitment, encode_body, event_id_of, seal_state, time_of
from symphony_es.log.log import EventLog
from symphony_es.log.sqlite import SQLiteLogRecorder
from symphony_es.log.sqlite_schema import COLUMNS, SCHEMA

LOG_ID = UUID("0198c0de-0000-7000-8000-000000000001")
START_NS = 1_790_000_000_000_000_000
ENTITIES = 5


def rows_of(count: int, *, group: int = 3) -> list[Row]:
    """Events of five entities in turn, in transactions of `group`: the first of each creates it."""
    rows = []
    for position in range(1, count + 1):
        version = (position - 1) // ENTITIES + 1
        key = f"Task:t{position % ENTITIES}"
        first = (position - 1) // group * group + 1
        event = NewEvent(
            entity_key=key,
            version=version,
            name="TaskCreated" if version == 1 else "TaskChanged",
            changes=[(SET, (), {"n": position})] if version == 1 else [(SET, ("n",), position)],
            metadata=EventMetadata(actor="alice", reason="because", run_id="r1", step="s", attempt=1),
            event_id=position.to_bytes(16, "big"),
            transaction_id=None if position == first else first.to_bytes(16, "big"),
        )
        rows.append(sealed(event, position))
    return rows


def sealed(event: NewEvent, position: int, time_ns: int | None = None) -> Row:
    """The row of an event at a position."""
    body = encode_body(event, position.to_bytes(16, "little"))
    at = START_NS + position * 1000 if time_ns is None else time_ns
    return (
        position,
        event.entity_key,
        event.version,
        event.name,
        seal_state(position, event.entity_key, event.version, event.name, event.event_id, at, body),
    )


def make_log(directory: Path, rows: Sequence[Row]) -> Path:
    """A state directory whose log has these rows."""
    directory.mkdir(mode=0o700, parents=True)
    recorder = SQLiteLogRecorder(directory / "events.db", log_id=LOG_ID)
    for start in range(0, len(rows), 5000):
        recorder.append_rows(rows[start : start + 5000])
    recorder.close()
    return directory


def stored(directory: Path) -> list[Row]:
    """Every row of a log, as it stands."""
    with closing(sqlite3.connect(f"file:{directory / 'events.db'}?mode=ro", uri=True)) as database:
        return database.execute(f"SELECT {COLUMNS} FROM stored_events ORDER BY position").fetchall()


def tamper(directory: Path, *statements: tuple[str, Sequence[object]]) -> None:
    """What somebody with the file at hand does: drop the triggers, alter rows, make the triggers again."""
    with closing(sqlite3.connect(directory / "events.db", isolation_level=None)) as database:
        for name in ("stored_events_no_update", "stored_events_no_delete"):
            database.execute(f"DROP TRIGGER {name}")
        for sql, parameters in statements:
            database.execute(sql, parameters)
        for statement in SCHEMA:
            if "TRIGGER" in statement:
                database.execute(statement)


async def snapshot_at(directory: Path, rows: Sequence[Row], position: int) -> SnapshotInfo:
    """Write the snapshot that belongs to these rows."""
    fold = Fold()
    fold.apply_rows(rows[:position])
    state = rows[position - 1][4]
    states = [fold.states[key] for key in sorted(fold.states)]
    return await SnapshotStore(directory / "snapshots").write(position, (event_id_of(state), commitment(state), time_of(state)), states)


async def write_for_ever(directory: Path) -> None:
    """Append transactions of three as fast as they become durable, a hundred at a time; each acknowledged position is printed."""
    log = await EventLog.open(directory)
    versions = dict.fromkeys(range(50), 0)

    async def go_on(number: int) -> None:
        while True:
            events: list[NewEvent] = []
            for _ in range(3):
                versions[number] += 1
                version = versions[number]
                change = (SET, (), {"n": 0, "pad": "x" * 200}) if version == 1 else (SET, ("n",), version)
                events.append(
                    NewEvent(
                        entity_key=f"Task:t{number}",
                        version=version,
                        name="TaskChanged",
                        changes=[change],
                        metadata=EventMetadata(),
                        event_id=os.urandom(16),
                        transaction_id=events[0].event_id if events else None,
                    )
                )
            appended = await log.append(events)
            os.write(1, b"A %d\n" % appended.last)

    await asyncio.gather(*(go_on(number) for number in versions))


if __name__ == "__main__":
    asyncio.run(write_for_ever(Path(sys.argv[1])))
