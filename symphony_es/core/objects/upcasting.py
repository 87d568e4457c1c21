"""Bringing stored fields of an older version to those of today: the one way for entities, parts, values and foreign classes.

An upcast of the application gets plain containers with live objects in them. What no object can be made of stands there in its stored form,
a copy, so that the upcast may put another thing in its place; whatever it leaves there is tried again with the rest of its result. Only a
stored form that stands inside an object would be seen by nobody afterwards, so it is looked for here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from symphony_es.core.objects.capture import field_names
from symphony_es.core.objects.places import clone, is_node, members, place
from symphony_es.core.objects.plain import ATOMS, kind_of, own
from symphony_es.errors import RestorationError
from symphony_es.events.values import Tagged
from symphony_es.failures import has_failed
from symphony_es.shown import quoted

if TYPE_CHECKING:
    from symphony_es.core.objects.making import Making

__all__ = ["brought_up"]


def brought_up(
    what: str,
    upcast: Callable[[dict[str, Any], int], Any],
    data: dict[str, Any],
    versions: tuple[int, int],
    making: Making,
    loose: Callable[[Any, Making], Any],
) -> dict[str, Any]:
    """Return what an upcast makes of stored fields; `making` notes stored forms that its objects hold, and parts whose hooks are due.

    Args:
        what: the entity's type or the class's name, for messages.
        upcast: takes the fields and their version.
        data: the stored fields.
        versions: that of the fields, and that of today.
        making: of the entity.
        loose: makes what the upcast gets.

    Raises:
        RestorationError: the upcast raised, or returned no dict, or one that holds itself or an entity's object.
    """
    inner = making.apart()
    given = loose(data, inner)
    before, today = versions
    try:
        made = upcast(given, before)
        if isinstance(made, dict):
            made = _Tree(inner).of(dict(made))
    except RestorationError:
        raise
    except BaseException as error:
        if not has_failed(error):
            raise
        unmade = f"; what it got holds stored forms: {'; '.join(inner.unmade.values())}" if inner.unmade else ""
        raise RestorationError(f"the upcast of {what} from version {before} to {today} failed: {quoted(error)}{unmade}") from error
    if not isinstance(made, dict):
        raise RestorationError(
            f"the upcast of {what} from version {before} returned {type(made).__name__}: it must return the state, a dict"
        )
    making.changed = True
    making.passed[id(data)] = (data, data.keys() & made.keys())
    hooked = {id(part) for part in inner.hooked}
    held = set[int]()
    for item, in_object in _contents(made):
        if kind_of(item) == "entity":
            raise RestorationError(_new_entity(what, type(item)))
        if type(item) is Tagged and in_object:
            making.cannot(item, inner.unmade.get(item.name, _left_inside(what, item)))
        elif id(item) in hooked:
            held.add(id(item))
    making.hooked += [part for part in inner.hooked if id(part) in held]
    return made


class _Tree:
    """What an upcast returned as the log will hold it: two places hold two values, so a part or container at a second place is a copy."""

    def __init__(self, making: Making) -> None:
        self._making = making  # notes the copies whose hooks are due
        self._met = set[int]()
        self._above = set[int]()

    def of(self, item: Any) -> Any:
        """Return the item, or a copy; the parts and tracked containers in it hold what is theirs alone.

        Raises:
            RestorationError: it holds itself.
        """
        cls = type(item)
        if cls in ATOMS or (cls not in _PLAIN and not is_node(item)):
            return item
        if id(item) in self._above:
            raise RestorationError(f"what an upcast returned is to be a tree, and a {cls.__name__} in it holds itself: leave it out there")
        self._above.add(id(item))
        made = self._plain(item) if cls in _PLAIN else self._node(item)
        self._above.discard(id(item))
        return made

    def _plain(self, item: Any) -> Any:
        return {key: self.of(held) for key, held in item.items()} if type(item) is dict else type(item)(map(self.of, item))

    def _node(self, node: Any) -> Any:
        if id(node) in self._met:
            node = clone(node)
            self._making.hooked += _hooked_in(node)
        self._met.add(id(node))
        for key, held in list(members(node)):
            made = self.of(held)
            if made is not held:
                place(node, key, made)
                own(made, node, key)
        return node


def _hooked_in(node: Any) -> list[Any]:
    """Return the parts in a copy that have a hook, inner ones first."""
    inner = [part for _, held in members(node) if is_node(held) for part in _hooked_in(held)]
    return [*inner, node] if kind_of(node) == "part" and type(node)._symphony_spec.hook is not None else inner


def _new_entity(what: str, cls: Any) -> str:
    name = quoted(cls._symphony_spec.name)
    return (
        f"the upcast of {what} put an object of the entity class {cls.__qualname__} into its result: an upcast adds no entity, so its "
        f"state would be lost; put EntityReference({name}, id) there, and add the entity once all are live"
    )


def _left_inside(what: str, item: Tagged) -> str:
    return f"the upcast of {what} put the stored form of {quoted(item.name)} into an object: make an object of it there, or leave it out"


def _contents(made: dict[str, Any]) -> Iterator[tuple[Any, bool]]:
    """Yield what an upcast's result holds, at any depth, and whether it stands inside an object rather than in plain containers."""
    todo: list[tuple[Any, bool]] = [(made, False)]
    seen = set[int]()
    while todo:
        item, in_object = todo.pop()
        cls = type(item)
        if cls in ATOMS or id(item) in seen:
            continue
        seen.add(id(item))
        yield item, in_object
        inside = in_object or cls not in _PLAIN
        todo += [(member, inside) for member in _members(item) if type(member) not in ATOMS]


_PLAIN = (dict, list, tuple, set)


def _members(item: Any) -> list[Any]:
    if isinstance(item, dict):
        return list(item.values())
    if isinstance(item, list | tuple | set | frozenset):
        return list(item)
    if type(item) is Tagged:
        return []
    return [getattr(item, name, None) for name in field_names(type(item)) or ()]
