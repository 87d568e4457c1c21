"""Time travel: every question about the past of a log, in one place. It reads, and needs no live world and no user code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from symphony_es.core.past.differences import Differing, StateDifference, compare_positions
from symphony_es.core.past.forking import ForkReport, fork_log
from symphony_es.core.past.lines import VersionLines
from symphony_es.core.past.moment_texts import Moment, ReadMoment, check_order
from symphony_es.core.past.moments import check_range, position_of, position_since, resolve
from symphony_es.core.past.names import Names
from symphony_es.core.past.rewinding import Rewind, plan_rewind
from symphony_es.core.past.tracing import ValueTrace
from symphony_es.core.past.unrecorded import unrecorded
from symphony_es.core.past.versions import Blame, EntityVersion, blame, each_version, versions
from symphony_es.core.past.view import StateView, as_recorded
from symphony_es.core.past.walking import VersionState, walk
from symphony_es.errors import ConfigurationError, EntityNotFoundError, RunPrunedError
from symphony_es.events.foreign import why_without_state
from symphony_es.events.paths import parse_path
from symphony_es.shown import shown
from symphony_es.system import given_path
from symphony_es_projections.checkpoints import CheckpointEntry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from datetime import datetime

    from symphony_es.core.past.checkpoint_pages import CheckpointFilter
    from symphony_es.core.past.checkpoints import CheckpointReader
    from symphony_es.core.past.states import StateHistory
    from symphony_es.core.past.view import PastObjects
    from symphony_es.events.event import Event
    from symphony_es.events.fold import EntityState, Fold
    from symphony_es.events.references import Path as ValuePath
    from symphony_es.log.log import EventLog

__all__ = ["TimeTravel"]

T = TypeVar("T")


class TimeTravel:
    """Looks at the past of one log.

    Args:
        log: the log; one that is open for reading will do.
        history: its past states.
        checkpoints: finds its checkpoints; None in memory.
        directory: where it is; None in memory.

    Attributes:
        names: tells which entity an argument means; a Symphony puts in one that knows its classes and live objects.
        composed: puts the plain data of an entity, by its key, together as readers expect it; as the log has it without one.
    """

    def __init__(self, log: EventLog, history: StateHistory, checkpoints: CheckpointReader | None, directory: Path | None = None) -> None:
        self.log = log
        self._history = history
        self._checkpoints = checkpoints
        self._directory = directory
        self.names = Names(log)
        self.composed: Callable[[str, Any], Any] = as_recorded

    async def position(self, moment: Moment | None) -> int:
        """Return the position that a moment means; the head where none is given.

        Raises:
            PositionNotFoundError: the log does not have that position.
            CheckpointNotFoundError: there is no such checkpoint.
            AmbiguousMomentError: it means two things in this log.
            ConfigurationError: it means nothing, or is a datetime without a time zone.
        """
        return await position_of(self.log, moment, self._checkpoints)

    async def since(self, moment: Moment | None) -> int:
        """Return the position that what happened since a moment comes after; see `moments.position_since`."""
        return await position_since(self.log, moment, self._checkpoints)

    async def check_order(self, since: Moment | ReadMoment | None, until: Moment | ReadMoment | None) -> None:
        """Refuse two ends between which nothing can lie, as they were given and as the times that they mean: positions do not tell, since
        times before the log all have one.

        Raises:
            ConfigurationError: nothing can lie between them. Further errors are those of `resolve`.
        """
        check_order(since, until)
        if since is not None and until is not None:
            check_order(await self.resolve(since), await self.resolve(until))

    async def between(self, since: Moment | None, until: Moment | None) -> tuple[int, int]:
        """Return the positions that a range comes after, and ends with.

        Raises:
            ConfigurationError: nothing can lie between the two.
        """
        await self.check_order(since, until)
        after, last = await self.since(since), await self.position(until)
        check_range(after, last)
        return after, last

    async def resolve(self, moment: Moment | ReadMoment) -> int | datetime | str | CheckpointEntry:
        """Return the position, the time, `"latest"` or the checkpoint that a moment means; see `moments.resolve`."""
        return await resolve(moment, self._checkpoints)

    async def at(self, moment: Moment | None, restore: Callable[[Fold], Awaitable[PastObjects]] | None = None) -> StateView:
        """Return all states then. Costs the size of the state, however long the log. Errors are those of `position`.

        Args:
            moment: when.
            restore: makes live objects of the states.
        """
        position = await self.position(moment)
        return StateView(await self._history.states_at(position), position, restore, self.names, self.composed)

    async def state_of(self, entity: Any, at: Moment | None = None) -> EntityState:
        """Return one entity's state then. Costs its own events since the nearest snapshot, however large the rest of the state.

        Raises:
            EntityNotFoundError: it did not exist then. Further errors are those of `position`.
        """
        key, position = self.names.key(entity), await self.position(at)
        state = await self._history.entity_at(key, position)
        if state is None or state.deleted:
            pruned = self.log.pruned_at(key)
            if pruned is not None and pruned <= position:
                raise RunPrunedError(key, pruned)
            why = "it did not exist yet" if state is None else "it had been deleted"
            with self.names.explaining(key):
                raise EntityNotFoundError(key, why_without_state(key) or f"{why} at position {position}")
        state.data = self.composed(key, state.data)
        return state

    async def diff(self, before: Moment, after: Moment | None = None, entity: Any = None) -> StateDifference:
        """Return what is different between two moments. Costs the size of the state twice, or one entity's own events.

        Errors are those of `position`.
        """
        one, other, differing = await self.differing(before, after, entity)
        return StateDifference.of(self._history, one, other, differing)

    async def differing(self, before: Moment, after: Moment | None, entity: Any) -> tuple[int, int, Iterator[Differing]]:
        """Return the same for who tells it and keeps nothing: the two positions, and the entities that differ, one after another."""
        one, other = await self.position(before), await self.position(after)
        if entity is None:
            return one, other, await compare_positions(self._history, one, other)
        key = self.names.key(entity)
        with self.names.explaining(key):
            return one, other, await compare_positions(self._history, one, other, key)

    async def history(
        self,
        entity: Any,
        path: ValuePath | str = (),
        *,
        after_version: int = 0,
        since: Moment | None = None,
        until: Moment | None = None,
        limit: int | None = None,
    ) -> VersionLines[EntityVersion]:
        """Return the versions of one entity, oldest first; see `Symphony.history`."""
        key, where = self.names.key(entity), _path(path)
        after, last = await self.between(since, until)
        with self.names.explaining(key):
            found = await versions(
                self._history, self.names, key, where, after_version=after_version, since=after, until=last, limit=limit
            )  # fmt: skip
        return found if until is not None else await self._noting(found, key, where)

    async def blame(
        self, entity: Any, path: ValuePath | str = (), *, since: Moment | None = None, until: Moment | None = None
    ) -> VersionLines[Blame]:
        """Find the events that set a value, the last one first; see `Symphony.blame`."""
        key, where = self.names.key(entity), _path(path)
        after, last = await self.between(since, until)
        with self.names.explaining(key):
            found = await blame(self._history, self.names, key, where, since=after, until=last)
        return found if until is not None else await self._noting(found, key, where)

    async def _noting(self, found: VersionLines[Any], key: str, path: ValuePath) -> VersionLines[Any]:
        """Complete an answer about the present with what stands at its path and no event has set."""
        if path and (not found or self.names.state_version(key.partition(":")[0]) != 1):
            found.unrecorded = await unrecorded(self._history, self.names, key, path)
        return found

    async def versions(
        self, entity: Any, *, after_version: int = 0, until: Moment | None = None, limit: int | None = None
    ) -> AsyncIterator[EntityVersion]:
        """Yield what `history` has, one version after another: a page of events is held at a time."""
        key, last = self.names.key(entity), await self.position(until)
        with self.names.explaining(key):
            async for version in each_version(
                self._history, self.names, key, after_version=after_version, until=last, limit=limit
            ):  # fmt: skip
                yield version

    async def settings(
        self, entity: Any, path: ValuePath | str = (), *, since: Moment | None = None, until: Moment | None = None, seen: Callable[[Any], T]
    ) -> AsyncIterator[tuple[Event, T, T]]:
        """Yield what `blame` has, oldest first and one after another: an event, and what is made of the value before it and after it.

        Args:
            entity: whose value.
            path: where it stands.
            since: only events after a moment.
            until: only events up to a moment.
            seen: called with the value, or `ABSENT`, once after each event; it is not to be kept or changed.
        """
        key, where = self.names.key(entity), _path(path)
        after, last = await self.between(since, until)
        with self.names.explaining(key):
            trace = ValueTrace(self._history, self.names, key, where, last)
            before = seen(await trace.begin())
            async for setting in trace.settings():
                value = seen(setting.value)
                if setting.event.position > after:
                    yield setting.event, before, value
                before = value

    async def walk(
        self, entity: Any, *, newest_first: bool = False, since: Moment | None = None, until: Moment | None = None
    ) -> AsyncIterator[VersionState]:
        """Yield every version of one entity with its state, in one pass; see `Symphony.walk`."""
        key = self.names.key(entity)
        after, last = await self.between(since, until)
        with self.names.explaining(key):
            async for item in walk(self._history, key, since=after, until=last, newest_first=newest_first):
                yield item

    async def fork(self, into: str | Path, at: Moment | None = None, on_progress: Callable[[int, int], None] | None = None) -> ForkReport:
        """Return a new log that begins with the states then; see `Symphony.fork`."""
        origin = str(self._directory) if self._directory is not None else None
        return await fork_log(self._history, await self.position(at), given_path(into, "into"), origin=origin, on_progress=on_progress)

    async def plan_rewind(self, to: Moment) -> Rewind:
        """Return the events that take every entity back to what it was then; nothing is appended. Errors are those of `position`.

        Raises:
            PositionInsideTransactionError: it is in the middle of a transaction.
        """
        meant = await self.resolve(to)
        cause = meant.event_id if isinstance(meant, CheckpointEntry) else None
        return await plan_rewind(self.log, await self._history.states_at(await self.position(to)), cause)

    async def checkpoints(self, wanted: CheckpointFilter | None = None) -> list[CheckpointEntry]:
        """Return the checkpoints that are meant, or all, newest first; none in memory."""
        return await self._checkpoints.entries(wanted) if self._checkpoints is not None else []


def _path(given: ValuePath | str) -> ValuePath:
    """Return where a value stands.

    Raises:
        ConfigurationError: it is no path.
    """
    if isinstance(given, str):
        return parse_path(given)
    if type(given) not in (list, tuple) or not all(type(part) in (str, int) for part in given):
        raise ConfigurationError(f"a path is text as 'lines[0].amount' or a sequence of names and indexes, not {shown(given)}")
    return tuple(given)
