"""What a log says of the past, found by going through all of it, one event after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from symphony_es.events.changes import EXTEND, SET, apply_changes
from symphony_es.events.event import Event
from symphony_es.events.identifiers import text_id
from symphony_es.events.paths import ABSENT, value_at
from symphony_es.events.values import Tagged, copy_plain, plain_equal
from symphony_es.log.log import EventLog

__all__ = ["Brute", "Step", "covers", "differing", "microseconds", "places", "same"]

Path = tuple[Any, ...]
State = dict[str, Any] | None
_BEGIN = datetime(1970, 1, 1, tzinfo=UTC)


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same, by type and value."""
    return one is other if one is ABSENT or other is ABSENT else plain_equal(one, other)


def microseconds(moment: datetime) -> int:
    """Since 1970."""
    return (moment - _BEGIN) // timedelta(microseconds=1)


def _inside(value: Any) -> Any:
    return value.data if isinstance(value, Tagged) else value


def places(value: Any, path: Path = ()) -> Iterator[Path]:
    """Each place of a value."""
    yield path
    inside = _inside(value)
    if isinstance(inside, dict):
        for key, item in inside.items():
            yield from places(item, (*path, key))
    elif isinstance(inside, list):
        for index, item in enumerate(inside):
            yield from places(item, (*path, index))


def differing(one: Any, other: Any, path: Path = ()) -> list[Path]:
    """The places where two values differ: inside dicts their keys, of anything else the whole."""
    if same(one, other):
        return []
    left, right = _inside(one), _inside(other)
    alike = type(one) is type(other) and (not isinstance(one, Tagged) or (one.kind, one.name) == (other.kind, other.name))
    if not alike or not isinstance(left, dict) or not isinstance(right, dict):
        return [path]
    keys = dict.fromkeys([*left, *right])
    return [place for key in keys for place in differing(left.get(key, ABSENT), right.get(key, ABSENT), (*path, key))]


def covers(changes: list[Path], place: Path) -> bool:
    """Whether one of the paths that are told has to do with a place."""
    return any(path[: len(place)] == place or place[: len(path)] == path for path in changes)


@dataclass(frozen=True, slots=True)
class Step:
    """An event of an entity, with its states before and after."""

    event: Event
    before: State
    after: State


class Brute:
    """All events of a log, and all states.

    Attributes:
        events: in order. states: by position, of all entities, by key. steps: of each entity, by key.
    """

    def __init__(self, events: list[Event]) -> None:
        self.events = events
        self.states: list[dict[str, State]] = [{}]
        self.steps: dict[str, list[Step]] = {}
        for event in events:
            key, now = event.entity_key, dict(self.states[-1])
            before = now.get(key)
            now[key] = apply_changes(copy_plain(before), event.changes)
            self.states.append(now)
            self.steps.setdefault(key, []).append(Step(event, before, now[key]))

    @classmethod
    async def of(cls, log: EventLog) -> Brute:
        """Of a log."""
        return cls([event async for page in log.read() for event in page])

    def at(self, position: int) -> dict[str, dict[str, Any]]:
        """The states of the application's entities that were alive at a position."""
        return {key: state for key, state in self.states[position].items() if state is not None and not key.startswith("symphony.")}

    def position_at(self, moment: datetime) -> int:
        """The last position of an event that had been committed by then, to the microsecond."""
        return sum(event.time_ns // 1000 <= microseconds(moment) for event in self.events)

    def blame(self, key: str, path: Path, after: int, until: int) -> list[tuple[int, Any, Any]]:
        """Position, value before and after of each event that set a value, the last one first."""
        found = []
        for step in self.steps[key]:
            before, after_ = (ABSENT if state is None else value_at(state, path) for state in (step.before, step.after))
            by_name = any(change[0] in (SET, EXTEND) and tuple(change[1]) == path for change in step.event.changes)
            if after < step.event.position <= until and (by_name or not same(before, after_)):
                found.append((step.event.position, before, after_))
        return found[::-1]

    def audit(self, wanted: dict[str, Any]) -> list[int]:
        """The positions of the events that meet conditions as `Audit.find` has them."""
        return [event.position for event in self.events if _meets(event, wanted)]

    def consequences(self, position: int) -> list[int]:
        """The positions of what an event has led to."""
        known, found = {self.events[position - 1].event_id}, []
        for event in self.events[position:]:
            if event.metadata.cause in known:
                known.add(event.event_id)
                found.append(event.position)
        return found


def _meets(event: Event, wanted: dict[str, Any]) -> bool:
    names = wanted.get("event")
    names = [names] if isinstance(names, str) else names
    tests: dict[str, Callable[[Any], bool]] = {
        "entity": lambda given: event.entity_key == given,
        "entity_type": lambda given: event.entity_type == given,
        "event": lambda given: event.name in (names or ()),
        "actor": lambda given: event.metadata.actor == given,
        "transaction": lambda given: text_id(event.transaction_id) == given,
        "since": lambda given: event.time_ns // 1000 >= microseconds(given),
        "until": lambda given: event.time_ns // 1000 <= microseconds(given),
        "after_position": lambda given: event.position > given,
        "before_position": lambda given: event.position < given,
    }
    return all(tests[name](given) for name, given in wanted.items())
