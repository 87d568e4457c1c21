"""What feeds one projection: batches of the log, one at a time, and a build beside the one that serves readers.

A feed is driven by `catch_up`, whoever calls it, and by `rebuild`. Only one batch is applied to what serves readers at any moment;
a build has a pace of its own, and meets it while it stands still for the last part.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from symphony_es.diagnostics import get_logger
from symphony_es.errors import NotReadyError, PositionNotFoundError, ProjectionError, ProjectionFailedError
from symphony_es.events.rows import Row
from symphony_es.late_dataclasses import dataclass
from symphony_es.log.log import EventLog
from symphony_es.shown import message as one_message
from symphony_es.shown import quoted
from symphony_es_projections.calling import Redact, message, why_of
from symphony_es_projections.status import ParkedEvent, ProjectionState, ProjectionStatus

__all__ = ["Feed", "FeedOptions", "OnProgress", "report_parked"]

logger = get_logger(__name__)
OnProgress: TypeAlias = Callable[[int, int], None]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedOptions:
    """What the feeds of a runner have in common; see `ProjectionRunner`."""

    log: EventLog
    executor: Executor
    batch: int
    attempts: int
    delay_s: float
    max_parked: int
    redact: Redact | None


class Positioned(Protocol):
    """What has taken in the log up to a position."""

    @property
    def position(self) -> int:
        """The last position it has taken in."""
        ...


B = TypeVar("B", bound=Positioned)


class Feed(ABC, Generic[B]):
    """Feeds one projection.

    Attributes:
        error: why it has failed; None when it has not.
        following: whether a task of the runner keeps it at the log's head.
    """

    def __init__(self, name: str, version: int, event_names: tuple[str, ...], options: FeedOptions) -> None:
        self.name = name
        self.version = version
        self.options = options
        self.log = options.log
        self.error: ProjectionFailedError | None = None
        self.following = False
        self._event_names = event_names
        self._lock = asyncio.Lock()
        self._build_lock = asyncio.Lock()
        self._building: B | None = None
        self._active = 0
        self._under_way: set[Future[Any]] = set()
        self._given_up = False
        self._awaited = asyncio.Event()
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._behind_since: float | None = time.monotonic()

    # -- what kinds of projections do in ways of their own ------------------------------------------------------------

    @property
    @abstractmethod
    def position(self) -> int:
        """The last position that readers see."""

    @abstractmethod
    async def prepare(self, target: int, *, accept_parked: bool = False) -> None:
        """Have something that readers may use, building it up to `target` if there is nothing; see `rebuild`."""

    @abstractmethod
    def current(self) -> B:
        """Return what serves readers, once it is prepared."""

    @abstractmethod
    async def advance(self, build: B, target: int) -> None:
        """Take one batch of positions up to `target` in; nothing when it is there already."""

    @abstractmethod
    async def begin(self) -> B:
        """Return an empty build."""

    @abstractmethod
    async def put_in_place(self, build: B) -> None:
        """Let readers use a build instead of what they used."""

    @abstractmethod
    async def drop(self, build: B) -> None:
        """Remove a build that is not going to be used."""

    @abstractmethod
    def parked(self) -> list[ParkedEvent]:
        """Return the events passed over, in the order of their positions."""

    @abstractmethod
    def lost(self, build: B) -> list[ParkedEvent]:
        """Return the events that a build has passed over, and that what it would replace has taken in, in the order of their positions."""

    @abstractmethod
    async def retry_parked(self) -> int:
        """Try them again; how many went through."""

    async def recovers(self, error: Exception) -> bool:
        """Return whether it can be gone on with after an error, by a build of its own; never by default."""
        return False

    async def settle(self) -> None:
        """Do what an earlier process left over; nothing by default."""

    async def shut(self) -> None:
        """Give up what it holds, once a build that goes on has noticed that nothing comes any more."""
        self.give_up()
        async with self._build_lock:
            await self.close()

    async def close(self) -> None:
        """Give up what it holds; nothing by default."""

    # -- driving ------------------------------------------------------------------------------------------------------

    async def catch_up(self, until: int | None = None) -> None:
        """Take in the log up to a position, or to its head as it is now."""
        self._active += 1
        try:
            with self.failing():
                head = await self.log.refresh_head()
                self._behind_s()
                target = head if until is None else min(until, head)
                try:
                    await self._catch_up(target)
                except Exception as error:
                    if not await self.recovers(error):
                        raise
                    await self._catch_up(target)
                self.error = None
                self.advanced()
        finally:
            self._active -= 1

    async def _catch_up(self, target: int) -> None:
        await self.prepare(target)
        async with self._lock:
            self._check_going()
            await self.settle()
        while self.position < target:
            async with self._lock:
                self._check_going()
                await self.advance(self.current(), target)
            self.advanced()

    async def rebuild(self, on_progress: OnProgress | None = None, *, accept_parked: bool = False) -> None:
        """Build anew beside what serves readers, and put it in its place; with `accept_parked` also if events are lost."""
        with self.failing():
            await self.prepare(await self.log.refresh_head(), accept_parked=accept_parked)
        with self.failing(lasting=False):  # the one in place goes on
            async with self._build_lock:
                self._check_going()
                await self.build(await self.begin(), lambda: self.position, on_progress, accept_parked=accept_parked)
        self.error = None
        self.advanced()

    async def build(
        self, build: B, goal: Callable[[], int], on_progress: OnProgress | None = None, *, accept_parked: bool = False
    ) -> None:  # fmt: skip
        """Bring a build to a goal that may move on meanwhile, and put it in place.

        The last part, at most a batch, is done while what serves readers stands still; more of it when writers are faster than the build.
        """
        self._building = build
        check = _nothing if accept_parked else self._check_lost
        logger.info("projection_build_started", projection=self.name, position=build.position)
        try:
            before = None
            while (behind := goal() - build.position) > self.options.batch and (before is None or behind <= before // 2):
                before = behind
                await self._advance_to(build, goal(), on_progress, check)
            async with self._lock:
                await self._advance_to(build, goal(), on_progress, check)
                check(build)  # once more: what serves readers may have taken in what both had parked
                await self.put_in_place(build)
        except Exception as error:
            await self.drop(build)
            if isinstance(error, ProjectionFailedError):
                raise
            raise self.failure(error, build) from error
        except BaseException:
            await self.drop(build)
            raise
        finally:
            self._building = None
        logger.info("projection_build_completed", projection=self.name, position=build.position)

    def _check_lost(self, build: B) -> None:
        """Refuse to replace what has more in it: a build ends with the first batch that shows it."""
        lost = self.lost(build)
        if not lost:
            return
        first = lost[0]
        said = f"{first.error_type}: {first.message}" if first.message else first.error_type
        raise ProjectionFailedError(
            self.name,
            build.position,
            f"a new build could not apply {quoted(first.event_name)} of {quoted(first.entity_key)} at position {first.position} "
            f"({said}), which the content in place has taken in; readers keep that content. Correct apply "
            f"and build again, or accept that such events are parked: `await rebuild({quoted(self.name)}, accept_parked=True)`",
        )

    async def _advance_to(self, build: B, target: int, on_progress: OnProgress | None, check: Callable[[B], None]) -> None:
        while build.position < target:
            self._check_going()
            await self.advance(build, target)
            check(build)
            if on_progress is not None:
                on_progress(build.position, target)

    async def read_batch(self, after: int, until: int) -> tuple[list[Row], Row]:
        """Return the rows it wants of the next batch, and the last row that this batch covers."""
        size = self.options.batch
        rows = await self.log.read_rows(after, until, size, self._event_names)
        if rows and (len(rows) == size or rows.cut or not self._event_names):
            return rows, rows[-1]
        return rows, await self.log.row_at(until)

    async def run(self, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """Call a function in a worker thread. It ends even when nobody waits for it any more."""
        return await asyncio.wrap_future(self.submit(_called, partial(function, *arguments, **named)))

    def submit(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Begin such a call, and wait for nothing."""
        future = self.options.executor.submit(function, *arguments)
        self._under_way.add(future)
        future.add_done_callback(self._under_way.discard)
        return future

    async def until_idle(self) -> None:
        """Wait until the calls have ended that are under way, also those that nobody waits for any more."""
        while under_way := [asyncio.wrap_future(future) for future in tuple(self._under_way)]:
            await asyncio.wait(under_way)

    async def pause(self, attempt: int) -> None:
        """Wait a little before the next attempt, each time twice as long."""
        await asyncio.sleep(self.options.delay_s * 2 ** (attempt - 1))

    # -- telling ------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def failing(self, *, lasting: bool = True) -> Iterator[None]:
        """Make one typed error of whatever goes wrong, and tell it to those who wait; only to the caller if it is not `lasting`."""
        try:
            yield
        except Exception as error:
            failed = self.fail(error, lasting=lasting)
            if failed is error:
                raise
            raise failed from error

    def fail(self, error: BaseException, *, lasting: bool = True) -> ProjectionFailedError:
        """Note why it has failed, log it, and tell those who wait."""
        failed = error if isinstance(error, ProjectionFailedError) else self.failure(error)
        logger.error("projection_failed", projection=self.name, position=failed.position, error=str(failed))
        if lasting:
            self.error = failed
            for _, waiter in self._waiters:
                if not waiter.done():
                    waiter.set_exception(failed)
        return failed

    def failure(self, error: BaseException, build: B | None = None) -> ProjectionFailedError:
        """Return what an error means for the projection, or for a build of it."""
        why = why_of(error, self.options.redact)
        if isinstance(error, PositionNotFoundError):
            why = f"{message(error)}; a projection needs the whole log, or has to follow it from its beginning"
        elif isinstance(error, ProjectionError | NotReadyError):
            why = message(error) or why
        return ProjectionFailedError(self.name, self.position if build is None else build.position, why)

    def advanced(self) -> None:
        """Tell those who wait that it has got on."""
        position = self.position
        self._behind_s()
        for awaited, waiter in self._waiters:
            if awaited <= position and not waiter.done():
                waiter.set_result(None)

    def _behind_s(self) -> float:
        """Return for how many seconds it has been behind, as far as anybody has looked."""
        if self.position >= self.log.head:
            self._behind_since = None
            return 0.0
        if self._behind_since is None:
            self._behind_since = time.monotonic()
        return time.monotonic() - self._behind_since

    def _check_going(self) -> None:
        if self._given_up:
            raise NotReadyError("the projection runner is closed")

    def give_up(self) -> None:
        """Tell those who wait that nothing comes any more."""
        self._given_up = True
        for _, waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(NotReadyError("the projection runner is closed"))

    async def wait_for(self, position: int) -> None:
        """Wait until it has taken in a position."""
        if self.position >= position:
            return
        if self.error is not None:
            raise self.error
        self._check_going()
        entry = (position, asyncio.get_running_loop().create_future())
        self._waiters.append(entry)
        self._awaited.set()
        try:
            await entry[1]
        finally:
            self._waiters.remove(entry)

    async def gather(self, seconds: float) -> None:
        """Let events gather for a moment, unless somebody waits for them: many small batches would cost writers their processor."""
        if not self._waiters and self.log.head > self.position:
            self._awaited.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._awaited.wait(), seconds)

    def status(self) -> ProjectionStatus:
        """Return how far it is."""
        position = self.position
        if self._building is not None and not position:
            position = self._building.position
        lag = max(self.log.head - position, 0)
        return ProjectionStatus(
            name=self.name,
            version=self.version,
            position=position,
            lag_events=lag,
            lag_s=self._behind_s(),
            state=self._state(lag),
            parked=len(self.parked()),
            error=None if self.error is None else str(self.error),
        )

    def _state(self, lag: int) -> ProjectionState:
        if self._building is not None:
            return "rebuilding"
        if self.error is not None:
            return "failed"
        if self.following and lag <= self.options.batch:
            return "following"
        return "catching up" if self.following or self._active else "idle"


def _nothing(build: object) -> None:
    """Do nothing, for a build whose parked events are accepted."""


def _called(function: Callable[[], T]) -> T:
    try:
        return function()
    except StopIteration as error:  # a future cannot hold one: whoever awaits it would wait for ever
        raise RuntimeError(one_message(f"StopIteration: {error}", lines=True)) from error


def report_parked(name: str, parked: list[ParkedEvent]) -> None:
    """Log what has been passed over. Messages are the application's, and payloads may stand in them: they are with the parked events."""
    for entry in parked:
        logger.warning(
            "projection_event_parked",
            projection=name,
            position=entry.position,
            event_name=entry.event_name,
            stage=entry.stage,
            error_type=entry.error_type,
            attempts=entry.attempts,
        )
