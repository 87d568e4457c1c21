"""Checkpoints: names for positions.

A checkpoint is an entity of the library's own, so making and deleting one are events and the list is a projection. Making one
costs what changed: pending changes are flushed, the position is the head right then, one event is appended. The snapshot it may
bring is written behind it.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from symphony_es.core.state.attribution import current_attribution
from symphony_es.core.state.foreign import raise_first
from symphony_es.core.state.past.moments import LATEST, read_moment
from symphony_es.core.state.transactions import open_scope_of
from symphony_es.diagnostics import get_logger
from symphony_es.errors import CheckpointError, CheckpointNotFoundError, ConcurrencyError, ConfigurationError, SymphonyError
from symphony_es.events.changes import REMOVE, SET, Change
from symphony_es.events.event import NewEvent
from symphony_es.events.identifiers import entity_key, text_id, uuid7
from symphony_es.events.rows import decode_row
from symphony_es.events.values import check_plain, copy_plain
from symphony_es.turns import TaskLock
from symphony_es_projections.checkpoints import CHECKPOINT_TYPE, CheckpointEntry, CheckpointList

if TYPE_CHECKING:
    from symphony_es.core.state.snapshots.snapshotter import Snapshotter
    from symphony_es.core.state.world import World
    from symphony_es.log.log import EventLog
    from symphony_es.log.writer import Ticket

__all__ = ["CheckpointManager", "CheckpointReader", "check_name"]

logger = get_logger(__name__)


def check_name(name: str | None) -> None:
    """Refuse a checkpoint's name that means something else wherever a checkpoint is asked for.

    Raises:
        ConfigurationError: it is empty or no text, `latest`, `checkpoint`, a number, or an ISO date or time.
    """
    if name is None:
        return
    if type(name) is not str or not name:
        raise ConfigurationError(f"a checkpoint's name is a text that is not empty, not {name!r:.60}")
    if name in (LATEST, "checkpoint") or read_moment(name) is not None:
        raise ConfigurationError(
            f"a checkpoint named {name!r} could never be meant: that text is a moment of its own; name it for example 'before-{name}'"
        )


def _check_means_one(checkpoint: Any) -> None:
    if not isinstance(checkpoint, str):
        raise ConfigurationError(
            f"a checkpoint is given by its id or its name, not by {type(checkpoint).__name__} {checkpoint!r:.60}"
            + ("; give its ['id']" if isinstance(checkpoint, Mapping) else "")
        )


class CheckpointReader:
    """Lists and finds the checkpoints of one log."""

    def __init__(self, log: EventLog) -> None:
        self.log = log
        self._entries: CheckpointList | None = None
        self._reading = TaskLock()
        self._flights: deque[tuple[Ticket, str, Change, bytes]] = deque()

    async def _list(self) -> CheckpointList:
        """The projection, read from the log at its first use and kept up to date from then on."""
        entries = self._entries
        if entries is None or self.log.read_only:  # another process makes and deletes checkpoints
            async with self._reading:  # one call reads the log, however many ask at once
                entries = self._entries
                if entries is None or self.log.read_only:
                    entries = entries or CheckpointList()
                    entries.feed([decode_row(row) for row in await self.log.rows_of_type(CHECKPOINT_TYPE, entries.position)])
                    self._entries = entries
        self._take_in(entries)
        return entries

    def _take_in(self, entries: CheckpointList) -> None:
        """Take in what has been appended here: from the submissions, since whoever waited for one may have been cancelled."""
        while self._flights and self._flights[0][0].done():
            ticket, checkpoint_id, change, event_id = self._flights.popleft()
            with suppress(SymphonyError):  # told to whoever waits for it
                appended = ticket.result()
                entries.record(checkpoint_id, change, event_id, appended.last, appended.time_ns)

    async def entries(self) -> list[CheckpointEntry]:
        """All checkpoints, newest first."""
        return (await self._list()).newest_first()

    async def find(self, checkpoint: str) -> CheckpointEntry:
        """The checkpoint with an id, or else the newest one with a name.

        Raises:
            CheckpointNotFoundError: there is none.
        """
        _check_means_one(checkpoint)
        found = (await self._list()).find(checkpoint)
        if found is None:
            raise CheckpointNotFoundError(checkpoint)
        return found


class CheckpointManager(CheckpointReader):
    """Makes and deletes the checkpoints of one log, too."""

    def __init__(self, log: EventLog, snapshotter: Snapshotter) -> None:
        super().__init__(log)
        self.snapshotter = snapshotter
        self._counting = TaskLock()

    async def create(
        self, world: World, name: str | None = None, metadata: Mapping[str, Any] | None = None, *, compare: bool = False
    ) -> str:
        """Name the present position; returns the checkpoint's id. It is durable when this returns.

        The list has it as soon as the log has it, also where the call is cancelled meanwhile.

        Args:
            world: whose changes so far are part of it.
            name: its name.
            metadata: plain data of the application's own.
            compare: record what changed in objects of foreign classes first, and compare the other objects that were changed or handed
                out since the last comparison with what was recorded.

        Raises:
            CheckpointError: called inside a transaction, whose changes are not in the log yet.
            ConfigurationError: a name by which it could never be meant, or metadata that are no dict.
            EntityOutOfStepError: changes of an entity could not be appended.
            UnrecordedChangeError: with `compare`, an object was changed past the methods of its list, dict or set (`heapq`).
            UnstorableValueError: the metadata are no plain data; with `compare`, an object holds what cannot be stored.
            DamagedEventError: the first call after opening counts the entities of the events since the nearest snapshot; one is damaged.
        """
        if open_scope_of(world) is not None:
            raise CheckpointError("a checkpoint cannot be made inside a transaction: its changes are not in the log before it ends")
        started = time.monotonic()
        check_name(name)
        if metadata is not None and not isinstance(metadata, Mapping):
            raise ConfigurationError(f"metadata are a dict of plain data, not {type(metadata).__name__} {metadata!r:.60}")
        details = dict(metadata or {})
        check_plain(details, ("metadata",))
        details = copy_plain(details)  # the caller may change what it has given while this waits
        await self._count(world)
        if compare:
            failures = world.foreign.record_others()
            raise_first([*failures, *await world.compare_objects()])
        await (world.flush() if compare else world.outbox.flush([]))  # the engine's own names a position, whoever is out of step
        with world.lock:
            world.outbox.settle()
            busy = world.outbox.unsettled or world.open_transactions  # then only what has been told is a position that is known whole
            position = world.outbox.settled_position if busy and world.outbox.settled_position else self.log.head
            entity_count = world.entity_count
        checkpoint_id = await self.name_position(position, entity_count, name, details)
        logger.info(
            "checkpoint_created", checkpoint_id=checkpoint_id, position=position, duration_ms=round((time.monotonic() - started) * 1000, 2)
        )
        return checkpoint_id

    async def _count(self, world: World) -> None:
        """Count the entities that the log had when it was opened: nobody needs to know before the first checkpoint asks."""
        if world.uncounted_until:
            async with self._counting:  # after a start a hundred runs take their first checkpoint at once, and one reads the log
                if world.uncounted_until:
                    count = await self.snapshotter.history.count_entities(world.uncounted_until)
                    with world.lock:
                        world.entity_count, world.uncounted_until = world.entity_count + count, 0

    async def name_position(self, position: int, entity_count: int, name: str | None, metadata: Mapping[str, Any]) -> str:
        """Give a position a name; nothing is flushed, and no world is needed. Returns the checkpoint's id, durable.

        Raises:
            ConfigurationError: a name by which it could never be meant.
            UnstorableValueError: name or metadata are no plain data.
        """
        check_name(name)
        event_id = uuid7(time.time_ns(), os.urandom(16))
        checkpoint_id = f"ckpt_{text_id(event_id)}"
        state = {
            "name": name if name is not None else f"checkpoint_at_{position}",
            "position": position,
            "entity_count": entity_count,
            "metadata": copy_plain(dict(metadata)),
        }
        check_plain(state)
        await self._append(checkpoint_id, 1, "CheckpointCreated", (SET, (), state), event_id)
        self.snapshotter.consider(position)
        return checkpoint_id

    async def _append(self, checkpoint_id: str, version: int, name: str, change: tuple[Any, ...], event_id: bytes) -> None:
        await self._list()
        event = NewEvent(
            entity_key=entity_key(CHECKPOINT_TYPE, checkpoint_id),
            version=version,
            name=name,
            changes=[change],
            metadata=current_attribution.get().metadata(),
            event_id=event_id,
            transaction_id=None,
        )
        prepared = self.log.prepare(event)
        if not self.log.has_room():
            await self.log.room()
        ticket = self.log.submit([prepared])
        self._flights.append((ticket, checkpoint_id, change, event_id))
        await ticket.wait()

    async def delete(self, checkpoint: str) -> bool:
        """Remove the name; the events stay. False when there is no such checkpoint, or another call removes it at this moment."""
        _check_means_one(checkpoint)
        entries = await self._list()
        found = entries.find(checkpoint)
        if found is None:
            return False
        try:
            await self._append(found.id, 2, "CheckpointDeleted", (REMOVE, ()), uuid7(time.time_ns(), os.urandom(16)))
        except ConcurrencyError:
            return False
        return True
