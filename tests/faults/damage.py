"""Random damages to the files of a log, and what becomes of it: `python -m tests.faults.damage --count 2000 --what database`.

A damaged log is opened, resumed, and read as a whole. Either everything is as it was written, or a typed error says what is damaged; of a
write-ahead file, the last commit may be missing. Everything else is a silent wrong state, and the command ends with status 1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from symphony_es import Symphony, entity
from symphony_es.errors import SymphonyError
from symphony_es.events.values import plain_equal
from symphony_es.log import sqlite

WHAT = ("database", "wal", "snapshots")
SECTOR = 512
EVENTS = 150
CHECKPOINT_AFTER_BYTES = sqlite.CHECKPOINT_AFTER_BYTES


@entity
class DamageProbe:
    """An entity whose state tells its whole history."""

    id: str = ""
    n: int = 0
    notes: dict[str, str] = field(default_factory=dict)


States = Mapping[str, Any]


def flip(content: bytearray, rng: random.Random) -> None:
    """Flip one bit."""
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def zero(content: bytearray, rng: random.Random) -> None:
    """Zero a sector."""
    at = rng.randrange(len(content)) // SECTOR * SECTOR
    content[at : at + SECTOR] = bytes(len(content[at : at + SECTOR]))


def cut(content: bytearray, rng: random.Random) -> None:
    """Cut the end off."""
    del content[rng.randrange(len(content)) :]


def swap(content: bytearray, rng: random.Random) -> None:
    """Swap two pieces of 64 bytes."""
    one, other = (rng.randrange(len(content)) // 64 * 64 for _ in range(2))
    first, second = content[one : one + 64], content[other : other + 64]
    if len(first) == len(second) == 64:
        content[one : one + 64], content[other : other + 64] = second, first


def double(content: bytearray, rng: random.Random) -> None:
    """Put a page in the place of another one."""
    pages = max(len(content) // 4096, 1)
    one, other = (rng.randrange(pages) * 4096 for _ in range(2))
    content[other : other + 4096] = content[one : one + 4096]


DAMAGES: tuple[Callable[[bytearray, random.Random], None], ...] = (flip, zero, cut, swap, double)


def opened(directory: Path) -> Symphony:
    """A Symphony over a directory."""
    return Symphony({"state_dir": str(directory)}, persistence_enabled=True)


async def make(directory: Path, *, crashed: bool, over: bool = False) -> list[States]:
    """Write a log; returns the states after its last commits, the newest first. A crashed one is a copy of a log that was open.

    Its write-ahead file has grown, or was written over: what is left of its earlier time stands behind its end.
    """
    working = directory.with_name(f"{directory.name}.open") if crashed else directory
    sqlite.CHECKPOINT_AFTER_BYTES = EVENTS * 2 // 3 * sqlite.COMMIT_BYTES if over else CHECKPOINT_AFTER_BYTES
    symphony = opened(working)
    await symphony.setup()
    probes = [symphony.entities.add(DamageProbe(id=str(number))) for number in range(10)]
    states: list[States] = []
    for number in range(EVENTS):
        probe = probes[number * 7 % 10]
        probe.n = number
        probe.notes[str(number)] = "v" * (number % 50)
        await symphony.flush()
        if number == EVENTS // 2:
            await symphony._opened.snapshotter.take(symphony.log.head)  # type: ignore[union-attr]
        states.append(states_of(symphony))
    if crashed:
        shutil.copytree(working, directory)
    await symphony.close()
    sqlite.CHECKPOINT_AFTER_BYTES = CHECKPOINT_AFTER_BYTES
    return states[::-1]


def states_of(symphony: Symphony) -> States:
    """What the live objects hold."""
    probes = [symphony.entities.get(f"DamageProbe:{number}") for number in range(10)]
    return {probe.id: (probe.n, dict(probe.notes)) for probe in probes}


def target(directory: Path, what: str) -> Path:
    """The file that is damaged."""
    if what == "snapshots":
        return next((directory / "snapshots").glob("*.snap"))
    return directory / ("events.db" if what == "database" else "events.db-wal")


async def outcome(directory: Path, states: list[States], events: int) -> str:
    """What opening, resuming and reading a damaged log comes to."""
    try:
        async with opened(directory) as symphony:
            await symphony.resume()
            found = states_of(symphony)
            read = [event async for page in symphony.log.read() for event in page]
            histories = {probe_id: await symphony.log.read_entity(f"DamageProbe:{probe_id}") for probe_id in found}
            told = {probe_id: history[-1].position if history else 0 for probe_id, history in histories.items()}
    except SymphonyError as error:
        return f"error: {type(error).__name__}"
    same = [plain_equal(list(found.items()), list(state.items())) for state in states[:2]]
    last = {event.entity_id: event.position for event in read if event.entity_type == "DamageProbe"}
    if told != last:
        return "SILENT: an entity's history ends early"
    if same[0] and len(read) == events:
        return "right state"
    if same[1] and events - len(read) <= 1:
        return "last commit missing"
    return "SILENT: another state"


async def damage_all(what: str, count: int, seed: int, base: Path) -> tuple[Counter[str], list[str]]:
    """Do random damages; returns how often each outcome was, and what is needed to do each silent one again."""
    rng = random.Random(seed)
    sources = []
    for left in {"wal": ("crashed", "over"), "database": ("closed", "crashed", "over"), "snapshots": ("closed",)}[what]:
        source = base / left
        states = await make(source, crashed=left != "closed", over=left == "over")
        async with opened(shutil.copytree(source, base / "whole")) as symphony:
            sources.append((source, states, symphony.log.head))
        shutil.rmtree(base / "whole")
    outcomes: Counter[str] = Counter()
    silent: list[str] = []
    work = base / "work"
    for number in range(count):
        source, states, events = sources[number % len(sources)]
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(source, work)
        file, how = target(work, what), DAMAGES[rng.randrange(len(DAMAGES))]
        content = bytearray(file.read_bytes())
        if not content:
            continue
        how(content, rng)
        file.write_bytes(content)
        try:
            found = await outcome(work, states, events)
        except Exception as error:
            found = f"SILENT: untyped {error!r:.100}"
        outcomes[found] += 1
        if found.startswith("SILENT"):
            silent.append(f"{number}: {source.name} {how.__name__}: {found}")
    return outcomes, silent


def run(what: str, count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Do random damages in a directory of its own, in memory where there is one."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="symphony-damage-", dir=shared if shared.is_dir() else None) as base:
        return asyncio.run(damage_all(what, count, seed, Path(base)))


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.damage", description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--what", choices=WHAT, default="database")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    outcomes, silent = run(given.what, given.count, given.seed)
    print(json.dumps({"what": given.what, "count": given.count, "seed": given.seed, "outcomes": dict(outcomes.most_common())}, indent=1))
    for line in silent:
        print(line)
    return 1 if silent else 0


if __name__ == "__main__":
    raise SystemExit(main())
