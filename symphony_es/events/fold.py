"""Folding: states from events. Pure, and it needs no user code: events carry their effect.

An event that does not fit its entity damages that entity, and nobody else: the entity is marked, keeps the state it had before the event,
and its later events are counted and not applied, until one named `EntityRepaired` says the whole state anew. Every reader of states
is a fold, or begins with what a fold has made, so all of them agree on what is damaged, and since when.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

from symphony_es.errors import ChangeError, DamagedEventError, InvalidIdentifierError
from symphony_es.events.changes import APPEND, SCALARS, SET, apply_changes
from symphony_es.events.codec import UNREADABLE
from symphony_es.events.event import Event
from symphony_es.events.identifiers import split_key
from symphony_es.events.references import EntityReference
from symphony_es.events.rows import PLAIN_METADATA, Row, body_stream, decode_changes
from symphony_es.events.undo import ABSENT, Undo, put_back, revert
from symphony_es.events.values import copy_plain
from symphony_es.late_dataclasses import dataclass

__all__ = ["PRUNED_EVENTS", "PRUNED_TYPES", "REPAIR_EVENT", "REWIND_EVENT", "Damage", "EntityState", "Fold", "repair_data"]

REWIND_EVENT = "Rewound"
PRUNED_EVENTS = ("RunPruned", "TaskPruned")
PRUNED_TYPES = ("Workflow:", "Task:")
"""Names of the events that remove runs and tasks which nobody asks for any more, and what their keys begin with."""
REPAIR_EVENT = "EntityRepaired"
"""Name of the event that repairs a damaged entity: its first change sets the whole state."""


@dataclass(frozen=True, slots=True)
class Damage:
    """Why an entity is damaged: the first event that does not fit it.

    Attributes:
        version: version of that event. position: its position.
        reason: what is wrong with it.
    """

    version: int
    position: int
    reason: str

    def __str__(self) -> str:
        return f"damaged from version {self.version} (position {self.position}): {self.reason}"


class EntityState:
    """One entity as of some position.

    Attributes:
        key: `Type:id`.
        data: its state, plain data; None when it is deleted. Of a damaged entity the last good one: None where there was none.
        version: version of its last event.
        position: position of its last event.
        state_version: version of the state's shape.
        generation: how often a rewind has taken it back.
        damage: where and why it is damaged; None when it is not.
    """

    __slots__ = ("damage", "data", "generation", "key", "position", "state_version", "version")

    def __init__(
        self,
        key: str,
        data: dict[str, Any] | None,
        version: int,
        position: int,
        state_version: int = 1,
        generation: int = 0,
        damage: Damage | None = None,
    ) -> None:
        self.key = key
        self.data = data
        self.version = version
        self.position = position
        self.state_version = state_version
        self.generation = generation
        self.damage = damage

    @property
    def deleted(self) -> bool:
        """Whether the entity is deleted: what is left of it is a tombstone."""
        return self.data is None

    @property
    def entity_type(self) -> str:
        """The entity's type."""
        return self.key.partition(":")[0]

    @property
    def entity_id(self) -> str:
        """The entity's id."""
        return self.key.partition(":")[2]

    @property
    def reference(self) -> EntityReference:
        """The entity."""
        return EntityReference(*split_key(self.key))

    def copy(self) -> EntityState:
        """Return a copy whose data are its own."""
        data = copy_plain(self.data)
        return EntityState(self.key, data, self.version, self.position, self.state_version, self.generation, self.damage)

    def __repr__(self) -> str:
        damaged = f", damage={self.damage!r}" if self.damage is not None else ""
        from symphony_es.events.showing import without_secrets  # late: a fold shows nothing

        return f"EntityState({self.key!r}, {without_secrets(self.data)!r}, version={self.version}, position={self.position}{damaged})"


def repair_data(state: EntityState) -> dict[str, Any]:
    """Return what the event that repairs a damaged entity says: the damage, and whether there was a good state until then."""
    damage = state.damage
    assert damage is not None, "only what is damaged is repaired"
    return {"version": damage.version, "position": damage.position, "reason": damage.reason, "alive": state.data is not None}


LookUp = Callable[[str, int], EntityState | None]
"""Gives an entity's state right before a position, by key; None where it had no event."""


class Fold:
    """All entity states after the events fed so far.

    Attributes:
        states: by key; deleted entities stay as tombstones, because versions go on counting.
        position: position of the last event fed.
        look_up: gives what an entity was before a position: where the states that the fold began with lack its tombstone, and where an
            event of several changes does not fit. Without it, each such event costs a note of what takes its changes back.
    """

    __slots__ = ("look_up", "position", "states")

    def __init__(self, states: dict[str, EntityState] | None = None, position: int = 0, look_up: LookUp | None = None) -> None:
        self.states = {} if states is None else states
        self.position = position
        self.look_up = look_up

    def copy(self) -> Fold:
        """Return a copy whose states are its own."""
        return Fold({key: state.copy() for key, state in self.states.items()}, self.position, self.look_up)

    def apply_rows(self, rows: Sequence[Row]) -> None:
        """Feed rows of the log, in order, as a store handed them out: it has checked them.

        A row that says no event, is not of its entity's next version, or does not fit its entity damages that entity.

        Raises:
            DamagedEventError: a row's position does not come after the one before it. The rows before it have been applied.
        """
        # By far the most changes put plain values into fields, or into the dicts and lists of fields: these are applied without any call.
        find, done, last = self.states.get, 0, self.position
        bodies, mark = body_stream(rows)
        undo: Undo | None = None
        notes = self.look_up is None  # otherwise nothing need be noted: of what does not fit, the log tells the state before
        try:
            for row, body, end in zip(rows, bodies, bodies, strict=False):
                if end != mark:
                    break  # a body that ends elsewhere than its row
                position, key, version, _, _ = row
                _, changes, metadata, _ = body
                state, applied = find(key), 0
                if (
                    state is not None
                    and version == state.version + 1
                    and position > last
                    and state.damage is None
                    and type(body) is type(changes) is type(metadata) is list
                    and len(metadata) <= PLAIN_METADATA
                ):
                    data: Any = state.data
                    if notes and len(changes) > 1:
                        undo = []  # a single change fits or does nothing
                    for applied, change in enumerate(changes):  # noqa: B007  needed where the loop has been left
                        if len(change) != 3 or data is None:
                            break
                        operation, path, value = change
                        if type(path) is not list or type(value) not in SCALARS:
                            break
                        if len(path) == 1:
                            holder, (field,) = data, path
                        elif len(path) == 2 and type(path[0]) is str:
                            holder, field = data.get(path[0]), path[1]
                        else:
                            break
                        if type(holder) is not dict or type(field) is not str:
                            break
                        if operation is SET:
                            if undo is not None:
                                undo.append((put_back, holder, field, holder.get(field, ABSENT)))
                            holder[field] = value
                        elif operation is APPEND and type(items := holder.get(field)) is list:
                            if undo is not None:
                                undo.append((list.pop, items))
                            items.append(value)
                        else:
                            break
                    else:
                        state.version = version
                        last = state.position = self.position = position
                        undo = None
                        done += 1
                        continue
                self._take(row, body, applied, undo)
                undo = None
                last = position
                done += 1
        except DamagedEventError:
            raise
        except UNREADABLE:
            # The stream ends at a body that cannot be read, or is none: by itself, it says why.
            self._take_back(self.states.get(rows[done][1]), rows[done][0], undo)
        for row in islice(rows, done, None):
            self.apply_row(row)

    def apply_row(self, row: Row) -> None:
        """Feed one row of the log; see `apply_rows`."""
        self._take(row)

    def apply_event(self, event: Event) -> None:
        """Feed one event; see `apply_rows`."""
        metadata = event.metadata
        state = self._due(event.position, event.entity_key, event.version)
        if event.fault is not None:
            self._unreadable(state, event.version, event.position, event.fault)
        else:
            told = metadata.state_version, metadata.generation
            self._apply(state, event.position, event.version, event.name, event.changes, told, own_values=False)
        self.position = event.position

    def _take(self, row: Row, body: Any = None, applied: int = 0, undo: Undo | None = None) -> None:
        """Feed a row without the first so many of its changes, which are applied already, and which `undo` takes back."""
        position, key, version, name, _ = row
        state = self._due(position, key, version)
        try:
            changes, *told = decode_changes(row, body)
        except DamagedEventError as error:
            if applied:
                self._take_back(state, position, undo)
            self._unreadable(state, version, position, error.why)
        else:
            self._apply(state, position, version, name, changes, told, own_values=True, applied=applied, undo=undo)
        self.position = position

    def _due(self, position: int, key: str, version: int) -> EntityState:
        """Return the state that the event at a position is for."""
        if position <= self.position:
            raise DamagedEventError(position, key, f"it comes after the event at position {self.position}")
        state = self.states.get(key)
        if state is None and version > 1 and self.look_up is not None:
            state = self.look_up(key, position)
            if state is not None:
                self.states[key] = state
        if state is None:
            state = self.states[key] = EntityState(key, None, 0, 0)
            try:
                split_key(key)
            except InvalidIdentifierError as error:
                state.damage = Damage(version, position, str(error))
        return state

    def _apply(
        self,
        state: EntityState,
        position: int,
        version: int,
        name: str,
        changes: Sequence[Any],
        told: Sequence[int | None],
        *,
        own_values: bool,
        applied: int = 0,
        undo: Undo | None = None,
    ) -> None:
        """Apply an event to its entity, or damage it."""
        before = state.data
        creates = bool(changes) and changes[0][0] == SET and not changes[0][1]
        if state.damage is not None:
            if name != REPAIR_EVENT or not creates or version <= state.version:
                _count(state, version, position)
                return
            before = None
        elif version != state.version + 1:
            _spoil(state, version, position, f"it has version {version} after version {state.version}")
            return
        if undo is None and self.look_up is None and len(changes) > 1:
            undo = []
        try:
            data = apply_changes(before, changes, own_values=own_values, applied=applied, undo=undo)
        except ChangeError as error:
            if len(changes) > 1:
                self._take_back(state, position, undo)
            _spoil(state, version, position, str(error))
            return
        if before is None and creates:
            state.state_version = 1  # a creation says otherwise if need be
        state.data, state.version, state.position, state.damage = data, version, position, None
        state_version, generation = told
        if state_version is not None:
            state.state_version = state_version
        if generation is not None:
            state.generation = generation

    def _take_back(self, state: EntityState | None, position: int, undo: Undo | None) -> None:
        """Put an entity back to what it was before an event of which changes may have been applied."""
        if undo is not None:
            revert(undo)
        elif self.look_up is not None and state is not None:
            before = self.look_up(state.key, position)
            state.data = before.data if before is not None else None

    @staticmethod
    def _unreadable(state: EntityState, version: int, position: int, reason: str) -> None:
        """Take note of an event that says nothing."""
        if state.damage is None and version != state.version + 1:
            reason = f"it has version {version} after version {state.version}"
        _spoil(state, version, position, reason)


def _spoil(state: EntityState, version: int, position: int, reason: str) -> None:
    """Mark an entity as damaged, unless it is: the first event that does not fit is the one to tell of."""
    if state.damage is None:
        state.damage = Damage(version, position, reason)
    _count(state, version, position)


def _count(state: EntityState, version: int, position: int) -> None:
    """Count an event that is not applied. One of an earlier version, out of its order, says nothing new."""
    if version > state.version:
        state.version, state.position = version, position
