"""The engine: executes runs, knows which ones execute in this process, and takes the requests that are made to them.

It owns the tasks of the event loop that drive runs, one per run, so that none is lost: each is awaited by the call that started it or
watched by a `RunHandle`, and `interrupt` ends them before a world is replaced or the Symphony is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, overload

from symphony_es.core.world.transaction import scope_of
from symphony_es.diagnostics import error_text, get_logger
from symphony_es.errors import ConfigurationError, HookFailedError, SymphonyError
from symphony_es.events.identifiers import check_entity_id
from symphony_es.shown import shown
from symphony_es.workflow.engine.active import ActiveRun
from symphony_es.workflow.engine.auto_checkpoint import AutoCheckpoint, numbers_of
from symphony_es.workflow.engine.creation import DefinitionLike, IfExists, check_input, existing_run, new_run, refuse_id
from symphony_es.workflow.engine.handle import RunHandle
from symphony_es.workflow.engine.hooks import HookChain, names_of_durable
from symphony_es.workflow.engine.missing import check_can_go_on, is_waiting_for_classes
from symphony_es.workflow.engine.requests import RunRequests
from symphony_es.workflow.engine.seconds import check_deadline
from symphony_es.workflow.engine.telling import Telling
from symphony_es.workflow.engine.within import block_around
from symphony_es.workflow.runs.run import ABANDONED, Workflow
from symphony_es.workflow.runs.transitions import TAKEN_UP, UNFINISHED, WorkflowStatus

if TYPE_CHECKING:
    from symphony_es.workflow.engine.draining import DrainReport
    from symphony_es.workflow.engine.recovery import RecoverReport

__all__ = ["WorkflowEngine", "created"]

_log = get_logger(__name__)

_NOTHING: Callable[[], None] = lambda: None  # noqa: E731
_LONG_AGO = datetime.min.replace(tzinfo=UTC)  # when a run was created that does not say it


def created(run: Workflow) -> datetime:
    """Return when a run was created, to sort by."""
    return run.created_at or _LONG_AGO


class WorkflowEngine(RunRequests):
    """Executes workflows of one Symphony; also `symphony.registry.get("workflow_engine")`.

    Attributes:
        auto_checkpoint: the policy of calls with `auto_checkpoint=True`; assign another to tune all of them.
        hooks: called for every run, after the checkpointer, in this order.
        clock: what timers, deadlines and delays go by.
    """

    # -- executing ----------------------------------------------------------------------------------------------------

    @property
    def active_runs(self) -> list[str]:
        """Ids of the runs that execute in this process right now."""
        return self.active.ids

    def runs(self) -> list[Workflow]:
        """Return all live runs, by the time of their creation; those of one moment as `entities.all` has them."""
        runs = [run for run in self._symphony.world.all("Workflow") if isinstance(run, Workflow)]
        return sorted(runs, key=created)

    async def execute_workflow(
        self,
        definition: DefinitionLike,
        context: Mapping[str, Any] | None = None,
        auto_checkpoint: bool | AutoCheckpoint | None = None,
        *,
        hooks: Sequence[Any] = (),
        run_id: str = "",
        deadline_s: float | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Workflow:
        """Start a run and wait until it completes, fails, is paused or is cancelled.

        Args:
            definition: what to execute; the run keeps a copy.
            context: values for the run's context, over those of the definition; plain data.
            auto_checkpoint: True (or left out) for the engine's policy, False for none, or a policy for this run. It holds in later
                processes.
            hooks: called after the engine's own, in this order.
            run_id: the run's id; made when left empty.
            deadline_s: seconds from now after which the run fails by itself; the definition's `deadline_s` when left out.
            metadata: the application's own; plain data.

        Returns:
            The run, whose `status` is `completed`, `failed`, `paused`, `cancelled` or `blocked`. A failed run holds its `error` and can be
            resumed; so does a blocked one, whose record contradicts the code.

        Raises:
            DefinitionError: the definition is faulty. Nothing has been appended.
            NotRegisteredError: a function of it is not registered. Nothing has been appended.
            UnstorableValueError: the context holds what cannot be stored. Nothing has been appended.
            EntityExistsError: the id is taken. Nothing has been appended.
            RunInterruptedError: the run was interrupted, for example by a rewind; what it completed is in the log.
            EntityOutOfStepError: the log could not append, the cause says why; `symphony.refresh(run)` puts the run back to what the
                log has, and it can be resumed.

        Cancelling the call stops the run after the step's record it is at; it stays running in the log and can be resumed.
        """
        self.active.check_draining()
        await self._turns.take()
        self._check_free(run_id)
        run = new_run(self._symphony, self.clock, definition, context, run_id=run_id, deadline_s=deadline_s, metadata=metadata)
        chain = self.chain(auto_checkpoint, hooks)
        self._keep_options(run, auto_checkpoint, hooks)
        return await self.active.join(await self.begin(run, chain, lambda: self._add(run)))

    async def start(
        self,
        definition: DefinitionLike | Workflow,
        context: Mapping[str, Any] | None = None,
        auto_checkpoint: bool | AutoCheckpoint | None = None,
        *,
        hooks: Sequence[Any] = (),
        run_id: str = "",
        deadline_s: float | None = None,
        metadata: Mapping[str, Any] | None = None,
        if_exists: IfExists = "fail",
    ) -> RunHandle:
        """Start a run, or go on with one, in the background; its beginning is durable when this returns.

        The arguments and errors are those of `execute_workflow`; a run in place of a definition is resumed, as by `resume`.

        Inside a transaction the beginning is part of it: it is durable when the transaction is, the run's first step begins after that, and
        a block that is rolled back leaves no run. In the block, the run can be signalled, and not waited for, paused or cancelled.

        Args:
            if_exists: what comes of a `run_id` that a run has: `fail` raises; `return` gives a handle of that run, as it stands, also one
                that the log has and nobody has resumed: so a call that is made again after a lost answer starts nothing twice. The input
                has to be the same; the definition may be a later one of that name, and the other arguments are not looked at.

        Raises:
            EntityExistsError: a run has the id; or, with `return`, it is one of another definition, or no run. Nothing has been appended.
            RunExistsError: with `return`, that run was started with another input. Nothing has been appended.
            ConfigurationError: context, run_id or metadata for a run, which has them; `return` without a run_id. Nothing has been appended.
            TransactionEndedError: called in a task that was begun in a transaction which has ended. Nothing has been appended.
        """
        check_deadline(deadline_s)
        if if_exists not in ("fail", "return") or (if_exists == "return" and not run_id):
            raise ConfigurationError(f"if_exists={shown(if_exists)}: it is 'fail', or 'return' with a run_id")
        self.active.check_draining()
        await self._turns.take()
        world = self._symphony.world
        block = block_around(world)
        prepare: Callable[[], None]
        if isinstance(definition, Workflow):
            if context or run_id or metadata:
                raise ConfigurationError(f"run {definition.id} goes on with what it has: context, run_id and metadata are for a new run")
            run, prepare = definition, lambda: self._set_deadline(definition, deadline_s)
            run.check("resume")
            plain = not hooks and deadline_s is None and auto_checkpoint is None
            if await self.pause_taken_back(run, plain=plain):
                return RunHandle(self, self._symphony, run)
            check_can_go_on(run, self._symphony)
            chain = self.chain(auto_checkpoint, hooks, run)
        else:
            if if_exists == "return":
                there = await self._there(run_id, definition)
                if there is not None:
                    await check_input(self._symphony, there, context)
                    return RunHandle(self, self._symphony, there)
            self._check_free(run_id)
            run = new_run(self._symphony, self.clock, definition, context, run_id=run_id, deadline_s=deadline_s, metadata=metadata)
            prepare = lambda: self._add(run)  # noqa: E731
            chain = self.chain(auto_checkpoint, hooks)
            self._keep_options(run, auto_checkpoint, hooks)
        if block is not None:
            if world.record_of(run) is not None:
                await world.claim(run)
            drive = self._drive_for(run, chain, asked=True)
            takes_place = self._takes_place(run, awaited=False)
            known = WorkflowStatus.RUNNING  # so its beginning is on record; it may have been paused since
            launch = partial(self._launch, drive, chain, _NOTHING, known=known, awaited=False, takes_place=takes_place)
            queued = takes_place and not self.active.has_room()
            self.beginnings.begin(block.transaction, drive, prepare, launch, queued=queued)
        else:
            await self._begun(await self.begin(run, chain, prepare, awaited=False, asked=True))
        return RunHandle(self, self._symphony, run)

    async def retry_in_background(self, run: Workflow, step: str | Sequence[str]) -> RunHandle:
        """Do a step of a run, and what came after it, again, in the background; that it goes on is durable when this returns.

        Errors are those of `retry_from`.
        """
        await self._begun(await self.take_back(run, step, awaited=False))
        return RunHandle(self, self._symphony, run)

    async def _there(self, run_id: str, definition: DefinitionLike) -> Workflow | None:
        """Return the run of an id that has begun: one that is about to is waited for, in this process or in a transaction of somebody
        else's.
        """
        while True:
            there = await existing_run(self._symphony, self.active, self.resting.bring, run_id, definition)
            if there is None:
                return None
            transaction = self.active.begins(there)
            scope = scope_of(self._symphony.world)
            if transaction is None or (scope is not None and scope.transaction is transaction):
                driven = self.active.get(there)
                if driven is not None:
                    await self._begun(driven)
                return there
            await self._symphony.world.claim(there)

    def _check_free(self, run_id: str) -> None:
        """Look whether no run that is about to begin has an id, and a run can; one that has begun is found when a new one is made."""
        if run_id and self.active.of_id(check_entity_id(run_id)) is not None:
            refuse_id(run_id)

    async def _begun(self, active: ActiveRun) -> None:
        """Wait until the beginning of a run is durable; raise what has kept it from beginning."""
        await self.active.begun(active)
        if not active.drive.begun.is_set():
            await self.active.ended(active)

    @overload
    async def recover(
        self,
        auto_checkpoint: bool | AutoCheckpoint | None = None,
        *,
        wait: Literal[True] = True,
        strict: bool = False,
        hooks: Sequence[Any] = (),
    ) -> list[Workflow]: ...
    @overload
    async def recover(
        self, auto_checkpoint: bool | AutoCheckpoint | None = None, *, wait: Literal[False], strict: bool = False, hooks: Sequence[Any] = ()
    ) -> RecoverReport: ...
    async def recover(
        self, auto_checkpoint: bool | AutoCheckpoint | None = None, *, wait: bool = True, strict: bool = False, hooks: Sequence[Any] = ()
    ) -> list[Workflow] | RecoverReport:
        """Go on with every run that was interrupted, all at once; what is unfinished is loaded from the log, resumed or not.

        Runs whose parent is unfinished are taken up by it. Failed, paused and pending runs are left alone: `resume` takes them up. A run
        that needs what this process has not keeps its status and is left alone, with a warning in the log of the program; so is a
        blocked run, unless the code that it contradicts is another by now.

        Args:
            auto_checkpoint: True, False, or a policy for these runs; what each began with when left out.
            wait: wait for their ends, and return the runs; else return at once, with a report.
            strict: raise where a run would be left alone.
            hooks: called after the engine's own.

        Returns:
            Those runs, by the time of their creation; without `wait` a `RecoverReport`: handles of the runs that go on, and which are left
            alone, and why.

        Raises:
            RunsLeftAloneError: `strict`, and a run is missing something or is blocked. Nothing has been appended, and nothing goes on.
            RunInterruptedError, EntityOutOfStepError: the first one that a run raised; the others have ended by then.
        """
        from symphony_es.workflow.engine.recovery import RecoverReport, Recovery  # late: a new log has nothing to recover

        self.active.check_draining()
        recovery = Recovery(self._symphony)
        await recovery.load()
        runs = [run for run in self.runs() if run.status in TAKEN_UP and not self.active.is_taken(run)]
        recovery.look_at(runs, self._has_driver)
        recovery.report(strict=strict)
        await self._tell_ended(auto_checkpoint, hooks)
        going = []
        for run in recovery.goes_on:
            await self._turns.take()
            if run.status in TAKEN_UP and not self.active.is_taken(run):  # nobody has taken it up meanwhile
                going.append(await self.begin(run, self.chain(auto_checkpoint, hooks, run), awaited=wait))
        self.on_recovered()
        if not wait:
            handles = [RunHandle(self, self._symphony, active.run) for active in going]
            return RecoverReport(handles=handles, missing=recovery.missing, blocked=recovery.blocked)
        for end in await asyncio.gather(*map(self.active.join, going), return_exceptions=True):
            if isinstance(end, BaseException):
                raise end
        return [active.run for active in going]

    async def drain(self, timeout_s: float = 30.0) -> DrainReport:
        """Stop gracefully, as on SIGTERM: no run begins any more, and those that execute stop at their next boundary between two steps.

        Runs that wait (for a signal, a timer, another attempt, a place) stop at once. Nothing is recorded of it: they keep their status,
        and the next `recover`, of this process after `close()` and `setup()` or of another one, goes on with them. `start` and the other
        calls that begin or go on with runs raise `DrainingError` from now on; signals and requests to pause or cancel are still recorded.

        Args:
            timeout_s: how long steps under way may take to come to their end; then they are cut off, as by a crash.

        Returns:
            Which runs have stopped, and where; which were cut off in the middle of which steps.

        Raises:
            RunsInProgressError: called from inside a run, which cannot wait for its own end. Nothing has been stopped.
            ConfigurationError: the time is no number of seconds. Nothing has been stopped.
        """
        from symphony_es.workflow.engine.draining import drain  # late: at the end of a service

        return await drain(self.active, self.threads, timeout_s)

    def go_on_with(self, stopped: Sequence[ActiveRun]) -> None:
        """Drive runs again that were stopped for something that has not happened, each in its event loop; others are passed over.

        Args:
            stopped: those that executed before. Child runs are taken up by the runs that wait for them.
        """
        ids = {active.run.id for active in stopped}
        here = asyncio.get_running_loop()
        for active in stopped:
            run, loop = active.run, active.task.get_loop()
            if self.active.draining or (getattr(run.parent, "id", None) in ids and self._has_driver(run)):
                continue
            again = partial(self._go_on_with, run, active.hooks, active.task)
            if loop is here:
                again()
            elif loop.is_running():
                loop.call_soon_threadsafe(again)

    def _go_on_with(self, run: Workflow, hooks: HookChain, stopped: asyncio.Task[Any]) -> None:
        if not stopped.done() and stopped.cancelling():  # its steps have not let go yet
            stopped.add_done_callback(partial(self._go_on_with, run, hooks))
        elif run.status in UNFINISHED and not self.active.is_taken(run):
            try:
                self.launch(run, hooks, awaited=False)
            except SymphonyError as error:
                _log.warning("workflow_run_stopped", run_id=run.id, error=error_text(error))

    # -- inside -------------------------------------------------------------------------------------------------------

    def _has_driver(self, run: Workflow) -> bool:
        """Return whether a run is taken up by the run that started it: one that goes on, and still has it as its step's."""
        if run.with_parent == ABANDONED:
            return False
        parent = self._symphony.world.find(run.parent) if run.parent is not None else None
        if is_waiting_for_classes(parent):
            return True
        if not isinstance(parent, Workflow) or parent.status not in UNFINISHED or run.parent_step in parent.recorded_outputs:
            return False
        return parent.children.get(run.parent_step or "") is run

    async def _tell_ended(self, auto_checkpoint: bool | AutoCheckpoint | None, hooks: Sequence[Any]) -> None:
        """Tell the hooks that must not miss it of the end, or pause, of runs that do not go on by themselves."""
        for run in [run for run in self.runs() if run.untold and run.status not in TAKEN_UP and not self.active.is_taken(run)]:
            telling = Telling(self._symphony, run, self.chain(auto_checkpoint, hooks, run))
            try:
                await telling.tell_again()
            except HookFailedError as error:  # it comes too late to stop the run, and is on record
                _log.warning("hook_failed_after_the_end", run_id=run.id, error=str(error))
            telling.record_told()
            await self._symphony.world.flush(run)
            self.resting.ended(run)

    @staticmethod
    def _keep_options(run: Workflow, auto_checkpoint: bool | AutoCheckpoint | None, hooks: Sequence[Any]) -> None:
        """Keep what the call says of a new run for later processes too."""
        if auto_checkpoint is not None and auto_checkpoint is not True:
            run.options["auto_checkpoint"] = numbers_of(auto_checkpoint)
        names = names_of_durable(hooks)
        if names:
            run.options["hooks"] = names

    def _add(self, run: Workflow) -> None:
        self._symphony.world.add(run, event_name="WorkflowCreated")
