"""What verification finds in the files around the events: settings, the counter of positions, snapshots."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from symphony_es.core.past.snapshots.store import SnapshotStore
from symphony_es.errors import LogDamagedError, StorageUnavailableError
from symphony_es.log.log import EventLog
from symphony_es.transfer import backup, verify
from symphony_es.transfer import snapshot_files as module
from tests.transfer.logs import make_log, rows_of, snapshot_at, tamper

ROWS = rows_of(60)


@pytest.mark.parametrize("sql", ["UPDATE sqlite_sequence SET seq = 5 WHERE name = 'stored_events'", "DELETE FROM sqlite_sequence"])
async def test_a_counter_that_was_set_back(tmp_path: Path, sql: str) -> None:
    """A log that does not open for it is not said to be right."""
    directory = make_log(tmp_path / "log", ROWS)
    tamper(directory, (sql, ()))
    report = await verify(directory)
    assert (report.ok, report.events, report.first_bad_position) == (False, 60, None)
    assert "have been given out" in report.problems[0].what
    with pytest.raises(LogDamagedError):
        await EventLog.open(directory)


@pytest.mark.parametrize(
    "sql", ["UPDATE log_settings SET value = 'x' WHERE name = 'log_id'", "DELETE FROM log_settings WHERE name = 'log_id'"]
)
async def test_an_identity_that_was_altered(tmp_path: Path, sql: str) -> None:
    """The identity is what exports name, and what an import takes over."""
    directory = make_log(tmp_path / "log", ROWS)
    tamper(directory, (sql, ()))
    report = await verify(directory)
    assert [problem.what.split(":")[0] for problem in report.problems] == ["the identity of the log is missing or altered"]


@pytest.mark.parametrize("fold", [False, True])
async def test_an_altered_snapshot(tmp_path: Path, fold: bool) -> None:
    """One byte in the middle of the file: the log is right, and the file is named."""
    directory = make_log(tmp_path / "log", ROWS)
    info = await snapshot_at(directory, ROWS, 60)
    assert (await verify(directory, fold=fold)).damaged_snapshots == ()
    path = directory / "snapshots" / info.name
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    report = await verify(directory, fold=fold)
    assert (report.ok, [name for name, _ in report.damaged_snapshots]) == (True, [info.name])
    assert (await backup(directory, tmp_path / "backup")).snapshots == 0


async def test_snapshots_that_cannot_be_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was thinned out meanwhile is not missed, a bad sector is damage, and a process without descriptors knows nothing."""
    directory = make_log(tmp_path / "log", ROWS)
    info = await snapshot_at(directory, ROWS, 60)

    def failing(code: int) -> None:
        def read(*_: object) -> bytes:
            raise OSError(code, "as the test says")

        monkeypatch.setattr(module, "read_hashed", read)

    failing(errno.ENOENT)
    assert (await verify(directory)).damaged_snapshots == ()
    failing(errno.EIO)
    assert (await verify(directory)).damaged_snapshots == ((info.name, "it cannot be read (as the test says)"),)
    failing(errno.EMFILE)
    with pytest.raises(StorageUnavailableError):
        await verify(directory)
    assert len(SnapshotStore(directory / "snapshots", read_only=True).list()) == 1
