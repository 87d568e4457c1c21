"""One mutation of a live object: whether it may happen, what it stores, and how it is recorded.

Everything that changes in place (an entity's or part's field, a tracked list, dict or set) goes through a `Site`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self, TypeVar

from symphony_es.core.state.tracking.live import UNOWNED, admit, entities_in, locate, plain_of, record_above, refuse_cycle
from symphony_es.errors import UnstorableValueError
from symphony_es.events.changes import Change
from symphony_es.events.references import Path

if TYPE_CHECKING:
    from symphony_es.core.state.membership import Membership
    from symphony_es.core.state.records import EntityRecord, Sink

__all__ = ["Site", "build_at", "whole"]

Undo = tuple[Any, ...]
Method = TypeVar("Method", bound=Callable[..., Any])


class Site:
    """One mutation of a node: holds its entity's lock, converts values for it, and records what changed.

    A node that belongs to no entity yet has a site without a record: values are converted, nothing is recorded.
    """

    __slots__ = ("node", "path", "record", "sink", "world")

    def __init__(self, node: Any) -> None:
        self.node = node
        self.record: EntityRecord | None = None
        self.path: Path = ()
        self.world: Membership | None = None
        self.sink: Sink | None = None

    def __enter__(self) -> Self:
        record = record_above(self.node)
        while record is not None:
            record.world.lock.acquire()
            self.record, self.path = locate(self.node)  # where it is now that nobody else can move it
            if self.record is record:
                break
            record.world.lock.release()
            record = self.record
        self.record = record
        if record is not None:
            self.world = record.world.around(record.obj)
            try:
                self.sink = record.sink()
            except BaseException:
                record.world.lock.release()
                raise
        return self

    def __exit__(self, *exception: object) -> None:
        if self.record is not None:
            self.record.world.lock.release()

    def convert(self, value: Any, key: Any) -> tuple[Any, Any]:
        """The live and the plain form of a value that is to stand under `key`; a refusal names entity and path."""
        try:
            live = admit(value, self.world)
            if type(live) in UNOWNED:
                return live, live
            refuse_cycle(self.node, live)
            if self.world is not None:
                for found in entities_in(live):
                    self.world.check_referred(found)
            return live, plain_of(live, self.world) if self.sink is not None else None
        except UnstorableValueError as error:
            raise error.within(self.record.key if self.record else None, (*self.path, key)) from None

    def recorded(self, change: Change, undo: Undo, *brought: Any) -> None:
        """Record a change that has been made, and add the entities that came with it."""
        if self.sink is not None and self.world is not None:
            self.sink.keep(change, undo)
            for live in brought:
                if type(live) in UNOWNED:
                    continue
                for found in entities_in(live):
                    self.world.adopt_referred(found)


def build_at(item: Any, world: Membership | None, depth: int, key: Any) -> Any:
    """`admit` for a member of a container under construction, with its key added to the path of a refusal."""
    try:
        return admit(item, world, depth + 1)
    except UnstorableValueError as error:
        raise error.within(None, (key,)) from None


def whole(method: Method) -> Method:
    """Make a mutating method one step for other threads: what it looks at is still so when it changes it."""

    @functools.wraps(method)
    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        with Site(self):
            return method(self, *arguments, **named)

    return call  # type: ignore[return-value]
