"""DBOS Transact on SQLite: asynchronous steps of a workflow, each returning 200 bytes.

Durability: as shipped it sets neither journal mode nor `synchronous`, so a rollback journal with FULL, two transactions per step. Whether
a file is in WAL is a property of the file, so the second variant makes the file with WAL before DBOS opens it; DBOS does not do that by
itself. Both settings are read back from a connection of its own engine. It has no state beside the steps' results, so a step returns
what others append. Its processes are the contenders' own: DBOS is global to a process.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dbos import DBOS, SetWorkflowID

from benchmarks.floors import SYNCHRONOUS, settings_of
from benchmarks.measuring import Place, Sample
from benchmarks.rows.recovering import killed, recovered, tell
from benchmarks.rows.stepping import step_figures
from benchmarks.workload import size_of, step_text

__all__ = ["disk", "prepare_recovery", "recovery", "runs", "steps", "steps_sync", "steps_wal"]

MODULE = "benchmarks.peers.dbos_peer"
moments: list[float] = []
on_step: Callable[[int], None] = lambda number: None  # noqa: E731  replaced by the recovery


@DBOS.step()
async def asynchronous(number: int) -> str:
    """A step."""
    moments.append(time.perf_counter())
    on_step(number)
    return step_text(number)


@DBOS.step()
def plain(number: int) -> str:
    """The same as a plain function."""
    moments.append(time.perf_counter())
    return step_text(number)


@DBOS.workflow()
async def asynchronous_workflow(steps: int) -> int:
    """So many steps, one after the other."""
    for number in range(1, steps + 1):
        await asynchronous(number)
    return steps


@DBOS.workflow()
def plain_workflow(steps: int) -> int:
    """The same of plain functions."""
    for number in range(1, steps + 1):
        plain(number)
    return steps


def _file(directory: Path, *, wal: bool) -> Path:
    """Where its database is to be, made with WAL if wanted."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "dbos.db"
    if wal:
        database = sqlite3.connect(path)
        database.execute("PRAGMA journal_mode=WAL")
        database.close()
    return path


@asynccontextmanager
async def launched(directory: Path, *, wal: bool = False) -> AsyncIterator[dict[str, Any]]:
    """DBOS, launched on a file; executor and version are fixed so that a new process recovers what a killed one has left."""
    path = _file(directory, wal=wal)
    config: Any = {
        "name": "benchmark",
        "system_database_url": f"sqlite:///{path}",
        "executor_id": "benchmark",
        "application_version": "1",
        "log_level": "ERROR",
    }
    DBOS(config=config)
    DBOS.launch()
    try:
        yield {**_settings(), "version": version("dbos")}
    finally:
        DBOS.destroy()


def _settings() -> dict[str, Any]:
    """Read back from a connection of its engine."""
    from dbos._dbos import _get_dbos_instance

    with _get_dbos_instance()._sys_db.engine.connect() as connection:
        mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar()
        level = connection.exec_driver_sql("PRAGMA synchronous").scalar()
    return {"journal_mode": mode, "synchronous": SYNCHRONOUS.get(level, level)}


async def _steps(place: Place, *, wal: bool = False) -> Sample:
    directory = place.own / "state"
    async with launched(directory, wal=wal) as settings:
        assert await asynchronous_workflow(place.sizes["steps"]) == place.sizes["steps"]
    figures, series = step_figures(moments, directory)
    return Sample(figures=figures, settings=settings, series=series)


async def steps(place: Place) -> Sample:
    """Steps a second, as shipped."""
    return await _steps(place)


async def steps_wal(place: Place) -> Sample:
    """Steps a second, on a file in WAL mode."""
    return await _steps(place, wal=True)


async def steps_sync(place: Place) -> Sample:
    """Steps a second, plain functions called from a thread, as shipped."""
    directory = place.own / "state"
    async with launched(directory) as settings:
        assert await asyncio.to_thread(plain_workflow, place.sizes["steps"]) == place.sizes["steps"]
    figures, series = step_figures(moments, directory)
    return Sample(figures=figures, settings=settings, series=series)


async def runs(place: Place) -> Sample:
    """Steps a second of several workflows started at once, as shipped."""
    count, steps = place.sizes["runs"], place.sizes["steps"]
    async with launched(place.own / "state") as settings:
        started = time.perf_counter()
        done = await asyncio.gather(*(asynchronous_workflow(steps) for _ in range(count)))
        took_s = time.perf_counter() - started
    assert done == [steps] * count
    return Sample(figures={"steps_per_s": count * steps / took_s}, settings=settings)


async def disk(place: Place) -> Sample:
    """Bytes of its database, at several lengths."""
    few, series, settings = place.sizes["few"], [], {}
    for steps in (few // 5, few, few * 3):
        directory = place.own / str(steps)
        async with launched(directory) as read_back:
            await asynchronous_workflow(steps)
        settings = read_back
        series.append((steps, size_of(directory)))
    sizes = dict(series)
    return Sample(figures={"bytes_per_step_few": sizes[few] / few}, settings=settings, series={"total_bytes": series})


def prepare_recovery(place: Place) -> None:
    """What a killed process leaves."""
    small = place.sizes["small"]
    killed(MODULE, place.shared / "dbos", small, small // 2)


async def recovery(place: Place) -> Sample:
    """A new process with the same executor id and version launches DBOS, which recovers the workflow by itself."""
    small = place.sizes["small"]
    shutil.copytree(place.shared / "dbos", place.own / "dbos")
    figures = {f"small_{name}": value for name, value in recovered(MODULE, place.own / "dbos", small, small // 2).items()}
    settings = {**settings_of(place.own / "dbos" / "dbos.db"), "version": version("dbos")}
    return Sample(figures=figures, settings=settings)


async def _execute(action: str, directory: Path, steps: int, at: int, clock: dict[str, float]) -> None:
    global on_step

    def kill(number: int) -> None:
        if number == at:
            os.kill(os.getpid(), signal.SIGKILL)

    def first_new(number: int) -> None:
        if number == at + 1:
            tell(clock)

    on_step = kill if action == "start" else first_new
    async with launched(directory):
        clock["opened"] = time.monotonic()
        if action == "start":
            with SetWorkflowID("run"):
                await asynchronous_workflow(steps)
        else:
            await asyncio.sleep(60)  # ends with the first new step


def main() -> None:
    """`start` or `recover` a workflow."""
    action, directory, steps, at, *spawned = sys.argv[1:]
    clock = {"spawn": float(spawned[0])} if spawned else {}
    clock["imports"] = time.monotonic()
    asyncio.run(_execute(action, Path(directory), int(steps), int(at), clock))


if __name__ == "__main__":
    main()
