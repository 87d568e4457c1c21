"""What feeds a durable projection: its files, the agreement of what they hold with the log, and its side effects.

The order of steps when a build replaces another: its rows and position are committed → what follows is marked as live → the pointer is
replaced, durably → the other build's files are removed. A crash between any two leaves a pointer to a complete build.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from sqlite3 import Row as SQLiteRow
from typing import Any

from symphony_es.diagnostics import get_logger
from symphony_es.errors import ProjectionFailedError, ProjectionUnavailableError
from symphony_es.events.event import Event
from symphony_es.events.rows import Row, decode_row
from symphony_es.system import present
from symphony_es_projections.agreement import disagreement, log_id_of
from symphony_es_projections.calling import called, message, type_of
from symphony_es_projections.database import DamagedBuildError, ProjectionDatabase
from symphony_es_projections.declarations import declaration_of
from symphony_es_projections.durable import Parameters, SQLiteProjection
from symphony_es_projections.feed import Feed, FeedOptions, report_parked
from symphony_es_projections.files import (
    ProjectionReader,
    builds_of,
    current_build,
    identity_of,
    is_damage,
    is_trouble,
    new_build,
    point_at,
    remove_build,
    remove_orphans,
    remove_pointer,
)
from symphony_es_projections.status import ParkedEvent

__all__ = ["DurableFeed"]

logger = get_logger(__name__)


class Build:
    """A database, and the object that applies to it."""

    __slots__ = ("database", "file", "live", "projection")

    def __init__(self, database: ProjectionDatabase, projection: SQLiteProjection, *, live: bool) -> None:
        self.database = database
        self.projection = projection
        self.live = live
        self.file = identity_of(database.path) if database.path is not None else None

    @property
    def position(self) -> int:
        """The last position it has taken in."""
        return self.database.position


class DurableFeed(Feed[Build]):
    """Feeds a durable projection.

    Args:
        directory: where its files are; None for a database in memory.
    """

    def __init__(
        self, projection: SQLiteProjection, event_names: tuple[str, ...], directory: Path | None, options: FeedOptions
    ) -> None:  # fmt: skip
        super().__init__(projection.name, projection.version, event_names, options)
        self._projection = projection
        self._directory = directory
        self._current: Build | None = None
        self._predecessor: ProjectionDatabase | None = None
        self._files = threading.Lock()
        self._damaged: set[Path] = set()
        self._notifies = type(projection).after_commit is not SQLiteProjection.after_commit
        self._access = _MemoryAccess(self) if directory is None else _FileAccess(self, directory)
        projection.attach(self._access)

    @property
    def position(self) -> int:
        """The last position that readers see."""
        return self._current.position if self._current is not None else 0

    def current(self) -> Build:
        """Return what serves readers, once it is prepared."""
        if self._current is None:
            raise ProjectionFailedError(self.name, 0, "it has not been built")
        return self._current

    # -- opening ------------------------------------------------------------------------------------------------------

    async def prepare(self, target: int, *, accept_parked: bool = False) -> None:
        """Open what the pointer names if it can be gone on with, and otherwise build: from what an unfinished build has left, if it can."""
        if self._current is not None and not self._is_gone():
            return
        async with self._build_lock:
            self._check_going()
            if self._current is not None:
                await self._let_go_if_gone()
            if self._current is None:
                await self.until_idle()  # what a cancelled call has begun writes the same files, and may have put a build in place
            if self._current is not None:
                return
            begun = await self._open() if self._directory is not None else None
            if begun is not None and self._lost(begun):  # by code that may have been corrected since
                await self.run(self._remove, begun)
                begun = None
            if self._current is None:
                build = await self.begin() if begun is None else self._build_of(begun)
                await self.build(build, lambda: target, accept_parked=accept_parked)

    def _is_gone(self) -> bool:
        """Return whether the file in use is not what the pointer names any more: projections may be deleted, emptied or replaced at any
        time.
        """
        build = self._current
        path = build.database.path if build is not None else None
        if build is None or path is None:
            return False
        try:
            return current_build(path.parent, self.name) != path or identity_of(path) != build.file
        except OSError:
            return True

    async def _let_go_if_gone(self) -> None:
        """Close what was deleted, while no batch is applied to it; it is built anew."""
        async with self._lock:
            await self.run(self._close_if_gone)

    def _close_if_gone(self) -> None:
        with self._files:  # in a worker thread: a build that is put in place or dropped holds this as long as its projection takes
            gone = self._current if self._current is not None and self._is_gone() else None
            if gone is None:
                return
            self._current = None
            if gone.database.path is not None and present(gone.database.path.parent / f"{self.name}.current"):
                self._damaged.add(gone.database.path)  # not a deletion: nobody knows what has been written there
        logger.warning("projection_build_needed", projection=self.name, reason="its file has been deleted or replaced")
        gone.database.close()

    async def _open(self) -> ProjectionDatabase | None:
        """Set `_current` if the pointer's build is this version's and the log's; else return an unfinished build to go on with."""
        assert self._directory is not None
        if self._predecessor is not None:
            await self.run(self._predecessor.close)
            self._predecessor = None
        await self.run(remove_orphans, self._directory, self.name)
        pointed = await self.run(current_build, self._directory, self.name)
        begun: ProjectionDatabase | None = None
        for path in await self.run(builds_of, self._directory, self.name):
            try:
                database, why = await self._examine(path)
            except DamagedBuildError as error:
                database, why = None, f"its file is damaged: {error}"
            if database is not None and why is None and path == pointed:
                self._current = Build(database, self._projection, live=True)
            elif database is not None and path == pointed and why in (_OTHER_VERSION, _OTHER_DECLARATION):
                reason = f"version {database.version} is now {self.version}" if why == _OTHER_VERSION else why
                logger.info("projection_build_needed", projection=self.name, reason=reason)
                self._predecessor = database  # readers go on using it until the other one is complete
            elif database is not None and why is None and (begun is None or database.position > begun.position):
                if begun is not None:
                    await self.run(self._remove, begun)
                begun = database
            else:
                if path == pointed:
                    logger.warning("projection_build_needed", projection=self.name, reason=why)
                    await self.run(remove_pointer, self._directory, self.name)
                await self.run(self._remove, database or path)
        if self._current is not None and begun is not None:
            await self.run(self._remove, begun)
            begun = None
        return begun

    async def _examine(self, path: Path) -> tuple[ProjectionDatabase | None, str | None]:
        """Return what a file holds, and why it cannot be gone on with; None when it can."""
        if path in self._damaged:
            return None, "its file is damaged"
        database = await self._obtain(ProjectionDatabase.open, self.name, path, self.options.redact)
        try:
            return database, await self._disagreement(database)
        except BaseException:
            self.submit(database.close)
            raise

    async def _disagreement(self, database: ProjectionDatabase) -> str | None:
        if database.version != self.version:
            return _OTHER_VERSION
        if database.declaration != declaration_of(self._projection):
            return _OTHER_DECLARATION
        return await disagreement(self.log, database.progress)

    def _remove(self, build: ProjectionDatabase | Path) -> None:
        if isinstance(build, ProjectionDatabase):
            build.close()
        path = build if isinstance(build, Path) else build.path
        if path is not None:
            remove_build(path)
            self._damaged.discard(path)

    # -- building -----------------------------------------------------------------------------------------------------

    async def _obtain(self, function: Callable[..., ProjectionDatabase], *arguments: Any) -> ProjectionDatabase:
        """Call a function in a worker thread; what it opens is closed again when nobody waits for it any more."""
        future = self.submit(function, *arguments)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            self.submit(_close_result, future)
            raise

    def _build_of(self, database: ProjectionDatabase) -> Build:
        try:
            projection = called(self._projection.for_rebuild)  # the application's own
        except BaseException:
            self.submit(database.close)
            raise
        projection.rebuilding = True
        return Build(database, projection, live=False)

    async def begin(self) -> Build:
        """Return an empty database, and an object that knows that it builds."""

        log_id = await log_id_of(self.log)

        def create() -> ProjectionDatabase:
            path = None if self._directory is None else new_build(self._directory, self.name)
            return ProjectionDatabase.create(self._projection, path, log_id, self.options.redact)

        return self._build_of(await self._obtain(create))

    async def put_in_place(self, build: Build) -> None:
        """See the top of this module; all of it in one call of a worker thread, which ends whatever happens here."""
        await self.run(self._put_in_place, build)

    def _put_in_place(self, build: Build) -> None:
        with self._files:
            before = self._before()
            build.database.finish(before, notifies=self._notifies)
            path = build.database.path
            if path is not None:
                point_at(path, self.name)
            self._current = Build(build.database, self._projection, live=True)
            self._predecessor = None
            if before is not None:
                before.close()
            if path is not None:
                for other in builds_of(path.parent, self.name):
                    if other != path:
                        self._remove(other)

    async def drop(self, build: Build) -> None:
        """Remove a rebuild, or one that has lost events; any other unfinished one is kept, and gone on with."""
        self.submit(self._drop, build)

    def _drop(self, build: Build) -> None:
        with self._files:
            if self._current is not None and self._current.database is build.database:
                return
            if self._current is not None or self._lost(build.database):
                self._remove(build.database)
            else:
                build.database.close()

    # -- advancing ----------------------------------------------------------------------------------------------------

    async def advance(self, build: Build, target: int) -> None:
        """Take one batch in; then, of what serves readers, tell `after_commit`."""
        if build.position >= target:
            return
        rows, through = await self.read_batch(build.position, target)
        await self._apply(build, rows, through)
        await self._notify(build)

    async def _apply(self, build: Build, rows: Sequence[Row], through: Row) -> None:
        notifies = self._notifies and build.live
        for attempt in range(1, self.options.attempts + 1):
            try:
                await self.run(build.database.apply, build.projection, rows, through, notifies=notifies)
                return
            except Exception as error:
                if is_trouble(error) or isinstance(error, ProjectionFailedError):
                    raise
                logger.debug(
                    "projection_batch_failed",
                    projection=self.name,
                    position=build.position,
                    attempt=attempt,
                    error_type=type_of(error),
                )
            if attempt < self.options.attempts:
                await self.pause(attempt)
        parked = await self.run(
            build.database.apply_singly,
            build.projection,
            rows,
            through,
            notifies=notifies,
            attempts=self.options.attempts + 1,
            max_parked=self.options.max_parked,
        )
        report_parked(self.name, parked)

    async def settle(self) -> None:
        """Tell `after_commit` what an earlier process had committed and not told."""
        await self._notify(self.current())

    async def _notify(self, build: Build) -> None:
        database = build.database
        while self._notifies and build.live and database.notified < database.position:
            self._check_going()
            rows, through = await self.read_batch(database.notified, database.position)
            events = [decode_row(row) for row in rows if (row[0], "apply") not in database.parked]
            await self._tell(build, events, through[0])

    async def _tell(self, build: Build, events: list[Event], notified: int) -> None:
        database, projection = build.database, build.projection
        for attempt in range(1, self.options.attempts + 1):
            error = await self.run(database.tell, projection, events, notified)
            if error is None:
                return
            logger.debug(
                "projection_effects_failed",
                projection=self.name,
                position=build.position,
                attempt=attempt,
                error_type=type_of(error),
            )
            if attempt < self.options.attempts:
                await self.pause(attempt)
                self._check_going()
        report_parked(self.name, await self.run(database.tell_singly, projection, events, notified, self.options.attempts + 1))

    # -- parked events ------------------------------------------------------------------------------------------------

    def parked(self) -> list[ParkedEvent]:
        """Return the events passed over."""
        if self._current is None:
            return []
        return [parked for _, parked in sorted(self._current.database.parked.copy().items())]

    def lost(self, build: Build) -> list[ParkedEvent]:
        """Return what a build has passed over, and what it would replace has taken in."""
        return self._lost(build.database)

    def _lost(self, build: ProjectionDatabase) -> list[ParkedEvent]:
        before = self._before()
        if before is None:
            return []
        there = before.parked
        found = sorted(build.parked.copy().items())
        return [one for key, one in found if one.stage == "apply" and one.position <= before.position and key not in there]

    def _before(self) -> ProjectionDatabase | None:
        """Return what readers have until a build is put in place."""
        return self._current.database if self._current is not None else self._predecessor

    async def retry_parked(self) -> int:
        """Try them again; how many went through."""
        with self.failing():
            await self.prepare(await self.log.refresh_head())
            through = 0
            async with self._lock:
                await self.settle()  # else it would be told of an event twice that went through here
                build = self.current()
                for parked in self.parked():
                    event = decode_row(await self.log.row_at(parked.position))
                    through += await self._retry(build, parked, event)
            return through

    async def _retry(self, build: Build, parked: ParkedEvent, event: Event) -> bool:
        database = build.database
        if parked.stage == "apply":
            owes = self._notifies and parked.position > database.live_after
            applied = await self.run(database.retry, build.projection, parked, event, owes=owes)
            if not applied or not owes:
                return applied
            parked = database.parked[parked.position, "after_commit"]
        return await self.run(database.tell_parked, build.projection, parked, event)

    # -- failing and closing ------------------------------------------------------------------------------------------

    def failure(self, error: BaseException, build: Build | None = None) -> ProjectionFailedError:
        """Return what an error means; a damaged file is not used again."""
        at_fault = build or self._current
        if not is_trouble(error) or at_fault is None:
            return super().failure(error, build)
        path = at_fault.database.path
        if is_damage(error) and path is not None:
            self._damaged.add(path)
            if at_fault is self._current:
                self._current = None
                self.submit(at_fault.database.close)
        why = message(error, self.options.redact) or type_of(error)
        return ProjectionFailedError(self.name, at_fault.position, f"{path or 'its database in memory'}: {why}; {_advice(error)}")

    async def recovers(self, error: Exception) -> bool:
        """Let go of a file that is damaged, or that somebody else has written: it is built anew."""
        if not is_damage(error) or self._directory is None or self._current is None:
            return False
        async with self._lock:
            await self._let_go(self._current, error)
        return True

    async def replace_damaged(self, build: Build | None, error: BaseException | None) -> None:
        """Build anew what a reader has found damaged, if nobody has done so meanwhile."""
        if build is not None:
            async with self._lock:
                await self._let_go(build, error)
        await self.catch_up()

    async def _let_go(self, build: Build, why: object) -> None:
        await self.run(self._close_damaged, build, why)

    def _close_damaged(self, build: Build, why: object) -> None:
        with self._files:
            if self._current is not build:
                return
            self._current = None
            assert build.database.path is not None
            self._damaged.add(build.database.path)
        logger.warning("projection_build_needed", projection=self.name, reason=f"its file is damaged: {why}")
        build.database.close()

    @property
    def serving(self) -> Build | None:
        """What serves readers; None where there is nothing."""
        return self._current

    async def close(self) -> None:
        """Close the database and its readers."""
        self._projection.attach(None)
        if isinstance(self._access, _FileAccess):
            await self.run(self._access.reader.close)  # first: whoever is the last to close copies the write-ahead file into the database
        if self._current is not None:
            await self.run(self._current.database.close)
        if self._predecessor is not None:
            await self.run(self._predecessor.close)

    async def read_in_memory(self, sql: str, parameters: Parameters) -> list[SQLiteRow]:
        """Read a database in memory, of which there is one connection."""
        if self._current is None:
            raise ProjectionUnavailableError(self.name, "it has not been built yet; await catch_up() or start() its runner")
        return await self.run(self._current.database.read, sql, parameters)


class _FileAccess:
    """Reads the file that the pointer names; one that a reader finds damaged is built anew, and read then."""

    def __init__(self, feed: DurableFeed, directory: Path) -> None:
        self.reader = ProjectionReader(directory, feed.name)
        self._feed = feed

    async def read(self, sql: str, parameters: Parameters = ()) -> list[SQLiteRow]:
        """Return the rows of one SELECT."""
        build = self._feed.serving
        try:
            return await self.reader.read(sql, parameters)
        except ProjectionUnavailableError as error:
            if not is_damage(error.__cause__):
                raise
            await self._feed.replace_damaged(build, error.__cause__)
            return await self.reader.read(sql, parameters)


class _MemoryAccess:
    """Reads what a feed has in memory."""

    def __init__(self, feed: DurableFeed) -> None:
        self._feed = feed

    async def read(self, sql: str, parameters: Parameters = ()) -> list[SQLiteRow]:
        """Return the rows of one SELECT."""
        return await self._feed.read_in_memory(sql, parameters)


def _close_result(future: Future[ProjectionDatabase]) -> None:
    """Close what a call opens once it has; one that had not begun was cancelled, and opens nothing."""
    wait([future])
    if not future.cancelled() and future.exception() is None:
        future.result().close()


_OTHER_VERSION = "another version of the projection has built it"
_OTHER_DECLARATION = "its class has another schema or other event_names than the one that built it"


def _advice(error: BaseException) -> str:
    if is_damage(error):
        return "catch up again: it is built anew"
    return "mend that (room on the disk, permissions, another process that holds the file) and catch up again: it goes on where it was"
