"""The checkpointer: a hook that names positions to come back to while a run executes."""

from __future__ import annotations

import time
from collections.abc import Callable

from symphony_es.errors import ConfigurationError
from symphony_es.workflow.engine.hooks import RunMoment, WorkflowHook

__all__ = ["AutoCheckpoint"]


class AutoCheckpoint(WorkflowHook):
    """Takes checkpoints of the whole Symphony while a run executes.

    A crash loses nothing without them either, since the log has every step; checkpoints are names to come back to. Their names
    are `workflow_<run id>_start`, `_step_<n>` (n completed steps), `_error` and `_complete`; their metadata have `run_id`,
    `definition` (its name), `step` (address or None), `stage` and `completed_steps`. A Symphony without persistence has nowhere
    to keep a checkpoint: there it does nothing.

    One policy may serve any number of runs at once.

    Args:
        at_start: when the run begins for the first time.
        every: after every so many completed steps; None for never.
        on_error: when the run fails.
        at_completion: when it completes.
        keep_last: how many of a run's `_step_<n>` checkpoints are kept: a new one has the oldest beyond that deleted. None for all.
            The other ones are always kept. The events stay in any case.
        min_interval_s: leaves out a `_step_<n>` checkpoint that would come sooner after the run's last one, in seconds.
        monotonic: what intervals are measured by, in seconds.

    Raises:
        ConfigurationError: a number that makes no sense.
    """

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
        if every is not None and every < 1:
            raise ConfigurationError(f"AutoCheckpoint(every={every}): a number of steps from 1 on, or None for never")
        if keep_last is not None and keep_last < 1:
            raise ConfigurationError(f"AutoCheckpoint(keep_last={keep_last}): a number of checkpoints from 1 on, or None for all")
        if min_interval_s is not None and not min_interval_s > 0:
            raise ConfigurationError(f"AutoCheckpoint(min_interval_s={min_interval_s}): a number of seconds greater than 0, or None")
        self.at_start = at_start
        self.every = every
        self.on_error = on_error
        self.at_completion = at_completion
        self.keep_last = keep_last
        self.min_interval_s = min_interval_s
        self._monotonic = monotonic
        self._taken_at: dict[str, float] = {}
        self._kept: dict[str, list[str]] = {}

    def wants(self, moment: RunMoment) -> bool:
        """What the policy says."""
        if not moment.symphony.persistence_enabled:
            return False
        match moment.stage:
            case "run_started":
                return self.at_start
            case "step_completed":
                return self.every is not None and moment.completed_steps % self.every == 0 and self._is_time(moment.run.id)
            case "run_failed":
                return self.on_error or moment.run.id in self._taken_at
            case "run_completed":
                return self.at_completion or moment.run.id in self._taken_at
            case "run_paused" | "run_cancelled":
                return moment.run.id in self._taken_at
            case _:
                return False

    async def run_started(self, moment: RunMoment) -> None:
        """`workflow_<run id>_start`."""
        await self._take(moment, "start")

    async def step_completed(self, moment: RunMoment) -> None:
        """`workflow_<run id>_step_<n>`."""
        taken = await self._take(moment, f"step_{moment.completed_steps}", stage="step")
        if self.keep_last is not None:
            await self._delete_older(moment, taken, self.keep_last)

    async def run_failed(self, moment: RunMoment) -> None:
        """`workflow_<run id>_error`."""
        if self.on_error:
            await self._take(moment, "error")
        self._forget(moment)

    async def run_completed(self, moment: RunMoment) -> None:
        """`workflow_<run id>_complete`."""
        if self.at_completion:
            await self._take(moment, "complete")
        self._forget(moment)

    async def run_paused(self, moment: RunMoment) -> None:
        """No checkpoint; what is in memory of the run is let go."""
        self._forget(moment)

    async def run_cancelled(self, moment: RunMoment) -> None:
        """No checkpoint; what is in memory of the run is let go."""
        self._forget(moment)

    async def _take(self, moment: RunMoment, suffix: str, *, stage: str | None = None) -> str:
        metadata = {
            "run_id": moment.run.id,
            "definition": moment.run.name,
            "step": moment.step if moment.error is None else moment.error["step"],
            "stage": stage or suffix,
            "completed_steps": moment.completed_steps,
        }
        taken = await moment.symphony.create_checkpoint(f"workflow_{moment.run.id}_{suffix}", metadata)
        self._taken_at[moment.run.id] = self._monotonic()
        return taken

    def _is_time(self, run_id: str) -> bool:
        last = self._taken_at.get(run_id)
        return self.min_interval_s is None or last is None or self._monotonic() - last >= self.min_interval_s

    async def _delete_older(self, moment: RunMoment, taken: str, keep_last: int) -> None:
        """Deletes step checkpoints of the run beyond the newest ones; those of earlier processes are looked up once."""
        kept = self._kept.get(moment.run.id)
        if kept is None:
            found = await moment.symphony.list_checkpoints()
            own = [entry for entry in found if (entry["metadata"] or {}).get("run_id") == moment.run.id]
            kept = [entry["id"] for entry in reversed(own) if entry["metadata"].get("stage") == "step"]
            self._kept[moment.run.id] = kept
        else:
            kept.append(taken)
        while len(kept) > keep_last:
            await moment.symphony.delete_checkpoint(kept.pop(0))

    def _forget(self, moment: RunMoment) -> None:
        self._taken_at.pop(moment.run.id, None)
        self._kept.pop(moment.run.id, None)
