"""How answers about the past are shown: a line of text each, and a table in a notebook. Values are cut short."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from symphony_es.events.paths import ABSENT
from symphony_es.events.readable import LONG_BITS
from symphony_es.events.references import EntityReference
from symphony_es.events.values import Tagged

if TYPE_CHECKING:
    from symphony_es.events.comparison import ValueChange
    from symphony_es.events.event import Event

__all__ = ["Lines", "change_line", "event_line", "html_table", "keep_secret", "show", "without_secrets"]

_T = TypeVar("_T")
LONGEST = 60
"""How many characters of one value are shown."""
MOST_CHANGES = 4
HIDDEN = "***"

_secret: set[str] = set()


def keep_secret(names: Iterable[str]) -> None:
    """Hide what stands under these names, wherever they are met: lines do not know the class that a name belongs to."""
    _secret.update(names)


def _is_secret(path: Iterable[Any]) -> bool:
    return bool(_secret) and any(part in _secret for part in path if isinstance(part, str))


def without_secrets(value: Any) -> Any:
    """Return plain data with what is secret hidden: the same object where nothing is."""
    if not _secret:
        return value
    if type(value) is Tagged:
        return Tagged(value.kind, value.name, without_secrets(value.data), value=value.value, state_version=value.state_version)
    if isinstance(value, Mapping):
        return {name: HIDDEN if name in _secret else without_secrets(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(without_secrets, value))
    return value


def show(value: Any) -> str:
    """Return a plain value on one line, cut short."""
    text = _text(value).replace("\n", "\\n")
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _text(value: Any) -> str:
    if value is ABSENT:
        return "(nothing)"
    if isinstance(value, str):
        return value if value and value == value.strip() else repr(value)
    if type(value) is Tagged:
        return _text(value.data) if value.kind == "enum" else f"{_short(value.name)}({_inside(value.data)})"
    if isinstance(value, EntityReference):
        return value.key
    if isinstance(value, Mapping):
        return f"{{{_inside(value)}}}"
    if isinstance(value, (list, tuple, set)):
        few = [_text(item) for item, _ in zip(value, range(LONGEST), strict=False)]
        return f"[{', '.join(few)}]"
    if type(value) is int and value.bit_length() > LONG_BITS:
        return hex(value)
    return str(value)


def _short(name: str) -> str:
    """Return the name of a class without its module."""
    return name.rpartition(":")[2].rpartition(".")[2]


def _inside(data: Any) -> str:
    if not isinstance(data, Mapping):
        return str(data)
    few = [item for item, _ in zip(data.items(), range(LONGEST), strict=False)]
    return ", ".join(f"{_text(name)}: {HIDDEN if name in _secret else _text(item)}" for name, item in few)


def change_line(change: ValueChange) -> str:
    """Return what happened to one value: `status DRAFT → SIGNED`."""
    if not change.path:
        kinds = {"added": f"created {show(change.after)}", "removed": "deleted"}
        return kinds.get(change.kind, f"all {show(change.before)} → {show(change.after)}")
    before, after = (HIDDEN, HIDDEN) if _is_secret(change.path) else (show(change.before), show(change.after))
    if change.kind == "added":
        return f"{change.where} + {after}"
    if change.kind == "removed":
        return f"{change.where} - {before}"
    return f"{change.where} {before} → {after}"


def event_line(event: Event, changes: Sequence[ValueChange]) -> str:
    """Return one version on one line: `v2 17:22:42 ContractSigned by alice (phone call): status DRAFT → SIGNED`. The time is UTC."""
    who = f" by {event.metadata.actor}" if event.metadata.actor else ""
    why = f" ({event.metadata.reason})" if event.metadata.reason else ""
    told = "; ".join(change_line(change) for change in changes[:MOST_CHANGES])
    more = f"; and {len(changes) - MOST_CHANGES} more" if len(changes) > MOST_CHANGES else ""
    return f"v{event.version} {event.recorded_at:%H:%M:%S} {event.name}{who}{why}{': ' if told else ''}{told}{more}"


class Lines(list[_T]):
    """A list that is shown a line an item, and as a table in a notebook."""

    def __repr__(self) -> str:
        return "\n".join(map(repr, self)) if self else "[]"

    def _repr_html_(self) -> str:
        return html_table(("",), [(repr(item),) for item in self])


def html_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], most: int = 200) -> str:
    """Return a table for a notebook; every cell is escaped."""
    from html import escape  # late: its table of entities takes milliseconds, and most programs show nothing in a notebook

    shown = list(rows)
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in shown[:most])
    more = f"<caption>{len(shown) - most} more</caption>" if len(shown) > most else ""
    return f"<table>{more}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
