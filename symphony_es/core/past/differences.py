"""What is different between two positions: entities that came, went or changed, value by value, and the events that did it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from symphony_es.core.past.entity_events import must_exist, must_have_states
from symphony_es.core.past.states import StateHistory, is_system
from symphony_es.events.comparison import ValueChange, each_difference
from symphony_es.events.event import Event
from symphony_es.events.fold import EntityState
from symphony_es.events.references import EntityReference
from symphony_es.events.rows import decode_row
from symphony_es.events.showing import change_line, html_table
from symphony_es.late_dataclasses import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Differing", "EntityDifference", "StateDifference", "compare_positions"]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class EntityDifference:
    """One entity that is not the same at two positions.

    Attributes:
        entity: which one.
        changes: the values that differ; one change of the whole state where the entity came or went.
        versions: versions of the entity's events between the two positions, the first and the last one.
    """

    entity: EntityReference
    changes: tuple[ValueChange, ...]
    versions: tuple[int, int]
    _history: StateHistory

    @property
    def kind(self) -> Literal["added", "removed", "changed"]:
        """What happened to the entity, from the first position to the second."""
        return self.changes[0].kind if not self.changes[0].path else "changed"

    def __repr__(self) -> str:
        told = "" if self.kind != "changed" else f": {'; '.join(map(change_line, self.changes))}"
        return f"{self.entity.key} {self.kind}{told}"

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON encoders take: `{"entity", "kind", "versions", "changes"}`."""
        return {
            "entity": self.entity.key,
            "kind": self.kind,
            "versions": list(self.versions),
            "changes": [change.to_dict() for change in self.changes],
        }

    async def events(self) -> list[Event]:
        """Return the entity's events between the two positions, oldest first: those that did it. Costs just these events."""
        return [event async for event in self.each_event()]

    def each_event(self) -> AsyncIterator[Event]:
        """Yield the same events, one after another: a page of them is held at a time."""
        return _events_of(self._history, self.entity.key, *self.versions)


class Differing(NamedTuple):
    """An `EntityDifference` whose values are told once, one after another: a difference of a million items is not held.

    Attributes:
        entity, kind, versions: see there.
        changes: the values that differ.
        events: the entity's events between the two positions, oldest first.
    """

    entity: EntityReference
    kind: Literal["added", "removed", "changed"]
    versions: tuple[int, int]
    changes: Iterator[ValueChange]
    events: AsyncIterator[Event]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class StateDifference:
    """What is different between two positions, by entity, in the order of their keys.

    Attributes:
        before: the first position. after: the second one, which may be the earlier of the two.
    """

    before: int
    after: int
    entities: tuple[EntityDifference, ...]

    def __iter__(self) -> Iterator[EntityDifference]:
        return iter(self.entities)

    def __len__(self) -> int:
        return len(self.entities)

    def __repr__(self) -> str:
        count = len(self.entities)
        head = f"from position {self.before} to {self.after}: {count or 'no'} {'entity differs' if count == 1 else 'entities differ'}"
        return "\n".join([head, *map(repr, self.entities)])

    def _repr_html_(self) -> str:
        rows = [(entity.entity.key, entity.kind, "; ".join(map(change_line, entity.changes))) for entity in self.entities]
        return html_table(("entity", "", "changes"), rows)

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON encoders take: `{"before", "after", "entities"}`."""
        return {"before": self.before, "after": self.after, "entities": [entity.to_dict() for entity in self.entities]}

    @classmethod
    def of(cls, history: StateHistory, before: int, after: int, differing: Iterable[Differing]) -> StateDifference:
        """Return what is told of entities that differ, held."""
        entities = [
            EntityDifference(entity=each.entity, changes=tuple(each.changes), versions=each.versions, _history=history)
            for each in differing
        ]
        return cls(before=before, after=after, entities=tuple(entities))

    @property
    def added(self) -> list[EntityReference]:
        """Entities that exist at the second position only."""
        return self._of("added")

    @property
    def removed(self) -> list[EntityReference]:
        """Entities that exist at the first position only."""
        return self._of("removed")

    @property
    def changed(self) -> list[EntityReference]:
        """Entities that exist at both, with other values."""
        return self._of("changed")

    def _of(self, kind: str) -> list[EntityReference]:
        return [entity.entity for entity in self.entities if entity.kind == kind]


async def compare_positions(history: StateHistory, before: int, after: int, key: str | None = None) -> Iterator[Differing]:
    """Compare the states at two positions: the entities that differ, one after another, in the order of their keys.

    Costs the size of the state twice, however many events lie between; for one entity, that entity's own events.

    Args:
        history: the log's past states.
        before: one position.
        after: the other one.
        key: only this entity.

    Raises:
        PositionNotFoundError: the log does not have a position.
        EntityNotFoundError: there never was such an entity, or it has no states.
    """
    if key is None:
        one, other = (await history.states_at(before)).states, (await history.states_at(after)).states
        await _add_tombstones(history, one, other, before)
        await _add_tombstones(history, other, one, after)
    else:
        must_have_states(history, key)
        one, other = [{key: state} if state is not None else {} for state in [await history.entity_at(key, at) for at in (before, after)]]
        if not one and not other:
            must_exist(history, key)
    keys = sorted(name for name in one.keys() | other.keys() if not is_system(name))
    return (found for name in keys if (found := _compare(history, name, one, other)) is not None)


async def _add_tombstones(history: StateHistory, states: dict[str, EntityState], others: Mapping[str, EntityState], position: int) -> None:
    """Look up what states do not tell of entities that others have: how many versions those had that are deleted by now."""
    if history.snapshots is not None:  # which leave tombstones out
        states.update(await history.entities_at([key for key in others if key not in states and not is_system(key)], position))


def _compare(history: StateHistory, key: str, one: Mapping[str, EntityState], other: Mapping[str, EntityState]) -> Differing | None:
    states = one.get(key), other.get(key)
    versions = sorted(state.version if state is not None else 0 for state in states)
    if versions[0] == versions[1]:
        return None
    changes = each_difference(*(state.data if state is not None else None for state in states))
    first = next(changes, None)
    if first is None:
        return None
    kind, span = "changed" if first.path else first.kind, (versions[0] + 1, versions[1])
    return Differing(EntityReference.parse(key), kind, span, chain([first], changes), _events_of(history, key, *span))


async def _events_of(history: StateHistory, key: str, first: int, last: int) -> AsyncIterator[Event]:
    async for rows in history.log.entity_pages(key, first - 1, last_version=last):
        for row in rows:
            yield decode_row(row)
