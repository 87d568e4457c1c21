"""Which steps of a run are dropped with those that are taken back: what came after one of them, and not what stands beside it. Pure.

Steps are beside each other in different branches of something that runs its branches beside each other. All that is asked of a step is
answered on the way along its address, so that what many of many steps take along costs what all of their addresses are long.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from symphony_es.workflow.definitions.nesting import step_at
from symphony_es.workflow.definitions.steps import Step

__all__ = ["beside_in_code", "beside_in_plan", "dropped_with"]

_NEVER = float("inf")


class _Place:
    """An address or a part of one, and the targets at it and under it.

    Attributes:
        from_: what has begun from this position on came after the target that stands here.
        under: the parts that follow.
        first: the least `from_` of the targets under it, and the part it is found under.
        other: the least of those under other parts.
    """

    __slots__ = ("first", "from_", "other", "under")

    def __init__(self) -> None:
        self.from_ = _NEVER
        self.under: dict[str, _Place] = {}
        self.first: tuple[float, str] = (_NEVER, "")
        self.other = _NEVER

    def next(self, part: str, from_: float) -> _Place:
        """Return the place that follows, on the way to a target."""
        least, found = self.first
        if part == found or not self.under:
            self.first = (min(from_, least), part)
        elif from_ < least:
            self.first, self.other = (from_, part), least
        else:
            self.other = min(from_, self.other)
        return self.under.setdefault(part, _Place())

    def least_beside(self, part: str) -> float:
        """Return the least of the targets that are not under a part."""
        return self.other if part == self.first[1] else self.first[0]


def dropped_with(targets: Mapping[str, int | None], begun: Mapping[str, int], is_beside: Callable[[Sequence[str]], bool]) -> list[str]:
    """Return the steps that are dropped with the targets, the targets among them, in the order given.

    Args:
        targets: addresses that are taken back, each with the position from which on whatever begins came after it; None for never.
        begun: addresses of the steps that began with the first of them or later, and where.
        is_beside: whether the parts that follow some address run beside each other.
    """
    root = _Place()
    for address, from_ in targets.items():
        place, bound = root, _NEVER if from_ is None else float(from_)
        for part in address.split("/"):
            place = place.next(part, bound)
        place.from_ = bound
    together: dict[str, bool] = {}

    def is_dropped(address: str) -> bool:
        place, began, parts = root, begun[address], address.split("/")
        for depth, part in enumerate(parts):
            above = "/".join(parts[:depth])
            if place.from_ <= began:
                return True
            if place.least_beside(part) <= began:
                if above not in together:
                    together[above] = is_beside(parts[:depth])
                if not together[above]:
                    return True
            following = place.under.get(part)
            if following is None:
                return False
            place = following
        return min(place.from_, place.first[0]) <= began

    return [address for address in begun if address in targets or is_dropped(address)]


def beside_in_plan(plan: Sequence[Step]) -> Callable[[Sequence[str]], bool]:
    """Say, for `dropped_with`, what composites of a declared workflow do: whether they run their steps beside each other."""

    def is_beside(above: Sequence[str]) -> bool:
        composite = step_at(plan, "/".join(above)) if above else None
        return composite is not None and composite.together

    return is_beside


def beside_in_code(above: Sequence[str]) -> bool:
    """Say, for `dropped_with`, what holds in code: the names of a `gather` and the numbers of its strands take turns."""
    return len(above) % 2 == 1
