"""What grows with the log: the cost of an append, and the memory of a fold.

Logs of several lengths are made first; then the cost of an append is measured on all of them in turns, so that drift of the machine
hits them alike.
"""

from __future__ import annotations

import statistics
import time

from benchmarks.measuring import Contender, Goal, Place, Row, Sample
from benchmarks.rows.appending import OURS
from benchmarks.rows.folding import SMALL_BYTES, append_small
from benchmarks.workload import event
from symphony_es.events.event import NewEvent
from symphony_es.log.log import EventLog

__all__ = ["ROWS"]

HERE = "benchmarks.rows.growth"
TURNS = 10
SINGLES, GROUPS, GROUP = 100, 10, 256


def _lengths(place: Place) -> list[int]:
    first, largest = place.sizes["first"], place.sizes["events"]
    return [first * 10**power for power in range(8) if first * 10**power < largest] + [largest]


def _directory(place: Place, length: int) -> str:
    return "log" if length == place.sizes["events"] else f"log-{length}"


async def prepare(place: Place) -> None:
    """Logs of small events, of several lengths, of as many entities each."""
    for length in _lengths(place):
        log = await EventLog.open(place.shared / _directory(place, length))
        await append_small(log, 0, length, place.sizes["entities"])
        await log.close()


class _Probe:
    """Appends to the entities of a log one by one, in an order that touches its index all over; goes on where the last round ended."""

    def __init__(self, log: EventLog, length: int, entities: int) -> None:
        self.log = log
        self._entities = entities
        self._versions = length // entities
        self._count = log.head - length

    def _next(self) -> NewEvent:
        number, version = self._count * 7919 % self._entities, self._versions + self._count // self._entities + 1
        self._count += 1
        return event(f"Item:{number:06d}", version, SMALL_BYTES)

    async def take(self, times: int, size: int) -> list[float]:
        """Microseconds per event of so many commits of this size."""
        taken = []
        for _ in range(times):
            events = [self._next() for _ in range(size)]
            started = time.perf_counter()
            await self.log.append(events)
            taken.append((time.perf_counter() - started) * 1e6 / size)
        return taken


async def ours(place: Place) -> Sample:
    """Microseconds of an awaited append, and per event of a commit of 256, on logs of several lengths in turns."""
    probes = {}
    for length in _lengths(place):
        probes[length] = _Probe(await EventLog.open(place.shared / _directory(place, length)), length, place.sizes["entities"])
    single: dict[int, list[float]] = {length: [] for length in probes}
    grouped: dict[int, list[float]] = {length: [] for length in probes}
    for _ in range(TURNS):
        for length, probe in probes.items():
            single[length] += await probe.take(SINGLES, 1)
            grouped[length] += await probe.take(GROUPS, GROUP)
    for probe in probes.values():
        await probe.log.close()
    figures, series = {}, {}
    for name, taken in (("single_us", single), ("grouped_us", grouped)):
        medians = {length: statistics.median(values) for length, values in taken.items()}
        figures |= {f"{name}_shortest": medians[min(medians)], f"{name}_longest": medians[max(medians)]}
        series[name] = list(medians.items())
    return Sample(figures=figures, settings=OURS, series=series)


# Quickly, too, a commit of 256 meets as many leaves of the index in the shortest log as in the longest: one of each entity, since each has
# more than a leaf in both. With more entities, the index of a short log would have fewer leaves than a commit has events.
SIZES = {
    "default": {"first": 100_000, "events": 1_000_000, "entities": 10_000},
    "quick": {"first": 10_000, "events": 50_000, "entities": 50},
    "full": {"first": 100_000, "events": 10_000_000, "entities": 10_000},
}
ROWS = (
    Row(
        name="fold_memory",
        title="memory to fold 10,000,000 events into 10,000 small entities",
        unit="MB",
        contenders=(Contender(name="ours", target="benchmarks.rows.folding:ours", what="peak resident memory of the process", rounds=1),),
        goals=(Goal(text="peak MB", of="ours.peak_mb", at_most=300),),
        sizes=SIZES,
        prepare=(f"{HERE}:prepare",),
        note="10,000,000 events with --full, 1,000,000 without.",
    ),
    Row(
        name="append_growth",
        title="cost per append at 10,000,000 events / at 100,000",
        unit="us",
        contenders=(Contender(name="ours", target=f"{HERE}:ours", what="an awaited append, and one in a commit of 256", rounds=1),),
        goals=(
            Goal(text="awaited append, longest log / shortest", of="ours.single_us_longest", to="ours.single_us_shortest", at_most=1.15),
            Goal(text="in a commit of 256, longest / shortest", of="ours.grouped_us_longest", to="ours.grouped_us_shortest", at_most=1.15),
        ),
        sizes=SIZES,
        prepare=(f"{HERE}:prepare",),
        note="10,000,000 events with --full, 1,000,000 without. The one round has ten turns through all logs. It appends to the logs that "
        "`fold_memory` has folded before.",
    ),
)
