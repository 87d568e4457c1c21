"""Child runs: what a run needs of the engine that it is driven by."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from symphony_es.core.objects.restorers import UnrestoredEntity
from symphony_es.diagnostics import get_logger
from symphony_es.errors import (
    IllegalTransitionError,
    LimitExceededError,
    PositionNotFoundError,
    RunInterruptedError,
    RunsInProgressError,
    UnknownValueError,
)
from symphony_es.events.changes import SET
from symphony_es.events.identifiers import entity_key
from symphony_es.events.references import EntityReference
from symphony_es.workflow.engine.control import RunStopped
from symphony_es.workflow.engine.creation import new_run
from symphony_es.workflow.engine.histories import read_timeline, state_at
from symphony_es.workflow.engine.missing import left_alone
from symphony_es.workflow.engine.seconds import deadline_after
from symphony_es.workflow.engine.unsaid import has_failed_in
from symphony_es.workflow.runs.cleanup import (
    TRIED,
    cleaned_with,
    has_cleanup,
    has_undo,
    in_cleanup,
    is_left_out,
    is_open,
    own_children,
)
from symphony_es.workflow.runs.run import ABANDONED, ON_PARENT_END, Workflow
from symphony_es.workflow.runs.transitions import ENDED, TAKEN_UP, WorkflowStatus

if TYPE_CHECKING:
    from symphony_es.core.host import Host
    from symphony_es.workflow.definitions.definition import WorkflowDefinition
    from symphony_es.workflow.engine.control import RunControl
    from symphony_es.workflow.engine.execution import StepExecution
    from symphony_es.workflow.engine.hooks import HookChain
    from symphony_es.workflow.engine.requests import RunRequests

__all__ = ["CANCELLED", "CANCELLED_WHILE_PAUSED", "GRACE_S", "PAUSED", "ChildRuns", "is_paused_by_itself"]

PAUSED, CANCELLED, CANCELLED_WHILE_PAUSED = "paused", "cancelled", "cancelled while paused"
"""What `Workflow.with_parent` says, or `ABANDONED`."""

MAX_RUN_DEPTH = 64
"""How many levels of child runs there may be below a run."""

_LEFT_ALONE = (WorkflowStatus.COMPLETED, WorkflowStatus.CANCELLED)

GRACE_S = 10.0
"""How long the steps of a run that is cancelled may take to end by themselves."""

_log = get_logger(__name__)


class ChildRuns:
    """Starts the child runs of steps, and does to them what is done to their parents."""

    def __init__(self, engine: RunRequests, symphony: Host) -> None:
        self._engine = engine
        self._symphony = symphony

    async def run(
        self,
        execution: StepExecution,
        definition: WorkflowDefinition,
        context: Mapping[str, Any],
        on_parent_end: str,
        control: RunControl,
    ) -> Workflow:
        """Start the child run of a step or go on with it, and wait for its end; a request to the parent ends the wait.

        The child run is found by its parent and the step's address. An id is only made where there is none yet, and another one where
        somebody else has a run, or had one, of the id that was wanted. A child run that somebody has paused is left paused. One that has
        failed is taken up by another attempt at the step; where it has failed in this one, a process has died before the step could say so.

        Raises:
            LimitExceededError: child runs would be nested deeper than 64 levels.
        """
        control.check()
        engine, parent = self._engine, execution.run
        around = engine.active.get(parent)
        assert around is not None, "a step runs while its run does"
        child = await self._take_up(parent, execution.address)
        if child is None:
            child = await self._start(execution, definition, context, on_parent_end, around.hooks)
        elif not is_paused_by_itself(child):
            driven = engine.active.get(child)
            if driven is not None and child.status is WorkflowStatus.PAUSED and not await engine.go_on(child, driven):
                await asyncio.wait({driven.task})
            known = child.status
            over = known is WorkflowStatus.FAILED and await has_failed_in(self._symphony, execution, child)
            if not over and child.status not in _LEFT_ALONE and engine.active.get(child) is None:
                await engine.begin(child, around.hooks, partial(self._renew_deadline, child), known=known)
        try:
            await control.wait(engine.active.wait_until(child, (*ENDED, WorkflowStatus.BLOCKED)))
        except RunStopped as stopped:
            if stopped.request == "pause":
                await engine.active.hold_back(child)
            raise
        except asyncio.CancelledError:
            # A clean-up is what the parent's waits for, and what is to outlive the parent outlives this wait.
            if child.status is not WorkflowStatus.CANCELLING and child.on_parent_end != "abandon":
                await engine.active.interrupt([child.id])
            raise
        return child

    def _renew_deadline(self, child: Workflow) -> None:
        """Give another attempt at the step of a child run that has passed its deadline all of its time; called before it goes on."""
        now, limit_s = self._engine.clock.now(), child.definition.deadline_s
        if child.status is WorkflowStatus.FAILED and child.deadline is not None and limit_s is not None and child.deadline <= now:
            with self._symphony.world.recording("WorkflowDeadlineSet", entity=child):
                child.deadline = deadline_after(now, limit_s)

    async def _start(
        self,
        execution: StepExecution,
        definition: WorkflowDefinition,
        context: Mapping[str, Any],
        on_parent_end: str,
        hooks: HookChain,
    ) -> Workflow:
        parent, address = execution.run, execution.address
        _check_depth(parent)
        child = new_run(
            self._symphony,
            self._engine.clock,
            definition,
            context,
            run_id=await self._free_id(execution.unique_id),
            parent=parent,
            parent_step=address,
            on_parent_end=on_parent_end,
        )
        await self._symphony.world.claim(parent)
        await self._engine.begin(child, hooks, lambda: self._add(parent, address, child))
        return child

    async def _take_up(self, parent: Workflow, address: str) -> Workflow | None:
        """Return the child run that a step has started, as it is to go on; None where another one is to begin.

        One that was cancelled because its parent was goes on where nothing of it was cleaned up, so that nothing is done twice. What was
        cleaned up is done anew, by another run.
        """
        world, linked = self._symphony.world, parent.children.get(address)
        if isinstance(linked, EntityReference) and world.find(linked) is None and self._symphony.log.entity_status_now(linked.key)[1]:
            await self._symphony.load_entities([linked.key], strict=False)  # only a part of the log is live
        child = self._at(parent, address)
        if child is None or child.status is not WorkflowStatus.CANCELLED or child.with_parent not in (CANCELLED, CANCELLED_WHILE_PAUSED):
            return child
        if _was_cleaned_up(child):
            return None
        await world.claim(child)
        with world.recording("WorkflowReopened", entity=child, run_id=child.id):
            stays_paused, now = child.with_parent == CANCELLED_WHILE_PAUSED, self._engine.clock.now()
            child.move("retry", now)
            if stays_paused:
                child.move("pause", now)
        return child

    def _at(self, parent: Workflow, address: str) -> Workflow | None:
        """Return the child run that a step has started; None before, and where it has been removed from the world.

        Raises:
            UnknownValueError: it needs a class that is not known here.
        """
        linked = parent.children.get(address)
        found = self._symphony.world.find(linked) if linked is not None else None
        if isinstance(found, UnrestoredEntity):
            raise UnknownValueError(found.missing)
        return found if isinstance(found, Workflow) else None

    async def _free_id(self, wanted: str) -> str:
        """Return an id that no run has, or has had: what was done under that one's keys is not the new one's."""
        symphony, number, chosen = self._symphony, 1, wanted
        while await symphony.log.read_entity_rows(entity_key("Workflow", chosen), 0, None, 1) or symphony.world.find(f"Workflow:{chosen}"):
            number += 1
            chosen = f"{wanted}~{number}"
        return chosen

    def _add(self, parent: Workflow, address: str, child: Workflow) -> None:
        world = self._symphony.world
        world.add(child, event_name="WorkflowCreated")
        with world.recording("WorkflowChildStarted", step=address, run_id=parent.id):
            parent.children[address] = child

    # -- what is done to child runs because it is done to their parents ------------------------------------------------

    async def claim_running(self, parent: Workflow) -> list[Workflow]:
        """Return the child runs that a pause of the parent pauses, running ones at any depth, with the parent; nobody else changes them
        now.
        """
        world = self._symphony.world
        while True:
            found = [parent, *self._running(parent)]
            held = [run for run in found if world.record_for(run).holder is not None]
            if not held:
                return found[1:]
            for run in held:
                await world.claim(run)

    def _running(self, parent: Workflow) -> list[Workflow]:
        found = []
        for child in self._of(parent):
            if child.status is WorkflowStatus.RUNNING:
                found += [child, *self._running(child)]
        return found

    async def pause_all(self, parent: Workflow) -> None:
        """Pause the child runs that run, all at once; one that ends by itself meanwhile is left as it is."""

        async def pause(child: Workflow) -> None:
            try:
                await self._engine.pause_with_parent(child)
            except IllegalTransitionError:
                _log.debug("workflow_child_ended_meanwhile", run_id=child.id)

        await asyncio.gather(*(pause(child) for child in self._of(parent) if child.status is WorkflowStatus.RUNNING))

    async def end_all(self, parent: Workflow) -> None:
        """End the child runs of steps that have not completed when their parent fails or completes, each as its step says.

        What a step of theirs holds up is left to itself after a while: that they are to end is on record. One that was taken up by itself
        after its step had completed is left alone.
        """
        left = {child.id for address, child in parent.children.items() if address not in parent.recorded_outputs}
        try:
            await self._end([child for child in own_children(parent) if child.id in left and child.status not in ENDED])
        except RunsInProgressError as error:
            _log.warning("workflow_children_do_not_end", run_id=parent.id, run_ids=error.run_ids)

    async def end_dropped(self, parent: Workflow, dropped: Collection[str]) -> None:
        """Cancel the child runs of steps that are taken back, where they have not ended: others will do the same work.

        Raises:
            RunsInProgressError: a step of one did not stop within 30 s after it was cancelled.
        """
        addresses = [address for address in dropped if address in parent.children]
        lost = {child.id for address in addresses if (child := self._at(parent, address)) is not None}
        await self._cancel([child for child in self._of(parent) if child.id in lost and child.status not in ENDED])

    async def cancel_all(self, parent: Workflow, *, cleanup: bool = True) -> None:
        """End the child runs of a cancelled parent, all at once; one that ends by itself meanwhile is left as it is.

        Args:
            parent: their parent.
            cleanup: whether their clean-up runs. Without it, the child runs of the parent's clean-up steps are cancelled, too.
        """
        children = own_children(parent) if cleanup else self._of(parent)
        await self._end([child for child in children if child.status not in ENDED], cleanup=cleanup)

    async def cancel_early(self, parent: Workflow, grace_s: float, *, cleanup: bool = True) -> None:
        """Cancel child runs while the parent's own steps end; one that goes with the step that waits for it is left to the clean-up."""
        children = own_children(parent) if cleanup else self._of(parent)
        await self._end([child for child in children if child.status not in ENDED], grace_s, RunInterruptedError, cleanup=cleanup)

    async def clean_up_all(self, parent: Workflow, *, asked: bool = False) -> None:
        """End the child runs that have not ended, and those that have failed with something to clean up, and wait for their clean-up.

        Those that have completed are undone where they have begun a step with an undo, one after the other, the last one first. One that
        had ended before without all of its clean-up goes on with it, once. Those of steps that were taken back are among them.

        Args:
            parent: their parent.
            asked: whether somebody has asked by name that the clean-up goes on: then what has failed in theirs is tried again.
        """
        taken_back = await self._taken_back(parent)
        cleaned = [*cleaned_with(parent), *(child for child in taken_back if child.on_parent_end in (None, "cancel"))]
        left = [child for child in cleaned if is_open(child) and (asked or not _was_tried(parent, child))]
        await self.cancel_all(parent)
        await self._cancel([child for child in cleaned if child.status is WorkflowStatus.FAILED and has_cleanup(child)])
        await self._note_tried(parent, left)
        await asyncio.gather(*(self._go_on(child) for child in left if is_open(child)))
        children = [*own_children(parent), *taken_back]
        completed = [child for child in children if child.status is WorkflowStatus.COMPLETED and has_undo(child)]
        for child in sorted(completed, key=lambda child: (child.ended_at is not None, child.ended_at), reverse=True):
            await self._undo(child)

    async def _undo(self, child: Workflow) -> None:
        """Undo a child run that had completed; one that was taken back by its name since, before its turn came, ends as its step says."""
        if child.status is WorkflowStatus.COMPLETED:
            try:
                return await self._engine.undo(child)
            except IllegalTransitionError as error:
                _log.debug("workflow_child_taken_back_meanwhile", run_id=child.id, why=str(error))
        if child.status not in ENDED:
            await self._end([child])
        elif child.status is WorkflowStatus.FAILED and child.on_parent_end in (None, "cancel") and has_cleanup(child):
            await self._cancel([child])

    async def _note_tried(self, parent: Workflow, children: Sequence[Workflow]) -> None:
        """Put on record which clean-ups go on, where nothing else says so: what fails in them now stays failed after a crash."""
        new = [child.id for child in children if not _was_tried(parent, child)]
        if new:
            held = dict(parent.cleanup or {})
            await self._symphony.world.claim(parent)
            parent.record("WorkflowResumed", [(SET, ("cleanup", TRIED), [*held.get(TRIED, ()), *new])])

    async def _taken_back(self, parent: Workflow) -> list[Workflow]:
        """Return the child runs of a run whose steps were taken back: they are known from its history alone."""
        found: dict[str, Workflow] = {}
        known = {entity_key("Workflow", child.id) for child in self._of(parent)}
        for link in await self.links_taken_back(parent):
            if link.key not in known and link.key not in found and self._symphony.log.entity_status_now(link.key)[1]:
                child = await self._engine.resting.bring(link.key)
                if child.parent is parent:
                    found[link.key] = child
        return list(found.values())

    async def links_taken_back(self, parent: Workflow) -> list[EntityReference]:
        """Return references to the child runs that steps of a run had when they were taken back; a rewind may have taken the runs away."""
        symphony = self._symphony
        if symphony.world.generation(parent) == 0:
            return []
        try:
            timeline = await read_timeline(symphony, parent)
        except PositionNotFoundError:  # in memory, a history may be cut: as much is known as the state says
            return []
        at: dict[int, list[str]] = {}
        for taken in timeline.taken_back.values():
            at.setdefault(taken.position, []).append(taken.address)
        links: list[EntityReference] = []
        for position, addresses in sorted(at.items()):  # each goes on from the one before
            state = await state_at(symphony, timeline.key_at(position), position)
            held = {} if state is None or state.data is None else state.data.get("children", {})
            links += [held[address] for address in addresses if address in held]
        return links

    async def _go_on(self, child: Workflow) -> None:
        if self._engine.active.get(child) is None:
            await self._engine.resume(child)
        else:
            await self._engine.active.wait_until(child)

    async def _end(self, children: Sequence[Workflow], grace_s: float = GRACE_S, *tolerate: type[Exception], cleanup: bool = True) -> None:
        """Do to child runs what their steps say for the end of the parent."""
        by_policy: dict[str, list[Workflow]] = {policy: [] for policy in ON_PARENT_END}
        for child in children:
            by_policy[child.on_parent_end or ON_PARENT_END[0]].append(child)
        await asyncio.gather(
            self._cancel(by_policy["cancel"], grace_s, *tolerate, cleanup=cleanup),
            self._cancel(by_policy["terminate"], 0.0, *tolerate, cleanup=False),
            *map(self._abandon, by_policy["abandon"]),
        )

    async def _abandon(self, child: Workflow) -> None:
        world = self._symphony.world
        await world.claim(child)
        if child.status not in ENDED and child.with_parent != ABANDONED:  # another request may have done so meanwhile
            with world.recording("WorkflowAbandoned", entity=child, run_id=child.id):
                child.with_parent = ABANDONED
            await world.flush(child)
            active = self._engine.active
            if active.stopped_for is not None or child.status not in TAKEN_UP or active.is_taken(child):
                return
            if left_alone(child, self._symphony) == (None, None):
                # The step that would have taken it up, after a crash, does not begin again: nobody else would drive it.
                self._engine.launch(child, self._engine.chain(None, (), child), awaited=False)

    async def _cancel(
        self, children: Sequence[Workflow], grace_s: float = GRACE_S, *tolerate: type[Exception], cleanup: bool = True
    ) -> None:
        tolerated: tuple[type[Exception], ...] = (IllegalTransitionError, *tolerate)

        async def cancel(child: Workflow) -> None:
            try:
                await self._engine.cancel_with_parent(child, grace_s=grace_s, cleanup=cleanup)
            except tolerated as error:
                _log.debug("workflow_child_ended_meanwhile", run_id=child.id, why=str(error))

        await asyncio.gather(*(cancel(child) for child in children))

    def _of(self, parent: Workflow) -> list[Workflow]:
        found = [self._symphony.world.find(child) for child in list(parent.children.values())]
        # A fork names the child runs that completed before it, and has no hold on them: their parent is the original.
        return [child for child in found if isinstance(child, Workflow) and child.parent is parent]


def is_paused_by_itself(child: Workflow) -> bool:
    """Return whether somebody has paused it, and not only its parent: then somebody resumes it."""
    return child.status is WorkflowStatus.PAUSED and child.with_parent != PAUSED


def _was_tried(parent: Workflow, child: Workflow) -> bool:
    """Return whether the clean-up that a child run has not completed was part of its parent's before, and has failed there."""
    with_parent = child.with_parent in (CANCELLED, CANCELLED_WHILE_PAUSED) and not is_left_out(child)
    return with_parent or child.id in (parent.cleanup or {}).get(TRIED, ())


def _was_cleaned_up(run: Workflow) -> bool:
    """Return whether a clean-up step of a run has begun, or one of a child run of it."""
    return any(in_cleanup(address) for address in run.attempts) or any(_was_cleaned_up(child) for child in own_children(run))


def _check_depth(parent: Workflow) -> None:
    """Refuse the child run of a run that is itself 64 levels deep: a workflow that starts itself does not end otherwise.

    Raises:
        LimitExceededError: it is.
    """
    depth, above = 1, parent.parent
    while isinstance(above, Workflow):
        depth, above = depth + 1, above.parent
    if depth > MAX_RUN_DEPTH:
        raise LimitExceededError(
            f"run {parent.id} is a child run at level {MAX_RUN_DEPTH}, and none goes deeper: a workflow that starts itself needs a "
            "condition under which it does not, or starts the next run with symphony.workflows.start"
        )
