"""A snapshot's file as bytes: whether it is whole, without looking at what it holds. Blocking."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from symphony_es.core.state.snapshots.format import TRAILER_BYTES, hashed_trailer_bytes
from symphony_es.core.state.snapshots.reading import SnapshotReader

__all__ = ["is_whole", "read_hashed"]

_PIECE_BYTES = 1024 * 1024


def read_hashed(path: Path, size_bytes: int, take: Callable[[bytes], object]) -> bytes:
    """Hand a file's bytes on piece by piece; returns the hash of those that its own hash is about."""
    left = size_bytes - TRAILER_BYTES + hashed_trailer_bytes()
    digest = sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            take(piece)
            digest.update(piece[:left])
            left = max(left - len(piece), 0)
    return digest.digest()


def is_whole(path: Path, hashed: bytes) -> bool:
    """Whether a hash of `read_hashed` is the one that a snapshot's trailer has.

    Raises:
        SnapshotDamagedError: it is no snapshot.
    """
    with SnapshotReader(path) as reader:
        return reader.trailer.sha256 == hashed
