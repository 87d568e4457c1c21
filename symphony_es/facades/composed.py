"""Plain states as their readers expect them: what stands in a state once, and is read in several places, is shown in each."""

from __future__ import annotations

from typing import Any

__all__ = ["composed_state"]


def composed_state(key: str, state: Any) -> Any:
    """Return the plain state of an entity with what it is made of put together; nothing is copied.

    Args:
        key: of the entity.
        state: as it is recorded.
    """
    if not key.startswith("Workflow:"):
        return state
    from symphony_es.workflow.runs.parts import with_outputs  # late: programs without runs load no engine

    return with_outputs(state)
