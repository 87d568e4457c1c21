"""Checkpoints: names for positions.

A checkpoint is an entity of the library's own, so making and deleting one are events and the list is a projection. Making one
costs what changed: pending changes are flushed, the position is the head right then, one event is appended, and the list is not looked
at. The snapshot it may bring is written behind it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from symphony_es.attribution import current_attribution
from symphony_es.core.past.cached_lists import CachedList
from symphony_es.core.past.checkpoint_pages import CheckpointFilter, bounded
from symphony_es.core.past.moment_texts import CHECKPOINT_PREFIX, looks_like_a_moment, read_checkpoint
from symphony_es.core.past.moments import resolve
from symphony_es.diagnostics import get_logger
from symphony_es.errors import CheckpointNotFoundError, ConcurrencyError, ConfigurationError
from symphony_es.events.changes import REMOVE, SET
from symphony_es.events.event import NewEvent
from symphony_es.events.identifiers import UUID7_RANDOM_BYTES, entity_key, text_id, uuid7
from symphony_es.events.values import check_plain, copy_plain
from symphony_es.shown import shown
from symphony_es.system import RandomBytes
from symphony_es_projections.checkpoint_table import CheckpointTable
from symphony_es_projections.checkpoints import CHECKPOINT_TYPE, CheckpointEntry

if TYPE_CHECKING:
    from symphony_es.core.past.snapshots.snapshotter import Snapshotter
    from symphony_es.log.log import EventLog

__all__ = ["CheckpointManager", "CheckpointReader", "check_name"]

logger = get_logger(__name__)

FILE_NAME = "checkpoint_list.db"
"""Its file among the projections."""

MOST_NAME_BYTES = 2_048
"""An automatic one names a run and a step, of at most 512 bytes each."""

WINDOW = 50_000
"""So many positions are looked through for checkpoints at a time."""


def check_name(name: str | None) -> None:
    """Refuse a checkpoint's name that means something else wherever a checkpoint is asked for.

    Raises:
        ConfigurationError: it is empty or no text, takes more than 2,048 bytes, is `checkpoint`, or what reads as a moment: `latest`, a
            number, a time, an age (`2h`), an id, or a text with the prefix of one (`#`, `@`, `id:`, `name:`).
    """
    if name is None:
        return
    if type(name) is not str or not name:
        raise ConfigurationError(f"a checkpoint's name is a text that is not empty, not {shown(name)}")
    if len(name.encode("utf-8", "surrogatepass")) > MOST_NAME_BYTES:
        raise ConfigurationError(
            f"a checkpoint's name takes at most {MOST_NAME_BYTES:,} bytes in UTF-8, not {shown(name)}: what else is to be known is kept in "
            "its metadata"
        )
    if name == "checkpoint" or looks_like_a_moment(name):
        raise ConfigurationError(
            f"a checkpoint named {shown(name)} could never be meant: that text is a moment of its own; name it for example 'before-{name}'"
        )


class CheckpointReader(CachedList):
    """Lists and finds the checkpoints of one log. They are read from the log when they are asked for, and are not kept in memory.

    Args:
        log: the log. directory: where projections are.
        writes: whether the file there is this process's to write; else a copy of it is brought up to date.
    """

    def __init__(self, log: EventLog, directory: Path, *, writes: bool = False) -> None:
        path = directory / FILE_NAME
        self._checkpoints = CheckpointTable(path) if writes else CheckpointTable(None, copy_of=path)
        super().__init__(log, self._checkpoints, "the list of its checkpoints")

    async def _take_in(self, position: int, head: int) -> None:
        while position < head:
            self._check_open()
            until = min(position + WINDOW, head)
            rows = await self.log.read_rows(position, until, WINDOW, key_range=(f"{CHECKPOINT_TYPE}:", f"{CHECKPOINT_TYPE};"))
            until = rows[-1][0] if rows.cut else until
            last = rows[-1] if rows and rows[-1][0] == until else await self.log.row_at(until)
            await asyncio.to_thread(self._checkpoints.feed, rows, until, last[4])
            position = until

    async def entries(self, wanted: CheckpointFilter | None = None) -> list[CheckpointEntry]:
        """Return the checkpoints that are meant, newest first. Errors are those of `CheckpointFilter.query`."""
        await self.catch_up()
        wanted = wanted or CheckpointFilter()
        condition, parameters = await wanted.query(self)
        limit = None if wanted.limit is None else bounded(wanted.limit)
        found: list[CheckpointEntry] = await self._asked(self._checkpoints.find, condition, parameters, limit)
        return found

    async def find(self, checkpoint: str) -> CheckpointEntry:
        """Return the checkpoint with an id, or the newest one with a name: `id:` and `name:` say which; without them, either.

        Raises:
            CheckpointNotFoundError: there is none.
            AmbiguousMomentError: one has this id, and another one this name.
            ConfigurationError: it is no text, or a position or time.
        """
        found = await resolve(read_checkpoint(checkpoint), self)
        assert isinstance(found, CheckpointEntry), "nothing else was asked for"
        return found

    async def called(self, checkpoint_id: str | None, name: str | None) -> list[CheckpointEntry]:
        """Return the checkpoint with an id and the newest one with a name, as far as there are any; once where that is the same."""
        await self.catch_up()
        found: list[CheckpointEntry] = await self._asked(self._checkpoints.called, checkpoint_id, name)
        return found


class Present(Protocol):
    """The live entities, whose changes so far are to be part of a checkpoint."""

    def check_nameable(self) -> None:
        """Refuse where the running code's changes are not part of any position yet.

        Raises:
            CheckpointError: it is inside a transaction.
        """
        ...

    async def position_to_name(self, count: Callable[[int], Awaitable[int]], *, compare: bool) -> tuple[int, int]:
        """Bring all changes so far into the log; return the position that has them, and how many entities there are.

        Args:
            count: counts the entities at a position of the log, where nobody has done so since it was opened.
            compare: see `CheckpointManager.create`, also for the errors.
        """
        ...


class CheckpointManager(CheckpointReader):
    """Makes and deletes the checkpoints of one log, too."""

    def __init__(self, log: EventLog, snapshotter: Snapshotter, directory: Path) -> None:
        super().__init__(log, directory, writes=True)
        self.snapshotter = snapshotter
        self._random = RandomBytes(UUID7_RANDOM_BYTES)

    async def create(
        self, world: Present, name: str | None = None, metadata: Mapping[str, Any] | None = None, *, compare: bool = False
    ) -> str:
        """Name the present position; return the checkpoint's id. It is durable when this returns.

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
        world.check_nameable()
        started = time.monotonic()
        check_name(name)
        if metadata is not None and not isinstance(metadata, Mapping):
            raise ConfigurationError(f"metadata are a dict of plain data, not {type(metadata).__name__} {shown(metadata)}")
        details = dict(metadata or {})
        check_plain(details, ("metadata",))
        details = copy_plain(details)  # the caller may change what it has given while this waits
        position, entity_count = await world.position_to_name(self.snapshotter.history.count_entities, compare=compare)
        checkpoint_id = await self.name_position(position, entity_count, name, details)
        logger.info(
            "checkpoint_created", checkpoint_id=checkpoint_id, position=position, duration_ms=round((time.monotonic() - started) * 1000, 2)
        )
        return checkpoint_id

    async def name_position(self, position: int, entity_count: int, name: str | None, metadata: Mapping[str, Any]) -> str:
        """Give a position a name; nothing is flushed, and no world is needed. Returns the checkpoint's id, durable.

        Raises:
            ConfigurationError: a name by which it could never be meant.
            UnstorableValueError: name or metadata are no plain data.
        """
        check_name(name)
        event_id = self._event_id()
        checkpoint_id = f"{CHECKPOINT_PREFIX}{text_id(event_id)}"
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
        await self.log.submit([prepared]).wait()

    def _event_id(self) -> bytes:
        return uuid7(time.time_ns(), self._random.take())

    async def delete(self, checkpoint: str) -> bool:
        """Remove the name; the events stay. False when there is no such checkpoint, or another call removes it at this moment.

        Errors are those of `find`, but for a checkpoint that there is not.
        """
        read = read_checkpoint(checkpoint)
        if read.checkpoint_id is not None:  # the log knows by itself which ids there are: no list is needed
            if await self._delete(read.checkpoint_id):
                return True
            if read.checkpoint_name is None:
                return False
        try:
            found = await self.find(checkpoint)
        except CheckpointNotFoundError:
            return False
        return await self._delete(found.id)

    async def _delete(self, checkpoint_id: str) -> bool:
        try:
            await self._append(checkpoint_id, 2, "CheckpointDeleted", (REMOVE, ()), self._event_id())
        except ConcurrencyError:
            return False
        return True
