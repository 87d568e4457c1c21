"""A seeded part of the random workflows; `make fuzz-workflows` runs all of them."""

from __future__ import annotations

import pytest

from tests.fuzz.__main__ import FUZZERS
from tests.fuzz.declared import Plain, definition
from tests.fuzz.lives import RUN, Diverged, check_declared

PROGRAMS = 15


@pytest.mark.parametrize("name", FUZZERS)
async def test_runs_of_random_programs_are_what_a_plain_interpreter_says(name: str) -> None:
    """Whoever dies and whatever interrupts them: results, contexts, errors, and what the functions were called for."""
    check, _ = FUZZERS[name]
    deaths = 0
    for seed in range(PROGRAMS):
        try:
            deaths += await check(seed)
        except Diverged as error:
            error.add_note(f"python -m tests.fuzz --what '{name}' --first {seed} --programs 1")
            raise
    assert deaths > 0


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
