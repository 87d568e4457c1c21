"""kill -9 in the middle of all that builds or removes something: `python -m tests.faults.kills --kills 50`.

Backup, restore, export (also over a file that is there), import, fork, rebuild, `prune` of snapshots and `prune-runs` are killed: half of
the times right before one of their calls of the system (those of Python on files, and what makes a file durable; all of them in turn
where there are fewer), the other half at a random moment. Each time the target is there as a whole or not at all, and what it is made of
is untouched; a second call ends as one that was never killed, and leaves nothing beside it. It ends with status 1 where that is not so.

Each life is a fork of a process in which everything is loaded and nothing runs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from symphony_es import Symphony
from symphony_es.cli.main import main as command_line
from symphony_es.core.past.opening import open_to_read
from symphony_es.log.log import EventLog
from symphony_es.projections import ProjectionRunner
from symphony_es.transfer import backup, export_csv, export_jsonl, import_jsonl, restore, verify
from symphony_es_projections.audit_trail import AuditTrail
from symphony_es_projections.files import current_build
from tests.transfer.logs import make_log, rows_of, snapshot_at

CALLS = frozenset(
    ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate", "os.chmod", "os.utime", "sqlite3.connect")
)
STATE, BACKUP, EXPORT, NEW, OLD = "state", "backup", "events.jsonl", "new", b"an older export\n"
EVENTS = 400
DONE, WRONG = 0, 70


@dataclass(frozen=True)
class Operation:
    """Something that may be killed.

    Attributes:
        run: does it, in a directory that has what it needs; returns an exit code.
        whole: says whether the target is there as a whole; raises AssertionError where it is there as a half.
        again: whether it may be done again where the target is there.
        writes: it opens the log for writing: what it may not touch of that, `whole` looks at.
    """

    run: Callable[[Path], int]
    whole: Callable[[Path], Awaitable[bool]]
    again: bool = False
    writes: bool = False


def is_there(path: Path) -> bool:
    """Whether anything has the name."""
    return os.path.lexists(path)


async def content(directory: Path) -> list[Any]:
    """Every row of a log, which verifies."""
    report = await verify(directory)
    assert report.ok, report.problems
    assert not report.damaged_snapshots, report.damaged_snapshots
    log = await EventLog.open_read_only(directory)
    try:
        return [row async for rows in log.pages(0, log.head) for row in rows]
    finally:
        await log.close()


async def same_log(work: Path) -> bool:
    """Whether the new directory has the log."""
    if not is_there(work / NEW):
        return False
    assert await content(work / NEW) == await content(work / STATE)
    return True


async def forked(work: Path) -> bool:
    """Whether the new directory has the states."""
    if not is_there(work / NEW):
        return False
    await content(work / NEW)
    assert await states(work / NEW) == await states(work / STATE)
    return True


async def states(directory: Path) -> dict[str, Any]:
    """What the entities of tests are."""
    opened = await open_to_read(directory)
    try:
        fold = await opened.history.states_at(opened.log.head)
        return {key: state.data for key, state in fold.states.items() if key.startswith("Task:t")}
    finally:
        await opened.close()


async def exported(work: Path) -> bool:
    """Whether the file is there, with the footer that is right."""
    if not is_there(work / NEW):
        return False
    written = (work / NEW).read_bytes()
    if written == OLD:
        return False
    body, _, footer = written[:-1].rpartition(b"\n")
    assert hashlib.sha256(body + b"\n").hexdigest().encode() in footer, "cut"
    return True


async def pruned(work: Path) -> bool:
    """Whether snapshots are gone; every checkpoint has the state it had, and the newest snapshot is whole."""
    assert await content(work / STATE) == await content(work / BACKUP)
    opened = await open_to_read(work / STATE)
    try:
        assert opened.history.snapshots is not None
        left = opened.history.snapshots.list()
        assert left
        for entry in await opened.past.checkpoints():
            fold = await opened.history.states_at(entry.position)
            assert len([key for key in fold.states if key.startswith("Task:t")]) == 5
        return len(left) < 4
    finally:
        await opened.close()


async def runs_pruned(work: Path) -> bool:
    """Whether all runs are pruned; nothing but events of their own has come behind those that were there."""
    had, has = await content(work / BACKUP), await content(work / STATE)
    assert has[: len(had)] == had
    opened = await open_to_read(work / STATE)
    try:
        fold = await opened.history.states_at(opened.log.head)
        return not [key for key, state in fold.states.items() if key.startswith("Workflow:") and not state.deleted]
    finally:
        await opened.close()


async def rebuilt(work: Path) -> bool:
    """Whether the read model is there, and alone; it has all rows, once each."""
    assert await content(work / STATE) == await content(work / BACKUP)
    directory = work / STATE / "projections"
    build = current_build(directory, AuditTrail.name)
    assert build is not None
    with contextlib.closing(sqlite3.connect(build)) as database:
        positions = [row[0] for row in database.execute("SELECT position FROM audit ORDER BY position")]
    assert positions == list(range(1, len(positions) + 1))
    assert len(positions) >= EVENTS
    return sorted(path.suffix for path in directory.iterdir() if path.suffix == ".db") == [".db"]


async def _rebuild(directory: Path) -> None:
    log = await EventLog.open(directory)
    runner = ProjectionRunner(log, directory / "projections")
    runner.add(AuditTrail())
    try:
        await runner.rebuild(AuditTrail.name)
    finally:
        await runner.close()
        await log.close()


async def _export(work: Path, *, csv: bool, overwrite: bool = False) -> None:
    log = await EventLog.open_read_only(work / STATE)
    try:
        await (export_csv if csv else export_jsonl)(log, work / NEW, overwrite=overwrite)
    finally:
        await log.close()


def _ran(made: Callable[[Path], Awaitable[Any]]) -> Callable[[Path], int]:
    def run(work: Path) -> int:
        asyncio.run(_awaited(made(work)))
        return DONE

    return run


async def _awaited(made: Awaitable[Any]) -> Any:
    return await made


def _command(*arguments: str) -> Callable[[Path], int]:
    return lambda work: command_line(["--state-dir", str(work / STATE), *(text.replace("WORK", str(work)) for text in arguments)])


OPERATIONS = {
    "backup": Operation(_ran(lambda work: backup(work / STATE, work / NEW)), same_log),
    "restore": Operation(_ran(lambda work: restore(work / BACKUP, work / NEW)), same_log),
    "export": Operation(_ran(lambda work: _export(work, csv=False)), exported),
    "export over a file": Operation(_ran(lambda work: _export(work, csv=True, overwrite=True)), exported, again=True),
    "import": Operation(_ran(lambda work: import_jsonl(work / EXPORT, work / NEW)), same_log),
    "fork": Operation(_command("fork", "WORK/new"), forked),
    "rebuild": Operation(_ran(lambda work: _rebuild(work / STATE)), rebuilt, again=True, writes=True),
    "prune": Operation(_command("prune"), pruned, again=True, writes=True),
    "prune-runs": Operation(_command("prune-runs", "--older-than", "0s"), runs_pruned, again=True, writes=True),
}


async def make(work: Path) -> None:
    """What operations need: a log with snapshots, checkpoints, runs and a read model; a backup and an export of it."""
    make_log(work / STATE, rows_of(EVENTS))
    async with Symphony({"state_dir": str(work / STATE)}, persistence_enabled=True) as symphony:
        symphony.functions.register("act", _act)
        definition = symphony.build_workflow("small").add_function("act", "act").build()
        for number in range(3):
            await symphony.workflows.execute_workflow(definition, run_id=f"r{number}", auto_checkpoint=False)
            await symphony.create_checkpoint(f"c{number}")
    shutil.rmtree(work / STATE / "snapshots", ignore_errors=True)
    rows = await content(work / STATE)
    for position in (100, 200, 300, len(rows)):
        await snapshot_at(work / STATE, rows, position)
    await _rebuild(work / STATE)
    await backup(work / STATE, work / BACKUP)
    log = await EventLog.open_read_only(work / STATE)
    await export_jsonl(log, work / EXPORT)
    await log.close()


def _act(context: Any) -> int:
    return 1


class Kill:
    """Ends the process right before a call of the system on a file below a directory."""

    def __init__(self, below: Path, at: int) -> None:
        self._below = os.fspath(below)
        self._left = at
        self.seen = 0
        self._real = os.fsync

    def arm(self) -> None:
        """Begin to count."""
        sys.addaudithook(self._hook)
        os.fsync = self._sync

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in CALLS and arguments and self._below in os.fsdecode(arguments[0] if isinstance(arguments[0], str | bytes) else b""):
            self._count()

    def _sync(self, descriptor: int) -> None:
        self._count()
        self._real(descriptor)

    def _count(self) -> None:
        self.seen += 1
        if self.seen == self._left:
            os.kill(os.getpid(), signal.SIGKILL)


def life(work: Callable[[], int], after_s: float | None = None) -> int | None:
    """What a process of its own came to; None where it was killed, by itself or after a time."""
    pid = os.fork()
    if pid == 0:
        code = WRONG
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            code = work()
        except BaseException:
            traceback.print_exc()
        os._exit(code)
    if after_s is not None:
        time.sleep(after_s)
        os.kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return None if code == -signal.SIGKILL else code


@contextlib.contextmanager
def room(of: Path) -> Iterator[Path]:
    """A directory with what operations need, of their own."""
    with tempfile.TemporaryDirectory(dir=of.parent) as place:
        work = Path(place, "work")
        shutil.copytree(of, work)
        yield work


def survived(operation: Operation, work: Path, before: dict[str, str]) -> int:
    """Look at what a killed one has left, then do it again; DONE where all is as it should be."""

    async def look() -> bool:
        there = await operation.whole(work)
        after = digests(work)
        changed = [name for name, value in before.items() if after.get(name) != value]
        assert not changed, f"changed: {changed}"
        return there

    there = asyncio.run(look())
    if operation.again or not there:
        assert operation.run(work) == DONE
        assert asyncio.run(_awaited(operation.whole(work)))
    left = sorted(path.name for path in work.rglob("*") if path.name.endswith((".part", ".new", ".tmp")))
    assert not left or (there and not operation.again), f"left behind: {left}"
    return DONE


def digests(work: Path) -> dict[str, str]:
    """Hashes of what no operation may touch: the logs' files and snapshots, and the export."""
    found = {}
    for path in sorted(work.rglob("*")):
        name = path.relative_to(work).as_posix()
        if path.is_file() and name.split("/")[0] in (STATE, BACKUP, EXPORT) and not name.endswith(("-shm", "-wal", "LOCK", "-head")):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def series(name: str, of: Path, kills: int, chance: random.Random, every: int | None = None, first: int = 1) -> str:
    """Kill an operation so many times; a line that tells how it went.

    Args:
        every: only at each so-manieth call of the system from `first` on, and at no random moment.

    Raises:
        AssertionError: something is not as it should be; a life has told what.
    """
    operation = OPERATIONS[name]
    with room(of) as work:
        told = work.parent / "told"

        def count() -> int:
            kill = Kill(work, -1)
            kill.arm()
            code = operation.run(work)
            told.write_text(str(kill.seen))
            return code

        began = time.monotonic()
        assert life(count) == DONE, name
        lasts_s, calls = time.monotonic() - began, int(told.read_text())
    points: list[int | float] = list(range(first, calls + 1, every or 1))
    if every is None:
        step = max(1.0, calls / (kills / 2))
        points = [points[int(number * step)] for number in range(min(calls, kills // 2))]
        points += [chance.uniform(0, lasts_s) for _ in range(kills - len(points))]
    killed = ended = 0
    for point in points:
        with room(of) as work:
            if name == "export over a file":
                (work / NEW).write_bytes(OLD)
            before = {path: value for path, value in digests(work).items() if not operation.writes or not path.startswith(STATE)}
            if isinstance(point, int):
                outcome = life(lambda at=point, work=work: _armed(operation, work, at))  # type: ignore[misc]
            else:
                outcome = life(lambda work=work: operation.run(work), point)  # type: ignore[misc]
            killed += outcome is None
            ended += outcome == DONE
            assert outcome in (None, DONE), f"{name}: exit {outcome} at {point}"
            assert life(lambda work=work, before=before: survived(operation, work, before)) == DONE, f"{name}: killed at {point}"  # type: ignore[misc]
    return f"{name}: {calls} calls; {killed} killed, {ended} ended before"


def _armed(operation: Operation, work: Path, at: int) -> int:
    Kill(work, at).arm()
    return operation.run(work)


def main() -> int:
    """Kill them all."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="of each operation (50)")
    parser.add_argument("--every", type=int, default=None, help="only right before each so-manieth call of the system, in its order")
    parser.add_argument("--first", type=int, default=1, help="the first of these calls (1)")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="of the random moments")
    parser.add_argument("--only", choices=list(OPERATIONS), action="append", help="only this one; may be repeated")
    given = parser.parse_args()
    chance, wrong = random.Random(given.seed), 0
    with tempfile.TemporaryDirectory() as place:
        prepared = Path(place, "prepared")
        prepared.mkdir()
        assert life(lambda: (asyncio.run(make(prepared)), DONE)[1]) == DONE, "what is needed could not be made"
        for name in given.only or OPERATIONS:
            try:
                print(series(name, prepared, given.kills, chance, given.every, given.first), flush=True)
            except AssertionError as error:
                wrong += 1
                print(f"WRONG, seed {given.seed}: {error}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
