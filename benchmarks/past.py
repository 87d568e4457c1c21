"""What looking back costs on a long log: `python -m benchmarks.past DIR [--events N] [--entities N] [--json]`.

Makes the log in DIR unless it is there: small events of entities chosen at random, by 50 actors, with the snapshots that an application's
log of that length would have. Then each question is asked by a process of its own, which also tells its peak memory. Positions are
random, with a fixed seed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

from symphony_es.core.past.audit import Audit
from symphony_es.core.past.opening import OpenedLog, open_on_disk, open_to_read
from symphony_es.events.changes import SET
from symphony_es.events.event import EventMetadata, NewEvent
from symphony_es.events.identifiers import uuid7
from symphony_es.log.log import EventLog
from symphony_es.transfer import verify
from symphony_es_projections.audit_trail import AuditTrail
from symphony_es_projections.runner import ProjectionRunner

ACTORS = 50
BATCH = 500
SEED = 20261123


async def generate(directory: Path, events: int, entities: int, *, trail: bool = True) -> float:
    """Make the log, its snapshots and, unless it is not wanted, its audit trail; seconds."""
    began = time.monotonic()
    chance = random.Random(SEED)
    opened = await open_on_disk(directory, force_network_fs=False, ignore_anchor=False)
    assert opened.snapshotter is not None
    versions = [0] * entities
    for start in range(0, events, BATCH):
        batch = [_event(chance, versions) for _ in range(min(BATCH, events - start))]
        await opened.log.append(batch)
        opened.snapshotter.weigh(BATCH * 150)
        if start % 100_000 == 0:
            print(f"{start:,} events", file=sys.stderr)
    if trail:
        await _build_trail(opened.log, directory)
    await opened.close()
    return time.monotonic() - began


async def _build_trail(log: EventLog, directory: Path) -> None:
    runner = ProjectionRunner(log, directory / "projections")
    runner.add(AuditTrail())
    began = time.monotonic()
    await runner.catch_up()
    print(f"audit trail built in {time.monotonic() - began:.1f} s", file=sys.stderr)
    await runner.close()


class Past:
    """A log open for reading, for asking about one entity at a time; an asynchronous context manager."""

    def __init__(self, directory: Path, entities: int) -> None:
        self._directory = directory
        self._entities = entities
        self._chance = random.Random(SEED)

    async def __aenter__(self) -> Self:
        self._opened = await open_to_read(self._directory)
        await self.one_entity()  # connections are open
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._opened.close()

    async def one_entity(self) -> None:
        """One entity at a position, both at random."""
        position = self._chance.randrange(self._opened.log.head) + 1
        await self._opened.history.entity_at(f"Item:{self._chance.randrange(self._entities):06d}", position)

    async def timed(self, times: int, ask: Callable[[], Awaitable[Any]]) -> list[float]:
        """Milliseconds, sorted."""
        return await _timed(times, ask)


def _event(chance: random.Random, versions: list[int]) -> NewEvent:
    number = chance.randrange(len(versions))
    versions[number] += 1
    key = f"Item:{number:06d}"
    changes: list[Any] = [(SET, ("count",), versions[number]), (SET, ("note",), f"version {versions[number]} of {key}")]
    if versions[number] == 1:
        changes = [(SET, (), {"id": key, "count": 1, "note": "", "tags": ["a", "b"], "text": "x" * 100})]
    return NewEvent(
        entity_key=key,
        version=versions[number],
        name="ItemCounted",
        changes=changes,
        metadata=EventMetadata(actor=f"actor-{chance.randrange(ACTORS)}"),
        event_id=uuid7(time.time_ns(), os.urandom(16)),
    )


async def _timed(times: int, ask: Callable[[], Awaitable[Any]]) -> list[float]:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        await ask()
        taken.append((time.perf_counter() - began) * 1000)
    return sorted(taken)


async def ask(question: str, directory: Path) -> dict[str, Any]:
    """One question, asked several times on a log that is open for reading; milliseconds and peak memory."""
    opened = await open_to_read(directory)
    chance = random.Random(SEED)
    try:
        times, asked = _questions(opened, chance, directory)[question]
        await asked()  # connections are open, files in the page cache
        taken = await _timed(times, asked)
    finally:
        await opened.close()
    return {
        "question": question,
        "times": times,
        "p50_ms": round(statistics.median(taken), 2),
        "p99_ms": round(taken[min(len(taken) - 1, int(len(taken) * 0.99))], 2),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def _questions(opened: OpenedLog, chance: random.Random, directory: Path) -> dict[str, tuple[int, Callable[[], Awaitable[Any]]]]:
    past, head = opened.past, opened.log.head
    audit = Audit(opened.log, opened.audit_trail)

    def position() -> int:
        return chance.randrange(head // 100, head) + 1

    def key() -> str:
        return f"Item:{chance.randrange(1000):06d}"

    async def audited() -> None:
        first = (await opened.log.read_rows(position() - 1, None, 1))[0]
        since = (await audit.find(after_position=first[0] - 1, limit=1))[0].recorded_at
        actor = f"actor-{chance.randrange(ACTORS)}"
        await audit.find(actor=actor, since=since, until=since + timedelta(seconds=1), limit=100)

    return {
        "one entity at a random position": (1000, lambda: opened.history.entity_at(key(), position())),
        "whole state at a random position": (10, lambda: past.at(position())),
        "diff of two random positions": (5, lambda: past.diff(position(), position())),
        "history of one entity": (100, lambda: past.history(key())),
        "blame of one value": (100, lambda: past.blame(key(), "note")),
        "audit by actor and time, 100 events": (100, audited),
        "what followed from an event": (100, lambda: audit.consequences(position())),
        "verify": (1, lambda: verify(directory)),
    }


def main() -> None:
    """The log, then every question."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--entities", type=int, default=10_000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--ask", help=argparse.SUPPRESS)
    parser.add_argument("--make", action="store_true", help="make the log, and ask nothing")
    given = parser.parse_args()
    if given.ask:
        print(json.dumps(asyncio.run(ask(given.ask, given.directory))))
        return
    if given.make:
        seconds = asyncio.run(generate(given.directory, given.events, given.entities))
        print(f"made in {seconds:.0f} s", file=sys.stderr)
        return
    if not (given.directory / "events.db").exists():  # in another process: a child inherits the peak memory of its parent
        numbers = ["--events", str(given.events), "--entities", str(given.entities)]
        subprocess.run([sys.executable, "-m", "benchmarks.past", str(given.directory), "--make", *numbers], check=True)
    questions = list(_questions_of(given.directory))
    for question in questions:
        command = [sys.executable, "-m", "benchmarks.past", str(given.directory), "--ask", question]
        answer = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        if given.json:
            print(json.dumps(answer))
        else:
            print(f"{question:38} {answer['p50_ms']:10,.2f} ms {answer['p99_ms']:10,.2f} ms (p99) {answer['peak_mb']:6,} MB")


def _questions_of(directory: Path) -> list[str]:
    async def names() -> list[str]:
        opened = await open_to_read(directory)
        try:
            return list(_questions(opened, random.Random(SEED), directory))
        finally:
            await opened.close()

    return asyncio.run(names())


if __name__ == "__main__":
    main()
