"""The checkpointer: a hook that names positions to come back to while a run executes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from symphony_es.errors import ConfigurationError
from symphony_es.late_dataclasses import dataclass
from symphony_es.shown import shown
from symphony_es.workflow.engine.hooks import RunMoment, WorkflowHook
from symphony_es.workflow.engine.seconds import MOST

if TYPE_CHECKING:
    from symphony_es.workflow.runs.run import Workflow

__all__ = ["AutoCheckpoint", "numbers_of", "policy_of"]


_NUMBERS = ("at_start", "every", "on_error", "at_completion", "keep_last", "min_interval_s")


@dataclass(slots=True)
class _Remembered:
    """What a policy knows of a run that executes: when its last checkpoint was taken, and its step checkpoints, oldest first."""

    taken_at: float | None = None
    kept: list[str] | None = None
    looking_up: asyncio.Lock = field(default_factory=asyncio.Lock)


class AutoCheckpoint(WorkflowHook):
    """Takes checkpoints of the whole Symphony while a run executes.

    A crash loses nothing without them either, since the log has every step; checkpoints are names to come back to. Their names
    are `workflow_<run id>_start`, `_step_<n>` (n completed steps), `_error` and `_complete`; those of a run that has been taken back g
    times end with `@<g>`. Their metadata have `run_id`, `definition` (its name), `step` (address or None), `stage` and
    `completed_steps`. A Symphony without persistence has nowhere to keep a checkpoint: there it does nothing.

    One policy may serve any number of runs at once.

    Args:
        at_start: when the run begins for the first time.
        every: after every so many completed steps; None for never. Each item of a map, each branch and each iteration's steps count, and so
            do the steps around them: a map over ten thousand items wants a larger number, or `min_interval_s`.
        on_error: when the run fails.
        at_completion: when it completes.
        keep_last: how many of a run's `_step_<n>` checkpoints are kept: a new one has the oldest beyond that deleted. None for all.
            The other ones are always kept. The events stay in any case.
        min_interval_s: leaves out a `_step_<n>` checkpoint that would come sooner after the run's last one, in seconds.
        monotonic: what intervals are measured by, in seconds.

    Raises:
        ConfigurationError: a number that makes no sense.
    """

    durable = True
    timeout_s = 300.0  # a checkpoint waits for a snapshot of the world that is being written

    def __init__(
        self,
        *,
        at_start: bool = True,
        every: int | None = 3,
        on_error: bool = True,
        at_completion: bool = True,
        keep_last: int | None = None,
        min_interval_s: float | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        for name, count in (("every", every), ("keep_last", keep_last)):
            if count is not None and (type(count) is not int or count < 1):
                raise ConfigurationError(f"AutoCheckpoint({name}={shown(count)}): a whole number from 1 on, or None")
        if min_interval_s is not None and not (type(min_interval_s) in (int, float) and 0 < min_interval_s < MOST):
            raise ConfigurationError(f"AutoCheckpoint(min_interval_s={shown(min_interval_s)}): a number of seconds greater than 0, or None")
        self.at_start = at_start
        self.every = every
        self.on_error = on_error
        self.at_completion = at_completion
        self.keep_last = keep_last
        self.min_interval_s = min_interval_s
        self._monotonic = monotonic
        # Runs that have been interrupted never come to an end here: they are let go of with their world.
        self._runs: WeakKeyDictionary[Workflow, _Remembered] = WeakKeyDictionary()

    def wants(self, moment: RunMoment) -> bool:
        """Return what the policy says."""
        if not moment.symphony.persistence_enabled:
            return False
        match moment.stage:
            case "run_started":
                return self.at_start or self.keep_last is not None
            case "step_completed":
                return self.every is not None and moment.completed_steps % self.every == 0 and self._is_time(moment.run)
            case "run_failed":
                return self.on_error or moment.run in self._runs
            case "run_completed":
                return self.at_completion or moment.run in self._runs
            case "run_paused" | "run_cancelled":
                return moment.run in self._runs
            case _:
                return False

    async def run_started(self, moment: RunMoment) -> None:
        """Create the checkpoint `workflow_<run id>_start`."""
        if self.keep_last is not None:
            self._remembered(moment).kept = []  # a run that begins has none yet
        if self.at_start:
            await self._take(moment, "start")

    async def step_completed(self, moment: RunMoment) -> None:
        """Create the checkpoint `workflow_<run id>_step_<n>`; with `keep_last`, older ones are deleted after it is durable."""
        if self.keep_last is None:
            await self._take(moment, f"step_{moment.completed_steps}", stage="step")
            return
        # Known before this one is taken: branches that complete at once share the list, and each adds its own to it.
        kept = await self._known(moment)
        taken = await self._take(moment, f"step_{moment.completed_steps}", stage="step")
        if taken not in kept:
            kept.append(taken)
        while len(kept) > self.keep_last:
            await moment.symphony.delete_checkpoint(f"id:{kept.pop(0)}")

    async def run_failed(self, moment: RunMoment) -> None:
        """Create the checkpoint `workflow_<run id>_error`."""
        self._forget(moment)
        if self.on_error:
            await self._take(moment, "error")

    async def run_completed(self, moment: RunMoment) -> None:
        """Create the checkpoint `workflow_<run id>_complete`."""
        self._forget(moment)
        if self.at_completion:
            await self._take(moment, "complete")

    async def run_paused(self, moment: RunMoment) -> None:
        """Let go of what is in memory of the run; there is no checkpoint."""
        self._forget(moment)

    async def run_cancelled(self, moment: RunMoment) -> None:
        """Let go of what is in memory of the run; there is no checkpoint."""
        self._forget(moment)

    async def _take(self, moment: RunMoment, suffix: str, *, stage: str | None = None) -> str:
        metadata = {
            "run_id": moment.run.id,
            "definition": moment.run.name,
            "step": moment.step if moment.error is None else moment.error["step"],
            "stage": stage or suffix,
            "completed_steps": moment.completed_steps,
        }
        record = moment.symphony.world.record_of(moment.run)
        again = f"@{record.generation}" if record is not None and record.generation else ""
        name = f"workflow_{moment.run.id}_{suffix}{again}"
        if moment.again:
            for entry in await moment.symphony.list_checkpoints(name=name, limit=1):
                if entry["position"] > moment.after_position:
                    return str(entry["id"])
        if self.min_interval_s is not None and moment.stage in ("run_started", "step_completed"):
            # Before the wait below: of branches that complete at once, one takes the checkpoint.
            self._remembered(moment).taken_at = self._monotonic()
        return await moment.symphony.take_checkpoint(name, metadata)

    def _is_time(self, run: Workflow) -> bool:
        remembered = self._runs.get(run)
        if self.min_interval_s is None or remembered is None or remembered.taken_at is None:
            return True
        return self._monotonic() - remembered.taken_at >= self.min_interval_s

    async def _known(self, moment: RunMoment) -> list[str]:
        """Return the run's step checkpoints; those of earlier processes are looked up once."""
        remembered = self._remembered(moment)
        async with remembered.looking_up:
            if remembered.kept is None:
                found = await moment.symphony.list_checkpoints(run=moment.run)
                remembered.kept = [entry["id"] for entry in reversed(found) if _is_step_of(entry, moment.run.id)]
            return remembered.kept

    def _remembered(self, moment: RunMoment) -> _Remembered:
        remembered = self._runs.get(moment.run)
        if remembered is None:
            remembered = self._runs[moment.run] = _Remembered()
        return remembered

    def _forget(self, moment: RunMoment) -> None:
        self._runs.pop(moment.run, None)


def numbers_of(auto_checkpoint: bool | AutoCheckpoint) -> bool | dict[str, Any]:
    """Return what is stored of a call's `auto_checkpoint`: a policy's numbers that differ from the default ones."""
    if isinstance(auto_checkpoint, bool):
        return auto_checkpoint
    default = AutoCheckpoint()
    return {name: getattr(auto_checkpoint, name) for name in _NUMBERS if getattr(auto_checkpoint, name) != getattr(default, name)}


def policy_of(stored: Any) -> bool | AutoCheckpoint:
    """Return the `auto_checkpoint` that was stored of a call."""
    return AutoCheckpoint(**{name: stored[name] for name in _NUMBERS if name in stored}) if isinstance(stored, Mapping) else bool(stored)


def _is_step_of(entry: Mapping[str, Any], run_id: str) -> bool:
    """Return whether a checkpoint is a step checkpoint that a policy has taken of a run, and none of the application's own."""
    name: str = entry["name"]
    return name.startswith(f"workflow_{run_id}_step_") and bool(entry["metadata"].get("run_id") == run_id)
