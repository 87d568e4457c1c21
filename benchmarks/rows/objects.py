"""Tracked attributes against plain ones, and the import of the library."""

from __future__ import annotations

import gc
import statistics
import subprocess
import sys
import time
import tracemalloc
from dataclasses import dataclass, field
from typing import Any

from benchmarks.measuring import Contender, Goal, Place, Row, Sample
from benchmarks.workload import Item
from symphony_es import Symphony, entity

__all__ = ["ROWS"]

HERE = "benchmarks.rows.objects"


@dataclass
class Plain:
    """The same attributes without tracking."""

    id: str = ""
    text: str = ""
    number: int = 0


@entity(type="BenchmarkParcel")
class Parcel:
    """An entity with containers."""

    id: str = ""
    text: str = ""
    number: int = 0
    tags: list[str] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)


@dataclass
class PlainParcel:
    """The same without tracking."""

    id: str = ""
    text: str = ""
    number: int = 0
    tags: list[str] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)


@dataclass
class Foreign:
    """An object of a class that knows nothing of the library."""

    id: str
    number: int = 0


REPEATS = 9
BURSTS = 40


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


def _append(numbers: list[int], count: int) -> float:
    """Nanoseconds of appending to a list."""
    started = time.perf_counter_ns()
    for number in range(count):
        numbers.append(number)  # noqa: PERF402  what is measured
    return (time.perf_counter_ns() - started) / count


async def appending_tracked(place: Place) -> Sample:
    """A list of an entity of a Symphony in memory; the quickest of many short bursts."""
    async with Symphony() as symphony:
        parcel = symphony.entities.add(Parcel(id="1"))
        best = float("inf")
        for _ in range(BURSTS):
            parcel.tags = []
            await symphony.flush()
            best = min(best, _append(parcel.tags, place.sizes["times"]))
        return Sample(figures={"append_us": best / 1000})


def appending_plain(place: Place) -> Sample:
    """A plain list."""
    return Sample(figures={"append_us": min(_append([], place.sizes["times"]) for _ in range(BURSTS)) / 1000})


def _parcel(cls: type, number: int) -> Any:
    return cls(id=f"x{number}", text=f"text {number}", number=number, tags=["a", "b"], notes={"k": number})


async def memory_of_entities(place: Place) -> Sample:
    """Bytes of each live entity with a list and a dict, with all that is kept of it, once it is durable."""
    count = place.sizes["entities"]
    async with Symphony() as symphony:
        before = _traced()
        held = [symphony.entities.add(_parcel(Parcel, number)) for number in range(count)]
        await symphony.flush()
        return Sample(figures={"bytes": (_traced(stop=True) - before) / len(held)})


def memory_of_plain(place: Place) -> Sample:
    """Bytes of each plain object with the same attributes."""
    before = _traced()
    held = [_parcel(PlainParcel, number) for number in range(place.sizes["entities"])]
    return Sample(figures={"bytes": (_traced(stop=True) - before) / len(held)})


def _traced(*, stop: bool = False) -> int:
    if not stop:
        tracemalloc.start()
    gc.collect()
    held = tracemalloc.get_traced_memory()[0]
    if stop:
        tracemalloc.stop()
    return held


async def _one_of(count: int, times: int) -> float:
    """Microseconds, of this process's CPU time, of the cheapest transaction that changes one of so many foreign objects."""
    async with Symphony() as symphony:
        for number in range(count):
            symphony.entities.add(Foreign(id=str(number)), "Foreign", str(number))
        await symphony.flush()
        best = float("inf")
        for number in range(times):
            started = time.process_time()
            async with symphony.transaction("Changed"):
                symphony.entities.get("Foreign:7").number = number + 1
            best = min(best, time.process_time() - started)
        return best * 1e6


async def one_foreign_object(place: Place) -> Sample:
    """A transaction that was handed one foreign object, beside few others and beside many."""
    few, many, times = (place.sizes[name] for name in ("few", "many", "times"))
    return Sample(figures={"many_us": await _one_of(many, times), "few_us": await _one_of(few, times)})


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
    """Process until its dependencies and asyncio are imported, but eventsourcing, which its applications alone need."""
    nothing = _process_ms("pass")
    code = "import msgpack, aiofiles, structlog, asyncio"
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
        name="list_appending",
        title="appending to a tracked list against a plain one",
        unit="us",
        contenders=(
            Contender(name="ours", target=f"{HERE}:appending_tracked", what="a list of an @entity"),
            Contender(name="floor", target=f"{HERE}:appending_plain", what="a plain list"),
        ),
        goals=(Goal(text="append, us", of="ours.append_us", at_most=3.5),),
        sizes={"default": {"times": 300}},
    ),
    Row(
        name="entity_memory",
        title="memory of a live entity with five fields, one of them a list and one a dict",
        unit="bytes",
        contenders=(
            Contender(name="ours", target=f"{HERE}:memory_of_entities", what="an @entity, durable"),
            Contender(name="floor", target=f"{HERE}:memory_of_plain", what="a dataclass"),
        ),
        goals=(
            Goal(text="memory, bytes", of="ours.bytes", at_most=2800),
            Goal(text="memory, times a plain object", of="ours.bytes", to="floor.bytes"),
        ),
        sizes={"default": {"entities": 3000}},
    ),
    Row(
        name="one_foreign_object",
        title="a transaction that was handed one foreign object, beside 10,000 others and beside 100",
        unit="us",
        contenders=(Contender(name="ours", target=f"{HERE}:one_foreign_object", what="CPU time of the process, the cheapest of many"),),
        goals=(
            Goal(text="CPU of a transaction beside 10,000 others, times one beside 100", of="ours.many_us", to="ours.few_us", at_most=1.2),
        ),
        sizes={"default": {"many": 10_000, "few": 100, "times": 60}},
    ),
    Row(
        name="importing",
        title="import time of symphony_es",
        unit="ms",
        contenders=(
            Contender(name="ours", target=f"{HERE}:import_ours", what="from symphony_es import Symphony, less an empty process"),
            Contender(name="floor", target=f"{HERE}:import_floor", what="msgpack, aiofiles, structlog and asyncio"),
        ),
        goals=(
            Goal(text="import, ms", of="ours.import_ms", at_most=150),
            Goal(text="until a Symphony in memory is open, ms", of="ours.until_open_ms"),
        ),
        rounds=9,
    ),
)
