"""kill -9 after every single commit, enumerated: every kind of step, declared and as code, ends as if nothing had happened.

Every k is tried, none is sampled: a process dies after its k-th commit, the next one dies soon after it has gone on, and a third one
brings the run to its end. Other runs lose each of their processes as soon as it has brought them one commit further.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.core.state.history import StateHistory
from symphony_es.log.log import EventLog
from tests.acceptance import every_event
from tests.acceptance.every_event import RUN

ROOT = Path(__file__).parents[2]
SERVERS = 2
FURTHER = (1, 2, 3, 5)
"""So many commits further does each process bring a run that loses all of them: those that repeat what a dead one did do not count."""
MOST_DEATHS = 500
"""A run that makes no progress is a failure, not a test without end."""
TOGETHER = ("outer/then/fan/", "each/", "collect/", "fan/")
"""What the addresses of steps begin with that run beside each other."""


class Server:
    """Forks children that are ready at once: the imports are done before."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.acceptance.every_event"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "projections")])},
        )

    def run(self, kind: str, directory: Path, commits: int, counted: str = "all") -> bool:
        """One child; True when it came to its end, False when it died of its commits. Anything else is a failure of the test."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{kind} {directory} {counted} {commits}\n".encode())
        self.process.stdin.flush()
        done = False
        for raw in self.process.stdout:
            word, _, status = raw.decode().strip().partition(" ")
            done = done or word == "done"
            if word == "E":
                assert int(status) in (0, signal.SIGKILL), f"a child ended with {status}: see its traceback"
                return done and int(status) == 0
        raise AssertionError("the server has died")

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


async def outcome(directory: Path) -> dict[str, Any]:
    """Everything that must not depend on who died: states without moments and attempts, and the events of the runs."""
    async with Symphony({"state_dir": directory}, persistence_enabled=True) as symphony:
        await symphony.resume()
        runs = {}
        for run in await symphony.workflows.get_all_runs():
            runs[run.id] = {
                "status": str(run.status),
                "outputs": dict(run.outputs),
                "context": dict(run.context),
                "scopes": {address: dict(scope) for address, scope in run.scopes.items()},
                "calls": {strand: dict(calls) for strand, calls in run.calls.items()},
                "result": run.result,
                "failures": {address: (said["type"], said["message"], said["count"]) for address, said in run.failures.items()},
                "left": (dict(run.progress), dict(run.signals)),
                "children": sorted(run.children),
                "parent": run.parent.id if run.parent is not None else None,
            }
        made = [task for run_id in runs for task in await symphony.tasks.get_tasks_by_workflow(run_id)]
        tasks = {task.id: (str(task.status), task.result) for task in made}
        events = {run_id: await symphony.log.read_entity(f"Workflow:{run_id}") for run_id in runs}
        return {"runs": runs, "tasks": tasks, "total": symphony.entities.get("EveryEventCounter:c").total, "events": events}


def check_events(events: list[Any], expected: list[Any]) -> None:
    """Each step completed once and never began after that; in the same order per branch; failures, timers and signals as they were."""
    completed: set[str] = set()
    for event in events:
        if event.name in ("WorkflowStepStarted", "WorkflowStepRetried"):
            assert event.metadata.step not in completed, f"{event.metadata.step} ran again after its completion"
        elif event.name == "WorkflowStepCompleted":
            assert event.metadata.step not in completed, f"{event.metadata.step} completed twice"
            completed.add(event.metadata.step)
    once = ("WorkflowStepCompleted", "WorkflowStepFailed", "WorkflowTimerSet", "WorkflowSignalTaken", "WorkflowBranchChosen")
    once += ("WorkflowIterationBegun", "WorkflowItemsFixed", "WorkflowChildStarted", "WorkflowSignalReceived", "WorkflowCompleted")
    for name in once:
        assert by_branch(events, name) == by_branch(expected, name), name


def by_branch(events: list[Any], name: str) -> dict[str, list[str]]:
    """Addresses of the steps that such an event is about, in order, by branch."""
    found: dict[str, list[str]] = {}
    for event in events:
        if event.name == name:
            address = event.metadata.step or ""
            beside = next((prefix for prefix in TOGETHER if address.startswith(prefix)), None)
            branch = "" if beside is None else beside + address.removeprefix(beside).split("/")[0]
            found.setdefault(branch, []).append(address)
    return found


def check_bodies(lines: list[str], events: dict[str, list[Any]]) -> None:
    """Each body that began had a start on record of its own, and all attempts at a step had one idempotency key."""
    bodies = Counter(tuple(line.split(" ")[:3]) for line in lines)
    assert set(bodies.values()) <= {1}, "an attempt ran twice"
    keys: dict[tuple[str, str], str] = {}
    for line in lines:
        run_id, step, _, key = line.split(" ")
        assert keys.setdefault((run_id, step), key) == key, f"{step} had another idempotency key after a kill"
    for (run_id, step), count in Counter((run_id, step) for run_id, step, _ in bodies).items():
        starts = [event for event in events[run_id] if "Start" in event.name or "Retried" in event.name]
        assert count <= sum(event.metadata.step == step for event in starts), f"{step} ran without a start on record"


async def check_atomic(directory: Path) -> None:
    """What an atomic step changed and its completion are both in the log, or neither."""
    log = await EventLog.open_read_only(directory)
    try:
        history = StateHistory(log, None)
        run, counter = [await history.entity_at(key, log.head) for key in (f"Workflow:{RUN}", "EveryEventCounter:c")]
        if run is not None and counter is not None:
            assert run.data is not None
            assert counter.data is not None
            assert (counter.data["total"], "count" in run.data["outputs"]) in ((0, False), (2, True))
    finally:
        await log.close()


class Enumeration:
    """All kills of one workflow, compared with the run that nobody killed.

    Attributes:
        boundaries: after how many commits the first process can die.
        kills: how many processes have died.
    """

    def __init__(self, kind: str, directory: Path) -> None:
        self.kind = kind
        self.directory = directory / kind
        self.directory.mkdir()
        self.boundaries = 0
        self.kills = 0
        self._next = 0
        self._further = list(FURTHER)

    async def run(self) -> dict[str, Any]:
        """Kills after the first commit, after the second, …, until a process survives; gives the outcome that all of them had."""
        servers = await asyncio.gather(*(asyncio.to_thread(Server) for _ in range(SERVERS)))
        try:
            whole = self.directory / "whole"
            assert await asyncio.to_thread(servers[0].run, self.kind, whole, 0)
            self.expected = await outcome(whole)
            check_bodies(self.lines(whole), self.expected["events"])
            await asyncio.gather(*(self._kill(server) for server in servers))
        finally:
            for server in servers:
                await asyncio.to_thread(server.close)
        print(f"{self.kind}: {self.boundaries} boundaries between commits, {self.kills} kills")
        return self.expected

    async def _kill(self, server: Server) -> None:
        survived = False
        while not survived:
            self._next += 1
            commits = self._next
            survived = await self._check(server, self.directory / f"kill-{commits}", chain([commits, 1 + commits % 3], repeat(0)))
            self.boundaries = max(self.boundaries, 0 if survived else commits)
        while self._further:
            further = self._further.pop()
            await self._check(server, self.directory / f"further-{further}", repeat(further), "progress")

    async def _check(self, server: Server, directory: Path, deaths: Iterator[int], counted: str = "all") -> bool:
        """Processes that die one after the other, until one comes to the run's end; whether already the first did."""
        died = 0
        while not await asyncio.to_thread(server.run, self.kind, directory, next(deaths), counted):
            died += 1
            assert died < MOST_DEATHS, f"{directory.name}: no progress"
            await check_atomic(directory)
        self.kills += died
        found = await outcome(directory)
        for what in ("runs", "tasks", "total"):
            assert found[what] == self.expected[what], f"{directory.name}: {what}"
        for run_id, events in found["events"].items():
            check_events(events, self.expected["events"][run_id])
        check_bodies(self.lines(directory), found["events"])
        return died == 0

    @staticmethod
    def lines(directory: Path) -> list[str]:
        return Path(f"{directory}.effects").read_text().splitlines()


async def test_every_kind_of_step_survives_a_kill_after_every_commit(tmp_path: Path) -> None:
    """All kinds, nested three deep: same outputs, same order, nothing completed runs twice, timers and signals fire once."""
    enumeration = Enumeration("all", tmp_path)
    expected = await enumeration.run()
    main = expected["runs"][RUN]
    assert enumeration.boundaries > 60
    assert main["result"] == {"sub": [3, "gate/then/second"], "twice": 42, "late": 7}
    assert main["outputs"]["outer"] == {"a": "outer/then/fan/a/deep/then/leaf", "b": [1, 2, 3, "mine alone"]}
    assert main["outputs"]["each"] == [10, 20, 30]
    assert main["outputs"]["collect"] == {"fine": "collect/fine", "bad": {"error": {"type": "ValueError", "message": "always"}}}
    assert main["outputs"]["review"] == [0, 1]
    assert (main["outputs"]["early"], main["outputs"]["expiring"]) == ("bird", "nobody came")
    failed = Counter(event.metadata.step for event in expected["events"][RUN] if event.name == "WorkflowStepFailed")
    assert failed == {"collect/bad": 3, "flaky": 2}
    assert expected["total"] == 2


CALLED = {"review/0/weigh": "weigh", "review/1/weigh": "weigh#2", "review/2/weigh": "weigh#3"}
"""Where the steps of a loop are when it is declared, and when it is code."""
AROUND = {"fan", "fan/0", "fan/1", "fan/2", "review"}
"""Composite steps, which have outputs of their own; `gather` and `while` are none."""


async def test_declared_and_coded_end_the_same_under_every_kill(tmp_path: Path) -> None:
    """One workflow written both ways: whoever dies, the same result, the same outputs at the same addresses, in the same order."""
    declared, coded = [(await Enumeration(kind, tmp_path).run()) for kind in ("declared", "coded")]
    assert declared["runs"][RUN]["result"] == coded["runs"][RUN]["result"]
    assert coded["runs"][RUN]["result"][2:] == [[0, 1, 2], {"n": 7}, 21, "at last"]
    outputs = {CALLED.get(at, at): output for at, output in declared["runs"][RUN]["outputs"].items() if at not in AROUND}
    assert outputs == coded["runs"][RUN]["outputs"]
    orders = [by_branch(way["events"][RUN], "WorkflowStepCompleted") for way in (declared, coded)]
    orders[0] = {branch: [CALLED.get(at, at) for at in order if at not in AROUND] for branch, order in orders[0].items()}
    assert orders[0] == orders[1]
    assert declared["runs"][f"{RUN}/sub"]["outputs"] == coded["runs"][f"{RUN}/sub"]["outputs"]


UNDONE = [
    *("undo/last", "undo/again/0/turned", "undo/fan/right", "undo/fan/left", "undo/each/1/one", "undo/each/0/one"),
    *("undo/book", "cleanup/tidy"),
]


async def test_what_has_begun_is_undone_once_under_every_kill(tmp_path: Path) -> None:
    """A run that fails undoes itself, its child run first: each undo completes once, under one key, in the same order, whoever dies."""
    enumeration = Enumeration("undone", tmp_path)
    expected = await enumeration.run()
    main, events = expected["runs"][RUN], expected["events"][RUN]
    assert (main["status"], expected["runs"][f"{RUN}/sub"]["status"]) == ("failed", "cancelled")
    completed = [event.metadata.step for event in events if event.name == "WorkflowStepCompleted"]
    assert completed[-len(UNDONE) :] == UNDONE
    theirs = [event.metadata.step for event in expected["events"][f"{RUN}/sub"] if event.name == "WorkflowStepCompleted"]
    assert theirs[-2:] == ["undo/third", "undo/first"]
    assert main["outputs"]["undo/last"] == ["failed", None, None]
    assert [main["outputs"][f"undo/each/{index}/one"] for index in (0, 1)] == [["completed", 1, 1], ["completed", 2, 2]]
    assert main["outputs"]["undo/book"] == "at last"
    assert enumeration.boundaries > 50


async def test_what_code_has_begun_is_undone_once_under_every_kill(tmp_path: Path) -> None:
    """The same of a function, whose calls are undone with the arguments that they had."""
    expected = await Enumeration("undone-code", tmp_path).run()
    main = expected["runs"][RUN]
    assert (main["status"], expected["runs"][f"{RUN}/sub"]["status"]) == ("failed", "cancelled")
    completed = [event.metadata.step for event in expected["events"][RUN] if event.name == "WorkflowStepCompleted"]
    assert completed[-6:] == ["undo/bad", "undo/late", "undo/gather/0/left", "undo/b", "undo/a", "cleanup/tidy"]
    assert main["outputs"]["undo/bad"] == ["bad", "failed", None]
    assert main["outputs"]["undo/a"] == ["a", "completed", "a"]


def test_the_definition_has_every_kind_nested_three_deep() -> None:
    """What the test says it runs is what it runs."""
    from symphony_es.workflow.definitions.nesting import walk
    from symphony_es.workflow.definitions.steps import step_kinds

    plan = every_event.declared_all().plan
    assert {step.kind for _, step in walk(plan)} >= {kind for kind in step_kinds() if not kind.startswith("test")}
    assert max(path.replace("/then", "").replace("/else", "").count("/") for path, _ in walk(plan)) >= 3


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (["main a 1 k", "main a 1 k"], "ran twice"),
        (["main a 1 k", "main a 2 other"], "another idempotency key"),
        (["main a 1 k"], "without a start"),
    ],
)
def test_the_check_sees_what_it_looks_for(lines: list[str], complaint: str) -> None:
    """An attempt that ran twice, a second key, a body without its start on record."""
    with pytest.raises(AssertionError, match=complaint):
        check_bodies(lines, {"main": []})
