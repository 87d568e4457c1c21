"""kill -9 at random moments: the outcome is that of an uninterrupted run, and nothing acknowledged is missing."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from symphony_es import Symphony
from tests.acceptance import killed_workflow
from tests.acceptance.killed_workflow import STEPS

KILLS = int(os.environ.get("SYMPHONY_KILLS", "200"))
ROOT = Path(__file__).parents[2]


class ForkServer:
    """Children that are ready at once: the imports are done before they are forked."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.acceptance.killed_workflow"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def run(self, directory: Path, kill_after_s: float | None) -> tuple[bool, bool]:
        """One child: whether it was done, whether it was killed."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{directory}\n".encode())
        self.process.stdin.flush()
        done, killed, timer = False, False, None
        for raw in self.process.stdout:
            kind, _, rest = raw.decode().strip().partition(" ")
            if kind == "P":
                if kill_after_s is not None:
                    timer = threading.Timer(kill_after_s, _kill, [int(rest)])
                    timer.start()
            elif kind == "done":
                done = True
            elif kind == "E":
                killed = int(rest) == signal.SIGKILL
                break
        if timer is not None:
            timer.cancel()
        return done, killed

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


async def outcome(directory: Path) -> tuple[dict[str, Any], list[Any]]:
    """The run's and the counter's end, without what names the run; and the run's events."""
    async with Symphony({"state_dir": directory}, persistence_enabled=True) as symphony:
        await symphony.resume()
        (run,) = await symphony.workflows.get_all_runs()
        counter = symphony.entities.get("KillCounter:c")
        state = {
            "status": str(run.status),
            "outputs": dict(run.outputs.items()),
            "context": dict(run.context),
            "counter": (counter.total, list(counter.seen)),
        }
        return state, await symphony.log.read_entity(f"Workflow:{run.id}")


def check_steps(events: list[Any]) -> None:
    """No step began again after its completion was recorded, and each completed once."""
    completed: Counter[str] = Counter()
    for event in events:
        if event.name == "WorkflowStepStarted":
            assert not completed[event.metadata.step], f"{event.metadata.step} ran again after its completion"
        elif event.name == "WorkflowStepCompleted":
            completed[event.metadata.step] += 1
    assert len(completed) == STEPS
    assert set(completed.values()) == {1}


def check_side_file(lines: list[str], events: list[Any]) -> None:
    """What was acknowledged is in the log where it was then, and never began again; each attempt of a step had the same key.

    A completion that had been lost could only be there again if its step's body had begun again, which is what the file shows.
    """
    completed = {event.metadata.step: event.position for event in events if event.name == "WorkflowStepCompleted"}
    acknowledged: set[str] = set()
    keys: dict[str, str] = {}
    for line in lines:
        kind, step, rest = line.split(" ")
        if kind == "began":
            assert step not in acknowledged, f"{step} began again after it had been acknowledged"
            assert keys.setdefault(step, rest) == rest, f"{step} had another idempotency key after a kill"
        else:
            acknowledged.add(step)
            assert completed.get(step, int(rest) + 1) <= int(rest), f"the acknowledged completion of {step} is missing"
    assert len(keys) == STEPS


async def test_two_hundred_kills(tmp_path: Path) -> None:
    """Each killed run is resumed by a new process until it is done, then compared with an uninterrupted one."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    server = await asyncio.to_thread(ForkServer)
    try:
        started = time.monotonic()
        done, _ = await asyncio.to_thread(server.run, tmp_path / "whole", None)
        assert done
        duration_s = time.monotonic() - started
        expected, events = await outcome(tmp_path / "whole")
        check_steps(events)
        kills = runs = 0
        while kills < KILLS:
            runs += 1
            directory, done = tmp_path / f"run{runs}", False
            while not done:
                done, killed = await asyncio.to_thread(server.run, directory, rng.random() ** 2 * duration_s * 0.5)
                kills += killed
            state, events = await outcome(directory)
            assert state == expected, f"seed {seed}, run {runs}"
            check_steps(events)
            check_side_file(Path(f"{directory}.effects").read_text().splitlines(), events)
        print(f"{kills} kills in {runs} runs")
    finally:
        await asyncio.to_thread(server.close)


def test_the_definition_has_thirty_steps() -> None:
    """What the test says it runs is what it runs."""
    assert len(killed_workflow.define(Symphony()).steps) == STEPS == 30


def recorded(step: str, position: int) -> Any:
    """A completion as the log would give it."""
    return SimpleNamespace(name="WorkflowStepCompleted", position=position, metadata=SimpleNamespace(step=step))


@pytest.mark.parametrize(
    ("lines", "position", "complaint"),
    [
        (["began a k", "acknowledged a 7", "began a k"], 7, "began again"),
        (["began a k", "acknowledged a 7"], 9, "is missing"),
        (["began a k", "began a other"], 7, "another idempotency key"),
    ],
)
def test_the_check_sees_what_it_looks_for(lines: list[str], position: int, complaint: str) -> None:
    """An acknowledged step that ran again, an acknowledged completion that is not where it was, a second key."""
    with pytest.raises(AssertionError, match=complaint):
        check_side_file(lines, [recorded("a", position)])
