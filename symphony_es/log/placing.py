"""Births whose ids nobody has looked up: whether an id stands in the log is decided in the writer thread, right before the append.

Whoever adds an entity does not ask the log: he numbers its events from 1. Where the log has a removed entity of that id, they are numbered
behind its last one; where it has a live, damaged or pruned one, they are left out. A group that must be appended whole fails as a whole
instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from symphony_es.errors import EntityDamagedError, EntityError, EntityExistsError, RunPrunedError
from symphony_es.events.fold import PRUNED_EVENTS, EntityState
from symphony_es.events.identifiers import DEFINITION_PREFIX
from symphony_es.events.rows import with_transaction
from symphony_es.log.recorder import LogRecorder, PreparedEvent
from symphony_es.shown import quoted

__all__ = ["RUN_ID_TAKEN", "Placing", "without_known"]

RUN_ID_TAKEN = "a run's id is its own: leave it out to have one made, or get that run by start(..., if_exists='return')"
"""What a start under the id of another run is told, wherever that run is: nobody needs it live to start again."""
_RUN = "Workflow:"


def begun_anew(events: Sequence[PreparedEvent], left: Sequence[PreparedEvent]) -> list[PreparedEvent]:
    """Return what is left of a transaction's events, as a transaction of its own; it may have begun with one that is left out."""
    if not left or left[0].event_id == events[0].event_id:
        return list(left)
    first = left[0].event_id
    return [event._replace(body=with_transaction(event.body, first if number else None)) for number, event in enumerate(left)]


def without_known(group: Sequence[PreparedEvent], known: Callable[[str], int]) -> list[PreparedEvent]:
    """Return a group without the constant entities that the log has: whoever brings one need not know.

    Args:
        group: the events.
        known: gives the version that an entity has in the log.
    """
    left: list[PreparedEvent] = []
    met: dict[str, int] = {}
    for event in group:
        key = event.entity_key
        if key.startswith(DEFINITION_PREFIX):
            if event.version <= (met[key] if key in met else known(key)):
                continue
            met[key] = event.version
        left.append(event)
    return begun_anew(group, left)


class Placing:
    """What has become of the births that one writer has been given.

    Args:
        look_up: gives an entity's state right before a position.
    """

    def __init__(self, recorder: LogRecorder, look_up: Callable[[str, int], EntityState | None]) -> None:
        self._recorder = recorder
        self._look_up = look_up
        self._moved: dict[str, int] = {}
        self._refused: dict[str, EntityError] = {}

    def place(
        self, events: list[PreparedEvent], unplaced: frozenset[str]
    ) -> tuple[list[PreparedEvent], dict[str, int], dict[str, EntityError]]:
        """Return events as they can be appended, by how much versions were moved, and what was left out, both by key."""
        for event in events:
            if event.version == 1 and event.entity_key in unplaced:
                self._decide(event.entity_key)
        moved = {key: self._moved[key] for key in unplaced if key in self._moved}
        refused = {key: self._refused[key] for key in unplaced if key in self._refused}
        placed = [
            event._replace(version=event.version + moved[event.entity_key]) if event.entity_key in moved else event
            for event in events
            if event.entity_key not in refused
        ]
        if refused and all(event.entity_key.startswith(DEFINITION_PREFIX) for event in placed):
            return [], moved, refused  # what names them is left out
        return begun_anew(events, placed), moved, refused

    def _decide(self, key: str) -> None:
        self._moved.pop(key, None)
        self._refused.pop(key, None)
        version = self._recorder.entity_version(key)
        if not version:
            return
        state = self._look_up(key, self._recorder.head() + 1)
        if state is not None and state.damage is not None:
            self._refused[key] = EntityDamagedError(key, state.damage)
        elif state is not None and not state.deleted:
            call = f"await symphony.entities.load({quoted(key)})"
            hint = f"it is in the log and has not been restored: {call}; what was added is not live any more"
            self._refused[key] = EntityExistsError(key, RUN_ID_TAKEN if key.startswith(_RUN) else hint)
        elif (row := self._recorder.last_row(key)) is not None and row[3] in PRUNED_EVENTS:
            self._refused[key] = RunPrunedError(key, row[0])
        else:
            self._moved[key] = version
