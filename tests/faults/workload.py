"""What the fault tests run: changes, transactions, checkpoints with snapshots; each acknowledgement is printed.

`python -m tests.faults.workload DIRECTORY ROUNDS [SYNCHRONOUS]`
"""

from __future__ import annotations

import asyncio
import os
import sys

from symphony_es import Symphony
from symphony_es.core.past.snapshots import snapshotter
from symphony_es.log import sqlite_connections
from tests.application import Customer


async def main(directory: str, rounds: int) -> None:
    snapshotter.FLOOR_BYTES = 0
    symphony = Symphony(persistence_enabled=True)
    await symphony.setup(directory)
    say("A", symphony)
    one, two = symphony.entities.add(Customer(id="1")), symphony.entities.add(Customer(id="2"))
    for number in range(rounds):
        one.friends.append(f"{number}" * 60)
        await symphony.flush()
        say("A", symphony)
        async with symphony.transaction("Both"):
            one.name = two.name = str(number)
        say("A", symphony)
        if number % 2:
            await symphony.create_checkpoint(f"c{number}")
            say("A", symphony)
            opened = symphony._opened
            assert opened is not None
            assert opened.snapshotter is not None
            await opened.snapshotter.close()
            say("A", symphony)
    await symphony.close()


def say(what: str, symphony: Symphony) -> None:
    os.write(1, f"{what} {symphony.log.head}\n".encode())


if __name__ == "__main__":
    if len(sys.argv) > 3:
        sqlite_connections.WRITER_SETTINGS = tuple(
            (name, sys.argv[3], {"NORMAL": 1, "OFF": 0}[sys.argv[3]]) if name == "synchronous" else (name, wanted, expected)
            for name, wanted, expected in sqlite_connections.WRITER_SETTINGS
        )
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
