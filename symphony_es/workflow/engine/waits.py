"""Who waits for whose end, so that runs which wait for each other are told at once instead of waiting for ever."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple

from symphony_es.errors import DeadlockError

if TYPE_CHECKING:
    from symphony_es.workflow.engine.active import ActiveRuns

__all__ = ["RunAround", "Waits", "runs_around"]


OWN_END = "It ends, or is paused, when this step, hook or code of it has returned: return, and wait for it from outside"


class RunAround(NamedTuple):
    """A run that the running code is part of. Its id alone would not do: code of a run may call another Symphony, which has ids of its own.

    Attributes:
        active: the runs among which it executes.
        run_id: its id.
    """

    active: ActiveRuns
    run_id: str


runs_around: ContextVar[tuple[RunAround, ...]] = ContextVar("symphony_es_runs_around", default=())
"""The runs that the running code is part of, the innermost last: they cannot end before it does."""


class Waits:
    """The waits for the end of runs that code of the runs of one Symphony is in.

    Args:
        active: those runs.
    """

    def __init__(self, active: ActiveRuns) -> None:
        self._active = active
        self._by_waiter: dict[str, Counter[RunAround]] = {}

    @contextmanager
    def for_end_of(self, run_id: str) -> Iterator[None]:
        """Note a wait of the running code, while it lasts; that of code which belongs to no run is nobody's.

        Raises:
            DeadlockError: that run waits, itself or through others, for the run that the code belongs to.
        """
        around = runs_around.get()
        if not around:
            yield
            return
        circle = self.circle(run_id)
        if circle is not None:
            raise DeadlockError(circle, OWN_END if RunAround(self._active, run_id) == around[-1] else "")
        with around[-1].active.waits._note(around[-1].run_id, RunAround(self._active, run_id)):
            yield

    @contextmanager
    def _note(self, waiter: str, awaited: RunAround) -> Iterator[None]:
        waits = self._by_waiter.setdefault(waiter, Counter())
        waits[awaited] += 1
        try:
            yield
        finally:
            waits[awaited] -= 1
            if not waits[awaited]:
                del waits[awaited]
            if not waits:
                self._by_waiter.pop(waiter, None)

    def circle(self, run_id: str) -> list[str] | None:
        """Return the circle that a wait of the running code for a run would close: ids from the code's run back to it; None where it would
        not.
        """
        around = runs_around.get()
        if not around:
            return None
        me, first = around[-1], RunAround(self._active, run_id)
        came_from = {first: me}
        following = [first]
        while following and me not in came_from:
            waiter = following.pop()
            for awaited in list(waiter.active.waits._by_waiter.get(waiter.run_id, ())):  # of another thread's, it may be
                if awaited not in came_from:
                    came_from[awaited] = waiter
                    following.append(awaited)
        if me not in came_from:
            return None
        path = [me]
        place = came_from[me]
        while place != me:
            path.append(place)
            place = came_from[place]
        return [each.run_id for each in (me, *reversed(path))]
