"""One mutation of a live object: whether it may happen, what it stores, and how it is recorded.

Everything that changes in place (an entity's or part's field, a tracked list, dict or set) goes through a `Mutation`, in the same order:
convert what the user gives and check all of it, record the change, make it, add the entities that came with it. A refusal comes before
anything has changed. Code of the user (iterables, sort keys, `__index__`) has run before the mutation is entered: inside, its world's lock
is held.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self

from symphony_es.core.objects.edits import changes_between
from symphony_es.core.objects.places import (
    Detached,
    Move,
    clone,
    give_back,
    is_node,
    own_new,
    place,
    release,
    settle,
    stands_elsewhere,
    take,
)
from symphony_es.core.objects.plain import (
    ATOMS,
    MISSING,
    UNOWNED,
    admit,
    entities_in,
    kind_of,
    locate,
    plain_of,
    record_above,
    refuse_cycle,
)
from symphony_es.core.objects.unrecorded import has_as_many, is_recorded, record_as_it_is, recorded_at, refuse_other
from symphony_es.errors import DetachedPartError, SymphonyError, UnstorableValueError
from symphony_es.events.changes import SET, Change
from symphony_es.events.paths import value_at
from symphony_es.events.references import Path
from symphony_es.events.values import plain_equal

if TYPE_CHECKING:
    from symphony_es.core.objects.recorder import Recorded, Recorder, Sink

__all__ = ["Mutation", "build_at", "note_augmented", "put_back"]

Undo = tuple[Any, ...]


class Mutation:
    """One mutation of a node: holds its entity's lock, converts values for it, and records what changed.

    A node that belongs to no entity yet has a mutation without a record: values are converted, nothing is recorded.
    """

    __slots__ = ("moves", "node", "path", "record", "recorded", "sink", "world")

    record: Recorded | None
    path: Path
    world: Recorder | None
    sink: Sink | None
    recorded: Any  # of a container that is an entity's: what was recorded of it

    def __init__(self, node: Any) -> None:
        self.node = node
        self.moves: list[Move] = []

    def __enter__(self) -> Self:
        # Fast path: what `enter_anywhere` does for a container that stands in a field of an entity, as most do. It assumes that the entity
        # is the owner, that the field holds the container, and that as much was recorded of it. All three are looked at with the lock held;
        # where one of them does not hold, nothing has been done, and the plain version finds out why.
        node = self.node
        owner = node._symphony_owner if type(node)._symphony_kind == "container" else None
        known = owner.__dict__.get("_symphony_record") if owner is not None and owner._symphony_kind == "entity" else None
        if known is None:
            return self.enter_anywhere()
        record: Recorded = known
        world = record.world
        world.lock.acquire()
        entered = False
        try:
            name, held, shadow = node._symphony_key, owner.__dict__, record.shadow
            stands = node._symphony_owner is owner and held.get(name, MISSING) is node
            if stands and held.get("_symphony_record") is record and shadow is not None:
                recorded = shadow.get(name)
                alike = len(recorded) == len(node) if type(recorded) is dict else has_as_many(recorded, node)
                if alike and not world.restoring:
                    self.sink = record.sink()
                    around = world.around(owner) if record.obj._symphony_at_boundary else world
                    self.record, self.path, self.recorded, self.world = record, (name,), recorded, around
                    entered = True
                    return self
        finally:
            if not entered:
                world.lock.release()
        return self.enter_anywhere()

    def enter_anywhere(self) -> Self:
        """Find the entity of the node, lock its world, and have its record say where changes go; else see that it belongs to none."""
        self.record, self.path, self.world, self.sink, self.recorded = None, (), None, None, None
        record = record_above(self.node)
        while record is not None:
            lock = record.world.lock
            lock.acquire()
            try:
                self.record, self.path = locate(self.node)  # where it is now that nobody else can move it
                if self.record is record:
                    self.world, self.sink = record.world.around(record.obj), record.sink()
                    if self.node._symphony_kind == "container":
                        self.recorded = recorded_at(record, self.path, self.node)
                    return self
            except BaseException:
                self.record = None
                lock.release()
                raise
            lock.release()
            record = self.record
        _refuse_detached(self.node)
        return self

    def __exit__(self, *exception: object) -> None:
        if self.record is not None:
            self.record.world.lock.release()

    def convert(self, value: Any, key: Any) -> tuple[Any, Any]:
        """Return the live and the plain form of a value that is to stand under `key`; a refusal names entity and path."""
        if type(value) in ATOMS or (type(value) is str and value.isascii()):
            return value, value
        if type(value) in UNOWNED:
            ((live, plain),) = self._convert_each([(key, value)], [])
            return live, plain
        ((live, plain),) = self.convert_all([(key, value)])
        return live, plain

    def convert_all(self, values: Iterable[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
        """Return the same for several, by key, checked together: nothing of them is refused later."""
        found: list[Any] = []
        converted = self._convert_each(values, found)
        if found and self.world is not None:
            self.world.check_referred(found)
        return converted

    def _convert_each(self, values: Iterable[tuple[Any, Any]], found: list[Any]) -> list[tuple[Any, Any]]:
        converted: list[tuple[Any, Any]] = []
        for key, value in values:
            try:
                live = admit(value, self.world)
                if type(live) in UNOWNED:
                    converted.append((live, live))
                    continue
                refuse_cycle(self.node, live)
                if self.world is not None:
                    found += entities_in(live)
                converted.append((live, plain_of(live, self.world) if self.sink is not None else None))
            except UnstorableValueError as error:
                raise error.within(self.record.key if self.record else None, (*self.path, key)) from None
            except RecursionError:
                owner = self.record.key if self.record else None
                raise UnstorableValueError((*self.path, key), "it was put into itself past its methods", owner) from None
        return converted

    def is_in_place(self, old: Any, key: Any) -> bool:
        """Return whether a node that is put where it stands needs no more.

        What was written into a container past its methods is recorded.
        """
        if not is_node(old):
            return False
        if getattr(_augmented, "node", None) == id(old):
            _augmented.node = None  # `x.items += [...]` assigns what it has changed in place
        elif kind_of(old) == "container" and self.record is not None and self.record.shadow is not None and not self.record.world.restoring:
            plain = value_at(self.record.shadow, (*self.path, key))
            if not is_recorded(old, plain, self.record.world):
                record_as_it_is(old, plain, self.record)
        return True

    def expect(self, held: Any, key: Any) -> None:
        """Refuse a change where a container holds something else than was recorded there; see `unrecorded`."""
        recorded = self.recorded
        there = recorded.get(key, MISSING) if type(recorded) is dict else recorded[key]
        if held is not there and self.record is not None:
            refuse_other(self.record, self.path, held, there)

    def changes_at(self, key: Any, old: Any, live: Any, plain: Any) -> list[Change]:
        """Return the changes that put a value under a key where another one stands (or MISSING): the difference, where that is less."""
        if self.sink is None:
            return []
        path = (*self.path, key)
        if type(old) is type(live) and kind_of(live) == "container":
            recorded = self._recorded_at(path)
            try:
                was = plain_of(old, self.world)
            except (UnstorableValueError, RecursionError):  # written past its methods, and it leaves with what was
                return changes_between(path, recorded, plain) if recorded is not MISSING else [(SET, path, plain)]
            if recorded is MISSING or plain_equal(was, recorded):
                return changes_between(path, was, plain, (old, live))
            return changes_between(path, recorded, plain)  # it was written past its methods: what it holds was never recorded
        return [(SET, path, plain)]

    def _recorded_at(self, path: Path) -> Any:
        """Return what was recorded at a path, or MISSING where nothing is recorded of the entity at the moment."""
        if self.record is None or self.record.shadow is None or self.record.world.restoring:
            return MISSING
        return value_at(self.record.shadow, path)

    def keep(self, changes: Sequence[Change], undo: Undo) -> None:
        """Record changes that have been made together, and what undoes all of them."""
        if self.sink is not None:
            if not changes:
                self.sink.note(undo)
            elif len(changes) > 1:
                self._check(changes, undo)
            for change in changes:
                self.sink.keep(change, undo)
                undo = _NOTHING

    def keep_one(self, change: Change, undo: Undo) -> None:
        """Keep one change, which its sink checks."""
        if self.sink is not None:
            self.sink.keep(change, undo)

    def _check(self, changes: Sequence[Change], undo: Undo) -> None:
        if self.world is None or self.record is None or self.world.restoring:
            return
        try:
            self.world.check_changes(self.record, changes)
        except SymphonyError as error:
            undo[0](*undo[1:])
            raise error.within(self.record.key) if isinstance(error, UnstorableValueError) else error from None

    def replace(self, old: Iterable[Any], new: list[Any]) -> None:
        """Release old values before new ones stand there, and have copies stand where the new ones come from."""
        take(self.node, old, new, self.moves, recorded=self.record is not None)

    def settle(self, placed: Iterable[tuple[Any, Any]]) -> None:
        """Make the node the owner of values that have been put under their keys."""
        for key, live in placed:
            if type(live) in UNOWNED:
                continue
            if self.record is not None:
                settle(live, self.node, key, self.world, self.moves)
            else:
                own_new(live, self.node, key)

    def bring(self, *brought: Any) -> None:
        """Add the entities that came with new values."""
        if self.sink is not None and self.world is not None:
            for live in brought:
                if type(live) in UNOWNED:
                    continue
                for found in entities_in(live):
                    self.world.adopt_referred(found, self.record)


_augmented = threading.local()


def note_augmented(node: Any) -> None:
    """Note that an operator has changed a container in place: it is assigned next, to where it stands."""
    _augmented.node = id(node)


_NOTHING: Undo = (lambda: None,)


def put_back(node: Any, moves: list[Move], left: Iterable[Any], came: Iterable[tuple[Any, Any]]) -> None:
    """Undo one mutation, after the values have been put back: what stands there again is owned, what was taken from elsewhere goes back.

    Args:
        left: what has left the node.
        came: what has come back, by key.
    """
    record = record_above(node)
    returning = {id(live) for _, live in came}
    for live in left:
        if id(live) not in returning:
            release(live, node)
    apart = [(key, live) for key, live in came if record is not None and stands_elsewhere(live, node)]
    for key, _ in apart:
        place(node, key, None)  # somebody has put it elsewhere meanwhile, perhaps into something that holds this node
    for key, live in came:
        if type(live) in UNOWNED or (apart and stands_elsewhere(live, node)):
            continue
        if record is None:
            own_new(live, node, key)
        else:
            settle(live, node, key, record.world, None)
    for key, live in apart:
        copy = clone(live)
        place(node, key, copy)
        settle(copy, node, key, record.world if record is not None else None, None)
    give_back(moves, record.world if record is not None else None)


def _refuse_detached(node: Any) -> None:
    start = node
    while node is not None and node._symphony_kind != "entity":
        node = node._symphony_owner
        if type(node) is Detached:
            raise DetachedPartError(node.where, type(start).__name__.removeprefix("Tracked"))


def build_at(item: Any, world: Recorder | None, depth: int, key: Any) -> Any:
    """Return `admit` for a member of a container under construction, with its key added to the path of a refusal."""
    try:
        return admit(item, world, depth + 1)
    except UnstorableValueError as error:
        raise error.within(None, (key,)) from None
