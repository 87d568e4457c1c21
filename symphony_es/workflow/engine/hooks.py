"""Hooks: what the engine calls at a run's start, around its steps, and at its end. The checkpointer is one of them.

Hooks are called in the order in which they were given, after the event they are told of is durable and before the run goes on. Each has a
time limit; the end of a run waits for one that may be missing for a moment only, and it comes to its end beside it.
One that fails is on record (`WorkflowHookFailed` on the run). Whether that stops the run is the hook's own declaration, `stops_run`; by
default it does not: what the hook would have done is no part of the run's outcome. A completed step stays completed either way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from symphony_es.diagnostics import get_logger
from symphony_es.errors import HookFailedError
from symphony_es.failures import is_failure
from symphony_es.late_dataclasses import dataclass
from symphony_es.workflow.engine.bodies import StepsTask, run_body
from symphony_es.workflow.runs.failures import describe_error, error_on_record, shortened

if TYPE_CHECKING:
    from symphony_es import Symphony
    from symphony_es.workflow.runs.run import Workflow

__all__ = ["HookChain", "RunMoment", "Stage", "WorkflowHook", "name_of", "names_of_durable"]

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

TIMEOUT_S = 10.0
"""How long a hook may take, unless it says otherwise."""

END_PATIENCE_S = 0.5
"""How long the end of a run waits for a hook that may be missing."""

GRACE_S = 1.0
"""How long a hook may take to end after it was cancelled."""

_log = get_logger(__name__)
MAX_HOOK_NAME_CHARS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class RunMoment:
    """What a hook is told.

    Attributes:
        id: the moment's own; the same where it is told again.
        after_position: a position of the log that its event comes after.
        again: whether an earlier process may have told it already, and ended before that was on record.
        stage: which moment it is.
        symphony: the Symphony that the run belongs to.
        run: the run, as it is now.
        step: address of the step, or None where the moment is not about one.
        completed_steps: how many of the run's steps have completed, those of earlier processes included.
        error: of a failed step or run `{"type", "message", "traceback", "step"}`, else None.
        retry_at: when another attempt at the step begins, UTC; None where none does.
    """

    id: str = ""
    after_position: int = 0
    again: bool = False
    stage: Stage
    symphony: Symphony
    run: Workflow
    step: str | None = None
    completed_steps: int
    error: Mapping[str, Any] | None = field(default=None, repr=False)
    retry_at: datetime | None = None


class WorkflowHook:
    """Base class of hooks: every method does nothing. Override those you need.

    Attributes:
        stops_run: whether a failure of this hook fails the run. At the run's end it is too late for that, and on record only.
        durable: whether it is told of each moment that it wants at least once, also after a crash: it then may be told twice, under the
            same `moment.id`. A hook that stops the run is.
        timeout_s: how long it may take, in seconds; then it is cancelled, which is a failure of it.
    """

    stops_run: bool = False
    durable: bool = False
    timeout_s: float = TIMEOUT_S

    def wants(self, moment: RunMoment) -> bool:
        """Return whether the method of this moment is to be called; a run does not wait for a hook that wants nothing.

        By default: whether the class overrides that method.
        """
        return getattr(type(self), moment.stage) is not getattr(WorkflowHook, moment.stage)

    async def run_started(self, moment: RunMoment) -> None:
        """Take note that the run began for the first time."""

    async def run_resumed(self, moment: RunMoment) -> None:
        """Take note that the run goes on, after a crash, an interruption or a failure."""

    async def step_started(self, moment: RunMoment) -> None:
        """Take note that a step is about to run."""

    async def step_completed(self, moment: RunMoment) -> None:
        """Take note that a step has completed; it will never run again."""

    async def step_failed(self, moment: RunMoment) -> None:
        """Take note that an attempt at a step has failed."""

    async def step_retried(self, moment: RunMoment) -> None:
        """Take note that another attempt follows the failed one, at `moment.retry_at`."""

    async def run_paused(self, moment: RunMoment) -> None:
        """Take note that the run is paused, and no step of it is under way."""

    async def run_completed(self, moment: RunMoment) -> None:
        """Take note that the run has completed."""

    async def run_failed(self, moment: RunMoment) -> None:
        """Take note that the run has ended with an error; it can be resumed."""

    async def run_blocked(self, moment: RunMoment) -> None:
        """Take note that what is on record of the run contradicts the code: it waits for code that fits."""

    async def run_cancelled(self, moment: RunMoment) -> None:
        """Take note that the run was cancelled; its clean-up steps have run."""


class HookChain:
    """The hooks of one run, in order. Any object that has some of the methods of WorkflowHook is a hook."""

    def __init__(self, hooks: Sequence[Any], behind: set[asyncio.Task[Any]] | None = None) -> None:
        self._hooks = list(hooks)
        self._behind = set() if behind is None else behind  # hooks that outlast the end of their run
        self._heard: dict[Stage, bool] = {}

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self._hooks)

    def hears(self, stage: Stage) -> bool:
        """Return whether any has a method for a stage: without, its moments need not be described."""
        heard = self._heard.get(stage)
        if heard is None:
            heard = self._heard[stage] = any(_may_hear(hook, stage) for hook in self._hooks)
        return heard

    def wants(self, moment: RunMoment) -> bool:
        """Return whether any hook is to be called, so that the run has to wait for it.

        Also where a hook fails to say: `call` records that.
        """
        return any(_may_want(hook, moment) for hook in self._hooks)

    def keeps(self, moment: RunMoment) -> bool:
        """Return whether one of them must not miss this moment."""
        return any(_is_durable(hook) and _may_want(hook, moment) for hook in self._hooks)

    async def call(self, moment: RunMoment, *, at_end: bool = False) -> None:
        """Call the hooks that want this moment, one after the other; what they raise is put on record.

        Args:
            moment: what they are told; where it is told again, only those are called that must not miss it.
            at_end: hooks that may be missing are waited for no longer than a moment.

        Raises:
            HookFailedError: the first one that declares to stop the run; the others have been called by then.
        """
        stopping: HookFailedError | None = None
        for hook in self._hooks:
            if moment.again and not _is_durable(hook):
                continue
            if not _may_want(hook, moment):
                continue
            task: asyncio.Task[BaseException | None] = StepsTask(_outcome(hook, moment))
            may_be_left = at_end and not _is_durable(hook)
            if may_be_left and not await _done_within(task, min(END_PATIENCE_S, _limit_of(hook))):
                following = asyncio.ensure_future(self._end(hook, moment, task))
                self._behind.add(following)
                following.add_done_callback(self._behind.discard)
                continue
            failure = await self._end(hook, moment, task)
            if failure is not None and getattr(hook, "stops_run", False) and stopping is None:
                stopping = failure
        if stopping is not None:
            raise stopping

    async def _end(self, hook: Any, moment: RunMoment, task: asyncio.Task[BaseException | None]) -> HookFailedError | None:
        """Wait for a hook as long as it may take; give its failure, which is on record then."""
        limit_s = _limit_of(hook)
        if await _done_within(task, limit_s):
            error = asyncio.CancelledError() if task.cancelled() else task.result()
        else:
            task.cancel()
            await asyncio.wait({task}, timeout=GRACE_S)
            error = TimeoutError(f"it has not returned within {limit_s:g} s")
        return None if error is None else await self._record_failure(hook, moment, error)

    async def _record_failure(self, hook: Any, moment: RunMoment, error: BaseException) -> HookFailedError:
        name = shortened(type(hook).__qualname__, MAX_HOOK_NAME_CHARS)
        _log.warning("workflow_hook_failed", run_id=moment.run.id, hook=name, stage=moment.stage, error=error_on_record(error))
        stops = bool(getattr(hook, "stops_run", False))
        data = {"hook": name, "stage": moment.stage, "stops_run": stops, **describe_error(error, moment.step)}
        await moment.symphony.world.claim(moment.run)  # a transaction may hold the run for a moment
        moment.symphony.world.record(moment.run, "WorkflowHookFailed", data)
        failure = HookFailedError(name, moment.stage, data)
        failure.__cause__ = error
        return failure


async def _outcome(hook: Any, moment: RunMoment) -> BaseException | None:
    """Call a hook; what it raised, if anything."""
    task = asyncio.current_task()
    try:
        await run_body(_tell, hook, moment)
    except BaseException as error:
        if not is_failure(error, task):
            raise
        return error
    return None


async def _tell(hook: Any, moment: RunMoment) -> None:
    if _wants(hook, moment):
        await getattr(hook, moment.stage)(moment)


async def _done_within(task: asyncio.Task[Any], timeout_s: float | None) -> bool:
    """Return whether the task of a hook has ended in so many seconds; where the waiting one is cancelled, so is the hook."""
    try:
        await asyncio.wait({task}, timeout=timeout_s)
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait({task}, timeout=GRACE_S)
        raise
    return task.done()


def name_of(hook: Any) -> str:
    """Return the name of a hook's class, by which it is known in another process."""
    cls = type(hook)
    return shortened(f"{cls.__module__}:{cls.__qualname__}", MAX_HOOK_NAME_CHARS)


def names_of_durable(hooks: Sequence[Any]) -> list[str]:
    """Return the names of the hooks that must not miss anything."""
    return [name_of(hook) for hook in hooks if _is_durable(hook)]


def _limit_of(hook: Any) -> float:
    limit_s = getattr(hook, "timeout_s", TIMEOUT_S)
    is_number = isinstance(limit_s, (int, float)) and not isinstance(limit_s, bool) and limit_s > 0
    return float(limit_s) if is_number else TIMEOUT_S


def _is_durable(hook: Any) -> bool:
    return bool(getattr(hook, "durable", False)) or bool(getattr(hook, "stops_run", False))


def _may_hear(hook: Any, stage: Stage) -> bool:
    """Return whether a hook has a method for a stage; also where it fails to say, which is put on record when it is called."""
    try:
        return hasattr(hook, stage)
    except BaseException as error:
        if not is_failure(error, asyncio.current_task()):
            raise
        return True


def _may_want(hook: Any, moment: RunMoment) -> bool:
    """Return whether a hook wants a moment; also where it fails to say, which is put on record when it is called."""
    try:
        return _wants(hook, moment)
    except BaseException as error:
        if not is_failure(error, asyncio.current_task()):
            raise
        return True


def _wants(hook: Any, moment: RunMoment) -> bool:
    if not hasattr(hook, moment.stage):
        return False
    asked = getattr(hook, "wants", None)
    return asked is None or bool(asked(moment))
