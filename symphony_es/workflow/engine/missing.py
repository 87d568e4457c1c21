"""Runs that this process cannot go on with, as a value of theirs cannot be made here: its class is not known, or has changed too far.

Nothing is appended about it: the run keeps its status, is not driven and not failed, and goes on once the class is known and the
Symphony has been resumed again. Whoever asks for such a run by name gets the error that says what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from symphony_es.core.state.restore import UnrestoredEntity
from symphony_es.errors import UnknownValueError
from symphony_es.events.values import Tagged
from symphony_es.workflow.runs.run import Workflow
from symphony_es.workflow.runs.transitions import UNFINISHED

if TYPE_CHECKING:
    from symphony_es.core.state.world import World

__all__ = ["check_complete", "is_waiting_for_classes", "runs_without_classes"]


def is_waiting_for_classes(entity: object) -> bool:
    """Return whether this is an unfinished run whose values could not be made."""
    if not isinstance(entity, UnrestoredEntity) or not entity.missing:
        return False
    status = entity.state.get("status")
    return isinstance(status, Tagged) and status.data in {each.name for each in UNFINISHED}


def runs_without_classes(world: World) -> list[UnrestoredEntity]:
    """Return the unfinished runs of a world whose values could not be made."""
    return [kept for kept in world.all("Workflow") if is_waiting_for_classes(kept)]


def check_complete(run: Workflow) -> None:
    """Refuse a run that waits for a child run whose values could not be made, at any depth.

    Raises:
        UnknownValueError: what is missing, and the call that mends it. Nothing has been appended.
    """
    for address, child in run.children.items():
        if address in run.outputs:
            continue
        if isinstance(child, UnrestoredEntity) and child.missing:
            raise UnknownValueError(child.missing)
        if isinstance(child, Workflow):
            check_complete(child)
