"""CSV that no spreadsheet takes for formulas, and CloudEvents as their specification has them."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
import unicodedata
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from symphony_es.errors import ConfigurationError, TargetOccupiedError
from symphony_es.events.changes import SET
from symphony_es.events.event import EventMetadata, NewEvent
from symphony_es.events.rows import Row
from symphony_es.log.log import EventLog
from symphony_es.transfer import export_cloudevents, export_csv
from symphony_es.transfer.tables import _PASSED_OVER as PASSED_OVER
from symphony_es.transfer.tables import _SIGNS as SIGNS
from symphony_es.transfer.tables import _SPLITS as SPLITS
from symphony_es.transfer.tables import CSV_COLUMNS, END_TYPE, guarded, table_bytes
from tests.events import plain_data
from tests.transfer.logs import LOG_ID, make_log, rows_of, sealed

ROWS = rows_of(60)
HOSTILE = "=+-@\t\r\n\0'\"＝a;,| \u200b"


def odd_row(position: int = 1, **other: Any) -> Row:
    """An event whose every text is hostile."""
    values: dict[str, Any] = {
        "entity_key": "Task:=1+1",
        "version": 1,
        "name": "TaskCreated",
        "changes": [(SET, (), {"a": 1})],
        "metadata": EventMetadata(actor="@SUM(A1)", reason='+"x";=cmd\r\n', run_id="\tr", correlation_id="'quoted"),
        "data": -5,
        "event_id": position.to_bytes(16, "big"),
    }
    return sealed(NewEvent(**{**values, **other}), position)


async def as_csv(directory: Path, **options: Any) -> list[dict[str, str]]:
    """The table of a log, read by Python's own reader."""
    stream = io.BytesIO()
    log = await EventLog.open_read_only(directory)
    await export_csv(log, stream, **options)
    await log.close()
    *rows, end = csv.DictReader(io.StringIO(stream.getvalue().decode(), newline=""), strict=True)
    hashed = sha256(stream.getvalue()[: stream.getvalue().rindex(b'"end",')]).hexdigest()
    assert [*end.values()][:3] == ["end", f"{len(rows)} rows", f"sha256 {hashed}"]
    return rows


async def as_cloudevents(directory: Path, **options: Any) -> list[dict[str, Any]]:
    """The CloudEvents of a log."""
    stream = io.BytesIO()
    log = await EventLog.open_read_only(directory)
    await export_cloudevents(log, stream, **options)
    await log.close()
    *events, end = [json.loads(line, parse_constant=pytest.fail) for line in stream.getvalue().splitlines()]
    hashed = sha256(b"".join(stream.getvalue().splitlines(keepends=True)[:-1])).hexdigest()
    assert (end["type"], end["data"]) == (END_TYPE, {"count": len(events), "sha256": hashed})
    check_cloudevent(end)
    return events


async def test_a_table_of_events(tmp_path: Path) -> None:
    """The documented columns, one event a row, a range of them, into a file that is not overwritten."""
    directory = make_log(tmp_path / "log", ROWS)
    table = await as_csv(directory)
    assert list(table[0]) == list(CSV_COLUMNS)
    assert [int(row["position"]) for row in table] == list(range(1, 61))
    assert table[1] == {
        "position": "2", "time": "2026-09-21T14:13:20.000002000Z", "entity_type": "Task", "entity_id": "t2", "version": "1",
        "name": "TaskCreated", "event_id": "00000000000000000000000002", "transaction_id": "00000000000000000000000001", "actor": "alice",
        "reason": "because", "run_id": "r1", "step": "s", "attempt": "1", "cause": "", "correlation_id": "",
        "changes": '[{"op":"set","path":[],"value":{"n":2}}]', "data": "",
    }  # fmt: skip
    assert [row["position"] for row in await as_csv(directory, after=10, until=12)] == ["11", "12"]
    log = await EventLog.open_read_only(directory)
    report = await export_csv(log, tmp_path / "events.csv")
    assert report.size_bytes == (tmp_path / "events.csv").stat().st_size
    with pytest.raises(TargetOccupiedError):
        await export_csv(log, tmp_path / "events.csv")
    await log.close()


async def test_formulas_are_guarded(tmp_path: Path) -> None:
    """A text that a spreadsheet would calculate begins with an apostrophe, and every cell is in quotes."""
    directory = make_log(tmp_path / "log", [odd_row()])
    (row,) = await as_csv(directory)
    assert row["entity_id"] == "'=1+1"
    assert row["actor"] == "'@SUM(A1)"
    assert row["reason"] == "'+\"x\";'=cmd\r\n"
    assert row["run_id"] == "'\tr"
    assert row["correlation_id"] == "''quoted"
    assert row["data"] == "'-5"
    stream = io.BytesIO()
    log = await EventLog.open_read_only(directory)
    await export_csv(log, stream)
    await log.close()
    assert b",=" not in stream.getvalue()
    assert all(part.startswith(b'"') for part in stream.getvalue().split(b"\r\n")[:1])


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    key=plain_data.references,
    actor=plain_data.texts,
    data=plain_data.values,
    reason=st.text(HOSTILE, max_size=7),
)
def test_any_event_in_a_table(tmp_path_factory: pytest.TempPathFactory, key: Any, actor: str, data: Any, reason: str) -> None:
    """No cell begins as a formula does, and every cell can be read back."""
    row = odd_row(entity_key=key.key, metadata=EventMetadata(actor=actor, reason=reason), data=data)
    (told,) = asyncio.run(as_csv(make_log(tmp_path_factory.mktemp("any") / "log", [row])))
    assert not any(cell[:1] in tuple("=+-@\t\r\n\0＝＋－＠") and cell for cell in told.values())
    read = {name: unguarded(cell) for name, cell in told.items()}
    assert (read["entity_type"], read["entity_id"]) == (key.entity_type, key.entity_id)
    assert (read["actor"], read["reason"]) == (actor, reason)


def unguarded(cell: str) -> str:
    """A cell as it was, by the rule of docs/exporting.md."""
    seen = re.sub(f"([{SPLITS}])'(?='*[{PASSED_OVER}]*[{SIGNS}])", r"\1", cell.removeprefix("'"))
    return re.sub(r"\\x([01][0-9a-f]|5c|7f|[89][0-9a-f])", lambda found: chr(int(found[1], 16)), seen)


def split_by_a_program(table: str, separator: str) -> list[str]:
    """Cells as a program has them that splits at one sign: quotes count only where a cell begins with one, and end with the next."""
    cells, at = [], 0
    while at < len(table):
        if table[at] == '"':
            found = re.compile('"((?:[^"]|"")*)("|$)').match(table, at)
            assert found is not None
            cell, at = found[1].replace('""', '"'), found.end()
        else:
            cell = ""
        rest = re.compile(f"[^{re.escape(separator)}\r\n]*").match(table, at)
        assert rest is not None
        cells.append(cell + rest[0])
        at = rest.end() + 1
    return cells


def is_formula(cell: str) -> bool:
    """Whether a program that strips what is not seen, and folds widths, may calculate it."""
    seen = "".join(character for character in cell if unicodedata.category(character) not in ("Cf", "Cc", "Zs", "Zl", "Zp"))
    return unicodedata.normalize("NFKC", seen.lstrip('"'))[:1] in tuple("=+-@")


BEFORE = ["", "a", "a;", ";", "b\t", "b|", "b\n", "b\r", '";', "a;|", "a;'", "'"]
EACH_SIGN = [*"=+-@＝＋－＠﹣⁼⩵"]
BETWEEN = ["", " ", "\t", '"', ' " ', "\u200b\ufeff", "\xa0", "\0", "\x1f", "\u202e", "\n", "\r\n", "\v"]


@pytest.mark.parametrize("separator", [";", "\t", "|", ","])
def test_no_program_finds_a_formula_wherever_it_splits(separator: str) -> None:
    """Each sign behind each separator and what may stand between, at the start of a cell and inside it; all can be read back."""
    texts = [
        f"{before}{between}{sign}1"
        for before in ("", "a", "a;", ";", "b\t", "b|", "b\n", "b\r", '";', "a;|")
        for between in BETWEEN
        for sign in SIGNS
    ]
    for text in texts:
        table = table_bytes([["first", guarded(text), "last"]]).decode()
        assert unguarded(guarded(text)) == text
        assert not [cell for cell in split_by_a_program(table, separator) if is_formula(cell)], (text, table)
        assert is_formula(text) <= (guarded(text) != text)


@given(st.text([*map(chr, range(0xA0)), *"\\\\\\xxx0015cf=;'"], max_size=12))
def test_no_control_character_is_in_a_cell(text: str) -> None:
    """But tab and ends of line, which a quoted cell may have: each is an escape, and can be told from a text that looks like one."""
    cell = guarded(text)
    assert not [character for character in cell if unicodedata.category(character) == "Cc" and character not in "\t\r\n"]
    assert unguarded(cell) == text
    assert next(csv.reader(io.StringIO(table_bytes([[cell]]).decode(), newline=""))) == [cell]


def test_escapes_are_those_of_the_command_line() -> None:
    """A path of Windows is no escape."""
    assert guarded("a\0b\x1b[2J\x85") == r"a\x00b\x1b[2J\x85"
    assert guarded(r"C:\xampp \x41 \n \x00") == r"C:\xampp \x41 \n \x5cx00"


def test_what_is_no_formula_stays_as_it_is() -> None:
    """JSON of numbers, dates, sums in prose, lists of words, empty lines."""
    for text in (
        '{"a":[1,-2],"b":"c, -d"}',
        "2026-11-28T10:00:00",
        "1 + 1 = 2",
        "a; b|c\td",
        "a\r\n\r\nb\n\nc",
        "",
        "me@example.org",
        "x|'y' z",
    ):
        assert guarded(text) == text


def check_cloudevent(event: dict[str, Any]) -> None:
    """The rules of CloudEvents 1.0.2 for attributes and their JSON."""
    assert event["specversion"] == "1.0"
    for name in ("id", "source", "type"):
        assert event[name]
    for name, value in event.items():
        assert re.fullmatch("[a-z0-9]{1,20}", name), name
        if name != "data":
            assert type(value) is str, name
            assert value, name
            assert not re.search(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]", value), name
            assert all(ord(character) & 0xFFFE != 0xFFFE for character in value)
    assert event["datacontenttype"] == "application/json"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", event["time"])
    datetime.fromisoformat(event["time"])


async def test_events_as_cloudevents(tmp_path: Path) -> None:
    """The documented attributes; the sequence sorts as text, as its extension demands."""
    directory = make_log(tmp_path / "log", ROWS)
    events = await as_cloudevents(directory)
    for event in events:
        check_cloudevent(event)
    assert [event["sequence"] for event in events] == sorted(event["sequence"] for event in events)
    assert len({(event["source"], event["id"]) for event in events}) == 60
    assert events[1] == {
        "specversion": "1.0", "id": "00000000000000000000000002", "source": f"urn:uuid:{LOG_ID}", "type": "symphony_es.TaskCreated",
        "subject": "Task:t2", "time": "2026-09-21T14:13:20.000002000Z", "datacontenttype": "application/json",
        "sequence": "0000000000000000002", "partitionkey": "Task:t2", "entitytype": "Task", "entityversion": "1",
        "transactionid": "00000000000000000000000001", "runid": "r1", "step": "s", "attempt": "1", "actor": "alice", "reason": "because",
        "data": {
            "changes": [{"op": "set", "path": [], "value": {"n": 2}}],
            "metadata": {"run_id": "r1", "step": "s", "attempt": 1, "actor": "alice", "reason": "because"},
        },
    }  # fmt: skip


async def test_sources(tmp_path: Path) -> None:
    """The log's identity, or what is given; a log in memory has none, and no source is made up."""
    directory = make_log(tmp_path / "log", ROWS)
    (event,) = await as_cloudevents(directory, source="https://example.org/logs/1?x=%20", until=1)
    assert event["source"] == "https://example.org/logs/1?x=%20"
    for source in ("", "with space", "ü"):
        with pytest.raises(ConfigurationError):
            await as_cloudevents(directory, source=source)
    log = EventLog.in_memory()
    with pytest.raises(ConfigurationError):
        await export_cloudevents(log, io.BytesIO())
    await log.close()


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    entity_id=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8),
    actor=plain_data.texts,
    data=plain_data.values,
)
def test_any_event_is_a_cloudevent(tmp_path_factory: pytest.TempPathFactory, entity_id: str, actor: str, data: Any) -> None:
    """Control characters, noncharacters and empty texts never reach an attribute; two subjects are never one."""
    rows = [odd_row(entity_key=f"Task:{entity_id}", metadata=EventMetadata(actor=actor, attempt=2, cause=bytes(16)), data=data)]
    (event,) = asyncio.run(as_cloudevents(make_log(tmp_path_factory.mktemp("any") / "log", rows)))
    check_cloudevent(event)
    assert (event["attempt"], event["causationid"]) == ("2", "0" * 26)
    assert unquote(event["subject"]) == f"Task:{entity_id}"
