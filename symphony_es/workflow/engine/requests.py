"""The requests that can be made to runs, whether they execute or not; part of the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from symphony_es.contexts import reset_variable
from symphony_es.core.resume.bringing import refuse_pruned
from symphony_es.core.world.transaction import current_scope
from symphony_es.diagnostics import error_text, get_logger
from symphony_es.errors import (
    ConfigurationError,
    DefinitionChangedError,
    IllegalTransitionError,
    ReadOnlyError,
    RunInterruptedError,
    RunsInProgressError,
)
from symphony_es.events.identifiers import entity_key
from symphony_es.shown import shown
from symphony_es.threads import ThreadPool, current_pool
from symphony_es.workflow.definitions.definition import WorkflowDefinition
from symphony_es.workflow.engine.active import DO_NOT_END, INTERRUPTION_TIMEOUT_S, ActiveRun, ActiveRuns
from symphony_es.workflow.engine.auto_checkpoint import AutoCheckpoint, policy_of
from symphony_es.workflow.engine.children import CANCELLED, GRACE_S, PAUSED, ChildRuns
from symphony_es.workflow.engine.clock import Clock, SteadyClock, SystemClock, checked_clock
from symphony_es.workflow.engine.control import Request
from symphony_es.workflow.engine.creation import DefinitionLike, as_definition, check_error_classes
from symphony_es.workflow.engine.drive import Drive
from symphony_es.workflow.engine.handle import RunHandle
from symphony_es.workflow.engine.histories import Timelines
from symphony_es.workflow.engine.hooks import HookChain, name_of
from symphony_es.workflow.engine.loops import where_it_executes
from symphony_es.workflow.engine.missing import check_can_go_on
from symphony_es.workflow.engine.resting import Resting
from symphony_es.workflow.engine.seconds import check_deadline, check_seconds, deadline_after
from symphony_es.workflow.engine.stopping import pause_run, request_cancel
from symphony_es.workflow.engine.turns import Turns
from symphony_es.workflow.engine.waits import runs_around
from symphony_es.workflow.engine.within import Beginnings, refuse_inside
from symphony_es.workflow.record.redaction import current_redaction, records_inputs
from symphony_es.workflow.runs.cleanup import is_of_cleanup
from symphony_es.workflow.runs.run import Workflow
from symphony_es.workflow.runs.thawing import thaw
from symphony_es.workflow.runs.transitions import ENDED, WorkflowStatus

if TYPE_CHECKING:
    from symphony_es.core.host import Host

__all__ = ["RunRequests"]

_log = get_logger(__name__)


class RunRequests:
    """Pausing, cancelling, signalling, retrying and forking runs, and waiting for them.

    Attributes:
        auto_checkpoint: the policy of calls with `auto_checkpoint=True`; assign another to tune all of them.
        hooks: called for every run, after the checkpointer, in this order.
        threads: where plain functions of steps run; `threads.hung` names those that do not return.
        active: the runs that execute in this process.
        children: the child runs of steps.
        resting: brings runs that have ended to rest.
        redaction: what is taken out of what is put on record of inputs and failures; assign another `Redaction` to tell more names.
        record_inputs: whether the inputs of steps themselves are put on record, where neither step nor definition say.
        on_recovered: called when `recover` has taken up what it can.
        beginnings: the runs that begin with a transaction.
    """

    def __init__(
        self,
        symphony: Host,
        *,
        auto_checkpoint: AutoCheckpoint | None = None,
        hooks: Iterable[Any] = (),
        clock: Clock | None = None,
        threads: ThreadPool | None = None,
        max_concurrent_runs: int | None = None,
    ) -> None:
        self.auto_checkpoint = auto_checkpoint or AutoCheckpoint()
        self.hooks: list[Any] = list(hooks)
        self.clock = SystemClock() if clock is None else clock
        self.threads = threads or ThreadPool()
        self.active = ActiveRuns()
        self.max_concurrent_runs = max_concurrent_runs
        self.children = ChildRuns(self, symphony)
        self.redaction = current_redaction.get()
        self.record_inputs = False
        self.beginnings = Beginnings(symphony, self.active)
        self.timelines = Timelines()
        self._symphony = symphony
        self.resting = Resting(symphony, self.active)
        self.active.on_end = self.resting.ended
        self._turns = Turns()
        self._hooks_behind: set[asyncio.Task[Any]] = set()
        self._cancelling: set[asyncio.Task[None]] = set()
        self.on_recovered: Callable[[], None] = lambda: None

    @property
    def clock(self) -> Clock:
        """What timers, deadlines and delays go by; one that is assigned goes on from where it was when it is set back."""
        return self._clock

    @clock.setter
    def clock(self, clock: Clock) -> None:
        self._clock = clock if isinstance(clock, SystemClock | SteadyClock) else SteadyClock(checked_clock(clock))

    @property
    def max_concurrent_runs(self) -> int | None:
        """How many runs execute at once in this process; None for all. Further ones are `queued`, first come, first served.

        Child runs do not count, nor does a run that a step of another one waits for, nor a clean-up. One that waits for a signal or a timer
        keeps its place. It may be assigned at any time: runs that execute go on.
        """
        return self.active.places.limit

    @max_concurrent_runs.setter
    def max_concurrent_runs(self, limit: int | None) -> None:
        if limit is not None and (type(limit) is not int or limit < 1):
            raise ConfigurationError(f"max_concurrent_runs is a whole number from 1 on, or None for no limit, not {shown(limit)}")
        self.active.places.limit = limit

    def queue(self) -> list[RunHandle]:
        """Return handles of the runs that wait for a place, the next one first.

        Raises:
            ReadOnlyError: this process only reads: whose turn it is only the one knows that executes them.
        """
        if self._symphony.log.read_only:
            raise ReadOnlyError(
                "the process that executes the runs knows whose turn it is, and this Symphony is open for reading only: "
                "`await workflows.list_runs(status='queued', newest_first=False)` says which ones wait"
            )
        waiting = [self.active.of_id(run_id) for run_id in self.active.places.queue]
        return [RunHandle(self, self._symphony, run) for run in waiting if run is not None]

    def handle(self, run: Workflow | str) -> RunHandle:
        """Return a handle of a run, or of the id of one that is at rest in the log: its status, its end, its events, and the requests to
        it.
        """
        return RunHandle(self, self._symphony, run)

    @where_it_executes
    async def resume(
        self,
        run: Workflow,
        auto_checkpoint: bool | AutoCheckpoint | None = None,
        *,
        definition: DefinitionLike | None = None,
        force: bool = False,
        hooks: Sequence[Any] = (),
        deadline_s: float | None = None,
    ) -> Workflow:
        """Go on with a run that was interrupted, is paused or pending, or has failed, and wait as `execute_workflow` does.

        Completed steps are skipped, their outputs are there; the step that was under way, or failed, runs again. Where the run has been
        asked to pause and its steps under way have not ended yet, the request is taken back: they come to their end once. Where a clean-up
        was interrupted or has failed, that goes on, and what has failed of it is tried again.

        Args:
            run: the run.
            auto_checkpoint: True, False, or a policy for this run; what the run began with when left out.
            definition: goes on with this definition in place of its own; its steps are mapped to the old ones by their ids. See
                docs/living-with-code-changes.md.
            force: take that definition also where the run's history contradicts it.
            hooks: called after the engine's own.
            deadline_s: a new deadline, in seconds from now; a deadline that has passed fails the run again.

        Raises:
            IllegalTransitionError: the run has completed or was cancelled, or executes already. Nothing has been appended.
            NotRegisteredError: it needs a function, a model client or a definition that is missing here. Nothing has been appended.
            UnknownValueError: it waits for a child run that needs a class which is not known here. Nothing has been appended.
            DefinitionChangedError: the run's history contradicts the new definition; the message reports how. Nothing has been
                appended.
            RunInterruptedError, EntityOutOfStepError: as for `execute_workflow`.
        """
        self.active.check_draining()
        check_deadline(deadline_s)
        run.check("resume")
        active = self.active.get(run)
        plain = definition is None and not hooks and deadline_s is None and auto_checkpoint is None
        if await self.pause_taken_back(run, plain=plain):
            return run if active is None or self.active.is_part_of(run) else await self.active.join(active)
        known = run.status
        if definition is not None:
            await self._change_definition(run, as_definition(definition), deadline_s, force=force)
            deadline_s = None  # it is on record with the definition, also where the run is paused before it goes on
        check_can_go_on(run, self._symphony)
        chain = self.chain(auto_checkpoint, hooks, run)
        return await self.active.join(await self.begin(run, chain, lambda: self._set_deadline(run, deadline_s), known=known, asked=True))

    @where_it_executes
    async def pause(self, run: Workflow) -> None:
        """Pause a run: steps under way come to their end, no other begins. The request is durable when this returns.

        The run stops when its steps under way have ended, which `handle.wait("paused")` waits for; until then `resume` takes the request
        back. Its child runs are paused at once, too. It is no part of a transaction around the call.

        Raises:
            IllegalTransitionError: the run is not running. Nothing has been appended.
        """
        await self._pause(run, None)

    async def pause_with_parent(self, run: Workflow) -> None:
        """Pause a child run because its parent is paused; it goes on with its parent. See `pause`."""
        await self._pause(run, PAUSED)

    async def _pause(self, run: Workflow, with_parent: str | None) -> None:
        await pause_run(self, self._symphony, run, with_parent)
        await self.children.pause_all(run)

    async def pause_taken_back(self, run: Workflow, *, plain: bool) -> bool:
        """Go on with a run that has been asked to pause and has not stopped yet.

        Args:
            run: the run.
            plain: whether it is to go on as it is; what a call changes is for the run that has stopped, so that is waited for.

        Returns:
            Whether it goes on; False where it has stopped.

        Raises:
            IllegalTransitionError: it cannot go on any more.
        """
        active = self.active.get(run)
        if active is None or run.status is not WorkflowStatus.PAUSED:
            return False
        if plain and await self.go_on(run, active):
            return True
        await self._stopped(run)
        run.check("resume")
        return False

    async def _stopped(self, run: Workflow) -> None:
        """Wait until a run that has been asked to pause has stopped; not from inside of it.

        Raises:
            IllegalTransitionError: it was asked to go on, or cancelled, meanwhile: what was asked last counts.
        """
        active = self.active.get(run)
        if active is None or run.status is not WorkflowStatus.PAUSED or self.active.is_part_of(run):
            return
        other = active.drive.control.replaced
        replaced = asyncio.ensure_future(other.wait())
        try:
            await asyncio.wait({active.task, replaced}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            replaced.cancel()
        if other.is_set():
            raise IllegalTransitionError(run.id, run.status, WorkflowStatus.RUNNING, why="another request came while it was to stop")
        await self.active.ended(active)

    async def go_on(self, run: Workflow, active: ActiveRun) -> bool:
        """Take a request to pause back; False where the run has stopped meanwhile, or something else was asked of it.

        Args:
            run: the run.
            active: its execution, which has been asked to pause.
        """

        def still() -> bool:
            return run.status is WorkflowStatus.PAUSED and not active.task.done()

        return await self.record(run, "WorkflowResumed", lambda: run.move("resume", self.clock.now()), still, ask="go_on")

    @where_it_executes
    async def cancel(self, run: Workflow, *, grace_s: float = GRACE_S, cleanup: bool = True) -> None:
        """Cancel a run and its child runs, then run its clean-up steps. It is cancelled when this returns.

        Called from inside one of the run's steps, it returns at once, and the run is cancelled after the step. It is no part of a
        transaction around the call. Where the caller is cancelled and the request is on record, it is carried out all the same.

        Args:
            run: pending, running, paused or failed; for one that is being cancelled already, its end is awaited.
            grace_s: how long the steps under way may take to end by themselves (`context.stop_requested` tells them); then they
                are cancelled; those of its child runs as well. The engine's own waits end at once.
            cleanup: False leaves out the clean-up, of child runs as well: steps of it that are under way are stopped as all others are,
                and the rest does not begin. That ends a clean-up that hangs. The run's `error` says what was left out, and `resume`
                goes on with it.

        Raises:
            IllegalTransitionError: the run has completed or was cancelled. Nothing has been appended.
            ConfigurationError: `grace_s` is not a number of seconds. Nothing has been appended.
            RunsInProgressError: a step did not stop within 30 s after it was cancelled.
            RunInterruptedError, EntityOutOfStepError: the run was interrupted meanwhile, or the log could not append.
        """
        check_seconds("grace_s", grace_s)
        try:
            await request_cancel(self, run, cleanup=cleanup, with_parent=False)
        except asyncio.CancelledError:
            if run.status is WorkflowStatus.CANCELLING:
                self._end_in_background(run, grace_s, cleanup=cleanup)
            raise
        await asyncio.shield(self._end_in_background(run, grace_s, cleanup=cleanup))

    def _end_in_background(self, run: Workflow, grace_s: float, *, cleanup: bool) -> asyncio.Task[None]:
        """Carry out a request to cancel that is on record: also where whoever has asked for it does not wait for it any more."""

        def ended(task: asyncio.Task[None]) -> None:
            self._cancelling.discard(task)
            error = None if task.cancelled() else task.exception()
            if error is not None:
                _log.debug("cancel_has_not_ended_the_run", run_id=run.id, error=error_text(error))

        task = asyncio.get_running_loop().create_task(self._end(run, grace_s, cleanup=cleanup), name=f"cancel of run {run.id}")
        self._cancelling.add(task)
        task.add_done_callback(ended)
        return task

    async def cancel_with_parent(self, run: Workflow, *, grace_s: float = GRACE_S, cleanup: bool = True) -> None:
        """Cancel a child run because its parent ends or is taken back. See `cancel`."""
        await request_cancel(self, run, cleanup=cleanup, with_parent=True)
        await self._end(run, grace_s, cleanup=cleanup)

    async def _end(self, run: Workflow, grace_s: float, *, cleanup: bool) -> None:
        while run.status is WorkflowStatus.CANCELLING or self.active.get(run) is not None:
            active = self.active.get(run)
            if self.active.draining and active is None:
                raise RunInterruptedError(f"run {run.id} is to be cancelled, and its process is drained: recover() in the next one does it")
            if active is None:  # nothing drives it, or what did had looked at its status for the last time
                await self.active.join(await self.begin(run, self.chain(None, (), run)))
                return
            if self.active.is_around(run.id):
                return
            await asyncio.gather(
                self.children.cancel_early(run, grace_s, cleanup=cleanup), self._stop_steps(active, grace_s, cleanup=not cleanup)
            )
            await self.active.ended(active)
            if run.status is not WorkflowStatus.CANCELLING:
                return

    async def undo(self, run: Workflow) -> None:
        """Undo a run that has completed, because the run that started it is cleaned up: it is cancelled then.

        Raises:
            IllegalTransitionError: it has not completed. Nothing has been appended.
            RunInterruptedError, EntityOutOfStepError: as for `cancel`.
        """

        def begin() -> None:
            run.move("clean_up", self.clock.now())
            run.cleanup = {"ends": WorkflowStatus.CANCELLED.value}
            if run.with_parent is None:
                run.with_parent = CANCELLED

        await self.record(run, "WorkflowCleanupBegun", begin, lambda: run.check("clean_up"))
        await self._end(run, GRACE_S, cleanup=True)

    @staticmethod
    async def _stop_steps(active: ActiveRun, grace_s: float, *, cleanup: bool) -> None:
        if not await active.drive.stop_steps(grace_s, INTERRUPTION_TIMEOUT_S, cleanup=cleanup):
            raise RunsInProgressError([active.run.id], DO_NOT_END)

    @where_it_executes
    async def signal(self, run: Workflow, name: str, payload: Any = None, *, signal_id: str | None = None) -> None:
        """Send a signal; it is durable when this returns, and is kept until a step takes it, also before any step waits.

        Args:
            run: one that has not completed and was not cancelled.
            name: which signal.
            payload: plain data.
            signal_id: chosen by the sender, who repeats it where an answer was lost: a signal whose id the run has had changes nothing,
                also after the run has ended. Ids are remembered with the run.

        Raises:
            IllegalTransitionError: the run takes no signals any more. Nothing has been appended.
            UnstorableValueError: the payload is no plain data. Nothing has been appended.
        """
        for what, text in (("name", name), ("id", signal_id)):
            if not (isinstance(text, str) and text) and not (what == "id" and text is None):
                raise ConfigurationError(f"a signal's {what} is a text that is not empty, not {shown(text)}")
        kept = thaw(payload)

        def is_new() -> bool:
            if signal_id is not None and signal_id in run.signal_ids:
                return False
            run.check("signal")
            return True

        def receive() -> None:
            if name in run.signals:
                run.signals[name].append(kept)
            else:
                run.signals[name] = [kept]
            if signal_id is not None:
                run.signal_ids[signal_id] = name
            active = self.active.get(run)
            if active is not None:
                active.drive.control.call(name)

        said = {"name": name} if signal_id is None else {"name": name, "id": signal_id}
        if not is_new() or not await self.record(run, "WorkflowSignalReceived", receive, is_new, data=said):
            await self._symphony.world.flush(run)  # the first one may have been sent a moment ago

    @where_it_executes
    async def retry_from(
        self,
        run: Workflow,
        step: str | Sequence[str],
        auto_checkpoint: bool | AutoCheckpoint | None = None,
        *,
        hooks: Sequence[Any] = (),
        deadline_s: float | None = None,
    ) -> Workflow:
        """Take a run back to where it was before a step, and go on from there, in a new generation, with new idempotency keys.

        The outputs of the step and of what began after it are dropped, the context is what it was; steps beside it, in other
        branches of a parallel or map, keep theirs. A signal that a dropped step took is not sent again: it waits anew. Waits for
        the run's end as `execute_workflow` does.

        Several steps are taken back together, by one event: what came after any of them is done again, once.

        At the address of a clean-up step (`cleanup/…`, `undo/…`) the clean-up goes on, and never the main line: that step is done again,
        and what has not completed is tried again; other clean-up steps that have completed are not repeated.

        Args:
            run: failed, paused, completed, cancelled or interrupted.
            step: address of a step that has begun, or the name or id of one of the definition's first level; or a list of these.
            auto_checkpoint: True, False, or a policy for this run; what the run began with when left out.
            hooks: called after the engine's own.
            deadline_s: a new deadline, in seconds from now.

        Raises:
            IllegalTransitionError: the run executes, or has not begun. Nothing has been appended.
            ConfigurationError: the run has not begun such a step; or some of several are of its clean-up, and others are not. Nothing has
                been appended.
            NotRegisteredError, UnknownValueError: as for `resume`.
        """
        return await self.active.join(await self.take_back(run, step, auto_checkpoint, hooks, deadline_s))

    async def take_back(
        self,
        run: Workflow,
        step: str | Sequence[str],
        auto_checkpoint: bool | AutoCheckpoint | None = None,
        hooks: Sequence[Any] = (),
        deadline_s: float | None = None,
        *,
        awaited: bool = True,
    ) -> ActiveRun:
        """Begin what `retry_from` waits for the end of; the taking back is durable when this returns."""
        self.active.check_draining()
        check_deadline(deadline_s)
        from symphony_es.workflow.engine.retrying import steps_asked_for, take_back  # late: most runs go forward only

        steps = steps_asked_for(run, step)
        if is_of_cleanup(run, steps[0]):
            return await self._retry_cleanup(run, steps, auto_checkpoint, hooks, awaited=awaited)
        run.check("retry")
        await self._stopped(run)
        run.check("retry")
        check_can_go_on(run, self._symphony)
        with self.active.hold(run), self.resting.use(run):
            now = self.clock.now()
            await take_back(self._symphony, run, steps, now, self.children, deadline_after(now, deadline_s))
        chain = self.chain(auto_checkpoint, hooks, run)
        known = WorkflowStatus.RUNNING  # so it is on record; it may have been paused since
        return await self.begin(run, chain, known=known, awaited=awaited)

    async def _retry_cleanup(
        self, run: Workflow, steps: Sequence[str], auto_checkpoint: bool | AutoCheckpoint | None, hooks: Sequence[Any], *, awaited: bool
    ) -> ActiveRun:
        from symphony_es.workflow.engine.reopening import retry_cleanup  # few clean-ups are tried again

        if run.status is not WorkflowStatus.CANCELLING:
            run.check("retry")
        with self.active.hold(run), self.resting.use(run):
            await retry_cleanup(self._symphony, run, steps, self.clock.now())
        active = await self.begin(run, self.chain(auto_checkpoint, hooks, run), awaited=awaited)
        active.drive.reopened = True
        return active

    async def fork(
        self,
        run: Workflow,
        at: str | int,
        changes: Mapping[str, Any] | None = None,
        *,
        run_id: str = "",
        metadata: Mapping[str, Any] | None = None,
        signals: bool | Collection[str] = False,
    ) -> Workflow:
        """Return a new run, pending, that shares a run's history up to a step or position; the run itself is not touched.

        Args:
            run: the run; it may execute.
            at: address (or name, or id) of a step, before which the fork begins; or a position of the log, right after which.
            changes: values that the fork's context has instead; plain data.
            run_id: the new run's id; made when left empty.
            metadata: the application's own; plain data.
            signals: whether signals that nobody had taken there come along, or the names of those that do. By default none: they were meant
                for the run itself, and an approval of that one is none of its fork.

        Returns:
            The fork: `resume(fork)` or `start(fork)` sets it going. Its `forked_from` has `run`, `position` and `step`.

        Raises:
            ConfigurationError: the run has not begun such a step.
            RunPrunedError: the run was pruned.
            PositionNotFoundError: the run did not exist at the position.
            PositionInsideTransactionError: the position is in the middle of a transaction. In all cases nothing has been appended.
        """
        if isinstance(at, str) and is_of_cleanup(run, at):
            raise ConfigurationError(
                f"{at} is a clean-up step, and a fork begins in the main line: fork at a step of that, or go on with the clean-up of "
                f"this run by retry_from(run, {shown(at)})"
            )
        refuse_pruned(self._symphony, entity_key("Workflow", run.id))
        from symphony_es.workflow.engine.forking import fork_run

        with self.resting.use(run):
            fork = await fork_run(self._symphony, run, at, changes or {}, run_id, metadata or {}, self.clock.now(), signals)
        self.resting.begins(fork)
        return fork

    async def stop_all(self, what: str, *, for_good: bool = False) -> None:
        """Interrupt every run; none begins meanwhile, as the end of one may have another begin (a child that its parent leaves alone).

        Args:
            what: what they are stopped for, for who wants to begin one.
            for_good: none begins after it either, until the Symphony is opened again.

        Raises:
            RunsInProgressError: one did not end, or the calling code is part of one.
        """
        self.active.stopped_for = what
        try:
            await self.interrupt()
        finally:
            if not for_good:
                self.active.begin_again()

    async def interrupt(self, run_ids: Iterable[str] | None = None) -> list[str]:
        """Stop runs and wait until they have stopped; whoever awaits them gets RunInterruptedError.

        A coroutine function that is under way is cancelled. A plain function runs on in its thread, its outcome is dropped.

        Args:
            run_ids: which; None for all that execute in this process. Others are passed over.

        Returns:
            Ids of the runs that were stopped. They stay running in the log and can be resumed.

        Raises:
            RunsInProgressError: called from inside one of the runs, which cannot wait for its own end, or a step did not stop
                within 30 s after it was cancelled; its ids are named.
        """
        loop = asyncio.get_running_loop()
        behind = [task for task in self._hooks_behind if run_ids is None and task.get_loop() is loop]
        for task in behind:
            task.cancel()
        if behind:
            await asyncio.wait(behind, timeout=INTERRUPTION_TIMEOUT_S)
        interrupted = await self.active.interrupt(run_ids)
        cancelling = [task for task in self._cancelling if run_ids is None and task.get_loop() is loop]
        if cancelling:  # what they wait for has ended
            await asyncio.wait(cancelling, timeout=INTERRUPTION_TIMEOUT_S)
        return interrupted

    @where_it_executes
    async def wait_until(self, run: Workflow, statuses: Collection[WorkflowStatus] = ENDED) -> None:
        """Wait until a run has one of some statuses, whoever brings it there.

        Raises:
            RunInterruptedError: it was interrupted meanwhile.
            EntityOutOfStepError: the log could not append.
            DeadlockError: called in the block of the transaction that the run begins with.
            TransactionEndedError: that was rolled back, and the run with it.
        """
        self.beginnings.check_wait(run)
        await self.active.wait_until(run, statuses)

    @where_it_executes
    async def watch(self, run: Workflow, statuses: Collection[WorkflowStatus] = ENDED) -> None:
        """Watch a run for a caller that may do something else before its end."""
        await self.active.watch(run, statuses)

    # -- what the requests stand on ------------------------------------------------------------------------------------

    def launch(
        self,
        run: Workflow,
        hooks: HookChain,
        prepare: Callable[[], None] = lambda: None,
        *,
        known: WorkflowStatus | None = None,
        awaited: bool = True,
        asked: bool = False,
    ) -> ActiveRun:
        """Begin to drive a run; see `ActiveRuns.launch`, and for `asked` the attribute of `Drive`.

        `known` is the status as it is now when left out: for who has awaited nothing since it was decided that the run goes on.
        """
        if awaited:
            refuse_inside(self._symphony.world, run, "resume")
        drive = self._drive_for(run, hooks, asked=asked)
        takes_place = self._takes_place(run, awaited=awaited)
        return self._launch(drive, hooks, prepare, known=known or run.status, awaited=awaited, takes_place=takes_place)

    async def begin(
        self,
        run: Workflow,
        hooks: HookChain,
        prepare: Callable[[], None] = lambda: None,
        *,
        known: WorkflowStatus | None = None,
        awaited: bool = True,
        asked: bool = False,
    ) -> ActiveRun:
        """Return the same for code that may be part of a run: it is cut off where all runs are being stopped, and is not told an error."""
        known = known or run.status
        await self.active.hold_while_stopping()
        return self.launch(run, hooks, prepare, known=known, awaited=awaited, asked=asked)

    @staticmethod
    def _takes_place(run: Workflow, *, awaited: bool) -> bool:
        """Return whether a run counts among those that execute at once: not where another one waits for it, nor to be cleaned up."""
        return run.parent is None and not (awaited and runs_around.get()) and run.check("resume") is not WorkflowStatus.CANCELLING

    def _drive_for(self, run: Workflow, hooks: HookChain, *, asked: bool) -> Drive:
        self.resting.begins(run)
        return Drive(self._symphony, run, hooks, self._turns, self.clock, self.children, asked=asked)

    def _launch(
        self, drive: Drive, hooks: HookChain, prepare: Callable[[], None], *, known: WorkflowStatus, awaited: bool, takes_place: bool
    ) -> ActiveRun:
        # The run's task takes these along.
        pool, rules = current_pool.set(self.threads), current_redaction.set(self.redaction)
        records = records_inputs.set(self.record_inputs)
        try:
            return self.active.launch(drive, hooks, prepare, known=known, awaited=awaited, takes_place=takes_place)
        finally:
            records_inputs.reset(records)
            current_redaction.reset(rules)
            current_pool.reset(pool)

    def chain(self, auto_checkpoint: bool | AutoCheckpoint | None, hooks: Sequence[Any], run: Workflow | None = None) -> HookChain:
        """Return the hooks of a run: the checkpointer, the engine's own, then those of the call.

        Args:
            auto_checkpoint: None for what the run began with.
            hooks: those of the call.
            run: one that goes on; a hook that must not miss anything, and was given to the call that began it, is asked for.
        """
        if auto_checkpoint is None:
            auto_checkpoint = True if run is None else policy_of(run.options.get("auto_checkpoint", True))
        if auto_checkpoint is True:
            auto_checkpoint = self.auto_checkpoint
        elif auto_checkpoint is not False and not isinstance(auto_checkpoint, AutoCheckpoint):
            raise ConfigurationError(f"auto_checkpoint is True, False or an AutoCheckpoint, not {shown(auto_checkpoint)}")
        policy = [auto_checkpoint] if isinstance(auto_checkpoint, AutoCheckpoint) else []
        called = [*policy, *self.hooks, *hooks]
        missing = sorted({*(run.options.get("hooks", ()) if run is not None else ())} - {name_of(hook) for hook in called})
        if run is not None and missing:
            _log.warning("run_goes_on_without_hooks", run_id=run.id, hooks=missing)
        return HookChain(called, self._hooks_behind)

    def _set_deadline(self, run: Workflow, deadline_s: float | None) -> None:
        if deadline_s is not None:
            with self._symphony.world.recording("WorkflowDeadlineSet"):
                run.deadline = deadline_after(self.clock.now(), deadline_s)

    async def record(
        self,
        run: Workflow,
        event_name: str,
        change: Callable[[], None],
        check: Callable[[], Any],
        *,
        data: Any = None,
        ask: Request | None = None,
    ) -> bool:
        """Make a change of a run an event of its own, and wait until it is durable.

        Args:
            run: the run.
            event_name: what happened.
            change: makes the change.
            check: raises where it may not be made any more, after this call had to wait; False where it need not be made.
            data: what the event says beyond its effect.
            ask: the request to the run where it executes; made with the change, so that no step begins in between. It cannot be
                taken back, so the change is no part of a transaction around the call.

        Returns:
            Whether it was made.
        """
        world = self._symphony.world
        if ask is not None and current_scope.get() is not None:
            refuse_inside(world, run, ask)
            token = current_scope.set(None)
            try:
                return await self.record(run, event_name, change, check, data=data, ask=ask)
            finally:
                reset_variable(token)
        await world.claim(run)
        if check() is False:
            return False
        with world.recording(event_name, data, entity=run):
            change()
        active = self.active.get(run)
        if active is not None and ask is not None:
            active.drive.control.ask(ask)
        await world.flush(run)
        if active is None and run.status in ENDED:
            self.resting.ended(run)
        return True

    async def _change_definition(self, run: Workflow, definition: WorkflowDefinition, deadline_s: float | None, *, force: bool) -> None:
        from symphony_es.workflow.definitions.comparison import compare_definitions  # late: few runs go on with another definition

        self.active.refuse(run)
        definition.check(self._symphony)
        check_error_classes(definition)
        found = compare_definitions(run.definition, definition, begun=set(run.attempts), completed=set(run.recorded_outputs))
        if not found.compatible and not force:
            raise DefinitionChangedError(run.id, found)

        def change() -> None:
            if not run.definition.undo_plan.keys().isdisjoint(found.removed):
                run.undoable = True  # the new one does not know of it
            run.follow(definition)
            self._symphony.world.name_constant(run, definition.stored)
            self._set_deadline(run, deadline_s)

        await self.record(run, "WorkflowDefinitionChanged", change, lambda: self.active.refuse(run), data=found.to_dict())
