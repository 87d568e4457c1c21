"""The engine: executes runs, knows which ones execute in this process, and takes the requests that are made to them.

It owns the tasks of the event loop that drive runs, one per run, so that none is lost: each is awaited by the call that started it or
watched by a `RunHandle`, and `interrupt` ends them before a world is replaced or the Symphony is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextvars import copy_context
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

from symphony_es.core.state.transactions import current_scope
from symphony_es.diagnostics import get_logger
from symphony_es.errors import ConfigurationError, DefinitionChangedError, IllegalTransitionError, RunInterruptedError, RunsInProgressError
from symphony_es.events.values import copy_plain
from symphony_es.workflow.code.workflow import CodeWorkflow, check_arguments
from symphony_es.workflow.definitions.comparison import compare_definitions
from symphony_es.workflow.definitions.definition import WorkflowDefinition
from symphony_es.workflow.engine.auto_checkpoint import AutoCheckpoint
from symphony_es.workflow.engine.clock import Clock, SystemClock
from symphony_es.workflow.engine.control import RunControl
from symphony_es.workflow.engine.drive import Drive, runs_around
from symphony_es.workflow.engine.forking import fork_run
from symphony_es.workflow.engine.handle import RunHandle
from symphony_es.workflow.engine.hooks import HookChain
from symphony_es.workflow.engine.retrying import take_back
from symphony_es.workflow.engine.turns import Turns
from symphony_es.workflow.runs.run import Workflow
from symphony_es.workflow.runs.transitions import ENDED, UNFINISHED, WorkflowStatus

if TYPE_CHECKING:
    from symphony_es.core.state.host import Host

__all__ = ["DefinitionLike", "WorkflowEngine", "as_definition"]

DefinitionLike: TypeAlias = WorkflowDefinition | CodeWorkflow | Mapping[str, Any]
"""A definition, the dict of one, or a function under `@symphony.workflow`."""

INTERRUPTION_TIMEOUT_S = 30.0
"""How long a step may go on after it was cancelled."""

GRACE_S = 10.0
"""How long the steps of a run that is cancelled may take to end by themselves."""

_log = get_logger(__name__)


class WorkflowEngine:
    """Executes workflows of one Symphony; also `symphony.registry.get("workflow_engine")`.

    Attributes:
        auto_checkpoint: the policy of calls with `auto_checkpoint=True`; assign another to tune all of them.
        hooks: called for every run, after the checkpointer, in this order.
        clock: what timers, deadlines and delays go by.
    """

    def __init__(
        self, symphony: Host, *, auto_checkpoint: AutoCheckpoint | None = None, hooks: Iterable[Any] = (), clock: Clock | None = None
    ) -> None:
        self._symphony = symphony
        self.auto_checkpoint = auto_checkpoint or AutoCheckpoint()
        self.hooks: list[Any] = list(hooks)
        self.clock: Clock = clock or SystemClock()
        self._turns = Turns()
        self._active: dict[str, _Active] = {}
        self._news = asyncio.Event()

    # -- executing ----------------------------------------------------------------------------------------------------

    @property
    def active_runs(self) -> list[str]:
        """Ids of the runs that execute in this process right now."""
        return list(self._active)

    async def execute_workflow(
        self,
        definition: DefinitionLike,
        context: Mapping[str, Any] | None = None,
        auto_checkpoint: bool | AutoCheckpoint = True,
        *,
        hooks: Sequence[Any] = (),
        run_id: str = "",
        deadline_s: float | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Workflow:
        """Starts a run and waits until it completes, fails, is paused or is cancelled.

        Args:
            definition: what to execute; the run keeps a copy.
            context: values for the run's context, over those of the definition; plain data.
            auto_checkpoint: True for the engine's policy, False for none, or a policy for this run.
            hooks: called after the engine's own, in this order.
            run_id: the run's id; made when left empty.
            deadline_s: seconds from now after which the run fails by itself; the definition's `deadline_s` when left out.
            metadata: the application's own; plain data.

        Returns:
            The run, whose `status` is `completed`, `failed`, `paused` or `cancelled`. A failed run holds its `error` and can be resumed.

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
        await self._turns.take()
        run = self._new_run(definition, context, run_id, deadline_s, metadata)
        return await self._await(self._launch(run, self._chain(auto_checkpoint, hooks), lambda: self._add(run)))

    async def start(
        self,
        definition: DefinitionLike | Workflow,
        context: Mapping[str, Any] | None = None,
        auto_checkpoint: bool | AutoCheckpoint = True,
        *,
        hooks: Sequence[Any] = (),
        run_id: str = "",
        deadline_s: float | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> RunHandle:
        """Starts a run, or goes on with one, in the background; its beginning is durable when this returns.

        The arguments and errors are those of `execute_workflow`; a run in place of a definition is resumed, as by `resume`.
        """
        await self._turns.take()
        prepare: Callable[[], None]
        if isinstance(definition, Workflow):
            run, prepare = definition, _nothing
            run.check("resume")
        else:
            run = self._new_run(definition, context, run_id, deadline_s, metadata)
            prepare = lambda: self._add(run)  # noqa: E731
        active = self._launch(run, self._chain(auto_checkpoint, hooks), prepare, awaited=False)
        begun = asyncio.ensure_future(active.drive.begun.wait())
        await asyncio.wait({begun, active.task}, return_when=asyncio.FIRST_COMPLETED)
        begun.cancel()
        if not active.drive.begun.is_set():
            active.task.result()
        return RunHandle(self, self._symphony, run)

    async def resume(
        self,
        run: Workflow,
        auto_checkpoint: bool | AutoCheckpoint = True,
        *,
        definition: DefinitionLike | None = None,
        force: bool = False,
        hooks: Sequence[Any] = (),
        deadline_s: float | None = None,
    ) -> Workflow:
        """Goes on with a run that was interrupted, is paused or pending, or has failed, and waits as `execute_workflow` does.

        Completed steps are skipped, their outputs are there; the step that was under way, or failed, runs again.

        Args:
            run: the run.
            auto_checkpoint: True, False, or a policy for this run.
            definition: goes on with this definition in place of its own; its steps are mapped to the old ones by their ids. See
                docs/living-with-code-changes.md.
            force: take that definition also where the run's history contradicts it.
            hooks: called after the engine's own.
            deadline_s: a new deadline, in seconds from now; a deadline that has passed fails the run again.

        Raises:
            IllegalTransitionError: the run has completed or was cancelled, or executes already. Nothing has been appended.
            DefinitionChangedError: the run's history contradicts the new definition; the message reports how. Nothing has been
                appended.
            RunInterruptedError, EntityOutOfStepError: as for `execute_workflow`.
        """
        run.check("resume")
        if definition is not None:
            await self._change_definition(run, as_definition(definition), force=force)
        return await self._await(self._launch(run, self._chain(auto_checkpoint, hooks), lambda: self._set_deadline(run, deadline_s)))

    async def recover(self, auto_checkpoint: bool | AutoCheckpoint = True) -> list[Workflow]:
        """Goes on with every run that was interrupted, all at once, and waits for their ends.

        Runs whose parent is unfinished are taken up by it. Failed, paused and pending runs are left alone: `resume` takes them up.

        Returns:
            Those runs, in the order in which they are in the log.

        Raises:
            RunInterruptedError, EntityOutOfStepError: the first one that a run raised; the others have ended by then.
        """
        runs = [run for run in self._live_runs() if run.status in UNFINISHED and run.id not in self._active and not self._has_driver(run)]
        ends = await asyncio.gather(*(self.resume(run, auto_checkpoint) for run in runs), return_exceptions=True)
        for end in ends:
            if isinstance(end, BaseException):
                raise end
        return runs

    # -- requests to runs ---------------------------------------------------------------------------------------------

    def handle(self, run: Workflow) -> RunHandle:
        """A handle of a run: its status, its end, its events, and the requests to it."""
        return RunHandle(self, self._symphony, run)

    async def pause(self, run: Workflow) -> None:
        """Pauses a run: steps under way come to their end, no other begins. Durable, and the run has stopped, when this returns.

        Called from inside one of the run's steps, it returns at once, and the run stops after the step.

        Raises:
            IllegalTransitionError: the run is not running. Nothing has been appended.
        """
        run.check("pause")
        await self._record(run, "WorkflowPaused", lambda: run.move("pause", self.clock.now()), lambda: run.check("pause"))
        active = self._active.get(run.id)
        if active is None:
            await self.pause_all(run)
            return
        active.drive.control.ask("pause")
        if run.id not in runs_around.get():
            await asyncio.wait({active.task})

    async def cancel(self, run: Workflow, *, grace_s: float = GRACE_S) -> None:
        """Cancels a run and its child runs, then runs its clean-up steps. It is cancelled when this returns.

        Called from inside one of the run's steps, it returns at once, and the run is cancelled after the step.

        Args:
            run: pending, running, paused or failed; for one that is being cancelled already, its end is awaited.
            grace_s: how long the steps under way may take to end by themselves (`context.stop_requested` tells them); then they
                are cancelled. The engine's own waits end at once.

        Raises:
            IllegalTransitionError: the run has completed or was cancelled. Nothing has been appended.
            RunsInProgressError: a step did not stop within 30 s after it was cancelled.
        """
        run.check("cancel")
        if run.status is not WorkflowStatus.CANCELLING:
            await self._record(run, "WorkflowCancelRequested", lambda: run.move("cancel", self.clock.now()), lambda: run.check("cancel"))
        active = self._active.get(run.id)
        if active is None:
            await self._await(self._launch(run, self._chain(True, ()), _nothing))
            return
        active.drive.control.ask("cancel")
        if run.id in runs_around.get():
            return
        if not await active.drive.wait_for_steps(grace_s):
            active.drive.force()
            if not await active.drive.wait_for_steps(INTERRUPTION_TIMEOUT_S):
                raise RunsInProgressError([run.id])
        await asyncio.wait({active.task})

    async def signal(self, run: Workflow, name: str, payload: Any = None) -> None:
        """Sends a signal; it is durable when this returns, and is kept until a step takes it, also before any step waits.

        Args:
            run: one that has not completed and was not cancelled.
            name: which signal.
            payload: plain data.

        Raises:
            IllegalTransitionError: the run takes no signals any more. Nothing has been appended.
            UnstorableValueError: the payload is no plain data. Nothing has been appended.
        """
        if not name or not isinstance(name, str):
            raise ConfigurationError(f"a signal's name is a text that is not empty, not {name!r}")
        run.check("signal")
        kept = copy_plain(payload) if isinstance(payload, (list, dict, set)) else payload

        def receive() -> None:
            if name in run.signals:
                run.signals[name].append(kept)
            else:
                run.signals[name] = [kept]

        await self._record(run, "WorkflowSignalReceived", receive, lambda: run.check("signal"), data={"name": name})

    async def retry_from(
        self, run: Workflow, step: str, auto_checkpoint: bool | AutoCheckpoint = True, *, hooks: Sequence[Any] = ()
    ) -> Workflow:
        """Takes a run back to where it was before a step, and goes on from there, in a new generation, with new idempotency keys.

        The outputs of the step and of what began after it are dropped, the context is what it was; steps beside it, in other
        branches of a parallel or map, keep theirs. A signal that a dropped step took is not sent again: it waits anew. Waits for
        the run's end as `execute_workflow` does.

        Args:
            run: failed, paused, completed, cancelled or interrupted.
            step: address of a step that has begun, or the name or id of one of the definition's first level.
            auto_checkpoint: True, False, or a policy for this run.
            hooks: called after the engine's own.

        Raises:
            IllegalTransitionError: the run executes, or has not begun. Nothing has been appended.
            ConfigurationError: the run has not begun such a step. Nothing has been appended.
        """

        def check() -> None:
            run.check("retry")
            self._refuse_active(run)

        check()
        await take_back(self._symphony, run, step, self.clock.now(), check)
        return await self._await(self._launch(run, self._chain(auto_checkpoint, hooks), _nothing))

    async def fork(
        self,
        run: Workflow,
        at: str | int,
        changes: Mapping[str, Any] | None = None,
        *,
        run_id: str = "",
        metadata: Mapping[str, Any] | None = None,
    ) -> Workflow:
        """A new run, pending, that shares a run's history up to a step or position; the run itself is not touched.

        Args:
            run: the run; it may execute.
            at: address (or name, or id) of a step, before which the fork begins; or a position of the log, right after which.
            changes: values that the fork's context has instead; plain data.
            run_id: the new run's id; made when left empty.
            metadata: the application's own; plain data.

        Returns:
            The fork: `resume(fork)` or `start(fork)` sets it going. Its `forked_from` has `run`, `position` and `step`.

        Raises:
            ConfigurationError: the run has not begun such a step.
            PositionNotFoundError: the run did not exist at the position.
            PositionInsideTransactionError: the position is in the middle of a transaction. In all cases nothing has been appended.
        """
        return await fork_run(self._symphony, run, at, changes or {}, run_id, metadata or {}, self.clock.now())

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
        stopped = {run_id: active.task for run_id, active in self._active.items() if wanted is None or run_id in wanted}
        self._refuse_own(stopped)
        for task in stopped.values():
            task.cancel()
        if stopped:
            _, alive = await asyncio.wait(stopped.values(), timeout=INTERRUPTION_TIMEOUT_S)
            if alive:
                raise RunsInProgressError([run_id for run_id, task in stopped.items() if task in alive])
            _log.info("workflow_runs_interrupted", run_ids=list(stopped))
        return list(stopped)

    async def wait_until(self, run: Workflow, statuses: Collection[WorkflowStatus] = ENDED) -> None:
        """Waits until a run has one of some statuses, whoever brings it there.

        Raises:
            RunInterruptedError: it was interrupted meanwhile.
            EntityOutOfStepError: the log could not append.
        """
        while True:
            active, news = self._active.get(run.id), self._news
            if active is not None:
                await asyncio.wait({active.task})
                if active.task.cancelled() and run.status not in statuses:
                    raise _interrupted(run)
                if not active.task.cancelled():
                    active.task.result()
            elif run.status in statuses:
                return
            else:
                await news.wait()

    # -- what runs need of the engine (`Children`) --------------------------------------------------------------------

    async def run(
        self,
        parent: Workflow,
        address: str,
        child_id: str,
        definition: WorkflowDefinition,
        context: Mapping[str, Any],
        control: RunControl,
    ) -> Workflow:
        """Starts the child run of a step or goes on with it, and waits for its end; a request to the parent ends the wait."""
        child = self._symphony.world.find(f"Workflow:{child_id}")
        hooks = self._active[parent.id].hooks
        if not isinstance(child, Workflow):
            made = child = self._new_run(definition, context, child_id, None, None, parent=parent, parent_step=address)
            await self._symphony.world.claim(parent)
            self._launch(made, hooks, lambda: self._add_child(parent, address, made))
        elif child.status not in (WorkflowStatus.COMPLETED, WorkflowStatus.CANCELLED) and child.id not in self._active:
            self._launch(child, hooks, _nothing)
        try:
            await control.wait(self.wait_until(child))
        except asyncio.CancelledError:
            await self.interrupt([child.id])
            raise
        return child

    async def pause_all(self, parent: Workflow) -> None:
        """Pauses the child runs that run."""
        for child in self._children_of(parent):
            if child.status is WorkflowStatus.RUNNING:
                await self.pause(child)

    async def cancel_all(self, parent: Workflow) -> None:
        """Cancels the child runs that have not ended."""
        going = [child for child in self._children_of(parent) if child.status not in ENDED]
        await asyncio.gather(*(self.cancel(child) for child in going))

    # -- inside -------------------------------------------------------------------------------------------------------

    def _live_runs(self) -> list[Workflow]:
        return [run for run in self._symphony.world.all("Workflow") if isinstance(run, Workflow)]

    def _children_of(self, parent: Workflow) -> list[Workflow]:
        found = [self._symphony.world.find(child) for child in list(parent.children.values())]
        return [child for child in found if isinstance(child, Workflow)]

    def _has_driver(self, run: Workflow) -> bool:
        """Whether a run is taken up by the run that started it, and only by that one."""
        return run.parent is not None and isinstance(self._symphony.world.find(run.parent), Workflow)

    def _chain(self, auto_checkpoint: bool | AutoCheckpoint, hooks: Sequence[Any]) -> HookChain:
        if auto_checkpoint is True:
            auto_checkpoint = self.auto_checkpoint
        elif auto_checkpoint is not False and not isinstance(auto_checkpoint, AutoCheckpoint):
            raise ConfigurationError(f"auto_checkpoint is True, False or an AutoCheckpoint, not {auto_checkpoint!r}")
        policy = [auto_checkpoint] if isinstance(auto_checkpoint, AutoCheckpoint) else []
        return HookChain([*policy, *self.hooks, *hooks])

    def _new_run(
        self,
        definition: DefinitionLike,
        context: Mapping[str, Any] | None,
        run_id: str,
        deadline_s: float | None,
        metadata: Mapping[str, Any] | None,
        **fields: Any,
    ) -> Workflow:
        chosen = as_definition(definition)
        chosen.check(self._symphony)
        if chosen.code is not None:
            check_arguments(self._symphony.flows.get(chosen.code), chosen.code, {**chosen.context, **(context or {})})
        now = self.clock.now()
        limit_s = deadline_s if deadline_s is not None else chosen.deadline_s
        deadline = None if limit_s is None else now + timedelta(seconds=limit_s)
        given = {"id": run_id} if run_id else {}
        return Workflow.of(chosen, context or {}, now, deadline=deadline, metadata=dict(metadata or {}), **given, **fields)

    def _add(self, run: Workflow) -> None:
        self._symphony.world.add(run, event_name="WorkflowCreated")

    def _add_child(self, parent: Workflow, address: str, child: Workflow) -> None:
        self._add(child)
        with self._symphony.world.recording("WorkflowChildStarted", step=address, run_id=parent.id):
            parent.children[address] = child

    def _set_deadline(self, run: Workflow, deadline_s: float | None) -> None:
        if deadline_s is not None:
            with self._symphony.world.recording("WorkflowDeadlineSet"):
                run.deadline = self.clock.now() + timedelta(seconds=deadline_s)

    async def _record(self, run: Workflow, event_name: str, change: Callable[[], None], check: Callable[[], Any], data: Any = None) -> None:
        """Makes a change of a run an event of its own, waits until it is durable, and tells whoever waits for news of the run."""
        world = self._symphony.world
        await world.claim(run)
        check()  # it may have gone on while this call waited
        with world.recording(event_name, data, entity=run):
            change()
        await world.flush(run)
        active = self._active.get(run.id)
        if active is not None:
            active.drive.control.tell_news()

    async def _change_definition(self, run: Workflow, definition: WorkflowDefinition, *, force: bool) -> None:
        self._refuse_active(run)
        definition.check(self._symphony)
        found = compare_definitions(run.definition, definition, begun=set(run.attempts), completed=set(run.outputs))
        if not found.compatible and not force:
            raise DefinitionChangedError(run.id, found)

        def change() -> None:
            run.definition_data = definition.to_dict()
            run.name = definition.name
            run._definition = definition

        await self._record(run, "WorkflowDefinitionChanged", change, lambda: self._refuse_active(run), data=found.to_dict())

    def _refuse_active(self, run: Workflow) -> None:
        if run.id in self._active:
            raise IllegalTransitionError(run.id, f"{run.status} in this process", WorkflowStatus.RUNNING)

    def _launch(self, run: Workflow, hooks: HookChain, prepare: Callable[[], None], *, awaited: bool = True) -> _Active:
        self._refuse_active(run)
        drive = Drive(self._symphony, run, hooks, self._turns, self.clock, self)
        # A run is no part of a transaction that its caller may have begun: its events are durable as they happen.
        surroundings = copy_context()
        surroundings.run(current_scope.set, None)
        if not awaited:
            surroundings.run(runs_around.set, ())
        task = asyncio.get_running_loop().create_task(drive.drive(prepare), name=f"run {run.id}", context=surroundings)
        active = self._active[run.id] = _Active(run, drive, task, hooks)
        task.add_done_callback(lambda _: self._ended(active))
        return active

    def _ended(self, active: _Active) -> None:
        if self._active.get(active.run.id) is active:
            del self._active[active.run.id]
        self._news.set()
        self._news = asyncio.Event()
        if not active.task.cancelled() and active.task.exception() is not None:
            _log.warning("workflow_run_stopped", run_id=active.run.id, error=str(active.task.exception()))

    async def _await(self, active: _Active) -> Workflow:
        """Waits for the end of a run's task; a cancelled caller cancels it."""
        task = active.task
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait({task})
            raise
        if task.cancelled():
            raise _interrupted(active.run)
        task.result()
        return active.run

    def _refuse_own(self, run_ids: Iterable[str]) -> None:
        """A step of a run cannot wait for that run's end."""
        own = [run_id for run_id in run_ids if run_id in runs_around.get()]
        if own:
            raise RunsInProgressError(own)


class _Active:
    """A run that executes in this process."""

    __slots__ = ("drive", "hooks", "run", "task")

    def __init__(self, run: Workflow, drive: Drive, task: asyncio.Task[None], hooks: HookChain) -> None:
        self.run = run
        self.drive = drive
        self.task = task
        self.hooks = hooks


def as_definition(given: DefinitionLike) -> WorkflowDefinition:
    """The definition that was given in one way or another.

    Raises:
        DefinitionError: it is faulty.
    """
    if isinstance(given, WorkflowDefinition):
        return given
    return given.definition if isinstance(given, CodeWorkflow) else WorkflowDefinition.from_dict(given)


def _interrupted(run: Workflow) -> RunInterruptedError:
    return RunInterruptedError(f"run {run.id} was interrupted; what it completed is in the log, and it can be resumed")


def _nothing() -> None:
    """Nothing is to be prepared: the run is there."""
