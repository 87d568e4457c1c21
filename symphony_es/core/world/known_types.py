"""What this process knows of the types of entities: for `Names`, which says what an argument means."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from symphony_es.core.objects.capture import field_names, plain_state
from symphony_es.core.objects.making import Making
from symphony_es.core.objects.restorers import upcast_state
from symphony_es.events.references import EntityReference
from symphony_es.events.values import copy_plain
from symphony_es.failures import has_failed

if TYPE_CHECKING:
    from symphony_es.core.objects.restorers import RestoreManager
    from symphony_es.core.world.world import World
    from symphony_es.events.fold import EntityState

__all__ = ["KnownTypes", "named_entities"]


class KnownTypes:
    """The types of a process's classes, restorers and live objects.

    Args:
        restorers: the classes and restorers.
        world: gives the live objects; None where there are none.
    """

    def __init__(self, restorers: RestoreManager, world: Callable[[], World | None]) -> None:
        self._restorers = restorers
        self._world = world

    def type_of_class(self, cls: type) -> str | None:
        """Return the type whose objects are of a class; None where nobody has said so."""
        for name in self._restorers:
            restorer = self._restorers.restorer_for(name)
            if restorer is not None and restorer.restored_class is cls:
                return name
        world = self._world()
        if world is None:
            return None
        live = next((record.entity_type for record in world.records.values() if type(record.obj) is cls), None)
        return live or world.given_type(cls)

    def has_type(self, entity_type: str) -> bool:
        """Return whether a class or restorer has a type."""
        return self._restorers.restorer_for(entity_type) is not None

    def types(self) -> Iterable[str]:
        """Return the types that classes and restorers have."""
        return self._restorers

    def live_types(self) -> set[str]:
        """Return the types of the live entities."""
        world = self._world()
        return {key.partition(":")[0] for key in (*world.records, *world.removed)} if world is not None else set()

    def key_of(self, obj: Any) -> str | None:
        """Return `Type:id` of a live object; None of anything else."""
        world = self._world()
        record = world.record_of(obj) if world is not None else None
        return record.key if record is not None else None

    def declared_fields(self, entity_type: str) -> tuple[str, ...]:
        """Return the fields that the class of a type declares; none where no class is known, or it declares none."""
        restorer = self._restorers.restorer_for(entity_type)
        cls = restorer.restored_class if restorer is not None else None
        if cls is None:
            return ()
        spec = cls.__dict__.get("_symphony_spec")
        return tuple(spec.fields) if spec is not None else tuple(field_names(cls) or ())

    def state_version(self, entity_type: str) -> int:
        """Return the version of the state's shape that the class has; 1 where no class is known."""
        restorer = self._restorers.restorer_for(entity_type)
        return restorer.state_version if restorer is not None else 1

    def upcast(self, state: EntityState) -> dict[str, Any] | None:
        """Return what the class of an entity makes of a state of an older shape; None for one of today's, and where it fails to."""
        restorer = self._restorers.restorer_for(state.entity_type)
        if restorer is None or state.data is None or restorer.state_version == state.state_version:
            return None
        try:
            current = upcast_state(restorer, copy_plain(state.data), state.state_version, Making(self._restorers.types))
            return plain_state(current, world) if (world := self._world()) is not None else current
        except BaseException as error:  # of the application's classes: a resume reports it, and a question about the past goes without it
            if not has_failed(error):
                raise
            return None


def named_entities(given: Any, world: World) -> list[Any]:
    """Return what names several entities, as a list; what names one is one of one, also where it can be iterated, as
    pydantic models can.
    """
    if isinstance(given, str | type | EntityReference) or not isinstance(given, Iterable) or world.record_of(given) is not None:
        return [given]
    return list(given)
