"""What the list of runs knows of one run, and how an event of the run changes it. Pure.

A row is made of a run's whole state, or brought on by one event. Both ways give the same row: where an event may do more than its
changes tell by themselves (an output that is taken back, a value inside of one), `advance` gives up, and the row is made of the state.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence, Sized
from dataclasses import replace
from datetime import UTC, datetime
from string import ascii_lowercase, ascii_uppercase
from typing import Any

from symphony_es.events.changes import SET, Change
from symphony_es.events.readable import readable
from symphony_es.events.references import EntityReference
from symphony_es.late_dataclasses import dataclass
from symphony_es.shown import shown

__all__ = ["ATTEMPT_FAILED", "ENDED", "RUN_PREFIX", "RunRow", "advance", "microseconds", "pair_of", "row_of"]

RUN_PREFIX = "Workflow:"
ATTEMPT_FAILED = "WorkflowStepFailed"
"""Name of the events of which each is a failed attempt at a step."""

ENDED = frozenset({"completed", "failed", "cancelled"})
MESSAGE_CHARACTERS = 80
BEHIND_CHARACTERS = 240
"""So much of what has failed of a run's clean-up stands behind its own message."""

GROUP_CHARACTERS = 120

_SINGLE = {"status", "created_at", "started_at", "ended_at"}
"""Fields that an event sets as a whole, and that stand in the row as they are."""

_COUNTED = {"attempts", "outputs"}
_SEEN = {"metadata", "name", "forked_from", "definition_hash", "definition_id", "parent", "parent_step"}
_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)
"""SQLite takes the letters of ASCII for equal whatever their case, and no others."""

_DIFFERS = re.compile(r"0x[0-9a-fA-F]+|[0-9a-fA-F]{8,}(?:-[0-9a-fA-F]+)*|\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """One run. Times are microseconds since 1970, UTC.

    Attributes:
        id: of the run.
        version: of the run's last event that is part of this.
        begun, completed: how many steps have begun, and have completed.
        step: where it failed, or the step that began last of a run that has not completed.
        error_message: the beginning of the error's own message, then what has failed of the clean-up; `own_characters` of it are the first.
        unfinished: addresses of clean-up steps that have failed beside that, each between newlines; None where there are none.
        metadata: canonical JSON; None where there are none.
        original: id of the run that it is a fork of.
    """

    id: str
    version: int
    name: str
    definition_id: str
    status: str
    created: int | None
    started: int | None = None
    ended: int | None = None
    begun: int = 0
    completed: int = 0
    error_type: str | None = None
    error_message: str | None = None
    step: str | None = None
    unfinished: str | None = None
    parent: str | None = None
    parent_step: str | None = None
    metadata: str | None = None
    original: str | None = None
    own_characters: int = 0

    @property
    def group(self) -> tuple[str, str, str] | None:
        """Type, step and message of the error without what differs from run to run: numbers and ids, and what was left of a clean-up."""
        if self.error_type is None:
            return None
        own = (self.error_message or "")[: self.own_characters]
        return self.error_type, _DIFFERS.sub("#", self.step or ""), _DIFFERS.sub("#", own)[:GROUP_CHARACTERS]

    @property
    def group_text(self) -> str | None:
        """The group in one text."""
        if self.group is None:
            return None
        error_type, step, message = self.group
        return f"{error_type}{f' at {step}' if step else ''}: {message}"

    def has_error(self, text: str) -> bool:
        """Tell whether a text is the type of the error, a part of its message, or its group: as the list of runs finds it."""
        if self.error_type is None:
            return False
        wanted, message = text.translate(_LOWER), (self.error_message or "").translate(_LOWER)
        return wanted == self.error_type.translate(_LOWER) or wanted in message or text == self.group_text


def row_of(run_id: str, version: int, state: Mapping[str, Any]) -> RunRow:
    """Return the row of a run's state, in plain data or with the values of a live run."""
    error = state.get("error")
    parent = state.get("parent")
    attempts, outputs = state.get("attempts"), state.get("outputs")
    attempts = attempts if isinstance(attempts, Mapping) else {}
    status = _status(state.get("status"))
    row = RunRow(
        id=run_id,
        version=version,
        name=_text(state.get("name")) or "",
        definition_id=_text(state.get("definition_id")) or "",
        status=status,
        created=microseconds(state.get("created_at")),
        started=microseconds(state.get("started_at")),
        ended=microseconds(state.get("ended_at")),
        begun=len(attempts),
        completed=len(outputs) if isinstance(outputs, Sized) else 0,
        parent=parent.entity_id if isinstance(parent, EntityReference) else None,
        parent_step=_text(state.get("parent_step")),
        metadata=_as_text(state.get("metadata")),
        original=_original(state.get("forked_from")),
    )
    if isinstance(error, Mapping):
        return replace(row, **_told(error))
    return row if status == "completed" or not attempts else replace(row, step=_text(next(reversed(attempts))))


def advance(row: RunRow, version: int, name: str, changes: Sequence[Change]) -> RunRow | None:
    """Return the row after the run's next event; None where only the state tells.

    Args:
        row: after the event before.
        version: the event's. name: the event's. changes: the event's.
    """
    if row.status in ENDED or row.error_type is not None:
        return None  # what has ended and goes on takes back what nobody can tell from the event
    values: dict[str, Any] = {"version": version}
    error: Any = None
    for change in changes:
        path = change[1]
        field = path[0] if path else None
        if field in _COUNTED:
            if change[0] != SET or len(path) != 2 or not name.startswith("Workflow"):
                return None
            if field == "outputs":
                if name != "WorkflowStepCompleted":
                    return None
                values["completed"] = values.get("completed", row.completed) + 1
            elif type(change[2]) is int and change[2] == 1:
                values["begun"] = values.get("begun", row.begun) + 1
                values["step"] = _text(path[1])
        elif field in _SINGLE:
            if change[0] != SET or len(path) != 1:
                return None
            values[field.removesuffix("_at")] = _status(change[2]) if field == "status" else microseconds(change[2])
        elif field == "error" and change[0] == SET and len(path) == 1:
            error = change[2]
        elif field is None or field == "error" or field in _SEEN:
            return None
    if isinstance(error, Mapping):
        values |= _told(error)
    elif values.get("status") == "completed":
        values["step"] = None
    return replace(row, **values)


def _told(error: Mapping[str, Any]) -> dict[str, Any]:
    message, cleanup = _text(error.get("message")) or "", error.get("cleanup")
    cleanup = cleanup if isinstance(cleanup, Mapping) else {}
    behind, steps = _text(cleanup.get("said")) or "", cleanup.get("steps")
    own = message.removesuffix(behind)[:MESSAGE_CHARACTERS]
    return {
        "error_type": _text(error.get("type")) or "None",
        "error_message": own + behind[:BEHIND_CHARACTERS],
        "own_characters": len(own),
        "step": _text(error.get("step")),
        "unfinished": "\n".join(["", *map(str, steps), ""]) if isinstance(steps, Sequence) and steps else None,
    }


def pair_of(key: str, value: Any) -> str:
    """Return how one of a run's metadata stands in the text of all of them."""
    return _dumped({key: value})[1:-1]


def microseconds(moment: Any) -> int | None:
    """Return a moment as the table has it."""
    if not isinstance(moment, datetime):
        return None
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    whole = aware - datetime(1970, 1, 1, tzinfo=UTC)
    return (whole.days * 86_400 + whole.seconds) * 1_000_000 + whole.microseconds


def _original(forked_from: Any) -> str | None:
    run = forked_from.get("run") if isinstance(forked_from, Mapping) else None
    return run.entity_id if isinstance(run, EntityReference) else getattr(run, "id", None)


def _status(stored: Any) -> str:
    return (_text(getattr(stored, "data", stored)) or "none").lower()


def _text(stored: Any) -> str | None:
    """Return what is to be a text, as one: a log of somebody else may say anything there."""
    return None if stored is None else str(stored) if isinstance(stored, str) else shown(stored)


def _as_text(metadata: Any) -> str | None:
    return _dumped(metadata) if metadata else None


def _dumped(data: Mapping[str, Any]) -> str:
    return json.dumps(readable(_in_utc(data)), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _in_utc(value: Any) -> Any:
    """Return the same value, with moments in UTC, however deep they are: of two zones, the same moment has the same text."""
    if isinstance(value, datetime):
        try:
            return value if value.utcoffset() is None else value.astimezone(UTC)
        except OverflowError:  # the first or last day that there is
            return value
    if isinstance(value, Mapping):
        return {key: _in_utc(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return type(value)(map(_in_utc, value)) if type(value) in (list, tuple, set, frozenset) else [_in_utc(item) for item in value]
    return value
