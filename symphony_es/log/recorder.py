"""The port between the log and a store: what a store of events must be able to do.

The memory recorder is the executable specification; one contract suite runs over every implementation. All methods block; they are
called from the writer thread (`append_groups`, `maintain`) or from reading threads (the rest).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol
from uuid import UUID

from symphony_es.errors import DamagedEventError, SymphonyError
from symphony_es.events.fold import EntityState, Fold
from symphony_es.events.rows import Row
from symphony_es.late_dataclasses import dataclass
from symphony_es.log.pages import PAGE_ROWS, Page

__all__ = ["Anchor", "Appended", "LogRecorder", "PreparedEvent", "missing"]


class PreparedEvent(NamedTuple):
    """An event that is encoded and waits to get its position and time.

    Attributes:
        entity_key: `Type:id`.
        version: the one it will have: the entity's previous version and one.
        name: what happened.
        event_id: a UUIDv7, 16 bytes.
        body: salt and encoded content.
    """

    entity_key: str
    version: int
    name: str
    event_id: bytes
    body: bytes


class Appended(NamedTuple):
    """Where a group of events is in the log.

    Attributes:
        first: position of the first event. last: of the last one; the positions between are the group's as well.
        time_ns: when it was committed, nanoseconds since 1970.
    """

    first: int
    last: int
    time_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """What a snapshot knows of the log: the event that stands at a position.

    Attributes:
        event_id: 16 bytes.
        commitment: SHA-256 over its body, 32 bytes.
    """

    position: int
    event_id: bytes
    commitment: bytes


def missing(position: int, until: int) -> DamagedEventError:
    """Return the error of a reading that has come to a position which is not there, and was to go on."""
    return DamagedEventError(position, None, f"it is missing, and the log goes up to position {until}")


class LogRecorder(Protocol):
    """A store of events. Every row it hands out has been checked.

    Attributes:
        least_of: gives the version that an entity has at least, by events that are durable; None where nobody knows. A store whose index
            can lose entries compares its readings of one entity with it.
    """

    least_of: Callable[[str], int] | None

    @property
    def in_process(self) -> bool:
        """Whether it is this process's memory, so that asking it blocks nobody."""
        ...

    @property
    def path(self) -> Path | None:
        """The database file; None where there is none."""
        ...

    @property
    def lost_at_the_end(self) -> tuple[int, int] | None:
        """First and last position of the last commit before a crash, where opening found that it is missing; None where nothing is."""
        ...

    @property
    def skips(self) -> bool:
        """Whether something is given in the place of damaged rows."""
        ...

    @property
    def skipped(self) -> Mapping[int, Row]:
        """What is given in the place of damaged rows, by position."""
        ...

    def log_id(self) -> UUID | None:
        """Return the identity that the log was made with; None when it has none."""
        ...

    @property
    def last_time_ns(self) -> int:
        """When its last event was committed, nanoseconds since 1970; 0 without any."""
        ...

    def append_groups(self, groups: Sequence[Sequence[PreparedEvent]], time_ns: int) -> list[Appended | SymphonyError]:
        """Append groups of events with one commit; each group whole or not at all.

        Args:
            groups: each a transaction. An event's version must be one more than its entity has.
            time_ns: the time to stamp; the last one known is used instead where that is later.

        Returns:
            per group where it is, or why it alone was refused (`ConcurrencyError`).

        Raises:
            LogUnavailableError: the commit failed: nothing was appended (or, with `outcome_unknown`, perhaps all).
        """
        ...

    def read(
        self,
        after: int,
        *,
        until: int | None = None,
        limit: int = PAGE_ROWS,
        names: Sequence[str] = (),
        key_range: tuple[str, str] | None = None,
    ) -> Page:
        """Return all rows with positions above `after` and at most `until`, in order: the first `limit` of them, or as far as the log goes.

        Whoever gets fewer rows than `limit`, on a page that is not `cut`, has been given all there are up to `until`, or up to the head
        where that comes first: a store that does not find one of them raises.

        Args:
            names: only events of these names; the others are checked all the same, but for those of a range of keys.
            key_range: only entities whose key is at or above the first and below the second text.

        Raises:
            DamagedEventError: a row is damaged or missing.
            PositionNotFoundError: the history there is no longer kept.
        """
        ...

    def read_entity(self, key: str, *, after_version: int = 0, until_position: int | None = None, limit: int = PAGE_ROWS) -> Page:
        """Return rows of one entity with versions above `after_version`, without a gap, up to a position, in order. Errors are those of
        `read`.
        """
        ...

    def read_back(self, before: int, *, after: int = 0, limit: int = PAGE_ROWS) -> Page:
        """Return rows with positions below one and above another, the newest first, from the head on where that is lower. See `read`."""
        ...

    def read_entity_back(
        self,
        key: str,
        *,
        before_version: int | None = None,
        after_version: int = 0,
        until_position: int | None = None,
        limit: int = PAGE_ROWS,
    ) -> Page:
        """Return rows of one entity between two versions, without a gap, up to a position, the newest first. Errors are those of `read`."""
        ...

    def last_row(self, key: str) -> Row | None:
        """Return the newest row of an entity, or None."""
        ...

    def entity_types(self) -> list[str]:
        """Return the types that any event is of, sorted. Costs a look-up for each, however many events there are."""
        ...

    def last_rows(self, entity_type: str, after_key: str = "", limit: int = PAGE_ROWS) -> Page:
        """Return the newest row of each entity of a type with a key above one, in the order of their keys. See `read`."""
        ...

    def head(self) -> int:
        """Return the newest position; 0 when the log is empty."""
        ...

    def version_at(self, key: str, position: int) -> int:
        """Return version of an entity's last event up to a position; 0 when there is none. No event is read."""
        ...

    def entity_version(self, key: str) -> int:
        """Return version of an entity's last event; 0 when there is none."""
        ...

    def weight(self, after: int, until: int | None = None) -> int:
        """Return bytes of all states at positions above `after`, up to `until` where it is given."""
        ...

    def size_bytes(self) -> int:
        """Return how much room the log takes, in bytes; costs nothing, however long it is."""
        ...

    def base(self) -> Fold | None:
        """Return the states that events no longer kept were folded into, as a copy; None where everything is kept."""
        ...

    def base_position(self) -> int:
        """Return the position up to which events are no longer kept; 0 where everything is."""
        ...

    def base_state(self, key: str) -> EntityState | None:
        """Return the state, as a copy, that an entity's events which are no longer kept have led to; None where all of them are kept."""
        ...

    def maintain(self) -> None:
        """Do what is due between commits."""
        ...

    def close(self) -> None:
        """Close the store; idempotent."""
        ...
