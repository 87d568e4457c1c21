"""Hooks: what the engine calls at a run's start, around its steps, and at its end. The checkpointer is one of them.

Hooks are called in the order in which they were given, after the event they are told of is durable and before the run goes on.
One that fails is on record (`WorkflowHookFailed` on the run) and does not stop the run: what it would have done is not part of
the run's outcome, and no completed step may be lost to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from symphony_es.diagnostics import get_logger
from symphony_es.errors import ConfigurationError
from symphony_es.workflow.runs.run import describe_error

if TYPE_CHECKING:
    from symphony_es.core.state.host import Host
    from symphony_es.workflow.runs.run import Workflow

__all__ = ["AutoCheckpoint", "HookChain", "RunMoment", "Stage", "WorkflowHook"]

Stage = Literal["run_started", "run_resumed", "step_started", "step_completed", "step_failed", "run_completed", "run_failed"]
"""When a hook is called; also the name of the method that is."""

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunMoment:
    """What a hook is told.

    Attributes:
        stage: which moment it is.
        symphony: the Symphony that the run belongs to.
        run: the run, as it is now.
        step: address of the step, or None where the moment is not about one.
        completed_steps: how many of the run's steps have completed, those of earlier processes included.
        error: of a failed step or run `{"type", "message", "traceback", "step"}`, else None.
    """

    stage: Stage
    symphony: Host
    run: Workflow
    step: str | None = None
    completed_steps: int
    error: Mapping[str, Any] | None = None


class WorkflowHook:
    """Base class of hooks: every method does nothing. Override those you need."""

    def wants(self, moment: RunMoment) -> bool:
        """Whether the method of this moment is to be called; a run does not wait for a hook that wants nothing.

        By default: whether the class overrides that method.
        """
        return getattr(type(self), moment.stage) is not getattr(WorkflowHook, moment.stage)

    async def run_started(self, moment: RunMoment) -> None:
        """The run began for the first time."""

    async def run_resumed(self, moment: RunMoment) -> None:
        """The run goes on, after a crash, an interruption or a failure."""

    async def step_started(self, moment: RunMoment) -> None:
        """A step is about to run."""

    async def step_completed(self, moment: RunMoment) -> None:
        """A step has completed; it will never run again."""

    async def step_failed(self, moment: RunMoment) -> None:
        """An attempt at a step has failed."""

    async def run_completed(self, moment: RunMoment) -> None:
        """The run has completed."""

    async def run_failed(self, moment: RunMoment) -> None:
        """The run has ended with an error; it can be resumed."""


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


class HookChain:
    """The hooks of one run, in order. Any object that has some of the methods of WorkflowHook is a hook."""

    def __init__(self, hooks: Sequence[Any]) -> None:
        self._hooks = list(hooks)

    def wants(self, moment: RunMoment) -> bool:
        """Whether any hook is to be called, so that the run has to wait for it."""
        return any(_wants(hook, moment) for hook in self._hooks)

    async def call(self, moment: RunMoment) -> None:
        """Calls the hooks that want this moment, one after the other; what they raise is put on record."""
        for hook in self._hooks:
            if not _wants(hook, moment):
                continue
            try:
                await getattr(hook, moment.stage)(moment)
            except Exception as error:  # noqa: BLE001  a hook is the application's code: whatever it raises is put on record
                self._record_failure(hook, moment, error)

    def _record_failure(self, hook: Any, moment: RunMoment, error: Exception) -> None:
        name = type(hook).__qualname__
        _log.warning("workflow_hook_failed", run_id=moment.run.id, hook=name, stage=moment.stage, error_type=type(error).__name__)
        failure = {"hook": name, "stage": moment.stage, **describe_error(error, moment.step)}
        moment.symphony.world.record(moment.run, "WorkflowHookFailed", failure)


def _wants(hook: Any, moment: RunMoment) -> bool:
    asked = getattr(hook, "wants", None)
    return bool(asked(moment)) if asked is not None else hasattr(hook, moment.stage)
