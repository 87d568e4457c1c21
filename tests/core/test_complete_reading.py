"""Every reading knows whether it has read all: a missing or moved row is an error of each that covers it, never a shorter history."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from symphony_es.core.past.audit import Audit
from symphony_es.core.past.rewinding import plan_rewind
from symphony_es.core.past.snapshots.snapshotter import Snapshotter
from symphony_es.core.past.snapshots.store import SnapshotStore
from symphony_es.core.past.states import StateHistory
from symphony_es.errors import DamagedEventError, LogDamagedError, PositionInsideTransactionError, ProjectionFailedError, SymphonyError
from symphony_es.events.event import EventMetadata, NewEvent
from symphony_es.events.fold import Fold
from symphony_es.log.log import EventLog
from symphony_es.log.sqlite_schema import SCHEMA
from symphony_es.transfer.jsonl import export_jsonl
from symphony_es.transfer.verification import verify_log
from symphony_es_projections import Projection, ProjectionRunner

EVENTS = 90
ENTITIES = 7
NAMES = ("Made", "Moved", "Said")


def event(number: int) -> NewEvent:
    version = (number - 1) // ENTITIES + 1
    return NewEvent(
        entity_key=f"E:{number % ENTITIES}",
        version=version,
        name=NAMES[number % 3],
        changes=[(0, (), {"n": number})] if version == 1 else [(0, ("n",), number)],
        metadata=EventMetadata(),
        event_id=number.to_bytes(16, "big"),
    )


async def make(directory: Path) -> None:
    log = await EventLog.open(directory)
    for number in range(1, EVENTS + 1):
        await log.append([event(number)])
    await log.close()


def altered(path: Path, *statements: str) -> None:
    """Change rows in a way that SQLite itself cannot notice: table and index agree."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        triggers = [statement for statement in SCHEMA if "TRIGGER" in statement]
        for trigger in triggers:
            database.execute(f"DROP TRIGGER {trigger.split()[2]}")
        for statement in (*statements, *triggers):
            database.execute(statement)


def lost(*positions: int) -> tuple[str, ...]:
    return (f"DELETE FROM stored_events WHERE position IN ({', '.join(map(str, positions))})",)


def moved(position: int, to: int) -> tuple[str, ...]:
    return (f"UPDATE stored_events SET position = {to} WHERE position = {position}",)


def number_place(content: bytes, position: int) -> int:
    """Where the row number of an event stands in the file: after the size of its cell, in a page of the table."""
    size = int.from_bytes(content[16:18], "big")
    for page in range(size, len(content), size):
        cells = int.from_bytes(content[page + 3 : page + 5], "big") if content[page] == 0x0D else 0
        for cell in range(cells):
            at = page + int.from_bytes(content[page + 8 + 2 * cell : page + 10 + 2 * cell], "big")
            at += 2 if content[at] & 0x80 else 1
            if content[at] == position and b"E:" in content[at : at + 12]:
                return at
    raise AssertionError(f"no row {position}")


def flip(path: Path, position: int, bit: int) -> None:
    """Flip a bit of a row number as the disk would: a query that comes upon it ends there, as if the table did."""
    content = bytearray(path.read_bytes())
    content[number_place(content, position)] ^= bit
    path.write_bytes(content)


FLIPS = {"bit of a number": (40, 0x40), "bit of the last number": (EVENTS, 0x20), "bit of a low number": (2, 0x40)}
DAMAGES = {
    "first": lost(1),
    "one": lost(40),
    "some": lost(*range(38, 60)),
    "all but two": lost(*range(2, EVENTS)),
    "far away": moved(40, 2**40),
    "to the end": (*moved(40, EVENTS + 1), *moved(EVENTS + 1, EVENTS + 5)),
    "renamed": ("UPDATE stored_events SET topic = 'Sold' WHERE position = 40",),
    "another entity's": ("UPDATE stored_events SET originator_id = 'E:x' WHERE position = 40",),
}
"""All of them leave the rows up to position 1, or before 38, as they were."""


class Counted(Projection):
    """Counts what it is told, of one name or all."""

    name = "counted"
    event_names: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def apply(self, event: Any) -> None:
        self.count += 1


class CountedByName(Counted):
    name = "counted_by_name"
    event_names = ("Said",)


async def all_rows(log: EventLog, page: int) -> None:
    async for _ in log.pages(0, log.head, page):
        pass


async def events(log: EventLog, *names: str, page: int = 1000) -> None:
    async for _ in log.read(names=names, page=page):
        pass


async def followed(log: EventLog) -> None:
    async with asyncio.timeout(60):
        async for _ in log.follow(poll_s=0.01):
            pass


async def caught_up(log: EventLog, projection: Projection) -> None:
    runner = ProjectionRunner(log, None)
    runner.add(projection)
    try:
        await runner.catch_up()
    finally:
        await runner.close()


async def snapshot(log: EventLog, directory: Path) -> None:
    store = await SnapshotStore(directory / "snapshots").open()
    try:
        await Snapshotter(log, store, StateHistory(log, store)).take(EVENTS)
    finally:
        assert not store.list(), "no snapshot is made of a reading that ended before its end"


READINGS: dict[str, Callable[[EventLog, Path], Awaitable[Any]]] = {
    "rows": lambda log, _: all_rows(log, 1000),
    "rows by small pages": lambda log, _: all_rows(log, 7),
    "one page": lambda log, _: log.read_rows(0, EVENTS, 1000),
    "one page without an end": lambda log, _: log.read_rows(),
    "events": lambda log, _: events(log),
    "events by small pages": lambda log, _: events(log, page=3),
    "events of a name": lambda log, _: events(log, "Said"),
    "rows of a name": lambda log, _: log.read_rows(names=("Nothing",)),
    "replay": lambda log, _: log.replay(Fold(), EVENTS),
    "states": lambda log, _: StateHistory(log, None).states_at(EVENTS),
    "changed keys": lambda log, _: StateHistory(log, None).changed_keys(0, EVENTS),
    "count": lambda log, _: StateHistory(log, None).count_entities(EVENTS),
    "rewind": lambda log, _: plan_rewind(log, Fold(), None),
    "audit": lambda log, _: Audit(log, no_trail).find(limit=1000),
    "audit of a name": lambda log, _: Audit(log, no_trail).find(event="Said", limit=1000),
    "audit, newest first": lambda log, _: Audit(log, no_trail).find(actor="nobody", newest_first=True),
    "follow": lambda log, _: followed(log),
    "projection": lambda log, _: caught_up(log, Counted()),
    "projection of a name": lambda log, _: caught_up(log, CountedByName()),
    "snapshot": snapshot,
    "export": lambda log, directory: export_jsonl(log, directory / "export.jsonl"),
}


async def no_trail() -> None:
    return None


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "log"
    asyncio.run(make(path))
    return path


@pytest.fixture
def directory(tmp_path: Path, made: Path) -> Path:
    return shutil.copytree(made, tmp_path / "log")


@pytest.mark.parametrize("damage", [*DAMAGES, *FLIPS])
@pytest.mark.parametrize("reading", READINGS)
async def test_no_reading_ends_early_in_silence(directory: Path, damage: str, reading: str) -> None:
    """A row that is missing, has another number, name or entity is an error of every reading that covers its position."""
    if damage in FLIPS:
        flip(directory / "events.db", *FLIPS[damage])
    with pytest.raises((DamagedEventError, ProjectionFailedError, LogDamagedError)) as caught:
        log = await EventLog.open_read_only(directory)
        try:
            if damage in DAMAGES:  # after the head has been seen
                altered(directory / "events.db", *DAMAGES[damage])
            await READINGS[reading](log, directory)
        finally:
            await log.close()
    # A number that does not fit the index is found when the log is opened, before any reading.
    assert "position" in str(caught.value) or (damage in FLIPS and isinstance(caught.value, LogDamagedError))


@pytest.mark.parametrize("damage", ["one", "some", "renamed"])
async def test_nobody_but_readers_of_the_damage_sees_it(directory: Path, damage: str) -> None:
    """A reading that ends before the damage is as if there was none."""
    altered(directory / "events.db", *DAMAGES[damage])
    log = await EventLog.open_read_only(directory)
    try:
        fold = Fold()
        await log.replay(fold, 37)
        assert fold.states.keys() == {f"E:{number}" for number in range(ENTITIES)}
        assert sum(len(rows) for rows in [rows async for rows in log.pages(0, 37, 5)]) == 37
        assert await StateHistory(log, None).count_entities(37) == ENTITIES
    finally:
        await log.close()


@pytest.mark.parametrize("damage", ["one", "some", "all but two", "renamed"])
async def test_verify_names_what_is_missing(directory: Path, damage: str) -> None:
    """What a reading refuses, `verify` lists."""
    altered(directory / "events.db", *DAMAGES[damage])
    log = await EventLog.open_read_only(directory)
    try:
        report = await verify_log(log, None)
        assert not report.ok
        assert report.problems[0].position in (2, 38, 40)
    finally:
        await log.close()


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("statements", [lost(EVENTS), lost(*range(50, EVENTS + 1)), moved(EVENTS, EVENTS + 9), lost(*range(1, EVENTS + 1))])
async def test_a_log_without_its_last_rows_is_not_opened(directory: Path, read_only: bool, statements: tuple[str, ...]) -> None:
    """The head is compared with the positions that were given out."""
    altered(directory / "events.db", *statements)
    with pytest.raises(LogDamagedError, match="given out position"):
        await (EventLog.open_read_only(directory) if read_only else EventLog.open(directory))


async def test_a_reading_beside_a_writer_is_complete(directory: Path) -> None:
    """What is appended between two questions is neither missed nor taken for a gap: pages end where they were told to."""
    writer = await EventLog.open(directory)
    reader = await EventLog.open_read_only(directory)
    try:
        for number in range(EVENTS + 1, EVENTS + 40):
            await writer.append([event(number)])
            rows = await reader.read_rows(0, number + 5, 1000)
            assert [row[0] for row in rows] == list(range(1, number + 1))
            rows = await reader.read_rows(number - 1)
            assert [row[0] for row in rows] == [number]
    finally:
        await reader.close()
        await writer.close()


async def test_a_page_that_was_doubled_is_no_history(tmp_path: Path) -> None:
    """A page of the table in the place of another one: rows that check, in the wrong place."""
    directory = tmp_path / "log"
    await make(directory)
    path = directory / "events.db"
    whole = path.read_bytes()
    size = int.from_bytes(whole[16:18], "big")
    pages = [
        page for page in range(1, len(whole) // size) if whole[page * size] == 0x0D and b"E:" in whole[page * size : (page + 1) * size]
    ]
    assert len(pages) > 1
    for one, other in (*pairwise(pages), *((b, a) for a, b in pairwise(pages))):
        content = bytearray(whole)
        content[other * size : (other + 1) * size] = whole[one * size : (one + 1) * size]
        path.write_bytes(content)
        with pytest.raises(SymphonyError):
            log = await EventLog.open_read_only(directory)
            try:
                await all_rows(log, 10)
            finally:
                await log.close()


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize(("sizes", "inside"), [([1], ()), ([3, 1, 5], (1, 2, 5, 8)), ([700, 2, 64], (1, 350, 699, 701, 703, 735, 765))])
async def test_bounds_of_a_transaction(tmp_path: Path, in_memory: bool, sizes: list[int], inside: tuple[int, ...]) -> None:
    """Each position names first and last of its own transaction, found by a few looks, however long it is."""
    log = EventLog.in_memory() if in_memory else await EventLog.open(tmp_path / "log")
    try:
        bounds: dict[int, tuple[int, int]] = {}
        number = 0
        for size in sizes:
            first = os.urandom(16)
            made = [event(number + index + 1) for index in range(size)]
            made[0].event_id = first
            for later in made[1:]:
                later.transaction_id = first
            await log.append(made)
            bounds.update(dict.fromkeys(range(number + 1, number + size + 1), (number + 1, number + size)))
            number += size
        looks: list[int] = []
        real = log.row_at

        async def counted(position: int) -> Any:
            looks.append(position)
            return await real(position)

        log.row_at = counted  # type: ignore[method-assign]
        for position in bounds if number < 20 else (1, 2, 350, 699, 700, 701, 702, 703, 766):
            looks.clear()
            assert await log.transaction_bounds(position) == bounds[position]
            assert len(looks) <= 60
        for position in inside:
            fold = Fold(position=position)
            with pytest.raises((PositionInsideTransactionError, DamagedEventError)) as caught:
                await plan_rewind(log, fold, None)
            if isinstance(caught.value, PositionInsideTransactionError):
                assert str(bounds[position][0] - 1) in str(caught.value)
    finally:
        await log.close()
