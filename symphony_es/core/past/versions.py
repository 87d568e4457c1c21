"""The history of one entity: each of its versions, and which events set a value of it. Costs that entity's own events, no others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from symphony_es.core.past.blaming import Blame, blame
from symphony_es.core.past.entity_events import events_of, kept_from, must_exist, state_after
from symphony_es.core.past.lines import COLUMNS, VersionLines, event_cells
from symphony_es.core.past.tracing import ValueTrace
from symphony_es.core.past.walk import Walk
from symphony_es.errors import ConfigurationError
from symphony_es.events.comparison import ValueChange
from symphony_es.events.event import Event
from symphony_es.events.fold import Damage
from symphony_es.events.references import Path
from symphony_es.events.showing import event_line, html_table
from symphony_es.events.values import copy_plain
from symphony_es.late_dataclasses import dataclass
from symphony_es.shown import shown

if TYPE_CHECKING:
    from symphony_es.core.past.names import Names
    from symphony_es.core.past.states import StateHistory

LARGEST = 2**63 - 1  # what a store takes as a number
__all__ = ["Blame", "EntityVersion", "blame", "each_version", "versions"]


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
        """Return a row of a table with the columns `COLUMNS`."""
        *cells, told = event_cells(self.event, self.changes)
        return (*cells, told if self.damage is None else f"not applied: {self.damage}")

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON encoders take: that of the event, `changes`, those of the values, and `damage` where the entity is damaged."""
        told = {**self.event.to_dict(), "changes": [change.to_dict() for change in self.changes]}
        return told if self.damage is None else {**told, "damage": asdict(self.damage)}


async def versions(history: StateHistory, names: Names, key: str, path: Path = (), **asked: Any) -> VersionLines[EntityVersion]:
    """Return what `each_version` hands out, as a list."""
    return VersionLines([version async for version in each_version(history, names, key, path, **asked)])


async def each_version(
    history: StateHistory,
    names: Names,
    key: str,
    path: Path = (),
    *,
    after_version: int = 0,
    since: int = 0,
    until: int | None = None,
    limit: int | None = None,
) -> AsyncIterator[EntityVersion]:
    """Yield the versions of an entity, oldest first; in memory those that are kept. One page of events is held at a time.

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
    if limit is not None and (type(limit) is not int or not 1 <= limit <= LARGEST):
        raise ConfigurationError(f"limit={shown(limit)}: a page has at least one version, and no more than a log")
    if type(after_version) is not int or not -LARGEST <= after_version <= LARGEST:
        raise ConfigurationError(f"after_version is the number of a version, not {shown(after_version)}")
    count = 0
    async for version in (
        _versions_at(history, names, key, path, until) if path else _all_versions(history, key, after_version, until, limit)
    ):
        if version.version > after_version and version.event.position > since:
            yield version
            count += 1
            if count == limit:
                return


async def _all_versions(
    history: StateHistory, key: str, after_version: int, until: int | None, limit: int | None
) -> AsyncIterator[EntityVersion]:
    kept = kept_from(history, key)
    first = max(after_version, kept.version if kept is not None else 0)
    walk, seen = Walk(kept if kept is not None and kept.version == first else await state_after(history, key, first)), False
    async for event in events_of(history, key, first, until, limit):
        seen = True
        changes = walk.take(event, tell=True)
        yield EntityVersion(event=event, changes=tuple(changes or ()), damage=walk.damage)
    if not seen:
        must_exist(history, key)


async def _versions_at(history: StateHistory, names: Names, key: str, path: Path, until: int | None) -> AsyncIterator[EntityVersion]:
    trace = ValueTrace(history, names, key, path, until, tell=True)
    await trace.begin()
    async for setting in trace.settings():
        inside = [change for change in setting.told if change.path[: len(setting.path)] == setting.path]
        if not inside:
            inside = [ValueChange(setting.path, setting.before, copy_plain(setting.value))]
        yield EntityVersion(event=setting.event, changes=tuple(inside))
