"""One build of a durable projection: its rows, its position and its parked events, changed together in transactions.

Everything here blocks and runs in worker threads, one call at a time. A call that nobody waits for any more still ends: what it has
committed shows in `position`, and rows that are at or before it are passed over, so the same batch may be handed in twice.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from symphony_es.diagnostics import message_of
from symphony_es.errors import ProjectionFailedError
from symphony_es.events.event import Event
from symphony_es.events.rows import Row, commitment, decode_row, event_id_of, time_of
from symphony_es.log.forks import Inherited, keep_for_ever, left_at_fork
from symphony_es.shown import shown
from symphony_es_projections.agreement import PROGRESS, Progress
from symphony_es_projections.calling import Redact, called, message, type_of
from symphony_es_projections.declarations import declaration_of
from symphony_es_projections.durable import Parameters, SQLiteProjection
from symphony_es_projections.files import BUSY_TIMEOUT_S, is_trouble
from symphony_es_projections.status import ParkedEvent, Stage
from symphony_es_projections.sums import check_kinds
from symphony_es_projections.written import WrittenFile

if TYPE_CHECKING:
    from typing import Self

__all__ = ["DamagedBuildError", "ProjectionDatabase", "park", "too_many_parked"]

MESSAGE_CHARACTERS = 2000
CACHE_KIB = 32 * 1024
CHECKPOINT_PAGES = 8000
"""About 32 MB: with indexes all over the file, each copy of the write-ahead file writes most pages, so fewer copies are faster."""

SCHEMA = (
    """CREATE TABLE projection_progress (
        name TEXT PRIMARY KEY, version INTEGER NOT NULL, position INTEGER NOT NULL, event_id BLOB NOT NULL, time_ns INTEGER NOT NULL,
        updated TEXT NOT NULL, notified INTEGER NOT NULL, live_after INTEGER NOT NULL, commitment BLOB NOT NULL, log_id BLOB NOT NULL,
        commits INTEGER NOT NULL, declaration BLOB NOT NULL
    )""",
    """CREATE TABLE projection_parked (
        position INTEGER NOT NULL, stage TEXT NOT NULL, event_name TEXT NOT NULL, entity_key TEXT NOT NULL, error_type TEXT NOT NULL,
        message TEXT NOT NULL, attempts INTEGER NOT NULL, PRIMARY KEY (position, stage)
    ) WITHOUT ROWID""",
)


_OWN = frozenset({"projection_event", "projection_progress", "projection_parked"})
"""The names of the runner's own savepoint and tables."""
_CHANGES = frozenset({sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE, sqlite3.SQLITE_DROP_TABLE})
_NAMED_SECOND = frozenset({sqlite3.SQLITE_SAVEPOINT, sqlite3.SQLITE_ALTER_TABLE})


class DamagedBuildError(Exception):
    """A file that is no build of this projection: it is removed, and another one built."""


class ProjectionDatabase(Inherited):
    """The database of one build. Make one with `create` or `open`.

    Attributes:
        path: its file; None in memory.
        version: of the projection that built it. declaration: a digest of what that one's class said (`declaration_of`).
        position: the last position it holds. event_id: of the event there. time_ns: when that was committed.
        progress: what it held when it was opened, and of which log.
        notified: up to where `after_commit` has been told. live_after: events after it are live, and not a build's.
        parked: events passed over, by position and stage. redact: what their messages pass through.
    """

    def __init__(self, name: str, path: Path | None, db: sqlite3.Connection, redact: Redact | None) -> None:
        self.name = name
        self.path = path
        self.redact = redact
        self._db = db
        self._lock = threading.Lock()
        self._telling = threading.Lock()
        self._applying = False
        self._closed = False
        self._file: WrittenFile | None = None
        self.version = self.position = self.time_ns = self.notified = self.live_after = 0
        self.event_id = self.declaration = b""
        self.parked: dict[tuple[int, str], ParkedEvent] = {}
        left_at_fork(self)

    def leave_to_parent(self, parent: int) -> None:
        """See `Inherited`."""
        self._closed = True
        keep_for_ever(self._db)
        if self._file is not None:
            self._file.leave()

    # -- opening and closing ------------------------------------------------------------------------------------------

    @classmethod
    def create(cls, projection: SQLiteProjection, path: Path | None, log_id: bytes = b"", redact: Redact | None = None) -> Self:
        """Make the tables of a new build of a log, in a file that is empty, or in memory."""
        db = _connect(path)
        try:
            db.execute("BEGIN IMMEDIATE")
            for statement in SCHEMA:
                db.execute(statement)
            for number, statement in enumerate(projection.schema, 1):
                _make_table(db, projection.name, number, statement)
            db.execute(
                "INSERT INTO projection_progress VALUES (?, ?, 0, x'', 0, ?, 0, 0, x'', ?, 1, ?)",
                (projection.name, projection.version, _now(), log_id, declaration_of(projection)),
            )  # fmt: skip
            db.execute("COMMIT")
            return cls(projection.name, path, db, redact)._ready()
        except BaseException:
            db.close()
            raise

    @classmethod
    def open(cls, name: str, path: Path, redact: Redact | None = None) -> Self:
        """Open a build that was left by an earlier process.

        Raises:
            DamagedBuildError: it is none, or not whole.
            sqlite3.Error: it cannot be read now.
        """
        try:
            db = _connect(path)
        except sqlite3.Error as error:
            raise _judged(error) from error
        try:
            return cls(name, path, db, redact)._ready()
        except sqlite3.Error as error:
            db.close()
            raise _judged(error) from error
        except BaseException:
            db.close()
            raise

    def _ready(self) -> Self:
        if self.path is not None:
            self._file = WrittenFile(self.path, self._db, self, table="projection_progress", pages=CHECKPOINT_PAGES, durable=True)
            self._file.check()
        sql = f"SELECT {PROGRESS}, time_ns, notified, live_after, declaration FROM projection_progress WHERE name = ?"  # noqa: S608  constant text
        found = self._db.execute(sql, (self.name,)).fetchone()
        progress = Progress.of(found[:5]) if found is not None else None
        if found is None or progress is None:
            raise DamagedBuildError("it does not say how far it is")
        self.progress, self.version, self.position = progress, progress.version, progress.position
        self.event_id, (self.time_ns, self.notified, self.live_after, self.declaration) = progress.event_id, found[5:]
        for row in self._db.execute("SELECT position, event_name, entity_key, error_type, message, attempts, stage FROM projection_parked"):
            parked = ParkedEvent(**dict(row))
            self.parked[parked.position, parked.stage] = parked
        self._db.set_authorizer(self._authorise)
        return self

    def _authorise(self, action: int, first: str | None, second: str | None, *_: object) -> int:
        """Refuse BEGIN, COMMIT, ROLLBACK and what belongs to the runner, while a projection applies."""
        if not self._applying:
            return sqlite3.SQLITE_OK
        named = second if action in _NAMED_SECOND else first if action in _CHANGES else None
        refused = action == sqlite3.SQLITE_TRANSACTION or (named is not None and named.lower() in _OWN)
        return sqlite3.SQLITE_DENY if refused else sqlite3.SQLITE_OK

    def close(self) -> None:
        """Copy what no reader holds back into the file, and close it; idempotent. Side effects that go on are noted before."""
        with self._telling, self._lock:
            if not self._closed:
                self._closed = True
                if self._file is not None:
                    self._file.close()
                self._db.close()

    # -- writing ------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """Enter a transaction. The comments in the statements keep them apart from what a projection might say, which the authorizer has to
        see.
        """
        self._check_open()
        try:
            if self._file is not None:
                self._file.begin(" -- by the runner")
            else:
                self._db.execute("BEGIN IMMEDIATE -- by the runner")
            yield
            self._db.execute("COMMIT -- by the runner")
            if self._file is not None:
                self._file.committed()
        except BaseException:
            if self._db.in_transaction:
                with contextlib.suppress(sqlite3.Error):  # what failed is told; a rollback that fails too has been made by SQLite
                    self._db.execute("ROLLBACK -- by the runner")
            raise

    def _apply(self, projection: SQLiteProjection, events: Sequence[Event]) -> None:
        self._applying = True
        try:
            called(projection.apply, self._db, events)
        finally:
            self._applying = False
        if not self._db.in_transaction:  # the authorizer does not hear of this way: going on would commit statement by statement
            raise ProjectionFailedError(
                self.name,
                self.position,
                "its apply took the transaction back (OR ROLLBACK, RAISE(ROLLBACK)) and passed over that; mend it, and raise its version",
            )

    def _advance(self, through: Row, notifies: bool) -> tuple[int, bytes, int, int]:
        position, event_id, time_ns = through[0], event_id_of(through[4]), time_of(through[4])
        notified = self.notified if notifies else position
        self._db.execute(
            "UPDATE projection_progress SET position = ?, event_id = ?, commitment = ?, time_ns = ?, notified = ?, updated = ?",
            (position, event_id, commitment(through[4]), time_ns, notified, _now()),
        )
        return position, event_id, time_ns, notified

    def apply(self, projection: SQLiteProjection, rows: Sequence[Row], through: Row, *, notifies: bool) -> None:
        """Take a batch in and advance to a row of the log, with one commit; all of it or nothing.

        Args:
            rows: those the projection wants, in order. through: the last row looked at.
            notifies: whether `after_commit` is to be told of them later.
        """
        with self._lock:
            events = [decode_row(row) for row in rows if row[0] > self.position]
            if through[0] <= self.position:
                return
            with self._transaction():
                if events:
                    self._apply(projection, events)
                progress = self._advance(through, notifies)
            self.position, self.event_id, self.time_ns, self.notified = progress

    def apply_singly(
        self, projection: SQLiteProjection, rows: Sequence[Row], through: Row, *, notifies: bool, attempts: int, max_parked: int
    ) -> list[ParkedEvent]:
        """Return the same, with each event behind a savepoint: one that fails is parked, and returned.

        Raises:
            ProjectionFailedError: more are parked than `max_parked`; nothing has been taken in.
        """
        with self._lock:
            events = [decode_row(row) for row in rows if row[0] > self.position]
            if through[0] <= self.position:
                return []
            newly: list[ParkedEvent] = []
            with self._transaction():
                for event in events:
                    error = self._behind_savepoint(projection, event)
                    if error is None:
                        continue
                    newly.append(park(event, error, attempts, "apply", self.redact))
                    self._write_parked(newly[-1])
                    if len(self.parked) + len(newly) > max_parked:
                        raise ProjectionFailedError(
                            self.name,
                            self.position,
                            f"{too_many_parked(max_parked, newly[-1])}; correct the projection's apply, raise its version, and start again",
                        )
                progress = self._advance(through, notifies)
            self.position, self.event_id, self.time_ns, self.notified = progress
            self.parked.update({(parked.position, parked.stage): parked for parked in newly})
            return newly

    def _behind_savepoint(self, projection: SQLiteProjection, event: Event) -> Exception | None:
        self._db.execute("SAVEPOINT projection_event -- by the runner")
        try:
            self._apply(projection, [event])
        except Exception as error:  # the projection is the application's: whatever it raises is on record with the event
            if is_trouble(error) or not self._db.in_transaction:
                raise
            self._db.execute("ROLLBACK TO projection_event -- by the runner")
            self._db.execute("RELEASE projection_event -- by the runner")
            return error
        self._db.execute("RELEASE projection_event -- by the runner")
        return None

    def _write_parked(self, parked: ParkedEvent) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO projection_parked VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                parked.position,
                parked.stage,
                parked.event_name,
                parked.entity_key,
                parked.error_type,
                parked.message,
                parked.attempts,
            ),
        )

    def _delete_parked(self, parked: ParkedEvent) -> None:
        self._db.execute("DELETE FROM projection_parked WHERE position = ? AND stage = ?", (parked.position, parked.stage))

    # -- parked events and side effects -------------------------------------------------------------------------------

    def retry(self, projection: SQLiteProjection, parked: ParkedEvent, event: Event, *, owes: bool) -> bool:
        """Try to take a parked event in; True when that went well.

        Args:
            owes: whether `after_commit` is then to be told; until it has been, the event stays parked in that stage.
        """
        with self._lock:
            with self._transaction():
                error = self._behind_savepoint(projection, event)
                self._delete_parked(parked)
                left = None
                if error is not None:
                    left = park(event, error, parked.attempts + 1, "apply", self.redact)
                elif owes:
                    left = park(event, RuntimeError("it has not been told yet"), 0, "after_commit")
                if left is not None:
                    self._write_parked(left)
            del self.parked[parked.position, parked.stage]
            if left is not None:
                self.parked[left.position, left.stage] = left
            return error is None

    def _check_open(self) -> None:
        if self._closed:
            raise ProjectionFailedError(self.name, self.position, "its database is closed")

    def tell(self, projection: SQLiteProjection, events: Sequence[Event], notified: int) -> Exception | None:
        """Call `after_commit` with a batch, and note up to where it has been told.

        It is one call, so a caller that goes away between the two does not have it told again.

        Returns:
            what it raised; nothing has been noted then.
        """
        with self._telling:
            self._check_open()  # what is told has to be noted, else the next process tells it again
            due = [event for event in events if event.position > self.notified]
            try:
                if due:
                    called(projection.after_commit, due)
            except Exception as error:  # noqa: BLE001  the projection is the application's: the caller has it tried again, then parked
                return error
            self._note_told(notified, [])
            return None

    def tell_singly(self, projection: SQLiteProjection, events: Sequence[Event], notified: int, attempts: int) -> list[ParkedEvent]:
        """Return the same, event by event: one that fails is parked, and returned."""
        with self._telling:
            self._check_open()
            failed = []
            for event in events:
                error = _effects_of(projection, event) if event.position > self.notified else None
                if error is not None:
                    failed.append(park(event, error, attempts, "after_commit", self.redact))
            self._note_told(notified, failed)
            return failed

    def _note_told(self, notified: int, failed: Sequence[ParkedEvent]) -> None:
        with self._lock:
            if notified <= self.notified:
                return
            with self._transaction():
                self._db.execute("UPDATE projection_progress SET notified = ?", (notified,))
                for parked in failed:
                    self._write_parked(parked)
            self.notified = notified
            self.parked.update({(parked.position, parked.stage): parked for parked in failed})

    def tell_parked(self, projection: SQLiteProjection, parked: ParkedEvent, event: Event) -> bool:
        """Call `after_commit` with an event that is parked for it; True when that went well."""
        with self._telling:
            self._check_open()
            error = _effects_of(projection, event)
            left = None if error is None else park(event, error, parked.attempts + 1, "after_commit", self.redact)
            with self._lock:
                with self._transaction():
                    self._delete_parked(parked)
                    if left is not None:
                        self._write_parked(left)
                self.parked.pop((parked.position, parked.stage), None)
                if left is not None:
                    self.parked[left.position, left.stage] = left
            return error is None

    def finish(self, predecessor: ProjectionDatabase | None, *, notifies: bool) -> None:
        """End a build: what follows is live. What its predecessor still owes to `after_commit` goes over to it."""
        notified = live_after = self.position
        owed: list[ParkedEvent] = []
        if predecessor is not None and notifies:
            with predecessor._telling:  # what is being told at the moment has been told
                pass
            notified, live_after = min(predecessor.notified, self.position), min(predecessor.live_after, self.position)
            for parked in predecessor.parked.values():
                own = (parked.position, "apply") in self.parked
                if parked.position > live_after and parked.position <= notified and not own:
                    owed.append(_for_after_commit(parked))
        with self._lock:
            with self._transaction():
                self._db.execute("UPDATE projection_progress SET notified = ?, live_after = ?", (notified, live_after))
                for parked in owed:
                    self._write_parked(parked)
            self.notified, self.live_after = notified, live_after
            self.parked.update({(parked.position, parked.stage): parked for parked in owed})

    # -- reading ------------------------------------------------------------------------------------------------------

    def read(self, sql: str, parameters: Parameters = ()) -> list[sqlite3.Row]:
        """Return the rows of one SELECT, on the connection that writes, between its transactions: a database in memory has no other."""
        with self._lock:
            if self._closed:
                raise ProjectionFailedError(self.name, self.position, "its database is closed")
            self._db.execute("PRAGMA query_only = 1")
            try:
                return self._db.execute(sql, parameters).fetchall()
            finally:
                self._db.execute("PRAGMA query_only = 0")


def _effects_of(projection: SQLiteProjection, event: Event) -> Exception | None:
    try:
        called(projection.after_commit, [event])
    except Exception as error:  # noqa: BLE001  the projection is the application's: what it raises is on record with the event
        return error
    return None


def park(event: Event, error: BaseException, attempts: int, stage: Stage, redact: Redact | None = None) -> ParkedEvent:
    """Return what is kept of an event that failed."""
    return ParkedEvent(
        position=event.position,
        event_name=event.name,
        entity_key=event.entity_key,
        error_type=type_of(error),
        message=message(error, redact)[:MESSAGE_CHARACTERS],
        attempts=attempts,
        stage=stage,
    )


def too_many_parked(most: int, last: ParkedEvent) -> str:
    """Return why a projection fails that cannot take in more than so many events; of the last one there may be no message."""
    said = f"{last.error_type}: {last.message}" if last.message else last.error_type
    return f"more than {most} events could not be applied, the last one with {said}"


def _for_after_commit(parked: ParkedEvent) -> ParkedEvent:
    return ParkedEvent(
        position=parked.position,
        event_name=parked.event_name,
        entity_key=parked.entity_key,
        error_type=parked.error_type,
        message=parked.message,
        attempts=parked.attempts,
        stage="after_commit",
    )


def _make_table(db: sqlite3.Connection, name: str, number: int, statement: str) -> None:
    try:
        db.execute(statement)
    except (sqlite3.Error, ValueError) as error:
        if is_trouble(error):
            raise
        why = f"statement {number} of its schema, {shown(statement)}: {message_of(error)}"
        raise ProjectionFailedError(name, 0, f"{why}; each statement is a text of its own, with a comma behind it") from error


def _connect(path: Path | None) -> sqlite3.Connection:
    if path is not None:
        check_kinds(path)
    db = sqlite3.connect(path or ":memory:", timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")  # a power failure may take the last batches: they are in the log
        db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        db.execute("PRAGMA wal_autocheckpoint = 0")  # each copy of the write-ahead file is noted, see `WrittenFile`
    except BaseException:
        db.close()
        raise
    return db


def _judged(error: sqlite3.Error) -> Exception:
    """Tell trouble of the moment as it is; anything else a file says on being opened means that it is not whole."""
    damage = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    if is_trouble(error) and getattr(error, "sqlite_errorcode", 0) & 0xFF not in damage:
        return error
    return DamagedBuildError(str(error))


def _now() -> str:
    return datetime.now(UTC).isoformat()
