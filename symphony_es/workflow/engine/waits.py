"""Who waits for whose end, so that runs which wait for each other are told at once instead of waiting for ever."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from symphony_es.errors import DeadlockError
from symphony_es.workflow.engine.drive import runs_around

__all__ = ["Waits"]


class Waits:
    """The waits for the end of runs that code of runs is in, by the ids of both."""

    def __init__(self) -> None:
        self._by_waiter: dict[str, Counter[str]] = {}

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
            raise DeadlockError(circle)
        waits = self._by_waiter.setdefault(around[-1], Counter())
        waits[run_id] += 1
        try:
            yield
        finally:
            waits[run_id] -= 1
            if not waits[run_id]:
                del waits[run_id]
            if not waits:
                self._by_waiter.pop(around[-1], None)

    def circle(self, run_id: str) -> list[str] | None:
        """The circle that a wait of the running code for a run would close: ids from the code's run back to it; None where it would not."""
        around = runs_around.get()
        if not around:
            return None
        me = around[-1]
        came_from: dict[str, str] = {run_id: me}
        following = [run_id]
        while following and me not in came_from:
            waiter = following.pop()
            for awaited in self._by_waiter.get(waiter, ()):
                if awaited not in came_from:
                    came_from[awaited] = waiter
                    following.append(awaited)
        if run_id != me and me not in came_from:
            return None
        path = [me]
        place = came_from[me]
        while place != me:
            path.append(place)
            place = came_from[place]
        return [me, *reversed(path)]
