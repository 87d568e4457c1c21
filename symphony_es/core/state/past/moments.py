"""Moments of a log: what a position, a point in time, or a checkpoint's id or name means as a position."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from symphony_es.errors import ConfigurationError, PersistenceDisabledError, PositionInsideTransactionError, PositionNotFoundError
from symphony_es.events.bounds import read_digits
from symphony_es.events.rows import decode_row
from symphony_es.shown import quoted, shown

if TYPE_CHECKING:
    from symphony_es.core.state.checkpoint import CheckpointReader
    from symphony_es.log.log import EventLog

__all__ = [
    "LAST_NS", "LATEST", "Moment", "Time", "check_boundary", "nanoseconds", "position_at_time", "position_of", "position_since",
    "read_moment",
]  # fmt: skip

Moment = int | datetime | str
"""A position, a point in time with a time zone, or a text: `"latest"` is the head, `"2026-11-27"` or `"2026-11-27T17:22:42+01:00"` a
point in time (UTC where no zone is named; a date is its beginning), digits are a position, any other text is the id or name of a
checkpoint."""

Time = datetime | str
"""A point in time: a datetime with a time zone, or the same as ISO 8601 text, in UTC where no zone is named; a date is its beginning."""

LATEST = "latest"
_ISO_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]|$)", re.ASCII)

LAST_NS = 999
"""Events are stamped in nanoseconds and show their time in microseconds; a time as an upper end means all of its microsecond."""


async def position_of(log: EventLog, moment: Moment, checkpoints: CheckpointReader | None) -> int:
    """The position that a moment means.

    Raises:
        PositionNotFoundError: the log does not have that position.
        CheckpointNotFoundError: there is no such checkpoint.
        PersistenceDisabledError: a log in memory has no checkpoints.
        ConfigurationError: it means nothing, or is a point in time without a time zone.
    """
    head = await log.refresh_head()
    if isinstance(moment, str) and moment != LATEST:
        read = read_moment(moment)
        moment = moment if read is None else read
    if isinstance(moment, str):
        if moment == LATEST:
            return head
        if checkpoints is None:
            raise PersistenceDisabledError("finding a checkpoint")
        return (await checkpoints.find(moment)).position
    if isinstance(moment, datetime):
        return await position_at_time(log, moment)
    if type(moment) is int:  # not a bool
        if not 0 <= moment <= head:
            raise PositionNotFoundError(f"position {shown(moment)} is not in the log: its head is {head}")
        return moment
    raise ConfigurationError(f"a moment is a position, a datetime or its ISO text, or the id or name of a checkpoint, not {shown(moment)}")


def read_moment(text: str) -> int | datetime | None:
    """What a text means that is a number or a time; None where it may be the name of a checkpoint.

    Raises:
        ConfigurationError: it looks like a time and is none.
    """
    if text.isascii() and text.isdigit():
        return read_digits(text)
    if _ISO_DATE.match(text) is None:
        return None
    try:
        read = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigurationError(f"{quoted(text)} is no time: {error}") from error
    return read if read.tzinfo is not None else read.replace(tzinfo=UTC)


async def position_since(log: EventLog, since: Moment | None, checkpoints: CheckpointReader | None) -> int:
    """The position that what happened since a moment comes after: a position or checkpoint itself, or the last one before a time.

    Errors are those of `position_of`.
    """
    if since is None:
        return 0
    if isinstance(since, str) and since != LATEST:
        read = read_moment(since)
        since = since if read is None else read
    if isinstance(since, datetime):
        await log.refresh_head()
        return await log.position_at(nanoseconds(since) - 1)
    return await position_of(log, since, checkpoints)


async def position_at_time(log: EventLog, moment: datetime) -> int:
    """The position before the first event with a later time, to the microsecond; 0 when all events are later.

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
    """A point in time as nanoseconds since 1970, as events are stamped.

    Raises:
        ConfigurationError: it is none, or a datetime without a time zone.
    """
    if isinstance(moment, str):
        read = read_moment(moment)
        if not isinstance(read, datetime):
            raise ConfigurationError(
                f"a time is a datetime with a time zone, or ISO text as '2026-11-27T17:22:42+01:00', not {shown(moment)}"
            )
        moment = read
    if not isinstance(moment, datetime):
        raise ConfigurationError(f"a time is a datetime with a time zone, or its ISO text, not {shown(moment)}")
    if moment.utcoffset() is None:
        raise ConfigurationError(f"{shown(moment)} has no time zone: give one, for example datetime.now(UTC)")
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
