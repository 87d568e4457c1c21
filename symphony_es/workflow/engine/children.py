"""Child runs: what a run needs of the engine that it is driven by."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from symphony_es.core.state.restore import UnrestoredEntity
from symphony_es.diagnostics import get_logger
from symphony_es.errors import IllegalTransitionError, RunInterruptedError, UnknownValueError
from symphony_es.events.identifiers import entity_key
from symphony_es.workflow.engine.creation import new_run
from symphony_es.workflow.runs.cleanup import has_cleanup, has_undo, is_open, own_children
from symphony_es.workflow.runs.run import Workflow
from symphony_es.workflow.runs.transitions import ENDED, WorkflowStatus

if TYPE_CHECKING:
    from symphony_es.core.state.host import Host
    from symphony_es.workflow.definitions.definition import WorkflowDefinition
    from symphony_es.workflow.engine.control import RunControl
    from symphony_es.workflow.engine.requests import RunRequests

__all__ = ["GRACE_S", "ChildRuns"]

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
        parent: Workflow,
        address: str,
        wanted_id: str,
        definition: WorkflowDefinition,
        context: Mapping[str, Any],
        control: RunControl,
    ) -> Workflow:
        """Starts the child run of a step or goes on with it, and waits for its end; a request to the parent ends the wait.

        The child run is found by its parent and the step's address. An id is only made where there is none yet, and another one where
        somebody else has a run, or had one, of the id that was wanted.
        """
        engine, world = self._engine, self._symphony.world
        around = engine.active.get(parent)
        assert around is not None, "a step runs while its run does"
        child = self._at(parent, address)
        if child is None:
            child_id = await self._free_id(wanted_id)
            made = child = new_run(self._symphony, engine.clock, definition, context, run_id=child_id, parent=parent, parent_step=address)
            await world.claim(parent)
            engine.launch(made, around.hooks, lambda: self._add(parent, address, made))
        elif child.status not in (WorkflowStatus.COMPLETED, WorkflowStatus.CANCELLED) and engine.active.get(child) is None:
            engine.launch(child, around.hooks)
        try:
            await control.wait(engine.active.wait_until(child, (*ENDED, WorkflowStatus.BLOCKED)))
        except asyncio.CancelledError:
            if child.status is not WorkflowStatus.CANCELLING:  # its clean-up is what the parent's waits for
                await engine.active.interrupt([child.id])
            raise
        return child

    def _at(self, parent: Workflow, address: str) -> Workflow | None:
        """The child run that a step has started; None before, and where it has been removed from the world.

        Raises:
            UnknownValueError: it needs a class that is not known here.
        """
        linked = parent.children.get(address)
        found = self._symphony.world.find(linked) if linked is not None else None
        if isinstance(found, UnrestoredEntity):
            raise UnknownValueError(found.missing)
        return found if isinstance(found, Workflow) else None

    async def _free_id(self, wanted: str) -> str:
        """An id that no run has, or has had: what was done under that one's keys is not the new one's."""
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

    async def end_dropped(self, parent: Workflow, dropped: Collection[str]) -> None:
        """Cancels the child runs of steps that are taken back, where they have not ended.

        Raises:
            RunsInProgressError: a step of one did not stop within 30 s after it was cancelled.
        """
        addresses = [address for address in dropped if address in parent.children]
        lost = {child.id for address in addresses if (child := self._at(parent, address)) is not None}
        await self._cancel([child for child in self._of(parent) if child.id in lost and child.status not in ENDED])

    async def pause_all(self, parent: Workflow) -> None:
        """Pauses the child runs that run, all at once; one that ends by itself meanwhile is left as it is."""

        async def pause(child: Workflow) -> None:
            try:
                await self._engine.pause(child)
            except IllegalTransitionError:
                _log.debug("workflow_child_ended_meanwhile", run_id=child.id)

        await asyncio.gather(*(pause(child) for child in self._of(parent) if child.status is WorkflowStatus.RUNNING))

    async def cancel_all(self, parent: Workflow, *, cleanup: bool = True) -> None:
        """Cancels the child runs that have not ended, all at once; one that ends by itself meanwhile is left as it is.

        Args:
            parent: their parent.
            cleanup: whether their clean-up runs. Without it, the child runs of the parent's clean-up steps are cancelled, too.
        """
        children = own_children(parent) if cleanup else self._of(parent)
        await self._cancel([child for child in children if child.status not in ENDED], cleanup=cleanup)

    async def cancel_early(self, parent: Workflow, grace_s: float, *, cleanup: bool = True) -> None:
        """The same while the parent's own steps end; a child run that goes with the step that waits for it is left to the clean-up."""
        children = own_children(parent) if cleanup else self._of(parent)
        await self._cancel([child for child in children if child.status not in ENDED], grace_s, RunInterruptedError, cleanup=cleanup)

    async def clean_up_all(self, parent: Workflow) -> None:
        """Cancels the child runs that have not ended, and those that have failed with something to clean up, and waits for their clean-up.

        Those that have completed are undone where they have begun a step with an undo, one after the other, the last one first. One that
        ended without all of its clean-up goes on with it.
        """
        await self.cancel_all(parent)
        await self._cancel([child for child in own_children(parent) if child.status is WorkflowStatus.FAILED and has_cleanup(child)])
        await asyncio.gather(*(self._go_on(child) for child in own_children(parent) if is_open(child)))
        completed = [child for child in own_children(parent) if child.status is WorkflowStatus.COMPLETED and has_undo(child)]
        for child in sorted(completed, key=lambda child: (child.ended_at is not None, child.ended_at), reverse=True):
            await self._engine.undo(child)

    async def _go_on(self, child: Workflow) -> None:
        if self._engine.active.get(child) is None:
            await self._engine.resume(child)
        else:
            await self._engine.active.wait_until(child)

    async def cancel_abandoned(self, parent: Workflow) -> None:
        """Cancels the child runs of steps that have not completed and never will: their time was up, or a step beside them failed."""
        given_up = {child.id for address, child in parent.children.items() if address not in parent.outputs}
        await self._cancel([child for child in self._of(parent) if child.id in given_up and child.status not in ENDED])

    async def _cancel(
        self, children: Sequence[Workflow], grace_s: float = GRACE_S, *tolerate: type[Exception], cleanup: bool = True
    ) -> None:
        tolerated: tuple[type[Exception], ...] = (IllegalTransitionError, *tolerate)

        async def cancel(child: Workflow) -> None:
            try:
                await self._engine.cancel(child, grace_s=grace_s, cleanup=cleanup)
            except tolerated as error:
                _log.debug("workflow_child_ended_meanwhile", run_id=child.id, why=str(error))

        await asyncio.gather(*(cancel(child) for child in children))

    def _of(self, parent: Workflow) -> list[Workflow]:
        found = [self._symphony.world.find(child) for child in list(parent.children.values())]
        # A fork names the child runs that completed before it, and has no hold on them: their parent is the original.
        return [child for child in found if isinstance(child, Workflow) and child.parent is parent]
