"""The other process of the run model: recovers what one has left on disk, does what can be done by itself, and is killed.

`python -m tests.acceptance.recover_elsewhere` is a fork server: imports are done once. Each line of standard input is
`DIRECTORY SECONDS MODE`: where the log is, how much time has passed, and what becomes of work, as in `run_model`. `DIRECTORY.expected` says
what the runs will come to: the process is killed once they have, or when it is clear that they do not. What its bodies do stands in
`DIRECTORY.effects`, a line each: `began` or `ended`, the idempotency key and the attempt.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from symphony_es import Symphony
from symphony_es.testing import ManualClock
from symphony_es.workflow import RunContext, Workflow
from tests.acceptance.run_model import FAILING, ModelRun

__all__ = ["Elsewhere", "come_to", "fails"]

ROOT = Path(__file__).parents[2]
QUIET = 20
"""So many turns without anything new, and with nothing under way in a thread: nothing moves any more."""

PATIENCE_S = 5.0
"""How long the process may take to come to what is expected, once nothing seems to move any more."""


def fails(step: str, mode: str) -> bool:
    """Whether a body fails: work, labour, what undoes them, and sweeping, where they are told to."""
    return mode == "fails" and step.rpartition("/")[2] in FAILING


def come_to(run: Workflow | ModelRun) -> list[Any]:
    """What a run has come to, as JSON has it."""
    return [str(run.status), dict(run.attempts), sorted(run.outputs)]


class Elsewhere:
    """The server."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.acceptance.recover_elsewhere"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True
        )

    def recover(self, directory: Path, seconds: int, mode: str, expected: Mapping[str, ModelRun]) -> list[list[str]]:
        """Have a process recover what is there, and die when the runs are what is expected; gives what its bodies have done."""
        Path(f"{directory}.expected").write_text(json.dumps({name: come_to(run) for name, run in expected.items()}))
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{directory} {seconds} {mode}\n")
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
        assert os.WIFSIGNALED(status), f"the process ended with {status}"
        assert os.WTERMSIG(status) == signal.SIGKILL
        effects = Path(f"{directory}.effects")
        lines = [line.split() for line in effects.read_text().splitlines()] if effects.exists() else []
        effects.unlink(missing_ok=True)
        Path(f"{directory}.expected").unlink()
        for shared_memory in directory.glob("*-shm"):
            shared_memory.unlink()
        return lines

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


def _noted_threads(loop: asyncio.AbstractEventLoop) -> set[asyncio.Future[Any]]:
    """What the loop waits for in threads, from now on: a history that is being read may take longer than any number of turns."""
    under_way: set[asyncio.Future[Any]] = set()
    run = loop.run_in_executor

    def run_noted(*arguments: Any) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = run(*arguments)
        under_way.add(future)
        future.add_done_callback(under_way.discard)
        return future

    loop.run_in_executor = run_noted  # type: ignore[method-assign, assignment]
    return under_way


async def live(directory: str, seconds: int, mode: str) -> None:
    """One process, from its opening of the log to its death."""
    effects = os.open(f"{directory}.effects", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    expected = json.loads(Path(f"{directory}.expected").read_text())
    begun = 0
    under_way = _noted_threads(asyncio.get_running_loop())

    async def body(context: RunContext) -> str:
        nonlocal begun
        begun += 1
        os.write(effects, f"began {context.idempotency_key} {context.attempt}\n".encode())
        if context.step == "work" and mode == "hangs":
            await asyncio.Event().wait()
        if fails(context.step, mode):
            raise ValueError("it was told to fail")
        os.write(effects, f"ended {context.idempotency_key} {context.attempt}\n".encode())
        return context.step

    symphony = Symphony(persistence_enabled=True)
    await symphony.setup(state_dir=directory)
    engine: Any = symphony.registry.get("workflow_engine")
    engine.clock = ManualClock()
    engine.clock.advance(seconds)
    symphony.functions.register("body", body)
    await symphony.resume()
    recovering = asyncio.ensure_future(symphony.workflows.recover(auto_checkpoint=False))
    quiet, last, deadline = 0, None, 0.0
    while True:
        await symphony.flush()
        if under_way:
            await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
            quiet = 0
        await asyncio.sleep(0)
        seen = (symphony.log.head, engine.active_runs, begun, recovering.done())
        quiet, last = (quiet + 1, last) if seen == last else (0, seen)
        if quiet >= QUIET:
            there = {run.id: come_to(run) for run in await symphony.workflows.get_all_runs()}
            deadline = deadline or time.monotonic() + PATIENCE_S
            if there == expected or time.monotonic() > deadline:
                break
    if recovering.done():
        recovering.result()
    os.kill(os.getpid(), signal.SIGKILL)


def serve() -> None:
    """Fork one child per line of standard input; say how it ended."""
    for line in sys.stdin:
        directory, seconds, mode = line.split()
        pid = os.fork()
        if pid == 0:
            signal.alarm(60)
            try:
                asyncio.run(live(directory, int(seconds), mode))
            except BaseException:
                sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        os.write(1, f"{status}\n".encode())


if __name__ == "__main__":
    serve()
