"""The containers and nested objects that a foreign object is made of, so that a rollback fills the same ones again.

A rolled-back block may have replaced a list by another, or changed it in place; code outside may hold it under a name of its own. What is
put back is put into the object that stood there when the block was handed the entity: its identity comes back with its content.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import is_
from typing import Any

from symphony_es.core.objects.capture import capture_object, captured_fields, is_frozen, set_attribute, take_away
from symphony_es.core.objects.mapped import is_mapped
from symphony_es.core.objects.plain import ATOMS, MAX_DEPTH, kind_of
from symphony_es.core.objects.types import TypeTable
from symphony_es.errors import SymphonyError
from symphony_es.events.values import Tagged

__all__ = ["Shape", "put_back", "shape_of"]


class Shape:
    """One container or nested object, and those that stand in it, by key or name.

    Attributes:
        obj: the object.
        below: the shapes of what it holds.
    """

    __slots__ = ("below", "obj")

    def __init__(self, obj: Any, below: dict[Any, Shape]) -> None:
        self.obj = obj
        self.below = below


def shape_of(obj: Any) -> Shape:
    """Return the shape of an entity's object; of what cannot be read, none is known."""
    try:
        held = capture_object(obj)
    except (SymphonyError, AttributeError):
        held = {}
    return Shape(obj, _below(held.items(), 1))


def _below(items: Any, depth: int) -> dict[Any, Shape]:
    return {key: shape for key, item in items if type(item) not in ATOMS and (shape := _shape(item, depth)) is not None}


def _shape(value: Any, depth: int) -> Shape | None:
    cls = type(value)
    if depth > MAX_DEPTH or cls is str or kind_of(value) is not None:
        return None
    if cls in (list, tuple):
        return Shape(value, _below(enumerate(value), depth + 1))
    if cls is dict:
        return Shape(value, _below(value.items(), depth + 1))
    if cls is set:
        return Shape(value, {})
    if is_mapped(cls):
        return None
    try:
        held = captured_fields(value)
    except (SymphonyError, AttributeError):
        return None
    return None if held is None else Shape(value, _below(held.items(), depth + 1))


def put_back(shape: Shape, state: dict[str, Any], types: TypeTable, revive: Callable[[Any], Any]) -> None:
    """Make an entity's object equal to a state, of the same containers and nested objects as far as the state has them.

    Args:
        shape: of the object, as it was when it had that state.
        state: plain data.
        types: names the classes.
        revive: makes live values of what is not in the shape.
    """
    obj = shape.obj
    take_away(obj, state)
    for name, plain in state.items():
        set_attribute(obj, name, _filled(plain, shape.below.get(name), types, revive))


def _filled(plain: Any, shape: Shape | None, types: TypeTable, revive: Callable[[Any], Any]) -> Any:
    """Return the live value of plain data, made of what stood in its place."""
    if shape is None:
        return revive(plain)
    obj: Any = shape.obj
    cls = type(plain)
    if cls in (list, tuple) and type(obj) is cls:
        items = [_filled(item, shape.below.get(index), types, revive) for index, item in enumerate(plain)]
        if cls is tuple:
            return obj if len(obj) == len(items) and all(map(is_, obj, items)) else tuple(items)
        kept: Any = obj
        kept[:] = items
    elif cls is dict and type(obj) is dict:
        filled = {key: _filled(item, shape.below.get(key), types, revive) for key, item in plain.items()}
        obj.clear()
        obj.update(filled)
    elif cls is set and type(obj) is set:
        members = revive(plain)
        obj.clear()
        obj.update(members)
    elif cls is Tagged and plain.kind != "enum" and types.name_of(type(obj)) == plain.name:
        return _filled_object(plain, shape, types, revive)
    else:
        return revive(plain)
    return obj


def _filled_object(plain: Tagged, shape: Shape, types: TypeTable, revive: Callable[[Any], Any]) -> Any:
    obj = shape.obj
    fields = {name: _filled(item, shape.below.get(name), types, revive) for name, item in plain.data.items()}
    if is_frozen(type(obj)):
        held = captured_fields(obj) or {}
        same = held.keys() == fields.keys() and all(held[name] is item for name, item in fields.items())
        return obj if same else revive(plain)
    take_away(obj, fields)
    for name, item in fields.items():
        set_attribute(obj, name, item)
    return obj
