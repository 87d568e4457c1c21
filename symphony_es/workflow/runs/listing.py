"""The list of runs of a log, kept up to date: what `list_runs` and `count_runs` ask.

One way leads to the list: the events of the log, page by page, in order. What this process knows anyway spares reading them: the rows of
runs that have ended here, and of those that are live. So a service pays some microseconds for an event, in a thread, and a reader of
another process makes the rest itself.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from symphony_es.core.past.cached_lists import CachedList
from symphony_es.diagnostics import error_text, get_logger
from symphony_es.errors import ConfigurationError, DamagedEventError, EntityNotFoundError, SymphonyError, near_misses
from symphony_es.shown import shown
from symphony_es.workflow.runs.filters import RunFilter
from symphony_es.workflow.runs.notes import row_of_run
from symphony_es.workflow.runs.run import Workflow
from symphony_es.workflow.runs.summary import RunPage, summary_of
from symphony_es_projections.run_list import ListedRun, RunList, RunQuery, Step
from symphony_es_projections.run_rows import RUN_PREFIX, RunRow, row_of

if TYPE_CHECKING:
    from symphony_es.core.past.states import StateHistory
    from symphony_es.core.world.world import World
    from symphony_es.events.fold import EntityState
    from symphony_es.log.log import EventLog

__all__ = ["FILE_NAME", "RunListing"]

FILE_NAME = "run_list.db"
"""Its file among the projections."""

PAGE = 4000
MOST_RUNS = 1 << 62
"""More than there are: a larger limit means all."""

MOST_NAMES = 5000
"""How many steps are looked at for near misses."""

_TOKEN = re.compile(r"@(-?\d{1,18})\.([0-9a-f]{8})", re.ASCII)
_log = get_logger(__name__)
Load = Callable[[str], Awaitable[Workflow]]


class RunListing(CachedList):
    """The list of runs of one log.

    Args:
        log: the log. history: its past states.
        directory: where projections are; None for memory.
        writes: whether the file there is this process's to write; else a copy of it is brought up to date.
        notes: rows, by key, of runs that have ended here: they leave it when the list has them.
        world: gives the live objects, or None.
        load: what `RunSummary.load` calls.
    """

    def __init__(
        self,
        log: EventLog,
        history: StateHistory,
        directory: Path | None = None,
        *,
        writes: bool = False,
        notes: dict[str, RunRow] | None = None,
        world: Callable[[], World | None] = lambda: None,
        load: Load | None = None,
    ) -> None:
        path = None if directory is None else directory / FILE_NAME
        self._list = RunList(path) if writes else RunList(None, copy_of=path)
        super().__init__(log, self._list, "the list of its runs")
        self.history = history
        self._world = world
        self._load = load
        self._notes = {} if notes is None else notes
        self._task: asyncio.Task[None] | None = None

    # -- feeding ------------------------------------------------------------------------------------------------------

    def catch_up_soon(self) -> None:
        """Bring the list up to date aside: many runs have ended since."""
        if self._task is None or self._task.done() or not self._task.get_loop().is_running():
            self._task = asyncio.get_running_loop().create_task(self._catch_up_aside())

    async def _catch_up_aside(self) -> None:
        try:
            await self.catch_up()
        except (SymphonyError, sqlite3.Error, OSError) as error:  # the next question tells it to who asks
            self._notes.clear()
            _log.warning("run_list_failed", error=error_text(error))

    async def _take_in(self, position: int, head: int) -> None:
        noted = dict(self._notes)  # of events up to the head, whichever: also those that the list has had before the note was taken
        if position < self.log.base_position:
            position = await self._begin_with_base()
        while position < head:
            self._check_open()
            try:
                rows = await self.log.read_rows(position, head, PAGE)
            except DamagedEventError as error:
                position = await self._begin_behind(error)
                continue
            position = rows[-1][0]
            step = await asyncio.to_thread(self._list.plan, rows, position, rows[-1][4], self._known({row[1] for row in rows}))
            await self._look_up(step)
            await asyncio.to_thread(self._list.write, step)
        for key, row in noted.items():
            if self._notes.get(key) is row:
                del self._notes[key]

    async def _begin_with_base(self) -> int:
        """Return what a log in memory keeps begins with states."""
        base = self.log.base
        assert base is not None, "only what has forgotten its first events has a base"
        await self._begin_with(Step(base.position, b""), base.states.values())
        return base.position

    async def _begin_behind(self, error: DamagedEventError) -> int:
        """Begin with the runs of a snapshot behind what is damaged, where there is one; which errors each has had, nobody can tell."""
        snapshots, position = self.history.snapshots, error.position
        newest = snapshots.nearest(self.log.head) if snapshots is not None else None
        if newest is None or not isinstance(position, int) or newest.position < position:
            raise error
        row = await self.log.row_at(newest.position)
        states = (await self.history.states_at(newest.position)).states.values()
        await asyncio.to_thread(self._list.clear)
        await self._begin_with(Step(newest.position, row[4]), sorted(states, key=_created))
        return newest.position

    async def _begin_with(self, step: Step, states: Collection[EntityState]) -> None:
        for number, state in enumerate(states):
            if state.key.startswith(RUN_PREFIX) and state.data is not None:
                run_id = state.key[len(RUN_PREFIX) :]
                step.runs[run_id] = (number - len(states), 0, row_of(run_id, state.version, state.data))
        await asyncio.to_thread(self._list.write, step)

    async def _look_up(self, step: Step) -> None:
        if not step.unknown:
            return
        states = await self.history.entities_at(list(step.unknown), step.position)
        for key, (number, errors) in step.unknown.items():
            state, run_id = states.get(key), key[len(RUN_PREFIX) :]
            known = state is not None and state.data is not None
            step.runs[run_id] = (number, errors, row_of(run_id, state.version, state.data or {})) if state is not None and known else None

    def _known(self, keys: set[str]) -> Mapping[str, RunRow]:
        """Return what is known of runs without reading their events."""
        known = {key: self._notes[key] for key in keys if key in self._notes}
        world = self._world()
        if world is None:
            return known
        for key in keys:
            if key not in known and key.startswith(RUN_PREFIX) and key in world.records:
                version, run = world.least_version(key), world.records[key].obj
                if version and isinstance(run, Workflow):
                    known[key] = row_of_run(run, version)
        return known

    # -- asking -------------------------------------------------------------------------------------------------------

    async def page(self, wanted: RunFilter, *, after: str | None = None, newest_first: bool = True, limit: int = 100) -> RunPage:
        """Return a page of the runs that are meant.

        Raises:
            ConfigurationError: a limit below 1, an order that is neither True nor False, a filter that means nothing, or a page of others.
            EntityNotFoundError: there is no run that `after` or `parent` names.
        """
        if type(limit) is not int or limit < 1:
            raise ConfigurationError(f"limit={shown(limit)}: a page has at least one run")
        if type(newest_first) is not bool:
            raise ConfigurationError(f"newest_first={shown(newest_first)}: it is True or False")
        query = wanted.query()
        await self.catch_up()
        if wanted.parent_id is not None:
            await self._find(wanted.parent_id)
        if after is not None:
            query.add(f"runs.number {'<' if newest_first else '>'} ?", await self._number_of(after, wanted, newest_first=newest_first))
        limit = min(limit, MOST_RUNS)
        found = await self._asked(self._list.find, query, limit + 1, newest_first=newest_first)
        page = found[:limit]
        following = f"@{page[-1].number}.{wanted.digest(newest_first=newest_first)}" if len(found) > limit else None
        near = await self.near(wanted) if not page and after is None else []
        return RunPage([summary_of(listed, self._load) for listed in page], following, near)

    async def near(self, wanted: RunFilter) -> list[str]:
        """Return, for a filter that no run fits, names and steps there are that are written like those asked for, where there is none of
        these.
        """
        near: list[str] = []
        if wanted.names:
            known = set(await self._asked(self._list.names))
            if known.isdisjoint(wanted.names):
                near += [found for name in wanted.names for found in near_misses(name, known)]
        if wanted.step is not None:
            steps = await self._asked(self._list.steps, MOST_NAMES)
            known = {*steps, *(step.rpartition("/")[2] for step in steps)}
            if wanted.step not in known:
                near += near_misses(wanted.step, known)
        return list(dict.fromkeys(near))

    async def count(self, wanted: RunFilter, by: str = "status") -> dict[str, int]:
        """Return how many runs are meant, by status, name, error or step.

        Raises:
            ConfigurationError: `by` is something else, or a filter means nothing.
        """
        if by not in ("status", "name", "error", "step"):
            raise ConfigurationError(f"by={shown(by)}: runs are counted by 'status', 'name', 'error' or 'step'")
        query = wanted.query()
        await self.catch_up()
        counted: dict[str, int] = await self._asked(self._list.count, query, by)
        return counted

    async def rows(self, query: RunQuery, limit: int) -> list[ListedRun]:
        """Return rows as the list has them now, the runs created last first."""
        found: list[ListedRun] = await self._asked(self._list.find, query, limit)
        return found

    async def _find(self, run_id: str) -> ListedRun:
        found: list[ListedRun] = await self._asked(self._list.find, RunQuery(["runs.id = ?"], [run_id]), 1)
        if not found:
            raise EntityNotFoundError(f"{RUN_PREFIX}{run_id}", "there is no such run, or none any more")
        return found[0]

    async def _number_of(self, after: str, wanted: RunFilter, *, newest_first: bool) -> int:
        token = _TOKEN.fullmatch(after)
        if token is not None:
            if token[2] != wanted.digest(newest_first=newest_first):
                raise ConfigurationError(
                    f"after={shown(after)} is the next page of a list with other filters, or in the other order: ask with those, or begin "
                    "with the first page; limit= may differ"
                )
            return int(token[1])
        try:
            return (await self._find(after)).number
        except EntityNotFoundError as error:
            raise EntityNotFoundError(error.entity, "there is no such run any more: begin with the first page again") from None

    async def close(self) -> None:
        """Let go of the file; what is not in the list yet, the next process makes of the log."""
        task, self._task = self._task, None
        if task is not None and not task.done() and task.get_loop() is asyncio.get_running_loop():
            await asyncio.wait([task])
        await super().close()


_LONG_AGO = datetime.min.replace(tzinfo=UTC)


def _created(state: EntityState) -> datetime:
    """Return when a run was created, as far as its state says it."""
    created = (state.data or {}).get("created_at")
    return created if isinstance(created, datetime) and created.tzinfo is not None else _LONG_AGO
