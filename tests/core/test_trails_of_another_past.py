"""A trail that is of another log or past, or damaged, is believed by nobody: the log answers until the application has rebuilt it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.cli.main import main
from symphony_es.core.past.audit import Audit, TrailOnDisk
from symphony_es.core.past.opening import open_to_read
from symphony_es.transfer import backup, verify
from tests.application import Customer


async def write(symphony: Symphony, actor: str, count: int, name: str = "") -> None:
    """As many customers, made by an actor, each made by the one before."""
    with symphony.acting_as(actor):
        for number in range(count):
            symphony.entities.add(Customer(id=f"{name or actor}{number}"))
            await symphony.flush()


def opened(state: Path, **options: Any) -> Symphony:
    return Symphony({"state_dir": str(state), **options}, persistence_enabled=True)


async def asked(audit: Audit) -> dict[str, list[str]]:
    """Answers to some questions, as plain as can be."""
    return {
        "ann": [event.entity_key for event in await audit.find(actor="ann", limit=1000)],
        "eve": [event.entity_key for event in await audit.find(actor="eve", limit=1000, newest_first=True)],
        "type": [event.entity_key for event in await audit.find(entity_type="Customer", limit=1000)],
        "followed": [event.entity_key for event in await audit.consequences(1)],
    }


async def by_reader(state: Path) -> dict[str, list[str]]:
    looking = await open_to_read(state)
    try:
        return await asked(Audit(looking.log, looking.audit_trail))
    finally:
        await looking.close()


async def from_the_log(symphony: Symphony) -> dict[str, list[str]]:
    return await asked(Audit(symphony.log, _no_trail))


async def _no_trail() -> None:
    return None


def trail_of(state: Path) -> Path:
    (build,) = (state / "projections").glob("audit.*.db")
    return build


def change(*statements: str) -> Callable[[Path], None]:
    def changed(state: Path) -> None:
        with contextlib.closing(sqlite3.connect(trail_of(state))) as database:
            for statement in statements:
                database.execute(statement)
            database.commit()

    return changed


def overwrite(offset: int, content: bytes) -> Callable[[Path], None]:
    def overwritten(state: Path) -> None:
        with trail_of(state).open("r+b") as file:
            file.seek(offset)
            file.write(content)

    return overwritten


def cut(state: Path) -> None:
    build = trail_of(state)
    build.write_bytes(build.read_bytes()[:5000])


DAMAGES: dict[str, Callable[[Path], None]] = {
    "another log": change("UPDATE projection_progress SET log_id = zeroblob(16)"),
    "no log": change("UPDATE projection_progress SET log_id = x''"),
    "another event": change("UPDATE projection_progress SET event_id = zeroblob(16)"),
    "another content of the event": change("UPDATE projection_progress SET commitment = zeroblob(32)"),
    "no content": change("UPDATE projection_progress SET commitment = x''"),
    "behind, with the head's event": change("UPDATE projection_progress SET position = 5"),
    "beyond the head": change("UPDATE projection_progress SET position = 500"),
    "a position that is not a number": change("UPDATE projection_progress SET position = 'x'"),
    "a negative position": change("UPDATE projection_progress SET position = -1"),
    "another version": change("UPDATE projection_progress SET version = 7"),
    "another name": change("UPDATE projection_progress SET name = 'other'"),
    "no progress": change("DELETE FROM projection_progress"),
    "no table of progress": change("DROP TABLE projection_progress"),
    "an older form": change("ALTER TABLE projection_progress DROP COLUMN commitment"),
    "cut": cut,
    "no database": overwrite(0, b"not a database at all"),
    "a page of zeros": overwrite(4096, bytes(4096)),
}
UNTRUE: dict[str, tuple[Callable[[Path], None], dict[str, Any]]] = {
    "another actor": (change("UPDATE audit SET actor = 'ann' WHERE actor = 'eve' AND position % 2"), {"actor": "ann"}),
    "another run": (change("UPDATE audit SET run_id = 'r' WHERE position = 3"), {"run": "r"}),
    "another name": (change("UPDATE audit SET name = 'Odd' WHERE position = 3"), {"event": ["Odd", "CustomerCreated"]}),
    "another cause": (change("UPDATE audit SET cause = (SELECT event_id FROM audit WHERE position = 1) WHERE position > 1"), {}),
    "no rows of an actor": (change("DELETE FROM audit WHERE actor = 'eve'"), {"actor": "eve"}),
    "rows left out": (change("DELETE FROM audit WHERE position % 3 = 1"), {"entity_type": "Customer"}),
    "another actor, of whom nobody asks": (change("UPDATE audit SET actor = 'bob' WHERE actor = 'eve'"), {"actor": "eve"}),
    "other positions": (change("UPDATE audit SET position = position + 100"), {"actor": "eve"}),
    "an index of other columns": (change("DROP INDEX audit_actor", "CREATE INDEX audit_actor ON audit (name, actor)"), {"actor": "eve"}),
    "no table of rows": (change("DROP TABLE audit"), {"actor": "ann"}),
    "a table of other columns": (change("ALTER TABLE audit RENAME COLUMN actor TO who"), {"actor": "ann"}),
}


@pytest.fixture
async def state(tmp_path: Path) -> Path:
    """A log of two actors, with a trail that is whole."""
    async with opened(tmp_path / "state") as symphony:
        await write(symphony, "ann", 6)
        await write(symphony, "eve", 6)
        assert len(await symphony.audit.find(actor="eve")) == 6
    return tmp_path / "state"


@pytest.mark.parametrize("damage", DAMAGES)
async def test_who_only_reads_gets_the_logs_answers(state: Path, damage: str) -> None:
    """Whatever stands in the trail's file."""
    expected = await by_reader(state)
    assert (len(expected["ann"]), len(expected["eve"])) == (6, 6)
    DAMAGES[damage](state)
    assert await by_reader(state) == expected


@pytest.mark.parametrize("case", UNTRUE)
async def test_an_event_has_to_say_itself_what_the_trail_says_of_it(state: Path, case: str) -> None:
    """An answer of rows that are not so is one of the log instead, for who reads and for who writes."""
    damage, conditions = UNTRUE[case]

    async def ask(audit: Audit) -> list[int]:
        events = await audit.find(**conditions) if conditions else await audit.consequences(1)
        return [event.position for event in events]

    async with opened(state) as symphony:
        expected = await ask(Audit(symphony.log, _no_trail))
        assert await ask(symphony.audit) == expected
        damage(state)
        assert await ask(symphony.audit) == expected
        with contextlib.closing(TrailOnDisk(state / "projections")) as trail:
            assert await ask(Audit(symphony.log, trail)) == expected


@pytest.mark.parametrize("case", UNTRUE)
@pytest.mark.parametrize("open_meanwhile", [False, True])
async def test_rows_that_are_not_so_are_made_anew(
    state: Path, case: str, open_meanwhile: bool, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    """Until then the log answers who reads; `verify` and `doctor` say it of the trail, and then no more."""
    damage, before = UNTRUE[case][0], trail_of(state)
    expected = await by_reader(state)
    assert json.loads(await _said(capsys, 0, "verify", state, "--json"))["read_models"] == 1
    async with contextlib.AsyncExitStack() as stack:
        if open_meanwhile:
            symphony = await stack.enter_async_context(opened(state))
            assert await asked(symphony.audit) == expected
        damage(state)
        assert await by_reader(state) == expected
        assert "1 read model cannot be believed" in await _said(capsys, 0, "verify", state)
        (told,) = json.loads(await _said(capsys, 0, "verify", state, "--json"))["damaged_read_models"]
        assert told["name"] == "audit"
        assert "the read model audit cannot be believed" in await _said(capsys, 1, "doctor", state)
        if not open_meanwhile:
            symphony = await stack.enter_async_context(opened(state))
        assert await asked(symphony.audit) == expected
        assert trail_of(state) != before
    assert await by_reader(state) == expected
    assert "cannot be believed" not in await _said(capsys, 0, "verify", state)


async def test_a_list_of_another_log_is_made_anew(tmp_path: Path) -> None:
    """Its checkpoints and runs are none of this one."""
    lists = ("checkpoint_list.db", "checkpoint_list.db-sums", "run_list.db", "run_list.db-sums")
    async with opened(tmp_path / "one") as symphony:
        await write(symphony, "ann", 3)
        await symphony.create_checkpoint("here")
        await write(symphony, "eve", 3)
        await symphony.fork(into=tmp_path / "other", at="latest")
    for name, expected in (("one", ["here"]), ("other", [])):
        async with opened(tmp_path / name) as symphony:
            await symphony.resume()
            assert [entry["name"] for entry in await symphony.list_checkpoints()] == expected
            assert await symphony.workflows.list_runs() == []
    for name in lists:
        shutil.copy(tmp_path / "one" / "projections" / name, tmp_path / "other" / "projections" / name)
    report = await verify(tmp_path / "other")
    assert sorted(report.damaged_read_models) == [(name, "it is of another log") for name in ("checkpoint_list", "run_list")]
    async with opened(tmp_path / "other") as symphony:
        await symphony.resume()
        assert await symphony.list_checkpoints() == await symphony.workflows.list_runs() == []
    report = await verify(tmp_path / "other")
    assert (report.read_models, report.damaged_read_models) == (2, ())


async def _said(capsys: pytest.CaptureFixture[str], code: int, command: str, state: Path, *options: str) -> str:
    capsys.readouterr()
    assert await asyncio.to_thread(main, [command, "--state-dir", str(state), *options]) == code
    return capsys.readouterr().out


@pytest.mark.parametrize("damage", DAMAGES)
async def test_the_application_builds_it_anew(state: Path, damage: str) -> None:
    """At the next question; it is right from then on, for other processes too."""
    before = trail_of(state)
    DAMAGES[damage](state)
    async with opened(state) as symphony:
        assert await asked(symphony.audit) == await from_the_log(symphony)
        assert trail_of(state) != before
        assert symphony.projections.status()[0].error is None


@pytest.mark.parametrize("further", [0, 3, 6, 30])
async def test_a_log_that_went_another_way(tmp_path: Path, further: int, capsys: pytest.CaptureFixture[str]) -> None:
    """A backup's database is put in place, and goes on: shorter than the trail, as long, longer. `doctor` says it of the trail."""
    state = tmp_path / "state"
    async with opened(state) as symphony:
        await write(symphony, "root", 3)
    await backup(state, tmp_path / "backup")
    async with opened(state) as symphony:
        await symphony.resume()
        await write(symphony, "ann", 6)
        assert len(await symphony.audit.find(actor="ann")) == 6
    for path in state.glob("events.db*"):
        path.unlink()
    shutil.rmtree(state / "snapshots", ignore_errors=True)
    shutil.copy(tmp_path / "backup" / "events.db", state / "events.db")
    async with opened(state, ignore_anchor=True) as symphony:
        await symphony.resume()
        await write(symphony, "eve", further)
        expected = await from_the_log(symphony)
        assert (expected["ann"], len(expected["eve"])) == ([], further)
        assert await by_reader(state) == expected
    assert await by_reader(state) == expected
    await _doctor(state, 1)
    assert "the read model audit cannot be believed" in capsys.readouterr().out
    async with opened(state, ignore_anchor=True) as symphony:
        assert await asked(symphony.audit) == expected
    assert await by_reader(state) == expected
    await _doctor(state, 0)
    assert "audit" not in capsys.readouterr().out


async def _doctor(state: Path, code: int) -> None:
    assert await asyncio.to_thread(main, ["doctor", "--state-dir", str(state)]) == code
