"""Large events in exports: in pieces they are the same text as whole, and no piece is large."""

from __future__ import annotations

import asyncio
import io
import json
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from symphony_es.core.past.states import StateHistory
from symphony_es.events.changes import EXTEND, INSERT, REMOVE, SET, SPLICE
from symphony_es.events.event import EventMetadata, NewEvent
from symphony_es.events.rows import Row
from symphony_es.log.log import EventLog
from symphony_es.transfer import changes, export_changes, export_cloudevents, export_csv, export_jsonl, pieces, writing
from symphony_es.transfer.pieces import Later, json_pieces
from symphony_es.transfer.tables import guarded, guarded_pieces
from symphony_es.transfer.text import json_text, plain_as_json
from tests.events import plain_data
from tests.transfer.logs import make_log, sealed


async def _changes(log: EventLog, target: Any) -> None:
    await export_changes(StateHistory(log, None), target)


EXPORTS = [export_jsonl, export_csv, export_cloudevents, _changes]
SIGNS = ";|\t\r\n =-@'\"ab\u200b\u2028\0\\x05c"


@settings(max_examples=60, deadline=None)
@given(plain_data.values, st.sampled_from([1, 3, 1000]))
def test_any_value_in_pieces(value: Any, size: int) -> None:
    """However small the pieces are, together they are the JSON of the value."""
    with pytest.MonkeyPatch.context() as small:
        small.setattr(pieces, "PIECE", 3 * size)
        small.setattr(pieces, "TOGETHER", size)
        assert "".join(json_pieces({"a": Later(value), "b": [Later(value)]})) == json_text(
            {"a": plain_as_json(value), "b": [plain_as_json(value)]}
        )


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(SIGNS, max_size=4), max_size=6))
def test_any_cell_in_pieces(cell: list[str]) -> None:
    """Wherever it is cut, the same apostrophes come into it."""
    assert "".join(guarded_pieces(cell)) == guarded("".join(cell))


async def exported(directory: Path, export: Callable[..., Awaitable[Any]]) -> bytes:
    """What an export writes."""
    stream, log = io.BytesIO(), await EventLog.open_read_only(directory)
    await export(log, stream)
    await log.close()
    return stream.getvalue()


def an_event(position: int, *done: Any, data: Any = None) -> Row:
    """An event of one entity."""
    metadata = EventMetadata(actor="=a", reason="b;=c", user={"n": [1, "x"]})
    made = NewEvent(
        entity_key="Task:1", version=position, name="TaskChanged", changes=[*done], metadata=metadata, data=data, event_id=bytes(16)
    )
    return sealed(made, position)


@pytest.mark.parametrize("export", EXPORTS)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(value=plain_data.values, data=plain_data.values)
def test_any_event_in_pieces(tmp_path_factory: pytest.TempPathFactory, export: Any, value: Any, data: Any) -> None:
    """Each operation, with data and without, small events before and behind."""
    rows = [
        an_event(1, (SET, (), {"a": []})),
        an_event(2, (SET, ("a",), [value]), (INSERT, ("a",), 0, value), data=data),
        an_event(3, (SPLICE, ("a",), 0, 1, [value, "=1;-1"]), (REMOVE, ("a", 0)), (SET, ("t",), "=1;=2"), (EXTEND, ("t",), "x")),
    ]
    directory = make_log(tmp_path_factory.mktemp("any") / "log", rows)
    whole = asyncio.run(exported(directory, export))
    with pytest.MonkeyPatch.context() as small:
        for module in (writing, changes):
            small.setattr(module, "LARGE_BYTES", 1)
            small.setattr(module, "RENDERED_BYTES", 5)
        for module in (pieces, changes):
            small.setattr(module, "PIECE", 9)
        small.setattr(pieces, "TOGETHER", 2)
        assert lines(asyncio.run(exported(directory, export))) == lines(whole)


def lines(written: bytes) -> list[bytes]:
    """The events' lines of an export: its first and last one tell of when it was made."""
    return [line for line in written.split(b"\n") if b"exported_at" not in line and b"sha256" not in line]


@pytest.mark.parametrize("export", EXPORTS)
def test_a_large_event_is_never_held_twice(tmp_path: Path, export: Any) -> None:
    """What is held beyond the stored event and the value in it is a few pieces: neither its JSON nor its base64 as a whole."""
    size = 3_000_000
    directory = make_log(tmp_path / "log", [an_event(1, (SET, (), {})), an_event(2, (SET, ("text",), "x;y" * (size // 3)))])

    class Counting(io.RawIOBase):
        written = 0

        def write(self, data: Any) -> int:
            self.written += len(data)
            return len(data)

    async def peak() -> int:
        log = await EventLog.open_read_only(directory)
        await export(log, Counting())  # what is made once is made
        tracemalloc.start()
        stream = Counting()
        await export(log, stream)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        await log.close()
        assert stream.written > size
        return most

    assert asyncio.run(peak()) < 3.5 * size, "the row, its packed body or the state, the value, and pieces"


def test_pieces_are_small() -> None:
    """Whatever a value is made of: long texts, bytes, long lists, deep ones, dicts of both kinds."""
    long = "é" * 300_000
    values = [
        long,
        long.encode(),
        list(range(100_000)),
        [long] * 3,
        {long[:9]: [long]},
        {1: long},
        (long,),
        [[{"a": long}]],
        ["ab"] * 50_000,
    ]
    for value in values:
        assert max(map(len, json_pieces(Later(value)))) < 6 * pieces.PIECE
        assert json.loads("".join(json_pieces(Later(value)))) == plain_as_json(value)
