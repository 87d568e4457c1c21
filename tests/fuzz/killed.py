"""Programs whose processes are killed: kill -9 of a process whose log is on disk, and another one that goes on from what it left.

`python -m tests.fuzz.killed` is a fork server: imports are done once. Each line of standard input is a request, as JSON; each child
lives one life of a program and is killed in one of four ways, or comes to its end.

* right before, or right after, its n-th commit becomes durable, and before anybody is told;
* when its n-th effect outside is durable, and the body does not know yet;
* at a moment: by the server, wherever the child is then: opening the log, going on with runs, in the middle of a commit, closing.

A ledger beside the log has one line for each effect: it is in the file, and synced, before the body goes on.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from symphony_es import Symphony
from symphony_es.core.past.states import StateHistory, live_states
from symphony_es.log import writer as writer_module
from symphony_es.log.log import EventLog
from symphony_es.transfer.verification import verify
from symphony_es.workflow import RunSummary
from tests.fuzz.lives import Fuzzer
from tests.fuzz.record import Broken, Call, check_calls, check_history, check_undone

__all__ = ["Forks", "check_killed"]

ROOT = Path(__file__).parents[2]
PATIENCE_S = 90
"""A run that waits for what will never come is a failure, not a command without end."""
WAYS = ("before", "after", "effect", "moment")
MOST_EFFECTS = 12
LATEST_S = 0.25
"""How late a child is killed that is killed at a moment: as long as a life without deaths takes."""
ENDED = ("completed", "failed", "cancelled")


class Ledger(list[str]):
    """What bodies note outside, kept in a file: a line is synced when `append` returns.

    Args:
        path: the file; what earlier processes noted is read from it.
        head: how far the log has come.
        on_effect: called after each line, with how many this process has written.
    """

    def __init__(self, path: Path, head: Callable[[], int], on_effect: Callable[[int], None]) -> None:
        super().__init__(note for _, note in read_ledger(path))
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._head = head
        self._on_effect = on_effect
        self._written = 0

    def append(self, note: str, /) -> None:
        """Note something."""
        os.write(self._file, f"{self._head()} {note}\n".encode())
        os.fsync(self._file)
        super().append(note)
        self._written += 1
        self._on_effect(self._written)


def read_ledger(path: Path) -> list[tuple[int, str]]:
    """The lines of a ledger, each with how far the log had come."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [(int(head), note) for head, _, note in (line.partition(" ") for line in lines)]


def _kill(counted: int, at: int) -> None:
    if counted == at:
        os.kill(os.getpid(), signal.SIGKILL)


async def _live(fuzzer: Fuzzer, seed: int, directory: Path, way: str, at: int) -> None:
    """One process, from its opening of the log to the end of the program, or to its death."""
    symphony = Symphony({"state_dir": str(directory)}, persistence_enabled=True)
    await symphony.setup()
    if way in ("before", "after"):
        _die_at_commit(symphony.log, way, at)
    ledger = Ledger(_ledger(directory), lambda: symphony.log.head, lambda written: _kill(written, at if way == "effect" else 0))
    found = await fuzzer.life(seed)(symphony, ledger)
    await symphony.close()
    _found(directory).write_text(json.dumps(found))


def _die_at_commit(log: Any, way: str, at: int) -> None:
    """Has this process killed at a commit; each submission is one of its own, so that every boundary between them is one to die at."""
    writer_module.MAX_BATCH_EVENTS = 1
    recorder = log._writer._recorder
    append_groups, begun = recorder.append_groups, 0

    def append(groups: Any, time_ns: int) -> Any:
        nonlocal begun
        begun += 1
        _kill(begun, at if way == "before" else 0)
        outcomes = append_groups(groups, time_ns)
        _kill(begun, at)
        return outcomes

    recorder.append_groups = append


def _ledger(directory: Path) -> Path:
    return directory.with_suffix(".effects")


def _found(directory: Path) -> Path:
    return directory.with_suffix(".found")


def _serve(fuzzers: dict[str, Fuzzer]) -> None:
    """Fork one child per line of standard input; say how it ended."""
    with tempfile.TemporaryDirectory() as warm:  # what is imported late is imported before
        for number, fuzzer in enumerate((fuzzers["declared"], fuzzers["coded"])):
            asyncio.run(_live(fuzzer, 0, Path(warm) / f"{number}", "never", 0))
    gc.freeze()
    for line in sys.stdin:
        name, seed, directory, way, at = json.loads(line)
        ends, held = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(ends)
            signal.alarm(PATIENCE_S)
            try:
                asyncio.run(_live(fuzzers[name], seed, Path(directory), way, at))
            except BaseException:
                sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
                os._exit(1)
            os._exit(0)
        os.close(held)
        if way == "moment" and not select.select([ends], [], [], at)[0]:  # the pipe is at its end when the child is
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        os.close(ends)
        os.write(1, f"{status}\n".encode())


class Forks:
    """The fork server; a context manager."""

    def __enter__(self) -> Forks:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.killed"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "projections")])},
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def live(self, name: str, seed: int, directory: Path, way: str, at: float) -> bool:
        """One life of a program; whether it came to its end, and was not killed.

        Raises:
            Broken: it ended in another way.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{json.dumps([name, seed, str(directory), way, at])}\n".encode())
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
        if status not in (0, signal.SIGKILL):
            raise Broken(f"a process that was to be killed {way} {at} ended with {status}: its traceback stands above")
        return status == 0


def check_killed(forks: Forks, name: str, fuzzer: Fuzzer, seed: int) -> int:
    """Run the program of a seed in processes that are killed one after the other, until one is not; how many were killed.

    Raises:
        AssertionError: what has come of it, the log or the ledger should be something else.
    """
    chosen = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="symphony-fuzz-") as made:
        directory = Path(made) / "state"
        killed = 0
        for commits in [*fuzzer.deaths(chosen), 0]:
            way = chosen.choice(WAYS)
            at = {"effect": chosen.randint(1, MOST_EFFECTS), "moment": chosen.uniform(0, LATEST_S)}.get(way, commits)
            if forks.live(name, seed, directory, way if commits else "never", at):
                break
            killed += 1
        ledger = read_ledger(_ledger(directory))
        fuzzer.compare(seed, json.loads(_found(directory).read_text()), [note for _, note in ledger])
        asyncio.run(check_left(directory, [Call.read(head, note) for head, note in ledger], fuzzer.undoable))
        return killed


async def check_left(directory: Path, calls: list[Call], undoable: frozenset[str]) -> None:
    """Look at the log that the last process has left.

    Raises:
        Broken: something does not hold.
    """
    log = await EventLog.open_read_only(directory)
    try:
        states = live_states(await StateHistory(log, None).states_at(log.head))
        runs = {key.partition(":")[2]: state.data or {} for key, state in states.items() if key.startswith("Workflow:")}
        events = {run_id: await log.read_entity(f"Workflow:{run_id}") for run_id in runs}
    finally:
        await log.close()
    statuses = {run_id: str(run["status"].data).lower() for run_id, run in runs.items()}
    if left := {run_id: status for run_id, status in statuses.items() if status not in ENDED}:
        raise Broken(f"left under way: {left}")
    for run_id, of_run in events.items():
        check_history(run_id, of_run)
        if statuses[run_id] == "cancelled":
            check_undone(run_id, of_run, undoable)
    check_calls(calls, events)
    report = await verify(directory)
    if not report.ok:
        raise Broken(f"the log is damaged: {report.problems}")
    reader = await Symphony({"state_dir": str(directory)}, persistence_enabled=True).setup(recover=False)
    try:
        listed = {run.id: str(run.status) async for run in _all_runs(reader)}
    finally:
        await reader.close()
    if listed != statuses:
        differ = {run_id: (listed.get(run_id), statuses.get(run_id)) for run_id in listed.keys() | statuses.keys()}
        raise Broken(f"listed, and in the log: { {run_id: both for run_id, both in differ.items() if both[0] != both[1]} }")


async def _all_runs(symphony: Symphony) -> AsyncIterator[RunSummary]:
    last: RunSummary | None = None
    while page := await symphony.workflows.list_runs(after=last, limit=100):
        for last in page:
            yield last


if __name__ == "__main__":
    from tests.fuzz.__main__ import FUZZERS

    logging.disable(logging.CRITICAL)
    _serve({name: fuzzer for name, (fuzzer, _) in FUZZERS.items()})
