"""Drives one run through its steps, in the order of durable steps that docs/architecture.md fixes.

1. The step's start is durable before its body begins, so a body that was under way at a crash is known to have been.
2. What the body changed in other entities is submitted before the step's completion, attributed to the run, the step and the
   attempt, with the start as its cause.
3. The completion (output, context, status) is one event. It is durable before the next body begins: a completed step never runs
   again. Where no hook waits in between, the next step's start shares its commit, so a step costs one commit.
4. Hooks are called after the event they are told of is durable.

Nothing here costs more because the run has done much already.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from symphony_es.core.state.attribution import attributed
from symphony_es.diagnostics import get_logger
from symphony_es.errors import EntityOutOfStepError
from symphony_es.events.identifiers import entity_key
from symphony_es.workflow.engine.execution import StepExecution, idempotency_key
from symphony_es.workflow.engine.hooks import HookChain, RunMoment, Stage
from symphony_es.workflow.runs.context import RunContext
from symphony_es.workflow.runs.run import Workflow, WorkflowStatus, describe_error

if TYPE_CHECKING:
    from symphony_es.core.state.host import Host
    from symphony_es.workflow.definitions.steps import Step

__all__ = ["Runner"]

_log = get_logger(__name__)


class _StepFailed(Exception):  # noqa: N818  a signal between two methods of this module
    """Ends the run; carries the step's error as the run's state will hold it."""

    def __init__(self, description: dict[str, Any]) -> None:
        super().__init__(description["message"])
        self.description = description


class _Started:
    """A step whose start has been submitted: the number of the attempt, and the id of the event."""

    __slots__ = ("attempt", "event_id")

    def __init__(self, attempt: int, event_id: bytes | None) -> None:
        self.attempt = attempt
        self.event_id = event_id


class Runner:
    """One run, driven by one task of the event loop.

    Args:
        symphony: the Symphony that the run belongs to.
        run: pending, running (interrupted) or failed.
        hooks: called in order.
    """

    def __init__(self, symphony: Host, run: Workflow, hooks: HookChain) -> None:
        self._symphony = symphony
        self._run = run
        self._hooks = hooks
        self._world = symphony.world
        self._key = entity_key("Workflow", run.id)
        self._completed = run.completed_steps

    async def drive(self) -> None:
        """Runs until the run has completed or failed.

        Raises:
            IllegalTransitionError: the run has completed already; nothing has been appended.
            EntityOutOfStepError: the log could not append; the cause says why.
            asyncio.CancelledError: the step under way is lost, everything before is in the log.
        """
        with attributed(run_id=self._run.id, step=None, attempt=None, cause=None):
            await self._drive()

    async def _drive(self) -> None:
        first = self._run.status is WorkflowStatus.PENDING
        with self._world.recording("WorkflowStarted" if first else "WorkflowResumed", entity=self._run):
            self._run.begin()
        await self._reach("run_started" if first else "run_resumed")
        try:
            await self._run_steps(self._run.definition.plan)
        except _StepFailed as failure:
            with self._world.recording("WorkflowFailed"):
                self._run.fail(failure.description)
            _log.warning("workflow_failed", run_id=self._run.id, step=failure.description["step"], error_type=failure.description["type"])
            await self._reach("run_failed", error=failure.description)
        else:
            with self._world.recording("WorkflowCompleted"):
                self._run.complete()
            await self._reach("run_completed")
        await self._world.flush(self._run)  # what a failing last hook left on record

    async def _run_steps(self, steps: Sequence[Step]) -> None:
        """Siblings in order, without those that have completed."""
        waiting = [step for step in steps if not self._run.is_completed(step.id)]
        started: _Started | None = None
        for index, step in enumerate(waiting):
            started = started or self._start(step.id)
            await self._reach("step_started", step.id)
            await self._attempt(step, step.id, started)
            started = None
            self._completed += 1
            if not self._hooks.wants(self._moment("step_completed", step.id)):
                # The last completion shares its commit with the run's end, any other with the next start.
                if index + 1 < len(waiting):
                    started = self._start(waiting[index + 1].id)
                continue
            await self._reach("step_completed", step.id)

    async def _attempt(self, step: Step, address: str, started: _Started) -> None:
        """Runs a step's body and records what came of it.

        Raises:
            _StepFailed: the body failed, or what it returned or wrote cannot be stored. That is on record.
        """
        run, world = self._run, self._world
        key = idempotency_key(run.id, address, world.generation(run))
        context = RunContext(self._symphony, run, address, started.attempt, key)
        execution = StepExecution(symphony=self._symphony, run=run, address=address, attempt=started.attempt, context=context)
        retried = started.attempt if started.attempt > 1 else None
        try:
            with attributed(step=address, attempt=started.attempt, cause=started.event_id):
                output = await step.perform(execution)
                await self._symphony.log.room()
                self._submit_changes(address)
            with world.recording("WorkflowStepCompleted", step=address, attempt=retried):
                context.write(world)
                if step.output_key is not None:
                    run.context[step.output_key] = output
                run.complete_step(address, output)
        except Exception as error:
            description = describe_error(error, address)
            with world.recording("WorkflowStepFailed", description, step=address, attempt=retried):
                run.fail_step(address, description)
            await self._reach("step_failed", address, description)
            raise _StepFailed(description) from error

    def _submit_changes(self, address: str) -> None:
        """Sends what the step changed in entities on its way, before its completion.

        Raises:
            EntityOutOfStepError: something it changed cannot be appended.
            UnstorableValueError: an object of a foreign class holds what cannot be stored.
        """
        world = self._world
        with world.lock:
            world.record_foreign()
            world.outbox.submit_pending()
            for record in world.outbox.broken:
                lost = (*record.pending, *record.dropped)
                if any(part.attribution.run_id == self._run.id and part.attribution.step == address for part in lost):
                    raise EntityOutOfStepError(record.key, str(record.broken)) from record.broken

    def _start(self, address: str) -> _Started:
        attempt = self._run.attempts.get(address, 0) + 1
        with self._world.recording("WorkflowStepStarted", step=address, attempt=attempt if attempt > 1 else None) as recording:
            self._run.begin_step(address)
        return _Started(attempt, recording.event_ids.get(self._key))

    async def _reach(self, stage: Stage, step: str | None = None, error: dict[str, Any] | None = None) -> None:
        """Waits until what has been recorded is durable, then calls the hooks of the moment."""
        await self._world.flush(self._run)
        await self._hooks.call(self._moment(stage, step, error))

    def _moment(self, stage: Stage, step: str | None = None, error: dict[str, Any] | None = None) -> RunMoment:
        return RunMoment(stage=stage, symphony=self._symphony, run=self._run, step=step, completed_steps=self._completed, error=error)
