"""The runner of an application and the audit of its Symphony share a directory and a trail, whichever comes first."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.errors import LogInUseError, ProjectionUnavailableError
from symphony_es.projections import AuditTrail, EntityStates, ProjectionRunner, Runs
from symphony_es_projections.files import ProjectionReader
from tests.application import Customer
from tests.projections.conftest import Tally


@pytest.fixture
async def disk(tmp_path: Path) -> AsyncIterator[Symphony]:
    """A Symphony on disk, in which ann has made two customers."""
    async with Symphony({"state_dir": str(tmp_path / "state")}, persistence_enabled=True) as symphony:
        with symphony.acting_as("ann"):
            for name in "12":
                symphony.entities.add(Customer(id=name))
                await symphony.flush()
        yield symphony


def of_application(symphony: Symphony, *projections: Any) -> ProjectionRunner:
    assert symphony.state_dir is not None
    runner = ProjectionRunner(symphony.log, symphony.state_dir / "projections")
    for projection in projections:
        runner.add(projection)
    return runner


async def found(symphony: Symphony) -> list[str]:
    return [event.entity_key for event in await symphony.audit.find(actor="ann")]


BOTH = ["Customer:1", "Customer:2"]


@pytest.mark.parametrize("follows", [False, True])
@pytest.mark.parametrize("trail", [True, False])
@pytest.mark.parametrize("asked", ["before", "within", "looked at before"])
async def test_both_answer(disk: Symphony, asked: str, trail: bool, follows: bool) -> None:
    """In every order, with and without a trail of the application's, and again when its runner has been closed."""
    if asked == "before":
        assert await found(disk) == BOTH
    if asked == "looked at before":
        assert [status.name for status in disk.projections.status()] == ["audit"]
    own, tally = AuditTrail(), Tally()
    for _ in range(2):
        async with of_application(disk, Runs(), tally, *([own] if trail else [])) as runner:
            if follows:
                runner.start()
                await runner.wait_for(disk.log.head)
            else:
                await runner.catch_up()
            assert await found(disk) == BOTH
            assert len(await disk.audit.consequences(1)) == 0
            if trail:
                assert len(await AuditTrail.find(own)) == disk.log.head
            await runner.catch_up()
            assert set((await tally.content()).values()) == {1}
        assert await found(disk) == BOTH
        assert disk.state_dir is not None
        assert len(list((disk.state_dir / "projections").glob("audit.*.db"))) == 1


async def test_a_runner_that_has_more_is_not_closed(disk: Symphony) -> None:
    """Neither one that follows, nor one that has projections of the application's; the error says where to add them."""
    for prepare in (lambda: disk.projections.add(EntityStates()), lambda: disk.projections.start()):
        prepare()
        await disk.projections.catch_up()
        runner = of_application(disk, Tally())
        with pytest.raises(LogInUseError, match=r"which feeds audit.*symphony.projections"):
            await runner.catch_up()
        await runner.close()
        assert not disk.projections.closed
        await disk.projections.close()


async def test_questions_while_runners_come_and_go(disk: Symphony) -> None:
    """Each is answered, by whoever has the trail at that moment."""
    ended = asyncio.Event()

    async def ask() -> int:
        count = 0
        while not ended.is_set() or not count:
            assert await found(disk) == BOTH
            count += 1
        return count

    asking = [asyncio.ensure_future(ask()) for _ in range(3)]
    try:
        for number in range(6):
            async with of_application(disk, Tally(), *([AuditTrail()] if number % 2 else [])) as runner:
                await runner.catch_up()
            async with disk.projections as runner:
                await runner.catch_up()
    finally:
        ended.set()
    assert all(await asyncio.gather(*asking))


async def test_a_reader_that_is_closed_while_it_opens_a_file_closes_it(disk: Symphony, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose runner is closed under a question: what the question was just opening is left to nobody."""
    assert await found(disk) == BOTH
    assert disk.state_dir is not None
    reader = ProjectionReader(disk.state_dir / "projections", "audit")
    opened: list[sqlite3.Connection] = []

    def connect(*arguments: Any, **named: Any) -> sqlite3.Connection:
        opened.append(sqlite3.connect(*arguments, **named))
        reader.close()
        return opened[-1]

    monkeypatch.setattr("symphony_es_projections.files.sqlite3", SimpleNamespace(**{**vars(sqlite3), "connect": connect}))
    with pytest.raises(ProjectionUnavailableError, match="its reader is closed"):
        await reader.read("SELECT 1")
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        opened[0].execute("SELECT 1")
