"""Which checkpoints a caller means, and how many of them: a page of the list."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from symphony_es.core.past.moment_texts import CHECKPOINT_PREFIX, Moment, read_moment
from symphony_es.core.past.moments import nanoseconds, resolve
from symphony_es.errors import CheckpointNotFoundError, ConfigurationError, InvalidIdentifierError
from symphony_es.events.identifiers import id_of_text
from symphony_es.late_dataclasses import dataclass
from symphony_es.shown import shown

if TYPE_CHECKING:
    from symphony_es.core.past.checkpoints import CheckpointReader

__all__ = ["CheckpointFilter", "bounded"]

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

    async def query(self, checkpoints: CheckpointReader) -> tuple[str, list[Any]]:
        """Return the condition and its parameters, for `CheckpointTable.find`.

        Args:
            checkpoints: finds the one that `before` names.

        Raises:
            CheckpointNotFoundError: `before` names none.
            AmbiguousMomentError: it means a checkpoint and something else.
            ConfigurationError: `before` is no moment.
        """
        conditions = {"name = ?": self.name, "run = ?": self.run_id, **await self._older(checkpoints)}
        given = {condition: value for condition, value in conditions.items() if value is not None}
        return " AND ".join(given) or "1", list(given.values())

    async def _older(self, checkpoints: CheckpointReader) -> dict[str, Any]:
        if self.before is None:
            return {}
        if isinstance(self.before, Mapping):
            raise ConfigurationError(f"before={shown(self.before)}: of an entry of this list, give its ['id']")
        try:
            read = read_moment(self.before)
        except ConfigurationError as error:
            raise ConfigurationError(f"before={shown(self.before)}: {error}") from None
        try:
            meant = await resolve(read, checkpoints)
        except CheckpointNotFoundError:
            if read.checkpoint_id is None:
                raise
            return {
                "event_id < ?": _made(read.checkpoint_id)
            }  # a page's last one may have been deleted since: its id says when it was made
        if isinstance(meant, datetime):
            return {"time_ns < ?": bounded(nanoseconds(meant))}
        if isinstance(meant, int):
            return {"position < ?": bounded(meant)}
        if isinstance(meant, str):
            return {}  # older than the head
        return {"number < (SELECT number FROM checkpoints WHERE id = ?)": meant.id}


def bounded(number: int) -> int:
    """Return a bound that means the same for all numbers of 64 bits."""
    return max(-_MOST, min(number, _MOST))


def _made(checkpoint: str) -> bytes:
    """Return the id of the event that made a checkpoint of this id, whether it is there or not."""
    try:
        return id_of_text(checkpoint.removeprefix(CHECKPOINT_PREFIX))
    except InvalidIdentifierError:
        raise CheckpointNotFoundError(checkpoint) from None
