"""What the power-loss test of snapshots and other whole files runs; after each step it prints the step's number.

`python -m tests.faults.snapshot_workload DIRECTORY`
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from symphony_es.core.past.snapshots.store import SnapshotStore
from symphony_es.events.fold import EntityState
from symphony_es.files.atomic import write_file_atomically
from symphony_es.files.directory import remove_files

ANCHOR = (b"e" * 16, b"c" * 32, 1)
FILES = Path("files", "deep")

Expected = tuple[dict[str, bytes], dict[int, dict[str, int]]]
"""Contents of files by name; of each snapshot, by position, the versions of its entities."""

A, B = b"a" * 3000, b"b" * 5000
FIRST = {"E:1": 1, "E:2": 1}
SECOND = {"E:1": 1, "E:2": 2, "E:3": 2}
REPLACED = {"E:1": 3, "E:4": 3}
THIRD = {"E:1": 3, "E:2": 4, "E:4": 3}

# No step may lead back to what was there two steps before: a sync that it needs could be left out unnoticed.
AFTER_STEP: list[Expected] = [
    ({}, {}),
    ({"a": A}, {}),
    ({"a": B}, {}),
    ({"a": B, "b": A}, {}),
    ({"b": A}, {}),
    ({"b": A}, {1: FIRST}),
    ({"b": A}, {1: FIRST, 2: SECOND}),
    ({"b": A}, {2: SECOND}),
    ({"b": A}, {2: REPLACED}),
    ({"b": A}, {2: REPLACED, 3: THIRD}),
    ({"b": A}, {3: THIRD}),
]


async def pieces(content: bytes) -> AsyncIterator[bytes]:
    """Chunks of an asynchronous iterable are written one by one."""
    for at in range(0, len(content), 1000):
        yield content[at : at + 1000]


def state(number: int, version: int) -> EntityState:
    return EntityState(f"E:{number}", {"n": number}, version, version)


async def main(directory: Path) -> None:
    files, snapshots = directory / FILES, SnapshotStore(directory / "snapshots")
    await write_file_atomically(files / "a", [A])
    done(1)
    await write_file_atomically(files / "a", pieces(B))
    done(2)
    await write_file_atomically(files / "b", [A])
    done(3)
    remove_files([files / "a"])
    done(4)
    first = await snapshots.write(1, ANCHOR, [state(1, 1), state(2, 1)])
    done(5)
    await snapshots.merge(first, {"E:2": state(2, 2), "E:3": state(3, 2)}, 2, ANCHOR)
    done(6)
    snapshots.delete(first)
    done(7)
    second = await snapshots.write(2, ANCHOR, [state(1, 3), state(4, 3)])
    done(8)
    await snapshots.merge(second, {"E:2": state(2, 4)}, 3, ANCHOR)
    done(9)
    snapshots.delete(second)
    done(10)


def done(step: int) -> None:
    os.write(1, f"{step}\n".encode())


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
