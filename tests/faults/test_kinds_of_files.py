"""A state directory of a stranger: named pipes, links and directories in the places of files. Nothing waits for them or follows them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from symphony_es import Symphony
from symphony_es.errors import LogUnavailableError
from symphony_es.log.head_note import noted_head
from symphony_es.transfer import backup, restore, verify
from tests.application import Customer
from tests.transfer.logs import make_log, rows_of

ROWS = rows_of(3)
KINDS: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "link": lambda path: path.symlink_to(os.devnull),
    "loop": lambda path: path.symlink_to(path.name),
    "directory": Path.mkdir,
}


def put(kind: str, path: Path) -> None:
    path.unlink(missing_ok=True)
    KINDS[kind](path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["LOCK", "events.db", "events.db-head", "events.db-wal", "events.db-shm"])
async def test_files_of_a_log_are_plain_ones(tmp_path: Path, name: str, kind: str) -> None:
    """Verifying, backing up and restoring look at the kinds of files first, as opening does: none is opened that is no plain file."""
    directory = make_log(tmp_path / "log", ROWS)
    put(kind, directory / name)
    for call in (
        lambda: verify(directory),
        lambda: backup(directory, tmp_path / "backup"),
        lambda: restore(directory, tmp_path / "restored"),
        lambda: Symphony(directory, read_only=True).setup(),
        lambda: Symphony(directory).setup(),
    ):
        with pytest.raises(LogUnavailableError, match=f"{name} is not a regular file"):
            await call()
    assert sorted(os.listdir(tmp_path)) == ["log"]


@pytest.mark.parametrize("kind", ["pipe", "link"])
@pytest.mark.parametrize("name", ["projections", "snapshots"])
async def test_directories_of_a_log_are_directories(tmp_path: Path, name: str, kind: str) -> None:
    """The same holds for the directories in it."""
    directory = make_log(tmp_path / "log", ROWS)
    put(kind, directory / name)
    for call in (lambda: verify(directory), lambda: backup(directory, tmp_path / "backup")):
        with pytest.raises(LogUnavailableError, match=f"{name} is not a directory"):
            await call()


@pytest.mark.parametrize("ending", ["audit.current", "db", "db-sums", "db-wal", "list.db", "list.db-sums"])
async def test_files_of_a_read_model_are_plain_ones(tmp_path: Path, ending: str) -> None:
    """A pipe in the place of one is damage of the read model: the log answers readers, `verify` goes on, and the writer builds it anew."""
    async with Symphony(tmp_path / "log") as symphony:
        symphony.entities.add(Customer(id="1"))
        await symphony.create_checkpoint("c")
        await symphony.audit.find()
        await symphony.list_checkpoints()
    places = tmp_path / "log" / "projections"
    stem = "checkpoint_list" if ending.startswith("list.") else "audit"
    path = places / ending
    if ending != "audit.current":
        (database,) = places.glob(f"{stem}*.db")
        path = database.with_suffix(f".{ending.removeprefix('list.')}")
    put("pipe", path)
    report = await verify(tmp_path / "log")
    assert report.ok
    if not ending.endswith("current"):
        assert [name for name, _ in report.damaged_read_models] == [stem]
    for read_only in (True, False):
        async with Symphony(tmp_path / "log", read_only=read_only) as symphony:
            assert len(await symphony.audit.find()) == 2
            assert len(await symphony.list_checkpoints()) == 1
    assert (await verify(tmp_path / "log")).damaged_read_models == ()


async def test_a_database_of_somebody_else_is_no_read_model(tmp_path: Path) -> None:
    """An empty file in the place of a read model's is damage, which `verify` names."""
    async with Symphony(tmp_path / "log") as symphony:
        symphony.entities.add(Customer(id="1"))
        await symphony.audit.find()
    (database,) = (tmp_path / "log" / "projections").glob("audit.*.db")
    database.write_bytes(b"")
    report = await verify(tmp_path / "log")
    assert [name for name, _ in report.damaged_read_models] == ["audit"]


def test_a_note_is_as_long_as_a_note(tmp_path: Path) -> None:
    """A file of a terabyte in the place of the note of the head costs nothing."""
    with (tmp_path / "events.db-head").open("wb") as file:
        file.truncate(1 << 40)
    assert noted_head(tmp_path / "events.db-head", bytes(16)) == (0, 0)


async def test_check_values_are_as_long_as_their_file_is(tmp_path: Path) -> None:
    """A file of a terabyte in the place of a read model's check values is damage, and is not read."""
    async with Symphony(tmp_path / "log") as symphony:
        symphony.entities.add(Customer(id="1"))
        await symphony.audit.find()
    (database,) = (tmp_path / "log" / "projections").glob("audit.*.db")
    with database.with_name(f"{database.name}-sums").open("wb") as file:
        file.truncate(1 << 40)
    report = await verify(tmp_path / "log")
    assert [name for name, _ in report.damaged_read_models] == ["audit"]
