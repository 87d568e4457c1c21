"""Taking logs out and in: `export`, `import`, `backup`, `restore`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from symphony_es.cli import output
from symphony_es.cli.commands.registry import (
    MOMENT,
    Parsers,
    entity_key,
    event_name,
    file_name,
    file_path,
    moment,
    reading,
    run_id,
    state_dir,
)
from symphony_es.cli.near import hint_of, names_like
from symphony_es.errors import ConfigurationError
from symphony_es.shown import quoted, so_many

__all__ = ["register"]

FORMATS = ("jsonl", "csv", "cloudevents", "changes")
BY_SUFFIX = {"": "jsonl", ".jsonl": "jsonl", ".json": "jsonl", ".ndjson": "cloudevents", ".csv": "csv"}
"""The form of an export whose name tells it."""


def register(parsers: Parsers) -> None:
    """Add the commands of this module."""
    command = parsers.add(
        "export",
        export,
        "write events to a file: JSON lines (which can be imported), CSV or CloudEvents; or changes, a value a row",
        skips=True,
    )
    command.add_argument("file", type=file_name, metavar="FILE", help="where to; - for standard output")
    command.add_argument(
        "--format",
        choices=FORMATS,
        default=None,
        help="by the file's name when left out (.csv, .ndjson for cloudevents, .jsonl); changes is a table for people",
    )
    command.add_argument("--after", type=moment, metavar="MOMENT", help=f"only later ones than {MOMENT}")
    command.add_argument("--until", type=moment, metavar="MOMENT", help="only those up to a moment, as for --after")
    command.add_argument("--since", type=moment, metavar="MOMENT", help="only those after a position or checkpoint, or from a time on")
    command.add_argument("--overwrite", action="store_true", help="replace the file")
    changes = command.add_argument_group("of --format changes")
    changes.add_argument("--entity", type=entity_key, metavar="TYPE:ID", help="only of this entity; costs its own events only")
    changes.add_argument("--type", metavar="TYPE", help="only of entities of this type")
    changes.add_argument("--field", metavar="FIELD", help="only of this field, and what is in it")
    changes.add_argument("--actor", metavar="ACTOR", help="only those that this actor made")
    changes.add_argument(
        "--event", type=event_name, action="append", metavar="NAME", help="only those of events of this name; may be repeated"
    )
    changes.add_argument("--run-id", type=run_id, metavar="RUN", help="only those on behalf of this run, its own included")

    command = parsers.add("import", import_, "make a log of a whole export as JSON lines: the same positions, ids and bytes")
    command.add_argument("file", type=file_path, metavar="FILE")
    command.add_argument("into", type=file_path, metavar="DIR", help="the new log's directory; it must not exist, or be empty")

    command = parsers.add("backup", backup, "copy the log and its snapshots, also while another process writes")
    command.add_argument("target", type=file_path, metavar="DIR", help="the copy's directory; it must not exist, or be empty")

    command = parsers.add("restore", restore, "put a backup in place, after verifying it")
    command.add_argument("backup", type=file_path, metavar="BACKUP", help="the backup's directory")
    command.add_argument("into", type=file_path, metavar="DIR", help="where to; it must not exist, or be empty")


async def export(given: argparse.Namespace) -> None:
    """Carry out `symphony-es export`."""
    from symphony_es.transfer import export_changes, export_cloudevents, export_csv, export_jsonl
    from symphony_es.transfer.changes import ChangeFilter

    suffix = Path(given.file).suffix.lower()
    if given.format is None and suffix not in BY_SUFFIX:
        raise ConfigurationError(f"the name {quoted(given.file)} does not tell the form: --format is one of {', '.join(FORMATS)}")
    name = given.format or BY_SUFFIX[suffix]
    given_for = {"entity_type": "type", "run": "run_id"}
    named = {field: getattr(given, given_for.get(field, field)) for field in ("entity", "entity_type", "field", "actor", "event", "run")}
    conditions: dict[str, Any] = {field: value for field, value in named.items() if value is not None}
    if conditions and name != "changes":
        raise ConfigurationError("--entity, --type, --field, --actor, --event and --run-id are for --format changes")
    if given.after is not None and given.since is not None:
        raise ConfigurationError("--after and --since both say where to begin: leave one of them out")
    if given.file == "-" and given.json:
        raise ConfigurationError("--json is for the report, and - for the events: choose one of them")
    if given.file == "-" and output.is_nowhere():
        raise ConfigurationError("there is no standard output to write to: name a file")
    target = Path(given.file) if given.file != "-" else output.Screen() if sys.stdout.isatty() else sys.stdout.buffer
    async with reading(given) as opened:
        await opened.past.check_order(given.after if given.since is None else given.since, given.until)
        after = await opened.past.since(given.since) if given.after is None else await opened.past.position(given.after)
        until = None if given.until is None else await opened.past.position(given.until)
        common: dict[str, Any] = {"after": after, "until": until, "overwrite": given.overwrite, "on_progress": output.progress("events")}
        if given.entity is not None:
            await opened.past.history(given.entity, limit=1)  # one that never was is no empty answer
        if name == "changes":
            report = await export_changes(opened.history, target, wanted=ChangeFilter(**conditions), **common)
            near = (
                []
                if report.rows
                else await names_like(opened, actor=given.actor, run_id=given.run_id, field=given.field, event=given.event)
            )
            if near:
                output.complain(f"no changes{hint_of(near)}")
        else:
            write = {"jsonl": export_jsonl, "csv": export_csv, "cloudevents": export_cloudevents}[name]
            report = await write(opened.log, target, **common)
    rows = {"changes": report.rows} if name == "changes" else {}
    if given.json:
        output.json_line({"file": given.file, "format": name, "events": report.events, **rows})
    elif given.file != "-":
        changes = f"{so_many(report.rows, 'change')} of " if rows else ""
        output.say(f"{changes}{so_many(report.events, 'event')} in {output.safe(given.file)}")


async def import_(given: argparse.Namespace) -> None:
    """Carry out `symphony-es import`."""
    from symphony_es.transfer import import_jsonl

    report = await import_jsonl(given.file, given.into, on_progress=output.progress("events"))
    if given.json:
        output.json_line({"directory": os.fspath(given.into), "events": report.events, "sha256": report.sha256})
    else:
        output.say(f"{so_many(report.events, 'event')} in {output.safe(given.into)}")


async def backup(given: argparse.Namespace) -> None:
    """Carry out `symphony-es backup`."""
    from symphony_es.transfer import backup

    report = await backup(
        state_dir(given), given.target, on_progress=output.progress("pages"), allow_shared_directory=given.allow_shared_directory
    )
    if given.json:
        output.json_line({"directory": os.fspath(given.target), "head": report.head, "snapshots": report.snapshots})
    else:
        output.say(f"{output.safe(given.target)} has everything up to position {report.head}, and {so_many(report.snapshots, 'snapshot')}")


async def restore(given: argparse.Namespace) -> None:
    """Carry out `symphony-es restore`."""
    from symphony_es.transfer import restore

    report = await restore(
        given.backup, given.into, on_progress=output.progress("pages"), allow_shared_directory=given.allow_shared_directory
    )
    if given.json:
        output.json_line({"directory": os.fspath(given.into), "head": report.head, "snapshots": report.snapshots})
    else:
        output.say(f"{output.safe(given.into)} has everything up to position {report.head}, and {so_many(report.snapshots, 'snapshot')}")
