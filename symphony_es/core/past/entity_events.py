"""The events of one entity, and what there is of it: read from its own part of the index, at the cost of its own events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from symphony_es.core.past.walk import Walk
from symphony_es.errors import EntityNotFoundError, UnknownPathError, format_path
from symphony_es.events.event import Event
from symphony_es.events.fold import EntityState
from symphony_es.events.foreign import why_without_state
from symphony_es.events.paths import ABSENT, value_at
from symphony_es.events.references import Path
from symphony_es.events.rows import decode_row
from symphony_es.events.values import Tagged

if TYPE_CHECKING:
    from symphony_es.core.past.names import Names
    from symphony_es.core.past.states import StateHistory

__all__ = ["events_of", "kept_from", "must_exist", "must_have_states", "must_have_stood", "state_after"]

MOST_BESIDE = 100
"""How many names of one place are looked at for near misses."""


async def events_of(
    history: StateHistory, key: str, after_version: int, until: int | None, first: int | None = None
) -> AsyncIterator[Event]:
    """Yield the events of one entity with later versions, up to a position, page by page; see `LogReader.pages`."""
    async for rows in history.log.entity_pages(key, after_version, until, first=first):
        for row in rows:
            yield decode_row(row, checked=True)


def kept_from(history: StateHistory, key: str) -> EntityState | None:
    """Return, in memory, the state that events no longer kept have led to; None where all are kept."""
    return history.log.base_state(key)


async def state_after(history: StateHistory, key: str, version: int) -> EntityState | None:
    """Return the state of an entity right after a version."""
    if not version:
        return None
    rows = await history.log.read_entity_rows(key, version - 1, None, 1)
    return await history.entity_at(key, rows[0][0]) if rows else None


def must_exist(history: StateHistory, key: str) -> None:
    """Raise EntityNotFoundError where the log has never had an entity."""
    if not history.log.entity_status_now(key)[0]:
        raise EntityNotFoundError(key, "the log has no event of it")


def must_have_states(history: StateHistory, key: str) -> None:
    """Raise EntityNotFoundError where an entity has events and no state, and never had one."""
    if (why := why_without_state(key)) is not None:
        must_exist(history, key)
        raise EntityNotFoundError(key, why)


async def must_have_stood(history: StateHistory, names: Names, key: str, path: Path) -> None:
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


def _value(state: dict[str, Any] | None, path: Path) -> Any:
    return ABSENT if state is None else value_at(state, path)
