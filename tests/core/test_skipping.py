"""Going on without what is damaged: `setup(skip_damaged=True)` marks the entities concerned, for every reader alike."""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symphony_es import Symphony, entity
from symphony_es.cli.main import main
from symphony_es.errors import BackupDamagedError, DamagedEventError, EntityDamagedError, LogDamagedError, SymphonyError
from symphony_es.log.skipping import _Places
from symphony_es.log.sqlite_schema import SCHEMA
from symphony_es.transfer import backup, restore, verify
from tests.faults.damage import DAMAGES

NAMES = "abc"
ROUNDS = 6


@entity
class SkippedLedger:
    """An entity with some history."""

    id: str = ""
    n: int = 0


async def written(directory: Path) -> Path:
    """Three entities, whose events take turns: that of entity i in round r is at position 3r + i + 1."""
    async with Symphony(directory) as symphony:
        ledgers = [symphony.entities.add(SkippedLedger(id=name)) for name in NAMES]
        await symphony.flush()
        for number in range(1, ROUNDS):
            for ledger in ledgers:
                ledger.n = number
                await symphony.flush()
    return directory


def change(database: Path, *statements: str) -> None:
    """Change what may not be changed."""
    with sqlite3.connect(database) as connection:
        for trigger in ("stored_events_no_update", "stored_events_no_delete"):
            connection.execute(f"DROP TRIGGER {trigger}")
        for statement in statements:
            connection.execute(statement)
        for statement in SCHEMA[2:4]:
            connection.execute(statement)
    connection.close()


def bad_bytes(database: Path, position: int) -> None:
    """Bytes of the event are other than what was written."""
    change(database, f"UPDATE stored_events SET state = zeroblob(length(state)) WHERE position = {position}")


def gone(database: Path, position: int) -> None:
    """The event is not there, in the index neither."""
    change(database, f"DELETE FROM stored_events WHERE position = {position}")


def renamed(database: Path, position: int) -> None:
    """The event says that it is another entity's, which there is."""
    change(database, f"UPDATE stored_events SET originator_id = 'SkippedLedger:c', originator_version = 99 WHERE position = {position}")


def nameless(database: Path, position: int) -> None:
    """The event does not say whose it is."""
    change(database, f"UPDATE stored_events SET originator_id = 'nobody' WHERE position = {position}")


def out_of_index(database: Path, position: int) -> None:
    """The page of the table is of no use where the row stands, and the index still has its entry."""
    content = bytearray(database.read_bytes())
    with sqlite3.connect(database) as connection:
        (state,) = connection.execute("SELECT state FROM stored_events WHERE position = ?", (position,)).fetchone()
    connection.close()
    at = content.index(state)
    content[at + 20 : at + 30] = bytes(10)
    database.write_bytes(content)


WAYS = [bad_bytes, gone, renamed, nameless, out_of_index]


@pytest.mark.parametrize("damage", WAYS)
@pytest.mark.parametrize("round_number", [0, 2, ROUNDS - 1])
@pytest.mark.parametrize("read_only", [False, True])
async def test_one_damaged_event(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path, int], None], round_number: int, read_only: bool
) -> None:
    """Without the setting it is an error that names this way out; with it the others live, and it has its last good state."""
    directory = await written(tmp_path / "log")
    position = 3 * round_number + 2
    damage(directory / "events.db", position)
    with pytest.raises((DamagedEventError, LogDamagedError), match=r"skip_damaged=True"):
        async with Symphony(directory, read_only=read_only) as symphony:
            await symphony.resume()
    report = await verify(directory)
    assert any("skip_damaged=True" in problem.way_out for problem in report.problems if problem.position == position)
    assert await asyncio.to_thread(main, ["doctor", "--state-dir", str(directory)]) == 1
    assert f"position {position} " in capsys.readouterr().out

    symphony = Symphony(directory, read_only=read_only)
    await symphony.setup(skip_damaged=True)
    try:
        told = await symphony.resume()
        assert symphony.last_resume is told
        assert not told.complete
        others = [f"SkippedLedger:{name}" for name in "ac"]
        assert {symphony.entities.get(key).n for key in others if key not in told.damaged} == {ROUNDS - 1}
        marks = {damage.position for damage in told.damaged.values()}
        assert position in marks
        if "SkippedLedger:b" in told.damaged:
            assert told.damaged["SkippedLedger:b"].version in (round_number + 1, round_number + 2)
            assert set(told.damaged) <= {"SkippedLedger:b", f"symphony.Damaged:{position}"}
        else:  # its last event is gone, and nobody can tell that it was its
            assert round_number == ROUNDS - 1
            assert set(told.damaged) == {f"symphony.Damaged:{position}"}
        for key, mark in told.damaged.items():
            if key.startswith("SkippedLedger:"):
                versions = await symphony.history(key)
                assert next(found.version for found in versions if found.damage is not None) == mark.version
                alone = await symphony.state_history.entity_at(key, symphony.log.head)
                assert alone is not None
                assert alone.damage == mark
        events = [event async for page in symphony.log.read() for event in page]
        assert [event.position for event in events] == list(range(1, symphony.log.head + 1))
        assert [event.position for event in events if event.fault is not None] == [position]
    finally:
        await symphony.close()


async def test_all_that_is_damaged_at_once_and_a_snapshot_of_it(tmp_path: Path) -> None:
    """The others go on and are changed; a snapshot carries the marks, and without the setting a resume goes on from it."""
    directory = await written(tmp_path / "log")
    bad_bytes(directory / "events.db", 5)
    bad_bytes(directory / "events.db", 9)
    symphony = Symphony({"state_dir": str(directory), "skip_damaged": True}, persistence_enabled=True)
    async with symphony:
        told = await symphony.resume()
        marks = {key: (mark.version, mark.position) for key, mark in told.damaged.items()}
        assert marks == {"SkippedLedger:b": (2, 5), "SkippedLedger:c": (3, 9)}
        symphony.entities.get("SkippedLedger:a").n = 70
        with pytest.raises(EntityDamagedError):
            symphony.entities.add(SkippedLedger(id="b"))
        repaired = await symphony.entities.repair("SkippedLedger:b")
        assert repaired.n == 0
        repaired.n = 71
        await symphony.flush()
        assert [event.version for event in await symphony.log.read_entity("SkippedLedger:b")] == list(range(1, ROUNDS + 3))
        await symphony._opened.snapshotter.take(symphony.log.head)  # type: ignore[union-attr]
    async with Symphony(directory) as symphony:
        told = await symphony.resume()
        assert set(told.damaged) == {"SkippedLedger:c"}
        assert (symphony.entities.get("SkippedLedger:a").n, symphony.entities.get("SkippedLedger:b").n) == (70, 71)
        with pytest.raises(DamagedEventError):
            await symphony.history("SkippedLedger:c")


@pytest.mark.parametrize("seed", range(24))
async def test_random_damages(tmp_path: Path, seed: int) -> None:
    """Flipped bits, zeroed sectors, copied and cut pages: who is not marked has the right state, if all owners are known."""
    directory = tmp_path / "log"
    async with Symphony(directory) as symphony:
        ledgers = [symphony.entities.add(SkippedLedger(id=str(number))) for number in range(20)]
        for number in range(1, 12):
            for ledger in ledgers:
                ledger.n = number
            await symphony.flush()
    rng = random.Random(seed)
    database = directory / "events.db"
    content = bytearray(database.read_bytes())
    DAMAGES[seed % len(DAMAGES)](content, rng)
    database.write_bytes(content)
    symphony = Symphony(directory)
    try:
        await symphony.setup(skip_damaged=True)
    except SymphonyError:
        return  # the schema itself, or not a database any more
    try:
        told = await symphony.resume()
        unknown = any(key.startswith("symphony.Damaged:") for key in told.damaged)
        for number in range(20):
            key = f"SkippedLedger:{number}"
            if key in told.damaged or unknown:
                continue
            assert symphony.entities.get(key).n == 11
            assert [event.version for event in await symphony.log.read_entity(key)] == list(range(1, 12))
    finally:
        await symphony.close()


async def test_a_whole_log_with_the_setting(tmp_path: Path) -> None:
    """Nothing is marked, and all goes on as without it."""
    directory = await written(tmp_path / "log")
    symphony = await Symphony(directory).setup(skip_damaged=True)
    try:
        told = await symphony.resume()
        assert told.complete
        assert symphony.log.skipped() == []
        symphony.entities.get("SkippedLedger:a").n = 9
        symphony.entities.add(SkippedLedger(id="d", n=1))
        await symphony.flush()
        assert len(await symphony.history("SkippedLedger:a")) == ROUNDS + 1
        assert sorted(await symphony.log.alive_keys("SkippedLedger")) == [f"SkippedLedger:{name}" for name in "abcd"]
        assert "SkippedLedger" in symphony.log.entity_types_now()
    finally:
        await symphony.close()
    assert (await verify(directory)).ok


@given(
    noted=st.lists(st.tuples(st.integers(1, 12), st.integers(1, 40)), max_size=20),
    after=st.integers(0, 12),
    before=st.none() | st.integers(0, 14),
    until=st.none() | st.integers(0, 40),
)
def test_places_are_those_of_a_plain_table(noted: list[tuple[int, int]], after: int, before: int | None, until: int | None) -> None:
    """Versions in any order, and twice, as damage may claim them: the first place of each counts."""
    places, plain = _Places(), dict[int, int]()
    for version, position in noted:
        places.note(version, position)
        plain.setdefault(version, position)
    asked = [
        plain[version]
        for version in sorted(plain)
        if after < version and (before is None or version < before) and (until is None or plain[version] <= until)
    ]
    assert list(places.between(after, before, until)) == asked
    assert list(places.between(after, before, until, newest_first=True)) == asked[::-1]
    assert places.last_version() == max(plain, default=0)
    assert places.version_at(20) == max((version for version, position in plain.items() if position <= 20), default=0)


def test_what_is_kept_of_an_event_is_two_numbers() -> None:
    """A long log whose damaged events are read over is kept by its versions and positions, and by nothing else."""
    places = _Places()
    for version in range(1, 20_001):
        places.note(version, 3 * version)
    assert sum(sys.getsizeof(kept) for kept in (places._versions, places._positions)) < 20 * 20_000


async def runs_of(symphony: Symphony) -> list[str]:
    """Which runs the list has, the newest first."""
    return [run.id for run in await symphony.workflows.list_runs()]


@pytest.mark.parametrize("repaired", [True, False])
@pytest.mark.parametrize("position", [2, 3 * ROUNDS])
async def test_after_going_on_without_the_damage_the_log_opens_as_ever(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], position: int, repaired: bool
) -> None:
    """A snapshot stands behind the damage, be it the last event: openings and commands that ask about the present begin with it."""
    directory = await written(tmp_path / "log")
    bad_bytes(directory / "events.db", position)
    key = f"SkippedLedger:{NAMES[(position - 1) % 3]}"
    symphony = await Symphony(directory).setup(skip_damaged=True, resume="latest")
    if repaired:
        await symphony.entities.repair(key, {"id": key[-1], "n": 77})
    else:
        symphony.entities.add(SkippedLedger(id="new"))
    await symphony.close()
    async with Symphony(directory) as symphony:
        told = await symphony.resume()
        assert set(told.damaged) == (set() if repaired else {key})
        if repaired:
            assert symphony.entities.get(key).n == 77
        else:
            await symphony.entities.repair(key, {"id": key[-1], "n": 77})
        assert await runs_of(symphony) == []
    asked = (["show", key], ["runs"], ["at", "latest"], ["entities"], ["checkpoints", "create", "later"], ["fork", str(tmp_path / "f")])
    for command in asked:
        assert await asyncio.to_thread(main, [*command, "--state-dir", str(directory)]) == 0, (command, capsys.readouterr())
    async with Symphony(tmp_path / "f") as symphony:
        await symphony.resume()
        assert symphony.entities.get(key).n == 77
    assert (await verify(tmp_path / "f")).ok


async def test_a_repair_is_enough_where_the_process_is_killed_after_it(tmp_path: Path) -> None:
    """The snapshot is there when the repair returns, and not at the close only."""
    directory = await written(tmp_path / "log")
    bad_bytes(directory / "events.db", 3 * ROUNDS)
    symphony = await Symphony(directory).setup(skip_damaged=True, resume="latest")
    await symphony.entities.repair("SkippedLedger:c")
    shutil.copytree(directory, tmp_path / "killed")
    await symphony.close()
    async with Symphony(tmp_path / "killed") as symphony:
        assert (await symphony.resume()).complete


@pytest.mark.parametrize("kept", [True, False])
async def test_the_list_of_runs_begins_behind_the_damage(tmp_path: Path, kept: bool) -> None:
    """Runs from before it and after it, with the table's file and without it, in the order in which they were created."""
    directory = tmp_path / "log"

    async def ran(symphony: Symphony, *names: str) -> None:
        symphony.functions.register("skipped_nothing", lambda context: 1, replace=True)
        definition = symphony.build_workflow("skipped").add_function("only", "skipped_nothing").build()
        for name in names:
            await symphony.workflows.execute_workflow(definition, run_id=name)

    async with Symphony(directory) as symphony:
        symphony.entities.add(SkippedLedger(id="a"))
        await symphony.flush()
        await ran(symphony, "z", "b")
        expected = await runs_of(symphony)
    bad_bytes(directory / "events.db", 1)
    if not kept:
        (directory / "projections" / "run_list.db").unlink()
    async with Symphony({"state_dir": str(directory), "skip_damaged": True}, persistence_enabled=True) as symphony:
        await symphony.resume()
        await symphony.entities.repair("SkippedLedger:a", {"id": "a", "n": 1})
    async with Symphony(directory) as symphony:
        await ran(symphony, "c")
        assert await runs_of(symphony) == ["c", *expected]
    async with Symphony(directory, read_only=True) as symphony:
        assert await runs_of(symphony) == ["c", *expected]


async def test_every_advice_leads_on(tmp_path: Path) -> None:
    """From the damage to a working application and a restored backup, by what the messages say."""
    directory = await written(tmp_path / "log")
    bad_bytes(directory / "events.db", 5)
    with pytest.raises(DamagedEventError, match=r"setup\(skip_damaged=True\)"):
        await Symphony(directory).setup(resume="latest")
    await backup(directory, tmp_path / "copy")  # of before the repair
    symphony = await Symphony(directory).setup(skip_damaged=True, resume="latest")
    with symphony.acting_as("ann"):
        await symphony.entities.repair("SkippedLedger:b", {"id": "b", "n": 9})
    head = symphony.log.head
    await symphony.close()
    report = await verify(directory)
    assert [(problem.position, problem.entity) for problem in report.problems] == [(5, "SkippedLedger:b")]
    assert f"repaired at position {head} by 'ann'" in report.problems[0].way_out
    assert "fork" in report.problems[0].way_out
    await backup(directory, tmp_path / "later")
    for number, copy in enumerate((tmp_path / "copy", tmp_path / "later")):
        with pytest.raises(BackupDamagedError, match=r"setup\(skip_damaged=True\), repair what that marks, and fork it"):
            await restore(copy, tmp_path / "refused")
        symphony = await Symphony(copy).setup(skip_damaged=True, resume="latest")
        for key in symphony.last_resume.damaged:  # type: ignore[union-attr]
            await symphony.entities.repair(key, {"id": "b", "n": 9})
        await symphony.close()
        forked = tmp_path / f"fork{number}"
        assert await asyncio.to_thread(main, ["fork", str(forked), "--state-dir", str(copy)]) == 0
        assert (await verify(forked)).ok
        await backup(forked, tmp_path / f"whole{number}")
        await restore(tmp_path / f"whole{number}", tmp_path / f"back{number}")
        async with Symphony(tmp_path / f"back{number}") as symphony:
            assert (await symphony.resume()).complete
            assert [symphony.entities.get(f"SkippedLedger:{name}").n for name in NAMES] == [ROUNDS - 1, 9, ROUNDS - 1]


COMMANDS = {  # and whether it needs what is damaged
    "stats": True,
    "log --limit 0": True,
    "log --entity SkippedLedger:a --limit 0": True,
    "log --entity SkippedLedger:b --limit 0": False,
    "tail -n 1": False,
    "entities": True,
    "show SkippedLedger:a": True,
    "show SkippedLedger:b": False,
    "history SkippedLedger:a": True,
    "history SkippedLedger:b": False,
    "blame SkippedLedger:a n": True,
    "at latest": True,
    "diff #3 latest": True,
    "audit --limit 0": True,
    "runs": True,
    "checkpoints": False,
    "types": True,
    "export {out}/all.jsonl": True,
    "export {out}/all.csv": True,
    "export {out}/changes.csv --format changes": True,
    "fork {out}/forked": True,
}


@pytest.mark.parametrize("command", COMMANDS)
async def test_commands_go_on_without_it_as_their_message_says(tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A command that needs the damaged event is refused and names the option; with it there is an answer, and what it goes without."""
    directory = await written(tmp_path / "state")
    bad_bytes(directory / "events.db", 7)
    given = ["--state-dir", str(directory), *command.format(out=tmp_path).split()]
    code = await asyncio.to_thread(main, given)
    refused = capsys.readouterr().err
    assert (code, "--skip-damaged" in refused) == ((5, True) if COMMANDS[command] else (0, False)), refused
    assert await asyncio.to_thread(main, [*given, "--skip-damaged"]) == 0
    told = capsys.readouterr()
    assert "without 1 damaged event, at 7 (SkippedLedger:a): what they belong to is marked as damaged" in told.err


@pytest.mark.parametrize("command", ["verify", "doctor", "backup {out}/copy", "restore {out} {out}/copy", "prune", "rewind #2"])
async def test_no_command_takes_the_option_in_silence(tmp_path: Path, command: str) -> None:
    """Where it would change nothing, or changes would be made beside a damage, it is no option."""
    with pytest.raises(SystemExit) as ended:
        await asyncio.to_thread(main, [*command.format(out=tmp_path).split(), "--skip-damaged"])
    assert ended.value.code == 2


async def test_a_damaged_backup_is_a_damage_to_a_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever is restored or imported: the code of damaged bytes, not that of a refusal."""
    directory = await written(tmp_path / "state")
    assert await asyncio.to_thread(main, ["--state-dir", str(directory), "export", str(tmp_path / "all.jsonl")]) == 0
    bad_bytes(directory / "events.db", 7)
    assert await asyncio.to_thread(main, ["restore", str(directory), str(tmp_path / "copy")]) == 5
    lines = (tmp_path / "all.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "cut.jsonl").write_text("".join(lines[:-3]))
    assert await asyncio.to_thread(main, ["import", str(tmp_path / "cut.jsonl"), str(tmp_path / "copy")]) == 5
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("content", [b"", b"x" * 10, b"x" * 9000, b"SQLite format 3\0" + b"x" * 9000])
async def test_doctor_reports_what_is_no_database(tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that cannot be opened is what doctor found, beside what it has to say of disk and versions."""
    directory = await written(tmp_path / "state")
    (directory / "events.db").write_bytes(content)
    assert await asyncio.to_thread(main, ["--state-dir", str(directory), "doctor"]) == 5
    told = capsys.readouterr()
    assert "MiB free" in told.out
    assert "look  " in told.out
    assert "restore a backup" in told.out
    assert not told.err
