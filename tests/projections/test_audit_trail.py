"""The audit trail answers what a look at every event of the log answers."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import pytest

from symphony_es.errors import ConfigurationError
from symphony_es.events.event import Event, EventMetadata, NewEvent
from symphony_es.log.log import EventLog
from symphony_es.projections import AuditFilter, AuditTrail, open_current
from tests.projections.conftest import RunnerMaker


async def history(log: EventLog) -> list[Event]:
    """Events of some types, runs, actors and transactions, each with a cause or none."""
    versions: dict[str, int] = {}
    ids: list[bytes] = []
    for index in range(240):
        key = f"{('Task', 'Agent', 'symphony.Checkpoint')[index % 3]}:{index % 7}"
        events = []
        for part in range(1 + index % 2):
            versions[key] = versions.get(key, 0) + 1
            ids.append(os.urandom(16))
            why = EventMetadata(
                actor=(None, "ada", "bob")[index % 3],
                reason="why" if index % 4 == 0 else None,
                run_id=f"run{index % 5}" if index % 2 else None,
                step="s" if index % 2 else None,
                correlation_id=(None, "c1")[index % 2],
                cause=ids[index // 2] if index % 3 and ids[index // 2] != ids[-1] else None,
            )
            name = ("Started", "Ended", "Failed")[(index + part) % 3]
            changes = [(0, (), {"n": index})] if versions[key] == 1 else [(0, ("n",), index)]
            first = ids[-1 - part] if part else None
            events.append(
                NewEvent(
                    entity_key=key, version=versions[key], name=name, changes=changes, metadata=why, event_id=ids[-1], transaction_id=first
                )
            )
        await log.append(events)
    return [event async for events in log.read() for event in events]


def filters(events: list[Event]) -> list[AuditFilter]:
    """Every condition alone, and every pair of them."""
    some = events[100]
    conditions: dict[str, list[Any]] = {
        "entity": ["Task:3", "Task:none"],
        "entity_type": ["Agent", "symphony.Checkpoint"],
        "event": ["Started", ("Ended", "Failed"), ()],
        "actor": ["ada"],
        "run": ["run1"],
        "transaction": [some.transaction_id],
        "correlation": ["c1"],
        "since_ns": [some.time_ns],
        "until_ns": [some.time_ns],
        "after_position": [50],
        "before_position": [200],
    }
    single = [{name: value} for name, values in conditions.items() for value in values]
    pairs = [{**one, **two} for one, two in itertools.combinations(single, 2) if one.keys() != two.keys()]
    return [AuditFilter(**chosen) for chosen in [{}, *single, *pairs]]


async def test_finding_is_matching(log: EventLog, run: RunnerMaker) -> None:
    """For every filter the same positions as by looking at each event, in both orders, and page by page."""
    events = await history(log)
    trail = AuditTrail()
    await run(log, trail, batch=50).catch_up()
    for wanted in filters(events):
        expected = [event.position for event in events if wanted.matches(event)]
        asked = await wanted.by_position(log)
        assert asked.since_ns is asked.until_ns is None
        assert await AuditTrail.find(trail, asked, limit=1000) == expected, wanted
        assert await AuditTrail.find(trail, asked, limit=7, newest_first=True) == expected[::-1][:7], wanted
    assert await AuditTrail.find(trail) == [event.position for event in events][:100]
    paged: list[int] = []
    while page := await AuditTrail.find(trail, AuditFilter(actor="ada", after_position=paged[-1] if paged else None), limit=9):
        paged += page
    assert paged == [event.position for event in events if event.metadata.actor == "ada"]
    with pytest.raises(ConfigurationError):
        await AuditTrail.find(trail, limit=0)


async def test_a_row_is_what_the_event_says(log: EventLog, run: RunnerMaker) -> None:
    """All columns of all rows."""
    events = await history(log)
    trail = AuditTrail()
    await run(log, trail).catch_up()
    rows = await trail.read("SELECT * FROM audit ORDER BY position")
    assert len(rows) == len(events)
    for row, event in zip(rows, events, strict=True):
        assert (row["position"], row["entity_key"], row["version"], row["name"]) == (
            event.position,
            event.entity_key,
            event.version,
            event.name,
        )
        assert (row["time_ns"], row["entity_type"], row["event_id"]) == (event.time_ns, event.entity_type, event.event_id)
        assert row["transaction_id"] == event.transaction_id
        for column in ("cause", "actor", "reason", "run_id", "step", "correlation_id"):
            assert row[column] == getattr(event.metadata, column)


async def test_consequences_are_the_closure_over_causes(log: EventLog, run: RunnerMaker) -> None:
    """Against a walk through all events; with a limit the first ones."""
    events = await history(log)
    trail = AuditTrail()
    await run(log, trail).catch_up()
    most = 0
    for start in events[:60]:
        reached = {start.event_id}
        expected = []
        for event in events:
            if event.metadata.cause in reached and event.position > start.position:
                reached.add(event.event_id)
                expected.append(event.position)
        assert await AuditTrail.consequences(trail, start.position) == expected
        assert await AuditTrail.consequences(trail, start.position, limit=3) == expected[:3]
        most = max(most, len(expected))
    assert most > 10
    assert await AuditTrail.consequences(trail, 10_000) == []


async def test_every_question_has_an_index(log: EventLog, run: RunnerMaker, directory: Path) -> None:
    """No question about one thing looks at every row, or sorts; also asked from outside."""
    await history(log)
    runner = run(log, AuditTrail())
    await runner.catch_up()
    asked = {
        "entity": "x",
        "entity_type": "x",
        "event": "x",
        "actor": "x",
        "run": "x",
        "transaction": b"x",
        "correlation": "x",
    }
    with open_current(directory, "audit") as reader:
        for name, value in asked.items():
            where, parameters = AuditFilter(**{name: value}).where()
            plan = await reader.read(f"EXPLAIN QUERY PLAN SELECT position FROM audit WHERE {where} ORDER BY position LIMIT 5", parameters)
            assert plan[0]["detail"].startswith("SEARCH audit USING COVERING INDEX"), name
            assert len(plan) == 1, name
        assert await AuditTrail.find(reader, AuditFilter(entity="Task:3"), limit=2) == await AuditTrail.find(
            reader, AuditFilter(entity="Task:3", entity_type="Task"), limit=2
        )
