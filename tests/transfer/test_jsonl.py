"""A log as JSON lines and back is the same log, to the byte; what was altered on the way is refused, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import aiofiles
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from symphony_es.errors import (
    ConfigurationError,
    DamagedEventError,
    ExportDamagedError,
    LogInUseError,
    PositionNotFoundError,
    StorageUnavailableError,
    TargetOccupiedError,
)
from symphony_es.events.changes import INSERT, REMOVE, SET, SPLICE
from symphony_es.events.event import EventMetadata, NewEvent
from symphony_es.events.references import EntityReference
from symphony_es.events.rows import Row, decode_row
from symphony_es.events.values import Encrypted, Redacted, Tagged
from symphony_es.log.log import EventLog
from symphony_es.log.sqlite import SQLiteLogRecorder
from symphony_es.transfer import event_as_json, export_jsonl, import_jsonl, plain_as_json, verify
from tests.events import plain_data
from tests.transfer.logs import LOG_ID, make_log, rows_of, sealed, stored, tamper

ROOT = Path(__file__).parents[2]
ROWS = rows_of(60)


async def exported(directory: Path, path: Path, **options: Any) -> Any:
    """Export a log that is opened for it."""
    log = await EventLog.open_read_only(directory)
    try:
        return await export_jsonl(log, path, **options)
    finally:
        await log.close()


def forged(path: Path, change: Callable[[list[dict[str, Any]]], None]) -> Path:
    """An export with altered lines and a footer that is right for them."""
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    change(lines)
    body = b"".join(json.dumps(line).encode() + b"\n" for line in lines[:-1])
    footer = {"end": lines[-1].get("end"), "count": len(lines) - 2, "sha256": hashlib.sha256(body).hexdigest()}
    path.write_bytes(body + json.dumps(footer).encode() + b"\n")
    return path


def nothing_beside(directory: Path, *expected: str) -> None:
    """There is nothing in a directory but what is expected."""
    assert sorted(path.name for path in directory.iterdir()) == sorted(expected)


async def test_there_and_back_is_the_same_log(tmp_path: Path) -> None:
    """Every row to the byte, the identity too; it verifies and goes on."""
    directory = make_log(tmp_path / "log", ROWS)
    told: list[tuple[int, int]] = []
    report = await exported(directory, tmp_path / "events.jsonl", on_progress=lambda *now: told.append(now))
    content = (tmp_path / "events.jsonl").read_bytes()
    assert (report.first, report.last, report.events, report.size_bytes) == (1, 60, 60, len(content))
    assert report.sha256 == hashlib.sha256(content).hexdigest()
    made = await import_jsonl(tmp_path / "events.jsonl", tmp_path / "copy", on_progress=lambda *now: told.append(now))
    assert (made.events, made.log_id, made.directory) == (60, LOG_ID, tmp_path / "copy")
    assert told.count((60, 60)) == 2
    assert stored(tmp_path / "copy") == ROWS
    assert (await verify(tmp_path / "copy", fold=True)).ok
    log = await EventLog.open(tmp_path / "copy")
    assert await log.log_id() == LOG_ID
    again = await export_jsonl(log, tmp_path / "again.jsonl")
    await log.close()
    first, second = [(tmp_path / name).read_bytes().splitlines()[1:-1] for name in ("events.jsonl", "again.jsonl")]
    assert first == second
    assert again.events == 60
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o700
    nothing_beside(tmp_path, "log", "copy", "events.jsonl", "again.jsonl")


async def test_the_lines_say_what_is_documented(tmp_path: Path) -> None:
    """Header, one readable line per event with its bytes, footer with count and hash of what is before it."""
    directory = make_log(tmp_path / "log", ROWS)
    await exported(directory, tmp_path / "events.jsonl")
    lines = (tmp_path / "events.jsonl").read_bytes().splitlines(keepends=True)
    header, second, footer = (json.loads(lines[number]) for number in (0, 2, -1))
    assert header.pop("exported_at").endswith("Z")
    assert header == {"format": "symphony_es.events", "version": 1, "log_id": str(LOG_ID), "first": 1, "last": 60}
    assert base64.b64decode(second.pop("state")) == ROWS[1][4]
    assert second == {
        "position": 2,
        "time": "2026-09-21T14:13:20.000002000Z",
        "entity": {"type": "Task", "id": "t2"},
        "version": 1,
        "name": "TaskCreated",
        "id": "00000000000000000000000002",
        "transaction": "00000000000000000000000001",
        "changes": [{"op": "set", "path": [], "value": {"n": 2}}],
        "metadata": {"run_id": "r1", "step": "s", "attempt": 1, "actor": "alice", "reason": "because"},
    }
    assert footer == {"end": "symphony_es.events", "count": 60, "sha256": hashlib.sha256(b"".join(lines[:-1])).hexdigest()}


async def test_an_empty_log_there_and_back(tmp_path: Path) -> None:
    """Header and footer only."""
    directory = make_log(tmp_path / "log", [])
    assert (await exported(directory, tmp_path / "events.jsonl")).events == 0
    assert (await import_jsonl(tmp_path / "events.jsonl", tmp_path / "copy")).events == 0
    assert (await verify(tmp_path / "copy")).ok


async def test_more_events_than_a_page_and_a_commit(tmp_path: Path) -> None:
    """Several pages of export, several commits of import."""
    rows = rows_of(4501)
    directory = make_log(tmp_path / "log", rows)
    await exported(directory, tmp_path / "events.jsonl")
    await import_jsonl(tmp_path / "events.jsonl", tmp_path / "copy")
    assert stored(tmp_path / "copy") == rows


async def test_a_part_of_a_log(tmp_path: Path) -> None:
    """A range is exported, and cannot be imported; ranges that are none are refused."""
    directory = make_log(tmp_path / "log", ROWS)
    report = await exported(directory, tmp_path / "part.jsonl", after=10, until=20)
    assert (report.first, report.last, report.events) == (11, 20, 10)
    lines = (tmp_path / "part.jsonl").read_bytes().splitlines()
    assert [json.loads(line)["position"] for line in lines[1:-1]] == list(range(11, 21))
    with pytest.raises(ExportDamagedError, match="line 1: it does not begin with the first event"):
        await import_jsonl(tmp_path / "part.jsonl", tmp_path / "copy")
    with pytest.raises(PositionNotFoundError):
        await exported(directory, tmp_path / "none.jsonl", until=61)
    for after in (-1, 61):
        with pytest.raises(ConfigurationError):
            await exported(directory, tmp_path / "none.jsonl", after=after)
    nothing_beside(tmp_path, "log", "part.jsonl")


async def test_a_target_that_exists(tmp_path: Path) -> None:
    """It is refused and untouched, replaced only on request, and never followed where it is a link."""
    directory = make_log(tmp_path / "log", ROWS)
    path = tmp_path / "events.jsonl"
    path.write_text("mine")
    with pytest.raises(TargetOccupiedError):
        await exported(directory, path)
    assert path.read_text() == "mine"
    await exported(directory, path, overwrite=True)
    await import_jsonl(path, tmp_path / "copy")
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(TargetOccupiedError):
        await exported(directory, tmp_path / "link", overwrite=True)
    with pytest.raises(TargetOccupiedError):
        await exported(directory, directory, overwrite=True)


async def test_a_target_that_appears_meanwhile(tmp_path: Path) -> None:
    """A file that somebody puts there while the export is made is theirs."""
    directory = make_log(tmp_path / "log", ROWS)
    path = tmp_path / "events.jsonl"
    with pytest.raises(TargetOccupiedError):
        await exported(directory, path, on_progress=lambda *_: path.write_text("theirs"))
    assert path.read_text() == "theirs"
    nothing_beside(tmp_path, "log", "events.jsonl")


async def test_streams(tmp_path: Path) -> None:
    """A binary stream and a file of aiofiles get the same bytes as a file."""
    directory = make_log(tmp_path / "log", ROWS)
    stream = io.BytesIO()
    await exported(directory, stream)  # type: ignore[arg-type]
    async with aiofiles.open(tmp_path / "streamed.jsonl", "wb") as file:
        await exported(directory, file)  # type: ignore[arg-type]
    assert stream.getvalue().splitlines()[1:-1] == (tmp_path / "streamed.jsonl").read_bytes().splitlines()[1:-1]
    assert (await import_jsonl(tmp_path / "streamed.jsonl", tmp_path / "copy")).events == 60


async def test_a_log_in_memory_is_exported(tmp_path: Path) -> None:
    """It has no identity, and becomes a log on disk by an import."""
    log = EventLog.in_memory()
    event = NewEvent(
        entity_key="Task:t", version=1, name="TaskCreated", changes=[(SET, (), {})], metadata=EventMetadata(), event_id=bytes(16)
    )
    await log.append([event])
    await export_jsonl(log, tmp_path / "events.jsonl")
    assert "log_id" not in json.loads((tmp_path / "events.jsonl").read_bytes().splitlines()[0])
    assert (await import_jsonl(tmp_path / "events.jsonl", tmp_path / "copy")).log_id is None
    assert stored(tmp_path / "copy") == await log.read_rows()
    await log.close()


async def test_a_damaged_log_is_not_exported(tmp_path: Path) -> None:
    """The export fails at the event, and leaves no file; what was there before stays."""
    directory = make_log(tmp_path / "log", ROWS)
    tamper(directory, ("UPDATE stored_events SET topic = 'Other' WHERE position = 30", ()))
    (tmp_path / "events.jsonl").write_text("before")
    with pytest.raises(DamagedEventError):
        await exported(directory, tmp_path / "events.jsonl", overwrite=True)
    assert (tmp_path / "events.jsonl").read_text() == "before"
    nothing_beside(tmp_path, "log", "events.jsonl")


def drop_line(lines: list[dict[str, Any]]) -> None:
    """An event in the middle is missing."""
    del lines[30]


def drop_last(lines: list[dict[str, Any]]) -> None:
    """The last event is missing."""
    del lines[-2]


def swap(lines: list[dict[str, Any]]) -> None:
    """Two events have changed places."""
    lines[10], lines[11] = lines[11], lines[10]


def twice(lines: list[dict[str, Any]]) -> None:
    """An event stands there twice."""
    lines.insert(10, lines[10])


def field(name: str, value: Any) -> Callable[[list[dict[str, Any]]], None]:
    """A field of an event has another value."""

    def change(lines: list[dict[str, Any]]) -> None:
        lines[10] = {**lines[10], name: value}

    change.__name__ = f"{name}={str(value)[:20]}"
    return change


def without(name: str) -> Callable[[list[dict[str, Any]]], None]:
    """A field of an event is missing."""

    def change(lines: list[dict[str, Any]]) -> None:
        del lines[10][name]

    change.__name__ = f"without {name}"
    return change


def header(name: str, value: Any) -> Callable[[list[dict[str, Any]]], None]:
    """A field of the header has another value."""

    def change(lines: list[dict[str, Any]]) -> None:
        lines[0][name] = value

    change.__name__ = f"header {name}={value}"
    return change


def other_version(lines: list[dict[str, Any]]) -> None:
    """An event with a right check value and a version that is not due."""
    old = decode_row(ROWS[9])
    event = NewEvent(
        entity_key=old.entity_key, version=9, name=old.name, changes=old.changes, metadata=old.metadata, event_id=old.event_id,
        transaction_id=old.transaction_id,
    )  # fmt: skip
    row = sealed(event, 10)
    lines[10] = event_as_json(decode_row(row), row)


FORGERIES = [
    drop_line, drop_last, swap, twice, other_version, field("position", 11), field("position", "10"), field("position", True),
    field("entity", {"type": "Task", "id": "t1"}), field("entity", "Task:t0"), field("entity", {"type": "Task", "id": "\ud800"}),
    field("version", 3), field("version", 2.0), field("name", "TaskDeleted"), field("name", None), field("state", "AAAA"),
    field("state", "-"), field("time", "2026-09-21T14:13:20.000002000Z"),
    field("id", "00000000000000000000000002"), field("transaction", "0"),
    without("position"), without("state"), without("entity"), without("id"), header("version", 2), header("format", "other"),
    header("last", 61), header("last", None), header("first", 2), header("log_id", "no uuid"), header("log_id", 7),
]  # fmt: skip


@pytest.mark.parametrize("change", FORGERIES, ids=lambda change: change.__name__)
async def test_a_forged_export_is_refused(tmp_path: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Also when its footer is right for the forgery; nothing is left of the attempt."""
    directory = make_log(tmp_path / "log", ROWS)
    await exported(directory, tmp_path / "events.jsonl")
    forged(tmp_path / "events.jsonl", change)
    with pytest.raises(ExportDamagedError) as caught:
        await import_jsonl(tmp_path / "events.jsonl", tmp_path / "copy")
    if change.__name__.startswith(("header version", "header format", "header first", "header log_id")):
        assert caught.value.line == 1
    elif "=" in change.__name__ and not change.__name__.startswith("header"):
        assert caught.value.line == 11
    nothing_beside(tmp_path, "log", "events.jsonl")


@pytest.mark.parametrize("how", ["flip", "cut", "cut in a line", "no newline", "more", "empty", "no json", "a list"])
async def test_an_altered_file_is_refused(tmp_path: Path, how: str) -> None:
    """A readable field that nothing else checks, a file that is cut off, something behind the footer."""
    directory = make_log(tmp_path / "log", ROWS)
    path = tmp_path / "events.jsonl"
    await exported(directory, path)
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    path.write_bytes(
        {
            "flip": content.replace(b'"value":30', b'"value":31', 1),
            "cut": b"".join(lines[:-1]),
            "cut in a line": content[: len(content) // 2],
            "no newline": content[:-1],
            "more": content + b"\n",
            "empty": b"",
            "no json": lines[0] + b"{\n",
            "a list": b"[]\n",
        }[how]
    )
    assert path.read_bytes() != content
    with pytest.raises(ExportDamagedError):
        await import_jsonl(path, tmp_path / "copy")
    nothing_beside(tmp_path, "log", "events.jsonl")


async def test_where_an_import_goes(tmp_path: Path) -> None:
    """Into nothing, an empty directory, or a log without events; never over events, other files, or a log in use."""
    directory = make_log(tmp_path / "log", ROWS)
    path = tmp_path / "events.jsonl"
    await exported(directory, path)
    (tmp_path / "empty").mkdir()
    await import_jsonl(path, tmp_path / "empty")
    fresh = await EventLog.open(tmp_path / "fresh")
    with pytest.raises(LogInUseError):
        await import_jsonl(path, tmp_path / "fresh")
    await fresh.close()
    await import_jsonl(path, tmp_path / "fresh")
    assert stored(tmp_path / "fresh") == ROWS == stored(tmp_path / "empty")
    for taken in ("fresh", "log"):
        with pytest.raises(TargetOccupiedError, match="60 events"):
            await import_jsonl(path, tmp_path / taken)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "mine").touch()
    with pytest.raises(TargetOccupiedError, match="mine"):
        await import_jsonl(path, tmp_path / "files")
    with pytest.raises(TargetOccupiedError):
        await import_jsonl(path, path)
    with pytest.raises(StorageUnavailableError):
        await import_jsonl(tmp_path / "nowhere", tmp_path / "copy")
    nothing_beside(tmp_path, "log", "events.jsonl", "empty", "fresh", "files")


def test_rows_are_appended_whole_or_not_at_all(tmp_path: Path) -> None:
    """In order, checked, and never over what is there."""
    recorder = SQLiteLogRecorder(tmp_path / "events.db", log_id=UUID(int=1))
    recorder.append_rows(ROWS[:10])
    damaged: Row = (*ROWS[11][:3], "Other", ROWS[11][4])
    for rows in ([ROWS[9]], [ROWS[11]], [ROWS[10], damaged], [ROWS[10], ROWS[12]]):
        with pytest.raises(DamagedEventError):
            recorder.append_rows(rows)
        assert recorder.head() == 10
    recorder.append_rows([])
    recorder.append_rows(ROWS[10:])
    assert recorder.read(0) == ROWS
    recorder.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(values=st.lists(plain_data.values, min_size=1, max_size=4), data=plain_data.values, key=plain_data.references)
def test_every_value_there_and_back(tmp_path_factory: pytest.TempPathFactory, values: list[Any], data: Any, key: Any) -> None:
    """Whatever a state may hold, in changes, data and metadata: the JSON is strict JSON, and the imported rows are the same bytes."""
    directory = tmp_path_factory.mktemp("any")
    changes = [(SET, (), {"v": values}), (SET, ("v",), values), (INSERT, ("v",), 0, data), (SPLICE, ("v",), 0, 1, values), (REMOVE, ("v",))]
    events = [
        NewEvent(
            entity_key=key.key, version=version, name="Some.Event", changes=changes, data=data, event_id=bytes([version] * 16),
            metadata=EventMetadata(actor=key.entity_id, cause=bytes(16), user={"any": data}),
        )
        for version in (1, 2)
    ]  # fmt: skip
    rows = [sealed(event, event.version) for event in events]
    make_log(directory / "log", rows)

    async def there_and_back() -> None:
        await exported(directory / "log", directory / "events.jsonl")
        await import_jsonl(directory / "events.jsonl", directory / "copy")

    asyncio.run(there_and_back())
    assert stored(directory / "copy") == rows
    for line in (directory / "events.jsonl").read_bytes().splitlines():
        json.loads(line, parse_constant=pytest.fail)


BERLIN = ZoneInfo("Europe/Berlin")
TWICE = datetime(2025, 10, 26, 2, 30)
NEAR = [
    1, True, 1.0, "1", Decimal(1), Decimal("1.0"), 0.0, -0.0, 0, None, "", b"", "AA==", b"\0", [], (), set(),
    {}, [1], (1,), {1}, {1: 1}, {"1": 1},
    {"$ref": "A:b"}, EntityReference("A", "b"), "A:b", {"$bytes": "AA=="}, {"$dict": []}, UUID(int=1), str(UUID(int=1)), TWICE,
    TWICE.replace(fold=1), TWICE.replace(tzinfo=BERLIN), TWICE.replace(tzinfo=BERLIN, fold=1),
    TWICE.replace(tzinfo=timezone(timedelta(hours=2))),
    TWICE.replace(tzinfo=timezone(timedelta(hours=2), "Europe/Berlin2")), TWICE.isoformat(), TWICE.date(),
    TWICE.time(), time(2, 30, fold=1),
    time(2, 30, tzinfo=UTC), time(2, 30, tzinfo=BERLIN), timedelta(1), timedelta(microseconds=1),
    Tagged("enum", "C", "a"), Tagged("enum", "C", 1),
    Tagged("value", "C", {"a": 1}), Tagged("part", "C", {"a": 1}), Tagged("part", "C", {}), Redacted("a"), Encrypted("a", b""),
    float("nan"), float("inf"), -float("inf"), "nan", 2**2001, hex(2**2001), Decimal("NaN"), Decimal("sNaN"),
]  # fmt: skip


def test_values_that_differ_are_told_apart() -> None:
    """Values that look alike and are not the same have different JSON, alone and inside others."""
    for around in (lambda value: value, lambda value: [value], lambda value: {"key": value}, lambda value: (value,)):
        texts = {json.dumps(plain_as_json(around(value)), allow_nan=False) for value in NEAR}
        assert len(texts) == len(NEAR)


def test_what_json_has_not_is_tagged() -> None:
    """A user's own key that begins with `$` is never taken for a tag; numbers that readers refuse are tagged."""
    assert plain_as_json({"$bytes": "x"}) == {"$dict": [["$bytes", "x"]]}
    assert plain_as_json({1: "x"}) == {"$dict": [[1, "x"]]}
    assert plain_as_json(2**64) == 2**64
    assert plain_as_json(10**5000) == {"$int": hex(10**5000)}
    assert plain_as_json([float("nan"), Decimal("1.50"), (1,), b"\0"]) == [
        {"$float": "nan"}, {"$decimal": "1.50"}, {"$tuple": [1]}, {"$bytes": "AA=="},
    ]  # fmt: skip


def killed(code: str, *arguments: str, after_s: float) -> None:
    """Run Python code in another process, and kill it a moment after it says that it begins."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"go\n"
        sleep(after_s)
        process.kill()


EXPORT = """
import asyncio, os, sys
from pathlib import Path
from symphony_es.log.log import EventLog
from symphony_es.transfer import export_jsonl, import_jsonl
async def main():
    if sys.argv[1] == "export":
        log = await EventLog.open_read_only(Path(sys.argv[2]))
        os.write(1, b"go\\n")
        await export_jsonl(log, Path(sys.argv[3]))
    else:
        os.write(1, b"go\\n")
        await import_jsonl(Path(sys.argv[2]), Path(sys.argv[3]))
asyncio.run(main())
"""


async def test_a_kill_leaves_nothing_half(tmp_path: Path) -> None:
    """Killed at several moments: the target is not there, and the next attempt removes what was being built."""
    rows = rows_of(15_000)
    directory = make_log(tmp_path / "log", rows)
    await exported(directory, tmp_path / "whole.jsonl")
    left = 0
    for after_s in (0.0, 0.025, 0.075, 0.15):
        killed(EXPORT, "export", str(directory), str(tmp_path / "events.jsonl"), after_s=after_s)
        killed(EXPORT, "import", str(tmp_path / "whole.jsonl"), str(tmp_path / "copy"), after_s=after_s)
        assert not (tmp_path / "events.jsonl").exists()
        assert not (tmp_path / "copy").exists()
        left += len([path for path in tmp_path.iterdir() if path.name.endswith(".part")])
    assert left, "the kills hit nothing"
    await exported(directory, tmp_path / "events.jsonl")
    await import_jsonl(tmp_path / "events.jsonl", tmp_path / "copy")
    assert stored(tmp_path / "copy") == rows
    nothing_beside(tmp_path, "log", "whole.jsonl", "events.jsonl", "copy")


async def test_a_cancelled_import_and_export_leave_nothing(tmp_path: Path) -> None:
    """The call ends as cancelled, nothing goes on in a thread, nothing is left."""
    directory = make_log(tmp_path / "log", rows_of(20_000))
    await exported(directory, tmp_path / "whole.jsonl")
    for work in (
        lambda: exported(directory, tmp_path / "events.jsonl"),
        lambda: import_jsonl(tmp_path / "whole.jsonl", tmp_path / "copy"),
    ):
        task = asyncio.ensure_future(work())
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        nothing_beside(tmp_path, "log", "whole.jsonl")


async def test_progress_is_told_a_few_times_a_second(tmp_path: Path) -> None:
    """At most every tenth of a second, and once at the end."""
    directory = make_log(tmp_path / "log", rows_of(20_000))
    told: list[tuple[float, int]] = []
    began = monotonic()
    await exported(directory, tmp_path / "events.jsonl", on_progress=lambda done, _: told.append((monotonic(), done)))
    assert len(told) <= (monotonic() - began) * 10 + 2
    assert [done for _, done in told] == sorted({done for _, done in told})
    assert told[-1][1] == 20_000
