"""Which checkpoints a caller means, and how many of them: a page of the list."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from symphony_es.core.state.past.moments import LATEST, Moment, nanoseconds, read_moment
from symphony_es.errors import CheckpointNotFoundError, ConfigurationError, InvalidIdentifierError
from symphony_es.events.identifiers import id_of_text
from symphony_es.late_dataclasses import dataclass
from symphony_es.shown import shown

__all__ = ["PREFIX", "CheckpointFilter", "bounded"]

PREFIX = "ckpt_"
"""How all ids of checkpoints begin."""

_MOST = (1 << 63) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFilter:
    """All conditions together; see `Symphony.list_checkpoints`.

    Raises:
        ConfigurationError: one of them means nothing.
    """

    limit: int | None = None
    before: Moment | None = None
    run_id: str | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and (type(self.limit) is not int or self.limit < 1):
            raise ConfigurationError(f"limit={shown(self.limit)}: a page has at least one checkpoint; None for all")
        if self.name is not None and not isinstance(self.name, str):
            raise ConfigurationError(f"name={shown(self.name)}: a checkpoint's name is a text")

    async def query(self, number_of: Callable[[str], Awaitable[int | None]]) -> tuple[str, list[Any]]:
        """The condition and its parameters, for `CheckpointTable.find`.

        Args:
            number_of: gives the number of the checkpoint with an id, or else of the newest one with a name.

        Raises:
            CheckpointNotFoundError: `before` names none.
            ConfigurationError: `before` is no moment.
        """
        conditions = {"name = ?": self.name, "run = ?": self.run_id, **await self._older(number_of)}
        given = {condition: value for condition, value in conditions.items() if value is not None}
        return " AND ".join(given) or "1", list(given.values())

    async def _older(self, number_of: Callable[[str], Awaitable[int | None]]) -> dict[str, Any]:
        before: Any = self.before
        read = read_moment(before) if isinstance(before, str) else before
        if before is None or before == LATEST:
            return {}
        if isinstance(read, datetime):
            return {"time_ns < ?": bounded(nanoseconds(read))}
        if type(read) is int:
            return {"position < ?": bounded(read)}
        if not isinstance(before, str):
            raise ConfigurationError(
                f"before={shown(before)}: it is a checkpoint's id or name, a position, or a datetime or its ISO text"
                + ("; of an entry of this list, give its ['id']" if isinstance(before, dict) else "")
            )
        number = await number_of(before)
        if number is not None:
            return {"number < ?": number}
        return {"event_id < ?": _made(before)}  # a page's last one may have been deleted since: its id says when it was made


def bounded(number: int) -> int:
    """A bound that means the same for all numbers of 64 bits."""
    return max(-_MOST, min(number, _MOST))


def _made(checkpoint: str) -> bytes:
    try:
        if checkpoint.startswith(PREFIX):
            return id_of_text(checkpoint.removeprefix(PREFIX))
    except InvalidIdentifierError:
        pass
    raise CheckpointNotFoundError(checkpoint)
