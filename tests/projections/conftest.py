"""Logs with events as the tests want them, and a durable projection that anybody can check."""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from symphony_es.events.event import Event, EventMetadata, NewEvent
from symphony_es.log.log import EventLog
from symphony_es.projections import ProjectionRunner, SQLiteProjection


def new(key: str, version: int, name: str = "Changed", value: Any = None, **why: Any) -> NewEvent:
    changes = [(0, (), {"n": value})] if version == 1 else [(0, ("n",), value)]
    return NewEvent(
        entity_key=key, version=version, name=name, changes=changes, metadata=EventMetadata(**why), event_id=os.urandom(16)
    )  # fmt: skip


async def fill(log: EventLog, count: int, key: str = "Thing:1", name: str = "Changed") -> None:
    """Append events of one entity, in one transaction each 500."""
    version = len(await log.read_entity(key))
    while count:
        size = min(count, 500)
        await log.append([new(key, version + index, name, index) for index in range(1, size + 1)])
        version += size
        count -= size


class Tally(SQLiteProjection):
    """Counts the events of every entity, and keeps every position; it fails where it is told to."""

    name = "tally"
    schema = (
        "CREATE TABLE seen (position INTEGER PRIMARY KEY)",
        "CREATE TABLE tally (key TEXT PRIMARY KEY, count INTEGER NOT NULL, last INTEGER NOT NULL)",
    )

    def __init__(self) -> None:
        self.poison: Callable[[Event], bool] = lambda event: False
        self.batches: list[tuple[bool, list[int]]] = []
        self.effects: list[int] = []

    def apply(self, db: sqlite3.Connection, events: Sequence[Event]) -> None:
        self.batches.append((self.rebuilding, [event.position for event in events]))
        for event in events:
            db.execute("INSERT INTO seen VALUES (?)", (event.position,))  # a position that comes twice is an error
            db.execute(
                "INSERT INTO tally VALUES (?, 1, ?) ON CONFLICT (key) DO UPDATE SET count = count + 1, last = excluded.last",
                (event.entity_key, event.position),
            )
            if self.poison(event):
                raise ValueError(f"poison at {event.position}")

    def after_commit(self, events: Sequence[Event]) -> None:
        self.effects.extend(event.position for event in events)

    async def content(self) -> dict[str, int]:
        return {row["key"]: row["count"] for row in await self.read("SELECT key, count FROM tally")}


class NewTally(Tally):
    """The same in its second version."""

    version = 2


async def scratch(log: EventLog) -> dict[str, int]:
    """What a tally has to hold, counted anew."""
    found: Counter[str] = Counter()
    async for events in log.read():
        found.update(event.entity_key for event in events)
    return dict(found)


Opener = Callable[..., Awaitable[EventLog]]
RunnerMaker = Callable[..., ProjectionRunner]


@pytest.fixture
async def open_log(tmp_path: Path) -> AsyncIterator[Opener]:
    """Opens the log in the test's directory; one opened before is closed first."""
    opened: list[EventLog] = []

    async def opener(name: str = "log") -> EventLog:
        while opened:
            await opened.pop().close()
        opened.append(await EventLog.open(tmp_path / name))
        return opened[-1]

    yield opener
    for log in opened:
        await log.close()


@pytest.fixture
async def log(open_log: Opener) -> EventLog:
    return await open_log()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "projections"


@pytest.fixture
async def run(directory: Path) -> AsyncIterator[RunnerMaker]:
    """Makes runners over the test's directory, and closes them at the end."""
    made: list[ProjectionRunner] = []

    def maker(log: EventLog, *projections: Any, in_memory: bool = False, **options: Any) -> ProjectionRunner:
        made.append(ProjectionRunner(log, None if in_memory else directory, **{"delay_s": 0.001, **options}))
        for projection in projections:
            made[-1].add(projection)
        return made[-1]

    yield maker
    for runner in made:
        await runner.close()
