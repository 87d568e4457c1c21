"""Where results go, and what happens to work that is stopped: nothing goes on behind the caller's back."""

from __future__ import annotations

import asyncio
import io
import threading
from pathlib import Path
from typing import Any

import pytest

from symphony_es.errors import StorageUnavailableError
from symphony_es.log.log import EventLog
from symphony_es.transfer import backup, export_jsonl, import_jsonl
from symphony_es.transfer import backups as module
from symphony_es.transfer.progress import Stop, in_thread
from tests.transfer.logs import make_log, rows_of


class Pipe(io.RawIOBase):
    """Takes a few bytes at a time, as a pipe may; and none at all, or nothing said, in the end."""

    def __init__(self, room: int, then: int | None = None) -> None:
        self.taken = bytearray()
        self.room = room
        self.then = then

    def write(self, data: Any) -> int | None:
        count = min(100, self.room - len(self.taken), len(data))
        self.taken += data[:count]
        return count or self.then


async def test_a_stream_that_takes_a_part_gets_the_rest(tmp_path: Path) -> None:
    """What the report counts is what the stream has got, and it can be imported."""
    log = await EventLog.open_read_only(make_log(tmp_path / "log", rows_of(40)))
    pipe = Pipe(1_000_000)
    report = await export_jsonl(log, pipe)
    assert report.size_bytes == len(pipe.taken)
    (tmp_path / "export").write_bytes(pipe.taken)
    assert (await import_jsonl(tmp_path / "export", tmp_path / "copy")).events == 40
    for then in (0, None):
        with pytest.raises(StorageUnavailableError, match="takes no more"):
            await export_jsonl(log, Pipe(500, then))
    await log.close()


async def test_a_long_name_in_letters_of_several_bytes(tmp_path: Path) -> None:
    """What a file system takes as a name is exported to, and nothing is left beside it."""
    log = await EventLog.open_read_only(make_log(tmp_path / "log", rows_of(3)))
    target = tmp_path / "exports" / ("é" * 120)
    await export_jsonl(log, target)
    await log.close()
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_a_loop_that_ends_waits_for_the_thread() -> None:
    """Whoever cleans up after the work does so when the work has ended, also when all tasks are cancelled at once."""
    begun = threading.Event()
    order = []

    def work(stop: Stop) -> None:
        begun.set()
        stop._event.wait(20)
        threading.Event().wait(0.05)
        order.append("work")

    async def caller() -> None:
        try:
            await in_thread(work)
        finally:
            order.append("clean-up")

    async def main() -> None:
        task = asyncio.ensure_future(caller())
        await asyncio.to_thread(begun.wait, 20)
        assert not task.done()

    asyncio.run(main())
    assert order == ["work", "clean-up"]


async def test_a_cancellation_before_the_last_step_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backup that is complete and not yet in place is not put there."""
    directory = make_log(tmp_path / "log", rows_of(10))
    begun, released = threading.Event(), threading.Event()
    real = module.sync_directory

    def slow(path: Path) -> None:
        begun.set()
        released.wait(20)
        real(path)

    monkeypatch.setattr(module, "sync_directory", slow)
    task = asyncio.ensure_future(backup(directory, tmp_path / "backups" / "one"))
    await asyncio.to_thread(begun.wait, 20)
    task.cancel()
    await asyncio.sleep(0)
    released.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list((tmp_path / "backups").iterdir()) == []
