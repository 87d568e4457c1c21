"""What is read from the log at its first use is read once, however many ask at once after a start."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.log.sqlite_reading import SQLiteLogReader

EVENTS = 150
Question = Callable[[Symphony, int], Awaitable[Any]]
QUESTIONS: dict[str, Question] = {
    "create_checkpoint": lambda symphony, n: symphony.create_checkpoint(f"one of many {n}"),
    "take_checkpoint": lambda symphony, n: symphony.take_checkpoint(f"one of many {n}", {}),
    "list_checkpoints": lambda symphony, n: symphony.list_checkpoints(),
    "list_runs": lambda symphony, n: symphony.workflows.list_runs(limit=5),
}


async def written(directory: Path) -> None:
    """A log with entities, checkpoints and no snapshot."""
    async with Symphony(directory) as symphony:
        await asyncio.gather(*(symphony.agents.create_agent({"id": f"a{n}", "name": "ann"}) for n in range(EVENTS)))
        await asyncio.gather(*(symphony.take_checkpoint(f"written {n}", {}) for n in range(EVENTS)))


@pytest.fixture
def rows_read(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts the rows that readers of the log have been given."""
    counted: Counter[str] = Counter()
    select = SQLiteLogReader._select

    def counting(self: SQLiteLogReader, *args: Any, **options: Any) -> Any:
        rows = select(self, *args, **options)
        counted["rows"] += len(rows)
        return rows

    monkeypatch.setattr(SQLiteLogReader, "_select", counting)
    return counted


@pytest.mark.parametrize("question", QUESTIONS)
async def test_many_read_what_one_reads(tmp_path: Path, rows_read: Counter[str], question: str) -> None:
    """A hundred callers at once after a start read no more than one does, but for what each of them has appended."""
    await written(tmp_path)
    read = []
    for many in (1, 100):
        async with Symphony(tmp_path) as symphony:
            rows_read.clear()
            await asyncio.gather(*(QUESTIONS[question](symphony, n) for n in range(many)))
            read.append(rows_read["rows"])
    assert read[1] <= read[0] + 110


@pytest.mark.parametrize("question", QUESTIONS)
async def test_who_reads_may_be_cancelled(tmp_path: Path, question: str) -> None:
    """Where the caller that reads is cancelled, another one reads, and all get their answers."""
    await written(tmp_path)
    async with Symphony(tmp_path) as symphony:
        first = asyncio.create_task(QUESTIONS[question](symphony, 0))
        others = [asyncio.create_task(QUESTIONS[question](symphony, n)) for n in range(1, 10)]
        for _ in range(3):
            await asyncio.sleep(0)
        first.cancel()
        await asyncio.gather(*others)
        assert (await symphony.list_checkpoints())[0]["entity_count"] >= EVENTS


def test_another_loop_asks(tmp_path: Path) -> None:
    """A question that was cut off with its event loop holds up nobody in the next one."""
    asyncio.run(written(tmp_path))
    symphony = Symphony(tmp_path)

    async def cut_off() -> None:
        await symphony.setup()
        question = asyncio.create_task(symphony.take_checkpoint("cut off", {}))
        await asyncio.sleep(0)
        question.cancel()

    async def again() -> None:
        await symphony.take_checkpoint("in another loop", {})
        assert (await symphony.list_checkpoints())[0]["entity_count"] == EVENTS
        await symphony.close()

    asyncio.run(cut_off())
    asyncio.run(again())
