"""What the check value of a row costs: CRC-32 against SHA-256 cut to 4 or 8 bytes, over rows of several sizes.

Run it with `python benchmarks/check_value.py`; docs/decisions/0001-check-value.md quotes it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from hashlib import blake2b, sha256
from time import perf_counter
from zlib import adler32, crc32

HEAD = struct.Struct(">QQHH")
KEY, NAME = "Task:018f4e2a70008000", "TaskChanged"


def head(position: int, version: int) -> bytes:
    """What stands in front of the state: columns, each with a fixed width or a length."""
    name, key = NAME.encode(), KEY.encode()
    return b"".join((HEAD.pack(position, version, len(name), len(key)), name, key))


def with_crc32(state: bytes) -> int:
    """Two calls in C, no object in between."""
    return crc32(state, crc32(head(7, 3)))


def with_adler32(state: bytes) -> int:
    """The other checksum of zlib."""
    return adler32(state, adler32(head(7, 3)))


def with_sha256(state: bytes) -> bytes:
    """A hash object, an update, a digest, a cut."""
    digest = sha256(head(7, 3))
    digest.update(state)
    return digest.digest()[:8]


def with_blake2b(state: bytes) -> bytes:
    """The same with the fastest cryptographic hash of the standard library, cut by itself."""
    digest = blake2b(head(7, 3), digest_size=8)
    digest.update(state)
    return digest.digest()


def without(state: bytes) -> bytes:
    """Only what all of them need."""
    return head(7, 3)


def nanoseconds(check: Callable[[bytes], object], state: bytes, calls: int) -> float:
    """The best of seven runs, per row."""
    best = float("inf")
    for _ in range(7):
        started = perf_counter()
        for _ in range(calls):
            check(state)
        best = min(best, perf_counter() - started)
    return best / calls * 1e9


if __name__ == "__main__":
    sizes = (120, 300, 1_000, 10_000, 100_000, 1_000_000)
    print("ns per row   " + "".join(f"{size:>12,}" for size in sizes))
    for check in (without, with_crc32, with_adler32, with_sha256, with_blake2b):
        row = "".join(f"{nanoseconds(check, os.urandom(size), max(5, 20_000_000 // (size + 1000))):>12,.0f}" for size in sizes)
        print(f"{check.__name__:<13}{row}")
