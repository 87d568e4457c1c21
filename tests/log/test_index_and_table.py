"""An index that hides events is found when the log is opened, by writers and readers alike, at a price that does not grow with the log."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from symphony_es import Symphony, entity
from symphony_es.errors import DamagedEventError, LogDamagedError
from symphony_es.log import head_note, opening
from symphony_es.log.head_note import HEAD_NAME, HeadNote, is_as_left
from symphony_es.log.log import EventLog
from symphony_es.log.sqlite_reading import SQLiteLogReader
from tests.faults.log_workload import event

EVENTS = 40


@entity
class IndexedCounter:
    """An entity with some history."""

    id: str = ""
    n: int = 0


async def written(directory: Path) -> Path:
    """A log that was closed in order."""
    log = await EventLog.open(directory)
    await log.append([event(number) for number in range(1, EVENTS + 1)])
    await log.close()
    return directory


def hide(database: Path, position: int) -> None:
    """Take an event's entry out of the index, and leave the event in the table."""
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA writable_schema=ON")
        (index,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'stored_events_by_entity'").fetchone()
        connection.execute(
            "UPDATE sqlite_master SET sql = ? WHERE name = 'stored_events_by_entity'", (f"{index} WHERE position <> {position}",)
        )
    connection.close()
    with sqlite3.connect(database) as connection:
        connection.execute("REINDEX stored_events_by_entity")
    connection.close()
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'stored_events_by_entity'", (index,))
    connection.close()


async def opens(directory: Path, *, read_only: bool) -> None:
    """Open a log, and close it."""
    log = await (EventLog.open_read_only(directory) if read_only else EventLog.open(directory))
    await log.close()


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize("position", [1, EVENTS // 2, EVENTS])
async def test_an_index_that_has_lost_an_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: bool, read_only: bool, position: int
) -> None:
    """However large the file is: whoever changed it has left it other than the last orderly close did, and it is not opened."""
    if not small:
        monkeypatch.setattr(opening, "SMALL_BYTES", 0)
    directory = await written(tmp_path / "log")
    hide(directory / "events.db", position)
    with pytest.raises(LogDamagedError, match="SQLite found damage"):
        await opens(directory, read_only=read_only)


@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize(
    "what", ["closed", "copied", "times kept", "touched", "without a note", "without a lock", "note damaged", "being written"]
)
async def test_when_a_large_file_is_looked_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_only: bool, what: str) -> None:
    """After an orderly close it is not, and beside a writer not by readers; after anything that may have changed it, it is."""
    monkeypatch.setattr(opening, "SMALL_BYTES", 0)
    looked: list[Path] = []
    monkeypatch.setattr(SQLiteLogReader, "verify_pages", lambda self: looked.append(self.path))
    directory = await written(tmp_path / "log")
    writer = None
    if what == "copied":
        directory = shutil.copytree(directory, tmp_path / "other", copy_function=shutil.copyfile)
    elif what == "times kept":
        directory = shutil.copytree(directory, tmp_path / "other")
    elif what == "touched":
        os.utime(directory / "events.db", (1, 1))
    elif what == "without a note":
        (directory / HEAD_NAME).unlink()
    elif what == "without a lock":
        (directory / "LOCK").unlink()
    elif what == "note damaged":
        note = bytearray((directory / HEAD_NAME).read_bytes())
        note[70] ^= 1
        (directory / HEAD_NAME).write_bytes(note)
    elif what == "being written":
        writer = await EventLog.open(directory)
        looked.clear()
        os.utime(directory / "events.db", (1, 1))
        read_only = True
    try:
        await opens(directory, read_only=read_only)
    finally:
        if writer is not None:
            await writer.close()
    assert bool(looked) == (what not in ("closed", "being written"))
    if not read_only:
        looked.clear()
        await opens(directory, read_only=False)
        assert looked == []  # the close before has left a note


@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize("hidden", [0, 1, EVENTS])
async def test_a_small_file_whose_times_tell_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_only: bool, hidden: int) -> None:
    """Its index is counted at each opening: it is looked through where an entry is missing, and else not."""
    directory = await written(tmp_path / "log")
    if hidden:
        hide(directory / "events.db", hidden)
    monkeypatch.setattr(opening, "is_as_left", lambda path, database: True)
    if hidden:
        with pytest.raises(LogDamagedError, match="SQLite found damage"):
            await opens(directory, read_only=read_only)
        return
    monkeypatch.setattr(SQLiteLogReader, "verify_pages", lambda self: pytest.fail("it costs what the file is large"))
    await opens(directory, read_only=read_only)


async def test_a_small_file_that_is_being_written(tmp_path: Path) -> None:
    """A reader beside the writer looks through it, however it was when the writer opened it."""
    directory = await written(tmp_path / "log")
    writer = await EventLog.open(directory)
    try:
        hide(directory / "events.db", EVENTS // 2)
        with pytest.raises(LogDamagedError, match="SQLite found damage"):
            await opens(directory, read_only=True)
    finally:
        await writer.close()


async def test_a_crashed_writer_leaves_no_note_to_rely_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers look through the file, too."""
    monkeypatch.setattr(opening, "SMALL_BYTES", 0)
    looked: list[Path] = []
    directory = await written(tmp_path / "log")
    writer = await EventLog.open(directory)
    crashed = shutil.copytree(directory, tmp_path / "crashed")
    await writer.close()
    monkeypatch.setattr(SQLiteLogReader, "verify_pages", lambda self: looked.append(self.path))
    await opens(crashed, read_only=True)
    assert looked == [crashed / "events.db"]


def test_a_note_that_is_cut_or_damaged_tells_nothing(tmp_path: Path) -> None:
    """Every byte of it counts, and a file that is gone is not as it was left."""
    database, path = tmp_path / "events.db", tmp_path / HEAD_NAME
    database.write_bytes(b"content")
    note = HeadNote(path, b"a" * 16, 7)
    assert not is_as_left(path, database)
    note.leave(database)
    note.close()
    note.leave(database)
    assert is_as_left(path, database)
    whole = path.read_bytes()
    for offset in range(64, len(whole)):
        path.write_bytes(whole[:offset] + bytes([whole[offset] ^ 1]) + whole[offset + 1 :])
        assert not is_as_left(path, database)
        path.write_bytes(whole[:offset])
        assert not is_as_left(path, database)
    path.write_bytes(whole)
    database.unlink()
    assert not is_as_left(path, database)


@pytest.mark.parametrize("ticks", [0, 1, 3, 100])
def test_no_note_rests_on_a_clock_that_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ticks: int) -> None:
    """What is changed within the tick of the close has the same times: the note waits for the next one; where none comes, there is none."""
    database, path = tmp_path / "events.db", tmp_path / HEAD_NAME
    database.write_bytes(b"content")
    looked: list[float] = []

    def coarse(_: int) -> object:
        looked.append(0)
        return SimpleNamespace(st_mtime_ns=database.stat().st_ctime_ns + (len(looked) > ticks))

    monkeypatch.setattr(head_note.time, "sleep", lambda _: None)
    note = HeadNote(path, b"a" * 16, 7)
    database.write_bytes(b"changed")
    monkeypatch.setattr(head_note.os, "fstat", coarse)
    note.leave(database)
    note.close()
    monkeypatch.undo()
    assert is_as_left(path, database) == (ticks < head_note.TRIES)


@pytest.mark.parametrize("hidden", ["own", "live"])
async def test_what_is_known_of_an_entity_bounds_its_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hidden: str) -> None:
    """Where nobody looked at opening, an entity that is live, or was changed by this process, has no shorter history than that."""
    directory = tmp_path / "log"
    async with Symphony(directory) as symphony:
        counter = symphony.entities.add(IndexedCounter(id="a"))
        for number in range(5):
            counter.n = number + 1
            await symphony.flush()
        if hidden == "own":
            await symphony.log.read_entity("IndexedCounter:a")
            known: Any = symphony.log._recorder
            known._versions.keep("IndexedCounter:a", known._versions.get("IndexedCounter:a") + 1)
            with pytest.raises(DamagedEventError, match="the index has lost it"):
                await symphony.log.read_entity("IndexedCounter:a")
            return
        last = symphony.log.head
    hide(directory / "events.db", last)
    monkeypatch.setattr(SQLiteLogReader, "verify_pages", lambda self: None)
    async with Symphony(directory) as symphony:
        await symphony.resume()
        assert symphony.entities.get("IndexedCounter:a").n == 5
        with pytest.raises(DamagedEventError, match="the index has lost it"):
            await symphony.history("IndexedCounter:a")
        assert len(await symphony.log.read_entity("IndexedCounter:a", until_position=last - 1)) == last - 1
