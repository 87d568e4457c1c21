"""What changed in a state, for people: where, from which value, to which.

`changes.py` and `diff.py` say how to get from one state to another; this says what was there before, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal

from symphony_es.errors import format_path
from symphony_es.events.changes import ADD, APPEND, DISCARD, EXTEND, INSERT, REMOVE, SET, SPLICE, Change, apply_changes
from symphony_es.events.diff import diff
from symphony_es.events.paths import ABSENT, value_at
from symphony_es.events.readable import readable
from symphony_es.events.references import Path
from symphony_es.events.showing import change_line
from symphony_es.events.values import copy_plain
from symphony_es.late_dataclasses import dataclass

__all__ = ["ValueChange", "compare_states", "each_difference", "trace_changes"]


@dataclass(frozen=True, slots=True, repr=False)
class ValueChange:
    """One value of a state that was added, removed, or changed.

    Attributes:
        path: where; empty for the whole state. Members of a set stand at the path of the set, list items at the index they have (or had),
            and the new end of a text or bytes at the index where it begins.
        before: what was there; `ABSENT` for what was added.
        after: what is there; `ABSENT` for what was removed.
    """

    path: Path
    before: Any
    after: Any

    @property
    def kind(self) -> Literal["added", "removed", "changed"]:
        """What happened to the value."""
        if self.before is ABSENT:
            return "added"
        return "removed" if self.after is ABSENT else "changed"

    @property
    def where(self) -> str:
        """The path as text, as in `lines[0].amount`; `(all)` for the whole state."""
        return format_path(self.path) or "(all)"

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON encoders take: `{"path", "kind", "before", "after"}`; null stands where there was, or is, nothing."""
        return {"path": self.where, "kind": self.kind, "before": readable(self.before), "after": readable(self.after)}

    def __str__(self) -> str:
        return change_line(self)

    def __repr__(self) -> str:
        return f"<{change_line(self)}>"


def compare_states(one: dict[str, Any] | None, other: dict[str, Any] | None) -> list[ValueChange]:
    """Return the values that differ between two states, by type and value; None is an entity that does not exist."""
    return list(each_difference(one, other))


def each_difference(one: dict[str, Any] | None, other: dict[str, Any] | None) -> Iterator[ValueChange]:
    """Yield the same, one after another, so that nobody holds what a million items are told by. The states may not change meanwhile."""
    if one is None or other is None:
        whole = ValueChange((), ABSENT if one is None else copy_plain(one), ABSENT if other is None else copy_plain(other))
        return iter([] if one is other else [whole])
    # The changes of a diff do not build on each other, so what was before each of them is what was there at the beginning.
    return (told for change in diff(one, other) for told in (_whole(one, change) if change[0] == EXTEND else _tell(one, change)))


def trace_changes(state: dict[str, Any] | None, changes: Iterable[Change]) -> tuple[dict[str, Any] | None, list[ValueChange]]:
    """Apply changes to a state, in place, and tell what each of them changed, in their order.

    Returns:
        the state afterwards, and the values that were set, also those that were set to what they had been.

    Raises:
        ChangeError: a change does not fit.
    """
    told: list[ValueChange] = []
    for change in changes:
        if not change[1] and change[0] in (SET, REMOVE):
            told.append(ValueChange((), ABSENT if state is None else state, ABSENT if change[0] == REMOVE else copy_plain(change[2])))
        else:
            told.extend(_tell(state, change))
        state = apply_changes(state, [change])
    return state, told


def _whole(state: Any, change: Change) -> Iterator[ValueChange]:
    """Yield what an extension makes of a value as a whole."""
    path = tuple(change[1])
    before = value_at(state, path)
    yield ValueChange(path, before, before + change[2])


def _tell(state: Any, change: Change) -> Iterator[ValueChange]:
    """Yield what a change is about to do to a state, except to the whole of it."""
    operation, path = change[0], tuple(change[1])
    if operation == SET:
        yield ValueChange(path, copy_plain(value_at(state, path)), copy_plain(change[2]))
    elif operation == REMOVE:
        yield ValueChange(path, copy_plain(value_at(state, path)), ABSENT)
    elif operation == APPEND:
        yield ValueChange((*path, _length(state, path)), ABSENT, copy_plain(change[2]))
    elif operation == INSERT:
        yield ValueChange((*path, change[2]), ABSENT, copy_plain(change[3]))
    elif operation == SPLICE:
        _, _, start, stop, values = change
        items = value_at(state, path)
        for index in range(start, stop):
            yield ValueChange((*path, index), copy_plain(items[index]), ABSENT)
        for index, item in enumerate(values, start):
            yield ValueChange((*path, index), ABSENT, copy_plain(item))
    elif operation == EXTEND:  # by its end, as a list: the whole value, version by version, would be quadratic
        yield ValueChange((*path, _length(state, path)), ABSENT, change[2])
    elif operation == ADD:
        yield ValueChange(path, ABSENT, change[2])
    elif operation == DISCARD:
        yield ValueChange(path, change[2], ABSENT)


def _length(state: Any, path: Path) -> int:
    items = value_at(state, path)
    return len(items) if isinstance(items, (list, str, bytes)) else 0
