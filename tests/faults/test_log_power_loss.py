"""The power cut at every system call of a small log: every acknowledged event is there in every legal state of the disk."""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from symphony_es.errors import SymphonyError
from symphony_es.events.rows import event_id_of
from symphony_es.log.log import EventLog
from symphony_es.log.sqlite import COMMIT_BYTES
from tests.faults.log_workload import event
from tests.faults.power_loss import Recording, record, variants

ROOT = Path(__file__).parents[2]
EVENTS = 6
WAL_BEGINS = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")


@pytest.fixture
def scratch() -> Iterator[Path]:
    base = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    path = Path(tempfile.mkdtemp(prefix="symphony-log-", dir=base))
    yield path
    shutil.rmtree(path)


def recorded(scratch: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> Recording:
    assert shutil.which("strace"), "this test needs strace: install it (apt-get install strace)"
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    source = scratch / "source"
    source.mkdir(mode=0o700)
    return record([sys.executable, "-m", "tests.faults.log_workload", str(source), str(EVENTS), *options], source)


async def violation(directory: Path, acknowledged: int) -> str | None:
    """What is wrong with a state of the disk, or None: it opens, holds what was acknowledged as it was written, and goes on."""
    try:
        log = await EventLog.open(directory)
        try:
            rows = await log.read_rows()
            if len(rows) < acknowledged:
                return f"{acknowledged} events were acknowledged, {len(rows)} are there"
            if [event_id_of(row[4]) for row in rows] != [event(number).event_id for number in range(1, len(rows) + 1)]:
                return "an event is there that was not written at its position"
            await log.append([event(len(rows) + 1)])
        finally:
            await log.close()
    except SymphonyError as error:
        return f"{type(error).__name__}: {error}"
    return None


async def violations(recording: Recording, scratch: Path, *, until: str | None = None) -> tuple[list[str], int]:
    """The violations in all states that differ, and how many states there were.

    With `until` it begins with the states of the whole log, and ends at the first violation that says it.
    """
    rng, found, states = random.Random(1), list[str](), 0
    seen: set[tuple[object, ...]] = set()
    ends = range(len(recording.operations) + 1)
    for end in ends if until is None else reversed(ends):
        acknowledged = max((int(mark.text.split()[1]) for mark in recording.marks if mark.number <= end), default=0)
        durable, pending = recording.split(end)
        for kept in variants(pending, rng, 2):
            state = tuple(sorted((each.number, each.data) for each in durable + kept))
            if (acknowledged, state) in seen:
                continue
            seen.add((acknowledged, state))
            states += 1
            recording.build(durable + kept, scratch / "state")
            wrong = await violation(scratch / "state", acknowledged)
            if wrong is not None:
                found.append(f"after operation {end}: {wrong}")
                if until is not None and until in wrong:
                    return found, states
    return found, states


@pytest.mark.parametrize("layout", ["grown", "written over"])
async def test_every_legal_state_keeps_what_was_acknowledged(scratch: Path, monkeypatch: pytest.MonkeyPatch, layout: str) -> None:
    """From the creation of the log to its close: all of them, not a sample; also where the write-ahead file begins again in between."""
    recording = recorded(scratch, monkeypatch, *(["--checkpoint-after", str(2 * COMMIT_BYTES)] if layout == "written over" else []))
    begun = [each for each in recording.operations if each.offset == 0 and each.data.startswith(WAL_BEGINS)]
    assert len(begun) > 1 if layout == "written over" else len(begun) == 1
    assert max(int(mark.text.split()[1]) for mark in recording.marks) == EVENTS
    found, states = await violations(recording, scratch)
    assert found == []
    assert states > 100


@pytest.mark.parametrize("synchronous", ["NORMAL", "OFF"])
async def test_without_full_synchronisation_events_are_lost(scratch: Path, monkeypatch: pytest.MonkeyPatch, synchronous: str) -> None:
    """The proof that the test above can fail, and why the log reads `synchronous` back."""
    found, _ = await violations(recorded(scratch, monkeypatch, "--synchronous", synchronous), scratch, until="were acknowledged")
    assert any("were acknowledged" in line for line in found), found
