"""What a killed writer's write-ahead file is when it is lost, foreign, or damaged at its beginning, and what a refused opening leaves."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from symphony_es.errors import LogDamagedError
from symphony_es.log import sqlite
from symphony_es.log.log import EventLog
from symphony_es.log.sqlite import COMMIT_BYTES
from symphony_es.log.walscan import scan_wal
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


def test_frames_are_as_large_as_these_tests_say(tmp_path: Path) -> None:
    """Of SQLite's usual pages."""
    with sqlite3.connect(tmp_path / "some.db") as db:
        assert db.execute("PRAGMA page_size").fetchone()[0] + 24 == FRAME
    db.close()
