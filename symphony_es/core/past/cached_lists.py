"""Lists of a log that stand beside it as tables, and are brought up to date before each question."""

from __future__ import annotations

import asyncio
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from symphony_es.diagnostics import get_logger
from symphony_es.errors import ConfigurationError, NotReadyError, PositionNotFoundError, StorageUnavailableError
from symphony_es.shown import shown
from symphony_es.turns import TaskLock
from symphony_es_projections.agreement import Progress, disagreement, log_id_of

if TYPE_CHECKING:
    from symphony_es.log.log import EventLog
    from symphony_es_projections.cached import CachedTable

__all__ = ["CachedList"]

logger = get_logger(__name__)


class CachedList(ABC):
    """A table that is fed by the events of one log.

    Args:
        log: the log. table: the table. title: of what it is, as in "the list of runs".
    """

    def __init__(self, log: EventLog, table: CachedTable, title: str) -> None:
        self.log = log
        self._table = table
        self._title = title
        self._turn = TaskLock()
        self._checked = False
        self._closed = False
        self._log_id: bytes | None = None
        self._mended = 0

    async def catch_up(self) -> None:
        """Take in the log up to its head.

        Raises:
            StorageUnavailableError: the file cannot be read or written.
            DamagedEventError: an event is damaged.
        """
        async with self._turn:
            self._check_open()
            try:
                await self._catch_up()
            except sqlite3.DatabaseError:
                await self._mend()

    async def _mend(self) -> None:
        """Make the table anew, whatever is wrong with it: it is a cache. Where no file can be kept, this process does without one."""
        self._mended += 1
        try:
            try:
                await asyncio.to_thread(self._table.clear)
                await self._catch_up()
            except sqlite3.Error as error:
                if not await asyncio.to_thread(self._table.do_without_file):
                    raise
                logger.warning("list_not_kept", what=self._title, error=str(error))
                await self._catch_up()
        except sqlite3.Error as error:
            raise StorageUnavailableError(f"{self._title} cannot be kept: {error}") from error

    async def _catch_up(self) -> None:
        if self._log_id is None:
            self._log_id = await log_id_of(self.log)
        progress = await asyncio.to_thread(self._table.open, self._log_id)
        position, head = progress.position, await self.log.refresh_head()
        if not self._checked:
            if not await self._is_of_this_log(progress):
                await asyncio.to_thread(self._table.clear)
                position = 0
            self._checked = True
        await self._take_in(position, head)

    @abstractmethod
    async def _take_in(self, position: int, head: int) -> None:
        """Take in the events behind a position, up to the head."""

    async def _is_of_this_log(self, progress: Progress) -> bool:
        try:
            return await disagreement(self.log, progress) is None
        except PositionNotFoundError:  # in memory, what is older than the history that is kept
            return True

    def _check_open(self) -> None:
        if self._closed:
            raise NotReadyError(f"this Symphony is closed, and with it {self._title}")

    async def _asked(self, question: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Ask the table; where that meets a damaged page, which no event has led to, it is made anew and asked again.

        Raises:
            ConfigurationError: it is asked for what no row can hold.
            StorageUnavailableError: it cannot be read.
        """
        mended = self._mended
        try:
            return await asyncio.to_thread(question, *arguments, **named)
        except UnicodeEncodeError as error:
            raise ConfigurationError(f"{self._title} was asked for {shown(error.object)}: no text there holds a lone surrogate") from None
        except OverflowError:
            raise ConfigurationError(f"{self._title} was asked for a number of more than 64 bits") from None
        except sqlite3.Error as error:
            async with self._turn:
                self._check_open()  # closed meanwhile
                if self._mended == mended:  # else another question has met it as well
                    if not _is_damage(error):
                        raise StorageUnavailableError(f"{self._title} cannot be read: {error}") from error
                    await self._mend()
        try:
            return await asyncio.to_thread(question, *arguments, **named)
        except sqlite3.Error as error:
            self._check_open()
            raise StorageUnavailableError(f"{self._title} cannot be read: {error}") from error

    async def close(self) -> None:
        """Let go of the file; what is not in the list yet, the next process makes of the log."""
        self._closed = True
        async with self._turn:  # who is at it would open the file again
            await asyncio.to_thread(self._table.close)


def _is_damage(error: sqlite3.Error) -> bool:
    """Return whether the file is at fault, and not the question."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
