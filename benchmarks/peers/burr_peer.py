"""Burr with its SQLite persister: an application of one action that loops.

Durability: a plain `sqlite3` connection with its defaults: a rollback journal (`journal_mode=delete`) and `synchronous=FULL`, read back
from the persister's connection. Each step inserts the whole state as JSON and commits. It is synchronous, and called without a thread,
which is its fastest way; its tracker is off. A second variant has the file made with WAL before, which Burr does not do by itself.
"""

from __future__ import annotations

import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from burr.core import ApplicationBuilder, State, action, expr
from burr.core.persistence import SQLitePersister

from benchmarks.floors import settings_of
from benchmarks.measuring import Place, Sample
from benchmarks.rows.stepping import step_figures
from benchmarks.workload import size_of, step_text

__all__ = ["disk", "steps", "steps_wal"]


def run_steps(directory: Path, steps: int, *, wal: bool = False) -> tuple[list[float], dict[str, Any]]:
    """A run of so many steps; the moments at which its action was called, and how the connection is set."""
    moments: list[float] = []

    @action(reads=["count"], writes=["messages", "count"])
    def work(state: State) -> State:
        moments.append(time.perf_counter())
        return state.append(messages=step_text(len(moments))).update(count=state["count"] + 1)

    @action(reads=[], writes=[])
    def done(state: State) -> State:
        return state

    directory.mkdir(parents=True)
    persister = SQLitePersister(str(directory / "burr.db"))
    if wal:
        persister.connection.execute("PRAGMA journal_mode=WAL")
    persister.initialize()
    application = (
        ApplicationBuilder()
        .with_actions(work=work, done=done)
        .with_transitions(("work", "work", expr(f"count < {steps}")), ("work", "done"))
        .with_state(messages=[], count=0)
        .with_entrypoint("work")
        .with_identifiers(app_id="1")
        .with_state_persister(persister)
        .build()
    )
    application.run(halt_after=["done"])
    settings = {**settings_of(persister.connection), "version": version("apache-burr")}
    persister.connection.close()
    assert len(moments) == steps
    return moments, settings


def steps(place: Place, *, wal: bool = False) -> Sample:
    """Steps a second, as shipped."""
    directory = place.own / "state"
    moments, settings = run_steps(directory, place.sizes["steps"], wal=wal)
    figures, series = step_figures(moments, directory)
    return Sample(figures=figures, settings=settings, series=series)


def steps_wal(place: Place) -> Sample:
    """Steps a second, on a file in WAL mode."""
    return steps(place, wal=True)


def disk(place: Place) -> Sample:
    """Bytes of its database at a few lengths up to `few` steps: they grow with the square, so not at `many`."""
    few, series, settings = place.sizes["few"], [], {}
    for steps in (few // 5, few // 2, few):
        _, settings = run_steps(place.own / str(steps), steps)
        series.append((steps, size_of(place.own / str(steps))))
    return Sample(figures={"bytes_per_step_few": series[-1][1] / few}, settings=settings, series={"total_bytes": series})
