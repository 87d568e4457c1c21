"""What the library costs, each row beside the physical floor measured in the same run: `python -m benchmarks [--json]`.

Every row takes the median of several rounds, ours and the floor in turns. Durability is the same on both sides: WAL,
synchronous=FULL, one fsync per acknowledgement.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgpack

from symphony_es import Symphony, entity
from symphony_es.events.event import EventMetadata, NewEvent
from symphony_es.events.fold import Fold
from symphony_es.log.log import EventLog

ROUNDS = 5


@entity(type="BenchmarkItem")
class Item:
    id: str = ""
    text: str = ""
    number: int = 0


def event(key: str, version: int, size: int = 100) -> NewEvent:
    change = (0, (), {"text": "x" * size}) if version == 1 else (0, ("text",), "x" * size)
    return NewEvent(entity_key=key, version=version, name="Changed", changes=[change], metadata=EventMetadata(), event_id=os.urandom(16))


def raw_database(directory: Path) -> sqlite3.Connection:
    database = sqlite3.connect(directory / "raw.db", isolation_level=None, check_same_thread=False)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("PRAGMA wal_autocheckpoint=0")
    database.execute("CREATE TABLE IF NOT EXISTS t (position INTEGER PRIMARY KEY, id TEXT, version INTEGER, name TEXT, state BLOB)")
    return database


INSERT = "INSERT INTO t (id, version, name, state) VALUES (?, ?, ?, ?)"


async def one_writer(directory: Path) -> tuple[float, float, str]:
    """Appends a second, each awaited, against raw single-row commits behind the same hop to a thread."""
    log, database, count = await EventLog.open(directory / "log"), raw_database(directory), 400
    ours, floor, version = [], [], 0
    row = ("Item:1", 1, "Changed", b"x" * 160)
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(count):
            version += 1
            await log.append([event("Item:1", version)])
        ours.append(count / (time.perf_counter() - started))
        started = time.perf_counter()
        for _ in range(count):
            await asyncio.to_thread(database.execute, INSERT, row)
        floor.append(count / (time.perf_counter() - started))
    await log.close()
    database.close()
    return statistics.median(ours), statistics.median(floor), "appends/s"


async def many_writers(directory: Path) -> tuple[float, float, str]:
    """Appends a second of 256 tasks, against raw commits of 256 rows."""
    log, database, writers = await EventLog.open(directory / "log"), raw_database(directory), 256
    ours, floor, base = [], [], 0

    async def write(writer: int) -> None:
        for version in range(base + 1, base + 11):
            await log.append([event(f"Item:{writer}", version)])

    rows = [("Item:1", 1, "Changed", b"x" * 160)] * writers
    for _ in range(ROUNDS):
        started = time.perf_counter()
        await asyncio.gather(*(write(writer) for writer in range(writers)))
        ours.append(writers * 10 / (time.perf_counter() - started))
        base += 10
        started = time.perf_counter()
        for _ in range(10):
            await asyncio.to_thread(commit_rows, database, rows)
        floor.append(writers * 10 / (time.perf_counter() - started))
    await log.close()
    database.close()
    return statistics.median(ours), statistics.median(floor), "appends/s"


def commit_rows(database: sqlite3.Connection, rows: list[Any]) -> None:
    database.execute("BEGIN IMMEDIATE")
    database.executemany(INSERT, rows)
    database.execute("COMMIT")


async def folding(directory: Path) -> tuple[float, float, str]:
    """Events a second read and folded, every check value verified, against scanning the rows with sqlite3 and msgpack alone."""
    log, count = await EventLog.open(directory / "log"), 100_000
    for start in range(0, count, 1000):
        await log.append([event(f"Item:{number % 1000}", number // 1000 + 1, 10) for number in range(start, start + 1000)])
    database = sqlite3.connect(directory / "log" / "events.db")
    ours, floor = [], []
    for _ in range(ROUNDS):
        started, fold = time.perf_counter(), Fold()
        while rows := await log.read_rows(after=fold.position):
            fold.apply_rows(rows)
        ours.append(count / (time.perf_counter() - started))
        started = time.perf_counter()
        for row in database.execute("SELECT position, originator_id, originator_version, topic, state FROM stored_events"):
            msgpack.unpackb(row[4][46:])
        floor.append(count / (time.perf_counter() - started))
    database.close()
    await log.close()
    return statistics.median(ours), statistics.median(floor), "events/s"


async def engine_steps(directory: Path) -> tuple[float, float, str]:
    """Sequential steps a second, two durable events each, against raw single-row commits."""
    database, steps = raw_database(directory), 1000
    started = time.perf_counter()
    for _ in range(steps):
        database.execute(INSERT, ("Item:1", 1, "Changed", b"x" * 300))
    floor = steps / (time.perf_counter() - started)
    database.close()
    moments, _ = await run_steps(directory / "engine", steps)
    return (steps - 1) / (moments[-1] - moments[0]), floor, "steps/s"


async def run_steps(directory: Path, steps: int) -> tuple[list[float], int]:
    moments: list[float] = []
    async with Symphony({"state_dir": directory}, persistence_enabled=True) as symphony:

        async def work(context: Any) -> str:
            moments.append(time.perf_counter())
            return "x" * 200

        symphony.functions.register("work", work)
        builder = symphony.build_workflow().create("benchmark")
        for number in range(steps):
            builder.add_processing_step(f"s{number}", "", "work")
        run = await symphony.workflows.execute_workflow(builder.build(), auto_checkpoint=False)
        assert run.status == "completed", run.error
    return moments, size_of(directory)


async def concurrent_runs(directory: Path) -> tuple[float, float, str]:
    """500 concurrent runs of 20 steps, steps a second, against 1 run of 1,000 steps; the longest stall and memory are printed beside it."""
    moments, _ = await run_steps(directory / "alone", 1000)
    runs, steps, longest_s = 500, 20, 0.0
    async with Symphony({"state_dir": directory / "many"}, persistence_enabled=True) as symphony:

        async def work(context: Any) -> str:
            return "x" * 200

        async def watch() -> None:
            nonlocal longest_s
            last = time.perf_counter()
            while True:
                await asyncio.sleep(0.001)
                now = time.perf_counter()
                longest_s, last = max(longest_s, now - last - 0.001), now

        symphony.functions.register("work", work)
        builder = symphony.build_workflow().create("benchmark")
        for number in range(steps):
            builder.add_processing_step(f"s{number}", "", "work")
        definition = builder.build()
        collections: list[float] = []
        gc.callbacks.append(lambda phase, info: collections.append(time.perf_counter() * (1 if phase == "stop" else -1)))
        watching = asyncio.create_task(watch())
        started = time.perf_counter()
        done = await asyncio.gather(*(symphony.workflows.execute_workflow(definition, auto_checkpoint=False) for _ in range(runs)))
        duration_s = time.perf_counter() - started
        watching.cancel()
        gc.callbacks.pop()
        assert all(run.status == "completed" for run in done)
    pause_s = max((begun + ended for begun, ended in zip(collections[::2], collections[1::2], strict=False)), default=0.0)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    stall = f"longest stall {longest_s * 1000:.0f} ms, of which the garbage collector's longest pause {pause_s * 1000:.0f} ms"
    print(f"concurrent_runs: {stall}; peak {peak_mb:.0f} MB", file=sys.stderr)
    return runs * steps / duration_s, (len(moments) - 1) / (moments[-1] - moments[0]), "steps/s"


def size_of(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


async def late_steps(directory: Path) -> tuple[float, float, str]:
    """Median time of steps 990 to 1,010 of a run, against steps 90 to 110 of the same run; several runs."""
    late, early = [], []
    for round_ in range(ROUNDS):
        moments, _ = await run_steps(directory / str(round_), 1020)
        gaps = [(after - before) * 1e6 for before, after in pairwise(moments)]
        late += gaps[990:1011]
        early += gaps[90:111]
    return statistics.median(late), statistics.median(early), "us/step"


async def disk_per_step(directory: Path) -> tuple[float, float, str]:
    """Bytes on disk per step at 10,000 steps, against 1,000."""
    _, large = await run_steps(directory / "large", 10_000)
    _, small = await run_steps(directory / "small", 1000)
    return large / 10_000, small / 1000, "bytes/step"


async def checkpointing(directory: Path) -> tuple[float, float, str]:
    """Milliseconds of a checkpoint with 100,000 entities of which 10 changed, against 100 entities."""
    medians = []
    for entities in (100_000, 100):
        async with Symphony({"state_dir": directory / str(entities)}, persistence_enabled=True) as symphony:
            items = [symphony.entities.add(Item(id=str(number), text="x" * 100)) for number in range(entities)]
            await symphony.flush()
            await symphony.create_checkpoint()
            opened = symphony._opened
            assert opened is not None
            assert opened.snapshotter is not None
            await opened.snapshotter.close()
            times = []
            for round_ in range(15):
                for item in items[:10]:
                    item.number = round_
                started = time.perf_counter()
                await symphony.create_checkpoint()
                times.append((time.perf_counter() - started) * 1000)
            medians.append(statistics.median(times))
    return medians[0], medians[1], "ms"


async def resuming(directory: Path) -> tuple[float, float, str]:
    """Seconds to resume 30,000 entities of 1 kB, against reading and decoding their snapshot."""
    state_dir = directory / "resume"
    async with Symphony({"state_dir": state_dir}, persistence_enabled=True) as symphony:
        for number in range(30_000):
            symphony.entities.add(Item(id=str(number), text="x" * 1000))
        await symphony.create_checkpoint()
    async with Symphony({"state_dir": state_dir}, persistence_enabled=True) as symphony:
        opened = symphony._opened
        assert opened is not None
        assert opened.snapshotter is not None
        store = opened.snapshotter.store
        started = time.perf_counter()
        store.read_all(store.list()[0])
        floor = time.perf_counter() - started
        started = time.perf_counter()
        await symphony.resume()
        return time.perf_counter() - started, floor, "s"


async def assigning(directory: Path) -> tuple[float, float, str]:
    """Microseconds of a tracked assignment, against one to a plain object."""

    class Plain:
        number = 0

    async with Symphony() as symphony:
        item, plain, count = symphony.entities.add(Item(id="1")), Plain(), 20_000
        ours, floor = [], []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            for number in range(count):
                item.number = number
            ours.append((time.perf_counter() - started) / count * 1e6)
            await symphony.flush()
            started = time.perf_counter()
            for number in range(count):
                plain.number = number
            floor.append((time.perf_counter() - started) / count * 1e6)
    return statistics.median(ours), statistics.median(floor), "us"


async def importing(directory: Path) -> tuple[float, float, str]:
    """Milliseconds to import the library, against its four dependencies."""

    def measure(code: str) -> float:
        times = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            times.append((time.perf_counter() - started) * 1000)
        return statistics.median(times)

    nothing = measure("pass")
    dependencies = measure("import eventsourcing.sqlite, msgpack, aiofiles, structlog, asyncio") - nothing
    return measure("from symphony_es import Symphony") - nothing, dependencies, "ms"


ROWS: tuple[Callable[[Path], Any], ...] = (
    one_writer, many_writers, folding, engine_steps, concurrent_runs, late_steps, disk_per_step, checkpointing, resuming, assigning,
    importing,
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    results = []
    for row in ROWS:
        with tempfile.TemporaryDirectory() as directory:
            ours, floor, unit = asyncio.run(row(Path(directory)))
        what = (row.__doc__ or "").strip()
        results.append({"row": row.__name__, "what": what, "ours": ours, "floor": floor, "unit": unit, "ratio": ours / floor})
        if not arguments.json:
            print(f"{row.__name__:15} {ours:12,.2f} {floor:12,.2f} {unit:10} ratio {ours / floor:6.2f}   {what}", flush=True)
    if arguments.json:
        print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
