"""Going back and branching off: `rewind` and `fork`. What they do is appended, nothing is deleted."""

from __future__ import annotations

import argparse

from symphony_es.cli import output
from symphony_es.cli.commands.registry import MOMENT, Parsers, file_path, moment, reading, writing
from symphony_es.shown import so_many

__all__ = ["register"]


def register(parsers: Parsers) -> None:
    """Add the commands of this module."""
    command = parsers.add("rewind", rewind, "take every entity back to what it was, by events that undo", writes=True)
    command.add_argument("to", type=moment, metavar="MOMENT", help=MOMENT)
    command.add_argument("--dry-run", action="store_true", help="say what would be taken back, and append nothing")
    command = parsers.add("fork", fork, "make a new log that begins with the states of a moment", writes=True, skips=True)
    command.add_argument("into", type=file_path, metavar="DIR", help="the new log's directory; it must not exist, or be empty")
    command.add_argument("--at", type=moment, metavar="MOMENT", help=MOMENT)


async def rewind(given: argparse.Namespace) -> None:
    """Carry out `symphony-es rewind`."""
    async with reading(given) if given.dry_run else writing(given) as opened:
        plan = await opened.past.plan_rewind(given.to)
        if not given.dry_run and plan.events:
            await opened.log.append(plan.events)
        head = opened.log.head
    if given.json:
        output.json_line({"to": plan.position, "entities": plan.keys, "head": head, "dry_run": given.dry_run})
        return
    for key in plan.keys:
        output.say(output.safe(key))
    done = "would be taken" if given.dry_run else "was taken" if len(plan.keys) == 1 else "were taken"
    output.say(f"{so_many(len(plan.keys), 'entity', 'entities')} {done} back to position {plan.position}; the head is {head}")


async def fork(given: argparse.Namespace) -> None:
    """Carry out `symphony-es fork`."""
    from symphony_es.attribution import attributed

    async with reading(given) as opened:
        with attributed(actor=given.actor, reason=given.reason):
            report = await opened.past.fork(given.into, given.at, output.progress("entities"))
    if given.json:
        told = {"directory": str(report.directory), "position": report.position, "entities": report.entities}
        output.json_line({**told, "eventsourcing_entities": report.eventsourcing_entities})
    else:
        beside = f", and {report.eventsourcing_entities:,} of eventsourcing applications" if report.eventsourcing_entities else ""
        entities = so_many(report.entities, "entity", "entities")
        output.say(f"{report.directory} begins with the {entities} of position {report.position}{beside}")
