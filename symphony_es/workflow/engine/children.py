"""What a run needs of the engine it is driven by: child runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from symphony_es.workflow.definitions.definition import WorkflowDefinition
    from symphony_es.workflow.engine.control import RunControl
    from symphony_es.workflow.runs.run import Workflow

__all__ = ["Children"]


class Children(Protocol):
    """The engine, as a run sees it."""

    async def run(
        self,
        parent: Workflow,
        address: str,
        child_id: str,
        definition: WorkflowDefinition,
        context: Mapping[str, Any],
        control: RunControl,
    ) -> Workflow:
        """Starts or goes on with a child run, and waits for its end."""
        ...

    async def pause_all(self, parent: Workflow) -> None:
        """Pauses the child runs that run."""
        ...

    async def cancel_all(self, parent: Workflow) -> None:
        """Cancels the child runs that have not ended."""
        ...
