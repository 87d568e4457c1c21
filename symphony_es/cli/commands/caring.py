"""Looking after a log: `verify`, `stats`, `doctor`, `prune`."""

from __future__ import annotations

import argparse
import asyncio
import os
import sqlite3
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from symphony_es import __version__
from symphony_es.cli import output
from symphony_es.cli.advice import OF_DAMAGE, in_words_of_the_command_line
from symphony_es.cli.commands.registry import Parsers, reading, state_dir, writing
from symphony_es.errors import FOREIGN_PREFIX, repair_call
from symphony_es.shown import so_many

if TYPE_CHECKING:
    from symphony_es.core.past.opening import OpenedLog
    from symphony_es.events.event import Event
    from symphony_es.log.log import EventLog
    from symphony_es.transfer import VerifyReport

__all__ = ["register"]

GOOD, FOUND_WRONG, DAMAGED = 0, 1, 5
MOST_DAMAGES = 100
"""How many damaged events `doctor` names."""


def register(parsers: Parsers) -> None:
    """Add the commands of this module."""
    command = parsers.add("verify", verify, "check every event and snapshot; names the first bad position")
    command.add_argument(
        "--fold",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="apply every event as well, and compare with the snapshots (the default); without it, events that do not fit are not found",
    )
    parsers.add("stats", stats, "how much there is, and how much room it takes", skips=True)
    parsers.add("doctor", doctor, "look for what could become a trouble, and say what to do")
    command = parsers.add("prune", prune, "remove snapshots that no checkpoint needs to load fast; no event is ever removed", writes=True)
    command.add_argument("--dry-run", action="store_true", help="say which, and remove nothing")


async def verify(given: argparse.Namespace) -> int:
    """Carry out `symphony-es verify`."""
    from symphony_es.transfer import verify

    report = await verify(
        state_dir(given), fold=given.fold, on_progress=output.progress("events"), allow_shared_directory=given.allow_shared_directory
    )
    if given.json:
        output.json_line({**_summary(report), "problems": [_problem(problem) for problem in report.problems]})
    else:
        for problem in report.problems:
            where = f"position {problem.position}" if problem.position is not None else "the file"
            output.say(f"{where}{f' ({output.safe(problem.entity)})' if problem.entity else ''}: {output.safe(problem.what)}")
            output.say(f"    {output.safe(problem.way_out)}")
        for entity, damage in report.repaired.items():
            output.say(f"{output.safe(entity)} was {output.safe(str(damage))}; it has been repaired")
        for name, why in report.damaged_snapshots:
            output.say(f"snapshot {output.safe(name)} cannot be trusted, and is rebuilt from the log: {output.safe(why)}")
        for name, why in report.damaged_read_models:
            output.say(f"the read model {output.safe(name)} cannot be believed, and is built anew from the log: {output.safe(why)}")
        output.say(_verdict(report))
    return GOOD if report.ok else FOUND_WRONG


def _summary(report: VerifyReport) -> dict[str, Any]:
    damaged = [name for name, _ in report.damaged_snapshots]
    return {
        "ok": report.ok,
        "events": report.events,
        "head": report.head,
        "first_bad_position": report.first_bad_position,
        "problem_count": report.problem_count,
        "snapshots": report.snapshots,
        "damaged_entities": sorted(report.damaged),
        "repaired_entities": sorted(report.repaired),
        "damaged_snapshots": damaged,
        "read_models": report.read_models,
        "damaged_read_models": [{"name": name, "why": why} for name, why in report.damaged_read_models],
    }


def _problem(problem: Any) -> dict[str, Any]:
    return {name: getattr(problem, name) for name in ("position", "entity", "version", "what", "way_out")}


def _verdict(report: VerifyReport) -> str:
    if report.ok:
        bad = len(report.damaged_snapshots)
        damaged = f", {so_many(bad, 'snapshot')} {'is' if bad == 1 else 'are'} damaged" if bad else ""
        bad = len(report.damaged_read_models)
        damaged += f", {so_many(bad, 'read model')} cannot be believed" if bad else ""
        return f"{so_many(report.events, 'event')} and {so_many(report.snapshots, 'snapshot')} are good{damaged}; the head is {report.head}"
    first = f"the first at position {report.first_bad_position}" if report.first_bad_position is not None else "none at a position"
    good = f"{so_many(report.events, 'event')} {'is' if report.events == 1 else 'are'} good"
    return f"{so_many(report.problem_count, 'problem')}, {first}; {good}"


async def stats(given: argparse.Namespace) -> None:
    """Carry out `symphony-es stats`."""
    async with reading(given) as opened:
        told = await _count(opened)
    if given.json:
        output.json_line(told)
    else:
        for name in ("first_event", "last_event"):
            told[name] = output.time(datetime.fromisoformat(told[name])) if told[name] else ""
        output.pairs({name.replace("_", " "): f"{value:,}" if isinstance(value, int) else value for name, value in told.items()})


def _bytes_below(directory: Path) -> int:
    """Return what all files of a log's directory take: the write-ahead file, lists and read models among them."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            with suppress(OSError):  # it has gone meanwhile
                total += Path(folder, name).lstat().st_size
    return total


async def _count(opened: OpenedLog) -> dict[str, Any]:
    from symphony_es.core.past.foreign_forks import foreign_at
    from symphony_es.events.rows import decode_row

    assert opened.directory is not None
    assert opened.history.snapshots is not None
    head = opened.log.head
    infos = opened.history.snapshots.list()
    edges = [decode_row(await opened.log.row_at(position)) for position in (1, head)] if head else []
    by_type = await opened.history.count_by_type(head)
    foreign = await foreign_at(opened.log, head)
    return {
        "directory": str(opened.directory),
        "events": head,
        "entities": sum(by_type.values()),
        "types": len(by_type),
        "eventsourcing_entities": len(foreign),
        "checkpoints": len(await opened.past.checkpoints()),
        "snapshots": len(infos),
        "newest_snapshot": infos[0].position if infos else 0,
        "log_bytes": await opened.log.size_bytes(),
        "snapshot_bytes": sum(info.size_bytes for info in infos),
        "all_files_bytes": _bytes_below(opened.directory),
        "first_event": edges[0].recorded_at.isoformat(timespec="microseconds") if edges else "",
        "last_event": edges[1].recorded_at.isoformat(timespec="microseconds") if edges else "",
    }


async def doctor(given: argparse.Namespace) -> int:
    """Carry out `symphony-es doctor`."""
    directory = state_dir(given)
    found, ending = _environment(directory), FOUND_WRONG
    try:
        async with reading(given, skip_damaged=True) as opened:
            found += await _log(directory, opened)
    except OF_DAMAGE as error:  # nothing of it can be counted; what stands around it has been looked at all the same
        found.append((False, in_words_of_the_command_line(error), "symphony-es verify says what of it is good; restore a backup"))
        ending = DAMAGED
    if given.json:
        for good, what, way_out in found:
            output.json_line({"ok": good, "what": what, "way_out": way_out})
    else:
        for good, what, way_out in found:
            output.say(f"{'ok  ' if good else 'look'}  {output.safe(what)}")
            if not good:
                output.say(f"      {output.safe(way_out)}")
    return GOOD if all(good for good, _, _ in found) else ending


async def _log(directory: Path, opened: OpenedLog) -> list[Finding]:
    """Return what there is to say of a log that can be opened, and of what stands beside it."""
    from symphony_es.transfer.progress import in_thread
    from symphony_es.transfer.snapshot_files import distrust_damaged

    skipped = await asyncio.to_thread(opened.log.skipped)
    told = await _count(opened)
    assert opened.history.snapshots is not None
    store = opened.history.snapshots
    await in_thread(lambda stop: distrust_damaged(store, store.list(), stop))
    models = await _read_models(directory, opened.log)
    snapshots = [
        (False, f"snapshot {name} cannot be trusted ({why})", "nothing: it is rebuilt from the log, and removed")
        for name, why in store.damaged
    ]
    return [*_files(directory, told), *_clock(told["last_event"]), *_damages(skipped), *models, *snapshots]


Finding = tuple[bool, str, str]
"""Whether it is good, what it is, and what to do where it is not."""


def _environment(directory: Path) -> list[Finding]:
    from symphony_es.system import file_system_of, is_network_file_system

    version = sqlite3.sqlite_version
    here, kind = os.statvfs(directory), file_system_of(directory)
    free = here.f_bavail * here.f_frsize
    return [
        (True, f"symphony-es {__version__}, Python {sys.version.split()[0]}, SQLite {version}", ""),
        (
            kind is None or not is_network_file_system(kind),
            f"{directory} is on {kind}",
            "move it to a local disk: locks cannot be trusted here",
        ),
        (free > 100 * 2**20, f"{free // 2**20:,} MiB free", "make room: a full disk stops the log"),
    ]


def _clock(last_event: str) -> list[Finding]:
    """Return whether the clock has been ahead of what it is now: times of a log never go back."""
    from symphony_es.log.writer import AHEAD_NS

    last, now = datetime.fromisoformat(last_event) if last_event else None, datetime.now(UTC)
    if last is None or last - now <= timedelta(microseconds=AHEAD_NS // 1000):
        return []
    return [
        (
            False,
            f"the newest event is of {output.time(last)}, and the clock says {output.time(now)}",
            "set the clock, if it is wrong; else it was then, and new events go on from that time: a fork begins with the time of now",
        )
    ]


async def _read_models(directory: Path, log: EventLog) -> list[Finding]:
    """Return those beside the log that are of another past, or cannot be read. Nobody believes them."""
    from symphony_es_projections.doubts import read_models

    found: list[Finding] = []
    for name, why in (await read_models(directory / "projections", log)).items():
        if why is not None:
            found.append(
                (
                    False,
                    f"the read model {name} cannot be believed: {why}",
                    "nothing: the application builds it anew, and until then the log answers",
                )
            )
    return found


def _damages(skipped: list[Event]) -> list[Finding]:
    told = [
        (
            False,
            f"the event at position {event.position} (entity {event.entity_key}, version {event.version}) is damaged: {event.fault}",
            (
                repair_call(event.entity_key)
                if event.entity_key.startswith(FOREIGN_PREFIX)
                else "restore a backup, or read around it with --skip-damaged; the application goes on with setup(skip_damaged=True), "
                "which marks this entity as damaged from that version on, and entities.repair mends it"
            ),
        )
        for event in skipped[:MOST_DAMAGES]
    ]
    if len(skipped) > MOST_DAMAGES:
        told.append((False, f"{len(skipped) - MOST_DAMAGES:,} further events are damaged", "symphony-es verify names more of them"))
    return told


def _files(directory: Path, told: dict[str, Any]) -> list[Finding]:
    mode = directory.stat().st_mode & 0o777
    wal = directory / "events.db-wal"
    from symphony_es.system import present

    wal_bytes = wal.stat().st_size if present(wal) else 0
    behind = told["events"] - told["newest_snapshot"]
    return [
        (not mode & 0o077, f"{directory} has mode {mode:o}", f"chmod 700 {directory}: others can read the log"),
        (
            wal_bytes < 256 * 2**20,
            f"the write-ahead file has {wal_bytes / 2**20:.1f} MiB",
            "a reader that stays open keeps it from being emptied: end it",
        ),
        (
            told["snapshot_bytes"] <= max(told["log_bytes"], 2**20),
            f"{so_many(told['snapshots'], 'snapshot')} of {told['snapshot_bytes']:,} bytes, log of {told['log_bytes']:,} bytes",
            "symphony-es prune",
        ),
        (True, f"{so_many(behind, 'event')} since the newest snapshot", ""),
        *_requests(directory),
    ]


def _requests(directory: Path) -> list[Finding]:
    """Return who has the log open, and what is asked of who will."""
    from symphony_es.core.world.inbox import waiting_requests
    from symphony_es.log.directory import last_writer

    owner = last_writer(directory)
    told = {
        "writing": (True, "a process has it open for writing", ""),
        "gone": (True, "the process that wrote it has ended without closing it; what it acknowledged is there", ""),
    }
    waiting = waiting_requests(directory)
    what = f"{so_many(waiting, 'request')} wait{'s' * (waiting == 1)} in {directory / 'inbox'}"
    return [
        *([told[owner]] if owner in told else []),
        *([(False, what, "start the application, which carries them out; rm takes one back")] if waiting else []),
    ]


async def prune(given: argparse.Namespace) -> None:
    """Carry out `symphony-es prune`."""
    from symphony_es.transfer.snapshot_pruning import plan_pruning

    async with reading(given) if given.dry_run else writing(given) as opened:
        store = opened.history.snapshots
        assert store is not None
        plan = await plan_pruning(store, opened.log, {entry.position for entry in await opened.past.checkpoints()})
        if not given.dry_run:
            for info in plan.going:
                await asyncio.to_thread(store.delete, info)
    size = sum(info.size_bytes for info in plan.going)
    if given.json:
        removed, damaged = [info.name for info in plan.going], [name for name, _ in plan.damaged]
        output.json_line({"removed": removed, "bytes": size, "damaged": damaged, "dry_run": given.dry_run})
    else:
        done = "would be" if given.dry_run else "was" if len(plan.going) == 1 else "were"
        stay = f"{len(plan.kept)} stay{'s' * (len(plan.kept) == 1)}"
        output.say(f"{so_many(len(plan.going), 'snapshot')} of {size:,} bytes {done} removed; {stay}")
        for name, why in plan.damaged:
            output.say(f"snapshot {output.safe(name)} cannot be trusted, counts for nothing, and is left as it is: {output.safe(why)}")
