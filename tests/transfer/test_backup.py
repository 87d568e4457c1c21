"""Backups of a log that is written at full speed are whole logs; what is damaged or in the way is refused, and nothing is left half."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from symphony_es.core.past.snapshots.store import SnapshotStore
from symphony_es.errors import (
    AnchorMismatchError,
    BackupDamagedError,
    LogDamagedError,
    LogInUseError,
    LogUnavailableError,
    TargetOccupiedError,
)
from symphony_es.events.event import EventMetadata, NewEvent
from symphony_es.events.rows import decode_row
from symphony_es.log.log import EventLog
from symphony_es.log.sqlite import SQLiteLogRecorder
from symphony_es.log.sqlite_raw import RawLog
from symphony_es.transfer import backup, restore, verify
from symphony_es.transfer.backups import _copy_snapshots
from symphony_es.transfer.progress import Stop
from tests.transfer.logs import make_log, rows_of, snapshot_at, stored, tamper
from tests.transfer.test_jsonl import killed, nothing_beside

ROOT = Path(__file__).parents[2]
ROWS = rows_of(60)


class RunningWriter:
    """A process that appends as fast as it can, and the last position it has acknowledged."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.acknowledged = 0
        self.process = process
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait until all that the process has written is read."""
        self._thread.join()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.endswith(b"\n"):
                self.acknowledged = int(line.split()[1])


@contextmanager
def writer(directory: Path) -> Iterator[RunningWriter]:
    """A writing process, killed at the end."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.transfer.logs", str(directory)], stdout=subprocess.PIPE, env=environment
    ) as process:
        running = RunningWriter(process)
        try:
            yield running
        finally:
            process.kill()
            running.join()  # else its pipe would be closed under it


async def test_there_and_back(tmp_path: Path) -> None:
    """The backup is the log and its snapshots, can be opened, verified and restored; the restored log goes on."""
    directory = make_log(tmp_path / "log", ROWS)
    for position in (20, 50):
        await snapshot_at(directory, ROWS, position)
    told: list[tuple[int, int]] = []
    report = await backup(directory, tmp_path / "backups" / "one", on_progress=lambda *now: told.append(now))
    assert (report.head, report.snapshots, report.directory) == (60, 2, tmp_path / "backups" / "one")
    assert told[-1][0] == told[-1][1] > 0
    nothing_beside(tmp_path / "backups", "one")
    nothing_beside(tmp_path / "backups" / "one", "LOCK", "events.db", "snapshots")
    assert report.size_bytes == sum(path.stat().st_size for path in (tmp_path / "backups").rglob("*") if path.is_file())
    assert (await verify(tmp_path / "backups" / "one", fold=True)).snapshots == 2
    restored = await restore(tmp_path / "backups" / "one", tmp_path / "restored")
    assert (restored.head, restored.snapshots) == (60, 2)
    assert stored(tmp_path / "restored") == ROWS
    assert [info.position for info in SnapshotStore(tmp_path / "restored" / "snapshots").list()] == [50, 20]
    log = await EventLog.open(tmp_path / "restored")
    assert log.head == 60
    await log.close()
    assert (tmp_path / "restored").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "restored" / "events.db").stat().st_mode & 0o777 == 0o600


async def test_a_backup_beside_a_writer_at_full_speed(tmp_path: Path) -> None:
    """Each backup holds what was acknowledged before it began, ends with a whole transaction, verifies, and is a beginning of the log."""
    directory = tmp_path / "log"
    heads = []
    with writer(directory) as running:
        while running.acknowledged < 3000:
            await asyncio.sleep(0.05)
            assert running.process.poll() is None
        for number in range(5):
            acknowledged = running.acknowledged
            report = await backup(directory, tmp_path / f"backup{number}")
            heads.append(report.head)
            assert report.head >= acknowledged
            assert report.head % 3 == 0
            await asyncio.sleep(0.1)
        assert running.acknowledged > heads[-1]
        assert running.process.poll() is None
    assert len(set(heads)) == 5
    for number, head in enumerate(heads):
        found = await verify(tmp_path / f"backup{number}", fold=True)
        assert (found.ok, found.events) == (True, head)
    rows = stored(tmp_path / "backup4")
    for number, head in enumerate(heads):
        assert stored(tmp_path / f"backup{number}") == rows[:head]
    assert stored(directory)[: heads[-1]] == rows
    assert decode_row(rows[-1]).transaction_id == decode_row(rows[-3]).event_id
    assert (await verify(directory)).ok


async def test_the_own_process_keeps_its_locks(tmp_path: Path) -> None:
    """A backup of a log that this process writes: another process that opens and closes the file does not take itself for the last one."""
    directory = make_log(tmp_path / "log", ROWS)
    log = await EventLog.open(directory)
    event = NewEvent(entity_key="A:a", version=1, name="Made", changes=[(0, (), {})], metadata=EventMetadata(), event_id=bytes(16))
    await log.append([event])
    await backup(directory, tmp_path / "backup")
    code = (
        "import sqlite3, sys; database = sqlite3.connect(sys.argv[1]);"
        "database.execute('SELECT count(*) FROM stored_events').fetchone(); database.close()"
    )
    subprocess.run([sys.executable, "-c", code, str(directory / "events.db")], check=True)
    assert (directory / "events.db-wal").exists()
    await log.append([replace(event, entity_key="B:b", event_id=bytes([1] * 16))])
    assert len(stored(directory)) == 62
    await log.close()
    assert (await verify(tmp_path / "backup")).events == 61
    assert (await verify(directory)).events == 62


async def test_snapshots_up_to_the_head_only(tmp_path: Path) -> None:
    """One that appears meanwhile and is of a later position stays behind; a damaged one and one that vanishes are passed over."""
    rows = rows_of(40_000)
    more = rows_of(40_010)
    directory = make_log(tmp_path / "log", rows)
    infos = [await snapshot_at(directory, rows, position) for position in (20, 30, 50)]
    damaged = directory / "snapshots" / infos[0].name
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    stages: list[tuple[int, int]] = []

    def meanwhile(done: int, total: int) -> None:
        """While the database is copied a snapshot vanishes, and one is written of events that the copy does not hold."""
        stages.append((done, total))
        (directory / "snapshots" / infos[1].name).unlink(missing_ok=True)
        if len(stages) == 1:
            asyncio.run(snapshot_at(directory, more, 40_010))

    report = await backup(directory, tmp_path / "backup", on_progress=meanwhile)
    assert stages[0][0] < stages[0][1]
    assert report.snapshots == 1
    assert [path.name for path in (tmp_path / "backup" / "snapshots").iterdir()] == [infos[2].name]
    assert (await verify(tmp_path / "backup")).ok


async def test_a_backup_is_of_one_moment(tmp_path: Path) -> None:
    """Commits between two steps of the copying neither show in it nor begin it anew: it would never end beside a busy writer."""
    rows = rows_of(80_000)
    directory = make_log(tmp_path / "log", rows[:70_000])
    recorder = SQLiteLogRecorder(directory / "events.db")
    steps: list[int] = []

    def meanwhile(done: int, total: int) -> None:
        """Appends an event at every step."""
        steps.append(done)
        position = recorder.head()
        recorder.append_rows(rows[position : position + 1])

    with RawLog(directory / "events.db") as log:
        log.copy_to(tmp_path / "copy.db", meanwhile)
    recorder.close()
    assert len(steps) >= 3
    assert steps == sorted(set(steps))
    with RawLog(tmp_path / "copy.db") as copy:
        assert copy.ends() == (70_000, 70_000)
        assert not copy.integrity()


async def test_a_snapshot_that_vanishes_is_passed_over(tmp_path: Path) -> None:
    """It was thinned out between the look at the directory and the copying."""
    directory = make_log(tmp_path / "log", ROWS)
    infos = [await snapshot_at(directory, ROWS, position) for position in (20, 50)]

    class Vanishing(Stop):
        """The look that is taken before each snapshot is the moment one goes."""

        def look(self) -> None:
            (directory / "snapshots" / infos[0].name).unlink(missing_ok=True)

    assert _copy_snapshots(directory / "snapshots", tmp_path / "copied", 60, Vanishing()) == 1
    nothing_beside(tmp_path / "copied", infos[1].name)


async def test_a_damaged_log_is_not_backed_up(tmp_path: Path) -> None:
    """A removed tail, an altered last event, a damaged page: the backup fails, and leaves nothing."""
    for name, statements in {
        "tail": [("DELETE FROM stored_events WHERE position > 44", ())],
        "hidden": [
            ("DELETE FROM stored_events WHERE position > 44", ()),
            ("UPDATE sqlite_sequence SET seq = 44 WHERE name = 'stored_events'", ()),
        ],
    }.items():
        directory = make_log(tmp_path / name, ROWS)
        await snapshot_at(directory, ROWS, 50)
        tamper(directory, *statements)
        with pytest.raises(LogDamagedError if name == "tail" else AnchorMismatchError):
            await backup(directory, tmp_path / "backup")
    nothing_beside(tmp_path, "tail", "hidden")
    with pytest.raises(LogUnavailableError):
        await backup(tmp_path / "nowhere", tmp_path / "backup")
    nothing_beside(tmp_path, "tail", "hidden")


async def test_damaged_commits_of_a_crashed_writer(tmp_path: Path) -> None:
    """The log reads as a shorter one without them: verification says so, and no backup is made; a torn end alone is none of this."""
    directory = tmp_path / "log"
    with writer(directory) as running:
        while running.acknowledged < 600:
            await asyncio.sleep(0.02)
    await asyncio.to_thread(running.process.wait)
    whole = await verify(directory)
    assert whole.ok
    assert whole.events >= 600
    wal = directory / "events.db-wal"
    content = bytearray(wal.read_bytes())
    frames = [at for at in range(32, len(content) - 4119, 4120) if content[at + 8 : at + 16] == content[16:24]]  # of this run of the file
    content[frames[len(frames) // 2] + 1000] ^= 1
    wal.write_bytes(content)
    (directory / "events.db-shm").unlink()
    report = await verify(directory)
    assert report.events < whole.events
    assert report.first_bad_position == report.events + 1
    assert any("write-ahead file" in problem.what for problem in report.problems)
    with pytest.raises(LogDamagedError):
        await backup(directory, tmp_path / "backup")
    nothing_beside(tmp_path, "log")


async def test_a_damaged_backup_is_not_restored(tmp_path: Path) -> None:
    """It is verified first; the error has the report, and nothing is there."""
    directory = make_log(tmp_path / "log", ROWS)
    await backup(directory, tmp_path / "backup")
    tamper(tmp_path / "backup", ("UPDATE stored_events SET topic = 'Other' WHERE position = 17", ()))
    with pytest.raises(BackupDamagedError, match="check value") as caught:
        await restore(tmp_path / "backup", tmp_path / "restored")
    assert caught.value.report.first_bad_position == 17
    nothing_beside(tmp_path, "log", "backup")


async def test_where_a_restore_goes(tmp_path: Path) -> None:
    """Into nothing or a log without events; never over events, and never while the directory is in use."""
    directory = make_log(tmp_path / "log", ROWS)
    await backup(directory, tmp_path / "backup")
    with pytest.raises(TargetOccupiedError):
        await backup(directory, tmp_path / "backup")
    with pytest.raises(TargetOccupiedError, match="60 events"):
        await restore(tmp_path / "backup", directory)
    empty = await EventLog.open(tmp_path / "empty")
    with pytest.raises(LogInUseError):
        await restore(tmp_path / "backup", tmp_path / "empty")
    await empty.close()
    await restore(tmp_path / "backup", tmp_path / "empty")
    assert stored(tmp_path / "empty") == ROWS == stored(directory)
    nothing_beside(tmp_path, "log", "backup", "empty")


async def test_a_backup_on_a_medium_that_cannot_be_written(tmp_path: Path) -> None:
    """It is verified and restored all the same, and nothing is made beside it."""
    directory = make_log(tmp_path / "log", ROWS)
    await backup(directory, tmp_path / "backup")
    (tmp_path / "backup" / "events.db").chmod(0o400)
    (tmp_path / "backup").chmod(0o500)
    try:
        assert (await verify(tmp_path / "backup")).ok
        await restore(tmp_path / "backup", tmp_path / "restored")
        assert stored(tmp_path / "restored") == ROWS
    finally:
        (tmp_path / "backup").chmod(0o700)


BACKUP = """
import asyncio, os, sys
from symphony_es.transfer import backup, restore
async def main():
    os.write(1, b"go\\n")
    await {"backup": backup, "restore": restore}[sys.argv[1]](sys.argv[2], sys.argv[3])
asyncio.run(main())
"""


async def test_a_kill_leaves_nothing_half(tmp_path: Path) -> None:
    """Killed at several moments: there is nothing at the target, or all; the next attempt removes what was being built."""
    rows = rows_of(30_000)
    directory = make_log(tmp_path / "log", rows)
    await backup(directory, tmp_path / "whole")
    left = 0
    for attempt, after_s in enumerate((0.0, 0.01, 0.03, 0.06, 0.1, 0.15)):
        for what, origin in (("backup", "log"), ("restore", "whole")):
            target = tmp_path / f"{what}{attempt}"
            killed(BACKUP, what, str(tmp_path / origin), str(target), after_s=after_s)
            left += len([path for path in tmp_path.iterdir() if path.name.endswith(".part")])
            if not target.exists():
                await backup(directory, target)
            assert stored(target) == rows
    assert left, "the kills hit nothing"
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".part")]


async def test_a_cancelled_backup_leaves_nothing(tmp_path: Path) -> None:
    """The copying stops, and the place beside the target is removed."""
    directory = make_log(tmp_path / "log", rows_of(60_000))
    began = threading.Event()
    task = asyncio.ensure_future(backup(directory, tmp_path / "backup", on_progress=lambda *_: began.set()))
    await asyncio.to_thread(began.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    nothing_beside(tmp_path, "log")


async def test_a_backup_keeps_the_way_of_writing(tmp_path: Path) -> None:
    """The copy is in WAL mode, so that readers and a writer of the restored log do not wait for each other."""
    directory = make_log(tmp_path / "log", ROWS)
    await backup(directory, tmp_path / "backup")
    with closing(sqlite3.connect(tmp_path / "backup" / "events.db")) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
