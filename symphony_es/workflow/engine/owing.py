"""What the runs that have had one id leave to be undone, each for itself. Pure.

An id may be used again once its run was removed or a rewind has taken it away, and a rewind may bring any of these runs back. What one
of them has done is undone when that one is cleaned up, and by none of the others: they may be of other definitions.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from operator import itemgetter
from typing import NamedTuple

__all__ = ["Execution", "Owing", "RunsOfId", "TakenBack"]


class Execution(NamedTuple):
    """One execution of a step, from its first start to its completion.

    Attributes:
        generation: of the step.
        undone_as: generation of its undo; with the address, it names the execution.
        is_own: whether it is this run's, and not that of a run that it was forked from.
        has_begun: False of a step that a rewind has brought back while it was under way, until it goes on under another key.
    """

    generation: int
    undone_as: int
    is_own: bool = True
    has_begun: bool = True

    @property
    def is_of_run(self) -> bool:
        """Whether the run has begun it itself: then it is to be undone."""
        return self.is_own and self.has_begun


class TakenBack(NamedTuple):
    """An execution of a step that `retry_from` or a rewind has taken back.

    Attributes:
        address: of the step.
        execution: which one.
        position: the last one at which it held.
        ended: where it had completed; where it had begun, if it had not.
        completed: where the steps around it had completed by then.
        by_rewind: whether a rewind has taken it back, and with it what it had changed in entities.
    """

    address: str
    execution: Execution
    position: int
    ended: int
    completed: Mapping[str, int]
    by_rewind: bool


class Owing:
    """What one run has begun and does not hold any more, and what was undone of all that it has begun.

    Attributes:
        taken_back: executions that hold no longer, by address and generation of their undo.
        undone: executions whose undo has completed, in the same way; True where a rewind has taken that back since.
    """

    def __init__(self) -> None:
        self.taken_back: dict[tuple[str, int], TakenBack] = {}
        self.undone: dict[tuple[str, int], bool] = {}
        self._undone_at: list[tuple[int, tuple[str, int]]] = []

    def note_undone(self, position: int, known: tuple[str, int]) -> None:
        """Note that an undo has completed."""
        self.undone[known] = False
        self._undone_at.append((position, known))

    def rewind(self, to: int) -> None:
        """Keep the undos that have completed since as done; what they have changed in entities is taken back."""
        self.undone.update((known, True) for at, known in self._undone_at if at > to and known in self.undone)


class RunsOfId:
    """Which run has an id, from its creation on, until another one is created or a rewind brings another one back.

    Attributes:
        created: where the run that has it now was created; None where none has.
        owing: what that one leaves to be undone.
    """

    def __init__(self) -> None:
        self._held: list[tuple[int, int | None]] = []
        self._owing: dict[int | None, Owing] = {}
        self.created: int | None = None
        self.owing = self._owing[None] = Owing()

    def now(self) -> RunsOfId:
        """Return a copy of what is known of the run that has the id now; it stays as it is."""
        made = RunsOfId()
        made.created = self.created
        made.owing.taken_back, made.owing.undone = dict(self.owing.taken_back), dict(self.owing.undone)
        return made

    def create(self, position: int) -> None:
        """Note that another run has the id from now on."""
        self._turn_to(position, position)

    def held_at(self, position: int) -> int | None:
        """Return where the run was created that had the id at a position."""
        before = bisect_right(self._held, position, key=itemgetter(0))
        return self._held[before - 1][1] if before else None

    def rewind(self, position: int, to: int) -> None:
        """Give the id back to whoever had it at a position."""
        self._turn_to(position, self.held_at(to))
        self.owing.rewind(to)

    def _turn_to(self, position: int, created: int | None) -> None:
        if created != self.created or not self._held:
            self._held.append((position, created))
            self.created = created
            self.owing = self._owing.setdefault(created, Owing())
