"""The history of one entity: each of its versions, and which events set a value of it. Costs that entity's own events, no others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from symphony_es.core.state.past.renames import path_in_time
from symphony_es.core.state.past.walk import Walk
from symphony_es.errors import ConfigurationError, EntityNotFoundError, UnknownPathError, format_path
from symphony_es.events.changes import EXTEND, SET, Change
from symphony_es.events.comparison import ValueChange
from symphony_es.events.event import Event
from symphony_es.events.fold import Damage, EntityState
from symphony_es.events.paths import ABSENT, value_at
from symphony_es.events.references import Path
from symphony_es.events.rows import decode_row
from symphony_es.events.showing import Lines, change_line, event_line, html_table
from symphony_es.events.values import Tagged, copy_plain, plain_equal
from symphony_es.shown import shown

if TYPE_CHECKING:
    from symphony_es.core.state.history import StateHistory
    from symphony_es.core.state.names import Names

__all__ = ["Blame", "EntityVersion", "blame", "events_of", "kept_from", "must_exist", "versions"]

MOST_BESIDE = 100
"""How many names of one place are looked at for near misses."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
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

    def __repr__(self) -> str:
        return event_line(self.event, self.changes) + (f" (not applied: {self.damage})" if self.damage is not None else "")

    def _repr_html_(self) -> str:
        return html_table(COLUMNS, [self.cells()])

    def cells(self) -> tuple[Any, ...]:
        """A row of a table with the columns `COLUMNS`."""
        *cells, told = _cells(self.event, self.changes)
        return (*cells, told if self.damage is None else f"not applied: {self.damage}")

    def to_dict(self) -> dict[str, Any]:
        """What JSON encoders take: that of the event, `changes`, those of the values, and `damage` where the entity is damaged."""
        told = {**self.event.to_dict(), "changes": [change.to_dict() for change in self.changes]}
        return told if self.damage is None else {**told, "damage": asdict(self.damage)}


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Blame:
    """An event that set a value.

    Attributes:
        before: the value before it; `ABSENT` where there was none.
        after: the value after it; `ABSENT` where it was removed.
        path: where it stood then: under another name before a field was renamed.
    """

    event: Event
    before: Any
    after: Any
    path: Path = ()

    @property
    def change(self) -> ValueChange:
        """What the event did to the value."""
        return ValueChange(self.path, self.before, self.after)

    def __repr__(self) -> str:
        return event_line(self.event, [self.change])

    def _repr_html_(self) -> str:
        return html_table(COLUMNS, [self.cells()])

    def cells(self) -> tuple[Any, ...]:
        """A row of a table with the columns `COLUMNS`."""
        return _cells(self.event, [self.change])

    def to_dict(self) -> dict[str, Any]:
        """What JSON encoders take: that of the event, and `path`, `kind`, `before` and `after` of the value."""
        return {**self.event.to_dict(), **self.change.to_dict()}


COLUMNS = ("version", "time (UTC)", "event", "by", "why", "changes")


def _cells(event: Event, changes: Sequence[ValueChange]) -> tuple[Any, ...]:
    metadata = event.metadata
    why = metadata.reason or (f"run {metadata.run_id}" if metadata.run_id else "")
    told = "; ".join(map(change_line, changes))
    return event.version, f"{event.recorded_at:%Y-%m-%d %H:%M:%S}", event.name, metadata.actor or "", why, told


_Item = TypeVar("_Item", EntityVersion, Blame)


class _Versions(Lines[_Item]):
    """What a question about one entity answers: a line, or a row of a table, an item."""

    def _repr_html_(self) -> str:
        return html_table(COLUMNS, [item.cells() for item in self])


async def versions(
    history: StateHistory,
    names: Names,
    key: str,
    path: Path = (),
    *,
    after_version: int = 0,
    since: int = 0,
    until: int | None = None,
    limit: int | None = None,
) -> list[EntityVersion]:
    """The versions of an entity, oldest first; in memory those that are kept.

    Args:
        history: the log's past states.
        names: tells declared fields and upcasts.
        key: `Type:id`.
        path: only versions that have set the value there, each with what it did there; also under the name it had before it was renamed.
        after_version: only later ones.
        since: only those after this position.
        until: only those up to this position.
        limit: at most so many, 1 or more.

    Raises:
        EntityNotFoundError: there never was such an entity.
        UnknownPathError: nothing has ever stood at the path.
        ConfigurationError: a limit below 1, or a version that is not a whole number.
        DamagedEventError: an event is damaged.
    """
    if limit is not None and (type(limit) is not int or limit < 1):
        raise ConfigurationError(f"limit={shown(limit)}: a page has at least one version")
    if type(after_version) is not int:
        raise ConfigurationError(f"after_version is the number of a version, not {shown(after_version)}")
    if path:
        found = await _versions_at(history, names, key, path, until)
        wanted = [version for version in found if version.version > after_version and version.event.position > since]
        return _Versions(wanted if limit is None else wanted[:limit])
    found = _Versions[EntityVersion]()
    kept = kept_from(history, key)
    first = max(after_version, kept.version if kept is not None else 0)
    walk = Walk(kept if kept is not None and kept.version == first else await _state_after(history, key, first))
    async for event in events_of(history, key, first, until):
        changes = walk.take(event, tell=True)
        if event.position > since:
            found.append(EntityVersion(event=event, changes=tuple(changes or ()), damage=walk.damage))
        if len(found) == limit:
            break
    if not found:
        must_exist(history, key)
    return found


async def _versions_at(history: StateHistory, names: Names, key: str, path: Path, until: int | None) -> list[EntityVersion]:
    found: list[EntityVersion] = []
    async for step in _touching(history, names, key, path, until, tell=True):
        inside = [change for change in step.changes if change.path[: len(step.after_path)] == step.after_path]
        if not inside:
            inside = [ValueChange(step.after_path, step.before, step.after)]
        found.append(EntityVersion(event=step.event, changes=tuple(inside)))
    return found


async def blame(history: StateHistory, names: Names, key: str, path: Path, *, since: int = 0, until: int | None = None) -> list[Blame]:
    """The events that set the value at a path, the last one first; also those that set it to what it was.

    A value is set by a change at its path, of something around it, or inside it, and when list items before it come or go. Where a field
    was renamed by an upcast, its old name is followed before that. In memory, only events that are kept are looked at.

    Args:
        history: the log's past states.
        names: tells declared fields and upcasts.
        key: `Type:id`.
        path: where the value stands; empty for the whole entity: then every event that changes anything.
        since: only events after this position.
        until: only events up to this position.

    Raises:
        EntityNotFoundError: there never was such an entity.
        UnknownPathError: nothing has ever stood at the path.
        DamagedEventError: an event is damaged.
    """
    found = _Versions[Blame](
        [
            Blame(event=step.event, before=step.before, after=step.after, path=step.after_path)
            async for step in _touching(history, names, key, path, until)
            if step.event.position > since
        ]
    )
    found.reverse()
    return found


class _Step(NamedTuple):
    """An event that set a value."""

    event: Event
    after_path: Path
    before: Any
    after: Any
    changes: list[ValueChange]


async def _touching(
    history: StateHistory, names: Names, key: str, path: Path, until: int | None, *, tell: bool = False
) -> AsyncIterator[_Step]:
    """The events that set the value at a path, oldest first.

    Args:
        tell: with every value that they changed.

    Raises:
        EntityNotFoundError: there never was such an entity.
        UnknownPathError: nothing has ever stood there; raised at the end.
    """
    in_time = await path_in_time(history, names, key, path, until)
    kept = kept_from(history, key)
    walk, first, seen = Walk(kept), kept.version if kept is not None else 0, kept is not None
    stood = seen and _value(walk.state, in_time.at(first)) is not ABSENT
    async for event in events_of(history, key, first, until):
        seen = True
        one, other = in_time.at(event.version - 1), in_time.at(event.version)
        touched = [change for change in event.changes if _touches(change, one) or _touches(change, other)]
        before = copy_plain(_value(walk.state, one)) if touched else ABSENT
        told = walk.take(event, tell=bool(touched and tell))
        if touched and told is not None:
            after = copy_plain(_value(walk.state, other))
            stood = stood or before is not ABSENT or after is not ABSENT
            if any(_sets(change, other) for change in touched) or not _same(before, after):
                yield _Step(event, other, before, after, told)
    if not seen:
        must_exist(history, key)
    if not stood and path and not (len(path) == 1 and path[0] in names.declared_fields(key.partition(":")[0])):
        await _must_have_stood(history, names, key, path)


async def _must_have_stood(history: StateHistory, names: Names, key: str, path: Path) -> None:
    """Refuse a path where nothing stands in any version, and name what has stood where it leads no further.

    Raises:
        UnknownPathError: nothing has ever stood there.
    """
    kept = kept_from(history, key)
    walk, first = Walk(kept), kept.version if kept is not None else 0
    depth = 0
    found: dict[Path, None] = {(name,): None for name in names.declared_fields(key.partition(":")[0])}
    async for event in events_of(history, key, first, None):
        walk.take(event)
        if _value(walk.state, path) is not ABSENT:
            return  # later than what was asked for
        deeper, beside = _beside(walk.state, path)
        if deeper > depth:
            depth, found = deeper, {}
        if deeper == depth:
            found.update(dict.fromkeys(beside))
    parent = format_path(path[:depth])
    raise UnknownPathError(key, format_path(path), [format_path(known) for known in found], parent)


def _beside(state: Any, path: Path) -> tuple[int, list[Path]]:
    for depth in range(len(path) - 1, -1, -1):
        holder: Any = ABSENT if state is None else value_at(state, path[:depth])
        holder = holder.data if type(holder) is Tagged and type(holder.data) is dict else holder
        if type(holder) is dict:
            return depth, [(*path[:depth], name) for name in islice(holder, MOST_BESIDE)]
        if type(holder) in (list, tuple):
            return depth, [(*path[:depth], index) for index in range(min(len(holder), MOST_BESIDE))]
    return 0, []


async def events_of(history: StateHistory, key: str, after_version: int, until: int | None) -> AsyncIterator[Event]:
    """The events of one entity with later versions, up to a position, page by page."""
    async for rows in history.log.entity_pages(key, after_version, until):
        for row in rows:
            yield decode_row(row)


def kept_from(history: StateHistory, key: str) -> EntityState | None:
    """In memory: the state that events no longer kept have led to; None where all are kept."""
    return history.log.base_state(key)


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
    return bool(change[0] in (SET, EXTEND) and tuple(change[1]) == path)


def _value(state: dict[str, Any] | None, path: Path) -> Any:
    return ABSENT if state is None else value_at(state, path)


def _same(one: Any, other: Any) -> bool:
    if one is ABSENT or other is ABSENT:
        return one is other
    return plain_equal(one, other)
