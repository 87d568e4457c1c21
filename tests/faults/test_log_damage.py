"""A bit that flips in the log's files: a typed error, or the rows as they were written; never a row that was altered in silence."""

from __future__ import annotations

import random
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from symphony_es.errors import AnchorMismatchError, LogDamagedError, SymphonyError
from symphony_es.events.rows import Row, commitment, encode_body, event_id_of
from symphony_es.events.values import Limits
from symphony_es.log.opening import check_anchor
from symphony_es.log.recorder import Anchor, PreparedEvent
from symphony_es.log.sqlite import SQLiteLogRecorder
from symphony_es.log.walscan import scan_wal
from tests.faults.log_workload import ENTITIES, event

EVENTS = 12
WAL_EVENTS = 3
WAL_HEADER_BYTES = 32
WAL_FRAME_BYTES = 24 + 512


@pytest.fixture
def scratch() -> Iterator[Path]:
    base = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    path = Path(tempfile.mkdtemp(prefix="symphony-damage-", dir=base))
    yield path
    shutil.rmtree(path)


def prepared(number: int) -> PreparedEvent:
    new = event(number)
    return PreparedEvent(new.entity_key, new.version, new.name, new.event_id, encode_body(new, bytes(16), Limits()))


def write_log(path: Path, events: int = EVENTS) -> SQLiteLogRecorder:
    """A log with small pages, so that every byte of it can be tried."""
    database = sqlite3.connect(path)
    database.execute("PRAGMA page_size=512")
    database.execute("PRAGMA journal_mode=WAL")
    database.close()
    recorder = SQLiteLogRecorder(path)
    for number in range(1, events + 1):
        recorder.append_groups([[prepared(number)]], 1000 + number)
    return recorder


def anchor_of(row: Row) -> Anchor:
    return Anchor(position=row[0], event_id=event_id_of(row[4]), commitment=commitment(row[4]))


def flips(size: int, rng: random.Random, more: int) -> Iterator[tuple[int, int]]:
    """One bit of every byte, and all bits of some."""
    for offset in range(size):
        yield offset, 1 << rng.randrange(8)
    for offset in rng.sample(range(size), min(more, size)):
        for bit in range(8):
            yield offset, 1 << bit


def test_every_byte_of_the_database(scratch: Path) -> None:
    """All rows, and those of each entity: as they were, or refused; a shorter log does not match its anchor.

    A damaged index may hide events of an entity from `read_entity`; the comparison of index and table at opening finds that.
    """
    recorder = write_log(scratch / "events.db")
    original = recorder.read(0)
    recorder.close()
    content = (scratch / "events.db").read_bytes()
    seed = random.randrange(2**32)
    outcomes: Counter[str] = Counter()
    path = scratch / "damaged.db"
    for offset, bit in flips(len(content), random.Random(seed), 50):
        damaged = bytearray(content)
        damaged[offset] ^= bit
        path.write_bytes(damaged)
        outcome = read_damaged(path, original)
        assert "silent" not in outcome, f"seed {seed}, offset {offset}, bit {bit}: {outcome}"
        outcomes[outcome] += 1
    assert outcomes["refused"] > len(content) // 20, outcomes
    assert outcomes["as written"] > 0, outcomes


def read_damaged(path: Path, original: Sequence[Row]) -> str:
    try:
        recorder = SQLiteLogRecorder(path, read_only=True, immutable=True)
    except SymphonyError:
        return "refused"
    try:
        rows = recorder.read(0)
        if rows != original:
            if rows != original[: len(rows)]:
                return f"silent: altered rows {rows}"
            check_anchor(recorder, anchor_of(original[-1]))
            return "silent: rows are missing, and the anchor matches"
        for number in range(ENTITIES):
            key = f"E:{number}"
            own, expected = recorder.read_entity(key), [row for row in original if row[1] == key]
            if [row for row in expected if row in own] != own:
                return f"silent: altered rows of {key}"
            if own != expected:
                recorder.verify_pages()
                return f"silent: of {key} {len(own)} rows of {len(expected)} are there"
    except SymphonyError:
        return "refused"
    finally:
        recorder.close()
    return "as written"


def test_every_byte_of_the_write_ahead_file(scratch: Path) -> None:
    """Clean to the scan means whole; torn means that at most the last commit is missing; all else is flagged before SQLite sees it."""
    recorder = write_log(scratch / "events.db", WAL_EVENTS)
    original = recorder.read(0)
    database, wal = ((scratch / name).read_bytes() for name in ("events.db", "events.db-wal"))
    recorder.close()
    path = scratch / "damaged.db"
    seed = random.randrange(2**32)
    outcomes: Counter[str] = Counter()
    for offset, bit in flips(len(wal), random.Random(seed), 10):
        damaged = bytearray(wal)
        damaged[offset] ^= bit
        path.write_bytes(database)
        wal_path = scratch / "damaged.db-wal"
        wal_path.write_bytes(damaged)
        verdict = scan_wal(wal_path)
        assert scan_wal(wal_path, scratch / "check") == verdict, f"seed {seed}, offset {offset}, bit {bit}: with SQLite's help otherwise"
        outcomes[verdict] += 1
        where = f"seed {seed}, offset {offset}, bit {bit}: {verdict}"
        if verdict == "damaged":
            continue
        try:
            recorder = SQLiteLogRecorder(path)
        except SymphonyError:
            continue
        rows = recorder.read(0)
        if verdict == "clean":
            assert rows == original, where
        else:
            assert rows == original[: len(rows)], where
            in_commit_flag = (offset - WAL_HEADER_BYTES) % WAL_FRAME_BYTES in range(4, 8)
            assert len(rows) >= WAL_EVENTS - 1 - in_commit_flag or offset < WAL_HEADER_BYTES, where
            if rows != original:
                with pytest.raises(AnchorMismatchError):
                    check_anchor(recorder, anchor_of(original[-1]))
        recorder.close()
    assert outcomes["damaged"] > outcomes["torn"] > 0, outcomes


def test_a_schema_that_is_no_text_is_damage(scratch: Path) -> None:
    """What Python cannot decode is a typed error of opening, too, not a UnicodeDecodeError."""
    path = scratch / "events.db"
    write_log(path).close()
    path.write_bytes(path.read_bytes().replace(b"append-only", b"append\xffonly"))
    for read_only in (True, False):
        with pytest.raises(LogDamagedError, match="restore a backup"):
            SQLiteLogRecorder(path, read_only=read_only)


def test_frames_that_a_rollback_left_are_no_damage(scratch: Path) -> None:
    """A large transaction that was rolled back leaves frames behind; a torn commit before them is only torn."""
    path = scratch / "events.db"
    recorder = write_log(path, 3)
    writer = recorder._store.writer
    assert writer is not None
    writer.execute("PRAGMA cache_size=2")
    writer.execute("PRAGMA cache_spill=1")
    writer.execute("BEGIN IMMEDIATE")
    writer.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 4000) INSERT INTO log_settings SELECT i, 'x' FROM n"
    )
    writer.execute("ROLLBACK")
    whole = (scratch / "events.db-wal").read_bytes()
    recorder.append_groups([[prepared(4)]], 2000)
    wal = bytearray((scratch / "events.db-wal").read_bytes())
    changed = [index for index in range(len(whole)) if whole[index] != wal[index]]
    assert changed, "nothing was spilled, or nothing was written over it"
    first, last = ((index - WAL_HEADER_BYTES) // WAL_FRAME_BYTES for index in (changed[0], changed[-1]))
    assert len(wal) > WAL_HEADER_BYTES + (last + 2) * WAL_FRAME_BYTES, "no stale frames are left"
    for frame in range(first, last + 1):
        torn = bytearray(wal)
        torn[WAL_HEADER_BYTES + frame * WAL_FRAME_BYTES + 100] ^= 1
        (scratch / "torn").write_bytes(torn)
        assert scan_wal(scratch / "torn") == scan_wal(scratch / "torn", scratch / "check") == "torn"
    recorder.close()
