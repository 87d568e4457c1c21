"""Reading one snapshot file.

Blocking: the callers run it in a worker thread. The rule kept here: nothing is handed out whose check value is wrong, nothing is
read because of a length that the file's own size does not bear out, and no file is followed that is not a plain one.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from zlib import crc32

from symphony_es.core.past.snapshots.format import (
    ALIVE,
    HEADER_BYTES,
    RESTING,
    TRAILER_BYTES,
    BlockEntry,
    SnapshotIndex,
    SnapshotInfo,
    decode_header,
    decode_trailer,
    hashed_trailer_bytes,
)
from symphony_es.core.past.snapshots.frames import Frame, decode_block, decode_frame, split_block
from symphony_es.errors import SnapshotDamagedError, StorageUnavailableError
from symphony_es.events.fold import EntityState
from symphony_es.gc_pause import kept_objects

__all__ = ["SnapshotReader"]

_RANGE_BYTES = 1024 * 1024  # neighbouring blocks are read together up to this size
_OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})  # says nothing about the file


class SnapshotReader:
    """An open snapshot file, its header and trailer verified.

    A context manager; the file is closed at the end of the block.

    Raises:
        SnapshotDamagedError: the file is missing, unreadable or not a whole snapshot.
        StorageUnavailableError: this process has no more file descriptors or memory.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._index: SnapshotIndex | None = None
        with self._damage_reported():
            # O_NONBLOCK: opening a named pipe must not wait for its writer.
            self._descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            self.info = self._read_info()
        except BaseException:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> SnapshotReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self._descriptor)

    @contextmanager
    def _damage_reported(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in _OUT_OF_RESOURCES:
                raise StorageUnavailableError(error.errno, f"{self.name} cannot be read: {error.strerror}") from error
            raise SnapshotDamagedError(self.name, f"it cannot be read ({error.strerror})") from error

    def _read_info(self) -> SnapshotInfo:
        with self._damage_reported():
            status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise SnapshotDamagedError(self.name, "it is no plain file")
        size = status.st_size
        if size < HEADER_BYTES + TRAILER_BYTES:
            raise SnapshotDamagedError(self.name, "it is shorter than an empty snapshot")
        self._header = self._read(0, HEADER_BYTES)
        position, (event_id, commitment, time_ns) = decode_header(self.name, self._header)
        self._trailer_data = self._read(size - TRAILER_BYTES, TRAILER_BYTES)
        self.trailer = decode_trailer(self.name, self._trailer_data, size)
        return SnapshotInfo(
            position=position,
            event_id=event_id,
            commitment=commitment,
            time_ns=time_ns,
            size_bytes=size,
            resting_bytes=self.trailer.index_offset - self.trailer.resting_offset,
            entity_count=self.trailer.entities,
            name=self.name,
        )

    def _read(self, offset: int, length: int) -> bytes:
        parts = []
        with self._damage_reported():
            while length > 0:
                part = os.pread(self._descriptor, length, offset)
                if not part:
                    raise SnapshotDamagedError(self.name, "it ends before its trailer says so")
                parts.append(part)
                offset += len(part)
                length -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    @property
    def index(self) -> SnapshotIndex:
        """The index of the blocks, read when it is first asked for."""
        if self._index is None:
            start = self.trailer.index_offset
            data = self._read(start, self.info.size_bytes - TRAILER_BYTES - start)
            self._index = SnapshotIndex(self.name, data, self.trailer)
        return self._index

    def ranges(self, entries: Sequence[BlockEntry]) -> Iterator[tuple[Sequence[BlockEntry], bytes]]:
        """Yield blocks that lie side by side, as pieces of about 1 MiB; the blocks' check values are verified."""
        first = 0
        while first < len(entries):
            stop, length = first + 1, entries[first].length
            while stop < len(entries) and length + entries[stop].length <= _RANGE_BYTES:
                length += entries[stop].length
                stop += 1
            group = entries[first:stop]
            data = self._read(group[0].offset, length)
            view, at = memoryview(data), 0
            for entry in group:
                self._check_block(entry, view[at : at + entry.length])
                at += entry.length
            yield group, data
            first = stop

    def _check_block(self, entry: BlockEntry, block: memoryview) -> None:
        if crc32(block) != entry.check:
            raise SnapshotDamagedError(self.name, f"the check value of the block at byte {entry.offset} is wrong")

    def read_block(self, entry: BlockEntry) -> memoryview:
        """Return one block, its check value verified."""
        block = memoryview(self._read(entry.offset, entry.length))
        self._check_block(entry, block)
        return block

    def frames(self, entry: BlockEntry, block: memoryview, before: bytes | None) -> Iterator[Frame]:
        """Yield the frames of a block: they agree with their index entry and come before the first key of the next block."""
        keys: list[str] = []
        for frame in split_block(self.name, block):
            keys.append(frame.key)
            if len(keys) == 1 and frame.key.encode() != entry.first_key[1:]:
                break
            yield frame
        self._check_frames(entry, keys, before)

    def _check_frames(self, entry: BlockEntry, keys: Sequence[str], before: bytes | None) -> None:
        """Check that the keys of a block, in their order, are those that the index speaks of."""
        fits = len(keys) == entry.frames and keys[0].encode() == entry.first_key[1:] if keys else not entry.frames
        if not fits or (before is not None and keys and entry.first_key[:1] + keys[-1].encode() >= before):
            raise SnapshotDamagedError(self.name, f"the block at byte {entry.offset} is not what its index says")

    def read_all(self) -> dict[str, EntityState]:
        """Return every state; all check values and the hash of the whole file are verified before anything is handed out.

        Raises:
            SnapshotDamagedError: any of them is wrong.
        """
        entries = list(self.index)
        followers: dict[int, bytes] = {entry.offset: after.first_key for entry, after in pairwise(entries)}
        states: dict[str, EntityState] = {}
        digest = sha256(self._header)
        for group, data in self.ranges(entries):
            digest.update(data)
            self._decode(group, data, followers, states)
        digest.update(self.index.data)
        digest.update(self._trailer_data[: hashed_trailer_bytes()])
        if digest.digest() != self.trailer.sha256:
            raise SnapshotDamagedError(self.name, "the hash of the whole file is wrong")
        if len(states) != self.trailer.frames:
            raise SnapshotDamagedError(self.name, "its trailer counts other frames than there are")
        return states

    def _decode(self, group: Sequence[BlockEntry], data: bytes, followers: Mapping[int, bytes], states: dict[str, EntityState]) -> None:
        """Add the states of blocks that lie one behind the other; each block's frames are verified.

        Args:
            group: the blocks. data: their bytes. followers: by the offset of a block, the first key of the next one. states: grows.
        """
        view, at = memoryview(data), 0
        with kept_objects():
            for entry in group:
                made = decode_block(self.name, view[at : at + entry.length])
                at += entry.length
                self._check_frames(entry, [state.key for state in made], followers.get(entry.offset))
                states.update([(state.key, state) for state in made])

    def read_alive(self) -> dict[str, EntityState]:
        """Return every state that is not at rest; only what is read is verified: header, trailer, index, those blocks.

        Raises:
            SnapshotDamagedError: any of it is wrong.
        """
        entries = list(self.index)
        alive = [entry for entry in entries if entry.first_key[:1] == ALIVE]
        followers: dict[int, bytes] = {entry.offset: after.first_key for entry, after in pairwise(entries)}
        states: dict[str, EntityState] = {}
        for group, data in self.ranges(alive):
            self._decode(group, data, followers, states)
        return states

    def keys_at_rest(self, prefixes: Iterable[str]) -> list[str]:
        """Return the keys at rest that begin with one of some texts."""
        wanted: dict[int, list[str]] = {}
        for prefix in prefixes:
            at = RESTING + prefix.encode()
            number = max(0, self.index.find(at) or 0)
            while number < len(self.index) and self.index[number].first_key[: len(at)] <= at:
                wanted.setdefault(number, []).append(prefix)
                number += 1
        found: list[str] = []
        for number, asked in sorted(wanted.items()):
            entry = self.index[number]
            if entry.first_key[:1] == RESTING:
                chosen = tuple(asked)
                frames = self.frames(entry, self.read_block(entry), self._begins_after(number))
                found += [frame.key for frame in frames if frame.key.startswith(chosen)]
        return found

    def _begins_after(self, number: int) -> bytes | None:
        """Return the first key of the block after one; None after the last. No key of a block comes behind it, so none is read twice."""
        return self.index[number + 1].first_key if number + 1 < len(self.index) else None

    def live_keys(self) -> list[str]:
        """Return the keys of all entities that are alive; of the states nothing is decoded. Blocks and index are verified."""
        return list(self.each_live_key())

    def each_live_key(self) -> Iterator[str]:
        """Yield the same keys, one after another."""
        for group, data in self.ranges(list(self.index)):
            view, at = memoryview(data), 0
            for entry in group:
                yield from (frame.key for frame in split_block(self.name, view[at : at + entry.length]) if not frame.deleted)
                at += entry.length

    def read_some(self, keys: Iterable[str]) -> dict[str, EntityState]:
        """Return the states of those keys that the snapshot has, by way of the index; each block they are in is read once.

        Only what is read is verified: header, trailer, index, those blocks.
        """
        wanted: dict[int, set[str]] = {}
        keys = list(keys)
        find = self.index.finder(len(keys))
        for key in keys:
            for part in (ALIVE, RESTING):
                number = find(part + key.encode())
                if number is not None and self.index[number].first_key[:1] == part:
                    wanted.setdefault(number, set()).add(key)
        states: dict[str, EntityState] = {}
        for number in sorted(wanted):
            entry, chosen, before = self.index[number], wanted[number], self._begins_after(number)
            block = self.read_block(entry)
            if len(chosen) * 2 > entry.frames:  # decoding all at once costs less than decoding these one by one
                made = decode_block(self.name, block)
                self._check_frames(entry, [state.key for state in made], before)
                states.update([(state.key, state) for state in made if state.key in chosen])
                continue
            for frame in self.frames(entry, block, before):
                if frame.key in chosen:
                    states[frame.key] = decode_frame(self.name, block, frame)
        return states
