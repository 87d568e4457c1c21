"""A log that was put in place as a whole is known for one: emptied, or without its file, it is damaged, and no new one is begun there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from symphony_es import Symphony
from symphony_es.cli.main import main
from symphony_es.errors import LogDamagedError
from symphony_es.log.log import EventLog
from symphony_es.transfer import backup, export_jsonl, import_jsonl, restore, verify


async def _opened(origin: Path, to: Path) -> None:
    async with Symphony(to) as symphony:
        await symphony.create_checkpoint("made")


async def _restored(origin: Path, to: Path) -> None:
    await backup(origin, to.with_name("backup"))
    await restore(to.with_name("backup"), to)


async def _imported(origin: Path, to: Path) -> None:
    log = await EventLog.open_read_only(origin)
    try:
        await export_jsonl(log, to.with_name("export.jsonl"))
    finally:
        await log.close()
    await import_jsonl(to.with_name("export.jsonl"), to)


async def _forked(origin: Path, to: Path) -> None:
    async with Symphony(origin) as symphony:
        await symphony.fork(into=to)


WAYS: dict[str, Callable[[Path, Path], Awaitable[object]]] = {
    "written": _opened,
    "backup": backup,
    "restore": _restored,
    "import": _imported,
    "fork": _forked,
}
LOSSES: dict[str, Callable[[Path], object]] = {"emptied": lambda file: file.write_bytes(b""), "removed": Path.unlink}


async def made(tmp_path: Path, way: str) -> Path:
    """A directory that was made in this way, and that nobody has written since."""
    await _opened(tmp_path, tmp_path / "origin")
    await WAYS[way](tmp_path / "origin", tmp_path / "log")
    return tmp_path / "log"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("loss", LOSSES)
async def test_no_new_log_is_begun_where_one_was_put(tmp_path: Path, way: str, loss: str) -> None:
    directory = await made(tmp_path, way)
    LOSSES[loss](directory / "events.db")
    for resume in (None, "latest"):
        symphony = Symphony(directory)
        with pytest.raises(LogDamagedError, match="restore a backup"):
            await symphony.setup(resume=resume)
        await symphony.close()
    assert (directory / "LOCK").read_bytes() == b"clean\n"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wal", [False, True])
async def test_an_emptied_one_is_told_as_damage(tmp_path: Path, way: str, *, wal: bool) -> None:
    """One sentence, whether a write-ahead file lies there or not."""
    directory = await made(tmp_path, way)
    (directory / "events.db").write_bytes(b"")
    if wal:
        (directory / "events.db-wal").touch(mode=0o600)
    (problem,) = (await verify(directory)).problems
    assert "is empty: put back what was there, or restore a backup" in problem.what
    assert await asyncio.to_thread(main, ["checkpoints", "create", "k", "--state-dir", str(directory)]) == 5


@pytest.mark.parametrize("way", WAYS)
async def test_the_next_writer_takes_it_as_it_is(tmp_path: Path, way: str) -> None:
    directory = await made(tmp_path, way)
    head = (await verify(directory)).head
    async with Symphony(directory) as symphony:
        await symphony.create_checkpoint("next")
    report = await verify(directory)
    assert report.ok
    assert report.head == head + 1
