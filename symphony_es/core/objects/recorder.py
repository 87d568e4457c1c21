"""What objects need of whoever records their changes: the world that they belong to, and their entity in it.

An object knows no more of the world than this. A run's values see the same through a `Boundary`.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from symphony_es.core.objects.types import TypeTable
    from symphony_es.events.changes import Change
    from symphony_es.events.references import EntityReference

__all__ = ["Lock", "Recorded", "Recorder", "Sink"]


class Sink(Protocol):
    """Where changes of one entity are recorded: a `Segment`, or a transaction's `Draft`."""

    def keep(self, change: Change, undo: tuple[Any, ...]) -> None:
        """Record a change that has been made, and what undoes it; one that cannot be recorded is undone. Errors are those of `advance`."""
        ...

    def note(self, undo: tuple[Any, ...]) -> None:
        """Note what undoes something that has changed no state: an object was replaced by an equal one."""
        ...


class Lock(AbstractContextManager[Any], Protocol):
    """A lock that its holder may take again, as `threading.RLock`."""

    def acquire(self) -> bool:
        """Wait for it, and take it."""
        ...

    def release(self) -> None:
        """Let it go."""
        ...


class Recorded(Protocol):
    """One entity: its object, and the plain state that everything recorded of it makes."""

    @property
    def key(self) -> str:
        """`Type:id`."""
        ...

    @property
    def entity_type(self) -> str:
        """The entity's type."""
        ...

    @property
    def reference(self) -> EntityReference:
        """The key as a reference."""
        ...

    @property
    def obj(self) -> Any:
        """The live object."""
        ...

    @property
    def shadow(self) -> dict[str, Any] | None:
        """The plain state; None while the entity does not exist, and for what cannot be changed."""
        ...

    @property
    def world(self) -> Recorder:
        """Whoever records it."""
        ...

    def sink(self) -> Sink:
        """Return where a change made right now is recorded; errors are those of the entity in its world."""
        ...


class Recorder(Protocol):
    """Whoever records changes of objects, with one lock for all of them."""

    @property
    def lock(self) -> Lock:
        """Held while an object is changed."""
        ...

    @property
    def types(self) -> TypeTable:
        """The names of declared classes in the log."""
        ...

    @property
    def restoring(self) -> bool:
        """Whether objects are made of states: then nothing is recorded."""
        ...

    @property
    def takes_objects(self) -> bool:
        """Whether values may be objects of foreign classes."""
        ...

    @property
    def copies_parts(self) -> bool:
        """Whether parts and containers are copied that somebody else has."""
        ...

    def around(self, obj: Any) -> Recorder:
        """Return this as the values of an entity see it."""
        ...

    def record_of(self, obj: Any) -> Recorded | None:
        """Return the entity that an object is here, or None."""
        ...

    def held(self, reference: EntityReference) -> Any | None:
        """Return the object of an entity, where there is one."""
        ...

    def may_take(self, record: Recorded) -> bool:
        """Return whether the running code may take parts and containers from an entity."""
        ...

    def check_referred(self, objects: Iterable[Any]) -> None:
        """Check that the entities which a change refers to are here or can be added."""
        ...

    def check_changes(self, record: Recorded, changes: Iterable[Change]) -> None:
        """Refuse changes that are to be recorded together where one of them would be refused."""
        ...

    def adopt_referred(self, obj: Any, by: Recorded | None) -> None:
        """Add an entity that a change of an added one refers to."""
        ...
