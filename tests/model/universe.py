"""Two universes with one shape: objects of declared classes in a Symphony, and plain Python objects that nobody tracks.

A program does everything to both. `form` brings an object of either, or a folded state, into one form that can be compared.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from symphony_es import entity, part, value
from symphony_es.core.state import EntityRestorer
from symphony_es.events.references import EntityReference
from symphony_es.events.values import Tagged


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@value
class Money:
    amount: int = 0
    unit: str = "EUR"


NOTHING = Money()


@part
class Line:
    text: str = ""
    price: Money = NOTHING
    tags: list[Any] = field(default_factory=list)
    notes: dict[Any, Any] = field(default_factory=dict)
    inner: Line | None = None


@entity(type="model.Box")
class Box:
    id: str = ""
    number: int = 0
    text: str = ""
    colour: Colour | None = None
    price: Money = NOTHING
    items: list[Any] = field(default_factory=list)
    table: dict[Any, Any] = field(default_factory=dict)
    members: set[Any] = field(default_factory=set)
    line: Line | None = None
    other: Any = None


@dataclass
class Gauge:
    """A class that knows nothing of the library; both universes use it."""

    id: str = ""
    number: int = 0
    items: list[Any] = field(default_factory=list)
    table: dict[Any, Any] = field(default_factory=dict)


class GaugeRestorer(EntityRestorer):
    """Rebuilds gauges."""

    entity_type = "Gauge"  # type: ignore[assignment]
    restored_class = Gauge

    async def restore(self, entity_id: str, data: dict[str, Any], context: Any) -> Gauge:
        """Make one of its fields."""
        return Gauge(**data)


@dataclass(eq=False)
class PlainLine:
    text: str = ""
    price: Money = NOTHING
    tags: list[Any] = field(default_factory=list)
    notes: dict[Any, Any] = field(default_factory=dict)
    inner: PlainLine | None = None


@dataclass(eq=False)
class PlainBox:
    id: str = ""
    number: int = 0
    text: str = ""
    colour: Colour | None = None
    price: Money = NOTHING
    items: list[Any] = field(default_factory=list)
    table: dict[Any, Any] = field(default_factory=dict)
    members: set[Any] = field(default_factory=set)
    line: PlainLine | None = None
    other: Any = None


LINE_FIELDS = ("text", "price", "tags", "notes", "inner")
BOX_FIELDS = ("number", "text", "colour", "price", "items", "table", "members", "line", "other")
GAUGE_FIELDS = ("number", "items", "table")
ATOMIC = frozenset((type(None), bool, int, float, str, bytes, Decimal, datetime))


def form(item: Any, top: bool = False) -> Any:
    """A value of any universe, or of a folded state, in one form: equal forms are equal by type and value."""
    cls = type(item)
    if cls in ATOMIC:
        return (cls.__name__, repr(item))
    if cls in (Line, PlainLine):
        return ("Line", tuple((name, form(getattr(item, name))) for name in LINE_FIELDS))
    if cls in (Box, PlainBox, Gauge) and not top:
        return ("reference", item.id)
    if cls in (Box, PlainBox):
        return tuple((name, form(getattr(item, name))) for name in BOX_FIELDS)
    if cls is Gauge:
        return tuple((name, form(getattr(item, name))) for name in GAUGE_FIELDS)
    if cls is Money:
        return ("Money", item.amount, item.unit)
    if isinstance(item, enum.Enum):
        return (cls.__name__, item.name)
    if cls is EntityReference:
        return ("reference", item.entity_id)
    if cls is Tagged:
        return _tagged_form(item)
    if isinstance(item, list):
        return ("list", tuple(form(one) for one in item))
    if isinstance(item, dict):
        return ("dict", frozenset((form(key), form(one)) for key, one in item.items()))
    if isinstance(item, (set, frozenset)):
        return ("set", frozenset(form(one) for one in item))
    if cls is tuple:
        return ("tuple", tuple(form(one) for one in item))
    return (cls.__name__, repr(item))


def _tagged_form(item: Tagged) -> Any:
    name = item.name.rpartition(":")[2]
    if item.kind == "enum":
        member = item.data if isinstance(item.data, str) else item.data[0]
        return (name, member)
    if name == "Line":
        return ("Line", tuple((key, form(item.data[key])) for key in LINE_FIELDS))
    return ("Money", item.data["amount"], item.data["unit"])


def state_form(state: dict[str, Any], fields: tuple[str, ...]) -> Any:
    """The form of an entity's folded state."""
    return tuple((name, form(state[name])) for name in fields)
