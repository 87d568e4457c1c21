"""What a killed writer's write-ahead file is when it is lost, foreign, or damaged at its beginning, and what a refused opening leaves."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from symphony_es.cli.main import DAMAGED, FOUND_WRONG, main
from symphony_es.errors import LogDamagedError
from symphony_es.log import head_note, opening, sqlite
from symphony_es.log.log import EventLog
from symphony_es.log.sqlite import COMMIT_BYTES
from symphony_es.log.walscan import scan_wal
from symphony_es.transfer import verify
from tests.faults.log_workload import event

HEADER, FRAME = 32, 4120
SECTOR = 512


async def killed(path: Path, events: int, *, checkpoint_after: int | None = None, monkeypatch: pytest.MonkeyPatch | None = None) -> Path:
    """What is there of a log whose writer is killed after so many events."""
    if monkeypatch is not None and checkpoint_after is not None:
        monkeypatch.setattr(sqlite, "CHECKPOINT_AFTER_BYTES", checkpoint_after * COMMIT_BYTES)
    log = await EventLog.open(path.with_name(f"{path.name}.open"))
    for number in range(1, events + 1):
        await log.append([event(number)])
    assert log.path is not None
    shutil.copytree(log.path.parent, path, ignore=shutil.ignore_patterns("*-shm"))
    await log.close()
    return path


def wal_of(directory: Path) -> Path:
    return directory / "events.db-wal"


def content(directory: Path) -> dict[str, bytes]:
    """What a log's files hold, but for the lock, which names who asked last, and SQLite's index."""
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file() and path.name not in ("LOCK", "events.db-shm")}


LOSSES: dict[str, Callable[[Path], object]] = {
    "removed": Path.unlink,
    "emptied": lambda wal: wal.write_bytes(b""),
    "only its header": lambda wal: wal.write_bytes(wal.read_bytes()[:HEADER]),
    "its first sector of zeros": lambda wal: wal.write_bytes(bytes(SECTOR) + wal.read_bytes()[SECTOR:]),
}


class TestLost:
    @pytest.mark.parametrize("loss", LOSSES)
    async def test_a_log_is_not_begun_anew(self, tmp_path: Path, loss: str) -> None:
        """A young log is all in its write-ahead file: the database beside it has not even tables."""
        directory = await killed(tmp_path / "log", 9)
        LOSSES[loss](wal_of(directory))
        before = content(directory)
        with pytest.raises(LogDamagedError):
            await EventLog.open(directory)
        after = content(directory)
        assert {name: held for name, held in after.items() if held} == {name: held for name, held in before.items() if held}
        log = await EventLog.open(directory, ignore_anchor=True)
        await log.append([event(1)])
        assert await log.log_id() is not None
        await log.close()

    async def test_what_sqlite_cannot_read_any_more_is_damage(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A file whose pages say something else than its header is not one that cannot be used: the exit code is 5."""
        directory = await killed(tmp_path / "log", 9, checkpoint_after=4, monkeypatch=monkeypatch)
        database = directory / "events.db"
        held = bytearray(database.read_bytes())
        held[100:108] = b"\xff" * 8  # the head of the first page's tree
        database.write_bytes(held)
        wal_of(directory).unlink()
        for opened in (EventLog.open, EventLog.open_read_only):
            with pytest.raises(LogDamagedError, match="malformed"):
                await opened(directory)
        assert await asyncio.to_thread(main, ["log", "--state-dir", str(directory)]) == DAMAGED
        assert "restore a backup" in capsys.readouterr().err


@pytest.mark.parametrize("size", [0, 1])
async def test_a_database_that_sqlite_takes_for_empty(tmp_path: Path, size: int) -> None:
    """It is not shown one: it would remove the write-ahead file, for a reader as well."""
    directory = await killed(tmp_path / "log", 9)
    (directory / "events.db").write_bytes(b"S"[:size])
    before = content(directory)
    for opened in (EventLog.open_read_only, EventLog.open):
        with pytest.raises(LogDamagedError, match="is empty"):
            await opened(directory)
        assert content(directory) == before


async def test_a_log_whose_making_was_cut_short_gets_an_identity(tmp_path: Path) -> None:
    """The file was there, and the tables not yet."""
    directory = tmp_path / "log"
    directory.mkdir(mode=0o700)
    for name in ("LOCK", "events.db"):
        (directory / name).touch(mode=0o600)
    log = await EventLog.open(directory)
    assert await log.log_id() is not None
    await log.close()


async def test_what_a_writer_finds_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process may have written its last commit and not synced it. It is taken, and a power loss after that does not undo it."""
    directory = await killed(tmp_path / "log", 3)
    synced: list[int] = []

    def sync(descriptor: int) -> None:
        assert not (directory / "events.db-shm").is_file(), "SQLite has opened it before"
        synced.append(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(opening, "sync", sync, raising=False)
    expected = [wal_of(directory).stat().st_ino]
    await (await EventLog.open(directory)).close()
    assert synced == expected
    await (await EventLog.open(directory)).close()
    assert synced == expected, "after an orderly close there is nothing to sync"


async def test_a_refused_opening_leaves_all_as_it_is(tmp_path: Path) -> None:
    """Also where SQLite has opened the file by then: it would take what is there into the database, and remove the write-ahead file."""
    directory = await killed(tmp_path / "log", 12)
    held = wal_of(directory).read_bytes()
    wal_of(directory).write_bytes(held[: HEADER + (len(held) - HEADER) // FRAME // 2 * FRAME])
    before = content(directory)
    with pytest.raises(LogDamagedError, match="acknowledged up to position 12"):
        await EventLog.open(directory)
    assert content(directory) == before
    wal_of(directory).write_bytes(held)
    log = await EventLog.open(directory)
    assert log.head == 12
    await log.close()


async def test_a_damage_that_was_accepted_is_not_found_once_more(tmp_path: Path) -> None:
    """The commits behind it are dropped for good: after the next crash they are not taken for damaged ones."""
    directory = await killed(tmp_path / "log", 12)
    held = bytearray(wal_of(directory).read_bytes())
    held[HEADER + FRAME * (len(held) // FRAME // 2) + 2000] ^= 1
    wal_of(directory).write_bytes(held)
    with pytest.raises(LogDamagedError):
        await EventLog.open(directory)
    log = await EventLog.open(directory, ignore_anchor=True)
    head = log.head + 1
    await log.append([event(head)])
    again = shutil.copytree(directory, tmp_path / "again", ignore=shutil.ignore_patterns("*-shm"))
    await log.close()
    await (await EventLog.open_read_only(again)).close()
    log = await EventLog.open(again)
    assert log.head == head
    await log.close()


class TestFirstSector:
    @pytest.mark.parametrize("size", [SECTOR, 4096])
    async def test_commits_behind_it_are_missed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
        """The header and the first frame stand in it, and the frames behind tell what the database lacks, where no note does."""
        directory = await killed(tmp_path / "log", 12, checkpoint_after=8, monkeypatch=monkeypatch)
        held = wal_of(directory).read_bytes()
        assert held[16:24] != held[-FRAME + 8 : -FRAME + 16], "it was not written over"
        (directory / "events.db-head").unlink()
        wal_of(directory).write_bytes(bytes(size) + held[size:])
        assert scan_wal(wal_of(directory)) == "damaged"
        with pytest.raises(LogDamagedError):
            await EventLog.open(directory)

    async def test_a_reset_that_was_not_finished_lacks_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """All of it is in the database; a transaction that was taken back, and has left frames behind, is not to be."""
        directory = tmp_path / "log"
        log = await EventLog.open(directory)
        for number in range(1, 9):
            await log.append([event(number)])
        writer = log._recorder._store.writer  # type: ignore[attr-defined]
        writer.execute("PRAGMA cache_size=2")
        writer.execute("BEGIN IMMEDIATE")
        writer.executemany("INSERT INTO log_settings VALUES (?, ?)", [(f"z{number:04}", "x" * 500) for number in range(400)])
        writer.execute("ROLLBACK")
        log._recorder._store.checkpoint("PASSIVE")  # type: ignore[attr-defined]
        left = shutil.copytree(directory, tmp_path / "left", ignore=shutil.ignore_patterns("*-shm"))
        await log.close()
        held = wal_of(left).read_bytes()
        for garbled in (b"?" * HEADER, b"?" * SECTOR, b"?" * 4096):
            wal_of(left).write_bytes(garbled + held[len(garbled) :])
            assert scan_wal(wal_of(left)) == "torn", len(garbled)
        log = await EventLog.open(left)
        assert log.head == 8
        await log.close()


class TestAnotherLogs:
    @pytest.mark.parametrize("noted", [True, False])
    @pytest.mark.parametrize("left", ["killed", "closed"])
    async def test_write_ahead_file_makes_no_other_log_of_this_one(
        self, tmp_path: Path, left: str, noted: bool, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """It holds every page of a young log, and would be laid over this one, also by readers."""
        other = await killed(tmp_path / "other", 5)
        directory = await killed(tmp_path / "log", 9)
        if left == "closed" or not noted:  # the identity stands in the file itself
            await (await EventLog.open(directory)).close()
        shutil.copyfile(wal_of(other), wal_of(directory))
        wal_of(directory).chmod(0o600)
        if not noted:
            (directory / "events.db-head").unlink()
        before = content(directory)
        for opened in (EventLog.open_read_only, EventLog.open):
            with pytest.raises(LogDamagedError, match="is not of the log"):
                await opened(directory)
        assert not (await verify(directory)).ok
        assert await asyncio.to_thread(main, ["verify", "--state-dir", str(directory)]) == FOUND_WRONG
        assert await asyncio.to_thread(main, ["history", "--state-dir", str(directory), "E:1"]) == DAMAGED
        for command in (["backup", "--state-dir", str(directory)], ["restore", str(directory)]):
            assert await asyncio.to_thread(main, [*command, str(tmp_path / "copy")]) == DAMAGED
            assert not (tmp_path / "copy").exists()
        assert content(directory) == before
        wal_of(directory).unlink()
        if left == "closed":
            log = await EventLog.open(directory)
            assert log.head == 9
            await log.close()

    async def test_note_says_nothing_of_a_log_that_is_begun_anew(self, tmp_path: Path) -> None:
        """Who removes the lock begins a new log beside the old one's note; a kill before there is a note of the new one leaves this."""
        old = await killed(tmp_path / "old", 5)
        directory = await killed(tmp_path / "log", 1)
        shutil.copyfile(old / "events.db-head", directory / "events.db-head")
        (directory / "LOCK").write_bytes(b"")
        for opened in (EventLog.open_read_only, EventLog.open):
            log = await opened(directory)
            assert log.head == 1
            await log.close()

    async def test_note_says_nothing_where_the_write_ahead_file_is_empty(self, tmp_path: Path) -> None:
        """Another database, of a backup, was put in the place of this one: it is that log from then on."""
        other = await killed(tmp_path / "other", 5)
        await (await EventLog.open(other)).close()
        directory = await killed(tmp_path / "log", 9)
        await (await EventLog.open(directory)).close()
        shutil.copyfile(other / "events.db", directory / "events.db")
        log = await EventLog.open(directory)
        assert log.head == 5
        identity = await log.log_id()
        assert identity is not None
        assert head_note.noted_log(directory / "events.db-head") == identity.bytes
        await log.close()


async def test_a_note_of_another_log_is_replaced_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is synced where it was another log's: else a power loss might bring that one back, which would speak against this log."""
    synced: list[int] = []
    monkeypatch.setattr(head_note, "sync", synced.append)
    for log_id, times in ((b"a" * 16, 0), (b"a" * 16, 0), (b"b" * 16, 1), (b"b" * 16, 1)):
        head_note.HeadNote(tmp_path / "note", log_id, 1).close()
        assert len(synced) == times


def test_frames_are_as_large_as_these_tests_say(tmp_path: Path) -> None:
    """Of SQLite's usual pages."""
    with sqlite3.connect(tmp_path / "some.db") as db:
        assert db.execute("PRAGMA page_size").fetchone()[0] + 24 == FRAME
    db.close()
