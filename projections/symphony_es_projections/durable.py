"""What every durable projection is: a read model in a SQLite database of its own, fed by a `ProjectionRunner`.

The rows and the position they stand for are written in one transaction, so a projection is never half of a batch ahead or behind.
The database is the whole state: an object that applies keeps nothing else, because another object may apply while a build goes on.
"""

from __future__ import annotations

import copy
import re
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self, TypeAlias

from symphony_es.errors import ConfigurationError, ProjectionUnavailableError
from symphony_es.events.event import Event
from symphony_es.shown import quoted

__all__ = ["Parameters", "ReadAccess", "SQLiteProjection", "check_projection_name", "is_projection_name"]

Parameters: TypeAlias = Sequence[Any] | Mapping[str, Any]

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


class ReadAccess(Protocol):
    """What can be asked: a projection that a runner feeds, or what `open_current` has opened in another process."""

    async def read(self, sql: str, parameters: Parameters = ()) -> list[sqlite3.Row]:
        """Return the rows of one SELECT."""
        ...


class SQLiteProjection(ABC):
    """A read model in a SQLite database.

    Attributes:
        name: what it and its files are called: a small letter, then up to 63 small letters, digits and underscores.
        version: raised when `apply` changes, so that what was built before is built anew; other `schema` or `event_names` are noticed.
        event_names: the events it wants; empty for all.
        schema: the statements that make its tables and indexes. Names that begin with `projection_` are the runner's.
        rebuilding: whether this object builds (for the first time, or anew) instead of following.
    """

    name: str
    version: int = 1
    event_names: tuple[str, ...] = ()
    schema: tuple[str, ...] = ()
    rebuilding: bool = False
    _access: ReadAccess | None = None

    @abstractmethod
    def apply(self, db: sqlite3.Connection, events: Sequence[Event]) -> None:
        """Take a batch of events in, in order, inside a transaction that also advances the position. Runs in a worker thread.

        An exception takes everything back. The batch is tried again, then its events one by one; an event that fails for good is
        parked. `apply` may neither commit nor roll back, and does nothing outside the database: see `after_commit`.
        """

    def after_commit(self, events: Sequence[Event]) -> None:  # noqa: B027  most projections have no side effects
        """Do what goes beyond the database, a mail for instance; nothing by default. Runs in a worker thread, after the commit.

        It is called for live events only, at least once each (again after a crash), and never by a build: events that a first build
        has taken in never come here, and a rebuild repeats none. One that raises is tried again, then parked.
        """

    def for_rebuild(self) -> Self:
        """Return the object that applies during a build: a shallow copy; override it when attributes must not be shared."""
        return copy.copy(self)

    async def read(self, sql: str, parameters: Parameters = ()) -> list[sqlite3.Row]:
        """Return the rows of one SELECT, read in a worker thread on a connection that cannot write; committed batches only.

        Raises:
            ProjectionUnavailableError: no runner feeds it, or it has not been built yet.
            sqlite3.Error: the statement is wrong.
        """
        if self._access is None:
            raise ProjectionUnavailableError(self.name, "no runner feeds it; add it to a ProjectionRunner")
        return await self._access.read(sql, parameters)

    def attach(self, access: ReadAccess | None) -> None:
        """Say where `read` reads; the runner's."""
        self._access = access


def is_projection_name(name: object) -> bool:
    """Return whether files could have a name."""
    return type(name) is str and _NAME.fullmatch(name) is not None


def check_projection_name(name: str) -> str:
    """Return a name as it is.

    Raises:
        ConfigurationError: it is none that files could have.
    """
    if not is_projection_name(name):
        raise ConfigurationError(f"{quoted(name)} cannot name a projection: a small letter, then at most 63 small letters, digits and '_'")
    return name
