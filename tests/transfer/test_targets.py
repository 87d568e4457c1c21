"""What is never replaced or written into, whatever the option: logs, snapshots, read models, and what stands beside them."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from symphony_es import system
from symphony_es.core.past.forking import fork_log
from symphony_es.core.past.opening import OpenedLog, open_to_read
from symphony_es.errors import ConfigurationError, TargetOccupiedError
from symphony_es.log.log import EventLog
from symphony_es.transfer import backup, export_changes, export_cloudevents, export_csv, export_jsonl, import_jsonl, restore
from tests.transfer.logs import make_log, rows_of, snapshot_at

OWN = (
    "events.db", "events.db-wal", "events.db-shm", "events.db-journal", "events.db-head", "EVENTS.DB", "LOCK", "snapshots",
    "snapshots/00000000000000000020.snap", "snapshots/mine", "projections/symphony.audit.0123456789ab.db", "projections/new/deep", "inbox",
    "inbox/x.json", "snapshots/../events.db", "link/events.db", "link/snapshots/new",
)  # fmt: skip


@pytest.fixture
async def directory(tmp_path: Path) -> AsyncIterator[Path]:
    """A state directory with a snapshot and a read model, and a link to it; at the end it is what it was."""
    made = make_log(tmp_path / "log", rows_of(30))
    await snapshot_at(made, rows_of(30), 20)
    (made / "projections").mkdir(mode=0o700)
    (made / "projections" / "symphony.audit.0123456789ab.db").write_bytes(b"a read model")
    (tmp_path / "log" / "link").symlink_to(made)
    before = contents(made)
    yield made
    assert contents(made) == before


@pytest.fixture
async def opened(directory: Path) -> AsyncIterator[OpenedLog]:
    """The log of that directory, for reading."""
    found = await open_to_read(directory)
    yield found
    await found.close()


def contents(directory: Path) -> dict[str, str]:
    """The files below a directory, with what is in them."""
    return {
        str(path.relative_to(directory)): sha256(path.read_bytes()).hexdigest()
        for path in directory.rglob("*")
        if path.is_file() and not path.name.endswith(("-shm", "-wal"))
    }


async def refuses(called: Awaitable[Any]) -> bool:
    """Whether a call says that its target is taken."""
    try:
        await called
    except TargetOccupiedError:
        return True
    return False


async def test_no_export_goes_into_what_is_the_logs_own(directory: Path, opened: OpenedLog) -> None:
    """Each format refuses each of these names, there or not, by a link or not, and `overwrite` changes nothing."""
    for name in OWN:
        for export in (export_jsonl, export_csv, export_cloudevents):
            for overwrite in (True, False):
                assert await refuses(export(opened.log, directory / name, overwrite=overwrite)), (name, export)
        assert await refuses(export_changes(opened.history, directory / name, overwrite=True)), name


@pytest.mark.parametrize("suffix", [".gz", ".GZ", ".bz2", ".xz", ".zst", ".zip"])
async def test_no_export_has_the_name_of_a_compressed_file(opened: OpenedLog, tmp_path: Path, suffix: str) -> None:
    """None is compressed: what opens it by its name would find it damaged."""
    target = tmp_path / f"export.jsonl{suffix}"
    exports = [export(opened.log, target) for export in (export_jsonl, export_csv, export_cloudevents)]
    for exporting in (*exports, export_changes(opened.history, target)):
        with pytest.raises(ConfigurationError, match="exports are not compressed"):
            await exporting
    assert list(tmp_path.glob("export*")) == []


async def test_no_directory_is_made_in_what_is_the_logs_own(directory: Path, opened: OpenedLog, tmp_path: Path) -> None:
    """Neither a backup, nor a restore, an import or a fork is put there."""
    kept = tmp_path / "kept"
    await backup(directory, kept)
    await export_jsonl(opened.log, tmp_path / "kept.jsonl")
    for name in OWN:
        into = directory / name
        assert await refuses(backup(directory, into)), name
        assert await refuses(restore(kept, into)), name
        assert await refuses(import_jsonl(tmp_path / "kept.jsonl", into)), name
        assert await refuses(fork_log(opened.history, 30, into, origin=None)), name


async def test_nothing_is_put_in_the_place_of_a_mount_point(
    directory: Path, opened: OpenedLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A volume, or a file that is mounted by itself: refused before anything is built, with a place that does."""
    kept, volume, mounted = tmp_path / "kept", tmp_path / "a volume", tmp_path / "out.csv"
    await backup(directory, kept)
    await export_jsonl(opened.log, tmp_path / "kept.jsonl")
    volume.mkdir()
    mounted.touch()
    told = [f"36 35 8:1 / {str(path).replace(' ', chr(92) + '040')} rw - ext4 /dev/sda1 rw" for path in (volume, mounted)]
    monkeypatch.setattr(system, "_mountinfo", lambda: told)
    (tmp_path / "alias").symlink_to(volume.parent)
    before = sorted(tmp_path.iterdir())
    for into in (volume, tmp_path / "alias" / volume.name):
        for called in (
            backup(directory, into),
            restore(kept, into),
            import_jsonl(tmp_path / "kept.jsonl", into),
            fork_log(opened.history, 30, into, origin=None),
        ):
            with pytest.raises(TargetOccupiedError, match=r"it is a mount point, .*: choose .*/state"):
                await called
    assert await refuses(export_csv(opened.log, mounted, overwrite=True))
    assert sorted(tmp_path.iterdir()) == before
    await restore(kept, volume / "state")


async def test_a_fork_of_a_directory_whose_name_is_no_text(opened: OpenedLog, tmp_path: Path) -> None:
    """It is on record with escapes."""
    await fork_log(opened.history, 30, tmp_path / "fork", origin="/srv/a\udcffb")
    forked = await EventLog.open_read_only(tmp_path / "fork")
    (first,) = [event async for page in forked.read(until=1) for event in page]
    await forked.close()
    assert first.changes[0][2]["directory"] == "/srv/a\\xffb"


@pytest.mark.parametrize("database", ["missing", "empty"])
async def test_commits_whose_database_is_gone_are_not_removed(directory: Path, tmp_path: Path, database: str) -> None:
    """A directory with a write-ahead file alone is no empty log; without one it is."""
    kept, into = tmp_path / "kept", tmp_path / "into"
    await backup(directory, kept)
    into.mkdir()
    (into / "LOCK").touch()
    if database == "empty":
        (into / "events.db").touch()
    (into / "events.db-wal").write_bytes(b"commits")
    with pytest.raises(TargetOccupiedError, match="commits of a database that is gone"):
        await restore(kept, into)
    assert (into / "events.db-wal").read_bytes() == b"commits"
    (into / "events.db-wal").write_bytes(b"")
    assert (await restore(kept, into)).head == 30


@pytest.mark.parametrize("kind", ["log", "snapshot", "note", "database", "in use", "lock", "beside", "journal"])
async def test_no_file_is_replaced_that_a_library_has_written_elsewhere(directory: Path, tmp_path: Path, kind: str) -> None:
    """Known by content, not by place: a copy of a log, of a snapshot or a read model under another name stays."""
    target = tmp_path / "elsewhere"
    copied = {"log": "events.db", "snapshot": "snapshots/00000000000000000020.snap", "note": "events.db-head"}
    if kind in copied:
        head = (directory / copied[kind]).read_bytes() if kind != "note" else b"symhead1" + bytes(40)
        target.write_bytes(head)
    elif kind == "database":
        with closing(sqlite3.connect(target)) as database:
            database.execute("CREATE TABLE of_mine (n)")
    elif kind == "in use":
        target.write_bytes(b"")
        target.with_name("elsewhere-wal").touch()
    elif kind == "lock":
        target = tmp_path / "LOCK"
        target.touch()
    elif kind == "beside":
        target.write_bytes(b"")
        target = tmp_path / "elsewhere-wal"
    else:
        target.write_bytes(bytes.fromhex("d9d505f920a163d7") + bytes(500))
    before = target.read_bytes() if target.exists() else None
    log = await EventLog.open_read_only(directory)
    with pytest.raises(TargetOccupiedError):
        await export_jsonl(log, target, overwrite=True)
    await log.close()
    assert (target.read_bytes() if target.exists() else None) == before


@pytest.mark.parametrize("name", ["events.db", "snapshots/00000000000000000020.snap", "projections/symphony.audit.0123456789ab.db"])
async def test_no_stream_writes_into_a_file_of_the_log(directory: Path, name: str) -> None:
    """As `export - >> STATE/events.db` would; the stream is refused before its first byte."""
    log = await EventLog.open_read_only(directory)
    with (directory / name).open("ab", buffering=0) as stream, pytest.raises(TargetOccupiedError, match="stream"):
        await export_csv(log, stream)
    await log.close()


async def test_what_is_free_stays_free(directory: Path, tmp_path: Path) -> None:
    """A name of one's own in a state directory, an earlier export, a stream to a file: as before."""
    log = await EventLog.open_read_only(directory)
    for target in (directory / "mine.jsonl", tmp_path / "elsewhere.csv", tmp_path / "notes-wal"):
        await export_jsonl(log, target)
        await export_jsonl(log, target, overwrite=True)
        assert target.stat().st_size
    with (directory / "mine.jsonl").open("wb", buffering=0) as stream:
        await export_csv(log, stream)
    await log.close()
    (directory / "mine.jsonl").unlink()
