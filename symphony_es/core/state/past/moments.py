"""Moments of a log: what a position, a point in time, or a checkpoint's id or name means as a position."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from symphony_es.errors import ConfigurationError, PersistenceDisabledError, PositionInsideTransactionError, PositionNotFoundError

if TYPE_CHECKING:
    from symphony_es.core.state.checkpoint import CheckpointReader
    from symphony_es.log.log import EventLog

__all__ = ["Moment", "check_boundary", "position_at_time", "position_of"]

Moment = int | datetime | str
"""A position, a point in time with a time zone, or the id or name of a checkpoint; `"latest"` is the head."""


async def position_of(log: EventLog, moment: Moment, checkpoints: CheckpointReader | None) -> int:
    """The position that a moment means.

    Raises:
        PositionNotFoundError: the log does not have that position.
        CheckpointNotFoundError: there is no such checkpoint.
        PersistenceDisabledError: a log in memory has no checkpoints.
        ConfigurationError: it means nothing, or is a point in time without a time zone.
    """
    head = await log.refresh_head()
    if isinstance(moment, str):
        if moment == "latest":
            return head
        if checkpoints is None:
            raise PersistenceDisabledError("finding a checkpoint")
        return (await checkpoints.find(moment)).position
    if isinstance(moment, datetime):
        return await position_at_time(log, moment)
    if type(moment) is int:  # not True
        if not 0 <= moment <= head:
            raise PositionNotFoundError(f"position {moment} is not in the log: its head is {head}")
        return moment
    raise ConfigurationError(f"a moment is a position, a datetime, or the id or name of a checkpoint, not {moment!r}")


async def position_at_time(log: EventLog, moment: datetime) -> int:
    """The position before the first event with a later time; 0 when all events are later.

    Raises:
        ConfigurationError: it has no time zone.
    """
    if moment.tzinfo is None:
        raise ConfigurationError(f"{moment!r} has no time zone: give one, for example datetime.now(UTC)")
    return await log.position_at(round((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1_000_000) * 1000)


async def check_boundary(log: EventLog, position: int) -> None:
    """Refuse a position in the middle of a transaction.

    Raises:
        PositionInsideTransactionError: it is one.
    """
    if position:
        first, last = await log.transaction_bounds(position)
        if position != last:
            raise PositionInsideTransactionError(position, first, last)
