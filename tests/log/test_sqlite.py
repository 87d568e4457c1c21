"""The rules of the log in SQLite, each by name: settings, schema, files, locks, damage."""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from symphony_es.errors import (
    AnchorMismatchError,
    ConcurrencyError,
    DamagedEventError,
    LogDamagedError,
    LogFormatError,
    LogInUseError,
    LogUnavailableError,
    NotReadyError,
)
from symphony_es.events.rows import commitment, event_id_of
from symphony_es.log import directory as directory_module
from symphony_es.log import sqlite as sqlite_module
from symphony_es.log import sqlite_connections, sqlite_reading
from symphony_es.log.log import Anchor, EventLog
from symphony_es.log.recorder import Appended, PreparedEvent
from symphony_es.log.sqlite import SQLiteLogRecorder, fitting
from symphony_es.log.walscan import scan_wal
from symphony_es.system import file_system_of
from symphony_es.transfer.verification import verify
from tests.log.test_contract import new

ROOT = Path(__file__).parents[2]


async def filled(path: Path, events: int = 20) -> EventLog:
    log = await EventLog.open(path)
    for number in range(events):
        await log.append([new(f"E:{number % 4}", number // 4 + 1, value="x" * 50)])
    return log


def prepared(key: str, version: int, size: int = 20) -> PreparedEvent:
    return PreparedEvent(key, version, "Changed", os.urandom(16), os.urandom(16) + bytes(size))


def child(program: str, *arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=check, env=environment)


CRASH = """
import asyncio, os, sys, pathlib
from symphony_es.log.log import EventLog
from tests.log.test_contract import new
async def main(path, events):
    log = await EventLog.open(pathlib.Path(path))
    for number in range(events):
        await log.append([new(f"E:{number % 4}", number // 4 + 1, value="x" * 50)])
    os._exit(0)  # no close: everything is in the write-ahead file
asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


class TestSettings:
    async def test_every_setting_is_in_force(self, tmp_path: Path) -> None:
        """synchronous=FULL above all; a setting that SQLite does not take refuses the log."""
        log = await filled(tmp_path / "log")
        recorder: Any = log._recorder
        for name, _, expected in sqlite_connections.WRITER_SETTINGS:
            row = recorder._store.writer.execute(f"PRAGMA {name}").fetchone()
            assert row is None or row[0] == expected, name
        with recorder._store.reader() as reader:
            for name, _, expected in sqlite_connections.READER_SETTINGS:
                row = reader.execute(f"PRAGMA {name}").fetchone()
                assert row is None or row[0] == expected, name
            with pytest.raises(sqlite3.OperationalError, match="readonly"):
                reader.execute("INSERT INTO log_settings VALUES ('a', 'b')")
        await log.close()

    async def test_a_setting_that_does_not_take_effect_refuses_the_log(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A guarantee that would not hold is no guarantee; the lock is given back."""
        with monkeypatch.context() as patch:
            patch.setattr(sqlite_connections, "WRITER_SETTINGS", (("synchronous", "OFF", 2),))
            with pytest.raises(LogUnavailableError, match="PRAGMA synchronous"):
                await EventLog.open(tmp_path / "log")
        await (await EventLog.open(tmp_path / "log")).close()

    async def test_commits_begin_immediately(self, tmp_path: Path) -> None:
        """A lock that somebody else holds is waited for at the beginning, and is a typed error that can be tried again."""
        log = await filled(tmp_path / "log", 1)
        recorder: Any = log._recorder
        recorder._store.writer.execute("PRAGMA busy_timeout=1")
        other = sqlite3.connect(tmp_path / "log" / "events.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LogUnavailableError, match="another process holds its lock") as caught:
            await log.append([new("A:1", 1)])
        assert not caught.value.outcome_unknown
        other.execute("ROLLBACK")
        other.close()
        assert (await log.append([new("A:1", 1)])).first == 2
        await log.close()

    async def test_the_write_ahead_file_is_copied_on_purpose(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """By the writer, once enough was written; closing leaves an empty one or none."""
        monkeypatch.setattr(sqlite_module, "CHECKPOINT_AFTER_BYTES", 1000)
        log = await filled(tmp_path / "log", 50)
        recorder: Any = log._recorder
        await log.close()
        assert recorder._since_checkpoint < 1000
        wal = tmp_path / "log" / "events.db-wal"
        assert not wal.exists() or wal.stat().st_size == 0

    async def test_many_small_commits_do_not_make_it_grow(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each commit writes whole pages, however small its event: they count, not the events' bytes."""
        monkeypatch.setattr(sqlite_module, "CHECKPOINT_AFTER_BYTES", 512 * 1024)
        log = await EventLog.open(tmp_path / "log")
        for version in range(1, 301):
            await log.append([new("A:1", version)])
        assert (tmp_path / "log" / "events.db-wal").stat().st_size < 2 * 1024 * 1024
        await log.close()


class TestSchema:
    async def test_the_log_is_append_only(self, tmp_path: Path) -> None:
        """Triggers refuse updates and deletes; positions are never given out twice."""
        await (await filled(tmp_path / "log")).close()
        database = sqlite3.connect(tmp_path / "log" / "events.db")
        for statement in ("UPDATE stored_events SET topic = 'x'", "DELETE FROM stored_events"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                database.execute(statement)
        database.close()

    @pytest.mark.parametrize(
        "statement",
        [
            "CREATE TRIGGER evil AFTER INSERT ON stored_events BEGIN DELETE FROM tracking; END",
            "CREATE VIEW evil AS SELECT 1",
            "CREATE TABLE evil (x)",
            "DROP TRIGGER stored_events_no_delete",
            "ALTER TABLE stored_events ADD COLUMN more",
            "UPDATE log_settings SET value = 'x' WHERE name = 'format'",
            "DROP TABLE log_settings",
        ],
    )
    async def test_a_changed_schema_is_refused(self, tmp_path: Path, statement: str) -> None:
        """A trigger, view or table that is not the log's, one that is missing, or another format."""
        await (await filled(tmp_path / "log", 1)).close()
        database = sqlite3.connect(tmp_path / "log" / "events.db")
        database.execute(statement)
        database.commit()
        database.close()
        with pytest.raises((LogDamagedError, LogUnavailableError)):
            await EventLog.open(tmp_path / "log")

    @pytest.mark.parametrize("says", ["1 (0xd3)", "2", "1"])
    @pytest.mark.parametrize("more", ["SELECT 1", "CREATE TABLE another_versions (x)"])
    async def test_a_log_of_another_format_is_not_called_damaged(self, tmp_path: Path, says: str, more: str) -> None:
        """Opening, reading and verifying say which format it has, and what to do; the file stays as it is."""
        await (await filled(tmp_path / "log", 1)).close()
        database = sqlite3.connect(tmp_path / "log" / "events.db")
        database.execute("UPDATE log_settings SET value = ? WHERE name = 'format'", (says,))
        database.execute(more)
        database.commit()
        database.close()
        before = (tmp_path / "log" / "events.db").read_bytes()
        for use in (EventLog.open, EventLog.open_read_only, verify):
            with pytest.raises(LogFormatError, match=re.escape(f"has format {says}, and this version")):
                await use(tmp_path / "log")
        assert (tmp_path / "log" / "events.db").read_bytes() == before

    async def test_what_a_replicating_tool_adds_is_tolerated(self, tmp_path: Path) -> None:
        """Its lock table is no change of the log."""
        await (await filled(tmp_path / "log", 1)).close()
        database = sqlite3.connect(tmp_path / "log" / "events.db")
        database.execute("CREATE TABLE _litestream_lock (id INTEGER)")
        database.close()
        await (await EventLog.open(tmp_path / "log")).close()

    async def test_a_log_that_lost_its_last_events_is_refused(self, tmp_path: Path) -> None:
        """The positions given out say that there were more."""
        await (await filled(tmp_path / "log")).close()
        tamper(tmp_path / "log", "DELETE FROM stored_events WHERE position > 15", "no_delete")
        with pytest.raises(LogDamagedError, match="last event is at 15"):
            await EventLog.open(tmp_path / "log")

    async def test_positions_survive_a_copy(self, tmp_path: Path) -> None:
        """VACUUM INTO renumbers nothing, and the copy is a log."""
        log = await filled(tmp_path / "log")
        before = await log.read_rows()
        await log.close()
        (tmp_path / "copy").mkdir(mode=0o700)
        database = sqlite3.connect(tmp_path / "log" / "events.db")
        database.execute("VACUUM INTO ?", (str(tmp_path / "copy" / "events.db"),))
        database.close()
        copy = await EventLog.open(tmp_path / "copy")
        assert await copy.read_rows() == before
        assert (await copy.append([new("A:1", 1)])).first == 21
        await copy.close()


def tamper(directory: Path, statement: str, trigger: str = "no_update") -> None:
    database = sqlite3.connect(directory / "events.db")
    (sql,) = database.execute("SELECT sql FROM sqlite_master WHERE name = ?", (f"stored_events_{trigger}",)).fetchone()
    database.execute(f"DROP TRIGGER stored_events_{trigger}")
    database.execute(statement)
    database.execute(sql)
    database.commit()
    database.close()


class TestFiles:
    async def test_directory_and_files_are_private(self, tmp_path: Path) -> None:
        """0700 and 0600, also those that SQLite makes."""
        before = os.umask(0)
        try:
            log = await filled(tmp_path / "deep" / "log")
        finally:
            os.umask(before)
        path = tmp_path / "deep" / "log"
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.iterdir()}
        assert modes == {"LOCK": 0o600, "events.db": 0o600, "events.db-head": 0o600, "events.db-wal": 0o600, "events.db-shm": 0o600}
        await log.close()

    @pytest.mark.parametrize("name", ["events.db", "LOCK"])
    async def test_links_are_not_followed(self, tmp_path: Path, name: str) -> None:
        """A link in the place of a file is refused, and what it points to is untouched."""
        (tmp_path / "log").mkdir(mode=0o700)
        (tmp_path / "target").write_text("precious")
        (tmp_path / "log" / name).symlink_to(tmp_path / "target")
        with pytest.raises(LogUnavailableError, match="never follows links"):
            await EventLog.open(tmp_path / "log")
        assert (tmp_path / "target").read_text() == "precious"

    async def test_a_directory_of_somebody_else_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The owner is named."""
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
        with pytest.raises(LogUnavailableError, match="belongs to user"):
            await EventLog.open(tmp_path / "log")

    async def test_network_file_systems_are_refused_unless_forced(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Their locks cannot be trusted."""
        assert file_system_of(Path("/proc/self")) == "proc"
        monkeypatch.setattr(directory_module, "file_system_of", lambda path: "nfs4")
        with pytest.raises(LogUnavailableError, match="network file system"):
            await EventLog.open(tmp_path / "log")
        await (await EventLog.open(tmp_path / "log", force_network_fs=True)).close()

    async def test_no_database_no_reading(self, tmp_path: Path) -> None:
        """A typed error, and nothing is made."""
        with pytest.raises(LogUnavailableError, match="opened"):
            await EventLog.open_read_only(tmp_path)
        assert list(tmp_path.iterdir()) == []

    async def test_a_file_that_is_no_database_is_refused(self, tmp_path: Path) -> None:
        """And left as it is."""
        (tmp_path / "log").mkdir(mode=0o700)
        (tmp_path / "log" / "events.db").write_bytes(b"not a database, but long enough to be looked at" * 100)
        with pytest.raises(LogDamagedError, match="restore a backup"):
            await EventLog.open(tmp_path / "log")

    async def test_the_process_never_opens_the_database_itself(self, tmp_path: Path) -> None:
        """Opening and closing it would drop SQLite's locks; watched from inside, in a process of its own."""
        program = (
            "import asyncio, sys, pathlib\n"
            "opened = []\n"
            "sys.addaudithook(lambda event, args: opened.append(args[0]) if event == 'open' and 'events.db' in str(args[0]) else None)\n"
            "from tests.log.test_sqlite import filled\n"
            "async def main():\n"
            "    path = pathlib.Path(sys.argv[1])\n"
            "    log = await filled(path, 50)\n"
            "    opened.clear()\n"
            "    await log.read_rows()\n"
            "    await log.append([__import__('tests.log.test_contract', fromlist=['new']).new('A:1', 1)])\n"
            "    await log.size_bytes()\n"
            "    await log.close()\n"
            "    print(opened)\n"
            "asyncio.run(main())\n"
        )
        result = await asyncio.to_thread(child, program, tmp_path / "log")
        assert result.stdout == "[]\n"


class TestProcesses:
    async def test_a_second_writer_is_refused_and_readers_are_not(self, tmp_path: Path) -> None:
        """In this process and in others; a reader follows what the writer appends."""
        log = await filled(tmp_path / "log", 3)
        with pytest.raises(LogInUseError, match=f"process {os.getpid()}"):
            await EventLog.open(tmp_path / "log")
        reader = await EventLog.open_read_only(tmp_path / "log")
        with pytest.raises(NotReadyError, match="reading only"):
            reader.submit([])
        follower = reader.follow(after=3, poll_s=0.01)
        waiting = asyncio.ensure_future(anext(follower))
        await log.append([new("A:1", 1)])
        async with asyncio.timeout(5):
            assert [event.position for event in await waiting] == [4]
            await reader.wait_for(4)
        await follower.aclose()
        await reader.close()
        recorder: Any = SQLiteLogRecorder(tmp_path / "log" / "events.db", read_only=True)
        with pytest.raises(LogUnavailableError, match="reading only"):
            recorder.append_groups([[]], 0)
        recorder.close()
        await log.close()

    async def test_the_lock_goes_with_the_process(self, tmp_path: Path) -> None:
        """After a crash the log opens, and everything acknowledged is there."""
        await asyncio.to_thread(child, CRASH, tmp_path / "log", 40)
        log = await EventLog.open(tmp_path / "log")
        assert log.head == 40
        await log.close()

    async def test_a_forked_child_cannot_write(self, tmp_path: Path) -> None:
        """The writer belongs to the process that opened the log."""
        log = await filled(tmp_path / "log", 1)
        assert log._writer is not None
        log._writer._pid += 1
        with pytest.raises(NotReadyError, match="child"):
            await log.append([new("A:1", 1)])
        log._writer._pid -= 1
        await log.close()

    async def test_a_child_that_closes_what_it_inherited_harms_nobody(self, tmp_path: Path) -> None:
        """The log stays open, marked as such, and whole in the parent; a real fork."""
        program = (
            "import asyncio, os, sys, pathlib, warnings\n"
            "from tests.log.test_sqlite import filled\n"
            "from tests.log.test_contract import new\n"
            "from symphony_es.errors import NotReadyError\n"
            "async def main():\n"
            "    path = pathlib.Path(sys.argv[1])\n"
            "    log = await filled(path, 5)\n"
            "    child = os.fork()\n"
            "    if child == 0:\n"
            "        try:\n"
            "            log.submit([])\n"
            "        except NotReadyError:\n"
            "            log.end()\n"
            "            os._exit(7)\n"
            "        os._exit(1)\n"
            "    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
            "    print((path / 'LOCK').read_text().startswith('open'), (path / 'events.db-wal').stat().st_size > 0)\n"
            "    print((await log.append([new('A:1', 1)])).first)\n"
            "    await log.close()\n"
            "asyncio.run(main())\n"
        )
        result = await asyncio.to_thread(child, program, tmp_path / "log")
        assert result.stdout == "7\nTrue True\n6\n"

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
    async def test_a_closed_log_in_a_directory_that_cannot_be_written_is_readable(self, tmp_path: Path) -> None:
        """By a user who may only read it."""
        await (await filled(tmp_path / "log")).close()
        for path in (tmp_path / "log", tmp_path, *tmp_path.parents):
            if path.stat().st_uid == 0 and stat.S_IMODE(path.stat().st_mode) == 0o700:
                path.chmod(0o755)
        for file in (tmp_path / "log").iterdir():
            file.chmod(0o644)
        program = (
            "import asyncio, os, sys, pathlib\n"
            "from symphony_es.log.log import EventLog\n"
            "async def main(path):\n"
            "    log = await EventLog.open_read_only(pathlib.Path(path))\n"
            "    print(len(await log.read_rows()))\n"
            "    await log.close()\n"
            "asyncio.run(main(sys.argv[2]))  # everything is imported: the interpreter itself may be out of reach afterwards\n"
            "os.setgid(65534); os.setuid(65534)\n"
            "asyncio.run(main(sys.argv[1]))\n"
        )
        await (await filled(tmp_path / "other", 3)).close()
        assert (await asyncio.to_thread(child, program, tmp_path / "log", tmp_path / "other")).stdout == "3\n20\n"


class TestUncleanEnds:
    async def test_a_torn_end_is_normal(self, tmp_path: Path) -> None:
        """Half a transaction at the end is dropped; everything before is there."""
        await asyncio.to_thread(child, CRASH, tmp_path / "log", 10)
        wal = tmp_path / "log" / "events.db-wal"
        assert scan_wal(wal) == "clean"
        wal.write_bytes(wal.read_bytes()[:-1000])
        assert scan_wal(wal) in ("torn", "clean")
        log = await EventLog.open(tmp_path / "log")
        assert 8 <= log.head <= 10
        await log.close()

    async def test_the_scan_leaves_nothing_behind(self, tmp_path: Path) -> None:
        """The copy that SQLite recovers is removed, what a killed process left of one too, and the write-ahead file is not touched."""
        await asyncio.to_thread(child, CRASH, tmp_path / "log", 10)
        wal = tmp_path / "log" / "events.db-wal"
        before = {path.name: path.read_bytes() for path in (tmp_path / "log").iterdir()}
        scratch = tmp_path / "log" / "events.db-wal.check"
        scratch.mkdir()
        (scratch / "copy.db").write_bytes(b"half")
        assert scan_wal(wal, scratch) == "clean"
        assert {path.name: path.read_bytes() for path in (tmp_path / "log").iterdir()} == before

    async def test_sqlite_takes_a_long_file_of_a_long_log(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Frames of pages far behind the end of what the write-ahead file holds are taken too: nothing is left to check by hand."""
        log = await EventLog.open(tmp_path / "log")
        await log.append([new("F:0", 1, value="x" * 2_000_000)])
        await log.close()
        await asyncio.to_thread(child, CRASH, tmp_path / "log", 30)
        wal = tmp_path / "log" / "events.db-wal"
        assert wal.stat().st_size < (tmp_path / "log" / "events.db").stat().st_size - 65536
        monkeypatch.setattr("symphony_es.log.walscan._consistent", None)
        assert scan_wal(wal, tmp_path / "check") == "clean"

    async def test_the_scan_needs_no_room_for_a_copy(self, tmp_path: Path) -> None:
        """Where the copy cannot be made, every frame is checked without SQLite's help."""
        await asyncio.to_thread(child, CRASH, tmp_path / "log", 10)
        wal = tmp_path / "log" / "events.db-wal"
        (tmp_path / "file").touch()
        assert scan_wal(wal, tmp_path / "file") == "clean"
        wal.write_bytes(wal.read_bytes()[:-1000])
        assert scan_wal(wal, tmp_path / "file") == scan_wal(wal)

    async def test_damage_to_acknowledged_commits_is_refused(self, tmp_path: Path) -> None:
        """SQLite would drop them in silence; ignore_anchor goes on with what is before the damage."""
        await asyncio.to_thread(child, CRASH, tmp_path / "log", 30)
        wal = tmp_path / "log" / "events.db-wal"
        content = bytearray(wal.read_bytes())
        content[len(content) // 2] ^= 1
        wal.write_bytes(content)
        assert scan_wal(wal) == "damaged"
        with pytest.raises(LogDamagedError, match="ignore_anchor"):
            await EventLog.open(tmp_path / "log")
        assert wal.read_bytes() == content
        log = await EventLog.open(tmp_path / "log", ignore_anchor=True)
        assert 0 < log.head < 30
        await log.close()

    def test_what_is_no_write_ahead_file(self, tmp_path: Path) -> None:
        """Absent, too short, or with a header that does not check."""
        path = tmp_path / "wal"
        assert scan_wal(path) == "absent"
        path.write_bytes(b"short")
        assert scan_wal(path) == "absent"
        path.write_bytes(b"\0" * 5000)
        assert scan_wal(path) == "torn"

    async def test_the_tail_is_verified_after_a_crash(self, tmp_path: Path) -> None:
        """A damaged event after the anchor refuses the log at once; after a clean end it is found when it is read."""
        await asyncio.to_thread(child, CRASH, tmp_path / "log", 30)
        lock = (tmp_path / "log" / "LOCK").read_bytes()
        await (await EventLog.open(tmp_path / "log")).close()
        tamper(tmp_path / "log", "UPDATE stored_events SET topic = 'Other' WHERE position = 20")
        (tmp_path / "log" / "LOCK").write_bytes(lock)
        with pytest.raises(DamagedEventError, match="position 20"):
            await EventLog.open(tmp_path / "log")
        (tmp_path / "log" / "LOCK").write_bytes(b"clean\n")
        log = await EventLog.open(tmp_path / "log")
        with pytest.raises(DamagedEventError):
            await log.read_rows()
        assert len(await log.read_rows(until=19)) == 19
        await log.close()

    async def test_the_anchor_must_match(self, tmp_path: Path) -> None:
        """A shorter log, another event, another content: each is refused and can be opened all the same."""
        log = await filled(tmp_path / "log")
        row = await log.row_at(10)
        await log.close()
        good = Anchor(position=10, event_id=event_id_of(row[4]), commitment=commitment(row[4]))
        await (await EventLog.open(tmp_path / "log", anchor=good)).close()
        for wrong, words in (
            (Anchor(position=21, event_id=good.event_id, commitment=good.commitment), "ends at position 20"),
            (Anchor(position=11, event_id=good.event_id, commitment=good.commitment), "another event"),
            (Anchor(position=10, event_id=good.event_id, commitment=b"x" * 32), "another event"),
        ):
            with pytest.raises(AnchorMismatchError, match=words):
                await EventLog.open(tmp_path / "log", anchor=wrong)
            await (await EventLog.open(tmp_path / "log", anchor=wrong, ignore_anchor=True)).close()

    async def test_damaged_pages_are_found(self, tmp_path: Path) -> None:
        """integrity_check runs after a crash."""
        await asyncio.to_thread(child, CRASH, tmp_path / "log", 200)
        lock = (tmp_path / "log" / "LOCK").read_bytes()
        await (await EventLog.open(tmp_path / "log")).close()
        database = tmp_path / "log" / "events.db"
        content = bytearray(database.read_bytes())
        content[3 * 4096 : 3 * 4096 + 200] = b"\xff" * 200
        database.write_bytes(content)
        (tmp_path / "log" / "LOCK").write_bytes(lock)
        with pytest.raises((LogDamagedError, LogUnavailableError, DamagedEventError)):
            await EventLog.open(tmp_path / "log")


class TestRows:
    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE stored_events SET state = CAST(state AS TEXT) WHERE position = 5",
            "UPDATE stored_events SET state = 5 WHERE position = 5",
            "UPDATE stored_events SET topic = x'00' WHERE position = 5",
            "UPDATE stored_events SET originator_id = 'E:9' WHERE position = 5",
            "UPDATE stored_events SET originator_version = 99 WHERE position = 5",
            "UPDATE stored_events SET state = (SELECT state FROM stored_events WHERE position = 6) WHERE position = 5",
            "UPDATE stored_events SET position = 500 WHERE position = 5",
        ],
    )
    async def test_an_altered_column_is_never_handed_out(self, tmp_path: Path, statement: str) -> None:
        """Whatever column it is, reading that far is a typed error."""
        await (await filled(tmp_path / "log")).close()
        tamper(tmp_path / "log", statement)
        tamper(tmp_path / "log", "UPDATE sqlite_sequence SET seq = (SELECT max(position) FROM stored_events)", "no_delete")
        try:
            log = await EventLog.open(tmp_path / "log")
        except DamagedEventError:
            return
        with pytest.raises(DamagedEventError):
            await log.read_rows()
        assert [row[0] for row in await log.read_rows(until=4)] == [1, 2, 3, 4]
        await log.close()

    async def test_a_missing_version_of_an_entity_is_found(self, tmp_path: Path) -> None:
        """Reading one entity counts."""
        await (await filled(tmp_path / "log")).close()
        tamper(tmp_path / "log", "DELETE FROM stored_events WHERE position = 5", "no_delete")
        log = await EventLog.open(tmp_path / "log")
        with pytest.raises(DamagedEventError, match="version 3 where 2 is due"):
            await log.read_entity("E:0")
        await log.close()


class TestFailures:
    async def test_an_unforeseen_conflict_fails_alone(self, tmp_path: Path) -> None:
        """Behind savepoints: what another connection has appended makes only the guilty request fail."""
        log = await filled(tmp_path / "log", 4)
        recorder: Any = log._recorder
        recorder._versions.keep("E:0", 7)
        good, bad = log.submit([log.prepare(new("A:1", 1))]), log.submit([log.prepare(new("E:0", 8))])
        recorder._append_real = recorder._append
        assert (await good.wait()).first == 5
        await bad.wait()
        recorder._versions.keep("E:1", 0)
        tickets = [log.submit([log.prepare(new(key, 1))]) for key in ("B:1", "E:1", "C:1")]
        outcomes = []
        for ticket in tickets:
            try:
                outcomes.append((await ticket.wait()).first)
            except ConcurrencyError as error:
                outcomes.append(error.actual)
        assert outcomes == [7, 1, 8]
        await log.close()

    async def test_an_io_error_poisons_the_log_until_it_is_opened_anew(self, tmp_path: Path) -> None:
        """The commit's outcome is unknown: nothing more is written, and reading goes on."""
        log = await filled(tmp_path / "log", 4)
        recorder: Any = log._recorder

        class Failing:
            in_transaction = False

            def execute(self, *arguments: Any) -> Any:
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorcode = sqlite3.SQLITE_IOERR
                raise error

        real, recorder._store.writer = recorder._store.writer, Failing()
        with pytest.raises(LogUnavailableError, match="disk I/O error") as caught:
            await log.append([new("A:1", 1)])
        assert caught.value.outcome_unknown
        recorder._store.writer = real
        with pytest.raises(LogUnavailableError):
            await log.append([new("A:1", 1)])
        assert len(await log.read_rows()) == 4
        await log.close()
        log = await EventLog.open(tmp_path / "log")
        assert (await log.append([new("A:1", 1)])).first == 5
        await log.close()

    async def test_a_full_disk_fails_the_commit_and_can_be_tried_again(self, tmp_path: Path) -> None:
        """SQLITE_FULL rolls back; nothing is poisoned."""
        log = await filled(tmp_path / "log", 4)
        recorder: Any = log._recorder
        (pages,) = recorder._store.writer.execute("PRAGMA page_count").fetchone()
        recorder._store.writer.execute(f"PRAGMA max_page_count={pages}")
        with pytest.raises(LogUnavailableError, match="the disk is full") as caught:
            await log.append([new("A:1", 1, value="x" * 50_000)])
        assert not caught.value.outcome_unknown
        recorder._store.writer.execute("PRAGMA max_page_count=100000")
        assert (await log.append([new("A:1", 1, value="x" * 50_000)])).first == 5
        await log.close()


class TestSizesOfCommits:
    @pytest.mark.parametrize("variables", [None, 999], ids=["as built", "an older SQLite"])
    def test_commits_of_all_sizes(self, tmp_path: Path, variables: int | None) -> None:
        """At the edges of what one statement takes, and beyond: whole, in order, and no transaction stays open."""
        recorder = SQLiteLogRecorder(tmp_path / "events.db")
        if variables is not None:
            recorder._writer.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, variables)
            recorder._inserts = fitting(recorder._writer)
        total = 0
        for size in (0, 1, 2, 4, 5, 16, 17, 64, 65, 256, 257, 1023, 1024, 1025, 2049):
            group = [prepared("A:1", total + number) for number in range(1, size + 1)]
            (outcome,) = recorder.append_groups([group], 1)
            total += size
            assert isinstance(outcome, Appended)
            assert (outcome.last, recorder.head(), recorder._writer.in_transaction) == (total, total, False)
        rows = recorder.read(0, limit=10_000)
        assert [(row[0], row[2]) for row in rows] == [(number, number) for number in range(1, total + 1)]
        recorder.close()

    @pytest.mark.parametrize("count", [3, 1500])
    def test_an_unforeseen_conflict_in_a_large_commit_fails_alone(self, tmp_path: Path, count: int) -> None:
        """Whether the commit is one statement or several; also where its rows are heavy."""
        for size in (20, 1_000_000 // count):
            recorder = SQLiteLogRecorder(tmp_path / f"{size}.db")
            recorder.append_groups([[prepared("A:1", number) for number in range(1, 4)]], 1)
            recorder._versions.keep("A:1", 1)
            good, bad = [prepared("B:1", number, size) for number in range(1, count + 1)], [prepared("A:1", 2, size)]
            outcomes = recorder.append_groups([good, bad], 1)
            assert [type(outcome) for outcome in outcomes] == [Appended, ConcurrencyError]
            assert (recorder.head(), recorder._writer.in_transaction) == (3 + count, False)
            recorder.close()

    def test_forgotten_versions_are_looked_up_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """However many entities are written: what is known of them is bounded, copied never, and a conflict is found all the same."""
        monkeypatch.setattr(sqlite_reading, "MAX_KNOWN_VERSIONS", 20)
        recorder = SQLiteLogRecorder(tmp_path / "events.db")
        most = 0
        for version in (1, 2):
            for number in range(100):
                (outcome,) = recorder.append_groups([[prepared(f"A:{number}", version)]], 1)
                assert isinstance(outcome, Appended)
                recorder.maintain()
                most = max(most, len(recorder._versions._newer) + len(recorder._versions._older))
                assert recorder._versions.get(f"A:{number}") == version
        assert 10 <= most <= 20
        for number in (0, 50, 99):
            (outcome,) = recorder.append_groups([[prepared(f"A:{number}", 2)]], 1)
            assert isinstance(outcome, ConcurrencyError)
        recorder.close()

    def test_a_full_disk_in_a_large_commit(self, tmp_path: Path) -> None:
        """It rolls back, and can be tried again."""
        recorder = SQLiteLogRecorder(tmp_path / "events.db")
        (pages,) = recorder._writer.execute("PRAGMA page_count").fetchone()
        group = [prepared("A:1", number, 200) for number in range(1, 1501)]
        recorder._writer.execute(f"PRAGMA max_page_count={pages}")
        with pytest.raises(LogUnavailableError, match="the disk is full") as caught:
            recorder.append_groups([group], 1)
        assert not caught.value.outcome_unknown
        assert (recorder.head(), recorder._writer.in_transaction) == (0, False)
        recorder._writer.execute("PRAGMA max_page_count=100000")
        assert recorder.append_groups([group], 1) == [Appended(1, 1500, 1)]
        recorder.close()
