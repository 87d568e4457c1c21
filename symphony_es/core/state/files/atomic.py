"""Files of the state directory that are there as a whole or not at all, and a key/value storage made of them.

The order of durable steps, which every file of this library outside the database keeps (`write_file_atomically`):

1. write a temporary file beside the target (O_CREAT|O_EXCL|O_NOFOLLOW, mode 0600);
2. fsync it, so that its name never stands for bytes that could still be lost;
3. rename it over the target;
4. fsync the directory, so that the name is kept.

A transaction of the storage takes steps 1 and 2 for every value and fsyncs the directory; then it writes a journal that names the
temporary files, in the same four steps: with the last of them it is decided. Then come the renames, an fsync of the directory, and
the journal's removal. A journal that is found is carried out to its end, and doing so again changes nothing: a file that is not
there any more has been renamed already. This is the only module of the core that imports aiofiles.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import threading
import time
from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from symphony_es.core.state.files.directory import (
    discard,
    make_directory,
    read_file,
    remove_files,
    remove_leftovers,
    sync_directory,
    unavailable,
)
from symphony_es.core.state.files.transaction import StorageTransaction, check_value
from symphony_es.core.state.files.values import (
    JOURNAL_KEY,
    MAX_HEAD_BYTES,
    MAX_VALUE_BYTES,
    check_storage_key,
    decode_journal,
    decode_value_file,
    encode_journal,
    encode_value_file,
    file_name_of,
    is_hashed_name,
    key_in_value_file,
    key_of_file_name,
    value_file_bytes,
)
from symphony_es.errors import LimitExceededError, StorageUnavailableError
from symphony_es.system import given_path, lock, present, sync

__all__ = ["FileStorageProvider", "StorageTransaction", "write_file_atomically"]

T = TypeVar("T")

_PIECE_BYTES = 1024 * 1024  # one write: large enough to be cheap, small enough to be stopped between two of them
_LOCK_WAIT_S = 10.0  # a transaction of another process takes milliseconds; after this long something is wrong with it
_LOCK_POLL_S = 0.005
_JOURNAL_NAME = ".journal"
_LOCK_NAME = ".lock"


async def write_file_atomically(path: Path | str, chunks: Iterable[bytes] | AsyncIterable[bytes]) -> None:
    """Put a file in place so that a reader, or a start after a crash, sees the old one or the new one, whole.

    The chunks of a plain iterable are produced in a worker thread. Missing directories are made (0700). A call that is cancelled
    stops before the rename or finishes it; it leaves no temporary file behind.

    Raises:
        StorageUnavailableError: disk full, read-only or I/O error; what was there before is there now. (Only when the directory's
            own fsync fails may the new file be there, and be lost with the power.)
    """
    target = given_path(path, "path")
    stop = threading.Event()
    await _to_the_end(_write_and_rename(target, chunks, stop), stop)


async def _write_and_rename(target: Path, chunks: Iterable[bytes] | AsyncIterable[bytes], stop: threading.Event) -> None:
    await asyncio.to_thread(make_directory, target.parent)
    temporary = await _write_temporary(target, chunks, stop)
    try:
        with unavailable(f"{target.name} cannot be put in place"):
            await asyncio.to_thread(temporary.replace, target)
    except BaseException:
        discard(temporary)
        raise
    await asyncio.to_thread(sync_directory, target.parent)


async def _write_temporary(target: Path, chunks: Iterable[bytes] | AsyncIterable[bytes], stop: threading.Event) -> Path:
    """Steps 1 and 2; returns the temporary file's path. Nothing is left of it when this fails."""
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
    try:
        import aiofiles  # late: a log that is not heavy enough for a snapshot writes no such file

        with unavailable(f"{target.name} cannot be written"):
            async with aiofiles.open(temporary, "xb", buffering=0, opener=_create) as file:
                async for piece in _pieces(chunks):
                    if stop.is_set():
                        raise asyncio.CancelledError
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
    """The next chunks, up to a piece; nothing at their end."""
    gathered, size = [], 0
    for chunk in iterator:
        gathered.append(chunk)
        size += len(chunk)
        if size >= _PIECE_BYTES:
            break
    return gathered[0] if len(gathered) == 1 else b"".join(gathered)


async def _to_the_end(work: Coroutine[Any, Any, T], stop: threading.Event | None = None) -> T:
    """Await work that must not be left half-way: a cancellation is held back until the work has ended, then passed on.

    A worker thread cannot be cancelled: closing its file under it would let it write into another one.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
            if stop is not None:
                stop.set()
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # taken note of: who would have handled it has been cancelled
        raise cancelled
    return task.result()


class FileStorageProvider:
    """Values under keys, each a file; every call is durable when it returns, or raises and has changed nothing.

    Keys are texts of at most 512 bytes with any characters but NUL: they never become paths (`values`). Values are bytes of
    at most 64 MiB with a checksum. Several processes may use one directory: writers take turns by a lock file. One provider is
    used from one event loop. What a crash has left is put in order at the next use.

    Args:
        path: the directory, made when the first value is stored.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = given_path(path, "path")
        self._turn = asyncio.Lock()
        self._tidied = False

    async def store(self, key: str, value: bytes) -> None:
        """Store a value, replacing the earlier one.

        Raises:
            InvalidIdentifierError: the key cannot be stored.
            UnstorableValueError, LimitExceededError: the value is not bytes, or too large.
            StorageUnavailableError: disk full, read-only, I/O error, or another process does not end its turn.
        """
        check_value(key, value)
        async with self._exclusively():
            await write_file_atomically(self._file(key), encode_value_file(key, value))

    async def retrieve(self, key: str) -> bytes | None:
        """The value under a key, or None.

        Raises:
            StoredValueDamagedError: what is there is not what was stored.
            InvalidIdentifierError, StorageUnavailableError: as with `store`.
        """
        check_storage_key(key)
        await self._put_in_order()
        return await asyncio.to_thread(_read_value, self._file(key), key)

    async def list_keys(self, prefix: str = "") -> list[str]:
        """The keys that begin with a text, sorted.

        Raises:
            StoredValueDamagedError: a file is named by the hash of a key, and does not hold it.
            StorageUnavailableError: I/O error.
        """
        await self._put_in_order()
        keys = await asyncio.to_thread(_list_keys, self.path)
        return sorted(key for key in keys if key.startswith(prefix))

    async def delete(self, key: str) -> bool:
        """Remove a value for good; False when there was none.

        Raises:
            InvalidIdentifierError, StorageUnavailableError: as with `store`.
        """
        check_storage_key(key)
        async with self._exclusively():
            return bool(await _to_the_end(asyncio.to_thread(remove_files, [self._file(key)])))

    def create_transaction(self) -> StorageTransaction:
        """A transaction: `async with provider.create_transaction() as transaction`, or await it and commit yourself."""
        return StorageTransaction(self)

    async def apply(self, values: Mapping[str, bytes]) -> None:
        """Store several values, all or none; what a transaction's commit does.

        Raises:
            StorageUnavailableError: nothing is stored; or, when the journal was in place already, the next use completes it.
            LimitExceededError: more values than a journal can name; nothing is stored.
        """
        if values:
            async with self._exclusively():
                await _to_the_end(self._commit(values))

    def _file(self, key: str) -> Path:
        return self.path / file_name_of(key)

    async def _commit(self, values: Mapping[str, bytes]) -> None:
        """The order of durable steps of a transaction, as the module's docstring tells it."""
        stop = threading.Event()
        temporaries: dict[str, Path] = {}
        try:
            for key, value in values.items():
                temporaries[key] = await _write_temporary(self._file(key), encode_value_file(key, value), stop)
            await asyncio.to_thread(sync_directory, self.path)
            journal = encode_journal([(key, path.name) for key, path in temporaries.items()])
            if len(journal) > MAX_VALUE_BYTES:
                raise LimitExceededError(f"a transaction of {len(values)} values is too large for its journal: commit parts of it")
            await _write_and_rename(self.path / _JOURNAL_NAME, [journal], stop)
        except BaseException:
            if not self._has_journal():  # else it is decided, and the next use carries it out
                for path in temporaries.values():
                    discard(path)
            raise
        await asyncio.to_thread(self._carry_out)

    def _carry_out(self) -> None:
        """Carry out the journal, if there is one. Blocking; the lock is held."""
        journal = self.path / _JOURNAL_NAME
        try:
            data = read_file(journal, JOURNAL_KEY, MAX_VALUE_BYTES)
        except FileNotFoundError:
            return
        with unavailable("a transaction cannot be completed", "it is decided, and the next use completes it"):
            for key, temporary in decode_journal(data):
                with contextlib.suppress(FileNotFoundError):
                    (self.path / temporary).replace(self._file(key))
        sync_directory(self.path)
        with unavailable("the journal of a transaction cannot be removed", "the transaction is complete"):
            journal.unlink()

    def _has_journal(self) -> bool:
        with unavailable(f"{self.path} cannot be looked at"):
            return present(self.path / _JOURNAL_NAME)

    async def _put_in_order(self) -> None:
        """Complete what a crash has left, if there is anything."""
        if await asyncio.to_thread(self._has_journal):
            async with self._exclusively():
                pass

    @contextlib.asynccontextmanager
    async def _exclusively(self) -> AsyncIterator[None]:
        """This provider's and this process's turn to write; the directory is there and in order."""
        async with self._turn:
            descriptor = await _to_the_end(asyncio.to_thread(self._open_lock))
            try:
                await _take(descriptor, self.path)
                await _to_the_end(asyncio.to_thread(self._tidy))
                yield
            finally:
                os.close(descriptor)

    def _open_lock(self) -> int:
        make_directory(self.path)
        with unavailable(f"{self.path} cannot be locked"):
            return os.open(self.path / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

    def _tidy(self) -> None:
        self._carry_out()
        if not self._tidied:
            remove_leftovers(self.path)
            self._tidied = True


def _read_value(path: Path, key: str) -> bytes | None:
    try:
        data = read_file(path, key, value_file_bytes(key, MAX_VALUE_BYTES))
    except FileNotFoundError:
        return None
    return decode_value_file(key, data)


async def _take(descriptor: int, directory: Path) -> None:
    """Lock an open file; other processes release theirs when they end, however they end."""
    deadline = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            lock(descriptor)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise StorageUnavailableError(errno.EAGAIN, f"another process has been writing in {directory} for too long") from error
            await asyncio.sleep(_LOCK_POLL_S)
        else:
            return


def _list_keys(directory: Path) -> list[str]:
    keys = []
    with unavailable(f"{directory} cannot be read"):
        for path in directory.iterdir() if present(directory) else ():
            name = path.name
            key = key_of_file_name(name)
            if key is None and is_hashed_name(name):
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                    head = read_file(path, name, MAX_VALUE_BYTES + 1024, MAX_HEAD_BYTES)
                    key = key_in_value_file(name, head)
            if key is not None:
                keys.append(key)
    return keys
