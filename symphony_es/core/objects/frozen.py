"""Lists, dicts and sets that do not change any more: what a definition holds.

Runs that are under way execute a definition while whoever made it has it in hand, and its hash names its content: so what it holds is
a copy of its own, and its containers refuse every change. They stay lists, dicts and sets, and equal plain ones; an entity that one is
put into gets a tracked copy. Rule: a definition has the content that its hash names, whatever is done with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn, SupportsIndex

from symphony_es.core.objects.plain import BUILDERS, MAX_DEPTH, PLAIN_COPIES
from symphony_es.core.objects.tracked_dict import TrackedDict
from symphony_es.core.objects.tracked_list import TrackedList
from symphony_es.core.objects.tracked_set import TrackedSet
from symphony_es.errors import DefinitionError
from symphony_es.events.values import copy_plain

__all__ = ["CONTAINERS", "FROZEN", "FrozenDict", "FrozenList", "FrozenSet", "copied", "freeze"]


def _refuse(self: Any, *args: Any, **named: Any) -> NoReturn:
    kind = type(self).__mro__[1].__name__
    raise DefinitionError(
        "",
        f"a definition does not change once it is made, and this {kind} is part of one: change a copy of it, as copy.deepcopy gives, and "
        "make another definition with that, for example by dataclasses.replace(definition, context={...})",
    )


class FrozenList(list[Any]):
    """A list that refuses to be changed."""

    __slots__ = ()
    _symphony_kind = "container"

    def __new__(cls, items: Iterable[Any] = ()) -> list[Any]:  # type: ignore[misc]
        """Return a plain list: what is built with `type(x)(...)` from one that is frozen, as `dataclasses.asdict` does, is a copy."""
        return list(items)

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return list, (list(self),)

    __init__ = append = clear = extend = insert = pop = remove = reverse = sort = _refuse
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse


class FrozenDict(dict[Any, Any]):
    """A dict that refuses to be changed."""

    __slots__ = ()
    _symphony_kind = "container"

    def __new__(cls, items: Mapping[Any, Any] | Iterable[Any] = (), /, **more: Any) -> dict[Any, Any]:  # type: ignore[misc]
        """Return a plain dict, as with `FrozenList`."""
        return dict(items, **more)

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return dict, (dict(self),)

    __init__ = clear = pop = popitem = setdefault = update = _refuse
    __setitem__ = __delitem__ = __ior__ = _refuse


class FrozenSet(set[Any]):
    """A set that refuses to be changed; what its operators make is a plain one."""

    __slots__ = ()
    _symphony_kind = "container"

    def __new__(cls, items: Iterable[Any] = ()) -> set[Any]:  # type: ignore[misc]
        """Return a plain set, as with `FrozenList`."""
        return set(items)

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return set, (set(self),)

    def __repr__(self) -> str:
        return repr(set(self))

    __init__ = add = clear = discard = pop = remove = update = _refuse
    difference_update = intersection_update = symmetric_difference_update = _refuse
    __iand__ = __ior__ = __isub__ = __ixor__ = _refuse


def _of_a_plain_set(name: str) -> Callable[..., Any]:
    def made(self: FrozenSet, *others: Any) -> Any:
        return getattr(set(self), name)(*others)

    made.__name__ = name
    return made


for _name in ("copy", "union", "difference", "intersection", "symmetric_difference", "__or__", "__and__", "__sub__", "__xor__"):
    setattr(FrozenSet, _name, _of_a_plain_set(_name))


def freeze(value: Any) -> Any:
    """Return the same value, whose containers are copies that refuse to be changed; what is no container is shared.

    Args:
        value: plain data; anything else in it, as a step, stays as it is.
    """
    cls = type(value)
    if cls in FROZEN:
        return value
    if cls is list:
        made: Any = list.__new__(FrozenList)
        list.extend(made, map(freeze, value))
    elif cls is dict:
        made = dict.__new__(FrozenDict)
        dict.update(made, {key: freeze(item) for key, item in value.items()})
    elif cls is set:
        made = set.__new__(FrozenSet)
        set.update(made, value)
    elif cls is tuple:
        made = tuple(map(freeze, value))
    else:
        made = copy_plain(value)
    return made


def copied(value: Any) -> Any:
    """Return the same value, whose lists, dicts, sets and tuples are plain ones of its own, also where they were frozen; all else is
    shared.

    What is nested deeper than a state can be, or is in itself, is left as it is, for those to refuse who look at it.
    """
    return _copied(value, MAX_DEPTH, set())


def _copied(value: Any, depth: int, around: set[int]) -> Any:
    plain = _PLAIN.get(type(value))
    if plain is None:
        return copy_plain(value)
    if depth < 0 or id(value) in around:
        return value
    around.add(id(value))
    if plain is dict:
        made: Any = {key: _copied(item, depth - 1, around) for key, item in value.items()}
    elif plain is set:
        made = set(value)
    else:
        made = plain(_copied(item, depth - 1, around) for item in value)
    around.discard(id(value))
    return made


_PLAIN: dict[type, Callable[..., Any]] = {
    **{list: list, dict: dict, set: set, tuple: tuple},
    **{FrozenList: list, FrozenDict: dict, FrozenSet: set},
}

FROZEN = (FrozenList, FrozenDict, FrozenSet)
CONTAINERS = (list, dict, set, tuple)

BUILDERS[FrozenList], BUILDERS[FrozenDict], BUILDERS[FrozenSet] = BUILDERS[list], BUILDERS[dict], BUILDERS[set]
PLAIN_COPIES.update({FrozenList: PLAIN_COPIES[TrackedList], FrozenDict: PLAIN_COPIES[TrackedDict], FrozenSet: PLAIN_COPIES[TrackedSet]})
