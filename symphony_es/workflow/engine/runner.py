"""Drives the steps of one run, in the order of durable steps that docs/architecture.md fixes.

1. The step's start is durable before its body begins, so a body that was under way at a crash is known to have been.
2. What the body changed in other entities is submitted before the step's completion, attributed to the run, the step and the
   attempt, with the start as its cause. An atomic step's changes and its completion are one transaction.
3. The completion (output, context, status) is one event. It is durable before the next body begins: a completed step never runs
   again. Where no hook waits in between, the next step's start shares its commit, so a step costs one commit.
4. Hooks are called after the event they are told of is durable.

Nothing here costs more because the run has done much already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from symphony_es.attribution import Attribution, current_attribution
from symphony_es.diagnostics import error_text, get_logger
from symphony_es.errors import (
    EntityBusyError,
    EntityOutOfStepError,
    HookFailedError,
    NotRegisteredError,
    NotTakenBackError,
    RunBlockedError,
    RunCancelledError,
    RunFailedError,
    StepTimeoutError,
    SymphonyError,
    UnknownValueError,
)
from symphony_es.events.changes import REMOVE, SET, Change
from symphony_es.events.identifiers import entity_key
from symphony_es.failures import is_failure
from symphony_es.shown import quoted
from symphony_es.threads import TimeLimit, current_limit, current_step
from symphony_es.workflow.definitions.error_rules import related_errors
from symphony_es.workflow.engine.bodies import StepFailure, is_interrupted, run_body
from symphony_es.workflow.engine.branches import AT_ONCE, run_branches
from symphony_es.workflow.engine.execution import Branch, StepExecution, idempotency_key
from symphony_es.workflow.engine.generations import Generations
from symphony_es.workflow.engine.retries import next_attempt_at
from symphony_es.workflow.engine.unsaid import failed_inside, unsaid
from symphony_es.workflow.record.inputs import CUT_OFF, describe_end, describe_start
from symphony_es.workflow.runs.cleanup import UNDO, failed_for_good
from symphony_es.workflow.runs.context import RunContext, UndoneStep
from symphony_es.workflow.runs.outputs import Frame
from symphony_es.workflow.runs.parts import made_of_parts, output_at
from symphony_es.workflow.runs.run import Workflow, describe_error
from symphony_es.workflow.runs.thawing import thaw
from symphony_es.workflow.runs.unmade import Lacking

if TYPE_CHECKING:
    from symphony_es.core.host import Host
    from symphony_es.core.world.live_entity import EntityRecord
    from symphony_es.core.world.transaction import Handed
    from symphony_es.workflow.definitions.definition import WorkflowDefinition
    from symphony_es.workflow.definitions.steps import Step
    from symphony_es.workflow.engine.children import ChildRuns
    from symphony_es.workflow.engine.clock import Clock
    from symphony_es.workflow.engine.control import RunControl
    from symphony_es.workflow.engine.hooks import RunMoment
    from symphony_es.workflow.engine.telling import Telling
    from symphony_es.workflow.engine.turns import Turns

__all__ = ["Runner", "StepFailure"]

_log = get_logger(__name__)


class _Started:
    """A step whose start has been submitted: the attempt, the id of the event, and the moments of its start and end."""

    __slots__ = ("attempt", "completed", "event_id", "execution", "moment")

    def __init__(self, execution: StepExecution, event_id: bytes | None, moment: RunMoment | None = None) -> None:
        self.attempt = execution.attempt
        self.execution = execution
        self.event_id = event_id
        self.moment = moment
        self.completed: RunMoment | None = None


class Runner:
    """The steps of one run; `Drive` says when they run.

    Args:
        symphony: the Symphony that the run belongs to.
        run: the run.
        telling: tells the hooks.
        control: what is asked of the run meanwhile.
        turns: shared by all runs of the engine.
        clock: the engine's.
        children: runs child runs.
        generations: of the run's addresses.

    Attributes:
        unsaid: the steps that an earlier process, or a pause, has left with a failure that nobody has dealt with.
    """

    def __init__(
        self,
        symphony: Host,
        run: Workflow,
        telling: Telling,
        control: RunControl,
        turns: Turns,
        clock: Clock,
        children: ChildRuns,
        generations: Generations,
    ) -> None:
        self.symphony = symphony
        self.run = run
        self.clock = clock
        self.control = control
        self.generations = generations
        self.unsaid: frozenset[str] = frozenset()
        self.telling = telling
        self._turns = turns
        self._children = children
        self._world = symphony.world
        self._key = entity_key("Workflow", run.id)

    # -- steps --------------------------------------------------------------------------------------------------------

    async def run_sequence(self, frame: Frame) -> None:
        """Run the steps of a frame in order, without those that have completed."""
        for step in frame.steps:
            await self.run_step(step, frame.prefix + step.id, frame)

    async def run_step(self, step: Step, address: str, frame: Frame, on_start: Callable[[], list[Change]] | None = None) -> None:
        """Run one step, with as many attempts as it is allowed; return when it has completed.

        Args:
            step: what runs.
            address: where.
            frame: what it sees.
            on_start: gives further changes of the run, part of the event of the step's start; asked at each of them.

        Raises:
            StepFailure: it has failed; that is on record.
            RunStopped: the run was asked to stop before the step, or while it waited.
            asyncio.CancelledError: the task was cancelled, also where the step before has swallowed that.
        """
        task = asyncio.current_task()
        while not self.run.is_completed(address):
            if address in self.unsaid and failed_for_good(self.run, address):
                raise unsaid(self.run, address)
            self.control.check()
            if task is not None and task.cancelling():
                raise asyncio.CancelledError  # a step has caught it and not passed it on: after it no other step begins
            retry_at = self.run.failures.get(address, {}).get("retry_at")
            if retry_at is not None:
                await self.sleep_until(retry_at)
            if not step.reentrant:
                self._look_up(step)
            started = await self._start(step, address, frame, on_start)
            # A composite has no body of its own: its start is durable with that of its first child.
            if started.event_id is not None and (not step.reentrant or self.telling.wants(started.moment)):
                await self.tell(started.moment)
            await self._turns.take()
            try:
                await self._attempt(step, address, frame, started)
            except BaseException as error:  # a step is the application's code: whatever it raises is put on record
                if not is_failure(error, task):
                    if isinstance(error, asyncio.CancelledError) and asyncio.current_task() is task:
                        self._keep_usage(address, started)
                    raise
                if is_interrupted() and not self._world.outbox.broken:
                    self._keep_usage(address, started)
                    _log.warning("step_cut_off", run_id=self.run.id, step=address, attempt=started.attempt, error=error_text(error))
                    raise asyncio.CancelledError from error  # what a step makes of being cut off is no failure: it begins once more
                await self._fail(step, address, started, error)
                continue
            if self.telling.wants(started.completed):
                await self.tell(started.completed)

    def _look_up(self, step: Step) -> None:
        """Look up what a step needs; where this process does not have it, the step's start is not put on record."""
        try:
            step.check(self.symphony)
        except NotRegisteredError as error:
            raise Lacking(error) from error
        except BaseException as error:  # of a kind that the application has added: its body will say what is wrong
            if not is_failure(error, asyncio.current_task()):
                raise

    async def take_turn(self) -> None:
        """Let others have the event loop where they have waited for long enough."""
        await self._turns.take()

    async def _start(self, step: Step, address: str, frame: Frame, on_start: Callable[[], list[Change]] | None) -> _Started:
        run = self.run
        attempts = run.attempts.get(address, 0)
        failure = run.failures.get(address)
        failed = failure is not None and failure["attempt"] == attempts
        if step.reentrant and attempts and not failed:
            # Entered again after a crash or a pause: all it did is in the run.
            return _Started(self._execution(address, frame, attempts, entered_again=True), None)
        name = "WorkflowStepRetried" if failed else "WorkflowStepStarted"
        if not self._world.is_free(run):
            await self._world.claim(run)
        execution = self._execution(address, frame, attempts + 1)
        said = describe_start(step, execution)  # nothing comes between what it reads and the event
        changes: list[Change] = [(SET, ("attempts", address), attempts + 1)]
        if failed and step.reentrant:
            changes += [(SET, ("failures", inside, "count"), 0) for inside in failed_inside(run, address)]
        if on_start is not None:
            changes += on_start()
        changes += self.telling.forgotten()
        moment = self.telling.note(changes, "step_started", address)
        event_id = run.record(name, changes, step=address, attempt=attempts + 1 if attempts else None, data=said)
        return _Started(execution, event_id, moment)

    async def _attempt(self, step: Step, address: str, frame: Frame, started: _Started) -> None:
        """Run a step's body and record its completion; whatever it raises has left no completion."""
        run, world = self.run, self._world
        # What nested steps record is of their own attempts.
        attempt = None if step.reentrant else started.attempt
        current_step.set(f"{run.id}:{address}")
        around = current_attribution.get()
        token = current_attribution.set(
            Attribution(around.actor, around.reason, around.run_id, address, attempt, started.event_id, around.correlation_id, around.user)
        )
        try:
            if step.atomic:
                await self._attempt_at_once(step, address, frame, started)
                return
            execution = started.execution
            with world.foreign.attempt() as handed:
                output = await self._body(step, execution)
                if not world.log.has_room():
                    await world.log.room()
                self._submit_changes(address, handed)
        except BaseException:
            started.execution.context.ended = True  # a function that runs on in its thread is told
            raise
        finally:
            current_attribution.reset(token)
        if not world.is_free(run):
            await world.claim(run)
        started.completed = self._complete(step, execution, output)

    def _execution(self, address: str, frame: Frame, attempt: int, *, entered_again: bool = False) -> StepExecution:
        key = idempotency_key(self.run.id, address, self.generations.of(address))
        context = RunContext(self.symphony, frame, address, attempt, key, lambda: self.control.ending)
        if address.startswith(f"{UNDO}/"):
            context.undoes = frame.undoes or self._undone(address[len(UNDO) + 1 :])
        return StepExecution(
            symphony=self.symphony,
            run=self.run,
            address=address,
            attempt=attempt,
            context=context,
            frame=frame,
            runner=self,
            entered_again=entered_again,
        )

    async def _attempt_at_once(self, step: Step, address: str, frame: Frame, started: _Started) -> None:
        """Run an atomic step's body and record its completion in one transaction.

        An assignment cannot wait. So where the body meets an entity that another block holds, all that it did is taken back; its turn with
        that entity is waited for, and it runs again: the same attempt with the same key. Keys are claimed in one order by all, so that
        no two wait for each other.
        """
        claims: list[str] = []
        task = asyncio.current_task()
        while True:
            execution = started.execution
            block = self._world.transaction(None, claim=claims, alone=True)
            try:
                async with block:
                    self._world.foreign.hand_function(step.function_of(self.symphony), step.arguments())
                    output = await self._body(step, execution)
                    await self._world.claim(self.run)
                    started.completed = self._complete(step, execution, output)
                return
            except BaseException as error:
                busy = [found.entity for found in related_errors(error) if isinstance(found, EntityBusyError)]
                if block.left and is_failure(error, task):
                    raise NotTakenBackError(f"{address} of run {self.run.id}", block.left) from error
                if not is_failure(error, task) or not busy or not self._can_wait_for(busy, claims):
                    raise
                claims = sorted({*claims, *busy})
                started.execution = self._execution(address, frame, started.attempt)
                started.execution.context.usage = execution.context.usage  # it was used all the same

    def _can_wait_for(self, busy: list[str], claimed: list[str]) -> bool:
        """Return whether entities are held by blocks of others, which end.

        A run's own entity and a world that closes are not waited for.
        """
        records = [self._world.records.get(key) for key in busy]
        return self._world.sealed is None and all(
            record is not None and record.key != self._key and record.key not in claimed for record in records
        )

    def _undone(self, address: str) -> UndoneStep:
        run = self.run
        return UndoneStep(
            address=address,
            status=run.step_status(address),
            output=thaw(run.outputs.get(address)),
            idempotency_key=idempotency_key(run.id, address, self.generations.of(address)),
        )

    async def _body(self, step: Step, execution: StepExecution) -> Any:
        timeout_s = step.timeout_s
        if timeout_s is None and not step.reentrant:
            timeout_s = self.run.definition.timeout_s
        if timeout_s is None:
            return await run_body(step.perform, execution)
        limit = asyncio.timeout(timeout_s)
        try:
            async with limit:
                if not step.reentrant:  # what waits for a thread has not begun
                    current_limit.set(TimeLimit(limit))
                return await run_body(step.perform, execution)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise StepTimeoutError(execution.address, timeout_s) from error
        finally:
            current_limit.set(None)

    def _complete(self, step: Step, execution: StepExecution, output: Any) -> RunMoment | None:
        attempt = execution.attempt if execution.attempt > 1 else None
        outputs = () if step.output_key is None else ((step.output_key, thaw(made_of_parts(self.run, execution.address, output))),)
        said = describe_end(execution.context)
        changes = execution.context.changes(self._world, *outputs)
        changes += self.run.completion(execution.address, output)
        changes += self.telling.forgotten()
        moment = self.telling.note(changes, "step_completed", execution.address)
        self.run.record("WorkflowStepCompleted", changes, step=execution.address, attempt=attempt, data=said)
        return moment

    def _keep_usage(self, address: str, started: _Started) -> None:
        """Put on record what an attempt has used that was cut off: by a cancellation, a deadline, a branch that failed, or an end here."""
        usage = started.execution.context.usage
        used = None if usage is None else usage.data()
        if used is None:
            return
        attempt = started.attempt if started.attempt > 1 else None
        try:
            self.run.record(CUT_OFF, (), step=address, attempt=attempt, data={"used": used})
        except SymphonyError as error:  # another block holds the run, or the world has closed: nothing can be waited for any more
            _log.warning("usage_not_recorded", run_id=self.run.id, step=address, attempt=started.attempt, error=error_text(error))

    async def _fail(self, step: Step, address: str, started: _Started, error: BaseException) -> None:
        """Put a failed attempt on record; return when another one is to follow.

        Raises:
            StepFailure: none is.
        """
        inner = error if isinstance(error, StepFailure) else None
        cause = error if inner is None else inner.error
        policy = step.retry if step.retry is not None or step.reentrant else self.run.definition.retry_policy
        before = self.run.failures.get(address)
        limit = policy.max_attempts if policy is not None else 1
        count = 1 if before is None or before["count"] >= limit else before["count"] + 1

        retry_at = await next_attempt_at(policy, cause, count, self.clock.now(), self.symphony.functions)
        description = describe_error(error, address) if inner is None else inner.description
        data = description if inner is None else {key: description[key] for key in ("type", "message", "step")}
        data = {**data, **(describe_end(started.execution.context) or {})}
        await self._world.claim(self.run)
        attempt = started.attempt if started.attempt > 1 else None
        changes = self.run.failure(address, description, count, retry_at)
        if not step.keeps_progress and address in self.run.progress:
            changes.append((REMOVE, ("progress", address)))
        changes += self.telling.forgotten()
        failed = self.telling.note(changes, "step_failed", address, description)
        retried = None if retry_at is None else self.telling.note(changes, "step_retried", address, description, retry_at)
        self.run.record("WorkflowStepFailed", changes, step=address, attempt=attempt, data=data)
        if self._world.outbox.broken:  # known now, since what was changed before is submitted before
            await self._drop_lost(address)
        await self.tell(failed)
        if retry_at is None:
            raise StepFailure(description, cause) from error
        await self.tell(retried)

    def _submit_changes(self, address: str, handed: Handed) -> None:
        """Send what the step changed in entities on its way, before its completion.

        Raises:
            EntityOutOfStepError: something that it changed cannot be appended; the cause says why.
            UnstorableValueError: an object of a foreign class holds what cannot be stored.
        """
        world = self._world
        world.record_foreign(handed)
        with world.lock:
            world.outbox.submit_pending()
            for record in self._lost(address) if world.outbox.broken else ():
                raise EntityOutOfStepError(record.key, str(record.broken)) from record.broken

    def _lost(self, address: str) -> list[EntityRecord]:
        """Return the entities, but for the run, of which changes that the step made could not be appended."""

        def is_of_step(record: EntityRecord) -> bool:
            parts = (*record.pending, *record.dropped)
            return any(part.attribution.run_id == self.run.id and part.attribution.step == address for part in parts)

        return [record for record in self._world.outbox.broken if record.obj is not self.run and is_of_step(record)]

    async def _drop_lost(self, address: str) -> None:
        """Put back what the step changed and can never be appended: the attempt has failed of it, and nobody else is to be told."""
        from symphony_es.core.resume.refreshing import put_back  # late: few steps need it

        for record in self._lost(address):
            await put_back(self._world, self.symphony.state_history, record)

    # -- what steps ask for through their execution -------------------------------------------------------------------

    async def note(self, address: str, event_name: str, progress: Any) -> None:
        """See `StepExecution.note`."""
        await self._world.claim(self.run)
        changes = self.run.noted(address, progress)
        if changes:
            self.run.record(event_name, changes, step=address)

    async def run_together(
        self, execution: StepExecution, branches: Sequence[Branch], max_concurrency: int | None, *, collect: bool
    ) -> dict[str, Any]:
        """See `StepExecution.run_together`."""
        await self.run_parts(execution, branches, max_concurrency, collect=collect)
        outcomes: dict[str, Any] = {}
        for count, branch in enumerate(branches):
            outcomes[branch.part] = self._outcome(f"{execution.address}/{branch.part}")
            if count % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(0)
        return outcomes

    async def run_parts(self, execution: StepExecution, branches: Sequence[Branch], max_concurrency: int | None, *, collect: bool) -> None:
        """Run the parts of a step whose output is made of what they gave; return when each has its outcome."""

        async def run_branch(branch: Branch) -> None:
            await self.take_turn()  # many may begin at once
            address = f"{execution.address}/{branch.part}"
            await self.run_step(branch.step, address, Frame(self.run, outer=execution.frame, names=branch.names, key_space=address))

        waiting: dict[str, Branch] = {}
        for count, branch in enumerate(branches):
            address = f"{execution.address}/{branch.part}"
            if not self._settled(address, collect=collect):
                waiting[address] = branch
            if count % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(0)  # others have their turn
        stopped = await run_branches(waiting, run_branch, max_concurrency, tolerate=StepFailure if collect else None)
        if stopped.failure is not None:
            if stopped.cancelled and not isinstance(stopped.failure, Lacking):
                await self._world.claim(self.run)
                said = {"branches": stopped.cancelled}
                self.run.record("WorkflowBranchesCancelled", (), step=execution.address, data=said)
            raise stopped.failure

    def _settled(self, address: str, *, collect: bool) -> bool:
        """Return whether a branch has its outcome: where failures are collected, one that is final stands after a crash too."""
        if self.run.is_completed(address):
            return True
        return collect and self.run.step_status(address) == "failed" and "retry_at" not in self.run.failures[address]

    def _outcome(self, address: str) -> Any:
        if self.run.is_completed(address):
            return thaw(output_at(self.run, address))
        failure = self.run.failures[address]
        return {"error": {"type": failure["type"], "message": failure["message"]}}

    async def sleep_until(self, moment: datetime) -> None:
        """See `StepExecution.sleep_until`."""
        if moment > self.clock.now():
            await self._world.flush(self.run)
            await self.control.sleep_until(moment)

    async def take_signal(self, address: str, name: str, until: datetime | None) -> Any:
        """See `StepExecution.take_signal`."""
        called = asyncio.Event()
        try:
            return await self._take_signal(address, name, until, called)
        finally:
            self.control.leave(name, called)
            if self.run.signals.get(name):
                self.control.call(name)

    async def _take_signal(self, address: str, name: str, until: datetime | None, called: asyncio.Event) -> Any:
        run = self.run
        while True:
            taken = run.progress.get(address)
            if isinstance(taken, Mapping) and "taken" in taken:
                return thaw(taken["taken"])
            self.control.listen(name, called)
            await self._world.claim(run)
            if run.signals.get(name):
                waiting = run.signals[name]
                gone: Change = (REMOVE, ("signals", name, 0) if len(waiting) > 1 else ("signals", name))
                took: Change = (SET, ("progress", address), {"taken": thaw(waiting[0])})
                run.record("WorkflowSignalTaken", (gone, took), step=address, data={"name": name})
                continue
            if until is not None and self.clock.now() >= until:
                raise TimeoutError(f"no signal {quoted(name)} came before {until.isoformat()}")
            await self._world.flush(run)
            await self.control.wait_for_call(called, until)

    async def run_child(
        self, execution: StepExecution, definition: WorkflowDefinition, context: Mapping[str, Any], on_parent_end: str
    ) -> Workflow:
        """See `StepExecution.run_workflow`."""
        try:
            child = await self._children.run(execution, definition, context, on_parent_end, self.control)
        except (NotRegisteredError, UnknownValueError) as error:
            raise Lacking(error) from error
        if child.status == "blocked":
            raise Lacking(RunBlockedError(child.id, child.error or {}))
        if child.status == "completed":
            return child
        if child.status == "cancelled":
            raise RunCancelledError(child.id)
        raise RunFailedError(child.id, dict(child.error or {}))

    # -- hooks --------------------------------------------------------------------------------------------------------

    async def tell(self, moment: RunMoment | None, *, at_end: bool = False) -> None:
        """Wait until what has been recorded is durable, then call the hooks of the moment.

        Raises:
            StepFailure: a hook failed that declares to stop the run.
        """
        try:
            await self.telling.tell(moment, at_end=at_end)
        except HookFailedError as failed:
            raise self._stopped_by(failed, moment.step if moment is not None else None) from failed

    async def tell_again(self, but: RunMoment | None) -> None:
        """Tell of the moments that an earlier process has left untold, but for one.

        Raises:
            StepFailure: a hook failed that declares to stop the run.
        """
        try:
            await self.telling.tell_again(but)
        except HookFailedError as failed:
            raise self._stopped_by(failed, None) from failed

    def _stopped_by(self, failed: HookFailedError, step: str | None) -> StepFailure:
        failure = StepFailure(describe_error(failed, step), failed)
        self.control.fail(failure)
        return failure
