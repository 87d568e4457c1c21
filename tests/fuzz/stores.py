"""Whole files: snapshots, databases, write-ahead files, notes, and the lists that are made of a log."""

from __future__ import annotations

import os
import random
import sqlite3
import struct
import tempfile
from functools import cache
from pathlib import Path
from typing import Any
from zlib import crc32

from symphony_es.core.past.snapshots import format as shape
from symphony_es.core.past.snapshots.format import BlockEntry, close_trailer, encode_header, encode_index, encode_trailer
from symphony_es.core.past.snapshots.frames import decode_block, encode_frame
from symphony_es.core.past.snapshots.reading import SnapshotReader
from symphony_es.errors import SymphonyError
from symphony_es.events import codec
from symphony_es.events.fold import EntityState
from symphony_es.events.rows import Row
from symphony_es.log import head_note
from symphony_es.log.head_note import is_as_left, noted_head
from symphony_es.log.sqlite import SQLiteLogRecorder
from symphony_es.log.sqlite_raw import RawLog
from symphony_es.log.sqlite_schema import SCHEMA
from symphony_es.log.walscan import _checksum, scan_wal
from symphony_es_projections.checkpoint_table import CheckpointTable
from symphony_es_projections.run_list import RunList, RunQuery
from tests.fuzz.hostile import damaged, number, packed, packed_array, packed_text, text
from tests.fuzz.values import body, sealed

__all__ = ["check_database", "check_head", "check_lists", "check_snapshot", "check_wal"]


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="decoders-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)


def _file(name: str, content: bytes) -> Path:
    path = Path(_folder().name) / name
    path.write_bytes(content)
    return path


# -- snapshots --------------------------------------------------------------------------------------------------------


def _frame(rng: random.Random, key: str) -> bytes:
    if rng.random() < 0.6:
        return encode_frame(EntityState(key, {"n": 1}, 1, 1))
    data = packed(rng) if rng.random() < 0.5 else codec.pack({"n": 1})
    raw = key.encode()
    numbers = [rng.choice((1, 1, rng.getrandbits(64))) for _ in range(4)]
    told = (
        struct.pack(">BQQQQH", rng.choice((0, 0, 1, 2, 3, 8)), *numbers, len(raw) if rng.random() < 0.9 else rng.getrandbits(16))
        + raw
        + data
    )
    told = damaged(rng, told) if rng.random() < 0.1 else told
    return struct.pack(">II", len(told) if rng.random() < 0.95 else rng.getrandbits(32), crc32(told)) + told


def _some(rng: random.Random, value: int, size: int) -> int:
    """A number, or now and then another one that a field of so many bits can hold."""
    return value if rng.random() < 0.93 else rng.choice((0, 1, value + 1, max(0, value - 1), 2**size - 1, rng.getrandbits(size)))


def check_snapshot(rng: random.Random) -> None:
    """A snapshot whose check values are right: its states, or an error that names the file."""
    content, entries = encode_header(_some(rng, 5, 64), (b"e" * 16, b"c" * 32, _some(rng, 1, 64))), []
    keys = sorted({rng.choice(("A:1", "B:1", "B:2", "C:\u00e9", "D:" + "x" * 300)) for _ in range(rng.choice((1, 2, 4)))})
    for key in keys:
        block = _frame(rng, key) if rng.random() < 0.97 else b""
        part = shape.RESTING if rng.random() < 0.03 else shape.ALIVE
        entries.append(
            BlockEntry(_some(rng, len(content), 64), _some(rng, len(block), 64), crc32(block), _some(rng, 1, 32), part + key.encode())
        )
        content += block
    at = len(content)
    index = encode_index(entries)
    if rng.random() < 0.05:
        index = damaged(rng, index)
    content += index
    content += encode_trailer(
        _some(rng, at, 64), _some(rng, at, 64), _some(rng, len(entries), 64), _some(rng, len(keys), 64), 0, crc32(index)
    )
    from hashlib import sha256

    path = _file("1.snap", content + close_trailer(sha256(content).digest()))
    with SnapshotReader(path) as reader:
        for read in (
            reader.read_all,
            reader.read_alive,
            reader.live_keys,
            lambda: reader.read_some(keys),
            lambda: reader.keys_at_rest(["A:"]),
        ):
            try:
                found: Any = read()
            except SymphonyError:
                continue
            if read == reader.read_all:
                _come_back(found)


def _come_back(states: dict[str, EntityState]) -> None:
    written = b"".join(encode_frame(states[key]) for key in sorted(states))
    again = decode_block("again", memoryview(written))
    assert repr(sorted(map(repr, again))) == repr(sorted(map(repr, states.values()))), "another state"


# -- databases --------------------------------------------------------------------------------------------------------


@cache
def _database() -> bytes:
    path = Path(_folder().name) / "whole.db"
    recorder = SQLiteLogRecorder(path)
    try:
        recorder.append_rows(
            [sealed(n, f"Type:{n % 3}", 1 + (n - 1) // 3, "Changed", bytes(16) + codec.pack([None, [], [], None])) for n in range(1, 9)]
        )
        recorder.maintain()
    finally:
        recorder.close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    connection.close()
    return path.read_bytes()


def check_database(rng: random.Random) -> None:
    """A log's file with strange cells or damaged pages is refused, or read."""
    content = _database()
    if rng.random() < 0.5:
        changed = bytearray(content)
        for _ in range(rng.choice((1, 3))):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        content = bytes(changed)
    path = _file("events.db", content)
    if rng.random() < 0.6:
        _change_cells(rng, path)
    try:
        recorder = SQLiteLogRecorder(path, read_only=True, immutable=True)
        try:
            for ask in (
                lambda: recorder.read(0), lambda: recorder.read_back(10**9), recorder.head, recorder.entity_types, recorder.log_id,
                lambda: recorder.read_entity("Type:1"), lambda: recorder.last_rows("Type"), lambda: recorder.last_row("Type:1"),
                lambda: recorder.version_at("Type:1", 5), lambda: recorder.entity_version("Type:1"), lambda: recorder.weight(0),
                recorder.verify_pages, recorder.has_all_entries,
            ):  # fmt: skip
                try:
                    ask()  # type: ignore[operator]
                except SymphonyError:
                    continue
        finally:
            recorder.close()
    except SymphonyError:
        pass
    with RawLog(path, immutable=True) as raw:
        raw.has_events_table()
        raw.ends()
        raw.page(0, 20, 20)
        raw.integrity()
        raw.entries_of({1, 2})
        raw.setting("log_id")
        raw.check_schema()


def _change_cells(rng: random.Random, path: Path) -> None:
    """Put something else into cells, with the schema as it is to be."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("DROP TRIGGER stored_events_no_update")
        value = rng.choice((None, text(rng), rng.getrandbits(60), 1.5, rng.randbytes(3), sqlite3.Binary(rng.randbytes(80))))
        column = rng.choice(("originator_id", "originator_version", "topic", "state"))
        connection.execute(f"UPDATE OR IGNORE stored_events SET {column} = ? WHERE position = ?", (value, rng.randrange(1, 9)))
        if rng.random() < 0.2:
            connection.execute("UPDATE OR IGNORE log_settings SET value = ?", (text(rng),))
        if rng.random() < 0.2:
            connection.execute("UPDATE sqlite_sequence SET seq = ?", (value,))
        connection.execute(SCHEMA[2])
    except (sqlite3.Error, UnicodeError):
        pass  # the file was damaged before, or the value is refused
    finally:
        connection.close()


def check_wal(rng: random.Random) -> None:
    """A write-ahead file has the same verdict in both ways of looking at it."""
    page_size, order, magic = 512, *rng.choice((("<", 0x377F0682), (">", 0x377F0683)))
    head = struct.pack(">6I", magic, 3007000, _some(rng, page_size, 32), 0, 1, 2)
    checksum = _checksum(head, (0, 0), order)
    written = head + struct.pack(">2I", *checksum)
    for page in range(rng.choice((0, 1, 3, 6))):
        commit = rng.choice((0, page + 1))
        start = struct.pack(">4I", _some(rng, page + 1, 32), commit, *((1, 2) if rng.random() < 0.95 else (9, 9)))
        content = rng.randbytes(page_size)
        checksum = _checksum(content, _checksum(start[:8], checksum, order), order)
        written += start + struct.pack(">2I", *checksum) + content
    if rng.random() < 0.6:
        written = damaged(rng, written)
    path = _file("x.db-wal", written)
    verdict = scan_wal(path)
    assert verdict in ("absent", "clean", "torn", "damaged")


def check_head(rng: random.Random) -> None:
    """A note of the head with right check values."""
    note = head_note._NOTE.pack(head_note._MAGIC, bytes(16), rng.getrandbits(64), rng.getrandbits(64))
    note = damaged(rng, note) if rng.random() < 0.5 else note
    left = head_note._LEFT.pack(head_note._LEFT_MAGIC, *(rng.getrandbits(64) for _ in range(3)))
    written = (note + struct.pack(">I", crc32(note))).ljust(64, b"\0") + left + struct.pack(">I", crc32(left))
    path = _file("events.db-head", written)
    before, head = noted_head(path, bytes(16))
    assert 0 <= before < 2**64
    assert 0 <= head < 2**64
    is_as_left(path, path)


# -- lists that are made of a log -------------------------------------------------------------------------------------


def _state(rng: random.Random, names: tuple[str, ...]) -> bytes:
    chosen = [name for name in names if rng.random() < 0.9]
    return bytes((0x80 | len(chosen),)) + b"".join(packed_text(rng, name) + _likely(rng, name) for name in chosen)


def _likely(rng: random.Random, name: str) -> bytes:
    if rng.random() < 0.2:
        return packed(rng, 3)
    usual: dict[str, Any] = {"metadata": {"k": 1}, "attempts": {"a": 1}, "outputs": {"a": 1}, "error": {"type": "E", "message": text(rng)}}
    try:
        return codec.pack(usual.get(name, rng.choice((text(rng), number(rng)))))
    except UnicodeEncodeError:
        return b"\xc0"


CHECKPOINT = ("name", "position", "entity_count", "metadata")
RUN = (
    "name",
    "definition_id",
    "status",
    "created_at",
    "started_at",
    "attempts",
    "outputs",
    "error",
    "parent",
    "parent_step",
    "metadata",
    "forked_from",
)


def _rows_of(rng: random.Random, key: str, names: tuple[str, ...]) -> list[Row]:
    rows = []
    for version in range(1, rng.choice((2, 3, 4))):
        if version == 1 and rng.random() < 0.8:
            changes = [packed_array(rng, [b"\x00", b"\x90", _state(rng, names)])]
        elif rng.random() < 0.5:
            changes = [packed_array(rng, [b"\x00", packed_array(rng, [packed_text(rng, rng.choice(names))]), packed(rng, 2)])]
        else:
            changes = []
        name = rng.choice(("CheckpointCreated", "WorkflowStepStarted", "WorkflowStepCompleted", "WorkflowStepFailed"))
        rows.append(sealed(version, key, version, name, body(rng, changes)))
    return rows


def check_lists(rng: random.Random) -> None:
    """Events of checkpoints and runs that say something else than such events do: the lists leave them out, or name the event."""
    if rng.random() < 0.5:
        table = CheckpointTable(None)
        table.open(bytes(16))
        try:
            rows = _rows_of(rng, "symphony.Checkpoint:ckpt_1", CHECKPOINT)
            table.feed(rows, 4, rows[-1][4])
            table.find()
        finally:
            table.close()
        return
    runs = RunList(None)
    runs.open(bytes(16))
    try:
        rows = _rows_of(rng, "Workflow:r", RUN)
        runs.write(runs.plan(rows, 4, rows[-1][4], {}))
        for listed in runs.find(RunQuery(), 10):
            assert listed.row.id == "r"
        for by in ("status", "name", "error", "step"):
            runs.count(RunQuery(), by)
        runs.names()
        runs.steps(5)
    finally:
        runs.close()
