"""Checkpoints, resuming, one entity in the past, and what snapshots write: what grows with the state."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import msgpack
import structlog

import symphony_es.core.resume.resuming
import symphony_es.facades.workflows  # noqa: F401  what a resume needs is imported before any clock starts; Symphony brings it late
from benchmarks.measuring import Contender, Goal, Place, Row, Sample
from benchmarks.past import Past, generate
from benchmarks.rows.appending import OURS
from benchmarks.workload import Item, opened, text_of
from symphony_es import Symphony
from symphony_es.core.past.opening import open_to_read

__all__ = ["ROWS"]

HERE = "benchmarks.rows.states"
CHANGED = 10
ADDED_AT_ONCE = 10_000


async def _add(symphony: Symphony, entities: int, size: int) -> list[Item]:
    items = []
    for number in range(entities):
        items.append(symphony.entities.add(Item(id=f"{number:07d}", text=text_of(number, size))))
        if number % ADDED_AT_ONCE == ADDED_AT_ONCE - 1:
            await symphony.flush()
    await symphony.flush()
    return items


@contextmanager
def snapshots_written() -> Iterator[list[int]]:
    """Sizes in bytes of the snapshots written in a block, from the library's own log lines."""
    sizes: list[int] = []

    def note(_logger: Any, _method: str, line: dict[str, Any]) -> dict[str, Any]:
        if line.get("event") == "snapshot_written":
            sizes.append(line["size_bytes"])
        raise structlog.DropEvent

    structlog.configure(processors=[note], cache_logger_on_first_use=False)
    try:
        yield sizes
    finally:
        structlog.reset_defaults()


async def _snapshot_written(symphony: Symphony) -> None:
    """Wait for the snapshot that is being written behind the application; nothing public does, for nobody else needs to."""
    opened_log = symphony._opened
    assert opened_log is not None
    assert opened_log.snapshotter is not None
    await opened_log.snapshotter.close()


async def _checkpoint_times(directory: Path, entities: int, times: int) -> list[float]:
    async with opened(directory) as symphony:
        items = await _add(symphony, entities, 100)
        await symphony.create_checkpoint()
        await _snapshot_written(symphony)
        taken = []
        for round_ in range(times):
            for item in items[round_ % 7 :: len(items) // CHANGED][:CHANGED]:
                item.number += 1
            started = time.perf_counter()
            await symphony.create_checkpoint()
            taken.append((time.perf_counter() - started) * 1000)
        return taken


async def checkpoint_ours(place: Place) -> Sample:
    """A checkpoint with 10 entities changed since the last one, its snapshot written before."""
    figures = {}
    for name in ("entities", "more_entities"):
        taken = await _checkpoint_times(place.own / name, place.sizes[name], 50)
        figures[f"{name}_ms"], figures[f"{name}_slowest_ms"] = statistics.median(taken), max(taken)
        gc.collect()
    return Sample(figures=figures, settings=OURS)


async def merging_ours(place: Place) -> Sample:
    """The event loop's longest gap while a snapshot of all entities is merged behind it, and without one."""
    gaps: list[float] = []

    async def watch() -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            gaps.append(now - last - 0.001)
            last = now

    with snapshots_written() as sizes:
        async with opened(place.own / "state") as symphony:
            items = await _add(symphony, place.sizes["entities"], 100)
            await symphony.create_checkpoint()
            await _snapshot_written(symphony)
            written = len(sizes)
            while len(sizes) == written:  # changes until a snapshot is due, which is merged from the one before
                for start in range(0, len(items), 1000):
                    for item in items[start : start + 1000]:
                        item.number += 1
                        item.text = text_of(item.number, 100)
                    await symphony.flush()
                await _snapshot_written(symphony)  # one that came without a checkpoint
                written = len(sizes)
                gc.collect()
                watching = asyncio.create_task(watch())
                gaps.clear()
                started = time.perf_counter()
                await symphony.create_checkpoint()
                await _snapshot_written(symphony)
                watching.cancel()
                merging_s = time.perf_counter() - started
    return Sample(figures={"longest_gap_ms": max(gaps) * 1000, "merging_s": merging_s}, settings=OURS)


async def prepare_resume(place: Place) -> None:
    """Entities of 1 kB and a checkpoint; and the same states as plain msgpack, one after the other.

    The newest snapshot has a part of them, the events after it have the rest: a checkpoint brings no snapshot that is not due.
    """
    async with opened(place.shared / "state") as symphony:
        await _add(symphony, place.sizes["entities"], 1000)
        await symphony.create_checkpoint()
        await _snapshot_written(symphony)
        fold = await symphony.state_history.states_at(symphony.log.head)
    plain = b"".join(msgpack.packb([state.key, state.data]) for state in fold.states.values())
    (place.shared / "plain.msgpack").write_bytes(plain)


async def resume_ours(place: Place) -> Sample:
    """Resume everything; then the first use of one entity, and of all of them: what is restored lazily is not forgotten."""
    async with opened(place.shared / "state") as symphony:
        gc.collect()
        started = time.perf_counter()
        await symphony.resume()
        resumed = time.perf_counter()
        item = symphony.entities.get("BenchmarkItem", f"{place.sizes['entities'] // 2:07d}")
        assert item.number == 0
        first = time.perf_counter()
        total = sum(len(symphony.entities.get("BenchmarkItem", f"{number:07d}").text) for number in range(place.sizes["entities"]))
        everything = time.perf_counter()
    assert total == 1000 * place.sizes["entities"]
    figures = {
        "resume_s": resumed - started,
        "resume_and_use_all_s": everything - started,
        "first_use_ms": (first - resumed) * 1000,
    }
    return Sample(figures=figures, settings=OURS)


async def load_ours(place: Place) -> Sample:
    """From imports to the use of one entity, in a process that has done nothing else: open the log, load it, read a field."""
    gc.collect()
    started = time.perf_counter()
    async with opened(place.shared / "state") as symphony:
        ready = time.perf_counter()
        item = await symphony.entities.load(f"BenchmarkItem:{place.sizes['entities'] // 2:07d}")
        assert item.number == 0
        used = time.perf_counter()
        assert len(symphony.entities.all()) == 1
    return Sample(figures={"load_one_ms": (used - started) * 1000, "setup_ms": (ready - started) * 1000}, settings=OURS)


async def resume_floor(place: Place) -> Sample:
    """What a resume reads, read, checked and decoded, no objects made of it; and the same states read as plain msgpack, unchecked."""
    past = await open_to_read(place.shared / "state")
    gc.collect()
    started = time.perf_counter()
    fold = await past.history.states_at(past.log.head)
    took_s = time.perf_counter() - started
    assert len(fold.states) >= place.sizes["entities"]
    snapshots = past.history.snapshots
    assert snapshots is not None
    newest = snapshots.nearest(past.log.head)
    in_snapshot = newest.entity_count if newest is not None else 0
    await past.close()
    del fold
    gc.collect()
    started = time.perf_counter()
    plain = list(msgpack.Unpacker(BytesIO((place.shared / "plain.msgpack").read_bytes()), max_buffer_size=0))
    plainly_s = time.perf_counter() - started
    assert len(plain) >= place.sizes["entities"]
    return Sample(figures={"seconds": took_s, "plainly_s": plainly_s, "in_snapshot": in_snapshot})


async def prepare_past(place: Place) -> None:
    """A log with the snapshots that an application's log of that length would have."""
    await generate(place.shared / "log", place.sizes["events"], place.sizes["entities"], trail=False)


async def past_ours(place: Place) -> Sample:
    """One entity, chosen at random, at a position at random; each question on its own."""
    async with Past(place.shared / "log", place.sizes["entities"]) as past:
        taken = await past.timed(place.sizes["questions"], past.one_entity)
    at = min(len(taken) - 1, int(len(taken) * 0.99))
    return Sample(figures={"p50_ms": statistics.median(taken), "p99_ms": taken[at], "slowest_ms": taken[-1]})


async def amplification_ours(place: Place) -> Sample:
    """Bytes of all snapshots ever written, against bytes of the log, over a run in which the state grows and changes."""
    directory = place.own / "state"
    with snapshots_written() as sizes:
        async with opened(directory) as symphony:
            items: list[Item] = []
            for number in range(place.sizes["checkpoints"]):
                for entity in range(place.sizes["changes"]):
                    if entity % 4 == 0:
                        items.append(symphony.entities.add(Item(id=f"{len(items):07d}", text=text_of(number, 200))))
                    else:
                        item = items[(number * 7919 + entity * 104_729) % len(items)]
                        item.text = text_of(number + entity, 200)
                await symphony.create_checkpoint()
                await asyncio.sleep(0)
        log_bytes = (directory / "events.db").stat().st_size
    figures = {"snapshots_to_log": sum(sizes) / log_bytes, "snapshots": len(sizes), "log_mb": log_bytes / 1e6}
    return Sample(figures=figures, settings=OURS)


CHECKPOINT = Row(
    name="checkpointing",
    title="checkpoint, 100,000 entities, 10 changed; while a snapshot is merged behind it, the event loop's longest gap",
    unit="ms",
    contenders=(
        Contender(name="ours", target=f"{HERE}:checkpoint_ours", what="median of 50 checkpoints", rounds=3),
        Contender(name="merging", target=f"{HERE}:merging_ours", what="longest gap while a snapshot is merged", rounds=3),
    ),
    goals=(
        Goal(text="ms at the smaller number", of="ours.entities_ms", at_most=3),
        Goal(text="ms at ten times as many", of="ours.more_entities_ms", at_most=3),
        Goal(text="many / few", of="ours.more_entities_ms", to="ours.entities_ms", at_most=1.25),
        Goal(text="longest gap while merging, ms", of="merging.longest_gap_ms", at_most=50),
    ),
    sizes={
        "default": {"entities": 10_000, "more_entities": 100_000},
        "quick": {"entities": 2_000, "more_entities": 20_000},
        "full": {"entities": 100_000, "more_entities": 1_000_000},
    },
    note="100,000 and 1,000,000 entities with --full, 10,000 and 100,000 without. The gap is that at the smaller number.",
)
RESUME = Row(
    name="resuming",
    title="resume, 100,000 entities of 1 kB; lazily, first use of one entity",
    unit="s",
    contenders=(
        Contender(name="ours", target=f"{HERE}:resume_ours", what="resume() until every entity has been used"),
        Contender(name="one", target=f"{HERE}:load_ours", what="setup() and entities.load() of one entity, until it has been used"),
        Contender(
            name="floor", target=f"{HERE}:resume_floor", what="the same snapshot and events read, checked and decoded; plain msgpack"
        ),
    ),
    goals=(
        Goal(text="resume() and use of all, times reading and decoding", of="ours.resume_and_use_all_s", to="floor.seconds", at_most=2.5),
        Goal(text="resume() and use of all, times plain msgpack", of="ours.resume_and_use_all_s", to="floor.plainly_s"),
        Goal(text="resume() alone, times reading and decoding", of="ours.resume_s", to="floor.seconds"),
        Goal(text="setup(), load and first use of one entity, ms", of="one.load_one_ms", at_most=50),
    ),
    sizes={"default": {"entities": 100_000}, "quick": {"entities": 5_000}},
    prepare=(f"{HERE}:prepare_resume",),
    note="What resume() leaves to be done lazily is counted: the ratio includes the first use of every entity.",
)
PAST = Row(
    name="entity_in_the_past",
    title="one entity at a random position in 1,000,000 events",
    unit="ms",
    contenders=(Contender(name="ours", target=f"{HERE}:past_ours", what="1,000 questions, positions and entities at random"),),
    goals=(Goal(text="99th percentile, ms", of="ours.p99_ms", at_most=5), Goal(text="median, ms", of="ours.p50_ms")),
    sizes={
        "default": {"events": 1_000_000, "entities": 10_000, "questions": 1000},
        "quick": {"events": 20_000, "entities": 1_000, "questions": 200},
    },
    prepare=(f"{HERE}:prepare_past",),
)
AMPLIFICATION = Row(
    name="write_amplification",
    title="write amplification of snapshots over a long run",
    unit="x",
    contenders=(Contender(name="ours", target=f"{HERE}:amplification_ours", what="snapshot bytes written / log bytes", rounds=1),),
    goals=(Goal(text="snapshots written, times the log", of="ours.snapshots_to_log", at_most=2.2),),
    sizes={"default": {"checkpoints": 5000, "changes": 40}, "quick": {"checkpoints": 300, "changes": 40}},
    note="A quarter of the changes are new entities. One round: the bytes hardly differ.",
)
ROWS = (CHECKPOINT, RESUME, PAST, AMPLIFICATION)
