"""The list of runs: one narrow row per run.

A run is listed by the position of its first event, so pages go on where they ended whatever happens meanwhile. What many runs have in
common (names, errors) stands once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, field, fields
from typing import Any, NamedTuple

from symphony_es.errors import DamagedEventError
from symphony_es.events.changes import SET
from symphony_es.events.rows import Row, decode_changes
from symphony_es.late_dataclasses import dataclass
from symphony_es_projections.cached import CachedTable
from symphony_es_projections.run_rows import ATTEMPT_FAILED, RUN_PREFIX, RunRow, advance, row_of

__all__ = ["ListedRun", "RunList", "RunQuery", "Step"]

VERSION = 5
_NAMES = tuple(each.name for each in fields(RunRow))
_OWN = ("number", "errors", "id", "version", "definition", "status", "created", "started", "ended", "begun", "completed", "failure",
        "error_message", "step", "unfinished", "parent", "parent_step", "metadata", "original", "own_characters")  # fmt: skip
_SCHEMA = (
    """CREATE TABLE runs (
        number INTEGER PRIMARY KEY, errors INTEGER, id TEXT NOT NULL UNIQUE, version INTEGER, definition INTEGER, status TEXT,
        created INTEGER, started INTEGER, ended INTEGER, begun INTEGER, completed INTEGER, failure INTEGER, error_message TEXT,
        step TEXT, unfinished TEXT, parent TEXT, parent_step TEXT, metadata TEXT, original TEXT,
        own_characters INTEGER
    )""",
    "CREATE TABLE definitions (number INTEGER PRIMARY KEY, name TEXT, definition_id TEXT, UNIQUE (name, definition_id))",
    "CREATE TABLE failures (number INTEGER PRIMARY KEY, type TEXT, step TEXT, message TEXT, UNIQUE (type, step, message))",
    "CREATE INDEX runs_parent ON runs (parent) WHERE parent IS NOT NULL",
    "CREATE INDEX runs_original ON runs (original) WHERE original IS NOT NULL",
)
_SELECT = """
    SELECT runs.number, runs.errors, runs.id, runs.version, definitions.name, definitions.definition_id, runs.status, runs.created,
        runs.started, runs.ended, runs.begun, runs.completed, failures.type, runs.error_message, runs.step, runs.unfinished,
        runs.parent, runs.parent_step, runs.metadata, runs.original, runs.own_characters
    FROM runs JOIN definitions ON definitions.number = runs.definition LEFT JOIN failures ON failures.number = runs.failure
"""
_GROUPS = {
    "status": "runs.status",
    "name": "definitions.name",
    "error": "failures.type || CASE failures.step WHEN '' THEN '' ELSE ' at ' || failures.step END || ': ' || failures.message",
    "step": "runs.step",
}


class ListedRun(NamedTuple):
    """A row as it is listed: where its first event stands, how many attempts have failed, and the error's group as text."""

    number: int
    errors: int
    row: RunRow
    error_group: str | None


@dataclass(frozen=True, slots=True)
class RunQuery:
    """Which runs are meant: SQL conditions with their parameters, all of which hold."""

    conditions: list[str] = field(default_factory=list)
    parameters: list[Any] = field(default_factory=list)

    def add(self, condition: str, *parameters: Any) -> None:
        """Add one condition."""
        self.conditions.append(condition)
        self.parameters.extend(parameters)

    @property
    def where(self) -> str:
        """All of them."""
        return " AND ".join(self.conditions) or "1"


@dataclass(slots=True)
class Step:
    """What a page of the log does to the list, before it is written.

    Attributes:
        position: up to where the page goes. state: of the row there; empty where there is none.
        runs: the new rows by id, with the first event's position and the failed attempts; None of a run that is not there any more.
        unknown: keys of runs whose state has to be read at `position`, with the same two numbers.
    """

    position: int
    state: bytes
    runs: dict[str, tuple[int, int, RunRow] | None] = field(default_factory=dict)
    unknown: dict[str, tuple[int, int]] = field(default_factory=dict)


class RunList(CachedTable):
    """The table of all runs of a log; see `CachedTable`."""

    schema = _SCHEMA
    version = VERSION

    # -- feeding ------------------------------------------------------------------------------------------------------

    def plan(self, rows: Sequence[Row], position: int, state: bytes, known: Mapping[str, RunRow]) -> Step:
        """Return what a page of the log does.

        Args:
            rows: all events of the page, of whatever entity.
            position: up to where it goes. state: of the row there.
            known: rows of runs, by key, that may be ahead of the page: what they know need not be read.
        """
        step = Step(position, state)
        by_key: dict[str, list[Row]] = {}
        for row in rows:
            if row[1].startswith(RUN_PREFIX):
                by_key.setdefault(row[1], []).append(row)
        with self.asking():
            for key, events in by_key.items():
                run_id = key[len(RUN_PREFIX) :]
                listed = self._select(RunQuery(["runs.id = ?"], [run_id]), 1)
                number, errors = (listed[0].number, listed[0].errors) if listed else (events[0][0], 0)
                errors += sum(event[3] == ATTEMPT_FAILED for event in events)
                ahead = known.get(key)
                if ahead is not None and ahead.version >= events[-1][2] and all(event[3].startswith("Workflow") for event in events):
                    step.runs[run_id] = (number, errors, ahead)
                    continue
                told, made = _brought_on(run_id, listed[0].row if listed else None, events)
                if told:
                    step.runs[run_id] = None if made is None else (number, errors, made)
                else:
                    step.unknown[key] = (number, errors)
        return step

    def write(self, step: Step) -> None:
        """Take a page in, whole or not at all."""
        with self.taking_in(step.position, step.state) as db:
            for run_id, run in step.runs.items():
                db.execute("DELETE FROM runs WHERE id = ?", (run_id,))
                if run is not None:
                    self._insert(*run)

    def _insert(self, number: int, errors: int, row: RunRow) -> None:
        values = dict(zip(_NAMES, astuple(row), strict=True)) | {"number": number, "errors": errors}
        values["definition"] = self._number("definitions", "name, definition_id", (row.name, row.definition_id))
        values["failure"] = None if row.group is None else self._number("failures", "type, step, message", row.group)
        self.connection.execute(
            f"INSERT OR REPLACE INTO runs ({', '.join(_OWN)}) VALUES ({', '.join('?' * len(_OWN))})",  # noqa: S608  constant text
            [values[name] for name in _OWN],
        )

    def _number(self, table: str, columns: str, values: Sequence[str]) -> int:
        """Return the number of what several runs have in common."""
        condition = " AND ".join(f"{name} = ?" for name in columns.split(", "))
        found = self.connection.execute(f"SELECT number FROM {table} WHERE {condition}", values).fetchone()  # noqa: S608  constant text
        if found is not None:
            return int(found[0])
        marks = ", ".join("?" * len(values))
        made = self.connection.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", values)  # noqa: S608  constant text
        return int(made.lastrowid or 0)

    # -- asking -------------------------------------------------------------------------------------------------------

    def find(self, query: RunQuery, limit: int, *, newest_first: bool = True) -> list[ListedRun]:
        """Return at most so many runs that are meant, in the order of their first events."""
        with self.asking():
            return self._select(query, limit, newest_first=newest_first)

    def _select(self, query: RunQuery, limit: int, *, newest_first: bool = True) -> list[ListedRun]:
        order = "DESC" if newest_first else "ASC"
        sql = f"{_SELECT} WHERE {query.where} ORDER BY runs.number {order} LIMIT ?"
        return [_listed(found) for found in self.connection.execute(sql, [*query.parameters, limit])]

    def names(self) -> list[str]:
        """Return the names of all definitions that a run has had."""
        with self.asking():
            return [name for (name,) in self.connection.execute("SELECT DISTINCT name FROM definitions")]

    def steps(self, limit: int) -> list[str]:
        """Return at most so many steps that runs have failed at, or that have begun last."""
        with self.asking():
            found = self.connection.execute("SELECT DISTINCT step FROM runs WHERE step IS NOT NULL LIMIT ?", (limit,))
            return [step for (step,) in found]

    def count(self, query: RunQuery, by: str) -> dict[str, int]:
        """Return how many runs are meant, by what `by` names; runs that have nothing there are left out."""
        sql = f"""
            SELECT {_GROUPS[by]} AS what, COUNT(*) FROM runs JOIN definitions ON definitions.number = runs.definition
            LEFT JOIN failures ON failures.number = runs.failure WHERE {query.where} GROUP BY what ORDER BY 2 DESC, 1
        """  # noqa: S608  constant text; values are parameters
        with self.asking():
            return {what: count for what, count in self.connection.execute(sql, query.parameters) if what is not None}


def _brought_on(run_id: str, row: RunRow | None, events: Sequence[Row]) -> tuple[bool, RunRow | None]:
    """Return whether a run's events tell what becomes of its row, and the row after them: None where there is no such run any more."""
    for event in events:
        version = event[2]
        if row is not None and version <= row.version:
            continue  # it knew that before
        try:
            changes, _, _ = decode_changes(event)
        except DamagedEventError:
            return False, None  # it damages this run, and no other
        if len(changes) == 1 and not changes[0][1]:
            if changes[0][0] == SET and type(changes[0][2]) is not dict:
                return False, None
            row = row_of(run_id, version, changes[0][2]) if changes[0][0] == SET else None
            if row is None and event is not events[-1]:
                return False, None  # it was made again
            continue
        if row is None or version != row.version + 1:
            return False, None
        row = advance(row, version, event[3], changes)
        if row is None:
            return False, None
    return True, row


def _listed(found: Sequence[Any]) -> ListedRun:
    number, errors, *values = found
    run_id, version, name, definition_id, status, created, started, ended, begun, completed, error_type, message, *rest = values
    step, unfinished, parent, parent_step, metadata, original, own_characters = rest
    row = RunRow(
        id=run_id, version=version, name=name, definition_id=definition_id, status=status, created=created, started=started, ended=ended,
        begun=begun, completed=completed, error_type=error_type, error_message=message, step=step, unfinished=unfinished,
        parent=parent, parent_step=parent_step, metadata=metadata, original=original, own_characters=own_characters,
    )  # fmt: skip
    return ListedRun(number, errors, row, row.group_text)
