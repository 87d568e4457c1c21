"""Events in the order of their positions: `log tail`, and how all commands print events. A page of the log is held at a time."""

from __future__ import annotations

import argparse
import asyncio
from typing import TYPE_CHECKING, Any

from symphony_es.cli import output
from symphony_es.cli.commands.registry import MOMENT, Parsers, entity_key, event_name, moment, reading, whole_number
from symphony_es.cli.near import hint_of, names_like

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from symphony_es.core.past.opening import OpenedLog
    from symphony_es.events.event import Event
    from symphony_es.events.rows import Row
    from symphony_es.log.log import EventLog

__all__ = ["EventPrinter", "event_row", "register", "why_none"]

LOOK_S = 0.1
"""How often `tail --follow` looks whether anybody reads what it prints."""
EVENT_COLUMNS = ("position", "time", "entity", "event", "actor", "reason", "step", "changes")


def register(parsers: Parsers) -> None:
    """Add the commands of this module."""
    command = parsers.add("log", log, "events in the order of their positions", skips=True)
    _event_filters(command)
    command.add_argument("--after", type=moment, metavar="MOMENT", help=f"only those after {MOMENT}")
    command.add_argument("--until", type=moment, metavar="MOMENT", help="only those up to a moment, as for --after")
    command.add_argument(
        "--limit",
        type=whole_number,
        default=50,
        metavar="N",
        help="at most so many (50; 0 for all): the last ones; with --after the first ones",
    )

    command = parsers.add("tail", tail, "the newest events", skips=True)
    _event_filters(command)
    command.add_argument("-n", type=whole_number, default=10, metavar="N", help="so many (10)")
    command.add_argument("-f", "--follow", action="store_true", help="go on with those that come, until interrupted")


def _event_filters(command: Any) -> None:
    command.add_argument(
        "--event", type=event_name, action="append", default=[], metavar="NAME", help="only events of this name; may be repeated"
    )
    command.add_argument("--entity", type=entity_key, metavar="TYPE:ID", help="only events of this entity")


async def log(given: argparse.Namespace) -> None:
    """Carry out `symphony-es log`."""
    from symphony_es.core.past.moments import check_range

    async with reading(given) as opened:
        await opened.past.check_order(given.after, given.until)
        until = await opened.past.position(given.until)
        after = None if given.after is None else await opened.past.position(given.after)
        if after is not None:
            check_range(after, until)
        printed = EventPrinter(as_json=given.json, newest_first=after is None)
        limit = given.limit or None
        newest = _newest(opened.log, given, until, limit)
        await printed.take(newest if after is None else _first(opened.log, given, after, until, limit))
        printed.end("" if printed.count else await why_none(opened, given))
        if printed.count == limit and printed.last != (1 if after is None else until):
            output.cut(
                f"the next page: {f'--until {printed.last - 1}' if after is None else f'--after {printed.last}'}", as_json=given.json
            )


async def tail(given: argparse.Namespace) -> None:
    """Carry out `symphony-es tail`."""
    async with reading(given) as opened:
        seen = opened.log.head
        printed = EventPrinter(as_json=given.json, columns=not given.follow, newest_first=True)
        await printed.take(_newest(opened.log, given, seen, given.n))
        printed.end("" if printed.count or given.follow else await why_none(opened, given))
        if given.follow:
            following = asyncio.ensure_future(_follow(opened.log, given, seen))
            try:
                while not (await asyncio.wait((following,), timeout=LOOK_S))[0]:
                    output.check_read()
                following.result()
            finally:
                following.cancel()
                await asyncio.wait((following,))


async def _follow(log: EventLog, given: argparse.Namespace, seen: int) -> None:
    """Print what comes after a position, as it comes."""
    printed = EventPrinter(as_json=given.json, columns=False)
    async for page in log.follow(seen, given.event):
        for event in page:
            if given.entity in (None, event.entity_key):
                printed.add(event)


async def why_none(opened: OpenedLog, given: argparse.Namespace, **wanted: Any) -> str:
    """Return the end of a message that no event fits: names there are that are written like those asked for.

    Raises:
        EntityNotFoundError: the log has never had the entity that is asked for.
    """
    if given.entity is not None:
        await opened.past.history(given.entity, limit=1)
    return "" if given.json else hint_of(await names_like(opened, event=given.event, **wanted))


async def _first(log: EventLog, given: argparse.Namespace, after: int, until: int, limit: int | None) -> AsyncIterator[Event]:
    """Yield the first events after a position that match, all or some. The first page that is read has as many rows as are asked for."""
    if given.entity is not None:
        pages = log.entity_pages(given.entity, await log.version_at(given.entity, after), until, first=limit)
    else:
        pages = log.pages(after, until, first=limit)
    async for event in _matching(pages, given.event, limit):
        yield event


async def _newest(log: EventLog, given: argparse.Namespace, until: int, limit: int | None) -> AsyncIterator[Event]:
    """Yield the last events up to a position that match, the newest first.

    The first page that is read has as many rows as are asked for.
    """
    if given.entity is not None:
        pages = log.entity_pages_back(given.entity, until_position=until, first=limit)
    else:
        pages = log.pages_back(until + 1, first=limit)
    async for event in _matching(pages, given.event, limit):
        yield event


async def _matching(pages: AsyncIterator[list[Row]], names: list[str], limit: int | None) -> AsyncIterator[Event]:
    from symphony_es.events.rows import decode_row

    if limit == 0:
        return
    count = 0
    async for rows in pages:
        for row in rows:
            if not names or row[3] in names:
                yield decode_row(row)
                count += 1
                if count == limit:
                    return


class EventPrinter:
    """Prints events that come one by one: as JSON lines, as a table, or without the names of the columns, a line each as they come.

    Args:
        as_json: JSON lines.
        columns: as a table.
        newest_first: the last one comes first, and is to stand last: nothing is printed before all are there.
    """

    def __init__(self, *, as_json: bool, columns: bool = True, newest_first: bool = False) -> None:
        self.count = 0
        self.last = 0
        self._as_json = as_json
        self._turned = newest_first
        self._table = output.Table(EVENT_COLUMNS) if columns and not as_json else None
        self._texts = output.Kept()

    async def take(self, events: AsyncIterator[Event]) -> None:
        """Print all of them."""
        async for event in events:
            self.add(event)

    def add(self, event: Event) -> None:
        """Print an event, or keep it for the end."""
        from symphony_es.transfer.text import event_as_json

        self.count, self.last = self.count + 1, event.position
        if self._table is not None:
            self._table.add(event_row(event))
            return
        text = (
            output.json_text(event_as_json(event)) if self._as_json else "  ".join(output.safe(cell) for cell in event_row(event) if cell)
        )
        if self._turned:
            self._texts.add(text, len(text))
        else:
            self._say(text)

    def _say(self, text: str) -> None:
        if self._as_json:
            output.say(text, flush=True)
        else:
            output.line(text)
            print(end="", flush=True)  # whoever follows sees each at once

    def end(self, hint: str = "") -> None:
        """Print what was kept; the hint where there is nothing."""
        if self._table is not None:
            self._table.print(newest_first=self._turned, nothing=f"no events{hint}")
        for text in self._texts.each(newest_first=True):
            self._say(text)


def event_row(event: Event) -> tuple[object, ...]:
    """Return an event as a row of `EVENT_COLUMNS`."""
    from symphony_es.errors import format_path
    from symphony_es.events.changes import OPERATION_NAMES

    changes = ", ".join(f"{OPERATION_NAMES[change[0]]} {format_path(change[1]) or '(all)'}" for change in event.changes[:4])
    more = f", and {len(event.changes) - 4} more" if len(event.changes) > 4 else ""
    return (
        event.position,
        output.time(event.recorded_at, milliseconds=True),
        event.entity_key,
        event.name,
        event.metadata.actor or "",
        event.metadata.reason or "",
        event.metadata.step or "",
        changes + more,
    )
