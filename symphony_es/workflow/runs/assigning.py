"""Making changes of a run by assignments, where they cannot be recorded directly; see `Workflow.record`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from symphony_es.events.changes import ADD, APPEND, DISCARD, EXTEND, INSERT, REMOVE, SET, SPLICE, Change

if TYPE_CHECKING:
    from symphony_es.workflow.runs.run import Workflow

__all__ = ["assign"]


def assign(run: Workflow, changes: Sequence[Change]) -> None:
    """Make changes through the run's fields and what they hold, which record them.

    Raises:
        UnstorableValueError and other errors of an assignment: the block around it puts the run back.
    """
    for change in changes:
        operation, (name, *below), *values = change
        if below or operation not in (SET, EXTEND):
            _apply(run.__dict__[name], operation, below, values)
        elif operation == SET:
            setattr(run, name, values[0])
        else:
            setattr(run, name, getattr(run, name) + values[0])


def _apply(holder: Any, operation: int, path: Sequence[Any], values: Sequence[Any]) -> None:
    """Make one change of a container through its methods."""
    inside = operation in (SET, REMOVE, EXTEND)
    for key in path[:-1] if inside else path:
        holder = holder[key]
    if operation == SET:
        holder[path[-1]] = values[0]
    elif operation == REMOVE:
        del holder[path[-1]]
    elif operation == EXTEND:
        holder[path[-1]] += values[0]
    elif operation == APPEND:
        holder.append(values[0])
    elif operation == INSERT:
        holder.insert(values[0], values[1])
    elif operation == SPLICE:
        start, stop, inserted = values
        holder[start:stop] = inserted
    elif operation == ADD:
        holder.add(values[0])
    elif operation == DISCARD:
        holder.discard(values[0])
