"""A seeded part of the random workflows; `make fuzz-workflows` runs all of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.fuzz.__main__ import FUZZERS
from tests.fuzz.chaos import Broken, check_history
from tests.fuzz.declared import Plain, definition
from tests.fuzz.lives import RUN, Diverged, check_declared

PROGRAMS = 15
FEWER = {"many requests at once": 6}


@pytest.mark.parametrize("name", FUZZERS)
async def test_runs_of_random_programs_are_what_a_plain_interpreter_says(name: str) -> None:
    """Whoever dies and whatever interrupts them: results, contexts, errors, and what the functions were called for."""
    check, _ = FUZZERS[name]
    deaths = 0
    for seed in range(FEWER.get(name, PROGRAMS)):
        try:
            deaths += await check(seed)
        except AssertionError as error:
            error.add_note(f"python -m tests.fuzz --what '{name}' --first {seed} --programs 1")
            raise
    assert deaths > 0


def _event(name: str, step: str, **data: Any) -> Any:
    return SimpleNamespace(name=name, metadata=SimpleNamespace(step=step), data=data, position=1)


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


async def test_a_run_that_does_something_else_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter that expects one call more finds it missing."""

    class Other(Plain):
        def __init__(self, defined: dict[str, object], run_id: str) -> None:
            super().__init__(defined, run_id)
            self.calls.add((RUN, "nowhere", "nothing"))

    assert definition(1) == definition(1)
    monkeypatch.setattr("tests.fuzz.declared.Plain", Other)
    with pytest.raises(Diverged, match="nowhere"):
        await check_declared(1)
