"""Taking logs out and in: `export`, `import`, `backup`, `restore`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from symphony_es.cli import output
from symphony_es.cli.commands.registry import Parsers, reading, state_dir, whole_number
from symphony_es.errors import ConfigurationError

__all__ = ["register"]

FORMATS = ("jsonl", "csv", "cloudevents")


def register(parsers: Parsers) -> None:
    """Add the commands of this module."""
    command = parsers.add("export", export, "write events to a file: JSON lines (which can be imported), CSV or CloudEvents")
    command.add_argument("file", metavar="FILE", help="where to; - for standard output")
    command.add_argument("--format", choices=FORMATS, default=None, help="by the file's name when it is left out, else jsonl")
    command.add_argument("--after", type=whole_number, default=0, metavar="POSITION", help="only later ones")
    command.add_argument("--until", type=whole_number, default=None, metavar="POSITION", help="only those up to it")
    command.add_argument("--overwrite", action="store_true", help="replace the file")

    command = parsers.add("import", import_, "make a log of a whole export as JSON lines: the same positions, ids and bytes")
    command.add_argument("file", type=Path, metavar="FILE")
    command.add_argument("into", type=Path, metavar="DIR", help="the new log's directory; it must not exist, or be empty")

    command = parsers.add("backup", backup, "copy the log and its snapshots, also while another process writes")
    command.add_argument("target", type=Path, metavar="DIR", help="the copy's directory; it must not exist, or be empty")

    command = parsers.add("restore", restore, "put a backup in place, after verifying it")
    command.add_argument("backup", type=Path, metavar="BACKUP", help="the backup's directory")
    command.add_argument("into", type=Path, metavar="DIR", help="where to; it must not exist, or be empty")


async def export(given: argparse.Namespace) -> None:
    """`symphony-es export`."""
    from symphony_es.transfer import export_cloudevents, export_csv, export_jsonl

    name = given.format or {".csv": "csv", ".ndjson": "cloudevents"}.get(Path(given.file).suffix, "jsonl")
    write = {"jsonl": export_jsonl, "csv": export_csv, "cloudevents": export_cloudevents}[name]
    if given.file == "-" and given.json:
        raise ConfigurationError("--json is for the report, and - for the events: choose one of them")
    async with reading(given) as opened:
        target = sys.stdout.buffer if given.file == "-" else Path(given.file)
        show = output.progress("events")
        report = await write(opened.log, target, after=given.after, until=given.until, overwrite=given.overwrite, on_progress=show)
    if given.json:
        output.json_line({"file": given.file, "format": name, "events": report.events})
    elif given.file != "-":
        print(f"{report.events} events in {output.safe(given.file)}")


async def import_(given: argparse.Namespace) -> None:
    """`symphony-es import`."""
    from symphony_es.transfer import import_jsonl

    report = await import_jsonl(given.file, given.into, on_progress=output.progress("events"))
    if given.json:
        output.json_line({"directory": os.fspath(given.into), "events": report.events, "sha256": report.sha256})
    else:
        print(f"{report.events} events in {output.safe(given.into)}")


async def backup(given: argparse.Namespace) -> None:
    """`symphony-es backup`."""
    from symphony_es.transfer import backup

    report = await backup(state_dir(given), given.target, on_progress=output.progress("pages"))
    if given.json:
        output.json_line({"directory": os.fspath(given.target), "head": report.head, "snapshots": report.snapshots})
    else:
        print(f"{output.safe(given.target)} has everything up to position {report.head}, and {report.snapshots} snapshots")


async def restore(given: argparse.Namespace) -> None:
    """`symphony-es restore`."""
    from symphony_es.transfer import restore

    report = await restore(given.backup, given.into, on_progress=output.progress("pages"))
    if given.json:
        output.json_line({"directory": os.fspath(given.into), "head": report.head, "snapshots": report.snapshots})
    else:
        print(f"{output.safe(given.into)} has everything up to position {report.head}, and {report.snapshots} snapshots")
