"""Tracked attributes against plain ones, and the import of the library."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

from benchmarks.measuring import Contender, Goal, Place, Row, Sample
from benchmarks.workload import Item
from symphony_es import Symphony

__all__ = ["ROWS"]

HERE = "benchmarks.rows.objects"


@dataclass
class Plain:
    """The same attributes without tracking."""

    id: str = ""
    text: str = ""
    number: int = 0


REPEATS = 9


def _assign(item: Item | Plain, count: int) -> float:
    """Nanoseconds of an assignment."""
    started = time.perf_counter_ns()
    for number in range(count):
        item.number = number
    return (time.perf_counter_ns() - started) / count


def _read(item: Item | Plain, count: int) -> float:
    """Nanoseconds of reading an attribute."""
    numbers = range(count)
    started = time.perf_counter_ns()
    for _ in numbers:
        item.number  # noqa: B018  what is measured
    return (time.perf_counter_ns() - started) / count


def _reading(item: Item | Plain, count: int) -> float:
    return statistics.median(_read(item, count) for _ in range(REPEATS))


async def tracked(place: Place) -> Sample:
    """An entity of a Symphony in memory."""
    count = place.sizes["times"]
    async with Symphony() as symphony:
        item = symphony.entities.add(Item(id="1"))
        await symphony.flush()
        assigning = []
        for _ in range(REPEATS):
            assigning.append(_assign(item, count) / 1000)
            await symphony.flush()
        return Sample(figures={"assign_us": statistics.median(assigning), "read_ns": _reading(item, count)})


def plain(place: Place) -> Sample:
    """A plain dataclass."""
    count = place.sizes["times"]
    item = Plain()
    assigning = statistics.median(_assign(item, count) / 1000 for _ in range(REPEATS))
    return Sample(figures={"assign_us": assigning, "read_ns": _reading(item, count)})


def _process_ms(code: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return (time.perf_counter() - started) * 1000


def import_ours(place: Place) -> Sample:
    """Process until `Symphony` is imported, less one that imports nothing; and until a Symphony in memory is open."""
    _process_ms("from symphony_es import Symphony")  # compiles what is not compiled yet
    nothing = _process_ms("pass")
    imported = _process_ms("from symphony_es import Symphony") - nothing
    opened = "import asyncio\nfrom symphony_es import Symphony\nasync def main():\n async with Symphony(): pass\nasyncio.run(main())"
    return Sample(figures={"import_ms": imported, "until_open_ms": _process_ms(opened) - nothing, "python_ms": nothing})


def import_floor(place: Place) -> Sample:
    """Process until its four dependencies and asyncio are imported, less one that imports nothing."""
    nothing = _process_ms("pass")
    code = "import eventsourcing.sqlite, msgpack, aiofiles, structlog, asyncio"
    return Sample(figures={"import_ms": _process_ms(code) - nothing})


ROWS = (
    Row(
        name="assigning",
        title="tracked attribute assignment; reading an attribute against a plain dataclass",
        unit="us",
        contenders=(
            Contender(name="ours", target=f"{HERE}:tracked", what="an attribute of an @entity"),
            Contender(name="floor", target=f"{HERE}:plain", what="an attribute of a dataclass"),
        ),
        goals=(
            Goal(text="assignment, us", of="ours.assign_us", at_most=1),
            Goal(text="reading, times a plain dataclass", of="ours.read_ns", to="floor.read_ns", at_most=1.1),
        ),
        sizes={"default": {"times": 20_000}},
        rounds=9,
    ),
    Row(
        name="importing",
        title="import time of symphony_es",
        unit="ms",
        contenders=(
            Contender(name="ours", target=f"{HERE}:import_ours", what="from symphony_es import Symphony, less an empty process"),
            Contender(name="floor", target=f"{HERE}:import_floor", what="its four dependencies and asyncio"),
        ),
        goals=(
            Goal(text="import, ms", of="ours.import_ms", at_most=150),
            Goal(text="until a Symphony in memory is open, ms", of="ours.until_open_ms"),
        ),
        rounds=9,
    ),
)
