"""Entities whose objects somebody has in hand: what was changed in them past their methods is found by comparing them.

C functions write past the methods of a subclass (`heapq`, `list.append(x.items, …)`, `exec` in a dict), and so does whoever assigns
in an object's `__dict__`. The next change at that place finds some of it. The rest is found here, where a user says that all is to be
kept: a checkpoint compares the entities that were changed or handed out since the last comparison, and closing compares all that ever
were, since nobody has to ask again for what they hold. What a resume brought and nobody asked for is not looked at.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from symphony_es.core.world.shadow import compare_in_slices, difference, refuse_difference, shares_all
from symphony_es.errors import UnrecordedChangeError

if TYPE_CHECKING:
    from symphony_es.core.world.live_entity import EntityRecord
    from symphony_es.events.references import Path

__all__ = ["Suspects"]

SLICE_S = 0.005
"""For so long objects are compared before the loop and other threads have a turn; one with more members than a slice has several."""

LOOK = 32
"""Objects that are plainly alike between two looks at the clock."""

_ENDED: Any = object()


class Suspects:
    """The entities of one world that were changed or handed out; called with the world's lock held, but for `compare`.

    Attributes:
        recent: those of them that were since the last comparison, written directly where objects are handed out.
    """

    def __init__(self) -> None:
        self.recent: dict[EntityRecord, None] = {}
        self._earlier: dict[EntityRecord, None] = {}

    def discard(self, record: EntityRecord) -> None:
        """Leave out what is not live any more."""
        self.recent.pop(record, None)
        self._earlier.pop(record, None)

    def has(self, record: EntityRecord) -> bool:
        """Return whether an object was changed or handed out."""
        return record in self.recent or record in self._earlier

    def check(self, record: EntityRecord) -> None:
        """Compare one object that is to be let go, where it was changed or handed out.

        Raises:
            UnrecordedChangeError: it differs from what was recorded.
        """
        if self.has(record):
            _compare(record)

    def compare_recent(self) -> None:
        """Compare what was changed or handed out since the last comparison with what was recorded, at once.

        Raises:
            UnrecordedChangeError: one differs; entity and paths are named.
        """
        self._earlier.update(self.recent)
        for record in list(self.recent):
            del self.recent[record]  # one by one: what has not been looked at when one differs is looked at the next time
            _compare(record)

    def compare_all(self) -> list[UnrecordedChangeError]:
        """Compare every object that ever was changed or handed out, at once; returns what differs."""
        return self._differing({**self._earlier, **self.recent})

    async def compare(self, lock: threading.RLock, *, everything: bool = False) -> list[UnrecordedChangeError]:
        """Compare objects with what was recorded, some at a time; returns what differs.

        What differs is looked at again the next time, and so is what was not compared because the call was cancelled.

        Args:
            lock: the world's.
            everything: compare also what was compared before; else what was changed or handed out since.
        """
        with lock:
            looked_at, self.recent = self.recent, {}
            if everything:
                looked_at = {**self._earlier, **looked_at}
            self._earlier.update(looked_at)
        found: list[UnrecordedChangeError] = []
        waiting = list(looked_at)[::-1]
        slices = self._slices_of(waiting)
        try:
            while True:
                until = time.perf_counter() + SLICE_S
                with lock:
                    for error in slices:
                        if error is not None:
                            found.append(error)
                        if time.perf_counter() >= until:
                            break
                    else:
                        return found
                await asyncio.sleep(0)
        finally:
            with lock:
                self.recent.update(dict.fromkeys(record for record in waiting if record in self._earlier))

    def _slices_of(self, waiting: list[EntityRecord]) -> Iterator[UnrecordedChangeError | None]:
        """Compare objects, the last one first; each leaves the list when it has been compared."""
        alike = 0
        while waiting:
            if shares_all(waiting[-1]):  # as most do: then there is nothing to compare slice by slice
                alike += 1
                if alike % LOOK == 0:
                    yield None
            else:
                yield from self._slices(waiting[-1])
            waiting.pop()

    def _slices(self, record: EntityRecord) -> Iterator[UnrecordedChangeError | None]:
        """Compare one object, some of it at a time; at the end the error, where there is one."""
        if record.broken is not None or record.is_compared:
            return
        paths: list[Path] = []
        for differing in compare_in_slices(record):
            paths += differing
            yield None
        if paths:
            self.recent[record] = None
            yield difference(record, paths)

    def is_alike(self, record: EntityRecord, lock: threading.RLock) -> Iterator[bool]:
        """Compare one object as `compare` does; of each slice, whether nothing differs so far."""
        slices, alike = self._slices(record), True
        while alike:
            with lock:
                error = next(slices, _ENDED)
            if error is _ENDED:
                return
            alike = error is None
            yield alike

    def _differing(self, records: Iterable[EntityRecord]) -> list[UnrecordedChangeError]:
        found: list[UnrecordedChangeError] = []
        for record in records:
            try:
                _compare(record)
            except UnrecordedChangeError as error:
                found.append(error)
                self.recent[record] = None
        return found


def _compare(record: EntityRecord) -> None:
    if record.broken is None and not record.is_compared:
        refuse_difference(record)
