"""When a process begins to take requests from others: soon after the opening, so that a short program pays nothing for it.

What is needed for it (modules, a watch of the kernel's, a look into the directory) is loaded in a thread, `BEGIN_S` after the opening: the
runs that a process goes on with after a crash come first. What came meanwhile is taken at once, what lay there before the opening as
`symphony_es.workflow.engine.inbox` says.
"""

from __future__ import annotations

import asyncio
import time
from contextvars import Context
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import ref

from symphony_es.diagnostics import get_logger
from symphony_es.errors import StorageUnavailableError

if TYPE_CHECKING:
    from symphony_es.core.host import Host
    from symphony_es.core.world.inbox import FileInbox
    from symphony_es.workflow.engine.inbox import RequestTaker

__all__ = ["InboxWatch"]

_log = get_logger(__name__)

BEGIN_S = 0.2
"""How long after the opening a process begins to watch its inbox: a program that loads something and ends is over by then."""


class InboxWatch:
    """The watch of one log's inbox, by the process that has the log open for writing.

    Attributes:
        taker: who takes the requests; None until the watch has begun, and where the directory cannot be used for requests.
    """

    def __init__(self, symphony: Host, state_dir: Path) -> None:
        self._symphony = ref(symphony)
        self._state_dir = state_dir
        self._allow_shared = symphony.log.allow_shared
        self._opened_ns = time.time_ns()
        self._beginning: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = self._loop.call_later(BEGIN_S, self._begin, context=Context())
        self._again = False
        self._stopped = False
        self.taker: RequestTaker | None = None

    def look(self, *, all_again: bool = False) -> None:
        """Look at what waits, soon: as soon as the watch has begun, which does in the running loop; see `RequestTaker.look`."""
        if self.taker is not None:
            self.taker.look(all_again=all_again)
            return
        self._again = True
        if self._timer is None or self._loop is not asyncio.get_running_loop():
            self._begin()

    async def begun(self) -> RequestTaker | None:
        """Begin now; return who takes the requests."""
        self._begin()
        if self._beginning is not None:
            await self._beginning
        return self.taker

    def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        elsewhere, self._loop = loop is not self._loop, loop  # the one of the opening has ended
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.taker is None and self._symphony() is not None and not self._stopped and (self._beginning is None or elsewhere):
            self._beginning = loop.create_task(self._open(), name="symphony-es-inbox", context=Context())

    async def _open(self) -> None:  # holds no Symphony while it waits: one that nobody holds lets go
        try:
            opening = asyncio.get_running_loop().run_in_executor(None, _open_inbox, self._state_dir, self._allow_shared)
        except RuntimeError:  # the loop is ending, and its pool takes nothing more: the watch begins in the next one
            return
        opened = await opening
        symphony = self._symphony()
        if opened is not None and symphony is not None and not self._stopped:
            taking, inbox, newest_ns = opened
            self.taker = taking(symphony, inbox)
            self.taker.begin(newest_ns, self._opened_ns)
            if self._again:
                self.taker.look()

    async def stop(self) -> None:
        """Take no more requests, as `RequestTaker.stop`; nothing is made in the directory after it. Idempotent."""
        self._stopped = True
        timer, self._timer = self._timer, None
        beginning, self._beginning = self._beginning, None
        here = self._loop is asyncio.get_running_loop()
        if timer is not None and not self._loop.is_closed():
            timer.cancel()
        if beginning is not None and here and not beginning.done():
            await asyncio.wait({beginning})  # not cancelled: its thread would go on
        if self.taker is not None:
            await self.taker.stop()


def _open_inbox(state_dir: Path, allow_shared: bool) -> tuple[type[RequestTaker], FileInbox, int] | None:
    """Return who takes requests, the inbox, when the newest of what waits there came; None, with a warning, where it cannot be used.
    Blocks.
    """
    from symphony_es.core.world.inbox import FileInbox  # late, and in a thread: much that a short program needs nothing of
    from symphony_es.workflow.engine.inbox import RequestTaker

    try:
        inbox = FileInbox(state_dir, allow_shared=allow_shared)
        return RequestTaker, inbox, inbox.newest_ns()
    except StorageUnavailableError as error:
        _log.warning("inbox_unavailable", error=str(error))
        return None
