"""Time travel: every question about the past of a log, in one place. It reads, and needs no live world and no user code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from symphony_es.core.state.past.differences import StateDifference, compare_positions
from symphony_es.core.state.past.forking import ForkReport, fork_log
from symphony_es.core.state.past.moments import Moment, position_of
from symphony_es.core.state.past.rewinding import Rewind, plan_rewind
from symphony_es.core.state.past.versions import Blame, EntityVersion, blame, versions
from symphony_es.core.state.past.view import StateView, key_of
from symphony_es.errors import EntityNotFoundError
from symphony_es.events.paths import parse_path

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from symphony_es.core.state.checkpoint import CheckpointReader
    from symphony_es.core.state.history import StateHistory
    from symphony_es.core.state.past.view import PastObjects
    from symphony_es.events.fold import EntityState, Fold
    from symphony_es.events.references import Path as ValuePath
    from symphony_es.log.log import EventLog
    from symphony_es_projections.checkpoints import CheckpointEntry

__all__ = ["TimeTravel"]


class TimeTravel:
    """Looks at the past of one log.

    Args:
        log: the log; one that is open for reading will do.
        history: its past states.
        checkpoints: finds its checkpoints; None in memory.
        directory: where it is; None in memory.
    """

    def __init__(self, log: EventLog, history: StateHistory, checkpoints: CheckpointReader | None, directory: Path | None = None) -> None:
        self.log = log
        self._history = history
        self._checkpoints = checkpoints
        self._directory = directory

    async def position(self, moment: Moment) -> int:
        """The position that a moment means: a position, a datetime, a checkpoint's id or name, or `"latest"`.

        Raises:
            PositionNotFoundError: the log does not have that position.
            CheckpointNotFoundError: there is no such checkpoint.
            ConfigurationError: it means nothing, or is a datetime without a time zone.
        """
        return await position_of(self.log, moment, self._checkpoints)

    async def at(self, moment: Moment, restore: Callable[[Fold], Awaitable[PastObjects]] | None = None) -> StateView:
        """All states then. Costs the size of the state, however long the log. Errors are those of `position`.

        Args:
            moment: when.
            restore: makes live objects of the states.
        """
        position = await self.position(moment)
        return StateView(await self._history.states_at(position), position, restore)

    async def state_of(self, entity: Any, at: Moment = "latest") -> EntityState:
        """One entity's state then. Costs its own events since the nearest snapshot, however large the rest of the state.

        Raises:
            EntityNotFoundError: it did not exist then. Further errors are those of `position`.
        """
        key, position = key_of(entity), await self.position(at)
        state = await self._history.entity_at(key, position)
        if state is None or state.deleted:
            why = "it did not exist yet" if state is None else "it had been deleted"
            raise EntityNotFoundError(key, f"{why} at position {position}")
        return state

    async def diff(self, before: Moment, after: Moment = "latest", entity: Any = None) -> StateDifference:
        """What is different between two moments. Costs the size of the state twice, or one entity's own events.

        Errors are those of `position`.
        """
        key = key_of(entity) if entity is not None else None
        return await compare_positions(self._history, await self.position(before), await self.position(after), key)

    async def history(
        self, entity: Any, *, after_version: int = 0, until: Moment = "latest", limit: int | None = None
    ) -> list[EntityVersion]:
        """The versions of one entity, oldest first; see `Symphony.history`."""
        return await versions(self._history, key_of(entity), after_version=after_version, until=await self.position(until), limit=limit)

    async def blame(self, entity: Any, path: ValuePath | str, *, until: Moment = "latest") -> list[Blame]:
        """The events that set a value, the last one first; see `Symphony.blame`."""
        where = parse_path(path) if isinstance(path, str) else tuple(path)
        return await blame(self._history, key_of(entity), where, until=await self.position(until))

    async def fork(self, into: str | Path, at: Moment = "latest", on_progress: Callable[[int, int], None] | None = None) -> ForkReport:
        """A new log that begins with the states then; see `Symphony.fork`."""
        origin = str(self._directory) if self._directory is not None else None
        return await fork_log(self._history, await self.position(at), Path(into), origin=origin, on_progress=on_progress)

    async def plan_rewind(self, to: Moment) -> Rewind:
        """The events that take every entity back to what it was then; nothing is appended. Errors are those of `position`.

        Raises:
            PositionInsideTransactionError: it is in the middle of a transaction.
        """
        cause = None
        if isinstance(to, str) and to != "latest" and self._checkpoints is not None:
            cause = (await self._checkpoints.find(to)).event_id
        return await plan_rewind(self.log, await self._history.states_at(await self.position(to)), cause)

    async def checkpoints(self) -> list[CheckpointEntry]:
        """All checkpoints, newest first; none in memory."""
        return await self._checkpoints.entries() if self._checkpoints is not None else []
