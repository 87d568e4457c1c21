"""Building anew: beside what serves readers, at full speed, and whenever what is there cannot be gone on with."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from symphony_es.errors import ProjectionFailedError
from symphony_es.log.log import EventLog
from symphony_es.projections import ProjectionRunner, open_current
from symphony_es_projections.files import current_build
from tests.projections.conftest import NewTally, Opener, RunnerMaker, Tally, fill, new, scratch

WRITERS = 6

WHOLE = """
    SELECT (SELECT position FROM projection_progress) AS position, (SELECT count(*) FROM seen) AS rows,
           (SELECT coalesce(max(position), 0) FROM seen) AS last, (SELECT coalesce(sum(count), 0) FROM tally) AS total
"""


def builds(directory: Path) -> list[str]:
    """What is left in the directory, but for SQLite's own files and the lock."""
    return sorted(path.name for path in directory.iterdir() if path.suffix == ".db")


async def write(log: EventLog, key: str, stop: asyncio.Event) -> int:
    version = 0
    while not stop.is_set():
        await log.append([new(key, version + index) for index in (1, 2, 3)])
        version += 3
    return version


async def poll(read: Any, floor: int, stop: asyncio.Event) -> list[int]:
    """Reads all the time: every read has to be whole, and none earlier than one before it."""
    seen = [floor]
    while not stop.is_set():
        position, rows, last, total = (await read(WHOLE))[0]
        assert position == rows == last == total, (position, rows, last, total)
        assert position >= seen[-1], "the content has gone back"
        seen.append(position)
    return seen


async def test_rebuild_while_writers_write(log: EventLog, run: RunnerMaker, directory: Path) -> None:
    """Readers see old or new, never half; nothing is missing or there twice; each side effect happens once, and none in a build."""
    await fill(log, 6000, "Thing:first")
    tally = Tally()
    runner = run(log, tally, batch=200)
    await runner.catch_up()
    runner.start()
    stop = asyncio.Event()
    writers = [asyncio.ensure_future(write(log, f"Thing:{number}", stop)) for number in range(WRITERS)]
    with open_current(directory, "tally") as other:
        pollers = [asyncio.ensure_future(poll(read, 6000, stop)) for read in (tally.read, other.read)]
        files = set()
        for _ in range(3):
            progress: list[tuple[int, int]] = []
            await runner.rebuild("tally", lambda position, goal, told=progress: told.append((position, goal)))
            assert [position for position, _ in progress] == sorted(position for position, _ in progress)
            assert progress[-1][0] == progress[-1][1] >= 6000
            files.add(current_build(directory, "tally"))
        stop.set()
        versions = await asyncio.gather(*writers)
        seen = await asyncio.gather(*pollers)
    await runner.wait_for(log.head, timeout_s=30)
    assert min(versions) > 0
    assert min(map(len, seen)) > 10
    assert len(files) == 3
    assert await tally.content() == await scratch(log)
    assert builds(directory) == [current_build(directory, "tally").name]  # type: ignore[union-attr]
    assert tally.effects == list(range(6001, log.head + 1))
    assert all(rebuilding for rebuilding, batch in tally.batches if batch[0] <= 6000)
    assert runner.parked("tally") == []
    assert tally.rebuilding is False


async def test_a_first_build_while_writers_write(log: EventLog, run: RunnerMaker) -> None:
    """What it begins with has no side effects, what comes afterwards has them once, and there is no gap between."""
    stop = asyncio.Event()
    writers = [asyncio.ensure_future(write(log, f"Thing:{number}", stop)) for number in range(WRITERS)]
    await log.wait_for(1000)
    tally = Tally()
    runner = run(log, tally, batch=100)
    runner.start()
    await runner.wait_for(2000, timeout_s=30)
    stop.set()
    await asyncio.gather(*writers)
    await runner.wait_for(log.head, timeout_s=30)
    assert await tally.content() == await scratch(log)
    built = max(batch[-1] for rebuilding, batch in tally.batches if rebuilding)
    assert built >= 1000
    assert tally.effects == list(range(built + 1, log.head + 1))


async def test_a_raised_version_is_built_beside_the_old_one(log: EventLog, run: RunnerMaker, directory: Path) -> None:
    """Readers have the old one until the new one is complete; what the old one still owed to side effects is told."""
    await fill(log, 500)
    runner = run(log, Tally())
    await runner.catch_up()
    await runner.close()
    await fill(log, 100)
    before = builds(directory)
    positions: list[int] = []

    class Watched(NewTally):
        def apply(self, db: Any, events: Any) -> None:
            with open_current(directory, "tally") as reader:
                positions.append(reader.read_now(WHOLE)[0]["rows"])
            super().apply(db, events)

    tally = Watched()
    runner = run(log, tally, batch=100)
    await runner.catch_up()
    assert positions == [500] * 6
    assert {rebuilding for rebuilding, _ in tally.batches} == {True}
    assert await tally.content() == await scratch(log)
    assert tally.effects == list(range(501, 601))
    assert len(builds(directory)) == 1
    assert builds(directory) != before


@pytest.mark.parametrize(
    ("now", "anew"),
    [
        ({"schema": (*Tally.schema, "CREATE INDEX tally_last ON tally (last)")}, True),
        ({"event_names": ("Changed", "Other")}, True),
        ({"event_names": ()}, True),
        ({"event_names": ["Changed", "Changed"], "schema": list(Tally.schema)}, False),
    ],
)
async def test_another_declaration_is_built_anew(log: EventLog, run: RunnerMaker, now: dict[str, Any], *, anew: bool) -> None:
    """A class that wants other events, or has other tables, does not go on with what is there; one that says the same does."""
    await fill(log, 30)
    await fill(log, 10, "Thing:other", "Other")

    class Before(Tally):
        event_names = ("Changed",)

    runner = run(log, Before())
    await runner.catch_up()
    await runner.close()
    after = type("After", (Tally,), now)()
    await run(log, after).catch_up()
    assert bool(after.batches) == anew
    others = {} if "Other" not in after.event_names and after.event_names else {"Thing:other": 10}
    assert await after.content() == {"Thing:1": 30} | others


async def test_an_unfinished_first_build_goes_on(log: EventLog, run: RunnerMaker, directory: Path) -> None:
    """One that failed in it has not worked in vain, and nobody reads half of it."""
    await fill(log, 1000)
    first = Tally()

    first.poison = lambda event: event.position == 601
    runner = run(log, first, batch=100, max_parked=0)
    with pytest.raises(ProjectionFailedError):
        await runner.catch_up()
    assert current_build(directory, "tally") is None
    assert runner.status()[0].position == 0
    await runner.close()
    second = Tally()
    await run(log, second, batch=100).catch_up()
    assert [batch[0] for _, batch in second.batches] == [601, 701, 801, 901]
    assert await second.content() == await scratch(log)
    assert second.effects == []


async def test_a_rebuild_that_fails_leaves_what_was_there(log: EventLog, run: RunnerMaker, directory: Path) -> None:
    """The old one serves and follows; the unfinished one is gone."""
    await fill(log, 300)
    tally = Tally()
    runner = run(log, tally, batch=100, max_parked=0)
    await runner.catch_up()
    before = builds(directory)
    tally.poison = lambda event: event.position == 250
    with pytest.raises(ProjectionFailedError, match="poison at 250"):
        await runner.rebuild("tally")
    task = asyncio.ensure_future(runner.rebuild("tally", lambda position, goal: task.cancel()))
    with pytest.raises(asyncio.CancelledError):
        await task
    await fill(log, 5)
    await runner.catch_up()
    assert await tally.content() == {"Thing:1": 305}
    await runner.close()
    assert builds(directory) == before


@pytest.mark.parametrize("more", [0, 100])
async def test_ahead_of_a_restored_older_log(open_log: Opener, run: RunnerMaker, tmp_path: Path, more: int) -> None:
    """A log restored from a backup ends earlier, or has other events there by now: both are seen, and it is built anew."""
    log = await open_log()
    await fill(log, 50)
    await log.close()
    shutil.copytree(tmp_path / "log", tmp_path / "backup")
    log = await open_log()
    await fill(log, 50)
    runner = run(log, Tally())
    await runner.catch_up()
    await runner.close()
    await log.close()
    shutil.rmtree(tmp_path / "log")
    (tmp_path / "backup").rename(tmp_path / "log")
    log = await open_log()
    await fill(log, more, "Thing:other")
    tally = Tally()
    await run(log, tally).catch_up()
    assert await tally.content() == await scratch(log)
    assert tally.batches == [(True, list(range(1, 51 + more)))]
    assert tally.effects == []


async def _garbage(path: Path) -> None:
    path.write_bytes(b"no database at all" * 1000)


async def _cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


async def _a_page_of_zeros(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[8192:12288] = bytes(4096)
    path.write_bytes(content)


async def _empty(path: Path) -> None:
    path.write_bytes(b"")


async def _missing(path: Path) -> None:
    path.unlink()


async def _pointer_of_garbage(path: Path) -> None:
    (path.parent / "tally.current").write_text("../../events.db")


@pytest.mark.parametrize("damage", [_garbage, _cut_short, _a_page_of_zeros, _empty, _missing, _pointer_of_garbage])
async def test_damaged_files_are_built_anew(log: EventLog, run: RunnerMaker, directory: Path, damage: Any) -> None:
    """Whatever has happened to the file, the content is the log's afterwards, and there is one file again."""
    await fill(log, 300, "Thing:1")
    await fill(log, 300, "Thing:2")
    runner = run(log, Tally())
    await runner.catch_up()
    await runner.close()
    build = current_build(directory, "tally")
    assert build is not None
    await damage(build)
    tally = Tally()
    await run(log, tally).catch_up()
    assert await tally.content() == await scratch(log)
    assert len(builds(directory)) == 1
    assert tally.effects == []


async def test_damage_that_shows_while_it_follows(
    log: EventLog, run: RunnerMaker, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The projection fails, and the next time it is built anew."""
    tally = Tally()
    runner = run(log, tally)
    await fill(log, 20)
    await runner.catch_up()
    before = builds(directory)
    error = sqlite3.DatabaseError("database disk image is malformed")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT

    def damaged(event: Any) -> bool:
        raise error

    tally.poison = damaged
    await fill(log, 1)
    with pytest.raises(ProjectionFailedError, match="malformed; catch up again: it is built anew"):
        await runner.catch_up()
    tally.poison = lambda event: False
    await runner.catch_up()
    assert await tally.content() == await scratch(log)
    assert len(builds(directory)) == 1
    assert builds(directory) != before


async def test_parked_events_of_the_old_build_are_given_another_chance(log: EventLog, run: RunnerMaker) -> None:
    """A rebuild takes them in; the side effects of those that were live wait for a retry, since a build has none."""
    await fill(log, 10)
    tally = Tally()
    runner = run(log, tally)
    await runner.catch_up()
    tally.poison = lambda event: event.position == 12
    await fill(log, 5)
    await runner.catch_up()
    assert tally.effects == [11, 13, 14, 15]
    tally.poison = lambda event: False
    await runner.rebuild("tally")
    assert await tally.content() == await scratch(log)
    assert tally.effects == [11, 13, 14, 15]
    assert [(parked.position, parked.stage) for parked in runner.parked("tally")] == [(12, "after_commit")]
    assert await runner.retry_parked("tally") == 1
    assert tally.effects == [11, 13, 14, 15, 12]


async def test_two_runners_of_two_directories_agree(log: EventLog, tmp_path: Path) -> None:
    """What a projection holds depends on the log alone: batches of 1 and of 1,000 give the same."""
    await fill(log, 300)
    await fill(log, 30, "Thing:2")
    found = []
    for size in (1, 7, 1000):
        tally = Tally()
        async with ProjectionRunner(log, tmp_path / f"projections-{size}", batch=size) as runner:
            runner.add(tally)
            await runner.catch_up()
            found.append([tuple(row) for row in await tally.read("SELECT * FROM tally ORDER BY key")])
    assert found[0] == found[1] == found[2] == [("Thing:1", 300, 300), ("Thing:2", 30, 330)]


async def test_a_rebuild_that_fails_is_no_failure_of_what_follows(log: EventLog, run: RunnerMaker) -> None:
    """Its error goes to who asked for it; those who wait for the one in place get what they wait for."""
    await fill(log, 10)
    tally = Tally()
    runner = run(log, tally, max_parked=0)
    runner.start()
    await runner.wait_for(10, timeout_s=30)
    tally.poison = lambda event: event.position == 5
    with pytest.raises(ProjectionFailedError, match="poison at 5"):
        await runner.rebuild("tally")
    assert (runner.status()[0].state, runner.status()[0].error) == ("following", None)
    await fill(log, 1)
    await runner.wait_for(11, timeout_s=30)


async def test_a_runner_that_is_closed_during_a_rebuild(log: EventLog, run: RunnerMaker, directory: Path) -> None:
    """The rebuild ends with an error that says so; its file is closed and gone."""
    await fill(log, 2000)
    runner = run(log, Tally(), batch=20)
    await runner.catch_up()
    before = builds(directory)
    begun = asyncio.Event()
    task = asyncio.ensure_future(runner.rebuild("tally", lambda position, goal: begun.set()))
    await begun.wait()
    await runner.close()
    with pytest.raises(ProjectionFailedError, match="the projection runner is closed"):
        await task
    assert builds(directory) == before
    assert not [path for path in directory.iterdir() if path.name.endswith(("-wal", "-shm"))]
