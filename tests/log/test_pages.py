"""Pages of a reading are bounded in bytes, wherever the log is read; and nothing reads more than it shows. What is read is counted."""

from __future__ import annotations

import contextlib
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from symphony_es.cli.main import main
from symphony_es.core.past.audit import Audit
from symphony_es.core.past.opening import OpenedLog, open_to_read
from symphony_es.events.changes import SET
from symphony_es.events.event import EventMetadata, NewEvent
from symphony_es.events.fold import Fold
from symphony_es.events.rows import Row
from symphony_es.log import pages
from symphony_es.log.log import EventLog
from symphony_es.log.memory import MemoryLogRecorder
from symphony_es.log.pages import take_page
from symphony_es.log.skipping import SkippingLogRecorder
from symphony_es.log.sqlite_reading import SQLiteLogReader
from symphony_es.transfer import export_jsonl, verify

EVENTS = 40
EACH = 3000  # bytes of one event
ROOM = 4 * EACH  # bytes of a page
KEY = "Heavy:1"


def heavy(version: int, key: str = KEY, name: str = "HeavyChanged") -> NewEvent:
    """An event that replaces the one value of an entity by a long text."""
    value: dict[str, Any] = {"id": "1", "text": f"{version} " + "x" * EACH}
    changes = [(SET, (), value)] if version == 1 else [(SET, ("text",), value["text"])]
    return NewEvent(
        entity_key=key, version=version, name=name, changes=changes, metadata=EventMetadata(), event_id=version.to_bytes(16, "big")
    )


async def filled(directory: Path) -> None:
    """A log of heavy events of one entity; every tenth has another name."""
    log = await EventLog.open(directory)
    for version in range(1, EVENTS + 1):
        await log.append([heavy(version, name="HeavyMoved" if version % 10 == 0 else "HeavyChanged")])
    await log.close()


class Reading:
    """What has been read of a log: how many rows, and the most bytes at once."""

    def __init__(self) -> None:
        self.rows = 0
        self.most = 0

    def counting(self, original: Callable[..., list[Row]]) -> Callable[..., list[Row]]:
        """A reading method that counts what it hands out."""

        def counted(*given: Any, **named: Any) -> list[Row]:
            rows = original(*given, **named)
            self.rows += len(rows)
            self.most = max(self.most, sum(len(row[4]) for row in rows))
            return rows

        return counted


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Reading:
    """Counts what stores hand out; a page has room for four events."""
    seen = Reading()
    monkeypatch.setattr(pages, "PAGE_BYTES", ROOM)
    for kind, names in (
        (SQLiteLogReader, ["_select"]),
        (SkippingLogRecorder, ["read", "read_back", "read_entity", "read_entity_back"]),
        (MemoryLogRecorder, ["read", "read_back", "read_entity", "read_entity_back"]),
    ):
        for name in names:
            monkeypatch.setattr(kind, name, seen.counting(getattr(kind, name)))
    return seen


@pytest.fixture(params=["disk", "disk, damaged events skipped", "memory"])
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[EventLog]:
    """A log of heavy events in each kind of store."""
    if request.param == "memory":
        log = EventLog.in_memory()
        await log.append([heavy(version, name="HeavyMoved" if version % 10 == 0 else "HeavyChanged") for version in range(1, EVENTS + 1)])
    else:
        await filled(tmp_path)
        log = await EventLog.open(tmp_path, skip_damaged=request.param != "disk")
    yield log
    await log.close()


async def _positions(rows: AsyncIterator[list[Row]]) -> list[int]:
    """The positions of all rows; each page is taken apart, as exports do, and the reading goes on behind it."""
    found: list[int] = []
    async for page in rows:
        found += [row[0] for row in page]
        page.clear()
    return found


async def _fold(log: EventLog) -> list[int]:
    one, other = Fold(), Fold()
    await log.replay(one, EVENTS)
    await log.replay_entities({KEY: other}, EVENTS)
    assert one.states[KEY].data == other.states[KEY].data
    return list(range(1, one.states[KEY].version + 1))


async def _named(log: EventLog) -> list[int]:
    moved = [event.position async for page in log.read(names=["HeavyMoved"]) for event in page]
    assert moved == [10, 20, 30, 40]
    assert [row[0] for row in await log.read_rows(names=["HeavyMoved"], limit=2)] == [10, 20]
    ranged = await log.read_rows(names=["HeavyMoved"], key_range=(KEY, f"{KEY}0"))
    assert [row[0] for row in ranged] == [10, 20, 30, 40]
    first = await log.read_rows(key_range=(KEY, f"{KEY}0"))
    assert len(first) == 4
    assert first.cut
    return list(range(1, EVENTS + 1))


WAYS: dict[str, Callable[[EventLog], Awaitable[list[int]]]] = {
    "forwards": lambda log: _positions(log.pages(0, EVENTS)),
    "backwards": lambda log: _positions(log.pages_back(EVENTS + 1)),
    "backwards, in growing pages": lambda log: _positions(log.pages_back(EVENTS + 9, first=1)),
    "one entity": lambda log: _positions(log.entity_pages(KEY)),
    "one entity, to a version": lambda log: _positions(log.entity_pages(KEY, last_version=EVENTS)),
    "one entity backwards": lambda log: _positions(log.entity_pages_back(KEY)),
    "one entity backwards, in growing pages": lambda log: _positions(log.entity_pages_back(KEY, first=3)),
    "a fold": _fold,
    "by name": _named,
}


@pytest.mark.parametrize("way", WAYS)
async def test_a_page_ends_at_its_bytes_and_the_reading_goes_on(log: EventLog, way: str, read: Reading) -> None:
    """Every row is read, in order, and no more than a page's bytes at once, in each kind of store."""
    found = await WAYS[way](log)
    assert sorted(found) == list(range(1, EVENTS + 1))
    assert found in (sorted(found), sorted(found, reverse=True))
    assert 0 < read.most < ROOM + 2 * EACH


async def test_parts_of_a_reading_backwards(log: EventLog) -> None:
    """Between positions and versions, up to a position, and where there is nothing."""
    assert await _positions(log.pages_back(8, 3)) == [7, 6, 5, 4]
    assert await _positions(log.pages_back(1)) == await _positions(log.pages_back(5, 4)) == []
    assert await _positions(log.entity_pages_back(KEY, after_version=3, until_position=6)) == [6, 5, 4]
    assert await _positions(log.entity_pages_back("Heavy:none")) == []
    assert [await log.version_at(KEY, position) for position in (0, 7, 99)] == [0, 7, EVENTS]
    assert await log.version_at("Heavy:none", 9) == 0


@pytest.mark.parametrize(
    ("limit", "room", "rows", "cut"),
    [(9, 100, 4, True), (4, 100, 4, False), (2, 100, 2, False), (9, 1, 1, True), (9, 999, 6, False), (0, 9, 0, False)],
)
def test_where_a_page_ends(limit: int, room: int, rows: int, cut: bool) -> None:
    """At its rows or at its bytes; it has one row at least where one is asked for, and no row behind it is read."""
    source: Iterator[Row] = iter([(at, "E:1", at, "n", bytes(25)) for at in range(1, 7)])
    page = take_page(source, limit, room)
    assert (len(page), page.cut) == (rows, cut)
    assert len(list(source)) == 6 - rows


async def _of(opened: OpenedLog, question: str) -> int:
    """Ask a question of a log that is read; returns how many events are in the answer."""
    past, audit = opened.past, Audit(opened.log, _no_trail)
    if question == "difference":
        (one,) = await past.diff(5, 8)
        read_before = len(await one.events())
        return read_before
    asked: dict[str, Callable[[], Awaitable[list[Any]]]] = {
        "history, a page": lambda: past.history(KEY, limit=3),
        "history, a later page": lambda: past.history(KEY, after_version=38),
        "audit, one": lambda: audit.find(limit=1),
        "audit, the newest": lambda: audit.find(limit=2, newest_first=True),
        "audit of an entity": lambda: audit.find(entity=KEY, limit=2),
        "audit of an entity, the newest": lambda: audit.find(entity=KEY, limit=2, newest_first=True, before_position=30),
        "blame": lambda: past.blame(KEY, "text"),
        "history": lambda: past.history(KEY),
    }
    return len(await asked[question]())


async def _no_trail() -> None:
    return None


@pytest.mark.parametrize(
    ("question", "shown", "beside"),
    [
        ("history, a page", 3, 4), ("audit, one", 1, 0), ("audit, the newest", 2, 0), ("audit of an entity", 2, 1),
        ("audit of an entity, the newest", 2, 1), ("blame", EVENTS, 1), ("history", EVENTS, 3), ("difference", 3, 14),
    ],
)  # fmt: skip
async def test_a_question_reads_what_it_answers(tmp_path: Path, read: Reading, question: str, shown: int, beside: int) -> None:
    """And a look at the edges; the entity has forty events."""
    await filled(tmp_path)
    opened = await open_to_read(tmp_path)
    try:
        read.rows = 0
        assert await _of(opened, question) == shown
        assert read.rows <= shown + beside
        assert read.most < ROOM + 2 * EACH
    finally:
        await opened.close()


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("log --limit 5", 5), ("log --limit 1 --after 7", 1), (f"log --limit 1 --after 0 --entity {KEY}", 1), ("tail -n 2", 2),
        (f"tail -n 1 --entity {KEY}", 1), (f"log --entity {KEY} --until 9 --limit 2", 2), (f"history {KEY} --limit 5", 5),
        ("audit --limit 1", 1), ("audit --limit 2 --newest-first", 2), (f"history {KEY}", EVENTS), (f"blame {KEY} text", EVENTS),
        ("audit --limit 0", EVENTS), ("log --after 0", EVENTS), ("tail -n 1 --event HeavyMoved", 1),
    ],
)  # fmt: skip
@pytest.mark.parametrize("json", ["", " --json"])
async def test_a_command_reads_what_it_shows(tmp_path: Path, read: Reading, command: str, shown: int, json: str) -> None:
    """And some events more for the opening; never more at once than a page."""
    await filled(tmp_path)
    read.rows, out = 0, io.StringIO()
    with contextlib.redirect_stdout(out):
        code = await _in_thread([*f"{command}{json}".split(), "--state-dir", str(tmp_path)])
    assert code == 0
    if json:
        assert out.getvalue().count("\n") == shown
    assert read.rows <= shown + 4
    assert read.most < ROOM + 2 * EACH


async def _in_thread(arguments: list[str]) -> int:
    import asyncio

    return await asyncio.to_thread(main, arguments)


async def test_exports_and_checks_read_by_pages(tmp_path: Path, read: Reading) -> None:
    """All events, and never more at once than a page."""
    await filled(tmp_path / "state")
    opened = await open_to_read(tmp_path / "state")
    try:
        report = await export_jsonl(opened.log, tmp_path / "export.jsonl")
        assert report.events == EVENTS
        assert await opened.history.count_entities(EVENTS) == 1
        assert await opened.history.count_by_type(EVENTS) == {"Heavy": 1}
    finally:
        await opened.close()
    assert (await verify(tmp_path / "state")).ok
    assert read.most < ROOM + 2 * EACH
