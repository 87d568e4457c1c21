"""Folding a log into all entity states."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.floors import scan_and_decode
from benchmarks.measuring import Contender, Goal, Place, Row, Sample, peak_mb
from benchmarks.workload import event
from symphony_es.core.past.opening import open_to_read
from symphony_es.log.log import EventLog

__all__ = ["ROWS", "append_small", "ours"]

HERE = "benchmarks.rows.folding"
PEER = "benchmarks.peers.eventsourcing_library"
BATCH = 1000
SMALL_BYTES = 10


async def append_small(log: EventLog, start: int, count: int, entities: int) -> None:
    """Append small events number `start` to `start + count`, of so many entities in turn."""
    for first in range(start, start + count, BATCH):
        numbers = range(first, min(first + BATCH, start + count))
        await log.append([event(f"Item:{number % entities:06d}", number // entities + 1, SMALL_BYTES) for number in numbers])


async def prepare(place: Place) -> None:
    """A log of small events, without snapshots."""
    log = await EventLog.open(place.shared / "log")
    await append_small(log, 0, place.sizes["events"], place.sizes["entities"])
    await log.close()


async def _fold(directory: Path) -> tuple[int, float]:
    opened = await open_to_read(directory)
    try:
        started = time.perf_counter()
        fold = await opened.history.states_at(opened.log.head)
        return len(fold.states), time.perf_counter() - started
    finally:
        await opened.close()


async def ours(place: Place) -> Sample:
    """Events a second, read from disk and folded into all states; every check value is verified on the way."""
    entities, took_s = await _fold(place.shared / "log")
    assert entities == place.sizes["entities"]
    return Sample(figures={"events_per_s": place.sizes["events"] / took_s, "peak_mb": peak_mb(), "seconds": took_s})


def floor(place: Place) -> Sample:
    """The same rows, scanned by sqlite3 and decoded by msgpack, and forgotten."""
    count, took_s = scan_and_decode(place.shared / "log" / "events.db")
    return Sample(figures={"events_per_s": count / took_s})


ROWS = (
    Row(
        name="folding",
        title="fold of a log of small events into all entity states, every check value verified",
        unit="events/s",
        contenders=(
            Contender(name="ours", target=f"{HERE}:ours", what="all states at the head, no snapshot"),
            Contender(name="floor", target=f"{HERE}:floor", what="sqlite3 scan and msgpack decode of the bodies"),
            Contender(name="eventsourcing", target=f"{PEER}:folding", what="Application.repository.get of every aggregate", peer=True),
        ),
        goals=(
            Goal(text="of scan and decode", of="ours.events_per_s", to="floor.events_per_s", at_least=0.6),
            Goal(text="of eventsourcing's repository", of="ours.events_per_s", to="eventsourcing.events_per_s", at_least=6),
        ),
        sizes={
            "default": {"events": 1_000_000, "entities": 10_000, "peer_events": 50_000},
            "quick": {"events": 50_000, "entities": 500, "peer_events": 5_000},
        },
        prepare=(f"{HERE}:prepare",),
        note="The peer rebuilds as many events per aggregate, of fewer aggregates (`peer_events` in all).",
    ),
)
