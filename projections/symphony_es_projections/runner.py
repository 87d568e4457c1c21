"""Runs projections over a log: builds what is missing, follows what is appended, and builds anew on request.

Each projection has a feed and, after `start`, a task of its own: one that fails, or is slow, holds up no other. The process that writes
the log runs them; other processes read what it has built with `open_current`, or run projections in memory over a log they only read.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from symphony_es.errors import ConfigurationError, LogInUseError, NotReadyError, ProjectionFailedError, ProjectionUnavailableError
from symphony_es.log.directory import DirectoryLock, prepare_directory
from symphony_es.log.log import EventLog
from symphony_es.raised import asks_the_program_to_end
from symphony_es.shown import message, quoted, shown
from symphony_es.system import absolute, given_path, present
from symphony_es_projections.audit_trail import AuditTrail
from symphony_es_projections.calling import Redact
from symphony_es_projections.declarations import check_declarations
from symphony_es_projections.durable import SQLiteProjection
from symphony_es_projections.durable_feed import DurableFeed
from symphony_es_projections.feed import Feed, FeedOptions, OnProgress
from symphony_es_projections.memory_feed import MemoryFeed
from symphony_es_projections.projection import Projection
from symphony_es_projections.sharing import Runners
from symphony_es_projections.status import ParkedEvent, ProjectionStatus

__all__ = ["ProjectionRunner"]

RUNNERS = Runners()
WORKERS = 4
"""Threads of one projection at most: one that is slow holds up itself. They begin when they are needed."""
WAIT_S = 60.0
"""How long `wait_for` waits where nobody says otherwise, in seconds."""
LONGEST_RETRY_S = 60.0
GATHER_S = 0.05
"""How long a projection that follows a log which others write all the time leaves between its batches, in seconds."""


class ProjectionRunner:
    """Feeds projections from a log. Close it before the log.

    Args:
        log: where events come from.
        directory: where durable projections live; made if it is missing (mode 0700). None keeps their databases in memory.
        batch: how many events are taken in with one transaction.
        attempts: how often a batch is tried before its events are tried one by one.
        delay_s: how long to wait before the second attempt, in seconds; twice as long before each further one.
        retry_s: how long a projection that follows the log waits after a failure, in seconds; twice as long after each further one.
        max_parked: how many events of a projection may be passed over before it is held to be wrong itself, and fails.
        redact: what the messages of errors pass through before they are put on record with a parked event, logged or told by `status`:
            `(text) -> text`, as `Redaction().text`; where it fails, nothing of the message is. None leaves them as they are. It is called
            in worker threads. A Symphony's own runner has the rules of that Symphony.

    Attributes:
        log: where events come from. directory: where durable projections live.
        gives_way: whether it is a Symphony's own: as long as it has the audit trail alone and does not follow the log, another runner of
            the same log may have the directory; it is closed then.

    Raises:
        ConfigurationError: a directory, for a log that is open for reading only: another process writes it, and builds there; numbers that
            are too small; a `redact` that is not a plain function.
    """

    def __init__(
        self,
        log: EventLog,
        directory: Path | str | None,
        *,
        batch: int = 1000,
        attempts: int = 3,
        delay_s: float = 0.05,
        retry_s: float = 1.0,
        max_parked: int = 1000,
        redact: Redact | None = None,
    ) -> None:
        if directory is not None and log.read_only:
            raise ConfigurationError(
                "durable projections are built by the process that writes the log: read them with open_current, or pass directory=None"
            )
        if batch < 1 or attempts < 1 or delay_s < 0 or retry_s <= 0 or max_parked < 0:
            raise ConfigurationError("batch and attempts must be at least 1, retry_s more than 0, delay_s and max_parked not negative")
        given: object = redact
        if given is not None and (not callable(given) or inspect.iscoroutinefunction(given)):
            raise ConfigurationError(f"redact={shown(given)}: it is a plain function that takes a text and returns one")
        self.log = self._log = log
        self.directory = self._directory = None if directory is None else given_path(directory, "directory")
        self.gives_way = False
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="symphony-es-projections")
        self._options = FeedOptions(
            log=log, executor=self._executor, batch=batch, attempts=attempts, delay_s=delay_s, max_parked=max_parked, redact=redact
        )  # fmt: skip
        self._retry_s = retry_s
        self._feeds: dict[str, Feed[Any]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._directory_lock: DirectoryLock | None = None
        self._opening = asyncio.Lock()
        self._taking = threading.Lock()
        self._started = self._closed = False
        self._ended = asyncio.Event()
        self._added: dict[str, Projection | SQLiteProjection] = {}
        RUNNERS.note(self)

    # -- what there is ------------------------------------------------------------------------------------------------

    def add(self, projection: Projection | SQLiteProjection, *, make: Callable[[], Projection] | None = None) -> None:
        """Have a projection fed: by the next `catch_up`, or at once after `start`.

        Args:
            make: makes an empty object of a projection in memory, for `rebuild`; its class without arguments by default.

        Raises:
            ConfigurationError: its name is taken, or what its class declares (name, version, event_names, schema, what is called) is not
                what is due. Nothing has been added; the message says what to write.
            NotReadyError: the runner is closed.
        """
        self._check_open()
        event_names = check_declarations(projection, make)
        if projection.name in self._feeds:
            raise ConfigurationError(f"there is a projection {quoted(projection.name)} already: give one of them another name")
        if isinstance(projection, Projection):
            self._feeds[projection.name] = MemoryFeed(projection, event_names, make or type(projection), self._own_threads(projection.name))
        else:
            self._feeds[projection.name] = DurableFeed(projection, event_names, self._directory, self._own_threads(projection.name))
        self._added[projection.name] = projection
        if self._started:
            self._follow(projection.name)

    def fed(self, name: str) -> Projection | SQLiteProjection | None:
        """Return the object that was added under a name; None where none was."""
        return self._added.get(name)

    def holds(self, directory: Path) -> bool:
        """Return whether it has a directory, and no other runner can have it."""
        lock = self._directory_lock
        return (
            lock is not None and lock.file is not None and self._directory is not None and absolute(self._directory) == absolute(directory)
        )

    def _own_threads(self, name: str) -> FeedOptions:
        return replace(self._options, executor=ThreadPoolExecutor(WORKERS, thread_name_prefix=f"symphony-es-projection-{name}"))

    def status(self) -> list[ProjectionStatus]:
        """Return how far each projection is, in the order they were added."""
        return [feed.status() for feed in self._feeds.values()]

    def parked(self, name: str) -> list[ParkedEvent]:
        """Return the events that a projection has passed over, in the order of their positions; known once it has been opened."""
        return self._feed(name).parked()

    def _feed(self, name: str) -> Feed[Any]:
        feed = self._feeds.get(name)
        if feed is None:
            raise ProjectionUnavailableError(
                name, f"this runner has none of that name (it has: {', '.join(sorted(self._feeds)) or 'none'})"
            )
        return feed

    def _chosen(self, name: str | None) -> list[Feed[Any]]:
        return list(self._feeds.values()) if name is None else [self._feed(name)]

    # -- feeding ------------------------------------------------------------------------------------------------------

    async def catch_up(self, name: str | None = None, until: int | None = None) -> None:
        """Feed one projection, or all, up to the log's head as it is now, or up to a position; build first what has to be built.

        Cancelling it leaves what it has taken in.

        Raises:
            ProjectionFailedError: one cannot go on; the others have been fed all the same.
            ProjectionUnavailableError: there is none of that name.
        """
        await self._open()
        await _each(feed.catch_up(until) for feed in self._chosen(name))

    async def wait_for(self, position: int, name: str | None = None, timeout_s: float | None = WAIT_S) -> None:
        """Wait until one projection, or all, have taken in a position. It waits for what `start` or `catch_up` do.

        Args:
            timeout_s: how long at most, in seconds; None for as long as it takes.

        Raises:
            TimeoutError: they have not after `timeout_s` seconds; the message says how far they are.
            ConfigurationError: a position or time that is no number of its kind.
            ProjectionFailedError: one has failed.
            NotReadyError: the runner was closed.
        """
        self._check_open()
        if type(position) is not int:
            raise ConfigurationError(f"a position is a whole number, not {shown(position)}")
        if timeout_s is not None and (type(timeout_s) not in (int, float) or not timeout_s >= 0):
            raise ConfigurationError(f"timeout_s is a number of seconds, or None for as long as it takes, not {shown(timeout_s)}")
        feeds = self._chosen(name)
        limit = asyncio.timeout(timeout_s)
        try:
            async with limit:
                await _each(feed.wait_for(position) for feed in feeds)
        except TimeoutError:
            if not limit.expired():
                raise
            behind = [feed.status() for feed in feeds if feed.position < position]
            told = ", ".join(f"{status.name} is at {status.position} ({status.state})" for status in behind)
            way_out = "start() the runner, or await catch_up()" if any(status.state == "idle" for status in behind) else "give it more time"
            text = f"position {position} has not been taken in after {timeout_s:g} s: {told}; {way_out}"
            raise TimeoutError(message(text)) from None

    async def rebuild(self, name: str, on_progress: OnProgress | None = None, *, accept_parked: bool = False) -> None:
        """Build a projection anew from the beginning of the log; the one there is serves readers and goes on until then.

        Args:
            on_progress: called with the build's position and its goal after each batch.
            accept_parked: whether it may take the place also of one that has taken in events which it had to park.

        Raises:
            ProjectionFailedError: it could not be built, or has parked what the one there was has taken in; that one is still in place.
        """
        await self._open()
        await self._feed(name).rebuild(on_progress, accept_parked=accept_parked)

    async def retry_parked(self, name: str) -> int:
        """Try the events that a projection has passed over once more; how many went through. The others stay parked.

        Raises:
            ProjectionFailedError: its database cannot be used.
        """
        await self._open()
        return await self._feed(name).retry_parked()

    async def _open(self) -> None:
        """Take the directory for this runner."""
        self._check_open()
        async with self._opening:
            if self._directory is not None and (self._directory_lock is None or not present(self._directory_lock.path)):
                async with RUNNERS.turn(self._log):
                    await self._have_way_made(self._directory)
                    self._check_open()
                    await asyncio.wrap_future(self._executor.submit(self._take, self._directory))

    async def _have_way_made(self, directory: Path) -> None:
        """Close a Symphony's own runner that has the directory for its audit trail alone."""
        holder = RUNNERS.holder(self._log, directory)
        if holder is None or holder is self:
            return
        if holder.closed or (
            holder.gives_way and not holder._started and all(isinstance(one, AuditTrail) for one in holder._added.values())
        ):
            await asyncio.shield(holder.close())
            return
        raise LogInUseError(
            f"{directory} has another runner in this process, which feeds {', '.join(sorted(holder._added)) or 'nothing yet'}: add these "
            "projections to that one (it is `symphony.projections` where the application has made none), or close it first",
            os.getpid(),
        )

    def _take(self, directory: Path) -> None:
        """Take one batch in a worker thread; a call that nobody waits for any more still ends, and may overlap with the next one."""
        with self._taking:
            if self._directory_lock is not None and not present(self._directory_lock.path):
                self._directory_lock.release()  # somebody has deleted the directory: it is made anew, and what stood in it is built anew
                self._directory_lock = None
            if self._directory_lock is None:
                prepare_directory(directory, force_network_fs=True, allow_shared=self._log.allow_shared)  # where the log may live, they may
                self._directory_lock = DirectoryLock(directory)

    # -- following ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Keep all projections at the log's head from now on, each in a task of its own; idempotent. Needs a running event loop."""
        self._check_open()
        asyncio.get_running_loop()
        self._started = True
        for name in self._feeds:
            self._follow(name)

    def _follow(self, name: str) -> None:
        task = self._tasks.get(name)
        if task is None or task.done():
            self._tasks[name] = asyncio.get_running_loop().create_task(self._keep_up(self._feeds[name]), name=f"projection {name}")

    async def _keep_up(self, feed: Feed[Any]) -> None:
        """Keep up when the log's signal comes; a failure is told by `status` and logged, and tried again after a while."""
        failures = 0
        feed.following = True
        try:
            while True:
                try:
                    await self._open()
                    await feed.catch_up()
                    failures = 0
                    await feed.gather(GATHER_S)
                    await self._log.wait_for(feed.position + 1)
                    continue
                except BaseException as error:
                    if self._ends(error):
                        raise
                    if not isinstance(error, ProjectionFailedError):
                        feed.fail(error)
                    if isinstance(error, NotReadyError) or isinstance(error.__cause__, NotReadyError):
                        return  # the log has been closed
                failures += 1
                await asyncio.sleep(min(self._retry_s * 2 ** min(failures - 1, 16), LONGEST_RETRY_S))
        except asyncio.CancelledError:
            if self._tasks.get(feed.name) is asyncio.current_task():  # not by `stop`, which forgets the task first
                why = "the application has cancelled the task that feeds it; start() again"
                feed.fail(ProjectionFailedError(feed.name, feed.position, why))
            raise
        finally:
            feed.following = False

    @staticmethod
    def _ends(error: BaseException) -> bool:
        """Return whether an error is meant for the task: it is cancelled, or the program is to end. Any other is the projection's."""
        task = asyncio.current_task()
        cancelled = isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0
        return cancelled or asks_the_program_to_end(error)

    async def stop(self) -> None:
        """Follow the log no longer; idempotent. Batches that have begun are completed or taken back, never half done."""
        self._started = False
        tasks, self._tasks = list(self._tasks.values()), {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        """Stop, and close all databases; idempotent. Projections cannot be read through this runner any more."""
        if self._closed:
            await self._ended.wait()
            return
        self._closed = True
        try:
            await self._end()
        finally:
            self._ended.set()

    async def _end(self) -> None:
        await self.stop()
        for feed in self._feeds.values():
            feed.give_up()  # all of them hear of it before one of them is slow to end
        for feed in self._feeds.values():
            await feed.shut()
            await asyncio.to_thread(feed.options.executor.shutdown)
        await asyncio.to_thread(self._executor.shutdown)
        if self._directory_lock is not None:
            self._directory_lock.release()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, cls: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        await self.close()

    @property
    def closed(self) -> bool:
        """Whether it has been closed."""
        return self._closed

    @property
    def ended(self) -> bool:
        """Whether it has been closed, and has let go of everything."""
        return self._ended.is_set()

    def _check_open(self) -> None:
        if self._closed:
            raise NotReadyError("the projection runner is closed")


async def _each(calls: Iterable[Any]) -> None:
    """Wait for all of them, then raise the first error there was; the others stand in its notes."""
    errors = [found for found in await asyncio.gather(*calls, return_exceptions=True) if isinstance(found, BaseException)]
    if errors:
        for other in errors[1:]:
            errors[0].add_note(f"and: {other}")
        raise errors[0]
