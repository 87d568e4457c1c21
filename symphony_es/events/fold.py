"""Folding: states from events. Pure, and it needs no user code: events carry their effect."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

from symphony_es.errors import ChangeError, DamagedEventError, InvalidIdentifierError
from symphony_es.events.changes import APPEND, SCALARS, SET, apply_changes
from symphony_es.events.codec import UNREADABLE
from symphony_es.events.event import Event
from symphony_es.events.identifiers import split_key
from symphony_es.events.references import EntityReference
from symphony_es.events.rows import PLAIN_METADATA, Row, body_stream, decode_changes
from symphony_es.events.values import copy_plain

__all__ = ["EntityState", "Fold"]


class EntityState:
    """One entity as of some position.

    Attributes:
        key: `Type:id`.
        data: its state, plain data; None when it is deleted.
        version: version of its last event.
        position: position of its last event.
        state_version: version of the state's shape.
        generation: how often a rewind has taken it back.
    """

    __slots__ = ("data", "generation", "key", "position", "state_version", "version")

    def __init__(
        self, key: str, data: dict[str, Any] | None, version: int, position: int, state_version: int = 1, generation: int = 0
    ) -> None:
        self.key = key
        self.data = data
        self.version = version
        self.position = position
        self.state_version = state_version
        self.generation = generation

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
        """A copy whose data are its own."""
        return EntityState(self.key, copy_plain(self.data), self.version, self.position, self.state_version, self.generation)

    def __repr__(self) -> str:
        return f"EntityState({self.key!r}, {self.data!r}, version={self.version}, position={self.position})"


class Fold:
    """All entity states after the events fed so far.

    Attributes:
        states: by key; deleted entities stay as tombstones, because versions go on counting.
        position: position of the last event fed.
    """

    __slots__ = ("position", "states")

    def __init__(self, states: dict[str, EntityState] | None = None, position: int = 0) -> None:
        self.states = {} if states is None else states
        self.position = position

    def copy(self) -> Fold:
        """A copy whose states are its own."""
        return Fold({key: state.copy() for key, state in self.states.items()}, self.position)

    def apply_rows(self, rows: Sequence[Row]) -> None:
        """Feed rows of the log, in order, as a store handed them out: it has checked them.

        Raises:
            DamagedEventError: a row says no event, is out of order, or does not fit its entity. The rows before it have been applied;
                the entity it belongs to must not be used any more.
        """
        # By far the most changes put plain values into fields, or into the dicts and lists of fields: these are applied without any call.
        find, done, last = self.states.get, 0, self.position
        bodies, mark = body_stream(rows)
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
                    and type(body) is type(changes) is type(metadata) is list
                    and len(metadata) <= PLAIN_METADATA
                ):
                    data: Any = state.data
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
                            holder[field] = value
                        elif operation is APPEND and type(items := holder.get(field)) is list:
                            items.append(value)
                        else:
                            break
                    else:
                        state.version = version
                        last = state.position = self.position = position
                        done += 1
                        continue
                self._apply(position, key, version, *decode_changes(row, body), own_values=True, applied=applied)
                last = position
                done += 1
        except DamagedEventError:
            raise
        except UNREADABLE:
            pass  # the stream ends at a body that cannot be read, or is none: by itself, it says why
        for row in islice(rows, done, None):
            self.apply_row(row)

    def apply_row(self, row: Row) -> None:
        """Feed one row of the log. Errors are those of `apply_rows`."""
        self._apply(row[0], row[1], row[2], *decode_changes(row), own_values=True)

    def apply_event(self, event: Event) -> None:
        """Feed one event. Errors are those of `apply_rows`."""
        metadata = event.metadata
        self._apply(
            event.position, event.entity_key, event.version, event.changes, metadata.state_version, metadata.generation, own_values=False
        )

    def _apply(
        self,
        position: int,
        key: str,
        version: int,
        changes: Any,
        state_version: int | None,
        generation: int | None,
        *,
        own_values: bool,
        applied: int = 0,
    ) -> None:
        """Apply an event, without the first so many of its changes, which are applied already."""
        if position <= self.position:
            raise DamagedEventError(position, key, f"it comes after the event at position {self.position}")
        state = self.states.get(key)
        if state is None:
            state = self._new(position, key)
        if version != state.version + 1:
            raise DamagedEventError(position, key, f"it has version {version} after version {state.version}")
        if state.data is None and changes and changes[0][0] == SET and not changes[0][1]:
            state.state_version = 1  # a creation says otherwise if need be
        try:
            state.data = apply_changes(state.data, changes, own_values=own_values, applied=applied)
        except ChangeError as error:
            raise DamagedEventError(position, key, str(error)) from error
        if version == 1:
            self.states[key] = state
        state.version = version
        state.position = position
        if state_version is not None:
            state.state_version = state_version
        if generation is not None:
            state.generation = generation
        self.position = position

    def _new(self, position: int, key: str) -> EntityState:
        """The state of an entity that is met for the first time; it is kept when its first event has been applied."""
        try:
            split_key(key)
        except InvalidIdentifierError as error:
            raise DamagedEventError(position, key, str(error)) from error
        return EntityState(key, None, 0, 0)
