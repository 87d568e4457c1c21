"""States as they were at a position: the nearest snapshot, and the events after it.

Up the restore path only: nothing here writes. A snapshot that cannot be trusted is passed over and remembered as damaged; the
states then come from an earlier one, or from the whole log.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from symphony_es.diagnostics import get_logger
from symphony_es.errors import PositionNotFoundError, SnapshotDamagedError
from symphony_es.events.changes import REMOVE, SET
from symphony_es.events.codec import UNREADABLE
from symphony_es.events.fold import REPAIR_EVENT, EntityState, Fold
from symphony_es.events.identifiers import SYSTEM_PREFIX
from symphony_es.events.rows import Row, body_stream, decode_row
from symphony_es.shown import shown

if TYPE_CHECKING:
    from symphony_es.core.past.snapshots.store import SnapshotInfo, SnapshotStore
    from symphony_es.events.event import Event
    from symphony_es.log.log import EventLog

__all__ = ["More", "StateHistory", "is_system"]

logger = get_logger(__name__)


def is_system(key: str) -> bool:
    """Return whether a key is one of the library's own entities, which restored worlds, diffs and rewinds leave out."""
    return key.startswith(SYSTEM_PREFIX)


class StateHistory:
    """Reads past states of one log.

    Attributes:
        damaged: snapshots that could not be trusted, as (name, why).
    """

    def __init__(self, log: EventLog, snapshots: SnapshotStore | None) -> None:
        self.log = log
        self.snapshots = snapshots
        self.damaged: list[tuple[str, str]] = []

    async def states_at(self, position: int) -> Fold:
        """Return all entity states right after an event; position 0 is the empty beginning.

        Costs the size of the state, not the length of the log.

        Raises:
            PositionNotFoundError: after the head, or before the history that is kept.
            DamagedEventError: an event on the way is damaged.
        """
        self._check(position)
        fold = await self._base(position)
        await self.log.replay(fold, position)
        return fold

    async def living_at(self, position: int) -> tuple[Fold, More | None]:
        """Return the states right after an event that a resume there needs at first, and how to get at others; None where these are all.

        Costs what is alive, however much is at rest. Errors are those of `states_at`.
        """
        self._check(position)
        for info in self._candidates(position):
            if not info.resting_bytes:
                break
            try:
                states = await asyncio.to_thread(self._store.read_alive, info)
                changed = await self.changed_keys(info.position, position)
                states.update(await asyncio.to_thread(self._store.read_some, info, changed - states.keys()))
            except SnapshotDamagedError as error:
                self._report(info, error)
                continue
            fold = Fold(states, info.position, self.log.state_before)
            await self.log.replay(fold, position)
            return fold, More(self, info, fold, position)
        return await self.states_at(position), None

    def _check(self, position: int) -> None:
        if not 0 <= position <= self.log.head:
            raise PositionNotFoundError(f"position {shown(position)} is not in the log: its head is {self.log.head}")

    async def _base(self, position: int) -> Fold:
        for info in self._candidates(position):
            try:
                states = await asyncio.to_thread(self._store.read_all, info)
            except SnapshotDamagedError as error:
                self._report(info, error)
                continue
            return Fold(states, info.position, self.log.state_before)
        return self._kept(position)

    def _kept(self, position: int) -> Fold:
        """Return what the events that are kept begin with: nothing, or in memory the states that earlier ones have led to; the caller's
        own.
        """
        base = self.log.base or Fold()
        self._check_kept(position, base.position)
        return base

    def _check_kept(self, position: int, kept: int) -> None:
        if position < kept:
            raise PositionNotFoundError(
                f"position {position} is no longer in memory: the kept history begins at {kept} (memory_events=...)"
            )

    @property
    def _store(self) -> SnapshotStore:
        assert self.snapshots is not None, "only a log on disk has snapshots"
        return self.snapshots

    def _candidates(self, position: int) -> list[SnapshotInfo]:
        if self.snapshots is None:
            return []
        return [info for info in self.snapshots.list() if info.position <= position]

    def _report(self, info: SnapshotInfo, error: SnapshotDamagedError) -> None:
        if self._store.is_gone(info):
            logger.info("snapshot_gone", snapshot=info.name)  # the writer has removed it since it was listed: nothing is damaged
            return
        logger.warning("snapshot_damaged", snapshot=info.name, error=str(error))
        self.damaged.append((info.name, str(error)))
        self._store.distrust(info, str(error))

    async def entity_at(self, key: str, position: int) -> EntityState | None:
        """Return one entity's state right after a position; None when it did not exist. Costs that entity's own events.

        Raises:
            PositionNotFoundError: after the head, or before the history that is kept.
        """
        return (await self.entities_at([key], position)).get(key)

    async def entity_after(self, base: EntityState, position: int) -> EntityState:
        """Return one entity's state right after a position, from what it was earlier; costs its events in between. See `entity_at`."""
        self._check(position)
        fold = Fold({base.key: base.copy()}, base.position)
        await self.log.replay_entities({base.key: fold}, position)
        return fold.states[base.key]

    async def entities_at(self, keys: Collection[str], position: int) -> dict[str, EntityState]:
        """Return some entities' states right after a position, by key, without those that did not exist. Costs these entities' own events.

        Raises:
            PositionNotFoundError: after the head, or before the history that is kept.
        """
        self._check(position)
        base, states = await self._entities_base(keys, position)
        # A snapshot has no tombstones: the events of an entity that it does not know are read from the first one on.
        begin = base if self.snapshots is None else 0
        folds = {key: Fold({key: states[key]}, base) if key in states else Fold(position=begin) for key in keys}
        await self.log.replay_entities(folds, position)
        for fold in folds.values():
            states.update(fold.states)
        return states

    async def _entities_base(self, keys: Collection[str], position: int) -> tuple[int, dict[str, EntityState]]:
        for info in self._candidates(position):
            try:
                return info.position, await asyncio.to_thread(self._store.read_some, info, keys)
            except SnapshotDamagedError as error:
                self._report(info, error)
        found = {key: self.log.base_state(key) for key in keys}
        self._check_kept(position, self.log.base_position)  # afterwards: what is kept may begin later by now
        return 0, {key: state for key, state in found.items() if state is not None}

    def live_ids(self, most_bytes: int) -> set[str]:
        """Return keys of entities that were alive at the newest snapshot, where that has at most so many bytes; none where there is no
        such.

        Blocks for some milliseconds.
        """
        for info in self._candidates(self.log.head)[:1]:
            if info.size_bytes <= most_bytes:
                try:
                    return set(self._store.live_keys(info))
                except SnapshotDamagedError as error:
                    self._report(info, error)
        return set()

    async def changed_keys(self, after: int, until: int) -> set[str]:
        """Return keys of the entities with events after one position, up to another."""
        keys: set[str] = set()
        async for rows in self.log.pages(after, until):
            keys.update(row[1] for row in rows)
        return keys

    async def count_entities(self, position: int) -> int:
        """Return how many of the application's entities are alive at a position.

        What the nearest snapshot counted, and the events since.
        """
        infos = self._candidates(position)
        if infos:
            count, after = infos[0].entity_count, infos[0].position
        else:
            kept = self._kept(position)
            count, after = len(live_states(kept)), kept.position
        return count + sum((await self._births_since(after, position)).values())

    async def count_by_type(self, position: int) -> dict[str, int]:
        """Return how many of them are alive, by type, in the order of the types: the keys in the nearest snapshot, and the events since."""
        self._check(position)
        counted, after = await self._counted(position)
        for name, births in (await self._births_since(after, position)).items():
            counted[name] += births
        return {name: counted[name] for name in sorted(counted) if counted[name] > 0}

    async def _counted(self, position: int) -> tuple[Counter[str], int]:
        for info in self._candidates(position):
            try:
                return await asyncio.to_thread(self._store.count_living, info), info.position
            except SnapshotDamagedError as error:
                self._report(info, error)
        kept = self._kept(position)
        return Counter(key.partition(":")[0] for key in live_states(kept)), kept.position

    async def _births_since(self, after: int, position: int) -> Counter[str]:
        births: Counter[str] = Counter()
        async for rows in self.log.pages(after, position):
            births.update(await asyncio.to_thread(_births, [row for row in rows if not is_system(row[1])]))
        return births


class More:
    """What a snapshot has at rest, for a fold that was begun with what it has alive.

    Args:
        history: whose snapshots. info: the snapshot. fold: what is known.
        position: of the fold.
    """

    def __init__(self, history: StateHistory, info: SnapshotInfo, fold: Fold, position: int) -> None:
        self._history = history
        self._info = info
        self._fold = fold
        self._position = position
        self._asked: set[str] = set()
        self._asked_for_tasks: set[str] = set()

    async def find(self, keys: Collection[str], runs: Collection[str]) -> dict[str, EntityState]:
        """Return states at rest that were not asked for before, by key; they become part of the fold.

        Args:
            keys: whose.
            runs: keys of runs of which the tasks are asked for.
        """
        store = self._history._store
        new = [run for run in runs if run not in self._asked_for_tasks]
        try:
            tasks = await asyncio.to_thread(store.keys_at_rest, self._info, [f"Task:{run.partition(':')[2]}/" for run in new])
            wanted = {key for key in (*keys, *tasks) if key not in self._fold.states} - self._asked
            found = await asyncio.to_thread(store.read_some, self._info, wanted)
        except SnapshotDamagedError as error:
            self._history._report(self._info, error)
            whole = await self._history.states_at(self._position)
            found = {key: state for key, state in whole.states.items() if key not in self._fold.states}
            wanted = set(found)
        self._asked |= wanted
        self._asked_for_tasks.update(new)
        self._fold.states.update(found)
        return {key: state for key, state in found.items() if state.data is not None}


def _births(rows: Sequence[Row]) -> Counter[str]:
    """Return how many entities are created by rows, less those that are deleted, by type; what cannot be read creates none."""
    births: Counter[str] = Counter()
    done = 0
    bodies, mark = body_stream(rows)
    try:
        for row, body, end in zip(rows, bodies, bodies, strict=False):
            if end != mark or row[3] == REPAIR_EVENT:
                break  # a body that ends elsewhere than its row; or one that is looked at as a whole
            born = _births_by(body[1])
            if born:
                births[row[1].partition(":")[0]] += born
            done += 1
    except (*UNREADABLE, IndexError):
        pass  # by itself, the row says what can be read of it
    for row in rows[done:]:
        births[row[1].partition(":")[0]] += _births_of(decode_row(row))
    return births


def _births_of(event: Event) -> int:
    """Return the same of one event. A repair says the whole state of what may have been alive before it."""
    was_alive = event.name == REPAIR_EVENT and type(event.data) is dict and event.data.get("alive") is True
    return _births_by(event.changes) - was_alive


def _births_by(changes: Sequence[Any]) -> int:
    births = 0
    for change in changes:
        if not change[1] and change[0] in (SET, REMOVE):
            births += 1 if change[0] == SET else -1
    return births


def live_states(fold: Fold) -> dict[str, EntityState]:
    """Return the application's entities of a fold that are not deleted, in the order of their keys.

    Whether they come from a snapshot or from events, whoever lists states or objects finds one order.
    """
    states = fold.states
    return {key: states[key] for key in sorted(states) if states[key].data is not None and not key.startswith(SYSTEM_PREFIX)}
