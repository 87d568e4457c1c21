"""The classes of a small application, for tests."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

from symphony_es import entity, part, value


class Priority(enum.Enum):
    LOW = 1
    HIGH = 2


@value
class Money:
    amount: int
    currency: str = "EUR"


@part
class Line:
    text: str
    price: Money = Money(0)
    tags: list[str] = field(default_factory=list)


@entity
class Customer:
    id: str = ""
    name: str = ""
    friends: list[Any] = field(default_factory=list)
    boss: Any = None
    notes: dict[str, Any] = field(default_factory=dict)


@entity
class Invoice:
    id: str = ""
    customer: Any = None
    lines: list[Line] = field(default_factory=list)
    paid: bool = False
    total: Money = Money(0)
    priority: Priority = Priority.LOW
    labels: set[str] = field(default_factory=set)
    extra: dict[Any, Any] = field(default_factory=dict)


@dataclass
class Thermometer:
    """A class that knows nothing of the library."""

    id: str
    degrees: float = 0.0
    readings: list[float] = field(default_factory=list)
