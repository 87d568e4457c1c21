"""The first new step after kill -9, in a new process.

A process executes a run and kills itself with SIGKILL when the function of the given step begins. What it leaves is copied for each
round, and a new process goes on with it. Its clock starts at three moments: when the process is spawned, when its imports are done, and
(launched) when the engine is open. The first *new* step is the one after the step that was under way: that one runs again before it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.measuring import Contender, ContenderError, Goal, Place, Row, Sample

__all__ = ["ROWS", "killed", "recovered"]

HERE = "benchmarks.rows.recovering"
MODULE = "benchmarks.rows.recovering"
DBOS = "benchmarks.peers.dbos_peer"


def killed(module: str, directory: Path, steps: int, at: int) -> None:
    """Run `python -m module start DIRECTORY STEPS AT` and see it die of SIGKILL.

    Raises:
        ContenderError: it ended otherwise.
    """
    directory.mkdir(parents=True)
    command = [sys.executable, "-m", module, "start", str(directory), str(steps), str(at)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != -signal.SIGKILL:
        raise ContenderError(f"{module} ended with {done.returncode}: {done.stderr[-2000:]}")


def recovered(module: str, directory: Path, steps: int, at: int) -> dict[str, float]:
    """Seconds from three moments until the first new step; `python -m module recover DIRECTORY STEPS AT SPAWNED` prints them.

    Raises:
        ContenderError: it printed nothing.
    """
    command = [sys.executable, "-m", module, "recover", str(directory), str(steps), str(at), str(time.monotonic())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        if line.startswith('{"first_new'):
            return dict(json.loads(line))
    raise ContenderError(f"{module} ended with {done.returncode}: {done.stderr[-2000:]}")


class Steps:
    """The function of all steps: kills the process at one of them, or tells when the first new one begins."""

    def __init__(self, at: int, *, kill: bool, moments: dict[str, float] | None = None) -> None:
        self.at = at
        self.kill = kill
        self.moments = moments or {}
        self.count = 0

    async def __call__(self, context: Any) -> None:
        """Called by the engine; `step` is the number of the step, from 1."""
        from benchmarks.workload import step_text

        number = int(context.step.rpartition("/")[0].rpartition("/")[2] or context.step.removeprefix("s") or 0) + 1
        if self.kill and number == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        if not self.kill and number == self.at + 1:
            tell(self.moments)
        context.append("messages", step_text(number))


def tell(moments: dict[str, float]) -> None:
    """Print how long it took until now, and leave: the rest of the run is not of interest."""
    now = time.monotonic()
    print(json.dumps({f"first_new_step_after_{name}_s": now - moment for name, moment in moments.items()}), flush=True)
    os._exit(0)


async def _execute(action: str, directory: Path, steps: int, at: int, moments: dict[str, float]) -> None:
    from benchmarks.workload import opened

    work = Steps(at, kill=action == "start", moments=moments)

    async def call(context: Any) -> None:
        await work(context)

    async with opened(directory) as symphony:
        moments["opened"] = time.monotonic()
        symphony.functions.register("work", call)
        if action == "start":
            builder = symphony.build_workflow().create("benchmark")
            if directory.name.startswith("loop"):
                builder.add_loop("l", symphony.workflows.build_steps().add_function("s", "work"), max_iterations=steps)
            else:
                for number in range(steps):
                    builder.add_function(f"s{number}", "work")
            run = await symphony.workflows.execute_workflow(builder.build(), {"messages": []})
            raise SystemExit(f"not killed: {run.status} {run.error}")
        await symphony.resume()
        runs = await symphony.workflows.recover()
        raise SystemExit(f"no new step: {[(run.status, run.error) for run in runs]}")


def main() -> None:
    """`start` or `recover` a run of ours."""
    import asyncio

    # What is measured is imported before the clock of `imported`, also what a program that is not after a crash never imports.
    import benchmarks.workload  # noqa: F401
    import symphony_es.core.resume.resuming
    import symphony_es.facades.workflows
    import symphony_es.log.walscan
    import symphony_es.workflow.engine.recovery  # noqa: F401

    action, directory, steps, at, *spawned = sys.argv[1:]
    moments = {"spawn": float(spawned[0])} if spawned else {}
    moments["imports"] = time.monotonic()
    asyncio.run(_execute(action, Path(directory), int(steps), int(at), moments))


def prepare(place: Place) -> None:
    """What killed processes leave: a run of single steps, and loops of several lengths."""
    small, large = place.sizes["small"], place.sizes["large"]
    killed(MODULE, place.shared / "small", small, small // 2)
    for at in _lengths(small, large):
        killed(MODULE, place.shared / f"loop-{at}", at + 100, at)


def _lengths(small: int, large: int) -> list[int]:
    return sorted({small // 2, small * 2, max(small * 2, large // 5), large})


async def ours(place: Place) -> Sample:
    """A new process opens the directory, resumes, and recovers the run; automatic checkpoints were on."""
    small, large = place.sizes["small"], place.sizes["large"]
    shutil.copytree(place.shared / "small", place.own / "small")
    figures = {f"small_{name}": value for name, value in recovered(MODULE, place.own / "small", small, small // 2).items()}
    series = []
    for at in _lengths(small, large):
        directory = place.own / f"loop-{at}"
        shutil.copytree(place.shared / directory.name, directory)
        taken = recovered(MODULE, directory, at + 100, at)
        series.append((at, taken["first_new_step_after_imports_s"]))
        if at == large:
            figures |= {f"large_{name}": value for name, value in taken.items()}
    return Sample(figures=figures, series={"resume_s": series})


ROWS = (
    Row(
        name="after_kill",
        title="first new step after kill -9 at step 500 of 1,000, new process; and at 50,000",
        unit="s",
        contenders=(
            Contender(name="ours", target=f"{HERE}:ours", what="setup, resume(), recover(); single steps, and a loop for `large`"),
            Contender(name="dbos", target=f"{DBOS}:recovery", what="launch() with the same executor id and version, as shipped", peer=True),
        ),
        goals=(
            Goal(text="s from spawn, step 500 of 1,000", of="ours.small_first_new_step_after_spawn_s", at_most=0.4),
            Goal(text="s from imports done, step 500 of 1,000", of="ours.small_first_new_step_after_imports_s", at_most=0.4),
            Goal(text="s from spawn, large", of="ours.large_first_new_step_after_spawn_s", at_most=0.4),
            Goal(text="s from imports done, large", of="ours.large_first_new_step_after_imports_s", at_most=0.4),
            Goal(text="DBOS, s from spawn", of="dbos.small_first_new_step_after_spawn_s"),
            Goal(text="DBOS, s from imports done", of="dbos.small_first_new_step_after_imports_s"),
        ),
        sizes={
            "default": {"small": 1000, "large": 10_000},
            "quick": {"small": 200, "large": 500},
            "full": {"small": 1000, "large": 50_000},
        },
        prepare=(f"{HERE}:prepare", f"{DBOS}:prepare_recovery"),
        note="`large` is a run killed at step 50,000 with --full, at 10,000 without. Spawn includes Python and all imports.",
    ),
)

if __name__ == "__main__":
    main()
