"""Whether what a read model holds is of a log's own past: one check, for who feeds it and for whoever reads it.

A read model names the log, the event at its position, and what that event says (its commitment). A log that was restored from an older
backup, cut, or replaced has another event there, or none.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from symphony_es.errors import DamagedEventError, PositionNotFoundError, ProjectionUnavailableError
from symphony_es.events.rows import commitment, event_id_of
from symphony_es.late_dataclasses import dataclass
from symphony_es.log.log import EventLog
from symphony_es_projections.durable import ReadAccess

__all__ = ["PROGRESS", "Progress", "disagreement", "log_id_of", "read_progress"]

PROGRESS = "version, position, event_id, commitment, log_id"


@dataclass(frozen=True, slots=True)
class Progress:
    """Up to where a read model goes, and of which log.

    Attributes:
        version: of the projection that built it.
        position: the last position it holds, 0 for none.
        event_id: of the event there. commitment: of its body.
        log_id: of the log; empty for one in memory.
    """

    version: int
    position: int
    event_id: bytes
    commitment: bytes
    log_id: bytes

    @classmethod
    def of(cls, row: Sequence[Any]) -> Progress | None:
        """Return what a row of `PROGRESS` says; None when it says nothing that makes sense."""
        values = tuple(row)
        if [type(value) for value in values] != [int, int, bytes, bytes, bytes] or values[1] < 0:
            return None
        return cls(*values)


async def log_id_of(log: EventLog) -> bytes:
    """Return the identity of a log; empty for one in memory."""
    found = await log.log_id()
    return b"" if found is None else found.bytes


async def disagreement(log: EventLog, progress: Progress) -> str | None:
    """Return why a read model does not belong to the past of a log; None when it does.

    Raises:
        DamagedEventError: the log's own event at that position is damaged.
    """
    if progress.log_id != await log_id_of(log):
        return "it is of another log"
    if not progress.position:
        return None
    head = await log.refresh_head()
    if progress.position > head:
        return f"it is at position {progress.position}, and the log ends at {head}"
    state = (await log.row_at(progress.position))[4]
    if event_id_of(state) != progress.event_id or commitment(state) != progress.commitment:
        return f"the log has another event at position {progress.position}"
    return None


async def read_progress(access: ReadAccess, name: str, version: int | None, log: EventLog) -> tuple[int, str | None]:
    """Return up to which position a read model can be believed, and why not at all.

    Args:
        access: what reads it.
        name: what it is called. version: that it has to have; None for any.
        log: that it has to belong to.

    Raises:
        ProjectionUnavailableError: nothing has been built, or it cannot be read.
    """
    try:
        rows = await access.read(f"SELECT {PROGRESS} FROM projection_progress WHERE name = ?", (name,))  # noqa: S608  constant text
    except sqlite3.Error as error:
        raise ProjectionUnavailableError(name, f"its file does not say how far it is: {error}") from error
    progress = Progress.of(rows[0]) if len(rows) == 1 else None
    if progress is None:
        return 0, "its file does not say how far it is"
    if version is not None and progress.version != version:
        return 0, f"it is of version {progress.version}, not {version}"
    try:
        return progress.position, await disagreement(log, progress)
    except (DamagedEventError, PositionNotFoundError) as error:
        return 0, f"what it stands for cannot be looked at: {error}"
