"""Blame: what the events say that it names is what stands there, and it costs what they say. Logs of plain changes, in memory."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest

from symphony_es.core.past import effects, tracing
from symphony_es.core.past.states import StateHistory
from symphony_es.core.past.time_travel import TimeTravel
from symphony_es.events.changes import ADD, APPEND, DISCARD, EXTEND, INSERT, REMOVE, SET, SPLICE, Change, apply_changes
from symphony_es.events.diff import diff
from symphony_es.events.event import EventMetadata, NewEvent
from symphony_es.events.fold import REWIND_EVENT
from symphony_es.events.paths import ABSENT, value_at
from symphony_es.events.values import Tagged, copy_plain, plain_equal
from symphony_es.log.log import EventLog

KEY = "Blamed:1"
State = dict[str, Any] | None


def an_event(version: int, changes: list[Change], name: str = "BlamedChanged") -> NewEvent:
    """An event of the entity."""
    event_id = version.to_bytes(16, "big")
    return NewEvent(entity_key=KEY, version=version, name=name, changes=changes, metadata=EventMetadata(), event_id=event_id)


async def past_of(events: list[NewEvent]) -> TimeTravel:
    """The past of a log that has these events."""
    log = EventLog.in_memory()
    await log.append(events)
    return TimeTravel(log, StateHistory(log, None), None)


def a_value(chance: random.Random, depth: int = 0) -> Any:
    """Plain data of any kind, a few levels deep; few different ones, so that equal ones meet."""
    kind = chance.randrange(9 if depth < 3 else 5)
    if kind < 5:
        return (0, 1, True, None, "x")[kind]
    if kind == 5:
        return {chance.choice(["a", "b", 1]): a_value(chance, depth + 1) for _ in range(2)}
    if kind == 6:
        return {0, 1}
    if kind == 7:
        return Tagged("part", "tests:Part", {"v": a_value(chance, depth + 1), "l": [0, "x"]})
    return [a_value(chance, depth + 1) for _ in range(chance.randrange(4))]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Each place of a value, and what stands there."""
    yield path, value
    inside = value.data if isinstance(value, Tagged) else value
    if isinstance(inside, dict):
        for key, item in inside.items():
            yield from places(item, (*path, key))
    elif isinstance(inside, list):
        for index, item in enumerate(inside):
            yield from places(item, (*path, index))


def a_change(chance: random.Random, state: dict[str, Any]) -> Change:
    """A change that fits a state."""
    path, value = chance.choice([(path, value) for path, value in places(state) if path])
    holder = value_at(state, path[:-1])
    if isinstance(value, list) and chance.random() < 0.8:
        kind, index = chance.randrange(4), chance.randint(0, len(value))
        if kind == 0:
            return (APPEND, path, a_value(chance))
        if kind == 1:
            return (INSERT, path, index, a_value(chance))
        if kind == 2 and value:
            return (REMOVE, (*path, chance.randrange(len(value))))
        stop = chance.randint(index, len(value))
        return (SPLICE, path, index, stop, chance.choice([[a_value(chance)], value[index:stop][::-1], []]))
    if isinstance(value, set):
        return (chance.choice([ADD, DISCARD]), path, chance.randrange(3))
    if isinstance(value, str) and chance.random() < 0.5:
        return (EXTEND, path, chance.choice(["", "y"]))
    if isinstance(holder, dict) and path != ("id",) and chance.random() < 0.2:
        return (REMOVE, path)
    return (SET, path, copy_plain(value) if chance.random() < 0.3 else a_value(chance))


def a_history(chance: random.Random, length: int) -> tuple[list[NewEvent], list[State]]:
    """Events of an entity that is changed, rewound, deleted and created again, and its state after each."""
    states: list[State] = [None]
    events: list[NewEvent] = []
    for version in range(1, length + 1):
        state, name = copy_plain(states[-1]), "BlamedChanged"
        if state is None or chance.random() < 0.04:
            changes: list[Change] = [(SET, (), {"id": "1", "items": [0, 1, 2], "d": {"k": [[1], {0}]}, "p": a_value(chance)})]
        elif chance.random() < 0.05:
            changes = [(REMOVE, ())]
        elif chance.random() < 0.1 and (earlier := chance.choice(states)) is not None:
            changes, name = diff(state, earlier), REWIND_EVENT
        else:
            changes, going = [], copy_plain(state)
            for _ in range(chance.choice([0, 1, 1, 1, 2, 5])):
                changes.append(a_change(chance, going))
                apply_changes(going, changes[-1:])
        events.append(an_event(version, changes, name))
        states.append(apply_changes(state, changes))
    return events, states


def at(state: State, path: tuple[Any, ...]) -> Any:
    """What stands at a path of a state that there may not be."""
    return ABSENT if state is None else value_at(state, path)


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same, by type and value."""
    return one is other or plain_equal(one, other)


@pytest.mark.parametrize("seed", range(16))
async def test_the_entries_lead_to_what_stands_there(seed: int) -> None:
    """Of every path that has ever been: as a look at all states finds them, each with what the one before left; so says history, too."""
    chance = random.Random(seed)
    events, states = a_history(chance, 25)
    past = await past_of(events)
    known = {path: None for state in states if state is not None for path, _ in places(state)}
    for path in chance.sample(sorted(known, key=repr), min(20, len(known))):
        until = chance.choice([len(events), len(events), chance.randint(1, len(events))])
        due = []
        for version, event in enumerate(events[:until], 1):
            before, after = at(states[version - 1], path), at(states[version], path)
            by_name = any(change[0] in (SET, EXTEND) and change[1] == path for change in event.changes)
            if by_name or not same(before, after):
                due.append((version, before, after))
        found = [(entry.event.version, entry.before, entry.after) for entry in reversed(await past.blame(KEY, path, until=until))]
        assert [version for version, _, _ in found] == [version for version, _, _ in due], (path, until)
        assert all(same(one[1], other[1]) and same(one[2], other[2]) for one, other in zip(found, due, strict=True)), (path, until)
        assert all(one[2] is two[1] or same(one[2], two[1]) for one, two in pairwise(found))
        if found:
            assert same(found[-1][2], at(states[until], path))
        if path:
            told = await past.history(KEY, path, until=until)
            assert [version.version for version in told] == [version for version, _, _ in found]


GROWTH: dict[str, tuple[Any, Callable[[int], list[Change]]]] = {
    "append": ([], lambda n: [(APPEND, ("v",), f"item {n}")]),
    "two at once": ([], lambda n: [(APPEND, ("v",), n), (APPEND, ("v",), n)]),
    "insert": ([], lambda n: [(INSERT, ("v",), 0, n)]),
    "append, and change one": ([[0]], lambda n: [(APPEND, ("v",), n), (SET, ("v", 0, 0), n)]),
    "keys of a dict": ({}, lambda n: [(SET, ("v", f"k{n}"), n)]),
    "members of a set": (set(), lambda n: [(ADD, ("v",), n), (ADD, ("v",), -n)]),
    "a long text": ("a" * 20_000, lambda n: [(EXTEND, ("v",), "b" * 50)]),
    "further in": ({"a": [{"b": []}]}, lambda n: [(APPEND, ("v", "a", 0, "b"), n)]),
    "a window that moves": ([0] * 100, lambda n: [(APPEND, ("v",), n), (REMOVE, ("v", 0))]),
    "one of many is set": ([0] * 300, lambda n: [(SET, ("v", n % 300), n)]),
}


@pytest.mark.parametrize("path", [("v",), ()])
@pytest.mark.parametrize("growth", GROWTH)
async def test_what_grows_costs_what_is_added(growth: str, path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Blame and history copy and keep a small multiple of what the events say, whatever the value has grown to."""
    start, step = GROWTH[growth]
    events = [an_event(1, [(SET, (), {"v": start})]), *(an_event(version, step(version)) for version in range(2, 202))]
    past = await past_of(events)
    copied = 0

    def counting(value: Any) -> Any:
        nonlocal copied
        copied += tracing._items(value)
        return copy_plain(value)

    monkeypatch.setattr(tracing, "copy_plain", counting)
    monkeypatch.setattr(effects, "copy_plain", counting)
    entries = await past.blame(KEY, path)
    assert len(entries) == 201
    assert len([version async for version in past.versions(KEY)]) == 201
    assert len(await past.history(KEY, path)) == 201
    assert copied < 12 * 201 + 4 * tracing._items(start)
    monkeypatch.undo()
    assert same(entries[0].after, value_at((await past.state_of(KEY)).data, path))
    assert same(entries[100].before, entries[101].after)


async def test_an_entry_costs_few_calls() -> None:
    """Reading an event, applying it and telling what it did: counted in calls of functions, whatever the machine does beside it."""
    events = [an_event(1, [(SET, (), {"items": []})])]
    events += [an_event(version, [(APPEND, ("items",), version)]) for version in range(2, 502)]
    past = await past_of(events)
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    await past.blame("Blamed:1", "items")  # what is made once is made
    sys.setprofile(count)
    try:
        found = await past.blame("Blamed:1", "items")
    finally:
        sys.setprofile(None)
    assert len(found) == 501
    assert calls < 56 * len(found)
