"""Which entity refers to which, and where: what the connection phase of restoring follows, and impact questions ask.

An event costs what it changes. How often an entity refers to each target is kept by counting what a change takes away and what it
brings; where these references stand is looked up in the state when somebody asks, since one item more at the front of a list moves all
the others. The plain version of the counting, a walk through the whole state, is `_recount`, and is what is done where the changes of one
event build on each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from symphony_es.events.changes import ADD, APPEND, DISCARD, EXTEND, INSERT, REMOVE, SET, SPLICE, Change
from symphony_es.events.event import Event
from symphony_es.events.fold import EntityState, Fold
from symphony_es.events.paths import ABSENT, value_at
from symphony_es.events.references import EntityReference, Path, find_references
from symphony_es_projections.projection import Projection

__all__ = ["References"]

Found = list[tuple[Path, EntityReference]]
BRINGING = frozenset({APPEND, INSERT})
"""Operations that take nothing away."""


class References(Projection):
    """Every reference of every entity, in both directions, as of the last event fed.

    It can begin at a position, with the states as they were there.
    """

    name = "references"

    def __init__(self, states: Mapping[str, EntityState] | None = None, position: int = 0) -> None:
        super().__init__()
        self.position = position
        self._fold = Fold(dict(states or {}), position)
        self._places: dict[str, Found | None] = {}  # of entities that refer to any; None where it has to be looked up again
        for key, state in self._fold.states.items():
            found = _find(state)
            if found:
                self._places[key] = found
        self._held: dict[str, Counter[str]] | None = None  # how often each of them refers to which; counted when it is first needed
        self._in: dict[str, dict[str, int]] = {}

    def apply(self, event: Event) -> None:
        """Take one event in."""
        key, held = event.entity_key, self._counts()
        before = self._fold.states.get(key)
        difference = _difference(before.data if before is not None else None, event.changes)
        self._fold.apply_event(event)
        if difference is None:
            self._recount(key)
        else:
            for target, count in difference.items():
                self._count(key, target, count)
        if key in held:
            self._places[key] = None
        else:
            self._places.pop(key, None)

    def _counts(self) -> dict[str, Counter[str]]:
        if self._held is None:
            self._held = {}
            for key, found in self._places.items():
                for _, reference in found or ():
                    self._count(key, reference.key, 1)
        return self._held

    def _count(self, key: str, target: str, more: int) -> None:
        held, holders = self._counts().setdefault(key, Counter()), self._in.setdefault(target, {})
        held[target] = holders[key] = held[target] + more
        if not held[target]:
            del held[target], holders[key]
            if not held:
                del self._counts()[key]
            if not holders:
                del self._in[target]

    def _recount(self, key: str) -> None:
        for target, count in list(self._counts().get(key, {}).items()):
            self._count(key, target, -count)
        for _, reference in _find(self._fold.states[key]):
            self._count(key, reference.key, 1)

    def outgoing(self, key: str) -> list[tuple[Path, EntityReference]]:
        """Return where an entity refers to others: (path, target)."""
        if key not in self._places:
            return []
        found = self._places[key]
        if found is None:
            found = self._places[key] = _find(self._fold.states[key])
        return list(found)

    def incoming(self, key: str) -> list[str]:
        """Return keys of the entities that refer to one."""
        self._counts()
        return sorted(self._in.get(key, ()))

    def all(self) -> Iterator[tuple[str, Path, EntityReference]]:
        """Yield every reference: (key of the holder, path, target)."""
        for key in self._places:
            for path, reference in self.outgoing(key):
                yield key, path, reference


def _find(state: EntityState) -> Found:
    return [] if state.data is None else list(find_references(state.data))


def _difference(state: dict[str, Any] | None, changes: tuple[Change, ...]) -> Counter[str] | None:
    """Return how often changes bring a reference to which target, less how often they take one away.

    None where they build on each other.
    """
    found: Counter[str] = Counter()
    assigned: dict[Path, Any] = {}  # what earlier changes of the event have set there, or that they have moved what is there
    above: set[Path] = set()  # the places around those
    for change in changes:
        operation, path = change[0], tuple(change[1])
        if operation in BRINGING:
            found.update(_targets(change[-1]))
        else:
            if operation == EXTEND:
                continue
            if operation in (ADD, DISCARD) and next(_targets(change[2]), None) is None:
                continue  # members are independent of each other
            if operation == SET and assigned.get(path, _MOVED) is not _MOVED:
                before: Any = assigned[path]
            elif path in above or any(path[:length] in assigned for length in range(len(path) + 1)):
                return None
            else:
                before = (ABSENT if state is None else state) if not path else ABSENT if state is None else value_at(state, path)
            if not _take(found, change, before):
                return None
        assigned[path] = change[2] if operation == SET else _MOVED
        above.update(path[:length] for length in range(len(path)))
    return Counter({target: count for target, count in found.items() if count})


def _take(found: Counter[str], change: Change, before: Any) -> bool:
    """Count what a change does where `before` stands; False where it does not fit."""
    operation = change[0]
    if operation in (SET, REMOVE):
        found.subtract(_targets(before))
        found.update(_targets(change[2]) if operation == SET else ())
    elif operation == SPLICE and type(before) is list:
        found.subtract(_targets(before[change[2] : change[3]]))
        found.update(_targets(change[4]))
    elif operation in (ADD, DISCARD) and type(before) is set:
        if (change[2] in before) is (operation == DISCARD):
            (found.update if operation == ADD else found.subtract)(_targets(change[2]))
    else:
        return False
    return True


_MOVED: Any = object()


def _targets(value: Any) -> Iterator[str]:
    return (reference.key for _, reference in find_references(value)) if value is not ABSENT else iter(())
