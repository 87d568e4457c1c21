"""The restorer that `@entity` registers: it rebuilds every field of the class from the state, without running the constructor."""

from __future__ import annotations

import dataclasses
from typing import Any

from symphony_es.core.objects.entity import ClassSpec
from symphony_es.core.objects.making import MAKERS, Making, default_of, enliven, new_object
from symphony_es.core.objects.places import detach
from symphony_es.core.objects.plain import UNOWNED, admit, attributes_of, own
from symphony_es.core.objects.rebuilding import rebuilt
from symphony_es.core.objects.restorers import EntityRestorer, RestorationContext
from symphony_es.errors import RestorationError, UnknownValueError
from symphony_es.events.references import EntityReference
from symphony_es.shown import quoted

__all__ = ["FLAT", "DeclaredEntityRestorer"]

FLAT = UNOWNED - {EntityReference}
"""Types whose values are live as they are stored, and refer to nothing: a state that holds only these needs no second look."""


class DeclaredEntityRestorer(EntityRestorer):
    """Makes objects of one `@entity` class. Fields the state lacks get their default; what the class lacks is reported."""

    wants_plain = True
    restored_class: Any

    def __init__(self, cls: Any) -> None:
        self.restored_class = cls
        self.spec: ClassSpec = cls._symphony_spec
        self._names = frozenset(self.spec.fields)
        self.state_version = self.spec.state_version
        self.rebuild = rebuilt if getattr(cls, "_symphony_at_boundary", False) else None

    @property
    def entity_type(self) -> str:
        """The entity type of the class."""
        return self.spec.name

    async def restore(self, entity_id: str, data: dict[str, Any], context: RestorationContext) -> Any:
        """Make the object from plain data; references stay in place until they are connected.

        Raises:
            UnknownValueError: a value of the state cannot be made.
        """
        made = new_object(self.restored_class)
        making = Making(context.symphony.restore_manager.types, context.passed)
        making.rebuild = self.rebuild
        self.fill(made, data, making)
        made.__dict__["id"] = entity_id
        context.hooked += making.hooked
        if self.spec.hook is not None:
            context.hooked.append(made)
        return made

    @property
    def is_exact(self) -> bool:
        """Whether it does what this class says, not what a subclass of it says: then what it makes need not be compared."""
        return type(self) is DeclaredEntityRestorer

    def make(self, entity_id: str, data: dict[str, Any], making: Making, *, flat: bool = False) -> Any | None:
        """Return what `restore` makes of a state, when it has exactly the declared fields; None when it has others.

        The object equals its state by construction: each field is the stored value, or the live form of it. What says otherwise stands in
        `making` afterwards.

        Args:
            making: notes what cannot be made, or differs from what is stored.
            flat: the state holds values of `FLAT` types only.
        """
        if tuple(data) == self.spec.fields:
            held = dict(data)
        elif data.keys() == self._names:
            held = {name: data[name] for name in self.spec.fields}
        else:
            return None
        made = new_object(self.restored_class)
        if not flat:
            for name, plain in held.items():
                maker = MAKERS.get(type(plain))
                if maker is not None:
                    held[name] = live = maker(plain, making)
                    own(live, made, name)
        held["id"] = entity_id
        _set_attributes(made, "__dict__", held)
        return made

    def fill(self, obj: Any, data: dict[str, Any], making: Making) -> None:
        """Set every field from plain data, unrecorded.

        Raises:
            RestorationError: a field has neither a stored value nor a default. Nothing has been set.
            UnknownValueError: a value cannot be made. Nothing has been set.
        """
        made = {field.name: self._live(field, data, making) for field in dataclasses.fields(self.restored_class)}
        if making.unmade:
            raise UnknownValueError(making.unmade)
        held = attributes_of(obj)
        for name, live in made.items():
            detach(held.get(name), f"{self.entity_type}:{held.get('id')}")
            held[name] = live
            own(live, obj, name)

    def _live(self, field: dataclasses.Field[Any], data: dict[str, Any], making: Making) -> Any:
        if field.name in data:
            plain = data[field.name]
            return enliven(plain, making) if type(plain) in MAKERS else admit(plain, None)  # an upcast may have made it
        live = default_of(field)
        if live is dataclasses.MISSING:
            raise RestorationError(
                f"a stored {self.entity_type} has no {quoted(field.name)}: give the field of {self.restored_class.__qualname__} a default, "
                "or raise state_version and write an upcast"
            )
        return live

    def capture(self, entity: Any) -> dict[str, Any]:
        """Return the live values of the fields."""
        return {name: entity.__dict__[name] for name in self.spec.fields}

    def upcast(self, data: dict[str, Any], from_version: int) -> dict[str, Any]:
        """Apply the class's `upcast`."""
        if self.spec.upcast is None or from_version > self.state_version:
            return super().upcast(data, from_version)
        return self.spec.upcast(data, from_version)


_set_attributes = object.__setattr__
