"""Hooks: what the engine calls at a run's start, around its steps, and at its end. The checkpointer is one of them.

Hooks are called in the order in which they were given, after the event they are told of is durable and before the run goes on.
One that fails is on record (`WorkflowHookFailed` on the run). Whether that stops the run is the hook's own declaration, `stops_run`; by
default it does not: what the hook would have done is no part of the run's outcome. A completed step stays completed either way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from symphony_es.diagnostics import error_text, get_logger
from symphony_es.errors import HookFailedError
from symphony_es.workflow.engine.bodies import is_failure, run_body
from symphony_es.workflow.runs.failures import describe_error, shortened

if TYPE_CHECKING:
    from symphony_es.core.state.host import Host
    from symphony_es.workflow.runs.run import Workflow

__all__ = ["HookChain", "RunMoment", "Stage", "WorkflowHook"]

Stage = Literal[
    "run_started",
    "run_resumed",
    "step_started",
    "step_completed",
    "step_failed",
    "step_retried",
    "run_paused",
    "run_completed",
    "run_failed",
    "run_blocked",
    "run_cancelled",
]
"""When a hook is called; also the name of the method that is."""

_log = get_logger(__name__)
MAX_HOOK_NAME_CHARS = 200


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
        retry_at: when another attempt at the step begins, UTC; None where none does.
    """

    stage: Stage
    symphony: Host
    run: Workflow
    step: str | None = None
    completed_steps: int
    error: Mapping[str, Any] | None = None
    retry_at: datetime | None = None


class WorkflowHook:
    """Base class of hooks: every method does nothing. Override those you need.

    Attributes:
        stops_run: whether a failure of this hook fails the run. At the run's end it is too late for that, and on record only.
    """

    stops_run: bool = False

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

    async def step_retried(self, moment: RunMoment) -> None:
        """Another attempt follows the failed one, at `moment.retry_at`."""

    async def run_paused(self, moment: RunMoment) -> None:
        """The run is paused, and no step of it is under way."""

    async def run_completed(self, moment: RunMoment) -> None:
        """The run has completed."""

    async def run_failed(self, moment: RunMoment) -> None:
        """The run has ended with an error; it can be resumed."""

    async def run_blocked(self, moment: RunMoment) -> None:
        """What is on record of the run contradicts the code: it waits for code that fits."""

    async def run_cancelled(self, moment: RunMoment) -> None:
        """The run was cancelled; its clean-up steps have run."""


class HookChain:
    """The hooks of one run, in order. Any object that has some of the methods of WorkflowHook is a hook."""

    def __init__(self, hooks: Sequence[Any]) -> None:
        self._hooks = list(hooks)

    def __bool__(self) -> bool:
        """Whether there are any: without, no moment need be described."""
        return bool(self._hooks)

    def wants(self, moment: RunMoment) -> bool:
        """Whether any hook is to be called, so that the run has to wait for it; also where a hook fails to say: `call` records that."""
        for hook in self._hooks:
            try:
                if _wants(hook, moment):
                    return True
            except BaseException as error:  # asked again, and put on record, by `call`
                if not is_failure(error, asyncio.current_task()):
                    raise
                return True
        return False

    async def call(self, moment: RunMoment) -> None:
        """Calls the hooks that want this moment, one after the other; what they raise is put on record.

        Raises:
            HookFailedError: the first one that declares to stop the run; the others have been called by then.
        """
        stopping: HookFailedError | None = None
        task = asyncio.current_task()
        for hook in self._hooks:
            try:
                await run_body(_tell, hook, moment)
            except BaseException as error:
                if not is_failure(error, task):
                    raise
                failure = await self._record_failure(hook, moment, error)
                if getattr(hook, "stops_run", False) and stopping is None:
                    stopping = failure
        if stopping is not None:
            raise stopping

    async def _record_failure(self, hook: Any, moment: RunMoment, error: BaseException) -> HookFailedError:
        name = shortened(type(hook).__qualname__, MAX_HOOK_NAME_CHARS)
        _log.warning("workflow_hook_failed", run_id=moment.run.id, hook=name, stage=moment.stage, error=error_text(error))
        stops = bool(getattr(hook, "stops_run", False))
        data = {"hook": name, "stage": moment.stage, "stops_run": stops, **describe_error(error, moment.step)}
        await moment.symphony.world.claim(moment.run)  # a transaction may hold the run for a moment
        moment.symphony.world.record(moment.run, "WorkflowHookFailed", data)
        failure = HookFailedError(name, moment.stage, data)
        failure.__cause__ = error
        return failure


async def _tell(hook: Any, moment: RunMoment) -> None:
    if _wants(hook, moment):
        await getattr(hook, moment.stage)(moment)


def _wants(hook: Any, moment: RunMoment) -> bool:
    if not hasattr(hook, moment.stage):
        return False
    asked = getattr(hook, "wants", None)
    return asked is None or bool(asked(moment))
