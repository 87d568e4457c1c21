"""Files that are there as a whole or not at all, whatever happens while they are written, and the directories they are in."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiofiles.threadpool.binary import AsyncFileIO

from symphony_es.errors import StorageUnavailableError
from symphony_es.files.atomic import write_file_atomically
from symphony_es.files.directory import make_directory, remove_files, remove_leftovers, sync_directory

ROOT = Path(__file__).parents[2]
OLD, NEW = b"old", b"n" * 3_000_000


def new() -> Iterator[bytes]:
    """NEW, in chunks that make several pieces."""
    return (NEW[at : at + 300_000] for at in range(0, len(NEW), 300_000))


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.rglob("*") if path.is_file())


class TestWriting:
    async def test_a_file_is_put_in_place_and_replaced(self, tmp_path: Path) -> None:
        """With the directories above it; all of it private: 0700 and 0600."""
        target = tmp_path / "a" / "b" / "file"
        await write_file_atomically(target, [OLD])
        assert target.read_bytes() == OLD
        await write_file_atomically(str(target), [b"", b"n", b"", b"ew"])
        assert target.read_bytes() == b"new"
        await write_file_atomically(target, [])
        assert target.read_bytes() == b""
        assert {stat.S_IMODE(path.stat().st_mode) for path in (target.parent, target.parent.parent)} == {0o700}
        assert stat.S_IMODE(target.stat().st_mode) == 0o600
        assert names(tmp_path) == ["file"]

    async def test_chunks_are_written_in_pieces_without_stopping_the_loop(self, tmp_path: Path) -> None:
        """From plain and asynchronous iterables; an error of the iterable leaves nothing."""

        async def asynchronous() -> AsyncIterator[bytes]:
            for _ in range(3):
                yield b"y" * 100

        await write_file_atomically(tmp_path / "a", new())
        await write_file_atomically(tmp_path / "b", asynchronous())
        assert (tmp_path / "a").read_bytes() == NEW
        assert (tmp_path / "b").read_bytes() == b"y" * 300

        def broken() -> Iterator[bytes]:
            yield b"z"
            raise ValueError("stop")

        with pytest.raises(ValueError, match="stop"):
            await write_file_atomically(tmp_path / "a", broken())
        assert (tmp_path / "a").read_bytes() == NEW
        assert names(tmp_path) == ["a", "b"]

    async def test_plain_chunks_are_made_in_a_thread(self, tmp_path: Path) -> None:
        """What computes them holds nobody up."""
        made_in = []

        def chunks() -> Iterator[bytes]:
            made_in.append(threading.current_thread())
            yield b"x"

        await write_file_atomically(tmp_path / "a", chunks())
        assert threading.current_thread() not in made_in

    async def test_a_file_system_may_take_less_than_it_was_given(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The rest is written after it."""
        real = AsyncFileIO.write

        async def little(self: AsyncFileIO, data: Any) -> int:
            return await real(self, data[:100_001])

        monkeypatch.setattr(AsyncFileIO, "write", little)
        content = os.urandom(1_000_000)
        await write_file_atomically(tmp_path / "a", [content])
        assert (tmp_path / "a").read_bytes() == content

    async def test_a_link_in_its_place_is_replaced_and_not_followed(self, tmp_path: Path) -> None:
        """What it leads to is left alone."""
        (tmp_path / "elsewhere").write_bytes(OLD)
        (tmp_path / "a").symlink_to(tmp_path / "elsewhere")
        await write_file_atomically(tmp_path / "a", [b"new"])
        assert ((tmp_path / "a").is_symlink(), (tmp_path / "a").read_bytes()) == (False, b"new")
        assert (tmp_path / "elsewhere").read_bytes() == OLD

    async def test_of_many_at_once_one_is_there(self, tmp_path: Path) -> None:
        """None of them mixed with another."""
        contents = [bytes([number]) * 100_000 for number in range(20)]
        await asyncio.gather(*(write_file_atomically(tmp_path / "a", [content]) for content in contents))
        assert (tmp_path / "a").read_bytes() in contents
        assert names(tmp_path) == ["a"]


OPERATIONS = {"open": os, "mkdir": os, "write": AsyncFileIO, "fsync": os, "replace": os, "stat": os}


class TestBadLuck:
    @pytest.mark.parametrize("call", OPERATIONS)
    @pytest.mark.parametrize("before", [OLD, None])
    async def test_a_disk_that_fails_at_any_operation(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, before: bytes | None
    ) -> None:
        """An I/O error once, at each operation in turn: a typed error, the old file or the new one, no temporary file."""
        real, outcomes = getattr(OPERATIONS[call], call), set()
        for point in range(1, 20):
            target = tmp_path / f"{point}" / "directory" / "file"
            if before is not None:
                await write_file_atomically(target, [before])
            left = point

            def failing(*arguments: Any, **named: Any) -> Any:
                nonlocal left
                if str(tmp_path) in str(arguments[0]) or call in ("write", "fsync"):
                    left -= 1
                    if not left:
                        raise OSError(errno.EIO, "Input/output error")
                return real(*arguments, **named)

            raised = False
            with monkeypatch.context() as patch:
                patch.setattr(OPERATIONS[call], call, failing)
                try:
                    await write_file_atomically(target, new())
                except StorageUnavailableError as error:
                    raised = error.errno == errno.EIO
                    assert "Input/output error" in str(error)  # noqa: PT017  the last point raises nothing
            there = target.read_bytes() if target.exists() else None
            assert there in (before, NEW)
            assert raised or there == NEW
            assert names(tmp_path / f"{point}") == ([] if there is None else ["file"])
            outcomes.add((raised, there))
            if left > 0:
                break
        assert (False, NEW) in outcomes, "the loop must reach the point where nothing fails any more"
        assert (True, before) in outcomes or (call, before) == ("mkdir", OLD)

    async def test_what_cannot_be_removed_either_is_a_leftover(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The first error is told; `remove_leftovers` takes the temporary file away, and nothing else."""
        (tmp_path / ".hidden").write_bytes(b"")
        (tmp_path / ".file.tmp").write_bytes(b"")

        def refuse(*_: object, **__: object) -> None:
            raise OSError(errno.EROFS, "Read-only file system")

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", refuse)
            patch.setattr(os, "unlink", refuse)
            with pytest.raises(StorageUnavailableError, match="file cannot be put in place: Read-only"):
                await write_file_atomically(tmp_path / "file", new())
        assert len(names(tmp_path)) == 3
        remove_leftovers(tmp_path)
        assert names(tmp_path) == [".file.tmp", ".hidden"]

    async def test_a_file_where_the_directory_should_be(self, tmp_path: Path) -> None:
        """A typed error, and the file is left alone; the same for a directory where the file should be."""
        (tmp_path / "file").write_bytes(OLD)
        (tmp_path / "directory").mkdir()
        for target in (tmp_path / "file" / "a", tmp_path / "file" / "a" / "b", tmp_path / "directory"):
            with pytest.raises(StorageUnavailableError):
                await write_file_atomically(target, new())
        assert (tmp_path / "file").read_bytes() == OLD
        assert names(tmp_path) == ["file"]

    async def test_cancelling_a_write_leaves_old_or_new(self, tmp_path: Path) -> None:
        """After however many turns of the loop, once or again and again: never a half, and no temporary file."""
        outcomes = set()
        for turns in range(60):
            target = tmp_path / f"{turns}" / "a"
            await write_file_atomically(target, [OLD])
            task = asyncio.ensure_future(write_file_atomically(target, new()))
            for _ in range(turns):
                await asyncio.sleep(0.0002)
            while not task.done():
                task.cancel()
                await asyncio.sleep(0)
                if turns % 2:
                    break
            await asyncio.wait({task})
            there = target.read_bytes()
            assert there in (OLD, NEW)
            assert task.cancelled() or there == NEW
            assert names(target.parent) == ["a"]
            outcomes.add(there)
        assert OLD in outcomes

    async def test_a_cancelled_caller_waits_for_the_thread(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Also one that is cancelled again: nothing goes on writing behind its back."""
        begun, released = threading.Event(), threading.Event()
        real = os.fsync

        def slow(descriptor: int) -> None:
            begun.set()
            released.wait(20)
            real(descriptor)

        monkeypatch.setattr(os, "fsync", slow)
        task = asyncio.ensure_future(write_file_atomically(tmp_path / "a", [b"new"]))
        await asyncio.to_thread(begun.wait, 20)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0.01)
            assert not task.done()
        released.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert names(tmp_path) == ["a"]


CRASHING = """
import asyncio, os, signal, sys
from symphony_es.files.atomic import write_file_atomically
count, point = 0, int(sys.argv[2])
def counted(name):
    real = getattr(os, name)
    def call(*arguments, **named):
        global count
        count += 1
        if count == point:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **named)
    setattr(os, name, call)
for name in ("open", "rename", "replace", "fsync", "unlink", "remove"):
    counted(name)
asyncio.run(write_file_atomically(sys.argv[1], (b"n" * 300_000 for _ in range(10))))
"""


async def test_a_crash_at_any_operation_leaves_old_or_new(tmp_path: Path) -> None:
    """kill -9 before the n-th open, fsync or rename, for every n; what it leaves goes with `remove_leftovers`."""
    outcomes = []
    for point in range(1, 20):
        target = tmp_path / f"{point}" / "file"
        await write_file_atomically(target, [OLD])
        command = [sys.executable, "-c", CRASHING, str(target), str(point)]
        child = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False)
        assert child.returncode in (0, -9), child.stderr
        remove_leftovers(target.parent)
        assert names(target.parent) == ["file"]
        outcomes.append(target.read_bytes())
        if child.returncode == 0:
            break
    else:
        raise AssertionError("writing a file has more operations than expected")
    first = outcomes.index(NEW)
    assert first
    assert set(outcomes[first:]) == {NEW}, "once it is new, a later crash does not make it old"


REFUSING_DISK = """
import asyncio, os, resource, sys
from pathlib import Path
from symphony_es.files.atomic import write_file_atomically
from symphony_es.errors import StorageUnavailableError
directory, how = Path(sys.argv[1]), sys.argv[2]
def refuse():
    if how == "full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    else:
        directory.chmod(0o500)
        if os.geteuid() == 0:
            for path in (directory, *directory.iterdir()):
                os.chown(path, 65534, 65534)
            os.seteuid(65534)
async def main():
    await write_file_atomically(directory / "file", [b"old"])
    refuse()
    for name in ("file", "other"):
        try:
            await write_file_atomically(directory / name, (b"n" * 30_000 for _ in range(10)))
        except StorageUnavailableError as error:
            assert error.errno, error
        else:
            raise AssertionError("the disk has taken it")
    assert [path.name for path in directory.iterdir()] == ["file"]
    assert (directory / "file").read_bytes() == b"old"
asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_a_disk_that_refuses_leaves_everything_as_it_was(how: str) -> None:
    """Full in the middle of a file, or read-only: a typed error, the earlier file whole, no temporary file."""
    with tempfile.TemporaryDirectory() as directory:  # pytest's own is closed to the user that the child becomes when it is root
        command = [sys.executable, "-c", REFUSING_DISK, directory, how]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


class TestDirectories:
    def test_they_are_made_durable(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each new level is synced into the one above; a missing one to sync is a typed error."""
        synced = []
        real = os.fsync

        def noting(descriptor: int) -> None:
            synced.append(os.fstat(descriptor).st_ino)
            real(descriptor)

        monkeypatch.setattr(os, "fsync", noting)
        make_directory(tmp_path / "a" / "b" / "c")
        assert (tmp_path / "a" / "b" / "c").is_dir()
        assert synced == [path.stat().st_ino for path in (tmp_path, tmp_path / "a", tmp_path / "a" / "b")]
        make_directory(tmp_path / "a" / "b" / "c")
        assert len(synced) == 3
        with pytest.raises(StorageUnavailableError):
            sync_directory(tmp_path / "missing")

    def test_files_are_removed_for_good(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Those that were there are told; one that cannot be removed is a typed error, and those before it are gone."""
        for name in "abc":
            (tmp_path / name).write_bytes(b"")
        assert remove_files([tmp_path / "missing", tmp_path / "a"]) == [tmp_path / "a"]
        real = os.unlink

        def refusing(path: Any, **named: Any) -> None:
            if Path(path).name == "c":
                raise OSError(errno.EPERM, "Operation not permitted")
            real(path, **named)

        monkeypatch.setattr(os, "unlink", refusing)
        with pytest.raises(StorageUnavailableError, match="c cannot be removed: Operation not permitted"):
            remove_files([tmp_path / "b", tmp_path / "c"])
        assert names(tmp_path) == ["c"]
