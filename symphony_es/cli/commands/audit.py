"""`audit`: who did what, to which entity, when and why; what a run did; what followed from an event. It never writes."""

from __future__ import annotations

import argparse
from typing import Any

from symphony_es.cli import output
from symphony_es.cli.commands.events import EventPrinter, why_none
from symphony_es.cli.commands.registry import PAST_TIME, Parsers, entity_key, event_name, past_time, reading, whole_number
from symphony_es.errors import ConfigurationError

__all__ = ["register"]


def register(parsers: Parsers) -> None:
    """Add the command of this module."""
    command = parsers.add("audit", audit, "events by any combination of conditions, or all that followed from one", skips=True)
    command.add_argument("--entity", type=entity_key, metavar="TYPE:ID", help="of this entity")
    command.add_argument("--type", metavar="TYPE", help="of entities of this type")
    command.add_argument("--event", type=event_name, action="append", metavar="NAME", help="of this name; may be repeated")
    command.add_argument("--actor", metavar="ACTOR", help="that this actor caused")
    command.add_argument("--run-id", metavar="RUN", help="on behalf of this workflow run, its own included")
    command.add_argument("--transaction", metavar="ID", help="of this transaction")
    command.add_argument("--correlation", metavar="ID", help="of this thread of events")
    command.add_argument("--since", type=past_time, metavar="TIME", help=f"committed then or later: {PAST_TIME}")
    command.add_argument("--until", type=past_time, metavar="TIME", help="committed then or earlier")
    command.add_argument("--after", type=whole_number, metavar="POSITION", help="later than this position")
    command.add_argument("--before", type=whole_number, metavar="POSITION", help="earlier than this position")
    command.add_argument("--newest-first", action="store_true", help="begin with the last one")
    command.add_argument("--limit", type=whole_number, default=100, metavar="N", help="at most so many (100); 0 for all")
    command.add_argument(
        "--following", type=whole_number, metavar="POSITION", help="instead: all that this event has led to, at once or through others"
    )


async def audit(given: argparse.Namespace) -> None:
    """Carry out `symphony-es audit`."""
    from symphony_es.core.past.audit import Audit

    async with reading(given) as opened:
        asked = Audit(opened.log, opened.audit_trail)
        if given.following is not None:
            if given.newest_first or any(value is not None for value in _conditions(given).values()):
                raise ConfigurationError("--following is a question of its own: leave the other conditions out")
            found = asked.stream_consequences(given.following, limit=given.limit or None)
        else:
            found = asked.stream(**_conditions(given), newest_first=given.newest_first, limit=given.limit or None)
        printed = EventPrinter(as_json=given.json)
        await printed.take(found)
        asks_more = given.following is None and not printed.count
        printed.end(await why_none(opened, given, actor=given.actor, run_id=given.run_id) if asks_more else "")
        if printed.count and printed.count == given.limit:
            page = f"the next page: {'--before' if given.newest_first else '--after'} {printed.last}"
            output.cut(page if given.following is None else "there may be more: --limit 0 shows all", as_json=given.json)


def _conditions(given: argparse.Namespace) -> dict[str, Any]:
    """Return what `find` is asked for."""
    return {
        "entity": given.entity,
        "entity_type": given.type,
        "event": given.event,
        "actor": given.actor,
        "run": given.run_id,
        "transaction": given.transaction,
        "correlation": given.correlation,
        "since": given.since,
        "until": given.until,
        "after_position": given.after,
        "before_position": given.before,
    }
