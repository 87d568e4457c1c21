"""One mutation of a live object: whether it may happen, what it stores, and how it is recorded.

Everything that changes in place (an entity's or part's field, a tracked list, dict or set) goes through a `Site`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

from symphony_es.core.state.live import ATOMS, admit, entities_in, locate, plain_of, refuse_cycle
from symphony_es.errors import UnstorableValueError
from symphony_es.events.changes import Change

if TYPE_CHECKING:
    from symphony_es.core.state.membership import Membership

__all__ = ["Site", "build_at"]

Undo = tuple[Any, ...]


class Site:
    """One mutation of a node: holds its entity's lock, converts values for it, and records what changed.

    A node that belongs to no entity yet has a site without a record: values are converted, nothing is recorded.
    """

    __slots__ = ("node", "path", "record", "sink", "world")

    def __init__(self, node: Any) -> None:
        self.node = node
        self.record, self.path = locate(node)
        self.world: Membership | None = self.record.world if self.record is not None else None
        self.sink: Callable[[Change, Undo], None] | None = None

    def __enter__(self) -> Self:
        if self.record is not None:
            self.record.world.lock.acquire()
            try:
                self.sink = self.record.sink()
            except BaseException:
                self.record.world.lock.release()
                raise
        return self

    def __exit__(self, *exception: object) -> None:
        if self.record is not None:
            self.record.world.lock.release()

    def convert(self, value: Any, key: Any) -> tuple[Any, Any]:
        """The live and the plain form of a value that is to stand under `key`; a refusal names entity and path."""
        try:
            live = admit(value, self.world)
            if type(live) in ATOMS:
                return live, live
            refuse_cycle(self.node, live)
            return live, plain_of(live, self.world) if self.sink is not None else None
        except UnstorableValueError as error:
            raise error.within(self.record.key if self.record else None, (*self.path, key)) from None

    def recorded(self, change: Change, undo: Undo, *brought: Any) -> None:
        """Record a change that has been made, and add the entities that came with it."""
        if self.sink is not None and self.world is not None:
            self.sink(change, undo)
            for live in brought:
                for found in entities_in(live):
                    self.world.adopt_referred(found)


def build_at(item: Any, world: Membership | None, depth: int, key: Any) -> Any:
    """`admit` for a member of a container under construction, with its key added to the path of a refusal."""
    try:
        return admit(item, world, depth + 1)
    except UnstorableValueError as error:
        raise error.within(None, (key,)) from None
