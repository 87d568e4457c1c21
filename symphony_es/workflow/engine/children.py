"""Child runs: what a run needs of the engine that it is driven by."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from symphony_es.workflow.engine.creation import new_run
from symphony_es.workflow.runs.run import Workflow
from symphony_es.workflow.runs.transitions import ENDED, WorkflowStatus

if TYPE_CHECKING:
    from symphony_es.core.state.host import Host
    from symphony_es.workflow.definitions.definition import WorkflowDefinition
    from symphony_es.workflow.engine.control import RunControl
    from symphony_es.workflow.engine.requests import RunRequests

__all__ = ["ChildRuns"]


class ChildRuns:
    """Starts the child runs of steps, and does to them what is done to their parents."""

    def __init__(self, engine: RunRequests, symphony: Host) -> None:
        self._engine = engine
        self._symphony = symphony

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
        engine, world = self._engine, self._symphony.world
        child = world.find(f"Workflow:{child_id}")
        around = engine.active.get(parent)
        assert around is not None, "a step runs while its run does"
        if not isinstance(child, Workflow):
            made = child = new_run(self._symphony, engine.clock, definition, context, run_id=child_id, parent=parent, parent_step=address)
            await world.claim(parent)
            engine.launch(made, around.hooks, lambda: self._add(parent, address, made))
        elif child.status not in (WorkflowStatus.COMPLETED, WorkflowStatus.CANCELLED) and engine.active.get(child) is None:
            engine.launch(child, around.hooks)
        try:
            await control.wait(engine.active.wait_until(child))
        except asyncio.CancelledError:
            await engine.active.interrupt([child.id])
            raise
        return child

    def _add(self, parent: Workflow, address: str, child: Workflow) -> None:
        world = self._symphony.world
        world.add(child, event_name="WorkflowCreated")
        with world.recording("WorkflowChildStarted", step=address, run_id=parent.id):
            parent.children[address] = child

    async def pause_all(self, parent: Workflow) -> None:
        """Pauses the child runs that run."""
        for child in self._of(parent):
            if child.status is WorkflowStatus.RUNNING:
                await self._engine.pause(child)

    async def cancel_all(self, parent: Workflow) -> None:
        """Cancels the child runs that have not ended."""
        going = [child for child in self._of(parent) if child.status not in ENDED]
        await asyncio.gather(*(self._engine.cancel(child) for child in going))

    def _of(self, parent: Workflow) -> list[Workflow]:
        found = [self._symphony.world.find(child) for child in list(parent.children.values())]
        # A fork names the child runs that completed before it, and has no hold on them: their parent is the original.
        return [child for child in found if isinstance(child, Workflow) and child.parent is parent]
