"""Audit queries give what a look at every event gives: with a trail, with half of one, and without."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.core.past.audit import Audit
from symphony_es.core.past.opening import open_to_read
from symphony_es.errors import ConfigurationError, InvalidIdentifierError, PositionNotFoundError
from symphony_es.events.event import Event
from symphony_es.events.identifiers import text_id
from symphony_es_projections import AuditTrail, ProjectionRunner
from tests.application import Customer, Invoice
from tests.conftest import Opener


async def fill(symphony: Symphony, rounds: int = 30) -> None:
    """Events of two types by three actors, in transactions."""
    for number in range(rounds):
        with symphony.acting_as(("ann", "bob", "eve")[number % 3], reason=f"round {number}"):
            async with symphony.transaction(("Opened", "Changed")[number % 2], correlation=f"thread {number % 4}"):
                customer = symphony.entities.find(f"Customer:{number % 5}") or symphony.entities.add(Customer(id=str(number % 5)))
                customer.name = str(number)
                symphony.entities.add(Invoice(id=str(number), customer=customer))


async def all_events(symphony: Symphony) -> list[Event]:
    return [event async for page in symphony.log.read() for event in page]


@pytest.fixture(params=["memory", "disk"])
async def filled(request: pytest.FixtureRequest, reopen: Opener) -> AsyncIterator[Symphony]:
    """A Symphony with a history."""
    if request.param == "disk":
        symphony = await reopen()
        await fill(symphony)
        yield symphony
    else:
        async with Symphony() as symphony:
            await fill(symphony)
            yield symphony


CONDITIONS: list[dict[str, Any]] = [
    {},
    {"entity": "Customer:1"},
    {"entity_type": "Invoice"},
    {"event": "Opened"},
    {"event": ["Opened", "Changed"], "actor": "bob"},
    {"actor": "eve", "entity_type": "Customer"},
    {"actor": "nobody"},
    {"after_position": 10, "before_position": 20},
    {"entity": "Customer:1", "actor": "ann", "after_position": 5},
]


def meets(event: Event, conditions: dict[str, Any]) -> bool:
    """The conditions, in the plainest way."""
    names = conditions.get("event", event.name)
    return (
        conditions.get("entity", event.entity_key) == event.entity_key
        and conditions.get("entity_type", event.entity_type) == event.entity_type
        and event.name in ([names] if isinstance(names, str) else names)
        and conditions.get("actor", event.metadata.actor) == event.metadata.actor
        and conditions.get("after_position", 0) < event.position < conditions.get("before_position", 10**9)
    )


@pytest.mark.parametrize("conditions", CONDITIONS, ids=str)
async def test_every_way_of_asking_gives_the_same(filled: Symphony, conditions: dict[str, Any]) -> None:
    """Pages, newest first, streams; through the trail, through a trail that lags behind, and from the log alone."""
    expected = [event for event in await all_events(filled) if meets(event, conditions)]
    assert await filled.audit.find(**conditions, limit=1000) == expected
    lagging = filled.log.head // 2

    trail_of_its_own = AuditTrail()
    runner = ProjectionRunner(filled.log, None)
    runner.add(trail_of_its_own)
    await runner.catch_up()

    async def half() -> Any:
        return trail_of_its_own, lagging

    async def none() -> None:
        return None

    for trail in (half, none):
        audit = Audit(filled.log, trail)
        assert await audit.find(**conditions, limit=1000) == expected
        assert await audit.find(**conditions, limit=1000, newest_first=True) == expected[::-1]
        assert await audit.find(**conditions, limit=3) == expected[:3]
        assert await audit.find(**conditions, limit=3, newest_first=True) == expected[::-1][:3]
        assert [event async for event in audit.stream(**conditions, page=2)] == expected
        assert [event async for event in audit.stream(**conditions, page=2, newest_first=True)] == expected[::-1]
    await runner.close()


async def test_a_stream_of_one_entity_costs_its_own_events(symphony: Symphony, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them is read once, and some more to find where a page begins; not all of them for each page."""
    customer = symphony.entities.add(Customer(id="c"))
    for number in range(600):
        async with symphony.transaction("Counted"):
            customer.name = str(number)
    rows_read: list[int] = []
    read = symphony.log.read_entity_rows

    async def counted(*arguments: Any) -> Any:
        rows = await read(*arguments)
        rows_read.append(len(rows))
        return rows

    monkeypatch.setattr(symphony.log, "read_entity_rows", counted)
    for newest_first in (False, True):
        versions = [event.version async for event in symphony.audit.stream(entity=customer, page=150, newest_first=newest_first)]
        assert versions == sorted(range(1, 602), reverse=newest_first)
        assert sum(rows_read) < 900
        rows_read.clear()
    assert [event.version for event in await symphony.audit.find(entity=customer, limit=2, newest_first=True)] == [601, 600]
    assert sum(rows_read) < 200


async def test_by_time_transaction_and_correlation(filled: Symphony) -> None:
    """Between two moments, both inclusive; of one transaction; nothing in the future."""
    events = await all_events(filled)
    first, last = events[10], events[29]
    low = datetime.fromtimestamp(first.time_ns // 1000 / 1e6, UTC)
    found = await filled.audit.find(since=low - timedelta(microseconds=5), until=last.recorded_at + timedelta(microseconds=5), limit=100)
    assert found[0].time_ns >= first.time_ns - 6000
    assert {event.position for event in events[10:30]} <= {event.position for event in found}
    assert await filled.audit.find(since=datetime.now(UTC) + timedelta(hours=1)) == []
    shown = last.recorded_at  # in microseconds: all events that show this time are meant, at both ends
    at_that_time = [event for event in events if event.recorded_at == shown]
    assert await filled.audit.find(since=shown, until=shown, limit=100) == at_that_time
    assert await filled.audit.find(transaction=text_id(first.transaction_id)) == [
        e for e in events if e.transaction_id == first.transaction_id
    ]


async def test_what_followed_from_an_event(filled: Symphony) -> None:
    """Through several steps; with a trail or without, the same."""
    events = await all_events(filled)
    assert await filled.audit.consequences(events[0].position) == []

    async def work(context: Any) -> str:
        filled.entities.get("Customer:1").name = "by a step"
        return "done"

    filled.functions.register("work", work)
    run = await filled.workflows.execute_workflow(
        {"name": "w", "steps": [{"kind": "function", "name": "work", "function": "work"}]}, auto_checkpoint=False
    )
    started = next(event for event in await filled.log.read_entity(f"Workflow:{run.id}") if event.name == "WorkflowStepStarted")
    followed = await filled.audit.consequences(started.position)
    assert [(event.name, event.entity_key) for event in followed] == [("CustomerChanged", "Customer:1")]

    async def none() -> None:
        return None

    assert await Audit(filled.log, none).consequences(started.position) == followed
    for asked in (filled.audit, Audit(filled.log, none)):
        assert [event async for event in asked.stream_consequences(started.position)] == followed
        assert [event async for event in asked.stream_consequences(started.position, limit=1)] == followed[:1]
    assert [event.name for event in await filled.audit.find(run=run.id)][:4] == [
        "DefinitionCreated",
        "WorkflowCreated",
        "WorkflowStarted",
        "WorkflowStepStarted",
    ]
    with pytest.raises(PositionNotFoundError):
        await filled.audit.consequences(10**6)


async def test_questions_that_make_no_sense(filled: Symphony) -> None:
    """Each is refused with a typed error."""
    with pytest.raises(ConfigurationError, match="at least one"):
        await filled.audit.find(limit=0)
    with pytest.raises(ConfigurationError, match="no time zone"):
        await filled.audit.find(since=datetime(2030, 1, 1))
    with pytest.raises(InvalidIdentifierError):
        await filled.audit.find(transaction="nonsense")
    for limit in (0, -1):
        with pytest.raises(ConfigurationError, match="at least one"):
            await filled.audit.consequences(1, limit=limit)
        with pytest.raises(ConfigurationError, match="at least one"):
            await anext(filled.audit.stream_consequences(1, limit=limit))


def files_opened() -> int:
    """How many files this process has open: those of a thread that begins meanwhile count, so that a bound leaves room for a few."""
    return len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0


async def test_another_process_reads_the_trail_and_what_came_after_it(reopen: Opener, tmp_path: Path) -> None:
    """Before the first question there is no trail; later it covers what it covers, and the log the rest."""
    symphony = await reopen()
    await fill(symphony, 10)
    looking = await open_to_read(tmp_path / "state")
    try:
        audit = Audit(looking.log, looking.audit_trail)
        expected = [event for event in await all_events(symphony) if event.metadata.actor == "bob"]
        assert await audit.find(actor="bob") == expected
        assert not (tmp_path / "state" / "projections").exists()
        assert await symphony.audit.find(actor="bob") == expected
        with symphony.acting_as("bob"):
            for number in range(5):
                symphony.entities.get(f"Invoice:{number}").paid = True
                await symphony.flush()
        expected = [event for event in await all_events(symphony) if event.metadata.actor == "bob"]
        assert await audit.find(actor="bob") == expected
        assert await audit.find(actor="bob", newest_first=True, limit=2) == expected[::-1][:2]
        opened = files_opened()
        assert [event async for event in audit.stream(actor="bob", page=1)] == expected
        assert len(expected) > 4
        assert files_opened() - opened < len(expected) // 2, "a stream of many pages opens no file for each"
    finally:
        await looking.close()


async def test_a_log_in_memory_answers_with_what_it_keeps() -> None:
    """Older events have been folded into a base state; the newer ones are all there."""
    async with Symphony({"memory_events": 50}) as symphony:
        customer = symphony.entities.add(Customer(id="c"))
        for number in range(300):
            customer.name = str(number)
            await symphony.flush()
        base = symphony.log.base
        assert base is not None
        kept = list(range(base.position + 1, symphony.log.head + 1))
        for conditions in ({}, {"entity": customer}, {"entity_type": "Customer"}):
            assert [event.position for event in await symphony.audit.find(**conditions, limit=1000)] == kept
            newest = await symphony.audit.find(**conditions, limit=3, newest_first=True)
            assert [event.position for event in newest] == kept[::-1][:3]
        history = await symphony.history(customer)
        assert [version.event.position for version in history] == kept
        assert (history[0].changes[0].before, history[0].changes[0].after) == (str(base.position - 1), str(base.position))
        assert [entry.event.position for entry in await symphony.blame(customer, "name")] == kept[::-1]
        assert await symphony.history(customer, after_version=kept[5]) == history[6:]
