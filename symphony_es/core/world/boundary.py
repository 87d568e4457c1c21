"""Values that cross the boundary of a step: outputs, arguments, signals and the context of a run.

What the fields of an entity hold is tracked, so an object that changes in place unseen is refused there. What a step returns does not
change any more: an object of a class with declared fields (dataclass, pydantic, attrs, named tuple) is stored as a tagged value, and the
run holds one that was made of what is stored. Each reader gets a copy of its own. It is the same in the process that ran the step and in
the one that goes on after a crash.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from symphony_es.core.objects.capture import field_names, plain_value
from symphony_es.core.objects.everyday import everyday_of
from symphony_es.core.objects.mapped import is_mapped
from symphony_es.core.objects.plain import admit, kind_of
from symphony_es.core.objects.rebuilding import revive
from symphony_es.errors import UnstorableValueError
from symphony_es.events.references import find_references

if TYPE_CHECKING:
    from collections.abc import Mapping

    from symphony_es.core.objects.recorder import Recorded
    from symphony_es.core.world.members import Members

__all__ = ["Boundary", "is_object", "taken_in"]


def is_object(value: Any) -> bool:
    """Return whether a value is an object of a foreign class with declared fields, or of an everyday class of the standard library."""
    cls = type(value)
    if everyday_of(cls) is not None:
        return True
    return field_names(cls) is not None and kind_of(value) is None and not is_mapped(cls)


class Boundary:
    """A world as the values of a run see it: they may be objects of foreign classes."""

    takes_objects = True

    def __init__(self, world: Members) -> None:
        self._world = world
        self.types = world.types

    def __getattr__(self, name: str) -> Any:
        """Return everything else from the world."""
        return getattr(self._world, name)

    def keep(self, value: Any) -> Any | None:
        """Return an object of a foreign class as a run holds it: one of its own, made of what is stored; None for anything else.

        Raises:
            UnstorableValueError: it holds what cannot be stored, or a live entity.
        """
        return revive(self.plain(value), self.types) if is_object(value) else None

    def plain(self, value: Any) -> Any:
        """Return what is stored of it.

        Raises:
            UnstorableValueError: it cannot be stored; or it holds a live entity.
        """
        plain = plain_value(value, self._world)
        for path, reference in find_references(plain):
            raise UnstorableValueError(path, f"a {type(value).__qualname__} cannot hold the entity {reference.key} here: hand on its id")
        return plain


class _Entrance(Boundary):
    """The boundary of a run that is being made: nothing becomes part of it that its caller or a live entity has."""

    copies_parts = True

    def may_take(self, record: Recorded) -> bool:
        """Return False: the run gets a copy."""
        return False

    def keep(self, value: Any) -> Any | None:
        """Keep like `Boundary.keep`; an object that was added as an entity stays what it is, and is stored as a reference."""
        return None if self._world.record_of(value) is not None else super().keep(value)


def taken_in(world: Members, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values of fields as a new run holds them: what a step could hand over is taken in as from a step, and is the run's own.

    Raises:
        UnstorableValueError: one of them cannot be stored, with its path.
    """
    entrance: Any = _Entrance(world)
    held = {}
    for name, value in values.items():
        try:
            held[name] = admit(value, entrance)
        except UnstorableValueError as error:
            raise error.within(None, (name,)) from None
    return held
