"""Which checkpoints a caller means, and how many of them: a page of the list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from symphony_es.core.state.past.moments import LATEST, Moment, nanoseconds, read_moment
from symphony_es.errors import CheckpointNotFoundError, ConfigurationError, InvalidIdentifierError
from symphony_es.events.identifiers import id_of_text

if TYPE_CHECKING:
    from symphony_es_projections.checkpoints import CheckpointEntry

__all__ = ["CheckpointFilter"]

PREFIX = "ckpt_"


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
            raise ConfigurationError(f"limit={self.limit!r:.40}: a page has at least one checkpoint; None for all")
        if self.name is not None and not isinstance(self.name, str):
            raise ConfigurationError(f"name={self.name!r:.60}: a checkpoint's name is a text")

    def of(self, entries: Sequence[CheckpointEntry]) -> list[CheckpointEntry]:
        """Those that are meant of all there are, which are given and returned newest first.

        Raises:
            CheckpointNotFoundError: `before` names none.
            ConfigurationError: `before` is no moment.
        """
        is_before = self._older(entries)
        found = (
            entry
            for index, entry in enumerate(entries)
            if is_before(index, entry)
            and (self.name is None or entry.name == self.name)
            and (self.run_id is None or entry.metadata.get("run_id") == self.run_id)
        )
        return list(islice(found, self.limit))

    def _older(self, entries: Sequence[CheckpointEntry]) -> Callable[[int, CheckpointEntry], bool]:
        before: Any = self.before
        read: Any = read_moment(before) if isinstance(before, str) else before
        if before is None or before == LATEST:
            return lambda index, entry: True
        if isinstance(read, datetime):
            nanoseconds(read)  # refuses one without a zone
            return lambda index, entry: entry.created_at < read
        if type(read) is int:
            return lambda index, entry: entry.position < read
        if not isinstance(before, str):
            raise ConfigurationError(
                f"before={before!r:.60}: it is a checkpoint's id or name, a position, or a datetime or its ISO text"
                + ("; of an entry of this list, give its ['id']" if isinstance(before, dict) else "")
            )
        place = _place_of(before, entries)
        if place is not None:
            return lambda index, entry: index > place
        made = _made(before)  # a page's last one may have been deleted since: its id says when it was made
        return lambda index, entry: entry.event_id < made


def _place_of(checkpoint: str, entries: Sequence[CheckpointEntry]) -> int | None:
    """Where the one with an id, or else the newest one with a name, stands."""
    by_id = next((index for index, entry in enumerate(entries) if entry.id == checkpoint), None)
    return next((index for index, entry in enumerate(entries) if entry.name == checkpoint), None) if by_id is None else by_id


def _made(checkpoint: str) -> bytes:
    try:
        if checkpoint.startswith(PREFIX):
            return id_of_text(checkpoint.removeprefix(PREFIX))
    except InvalidIdentifierError:
        pass
    raise CheckpointNotFoundError(checkpoint)
