"""Acknowledged means durable: after a power cut at any point, in every state the disk may be in, nothing acknowledged is missing."""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

from symphony_es import Symphony
from symphony_es.errors import SymphonyError
from tests.application import Customer
from tests.faults.power_loss import Recording, record, variants

ROOT = Path(__file__).parents[2]
STATES = 800 if "SYMPHONY_EVERY" in os.environ else 300
"""So many of the legal states are looked at."""


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A directory in memory where there is one: thousands of files are made and opened."""
    base = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    path = Path(tempfile.mkdtemp(prefix="symphony-power-", dir=base))
    yield path
    shutil.rmtree(path)


def recorded(scratch: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> Recording:
    assert shutil.which("strace"), "this test needs strace: install it (apt-get install strace)"
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    source = scratch / "source"
    source.mkdir(mode=0o700)
    return record([sys.executable, "-m", "tests.faults.workload", str(source), "4", *options], source)


async def violation(directory: Path, acknowledged: int, promised: int) -> str | None:
    """What is wrong with a state of the disk, or None: it must open, hold all that was acknowledged, whole, and go on."""
    symphony = Symphony(persistence_enabled=True)
    try:
        await symphony.setup(directory)
        head = symphony.log.head
        if head < acknowledged:
            return f"{acknowledged} events were acknowledged, {head} are there"
        if head > promised:
            return f"{head} events are there, {promised} were ever written"
        report = await symphony.resume()
        assert symphony._opened is not None
        assert symphony._opened.snapshotter is not None
        damaged = [*report.damaged_snapshots, *symphony._opened.snapshotter.store.damaged]
        if damaged:
            return f"a snapshot that was put in place is damaged: {damaged}"
        customers = {customer.id: customer for customer in symphony.entities.all("Customer")}
        if customers and customers["1"].name != customers["2"].name:
            return "half a transaction is there"
        symphony.entities.add(Customer(id="after"))
        await symphony.flush()
    except SymphonyError as error:
        return f"{type(error).__name__}: {error}"
    finally:
        await symphony.close()
    return None


async def violations(recording: Recording, scratch: Path, rng: random.Random, *, states: int, until: Collection[str] = ()) -> list[str]:
    """The violations in a sample of the legal states; ends at the first one that says one of `until`."""
    promised = max(int(mark.text.split()[1]) for mark in recording.marks) + 1
    points = [(end, kept) for end in range(len(recording.operations) + 1) for kept in _states(recording, end, rng)]
    found: list[str] = []
    for end, (durable, kept) in rng.sample(points, min(states, len(points))):
        acknowledged = max((int(mark.text.split()[1]) for mark in recording.marks if mark.number <= end), default=0)
        recording.build(durable + kept, scratch / "state")
        wrong = await violation(scratch / "state", acknowledged, promised)
        if wrong is not None:
            found.append(f"after operation {end}: {wrong}")
            if any(said in wrong for said in until):
                break
    return found


def _states(recording: Recording, end: int, rng: random.Random) -> Iterator[tuple[list, list]]:  # type: ignore[type-arg]
    durable, pending = recording.split(end)
    for kept in variants(pending, rng, 3):
        yield durable, kept


async def test_nothing_acknowledged_is_lost_in_any_legal_state(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events, transactions and snapshots, over the life of a log from its creation on; each run of the test samples others."""
    seed = random.randrange(2**32)
    recording = recorded(scratch, monkeypatch)
    assert len(recording.operations) > 50
    assert await violations(recording, scratch, random.Random(seed), states=STATES) == [], f"seed {seed}"


@pytest.mark.parametrize("synchronous", ["NORMAL", "OFF"])
async def test_the_simulator_sees_a_log_that_does_not_sync(scratch: Path, monkeypatch: pytest.MonkeyPatch, synchronous: str) -> None:
    """With a weaker setting the same test is red: acknowledged events are missing."""
    recording = recorded(scratch, monkeypatch, synchronous)
    lost = ("were acknowledged", "AnchorMismatch")
    found = await violations(recording, scratch, random.Random(1), states=150, until=lost)
    assert any(said in line for said in lost for line in found), found


async def test_each_sync_of_a_snapshot_is_needed(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taking out the sync of a snapshot's content makes a damaged snapshot appear under its final name."""
    recording = recorded(scratch, monkeypatch)
    renames = [operation for operation in recording.operations if operation.kind == "rename" and operation.name.endswith(b".snap")]
    assert renames
    node = renames[0].node
    (sync,) = [o.number for o in recording.operations if o.kind == "sync" and o.target == node and o.number < renames[0].number]
    rng = random.Random(2)
    found: list[str] = []
    for end in range(renames[0].number + 1, renames[0].number + 12):
        durable, pending = recording.split(end, sync)
        for kept in variants(pending, rng, 3):
            recording.build(durable + kept, scratch / "state")
            found.append(await violation(scratch / "state", 0, 10**6) or "nothing wrong")
            if "snapshot" in found[-1]:
                return
    raise AssertionError(f"no state shows a damaged snapshot: {found}")
