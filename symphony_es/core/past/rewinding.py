"""Rewinding: the events that take every entity back to what it was at an earlier position. Nothing is deleted.

They are computed from folded states, never from live objects, and appended as one transaction that expects the versions it has seen:
a concurrent writer makes it fail whole.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from symphony_es.attribution import attributed, current_attribution
from symphony_es.core.past.moments import check_boundary
from symphony_es.core.past.states import is_system
from symphony_es.events.changes import REMOVE, SET, Change
from symphony_es.events.diff import diff
from symphony_es.events.event import NewEvent
from symphony_es.events.fold import REPAIR_EVENT, REWIND_EVENT, EntityState, Fold, repair_data
from symphony_es.events.identifiers import FOREIGN_PREFIX, uuid7
from symphony_es.late_dataclasses import dataclass

if TYPE_CHECKING:
    from symphony_es.log.log import EventLog

__all__ = ["Rewind", "plan_rewind"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewind:
    """What going back to a position takes.

    Attributes:
        position: where to.
        heads: present states of the application's entities that have events after it, by key.
        events: what to append; none for an entity that is what it was.
    """

    position: int
    heads: dict[str, EntityState]
    events: list[NewEvent]

    @property
    def keys(self) -> list[str]:
        """The entities that are taken back."""
        return [event.entity_key for event in self.events]

    def versions(self) -> dict[str, tuple[int, int]]:
        """Return version and generation that each entity has when the events have been appended."""
        latest = {key: (state.version, state.generation) for key, state in self.heads.items()}
        latest.update({event.entity_key: (event.version, event.metadata.generation or 0) for event in self.events})
        return latest

    def heal(self, fold: Fold) -> None:
        """Mark the target's states as damaged or not, as they are when the events have been appended."""
        repaired = set(self.keys)
        for key, now in self.heads.items():
            then = fold.states.get(key)
            if then is not None:
                then.damage = None if key in repaired else now.damage


async def plan_rewind(log: EventLog, fold: Fold, cause: bytes | None) -> Rewind:
    """Work out what takes the log's states back to those of a fold; nothing is appended.

    Costs one pass over the events after the fold's position.

    Args:
        log: the log.
        fold: the states to go back to.
        cause: id of the event that names the target, of a checkpoint for example.

    Raises:
        PositionInsideTransactionError: the fold's position is in the middle of a transaction, and events come after it.
    """
    heads = await _heads(log, fold)
    if heads:
        await check_boundary(log, fold.position)
    events: list[NewEvent] = []
    with attributed(cause=cause):
        for key, now in heads.items():
            then = fold.states.get(key)
            changes = _way_back(now, then)
            if changes:
                events.append(_rewound(key, now, then, changes, fold.position, events))
    return Rewind(position=fold.position, heads=heads, events=events)


async def _heads(log: EventLog, fold: Fold) -> dict[str, EntityState]:
    present = Fold(position=fold.position, look_up=fold.look_up)
    async for rows in log.pages(fold.position, log.head):
        for row in rows:
            if is_system(row[1]):
                continue
            if row[1] not in present.states and row[1] in fold.states:
                present.states[row[1]] = fold.states[row[1]].copy()
            present.apply_row(row)
    return dict(sorted(present.states.items()))


def _way_back(now: EntityState, then: EntityState | None) -> list[Change]:
    if now.damage is not None:
        if now.key.startswith(FOREIGN_PREFIX) or (then is not None and then.damage == now.damage):
            return []  # it has no state that could be said anew, or was as damaged as it is
        # A repair says the whole state first.
        return [(SET, (), then.data)] if then is not None and then.data is not None else [(SET, (), now.data or {}), (REMOVE, ())]
    if then is None or then.deleted:
        return [] if now.deleted else [(REMOVE, ())]
    if now.deleted:
        return [(SET, (), then.data)]
    return diff(now.data or {}, then.data or {})


def _rewound(
    key: str, now: EntityState, then: EntityState | None, changes: list[Change], position: int, before: list[NewEvent]
) -> NewEvent:
    # A creation begins with 1, whatever the tombstone had; so does a repair.
    folded = 1 if now.deleted or now.damage is not None else now.state_version
    state_version = then.state_version if then is not None and then.state_version != folded else None
    return NewEvent(
        entity_key=key,
        version=now.version + 1,
        name=REWIND_EVENT if now.damage is None else REPAIR_EVENT,
        changes=changes,
        metadata=current_attribution.get().metadata(state_version=state_version, generation=now.generation + 1),
        data={"to": position} if now.damage is None else {"to": position, **repair_data(now)},
        event_id=uuid7(time.time_ns(), os.urandom(16)),
        transaction_id=before[0].event_id if before else None,
    )
