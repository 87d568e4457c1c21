"""A log that somebody else could change is refused, as ssh refuses keys that others can write."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest

from symphony_es import Symphony
from symphony_es.cli.main import main
from symphony_es.core.world.inbox import FileInbox, Request, leave_request
from symphony_es.errors import LogDamagedError, LogUnavailableError
from symphony_es.transfer import backup, restore, verify


async def written(directory: Path, **options: bool) -> None:
    """Open it for writing, and close it."""
    await opened(directory, **options)


async def read(directory: Path, **options: bool) -> None:
    """Open it for reading, and close it."""
    await opened(directory, read_only=True, **options)


async def backed_up(directory: Path, **options: bool) -> None:
    """Make a backup of it."""
    await backup(directory, directory.parent / "copy", **options)


async def restored(directory: Path, **options: bool) -> None:
    """Take it for a backup."""
    await restore(directory, directory.parent / "copy", **options)


Entry = Callable[..., Awaitable[object]]
READERS: list[Entry] = [read, verify, backed_up, restored]
ENTRIES: list[Entry] = [written, *READERS]
IDS = ["written", "read", "verify", "backup", "restore"]

FILES = ("events.db", "LOCK", "events.db-head")
DIRECTORIES = ("snapshots", "projections")


async def opened(directory: Path, *, read_only: bool = False, **settings: object) -> None:
    """Open and close it."""
    async with Symphony({"state_dir": str(directory), **settings}, persistence_enabled=True, read_only=read_only) as symphony:
        if not read_only:
            await symphony.agents.create_agent(name="a", role="r")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log that was closed, with all that can stand beside it."""
    state = tmp_path_factory.mktemp("made") / "state"
    asyncio.run(opened(state))
    for name in DIRECTORIES:
        (state / name).mkdir(mode=0o700, exist_ok=True)
    return state


@pytest.fixture
def log(made: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(made, tmp_path / "state")
    return tmp_path / "state"


def writable(path: Path, mode: int) -> None:
    """Let others write it, as well as they could."""
    path.chmod(path.stat().st_mode | mode)


def linked(path: Path) -> None:
    """Put it elsewhere, and a link in its place."""
    path.rename(path.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent / "elsewhere")


def named_twice(path: Path) -> None:
    """Give it a second name."""
    os.link(path, path.parent.parent / "second")


def given_away(path: Path) -> None:
    """Make it another user's."""
    os.chown(path, 12345, -1)


CHANGES: list[tuple[str, str, Callable[[Path], None]]] = [
    *[(name, r"by other users .mode", partial(writable, mode=mode)) for name in ("", *FILES, *DIRECTORIES) for mode in (0o020, 0o002)],
    *[(name, "never follows links", linked) for name in (*FILES, *DIRECTORIES)],
]


class TestWhatOthersCouldChange:
    @pytest.mark.parametrize(("name", "said", "change"), CHANGES)
    @pytest.mark.parametrize("entry", ENTRIES, ids=IDS)
    async def test_is_refused(self, log: Path, name: str, said: str, change: Callable[[Path], None], entry: Entry) -> None:
        """By whoever writes, reads, verifies or copies it, with the path and a way out; each way out leads on."""
        change(log / name if name else log)
        with pytest.raises(LogUnavailableError, match=said) as caught:
            await entry(log)
        assert str(log / name if name else log) in str(caught.value)
        assert not (log.parent / "copy").exists()
        if "by other users" in said:  # one command for all of it
            assert f"chmod -R go-w {log}, or take it as it is with allow_shared_directory=True" in str(caught.value)
            await entry(log, allow_shared_directory=True)
            shutil.rmtree(log.parent / "copy", ignore_errors=True)
            for path in (log, *log.rglob("*")):
                path.chmod(path.stat().st_mode & ~0o022)
            await entry(log)
        else:
            with pytest.raises(LogUnavailableError, match="never follows links"):
                await entry(log, allow_shared_directory=True)

    @pytest.mark.parametrize("name", FILES)
    @pytest.mark.parametrize("entry", ENTRIES, ids=IDS)
    async def test_a_second_name_is_refused_where_it_is_written(self, log: Path, name: str, entry: Entry) -> None:
        """Who writes would change what another backup has, too; a backup that shares what has not changed can be read."""
        named_twice(log / name)
        if entry is not written:
            await entry(log)
            return
        with pytest.raises(LogUnavailableError, match=r"\(hard links\)") as caught:
            await entry(log)
        assert str(log / name) in str(caught.value)
        await entry(log, allow_shared_directory=True)

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
    @pytest.mark.parametrize("name", [*FILES, *DIRECTORIES])
    @pytest.mark.parametrize("entry", ENTRIES, ids=IDS)
    async def test_a_part_of_another_user_is_refused(self, log: Path, name: str, entry: Entry) -> None:
        """The file's owner is named."""
        given_away(log / name)
        with pytest.raises(LogUnavailableError, match="belongs to user 12345"):
            await entry(log)
        await entry(log, allow_shared_directory=True)

    @pytest.mark.parametrize("entry", READERS, ids=IDS[1:])
    async def test_a_directory_that_is_not_there(self, tmp_path: Path, entry: Entry) -> None:
        """The error says so, and gives no advice about the disk."""
        with pytest.raises(LogUnavailableError, match=r"no log|No such file or directory; check the path") as caught:
            await entry(tmp_path / "missing")
        assert "check the disk" not in str(caught.value)

    @pytest.mark.parametrize("command", ["stats", "doctor", "verify", "backup {copy}", "restore {log} {copy}"])
    async def test_commands_refuse_it_and_can_be_told(self, log: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
        """The way out of the message works, word for word."""
        writable(log / "events.db", 0o020)
        given = command.format(log=log, copy=log.parent / "copy").split()
        state_dir = [] if given[0] == "restore" else ["--state-dir", str(log)]
        assert await asyncio.to_thread(main, [*given, *state_dir]) == 4
        assert f"chmod -R go-w {log}, or take it as it is with --allow-shared-directory" in capsys.readouterr().err
        assert await asyncio.to_thread(main, [*given, *state_dir, "--allow-shared-directory"]) == 0

    async def test_can_be_allowed(self, log: Path) -> None:
        """Who says so gets it, as a setting and as an argument of setup."""
        writable(log, 0o077)
        writable(log / "events.db", 0o022)
        await opened(log, allow_shared_directory=True)
        await opened(log, allow_shared_directory=True, read_only=True)
        symphony = Symphony(persistence_enabled=True)
        await symphony.setup(log, allow_shared_directory=True)
        await symphony.close()

    async def test_all_that_stands_beside_the_log_can_be_allowed(self, log: Path) -> None:
        """A volume whose group may write all that is in it: the audit trail is built there, and requests are taken."""
        for path in (log, *log.rglob("*")):
            writable(path, 0o020)
        (log / "inbox").mkdir(exist_ok=True)
        writable(log / "inbox", 0o020)
        writable(leave_request(log, Request(verb="cancel", run="nothing")), 0o020)
        inbox = FileInbox(log, allow_shared=True)
        (found,) = inbox.waiting()
        inbox.close()
        assert isinstance(found, Request)
        async with Symphony({"state_dir": str(log), "allow_shared_directory": True}, persistence_enabled=True) as symphony:
            assert await symphony.audit.find(event="AgentCreated")
            watch = symphony._inbox
            assert watch is not None
            assert await watch.begun() is not None

    async def test_the_directory_may_be_reached_by_a_link(self, log: Path) -> None:
        """Who names it knows where it leads."""
        (log.parent / "alias").symlink_to(log)
        await opened(log.parent / "alias")

    async def test_others_may_read(self, log: Path) -> None:
        """What they see is for its owner to decide (`doctor` tells)."""
        writable(log, 0o055)
        writable(log / "events.db", 0o044)
        await opened(log)


TRIGGER = "AFTER INSERT ON {} BEGIN UPDATE log_settings SET value = 'owned' WHERE name = 'log_id'; END"


class TestTheSchema:
    @pytest.mark.parametrize(
        "statements",
        [
            *[[f"CREATE TRIGGER {name} {TRIGGER.format('stored_events')}"] for name in ("evil", "sqliteX", "SQLITEx", "_litestream_lock")],
            ["CREATE TABLE _litestream_seq (id)", f"CREATE TRIGGER t {TRIGGER.format('_litestream_seq')}"],
            ["CREATE VIEW _litestream_seq AS SELECT 1"],
            ["CREATE INDEX _litestream_seq ON stored_events (topic)"],
            ["CREATE INDEX more ON stored_events (abs(position))"],
            ["CREATE TABLE sqliteX (a)"],
            ["CREATE VIRTUAL TABLE words USING fts5(a)"],
        ],
    )
    async def test_what_is_not_the_logs_is_refused(self, log: Path, statements: list[str]) -> None:
        """Whatever it is called: no pattern lets it through."""
        database = sqlite3.connect(log / "events.db")
        for statement in statements:
            database.execute(statement)
        database.commit()
        database.close()
        for read_only in (True, False):
            with pytest.raises(LogDamagedError, match="schema"):
                await opened(log, read_only=read_only)

    @pytest.mark.parametrize("name", ["sqlite_evil", "sqlite_sequence", "sqlite_autoindex_tracking_1"])
    async def test_names_of_sqlite_hide_nothing(self, log: Path, name: str) -> None:
        """A name that SQLite keeps for itself can be written into its table of the schema all the same."""
        database = sqlite3.connect(log / "events.db")
        database.execute(f"CREATE TRIGGER evil {TRIGGER.format('stored_events')}")
        database.execute("PRAGMA writable_schema=ON")
        database.execute("UPDATE sqlite_master SET name = ?, sql = replace(sql, 'evil', ?) WHERE name = 'evil'", (name, name))
        database.commit()
        database.close()
        with pytest.raises((LogDamagedError, LogUnavailableError)):
            await opened(log)

    async def test_what_sqlite_counts_is_no_change(self, log: Path) -> None:
        """ANALYZE leaves tables of its own."""
        database = sqlite3.connect(log / "events.db")
        database.execute("ANALYZE")
        database.commit()
        database.close()
        await opened(log)


async def test_a_copy_is_a_log(log: Path) -> None:
    """Copied with its modes, or with those of the usual umask."""
    shutil.copytree(log, log.parent / "copy")
    await opened(log.parent / "copy")
