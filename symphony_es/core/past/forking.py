"""Forking a log: a new one that begins with the states of another one at a position, and names it."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

from symphony_es.attribution import current_attribution
from symphony_es.core.past.dividing import append_divided
from symphony_es.core.past.foreign_forks import append_foreign
from symphony_es.core.past.moments import check_boundary
from symphony_es.core.past.resting import definition_key
from symphony_es.core.past.states import StateHistory, live_states
from symphony_es.errors import TargetOccupiedError
from symphony_es.events.changes import SET
from symphony_es.events.event import NewEvent
from symphony_es.events.identifiers import FOREIGN_PREFIX, entity_key, text_id, uuid7
from symphony_es.events.rows import event_id_of
from symphony_es.files.directory import sync_directory, unavailable
from symphony_es.files.working import in_thread
from symphony_es.files.workplace import building
from symphony_es.late_dataclasses import dataclass
from symphony_es.log.log import EventLog
from symphony_es.log.targets import check_target
from symphony_es.system import absolute, is_directory, is_link, present

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from symphony_es.events.fold import Damage, EntityState
    from symphony_es.files.working import Stop

__all__ = ["FORK_TYPE", "ForkReport", "fork_log"]

FORK_TYPE = "symphony.Fork"
SLICE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkReport:
    """A fork that was made.

    Attributes:
        directory: the new log's directory.
        position: position of the origin that it began with.
        entities: how many entities it began with.
        eventsourcing_entities: how many aggregates, snapshots and progresses of eventsourcing applications it has beside.
        events: how many events the new log has.
        damaged: entities that were damaged there, by key: the new log goes on with their last good states.
    """

    directory: Path
    position: int
    entities: int
    events: int
    eventsourcing_entities: int = 0
    damaged: dict[str, Damage] = field(default_factory=dict)


async def fork_log(
    history: StateHistory, position: int, into: Path, *, origin: str | None, on_progress: Callable[[int, int], None] | None = None
) -> ForkReport:
    """Make a new log that begins with the states at a position.

    Its first event names the origin; then comes one event per entity with its whole state, and all events of eventsourcing applications,
    which have no states. Deleted entities, checkpoints and earlier events stay behind. The log is built beside its place and put there
    when it is whole: a crash leaves no half of one, and what it was building is removed by the next fork into that directory.

    Args:
        history: the origin's past states.
        position: where to fork.
        into: the new log's directory; it must not exist, or be empty.
        origin: the origin's directory, for the record; None in memory.
        on_progress: called with how many entities are done, and how many there are.

    Raises:
        TargetOccupiedError: there is something in that directory, or it is none.
        PositionInsideTransactionError: the position is in the middle of a transaction.
        PositionNotFoundError: the log does not have it.
        LogUnavailableError, StorageUnavailableError: the directory cannot be written.
    """
    await check_boundary(history.log, position)
    into = await asyncio.to_thread(_check_target, into)
    fold = await history.states_at(position)
    # A foreign entity has a state where it was once repaired; it has events here.
    states = {key: state for key, state in live_states(fold).items() if not key.startswith(FOREIGN_PREFIX)}
    damaged = {
        key: state.damage
        for key, state in fold.states.items()
        if state.damage is not None and (key in states or key.startswith(FOREIGN_PREFIX))
    }
    named = {key for state in states.values() if (key := definition_key(state)) is not None}
    async with building(into) as built:
        log = await EventLog.open(built)
        try:
            await log.append([await _origin(history, position, origin)])
            await _append_states(log, [fold.states[key] for key in sorted(named) if key in fold.states], None)
            await _append_states(log, list(states.values()), on_progress)
            foreign = await append_foreign(history.log, log, position, damaged)
            events = log.head
        finally:
            await log.close()
        await in_thread(lambda stop: _put_in_place(built, into, stop))
    return ForkReport(
        directory=into, position=position, entities=len(states), events=events, eventsourcing_entities=foreign, damaged=damaged
    )


def _check_target(into: Path) -> Path:
    check_target(into)
    with unavailable(f"{into} cannot be looked at"):
        there = is_link(into) or present(into)
        usable = is_directory(into) and not is_link(into)
        empty = usable and not any(into.iterdir())
    if there and not empty:
        raise TargetOccupiedError(into, f"it is {'not empty' if usable else 'no directory'}: fork into a directory that does not exist yet")
    return absolute(into)


def _put_in_place(built: Path, into: Path, stop: Stop) -> None:
    sync_directory(built)
    _check_target(into)  # once more: the states may have taken a while
    stop.look()
    with unavailable(f"{into} cannot be put in place"):
        built.rename(into)
    sync_directory(into.parent)


async def _origin(history: StateHistory, position: int, origin: str | None) -> NewEvent:
    event_id = uuid7(time.time_ns(), os.urandom(16))
    anchor = event_id_of((await history.log.row_at(position))[4]) if position else None
    # What of a path is no UTF-8 is no text: it stands as escapes.
    told = None if origin is None else os.fsencode(origin).decode("utf-8", "backslashreplace")
    state = {"directory": told, "position": position, "event_id": text_id(anchor) if anchor is not None else None}
    return NewEvent(
        entity_key=entity_key(FORK_TYPE, f"fork_{text_id(event_id)}"),
        version=1,
        name="LogForked",
        changes=[(SET, (), state)],
        metadata=current_attribution.get().metadata(),
        event_id=event_id,
    )


async def _append_states(log: EventLog, states: Sequence[EntityState], on_progress: Callable[[int, int], None] | None) -> None:
    for start in range(0, len(states), SLICE):
        events: list[NewEvent] = []
        for state in states[start : start + SLICE]:
            events.append(_adopted(state, events))
        await append_divided(log, events)
        if on_progress is not None:
            on_progress(start + len(events), len(states))


def _adopted(state: EntityState, before: list[NewEvent]) -> NewEvent:
    return NewEvent(
        entity_key=state.key,
        version=1,
        name="Forked",
        changes=[(SET, (), state.data)],
        metadata=current_attribution.get().metadata(
            state_version=state.state_version if state.state_version != 1 else None, generation=state.generation or None
        ),
        data={"version": state.version, "position": state.position, **({"damage": str(state.damage)} if state.damage is not None else {})},
        event_id=uuid7(time.time_ns(), os.urandom(16)),
        transaction_id=before[0].event_id if before else None,
    )
