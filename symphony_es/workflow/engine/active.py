"""The runs that execute in this process: one task of the event loop each, and none is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context, copy_context
from functools import partial
from types import TracebackType
from weakref import WeakSet

from symphony_es.attribution import NOBODY, acting_attribution
from symphony_es.core.world.foreign import current_step
from symphony_es.core.world.transaction import Transaction, current_scope
from symphony_es.diagnostics import error_text, get_logger
from symphony_es.errors import (
    DrainingError,
    EntityExistsError,
    IllegalTransitionError,
    RunInterruptedError,
    RunsInProgressError,
    SymphonyError,
)
from symphony_es.workflow.engine.bodies import StepsTask, is_interrupted
from symphony_es.workflow.engine.drive import Drive
from symphony_es.workflow.engine.hooks import HookChain
from symphony_es.workflow.engine.loops import in_loop
from symphony_es.workflow.engine.places import Places
from symphony_es.workflow.engine.waits import RunAround, Waits, runs_around
from symphony_es.workflow.runs.context import current_context
from symphony_es.workflow.runs.run import Workflow
from symphony_es.workflow.runs.transitions import ENDED, UNFINISHED, WorkflowStatus
from symphony_es.workflow.runs.under_way import steps_under_way

__all__ = ["DO_NOT_END", "INTERRUPTION_TIMEOUT_S", "PART_OF_RUN", "ActiveRun", "ActiveRuns"]

INTERRUPTION_TIMEOUT_S = 30.0
"""How long a step may go on after it was cancelled."""

PART_OF_RUN = "this call is made in a step, a hook or the code of one of them, which cannot wait for its own end: make it from outside"
DO_NOT_END = "a step of each goes on though it was cancelled: wait until it returns, and ask again"

MAX_STEPS_NAMED = 5
"""How many of the steps under way a line of the log names."""

_log = get_logger(__name__)


class ActiveRun:
    """A run that executes in this process.

    Attributes:
        run: the run.
        drive: its life.
        task: what drives it.
        hooks: what is told of it.
    """

    __slots__ = ("drive", "hooks", "run", "task")

    def __init__(self, drive: Drive, task: asyncio.Task[None], hooks: HookChain) -> None:
        self.run = drive.run
        self.drive = drive
        self.task = task
        self.hooks = hooks


class ActiveRuns:
    """All of them, by id.

    Attributes:
        on_end: called with a run that has ended.
        places: how many execute at once, and which wait for that.
        draining: whether they are being stopped for the next `recover`, and none begins.
        drained: those that have ended since that, until a report has told of them.
        stopped_for: what all of them are being stopped for, in words; no run begins until that is over.
        waits: whose end code of theirs waits for.
    """

    def __init__(self) -> None:
        self.on_end: Callable[[Workflow], None] = lambda run: None
        self._by_id: dict[str, ActiveRun] = {}
        self._loops: WeakSet[asyncio.AbstractEventLoop] = WeakSet()  # that runs have been begun in
        self._died_of: dict[
            str, tuple[BaseException, TracebackType | None]
        ] = {}  # runs that stopped before their end, until they are taken up again
        self._news = asyncio.Event()
        self._closings = 0
        self._held: set[str] = set()
        self.places = Places()
        self.draining = False
        self.stopped_for: str | None = None
        self.drained: list[ActiveRun] = []
        self._begin_with: dict[str, tuple[Workflow, Transaction]] = {}
        self.waits = Waits(self)

    @property
    def ids(self) -> list[str]:
        """Their ids, in the order in which they began."""
        return list(self._by_id)

    def all(self) -> list[ActiveRun]:
        """Return all of them, in the order in which they began."""
        return list(self._by_id.values())

    def check_draining(self) -> None:
        """Refuse new runs while the process is drained; code of a run that is about to stop itself may begin some.

        Raises:
            DrainingError: the workflows of this process are being stopped.
        """
        if self.draining and not _is_drained_around():
            raise DrainingError("this process is being drained and starts no run any more: start it in the one that takes over")

    def get(self, run: Workflow) -> ActiveRun | None:
        """Return one of them, or None."""
        return self._by_id.get(run.id)

    def of_id(self, run_id: str) -> Workflow | None:
        """Return the run of an id that executes here, or is about to begin; None where there is none."""
        active = self._by_id.get(run_id)
        return None if active is None else active.run

    def is_taken(self, run: Workflow) -> bool:
        """Return whether a run executes here, or is about to."""
        return run.id in self._by_id or run.id in self._held or run.id in self._begin_with

    def is_around(self, run_id: str) -> bool:
        """Return whether the running code is part of a run."""
        return RunAround(self, run_id) in runs_around.get()

    def is_part_of(self, run: Workflow) -> bool:
        """Return whether the running code belongs to something that a run waits for, or to the run.

        Then it cannot wait for the run's task.
        """
        return self.is_around(run.id) or self.waits.circle(run.id) is not None

    def refuse_own(self, run_ids: Iterable[str] | None = None) -> None:
        """Refuse where the running code is part of one of some runs, all that execute by default.

        Raises:
            RunsInProgressError: it is: it cannot stop them, and wait for their end.
        """
        own = [run_id for run_id in (list(self._by_id) if run_ids is None else run_ids) if self.is_around(run_id)]
        if own:
            raise RunsInProgressError(own, PART_OF_RUN)

    def refuse(self, run: Workflow) -> None:
        """Refuse a run that executes.

        Raises:
            IllegalTransitionError: it does.
        """
        self.forget_ended_loops()
        if run.id in self._by_id:
            if run.status is WorkflowStatus.PAUSED:
                where, why = " with steps under way (await handle.wait('paused'))", ""
            else:
                where, why = " in this process", "to take it back to a step, pause it first, or wait for its end"
            if self.is_around(run.id):
                why = "this call is made in a step, a hook or the code of it, which ends first: make it from outside"
            raise IllegalTransitionError(run.id, f"{run.status}{where}", WorkflowStatus.RUNNING, why=why)
        if self.begins(run) is not None:
            raise IllegalTransitionError(run.id, f"{run.status} with a transaction that has not ended", WorkflowStatus.RUNNING)
        if run.id in self._held and run.status is not WorkflowStatus.CANCELLING:
            raise IllegalTransitionError(run.id, f"{run.status} and being taken back to a step", WorkflowStatus.RUNNING)

    def begins_with(self, run: Workflow, transaction: Transaction) -> None:
        """Note that a run begins when a transaction has ended."""
        self._begin_with[run.id] = (run, transaction)

    def has_room(self) -> bool:
        """Return whether a run that begins when a transaction has ended finds a place then, as things are: others begin before it."""
        return self.places.is_free_after(sum(run.parent is None for run, _ in self._begin_with.values()))

    def begins(self, run: Workflow) -> Transaction | None:
        """Return the transaction that a run begins with, while that has not ended."""
        noted, transaction = self._begin_with.get(run.id, (None, None))
        return transaction if noted is run else None

    def has_begun(self, run: Workflow, transaction: Transaction) -> None:
        """Forget that; another run may have the id by now, where this one was taken back."""
        if self._begin_with.get(run.id) == (run, transaction):
            del self._begin_with[run.id]

    def never_began(self, run: Workflow, why: SymphonyError) -> None:
        """Keep with a run why it is not driven: whoever waits for it gets that."""
        run.__dict__["_never_began"] = why
        self._tell_news()

    @contextmanager
    def hold(self, run: Workflow) -> Iterator[None]:
        """Keep a run from being driven for a while, but for its clean-up.

        Raises:
            IllegalTransitionError: it executes, or is held already.
        """
        self.refuse(run)
        self._held.add(run.id)
        try:
            yield
        finally:
            self._held.discard(run.id)

    def launch(
        self,
        drive: Drive,
        hooks: HookChain,
        prepare: Callable[[], None],
        *,
        known: WorkflowStatus,
        awaited: bool = True,
        takes_place: bool = False,
        surroundings: Context | None = None,
    ) -> ActiveRun:
        """Begin to drive a run.

        Args:
            drive: the run's life.
            hooks: what is told of it.
            prepare: see `Drive.drive`.
            known: the run's status when it was decided that it goes on: where it has been paused since, it stays so.
            awaited: whether the calling code waits for the run's end, so that the run must not wait for the calling code's.
            takes_place: whether it counts among those that may execute at once.
            surroundings: the context variables that the run's code sees; those of the calling code when left out.

        Raises:
            IllegalTransitionError: it executes already.
            RunInterruptedError: all runs are being stopped. Nothing has been appended.
        """
        if self.stopped_for is not None:
            raise RunInterruptedError(f"run {drive.run.id} does not begin in this process: {self.stopped_for} is under way")
        self.refuse(drive.run)
        # What a run does is no part of a transaction that its caller may have begun: its events are durable as they happen.
        surroundings = copy_context() if surroundings is None else surroundings
        surroundings.run(current_scope.set, None)
        surroundings.run(current_step.set, None)
        surroundings.run(acting_attribution.put, NOBODY)
        surroundings.run(current_context.set, None)
        around = surroundings.run(runs_around.get) if awaited else ()
        surroundings.run(runs_around.set, (*around, RunAround(self, drive.run.id)))
        if takes_place:
            drive.place = self.places.enter(drive.run.id)
        if self.draining:
            drive.stop_at_boundary()
        if drive.run.status is WorkflowStatus.PAUSED and known is not WorkflowStatus.PAUSED:
            drive.hold()
        task = StepsTask(drive.drive(prepare), name=f"run {drive.run.id}", context=surroundings)
        active = self._by_id[drive.run.id] = ActiveRun(drive, task, hooks)
        self._loops.add(task.get_loop())
        task.add_done_callback(lambda _: self._ended(active))
        self._died_of.pop(drive.run.id, None)
        drive.run.__dict__.pop("_never_began", None)
        self._tell_news()
        return active

    async def hold_back(self, run: Workflow) -> None:
        """Keep a run that is about to begin from it, since the one that it was launched for has been paused; one that has begun goes on."""
        active = self._by_id.get(run.id)
        if active is not None and not active.drive.begun.is_set():
            active.drive.hold()
            await self.begun(active)

    async def begun(self, active: ActiveRun) -> None:
        """Wait until the beginning of a run is durable, or its task has ended without one."""
        begun = asyncio.ensure_future(active.drive.begun.wait())
        try:
            await asyncio.wait({begun, active.task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            begun.cancel()

    async def hold_while_stopping(self) -> None:
        """Keep code of a run, where all runs are being stopped, from being told that another run does not begin or go on.

        Its own run is being stopped as well, so what it would be told is not a failure of it: it is cut off here. Does nothing for code
        that is part of no run, or has been cut off by now, or where no run is being stopped.
        """
        if not self._are_stopping() or not _is_stopping_around() or is_interrupted():
            return
        closings = self._closings
        while self._are_stopping() and self._closings == closings:
            await self._news.wait()  # it is about to be cancelled; a task that nobody awaits is not, and goes on when all have stopped

    def _are_stopping(self) -> bool:
        return self.stopped_for is not None

    def begin_again(self) -> None:
        """Let others begin: all have stopped."""
        self.stopped_for = None
        self._tell_news()

    def _tell_news(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def _ended(self, active: ActiveRun) -> None:
        error = _interrupted(active.run) if active.task.cancelled() else active.task.exception()
        if self._by_id.get(active.run.id) is active:
            del self._by_id[active.run.id]
            self.places.leave(active.run.id)
            if self.draining:
                self.drained.append(active)
            if error is None and active.drive.drains and active.run.status in UNFINISHED:
                self.died(active.run, _drained(active.run))
            if error is not None:
                self.died(active.run, error)
        self._tell_news()
        is_told = isinstance(error, EntityExistsError) and not active.drive.begun.is_set()  # a start of a taken id: no run has stopped
        if not active.task.cancelled() and error is not None and not is_told:
            run = active.run
            under_way = steps_under_way(run)[:MAX_STEPS_NAMED]
            _log.warning("workflow_run_stopped", run_id=run.id, workflow=run.name, steps=under_way, error=error_text(error))
        if error is None and active.run.status in ENDED:
            self.on_end(active.run)

    def died(self, run: Workflow, error: BaseException) -> None:
        """Keep why a run does not go on in this process: whoever waits for it gets that, until it is taken up again."""
        self._died_of[run.id] = (error, error.__traceback__)
        self._tell_news()

    async def ended(self, active: ActiveRun) -> None:
        """Wait for the end of a run's task. Errors are those of `join`; where the caller is cancelled, the run is not."""
        await asyncio.wait({active.task})
        if active.task.cancelled():
            await self.hold_while_stopping()
            raise _interrupted(active.run)
        active.task.result()

    def close(self) -> None:
        """Tell whoever waits for a run that is not executing that they wait in vain: the Symphony closes."""
        self._closings += 1
        self.draining = False
        self.drained.clear()
        self._tell_news()

    async def join(self, active: ActiveRun) -> Workflow:
        """Wait for the end of a run's task; where the caller is cancelled, so is the run.

        Raises:
            RunInterruptedError: the run was interrupted.
            EntityOutOfStepError: the log could not append.
        """
        task = active.task
        try:
            with self.waits.for_end_of(active.run.id):
                await asyncio.wait({task})
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait({task})
            raise
        if task.cancelled():
            await self.hold_while_stopping()
            raise _interrupted(active.run)
        task.result()
        if active.drive.drains and active.run.status in UNFINISHED:
            if _is_drained_around():
                await asyncio.Event().wait()  # the run that waits here is drained as well, and is no witness of a failure
            raise _drained(active.run)
        return active.run

    async def wait_until(self, run: Workflow, statuses: Collection[WorkflowStatus] = ENDED) -> None:
        """Wait until a run has one of some statuses and its task has ended, whoever brings it there.

        Raises:
            DeadlockError: called from inside a run that this one waits for, or the run itself. At once.
            RunInterruptedError: it was interrupted, and nobody has taken it up again; or the Symphony was closed.
            EntityOutOfStepError: the log could not append. Any error that its task has died of is raised, whenever it is asked for.
        """
        with self.waits.for_end_of(run.id):
            self.let_in(run)
            await self.watch(run, statuses)

    def let_in(self, run: Workflow) -> None:
        """Let a run in without a place where code of another run is about to wait for it."""
        if runs_around.get():
            self.places.let_in(run.id)

    async def watch(self, run: Workflow, statuses: Collection[WorkflowStatus] = ENDED) -> None:
        """Watch a run for a caller that may do something else before its end; other errors are those of `wait_until`."""
        closings = self._closings
        while True:
            active, news = self._by_id.get(run.id), self._news
            if active is not None:
                await asyncio.wait({active.task})
                if active.task.cancelled() and run.status not in statuses:
                    await self.hold_while_stopping()
                    raise _interrupted(run)
                if not active.task.cancelled():
                    active.task.result()
            elif run.status in statuses and self.begins(run) is None:
                return
            elif run.__dict__.get("_never_began") is not None and self.begins(run) is None:
                raise run.__dict__["_never_began"]
            elif run.id in self._died_of and not (self.draining and _is_drained_around()) and not self._was_paused_since(run):
                error, where = self._died_of[run.id]
                if isinstance(error, RunInterruptedError):
                    await self.hold_while_stopping()
                raise error.with_traceback(where)  # as it was: each raising adds to it
            elif self._closings != closings:
                raise _interrupted(run)
            else:
                await news.wait()

    def _was_paused_since(self, run: Workflow) -> bool:
        """Return whether a run was interrupted, and is paused: it goes on when somebody resumes it, so who waits for it waits on."""
        return run.status is WorkflowStatus.PAUSED and isinstance(self._died_of[run.id][0], RunInterruptedError)

    def forget_ended_loops(self) -> None:
        """Forget the runs of event loops that have ended: they do not go on in this process."""
        ended = [loop for loop in self._loops if not loop.is_running()]
        for loop in ended:
            self._loops.discard(loop)
            for run_id, active in list(self._by_id.items()):
                if active.task.get_loop() is loop:
                    del self._by_id[run_id]

    async def interrupt(self, run_ids: Iterable[str] | None) -> list[str]:
        """See `WorkflowEngine.interrupt`."""
        wanted = None if run_ids is None else set(run_ids)
        self.forget_ended_loops()
        stopped = {run_id: active.task for run_id, active in self._by_id.items() if wanted is None or run_id in wanted}
        self.refuse_own(stopped)
        if stopped:
            alive = set[asyncio.Task[None]]()
            for loop in {task.get_loop() for task in stopped.values()}:
                with suppress(RunInterruptedError):  # its loop has ended meanwhile, and so have they
                    alive |= await in_loop(loop, partial(_stop, [task for task in stopped.values() if task.get_loop() is loop]))
            if alive:
                raise RunsInProgressError([run_id for run_id, task in stopped.items() if task in alive], DO_NOT_END)
            _log.info("workflow_runs_interrupted", run_ids=list(stopped))
        return list(stopped)


async def _stop(tasks: list[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
    """Cancel tasks of this loop; those that have not ended after a while are returned."""
    for task in tasks:
        task.cancel()
    return (await asyncio.wait(tasks, timeout=INTERRUPTION_TIMEOUT_S))[1]


def _is_drained_around() -> bool:
    """Return whether the running code is part of a run that is drained, in whichever Symphony.

    It stops with that run, and nobody sees it.
    """
    return any(each.active.draining for each in runs_around.get())


def _is_stopping_around() -> bool:
    """Return whether the running code is part of a run of a Symphony that stops all its runs."""
    return any(each.active.stopped_for is not None for each in runs_around.get())


def _drained(run: Workflow) -> RunInterruptedError:
    return RunInterruptedError(f"run {run.id} was stopped because its process is drained; recover() in the next one goes on with it")


def _interrupted(run: Workflow) -> RunInterruptedError:
    return RunInterruptedError(f"run {run.id} was interrupted; what it completed is in the log, and it can be resumed")
