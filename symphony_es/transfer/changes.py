"""Changes for auditors and spreadsheets: a row for each value that an event has set, with what was there before, who did it, and why.

CSV as that of `export_csv`, with the same guard against formulas; a number stands as it is. One way, and for people: a member of an enum is
its name, lists and dicts are JSON, a cell without a value is empty.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from symphony_es.core.past.walk import Walk
from symphony_es.errors import UnknownTypeError, format_path
from symphony_es.events.comparison import ValueChange
from symphony_es.events.event import Event
from symphony_es.events.identifiers import SYSTEM_PREFIX, split_key
from symphony_es.events.paths import ABSENT
from symphony_es.events.people import text_of
from symphony_es.events.rows import Row, decode_row
from symphony_es.events.values import plain_equal
from symphony_es.late_dataclasses import dataclass
from symphony_es.transfer.pieces import LARGE_BYTES, PIECE, row_pieces, taken
from symphony_es.transfer.progress import OnProgress, Progress
from symphony_es.transfer.tables import guarded, guarded_pieces, table_bytes, table_end
from symphony_es.transfer.text import time_as_text
from symphony_es.transfer.writing import PAGE, RENDERED_BYTES, Digest, ExportReport, Target, bounds, write_out

if TYPE_CHECKING:
    from symphony_es.core.past.states import StateHistory

__all__ = ["CHANGES_COLUMNS", "ChangeFilter", "export_changes"]

CHANGES_COLUMNS = ("time", "who", "why", "entity", "field", "from", "to", "event", "run", "step", "position")
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?\Z", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeFilter:
    """Which changes are meant; each condition that is left out holds for all.

    Attributes:
        entity: `Type:id`. entity_type: its type. field: the first part of the path.
        actor: who did it. event: names of events. run: id of the run on whose behalf it was.
    """

    entity: str | None = None
    entity_type: str | None = None
    field: str | None = None
    actor: str | None = None
    event: Collection[str] = ()
    run: str | None = None

    def wants(self, key: str) -> bool:
        """Return whether changes of an entity are meant; those of the library's own entities only where their type is named."""
        entity_type = key.partition(":")[0]
        if self.entity is not None or self.entity_type is not None:
            return self.entity in (None, key) and self.entity_type in (None, entity_type)
        return not entity_type.startswith("symphony.")

    def takes(self, event: Event) -> bool:
        """Return whether what an event has changed is meant."""
        metadata = event.metadata
        return (
            (self.actor is None or metadata.actor == self.actor)
            and (not self.event or event.name in self.event)
            and (self.run is None or metadata.run_id == self.run or event.entity_key == f"Workflow:{self.run}")
        )


def _check_type(entity_type: str | None, history: StateHistory) -> None:
    if entity_type is None or entity_type.startswith(SYSTEM_PREFIX):
        return
    known = history.log.entity_types_now()
    if entity_type not in known:
        raise UnknownTypeError(entity_type, [name for name in known if not name.startswith(SYSTEM_PREFIX)])


async def export_changes(
    history: StateHistory,
    target: Target,
    *,
    wanted: ChangeFilter | None = None,
    after: int = 0,
    until: int | None = None,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
) -> ExportReport:
    """Write what events have changed as a table, a value a row.

    Costs the events of the range, and the states of the entities in it; with `wanted.entity`, that entity's own events.

    Args:
        history: the log's past states.
        target: a path, or something with `write`.
        wanted: which changes.
        after: only those of later positions. until: only those up to it.
        overwrite: replace a file.
        on_progress: called with how far it is, and how far it goes.

    Raises:
        UnknownTypeError: nothing in the log has the type of `wanted`; near misses are named.
        TargetOccupiedError: the file exists, and `overwrite` is not given.
        PositionNotFoundError: `until` is after the head.
        DamagedEventError: an event is damaged. In all cases there is no new file.
        StorageUnavailableError: disk full, read-only or I/O error.
    """
    chosen, log = wanted or ChangeFilter(), history.log
    _check_type(chosen.entity_type, history)
    last = await bounds(log, after, until)
    digest, progress = Digest(), Progress(on_progress, last - after)
    walks: dict[str, Walk] = {}
    counted = {"events": 0, "rows": 0}

    def render(rows: list[Row]) -> Iterator[str]:
        rows.reverse()
        while rows:  # what is written is not held
            if (walk := walks.get(rows[-1][1])) is not None:
                yield from changed(decode_row(rows.pop()), walk)
            else:
                rows.pop()

    def changed(event: Event, walk: Walk) -> Iterator[str]:
        told, found = walk.take(event, tell=True) or (), 0
        if chosen.takes(event):
            for cells in _rows(event, told, chosen):
                found += 1
                yield from row_pieces(map(_written, cells))
        counted["events"] += bool(found)
        counted["rows"] += found

    async def chunks() -> AsyncIterator[bytes]:
        yield digest.add(table_bytes([CHANGES_COLUMNS]))
        async for rows in _pages(history, chosen.entity, after, last):
            new = sorted({row[1] for row in rows if row[1] not in walks and chosen.wants(row[1])})
            states = await history.entities_at(new, after) if after and new else {}
            walks.update({key: Walk(states.get(key)) for key in new})
            done, pieces = rows[-1][0] - after, render(rows)
            while chunk := await asyncio.to_thread(taken, pieces, RENDERED_BYTES):
                yield digest.add(chunk)
            progress.tell(done)
        yield digest.add(table_end(CHANGES_COLUMNS, digest, counted["rows"]))
        progress.end()

    await write_out(log, target, chunks, overwrite=overwrite)
    return ExportReport(
        first=after + 1, last=last, events=counted["events"], size_bytes=digest.size_bytes, sha256=digest.hexdigest(), rows=counted["rows"]
    )


async def _pages(history: StateHistory, entity: str | None, after: int, last: int) -> AsyncIterator[list[Row]]:
    """Yield the rows of a range, those of one entity where one is named."""
    if entity is None:
        async for rows in history.log.pages(after, last, PAGE):
            yield rows
        return
    state = await history.entity_at(entity, after) if after else None
    async for rows in history.log.entity_pages(entity, state.version if state is not None else 0, last):
        yield rows


def _rows(event: Event, changes: Sequence[ValueChange], chosen: ChangeFilter) -> Iterator[list[str]]:
    metadata = event.metadata
    for field, before, after in _values(changes):
        if chosen.field is None or re.split(r"[.\[]", field, maxsplit=1)[0] == chosen.field:
            cells = [time_as_text(event.time_ns), metadata.actor or "", metadata.reason or "", ":".join(split_key(event.entity_key)), field]
            cells += [_cell(before), _cell(after), event.name, metadata.run_id or "", metadata.step or "", str(event.position)]
            yield cells


def _written(cell: str) -> Iterable[str]:
    """Return a cell as it is written, guarded unless it is a number; a long one in pieces."""
    if len(cell) < LARGE_BYTES:
        return [cell if _NUMBER.match(cell) else guarded(cell)]
    return guarded_pieces(cell[at : at + PIECE] for at in range(0, len(cell), PIECE))


def _values(changes: Sequence[ValueChange]) -> Iterator[tuple[str, Any, Any]]:
    """Yield the values that changed by name; where an entity comes or goes as a whole, each of its fields."""
    for change in changes:
        if change.path:
            yield change.where, change.before, change.after
            continue
        before = change.before if isinstance(change.before, dict) else {}
        after = change.after if isinstance(change.after, dict) else {}
        for name in dict.fromkeys((*before, *after)):
            one, other = before.get(name, ABSENT), after.get(name, ABSENT)
            if one is ABSENT or other is ABSENT or not plain_equal(one, other):
                yield format_path((name,)), one, other


def _cell(value: Any) -> str:
    return "" if value is ABSENT else value if isinstance(value, str) else text_of(value)
