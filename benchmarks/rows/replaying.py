"""What grows with a run: replaying the recorded steps of a code-first run, and maps, forks and retries of many items.

Time is the event loop's thread's own, so a busy machine changes little; the garbage collector's pauses are a figure of their own.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import symphony_es.facades.workflows  # noqa: F401  what runs need is imported before any clock starts; Symphony brings it late
from benchmarks.measuring import Contender, Goal, Place, Row, Sample
from benchmarks.rows.appending import OURS
from benchmarks.workload import opened
from symphony_es.workflow import step, wait_for_signal

__all__ = ["ROWS"]

HERE = "benchmarks.rows.replaying"
WINDOW = 100


class Gaps:
    """Measures what is done inside of it, on the thread of the event loop.

    Attributes:
        cpu_s: what it took.
        longest_ms: between two turns of the loop, without the garbage collector.
        pause_ms: the garbage collector's longest pause.
    """

    def __init__(self) -> None:
        self.cpu_s = self.longest_ms = self.pause_ms = 0.0
        self._collecting_s = self._begun = 0.0

    def _now(self) -> float:
        return time.thread_time() - self._collecting_s

    def _collect(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._begun = time.thread_time()
        elif self._begun:
            took_s = time.thread_time() - self._begun
            self._collecting_s += took_s
            self.pause_ms = max(self.pause_ms, took_s * 1000)

    async def _watch(self) -> None:
        last = self._now()
        while True:
            await asyncio.sleep(0)
            now = self._now()
            self.longest_ms, last = max(self.longest_ms, (now - last) * 1000), now

    async def __aenter__(self) -> Gaps:
        gc.callbacks.append(self._collect)
        self._watching = asyncio.create_task(self._watch())
        self._started = time.thread_time()
        return self

    async def __aexit__(self, *error: object) -> None:
        self.cpu_s = time.thread_time() - self._started
        await asyncio.sleep(0)
        self._watching.cancel()
        gc.callbacks.remove(self._collect)


async def replay_ours(place: Place) -> Sample:
    """A run of code that has made so many steps, and waits, is taken up by the next process: until its code waits there again."""
    steps, moments, directory = place.sizes["steps"], list[float](), place.own / "state"
    arrived = asyncio.Event()

    async def work() -> int:
        moments.append(time.process_time())
        return len(moments)

    async def flow() -> int:
        for _ in range(steps):
            await step(work)
        arrived.set()
        await wait_for_signal("go")
        return steps

    async with opened(directory) as symphony:
        symphony.workflow(flow)
        handle = await symphony.workflows.start("flow", run_id="r", auto_checkpoint=False)
        await arrived.wait()
        assert len(handle.run.attempts) >= steps
    spent = [(after - before) * 1000 for before, after in pairwise(moments)]
    arrived = asyncio.Event()
    async with opened(directory) as symphony:
        symphony.workflow(flow)
        run = await symphony.workflows.get_run("r")
        async with Gaps() as gaps:
            await symphony.workflows.recover(wait=False, auto_checkpoint=False)
            await arrived.wait()
        assert len(moments) == steps, "a recorded step has run again"
        await symphony.workflows.signal(run, "go")
        assert await symphony.workflows.handle("r").result() == steps
    figures = {
        "steps_per_cpu_s": steps / gaps.cpu_s,
        "longest_gap_ms": gaps.longest_ms,
        "early_ms": statistics.median(spent[WINDOW // 2 : WINDOW * 3 // 2]),
        "late_ms": statistics.median(spent[-WINDOW:]),
    }
    return Sample(figures=figures, settings=OURS)


async def _items(directory: Path, size: int) -> dict[str, float]:
    """Milliseconds of the thread per item, and the longest gap, of what is done with a map of so many items."""
    found: dict[str, Gaps] = {}
    is_mended = False

    async def halves(context: Any) -> int:
        if context["index"] % 2 and not is_mended:
            raise ValueError("not yet")
        return int(context["index"])

    async def last(context: Any) -> None:
        return None

    async with opened(directory) as symphony:
        symphony.functions.register("halves", halves)
        symphony.functions.register("last", last)
        item = {"kind": "function", "name": "item", "function": "halves"}
        each = {"kind": "map", "name": "each", "over": "{{ numbers }}", "step": item, "max_concurrency": 100, "on_error": "collect"}
        definition = {"name": "items", "steps": [each, {"kind": "function", "name": "last", "function": "last"}]}
        workflows = symphony.workflows
        async with Gaps() as found["collect"]:
            run = await workflows.execute_workflow(definition, {"numbers": list(range(size))}, run_id="r", auto_checkpoint=False)
        assert run.status == "completed", run.error
        is_mended = True
        async with Gaps() as found["fork"]:
            await workflows.fork("r", at="last", run_id="f")
        async with Gaps() as found["retry"]:
            await workflows.retry_from("r", f"each/{size // 2 + 1}", auto_checkpoint=False)
        async with Gaps() as found["rest"]:
            await symphony.close()
    figures = {f"{name}_us": gaps.cpu_s * 1e6 / size for name, gaps in found.items()}
    longest = {f"{name}_gap_ms": gaps.longest_ms for name, gaps in found.items()}
    return figures | longest | {"gc_pause_ms": max(gaps.pause_ms for gaps in found.values())}


async def items_ours(place: Place) -> Sample:
    """The same for n items, and for ten times as many."""
    size = place.sizes["items"]
    few, many = await _items(place.own / "few", size // 10), await _items(place.own / "many", size)
    return Sample(figures={**{f"few_{name}": value for name, value in few.items()}, **many}, settings=OURS)


REPLAY = Row(
    name="code_replay",
    title="code-first run of 50,000 steps: replayed by the next process; its last live steps and its 100th",
    unit="steps/CPU s",
    contenders=(Contender(name="ours", target=f"{HERE}:replay_ours", what="from recover() to the end of the record", rounds=1),),
    goals=(
        Goal(text="recorded steps per CPU second", of="ours.steps_per_cpu_s", at_least=60_000),
        Goal(text="longest gap, ms", of="ours.longest_gap_ms", at_most=50),
        Goal(text="live step, late / early", of="ours.late_ms", to="ours.early_ms", at_most=1.15),
    ),
    sizes={"default": {"steps": 50_000}, "quick": {"steps": 2_000}},
)
ITEMS = Row(
    name="many_items",
    title="a map of 20,000 items of which half fail, collected; its fork, retry of one item, and close, against a tenth of them",
    unit="us/item",
    contenders=(Contender(name="ours", target=f"{HERE}:items_ours", what="the thread's time per item, and the longest gap", rounds=1),),
    goals=(
        *(
            Goal(text=f"{name}: 20,000 / 2,000", of=f"ours.{name}_us", to=f"ours.few_{name}_us", at_most=1.5)
            for name in ("collect", "fork", "retry")
        ),
        *(Goal(text=f"{name}: longest gap, ms", of=f"ours.{name}_gap_ms", at_most=50) for name in ("collect", "fork", "retry", "rest")),
        Goal(text="garbage collector's longest pause, ms", of="ours.gc_pause_ms"),
    ),
    sizes={"default": {"items": 20_000}, "quick": {"items": 1_000}},
    note="The figures are of the event loop's thread; work in other threads is not counted.",
)
ROWS = (REPLAY, ITEMS)
