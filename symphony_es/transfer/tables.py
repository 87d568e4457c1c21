"""Events for spreadsheets and for other systems: CSV, and CloudEvents. One way: what is exact is `export_jsonl`.

The last line tells how many rows there were and the hash of what is before it, as that of `export_jsonl` does: a file that ends without it
was cut.

CSV is RFC 4180 in UTF-8, every cell in quotes. `guarded` says what is done to a cell that a spreadsheet would take for a formula.

Sources: CloudEvents 1.0.2 (attributes and their types, the JSON format) and its extensions `sequence`, `partitioning` and
`correlation`; the "CSV Injection" page of OWASP.
"""

from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import quote

from symphony_es.errors import ConfigurationError
from symphony_es.events.event import Event
from symphony_es.events.identifiers import text_id
from symphony_es.events.rows import Row, decode_row
from symphony_es.log.log import EventLog
from symphony_es.shown import quoted
from symphony_es.transfer.pieces import Later, json_pieces, row_pieces
from symphony_es.transfer.progress import OnProgress
from symphony_es.transfer.text import (
    Convert,
    changes_as_json,
    event_as_json,
    json_line,
    json_text,
    metadata_as_json,
    plain_as_json,
    time_as_text,
)
from symphony_es.transfer.writing import Digest, ExportReport, Rendering, Target, bounds, pages, write_out

__all__ = ["CSV_COLUMNS", "END_TYPE", "export_cloudevents", "export_csv", "guarded", "table_bytes", "table_end"]

CSV_COLUMNS = (
    "position", "time", "entity_type", "entity_id", "version", "name", "event_id", "transaction_id", "actor", "reason", "run_id", "step",
    "attempt", "cause", "correlation_id", "changes", "data",
)  # fmt: skip
END_TYPE = "symphony_es.end-of-export"
SEQUENCE_DIGITS = 19  # of the largest position, so that the texts are in the order of the positions, as the extension demands

_SPLITS = "\t\n\r\u2028\u2029;|；｜"
_SIGNS = "=+\\-@＝＋－＠﹦﹢﹣﹫⁼₌⁺₊⁻₋⩵⩶﬩−"
_PASSED_OVER = (
    ' "\xa0\u1680\u2000-\u200a\u202f\u205f\u3000'
    "\xad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"
)
# No character is in two of these, so a text of any length is gone through once. Control characters are escapes by then.
_AT_START = re.compile(f"'|[{_PASSED_OVER}]*[{_SIGNS}\t\r\n]")
_INSIDE = re.compile(f"[{_SPLITS}](?='*[{_PASSED_OVER}]*[{_SIGNS}])")
_OPEN_END = re.compile(f"[{_SPLITS}]'*[{_PASSED_OVER}]*\\Z")
_PASSED = re.compile(f"'*[{_PASSED_OVER}]*")
_CODE = "[01][0-9a-f]|5c|7f|[89][0-9a-f]"
_UNSEEN = re.compile(f"[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x9f]|\\\\(?=x(?:{_CODE}))")
_OPEN_ESCAPE = re.compile(r"\\(?:x[0-9a-f]?)?\Z")
_NONCHARACTERS = "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
_NO_ATTRIBUTE_TEXT = re.compile(f"[\\x00-\\x1f\\x7f-\\x9f%\\ufdd0-\\ufdef{_NONCHARACTERS}]")
_NAMES = {"run_id": "runid", "step": "step", "actor": "actor", "reason": "reason", "correlation_id": "correlationid", "trace_id": "traceid"}


async def export_csv(
    log: EventLog,
    target: Target,
    *,
    after: int = 0,
    until: int | None = None,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
) -> ExportReport:
    """Write events as a table, one a row. Arguments and errors are those of `export_jsonl`."""
    header = table_bytes([CSV_COLUMNS])

    def end(digest: Digest, count: int) -> bytes:
        return table_end(CSV_COLUMNS, digest, count)

    rendering = Rendering(lambda rows: table_bytes(map(_cells, rows)), _row_pieces)
    return await _export(log, target, header, rendering, end, after, until, overwrite, on_progress)


async def export_cloudevents(
    log: EventLog,
    target: Target,
    *,
    source: str | None = None,
    after: int = 0,
    until: int | None = None,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
) -> ExportReport:
    """Write events as CloudEvents 1.0 in JSON, one per line. Arguments and errors are those of `export_jsonl`.

    Args:
        source: the attribute of that name, a URI reference; None is `urn:uuid:` and the log's identity. An event is known by source
            and id together, so copies of one log keep one source.

    Raises:
        ConfigurationError: the source is no URI reference, or none is given and the log has no identity (it is in memory).
    """
    if source is None:
        log_id = await log.log_id()
        if log_id is None:
            raise ConfigurationError("this log has no identity to name as the source of its events: pass source='...'")
        source = f"urn:uuid:{log_id}"
    if not source or quote(source, safe="!#$%&'()*+,/:;=?@[]~") != source:
        raise ConfigurationError(f"{quoted(source, 100)} is no URI reference")
    named = source

    def lines(rows: Sequence[Row]) -> bytes:
        return b"".join([json_line(cloudevent(decode_row(row), named)) for row in rows])

    def end(digest: Digest, count: int) -> bytes:
        told = {"specversion": "1.0", "id": f"end-{digest.hexdigest()}", "source": named, "type": END_TYPE}
        told |= {"time": time_as_text(time.time_ns()), "datacontenttype": "application/json"}
        return json_line({**told, "data": {"count": count, "sha256": digest.hexdigest()}})

    def line_pieces(row: Row) -> Iterator[str]:
        yield from json_pieces(cloudevent(decode_row(row), named, convert=Later))
        yield "\n"

    return await _export(log, target, b"", Rendering(lines, line_pieces), end, after, until, overwrite, on_progress)


def cloudevent(event: Event, source: str, *, convert: Convert | None = None) -> dict[str, Any]:
    """Return an event as a CloudEvent, `convert` as for `event_as_json`.

    Control characters and `%` in attributes are written as `%XX`, since attributes may not have them.
    """
    told: dict[str, Any] = {
        "specversion": "1.0",
        "id": event.id,
        "source": source,
        "type": f"symphony_es.{event.name}",
        "subject": _attribute(event.entity_key),
        "time": time_as_text(event.time_ns),
        "datacontenttype": "application/json",
        "sequence": f"{event.position:0{SEQUENCE_DIGITS}d}",
        "partitionkey": _attribute(event.entity_key),
        "entitytype": event.entity_type,
        "entityversion": str(event.version),
        "transactionid": text_id(event.transaction_id),
    }
    for name, attribute in _NAMES.items():
        value = getattr(event.metadata, name)
        if value:  # an attribute is never empty
            told[attribute] = _attribute(value)
    if event.metadata.attempt is not None:
        told["attempt"] = str(event.metadata.attempt)
    if event.metadata.cause is not None:
        told["causationid"] = text_id(event.metadata.cause)
    readable = event_as_json(event, convert=convert)
    told["data"] = {name: readable[name] for name in ("changes", "data", "metadata") if name in readable}
    return told


def _attribute(text: str) -> str:
    """Return text without the characters that a String of CloudEvents may not have."""
    return _NO_ATTRIBUTE_TEXT.sub(lambda found: quote(found[0], safe=""), text)


def _cells(row: Row) -> list[str]:
    event = decode_row(row)
    told = [*_named_cells(event), json_text(changes_as_json(event.changes))]
    told.append("" if event.data is None else json_text(plain_as_json(event.data)))
    return [guarded(cell) for cell in told]


def _row_pieces(row: Row) -> Iterator[str]:
    event = decode_row(row)
    data: Iterator[str] = iter(()) if event.data is None else json_pieces(Later(event.data))
    cells = [*([cell] for cell in _named_cells(event)), json_pieces(changes_as_json(event.changes, Later)), data]
    return row_pieces(map(guarded_pieces, cells))


def _named_cells(event: Event) -> list[str]:
    metadata = metadata_as_json(event.metadata)
    told = [
        str(event.position), time_as_text(event.time_ns), event.entity_type, event.entity_id, str(event.version), event.name, event.id,
        text_id(event.transaction_id),
    ]  # fmt: skip
    return told + [str(metadata.get(name, "")) for name in ("actor", "reason", "run_id", "step", "attempt", "cause", "correlation_id")]


def _visible(text: str) -> str:
    r"""Return a text whose control characters but tab and ends of line are escapes, `\x00`: a program may end at them, drop them, or obey
    them.

    A backslash before what would be read as such an escape is one itself, `\x5c`, so that every text can be read back.
    """
    return _UNSEEN.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def _visible_pieces(pieces: Iterable[str]) -> Iterator[str]:
    """Yield the same of a text that comes in pieces: the beginning of what may be an escape is held until it is seen what follows."""
    held = ""
    for piece in pieces:
        text = held + piece
        open_escape = _OPEN_ESCAPE.search(text, max(0, len(text) - 3))
        end = len(text) if open_escape is None else open_escape.start()
        held = text[end:]
        yield _visible(text[:end] if open_escape is not None else text)
    yield _visible(held)


def guarded(cell: str) -> str:
    """Return a cell without control characters, that no spreadsheet takes for a formula, or splits into one.

    Programs differ in where they split a line: one that splits at `;`, tab or `|` begins a cell in the middle of this one, and does not
    mind the quotes. So wherever a cell may begin, here or behind such a sign or an end of line, one `'` is put before what begins a
    formula: `=`, `+`, `-`, `@` and signs that are taken for them, also behind apostrophes, and then behind blanks, quotes and what is
    not seen; here, before a tab, an end of line or any apostrophe as well. docs/exporting.md says how a cell is read back.
    """
    return _guarded(_visible(cell))


def _guarded(seen: str) -> str:
    inside = _INSIDE.sub(r"\g<0>'", seen)
    return f"'{inside}" if _AT_START.match(seen) else inside


def guarded_pieces(pieces: Iterable[str]) -> Iterator[str]:
    """Yield the same of a cell that comes in pieces: what may stand before a formula is held until it is seen what follows."""
    held: list[str] = []
    at_start = True
    for piece in _visible_pieces(pieces):
        if (held or at_start) and _PASSED.fullmatch(piece):
            held.append(piece)
            continue
        text = "".join((*held, piece))
        if at_start and _AT_START.match(text):
            yield "'"
        at_start = False
        open_end = _OPEN_END.search(text)
        end = len(text) if open_end is None else open_end.start()
        held = [text[end:]] if end < len(text) else []
        yield _INSIDE.sub(r"\g<0>'", text[:end])
    rest = "".join(held)
    yield _guarded(rest) if at_start else rest


def table_end(columns: Sequence[str], digest: Digest, count: int) -> bytes:
    """Return the last row of a table: `end`, how many rows there are, and the hash of all bytes before it; its other cells are empty."""
    return table_bytes([["end", f"{count} rows", f"sha256 {digest.hexdigest()}", *[""] * (len(columns) - 3)]])


def table_bytes(rows: Any) -> bytes:
    """Return rows as CSV."""
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()


async def _export(
    log: EventLog,
    target: Target,
    header: bytes,
    rendering: Rendering,
    end: Callable[[Digest, int], bytes],
    after: int,
    until: int | None,
    overwrite: bool,
    on_progress: OnProgress | None,
) -> ExportReport:
    last = await bounds(log, after, until)
    digest = Digest()

    async def chunks() -> AsyncIterator[bytes]:
        if header:
            yield digest.add(header)
        async for page in pages(log, after, last, rendering, on_progress):
            yield digest.add(page)
        yield digest.add(end(digest, last - after))

    await write_out(log, target, chunks, overwrite=overwrite)
    return ExportReport(first=after + 1, last=last, events=last - after, size_bytes=digest.size_bytes, sha256=digest.hexdigest())
