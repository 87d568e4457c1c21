"""The benchmarks do not rot: every row of the goals is there, its functions exist, and some of them run, without peers."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from benchmarks.measuring import Goal, Result, Row, Sample, run_row
from benchmarks.report import as_json, as_markdown, as_text, earlier, surroundings, write
from benchmarks.rows.table import ROWS

BY_NAME = {row.name: row for row in ROWS}
OF_THE_GOALS = {
    "one_writer", "many_writers", "folding", "engine_steps", "concurrent_runs", "after_kill", "disk_per_step", "late_steps",
    "checkpointing", "resuming", "entity_in_the_past", "write_amplification", "append_growth", "fold_memory", "assigning", "importing",
    "list_appending", "entity_memory", "one_foreign_object",
}  # fmt: skip
SMALL = {
    "one_writer": {"appends": 5},
    "many_writers": {"writers": 8, "each": 2},
    "assigning": {"times": 100},
    "list_appending": {"times": 5},
    "entity_memory": {"entities": 20},
    "one_foreign_object": {"many": 30, "few": 10, "times": 2},
    "folding": {"events": 50, "entities": 5},
}


def test_every_row_is_there_and_has_goals_with_bounds() -> None:
    """The report has one row for each figure to reach."""
    assert BY_NAME.keys() >= OF_THE_GOALS
    for name in OF_THE_GOALS:
        assert any(goal.reached(0) is not None for goal in BY_NAME[name].goals), name


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_rows_fit_together(row: Row) -> None:
    """Goals name contenders of their row, and the functions that are named exist."""
    assert row.contenders[0].name == "ours"
    names = {contender.name for contender in row.contenders}
    for goal in row.goals:
        assert goal.needs <= names, goal.text
    for target in [*row.prepare, *(contender.target for contender in row.contenders)]:
        module, _, function = target.partition(":")
        if not module.startswith("benchmarks.peers."):
            assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize("name", sorted(SMALL))
def test_cheap_rows_run(name: str, tmp_path: Path) -> None:
    """A round at tiny size measures every figure that a goal names, and the report shows it. Times are never asserted."""
    result = run_row(BY_NAME[name], tmp_path, rounds=1, sizes=SMALL[name], isolated=False)
    assert not result.failures
    for goal in result.row.goals:
        if "eventsourcing" not in goal.of + (goal.to or ""):
            assert result.goal_values(goal), goal.text
    around = surroundings("tiny")
    assert name in as_text(result)
    assert f"## {name}" in as_markdown([result], around, [])
    assert json.loads(json.dumps(as_json([result], around)))["rows"][0]["name"] == name


def test_a_contender_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    """What it measured comes back, and one that fails is named with the reason."""
    row = BY_NAME["assigning"]
    result = run_row(row, tmp_path, rounds=1, sizes=SMALL["assigning"])
    assert not result.failures
    failed = run_row(row, tmp_path, rounds=1, sizes={"times": 0})
    assert "ZeroDivisionError" in failed.failures["floor"]


def test_ratios_are_those_of_one_round() -> None:
    """Drift between rounds does not show in them; where the numbers of rounds differ, medians are compared."""
    samples = {"ours": [10.0, 1.0], "floor": [20.0, 2.0], "once": [4.0]}
    result = Result(row=BY_NAME["assigning"], sizes={})
    for name, values in samples.items():
        result.samples[name] = [Sample(figures={"rate": value}) for value in values]
    assert result.goal_values(Goal(text="", of="ours.rate", to="floor.rate")) == [0.5, 0.5]
    assert result.goal_values(Goal(text="", of="ours.rate", to="once.rate")) == [5.5 / 4]
    assert result.goal_values(Goal(text="", of="ours.rate", to="missing.rate")) == []


def test_rows_that_are_not_measured_again_stay(tmp_path: Path) -> None:
    """What was written is read back as it was, for the same surroundings only."""
    result = run_row(BY_NAME["assigning"], tmp_path / "work", rounds=2, sizes=SMALL["assigning"], isolated=False)
    around = surroundings("tiny")
    write([result], tmp_path / "out", around)
    (again,) = earlier(tmp_path / "out", ROWS, around)
    assert as_json([again], around) == json.loads(json.dumps(as_json([result], around)))
    assert earlier(tmp_path / "out", ROWS, surroundings("quick")) == []
    assert earlier(tmp_path / "nothing", ROWS, around) == []
