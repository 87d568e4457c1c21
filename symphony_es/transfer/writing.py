"""What all exports have in common: reading the log in pages, rendering them off the event loop, and where the bytes go."""

from __future__ import annotations

import asyncio
import errno
import inspect
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from symphony_es.errors import ConfigurationError, PositionNotFoundError, StorageUnavailableError
from symphony_es.events.rows import Row
from symphony_es.files.atomic import write_file_atomically
from symphony_es.late_dataclasses import dataclass
from symphony_es.log.log import EventLog
from symphony_es.log.pages import PAGE_ROWS
from symphony_es.log.targets import check_stream
from symphony_es.shown import shown
from symphony_es.transfer.pieces import LARGE_BYTES, taken
from symphony_es.transfer.placing import absolute, building, check_free_file, put_file
from symphony_es.transfer.progress import OnProgress, Progress, in_thread

__all__ = ["ByteStream", "Digest", "ExportReport", "Rendering", "Target", "bounds", "pages", "write_out"]

COMPRESSED = frozenset({".gz", ".bz2", ".xz", ".zst", ".lz4", ".zip"})
PAGE = PAGE_ROWS
RENDERED_BYTES = 1024 * 1024
"""Bytes of the events that are rendered at once: as text they take several times as many."""


class ByteStream(Protocol):
    """Something that bytes can be written to: an open binary file, `sys.stdout.buffer`, a file of aiofiles, a pipe."""

    def write(self, data: bytes, /) -> Any:
        """Take the bytes; the result is awaited if it can be. One that returns a smaller number is called again with the rest."""
        ...


Target = Path | str | ByteStream


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """An export that was made.

    Attributes:
        first, last: positions of the first and last event; first is last + 1 when there are none.
        events: how many there are; of an export of changes, how many of them have changed what was asked for.
        rows: of an export of changes: how many changes there are.
        size_bytes: of the file.
        sha256: hash of the whole file, hexadecimal.
    """

    first: int
    last: int
    events: int
    size_bytes: int
    sha256: str
    rows: int = 0


class Digest:
    """Hash and size of what goes by."""

    def __init__(self) -> None:
        self._hash = sha256()
        self.size_bytes = 0

    def add(self, data: bytes) -> bytes:
        """Take note of bytes, and hand them on."""
        self._hash.update(data)
        self.size_bytes += len(data)
        return data

    def hexdigest(self) -> str:
        """Return the hash of all so far."""
        return self._hash.hexdigest()


async def bounds(log: EventLog, after: int, until: int | None) -> int:
    """Return the last position to export: `until`, or the head as it is now.

    Raises:
        PositionNotFoundError: `until` is after the head.
        ConfigurationError: `after` is after `until`, or negative.
    """
    head = await log.refresh_head()
    last = head if until is None else until
    if last > head:
        raise PositionNotFoundError(f"position {last} is not in the log: its head is {head}")
    if not 0 <= after <= last:
        raise ConfigurationError(f"there is nothing after position {after} and up to {last}")
    return last


class Rendering(NamedTuple):
    """How events become text.

    Attributes:
        whole: makes bytes of some events.
        pieces: makes the same of a large one, piece by piece.
    """

    whole: Callable[[Sequence[Row]], bytes]
    pieces: Callable[[Row], Iterator[str]]


async def pages(log: EventLog, after: int, until: int, rendering: Rendering, on_progress: OnProgress | None) -> AsyncIterator[bytes]:
    """Yield the events of a range as bytes, about `RENDERED_BYTES` at a time; rendered in a worker thread.

    Raises:
        DamagedEventError: an event is damaged.
    """
    progress = Progress(on_progress, until - after)
    async for rows in log.pages(after, until, PAGE):
        rows.reverse()
        while rows:  # what is written is not held
            some = _next(rows)
            if len(some[0][4]) < LARGE_BYTES:
                yield await asyncio.to_thread(rendering.whole, some)
            else:
                pieces = rendering.pieces(some[0])
                while chunk := await asyncio.to_thread(taken, pieces, RENDERED_BYTES):
                    yield chunk
            progress.tell(some[-1][0] - after)
    progress.end()


def _next(waiting: list[Row]) -> list[Row]:
    """Take the next events from the end of a list: a large one, or some small ones."""
    found, room = [waiting.pop()], RENDERED_BYTES
    room -= len(found[0][4])
    while room > 0 and waiting and len(found[0][4]) < LARGE_BYTES > len(waiting[-1][4]):
        found.append(waiting.pop())
        room -= len(found[-1][4])
    return found


async def write_out(log: EventLog, target: Target, chunks: Callable[[], AsyncIterator[bytes]], *, overwrite: bool) -> None:
    """Write chunks to a file that is there as a whole or not at all, or to a stream, as they come.

    Raises:
        ConfigurationError: its name is that of a compressed file.
        TargetOccupiedError: the file exists, and `overwrite` is not given; or it is one that is never replaced (`placing.check_free_file`).
        StorageUnavailableError: disk full, read-only or I/O error; or a stream that does not block takes no more.
    """
    if not isinstance(target, Path | str) and hasattr(target, "write"):
        if log.path is not None:
            await asyncio.to_thread(check_stream, target, log.path.parent)
        async for chunk in chunks():
            await _write_all(target, chunk)
        return
    path = absolute(target, "target")
    if path.suffix.lower() in COMPRESSED:
        raise ConfigurationError(
            f"{shown(path.name)} is the name of a compressed file, and exports are not compressed: leave {path.suffix} out, or give a "
            "stream that compresses (on the command line: export - | gzip)"
        )
    await asyncio.to_thread(check_free_file, path, overwrite=overwrite)
    async with building(path) as place:
        await write_file_atomically(place / "export", chunks())
        await in_thread(lambda _: put_file(place / "export", path, overwrite=overwrite))


async def _write_all(stream: ByteStream, data: bytes) -> None:
    """Write all of it: files without a buffer, pipes for instance, take as much as there is room for, and say how much that was."""
    while data:
        written = await asyncio.to_thread(stream.write, data)
        if inspect.isawaitable(written):
            written = await _awaited(written)
        if written == 0 or (written is None and isinstance(stream, io.RawIOBase)):
            raise StorageUnavailableError(errno.EAGAIN, "the stream takes no more bytes at the moment: pass one that blocks")
        data = data[written:] if type(written) is int else b""


async def _awaited(written: Awaitable[Any]) -> Any:
    return await written
