"""A service that has finished many runs: its start, its memory, its list of runs, and what a run leaves in the log."""

from __future__ import annotations

import asyncio
import shutil
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.measuring import Contender, Goal, Place, Row, Sample, peak_mb

__all__ = ["ROWS"]

HERE = "benchmarks.rows.finished"
AT_ONCE = 50
FAILING = 100
"""Of so many runs one fails."""


async def prepare(place: Place) -> None:
    """Runs of three steps with automatic checkpoints as they are by default; one in a hundred fails."""
    from symphony_es import Symphony

    async def work(context: Any) -> int:
        return len(context.run_id)

    async def last(context: Any) -> str:
        if context["number"] % FAILING == 0:
            raise ValueError("no such order")
        return "done"

    async with Symphony(place.shared / "log") as symphony:
        symphony.functions.register("work", work)
        symphony.functions.register("last", last)
        definition = symphony.build_workflow("order").add_function("a", "work").add_function("b", "work").add_function("c", "last").build()

        async def some(begin: int) -> None:
            for number in range(begin, place.sizes["runs"], AT_ONCE):
                context, metadata = {"number": number}, {"customer": f"c{number % 1000}"}
                await symphony.workflows.execute_workflow(definition, context, metadata=metadata)

        await asyncio.gather(*(some(begin) for begin in range(AT_ONCE)))


async def ours(place: Place) -> Sample:
    """Open a copy of the log, and the log as a service has left it: resume, recover, and ask for pages of the list."""
    from symphony_es import Symphony

    async def started(directory: Path) -> tuple[Symphony, float]:
        began = time.perf_counter()
        symphony = await Symphony(directory).setup()
        await symphony.resume()
        await symphony.workflows.recover(wait=False)
        return symphony, time.perf_counter() - began

    empty, _ = await started(place.own / "empty")
    await empty.workflows.list_runs()
    await empty.close()
    before = peak_mb()
    shutil.copytree(place.shared / "log", place.own / "log")
    log_bytes = (place.own / "log" / "events.db").stat().st_size
    symphony, copied_s = await started(place.own / "log")
    more_mb = peak_mb() - before
    await symphony.close()
    symphony, start_s = await started(place.own / "log")
    began = time.perf_counter()
    await symphony.workflows.list_runs()
    first_list_s = time.perf_counter() - began
    filters: dict[str, dict[str, Any]] = {
        "all": {},
        "status": {"status": "failed"},
        "name": {"name": "order"},
        "metadata": {"metadata": {"customer": "c7"}},
        "error": {"error": "ValueError"},
        "step": {"step": "c"},
        "created": {"created_before": datetime.now(UTC), "newest_first": False},
    }
    list_ms = {}
    for name, given in filters.items():
        taken = []
        for _ in range(5):
            began = time.perf_counter()
            await symphony.workflows.list_runs(limit=100, **given)
            taken.append((time.perf_counter() - began) * 1000)
        list_ms[f"list_{name}_ms"] = statistics.median(taken)
    await symphony.close()
    starts = {"start_s": start_s, "copied_s": copied_s, "more_mb": more_mb}
    lists = {"list_ms": max(list_ms.values()), "first_list_s": first_list_s, **list_ms}
    return Sample(figures={**starts, **lists, "kb_per_run": log_bytes / place.sizes["runs"] / 1000})


ROWS = (
    Row(
        name="finished_runs",
        title="a service that has finished 100,000 runs of 3 steps: its start, memory and list",
        unit="s to open, resume and recover",
        contenders=(Contender(name="ours", target=f"{HERE}:ours", what="setup(), resume(), recover(wait=False), pages of list_runs"),),
        goals=(
            Goal(text="start, s", of="ours.start_s", at_most=1),
            Goal(text="start on a copy, or after a kill: its index is compared with its rows, s", of="ours.copied_s"),
            Goal(text="more memory than an empty log, MB", of="ours.more_mb", at_most=60),
            Goal(text="list_runs(limit=100), the slowest filter, ms", of="ours.list_ms", at_most=60),
            Goal(text="first list_runs of a process, s", of="ours.first_list_s"),
            Goal(text="log of a run after close, kB", of="ours.kb_per_run", at_most=5),
        ),
        sizes={"default": {"runs": 100_000}, "quick": {"runs": 300}},
        prepare=(f"{HERE}:prepare",),
        rounds=3,
        note="Automatic checkpoints as they are by default; one run in a hundred fails.",
    ),
)
