"""What each command, and each question about the past, takes in time and memory: `python -m benchmarks.commands`.

Three logs are made: one whose events replace the one value of an entity by a large one, and two of small events, one ten times as long as
the other. Each command runs in a process of its own, whose peak memory and CPU time are measured; the last column compares the two lengths.
`--logs DIR` keeps the logs for the next time, `--columns large` measures one kind of log, `--write docs/benchmarks/commands.md` writes the
page. It ends with status 1 where a command takes more memory than it may.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from symphony_es.core.past.audit import Audit
from symphony_es.core.past.opening import open_on_disk, open_to_read
from symphony_es.events.changes import APPEND, SET
from symphony_es.events.event import EventMetadata, NewEvent
from symphony_es.events.identifiers import uuid7

KEY = "Thing:0"
SMALL_KEY = "Thing:1"
"""What `walk` goes through in logs of small events: it gives the whole state at each version, and that of `KEY` is a long list there."""
AT_ONCE = 500
COMMANDS = (
    "log", "log --limit 5", f"log --limit 1 --after 0 --entity {KEY}", "log --after 0 --limit 1000000000", "tail",
    f"tail -n 1 --entity {KEY}", "tail --event Nothing", "entities", f"show {KEY}", f"history {KEY}", f"history {KEY} --limit 5",
    f"blame {KEY}", f"blame {KEY} value", "at 10", "at latest", "diff 1 latest --events", "audit --limit 1",
    "audit --limit 1 --newest-first", "audit --limit 0", "audit --actor nobody", "checkpoints", "runs", "stats", "doctor",
    "prune --dry-run", "verify", "verify --no-fold", "export -", "export - --format csv", "export - --format cloudevents",
    "export - --format changes",
)  # fmt: skip
QUESTIONS = ("walk", "stream", "settings", "versions")


MOST_MEGABYTES = {"large": 150, "n": 80, "10 n": 80}
HELD_ANSWERS = {"diff 1 latest --events": 60}
"""What a command may take beside that for the answer itself, which it holds: half of all events have each put an item into one list."""


class Taken(NamedTuple):
    """What a process took."""

    seconds: float
    megabytes: float
    code: int


def an_event(key: str, version: int, change: tuple[Any, ...], actor: str | None = None) -> NewEvent:
    """An event of one change."""
    metadata = EventMetadata(actor=actor)
    made = uuid7(time.time_ns(), os.urandom(16))
    return NewEvent(entity_key=key, version=version, name="Changed", changes=[change], metadata=metadata, event_id=made)


async def make_heavy(directory: Path, events: int, size: int) -> None:
    """A log whose events replace one value of one entity."""
    opened = await open_on_disk(directory, force_network_fs=False, ignore_anchor=False)
    for version in range(1, events + 1):
        value = os.urandom(size // 2).hex()
        whole = {"id": "0", "value": value}
        await opened.log.append([an_event(KEY, version, (SET, (), whole) if version == 1 else (SET, ("value",), value))])
    await opened.close()


async def make_small(directory: Path, events: int) -> None:
    """A log of small events: half of them let the list of one entity grow, the others change a thousand entities."""
    opened = await open_on_disk(directory, force_network_fs=False, ignore_anchor=False)
    versions: dict[str, int] = {}
    waiting: list[NewEvent] = []
    for number in range(events):
        key = KEY if number % 2 == 0 else f"Thing:{number % 2000}"
        version = versions[key] = versions.get(key, 0) + 1
        change: tuple[Any, ...] = (SET, (), {"id": key.partition(":")[2], "value": []}) if version == 1 else (APPEND, ("value",), "x")
        if version > 1 and key != KEY:
            change = (SET, ("value",), version)
        waiting.append(an_event(key, version, change, f"actor-{number % 7}"))
        if len(waiting) == AT_ONCE:
            await opened.log.append(waiting)
            waiting = []
    await opened.log.append(waiting)
    await opened.close()


async def ask(question: str, directory: Path) -> int:
    """Ask one question of the API and go through its answer; returns how much there was."""
    opened = await open_to_read(directory)
    past, count = opened.past, 0
    try:
        streams = {
            "walk": lambda: past.walk(KEY if directory.name == "large" else SMALL_KEY),
            "stream": lambda: Audit(opened.log, _no_trail).stream(),
            "settings": lambda: past.settings(KEY, "value", seen=type),
            "versions": lambda: past.versions(KEY),
        }
        async for _ in streams[question]():
            count += 1
    finally:
        await opened.close()
    return count


async def _no_trail() -> None:
    return None


def apart(making: Coroutine[Any, Any, None]) -> None:
    """Make a log in a process of its own: what is measured begins with the memory that this one has."""
    pid = os.fork()
    if pid == 0:
        asyncio.run(making)
        os._exit(0)
    making.close()
    if os.waitpid(pid, 0)[1]:
        raise SystemExit("the log could not be made")


def measure(arguments: list[str]) -> Taken:
    """Run a Python process with its output thrown away."""
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.execv(sys.executable, [sys.executable, "-m", *arguments])
    _, status, usage = os.wait4(pid, 0)
    return Taken(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, os.waitstatus_to_exitcode(status))


def cell(taken: Taken | None) -> str:
    """A cell of the table."""
    if taken is None:
        return ""
    return f"{taken.seconds:.1f} s, {taken.megabytes:.0f} MB" if not taken.code else f"exit {taken.code}"


def run(arguments: list[str], directory: Path, question: str | None = None) -> Taken:
    """Measure a command of the command line, or a question of the API."""
    if question is not None:
        return measure(["benchmarks.commands", "--ask", question, "--directory", str(directory)])
    return measure(["symphony_es.cli", arguments[0], "--state-dir", str(directory), *arguments[1:]])


def make(directory: Path, heavy: int, size: int, small: int) -> dict[str, Path]:
    """The logs by the names of their columns; those that are there are taken as they are."""
    found = {name: directory / name.replace(" ", "") for name in MOST_MEGABYTES}
    for name, made in zip(
        found, (make_heavy(found["large"], heavy, size), make_small(found["n"], small // 10), make_small(found["10 n"], small)), strict=True
    ):
        if (found[name] / "events.db").is_file():
            made.close()
        else:
            apart(made)
    return found


def measured(logs: dict[str, Path]) -> Iterator[tuple[str, dict[str, Taken]]]:
    """Each command and question, and what it took of each log."""
    for text in (*COMMANDS, *(f"({question})" for question in QUESTIONS)):
        question = text.strip("()") if text.startswith("(") else None
        yield text, {name: run(text.split(), directory, question) for name, directory in logs.items()}


def row(text: str, taken: dict[str, Taken]) -> list[str]:
    """A row of the table."""
    times = f"{taken['10 n'].seconds / taken['n'].seconds:.1f}" if {"n", "10 n"} <= taken.keys() else ""
    return [f"`{text}`" if not text.startswith("(") else text, *(cell(taken.get(name)) for name in MOST_MEGABYTES), times]


def page(about: str, rows: list[list[str]]) -> str:
    """The page of the documentation."""
    lines = [
        "# What the commands take",
        "",
        "Figures of `python -m benchmarks.commands`; `--write docs/benchmarks/commands.md` writes this page anew.",
        "",
        about,
        "",
    ]
    lines += ["| command, or (question of the API) | large events | n | 10 n | times |", "| --- | --- | --- | --- | --- |"]
    return "\n".join([*lines, *(f"| {' | '.join(cells)} |" for cells in rows), ""])


def main() -> int:
    """Make the logs and measure; 1 where a command takes too much memory, or fails."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.commands", description=__doc__)
    parser.add_argument("--heavy", type=int, default=300, help="large events (300)")
    parser.add_argument("--size", type=int, default=8_000_000, help="bytes of each (8,000,000)")
    parser.add_argument("--small", type=int, default=1_000_000, help="small events of the longer log (1,000,000)")
    parser.add_argument("--logs", type=Path, default=None, help="where the logs are, or are made and kept; else they are temporary")
    parser.add_argument("--columns", nargs="+", choices=list(MOST_MEGABYTES), default=list(MOST_MEGABYTES), help="only these logs")
    parser.add_argument("--write", type=Path, default=None, metavar="FILE", help="write the page of the documentation")
    parser.add_argument("--ask", choices=QUESTIONS, help=argparse.SUPPRESS)
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.ask:
        print(asyncio.run(ask(given.ask, given.directory)))
        return 0
    large = f"{given.heavy:,} events of {given.size:,} bytes that replace one value"
    about = f"Large: {large}; n = {given.small // 10:,} small events. CPU time and peak memory."
    rows, wrong = [], []
    with tempfile.TemporaryDirectory() as work:
        logs = make(given.logs or Path(work), given.heavy, given.size, given.small)
        print(about)
        for text, taken in measured({name: path for name, path in logs.items() if name in given.columns}):
            rows.append(row(text, taken))
            print(f"{text:45}" + "".join(f"{each:>18}" for each in rows[-1][1:]), flush=True)
            wrong += [
                f"{text}: {cell(each)} of {name}"
                for name, each in taken.items()
                if each.code or each.megabytes > MOST_MEGABYTES[name] + HELD_ANSWERS.get(text, 0)
            ]
    if given.write is not None:
        given.write.write_text(page(about, rows))
    print(*wrong, sep="\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
