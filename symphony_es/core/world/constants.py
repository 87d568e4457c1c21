"""Constant entities: what many refer to, written once per log under the hash of its content, and never changed.

A run names its definition by such a hash. The event is part of the transaction that brings the first run that names it; of several such
transactions the log keeps the first one's. The entities are the library's own: no world has objects of them, and no rewind takes them
back. Objects that name one hold its `Constant`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from symphony_es.core.objects.plain import kind_of
from symphony_es.core.past.resting import RUN, definition_key
from symphony_es.events.identifiers import DEFINITION_PREFIX

if TYPE_CHECKING:
    from symphony_es.core.objects.recorder import Recorded
    from symphony_es.events.fold import EntityState

__all__ = ["Constant", "Constants", "constant_of"]

Find = Callable[[Collection[str]], Awaitable[Mapping[str, "EntityState"]]]
"""Reads states by their keys; without those that the log has not."""


class Constant:
    """A constant entity.

    Attributes:
        key: `symphony.Definition:<hash>`.
        made: what the application of it keeps here: the value that it has made of the state last.
    """

    __slots__ = ("__weakref__", "_state", "key", "made")

    def __init__(self, key: str, state: Callable[[], dict[str, Any]] | dict[str, Any], made: Any = None) -> None:
        self.key = key
        self.made = made
        self._state = state

    @property
    def state(self) -> dict[str, Any]:
        """Its state: plain data, not to be changed."""
        return self._state if isinstance(self._state, dict) else self._state()


def constant_of(obj: Any) -> Constant | None:
    """Return the constant entity that an `@entity` object names."""
    found: Constant | None = obj.__dict__.get("_symphony_constant") if kind_of(obj) == "entity" else None
    return found


class Constants:
    """Those that the objects of one world name; what no object names is not kept."""

    def __init__(self) -> None:
        self._known: WeakValueDictionary[str, Constant] = WeakValueDictionary()

    def get(self, key: str) -> Constant | None:
        """Return the constant of a key, where an object of this world names it."""
        return self._known.get(key)

    def keep(self, constant: Constant) -> Constant:
        """Note a constant that an object names; returns the one that is known under its key."""
        return self._known.setdefault(constant.key, constant)

    async def give(self, records: Mapping[str, Recorded], states: Iterable[EntityState], find: Find) -> None:
        """Give the objects of runs the constants that they name; one that the log has not is left out, and whoever needs it says so.

        Args:
            records: of the objects, by key.
            states: of the objects; others are passed over.
            find: reads states.
        """
        self.hand(records, await self.look_up(states, find))

    async def look_up(self, states: Iterable[EntityState], find: Find) -> dict[str, Constant]:
        """Return the constants that runs name, by the keys of the runs; see `give`."""
        runs = [state for state in states if state.key.startswith(RUN)]  # of a world's many states, only these can name one
        named = {state.key: key for state in runs if (key := definition_key(state)) is not None}
        if not named:
            return {}
        held = {key: constant for key in set(named.values()) if (constant := self._known.get(key)) is not None}
        missing = sorted(set(named.values()) - held.keys())
        for key, state in (await find(missing)).items() if missing else ():
            if key.startswith(DEFINITION_PREFIX) and state.data is not None:
                held[key] = self.keep(Constant(key, state.data))
        return {entity: held[key] for entity, key in named.items() if key in held}

    @staticmethod
    def hand(records: Mapping[str, Recorded], found: Mapping[str, Constant]) -> None:
        """Give objects the constants that were found for them."""
        for entity, constant in found.items():
            record = records.get(entity)
            if record is not None and hasattr(record.obj, "__dict__"):
                record.obj.__dict__["_symphony_constant"] = constant
