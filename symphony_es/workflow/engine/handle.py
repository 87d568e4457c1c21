"""A handle of one run: what `start` gives, to ask of the run, follow it, and wait for its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator
from typing import TYPE_CHECKING, Any, Generic

from symphony_es.errors import (
    ConfigurationError,
    EntityNotFoundError,
    ResultTimeoutError,
    RunBlockedError,
    RunCancelledError,
    RunFailedError,
)
from symphony_es.events.event import Event
from symphony_es.events.showing import html_table
from symphony_es.guesses import pointing_out
from symphony_es.shown import quoted, shown, so_many
from symphony_es.workflow.engine.children import GRACE_S
from symphony_es.workflow.engine.seconds import check_seconds
from symphony_es.workflow.engine.telling import TOLD_EVENT
from symphony_es.workflow.guessed import ON_HANDLES
from symphony_es.workflow.runs.run import Workflow
from symphony_es.workflow.runs.transitions import ENDED, WorkflowStatus

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from symphony_es.core.host import Host
    from symphony_es.workflow.engine.progress import RunProgress
    from symphony_es.workflow.engine.requests import RunRequests

    R_co = TypeVar("R_co", covariant=True, default=Any)  # so that `RunHandle` alone may be written
else:
    from typing import TypeVar

    R_co = TypeVar("R_co", covariant=True)

__all__ = ["RunHandle"]


_QUIET = ENDED | {WorkflowStatus.BLOCKED}


class RunHandle(Generic[R_co]):
    """One run, wherever it stands.

    A handle may be of a run that has ended and is at rest in the log: its first awaited call loads it. Before that, what is asked without
    `await`, but for the id, raises `EntityNotFoundError`, which says so.
    """

    def __init__(self, engine: RunRequests, symphony: Host, run: Workflow | str) -> None:
        self._run: Workflow | None = None if isinstance(run, str) else run
        self._id: str = run if isinstance(run, str) else run.id
        self._engine = engine
        self._symphony = symphony

    @property
    def run(self) -> Workflow:
        """The run itself.

        Raises:
            EntityNotFoundError: it is at rest in the log, and no awaited call of this handle has loaded it yet.
        """
        if self._run is None:
            raise EntityNotFoundError(
                f"Workflow:{self._id}",
                "it is at rest in the log, and its handle has not loaded it yet: "
                f"await handle.load(), or workflows.get_run({quoted(self._id)})",
            )
        return self._run

    async def load(self) -> Workflow:
        """Return the run itself, brought from the log where it is at rest.

        Raises:
            EntityNotFoundError: it has been removed meanwhile.
        """
        if self._run is None:
            self._run = await self._engine.resting.bring(f"Workflow:{self._id}")
        return self._run

    @property
    def id(self) -> str:
        """Id of the run."""
        return self._id

    @property
    def run_id(self) -> str:
        """Id of the run."""
        return self._id

    @property
    def name(self) -> str:
        """Name of the run's definition."""
        return self.run.name

    @property
    def progress(self) -> RunProgress:
        """How far the run has come: steps done and known, the current ones, loops and maps, the place in the queue; a copy."""
        from symphony_es.workflow.engine.progress import progress_of  # late: most programs never ask

        return progress_of(self.run, self.queue_position)

    async def progress_changes(self) -> AsyncIterator[RunProgress]:
        """Yield the run's progress as it is now, and again whenever it has changed, until the run has ended.

        What changes while the caller is at work with one comes as one; each is as of the moment it is given.
        """
        run = await self.load()
        self._engine.beginnings.check_wait(run)
        self._engine.active.let_in(run)
        shown, seen = None, None
        while True:
            head, record = self._symphony.log.head, self._symphony.world.records.get(f"Workflow:{run.id}")
            standing = (None if record is None else record.version, self.queue_position)
            ended = run.status in _QUIET and self._engine.active.get(run) is None
            if ended or standing != seen:  # a look costs what has begun: none for what others write, one for all of a commit
                now, seen = self.progress, standing
                if now != shown:
                    shown = now
                    yield now
            if ended:
                return
            await self._news(head)

    @property
    def queue_position(self) -> int | None:
        """Where the run stands in the queue for a place, from 1; None where it does not wait for one. See `max_concurrent_runs`."""
        queue = self._engine.active.places.queue
        return queue.index(self._id) + 1 if self._id in queue else None

    def get_status(self) -> WorkflowStatus:
        """Return where the run stands; `status` is the same."""
        return self.run.status

    def __repr__(self) -> str:
        if self._run is None:
            return f"<RunHandle {self._id!r}, at rest>"
        return (
            f"<RunHandle {self._id!r} of {self.run.name!r}: {self.run.status.value}, {so_many(self.run.completed_steps, 'step')} completed>"
        )

    def _repr_html_(self) -> str:
        known = {} if self._run is None else self._run.steps
        steps = [(address, step["status"], step["attempts"]) for address, step in known.items()]
        return html_table(("step", "status", "attempts"), steps)

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON encoders take; see `Workflow.to_dict`."""
        return self.run.to_dict()

    def __await__(self) -> Generator[Any, None, R_co]:
        """Wait for the run's result: `await handle` is `await handle.result()`."""
        return self.result().__await__()

    @property
    def status(self) -> WorkflowStatus:
        """Where the run stands."""
        return self.run.status

    async def result(self, timeout_s: float | None = None, *, timeout: float | None = None) -> R_co:  # noqa: ASYNC109  as futures have it
        """Wait until the run has completed, failed or been cancelled, also across a pause, and return what it returned, as a copy.

        Args:
            timeout_s: wait no longer than so many seconds; the run goes on all the same.
            timeout: the same, as futures call it.

        Raises:
            ResultTimeoutError: it has not ended in that time; a TimeoutError, too.
            ConfigurationError: `timeout_s` is not a number of seconds.
            RunFailedError: it failed; type, message and step of its error are in the message.
            RunCancelledError: it was cancelled.
            RunBlockedError: what is on record of it contradicts the code of this process.
            RunInterruptedError: it was interrupted, for example by a rewind; it can be resumed.
            NotRegisteredError, UnknownValueError: this process lacks what it needs; it keeps its status.
            EntityOutOfStepError: the log could not append; the cause says why. Whatever has stopped the run before its end is raised until
                somebody takes the run up again, also to those who ask later.
            DeadlockError: a step of this run, or of one that this run waits for, asks for it; at once, with the circle. So does the block
                of the transaction that the run begins with.
            TransactionEndedError: that transaction was rolled back, and the run with it: it never began.
        """
        run = await self.load()
        limit_s = timeout_s if timeout_s is not None else timeout
        if limit_s is not None:
            check_seconds("timeout_s", limit_s, negative=True)
        waited = asyncio.timeout(limit_s)
        try:
            async with waited:
                await self._engine.wait_until(run, _QUIET)
        except TimeoutError as error:
            if limit_s is None or not waited.expired():
                raise
            raise ResultTimeoutError(run.id, run.status.value, self.progress.current, limit_s) from error
        if run.status is WorkflowStatus.BLOCKED:
            raise RunBlockedError(run.id, run.error or {})
        if run.status is WorkflowStatus.FAILED:
            raise RunFailedError(run.id, dict(run.error or {}))
        if run.status is WorkflowStatus.CANCELLED:
            raise RunCancelledError(run.id)
        result: R_co = run.result
        return result

    async def wait(self, status: WorkflowStatus | str | None = None) -> Workflow:
        """Wait until the run has completed, failed or been cancelled, or is paused or blocked, and no step of it is under way; give it.

        Args:
            status: wait for this one in place of `paused` and `blocked`. A run that has ended is not waited for.

        Raises:
            ConfigurationError: there is no such status.
            RunInterruptedError, EntityOutOfStepError: as for `result`.
        """
        if status is not None and status not in list(WorkflowStatus):  # it may be anything, also what has no hash
            raise ConfigurationError(f"there is no status {shown(status)}: it is one of {', '.join(WorkflowStatus)}")
        awaited = (WorkflowStatus.PAUSED, WorkflowStatus.BLOCKED) if status is None else (WorkflowStatus(status),)
        run = await self.load()
        await self._engine.wait_until(run, (*ENDED, *awaited))
        return run

    async def events(self, after: int = 0) -> AsyncIterator[Event]:
        """Yield the run's events as they become durable, from its creation to its end; each is given once.

        Args:
            after: the last position already known; events after it are given.

        The iteration ends when the run has ended. What happens to it later, by `resume` or `retry_from`, is for another call.
        """
        await self.load()
        self._engine.beginnings.check_wait(self.run)
        self._engine.active.let_in(self.run)
        key, log = f"Workflow:{self.run.id}", self._symphony.log
        known = len(await log.read_entity(key, until_position=after)) if after else 0
        while True:
            head = log.head
            ended = self.run.status in _QUIET and self._engine.active.get(self.run) is None
            for event in await log.read_entity(key, after_version=known):
                known = event.version
                if event.name != TOLD_EVENT:  # it comes at some time after the end, and is about hooks
                    yield event
            if ended:
                return
            await self._news(head)

    async def _news(self, head: int) -> None:
        """Return when the log has grown beyond a position, or the run has ended."""
        grown = asyncio.ensure_future(self._symphony.log.wait_for(head + 1))
        end = asyncio.ensure_future(self._engine.watch(self.run, _QUIET))
        try:
            await asyncio.wait({grown, end}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            grown.cancel()
            end.cancel()
            await asyncio.wait({grown, end})
        if not end.cancelled():
            end.result()

    async def pause(self) -> None:
        """See `WorkflowEngine.pause`."""
        await self._engine.pause(await self.load())

    async def resume(self) -> Workflow:
        """See `WorkflowEngine.resume`."""
        return await self._engine.resume(await self.load())

    async def cancel(self, *, grace_s: float = GRACE_S, cleanup: bool = True) -> Workflow:
        """Cancel the run and return it; see `WorkflowEngine.cancel`."""
        run = await self.load()
        await self._engine.cancel(run, grace_s=grace_s, cleanup=cleanup)
        return run

    async def signal(self, name: str, payload: Any = None, *, signal_id: str | None = None) -> None:
        """See `WorkflowEngine.signal`."""
        await self._engine.signal(await self.load(), name, payload, signal_id=signal_id)

    if not TYPE_CHECKING:  # a checker would take any misspelt name for one of them
        __getattr__ = pointing_out(ON_HANDLES)
