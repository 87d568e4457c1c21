"""How one state points at another entity: by type and id, never by a copy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from symphony_es.events.identifiers import check_entity_id, check_entity_type, split_key
from symphony_es.late_dataclasses import dataclass

__all__ = ["EntityReference", "Path", "find_references"]

Path = tuple[str | int, ...]
"""Where something stands in a state: keys of dicts, fields of parts, indexes of lists."""


@dataclass(frozen=True, slots=True)
class EntityReference:
    """A reference to an entity.

    Raises:
        InvalidIdentifierError: type or id cannot be stored.
    """

    entity_type: str
    entity_id: str

    def __post_init__(self) -> None:
        check_entity_type(self.entity_type)
        check_entity_id(self.entity_id)

    @classmethod
    def parse(cls, key: str) -> EntityReference:
        """Return the reference written as `Type:id`.

        Raises:
            InvalidIdentifierError: the text is none.
        """
        return cls(*split_key(key))

    @property
    def key(self) -> str:
        """`Type:id`."""
        return f"{self.entity_type}:{self.entity_id}"

    def __str__(self) -> str:
        return self.key


def find_references(state: Any, path: Path = ()) -> Iterator[tuple[Path, EntityReference]]:
    """Yield every reference in plain data with its path; for a member of a set, the path of the set."""
    cls = type(state)
    if cls is EntityReference:
        yield path, state
    elif cls is dict:
        for key, item in state.items():
            if type(item) not in _LEAVES:
                yield from find_references(item, (*path, key))
    elif cls is list or cls is tuple:
        for index, item in enumerate(state):
            if type(item) not in _LEAVES:
                yield from find_references(item, (*path, index))
    elif cls is set:
        for item in state:
            if type(item) not in _LEAVES:
                for _, reference in find_references(item):
                    yield path, reference
    elif cls not in _LEAVES and hasattr(state, "kind") and state.kind in ("part", "value"):
        yield from find_references(state.data, path)


_LEAVES = frozenset({str, int, float, bool, bytes, type(None)})
