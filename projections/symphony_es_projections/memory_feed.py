"""What feeds a projection in memory: decoding is done in a worker thread, applying in the event loop, where its readers are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from symphony_es.errors import ConfigurationError, ProjectionFailedError
from symphony_es.events.event import Event
from symphony_es.events.rows import Row, decode_row
from symphony_es.shown import shown
from symphony_es_projections.calling import called
from symphony_es_projections.database import park, too_many_parked
from symphony_es_projections.feed import Feed, FeedOptions, report_parked
from symphony_es_projections.projection import Projection
from symphony_es_projections.status import ParkedEvent

__all__ = ["MemoryFeed"]

SLICE_S = 0.005
"""How long a projection is fed before the event loop's other tasks have a turn."""


class MemoryFeed(Feed[Projection]):
    """Feeds a projection in memory. It is fed in the event loop, where its readers are: they never see half an event.

    Args:
        make: makes an empty one, for a rebuild.
    """

    def __init__(
        self, projection: Projection, event_names: tuple[str, ...], make: Callable[[], Projection], options: FeedOptions
    ) -> None:  # fmt: skip
        super().__init__(projection.name, projection.version, event_names, options)
        self._projection = projection
        self._make = make
        self._parked: dict[int, tuple[ParkedEvent, Event]] = {}
        self._build_parked: dict[int, tuple[ParkedEvent, Event]] = {}

    @property
    def position(self) -> int:
        """The last position that readers see."""
        return self._projection.position

    def current(self) -> Projection:
        """Return what serves readers."""
        return self._projection

    async def prepare(self, target: int, *, accept_parked: bool = False) -> None:
        """Check that the object, which is there already, is one of this log."""
        head = await self.log.refresh_head()
        if self.position > head:
            raise ProjectionFailedError(self.name, self.position, f"the log ends at position {head}: it has been fed from another log")

    async def advance(self, build: Projection, target: int) -> None:
        """Decode in a worker thread, apply in the loop."""
        if build.position >= target:
            return
        rows, through = await self.read_batch(build.position, target)
        events = await self.run(_decode, rows)
        until = time.perf_counter() + SLICE_S
        for event in events:
            await self._feed(build, event)
            if time.perf_counter() > until:
                self.advanced()
                await asyncio.sleep(0)
                until = time.perf_counter() + SLICE_S
        build.position = max(build.position, through[0])

    async def _feed(self, build: Projection, event: Event) -> None:
        attempt = 1
        while True:
            try:
                called(build.feed, (event,))
                return
            except Exception as error:  # noqa: BLE001  the projection is the application's: what it raises is on record with the event
                if attempt == self.options.attempts:
                    parked = park(event, error, attempt, "apply", self.options.redact)
                    break
            await self.pause(attempt)
            attempt += 1
        there = self._parked if build is self._projection else self._build_parked
        if len(there) >= self.options.max_parked:
            raise ProjectionFailedError(self.name, build.position, too_many_parked(self.options.max_parked, parked))
        there[event.position] = (parked, event)
        build.position = event.position
        report_parked(self.name, [parked])

    async def begin(self) -> Projection:
        """Return another object of the same class."""
        self._build_parked = {}
        build = called(self._make)
        if not isinstance(build, type(self._projection)) or build is self._projection or build.position:
            raise ConfigurationError(f"{shown(self._make)} makes an empty {type(self._projection).__name__} each time, not {shown(build)}")
        build.rebuilding = True
        return build

    async def put_in_place(self, build: Projection) -> None:
        """Give the object that readers hold the content of the other one, between two turns of the loop."""
        build.rebuilding = False
        vars(self._projection).clear()
        vars(self._projection).update(vars(build))
        self._parked = self._build_parked

    async def drop(self, build: Projection) -> None:
        """Do nothing: nothing holds it."""

    def parked(self) -> list[ParkedEvent]:
        """Return the events passed over."""
        return [parked for _, (parked, _) in sorted(self._parked.items())]

    def lost(self, build: Projection) -> list[ParkedEvent]:
        """Return what a build has passed over, and what it would replace has taken in."""
        return [parked for position, (parked, _) in sorted(self._build_parked.items()) if position not in self._parked]

    async def retry_parked(self) -> int:
        """Try them again; how many went through."""
        through = 0
        async with self._lock:
            for position, (parked, event) in sorted(self._parked.items()):
                try:
                    called(self._projection.apply, event)
                except Exception as error:  # noqa: BLE001  as above
                    self._parked[position] = (park(event, error, parked.attempts + 1, "apply", self.options.redact), event)
                else:
                    del self._parked[position]
                    through += 1
        return through


def _decode(rows: list[Row]) -> list[Event]:
    return [decode_row(row) for row in rows]
