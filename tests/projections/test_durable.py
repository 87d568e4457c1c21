"""Durable projections: position and rows together, batches and savepoints, parked events, side effects, waiting, reading."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from symphony_es.errors import (
    ConfigurationError,
    LogInUseError,
    NotReadyError,
    ProjectionFailedError,
    ProjectionUnavailableError,
)
from symphony_es.events.event import Event
from symphony_es.log.log import EventLog
from symphony_es.projections import EntityStates, Projection, ProjectionRunner, SQLiteProjection, open_current
from tests.projections.conftest import Opener, RunnerMaker, Tally, fill, new, scratch

READER = """
import sys
from symphony_es.projections import open_current
with open_current(sys.argv[1], "tally") as reader:
    print([tuple(row) for row in reader.read_now("SELECT key, count FROM tally")])
"""


async def position_and_rows(projection: SQLiteProjection) -> tuple[int, int]:
    (row,) = await projection.read("SELECT (SELECT position FROM projection_progress), (SELECT count(*) FROM seen)")
    return tuple(row)  # type: ignore[return-value]


async def test_a_restart_goes_on_where_it_was(log: EventLog, run: RunnerMaker) -> None:
    """Nothing is applied again, and the file is the same."""
    await fill(log, 2500)
    first, second = Tally(), Tally()
    runner = run(log, first)
    await runner.catch_up()
    assert [len(batch) for _, batch in first.batches] == [1000, 1000, 500]
    await runner.close()
    await fill(log, 10, "Thing:2")
    await run(log, second).catch_up()
    assert second.batches == [(False, list(range(2501, 2511)))]
    assert await second.content() == await scratch(log) == {"Thing:1": 2500, "Thing:2": 10}


async def test_rows_and_position_are_one_transaction(log: EventLog, run: RunnerMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that dies after the rows and before the position, or the commit, has written neither."""
    from symphony_es_projections.database import ProjectionDatabase

    class DiesError(BaseException):
        pass

    tally = Tally()
    runner = run(log, tally)
    await fill(log, 10)
    await runner.catch_up()
    await fill(log, 10)
    advance = ProjectionDatabase._advance

    def die_before(self: Any, *arguments: Any) -> Any:
        raise DiesError

    def die_after(self: Any, *arguments: Any) -> Any:
        advance(self, *arguments)
        raise DiesError

    for death in (die_before, die_after):
        with monkeypatch.context() as patch:
            patch.setattr(ProjectionDatabase, "_advance", death)
            with pytest.raises(DiesError):
                await runner.catch_up()
        assert tally.batches[-1] == (False, list(range(11, 21)))
        assert await position_and_rows(tally) == (10, 10)
    await runner.catch_up()
    assert await position_and_rows(tally) == (20, 20)


async def test_an_event_that_fails_is_parked_and_retried(log: EventLog, run: RunnerMaker) -> None:
    """The others of its batch are taken in; what it wrote itself is taken back; a retry that succeeds removes it."""
    await fill(log, 20)
    tally = Tally()
    tally.poison = lambda event: event.position in (7, 13)
    runner = run(log, tally)
    await runner.catch_up()
    assert [(parked.position, parked.error_type, parked.message, parked.attempts, parked.stage) for parked in runner.parked("tally")] == [
        (7, "ValueError", "poison at 7", 4, "apply"),
        (13, "ValueError", "poison at 13", 4, "apply"),
    ]
    assert (runner.parked("tally")[0].event_name, runner.parked("tally")[0].entity_key) == ("Changed", "Thing:1")
    assert [len(batch) for _, batch in tally.batches] == [20] * 3 + [1] * 20
    assert await position_and_rows(tally) == (20, 18)
    assert runner.status()[0].parked == 2
    tally.poison = lambda event: event.position == 13
    assert await runner.retry_parked("tally") == 1
    assert [(parked.position, parked.attempts) for parked in runner.parked("tally")] == [(13, 5)]
    await runner.close()
    again = Tally()
    runner = run(log, again)
    await runner.catch_up()
    assert [(parked.position, parked.attempts) for parked in runner.parked("tally")] == [(13, 5)]
    assert await runner.retry_parked("tally") == 1
    assert runner.parked("tally") == []
    assert await again.content() == await scratch(log)
    assert again.effects == []  # they were in a first build


async def test_a_projection_that_is_wrong_itself_fails(log: EventLog, run: RunnerMaker) -> None:
    """Beyond the limit of parked events nothing is passed over; the state and the error say so, and the others go on."""
    await fill(log, 20)
    tally, states = Tally(), EntityStates()
    tally.poison = lambda event: True
    runner = run(log, tally, states, max_parked=5)
    with pytest.raises(ProjectionFailedError, match="more than 5 events") as caught:
        await runner.catch_up()
    assert (caught.value.name, caught.value.position) == ("tally", 0)
    assert [(status.name, status.state, status.position) for status in runner.status()] == [
        ("tally", "failed", 0),
        ("entity_states", "idle", 20),
    ]
    tally.poison = lambda event: False
    await runner.catch_up()
    assert [(status.state, status.error) for status in runner.status()] == [("idle", None)] * 2


async def test_a_projection_may_not_commit(log: EventLog, run: RunnerMaker) -> None:
    """What ends the transaction is refused, also where the sqlite3 module does it by itself."""
    await fill(log, 3)
    refused: list[str] = []

    class Commits(SQLiteProjection):
        name = "commits"
        schema = ("CREATE TABLE seen (position INTEGER PRIMARY KEY)",)

        def apply(self, db: sqlite3.Connection, events: Any) -> None:
            for attempt in (db.commit, db.rollback, lambda: db.executescript("SELECT 1"), lambda: db.execute("COMMIT")):
                try:
                    attempt()
                except sqlite3.DatabaseError as error:
                    refused.append(str(error))
            db.executemany("INSERT INTO seen VALUES (?)", [(event.position,) for event in events])

    projection = Commits()
    await run(log, projection).catch_up()
    assert refused == ["not authorized"] * 4
    assert await position_and_rows(projection) == (3, 3)


async def test_trouble_with_the_database_parks_nothing(log: EventLog, run: RunnerMaker) -> None:
    """A full disk is no fault of an event: the error is typed and says what to do; then it goes on where it was."""
    full = [True]

    class Full(Tally):
        def apply(self, db: sqlite3.Connection, events: Any) -> None:
            if full[0]:
                db.execute("CREATE TABLE large (content)")
                (pages,) = db.execute("PRAGMA page_count").fetchone()
                db.execute(f"PRAGMA max_page_count = {pages}")
                try:
                    db.execute("INSERT INTO large VALUES (zeroblob(1000000))")
                finally:
                    db.execute("PRAGMA max_page_count = 1000000")
            super().apply(db, events)

    await fill(log, 10)
    projection = Full()
    runner = run(log, projection)
    with pytest.raises(ProjectionFailedError, match=r"full.*room on the disk"):
        await runner.catch_up()
    status = runner.status()[0]
    assert (status.state, status.parked, status.position) == ("failed", 0, 0)
    full[0] = False
    await runner.catch_up()
    assert await position_and_rows(projection) == (10, 10)


async def test_following_and_waiting(log: EventLog, run: RunnerMaker) -> None:
    """`wait_for` returns when the rows are there; one that fails holds up nobody else."""
    tally, states = Tally(), EntityStates()

    class Broken(Projection):
        name = "broken"

        def apply(self, event: Any) -> None:
            raise RuntimeError("no")

    runner = run(log, tally, states, Broken(), max_parked=0)
    runner.start()
    runner.start()
    for index in range(1, 6):
        appended = await log.append([new("Thing:1", index)])
        await runner.wait_for(appended.last, "tally", timeout_s=30)
        assert await tally.content() == {"Thing:1": index}
        await runner.wait_for(appended.last, "entity_states", timeout_s=30)
        assert states.get("Thing:1").version == index
    with pytest.raises(ProjectionFailedError, match="more than 0 events"):
        await runner.wait_for(5, timeout_s=30)
    with pytest.raises(TimeoutError):
        await runner.wait_for(6, "tally", timeout_s=0.01)
    assert [(status.state, status.lag_events, status.lag_s) for status in runner.status()][:2] == [("following", 0, 0.0)] * 2
    assert runner.status()[2].state == "failed"
    await runner.stop()
    await fill(log, 1, "Thing:2")
    assert [(status.state, status.lag_events) for status in runner.status()][:2] == [("idle", 1)] * 2
    assert runner.status()[0].lag_s > 0
    waiting = asyncio.ensure_future(runner.wait_for(6, "tally"))
    await asyncio.sleep(0)
    await runner.close()
    with pytest.raises(NotReadyError):
        await waiting


async def test_a_failed_projection_that_follows_tries_again(log: EventLog, run: RunnerMaker) -> None:
    """After the delay, without being asked."""
    tally = Tally()
    tally.poison = lambda event: True
    runner = run(log, tally, max_parked=0, retry_s=0.01)
    runner.start()
    await fill(log, 3)
    with pytest.raises(ProjectionFailedError):
        await runner.wait_for(3, timeout_s=30)
    tally.poison = lambda event: False
    async with asyncio.timeout(30):
        while runner.status()[0].error is not None:
            await asyncio.sleep(0.01)
    assert (runner.status()[0].state, runner.status()[0].position) == ("following", 3)


async def test_side_effects_are_for_live_events_at_least_once(log: EventLog, run: RunnerMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """None in a first build; each live event once; and once more what a crash left between the commit and the note of it."""
    from symphony_es_projections.database import ProjectionDatabase

    await fill(log, 10)
    tally = Tally()
    runner = run(log, tally)
    await runner.catch_up()
    assert tally.effects == []
    await fill(log, 5)
    await runner.catch_up()
    assert tally.effects == list(range(11, 16))

    class DiesError(BaseException):
        pass

    def die(*arguments: Any) -> None:
        raise DiesError

    await fill(log, 2)
    with monkeypatch.context() as patch:
        patch.setattr(ProjectionDatabase, "_note_told", die)
        with pytest.raises(DiesError):
            await runner.catch_up()
    await runner.close()
    again = Tally()
    await run(log, again).catch_up()
    assert (tally.effects, again.effects) == (list(range(11, 18)), [16, 17])
    assert await position_and_rows(again) == (17, 17)


async def test_a_side_effect_that_fails_is_parked_by_itself(log: EventLog, run: RunnerMaker) -> None:
    """The rows stay; a retry calls it for that event only."""

    class Mails(Tally):
        down = True

        def after_commit(self, events: Any) -> None:
            if self.down and any(event.position == 3 for event in events):
                raise ConnectionError("the mail server is away")
            super().after_commit(events)

    await fill(log, 1)
    mails = Mails()
    runner = run(log, mails)
    await runner.catch_up()
    await fill(log, 4)
    await runner.catch_up()
    assert mails.effects == [2, 4, 5]
    assert [(parked.position, parked.stage, parked.error_type) for parked in runner.parked("tally")] == [
        (3, "after_commit", "ConnectionError")
    ]
    assert await runner.retry_parked("tally") == 0
    mails.down = False
    assert await runner.retry_parked("tally") == 1
    assert mails.effects == [2, 4, 5, 3]
    assert runner.parked("tally") == []
    mails.poison = lambda event: event.position == 6
    await fill(log, 2)
    await runner.catch_up()
    assert mails.effects[-1] == 7
    mails.poison = lambda event: False
    assert await runner.retry_parked("tally") == 1
    assert mails.effects[-1] == 6  # a live event that was applied late has its effect late
    assert await position_and_rows(mails) == (7, 7)


async def test_only_the_events_it_wants(log: EventLog, run: RunnerMaker) -> None:
    """The position goes on over all the others."""

    class Some(Tally):
        event_names = ("Wanted",)

    await fill(log, 1500)
    await fill(log, 1, "Thing:2", "Wanted")
    await fill(log, 1500)
    some = Some()
    runner = run(log, some)
    await runner.catch_up(until=1501)
    await runner.catch_up()
    assert await position_and_rows(some) == (3001, 1)
    assert await some.content() == {"Thing:2": 1}


async def test_in_memory(run: RunnerMaker) -> None:
    """Databases in memory for a log in memory: read, parked, rebuilt."""
    log = EventLog.in_memory()
    tally, states = Tally(), EntityStates()
    runner = run(log, tally, states, in_memory=True)
    with pytest.raises(ProjectionUnavailableError, match="not been built"):
        await tally.content()
    await fill(log, 1200)
    tally.poison = lambda event: event.position == 5
    await runner.catch_up()
    assert await tally.content() == {"Thing:1": 1199}
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        await tally.read("DELETE FROM tally")
    tally.poison = lambda event: False
    await runner.rebuild("tally")
    await runner.rebuild("entity_states")
    assert await tally.content() == await scratch(log)
    assert (states.get("Thing:1").version, states.position, states.rebuilding) == (1200, 1200, False)
    await fill(log, 5)
    await runner.catch_up()
    assert tally.effects == list(range(1201, 1206))
    await runner.close()
    await log.close()


async def test_in_memory_projections_park_too(log: EventLog, run: RunnerMaker) -> None:
    """The runner keeps what they could not take in."""

    class Picky(Projection):
        name = "picky"

        def __init__(self) -> None:
            super().__init__()
            self.seen: list[int] = []
            self.poison = 3

        def apply(self, event: Any) -> None:
            if event.position == self.poison:
                raise ValueError("no")
            self.seen.append(event.position)

    await fill(log, 5)
    picky = Picky()
    runner = run(log, picky)
    await runner.catch_up()
    assert (picky.seen, picky.position) == ([1, 2, 4, 5], 5)
    assert [(parked.position, parked.attempts) for parked in runner.parked("picky")] == [(3, 3)]
    assert await runner.retry_parked("picky") == 0
    picky.poison = 0
    assert await runner.retry_parked("picky") == 1
    assert picky.seen == [1, 2, 4, 5, 3]


async def test_files_are_private_and_readers_cannot_write(log: EventLog, run: RunnerMaker, directory: Path) -> None:
    """Directory 0700, files 0600; a statement that is wrong is the sqlite3 module's error."""
    await fill(log, 5)
    tally = Tally()
    runner = run(log, tally)
    with pytest.raises(ProjectionUnavailableError, match="none that is complete"):
        await tally.content()
    await runner.catch_up()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}
    assert sorted(path.suffix for path in directory.iterdir() if path.suffix in (".db", ".current")) == [".current", ".db"]
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        await tally.read("DELETE FROM tally")
    with pytest.raises(sqlite3.OperationalError, match="no such column"):
        await tally.read("SELECT missing FROM tally")
    await runner.close()
    with pytest.raises(ProjectionUnavailableError, match="no runner feeds it"):
        await tally.content()


@pytest.mark.parametrize("closed", [False, True])
async def test_another_process_reads(log: EventLog, run: RunnerMaker, directory: Path, closed: bool) -> None:
    """While the runner has it open, and afterwards."""
    await fill(log, 5)
    runner = run(log, Tally())
    await runner.catch_up()
    if closed:
        await runner.close()
    ended = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", READER, directory], capture_output=True, text=True, check=False)
    assert (ended.stdout, ended.stderr) == ("[('Thing:1', 5)]\n", "")
    with pytest.raises(ProjectionUnavailableError, match="none that is complete"):
        open_current(directory, "other")
    with pytest.raises(ConfigurationError):
        open_current(directory, "../tally")


@pytest.mark.parametrize("closed", [False, True])
async def test_a_directory_that_cannot_be_written(
    log: EventLog, run: RunnerMaker, directory: Path, closed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read all the same; no file is made in it."""
    await fill(log, 5)
    runner = run(log, Tally())
    await runner.catch_up()
    if closed:
        await runner.close()
    directory.chmod(0o500)
    before = sorted(path.name for path in directory.iterdir())
    if os.geteuid() == 0:  # nothing is forbidden to root
        monkeypatch.setattr(os, "access", lambda path, mode: not (mode & os.W_OK and Path(path) == directory))
    try:
        with open_current(directory, "tally") as reader:
            assert (await reader.read("SELECT count FROM tally"))[0]["count"] == 5
        assert sorted(path.name for path in directory.iterdir()) == before
    finally:
        directory.chmod(0o700)


async def test_what_a_runner_refuses(log: EventLog, run: RunnerMaker, directory: Path, tmp_path: Path) -> None:
    """Names that files cannot have, two of one name, a second builder, a directory for a log that another process writes."""

    class Bad(Tally):
        name = "../bad"

    runner = run(log, Tally())
    for wrong in (Bad(), Tally(), "tally"):
        with pytest.raises((ConfigurationError, AttributeError)):
            runner.add(wrong)  # type: ignore[arg-type]
    with pytest.raises(ProjectionUnavailableError, match="it has: tally"):
        await runner.catch_up("other")
    await runner.catch_up()
    with pytest.raises(LogInUseError):
        await run(log, Tally()).catch_up()
    await runner.close()
    await runner.close()
    with pytest.raises(NotReadyError):
        await runner.catch_up()
    with pytest.raises(ConfigurationError):
        ProjectionRunner(log, None, batch=0)
    reading = await EventLog.open_read_only(tmp_path / "log")
    with pytest.raises(ConfigurationError, match="open_current"):
        ProjectionRunner(reading, directory)
    await fill(log, 3)
    tally = Tally()
    follower = run(reading, tally, in_memory=True)
    follower.start()
    await follower.wait_for(3, timeout_s=30)
    assert await tally.content() == {"Thing:1": 3}
    await follower.close()
    await reading.close()


async def test_a_runner_that_closes_tells_nothing_that_it_cannot_note(log: EventLog, run: RunnerMaker) -> None:
    """One projection waits for its second attempt while another is slow to close: the next runner tells it, once."""

    class Flaky(Tally):
        calls = 0

        def after_commit(self, events: Any) -> None:
            self.calls += 1
            if self.calls == 1:
                raise ConnectionError("mail server")
            super().after_commit(events)

    class Slow(Tally):
        name = "slow"
        begun, released = threading.Event(), threading.Event()

        def after_commit(self, events: Any) -> None:
            self.begun.set()
            assert self.released.wait(20)

    await fill(log, 3)
    flaky, slow = Flaky(), Slow()
    runner = run(log, flaky, slow, delay_s=0.1)
    await runner.catch_up()
    await fill(log, 2)
    task = asyncio.ensure_future(runner.catch_up())
    while not (flaky.calls and slow.begun.is_set()):
        await asyncio.sleep(0.005)
    closing = asyncio.ensure_future(runner.close())
    await asyncio.sleep(0.3)  # the second attempt would be made meanwhile
    slow.released.set()
    await asyncio.gather(task, closing, return_exceptions=True)
    again = Tally()
    await run(log, again).catch_up()
    assert sorted(flaky.effects + again.effects) == [4, 5]


async def test_the_loop_goes_on_during_a_build(log: EventLog, run: RunnerMaker) -> None:
    """Applying is done in a thread beside it, which has its turn at least once for each batch."""
    threads: set[int] = set()

    class Beside(Tally):
        def apply(self, db: sqlite3.Connection, events: Any) -> None:
            threads.add(threading.get_ident())
            super().apply(db, events)

    await fill(log, 10_000)
    projection, turns = Beside(), 0
    building = asyncio.ensure_future(run(log, projection).catch_up())
    while not building.done():
        await asyncio.sleep(0)
        turns += 1
    await building
    assert threads
    assert threading.get_ident() not in threads
    assert turns > len(projection.batches) > 1


async def test_a_cancelled_catch_up_does_no_harm(open_log: Opener, run: RunnerMaker) -> None:
    """Whenever it is cancelled, the next one goes on: no position is missing or comes twice."""
    log = await open_log()
    await fill(log, 3000)
    tally = Tally()
    runner = run(log, tally, batch=50)
    for turns in range(1, 60):
        task = asyncio.ensure_future(runner.catch_up())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await runner.catch_up()
    assert await position_and_rows(tally) == (3000, 3000)
    assert runner.parked("tally") == []


async def test_what_fails_after_a_commit_takes_nothing_in_twice(log: EventLog, run: RunnerMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The write-ahead file cannot be looked at once the rows are there: they are there once, and nothing is parked."""
    from symphony_es_projections.written import WrittenFile

    begin = WrittenFile.begin

    def begun(self: WrittenFile, comment: str = "") -> None:
        begin(self, comment)
        self._wal = self.path.with_name("gone")

    monkeypatch.setattr(WrittenFile, "begin", begun)
    await fill(log, 10)
    tally = Tally()
    runner = run(log, tally)
    await runner.catch_up()
    assert (await position_and_rows(tally), runner.parked("tally")) == ((10, 10), [])


async def test_a_batch_that_nobody_waits_for_any_more_is_not_taken_in_twice(log: EventLog, run: RunnerMaker) -> None:
    """The one who asked was cancelled while the worker thread applied; the next one hands in the same rows."""
    await fill(log, 10)
    tally = Tally()
    begun, released = threading.Event(), threading.Event()

    def wait(event: Event) -> bool:
        begun.set()
        return not released.wait(20)

    runner = run(log, tally)
    await runner.catch_up()
    tally.poison = wait
    await fill(log, 10)
    task = asyncio.ensure_future(runner.catch_up())
    await asyncio.to_thread(begun.wait, 20)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    again = asyncio.ensure_future(runner.catch_up())
    while len(runner._feeds["tally"].options.executor._threads) < 2 and not again.done():
        await asyncio.sleep(0.001)  # the second call waits behind the first one
    released.set()
    await again
    assert await position_and_rows(tally) == (20, 20)
    assert [batch for _, batch in tally.batches] == [list(range(1, 11)), list(range(11, 21))]
    assert runner.parked("tally") == []


@pytest.mark.parametrize("is_late", [False, True])
async def test_a_first_build_that_nobody_waits_for_any_more_ends_before_it_is_gone_on_with(
    open_log: Opener, run: RunnerMaker, monkeypatch: pytest.MonkeyPatch, is_late: bool
) -> None:
    """Its batch is under way in a worker thread: who opened the file now would find it before that commit, and take the batch in again.

    The event loop goes on meanwhile, whether the thread that drops the build has got to it or not.
    """
    log = await open_log()
    await fill(log, 10)
    tally = Tally()
    from symphony_es_projections.database import ProjectionDatabase
    from symphony_es_projections.durable_feed import DurableFeed

    begun, released, opened = threading.Event(), threading.Event(), threading.Event()
    really_open, really_drop = ProjectionDatabase.open, DurableFeed._drop

    def wait(event: Event) -> bool:
        begun.set()
        return not released.wait(20)

    def opening(*arguments: Any) -> ProjectionDatabase:
        database = really_open(*arguments)
        opened.set()
        return database

    def dropping(self: DurableFeed, build: Any) -> None:
        released.wait(20)
        really_drop(self, build)

    monkeypatch.setattr(ProjectionDatabase, "open", opening)
    if is_late:
        monkeypatch.setattr(DurableFeed, "_drop", dropping)
    tally.poison = wait
    runner = run(log, tally, batch=5)
    task = asyncio.ensure_future(runner.catch_up())
    await asyncio.to_thread(begun.wait, 20)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    again = asyncio.ensure_future(runner.catch_up())
    too_early = await asyncio.to_thread(opened.wait, 0.5)
    released.set()
    await again
    assert not too_early
    assert await position_and_rows(tally) == (10, 10)
    assert [batch for _, batch in tally.batches] == [list(range(1, 6)), list(range(6, 11))]
    assert runner.parked("tally") == []


@pytest.mark.parametrize("method", ["apply", "after_commit"])
async def test_an_event_that_raises_stop_iteration_is_parked(log: EventLog, run: RunnerMaker, method: str) -> None:
    """`next` of something empty is an error like any other, though no future can hold it."""

    class Next(Tally):
        def fail(self, *arguments: Any) -> None:
            if 2 in [event.position for event in arguments[-1]]:
                next(iter(()))

    setattr(Next, method, Next.fail)
    runner = run(log, Next())
    await runner.catch_up()
    await fill(log, 3)
    async with asyncio.timeout(20):
        await runner.catch_up()
    assert [(parked.position, parked.stage, parked.error_type) for parked in runner.parked("tally")] == [(2, method, "StopIteration")]


async def test_a_transaction_that_apply_takes_back_is_no_progress(log: EventLog, run: RunnerMaker, directory: Path) -> None:
    """SQLite's own ROLLBACK, whose error `apply` passes over: the position stays where it was, and the error says why."""

    class Rollback(Tally):
        def apply(self, db: sqlite3.Connection, events: Any) -> None:
            super().apply(db, events)
            if 3 in [event.position for event in events]:
                with contextlib.suppress(sqlite3.IntegrityError):
                    db.execute("INSERT OR ROLLBACK INTO seen VALUES (3)")

    await fill(log, 5)
    runner = run(log, Rollback())
    with pytest.raises(ProjectionFailedError, match="took the transaction back"):
        await runner.catch_up()
    await runner.close()
    (build,) = directory.glob("tally.*.db")
    with contextlib.closing(sqlite3.connect(build)) as database:
        assert database.execute("SELECT position, notified FROM projection_progress").fetchall() == [(0, 0)]
        assert database.execute("SELECT count(*) FROM tally").fetchone() == (0,)


async def test_lag_is_told_from_when_it_began(log: EventLog, run: RunnerMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was at the head for an hour, and is one event behind now, is not an hour behind."""
    now = 1000.0
    monkeypatch.setattr("symphony_es_projections.feed.time.monotonic", lambda: now)
    runner = run(log, Tally())
    await runner.catch_up()
    now += 3600
    await fill(log, 1)
    assert (runner.status()[0].lag_events, runner.status()[0].lag_s) == (1, 0.0)
    now += 5
    assert runner.status()[0].lag_s == 5.0
    await runner.catch_up()
    assert runner.status()[0].lag_s == 0.0


async def test_who_waits_hears_that_the_log_was_closed(log: EventLog, run: RunnerMaker, tmp_path: Path) -> None:
    """The task that follows ends then: nobody waits for it for ever."""
    await fill(log, 3)
    reading = await EventLog.open_read_only(tmp_path / "log")
    runner = run(reading, Tally(), in_memory=True)
    runner.start()
    await runner.wait_for(3, timeout_s=20)
    waiting = asyncio.ensure_future(runner.wait_for(4))
    await asyncio.sleep(0)
    await reading.close()
    async with asyncio.timeout(20):
        with pytest.raises(ProjectionFailedError, match="the log is closed"):
            await waiting
        with pytest.raises(ProjectionFailedError, match="the log is closed"):
            await runner.wait_for(4)
    assert runner.status()[0].state == "failed"


async def test_an_orderly_end_repeats_no_side_effect(log: EventLog, run: RunnerMaker) -> None:
    """What is told when the runner is closed is noted before the database is closed."""
    begun, released = threading.Event(), threading.Event()

    class Slow(Tally):
        def after_commit(self, events: Any) -> None:
            begun.set()
            released.wait(20)
            super().after_commit(events)

    slow, again = Slow(), Tally()
    runner = run(log, slow)
    await runner.catch_up()
    await fill(log, 3)
    runner.start()
    await asyncio.to_thread(begun.wait, 20)
    await runner.stop()
    closing = asyncio.ensure_future(runner.close())
    await asyncio.sleep(0)
    released.set()
    await closing
    await run(log, again).catch_up()
    assert (slow.effects, again.effects) == ([1, 2, 3], [])


async def test_what_is_being_told_is_not_told_a_second_time(log: EventLog, run: RunnerMaker) -> None:
    """The one who asked was cancelled while `after_commit` went on; the next one waits for it."""
    begun, released = threading.Event(), threading.Event()

    class Slow(Tally):
        def after_commit(self, events: Any) -> None:
            begun.set()
            released.wait(20)
            super().after_commit(events)

    slow = Slow()
    runner = run(log, slow)
    await runner.catch_up()
    await fill(log, 3)
    task = asyncio.ensure_future(runner.catch_up())
    await asyncio.to_thread(begun.wait, 20)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    again = asyncio.ensure_future(runner.catch_up())
    while len(runner._feeds["tally"].options.executor._threads) < 2 and not again.done():
        await asyncio.sleep(0.001)
    released.set()
    await again
    assert slow.effects == [1, 2, 3]
