"""Verification names the first bad position, whatever was done to the log, and goes on behind it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from symphony_es.core.past.snapshots.store import SnapshotStore
from symphony_es.errors import ConfigurationError, LogUnavailableError
from symphony_es.events.event import EventMetadata, NewEvent
from symphony_es.events.rows import CHECK_BYTES, CONTENT_START, HEADER_BYTES, Row, decode_row, event_id_of, time_of
from symphony_es.log.log import EventLog
from symphony_es.transfer import verify, verify_log
from tests.transfer.logs import make_log, rows_of, sealed, snapshot_at, stored, tamper

UPDATE = "UPDATE stored_events SET originator_id = ?, originator_version = ?, topic = ?, state = ? WHERE position = ?"
Statement = tuple[str, tuple[object, ...]]
ROWS = rows_of(60)


def put(row: Row) -> Statement:
    """The statement that puts a row where another one was."""
    return UPDATE, (*row[1:], row[0])


def resealed(row: Row, **other: object) -> Row:
    """The row with its event altered and a new, right check value: what only versions, times and transactions can betray."""
    event = decode_row(row)
    values = {
        "entity_key": event.entity_key, "version": event.version, "name": event.name, "changes": event.changes, "metadata": event.metadata,
        "event_id": event.event_id, "transaction_id": None if event.transaction_id == event.event_id else event.transaction_id,
    }  # fmt: skip
    time_ns = other.pop("time_ns", event.time_ns)
    position = other.pop("position", event.position)
    return sealed(NewEvent(**{**values, **other}), position, time_ns)  # type: ignore[arg-type]


def flipped(position: int) -> list[Statement]:
    """One bit of the state is another one."""
    state = bytearray(ROWS[position - 1][4])
    state[CONTENT_START + 10] ^= 1
    return [("UPDATE stored_events SET state = ? WHERE position = ?", (bytes(state), position))]


def swapped(position: int) -> list[Statement]:
    """Two neighbours have changed places; the check value covers the position."""
    one, other = ROWS[position - 1], ROWS[position]
    statements = [("UPDATE stored_events SET position = ? WHERE position = ?", pair) for pair in ((-1, position), (position, position + 1))]
    return [*statements, ("UPDATE stored_events SET position = ? WHERE position = ?", (position + 1, -1))] if one != other else []


def swapped_and_resealed(position: int) -> list[Statement]:
    """Two events of one entity have changed places, check values and all."""
    one, other = ROWS[position - 1], ROWS[position + 4]
    assert one[1] == other[1]
    rows = [resealed(other, position=one[0], time_ns=time_of(one[4])), resealed(one, position=other[0], time_ns=time_of(other[4]))]
    return [("DELETE FROM stored_events WHERE position IN (?, ?)", (one[0], other[0]))] + [
        ("INSERT INTO stored_events VALUES (?, ?, ?, ?, ?)", row) for row in rows
    ]


def edited_actor(position: int) -> list[Statement]:
    """The body says another actor, under the old header."""
    old = ROWS[position - 1]
    new = resealed(old, metadata=EventMetadata(actor="mallory", reason="because", run_id="r1", step="s", attempt=1))
    return [put((*old[:4], old[4][:HEADER_BYTES] + new[4][HEADER_BYTES:-CHECK_BYTES] + old[4][-CHECK_BYTES:]))]


def renamed(position: int) -> list[Statement]:
    """The event has another name."""
    return [("UPDATE stored_events SET topic = 'TaskDeleted' WHERE position = ?", (position,))]


def missing(position: int) -> list[Statement]:
    """The event is not there."""
    return [("DELETE FROM stored_events WHERE position = ?", (position,))]


def back_dated(position: int) -> list[Statement]:
    """The event has an earlier time than the one before it, under a right check value."""
    return [put(resealed(ROWS[position - 1], time_ns=time_of(ROWS[position - 1][4]) - 5000))]


def of_another_transaction(position: int) -> list[Statement]:
    """The event claims to belong to a transaction that is over."""
    return [put(resealed(ROWS[position - 1], transaction_id=event_id_of(ROWS[0][4])))]


def of_wrong_type(position: int) -> list[Statement]:
    """The state is text."""
    return [("UPDATE stored_events SET state = 'text' WHERE position = ?", (position,))]


def of_no_text(position: int) -> list[Statement]:
    """The name is no UTF-8, so that SQLite's reader fails on the whole page of rows."""
    return [("UPDATE stored_events SET topic = CAST(x'ff' AS TEXT) WHERE position = ?", (position,))]


DAMAGES = [
    flipped, swapped, swapped_and_resealed, edited_actor, renamed, missing, back_dated, of_another_transaction, of_wrong_type, of_no_text,
]  # fmt: skip


async def test_a_whole_log_is_ok(tmp_path: Path) -> None:
    """Nothing is reported, everything is counted, with and without folding."""
    directory = make_log(tmp_path / "log", ROWS)
    await snapshot_at(directory, ROWS, 40)
    told: list[tuple[int, int]] = []
    for fold in (False, True):
        report = await verify(directory, fold=fold, on_progress=lambda done, total: told.append((done, total)))
        assert report.ok
        assert (report.events, report.head, report.problems, report.first_bad_position, report.snapshots) == (60, 60, (), None, 1)
    assert told[-1] == (60, 60)


NEEDS_ONE_BEFORE = (back_dated, of_another_transaction)
PLACES = [(damage, position) for damage in DAMAGES for position in (1, 17, 31) if position > 1 or damage not in NEEDS_ONE_BEFORE]


@pytest.mark.parametrize(("damage", "position"), PLACES, ids=lambda value: getattr(value, "__name__", str(value)))
async def test_damage_is_found_where_it_begins(tmp_path: Path, damage: Callable[[int], list[Statement]], position: int) -> None:
    """The first bad position is the exact one, folded or not; what is good behind it is counted."""
    directory = make_log(tmp_path / "log", ROWS)
    tamper(directory, *damage(position))
    for fold in (False, True):
        report = await verify(directory, fold=fold)
        assert not report.ok
        assert report.first_bad_position == position
        assert report.events > 40
        assert report.problem_count == len(report.problems) <= 15
        assert report.problems[0].way_out
        assert report.head == 60


@pytest.mark.parametrize("damage", [flipped, edited_actor, renamed, of_wrong_type, of_no_text], ids=lambda damage: damage.__name__)
async def test_one_damaged_event_is_one_problem(tmp_path: Path, damage: Callable[[int], list[Statement]]) -> None:
    """The events behind it are not blamed for it, and its entity is named where it can be."""
    directory = make_log(tmp_path / "log", ROWS)
    tamper(directory, *damage(20))
    report = await verify(directory)
    assert [problem.position for problem in report.problems][:1] == [20]
    assert report.problem_count == (1 if damage is not of_no_text else 2)  # without its key, its entity seems to miss a version


@pytest.mark.parametrize("hide", [False, True])
async def test_a_removed_tail_is_found(tmp_path: Path, hide: bool) -> None:
    """By the snapshot behind it, also when SQLite's own counter has been set back."""
    directory = make_log(tmp_path / "log", ROWS)
    await snapshot_at(directory, ROWS, 50)
    statements: list[Statement] = [("DELETE FROM stored_events WHERE position > 44", ())]
    if hide:
        statements.append(("UPDATE sqlite_sequence SET seq = 44 WHERE name = 'stored_events'", ()))
    tamper(directory, *statements)
    report = await verify(directory)
    assert (report.first_bad_position, report.problem_count, report.events, report.head) == (45, 1, 44, 44)
    assert "position 50" in report.problems[0].what
    assert ("position 60" in report.problems[0].what) != hide


async def test_a_rewritten_history_is_found_by_a_snapshot(tmp_path: Path) -> None:
    """Another event where a snapshot was taken, under right check values; an event before it is betrayed by folding only."""
    directory = make_log(tmp_path / "log", ROWS)
    await snapshot_at(directory, ROWS, 50)
    tamper(directory, put(resealed(ROWS[49], changes=[(0, ("n",), 0)])))
    assert (await verify(directory)).first_bad_position == 50
    other = make_log(tmp_path / "other", ROWS)
    await snapshot_at(other, ROWS, 50)
    tamper(other, put(resealed(ROWS[47], changes=[(0, ("n",), 0)])))
    assert (await verify(other, fold=False)).ok
    report = await verify(other)
    assert report.first_bad_position == 50
    assert "another state of Task:t3" in report.problems[0].what


async def test_an_event_that_does_not_fit_is_found_by_folding(tmp_path: Path) -> None:
    """A change of a path that is not there, under a right check value; the entity's later events are not blamed for it."""
    directory = make_log(tmp_path / "log", ROWS)
    tamper(directory, put(resealed(ROWS[22], changes=[(0, ("no", "such"), 0)])))
    assert (await verify(directory, fold=False)).ok
    report = await verify(directory)
    assert [(problem.position, problem.version, problem.entity) for problem in report.problems] == [(23, 5, "Task:t3")]
    assert "no.such" in report.problems[0].what
    assert "entities.repair('Task:t3')" in report.problems[0].way_out
    assert report.whole
    assert list(report.damaged) == ["Task:t3"]


async def test_a_damaged_snapshot_is_no_problem_of_the_log(tmp_path: Path) -> None:
    """It is named, and the log is ok: the log rebuilds it."""
    directory = make_log(tmp_path / "log", ROWS)
    info = await snapshot_at(directory, ROWS, 50)
    path = directory / "snapshots" / info.name
    path.write_bytes(path.read_bytes()[:-1])
    report = await verify(directory)
    assert report.ok
    assert [name for name, _ in report.damaged_snapshots] == [info.name]


async def test_a_damaged_page_hides_only_its_own_events(tmp_path: Path) -> None:
    """A page of the table is overwritten: its events are named, the others are read, SQLite's own check has its say."""
    rows = rows_of(3000)
    directory = make_log(tmp_path / "log", rows)
    database = directory / "events.db"
    content = bytearray(database.read_bytes())
    at = content.index(rows[1499][4]) // 4096 * 4096
    content[at : at + 4096] = b"\xa5" * 4096
    database.write_bytes(content)
    report = await verify(directory)
    assert not report.ok
    assert report.first_bad_position is not None
    assert 1400 < report.first_bad_position <= 1500
    assert report.events > 2900
    assert any("SQLite found damage in its file" in problem.what for problem in report.problems)


async def test_a_lost_index_entry_is_found(tmp_path: Path) -> None:
    """SQLite's own check compares the index with the table."""
    directory = make_log(tmp_path / "log", ROWS)
    with closing(sqlite3.connect(directory / "events.db", isolation_level=None)) as database:
        database.execute("PRAGMA writable_schema = ON")
        sql = database.execute("SELECT sql FROM sqlite_master WHERE name = 'stored_events_by_entity'").fetchone()[0]
        database.execute("DELETE FROM sqlite_master WHERE name = 'stored_events_by_entity'")
        database.execute("PRAGMA writable_schema = RESET")
        other = sql.replace("(originator_id, originator_version)", "(originator_id, topic)")
        database.execute(other.replace("UNIQUE", ""))
        database.execute("PRAGMA writable_schema = ON")
        database.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'stored_events_by_entity'", (sql,))
    report = await verify(directory)
    assert report.problem_count
    assert report.first_bad_position is None


async def test_another_schema_is_a_problem_and_the_events_are_read(tmp_path: Path) -> None:
    """A missing trigger is told; the events behind it are fine."""
    directory = make_log(tmp_path / "log", ROWS)
    with closing(sqlite3.connect(directory / "events.db", isolation_level=None)) as database:
        database.execute("DROP TRIGGER stored_events_no_update")
    report = await verify(directory)
    assert (report.events, report.problem_count, report.first_bad_position) == (60, 1, None)
    assert "stored_events_no_update" in report.problems[0].what


async def test_what_is_no_log(tmp_path: Path) -> None:
    """No directory is an error; a file that is no database is a finding."""
    with pytest.raises(LogUnavailableError):
        await verify(tmp_path / "nowhere")
    directory = tmp_path / "log"
    directory.mkdir()
    (directory / "events.db").write_bytes(b"no database" * 1000)
    report = await verify(directory)
    assert (report.events, report.problem_count) == (0, 1)


async def test_an_open_log_is_verified(tmp_path: Path) -> None:
    """Beside its writer; one in memory cannot be damaged."""
    directory = make_log(tmp_path / "log", ROWS)
    log = await EventLog.open(directory)
    report = await verify_log(log, SnapshotStore(directory / "snapshots", read_only=True))
    assert report.ok
    assert report.events == 60
    await log.close()
    with pytest.raises(ConfigurationError):
        await verify_log(EventLog.in_memory(), None)


async def test_problems_are_bounded(tmp_path: Path) -> None:
    """Every event is bad: a thousand are listed, all are counted."""
    directory = make_log(tmp_path / "log", rows_of(1500))
    tamper(directory, ("UPDATE stored_events SET topic = 'Other'", ()))
    report = await verify(directory)
    assert (report.problem_count, len(report.problems), report.first_bad_position, report.events) == (1500, 1000, 1, 0)


async def test_verifying_writes_nothing(tmp_path: Path) -> None:
    """The rows, and the file itself, are as they were."""
    directory = make_log(tmp_path / "log", ROWS)
    before, content = stored(directory), (directory / "events.db").read_bytes()
    began = time.monotonic()
    await verify(directory)
    assert time.monotonic() - began < 30
    assert stored(directory) == before
    assert (directory / "events.db").read_bytes() == content
