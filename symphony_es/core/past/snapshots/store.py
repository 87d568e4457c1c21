"""The snapshots of one log: files that hold all entity states as they were at a position.

A snapshot is a cache of a fold, never the truth: a damaged one is reported and passed over, a missing one costs a longer replay.
Writing keeps the order of durable steps (`files.atomic`), off the event loop. The list of files is read once and kept.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from symphony_es.core.past.snapshots.format import Anchor, SnapshotInfo
from symphony_es.core.past.snapshots.merge import merged_chunks
from symphony_es.core.past.snapshots.reading import SnapshotReader
from symphony_es.core.past.snapshots.retention import superfluous_snapshots
from symphony_es.core.past.snapshots.writing import snapshot_chunks
from symphony_es.errors import SnapshotDamagedError, StorageUnavailableError
from symphony_es.events.fold import EntityState
from symphony_es.events.identifiers import SYSTEM_PREFIX
from symphony_es.files.atomic import write_file_atomically
from symphony_es.files.directory import remove_files, remove_leftovers
from symphony_es.system import given_path, present

__all__ = ["Anchor", "SnapshotInfo", "SnapshotStore"]

_SUFFIX = ".snap"
_DIGITS = 20  # as many as the largest position has, so names sort as positions do


class SnapshotStore:
    """The snapshot files in a directory, which is made when the first one is written.

    The methods that are no coroutines block: run them in a worker thread. `list` and `nearest` only do so at the first call,
    unless `open` has been awaited. Safe to use from several threads; one process writes.

    Args:
        directory: where the files are.
        keep_fraction: how much older snapshots may weigh together, as a fraction of the log (see `thin`).
        read_only: leave the directory as it is; leftovers of a crash are not removed.
    """

    def __init__(self, directory: Path | str, *, keep_fraction: float = 0.125, read_only: bool = False) -> None:
        self.directory = given_path(directory, "directory")
        self.keep_fraction = keep_fraction
        self.read_only = read_only
        self._lock = threading.Lock()
        self._infos: dict[str, SnapshotInfo] | None = None
        self._damaged: dict[str, str] = {}

    async def open(self) -> SnapshotStore:
        """Read the list of files off the event loop, and remove what a crash has left. Returns itself.

        Raises:
            StorageUnavailableError: the directory cannot be read.
        """
        await asyncio.to_thread(self.list)
        return self

    def list(self) -> list[SnapshotInfo]:
        """Return all snapshots whose header and trailer are whole, the newest first. Others are in `damaged`.

        Raises:
            StorageUnavailableError: the directory cannot be read.
        """
        with self._lock:
            return sorted(self._known().values(), key=_position, reverse=True)

    @property
    def damaged(self) -> Sequence[tuple[str, str]]:
        """Snapshots that cannot be trusted, as (name, why), sorted by name."""
        with self._lock:
            self._known()
            return sorted(self._damaged.items())

    def _known(self) -> dict[str, SnapshotInfo]:
        if self._infos is None:
            self._infos = self._scan()
        return self._infos

    def _scan(self) -> dict[str, SnapshotInfo]:
        infos: dict[str, SnapshotInfo] = {}
        try:
            if not self.read_only:
                remove_leftovers(self.directory)
            names = sorted(path.name for path in self.directory.iterdir() if _position_of(path.name) is not None)
        except FileNotFoundError:
            return infos
        except OSError as error:
            raise StorageUnavailableError(error.errno, f"{self.directory} cannot be read: {error.strerror}") from error
        for name in names:
            try:
                infos[name] = self._read_info(name)
            except SnapshotDamagedError as error:
                self._damaged[name] = error.why
        return infos

    def _read_info(self, name: str) -> SnapshotInfo:
        with SnapshotReader(self.directory / name) as reader:
            if reader.info.position != _position_of(name):
                raise SnapshotDamagedError(name, f"it is the snapshot of position {reader.info.position}")
            return reader.info

    def nearest(self, position: int) -> SnapshotInfo | None:
        """Return the newest snapshot at or before a position."""
        return next((info for info in self.list() if info.position <= position), None)

    def distrust(self, info: SnapshotInfo, why: str) -> None:
        """Take a snapshot off the list, and report it in `damaged`. Its file stays until `thin` finds a newer snapshot."""
        with self._lock:
            self._known().pop(info.name, None)
            self._damaged[info.name] = why

    def is_gone(self, info: SnapshotInfo) -> bool:
        """Return whether a snapshot's file is not there any more; then the list is read anew when it is asked for."""
        if present(self.directory / info.name):
            return False
        with self._lock:
            self._infos = None
        return True

    async def write(self, position: int, anchor: Anchor, states: Iterable[EntityState]) -> SnapshotInfo:
        """Write a snapshot of all states at a position; they come sorted by key and are read in a worker thread.

        One that is there for this position is replaced in one step. When the call is cancelled, the file is whole or not there.

        Raises:
            ConfigurationError: the states are not sorted by key.
            LimitExceededError: a state does not fit the format.
            StorageUnavailableError: disk full, read-only or I/O error. No new file is there, nor a part of one.
        """
        return await self._write(position, snapshot_chunks(position, anchor, states))

    async def merge(
        self, base: SnapshotInfo, changed: Mapping[str, EntityState], position: int, anchor: Anchor, moved: Collection[str] = ()
    ) -> SnapshotInfo:
        """Write a snapshot from an earlier one and the states that have changed since (deleted ones as tombstones).

        What has not changed is copied as bytes; memory holds the changed blocks and the index, not the states. `moved` are the keys of
        those that stood in the other part of the earlier one: a run has ended, or goes on again.

        Raises:
            SnapshotDamagedError: the earlier one cannot be trusted; no new file is there.
            LimitExceededError, StorageUnavailableError: as with `write`.
        """
        reader = await asyncio.to_thread(SnapshotReader, self.directory / base.name)
        with reader:
            return await self._write(position, merged_chunks(reader, changed, position, anchor, moved))

    async def _write(self, position: int, chunks: Iterable[bytes]) -> SnapshotInfo:
        name = f"{position:0{_DIGITS}d}{_SUFFIX}"
        await write_file_atomically(self.directory / name, chunks)
        info = await asyncio.to_thread(self._read_info, name)
        with self._lock:
            self._known()[name] = info
            self._damaged.pop(name, None)
        return info

    def read_all(self, info: SnapshotInfo) -> dict[str, EntityState]:
        """Return all states of a snapshot, tombstones of deleted entities included, by key.

        Raises:
            SnapshotDamagedError: any check value, or the hash of the file, is wrong.
        """
        with self._open(info) as reader:
            return reader.read_all()

    def read_some(self, info: SnapshotInfo, keys: Iterable[str]) -> dict[str, EntityState]:
        """Return the states or tombstones of those keys that the snapshot has, by key.

        Costs the blocks they are in, however large the snapshot is; each of these is read and verified once, and nothing else.

        Raises:
            SnapshotDamagedError: what had to be read for them is damaged.
        """
        with self._open(info) as reader:
            return reader.read_some(keys)

    def read_alive(self, info: SnapshotInfo) -> dict[str, EntityState]:
        """Return the states of a snapshot that are not at rest, by key: costs these, however much is at rest.

        Raises:
            SnapshotDamagedError: what had to be read for them is damaged.
        """
        with self._open(info) as reader:
            return reader.read_alive()

    def keys_at_rest(self, info: SnapshotInfo, prefixes: Iterable[str]) -> Sequence[str]:
        """Return the keys at rest that begin with one of some texts.

        Raises:
            SnapshotDamagedError: what had to be read for them is damaged.
        """
        with self._open(info) as reader:
            return reader.keys_at_rest(prefixes)

    def live_keys(self, info: SnapshotInfo) -> Sequence[str]:
        """Return the keys of all entities that are alive in a snapshot.

        Raises:
            SnapshotDamagedError: a block or the index is damaged.
        """
        with self._open(info) as reader:
            return reader.live_keys()

    def count_living(self, info: SnapshotInfo) -> Counter[str]:
        """Return how many of the application's entities are alive in a snapshot, by type.

        Raises:
            SnapshotDamagedError: a block or the index is damaged.
        """
        counted: Counter[str] = Counter()
        with self._open(info) as reader:
            for key in reader.each_live_key():
                if not key.startswith(SYSTEM_PREFIX):
                    counted[key.partition(":")[0]] += 1
        return counted

    def _open(self, info: SnapshotInfo) -> SnapshotReader:
        return SnapshotReader(self.directory / info.name)

    def delete(self, info: SnapshotInfo) -> bool:
        """Remove a snapshot for good; False when it was not there.

        Raises:
            StorageUnavailableError: its file cannot be removed.
        """
        return bool(self._remove([info.name]))

    def thin(self, log_bytes: int) -> Sequence[SnapshotInfo]:
        """Remove snapshots that are not worth their room, and return them.

        The newest is kept, and older ones while they weigh at most `keep_fraction` of the log's `log_bytes` together; the one
        whose removal leaves the smallest gap goes first. Damaged files that are older than the newest snapshot go, too.

        Raises:
            StorageUnavailableError: a file cannot be removed; those before it are gone.
        """
        infos = self.list()
        removed = superfluous_snapshots(infos, log_bytes, self.keep_fraction)
        names = [info.name for info in removed]
        names += [name for name, _ in self.damaged if infos and name < infos[0].name]
        self._remove(names)
        return removed

    def _remove(self, names: Sequence[str]) -> Sequence[Path]:
        with self._lock:
            removed = remove_files([self.directory / name for name in names])
            for name in names:
                self._known().pop(name, None)
                self._damaged.pop(name, None)
        return removed


def _position_of(name: str) -> int | None:
    """Return the position in a file's name; None when it is no snapshot's name."""
    digits = name.removesuffix(_SUFFIX)
    return int(digits) if name.endswith(_SUFFIX) and len(digits) == _DIGITS and digits.isascii() and digits.isdigit() else None


def _position(info: SnapshotInfo) -> int:
    return info.position
