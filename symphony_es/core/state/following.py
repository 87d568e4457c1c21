"""Live objects that are read only: they follow the log that another process writes.

Each page of the feed puts the entities in it to the log's state as it is then: an object keeps its identity, a new entity becomes live, a
removed one leaves. Between two pages the objects stand still.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from symphony_es.core.state.history import is_system
from symphony_es.core.state.tracking.connect import connect
from symphony_es.diagnostics import get_logger
from symphony_es.errors import EntityNotFoundError, RestorationError, SymphonyError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from symphony_es.core.state.world import World
    from symphony_es.events.changes import Change
    from symphony_es.log.log import EventLog

__all__ = ["Following"]

logger = get_logger(__name__)


class Reading(Protocol):
    """The part of a Symphony that following needs."""

    @property
    def world(self) -> World:
        """The live objects."""
        ...

    @property
    def log(self) -> EventLog:
        """The log."""
        ...

    async def load_entities(self, keys: Sequence[str], *, strict: bool, keep_failed: bool = False) -> None:
        """Make entities live."""
        ...

    async def refresh(self, entity: str) -> list[Change]:
        """Put an object to the log's state."""
        ...


class Following:
    """Keeps a Symphony's objects at the feed, from a position on, in a task of the running event loop.

    Args:
        reading: the Symphony.
        position: where its objects are.
        on_page: called with the keys of the entities of a page, when they have been taken in.

    Attributes:
        position: up to where the objects are.
        failure: why it does not go on, or None.
    """

    def __init__(self, reading: Reading, position: int, on_page: Callable[[Sequence[str]], None]) -> None:
        self._reading = reading
        self._on_page = on_page
        self.position = position
        self.failure: SymphonyError | None = None
        self._moved = asyncio.Event()
        self._task = asyncio.create_task(self._follow(), name="symphony-es-following")

    async def _follow(self) -> None:
        try:
            async for events in self._reading.log.follow(self.position):
                await self._take_in({event.entity_key: None for event in events})
                self.position = events[-1].position
                self._tell()
        except SymphonyError as error:
            self.failure = error
            logger.warning("following_failed", position=self.position, error=str(error))
            self._tell()

    async def _take_in(self, keys: dict[str, None]) -> None:
        mine = [key for key in keys if not is_system(key)]
        live = [key for key in mine if key in self._reading.world.records]
        for key in mine:
            if key not in live and self._reading.world.at_rest(key) is not None:
                live.append(key)  # its object is brought back as it was
        for key in mine:
            if key not in self._reading.world.records:  # what the others refer to is there before they are put to their states
                with suppress(EntityNotFoundError):  # it was removed since
                    await self._reading.load_entities([key], strict=False, keep_failed=True)
        for key in live:
            with suppress(EntityNotFoundError):
                try:
                    await self._reading.refresh(key)
                except RestorationError as error:  # newer code writes what this code makes no object of: the others are followed
                    logger.warning("entities_not_restored", position=self.position, entities=[key], error=str(error))
                    await self._keep(key)
        self._on_page(mine)

    async def _keep(self, key: str) -> None:
        """Put the state of an entity in the place of its object, also where others refer to it."""
        world = self._reading.world
        record = world.records.get(key)
        if record is None:
            return
        from symphony_es.core.state.repair import holders_of  # late: only who follows a log needs it

        holders = holders_of(world, record)
        with world.lock:
            world.forget(record)
        await self._reading.load_entities([key], strict=False, keep_failed=True)
        for holder, path in holders:
            connect(holder.obj, path, record.obj, world.get(key))

    def _tell(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()

    async def wait_for(self, position: int) -> None:
        """Wait until the objects are at a position, or after it.

        Raises:
            SymphonyError: it does not go on; the error says why.
        """
        while self.position < position:
            if self.failure is not None:
                raise self.failure
            await self._moved.wait()

    async def stop(self) -> None:
        """End it; idempotent, also in a later event loop."""
        if not self._task.done() and self._task.get_loop() is asyncio.get_running_loop():
            self._task.cancel()
            await asyncio.wait([self._task])
