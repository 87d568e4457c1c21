"""LangGraph with AsyncSqliteSaver: a graph of one node that loops, durability "sync".

Durability: the saver itself sets WAL; `synchronous` stays what SQLite was built with (FULL on usual builds), and is set to FULL here so
that it does not depend on the build; both are read back from its connection. `durability="sync"` has each checkpoint written before the
next step begins, as ours has; its default, "async", may lose the last ones. A step is two commits: the writes of the task, and the
checkpoint with the whole list.
"""

from __future__ import annotations

import operator
import time
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, TypedDict

import aiosqlite
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph

from benchmarks.floors import SYNCHRONOUS
from benchmarks.measuring import Place, Sample
from benchmarks.rows.stepping import step_figures
from benchmarks.workload import size_of, step_text

__all__ = ["disk", "steps"]


class State(TypedDict):
    """A list that grows."""

    messages: Annotated[list[str], operator.add]


async def run_steps(directory: Path, steps: int) -> tuple[list[float], dict[str, Any]]:
    """A run of so many steps; the moments at which its node was called, and how the connection is set."""
    moments: list[float] = []

    async def node(state: State) -> dict[str, list[str]]:
        moments.append(time.perf_counter())
        return {"messages": [step_text(len(moments))]}

    graph = StateGraph(State)
    graph.add_node("work", node)
    graph.add_edge(START, "work")
    graph.add_conditional_edges("work", lambda state: END if len(state["messages"]) >= steps else "work")
    directory.mkdir(parents=True)  # noqa: ASYNC240  before the clock
    async with aiosqlite.connect(directory / "checkpoints.db") as connection:
        saver = AsyncSqliteSaver(connection)
        await saver.setup()
        await connection.execute("PRAGMA synchronous=FULL")
        config: Any = {"configurable": {"thread_id": "1"}, "recursion_limit": steps + 10}
        await graph.compile(checkpointer=saver).ainvoke({"messages": []}, config, durability="sync")
        settings = {
            "journal_mode": await _pragma(connection, "journal_mode"),
            "synchronous": SYNCHRONOUS[await _pragma(connection, "synchronous")],
            "durability": "sync",
            "version": f"{version('langgraph')}, checkpoint-sqlite {version('langgraph-checkpoint-sqlite')}",
        }
    assert len(moments) == steps
    return moments, settings


async def _pragma(connection: aiosqlite.Connection, name: str) -> Any:
    async with connection.execute(f"PRAGMA {name}") as cursor:
        row = await cursor.fetchone()
    return row[0] if row is not None else None


async def steps(place: Place) -> Sample:
    """Steps a second."""
    directory = place.own / "state"
    moments, settings = await run_steps(directory, place.sizes["steps"])
    figures, series = step_figures(moments, directory)
    return Sample(figures=figures, settings=settings, series=series)


async def disk(place: Place) -> Sample:
    """Bytes of its database at a few lengths up to `few` steps: they grow with the square, so not at `many`."""
    few, series, settings = place.sizes["few"], [], {}
    for steps in (few // 5, few // 2, few):
        _, settings = await run_steps(place.own / str(steps), steps)
        series.append((steps, size_of(place.own / str(steps))))
    return Sample(figures={"bytes_per_step_few": series[-1][1] / few}, settings=settings, series={"total_bytes": series})
