"""Random damages to the files of a log: the right state or a typed error, never another state in silence."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest

from symphony_es.errors import LogDamagedError, LogUnavailableError
from symphony_es.log import head_note
from symphony_es.log.head_note import HEAD_NAME, HeadNote, noted_head
from symphony_es.log.log import EventLog
from symphony_es.log.sqlite_connections import connect_reader
from symphony_es.log.sqlite_schema import SCHEMA
from symphony_es.transfer import verify
from tests.faults.damage import WHAT, make, opened, run
from tests.faults.log_workload import event


@pytest.mark.parametrize("what", WHAT)
def test_random_damages(what: str) -> None:
    """A seeded part of `python -m tests.faults.damage`."""
    outcomes, silent = run(what, 30, seed=7)
    assert silent == []
    assert outcomes.total() == 30
    assert outcomes["right state"] > 0


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log whose writer has ended without closing it."""
    path = tmp_path_factory.mktemp("crashed") / "log"
    asyncio.run(make(path, crashed=True))
    return path


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
async def test_a_write_ahead_file_that_was_cut(tmp_path: Path, crashed: Path, share: float) -> None:
    """Wherever it was cut: the log was acknowledged further than it goes, and is not opened."""
    directory = shutil.copytree(crashed, tmp_path / "log")
    wal = directory / "events.db-wal"
    content = wal.read_bytes()
    frames = (len(content) - 32) // 4120
    wal.write_bytes(content[: 32 + int(frames * share) * 4120] if share else b"")
    with pytest.raises(LogDamagedError):
        await opened(directory).setup()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
async def test_a_write_ahead_file_that_an_orderly_close_has_left(tmp_path: Path, crashed: Path, share: float) -> None:
    """As where a reader was open meanwhile: it is looked at as after a crash, and damaged commits in it are not dropped in silence."""
    directory = shutil.copytree(crashed, tmp_path / "log")
    (directory / "LOCK").write_bytes(b"clean\n")
    shutil.copytree(directory, tmp_path / "whole")
    wal = directory / "events.db-wal"
    content = bytearray(wal.read_bytes())
    frames = (len(content) - 32) // 4120
    content[32 + int(frames * share) * 4120 + 2000] ^= 4
    wal.write_bytes(content)
    with pytest.raises(LogDamagedError):
        await opened(directory).setup()
    async with opened(tmp_path / "whole") as symphony:
        assert symphony.log.head > 0


async def test_a_last_commit_that_is_missing_is_reported(tmp_path: Path, crashed: Path) -> None:
    """It may be damaged, which looks like a commit that was being written: the log opens without it, and says which positions are gone."""
    directory = shutil.copytree(crashed, tmp_path / "log")
    wal = directory / "events.db-wal"
    wal.write_bytes(wal.read_bytes()[:-2000])
    async with opened(directory) as symphony:
        report = await symphony.resume()
        lost = (symphony.log.head + 1, symphony.log.head + 1)
        assert symphony.log.lost_at_the_end == report.lost_at_the_end == lost
        assert not report.complete
        assert report.to_dict()["lost_at_the_end"] == [*lost]
        assert "1 positions missing at the end" in repr(report)
    log = await EventLog.open(directory)
    assert log.lost_at_the_end is None
    await log.close()


@pytest.mark.parametrize("missing", [0, 1, 40])
async def test_verify_compares_the_end_with_what_was_acknowledged(tmp_path: Path, missing: int) -> None:
    """Where the newest events are gone, and SQLite's counter with them, the note beside the log tells."""
    directory = tmp_path / "log"
    log = await EventLog.open(directory)
    await log.append([event(number) for number in range(1, 51)])
    await log.close()
    with sqlite3.connect(directory / "events.db") as connection:
        connection.execute("DROP TRIGGER stored_events_no_delete")
        connection.execute("DELETE FROM stored_events WHERE position > ?", (50 - missing,))
        connection.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = 'stored_events'", (50 - missing,))
        connection.execute(SCHEMA[3])
    connection.close()
    report = await verify(directory)
    assert report.ok == (not missing)
    if missing:
        (problem,) = report.problems
        assert problem.position == 51 - missing
        assert "acknowledged up to position 50" in problem.what


@pytest.mark.parametrize("offset", [0, 4, 8, 12, 16, 20, 24, 28])
async def test_a_write_ahead_file_with_a_damaged_header(tmp_path: Path, crashed: Path, offset: int) -> None:
    """SQLite takes such a file for none: it is an error for a writer and for a reader, also where no note tells of the head."""
    directory = shutil.copytree(crashed, tmp_path / "log")
    (directory / HEAD_NAME).unlink()
    shutil.rmtree(directory / "snapshots")
    wal = directory / "events.db-wal"
    content = bytearray(wal.read_bytes())
    content[offset] ^= 0x10
    wal.write_bytes(content)
    with pytest.raises(LogDamagedError):
        await opened(directory).setup()
    with pytest.raises(LogDamagedError):
        await EventLog.open_read_only(directory)


@pytest.mark.parametrize("left", ["closed", "killed"])
@pytest.mark.parametrize("what", ["missing", "empty"])
async def test_a_log_whose_files_are_gone(tmp_path: Path, crashed: Path, what: str, left: str) -> None:
    """A directory in which a log was written does not become a new, empty log in silence; its write-ahead file stays as it is."""
    directory = tmp_path / "log"
    if left == "closed":
        log = await EventLog.open(directory)
        await log.append([event(1)])
        await log.close()
    else:
        shutil.copytree(crashed, directory)
    database, wal = directory / "events.db", directory / "events.db-wal"
    before = wal.read_bytes() if left == "killed" else b""
    database.unlink() if what == "missing" else database.write_bytes(b"")
    for _ in range(2):
        with pytest.raises(LogUnavailableError if what == "missing" else LogDamagedError):
            await EventLog.open_read_only(directory)
        with pytest.raises(LogDamagedError, match=f"is {what}, and a log was written there"):
            await EventLog.open(directory)
        assert database.exists() == (what == "empty")
        assert (wal.read_bytes() if wal.exists() else b"") == before
    (directory / "LOCK").unlink()
    log = await EventLog.open(directory)
    assert log.head == 0
    await log.close()


async def test_an_older_file_in_the_place_of_the_log(tmp_path: Path) -> None:
    """A backup's file is put in place after an orderly close: writers and readers say that events are missing, and go on when told so."""
    directory = tmp_path / "log"
    for number in (1, 2, 3):
        log = await EventLog.open(directory)
        await log.append([event(number)])
        await log.close()
        if number == 1:
            shutil.copy2(directory / "events.db", tmp_path / "older")
    shutil.copy2(tmp_path / "older", directory / "events.db")
    for opens in (EventLog.open_read_only, EventLog.open, EventLog.open):
        with pytest.raises(LogDamagedError, match="acknowledged up to position 3, and ends at 1"):
            await opens(directory)
    log = await EventLog.open(directory, ignore_anchor=True)
    assert log.head == 1
    await log.close()
    log = await EventLog.open(directory)
    assert log.lost_at_the_end is None
    await log.close()


def test_a_crashed_log_where_nothing_can_be_written(tmp_path: Path, crashed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite cannot make its index of the commits in the write-ahead file there: the message says what to do."""
    directory = shutil.copytree(crashed, tmp_path / "log")
    (directory / "events.db-shm").unlink(missing_ok=True)
    (directory / "events.db-shm").symlink_to("nowhere")  # it is not followed, so none can be made
    with pytest.raises(LogUnavailableError, match="check that it exists"):
        connect_reader(directory / "events.db")
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    with pytest.raises(LogUnavailableError, match="copy the whole directory to where it can be"):
        connect_reader(directory / "events.db")
    (directory / "events.db-shm").unlink()
    connect_reader(shutil.copytree(directory, tmp_path / "copy") / "events.db").close()


async def test_a_note_that_is_damaged_or_of_another_log_says_nothing(tmp_path: Path) -> None:
    """It is an aid: without it the log opens as before."""
    path = tmp_path / HEAD_NAME
    note = HeadNote(path, b"a" * 16, 7)
    assert (noted_head(path, b"a" * 16), noted_head(path, b"b" * 16)) == ((7, 7), (0, 0))
    note.write(8)
    note.close()
    note.close()
    note.write(9)
    assert noted_head(path, b"a" * 16) == (7, 8)
    whole = path.read_bytes()
    for offset in range(len(whole)):
        path.write_bytes(whole[:offset])
        assert noted_head(path, b"a" * 16) == (0, 0)
        path.write_bytes(whole[:offset] + bytes([whole[offset] ^ 1]) + whole[offset + 1 :])
        assert noted_head(path, b"a" * 16) == (0, 0)
    path.unlink()
    assert noted_head(path, b"a" * 16) == (0, 0)


async def test_where_no_note_can_be_written_the_log_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither at opening nor later; a link in its place is refused, whoever may write there, and so is a directory."""
    (tmp_path / "log").mkdir(mode=0o700)
    (tmp_path / "log" / HEAD_NAME).symlink_to(tmp_path / "elsewhere")
    for allow_shared in (False, True):
        with pytest.raises(LogUnavailableError, match="never follows links"):
            await EventLog.open(tmp_path / "log", allow_shared=allow_shared)
    (tmp_path / "log" / HEAD_NAME).unlink()

    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    log = await EventLog.open(tmp_path / "log")
    with monkeypatch.context() as patch:
        patch.setattr(head_note, "os", SimpleNamespace(**{**vars(os), "pwrite": full}))
        await log.append([event(1)])
        assert log.head == 1
    await log.close()
    log = await EventLog.open(tmp_path / "log")
    assert log.head == 1
    await log.close()
    (tmp_path / "log" / HEAD_NAME).unlink()
    (tmp_path / "log" / HEAD_NAME).mkdir(mode=0o700)
    with pytest.raises(LogUnavailableError, match="not a regular file"):
        await EventLog.open(tmp_path / "log")
    assert not (tmp_path / "elsewhere").exists()
