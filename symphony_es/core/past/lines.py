"""How versions and blames of one entity are shown: a row of a table each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from symphony_es.core.past.unrecorded import Unrecorded
from symphony_es.events.comparison import ValueChange
from symphony_es.events.event import Event
from symphony_es.events.showing import Lines, change_line, html_table

__all__ = ["COLUMNS", "VersionLines", "event_cells"]

COLUMNS = ("version", "time (UTC)", "event", "by", "why", "changes")


def event_cells(event: Event, changes: Sequence[ValueChange]) -> tuple[Any, ...]:
    """Return a row of a table with the columns `COLUMNS`."""
    metadata = event.metadata
    why = metadata.reason or (f"run {metadata.run_id}" if metadata.run_id else "")
    told = "; ".join(map(change_line, changes))
    return event.version, f"{event.recorded_at:%Y-%m-%d %H:%M:%S}", event.name, metadata.actor or "", why, told


class _Row(Protocol):
    def cells(self) -> tuple[Any, ...]: ...


_Item = TypeVar("_Item", bound=_Row)


class VersionLines(Lines[_Item]):
    """What a question about one entity answers: a line, or a row of a table, an item.

    Attributes:
        unrecorded: what stands at the path that was asked for and no event has set; None where the last event has left what stands there.
    """

    unrecorded: Unrecorded | None = None

    def __repr__(self) -> str:
        told = super().__repr__()
        return told if self.unrecorded is None else f"{told}\n({self.unrecorded})"

    def _repr_html_(self) -> str:
        told = html_table(COLUMNS, [item.cells() for item in self])
        return told if self.unrecorded is None else told + html_table((), [(str(self.unrecorded),)])
