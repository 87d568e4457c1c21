"""A graceful stop: no run begins, and those that execute stop at their next boundary between steps, for the next `recover`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import asdict, field
from functools import partial
from typing import TYPE_CHECKING, Any

from symphony_es.diagnostics import get_logger
from symphony_es.errors import RunInterruptedError
from symphony_es.events.readable import readable
from symphony_es.late_dataclasses import dataclass
from symphony_es.workflow.engine.loops import in_loop
from symphony_es.workflow.engine.seconds import check_seconds
from symphony_es.workflow.runs.run import Workflow
from symphony_es.workflow.runs.transitions import ENDED, UNFINISHED, WorkflowStatus
from symphony_es.workflow.runs.under_way import steps_under_way

if TYPE_CHECKING:
    from symphony_es.threads import ThreadPool
    from symphony_es.workflow.engine.active import ActiveRun, ActiveRuns

__all__ = ["DrainReport", "DrainedRun", "drain"]

CUT_OFF_S = 5.0
"""How long a step may go on after it was cut off, before it counts as one that does not stop."""

MAX_STEPS = 50
"""How many steps of one run a report names."""

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainedRun:
    """Where one run has stopped.

    Attributes:
        run_id: its id.
        name: of its definition.
        status: the one on record, which says what comes of it: `recover` goes on with `running`, `queued` and `cancelling` ones.
        completed_steps: how many steps of it have completed.
        steps: addresses of the steps that have begun and not completed, 50 at the most: they are entered again.
    """

    run_id: str
    name: str
    status: WorkflowStatus
    completed_steps: int
    steps: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainReport:
    """What `drain` has done.

    Attributes:
        stopped: runs that have stopped between two steps, or while they waited. Nothing of them was cut off.
        interrupted: runs that had not stopped in time: their steps were cut off in the middle, as a crash does, and begin once more.
        ended: runs that have ended, were paused or are blocked: nobody goes on with them by itself.
        hung: runs with a step that could not even be cut off; what it still does is no longer recorded after the Symphony is closed. One
            whose plain function runs on in its thread is in `interrupted` as well: it stands where it was cut off.
    """

    stopped: list[DrainedRun] = field(default_factory=list)
    interrupted: list[DrainedRun] = field(default_factory=list)
    ended: list[DrainedRun] = field(default_factory=list)
    hung: list[DrainedRun] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON encoders take: lists of runs, each by its attributes."""
        told: dict[str, Any] = readable(asdict(self))
        return told


async def drain(active: ActiveRuns, threads: ThreadPool, timeout_s: float) -> DrainReport:
    """See `WorkflowEngine.drain`."""
    check_seconds("timeout_s", timeout_s)
    active.refuse_own()
    active.draining = True
    ends = time.monotonic() + timeout_s
    while going := active.all():
        left_s = ends - time.monotonic()
        await _in_their_loops(going, partial(_stop, left_s=left_s))
        if left_s <= 0:
            break
        active.forget_ended_loops()
    cut_off = active.all()
    await _in_their_loops(cut_off, _cut_off)
    await asyncio.sleep(0)  # what their ends call
    report = DrainReport()
    ended, active.drained = active.drained, []
    running_on = {hung.step for hung in threads.hung}
    for each in {each.run.id: each for each in (*ended, *active.all())}.values():
        _sort_in(report, each, cut_off, running_on)
    _log.info("workflows_drained", stopped=len(report.stopped), interrupted=len(report.interrupted), hung=len(report.hung))
    return report


async def _in_their_loops(runs: Iterable[ActiveRun], call: Callable[[list[ActiveRun]], Coroutine[Any, Any, None]]) -> None:
    """Do something with runs in the event loops that they execute in, each with its own; nobody hears of a task of another thread."""
    by_loop: dict[asyncio.AbstractEventLoop, list[ActiveRun]] = {}
    for each in runs:
        by_loop.setdefault(each.task.get_loop(), []).append(each)

    async def there(loop: asyncio.AbstractEventLoop, its: list[ActiveRun]) -> None:
        with suppress(RunInterruptedError):  # the loop has ended meanwhile, and so have they
            await in_loop(loop, partial(call, its))

    await asyncio.gather(*(there(loop, its) for loop, its in by_loop.items()))


async def _stop(runs: list[ActiveRun], left_s: float) -> None:
    for each in runs:
        each.drive.stop_at_boundary()
    if left_s > 0:
        await asyncio.wait({each.task for each in runs}, timeout=left_s)


async def _cut_off(runs: list[ActiveRun]) -> None:
    for each in runs:
        each.task.cancel()
    await asyncio.wait({each.task for each in runs}, timeout=CUT_OFF_S)
    await asyncio.sleep(0)


def _sort_in(report: DrainReport, each: ActiveRun, cut_off: Iterable[ActiveRun], running_on: set[str]) -> None:
    run = each.run
    kept = DrainedRun(run_id=run.id, name=run.name, status=run.status, completed_steps=run.completed_steps, steps=_under_way(run))
    if not each.task.done():
        report.hung.append(kept)
    elif run.status in ENDED or run.status not in UNFINISHED:
        report.ended.append(kept)
    elif each in cut_off:
        report.interrupted.append(kept)
        if running_on and any(f"{run.id}:{address}" in running_on for address in run.attempts):
            report.hung.append(kept)
    else:
        report.stopped.append(kept)


def _under_way(run: Workflow) -> tuple[str, ...]:
    return tuple(steps_under_way(run)[:MAX_STEPS])
