"""A whole log as one file of JSON lines, and back: readable by everything that reads JSON, and exact to the byte.

The first line is a header, then comes one event per line (`text.event_as_json`, with its stored bytes as base64 under `state`), the
last line is a footer with the number of events and the SHA-256 of all bytes before it. What is imported is identical: positions, ids,
times, every byte of every row. docs/exporting.md tells the format.
"""

from __future__ import annotations

import time
from base64 import b64decode
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO
from uuid import UUID

from symphony_es.errors import DamagedEventError, ExportDamagedError, StorageUnavailableError
from symphony_es.events.identifiers import text_id
from symphony_es.events.rows import Row, decode_row, event_id_of
from symphony_es.files.directory import sync_directory
from symphony_es.late_dataclasses import dataclass
from symphony_es.log.directory import note_made, prepare_file
from symphony_es.log.log import DATABASE_NAME, EventLog
from symphony_es.log.sqlite import SQLiteLogRecorder
from symphony_es.shown import quoted
from symphony_es.strict_json import read_strictly
from symphony_es.system import given_path
from symphony_es.transfer.pieces import Later, json_pieces
from symphony_es.transfer.placing import absolute, building, check_free_directory, put_directory
from symphony_es.transfer.progress import OnProgress, Progress, Stop, in_thread
from symphony_es.transfer.text import event_as_json, json_line, time_as_text
from symphony_es.transfer.writing import Digest, ExportReport, Rendering, Target, bounds, pages, write_out

__all__ = ["ImportReport", "export_jsonl", "import_jsonl"]

FORMAT = "symphony_es.events"
VERSION = 1
MAX_LINE_BYTES = 256 * 1024 * 1024  # an event of 16 MiB, as base64 and with every byte of its text escaped, stays below
ROWS_PER_COMMIT = 2000
BYTES_PER_COMMIT = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """An import that was made.

    Attributes:
        directory: the new state directory.
        events: how many events its log has.
        log_id: the identity it has taken over; None when the export names none.
        sha256: hash of the lines before the footer, which the footer confirmed; hexadecimal.
    """

    directory: Path
    events: int
    log_id: UUID | None
    sha256: str


async def export_jsonl(
    log: EventLog,
    target: Target,
    *,
    after: int = 0,
    until: int | None = None,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
) -> ExportReport:
    """Write events as JSON lines, with their exact bytes; only an export of everything can be imported.

    The log may be written meanwhile, by this process or another one: the export ends at the head as it was at the call.

    Args:
        target: a path, whose file is there when it is whole and durable; or a stream with a `write` that takes bytes.
        after: export the events above this position.
        until: the last position; None is the head.
        overwrite: replace the file that is there.
        on_progress: called with how many events are done, and how many there are; ten times a second at most.

    Raises:
        TargetOccupiedError: there is a file of this name, and `overwrite` is not given.
        DamagedEventError: an event is damaged; there is no file.
        PositionNotFoundError, ConfigurationError: there is no such range.
        StorageUnavailableError: disk full, read-only or I/O error; what was there before is untouched.
    """
    last = await bounds(log, after, until)
    log_id = await log.log_id()
    digest = Digest()

    async def chunks() -> AsyncIterator[bytes]:
        header: dict[str, Any] = {"format": FORMAT, "version": VERSION}
        if log_id is not None:
            header["log_id"] = str(log_id)
        header |= {"first": after + 1, "last": last, "exported_at": time_as_text(time.time_ns())}
        yield digest.add(json_line(header))
        async for page in pages(log, after, last, Rendering(_lines, _pieces), on_progress):
            yield digest.add(page)
        yield digest.add(json_line({"end": FORMAT, "count": last - after, "sha256": digest.hexdigest()}))

    await write_out(log, target, chunks, overwrite=overwrite)
    return ExportReport(first=after + 1, last=last, events=last - after, size_bytes=digest.size_bytes, sha256=digest.hexdigest())


def _lines(rows: Sequence[Row]) -> bytes:
    return b"".join([json_line(event_as_json(decode_row(row), row)) for row in rows])


def _pieces(row: Row) -> Iterator[str]:
    yield from json_pieces(event_as_json(decode_row(row), row, convert=Later))
    yield "\n"


async def import_jsonl(path: Path | str, directory: Path | str, *, on_progress: OnProgress | None = None) -> ImportReport:
    """Make a state directory of an export: the same log, to the byte.

    Everything is checked: every row, the order of positions and versions, that the readable fields are what the row says, the footer.
    The directory is built beside its place and put there when it is whole and durable.

    Args:
        directory: it must not exist, be empty, or hold a log without events.
        on_progress: called with how many events are done, and how many there are; ten times a second at most, in a worker thread.

    Raises:
        ExportDamagedError: the file is cut off, altered, of another format, or begins after the first event.
        TargetOccupiedError: there is something in the directory.
        LogInUseError: another process writes a log there.
        StorageUnavailableError, LogUnavailableError: the file cannot be read, or the directory not be written.
    """
    source, target = given_path(path, "path"), absolute(directory, "directory")

    def work(place: Path, stop: Stop) -> ImportReport:
        report = _import(source, place, target, stop, on_progress)
        stop.look()
        put_directory(place, target)
        return report

    await in_thread(lambda _: check_free_directory(target))
    async with building(target) as place:
        return await in_thread(lambda stop: work(place, stop))


def _import(source: Path, built: Path, target: Path, stop: Stop, on_progress: OnProgress | None) -> ImportReport:
    try:
        file = source.open("rb")
    except OSError as error:
        raise StorageUnavailableError(error.errno, f"{source} cannot be read: {error.strerror}") from error
    with file:
        lines = _Lines(source, file)
        log_id, last = lines.header()
        prepare_file(built / DATABASE_NAME)
        recorder = SQLiteLogRecorder(built / DATABASE_NAME, log_id=log_id)
        progress = Progress(on_progress, last)
        try:
            done = 0
            for rows in lines.pages():
                stop.look()
                try:
                    recorder.append_rows(rows)
                except DamagedEventError as error:
                    raise ExportDamagedError(source, 1 + done + _fault(rows, error), error.why) from error
                done += len(rows)
                recorder.maintain()
                progress.tell(done)
            if done != last:
                raise ExportDamagedError(source, None, f"its header tells of {last} events, and it has {done}")
        finally:
            recorder.close()
    note_made(built)
    sync_directory(built)
    progress.end()
    return ImportReport(directory=target, events=done, log_id=log_id, sha256=lines.sha256)


def _fault(rows: Sequence[Row], error: DamagedEventError) -> int:
    """Return number of the row that was refused, from 1."""
    return next((number for number, row in enumerate(rows, 1) if row[0] == error.position), len(rows))


class _Lines:
    """Reads an export line by line, and believes nothing."""

    def __init__(self, source: Path, file: BinaryIO) -> None:
        self._source = source
        self._file = file
        self._number = 0
        self._digest = Digest()
        self.sha256 = ""

    def _wrong(self, why: str) -> ExportDamagedError:
        return ExportDamagedError(self._source, self._number, why)

    def _next(self) -> tuple[bytes, dict[str, Any]]:
        self._number += 1
        try:
            line = self._file.readline(MAX_LINE_BYTES)
        except OSError as error:
            raise StorageUnavailableError(error.errno, f"{self._source} cannot be read: {error.strerror}") from error
        if not line.endswith(b"\n"):
            raise self._wrong("the file ends before its footer: it is cut off" if len(line) < MAX_LINE_BYTES else "the line is too long")
        try:
            value = read_strictly(line)
        except ValueError as error:
            raise self._wrong(f"it is no JSON ({quoted(error, 100)})") from error
        if type(value) is not dict:
            raise self._wrong("it is no JSON object")
        return line, value

    def header(self) -> tuple[UUID | None, int]:
        """Return the log's identity and the number of its events, from the first line."""
        line, header = self._next()
        if header.get("format") != FORMAT:
            raise self._wrong("it is no header of an export of this library")
        if header.get("version") != VERSION:
            raise self._wrong(f"its version is {quoted(header.get('version'), 40)}; this version of symphony_es reads version {VERSION}")
        last = header.get("last")
        if header.get("first") != 1 or type(last) is not int or not 0 <= last < 2**63:
            raise self._wrong("it does not begin with the first event of its log: only an export of everything can be imported")
        try:
            log_id = UUID(header["log_id"]) if "log_id" in header else None
        except (ValueError, AttributeError, TypeError) as error:
            raise self._wrong("its log_id is no UUID") from error
        self._digest.add(line)
        return log_id, last

    def pages(self) -> Iterator[list[Row]]:
        """Yield the rows, up to the footer, which must be right."""
        rows: list[Row] = []
        size = count = 0
        while True:
            line, told = self._next()
            if "end" in told:
                self._check_footer(told, count)
                break
            self._digest.add(line)
            row = self._row(told)
            rows.append(row)
            count += 1
            size += len(row[4])
            if len(rows) >= ROWS_PER_COMMIT or size >= BYTES_PER_COMMIT:
                yield rows
                rows, size = [], 0
        yield rows

    def _check_footer(self, footer: dict[str, Any], count: int) -> None:
        if footer != {"end": FORMAT, "count": count, "sha256": self._digest.hexdigest()} or type(footer["count"]) is not int:
            raise self._wrong("its count or hash is not that of the lines before: they have been altered")
        if self._file.read(1):
            raise self._wrong("something comes after the footer")
        self.sha256 = footer["sha256"]

    def _row(self, told: dict[str, Any]) -> Row:
        """Return the row of an event's line; what the line says for people is what the row says."""
        try:
            entity = told["entity"]
            if type(entity["type"]) is not str or type(entity["id"]) is not str:
                raise self._wrong("the type or id of its entity is no text")
            key = f"{entity['type']}:{entity['id']}"
            state = b64decode(told["state"], validate=True)
            row: Row = (told["position"], key, told["version"], told["name"], state)
            event = decode_row(row)
            readable = event_as_json(event)
            same = all(told[name] == readable[name] for name in ("time", "id", "transaction", "entity"))
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, DamagedEventError):
                raise self._wrong(error.why) from error
            raise self._wrong(f"it is no event ({quoted(error, 100)})") from error
        if not same:
            raise self._wrong(f"its readable fields are not those of the event {text_id(event_id_of(state))}")
        return row
