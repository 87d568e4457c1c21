"""Appending: one writer that awaits each append, and 256 at once.

Two floors stand beside 256 writers. The raw loop commits the batches that ours had formed, each by one `executemany` behind a hop to a
thread: what the disk and SQLite cost. The raw loop with waiters has 256 tasks each of which awaits a future per append, as callers do:
what asyncio costs on top, whoever does it. The goal is held against the first.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from benchmarks.floors import INSERT, StoredRow, commit_rows, commits_of, fdatasync_rate, hop_rate, raw_log, rows_of, settings_of
from benchmarks.measuring import Contender, Goal, Place, Row, Sample
from benchmarks.workload import Item, event, opened
from symphony_es.events.event import NewEvent
from symphony_es.log.log import EventLog

__all__ = ["ROWS"]

HERE = "benchmarks.rows.appending"
PEER = "benchmarks.peers.eventsourcing_library"
DATABASE = "events.db"
OURS = {"journal_mode": "wal", "synchronous": "FULL", "read back by": "the library when it opens the log"}


async def _append_one_by_one(log: EventLog, count: int) -> float:
    events = [event("Item:1", version) for version in range(1, count + 1)]
    started = time.perf_counter()
    for one in events:
        await log.append([one])
    return count / (time.perf_counter() - started)


async def prepare_one(place: Place) -> None:
    """The rows that the floors insert: as the library writes them."""
    log = await EventLog.open(place.shared / "log")
    await _append_one_by_one(log, place.sizes["appends"])
    await log.close()


async def one_ours(place: Place) -> Sample:
    """Appends a second, each awaited."""
    log = await EventLog.open(place.own / "log")
    rate = await _append_one_by_one(log, place.sizes["appends"])
    await log.close()
    return Sample(figures={"appends_per_s": rate}, settings=OURS)


async def one_entity(place: Place) -> Sample:
    """The same one level up: an attribute is assigned and flushed."""
    async with opened(place.own / "state") as symphony:
        item, count = symphony.entities.add(Item(id="1")), place.sizes["appends"]
        await symphony.flush()
        started = time.perf_counter()
        for number in range(count):
            item.number = number
            await symphony.flush()
        return Sample(figures={"appends_per_s": count / (time.perf_counter() - started)}, settings=OURS)


async def one_floor(place: Place) -> Sample:
    """Raw single-row commits behind the same hop to a thread; beside it the synchronous rate, that of fdatasync and of the hop alone."""
    rows = rows_of(place.shared / "log" / DATABASE)
    behind_hop, settings = await rate_behind_hop(place.own / DATABASE, rows)
    figures = {
        "appends_per_s": behind_hop,
        "synchronous_per_s": synchronous_rate(place.own / "synchronous.db", rows),
        "fdatasync_per_s": fdatasync_rate(place.own, len(rows)),
        "hops_per_s": await hop_rate(len(rows)),
    }
    return Sample(figures=figures, settings=settings)


async def rate_behind_hop(path: Path, rows: list[StoredRow]) -> tuple[float, dict[str, Any]]:
    """Single-row commits a second, each behind a hop from asyncio to a thread; and the settings of the database."""
    database = raw_log(path)
    started = time.perf_counter()
    for row in rows:
        await asyncio.to_thread(database.execute, INSERT, row)
    rate, settings = len(rows) / (time.perf_counter() - started), settings_of(database)
    database.close()
    return rate, settings


def synchronous_rate(path: Path, rows: list[StoredRow]) -> float:
    """Single-row commits a second without asyncio."""
    database = raw_log(path)
    started = time.perf_counter()
    for row in rows:
        database.execute(INSERT, row)
    rate = len(rows) / (time.perf_counter() - started)
    database.close()
    return rate


async def _append_by_many(log: EventLog, writers: int, each: int) -> float:
    events = [[event(f"Item:{writer}", version) for version in range(1, each + 1)] for writer in range(writers)]

    async def write(own: list[NewEvent]) -> None:
        for one in own:
            await log.append([one])

    started = time.perf_counter()
    await asyncio.gather(*(write(own) for own in events))
    return writers * each / (time.perf_counter() - started)


async def prepare_many(place: Place) -> None:
    """Rows and batches for the floors: as ours forms them."""
    log = await EventLog.open(place.shared / "log")
    await _append_by_many(log, place.sizes["writers"], place.sizes["each"])
    await log.close()


async def many_ours(place: Place) -> Sample:
    """Appends a second of 256 tasks that await each of theirs."""
    log = await EventLog.open(place.own / "log")
    before, writers, each = log.commits, place.sizes["writers"], place.sizes["each"]
    rate = await _append_by_many(log, writers, each)
    commits = log.commits - before
    await log.close()
    return Sample(figures={"appends_per_s": rate, "events_per_commit": writers * each / commits}, settings=OURS)


async def many_floor(place: Place) -> Sample:
    """The batches that ours had formed, committed one after the other, each behind a hop to a thread."""
    commits = commits_of(rows_of(place.shared / "log" / DATABASE))
    database = raw_log(place.own / DATABASE)
    started = time.perf_counter()
    for rows in commits:
        await asyncio.to_thread(commit_rows, database, rows)
    rate = sum(map(len, commits)) / (time.perf_counter() - started)
    settings = settings_of(database)
    database.close()
    figures = {"appends_per_s": rate, "events_per_commit": sum(map(len, commits)) / len(commits)}
    return Sample(figures=figures, settings=settings)


async def many_floor_with_waiters(place: Place) -> Sample:
    """The same rows, handed in by 256 tasks that await a future each; one commit is under way, the rest forms the next batch."""
    rows, loop = rows_of(place.shared / "log" / DATABASE), asyncio.get_running_loop()
    database = raw_log(place.own / DATABASE)
    pending: list[tuple[StoredRow, asyncio.Future[None]]] = []
    wake, last = asyncio.Event(), 0

    async def commit() -> None:
        nonlocal pending, last
        while True:
            await wake.wait()
            wake.clear()
            batch, pending = pending, []
            values = [(last + number, *row[1:]) for number, (row, _) in enumerate(batch, 1)]
            last += len(batch)
            await asyncio.to_thread(commit_rows, database, values)
            for _, future in batch:
                future.set_result(None)

    async def write(own: list[StoredRow]) -> None:
        for row in own:
            future: asyncio.Future[None] = loop.create_future()
            pending.append((row, future))
            wake.set()
            await future

    by_key: dict[str, list[StoredRow]] = {}
    for row in rows:
        by_key.setdefault(row[1], []).append(row)
    committing = asyncio.create_task(commit())
    started = time.perf_counter()
    await asyncio.gather(*(write(own) for own in by_key.values()))
    rate = len(rows) / (time.perf_counter() - started)
    committing.cancel()
    settings = settings_of(database)
    database.close()
    return Sample(figures={"appends_per_s": rate}, settings=settings)


ROWS = (
    Row(
        name="one_writer",
        title="one writer, awaiting each append",
        unit="appends/s",
        contenders=(
            Contender(name="ours", target=f"{HERE}:one_ours", what="EventLog.append of one event"),
            Contender(name="floor", target=f"{HERE}:one_floor", what="raw sqlite3 commits behind the same hop to a thread, same bytes"),
            Contender(name="ours_entity", target=f"{HERE}:one_entity", what="an attribute assigned, then flush()"),
            Contender(name="eventsourcing", target=f"{PEER}:one_writer", what="Application.save of one event, in a thread", peer=True),
            Contender(name="eventsourcing_recorder", target=f"{PEER}:one_recorder", what="its recorder alone, in a thread", peer=True),
        ),
        goals=(
            Goal(text="of the floor", of="ours.appends_per_s", to="floor.appends_per_s", at_least=0.85),
            Goal(text="of eventsourcing", of="ours.appends_per_s", to="eventsourcing.appends_per_s", at_least=1.1),
            Goal(text="through an entity, of eventsourcing", of="ours_entity.appends_per_s", to="eventsourcing.appends_per_s"),
            Goal(text="of its recorder alone", of="ours.appends_per_s", to="eventsourcing_recorder.appends_per_s"),
            Goal(text="of synchronous raw commits", of="ours.appends_per_s", to="floor.synchronous_per_s"),
        ),
        sizes={"default": {"appends": 1000}, "quick": {"appends": 200}},
        prepare=(f"{HERE}:prepare_one",),
    ),
    Row(
        name="many_writers",
        title="256 concurrent writers",
        unit="appends/s",
        contenders=(
            Contender(name="ours", target=f"{HERE}:many_ours", what="256 tasks, each awaits EventLog.append of one event"),
            Contender(name="floor", target=f"{HERE}:many_floor", what="raw group-commit loop: the same batches and bytes, executemany"),
            Contender(name="floor_with_waiters", target=f"{HERE}:many_floor_with_waiters", what="the same, 256 tasks awaiting futures"),
            Contender(name="eventsourcing", target=f"{PEER}:many_writers", what="256 tasks, each Application.save in a thread", peer=True),
        ),
        goals=(
            Goal(text="of the raw group-commit loop", of="ours.appends_per_s", to="floor.appends_per_s", at_least=0.85),
            Goal(text="of eventsourcing, one per call", of="ours.appends_per_s", to="eventsourcing.appends_per_s", at_least=30),
            Goal(text="of the raw loop with 256 tasks waiting", of="ours.appends_per_s", to="floor_with_waiters.appends_per_s"),
        ),
        sizes={"default": {"writers": 256, "each": 100}, "quick": {"writers": 256, "each": 10}},
        prepare=(f"{HERE}:prepare_many",),
    ),
)
