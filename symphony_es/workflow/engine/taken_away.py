"""Child runs that a rewind has taken away, with steps that are still to be undone: they are there no more, so nothing can undo itself.

What such a run had done outside is done all the same. Its events stay in the log, and whoever cancels the parent is told of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from symphony_es.core.objects.making import made_of
from symphony_es.events.fold import REWIND_EVENT
from symphony_es.events.references import EntityReference
from symphony_es.workflow.definitions.nesting import Paths, walk
from symphony_es.workflow.definitions.unread import UnreadStep
from symphony_es.workflow.engine.histories import definition_at
from symphony_es.workflow.runs.cleanup import in_cleanup
from symphony_es.workflow.runs.transitions import WorkflowStatus

if TYPE_CHECKING:
    from symphony_es.core.host import Host

__all__ = ["taken_away"]


async def taken_away(symphony: Host, links: Iterable[EntityReference]) -> list[str]:
    """Return the ids of those child runs, and of their own child runs, that a rewind has taken away with something to undo.

    Costs the events of those that are not there any more.
    """
    left, found = list(dict.fromkeys(links)), dict[str, bool]()
    while left:
        link = left.pop(0)
        if link.entity_id in found or symphony.log.entity_status_now(link.key)[1]:
            continue
        last = (await symphony.log.read_entity(link.key))[-1:]
        if not last or last[0].name != REWIND_EVENT:  # removed by the application, or pruned
            continue
        state = await symphony.state_history.entity_at(link.key, last[0].position - 1)
        if state is not None and state.data is not None:
            found[link.entity_id] = await _owes_undo(symphony, state.data, last[0].position)
            left += [child for child in state.data.get("children", {}).values() if isinstance(child, EntityReference)]
    return [run_id for run_id, owes in found.items() if owes]


async def _owes_undo(symphony: Host, state: Mapping[str, Any], position: int) -> bool:
    """Return whether a run of that state had begun what has an undo; a rewind takes back what an atomic step has done."""
    status = made_of(symphony.world.revived(state.get("status")), symphony.world.types)
    if status is WorkflowStatus.CANCELLED and state.get("cleanup") is not None:
        return False  # it had been undone
    if state.get("undoable"):
        return True
    definition = await definition_at(symphony, state, position)
    if definition is None or definition.code is not None:
        return False
    steps, paths = dict(walk(definition.plan)), Paths(definition.plan)
    for address in state.get("attempts", {}):
        path = None if in_cleanup(address) else paths.at(address)
        step = None if path is None else steps[path]
        if step is not None and ((step.undo is not None and not step.atomic) or (isinstance(step, UnreadStep) and step.undoable_inside)):
            return True
    return False
