"""The library `eventsourcing`: its own Application and Aggregate, on its SQLite module.

Durability: it sets WAL on the first connection and never sets `synchronous`, so that is what SQLite was built with: FULL on usual builds.
FULL is set here on each of its connections all the same, and what holds is read back from the connection that writes. It is a
synchronous library: from asyncio it is called in a thread. Aggregates are stored by its default mapper, as JSON; no snapshots, no cache.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import StoredEvent
from eventsourcing.sqlite import SQLiteConnection, SQLiteConnectionPool

from benchmarks.floors import settings_of
from benchmarks.measuring import Place, Sample
from benchmarks.workload import text_of

__all__ = ["folding", "many_writers", "one_recorder", "one_writer"]

SMALL_BYTES = 10


class Item(Aggregate):
    """An aggregate of one text."""

    @event("Created")
    def __init__(self, text: str) -> None:
        self.text = text

    @event("TextSet")
    def set_text(self, text: str) -> None:
        """Set its text."""
        self.text = text


@contextmanager
def application(path: Path) -> Iterator[tuple[Application, dict[str, Any]]]:
    """An application on a file, and how its writing connection is set."""
    original = SQLiteConnectionPool._create_connection

    def create(pool: SQLiteConnectionPool) -> SQLiteConnection:
        connection = original(pool)
        connection.cursor().execute("PRAGMA synchronous=FULL")
        return connection

    SQLiteConnectionPool._create_connection = create
    made = Application(env={"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(path)})
    try:
        with made.recorder.datastore.get_connection(commit=True) as connection:
            settings = settings_of(connection.connection if hasattr(connection, "connection") else connection._sqlite_conn)
        yield made, {**settings, "version": version("eventsourcing"), "synchronous by default": _default(path)}
    finally:
        made.close()
        SQLiteConnectionPool._create_connection = original


def _default(path: Path) -> str:
    import sqlite3

    database = sqlite3.connect(path)
    try:
        return str(settings_of(database)["synchronous"])
    finally:
        database.close()


def _set_and_save(app: Application, item: Item, number: int) -> None:
    item.set_text(text_of(number, 100))
    app.save(item)


async def one_writer(place: Place) -> Sample:
    """Appends a second: an event of one aggregate is triggered and saved, in a thread."""
    with application(place.own / "events.db") as (app, settings):
        item, count = Item(text=""), place.sizes["appends"]
        app.save(item)
        started = time.perf_counter()
        for number in range(count):
            await asyncio.to_thread(_set_and_save, app, item, number)
        return Sample(figures={"appends_per_s": count / (time.perf_counter() - started)}, settings=settings)


async def one_recorder(place: Place) -> Sample:
    """Appends a second: ready stored events handed to its recorder, in a thread; no aggregate, no mapper."""
    with application(place.own / "events.db") as (app, settings):
        key, state, count = uuid4(), text_of(1, 160).encode(), place.sizes["appends"]
        events = [StoredEvent(originator_id=key, originator_version=number, topic="Changed", state=state) for number in range(1, count + 1)]
        started = time.perf_counter()
        for one in events:
            await asyncio.to_thread(app.recorder.insert_events, [one])
        return Sample(figures={"appends_per_s": count / (time.perf_counter() - started)}, settings=settings)


async def many_writers(place: Place) -> Sample:
    """Appends a second of 256 tasks, each with an aggregate of its own, saved in threads of asyncio's own executor."""
    writers, each = place.sizes["writers"], max(2, place.sizes["each"] // 10)
    with application(place.own / "events.db") as (app, settings):
        items = [Item(text="") for _ in range(writers)]
        app.save(*items)

        async def write(item: Item) -> None:
            for number in range(each):
                await asyncio.to_thread(_set_and_save, app, item, number)

        started = time.perf_counter()
        await asyncio.gather(*map(write, items))
        return Sample(figures={"appends_per_s": writers * each / (time.perf_counter() - started)}, settings=settings)


def folding(place: Place) -> Sample:
    """Events a second: every aggregate is rebuilt from its events by the repository."""
    each = place.sizes["events"] // place.sizes["entities"]
    keys: list[UUID] = []
    with application(place.own / "events.db") as (app, settings):
        for _ in range(max(1, place.sizes["peer_events"] // each)):
            item = Item(text=text_of(1, SMALL_BYTES))
            for number in range(2, each + 1):
                item.set_text(text_of(number, SMALL_BYTES))
            app.save(item)
            keys.append(item.id)
        started = time.perf_counter()
        for key in keys:
            app.repository.get(key)
        took_s = time.perf_counter() - started
    return Sample(figures={"events_per_s": len(keys) * each / took_s, "events": len(keys) * each}, settings=settings)
