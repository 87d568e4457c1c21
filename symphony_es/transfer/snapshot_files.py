"""A snapshot's file as bytes: whether it is whole, without looking at what it holds. Blocking."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

from symphony_es.core.past.snapshots.format import TRAILER_BYTES, hashed_trailer_bytes
from symphony_es.core.past.snapshots.reading import SnapshotReader
from symphony_es.core.past.snapshots.store import SnapshotInfo, SnapshotStore
from symphony_es.errors import SnapshotDamagedError, StorageUnavailableError
from symphony_es.transfer.progress import Stop

__all__ = ["distrust_damaged", "is_whole", "read_hashed"]

_PIECE_BYTES = 1024 * 1024
_OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})  # says nothing about the file


def read_hashed(path: Path, size_bytes: int, take: Callable[[bytes], object]) -> bytes:
    """Hand a file's bytes on piece by piece; return the hash of those that its own hash is about."""
    left = size_bytes - TRAILER_BYTES + hashed_trailer_bytes()
    digest = sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            take(piece)
            digest.update(piece[:left])
            left = max(left - len(piece), 0)
    return digest.digest()


def is_whole(path: Path, hashed: bytes) -> bool:
    """Return whether a hash of `read_hashed` is the one that a snapshot's trailer has.

    Raises:
        SnapshotDamagedError: it is no snapshot.
    """
    with SnapshotReader(path) as reader:
        return reader.trailer.sha256 == hashed


def distrust_damaged(snapshots: SnapshotStore, infos: Sequence[SnapshotInfo], stop: Stop) -> None:
    """Distrust the snapshots whose files are not what they were; those that have been thinned out meanwhile are not missed.

    Raises:
        StorageUnavailableError: the process has no memory or descriptors left to read them with.
    """
    for info in infos:
        stop.look()
        path = snapshots.directory / info.name
        try:
            hashed = read_hashed(path, info.size_bytes, lambda _: stop.look())
            if not is_whole(path, hashed):
                snapshots.distrust(info, "the hash of the whole file is wrong")
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno in _OUT_OF_RESOURCES:
                raise StorageUnavailableError(error.errno, f"{path} cannot be read: {error.strerror}") from error
            snapshots.distrust(info, f"it cannot be read ({error.strerror})")
        except SnapshotDamagedError as error:
            snapshots.distrust(info, error.why)
