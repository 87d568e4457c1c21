"""Generations: how often a step has been taken back, so that what is done anew has keys and ids of its own. Pure.

The unit of repetition is a step, so the number belongs to its address: what is taken back is raised, with all that is under it, and
what is beside it keeps its own. An undo is never of an older generation than the step that it undoes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from symphony_es.workflow.runs.cleanup import UNDO, undoes_taken_back

__all__ = ["NEVER_TAKEN_BACK", "Generations", "prefixes"]

_UNDO_OF = f"{UNDO}/"
_NONE: Mapping[str, int] = MappingProxyType({})


class Generations:
    """The generations of one run's addresses.

    Args:
        raised: by address that was taken back, its generation; "" stands for the whole run.
        owed: by address of a step an execution of which was taken back and not undone, the last position at which it held.
    """

    __slots__ = ("_raised", "owed")

    def __init__(self, raised: Mapping[str, int], owed: Mapping[str, int] = _NONE) -> None:
        self._raised = raised
        self.owed = owed

    def of(self, address: str) -> int:
        """Return the largest generation on record for an address or one above it; 0 where none of them was taken back."""
        raised = self._raised
        if not raised:
            return 0
        if undoes_taken_back(address) is not None:
            return raised.get(address, 0)  # the generation that it undoes is a part of its address
        largest = max(raised.get("", 0), raised.get(address, 0))
        for above in prefixes(address):
            largest = max(largest, raised.get(above, 0))
        return max(largest, self.of(address[len(_UNDO_OF) :])) if address.startswith(_UNDO_OF) else largest


NEVER_TAKEN_BACK = Generations(MappingProxyType({}))


def prefixes(address: str) -> Iterator[str]:
    """Yield the addresses above one, from the outermost."""
    place = address.find("/")
    while place != -1:
        yield address[:place]
        place = address.find("/", place + 1)
