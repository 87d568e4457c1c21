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
from typing import Any

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

    def run(self, directory: Path, kill_after_s: float | None) -> tuple[int, bool, bool]:
        """One child: the head it acknowledged last, whether it was done, whether it was killed."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{directory}\n".encode())
        self.process.stdin.flush()
        head, done, killed, timer = 0, False, False, None
        for raw in self.process.stdout:
            kind, _, rest = raw.decode().strip().partition(" ")
            if kind == "P":
                if kill_after_s is not None:
                    timer = threading.Timer(kill_after_s, _kill, [int(rest)])
                    timer.start()
            elif kind == "A":
                head = max(head, int(rest))
            elif kind == "done":
                done = True
            elif kind == "E":
                killed = int(rest) == signal.SIGKILL
                break
        if timer is not None:
            timer.cancel()
        return head, done, killed

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
        (run,) = symphony.entities.all("Workflow")
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


async def test_two_hundred_kills(tmp_path: Path) -> None:
    """Each killed run is resumed by a new process until it is done, then compared with an uninterrupted one."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    server = await asyncio.to_thread(ForkServer)
    try:
        started = time.monotonic()
        _, done, _ = await asyncio.to_thread(server.run, tmp_path / "whole", None)
        assert done
        duration_s = time.monotonic() - started
        expected, events = await outcome(tmp_path / "whole")
        check_steps(events)
        kills = runs = 0
        while kills < KILLS:
            runs += 1
            directory, head, done = tmp_path / f"run{runs}", 0, False
            while not done:
                acknowledged, done, killed = await asyncio.to_thread(server.run, directory, rng.random() ** 2 * duration_s * 0.5)
                head, kills = max(head, acknowledged), kills + killed
            state, events = await outcome(directory)
            assert state == expected, f"seed {seed}, run {runs}"
            check_steps(events)
            assert events[-1].position >= head, f"seed {seed}, run {runs}: acknowledged events are missing"
            keys: dict[str, set[str]] = {}
            for line in Path(f"{directory}.effects").read_text().splitlines():
                step, _, key = line.partition(" ")
                keys.setdefault(step, set()).add(key)
            assert all(len(of_step) == 1 for of_step in keys.values()), "an attempt after a kill had another idempotency key"
        print(f"{kills} kills in {runs} runs")
    finally:
        await asyncio.to_thread(server.close)


def test_the_definition_has_thirty_steps() -> None:
    """What the test says it runs is what it runs."""
    assert len(killed_workflow.define(Symphony()).steps) == STEPS == 30
