"""The life of one run in this process: it begins or goes on, its steps run, and it completes, fails, pauses or is cancelled.

`Runner` knows the steps; a `Drive` knows what their end means for the run. A run that is being cancelled runs its clean-up steps, also
after a crash in the middle of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from symphony_es.attribution import NOBODY, Attribution, current_attribution
from symphony_es.diagnostics import get_logger
from symphony_es.errors import (
    DeadlineExceededError,
    EntityOutOfStepError,
    HistoryMismatchError,
    StepFailedError,
)
from symphony_es.events.changes import SET, Change
from symphony_es.failures import is_failure
from symphony_es.workflow.engine.bodies import StepFailure, StepsTask, run_body, unclosed
from symphony_es.workflow.engine.branches import wait_for_end
from symphony_es.workflow.engine.control import RunControl, RunStopped
from symphony_es.workflow.engine.generations import NEVER_TAKEN_BACK
from symphony_es.workflow.engine.histories import generations_of
from symphony_es.workflow.engine.hooks import HookChain, RunMoment
from symphony_es.workflow.engine.missing import digest_here
from symphony_es.workflow.engine.runner import Runner
from symphony_es.workflow.engine.telling import Telling
from symphony_es.workflow.engine.unsaid import again_with_children, forgive_all, left_unsaid
from symphony_es.workflow.runs.cleanup import has_cleanup
from symphony_es.workflow.runs.failures import message_on_record, with_cleanup
from symphony_es.workflow.runs.outputs import Frame, TemplateScope
from symphony_es.workflow.runs.run import Workflow, describe_error
from symphony_es.workflow.runs.starter import keep_starter, starter_of
from symphony_es.workflow.runs.thawing import thaw
from symphony_es.workflow.runs.transitions import WorkflowStatus
from symphony_es.workflow.runs.unmade import Lacking

if TYPE_CHECKING:
    from symphony_es.core.host import Host
    from symphony_es.workflow.engine.children import ChildRuns
    from symphony_es.workflow.engine.clock import Clock
    from symphony_es.workflow.engine.turns import Turns

__all__ = ["Drive"]

A_BEGINNING = 2
"""How many portions of work a beginning is, see `Turns`: the run is made, and two events of it."""
EVENTS_OF_A_BEGINNING = 2
"""A new run's first events: it was created, and it has begun."""

_log = get_logger(__name__)


class Drive:
    """One run, driven by one task of the event loop.

    Attributes:
        run: the run.
        control: what is asked of it meanwhile.
        begun: set when the run's beginning is durable.
        first_version: of a new run, the version of its first event; more than 1 where another run had its id.
        place: done when there is a place for it; None where it needs to wait for none.
        asked: whether somebody has asked by name that the run goes on, so that what has failed in its clean-up is tried again.
        reopened: whether somebody has had a step of its clean-up done again, and has put that on record.
    """

    def __init__(
        self, symphony: Host, run: Workflow, hooks: HookChain, turns: Turns, clock: Clock, children: ChildRuns, *, asked: bool = False
    ) -> None:
        self.run = run
        self.asked = asked
        self.reopened = False
        self.control = RunControl(clock)
        self.begun = asyncio.Event()
        self._symphony = symphony
        self._world = symphony.world
        self._telling = Telling(symphony, run, hooks)
        self._turns = turns
        self._clock = clock
        self._children = children
        self._moment: RunMoment | None = None
        self._paused: RunMoment | None = None
        self._value: Any = None
        self._steps: asyncio.Task[None] | None = None
        self._cleaning = False
        self._interrupted = False
        self._began_within = False
        self._held = False
        self._on_record = False
        self.first_version = 1
        self.place: asyncio.Future[None] | None = None
        self.drains = False
        self._failed_beside: list[str] = []
        self._generations = NEVER_TAKEN_BACK

    def note_pause(self) -> None:
        """Note that the hooks are to be told of the pause when the run has stopped; called while that is being recorded."""
        self._held = True
        self._paused = self._telling.note_assigned("run_paused")

    def hold(self) -> None:
        """Hold a run that has been paused, or the one that waits for it, since it was decided that it goes on.

        It does not begin any more.
        """
        if not self._on_record:
            self._held = True
            self.control.ask("pause")

    async def stop_steps(self, grace_s: float, timeout_s: float, *, cleanup: bool) -> bool:
        """Let the steps under way end by themselves, then cancel them; whether they have ended.

        Args:
            grace_s: how long they may take to end by themselves.
            timeout_s: how long after they were cancelled.
            cleanup: stop those of the clean-up as well; otherwise they are left alone.
        """
        steps = self._steps
        if steps is None or (self._cleaning and not cleanup):
            return True
        await asyncio.wait({steps}, timeout=grace_s)
        if not steps.done():
            self._force()
            await asyncio.wait({steps}, timeout=timeout_s)
        return steps.done()

    def _force(self) -> None:
        if self._steps is not None:
            self._steps.cancel()

    async def drive(self, prepare: Callable[[], None]) -> None:
        """Run until the run has completed, failed, paused or been cancelled.

        Args:
            prepare: called first, in the transaction of the run's beginning: adds the run where it is new.

        Raises:
            IllegalTransitionError: the run cannot go on; nothing has been appended.
            EntityOutOfStepError: the log could not append; the cause says why.
            NotRegisteredError, UnknownValueError, RunBlockedError: this process cannot go on with it; nothing is on record of that.
            asyncio.CancelledError: the step under way is lost, everything before is in the log.
        """
        await self._turns.take(A_BEGINNING)
        try:
            await self._drive(prepare)
        except Lacking as lacking:
            raise lacking.error from lacking

    async def _drive(self, prepare: Callable[[], None]) -> None:
        # What is left of a clean-up begins too, though the main line has ended.
        cleans_up = self.run.check("resume") is WorkflowStatus.CANCELLING
        # Others may have taken the place that it had when it began with its transaction.
        begins = not self._began_within or self.place is not None
        if begins and (self.asked or not self._is_cancelling()) and not await self._get_going(prepare) and not self._is_cancelling():
            self._telling.record_told()
            return
        current_attribution.put(starter_of(self.run))  # whoever goes on with it: what it does is its starter's
        if self.first_version > 1:
            self._reuse_id()
        self._generations = await generations_of(self._symphony, self.run)  # of a new run too: its id may have been another's
        if self._generations.owed and not self.run.undoable:
            await self._note_owed_undo()
        self.begun.set()
        goes_on = not cleans_up and not self._is_cancelling()
        while goes_on:
            await self._go_through(partial(self._run_definition, self._runner(self.control)))
            await self._world.flush(self.run)  # what a failing last hook left on record
            # Nothing is awaited after this look where it is the last one: what is asked from then on finds that the task has ended.
            goes_on = self._goes_on()
            if goes_on:
                self._check_interruption()
        if self.run.status is WorkflowStatus.CANCELLING:
            self._check_interruption()
            await self._clean_up()
            await self._world.flush(self.run)
        self._telling.record_told()  # not waited for: what is told twice has the same id

    async def _note_owed_undo(self) -> None:
        """Put a step with an undo, which a rewind has taken back and the run knows of, on record again, so that it can be cleaned up."""
        from symphony_es.workflow.engine.undoing import owes_undo  # few runs are taken back

        owes = await owes_undo(self._symphony, self.run, self._generations)
        if owes:
            await self._world.claim(self.run)
            self.run.record("WorkflowUndoOwed", [(SET, ("undoable",), owes)])

    def _is_cancelling(self) -> bool:
        return self.run.status is WorkflowStatus.CANCELLING

    def _is_running(self) -> bool:
        return self.run.status is WorkflowStatus.RUNNING

    def stop_at_boundary(self) -> None:
        """Stop between two steps, or where the run waits, and leave it as it is: `recover` goes on with it."""
        self.drains = True
        self.control.ask("drain")

    async def _get_going(self, prepare: Callable[[], None]) -> bool:
        """Put the beginning on record, after the wait for a place where there is none; return whether it is."""
        if self.place is not None:
            if not await self._put_on_record(partial(self.queue_within, prepare)):
                return False
            self.begun.set()
            if not await self._wait_for_place(self.place):
                return False
            prepare = _nothing
        return await self._put_on_record(partial(self._record_beginning, prepare))

    async def _put_on_record(self, record: Callable[[], None]) -> bool:
        """Record that the run goes on, or wait for its place, unless that would undo what was asked of it since that was decided.

        Returns:
            Whether it has; False where the run is paused, or is to be cleaned up only.
        """
        new = self._world.record_of(self.run) is None
        while True:
            if not new:
                await self._world.claim(self.run)
            # Nothing is awaited between this look and the record.
            if self._is_cancelling() and (self.place is not None or not self.asked):
                return False
            if not self._held or self._is_cancelling():
                break
            if not new:  # a child run that its parent's pause has held back has nothing on record to tell of
                await self._tell(self._runner(self.control), self._paused)
            if not self._goes_on():
                return False
        self._on_record = True
        record()
        await self._world.flush(self.run)
        if new:
            self.first_version = self._world.record_for(self.run).version - EVENTS_OF_A_BEGINNING + 1
        return True

    def _goes_on(self) -> bool:
        """Return whether the request to pause that has stopped the run was taken back; nothing is awaited after this look where it is the
        last.
        """
        if not self.control.taken_back or not self._is_running():
            return False
        self.control.go_on()
        self._held = False
        return True

    async def _wait_for_place(self, place: asyncio.Future[None]) -> bool:
        """Wait in the queue, where the run is on record as queued; return whether it may begin.

        Its deadline ends the wait: it fails of that at once then.
        """
        while True:
            try:
                await self.control.wait(self._place_or_deadline(place))
                return True
            except RunStopped:
                if self.run.status is WorkflowStatus.PAUSED:
                    await self._tell(self._runner(self.control), self._paused)
            if not self._goes_on():
                return False
            await self._world.claim(self.run)  # paused and resumed: it has kept its place in the queue
            if self._is_running() and not place.done():
                self.queue_within(_nothing)
                await self._world.flush(self.run)

    async def _place_or_deadline(self, place: asyncio.Future[None]) -> None:
        if self.run.deadline is None:
            await asyncio.wait({place})
            return
        timer = asyncio.ensure_future(self._clock.sleep_until(self.run.deadline))
        try:
            await asyncio.wait({place, timer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()

    def queue_within(self, prepare: Callable[[], None]) -> None:
        """Put on record that the run waits for a place."""
        caller = current_attribution.get()
        token = current_attribution.set(caller._replace(run_id=self.run.id, step=None, attempt=None))
        try:
            with self._world.recording("WorkflowCreated"):
                prepare()
                if self.run.status is WorkflowStatus.QUEUED:
                    return
                with self._world.recording("WorkflowQueued", entity=self.run):
                    if self.run.status is WorkflowStatus.PENDING:
                        keep_starter(self.run, caller)
                    self.run.move("queue", self._clock.now())
        finally:
            current_attribution.reset(token)

    def begin_within(self, prepare: Callable[[], None]) -> None:
        """Put the beginning on record in the transaction around the running code, which holds the run; `drive` goes on from there.

        Raises:
            IllegalTransitionError: the run cannot go on. Nothing has been recorded.
        """
        self._record_beginning(prepare)
        self._began_within = True

    def _record_beginning(self, prepare: Callable[[], None]) -> None:
        first = self.run.started_at is None and self.run.cleanup is None
        current = current_attribution.get()
        caller = current if _says(current) or first else starter_of(self.run)
        token = current_attribution.set(caller._replace(run_id=self.run.id, step=None, attempt=None))
        try:
            with self._world.recording("WorkflowCreated"):
                prepare()
                with self._world.recording("WorkflowStarted" if first else "WorkflowResumed", entity=self.run):
                    if self.run.status is WorkflowStatus.PENDING:
                        keep_starter(self.run, caller)
                    if self.run.cleanup is None:
                        self._forgive()
                    else:
                        from symphony_es.workflow.engine.reopening import forget_cancelled_children  # as in `_clean_up`

                        forget_cancelled_children(self._symphony, self.run)
                    self.run.move("resume", self._clock.now())
                    self._moment = self._telling.note_assigned("run_started" if first else "run_resumed")
        finally:
            current_attribution.reset(token)

    def _reuse_id(self) -> None:
        """Begin anew under the id of a run that was removed or rewound away: what was done under its keys is not this run's."""
        with self._world.recording("WorkflowIdReused", entity=self.run):
            self._world.raise_generation(self.run)

    def _forgive(self) -> None:
        """Try again what a failed run failed of, with all attempts that it is allowed."""
        step = self.run.error["step"] if self.run.error is not None else None
        if self.run.definition.code is not None:
            # Failures on record are raised again, since the code may have dealt with them; with those that ended the run it has not.
            from symphony_es.workflow.code.forgiving import forgive  # it stands above the engine, which only calls it

            forgive(self.run, [address for address, failure in self.run.failures.items() if address == step or failure.get("open")])
            if self.run.error is not None:
                again_with_children(self.run)
        elif self.run.error is not None:
            forgive_all(self.run)

    async def _run_definition(self, runner: Runner) -> None:
        if self.run.untold:
            await runner.tell_again(self._moment)
        await runner.tell(self._moment)
        definition = self.run.definition
        if definition.code is not None:
            self._value = await self._run_code(runner)
        else:
            runner.unsaid = left_unsaid(self.run)
            await runner.run_sequence(Frame(self.run, steps=definition.plan))

    async def _run_code(self, runner: Runner) -> Any:
        from symphony_es.workflow.code.flow import run_flow, steps_behind  # it stands above the engine, which only calls it

        task = asyncio.current_task()
        try:
            return await run_body(run_flow, runner, self._symphony.flows)
        except StepFailure:
            raise
        except StepFailedError as error:
            self._failed_beside = steps_behind(error)
            known = self.run.failures.get(error.step, {})
            is_known = known.get("message") == error.message  # else code has made the error itself, or another step's of it
            said = error.message if is_known else message_on_record(error.message)
            description = {**describe_error(error, error.step), "type": error.error_type, "message": said}
            raise StepFailure(description, error) from error
        except EntityOutOfStepError:
            raise
        except BaseException as error:
            if not is_failure(error, task):
                raise
            self._failed_beside = steps_behind(error)
            raise StepFailure(describe_error(error, None), error) from error

    async def _go_through(self, steps: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run the steps as a task of their own, which a cancellation or the deadline can end, and record what came of them."""
        failure: dict[str, Any] | None = None
        reason = "failure"
        stopped = await self._watch(steps, self.run.deadline)
        run = self.run
        if isinstance(self.control.failure, StepFailure):
            stopped = self.control.failure  # also where the steps around it, or code, have caught it
        if isinstance(stopped, StepFailure):
            failure = stopped.description
        elif stopped is not None and self.control.request == "deadline":
            failure, reason = describe_error(DeadlineExceededError(run.id, run.deadline), None), "deadline"
        runner = self._runner(self.control)
        if failure is None and stopped is None:
            failure = await self._complete(runner)
        blocks = isinstance(stopped, StepFailure) and isinstance(stopped.error, HistoryMismatchError)
        if failure is not None and not blocks:
            await self._children.end_all(run)
        await self._world.claim(run)
        if run.status is WorkflowStatus.CANCELLING:
            return
        if failure is not None:
            if blocks:
                return await self._block(runner, failure)
            cleans = reason in run.definition.cleanup_on and has_cleanup(run)
            changes: list[Change] = [(SET, ("error",), dict(failure))]
            changes += [(SET, ("failures", address, "open"), True) for address in self._failed_beside if address in run.failures]
            if cleans:
                changes.append((SET, ("cleanup",), {"ends": WorkflowStatus.FAILED.value}))
            changes += run.moved("clean_up" if cleans else "fail", self._clock.now())
            ended = None if cleans else self._telling.note(changes, "run_failed", error=failure)
            run.record("WorkflowCleanupBegun" if cleans else "WorkflowFailed", changes)
            _log.warning("workflow_failed", **self._line(failure))
            if not cleans:
                await self._tell(runner, ended)
        elif run.status is WorkflowStatus.PAUSED:
            await self._children.pause_all(run)
            await self._tell(runner, self._paused)

    async def _block(self, runner: Runner, failure: dict[str, Any]) -> None:
        """Put on record that the code contradicts what is on record, with the digest of the code: the same code is not tried again."""
        run = self.run
        changes: list[Change] = [(SET, ("error",), {**failure, "digest": digest_here(run, self._symphony)})]
        changes += run.moved("block", self._clock.now())
        ended = self._telling.note(changes, "run_blocked", error=failure)
        run.record("WorkflowBlocked", changes)
        _log.warning("workflow_blocked", **self._line(failure))
        await self._tell(runner, ended)

    def _line(self, failure: dict[str, Any]) -> dict[str, Any]:
        """Return what the program's log says of a failure, in the order in which it is read."""
        said: dict[str, Any] = {"run_id": self.run.id, "workflow": self.run.name}
        if failure["step"] is not None:
            said |= {"step": failure["step"], "attempt": self.run.attempts.get(failure["step"], 1)}
        return said | {"error": f"{failure['type']}: {failure['message']}"}

    async def _watch(self, steps: Callable[[], Coroutine[Any, Any, None]], deadline: datetime | None) -> BaseException | None:
        """Await the steps; give what ended them early: a failure or a request. Other errors are raised."""
        self._steps = StepsTask(unclosed(steps, None), name=f"steps of run {self.run.id}")
        tasks: list[asyncio.Task[None]] = [self._steps]
        if deadline is not None:
            tasks.append(asyncio.get_running_loop().create_task(self._enforce_deadline(deadline)))
        try:
            await asyncio.wait({self._steps})
        except asyncio.CancelledError:
            self._steps.cancel()
            await wait_for_end([self._steps])
            if self._steps.cancelled():
                raise
            driver = asyncio.current_task()
            if driver is not None:
                driver.uncancel()  # the step under way did not let itself be interrupted, and came to an end of its own
                self._interrupted = True
        finally:
            for task in tasks[1:]:
                task.cancel()
        if self._steps.cancelled():
            if not self.control.ending:
                raise asyncio.CancelledError
            return RunStopped(self.control.request or "cancel")
        error = self._steps.exception()
        if error is None or isinstance(error, (StepFailure, RunStopped)):
            return error
        raise error

    def _check_interruption(self) -> None:
        """Heed an interruption that the steps under way have outlasted: nothing else of the run begins."""
        if self._interrupted:
            raise asyncio.CancelledError

    async def _enforce_deadline(self, deadline: datetime) -> None:
        await self._clock.sleep_until(deadline)
        self.control.ask("deadline")
        self._force()

    def _rendered(self, template: Any) -> Any:
        from symphony_es.workflow.language.templates import render  # late: only texts in definitions need the language

        return thaw(render(template, TemplateScope(Frame(self.run, steps=self.run.definition.plan))))

    async def _complete(self, runner: Runner) -> dict[str, Any] | None:
        """Complete the run, unless it was paused or is to be cancelled; give the error when its `output` cannot be made."""
        run = self.run
        template = run.definition.output
        task = asyncio.current_task()
        await self._children.end_all(run)
        try:
            value = self._value if template is None else self._rendered(template)
            await self._world.claim(run)
            if run.status is not WorkflowStatus.RUNNING:
                return None
            changes: list[Change] = [] if value is None else [(SET, ("returned",), value)]
            changes += run.moved("complete", self._clock.now())
            ended = self._telling.note(changes, "run_completed")
            run.record("WorkflowCompleted", changes)
        except BaseException as error:  # classes of the application are asked for values of theirs
            if isinstance(error, EntityOutOfStepError) or not is_failure(error, task):
                raise
            return describe_error(error, None)
        await self._tell(runner, ended)
        return None

    async def _clean_up(self) -> None:
        """Do what a cancelled run does last; it ends as `Workflow.cleanup` says."""
        from symphony_es.workflow.engine.cleaning import Cleaning  # few runs are cleaned up

        run = self.run
        cleaning = Cleaning(run, self._children, self._anew, asked=self.asked or self.reopened)
        self._steps, self._cleaning = None, True
        try:
            await self._runner(RunControl(self._clock)).tell_again(None)
        except StepFailure:
            _log.debug("clean_up_goes_on_without_hook", run_id=run.id)  # that is on record; the clean-up is no less due
        if not self._skips:
            stopped = await self._watch(cleaning.perform, None)
            if self.drains and isinstance(stopped, RunStopped):
                return
        if self._skips:
            await self._children.cancel_all(run, cleanup=False)
        await self._world.claim(run)
        failures = cleaning.failures()
        fails = run.cleanup is not None and run.cleanup["ends"] == WorkflowStatus.FAILED
        changes: list[Change] = []
        if cleaning.contradicted:
            changes.append((SET, ("cleanup",), {**thaw(run.cleanup), "skipped": True}))
        elif self._skips and not cleaning.skipped:  # the request came when nothing was left
            changes.append((SET, ("cleanup",), {"ends": thaw(run.cleanup)["ends"]}))
        held = thaw(run.error) if fails else None  # a failed run has the error that it failed with
        said = failures if held is None else [held, *failures]
        error = with_cleanup(said[0], said[1:]) if said else None
        if error is not None and error != held:
            changes.append((SET, ("error",), error))
        changes += run.moved("fail" if fails else "end_cancelled", self._clock.now())
        ended = self._telling.note(changes, "run_failed" if fails else "run_cancelled", error=error)
        run.record("WorkflowFailed" if fails else "WorkflowCancelled", changes)
        for failure in failures:
            _log.warning("workflow_cleanup_failed", **self._line(failure))
        await self._tell(self._runner(RunControl(self._clock)), ended)

    @property
    def _skips(self) -> bool:
        return self.run.cleanup is not None and bool(self.run.cleanup.get("skipped"))

    def _anew(self) -> Runner:
        """Return a runner that no earlier request or failure stops, but for the one to skip what it would run."""
        self.control = RunControl(self._clock)
        if self._skips:
            self.control.ask("cancel")
        elif self.drains:
            self.control.ask("drain")
        return self._runner(self.control)

    def _runner(self, control: RunControl) -> Runner:
        return Runner(self._symphony, self.run, self._telling, control, self._turns, self._clock, self._children, self._generations)

    @staticmethod
    async def _tell(runner: Runner, moment: RunMoment | None) -> None:
        """Call the hooks of the run's end: one that declares to stop the run comes too late, and is on record."""
        try:
            await runner.tell(moment, at_end=True)
        except StepFailure:
            return


def _nothing() -> None:
    """Do nothing: the run is prepared."""


def _says(attribution: Attribution) -> bool:
    """Return whether somebody says on whose behalf something happens, and not only in which run."""
    return attribution._replace(run_id=None, step=None, attempt=None, cause=None) != NOBODY
