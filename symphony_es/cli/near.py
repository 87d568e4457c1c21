"""What to say where nothing was found under a name: names of the log that are written almost like it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from symphony_es.cli import output
from symphony_es.errors import near_misses

if TYPE_CHECKING:
    from symphony_es.core.past.opening import OpenedLog
    from symphony_es.events.event import Event

__all__ = ["hint_of", "names_like"]

NEWEST = 20_000
"""Events that are looked at for names, the newest ones: a hint is not worth a pass over the whole log."""


def hint_of(near: list[str]) -> str:
    """Return the end of a message that names them; nothing where there are none."""
    return output.safe(f"; did you mean {' or '.join(dict.fromkeys(near))}?") if near else ""


async def names_like(opened: OpenedLog, **wanted: Any) -> list[str]:
    """Return names of the newest events that are written like those asked for, each as the option that takes it.

    Args:
        opened: the log.
        **wanted: `actor`, `run_id`, `field` and `event` as they were asked for, one or several; None or empty where they were not. What is
            there has no near misses.
    """
    from symphony_es.events.rows import decode_row

    asked = {name: [value] if isinstance(value, str) else value for name, value in wanted.items() if value}
    if not asked:
        return []
    known: dict[str, set[str]] = {name: set() for name in asked}
    async for rows in opened.log.pages(max(0, opened.log.head - NEWEST), opened.log.head):
        for row in rows:
            event = decode_row(row)
            for name, names in known.items():
                names.update(_names_in(event, name))
    found = []
    for name, values in asked.items():
        for value in values:
            if value not in known[name]:
                found += [f"--{name.replace('_', '-')} {near}" for near in near_misses(value, known[name])]
    return found


def _names_in(event: Event, name: str) -> set[str]:
    if name == "event":
        return {event.name}
    if name == "actor":
        return {event.metadata.actor} if event.metadata.actor else set()
    if name == "run_id":
        own = event.entity_id if event.entity_type == "Workflow" else event.metadata.run_id
        return {own} if own else set()
    fields = {str(change[1][0]) for change in event.changes if change[1]}
    for change in event.changes:
        if not change[1] and len(change) == 3 and isinstance(change[2], dict):
            fields.update(change[2])
    return fields
