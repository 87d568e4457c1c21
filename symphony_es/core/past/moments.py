"""Moments of a log: what a position, a point in time, or a checkpoint's id or name means as a position."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from symphony_es.core.past.moment_texts import LATEST, TIMES_ARE, Moment, ReadMoment, Time, begins_with_a_date, read_moment, read_time
from symphony_es.errors import (
    AmbiguousMomentError,
    CheckpointNotFoundError,
    ConfigurationError,
    PersistenceDisabledError,
    PositionInsideTransactionError,
    PositionNotFoundError,
)
from symphony_es.events.rows import decode_row
from symphony_es.shown import shown

if TYPE_CHECKING:
    from symphony_es.core.past.checkpoints import CheckpointReader
    from symphony_es.log.log import EventLog
    from symphony_es_projections.checkpoints import CheckpointEntry

__all__ = ["LAST_NS", "check_boundary", "check_range", "nanoseconds", "position_at_time", "position_of", "position_since", "resolve"]

LAST_NS = 999
"""Events are stamped in nanoseconds and show their time in microseconds; a time as an upper end means all of its microsecond."""


async def resolve(moment: Moment | ReadMoment, checkpoints: CheckpointReader | None) -> int | datetime | str | CheckpointEntry:
    """Return the position, the time, `LATEST` or the checkpoint that is meant.

    Raises:
        AmbiguousMomentError: the log has a checkpoint of that name, and the text means something else, too.
        CheckpointNotFoundError: there is no such checkpoint.
        PersistenceDisabledError: a log in memory has no checkpoints.
        ConfigurationError: it means nothing.
    """
    read = moment if isinstance(moment, ReadMoment) else read_moment(moment)
    found: list[CheckpointEntry] = []
    if checkpoints is not None and (read.checkpoint_id is not None or read.checkpoint_name is not None):
        found = await checkpoints.called(read.checkpoint_id, read.checkpoint_name)
    if (read.place is not None) + len(found) > 1:
        raise _ambiguous(read, found)
    if read.place is not None:
        return read.place
    if found:
        return found[0]
    called = read.checkpoint_name if read.checkpoint_name is not None else read.checkpoint_id
    assert called is not None, "else it has a place"
    if begins_with_a_date(called):
        raise ConfigurationError(f"{shown(called)} is no time, and no checkpoint has this name: {TIMES_ARE}")
    if checkpoints is None:
        raise PersistenceDisabledError("finding a checkpoint")
    raise CheckpointNotFoundError(called)


def _ambiguous(read: ReadMoment, found: list[CheckpointEntry]) -> AmbiguousMomentError:
    """Return all that a text means in a log, each as what says it alone."""
    text = read.checkpoint_name
    assert text is not None, "nothing else means two things"
    readings = {}
    if isinstance(read.place, datetime):
        readings[f"@{text}"] = f"the time {read.place.isoformat()}"
    elif read.place is not None:
        readings[f"#{text}"] = "the head" if read.place == LATEST else f"position {shown(read.place)}"
    for entry in found:
        readings[f"id:{text}" if entry.id == text else f"name:{text}"] = f"the checkpoint {entry.id} of position {entry.position}"
    return AmbiguousMomentError(text, readings)


async def position_of(log: EventLog, moment: Moment | None, checkpoints: CheckpointReader | None) -> int:
    """Return the position that a moment means; the head where none is given.

    Raises:
        PositionNotFoundError: the log does not have that position.
        ConfigurationError: it is a point in time without a time zone. Further errors are those of `resolve`.
    """
    return await _position(log, LATEST if moment is None else await resolve(moment, checkpoints))


async def _position(log: EventLog, meant: int | datetime | str | CheckpointEntry) -> int:
    head = await log.refresh_head()
    if isinstance(meant, str):
        return head
    if isinstance(meant, datetime):
        return await position_at_time(log, meant)
    if not isinstance(meant, int):
        return meant.position
    if not 0 <= meant <= head:
        raise PositionNotFoundError(f"position {shown(meant)} is not in the log: its head is {head}")
    return meant


async def position_since(log: EventLog, since: Moment | None, checkpoints: CheckpointReader | None) -> int:
    """Return the position that what happened since a moment comes after: a position or checkpoint itself, or the last one before a time.

    Errors are those of `position_of`.
    """
    if since is None:
        return 0
    meant = await resolve(since, checkpoints)
    if not isinstance(meant, datetime):
        return await _position(log, meant)
    await log.refresh_head()
    return await log.position_at(nanoseconds(meant) - 1)


def check_range(after: int, last: int) -> None:
    """Refuse a range of positions that is asked for and can hold nothing.

    Raises:
        ConfigurationError: it begins after its end.
    """
    if after > last:
        raise ConfigurationError(f"there is nothing after position {after} and up to {last}")


async def position_at_time(log: EventLog, moment: datetime) -> int:
    """Return the position before the first event with a later time, to the microsecond; 0 when all events are later.

    Raises:
        ConfigurationError: it has no time zone.
        PositionNotFoundError: in memory, it is before the history that is kept.
    """
    position = await log.position_at(nanoseconds(moment) + LAST_NS)
    base = log.base_position
    if base and position == base < log.head:  # nobody knows any more when the events before had happened
        raise PositionNotFoundError(
            f"{moment.isoformat()} is before what is still in memory: the kept history begins at {base} (memory_events=...)"
        )
    return position


def nanoseconds(moment: Time) -> int:
    """Return a point in time as nanoseconds since 1970, as events are stamped.

    Raises:
        ConfigurationError: it is none, or a datetime without a time zone.
    """
    moment = read_time(moment)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1000


async def check_boundary(log: EventLog, position: int) -> None:
    """Refuse a position in the middle of a transaction. Costs a look at two events.

    Raises:
        PositionInsideTransactionError: it is one.
    """
    if 0 < position < log.head:
        own, next_one = [decode_row(row).transaction_id for row in await log.read_rows(position - 1, position + 1, 2)]
        if own == next_one:
            raise PositionInsideTransactionError(position, *await log.transaction_bounds(position))
