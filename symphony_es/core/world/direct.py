"""Recording changes of an entity from a list of them, for code of the library that owns the entity and knows what it changes.

An assignment is found out about as it happens: it is made, recorded, and taken back where it turns out that it cannot be stored. Who has
all changes of an event as a list needs none of that. The event is encoded first, which checks all that it brings; then it is submitted;
then the object and its shadow are changed, which cannot fail. So there is nothing to take back.

It takes values that cannot change, and lists, dicts, sets and tuples of them, which are put under a key, put at the end of a list or
taken out. What else there is goes the way of an assignment, with the same effect, and `record_changes` says so by None:

* Changes in a block, which must be taken back where it is rolled back; and of an entity that a transaction claims, which are refused.
* Live values with a place or a record of their own: parts, entities, what is tracked already, objects of declared or foreign classes.
* A container in the place of another one: what differs between them is recorded.
* Changes that may be of one place: each is looked at as if it were the only one.
* An object that is not as it was recorded, or was restored differently: the assignment finds out why, or what comes first.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from symphony_es.attribution import Attribution, current_attribution
from symphony_es.core.objects.edits import is_small
from symphony_es.core.objects.places import release
from symphony_es.core.objects.plain import MAX_DEPTH, MISSING, UNOWNED, admit, kind_of, own, plain_of
from symphony_es.core.objects.tracked_dict import TrackedDict
from symphony_es.core.objects.tracked_list import TrackedList
from symphony_es.core.objects.unrecorded import has_as_many
from symphony_es.core.world.live_entity import EntityRecord, Segment
from symphony_es.core.world.scopes import current_scope, scope_of
from symphony_es.errors import EntityOutOfStepError, UnstorableValueError
from symphony_es.events.changes import APPEND, LONG, REMOVE, SCALARS, SET, SPLICE, TEXTS, Change, as_extension
from symphony_es.events.values import copy_plain

if TYPE_CHECKING:
    from symphony_es.core.world.world import World

__all__ = ["record_changes"]

_Place = tuple[Any, Any, Any, Any]
"""Where a change is made: the live container and its plain one, who owns what is put there, and the live value that comes."""


def record_changes(
    world: World, record: EntityRecord, name: str, changes: Sequence[Change], *, step: str | None, attempt: int | None, data: Any = None
) -> bytes | None:
    """Submit an event with changes of an entity, and make them; called with the lock held.

    Args:
        world: the entity's.
        record: the entity's.
        name: what happened, in the past tense.
        changes: of its state, as tuples of `events.changes`, in order; a value may be whatever an assignment takes. Where one makes what
            another one changes, they take the way of assignments.
        step: field of the attribution, in the place of what the block around it says.
        attempt: the same.
        data: what the event says beyond its effect; plain data.

    Returns:
        The event's id; None where the changes have to be made as assignments: nothing has been done then.

    Raises:
        UnstorableValueError, LimitExceededError: it cannot be stored. Nothing has been done.
        EntityOutOfStepError: earlier changes of the entity could not be appended.
        NotReadyError and other errors of a change: it may not happen now. Nothing has been done.
    """
    if current_scope.get() is not None and scope_of(world) is not None:
        return None
    if record.holder is not None or record.adoption is not None or world.restoring or record.shadow is None:
        return None
    world.check_open(record)
    if _meet(changes):
        return None
    recorded: list[Change] = []
    places: list[_Place] = []
    for change in changes:
        found = _prepared(world, record, change)
        if found is None:
            return None
        recorded.append(found[0])
        places.append(found[1])
    outbox = world.outbox
    outbox.submit_pending()  # what was changed before comes before
    if record.broken is not None:
        raise EntityOutOfStepError(record.key, str(record.broken)) from record.broken
    around = current_attribution.get()
    attribution = Attribution(
        around.actor, around.reason, around.run_id, step or around.step, attempt or around.attempt,
        around.cause, around.correlation_id, around.user,
    )  # fmt: skip
    segment = Segment(record=record, name=name, attribution=attribution, changes=recorded, data=data, open=False)
    return outbox.submit_segment(segment, lambda: _make_all(recorded, places))


def _meet(changes: Sequence[Change]) -> bool:
    """Return whether two changes are of one key or item of one field, or one of a field and one in it."""
    if len(changes) < 2:
        return False
    whole, inside = set[Any](), set[Any]()
    for change in changes:
        place = change[1][:2]
        held = whole if len(place) == 1 else inside
        if place in held:
            return True
        held.add(place)
    return bool(whole) and any(place[:1] in whole for place in inside)


def _prepared(world: World, record: EntityRecord, change: Change) -> tuple[Change, _Place] | None:
    """Return a change as it is recorded, and where it is made; None where it has to be made as an assignment."""
    operation, path = change[0], change[1]
    owner: Any = record.obj
    held: Any = owner.__dict__
    plain: Any = record.shadow
    extends = operation in (APPEND, SPLICE)
    last = len(path) - (not extends)
    kind: type = dict
    for at in range(last):
        key = path[at]
        if kind is TrackedList or key not in held or key not in plain:
            return None
        owner = held = held[key]
        plain = plain[key]
        kind = type(held)
        if type(plain) is dict:
            if kind is not TrackedDict or len(held) != len(plain):
                return None
        elif kind is not TrackedList or not has_as_many(plain, held):
            return None
    if extends:
        if kind is not TrackedList or (operation == SPLICE and not change[2] == change[3] == len(held)):
            return None
        return _brought(world, record, change, (held, plain, owner))
    if kind is TrackedList:
        return None
    if operation == SET:
        old = held.get(path[-1], MISSING)
        if type(change[2]) not in UNOWNED and old is not MISSING and type(old) not in UNOWNED and not isinstance(old, enum.Enum):
            return None
        return _brought(world, record, change, (held, plain, owner))
    if operation == REMOVE and kind is TrackedDict and path[-1] in held and path[-1] in plain:
        return change, (held, plain, owner, None)
    return None


def _brought(world: World, record: EntityRecord, change: Change, where: tuple[Any, Any, Any]) -> tuple[Change, _Place] | None:
    """Return the same for a change that brings a value."""
    operation, path, *where_to, value = change
    cls = type(value)
    if cls in SCALARS:
        if operation == SET and cls in TEXTS and len(value) >= LONG:
            change = as_extension(where[1].get(path[-1]), change)
        return change, (*where, value)
    if cls in UNOWNED:
        live = plain = value
    elif isinstance(value, enum.Enum):
        live, plain = value, plain_of(value, world)
    elif operation == SET and kind_of(value) == "value" and all(_is_plain(getattr(value, name), 0) for name in cls._symphony_spec.fields):
        try:
            live = admit(value, world.around(record.obj))
        except UnstorableValueError as error:
            raise error.within(record.key, path) from None
        plain = plain_of(live, world)
    elif _is_plain(value, 0):
        try:
            live = admit(value, world.around(record.obj))
        except UnstorableValueError as error:
            raise error.within(record.key, path) from None
        plain = plain_of(live, world)
        if operation == APPEND and not is_small(plain):
            operation, where_to, plain, live = SPLICE, [len(where[0])] * 2, [plain], [live]
    else:
        return None
    world.check_references(record.key, (plain,), None)
    return (operation, path, *where_to, plain), (*where, live)


def _is_plain(value: Any, depth: int) -> bool:
    """Return whether a value is made of builtin containers and of what cannot change alone."""
    cls = type(value)
    if cls in UNOWNED:
        return True
    if depth > MAX_DEPTH:
        return False
    if cls is dict:
        return UNOWNED.issuperset(map(type, value.values())) or all(_is_plain(item, depth + 1) for item in value.values())
    if cls is list or cls is tuple:
        return UNOWNED.issuperset(map(type, value)) or all(_is_plain(item, depth + 1) for item in value)
    return cls is set and UNOWNED.issuperset(map(type, value))


def _make_all(changes: Sequence[Change], places: Sequence[_Place]) -> None:
    for change, place in zip(changes, places, strict=True):
        _make(change, place)


def _make(change: Change, place: _Place) -> None:
    """Make a change that has been submitted: it fits."""
    operation, path = change[0], change[1]
    held, plain, owner, live = place
    if operation == APPEND:
        list.append(held, live)
        plain.append(change[2] if live is change[2] else copy_plain(change[2]))
        if live is not change[2]:
            own(live, owner, len(held) - 1)
        return
    if operation == SPLICE:
        plain += copy_plain(change[-1])
        for item in live:
            list.append(held, item)
            own(item, owner, len(held) - 1)
        return
    key = path[-1]
    old = dict.get(held, key)
    if type(old) not in UNOWNED:
        release(old, owner)
    if operation == REMOVE:
        dict.__delitem__(held, key)
        del plain[key]
        return
    dict.__setitem__(held, key, live)
    if type(live) in UNOWNED:
        plain[key] = live
    else:
        plain[key] = copy_plain(change[2])
        own(live, owner, key)
