"""What the log's fault tests run: appends, one after another, each acknowledged position printed.

`python -m tests.faults.log_workload DIRECTORY EVENTS [--synchronous NORMAL] [--checkpoint-after BYTES]`; without an end when EVENTS is 0.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from itertools import count
from pathlib import Path

from symphony_es.events.event import EventMetadata, NewEvent
from symphony_es.log import sqlite, sqlite_connections
from symphony_es.log.log import EventLog

ENTITIES = 3


def event(number: int) -> NewEvent:
    """The event that stands at position `number`: its content follows from the position."""
    version = (number - 1) // ENTITIES + 1
    changes = [(0, (), {"n": number})] if version == 1 else [(0, ("n",), number)]
    key = f"E:{number % ENTITIES}"
    return NewEvent(
        entity_key=key, version=version, name="Changed", changes=changes, metadata=EventMetadata(), event_id=number.to_bytes(16, "big")
    )


async def main(directory: Path, events: int) -> None:
    log = await EventLog.open(directory)
    os.write(1, b"A %d\n" % log.head)
    for number in range(log.head + 1, events + 1) if events else count(log.head + 1):
        appended = await log.append([event(number)])
        os.write(1, b"A %d\n" % appended.last)
    await log.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.faults.log_workload")
    parser.add_argument("directory", type=Path)
    parser.add_argument("events", type=int)
    parser.add_argument("--synchronous", choices=["FULL", "NORMAL", "OFF"], default="FULL")
    parser.add_argument("--checkpoint-after", type=int, default=sqlite.CHECKPOINT_AFTER_BYTES, help="bytes of the write-ahead file")
    given = parser.parse_args()
    sqlite.CHECKPOINT_AFTER_BYTES = given.checkpoint_after
    expected = {"FULL": 2, "NORMAL": 1, "OFF": 0}[given.synchronous]
    sqlite_connections.WRITER_SETTINGS = tuple(
        (name, given.synchronous, expected) if name == "synchronous" else (name, *rest)
        for name, *rest in sqlite_connections.WRITER_SETTINGS
    )
    asyncio.run(main(given.directory, given.events))
