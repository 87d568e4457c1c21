"""The schema of the log's database: made once, and refused where it is not exactly this one."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path
from uuid import UUID

from symphony_es.errors import WAYS_OUT, LogDamagedError, LogFormatError
from symphony_es.events.codec import FORMAT_BYTE
from symphony_es.shown import quoted

__all__ = ["COLUMNS", "SCHEMA", "check_schema", "create_schema", "ends", "last_position"]

SCHEMA = (
    (
        "CREATE TABLE stored_events (position INTEGER PRIMARY KEY AUTOINCREMENT, originator_id TEXT NOT NULL, "
        "originator_version INTEGER NOT NULL, topic TEXT NOT NULL, state BLOB NOT NULL)"
    ),
    "CREATE UNIQUE INDEX stored_events_by_entity ON stored_events (originator_id, originator_version)",
    "CREATE TRIGGER stored_events_no_update BEFORE UPDATE ON stored_events BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END",
    "CREATE TRIGGER stored_events_no_delete BEFORE DELETE ON stored_events BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END",
    "CREATE TABLE tracking (application_name TEXT, notification_id INTEGER, PRIMARY KEY (application_name)) WITHOUT ROWID",
    "CREATE TABLE log_settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
)
_A_FORMAT = re.compile(r"[1-9][0-9]{0,3}( \(0x[0-9a-f]{2}\))?")
"""What a version of the library says of its format."""
FORMAT = f"1 ({FORMAT_BYTE:#04x})"  # the number is told as long as format 1 may change
_OF_SQLITE = (
    ("table", "sqlite_sequence", "sqlite_sequence", "CREATE TABLE sqlite_sequence(name,seq)"),
    ("table", "sqlite_stat1", "sqlite_stat1", "CREATE TABLE sqlite_stat1(tbl,idx,stat)"),
    ("table", "sqlite_stat4", "sqlite_stat4", "CREATE TABLE sqlite_stat4(tbl,idx,neq,nlt,ndlt,sample)"),
)
"""What SQLite keeps for itself in such a database: the newest position given out, and what ANALYZE has counted."""
TOLERATED = frozenset({"_litestream_lock", "_litestream_seq"})  # tables that a replicating tool adds to a log it copies
COLUMNS = "position, originator_id, originator_version, topic, state"


def create_schema(writer: sqlite3.Connection, log_id: UUID | None) -> None:
    """Make the schema in an empty database, with one commit; do nothing in one that has any."""
    if writer.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        return
    writer.execute("BEGIN IMMEDIATE")
    for statement in SCHEMA:
        writer.execute(statement)
    settings = [("format", FORMAT), ("log_id", str(log_id or ""))]
    writer.executemany("INSERT INTO log_settings VALUES (?, ?)", settings)
    writer.execute("INSERT INTO tracking VALUES ('__migration__', 1)")
    writer.execute("COMMIT")


def _row_of(statement: str) -> tuple[str, str, str, str]:
    """Return what SQLite's own table of the schema says of a statement: kind, name, the table it belongs to, the text."""
    words = statement.split()
    kind = words[2] if words[1] == "UNIQUE" else words[1]
    name = words[3] if words[1] == "UNIQUE" else words[2]
    table = name if kind == "TABLE" else words[words.index("ON") + 1]
    return kind.lower(), name, table, statement


_SETTINGS = _row_of(SCHEMA[-1])


def check_schema(reader: sqlite3.Connection, path: Path) -> dict[str, str]:
    """Refuse a file whose schema is not the one above: a trigger or view in it would run on our queries.

    Returns:
        the log's settings (`format`, `log_id`).

    Raises:
        LogDamagedError: something is unknown, changed or missing.
        LogFormatError: another version of the library has written it.
    """
    found = set(reader.execute("SELECT type, name, tbl_name, sql FROM sqlite_master"))
    ours = {_row_of(statement) for statement in SCHEMA}
    settings: dict[str, str] = {}
    if _SETTINGS in found:  # exactly ours: a view would run. Another version's log may have other tables beside it.
        settings = dict(reader.execute("SELECT name, value FROM log_settings").fetchall())
    says = settings.get("format")
    if says != FORMAT and type(says) is str and _A_FORMAT.fullmatch(says):
        raise LogFormatError(
            f"{path} has format {says}, and this version of symphony_es reads format {FORMAT}; nothing was changed: "
            "export the log with the version that wrote it, and import that file here"
        )
    tolerated = {row for row in found if row[0] == "table" and row[1] == row[2] and row[1] in TOLERATED}
    strange = sorted(f"{kind!s:.40} {name!s:.200}" for kind, name, _, _ in found - ours - tolerated - set(_OF_SQLITE))
    missing = sorted(f"{kind} {name}" for kind, name, _, _ in ours - found)
    if strange or missing:
        raise LogDamagedError(
            f"{path} does not have the schema of a log: unknown or changed {strange[:10]}, missing {missing}; restore a backup"
        )
    if says != FORMAT:
        raise LogDamagedError(f"{path} does not say its format, but {quoted(says, 80)}; {WAYS_OUT}")
    return settings


def ends(reader: sqlite3.Connection) -> tuple[object, object]:
    """Return the newest position there is, and the newest that was given out: the same number, unless the file is damaged."""
    # One statement sees one moment: another process may commit between two of them.
    row: tuple[object, object] = reader.execute(
        "SELECT (SELECT coalesce(max(position), 0) FROM stored_events), "
        "(SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'stored_events')"
    ).fetchone()
    return row


def last_position(reader: sqlite3.Connection, path: Path | str) -> int:
    """Return the newest position.

    Raises:
        LogDamagedError: higher positions were given out than there are: the newest events are missing.
    """
    last, issued = ends(reader)
    if issued != last or type(last) is not int:
        raise LogDamagedError(
            f"{path} has given out position {quoted(issued, 80)}, and its last event is at {quoted(last, 80)}: "
            f"events are missing; {WAYS_OUT}"
        )
    return last
