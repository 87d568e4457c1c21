"""A death after every single commit, enumerated: every story of `every_story` ends as if nothing had happened.

Every k is tried, none is sampled: a process dies before its k-th commit is durable, the next one dies soon after it has gone on, and a
third one brings the run to its end. Other runs lose each of their processes as soon as it has brought them one commit further. These
processes are `Mortal`s in this one. Of each story some deaths are real: kill -9 of a process whose log is on disk.

Of the stories that undo, take back and rewind, a few deaths are tried. All of them, and each boundary of every story twice with other
deaths behind it, are tried by `SYMPHONY_EVERY=1 pytest --timeout 0 tests/acceptance/test_every_event.py`.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest

from symphony_es.core.past.states import StateHistory, live_states
from symphony_es.events.fold import EntityState
from symphony_es.log.log import EventLog
from symphony_es.workflow.runs.parts import outputs_in
from tests.acceptance import every_story, every_workflow
from tests.acceptance.every_event import is_progress
from tests.acceptance.every_workflow import RUN
from tests.mortal import EMPTY, Disk, Mortal, opened

ROOT = Path(__file__).parents[2]
FURTHER = (1, 3)
"""So many commits further does each process bring a run that loses all of them: those that repeat what a dead one did do not count."""
REALLY = 3
"""So many deaths of each story are kills of a process."""
SAMPLED = 0 if "SYMPHONY_EVERY" in os.environ else 3
"""Of stories that are sampled, a death at each boundary, twice, where `SYMPHONY_EVERY` is set; else at so many of them."""
MOST_DEATHS = 500
"""A run that makes no progress is a failure, not a test without end."""
TOGETHER = ("outer/then/fan/", "each/", "collect/", "fan/")
"""What the addresses of steps begin with that run beside each other."""
TAKEN_BACK = ("WorkflowRetryRequested", "Rewound")
"""Events after which steps that have completed may begin again."""
VOLATILE = {"attempts", "created_at", "started_at", "ended_at", "untold", "failures", "error", "forked_from"}
"""What of a run depends on who died: moments, attempts, and what hooks have not been told yet."""


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

    def run(self, story: str, directory: Path, commits: int, counted: str = "all") -> bool:
        """One child; True when it came to its end, False when it died of its commits. Anything else is a failure of the test."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{story} {directory} {counted} {commits}\n".encode())
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


class Outcome:
    """Everything that must not depend on who died.

    Attributes:
        states: of all entities, without moments and attempts, by key.
        events: of each run.
        notes: what the bodies and hooks have noted outside.
    """

    def __init__(self, states: Mapping[str, EntityState], events: dict[str, list[Any]], notes: Iterable[str]) -> None:
        self.states = {key: _lasting(key, state.data or {}) for key, state in states.items() if not key.startswith("symphony.")}
        self.events = events
        self.notes = list(notes)

    @classmethod
    async def of(cls, log: EventLog, notes: Iterable[str]) -> Outcome:
        """What a log says, and what was noted beside it."""
        states = live_states(await StateHistory(log, None).states_at(log.head))
        runs = [key for key in states if key.startswith("Workflow:")]
        return cls(states, {key.partition(":")[2]: await log.read_entity(key) for key in runs}, notes)

    @classmethod
    async def on(cls, disk: Disk) -> Outcome:
        """What one of many processes has left."""
        async with opened(disk) as log:
            return await cls.of(log, disk.notes)

    @classmethod
    async def at(cls, directory: Path) -> Outcome:
        """What a process has left that was killed, or has ended."""
        log = await EventLog.open_read_only(directory)
        try:
            return await cls.of(log, Path(f"{directory}.effects").read_text().splitlines())
        finally:
            await log.close()

    def run(self, run_id: str = RUN) -> dict[str, Any]:
        """The state of a run, with its outputs whole."""
        return self.states[f"Workflow:{run_id}"]

    def completed(self, run_id: str = RUN) -> list[str]:
        """The addresses of the steps that have completed, in order."""
        return [event.metadata.step for event in self.events[run_id] if event.name == "WorkflowStepCompleted"]

    def keys(self) -> dict[tuple[str, str], set[str]]:
        """By run and step, under which keys its body was called."""
        found: dict[tuple[str, str], set[str]] = defaultdict(set)
        for run_id, step, _, key in self.bodies():
            found[run_id, step].add(key)
        return found

    def bodies(self) -> Iterator[list[str]]:
        """Run, step, attempt and key of each call of a body."""
        return (line.split(" ") for line in self.notes if not line.startswith("hook "))

    def moments(self) -> Counter[tuple[str, ...]]:
        """Of each kind how many moments a hook was told, each counted once, however often it was told."""
        return Counter(tuple(told) for _, *told in {tuple(line.split(" ")[1:]) for line in self.notes if line.startswith("hook ")})


def _lasting(key: str, data: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in data.items() if name not in VOLATILE}
    if not key.startswith("Workflow:"):
        return {name: value for name, value in kept.items() if not name.endswith("_at")}
    failures = {at: (said["type"], said["message"], said["count"]) for at, said in data["failures"].items()}
    error = data["error"] and {name: data["error"][name] for name in ("type", "message", "step")}
    # The event that caused a child run to start is one of the process that started it.
    starter = {name: value for name, value in data["options"].get("starter", {}).items() if name != "cause"}
    options = {**data["options"], "starter": starter}
    return {**kept, "outputs": outputs_in(data), "failures": failures, "error": error, "options": options}


def differences(found: Any, expected: Any, path: str = "") -> Iterator[str]:
    """Where two states differ."""
    if isinstance(found, Mapping) and isinstance(expected, Mapping):
        for key in [*expected, *(key for key in found if key not in expected)]:
            yield from differences(found.get(key, "missing"), expected.get(key, "missing"), f"{path}/{key}")
    elif found != expected:
        yield f"{path}: {found!r} in place of {expected!r}"


def check_events(events: list[Any], expected: list[Any]) -> None:
    """Each step completed once and never began after that; in the same order per branch; failures, timers and signals as they were."""
    completed: set[str] = set()
    for event in events:
        if event.name in TAKEN_BACK:
            completed.clear()
        elif event.name in ("WorkflowStepStarted", "WorkflowStepRetried"):
            assert event.metadata.step not in completed, f"{event.metadata.step} ran again after its completion"
        elif event.name == "WorkflowStepCompleted":
            assert event.metadata.step not in completed, f"{event.metadata.step} completed twice"
            completed.add(event.metadata.step)
    once = ("WorkflowStepCompleted", "WorkflowStepFailed", "WorkflowTimerSet", "WorkflowSignalTaken", "WorkflowBranchChosen")
    once += ("WorkflowIterationBegun", "WorkflowItemsFixed", "WorkflowChildStarted", "WorkflowSignalReceived", "WorkflowCompleted")
    once += ("WorkflowCancelled", "WorkflowCancelRequested", "WorkflowCleanupBegun", "WorkflowAbandoned", *TAKEN_BACK)
    for name in once:
        assert by_branch(events, name) == by_branch(expected, name), name


def by_branch(events: list[Any], name: str) -> dict[str, list[str]]:
    """Addresses of the steps that such an event is about, in order, by branch; only since the last rewind, before which others ran on."""
    found: dict[str, list[str]] = {}
    for event in events:
        if event.name == "Rewound":
            found.clear()
        if event.name == name:
            address = event.metadata.step or ""
            beside = next((prefix for prefix in TOGETHER if address.startswith(prefix)), None)
            branch = "" if beside is None else beside + address.removeprefix(beside).split("/")[0]
            found.setdefault(branch, []).append(address)
    return found


def check_bodies(outcome: Outcome) -> None:
    """Each body that began had a start on record of its own, and none ran twice."""
    calls = Counter(tuple(call) for call in outcome.bodies())
    assert set(calls.values()) <= {1}, "an attempt ran twice"
    steps: dict[str, tuple[str, str]] = {}
    for run_id, step, _, key in calls:
        of = run_id, re.sub(r"^undo/@\d+/", "undo/", step)
        assert steps.setdefault(key, of) == of, f"two steps have the idempotency key {key}"
    for (run_id, step), count in Counter((run_id, step) for run_id, step, *_ in calls).items():
        starts = [event for event in outcome.events[run_id] if "Start" in event.name or "Retried" in event.name]
        assert count <= sum(event.metadata.step == step for event in starts), f"{step} ran without a start on record"


def check_keys(outcome: Outcome, expected: Outcome) -> None:
    """The service outside, which does once what it is asked under one key, has done the same: nothing more, nothing less."""
    keys, wanted = outcome.keys(), expected.keys()
    for run_id, step in keys.keys() | wanted.keys():
        found = keys[run_id, step]
        assert found == wanted[run_id, step], f"{step} of {run_id} had the idempotency keys {found}, and not {wanted[run_id, step]}"


def check_undone(outcome: Outcome) -> None:
    """Each execution of a step was undone under one key: there are no more of these than keys under which the step has begun."""
    began = outcome.keys()
    undone: dict[tuple[str, str], set[str]] = defaultdict(set)
    for (run_id, step), keys in began.items():
        if step.startswith("undo/"):
            undone[run_id, undone_by(step)] |= keys
    for (run_id, step), keys in undone.items():
        assert (run_id, step) in began, f"{step} of {run_id} was undone and has not begun"
        assert len(keys) <= len(began[run_id, step]), f"{step} of {run_id} was undone under {keys}"


def undone_by(step: str) -> str:
    """The step that an undo undoes."""
    return re.sub(r"^undo/(@\d+/)?", "", step)


def check_atomic(outcome: Outcome) -> None:
    """What an atomic step changed and its completion are both in the log, or neither."""
    run, counter = outcome.states.get(f"Workflow:{RUN}"), outcome.states.get("EveryEventCounter:c")
    if run is not None and counter is not None:
        assert (counter["total"], "count" in run["outputs"]) in ((0, False), (2, True))


class Enumeration:
    """All deaths in one story, compared with the one in which nobody dies.

    Attributes:
        boundaries: after how many commits the first process can die.
        deaths: how many processes have died.
    """

    def __init__(self, story: str, directory: Path, sampled: int = 0) -> None:
        self.story = story
        self.sampled = sampled
        self.directory = directory / story
        self.boundaries = 0
        self.deaths = 0

    async def run(self) -> Outcome:
        """Deaths after the first commit, after the second, …, and further ones; gives the outcome that all of them had."""
        whole = Mortal()
        assert await whole.live(self._work)
        self.expected = await Outcome.on(whole.left())
        check_bodies(self.expected)
        check_undone(self.expected)
        self.boundaries = whole.commits - 1
        self.atomic = any(event.metadata.step == "count" for event in self.expected.events[RUN])
        for commits in range(1, whole.commits, max(1, self.boundaries // self.sampled) if self.sampled else 1):
            await self._check(f"dead after {commits}", whole.left(commits), chain([1 + commits % 3], repeat(None)))
            if "SYMPHONY_EVERY" in os.environ:
                await self._check(f"dead after {commits}, again", whole.left(commits), chain([1 + (commits + 1) % 3, 2], repeat(None)))
        for further in () if self.sampled else FURTHER:
            await self._check(f"{further} further", EMPTY, repeat(further))
        if not self.sampled:
            await self._kill_really()
        print(f"{self.story}: {self.boundaries} boundaries between commits, {self.deaths} deaths")
        return self.expected

    async def _work(self, symphony: Mortal) -> None:
        await every_story.go_on(symphony, self.story, symphony.notes.append)

    async def _check(self, name: str, disk: Disk, deaths: Iterator[int | None]) -> None:
        """Processes that die one after the other, until one comes to the story's end."""
        counts = is_progress if not disk.rows else lambda events: True
        for died in range(MOST_DEATHS):
            process = Mortal(disk, commits=next(deaths), counts=counts)
            survived = await process.live(self._work)
            disk = process.left()
            if survived:
                self.deaths += died + (counts is not is_progress)
                self._compare(name, await Outcome.on(disk))
                return
            if self.atomic:
                check_atomic(await Outcome.on(disk))
        raise AssertionError(f"{name}: no progress")

    def _compare(self, name: str, found: Outcome) -> None:
        try:
            assert list(differences(found.states, self.expected.states)) == []
            for run_id, events in found.events.items():
                check_events(events, self.expected.events[run_id])
            check_bodies(found)
            check_keys(found, self.expected)
            check_undone(found)
            assert found.moments() == self.expected.moments()
        except AssertionError as error:
            error.add_note(f"in {self.story}, {name}")
            raise

    async def _kill_really(self) -> None:
        """Kills of a process at boundaries that lie apart, and of several in turn."""
        self.directory.mkdir()
        server = await asyncio.to_thread(Server)
        try:
            for number in range(1, REALLY + 1):
                commits = max(1, self.boundaries * number // (REALLY + 1))
                deaths = chain([commits, 1 + commits % 3], repeat(0))
                directory = self.directory / f"kill-{commits}"
                while not await asyncio.to_thread(partial(server.run, self.story, directory, next(deaths))):
                    self.deaths += 1
                    check_atomic(await Outcome.at(directory))
                self._compare(directory.name, await Outcome.at(directory))
        finally:
            await asyncio.to_thread(server.close)


async def test_every_kind_of_step_survives_a_death_after_every_commit(tmp_path: Path) -> None:
    """All kinds, nested three deep: same outputs, same order, nothing completed runs twice, timers and signals fire once."""
    enumeration = Enumeration("all", tmp_path)
    expected = await enumeration.run()
    main = expected.run()
    assert enumeration.boundaries > 60
    assert main["returned"] == {"sub": [3, "gate/then/second"], "twice": 42, "late": 7}
    assert main["outputs"]["outer"] == {"a": "outer/then/fan/a/deep/then/leaf", "b": [1, 2, 3, "mine alone"]}
    assert main["outputs"]["each"] == [10, 20, 30]
    assert main["outputs"]["collect"] == {"fine": "collect/fine", "bad": {"error": {"type": "ValueError", "message": "always"}}}
    assert main["outputs"]["review"] == [0, 1]
    assert (main["outputs"]["early"], main["outputs"]["expiring"]) == ("bird", "nobody came")
    failed = Counter(event.metadata.step for event in expected.events[RUN] if event.name == "WorkflowStepFailed")
    assert failed == {"collect/bad": 3, "flaky": 2}
    assert expected.states["EveryEventCounter:c"]["total"] == 2


CALLED = {"review/0/weigh": "weigh", "review/1/weigh": "weigh#2", "review/2/weigh": "weigh#3"}
"""Where the steps of a loop are when it is declared, and when it is code."""
AROUND = {"fan", "fan/0", "fan/1", "fan/2", "review"}
"""Composite steps, which have outputs of their own; `gather` and `while` are none."""


async def test_declared_and_coded_end_the_same_under_every_death(tmp_path: Path) -> None:
    """One workflow written both ways: whoever dies, the same result, the same outputs at the same addresses, in the same order."""
    declared, coded = [(await Enumeration(story, tmp_path).run()) for story in ("declared", "coded")]
    assert declared.run()["returned"] == coded.run()["returned"]
    assert coded.run()["returned"][2:] == [[0, 1, 2], {"n": 7}, 21, "at last"]
    outputs = {CALLED.get(at, at): output for at, output in declared.run()["outputs"].items() if at not in AROUND}
    assert outputs == coded.run()["outputs"]
    orders = [by_branch(way.events[RUN], "WorkflowStepCompleted") for way in (declared, coded)]
    orders[0] = {branch: [CALLED.get(at, at) for at in order if at not in AROUND] for branch, order in orders[0].items()}
    assert orders[0] == orders[1]
    assert declared.run(f"{RUN}/sub")["outputs"] == coded.run(f"{RUN}/sub")["outputs"]


def statuses(outcome: Outcome, *run_ids: str) -> list[str]:
    """The statuses of runs."""
    return [outcome.run(run_id)["status"].data.lower() for run_id in run_ids]


UNDONE = [
    *("undo/last", "undo/again/0/turned", "undo/fan/right", "undo/fan/left", "undo/each/1/one", "undo/each/0/one"),
    *("undo/book", "cleanup/tidy"),
]


async def test_what_has_begun_is_undone_once_under_every_death(tmp_path: Path) -> None:
    """A run that fails undoes itself, its child run first: each undo completes once, under one key, in the same order, whoever dies."""
    enumeration = Enumeration("undone", tmp_path)
    expected = await enumeration.run()
    main = expected.run()
    assert statuses(expected, RUN, f"{RUN}/sub") == ["failed", "cancelled"]
    assert expected.completed()[-len(UNDONE) :] == UNDONE
    assert expected.completed(f"{RUN}/sub")[-2:] == ["undo/third", "undo/first"]
    assert main["outputs"]["undo/last"] == ["failed", None, None]
    assert [main["outputs"][f"undo/each/{index}/one"] for index in (0, 1)] == [["completed", 1, 1], ["completed", 2, 2]]
    assert main["outputs"]["undo/book"] == "at last"
    assert enumeration.boundaries > 50


async def test_what_code_has_begun_is_undone_once_under_every_death(tmp_path: Path) -> None:
    """The same of a function, whose calls are undone with the arguments that they had."""
    expected = await Enumeration("undone-code", tmp_path).run()
    main = expected.run()
    assert statuses(expected, RUN, f"{RUN}/sub") == ["failed", "cancelled"]
    assert expected.completed()[-6:] == ["undo/bad", "undo/late", "undo/gather/0/left", "undo/b", "undo/a", "cleanup/tidy"]
    assert main["outputs"]["undo/bad"] == ["bad", "failed", None]
    assert main["outputs"]["undo/a"] == ["a", "completed", "a"]


async def test_a_cancelled_run_is_cleaned_up_once_under_every_death(tmp_path: Path) -> None:
    """Child runs first: one is cleaned up, one is stopped without, one goes on by itself; then undos, then the clean-up with all it has."""
    expected = await Enumeration("cancelled", tmp_path).run()
    kids = [f"{RUN}/fan/{name}" for name in ("kid", "stopped", "loose")]
    assert statuses(expected, RUN, *kids) == ["cancelled", "cancelled", "cancelled", "completed"]
    assert [expected.completed(kid) for kid in kids] == [
        ["reserve", "undo/reserve", "cleanup/sweep"],
        ["reserve"],
        ["first", "free", "second"],
    ]
    done = expected.completed()
    assert done[done.index("undo/each/1/one") :] == [
        *("undo/each/1/one", "undo/each/0/one", "undo/book", "cleanup/refund", "cleanup/rest", "cleanup/tell/0"),
        *("cleanup/tell/1", "cleanup/tell", "cleanup/agree", "cleanup/sweep"),
    ]


async def test_a_clean_up_that_has_failed_is_tried_again_under_every_death(tmp_path: Path) -> None:
    """The step that failed has a new key; what is undone already is not undone again; the main line does not go on."""
    expected = await Enumeration("refunded", tmp_path).run()
    assert statuses(expected, RUN) == ["cancelled"]
    assert expected.run()["error"] is None
    keys = expected.keys()
    assert keys[RUN, "cleanup/refund"] == {f"{RUN}:cleanup/refund:{generation}" for generation in (0, 1)}
    assert len(keys[RUN, "undo/pay"]) == len(keys[RUN, "undo/pack"]) == 1
    assert (RUN, "ship") not in keys


@pytest.mark.parametrize("story", ["resumed", "resumed-code"])
async def test_a_clean_up_that_is_resumed_in_its_middle_and_at_its_end_under_every_death(story: str, tmp_path: Path) -> None:
    """What has failed is done when it is asked for and mended, under its key; who goes on after a death alone does not try it again."""
    expected = await Enumeration(story, tmp_path, SAMPLED).run()
    assert statuses(expected, RUN) == ["cancelled"]
    assert expected.run()["error"] is None
    one, refund = ("undo/each/0/one", "cleanup/refund") if story == "resumed" else ("undo/one", "refund")
    failed = Counter(event.metadata.step for event in expected.events[RUN] if event.name == "WorkflowStepFailed")
    assert failed == {one: 2, "undo/pay": 1, refund: 1, "cleanup/tell": 1}
    done = Counter(expected.completed())
    assert {done[step] for step in (one, "undo/pay", "undo/pack", refund, "cleanup/agree", "cleanup/tell", "cleanup/tidy")} == {1}
    assert {len(keys) for keys in expected.keys().values()} == {1}


@pytest.mark.parametrize(
    ("story", "again", "once"),
    [
        ("retaken", ("again/1/charge", "again/2/check", "each/1/two", "gate"), ("before", "again/0/charge", "again/0/check")),
        ("retaken-code", ("charge#2", "check#3", "beside", "gate"), ("before", "charge", "check")),
    ],
)
async def test_what_is_taken_back_is_done_again_once_under_every_death(
    story: str, again: tuple[str, ...], once: tuple[str, ...], tmp_path: Path
) -> None:
    """A loop with child runs, taken back to its middle: what is taken back has a second key and a second child run, the rest has not."""
    expected = await Enumeration(story, tmp_path).run()
    assert statuses(expected, RUN) == ["completed"]
    keys = expected.keys()
    assert {step: len(keys[RUN, step]) for step in (*again, *once)} == {**dict.fromkeys(again, 2), **dict.fromkeys(once, 1)}
    children = {run_id for run_id in expected.events if run_id != RUN}
    assert len(children) == 5
    assert all(len(keys[run_id, step]) == 1 for run_id in children for step in ("first", "second"))


async def test_a_rewound_and_forked_run_ends_the_same_under_every_death(tmp_path: Path) -> None:
    """What a rewind has not taken back is never done again, also in the child run that was under way; a fork has keys of its own."""
    expected = await Enumeration("rewound", tmp_path).run()
    assert statuses(expected, RUN, f"{RUN}/fan/sub", "forked") == ["completed"] * 3
    keys = expected.keys()
    assert keys[f"{RUN}/fan/sub", "reserve"] == {f"{RUN}/fan/sub:reserve:0"}
    assert {step: len(keys[RUN, step]) for step in ("a", "fan/beside/b", "count", "c")} == {"a": 1, "fan/beside/b": 2, "count": 1, "c": 2}
    assert keys["forked", "c"] == {"forked:c:0"}
    assert (expected.run("forked")["outputs"]["late"], expected.run()["outputs"]["late"]) == ("for the fork", "for the run")


async def test_a_hook_that_must_not_miss_anything_is_told_of_all_under_every_death(tmp_path: Path) -> None:
    """Each moment comes at least once, and under one id."""
    expected = await Enumeration("hooked", tmp_path).run()
    moments = expected.moments()
    assert set(moments.values()) == {1, 2}
    assert {moment: count for moment, count in moments.items() if count == 2} == {
        **{(stage, "flaky"): 2 for stage in ("step_failed", "step_retried")},
        **{(stage, "None"): 2 for stage in ("run_started", "run_completed")},  # of the child run, too
    }


async def test_undone_taken_back_and_undone_again_under_every_death(tmp_path: Path) -> None:
    """Each execution is undone once: those that were undone before, those that were taken back without that, and those that hold."""
    expected = await Enumeration("reclaimed", tmp_path, SAMPLED).run()
    keys = expected.keys()
    assert {
        step: sorted(key.rpartition(":")[2] for key in keys[RUN, step]) for step in ("pay", "pack", "each/1/one", "again/0/turned")
    } == {
        "pay": ["0", "1"],  # what was undone is done again
        "pack": ["0", "1"],
        "each/1/one": ["0", "1", "2"],
        "again/0/turned": ["0", "1", "2"],
    }
    check_all_undone(expected, "pay", "pack", "each/0/one", "each/1/one", "again/0/turned")
    children = [run_id for run_id in expected.events if run_id != RUN]
    assert len(children) == 3
    assert all(keys[run_id, "undo/first"] == {f"{run_id}:undo/first:0"} for run_id in children)


def check_all_undone(outcome: Outcome, *steps: str) -> None:
    """Under whatever key a step of the run has begun, that was undone."""
    keys = outcome.keys()
    for step in steps:
        undone = {key for (run_id, undo), found in keys.items() if run_id == RUN and undo.startswith("undo/") for key in found}
        assert {key.replace(f"{RUN}:", f"{RUN}:undo/", 1) for key in keys[RUN, step]} <= undone, f"{step} was not undone"


async def test_a_rewind_in_the_middle_of_a_clean_up_under_every_death(tmp_path: Path) -> None:
    """What was undone before it is not undone again, and what was under way goes on under its key."""
    expected = await Enumeration("reversed", tmp_path, SAMPLED).run()
    keys = expected.keys()
    assert statuses(expected, RUN) == ["cancelled"]
    assert keys[RUN, "undo/pack"] == {f"{RUN}:undo/pack:0"}
    assert keys[RUN, "undo/order"] == {f"{RUN}:undo/order:0"}
    assert sum(line.startswith(f"{RUN} undo/pack ") for line in expected.notes) == 1


async def test_code_that_is_rewound_and_forked_under_every_death(tmp_path: Path) -> None:
    """The call that was taken back is undone too; the fork undoes nothing and charges nothing."""
    expected = await Enumeration("rewound-code", tmp_path, SAMPLED).run()
    keys = expected.keys()
    assert statuses(expected, RUN, "forked") == ["cancelled", "completed"]
    assert keys[RUN, "both/0/charge"] == {f"{RUN}:both/0/charge:{generation}" for generation in (0, 1)}
    check_all_undone(expected, "order", "both/0/charge")
    assert {step for run_id, step in keys if run_id == "forked"} == {"ship"}


async def test_hooks_are_told_of_undos_and_child_runs_under_every_death(tmp_path: Path) -> None:
    """Each moment comes at least once, under one id: those of undos and of the clean-up of a child run among them."""
    moments = (await Enumeration("hooked-undone", tmp_path, SAMPLED).run()).moments()
    told = {step for stage, step in moments if stage == "step_completed"}
    assert {"undo/last", "undo/each/0/one", "undo/third", "cleanup/tidy"} <= told
    assert moments["run_cancelled", "None"] == moments["run_failed", "None"] == 1


def test_the_definition_has_every_kind_nested_three_deep() -> None:
    """What the test says it runs is what it runs."""
    from symphony_es.workflow.definitions.nesting import walk
    from symphony_es.workflow.definitions.steps import step_kinds

    plan = every_workflow.declared_all().plan
    assert {step.kind for _, step in walk(plan)} >= {kind for kind in step_kinds() if not kind.startswith("test")}
    assert max(path.replace("/then", "").replace("/else", "").count("/") for path, _ in walk(plan)) >= 3


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (["main a 1 k", "main a 1 k"], "ran twice"),
        (["main a 1 k", "main b 1 k"], "two steps"),
        (["main a 1 k"], "without a start"),
        (["main a 1 k", "main a 2 other"], "had the idempotency keys"),
        ([], "had the idempotency keys"),
        (["main a 1 k", "main undo/a 1 u", "main undo/a 2 v"], "was undone under"),
        (["main a 1 k", "main undo/b 1 u"], "has not begun"),
    ],
)
def test_the_checks_see_what_they_look_for(lines: list[str], complaint: str) -> None:
    """An attempt that ran twice, a second key, a body without its start on record, an effect that is missing, a second compensation."""
    outcome = Outcome({}, {RUN: []}, lines)
    with pytest.raises(AssertionError, match=complaint):
        {"without a start": check_bodies, "ran twice": check_bodies, "two steps": check_bodies}.get(
            complaint, check_undone if "undo" in str(lines) else partial(check_keys, expected=Outcome({}, {RUN: []}, ["main a 1 k"]))
        )(outcome)
