"""What is asked of a run while it executes: to pause, to be cancelled, to take a signal; and the waits that such a request ends.

One `RunControl` belongs to each run that executes in this process. Steps in the hands of the application are never cut off by a
request to pause; the engine's own waits (timers, signals, child runs, delays before another attempt) end at once, since all they
are waiting for is in the log.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Sequence
from datetime import datetime
from typing import Any, Literal, TypeVar

from symphony_es.failures import NobodysFailure
from symphony_es.workflow.engine.clock import Clock

__all__ = ["RunControl", "RunStopped", "StopRequest"]

T = TypeVar("T")
StopRequest = Literal["pause", "drain", "cancel", "deadline"]
Request = Literal["pause", "drain", "cancel", "deadline", "go_on"]


class RunStopped(NobodysFailure):
    """Takes a run out of its steps because of a request; raised and caught by the engine."""

    def __init__(self, request: StopRequest) -> None:
        super().__init__(request)
        self.request = request


class RunControl:
    """The requests to one run.

    Attributes:
        request: what was asked last, or None; a later request replaces a weaker one.
        taken_back: whether the run is to go on after it has come to the stop that a request to pause has asked for.
        failure: what has failed the run whatever its steps make of it: a hook that declares to stop it.
        replaced: set when the last request to pause was taken back, or a cancellation came after it.
    """

    def __init__(self, clock: Clock) -> None:
        self.request: StopRequest | None = None
        self.taken_back = False
        self.failure: Exception | None = None
        self.replaced = asyncio.Event()
        self._clock = clock
        self._requested = asyncio.Event()
        self._listening: dict[str, OrderedDict[asyncio.Event, None]] = {}

    def ask(self, request: Request) -> None:
        """Ask the run to stop at its next boundary between steps; a request to pause does not take back a cancellation.

        `go_on` takes a request to pause back. Parts of the run may have stopped for it already: so all come to their stop, and then the
        run goes on.
        """
        self.taken_back = request == "go_on" and self.request == "pause"
        if request == "pause" and self.replaced.is_set():
            self.replaced = asyncio.Event()
        elif request in ("go_on", "cancel"):
            self.replaced.set()
        if request == "go_on":
            return
        if self.request is None or request not in ("pause", "drain") or (request, self.request) == ("drain", "pause"):
            self.request = request
        self._requested.set()

    def go_on(self) -> None:
        """Begin anew, after a request to pause was taken back and all parts have stopped."""
        self.request, self.taken_back = None, False
        self._requested = asyncio.Event()

    def fail(self, failure: Exception) -> None:
        """Fail the run whatever its steps make of it, and end their waits."""
        self.failure = failure
        self._requested.set()

    def call(self, signal: str) -> None:
        """Call the wait that has listened longest for a signal of a name, and no other: so n signals for n waits are n calls.

        It is to be called with the change that brings the signal, before anything is awaited.
        """
        listening = self._listening.get(signal)
        if listening is not None:
            listening.popitem(last=False)[0].set()
            if not listening:
                del self._listening[signal]

    def listen(self, signal: str, called: asyncio.Event) -> None:
        """Have an event set when its wait is called for a signal of a name; to be called before each look whether there is one."""
        called.clear()
        self._listening.setdefault(signal, OrderedDict()).setdefault(called)

    def leave(self, signal: str, called: asyncio.Event) -> None:
        """Listen no longer. Where there is a signal of that name still, `call` another wait: this one may have been called for it."""
        listening = self._listening.get(signal)
        if listening is not None:
            listening.pop(called, None)
            if not listening:
                del self._listening[signal]

    def check(self) -> None:
        """Raise what ends the run's work, unless the run may go on.

        Raises:
            RunStopped: it may not begin another step.
            StepFailure: it has failed already.
        """
        if self.failure is not None:
            raise self.failure
        if self.request is not None:
            raise RunStopped(self.request)

    @property
    def ending(self) -> bool:
        """Whether the run is to end early."""
        return self.request in ("cancel", "deadline")

    async def sleep_until(self, moment: datetime) -> None:
        """Wait for a moment.

        Raises:
            RunStopped: a request came first.
        """
        await self.wait(self._clock.sleep_until(moment))

    async def wait_for_call(self, called: asyncio.Event, until: datetime | None) -> None:
        """Wait to be called, or for a moment.

        Raises:
            RunStopped: a request came first.
        """
        awaited = [asyncio.ensure_future(called.wait())]
        if until is not None:
            awaited.append(asyncio.ensure_future(self._clock.sleep_until(until)))  # type: ignore[arg-type]
        await self._race(awaited)

    async def wait(self, awaitable: Awaitable[T]) -> T:
        """Await something that can be given up and taken up again at any time.

        Raises:
            RunStopped: a request came first; what was awaited has been cancelled.
        """
        awaited = asyncio.ensure_future(awaitable)
        await self._race([awaited])
        return awaited.result()

    async def _race(self, awaited: Sequence[asyncio.Future[Any]]) -> None:
        """Return when one of them is done; all are, or have been cancelled, when it returns or raises."""
        requested = asyncio.ensure_future(self._requested.wait())
        try:
            await asyncio.wait({requested, *awaited}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            requested.cancel()
            for future in awaited:
                future.cancel()
        if not any(future.done() and not future.cancelled() for future in awaited):
            await asyncio.wait(awaited)
            self.check()
