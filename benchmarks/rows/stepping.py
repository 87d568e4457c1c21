"""The engine: sequential steps, concurrent runs, late steps, bytes on disk."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import symphony_es.facades.workflows  # noqa: F401  what runs need is imported before any clock starts; Symphony brings it late
from benchmarks.floors import rows_of, settings_of
from benchmarks.measuring import Contender, Goal, Place, Row, Sample, peak_mb
from benchmarks.rows.appending import DATABASE, OURS, rate_behind_hop, synchronous_rate
from benchmarks.workload import opened, sequence_of, size_of, step_text

__all__ = ["ROWS", "gaps_of", "step_figures"]

HERE = "benchmarks.rows.stepping"
DBOS, LANGGRAPH, BURR = "benchmarks.peers.dbos_peer", "benchmarks.peers.langgraph_peer", "benchmarks.peers.burr_peer"
WINDOW = 100


def gaps_of(moments: list[float]) -> list[float]:
    """Milliseconds from each step's function to the next one's."""
    return [(after - before) * 1000 for before, after in pairwise(moments)]


def step_figures(moments: list[float], directory: Path) -> tuple[dict[str, float], dict[str, list[tuple[float, float]]]]:
    """Figures and series of a run whose functions were called at these moments; call it when everything is closed."""
    gaps, steps = gaps_of(moments), len(moments)
    width = max(1, steps // 50)
    curve = [(start, statistics.median(gaps[start : start + width])) for start in range(0, len(gaps), width)]
    rate = (steps - 1) / (moments[-1] - moments[0])
    return {"steps_per_s": rate, "bytes_per_step": size_of(directory) / steps, "total_bytes": size_of(directory)}, {"step_ms": curve}


async def run_steps(directory: Path, steps: int, *, append: bool = True, auto_checkpoint: bool = False) -> list[float]:
    """A run of so many steps; returns the moments at which its function was called."""
    moments: list[float] = []

    async def appends(context: Any) -> None:
        moments.append(time.perf_counter())
        context.append("messages", step_text(len(moments)))

    async def returns(context: Any) -> str:
        moments.append(time.perf_counter())
        return step_text(len(moments))

    async with opened(directory) as symphony:
        definition = sequence_of(symphony, steps, appends if append else returns)
        run = await symphony.workflows.execute_workflow(definition, {"messages": []}, auto_checkpoint=auto_checkpoint)
        assert run.status == "completed", run.error
        assert not append or len(run.context["messages"]) == steps
    return moments


async def _steps(place: Place, **options: bool) -> Sample:
    directory = place.own / "state"
    moments = await run_steps(directory, place.sizes["steps"], **options)
    figures, series = step_figures(moments, directory)
    return Sample(figures=figures, settings=OURS, series=series)


async def steps_ours(place: Place) -> Sample:
    """Each step appends 200 bytes to a list of the run's context."""
    return await _steps(place)


async def steps_returning(place: Place) -> Sample:
    """Each step returns 200 bytes."""
    return await _steps(place, append=False)


async def steps_checkpointing(place: Place) -> Sample:
    """As `steps_ours`, with automatic checkpoints."""
    return await _steps(place, auto_checkpoint=True)


async def prepare_steps(place: Place) -> None:
    """A run whose stored rows the floor commits one by one."""
    await run_steps(place.shared / "state", place.sizes["steps"])


async def steps_floor(place: Place) -> Sample:
    """Raw single-row commits of the rows that complete the steps: without asyncio, and behind a hop from it to a thread."""
    rows = [row for row in rows_of(place.shared / "state" / DATABASE) if row[3] == "WorkflowStepCompleted"]
    behind_hop, settings = await rate_behind_hop(place.own / "hop.db", rows)
    figures = {"steps_per_s": synchronous_rate(place.own / DATABASE, rows), "behind_hop_per_s": behind_hop}
    return Sample(figures=figures, settings=settings)


async def _run_many(directory: Path, runs: int, steps: int) -> dict[str, float]:
    async def work(context: Any) -> None:
        context.append("messages", step_text(context.attempt))

    longest_s = 0.0

    async def watch() -> None:
        nonlocal longest_s
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            longest_s, last = max(longest_s, now - last - 0.001), now

    collections: list[float] = []
    async with opened(directory) as symphony:
        definition = sequence_of(symphony, steps, work)
        gc.callbacks.append(lambda phase, info: collections.append(time.perf_counter() * (1 if phase == "stop" else -1)))
        watching = asyncio.create_task(watch())
        started = time.perf_counter()
        calls = (symphony.workflows.execute_workflow(definition, {"messages": []}, auto_checkpoint=False) for _ in range(runs))
        done = await asyncio.gather(*calls)
        took_s = time.perf_counter() - started
        watching.cancel()
        gc.callbacks.pop()
        assert all(run.status == "completed" for run in done)
    pause_s = max((begun + ended for begun, ended in zip(collections[::2], collections[1::2], strict=False)), default=0.0)
    return {"steps_per_s": runs * steps / took_s, "longest_gap_ms": longest_s * 1000, "gc_pause_ms": pause_s * 1000, "peak_mb": peak_mb()}


async def runs_ours(place: Place) -> Sample:
    """Runs of 20 steps, all at once; with the event loop's longest gap and memory."""
    return Sample(figures=await _run_many(place.own / "state", place.sizes["runs"], place.sizes["steps"]), settings=OURS)


async def disk_ours(place: Place) -> Sample:
    """Bytes of the whole directory per step, few and many."""
    figures, series = {}, []
    for name, steps in (("few", place.sizes["few"]), ("middle", place.sizes["few"] * 3), ("many", place.sizes["many"])):
        directory = place.own / name
        await run_steps(directory, steps)
        figures[f"bytes_per_step_{name}"] = size_of(directory) / steps
        series.append((steps, size_of(directory)))
    await run_steps(place.own / "checkpoints", place.sizes["few"], auto_checkpoint=True)
    figures["with_checkpoints_bytes_per_step"] = size_of(place.own / "checkpoints") / place.sizes["few"]
    await run_steps(place.own / "returning", place.sizes["few"], append=False)
    figures["returning_bytes_per_step"] = size_of(place.own / "returning") / place.sizes["few"]
    settings = {**OURS, **settings_of(place.own / "few" / DATABASE)}
    return Sample(figures=figures, settings=settings, series={"total_bytes": series})


async def late_ours(place: Place) -> Sample:
    """Medians of the 100 steps around number 100 of a run, and of its last 100."""
    moments = await run_steps(place.own / "state", place.sizes["steps"] + 1)
    gaps = gaps_of(moments)
    early, late = gaps[WINDOW // 2 : WINDOW * 3 // 2], gaps[-WINDOW:]
    width = max(1, len(gaps) // 50)
    curve = [(start, statistics.median(gaps[start : start + width])) for start in range(0, len(gaps), width)]
    figures = {"early_ms": statistics.median(early), "late_ms": statistics.median(late)}
    return Sample(figures=figures, settings=OURS, series={"step_ms": curve})


ENGINE = Row(
    name="engine_steps",
    title="engine: 1,000 sequential steps, each appending 200 bytes",
    unit="steps/s",
    contenders=(
        Contender(name="ours", target=f"{HERE}:steps_ours", what="each step appends to a list of the context"),
        Contender(name="floor", target=f"{HERE}:steps_floor", what="raw single-row commits of the rows that complete the steps"),
        Contender(name="ours_returning", target=f"{HERE}:steps_returning", what="each step returns 200 bytes"),
        Contender(name="ours_checkpoints", target=f"{HERE}:steps_checkpointing", what="with automatic checkpoints"),
        Contender(name="dbos", target=f"{DBOS}:steps", what="asynchronous steps that return 200 bytes, as shipped", peer=True),
        Contender(name="dbos_wal", target=f"{DBOS}:steps_wal", what="the same on a file switched to WAL", peer=True),
        Contender(name="dbos_sync", target=f"{DBOS}:steps_sync", what="plain functions as steps, as shipped", peer=True),
        Contender(name="langgraph", target=f"{LANGGRAPH}:steps", what="a node that loops, list channel, durability sync", peer=True),
        Contender(name="burr", target=f"{BURR}:steps", what="an action that loops, list in the state, as shipped", peer=True),
        Contender(name="burr_wal", target=f"{BURR}:steps_wal", what="the same on a file switched to WAL", peer=True),
    ),
    goals=(
        Goal(text="of the raw single-row commit rate", of="ours.steps_per_s", to="floor.steps_per_s", at_least=0.5),
        Goal(text="of the same behind a hop to a thread", of="ours.steps_per_s", to="floor.behind_hop_per_s"),
        Goal(text="of DBOS as shipped", of="ours.steps_per_s", to="dbos.steps_per_s", at_least=6),
        Goal(text="of DBOS on WAL", of="ours.steps_per_s", to="dbos_wal.steps_per_s", at_least=4),
        Goal(text="of LangGraph", of="ours.steps_per_s", to="langgraph.steps_per_s", at_least=4),
        Goal(text="of Burr", of="ours.steps_per_s", to="burr.steps_per_s", at_least=4),
        Goal(text="of DBOS with plain functions", of="ours.steps_per_s", to="dbos_sync.steps_per_s"),
        Goal(text="of Burr on WAL", of="ours.steps_per_s", to="burr_wal.steps_per_s"),
        Goal(text="returning, of the raw commit rate", of="ours_returning.steps_per_s", to="floor.steps_per_s"),
        Goal(text="with checkpoints, of the raw commit rate", of="ours_checkpoints.steps_per_s", to="floor.steps_per_s"),
    ),
    sizes={"default": {"steps": 1000}, "quick": {"steps": 200}},
    prepare=(f"{HERE}:prepare_steps",),
)
RUNS = Row(
    name="concurrent_runs",
    title="engine: 50 runs of 20 steps concurrently",
    unit="steps/s",
    contenders=(
        Contender(name="ours", target=f"{HERE}:runs_ours", what="50 runs at once in one event loop"),
        Contender(name="dbos", target=f"{DBOS}:runs", what="50 workflows started at once, as shipped", peer=True),
    ),
    goals=(Goal(text="of DBOS as shipped", of="ours.steps_per_s", to="dbos.steps_per_s", at_least=20),),
    sizes={"default": {"runs": 50, "steps": 20}, "quick": {"runs": 10, "steps": 20}},
)
DISK = Row(
    name="disk_per_step",
    title="bytes on disk per step, 1,000 and 10,000 steps",
    unit="bytes/step",
    contenders=(
        Contender(name="ours", target=f"{HERE}:disk_ours", what="the whole directory, closed", rounds=1),
        Contender(name="langgraph", target=f"{LANGGRAPH}:disk", what="its database file, closed", peer=True, rounds=1),
        Contender(name="burr", target=f"{BURR}:disk", what="its database file, closed", peer=True, rounds=1),
        Contender(name="dbos", target=f"{DBOS}:disk", what="its database file, closed", peer=True, rounds=1),
    ),
    goals=(
        Goal(text="bytes per step, 1,000 steps", of="ours.bytes_per_step_few", at_most=900),
        Goal(text="bytes per step, 10,000 steps", of="ours.bytes_per_step_many", at_most=900),
        Goal(text="many / few", of="ours.bytes_per_step_many", to="ours.bytes_per_step_few", at_most=1.05),
        Goal(text="LangGraph at 1,000, times ours", of="langgraph.bytes_per_step_few", to="ours.bytes_per_step_few"),
        Goal(text="Burr at 1,000, times ours", of="burr.bytes_per_step_few", to="ours.bytes_per_step_few"),
        Goal(text="DBOS at 1,000, times ours", of="dbos.bytes_per_step_few", to="ours.bytes_per_step_few"),
    ),
    sizes={"default": {"few": 1000, "many": 10_000}, "quick": {"few": 100, "many": 1000}},
    note="Bytes are the same in each round, so there is one. DBOS keeps no state, only what each step returned.",
)
LATE = Row(
    name="late_steps",
    title="time of step 10,000 / time of step 100",
    unit="ms/step",
    contenders=(Contender(name="ours", target=f"{HERE}:late_ours", what="medians of 100 steps of one run, each appending 200 bytes"),),
    goals=(Goal(text="late / early", of="ours.late_ms", to="ours.early_ms", at_most=1.1),),
    sizes={"default": {"steps": 10_000 - 1}, "quick": {"steps": 1000}},
)
MANY = Row(
    name="many_runs",
    title="engine: 500 runs of 20 steps concurrently, the event loop's longest gap",
    unit="steps/s",
    contenders=(Contender(name="ours", target=f"{HERE}:runs_ours", what="500 runs at once in one event loop"),),
    goals=(
        Goal(text="longest gap, ms", of="ours.longest_gap_ms"),
        Goal(text="garbage collector's longest pause, ms", of="ours.gc_pause_ms"),
        Goal(text="peak MB", of="ours.peak_mb"),
    ),
    sizes={"default": {"runs": 500, "steps": 20}, "quick": {"runs": 50, "steps": 20}},
    rounds=3,
    note="Not one of the goals; what many runs at once do to the event loop.",
)
ROWS = (ENGINE, RUNS, DISK, LATE, MANY)
