"""Lists that stand beside the log are caches: what is damaged in them is made anew, whoever meets it, and nobody deletes a file.

What is asked of them may be anything: there is an answer, or an error that says what is wrong with the question.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.errors import ConfigurationError, StorageUnavailableError

ONE_STEP = {"name": "one", "steps": [{"kind": "sleep", "name": "s", "seconds": 0}]}


async def _checkpoints(symphony: Symphony) -> list[str]:
    return [str(entry["name"]) for entry in await symphony.list_checkpoints()]


async def _runs(symphony: Symphony) -> list[str]:
    return [run.id for run in await symphony.workflows.list_runs()]


LISTS: dict[str, tuple[str, Callable[[Symphony], Awaitable[list[str]]]]] = {
    "checkpoints": ("checkpoint_list.db", _checkpoints),
    "runs": ("run_list.db", _runs),
}
"""By table: its file, and what reads it."""


async def _filled(directory: Path) -> None:
    async with Symphony(directory) as symphony:
        for number in range(3):
            await symphony.workflows.execute_workflow(ONE_STEP, run_id=f"{number}", auto_checkpoint=False)
            await symphony.create_checkpoint(f"{number}x")
        await asyncio.gather(*(read(symphony) for _, read in LISTS.values()))


def _damage(file: Path, table: str) -> None:
    """Overwrite the page where a table begins: opening the file does not read it, nor does taking in that nothing has happened."""
    with closing(sqlite3.connect(file)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
    with file.open("r+b") as stream:
        stream.seek((page - 1) * size)
        stream.write(b"\xff" * size)


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("table", LISTS)
async def test_a_page_that_a_question_meets_is_made_anew(tmp_path: Path, table: str, read_only: bool) -> None:
    """All who ask at once get the answer, and so does the next process."""
    await _filled(tmp_path)
    name, read = LISTS[table]
    _damage(tmp_path / "projections" / name, table)
    for _ in range(2):
        async with Symphony(tmp_path, read_only=read_only) as symphony:
            answers = await asyncio.gather(*(read(symphony) for _ in range(5)))
        assert [sorted(answer) for answer in answers] == [sorted(answers[0])] * 5
        assert [text[0] for text in answers[0]] == ["2", "1", "0"]


async def test_a_faulty_question_makes_nothing_anew(tmp_path: Path) -> None:
    """A table of a hundred thousand rows is not read from the log again because of what somebody asks."""
    async with Symphony(tmp_path) as symphony:
        await _runs(symphony)
        listing: Any = symphony.run_listing
        listing._table.clear = lambda: pytest.fail("it is not at fault")
        with pytest.raises(StorageUnavailableError, match="no such table"):
            await listing._asked(lambda: listing._table.connection.execute("SELECT * FROM missing"))


QUESTIONS: dict[str, Callable[[Symphony, Any], Awaitable[Any]]] = {
    "runs by name": lambda symphony, text: symphony.workflows.list_runs(name=["one", text]),
    "runs by step": lambda symphony, text: symphony.workflows.list_runs(step=text),
    "runs by error": lambda symphony, text: symphony.workflows.list_runs(error=text),
    "runs by metadata": lambda symphony, text: symphony.workflows.list_runs(metadata={"customer": text}),
    "runs by key": lambda symphony, text: symphony.workflows.list_runs(metadata={text: 1}),
    "runs after": lambda symphony, text: symphony.workflows.list_runs(after=text),
    "counts": lambda symphony, text: symphony.workflows.count_runs("name", name=text),
    "prune": lambda symphony, text: symphony.workflows.prune_runs(older_than=0, name=text),
    "checkpoints by name": lambda symphony, text: symphony.list_checkpoints(name=text),
    "checkpoints by run": lambda symphony, text: symphony.list_checkpoints(run=text),
    "checkpoints before": lambda symphony, text: symphony.list_checkpoints(before=text),
    "deleting": lambda symphony, text: symphony.delete_checkpoint(text),
    "moment": lambda symphony, text: symphony.at(text),
}


async def test_a_text_that_nothing_can_hold_is_refused(tmp_path: Path) -> None:
    """JSON may bring a lone surrogate into any text: it is the question that is wrong, and the error shows it."""
    await _filled(tmp_path)
    async with Symphony(tmp_path) as symphony:
        for name, ask in QUESTIONS.items():
            with pytest.raises(ConfigurationError, match="lone surrogate"):
                pytest.fail(f"{name}: {await ask(symphony, chr(0xD800))}")


@pytest.mark.parametrize("most", [sys.maxsize - 1, sys.maxsize, 1 << 63, 10**30])
async def test_a_bound_may_be_any_number(tmp_path: Path, most: int) -> None:
    """A limit, a position or a moment that lies beyond all there are means all of them, or none."""
    await _filled(tmp_path)
    async with Symphony(tmp_path) as symphony:
        assert len(await symphony.workflows.list_runs(limit=most)) == len(await symphony.list_checkpoints(limit=most, before=most)) == 3
        assert await symphony.list_checkpoints(before=-most) == []
        assert await symphony.list_checkpoints(before=datetime.min.replace(tzinfo=UTC)) == []
        assert len(await symphony.workflows.list_runs(since=timedelta.max)) == 3
        assert len(await symphony.workflows.list_runs(created_after=timedelta.min)) == 0


async def test_lists_are_for_their_owner_alone(tmp_path: Path) -> None:
    """Whatever the umask: what a list says of runs and checkpoints is as private as the log that it is made of."""
    before = os.umask(0o022)
    try:
        await _filled(tmp_path / "state")
    finally:
        os.umask(before)
    assert {
        path.name: oct(path.stat().st_mode & 0o777)
        for path in (tmp_path / "state" / "projections").iterdir()
        if path.stat().st_mode & 0o077
    } == {}


@pytest.mark.parametrize("table", LISTS)
async def test_where_no_file_can_be_kept_the_list_is_kept_without(tmp_path: Path, table: str) -> None:
    """On a full disk, or where something stands in the file's place, questions and checkpoints are answered all the same, and what comes
    later is in the answers."""
    await _filled(tmp_path)
    name, read = LISTS[table]
    for ending in ("", "-wal", "-shm", "-sums"):
        (tmp_path / "projections" / f"{name}{ending}").unlink(missing_ok=True)
    (tmp_path / "projections" / name / "of somebody else").mkdir(parents=True)
    async with Symphony(tmp_path) as symphony:
        before = await read(symphony)
        await symphony.workflows.execute_workflow(ONE_STEP, run_id="later", auto_checkpoint=False)
        await symphony.create_checkpoint("later x")
        assert len(await read(symphony)) == len(before) + 1 == 4
        assert len(await symphony.at("0x")) > 0
    assert (tmp_path / "projections" / name / "of somebody else").is_dir()
