"""Physical floors: what the disk, SQLite and msgpack cost without this library, with its schema, its pragmas and its bytes.

Connections here have the settings that the log's writing connection has. The rows that are inserted are rows that the library wrote
before, read back from a log of its own: the same columns, the same index, the same bytes.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import msgpack

from symphony_es.events.event import EventMetadata, NewEvent
from symphony_es.events.rows import SALT_BYTES, encode_body, seal_state, time_of
from symphony_es.log.sqlite_connections import WRITER_SETTINGS
from symphony_es.log.sqlite_schema import SCHEMA

__all__ = [
    "INSERT",
    "commit_rows",
    "commits_of",
    "fdatasync_rate",
    "hop_rate",
    "raw_log",
    "rows_of",
    "scan_and_decode",
    "settings_of",
]

INSERT = "INSERT INTO stored_events (position, originator_id, originator_version, topic, state) VALUES (?, ?, ?, ?, ?)"
SELECT = "SELECT position, originator_id, originator_version, topic, state FROM stored_events ORDER BY position"
SYNCHRONOUS = {0: "OFF", 1: "NORMAL", 2: "FULL", 3: "EXTRA"}
StoredRow = tuple[int, str, int, str, bytes]


def raw_log(path: Path) -> sqlite3.Connection:
    """A database with the log's schema and settings, and none of its code, in autocommit mode."""
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=128)
    for name, value, _ in WRITER_SETTINGS:
        database.execute(f"PRAGMA {name}={value}").fetchall()
    for statement in SCHEMA:
        database.execute(statement)
    return database


def settings_of(connection: sqlite3.Connection | Path) -> dict[str, Any]:
    """Journal mode and synchronous, read back.

    Of a file only the journal mode is: `synchronous` belongs to a connection, and a new one would tell the default.
    """
    if isinstance(connection, Path):
        database = sqlite3.connect(connection)
        try:
            return {"journal_mode": database.execute("PRAGMA journal_mode").fetchone()[0]}
        finally:
            database.close()
    level = connection.execute("PRAGMA synchronous").fetchone()[0]
    return {"journal_mode": connection.execute("PRAGMA journal_mode").fetchone()[0], "synchronous": SYNCHRONOUS.get(level, level)}


def rows_of(path: Path, limit: int = -1) -> list[StoredRow]:
    """Rows of a log, as they are stored."""
    database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        return database.execute(f"{SELECT} LIMIT ?", (limit,)).fetchall()
    finally:
        database.close()


def commits_of(rows: Sequence[StoredRow]) -> list[list[StoredRow]]:
    """Rows grouped as they were committed: those of one commit have one time."""
    return [list(group) for _, group in groupby(rows, key=lambda row: time_of(row[4]))]


def commit_rows(database: sqlite3.Connection, rows: Sequence[StoredRow]) -> None:
    """One durable commit of several rows."""
    database.execute("BEGIN IMMEDIATE")
    database.executemany(INSERT, rows)
    database.execute("COMMIT")


def packed_part() -> slice:
    """Where in a stored state its msgpack stands: behind a header and a salt, and before what follows the body, if anything does."""
    event = NewEvent(entity_key="A:1", version=1, name="N", changes=[], metadata=EventMetadata(), event_id=bytes(16))
    body = encode_body(event, os.urandom(SALT_BYTES))
    state = seal_state(1, "A:1", 1, "N", bytes(16), 0, body)
    start = state.index(body)
    return slice(start + SALT_BYTES, start + len(body) - len(state) or None)


def scan_and_decode(path: Path) -> tuple[int, float]:
    """Rows and seconds: all rows are read with sqlite3, their bodies decoded by msgpack, and forgotten."""
    database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    unpack, packed, count = msgpack.unpackb, packed_part(), 0
    started = time.perf_counter()
    for row in database.execute(SELECT):
        unpack(row[4][packed])
        count += 1
    took_s = time.perf_counter() - started
    database.close()
    return count, took_s


def fdatasync_rate(directory: Path, times: int, size_bytes: int = 4096) -> float:
    """How often a second a block can be appended to a file and be made durable."""
    block = os.urandom(size_bytes)
    descriptor = os.open(directory / "fdatasync", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    try:
        started = time.perf_counter()
        for _ in range(times):
            os.write(descriptor, block)
            os.fdatasync(descriptor)
        return times / (time.perf_counter() - started)
    finally:
        os.close(descriptor)


async def hop_rate(times: int) -> float:
    """How often a second a coroutine can wait for nothing in a thread."""
    started = time.perf_counter()
    for _ in range(times):
        await asyncio.to_thread(int)
    return times / (time.perf_counter() - started)
