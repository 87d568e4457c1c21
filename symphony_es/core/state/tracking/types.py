"""Which classes stand behind the names of tagged values.

A state holds `Tagged("enum", "Priority", "HIGH")`, never an import path, so reading a log imports nothing. The table turns a
class into its name when a value is recorded, and a name into its class when a live object is restored. Tables form a chain:
each Symphony owns a child of the module-level restore manager's table.
"""

from __future__ import annotations

import enum

from symphony_es.errors import EntityTypeError
from symphony_es.events.identifiers import check_entity_type

__all__ = ["TypeTable"]


class TypeTable:
    """Names and classes of tagged values, with a parent that is asked second."""

    def __init__(self, parent: TypeTable | None = None) -> None:
        self.parent = parent
        self._by_name: dict[str, type] = {}
        self._by_class: dict[type, str] = {}

    def register(self, cls: type, name: str | None = None) -> str:
        """Register a class under a name (its own by default) and return the name; repeating it changes nothing.

        Raises:
            EntityTypeError: another class has the name. A class that was defined anew (same module and qualified name, as in a
                notebook) replaces the old one.
        """
        known = self.name_of(cls)
        if known is not None and name in (None, known):
            return known
        chosen = check_entity_type(name or cls.__name__)
        other = self.class_of(chosen)
        if other is not None and other is not cls and not _same_source(other, cls):
            raise EntityTypeError(
                f"{_describe(cls)} cannot be registered as {chosen!r}: {_describe(other)} has that name; "
                "give one of them another: @entity(type=...), @part(name=...), @value(name=...), types.register(cls, name)"
            )
        self._by_name[chosen] = cls
        self._by_class[cls] = chosen
        return chosen

    def name_of(self, cls: type) -> str | None:
        """The registered name of a class, or None."""
        name = self._by_class.get(cls)
        if name is None and self.parent is not None:
            return self.parent.name_of(cls)
        return name

    def class_of(self, name: str) -> type | None:
        """The class behind a name, or None."""
        cls = self._by_name.get(name)
        if cls is None and self.parent is not None:
            return self.parent.class_of(name)
        return cls

    def name_of_enum(self, cls: type[enum.Enum]) -> str:
        """The name of an enum class, registered now if it was not met before."""
        return self.name_of(cls) or self.register(cls)


def _same_source(one: type, other: type) -> bool:
    return one.__module__ == other.__module__ and one.__qualname__ == other.__qualname__


def _describe(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
