"""A seeded part of the random workflows; `make fuzz-workflows` runs all of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.fuzz.__main__ import FUZZERS
from tests.fuzz.declared import Plain, definition
from tests.fuzz.dying import check_dying
from tests.fuzz.killed import Forks, check_killed
from tests.fuzz.lives import RUN, Declared, Diverged
from tests.fuzz.record import Broken, Call, check_calls, check_history, check_undone

PROGRAMS = 15
FEWER = {"many requests at once": 6}


@pytest.mark.parametrize("name", FUZZERS)
async def test_runs_of_random_programs_are_what_a_plain_interpreter_says(name: str) -> None:
    """Whoever dies and whatever interrupts them: results, contexts, errors, and what the functions were called for."""
    fuzzer, _ = FUZZERS[name]
    deaths = 0
    for seed in range(FEWER.get(name, PROGRAMS)):
        try:
            deaths += await check_dying(fuzzer, seed)
        except AssertionError as error:
            error.add_note(f"python -m tests.fuzz --what '{name}' --first {seed} --programs 1")
            raise
    assert deaths > 0


def test_runs_whose_processes_are_killed_are_what_a_plain_interpreter_says() -> None:
    """The same, where processes are killed by a signal: their logs are on disk, and so is a ledger of what was done outside."""
    kills = 0
    with Forks() as forks:
        for name, (fuzzer, _) in FUZZERS.items():
            try:
                kills += check_killed(forks, name, fuzzer, 0)
            except AssertionError as error:
                error.add_note(f"python -m tests.fuzz --what '{name}' --programs 1 --kill-every 1")
                raise
    assert kills > 0


def _event(name: str, step: str, position: int = 1, **data: Any) -> Any:
    return SimpleNamespace(name=name, metadata=SimpleNamespace(step=step), data=data, position=position)


def _history(*said: str) -> list[Any]:
    """Events of one run, at positions 10, 20, …: `start a`, `end a`, `back a`."""
    names = {"start": "WorkflowStepStarted", "end": "WorkflowStepCompleted"}
    events = []
    for number, (word, _, step) in enumerate((line.partition(" ") for line in said), 1):
        if word == "back":
            events.append(_event("WorkflowRetryRequested", "", 10 * number, dropped=[step]))
        else:
            events.append(_event(names[word], step, 10 * number))
    return events


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (["WorkflowStepStarted", "WorkflowStepCompleted", "WorkflowStepStarted"], "has completed"),
        (["WorkflowStepCompleted", "WorkflowStepCompleted"], "has completed"),
        (["WorkflowCompleted", "WorkflowStepStarted"], "after the end"),
        (["WorkflowCancelled", "WorkflowStepFailed"], "after the end"),
    ],
)
def test_what_must_not_be_in_a_history_is_found(names: list[str], complaint: str) -> None:
    """A step that begins or ends again, and one that goes on after the run's end; what was taken back may begin again."""
    with pytest.raises(Broken, match=complaint):
        check_history("r", [_event(name, "a") for name in names])
    again = _event("WorkflowRetryRequested", "", dropped=["a"])
    check_history("r", [again if number % 2 else _event(names[number // 2], "a") for number in range(2 * len(names))])


TAKEN_BACK = ("start a", "end a", "back a", "start a", "end a")


@pytest.mark.parametrize(
    ("said", "calls", "complaint"),
    [
        (("start a", "end a"), ["15 r:a:0", "25 r:a:0"], "has completed at position 20"),
        (("start a", "end a"), ["15 r:a:0", "20 r:a:0"], "has completed at position 20"),
        (("start a", "start a", "end a"), ["15 r:a:0", "25 r:a:1"], "2 keys"),
        (TAKEN_BACK, ["15 r:a:0", "45 r:a:1", "46 r:a:2"], "3 keys"),
        (TAKEN_BACK, ["15 r:a:0", "45 r:a:1", "46 r:a:0"], "an older key"),
        (TAKEN_BACK, ["15 r:a:0", "25 r:a:0", "45 r:a:1"], "has completed at position 20"),
        (TAKEN_BACK, ["15 r:a:0", "45 r:a:1", "55 r:a:1"], "has completed at position 50"),
        (("start a/b", "end a/b"), ["15 r:a/b:0", "25 r:a/b:0"], "has completed"),
        (("start a", "start undo/a"), ["15 r:a:0", "25 r:undo/a:0", "26 r:undo/a:1"], "2 keys"),
        (("start a", "back a", "start a", "start undo/a"), ["15 r:a:0", "45 r:undo/a:1", "46 r:undo/a:0"], None),
        (("start a", "end a"), ["15 r:a:0", "16 r:a:0"], None),  # the first process died in the middle
        (TAKEN_BACK, ["15 r:a:0", "25 r:a:1", "45 r:a:1"], None),  # what takes it back was not durable yet
        (("start a/b", "end a/b", "back a", "start a/b"), ["15 r:a/b:0", "45 r:a/b:1"], None),
    ],
)
def test_effects_that_must_not_be_are_found(said: tuple[str, ...], calls: list[str], complaint: str | None) -> None:
    """A completed step that calls again, and one that calls under a key of its own though nobody took it back."""
    read = [Call.read(int(line.partition(" ")[0]), line.partition(" ")[2]) for line in calls]
    if complaint is None:
        check_calls(read, {"r": _history(*said)})
    else:
        with pytest.raises(Broken, match=complaint):
            check_calls(read, {"r": _history(*said)})


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        (("start a", "end a"), "a has begun 1 times, was undone 0"),
        (("start a", "start x/a", "end undo/a"), "x/a has begun 1 times, was undone 0"),
        (("start a", "end undo/a", "end undo/a"), "undone 2 times"),
        (("end undo/a",), "has begun 0 times"),
        (("start a", "back a", "start a", "end undo/a"), "has begun 2 times, was undone 1"),
        (("start a", "end undo/a", "back a", "start a"), "has begun 2 times, was undone 1"),
        (("start a", "back a"), "undone 0 times"),
        (("start a", "end a", "start other", "end undo/a"), None),
        (("start a", "start a", "end undo/a"), None),
        (("start a", "end undo/a", "back undo/a", "end undo/a"), None),
        (("start a", "back a", "end undo/@0/a"), None),
        (("start a", "back a", "start a", "end undo/@0/a", "end undo/a"), None),
    ],
)
def test_compensations_that_are_missing_or_too_many_are_found(said: tuple[str, ...], complaint: str | None) -> None:
    """Each execution is undone once in a cancelled run, and nothing else is."""
    if complaint is None:
        check_undone("r", _history(*said), frozenset({"a"}))
    else:
        with pytest.raises(Broken, match=complaint):
            check_undone("r", _history(*said), frozenset({"a"}))


async def test_a_run_that_does_something_else_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter that expects one call more finds it missing."""

    class Other(Plain):
        def __init__(self, defined: dict[str, object], run_id: str) -> None:
            super().__init__(defined, run_id)
            self.calls.add((RUN, "nowhere", "nothing"))

    assert definition(1) == definition(1)
    monkeypatch.setattr("tests.fuzz.declared.Plain", Other)
    with pytest.raises(Diverged, match="nowhere"):
        await check_dying(Declared(), 1)
