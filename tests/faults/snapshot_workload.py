"""What the power-loss test of storage and snapshots runs; after each step it prints the step's number.

`python -m tests.faults.snapshot_workload DIRECTORY`
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from symphony_es.core.state.files.atomic import FileStorageProvider
from symphony_es.core.state.snapshots.store import SnapshotStore
from symphony_es.events.fold import EntityState

ANCHOR = (b"e" * 16, b"c" * 32, 1)

Expected = tuple[dict[str, bytes], dict[int, dict[str, int]]]
"""Values by key; of each snapshot, by position, the versions of its entities."""

AFTER_STEP: list[Expected] = [
    ({}, {}),
    ({"a": b"1"}, {}),
    ({"a": b"2", "b/b": b"2", "C": b"2"}, {}),
    ({"a": b"2", "b/b": b"3", "C": b"2"}, {}),
    ({"a": b"2", "b/b": b"3"}, {}),
    ({"a": b"5", "b/b": b"3", "d": b"5"}, {}),
    ({"a": b"5", "b/b": b"3", "d": b"5"}, {1: {"E:1": 1, "E:2": 1}}),
    ({"a": b"5", "b/b": b"3", "d": b"5"}, {1: {"E:1": 1, "E:2": 1}, 2: {"E:1": 1, "E:2": 2, "E:3": 2}}),
    ({"a": b"5", "b/b": b"3", "d": b"5"}, {2: {"E:1": 1, "E:2": 2, "E:3": 2}}),
]


def state(number: int, version: int) -> EntityState:
    return EntityState(f"E:{number}", {"n": number}, version, version)


async def main(directory: Path) -> None:
    values, snapshots = FileStorageProvider(directory / "values"), SnapshotStore(directory / "snapshots")
    await values.store("a", b"1")
    done(1)
    async with values.create_transaction() as transaction:
        for key in ("a", "b/b", "C"):
            await transaction.store(key, b"2")
    done(2)
    await values.store("b/b", b"3")
    done(3)
    await values.delete("C")
    done(4)
    async with values.create_transaction() as transaction:
        for key in ("a", "d"):
            await transaction.store(key, b"5")
    done(5)
    base = await snapshots.write(1, ANCHOR, [state(1, 1), state(2, 1)])
    done(6)
    await snapshots.merge(base, {"E:2": state(2, 2), "E:3": state(3, 2)}, 2, ANCHOR)
    done(7)
    snapshots.delete(base)
    done(8)


def done(step: int) -> None:
    os.write(1, f"{step}\n".encode())


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
