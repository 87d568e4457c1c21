"""Which events set a value of an entity. Costs that entity's own events, and what they say: a list may grow long by one item at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from symphony_es.core.past.lines import COLUMNS, VersionLines, event_cells
from symphony_es.core.past.tracing import ValueChain, ValueTrace
from symphony_es.events.comparison import ValueChange
from symphony_es.events.event import Event
from symphony_es.events.references import Path
from symphony_es.events.showing import event_line, html_table
from symphony_es.late_dataclasses import dataclass

if TYPE_CHECKING:
    from symphony_es.core.past.names import Names
    from symphony_es.core.past.states import StateHistory

__all__ = ["Blame", "blame"]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class Blame:
    """An event that set a value.

    The values are made when they are asked for, each time anew: they are the caller's own, and a thousand entries of one long list take the
    room of what happened to it.

    Attributes:
        event: the event.
        path: where the value stood then: under another name before a field was renamed.
    """

    event: Event
    path: Path = ()
    _values: ValueChain
    _at: int

    @property
    def before(self) -> Any:
        """The value before it, which the entry before has as `after`; `ABSENT` where there was none. Costs what the value consists of."""
        return self._values.after(self._at - 1)

    @property
    def after(self) -> Any:
        """The value after it; `ABSENT` where it was removed. Costs what the value consists of."""
        return self._values.after(self._at)

    @property
    def change(self) -> ValueChange:
        """What the event did to the value."""
        return ValueChange(self.path, self.before, self.after)

    def __repr__(self) -> str:
        return event_line(self.event, [self.change])

    def _repr_html_(self) -> str:
        return html_table(COLUMNS, [self.cells()])

    def cells(self) -> tuple[Any, ...]:
        """Return a row of a table with the columns `COLUMNS`."""
        return event_cells(self.event, [self.change])

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON encoders take: that of the event, and `path`, `kind`, `before` and `after` of the value."""
        return {**self.event.to_dict(), **self.change.to_dict()}


async def blame(
    history: StateHistory, names: Names, key: str, path: Path, *, since: int = 0, until: int | None = None
) -> VersionLines[Blame]:
    """Find the events that set the value at a path, the last one first; also those that set it, by its own path, to what it was.

    A value is set by a change at its path, of something around it, or inside it, and by items of a list that come, go or move before it.
    What the last one left is what stands there; what each one left, the next one found. Where a field was renamed by an upcast, its old
    name is followed before that. In memory, only events that are kept are looked at.

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
    trace = ValueTrace(history, names, key, path, until)
    values, count = ValueChain(await trace.begin()), 0
    found = VersionLines[Blame]()
    async for setting in trace.settings():
        values.add(setting)
        count += 1
        if setting.event.position > since:
            found.append(Blame(event=setting.event, path=setting.path, _values=values, _at=count))
    found.reverse()
    return found
