"""The checkpointer: a hook that names positions to come back to while a run executes."""

from __future__ import annotations

from symphony_es.errors import ConfigurationError
from symphony_es.workflow.engine.hooks import RunMoment, WorkflowHook

__all__ = ["AutoCheckpoint"]


class AutoCheckpoint(WorkflowHook):
    """Takes checkpoints of the whole Symphony while a run executes.

    A crash loses nothing without them either, since the log has every step; checkpoints are names to come back to. Their names
    are `workflow_<run id>_start`, `_step_<n>` (n completed steps), `_error` and `_complete`; their metadata have `run_id`,
    `definition` (its name), `step` (address or None), `stage` and `completed_steps`. A Symphony without persistence has nowhere
    to keep a checkpoint: there it does nothing.

    Args:
        at_start: when the run begins for the first time.
        every: after every so many completed steps; None for never.
        on_error: when the run fails.
        at_completion: when it completes.
    """

    def __init__(self, *, at_start: bool = True, every: int | None = 3, on_error: bool = True, at_completion: bool = True) -> None:
        if every is not None and every < 1:
            raise ConfigurationError(f"AutoCheckpoint(every={every}): a number of steps from 1 on, or None for never")
        self.at_start = at_start
        self.every = every
        self.on_error = on_error
        self.at_completion = at_completion

    def wants(self, moment: RunMoment) -> bool:
        """What the policy says."""
        if not moment.symphony.persistence_enabled:
            return False
        match moment.stage:
            case "run_started":
                return self.at_start
            case "step_completed":
                return self.every is not None and moment.completed_steps % self.every == 0
            case "run_failed":
                return self.on_error
            case "run_completed":
                return self.at_completion
            case _:
                return False

    async def run_started(self, moment: RunMoment) -> None:
        """`workflow_<run id>_start`."""
        await self._take(moment, "start")

    async def step_completed(self, moment: RunMoment) -> None:
        """`workflow_<run id>_step_<n>`."""
        await self._take(moment, f"step_{moment.completed_steps}", stage="step")

    async def run_failed(self, moment: RunMoment) -> None:
        """`workflow_<run id>_error`."""
        await self._take(moment, "error")

    async def run_completed(self, moment: RunMoment) -> None:
        """`workflow_<run id>_complete`."""
        await self._take(moment, "complete")

    async def _take(self, moment: RunMoment, suffix: str, *, stage: str | None = None) -> None:
        metadata = {
            "run_id": moment.run.id,
            "definition": moment.run.name,
            "step": moment.step if moment.error is None else moment.error["step"],
            "stage": stage or suffix,
            "completed_steps": moment.completed_steps,
        }
        await moment.symphony.create_checkpoint(f"workflow_{moment.run.id}_{suffix}", metadata)
