"""Snapshots and other whole files after a power cut: the state before the step under way or after it, and nothing else."""

from __future__ import annotations

import contextlib
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest

from symphony_es.core.past.snapshots.store import SnapshotStore
from symphony_es.errors import SymphonyError
from symphony_es.files.directory import remove_leftovers
from tests.faults.power_loss import Operation, Recording, record, variants
from tests.faults.snapshot_workload import AFTER_STEP, FILES, Expected

ROOT = Path(__file__).parents[2]
ALL_SUBSETS_UP_TO = 6  # operations that are not durable: 64 subsets; beyond it a sample of the 2^n


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    """A directory in memory where there is one: thousands of files are made and opened."""
    base = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    path = Path(tempfile.mkdtemp(prefix="symphony-snapshots-", dir=base))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def recording(scratch: Path) -> Recording:
    """The workload's file operations."""
    assert shutil.which("strace"), "this test needs strace: install it (apt-get install strace)"
    source = scratch / "source"
    source.mkdir(mode=0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        return record([sys.executable, "-m", "tests.faults.snapshot_workload", str(source)], source)


async def found(directory: Path) -> Expected:
    """What is there, once what the cut has left of temporary files is removed."""
    snapshots = await SnapshotStore(directory / "snapshots").open()
    with contextlib.suppress(FileNotFoundError):
        remove_leftovers(directory / FILES)
    kept = {path.name: path.read_bytes() for path in (directory / FILES).glob("*")}
    assert not snapshots.damaged, snapshots.damaged
    left = [path.name for path in directory.rglob(".*")]
    assert not left, left
    versions = {info.position: {key: state.version for key, state in snapshots.read_all(info).items()} for info in snapshots.list()}
    return kept, versions


async def violation(directory: Path, step: int) -> str | None:
    """What is wrong with a state of the disk when `step` steps had been acknowledged, or None."""
    try:
        there = await found(directory)
    except (SymphonyError, AssertionError) as error:
        return f"step {step}: {type(error).__name__}: {error}"
    return None if there in AFTER_STEP[step : step + 2] else f"step {step}: {there}"


def states(recording: Recording, end: int, rng: random.Random, ignored_sync: int | None) -> Iterator[list[Operation]]:
    """The legal states after `end` operations: every subset of what is pending, where it is small, and torn writes."""
    durable, pending = recording.split(end, ignored_sync)
    for _ in range(4):  # torn writes are torn in another way each time
        for kept in variants(pending, rng, 5):
            yield durable + kept
    if len(pending) <= ALL_SUBSETS_UP_TO:
        for size in range(len(pending) + 1):
            for subset in combinations(pending, size):
                yield durable + list(subset)


async def violations(recording: Recording, scratch: Path, ends: range, ignored_sync: int | None = None) -> list[str]:
    """The violations found, at most one per point, or one in all where a sync is left out; each distinct state is looked at once."""
    rng, seen, wrong = random.Random(5), set(), []
    for end in ends:
        step = max((int(mark.text) for mark in recording.marks if mark.number <= end), default=0)
        for kept in states(recording, end, rng, ignored_sync):
            identity = (step, tuple(sorted((operation.number, operation.data) for operation in kept)))
            if identity in seen:
                continue
            seen.add(identity)
            recording.build(kept, scratch / "state")
            why = await violation(scratch / "state", step)
            if why is not None:
                wrong.append(f"operation {end}: {why}")
                break
        if wrong and ignored_sync is not None:
            return wrong
    assert ignored_sync is not None or len(seen) > 200, "the simulator must have looked at many states"
    return wrong


async def test_every_legal_state_is_that_before_a_step_or_after_it(recording: Recording, scratch: Path) -> None:
    """Files written, replaced and removed, in new directories; snapshots written, merged, replaced and deleted."""
    assert [int(mark.text) for mark in recording.marks] == list(range(1, len(AFTER_STEP)))
    assert await violations(recording, scratch, range(len(recording.operations) + 1)) == []


async def test_every_single_sync_is_needed(recording: Recording, scratch: Path) -> None:
    """The simulator goes red when any one of them is left out: none is missing from the proof, none is for nothing."""
    syncs = [operation for operation in recording.operations if operation.kind == "sync"]
    assert len(syncs) >= 20
    for sync in syncs:
        window = range(sync.number, min(sync.number + 12, len(recording.operations)) + 1)
        assert await violations(recording, scratch, window, sync.number), f"operation {sync.number} could be left out unnoticed"
