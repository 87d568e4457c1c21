"""Runs the clean-up of one run: its child runs first, then that of its code, then what undoes its steps, then its clean-up steps.

One step that fails does not keep the others from running.

All that it decides by is in the run's state, so it survives crashes whole: what has completed is not repeated, what has failed for good
stays failed until somebody asks for another attempt, what was under way runs again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from symphony_es.diagnostics import get_logger
from symphony_es.errors import CleanupUnfinishedError, HistoryMismatchError
from symphony_es.events.changes import REMOVE, SET
from symphony_es.workflow.engine.bodies import StepFailure
from symphony_es.workflow.engine.runner import Runner
from symphony_es.workflow.engine.unsaid import left_unsaid
from symphony_es.workflow.runs.cleanup import CLEANUP, cleaned_with, failed_for_good, is_open, is_root, unfinished
from symphony_es.workflow.runs.failures import describe_error
from symphony_es.workflow.runs.outputs import Frame
from symphony_es.workflow.runs.run import Workflow

if TYPE_CHECKING:
    from symphony_es.workflow.definitions.steps import Step
    from symphony_es.workflow.engine.children import ChildRuns

__all__ = ["Cleaning"]

_log = get_logger(__name__)


class Cleaning:
    """The clean-up of one run in this process.

    Args:
        run: the run, which is cancelling.
        children: the child runs of the engine.
        runner: gives a runner that no earlier request or failure stops.
        asked: whether somebody has asked by name that the clean-up goes on: that of its child runs is tried again then, too.

    Attributes:
        contradicted: whether the code contradicts the record, so that nobody knows what undoes its calls: the rest is left for later.
    """

    def __init__(self, run: Workflow, children: ChildRuns, runner: Callable[[], Runner], *, asked: bool = False) -> None:
        self._run = run
        self._asked = asked
        self._children = children
        self._new_runner = runner
        self._errors: dict[str, dict[str, Any]] = {}
        self._code_error: dict[str, Any] | None = None
        self._finished = False
        self._unsaid: frozenset[str] = frozenset()
        self.contradicted = False

    async def perform(self) -> None:
        """Run what has not completed and has not failed for good; returns when nothing of the clean-up is left to do."""
        run = self._run
        await self._children.clean_up_all(run, asked=self._asked)
        undos: dict[str, tuple[Step, bool]] = {}
        if run.definition.code is not None and run.attempts:
            await self._run_code(undos)
        if self.contradicted:
            return
        from symphony_es.workflow.engine.undoing import plan_undos  # few runs are cleaned up

        # What an earlier process has left with a failure inside of a step: that step fails of it, and does not call it again.
        self._unsaid = left_unsaid(run)
        runner = self._runner()
        planned = await plan_undos(runner, undos)
        await self._name_taken_away(runner)
        for undo in planned:
            runner = await self._run_step(runner, undo.step, undo.address, undo.frame)
        main = Frame(run, steps=run.definition.plan)
        frame = Frame(run, f"{CLEANUP}/", run.definition.cleanup_plan, main)
        for step in frame.steps:
            runner = await self._run_step(runner, step, frame.prefix + step.id, frame)
        self._finished = True

    async def _name_taken_away(self, runner: Runner) -> None:
        """Say which child runs are not undone, since a rewind has taken them away."""
        links = await self._children.links_taken_back(self._run)
        if not links:
            return
        from symphony_es.workflow.engine.taken_away import taken_away  # few runs with child runs are rewound, and cancelled then

        gone = await taken_away(runner.symphony, links)
        if gone:
            left = f"a rewind has taken child runs away that had begun what has an undo: {', '.join(gone[:50])}"
            what = f"what they did stays readable, as symphony.history('Workflow:{gone[0]}'), and is to be undone by hand"
            self._code_error = self._code_error or describe_error(CleanupUnfinishedError(self._run.id, left, what), None)
            _log.warning("workflow_children_not_undone", run_id=self._run.id, run_ids=gone[:50])

    async def _run_code(self, undos: dict[str, tuple[Step, bool]]) -> None:
        """Let the `except` and `finally` of a run's function do what they have to, and collect what undoes its calls."""
        from symphony_es.workflow.code.flow import clean_up_flow  # it stands above the engine, which only calls it

        run = self._run
        while True:
            undos.clear()
            runner = self._new_runner()
            try:
                return await clean_up_flow(runner, runner.symphony.flows, undos)
            except StepFailure as error:
                step, again = error.description["step"], list((run.cleanup or {}).get("again", ()))
                if step not in again:
                    self._code_error = error.description
                    self.contradicted = isinstance(error.error, HistoryMismatchError)
                    return
            again.remove(step)
            await runner.symphony.world.claim(run)
            run.record("WorkflowResumed", [(REMOVE, ("failures", step)), (SET, ("cleanup", "again"), again)], step=step)

    @property
    def skipped(self) -> bool:
        """Whether some of it was left out because somebody asked for that."""
        return not self._finished and self._run.cleanup is not None and bool(self._run.cleanup.get("skipped"))

    async def _run_step(self, runner: Runner, step: Step, address: str, frame: Frame) -> Runner:
        if failed_for_good(self._run, address):
            return runner
        try:
            await runner.run_step(step, address, frame)
        except StepFailure as error:
            self._errors[address] = error.description
            return self._runner()  # a hook that stops the run has stopped this step of it
        return runner

    def _runner(self) -> Runner:
        runner = self._new_runner()
        runner.unsaid = self._unsaid
        return runner

    def failures(self) -> list[dict[str, Any]]:
        """Return what the run's `error` has to say of its clean-up, the first thing first; nothing where all of it has completed."""
        run = self._run
        if self.skipped:
            steps = [f"{CLEANUP}/{step.id}" for step in run.definition.cleanup_plan]
            left = [address for address in dict.fromkeys([*unfinished(run), *steps]) if address not in run.recorded_outputs]
            return [describe_error(CleanupUnfinishedError(run.id, f"left out: {', '.join(left[:50]) or 'undoing its steps'}"), None)]
        found = [] if self._code_error is None else [self._code_error]
        for address in filter(is_root, run.attempts):
            if address in self._errors:
                found.append(self._errors[address])
            elif failed_for_good(run, address):
                failure = run.failures[address]
                found.append({"type": failure["type"], "message": failure["message"], "traceback": "", "step": address})
        open_children = ", ".join(child.id for child in cleaned_with(run) if is_open(child))
        if open_children:
            found.append(describe_error(CleanupUnfinishedError(run.id, f"child runs: {open_children}"), None))
        return found
