"""Reads the histories of runs: page by page, so that the event loop goes on in between, and each of them once where it is asked for often.

A run that is taken back again and again is asked for its history each time. What was read of it is kept for a while, and goes on with the
events that are new since; it is read anew where another run has got the id, or had it before.
"""

from __future__ import annotations

import asyncio
import threading
from bisect import bisect_right
from collections.abc import Callable, Mapping
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from symphony_es.errors import PositionNotFoundError
from symphony_es.events.event import Event
from symphony_es.events.fold import REPAIR_EVENT, REWIND_EVENT, EntityState
from symphony_es.events.identifiers import DEFINITION_PREFIX, entity_key
from symphony_es.events.rows import Row, decode_row
from symphony_es.workflow.engine.generations import NEVER_TAKEN_BACK, Generations
from symphony_es.workflow.engine.timeline import CREATIONS, FORK_EVENT, Timeline

if TYPE_CHECKING:
    from symphony_es.core.host import Host
    from symphony_es.workflow.definitions.definition import WorkflowDefinition
    from symphony_es.workflow.runs.run import Workflow

__all__ = ["Timelines", "creation", "definition_at", "generations_of", "read_timeline", "state_at"]

T = TypeVar("T")
PAGE = 200
"""Rows between two turns of the event loop."""

HEAVY_BYTES = 100_000
"""Rows that take more are read in a thread: a fork's state, or steps that were taken back by the thousand, stand in one event."""

MOST_RUNS = 16
MOST_BYTES = 2_000_000
"""What was read is kept for at most so many runs, whose histories have so many bytes; a run that goes on by itself needs none."""


class Kept(NamedTuple):
    """What was read of a run's history.

    Attributes:
        timeline: what it says.
        version: of the last event that was read.
        bytes: how long it is.
        state: what the run was at some position, as somebody has asked for it last.
    """

    timeline: Timeline
    version: int
    bytes: int
    state: EntityState | None = None


class Timelines:
    """What was read of the histories of the runs that were asked for last, by entity key: bounded, and of runs that may be at rest."""

    def __init__(self) -> None:
        self._kept: dict[str, Kept] = {}
        self._guard = threading.Lock()

    def take(self, key: str) -> Kept | None:
        """Hand one out, which nobody else has until it is kept again."""
        with self._guard:
            return self._kept.pop(key, None)

    def keep(self, key: str, kept: Kept) -> None:
        """Keep one for the next time; those that were asked for the longest time ago give way."""
        with self._guard:
            self._kept.pop(key, None)
            if kept.bytes <= MOST_BYTES:
                self._kept[key] = kept
            size = sum(each.bytes for each in self._kept.values())
            while size > MOST_BYTES or len(self._kept) > MOST_RUNS:
                size -= self._kept.pop(next(iter(self._kept))).bytes

    def knows(self, key: str) -> bool:
        """Return whether one is kept."""
        with self._guard:
            return key in self._kept

    def state(self, key: str) -> EntityState | None:
        """Return what a run was at the position that was asked for last; the caller's to read."""
        with self._guard:
            kept = self._kept.get(key)
        return None if kept is None else kept.state

    def note(self, state: EntityState) -> None:
        """Keep a state with its run's timeline, where that is kept."""
        with self._guard:
            kept = self._kept.get(state.key)
            if kept is not None:
                self._kept[state.key] = kept._replace(state=state)


async def read_timeline(symphony: Host, run: Workflow) -> Timeline:
    """Read a run's history; that of a fork begins with what it shares with the run that it was forked from.

    Raises:
        PositionNotFoundError: a part of the history is not kept.
        DamagedEventError: an event of it is damaged.
    """
    key = entity_key("Workflow", run.id)
    record = symphony.world.record_of(run)
    return await _read(symphony, key, Timeline.copy, once=record is not None and not record.generation)


async def state_at(symphony: Host, key: str, position: int) -> EntityState | None:
    """Return a run's state right after a position; None where it did not exist. Costs the events since the position that was asked for
    last.

    Raises:
        PositionNotFoundError: that part of the history is not kept.
    """
    timelines = _timelines(symphony)
    base = timelines.state(key)
    if base is not None and base.position <= position:
        state: EntityState | None = await symphony.state_history.entity_after(base, position)
    else:
        state = await symphony.state_history.entity_at(key, position)
    if state is not None and state.damage is None:
        timelines.note(state.copy())
    return state


async def definition_at(symphony: Host, state: Mapping[str, Any], position: int) -> WorkflowDefinition | None:
    """Read the definition that a run had in its state at a position, as far as this process can; None where the log does not have it.

    Raises:
        PositionNotFoundError: that part of the history is not kept.
    """
    from symphony_es.workflow.definitions.unread import read_as_far_as_known  # few runs go on with another definition

    stored = await symphony.state_history.entity_at(f"{DEFINITION_PREFIX}{state.get('definition_hash')}", position)
    if stored is None or stored.data is None:
        return None
    return read_as_far_as_known({**stored.data, "id": state["definition_id"]})


def _timelines(symphony: Host) -> Timelines:
    timelines: Timelines = symphony.service("workflow_engine").timelines
    return timelines


async def _read(symphony: Host, key: str, use: Callable[[Timeline], T], *, once: bool) -> T:
    """Use the timeline of a run, as far as its history goes now, before others may have it go on; it is kept for the next time.

    Args:
        symphony: whose run.
        key: the run's entity key.
        use: makes what is asked for of the timeline, which it may not keep.
        once: where no other run had the id before.
    """
    timelines = _timelines(symphony)
    kept = timelines.take(key)
    if kept is not None:
        kept = await _go_on(symphony, key, kept)
    if kept is None:
        kept = await _read_all(symphony, key, once=once)
    used = use(kept.timeline)
    timelines.keep(key, kept)
    return used


async def _go_on(symphony: Host, key: str, kept: Kept) -> Kept | None:
    """Feed a timeline with what is new; None where the run is another one since, and its history with it."""
    timeline, created = kept.timeline, kept.timeline.created
    version, size = kept.version, kept.bytes
    async for page in symphony.log.entity_pages(key, version, page=PAGE):
        if any(row[3] in CREATIONS for row in page):
            return None
        size += await _feed(timeline, page)
        if timeline.created != created:
            return None
        version = page[-1][2]
    return kept._replace(version=version, bytes=size)


async def _read_all(symphony: Host, key: str, *, once: bool) -> Kept:
    if once:
        fork = await _created(symphony, key, None, once=True)
    else:
        kept = await _feed_all(symphony, Timeline(key=key), key, None)
        fork = kept.timeline.fork
        if fork is None:
            return kept
    if fork is None or fork.name != FORK_EVENT:
        return await _feed_all(symphony, Timeline(key=key), key, None)
    original = entity_key("Workflow", fork.data["run_id"])
    if _timelines(symphony).knows(original):
        timeline = await _read(symphony, original, partial(Timeline.of_fork, key=key, created=fork), once=False)
        if timeline is not None:
            return await _feed_all(symphony, timeline, key, None)
    return await _read_with_originals(symphony, key, fork)


async def _read_with_originals(symphony: Host, key: str, fork: Event) -> Kept:
    """Read the history of a fork, and those that it shares."""
    shared: list[tuple[str, int]] = []
    created_at: list[int | None] = []  # of the runs whose histories are read, the last one first
    cut: int | None = None
    event: Event | None = fork
    while event is not None and event.name == FORK_EVENT:
        seen, said = event.position, event.data  # where the log was when the run was forked of that one
        created_at.insert(0, seen)
        if shared and event.position > shared[0][1]:
            del shared[0], created_at[0]  # what is shared ends before it began
        # A fork of a fork can begin before the fork that it was made of: what that one shares counts too.
        forked_at: int = said["position"]
        cut = forked_at if cut is None else min(cut, forked_at)
        part = entity_key("Workflow", said["run_id"])
        shared.insert(0, (part, cut))
        event = await _created(symphony, part, seen, once=False)
    created_at.insert(0, None if event is None else event.position)
    timeline, version, size = Timeline(shared, key), 0, 0
    for (part, last), begins in zip([*shared, (key, None)], created_at, strict=True):
        timeline.begin_history(begins)
        kept = await _feed_all(symphony, timeline, part, last)
        version, size = kept.version, size + kept.bytes
    return Kept(timeline, version, size)


async def _feed_all(symphony: Host, timeline: Timeline, key: str, until: int | None) -> Kept:
    """Feed a timeline with all rows of a run up to a position."""
    version = size = 0
    async for page in symphony.log.entity_pages(key, until_position=until, page=PAGE):
        size += await _feed(timeline, page)
        version = page[-1][2]
    return Kept(timeline, version, size)


async def _feed(timeline: Timeline, page: list[Row]) -> int:
    size = sum(len(row[4]) for row in page)
    if size > HEAVY_BYTES:
        await asyncio.to_thread(timeline.read, page)
    else:
        timeline.read(page)
    await asyncio.sleep(0)
    return size


async def _created(symphony: Host, key: str, until: int | None, *, once: bool) -> Event | None:
    row = await creation(symphony, key, until, once=once)
    return None if row is None else decode_row(row)


async def creation(symphony: Host, key: str, until: int | None, *, once: bool) -> Row | None:
    """Return the creation of the run that had an id at a position; `once` where no other one had it before.

    A rewind brings back the run that had the id where it goes to, whoever had it in between.
    """
    if once:
        return next(iter(await symphony.log.read_entity_rows(key, 0, until, 1)), None)
    held: list[tuple[int, Row | None]] = []
    async for page in symphony.log.entity_pages(key, until_position=until, page=PAGE):
        for row in page:
            if row[3] in CREATIONS:
                held.append((row[0], row))
            elif row[3] in (REWIND_EVENT, REPAIR_EVENT):
                event = decode_row(row)
                if isinstance(event.data, dict) and "to" in event.data:
                    before = bisect_right(held, event.data["to"], key=itemgetter(0))
                    held.append((row[0], held[before - 1][1] if before else None))
        await asyncio.sleep(0)
    return held[-1][1] if held else None


async def generations_of(symphony: Host, run: Workflow) -> Generations:
    """Return the generations of a run's addresses; nothing is read where the run was never taken back."""
    record = symphony.world.record_of(run)
    if record is None or record.generation == 0:
        return NEVER_TAKEN_BACK
    await symphony.world.flush(run)
    try:
        timeline = await read_timeline(symphony, run)
        owed = {taken.address: taken.position for known, taken in timeline.taken_back.items() if known not in timeline.undone}
        return Generations(timeline.raised, owed)
    except PositionNotFoundError:  # in memory, a history may be cut: then all of the run counts as taken back so often
        return Generations({"": record.generation})
