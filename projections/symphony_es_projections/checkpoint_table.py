"""The checkpoints of a log as a table: a service takes some with each of its runs, and nobody looks at most of them again.

A checkpoint is listed by the position of the event that made it, so pages go on where they ended whatever happens meanwhile.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from symphony_es.events.changes import REMOVE, SET
from symphony_es.events.codec import decode_value, encode_value
from symphony_es.events.event import Event
from symphony_es.events.rows import Row, decode_row
from symphony_es_projections.cached import CachedTable
from symphony_es_projections.checkpoints import CheckpointEntry, entry_of

__all__ = ["CheckpointTable"]

_FIELDS = {"name": str, "position": int, "entity_count": int, "metadata": dict}
_COLUMNS = "id, name, position, entity_count, metadata, time_ns, event_id"


def _is_checkpoint(state: Any) -> bool:
    """Return whether a state is a checkpoint's, with numbers that a database takes."""
    return (
        type(state) is dict
        and all(type(state.get(name)) is kind for name, kind in _FIELDS.items())
        and all(0 <= state[name] < 2**63 for name in ("position", "entity_count"))
    )


class CheckpointTable(CachedTable):
    """All checkpoints that have not been deleted; see `CachedTable`."""

    schema = (
        """CREATE TABLE checkpoints (
            number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, name TEXT, run TEXT, position INTEGER, entity_count INTEGER,
            metadata BLOB, time_ns INTEGER, event_id BLOB
        )""",
        "CREATE INDEX checkpoints_name ON checkpoints (name)",
        "CREATE INDEX checkpoints_run ON checkpoints (run) WHERE run IS NOT NULL",
    )
    version = 2

    def feed(self, rows: Sequence[Row], position: int, state: bytes) -> None:
        """Take in the events of checkpoints up to a position, whole or not at all; see `taking_in`."""
        events = list(map(decode_row, rows))
        with self.taking_in(position, state) as db:
            for event in events:
                self._apply(db, event)

    @staticmethod
    def _apply(db: sqlite3.Connection, event: Event) -> None:
        change = event.changes[0] if len(event.changes) == 1 else None
        if change is not None and change[0] == REMOVE and not change[1]:
            db.execute("DELETE FROM checkpoints WHERE id = ?", (event.entity_id,))
        if change is None or change[0] != SET or change[1] or not _is_checkpoint(change[2]):
            return  # no event of a checkpoint: whoever wrote the log means something else, or harm
        state = change[2]
        run_id = state["metadata"].get("run_id")
        db.execute(
            f"INSERT OR REPLACE INTO checkpoints (number, run, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608  constant text
            (
                event.position, run_id if isinstance(run_id, str) else None, event.entity_id, state["name"], state["position"],
                state["entity_count"], encode_value(state["metadata"]), event.time_ns, event.event_id,
            ),
        )  # fmt: skip

    def find(self, condition: str = "1", parameters: Sequence[Any] = (), limit: int | None = None) -> list[CheckpointEntry]:
        """Return at most so many checkpoints that are meant, newest first.

        Args:
            condition: in SQL, with a question mark for each parameter. parameters: its values.
            limit: None for all.
        """
        sql = f"SELECT {_COLUMNS} FROM checkpoints WHERE {condition} ORDER BY number DESC LIMIT ?"  # noqa: S608  values are parameters
        with self.asking() as db:
            rows = db.execute(sql, (*parameters, -1 if limit is None else limit)).fetchall()
        return [
            entry_of(
                checkpoint_id,
                {"name": name, "position": position, "entity_count": count, "metadata": decode_value(metadata)},
                event_id,
                time_ns,
            )
            for checkpoint_id, name, position, count, metadata, time_ns, event_id in rows
        ]

    def called(self, checkpoint_id: str | None, name: str | None) -> list[CheckpointEntry]:
        """Return the checkpoint with an id and the newest one with a name, as far as there are any; once where that is the same."""
        condition = "number IN ((SELECT number FROM checkpoints WHERE id = ?), (SELECT max(number) FROM checkpoints WHERE name = ?))"
        return self.find(condition, (checkpoint_id, name))
