"""A reader beside a writer that is just making its log, or after one that was killed as it made it: there is no log yet, and no damage."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from symphony_es import Symphony
from symphony_es.cli.main import main
from symphony_es.errors import LogDamagedError, LogUnavailableError
from symphony_es.log.log import EventLog
from symphony_es.transfer import backup, restore, verify


def _with_header(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = WAL")
    assert path.stat().st_size > 0


def _with_a_journal(path: Path) -> None:
    """Stopped within the first page: what SQLite began with is still to be taken back, which a reader cannot."""
    copy = path.with_name("copy")
    with closing(sqlite3.connect(copy)) as db:
        db.execute("PRAGMA user_version = 1")
        db.execute("BEGIN IMMEDIATE")
        db.execute("PRAGMA user_version = 2")
        db.execute("PRAGMA cache_size = 1")
        db.execute("PRAGMA cache_spill = 1")
        db.execute("CREATE TABLE t (x)")
        db.executemany("INSERT INTO t VALUES (?)", [(bytes(4000),)] * 50)
        for end in ("", "-journal"):
            path.with_name(f"{path.name}{end}").write_bytes(copy.with_name(f"copy{end}").read_bytes())
    copy.unlink()
    assert path.with_name(f"{path.name}-journal").stat().st_size > 512


STAGES: dict[str, Callable[[Path], object]] = {"its file": Path.touch, "a database": _with_header}
BEGUN = {"a journal": _with_a_journal, **STAGES}


def make(directory: Path, stage: str, *, lock: bytes) -> None:
    """What a writer has made when it has come so far; it notes in the lock that the tables are there."""
    directory.mkdir(mode=0o700)
    BEGUN[stage](directory / "events.db")
    (directory / "LOCK").write_bytes(lock)
    for path in directory.iterdir():
        path.chmod(0o600)


@pytest.mark.parametrize("stage", BEGUN)
async def test_a_log_that_is_being_made_is_no_damaged_one(tmp_path: Path, stage: str) -> None:
    """Every reader says that there is none yet, and leaves it; the next writer goes on with what is there."""
    directory = tmp_path / "log"
    make(directory, stage, lock=b"")
    for call in (
        lambda: EventLog.open_read_only(directory),
        lambda: Symphony(directory, read_only=True).setup(),
        lambda: verify(directory),
        lambda: backup(directory, tmp_path / "backup"),
        lambda: restore(directory, tmp_path / "restored"),
    ):
        with pytest.raises(LogUnavailableError, match=r"no log in .* yet"):
            await call()
    async with Symphony(directory) as symphony:
        await symphony.create_checkpoint("made")
    assert (await verify(directory)).events == 1


@pytest.mark.parametrize("stage", STAGES)
def test_the_command_line_says_the_same(tmp_path: Path, stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 4, as where there is no log: not 5."""
    make(tmp_path / "log", stage, lock=b"")
    for command in ("log", "verify"):
        assert main([command, "--state-dir", str(tmp_path / "log")]) == 4
        assert "yet" in capsys.readouterr().err


@pytest.mark.parametrize("stage", STAGES)
async def test_where_a_log_has_been_it_is_damage(tmp_path: Path, stage: str) -> None:
    """The same files beside a lock that a writer has written to: the log was emptied."""
    make(tmp_path / "log", stage, lock=b"clean\n")
    with pytest.raises(LogDamagedError):
        await EventLog.open_read_only(tmp_path / "log")
    assert not (await verify(tmp_path / "log")).ok
