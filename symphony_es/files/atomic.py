"""Files that are there as a whole or not at all.

The order of durable steps, which every file of this library outside the database keeps (`write_file_atomically`):

1. write a temporary file beside the target (O_CREAT|O_EXCL|O_NOFOLLOW, mode 0600);
2. fsync it, so that its name never stands for bytes that could still be lost;
3. rename it over the target;
4. fsync the directory, so that the name is kept.

This is the only module of the library that imports aiofiles.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from pathlib import Path

from symphony_es.files.directory import discard, make_directory, sync_directory, unavailable
from symphony_es.files.working import Stop, to_the_end
from symphony_es.system import given_path, sync

__all__ = ["write_file_atomically"]

_PIECE_BYTES = 1024 * 1024  # one write: large enough to be cheap, small enough to be stopped between two of them


async def write_file_atomically(path: Path | str, chunks: Iterable[bytes] | AsyncIterable[bytes]) -> None:
    """Put a file in place so that a reader, or a start after a crash, sees the old one or the new one, whole.

    The chunks of a plain iterable are produced in a worker thread. Missing directories are made (0700). A call that is cancelled
    stops before the rename or finishes it; it leaves no temporary file behind.

    Raises:
        StorageUnavailableError: disk full, read-only or I/O error; what was there before is there now. (Only when the directory's
            own fsync fails may the new file be there, and be lost with the power.)
    """
    target = given_path(path, "path")
    stop = Stop()
    # A thread cannot be cancelled: closing its file under it would let it write into another one.
    await to_the_end(_write_and_rename(target, chunks, stop), stop.ask)


async def _write_and_rename(target: Path, chunks: Iterable[bytes] | AsyncIterable[bytes], stop: Stop) -> None:
    await asyncio.to_thread(make_directory, target.parent)
    temporary = await _write_temporary(target, chunks, stop)
    try:
        with unavailable(f"{target.name} cannot be put in place"):
            await asyncio.to_thread(temporary.replace, target)
    except BaseException:
        discard(temporary)
        raise
    await asyncio.to_thread(sync_directory, target.parent)


async def _write_temporary(target: Path, chunks: Iterable[bytes] | AsyncIterable[bytes], stop: Stop) -> Path:
    """Carry out steps 1 and 2; return the temporary file's path. Nothing is left of it when this fails."""
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
    try:
        import aiofiles  # late: a log that is not heavy enough for a snapshot writes no such file

        with unavailable(f"{target.name} cannot be written"):
            async with aiofiles.open(temporary, "xb", buffering=0, opener=_create) as file:
                async for piece in _pieces(chunks):
                    stop.look()
                    view = memoryview(piece)
                    while view:  # a file system may take less than it was given
                        view = view[await file.write(view) :]
                await asyncio.to_thread(sync, file.fileno())
    except BaseException:
        discard(temporary)
        raise
    return temporary


def _create(path: str, _flags: int) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


async def _pieces(chunks: Iterable[bytes] | AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    if isinstance(chunks, AsyncIterable):
        async for chunk in chunks:
            yield chunk
        return
    iterator = iter(chunks)
    while piece := await asyncio.to_thread(_gather, iterator):
        yield piece


def _gather(iterator: Iterator[bytes]) -> bytes:
    """Return the next chunks, up to a piece; nothing at their end."""
    gathered, size = [], 0
    for chunk in iterator:
        gathered.append(chunk)
        size += len(chunk)
        if size >= _PIECE_BYTES:
            break
    return gathered[0] if len(gathered) == 1 else b"".join(gathered)
