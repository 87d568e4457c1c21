"""The shadow of an entity: the plain state that a fold of everything recorded of it has.

Each change is applied to it, by the fold's own code, at the moment it is recorded, and before anybody is told of it. So a change that
does not fit is found there and then, and is never appended; what takes it back is noted in the same act; and what an entity's state is
need not be read off its object.

The shadow owns its containers: of what a change brings it keeps a copy, since the change itself waits to be encoded and must stay as
it is. Values that cannot change are shared with the object.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from symphony_es.core.objects.mending import mend
from symphony_es.core.objects.plain import MISSING, UNOWNED, kind_of, plain_at
from symphony_es.core.objects.tracked_dict import TrackedDict
from symphony_es.errors import (
    AT_REST,
    ChangeError,
    EntityOutOfStepError,
    EntityTypeError,
    SymphonyError,
    UnrecordedChangeError,
    UnstorableValueError,
    format_path,
)
from symphony_es.events.bounds import is_wide
from symphony_es.events.changes import (
    ADD,
    APPEND,
    DISCARD,
    INSERT,
    KEY_TYPES,
    LONG,
    MAX_DEPTH,
    REMOVE,
    SCALARS,
    SET,
    TEXTS,
    Change,
    apply_changes,
    as_extension,
    check_change,
    check_room,
)
from symphony_es.events.diff import diff
from symphony_es.events.paths import value_at
from symphony_es.events.references import Path, find_references
from symphony_es.events.undo import ABSENT, Undo
from symphony_es.events.undo import put_back as put_key_back
from symphony_es.events.values import check_types

if TYPE_CHECKING:
    from symphony_es.core.world.live_entity import EntityRecord
    from symphony_es.core.world.transaction import Scope

__all__ = [
    "advance", "check_form", "compare_in_slices", "compare_with_shadow", "difference", "order_before", "put_back", "put_plain",
    "referred_keys", "refuse_difference", "shares_all",
]  # fmt: skip

SLICE = 500
"""Members of a dict that are compared at once, where somebody else may have a turn in between."""

_INTO = frozenset({INSERT, APPEND, ADD, DISCARD})  # what they bring stands one level below their path


def advance(record: EntityRecord, change: Change, back: tuple[Any, ...], scope: Scope | None = None, undo: Undo | None = None) -> Change:
    """Apply a change that has been made in an object to its shadow; where it cannot be recorded, the object is put back.

    Costs what the change costs.

    Returns:
        the change as it is recorded: where a long text or bytes is set to one that begins with it, what extends it.

    Args:
        change: what has been made.
        back: what puts the object back, `(function, *arguments)`.
        scope: the block that it was made in.
        undo: gets what takes the change back in the shadow.

    Raises:
        UnstorableValueError: it holds what cannot be stored. The object is as it was before.
        EntityBusyError: it refers to an entity that another block is about to create. The object is as it was before.
        EntityOutOfStepError: it does not fit the state: the object was changed without being recorded. This change has been taken back, and
            the entity is out of step.
    """
    try:
        check_form(change)
        check_room(record.shadow, change)
        record.world.check_references(record.key, change[2:], scope)
        if change[0] == SET and type(change[2]) in TEXTS and len(change[2]) >= LONG and change[1]:
            change = as_extension(value_at(record.shadow, change[1]), change)
        if undo is not None and not change[1]:
            undo.append((setattr, record, "shadow", record.shadow))
        record.shadow = apply_changes(record.shadow, (change,), undo=undo)
    except ChangeError as error:
        put_back(back)
        record.world.outbox.submit_pending()  # what was recorded before fits
        record.world.outbox.mark_broken(record, error)
        raise EntityOutOfStepError(record.key, f"it has been changed without being recorded, and now {error}") from error
    except UnstorableValueError as error:
        put_back(back)
        mend(record, [getattr(back[0], "__self__", None)])
        raise error.within(record.key) from None
    except Exception:
        put_back(back)
        raise
    return change


def put_plain(shadow: dict[str, Any], change: Change) -> tuple[Any, ...] | None:
    """Return what `advance` does for a value that cannot change and is put into a list or dict of a field; what takes it back, or None.

    None says that nothing was done: it is another change. It assumes that keys and text were looked at when they were put into the object.
    """
    if len(change) != 3 or type(change[2]) not in SCALARS:
        return None
    operation, path, value = change
    if type(value) in TEXTS and len(value) >= LONG:
        return None  # it may extend what is there
    holder: Any = shadow.get(path[0]) if path else None
    if operation is APPEND and len(path) == 1 and type(holder) is list:
        holder.append(value)
        return (list.pop, holder)
    if operation is SET and len(path) == 2 and type(holder) is dict and type(path[1]) in KEY_TYPES and not is_wide(path[1]):
        key = path[1]
        back = (put_key_back, holder, key, holder.get(key, ABSENT))
        holder[key] = value
        return back
    return None


def put_back(back: tuple[Any, ...]) -> None:
    """Take a change of an object back."""
    function, *arguments = back
    function(*arguments)


def check_form(change: Change) -> None:
    """Check all that an encoder and a reader would refuse in a change.

    Raises:
        UnstorableValueError: a key or value that is no plain data, or is nested too deep.
    """
    path = change[1]
    try:
        check_change(change)
    except ChangeError as error:
        raise UnstorableValueError(tuple(path), str(error)) from None
    for value in change[2:]:
        if type(value) not in SCALARS:
            check_types(value, path, max_depth=MAX_DEPTH - len(path) - (change[0] in _INTO))


def order_before(record: EntityRecord, change: Change, noted: Container[int]) -> tuple[dict[Any, Any], list[Any]] | None:
    """Return the dict of a shadow that a change will take a key out of, and the order of its keys; None where taking it back keeps the
    order.

    It costs the number of keys, and is None for what is noted already (the `id` of the dict): once in a block is enough.
    """
    if change[0] != REMOVE or not change[1]:
        return None
    holder = value_at(record.shadow, change[1][:-1])
    if type(holder) is not dict or not holder or id(holder) in noted or next(reversed(holder)) == change[1][-1]:
        return None
    return holder, list(holder)


def compare_with_shadow(record: EntityRecord, but: Collection[str] = ()) -> list[Path]:
    """Return where the object of an entity differs from its shadow, or holds what cannot be stored; costs the size of its state.

    Called with the world's lock held. Some fields may be left out.
    """
    if record.shadow is None or record.closed not in (None, AT_REST) or shares_all(record):
        return []
    return _compare_all(record, but)


def shares_all(record: EntityRecord) -> bool:
    """Return whether each field of an object holds the very value that its shadow holds, of a type whose values cannot change.

    It assumes that a value was looked at when it was put into the shadow, so that the same object there is the same value, and one that can
    be stored; `_compare_all` assumes nothing, and finds nothing then.
    """
    shadow, obj = record.shadow, record.obj
    if shadow is None or kind_of(obj) != "entity":
        return False
    held, fields = obj.__dict__, type(obj)._symphony_spec.fields
    if len(fields) != len(shadow):
        return False
    for name in fields:
        value = held.get(name, MISSING)
        if type(value) not in UNOWNED or shadow.get(name, ABSENT) is not value:
            return False
    return True


def _compare_all(record: EntityRecord, but: Collection[str]) -> list[Path]:
    assert record.shadow is not None
    try:
        captured = record.world.capture(record.obj, record.reference, but)
    except UnstorableValueError as error:
        return [tuple(error.path)]
    except (EntityTypeError, RecursionError):
        if record.is_compared:
            raise
        return _unreadable_fields(record)
    recorded = {name: plain for name, plain in record.shadow.items() if name not in but} if but else record.shadow
    return list(dict.fromkeys(tuple(change[1]) for change in diff(recorded, captured)))


def compare_in_slices(record: EntityRecord) -> Iterator[list[Path]]:
    """Compare like `compare_with_shadow`, so many members of a large dict at a time; where a slice differs.

    The world's lock is held while a slice is compared, and may be let go between two of them: what is recorded meanwhile changes object and
    shadow alike.
    """
    large = () if record.shadow is None or kind_of(record.obj) != "entity" else tuple(_large_fields(record))
    if not large:
        yield compare_with_shadow(record)
        return
    yield compare_with_shadow(record, but=large)
    for name in large:
        keys = list(dict.fromkeys([*(record.shadow or {}).get(name, ()), *record.obj.__dict__.get(name, ())]))
        for start in range(0, len(keys), SLICE):
            yield _compare_members(record, name, keys[start : start + SLICE])


def _large_fields(record: EntityRecord) -> Iterator[str]:
    for name, plain in (record.shadow or {}).items():
        if type(plain) is dict and len(plain) > SLICE and type(record.obj.__dict__.get(name)) is TrackedDict:
            yield name


def _compare_members(record: EntityRecord, name: str, keys: Sequence[Any]) -> list[Path]:
    shadow, live = record.shadow, record.obj.__dict__.get(name)
    plain = None if shadow is None else shadow.get(name)
    if record.closed not in (None, AT_REST) or shadow is None:
        return []
    if type(plain) is not dict or type(live) is not TrackedDict:
        return compare_with_shadow(record)  # it has been replaced meanwhile
    world = record.world.around(record.obj)
    try:
        held = {key: plain_at(dict.__getitem__(live, key), world, key) for key in keys if key in live}
    except UnstorableValueError as error:
        return [(name, *error.path)]
    except RecursionError:
        return [(name,)]
    recorded = {key: plain[key] for key in keys if key in plain}
    return list(dict.fromkeys(tuple(change[1]) for change in diff(recorded, held, (name,))))


def _unreadable_fields(record: EntityRecord) -> list[Path]:
    """Return the fields that were taken out of an object's `__dict__`, or hold a container that was put into itself."""
    held, found = record.obj.__dict__, list[Path]()
    for name in record.shadow or ():
        try:
            plain_at(held[name], record.world, name)
        except (KeyError, UnstorableValueError, RecursionError):
            found.append((name,))
    return found


def refuse_difference(record: EntityRecord) -> None:
    """Raise where the object of an entity differs from its shadow; costs the size of its state. Called with the world's lock held.

    Raises:
        UnrecordedChangeError: it does; the paths are named.
    """
    paths = compare_with_shadow(record)
    if paths:
        raise difference(record, paths)


def unrecorded_changes(record: EntityRecord) -> list[Change]:
    """Return what has been changed in the object of an entity and recorded nowhere, for whoever gives it up; called with the world's lock
    held.

    What cannot be stored stands there as the text that says so. An entity that is out of step has its changes on record.
    """
    if record.broken is not None or record.shadow is None or record.world.read_only or not (paths := compare_with_shadow(record)):
        return []
    try:
        return diff(record.shadow, record.world.capture(record.obj, record.reference))
    except (SymphonyError, RecursionError) as error:
        return [(SET, path, str(error)) for path in paths]


def difference(record: EntityRecord, paths: Sequence[Path]) -> UnrecordedChangeError:
    """Return the error that says where an object differs from what was recorded."""
    others = ", ".join(format_path(path) for path in paths[1:5])
    return UnrecordedChangeError(record.key, paths[0], f"it{f', as {others},' if others else ''} was changed")


def referred_keys(values: Any) -> list[str]:
    """Return keys of the entities that the values of a change refer to."""
    return [reference.key for value in values if type(value) not in SCALARS for _, reference in find_references({"": value})]
