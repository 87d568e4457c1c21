"""The engine: executes runs, knows which ones execute in this process, and goes on with those that a crash left behind.

It owns the tasks of the event loop that drive runs, one per run, so that none is lost: each is awaited by the call that started
it, and `interrupt` ends them before a world is replaced or the Symphony is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from symphony_es.core.state.transactions import current_scope
from symphony_es.diagnostics import get_logger
from symphony_es.errors import ConfigurationError, IllegalTransitionError, RunInterruptedError, RunsInProgressError
from symphony_es.workflow.definitions.definition import WorkflowDefinition
from symphony_es.workflow.engine.hooks import AutoCheckpoint, HookChain
from symphony_es.workflow.engine.runner import Runner
from symphony_es.workflow.runs.run import UNFINISHED, Workflow, WorkflowStatus

if TYPE_CHECKING:
    from symphony_es.core.state.host import Host

__all__ = ["WorkflowEngine"]

INTERRUPTION_TIMEOUT_S = 30.0
"""How long a step may go on after it was cancelled."""

_log = get_logger(__name__)


class WorkflowEngine:
    """Executes workflows of one Symphony; also `symphony.registry.get("workflow_engine")`.

    Attributes:
        auto_checkpoint: the policy of calls with `auto_checkpoint=True`; assign another to tune all of them.
        hooks: called for every run, after the checkpointer, in this order.
    """

    def __init__(self, symphony: Host, *, auto_checkpoint: AutoCheckpoint | None = None, hooks: Iterable[Any] = ()) -> None:
        self._symphony = symphony
        self.auto_checkpoint = auto_checkpoint or AutoCheckpoint()
        self.hooks: list[Any] = list(hooks)
        self._active: dict[str, asyncio.Task[None]] = {}

    @property
    def active_runs(self) -> list[str]:
        """Ids of the runs that execute in this process right now."""
        return list(self._active)

    async def execute_workflow(
        self,
        definition: WorkflowDefinition | Mapping[str, Any],
        context: Mapping[str, Any] | None = None,
        auto_checkpoint: bool | AutoCheckpoint = True,
        *,
        hooks: Sequence[Any] = (),
    ) -> Workflow:
        """Starts a run and waits for its end.

        Args:
            definition: what to execute; the run keeps a copy.
            context: values for the run's context, over those of the definition; plain data.
            auto_checkpoint: True for the engine's policy, False for none, or a policy for this run.
            hooks: called after the engine's own, in this order.

        Returns:
            The run, whose `status` is `completed` or `failed`. A failed run holds its `error` and can be resumed with
            `continue_run`.

        Raises:
            DefinitionError: the definition is faulty. Nothing has been appended.
            NotRegisteredError: a function of it is not registered. Nothing has been appended.
            UnstorableValueError: the context holds what cannot be stored. Nothing has been appended.
            RunInterruptedError: the run was interrupted, for example by a rewind; what it completed is in the log.
            EntityOutOfStepError: the log could not append, the cause says why; `symphony.refresh(run)` puts the run back to what the
                log has, and it can be resumed.

        Cancelling the call stops the run after the step's record it is at; it stays running in the log and can be resumed.
        """
        chosen = definition if isinstance(definition, WorkflowDefinition) else WorkflowDefinition.from_dict(definition)
        for step in chosen.plan:
            step.check(self._symphony)
        run = Workflow.of(chosen, {**chosen.context, **(context or {})})
        await self._execute(run, self._chain(auto_checkpoint, hooks), new=True)
        return run

    async def continue_run(self, run: Workflow, auto_checkpoint: bool | AutoCheckpoint = True, *, hooks: Sequence[Any] = ()) -> Workflow:
        """Goes on with a run that was interrupted or has failed, and waits for its end.

        Completed steps are skipped, their outputs are there; the step that was under way runs again.

        Raises:
            IllegalTransitionError: the run has completed, or executes already. Nothing has been appended.
            RunInterruptedError, EntityOutOfStepError: as for `execute_workflow`.
        """
        run.check_transition(WorkflowStatus.RUNNING)
        await self._execute(run, self._chain(auto_checkpoint, hooks), new=False)
        return run

    async def recover(self, auto_checkpoint: bool | AutoCheckpoint = True) -> list[Workflow]:
        """Goes on with every run that was interrupted, all at once, and waits for their ends.

        Returns:
            Those runs, in the order in which they are in the log. Failed runs are left alone: `continue_run` takes them up.

        Raises:
            RunInterruptedError, EntityOutOfStepError: the first one that a run raised; the others have ended by then.
        """
        runs = [
            run
            for run in self._symphony.world.all("Workflow")
            if isinstance(run, Workflow) and run.status in UNFINISHED and run.id not in self._active
        ]
        ends = await asyncio.gather(*(self.continue_run(run, auto_checkpoint) for run in runs), return_exceptions=True)
        for end in ends:
            if isinstance(end, BaseException):
                raise end
        return runs

    async def interrupt(self, run_ids: Iterable[str] | None = None) -> list[str]:
        """Stops runs and waits until they have stopped; whoever awaits them gets RunInterruptedError.

        A coroutine function that is under way is cancelled. A plain function runs on in its thread, its outcome is dropped.

        Args:
            run_ids: which; None for all that execute in this process. Others are passed over.

        Returns:
            Ids of the runs that were stopped. They stay running in the log and can be resumed.

        Raises:
            RunsInProgressError: called from inside one of the runs, which cannot wait for its own end, or a step did not stop
                within 30 s after it was cancelled; its ids are named.
        """
        wanted = None if run_ids is None else set(run_ids)
        stopped = {run_id: task for run_id, task in self._active.items() if wanted is None or run_id in wanted}
        own = [run_id for run_id, task in stopped.items() if task is asyncio.current_task()]
        if own:
            raise RunsInProgressError(own)
        for task in stopped.values():
            task.cancel()
        if stopped:
            _, alive = await asyncio.wait(stopped.values(), timeout=INTERRUPTION_TIMEOUT_S)
            if alive:
                raise RunsInProgressError([run_id for run_id, task in stopped.items() if task in alive])
            _log.info("workflow_runs_interrupted", run_ids=list(stopped))
        return list(stopped)

    def _chain(self, auto_checkpoint: bool | AutoCheckpoint, hooks: Sequence[Any]) -> HookChain:
        if auto_checkpoint is True:
            auto_checkpoint = self.auto_checkpoint
        elif auto_checkpoint is not False and not isinstance(auto_checkpoint, AutoCheckpoint):
            raise ConfigurationError(f"auto_checkpoint is True, False or an AutoCheckpoint, not {auto_checkpoint!r}")
        policy = [auto_checkpoint] if isinstance(auto_checkpoint, AutoCheckpoint) else []
        return HookChain([*policy, *self.hooks, *hooks])

    async def _execute(self, run: Workflow, hooks: HookChain, *, new: bool) -> None:
        if run.id in self._active:
            raise IllegalTransitionError(run.id, f"{run.status} in this process", WorkflowStatus.RUNNING)
        # A run is no part of a transaction that its caller may have begun: its events are durable as they happen.
        surroundings = copy_context()
        surroundings.run(current_scope.set, None)
        task = asyncio.get_running_loop().create_task(self._drive(run, hooks, new=new), name=f"run {run.id}", context=surroundings)
        self._active[run.id] = task
        task.add_done_callback(lambda _: self._active.pop(run.id, None))
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled():
                task.exception()  # the caller is gone; the run's state is in the log
            raise
        if task.cancelled():
            raise RunInterruptedError(f"run {run.id} was interrupted; what it completed is in the log, and it can be resumed")
        task.result()

    async def _drive(self, run: Workflow, hooks: HookChain, *, new: bool) -> None:
        if new:
            self._symphony.world.add(run)
        await Runner(self._symphony, run, hooks).drive()
