"""Runners of one log in one process: who has the directory of its projections, and whose audit trail answers.

One runner at a time has a directory. A Symphony's own, as long as it has the audit trail alone and follows nothing, gives way to one that
the application makes; its questions are answered by the trail of that one then, or by the log where that one has none.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from symphony_es.errors import LogInUseError, NotReadyError, ProjectionFailedError
from symphony_es.log.log import EventLog

if TYPE_CHECKING:
    from symphony_es_projections.durable import SQLiteProjection
    from symphony_es_projections.runner import ProjectionRunner

__all__ = ["Runners", "current_trail"]

P = TypeVar("P", bound="SQLiteProjection")
ATTEMPTS = 10
"""How often a question goes to another runner because the one it had asked was closed under it."""


class Runners:
    """The runners of each log that have, or may take, a directory."""

    def __init__(self) -> None:
        self._of: weakref.WeakKeyDictionary[EventLog, list[weakref.ref[ProjectionRunner]]] = weakref.WeakKeyDictionary()

        self._turns: weakref.WeakKeyDictionary[EventLog, asyncio.Lock] = weakref.WeakKeyDictionary()

    def turn(self, log: EventLog) -> asyncio.Lock:
        """Return what is held by who takes a directory: one runner of a log at a time."""
        return self._turns.setdefault(log, asyncio.Lock())

    def note(self, runner: ProjectionRunner) -> None:
        """Know a runner from now on."""
        known = self._of.setdefault(runner.log, [])
        known[:] = [ref for ref in known if (other := ref()) is not None and not other.ended] + [weakref.ref(runner)]

    def holder(self, log: EventLog, directory: Path | None) -> ProjectionRunner | None:
        """Return who has a directory now."""
        for ref in list(self._of.get(log, ())):
            runner = ref()
            if runner is not None and directory is not None and runner.holds(directory):
                return runner
        return None


async def current_trail(own: Callable[[], ProjectionRunner], runners: Runners, kind: type[P], until: int) -> P | None:
    """Return a projection that is up to date, of whichever runner has the directory; None where that one does not feed it.

    Args:
        own: gives the runner to use where no other one has the directory.
        kind: which projection.
        until: up to which position.

    Raises:
        ProjectionFailedError: it cannot be built.
    """
    for _ in range(ATTEMPTS):
        mine = own()
        runner = runners.holder(mine.log, mine.directory) or mine
        found = runner.fed(kind.name)
        if type(found) is not kind:
            return None
        try:
            await runner.catch_up(kind.name, until)
        except (LogInUseError, NotReadyError, ProjectionFailedError):
            if not runner.closed and runners.holder(mine.log, mine.directory) in (None, runner):
                raise
            continue
        return found
    return None
