"""The history of one entity: each of its versions, and which events set a value of it. Costs that entity's own events, no others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from symphony_es.errors import ConfigurationError, EntityNotFoundError
from symphony_es.events.changes import SET, Change
from symphony_es.events.comparison import ValueChange, trace_changes
from symphony_es.events.event import Event
from symphony_es.events.fold import Damage, EntityState, Fold
from symphony_es.events.paths import ABSENT, value_at
from symphony_es.events.references import Path
from symphony_es.events.rows import decode_row
from symphony_es.events.values import copy_plain, plain_equal

if TYPE_CHECKING:
    from symphony_es.core.state.history import StateHistory

__all__ = ["Blame", "EntityVersion", "blame", "must_exist", "versions"]

PAGE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityVersion:
    """One version of an entity.

    Attributes:
        event: the event that made it: its name, metadata, position and time.
        changes: every value it set, added or removed, in order, with what was there before; none where it was not applied.
        damage: the mark that the entity had after it: this event, or one before it, does not fit. None where the entity is not damaged.
    """

    event: Event
    changes: tuple[ValueChange, ...]
    damage: Damage | None = None

    @property
    def version(self) -> int:
        """The version's number, from 1."""
        return self.event.version


@dataclass(frozen=True, slots=True, kw_only=True)
class Blame:
    """An event that set a value.

    Attributes:
        before: the value before it; `ABSENT` where there was none.
        after: the value after it; `ABSENT` where it was removed.
    """

    event: Event
    before: Any
    after: Any


async def versions(
    history: StateHistory, key: str, *, after_version: int = 0, until: int | None = None, limit: int | None = None
) -> list[EntityVersion]:
    """The versions of an entity, oldest first; in memory those that are kept.

    Args:
        history: the log's past states.
        key: `Type:id`.
        after_version: only later ones.
        until: only those up to this position.
        limit: at most so many, 1 or more.

    Raises:
        EntityNotFoundError: there never was such an entity.
        ConfigurationError: a limit below 1.
        DamagedEventError: an event is damaged.
    """
    found: list[EntityVersion] = []
    if limit is not None and limit < 1:
        raise ConfigurationError(f"limit={limit}: a page has at least one version")
    kept = _kept_from(history, key)
    first = max(after_version, kept.version if kept is not None else 0)
    fold = _fold_of(kept if kept is not None and kept.version == first else await _state_after(history, key, first))
    start = fold.states.get(key)
    state, changes = copy_plain(start.data) if start is not None else None, list[ValueChange]()
    async for event in _events(history, key, first, until):
        damage, changes = _apply(fold, event), []
        if damage is None:  # so it fits, and can be told from the state before it: the last good one, where it is a repair
            state, changes = trace_changes(state, event.changes)
        found.append(EntityVersion(event=event, changes=tuple(changes), damage=damage))
        if len(found) == limit:
            break
    if not found:
        must_exist(history, key)
    return found


async def blame(history: StateHistory, key: str, path: Path, *, until: int | None = None) -> list[Blame]:
    """The events that set the value at a path, the last one first; also those that set it to what it was.

    A value is set by a change at its path, of something around it, or inside it, and when list items before it come or go. In memory,
    only events that are kept are looked at.

    Args:
        history: the log's past states.
        key: `Type:id`.
        path: where the value stands; empty for the whole entity: then every event that changes anything.
        until: only events up to this position.

    Raises:
        EntityNotFoundError: there never was such an entity.
        DamagedEventError: an event is damaged.
    """
    found: list[Blame] = []
    kept = _kept_from(history, key)
    fold, seen = _fold_of(kept), kept is not None
    async for event in _events(history, key, kept.version if kept is not None else 0, until):
        seen = True
        touched = [change for change in event.changes if _touches(change, path)]
        before = _value(fold, key, path) if touched else ABSENT
        if _apply(fold, event) is None and touched:
            after = _value(fold, key, path)
            if any(_sets(change, path) for change in touched) or not _same(before, after):
                found.append(Blame(event=event, before=before, after=after))
    if not seen:
        must_exist(history, key)
    found.reverse()
    return found


async def _events(history: StateHistory, key: str, after_version: int, until: int | None) -> AsyncIterator[Event]:
    while True:
        rows = await history.log.read_entity_rows(key, after_version, until, PAGE)
        for row in sorted(rows):  # by position
            yield decode_row(row)
        if len(rows) < PAGE:
            return
        after_version = max(row[2] for row in rows)


def _fold_of(state: EntityState | None) -> Fold:
    return Fold() if state is None else Fold({state.key: state.copy()}, state.position)


def _apply(fold: Fold, event: Event) -> Damage | None:
    """Feed an event, and say whether the entity is damaged after it."""
    fold.apply_event(event)
    return fold.states[event.entity_key].damage


def _kept_from(history: StateHistory, key: str) -> EntityState | None:
    """In memory: the state that events no longer kept have led to; None where all are kept."""
    base = history.log.base
    return base.states.get(key) if base is not None else None


async def _state_after(history: StateHistory, key: str, version: int) -> EntityState | None:
    """The state of an entity right after a version."""
    if not version:
        return None
    rows = await history.log.read_entity_rows(key, version - 1, None, 1)
    return await history.entity_at(key, rows[0][0]) if rows else None


def must_exist(history: StateHistory, key: str) -> None:
    """Raise EntityNotFoundError where the log has never had an entity."""
    if not history.log.entity_status_now(key)[0]:
        raise EntityNotFoundError(key, "the log has no event of it")


def _touches(change: Change, path: Path) -> bool:
    """Whether a change may set the value at a path: it is at the path, around it, or inside it."""
    shorter = min(len(change[1]), len(path))
    return tuple(change[1][:shorter]) == path[:shorter]


def _sets(change: Change, path: Path) -> bool:
    return bool(change[0] == SET and tuple(change[1]) == path)


def _value(fold: Fold, key: str, path: Path) -> Any:
    state = fold.states.get(key)
    return ABSENT if state is None or state.data is None else copy_plain(value_at(state.data, path))


def _same(one: Any, other: Any) -> bool:
    if one is ABSENT or other is ABSENT:
        return one is other
    return plain_equal(one, other)
