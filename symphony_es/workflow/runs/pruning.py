"""Pruning: runs that ended long ago leave the lists and the snapshots, with their child runs and tasks. The log keeps all of it.

Each run and each task leaves by an event of its own, as what is removed does, so whatever folds, reads, rewinds or verifies the log knows
what became of it. A run and all that belongs to it leave in one transaction; transactions hold some hundred events each, so a crash leaves
whole runs, pruned or not, and asking again goes on.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from symphony_es.attribution import current_attribution
from symphony_es.core.past.resting import RUN, TASK, has_ended, waking
from symphony_es.core.past.states import live_states
from symphony_es.errors import ConcurrencyError
from symphony_es.events.changes import REMOVE
from symphony_es.events.event import NewEvent
from symphony_es.events.fold import PRUNED_EVENTS
from symphony_es.events.identifiers import uuid7
from symphony_es.files.working import to_the_end
from symphony_es.late_dataclasses import dataclass
from symphony_es.shown import so_many
from symphony_es_projections.run_list import ListedRun, RunQuery
from symphony_es_projections.run_rows import ENDED

if TYPE_CHECKING:
    from symphony_es.core.past.states import StateHistory
    from symphony_es.events.fold import EntityState
    from symphony_es.log.log import EventLog
    from symphony_es.log.recorder import PreparedEvent
    from symphony_es.log.writer import Ticket
    from symphony_es.workflow.runs.filters import RunFilter
    from symphony_es.workflow.runs.listing import RunListing

__all__ = ["Living", "PruneReport", "Pruning", "needed_keys"]

PAGE = 200
AT_ONCE = 400
"""Events of a transaction, unless one run's are more."""

MOST_IDS = 1000
MOST_ROWS = 1 << 40
PREPARED_AT_ONCE = 100
PLANS = 5
"""How often a page is planned anew where what it would prune was changed meanwhile."""

CHILD, FORK, REFERRED, LIVE = "a child run has not ended, or later", "a fork of it stays", "something living refers to it", "in use"
UNTOLD = "hooks that must not miss its end have not been told of it: recover() tells them"
DAMAGED = "an event of it is damaged"


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneReport:
    """What `prune_runs` has pruned, or would prune.

    Attributes:
        ended_before: the runs that were meant had ended then.
        runs: how many runs were pruned, child runs among them. tasks: how many tasks of theirs.
        ids: ids of the runs that no other run had started, the newest first, 1,000 at the most.
        kept: how many runs fit and stay, by why.
        kept_ids: ids of those, 1,000 at the most.
        position: of the last event that pruned one; None where nothing was pruned.
        dry_run: whether nothing was appended.
        near: where no run has had a name that was asked for: names there are that are written almost like it.
    """

    ended_before: datetime
    runs: int
    tasks: int
    ids: tuple[str, ...]
    kept: dict[str, int]
    kept_ids: tuple[str, ...]
    position: int | None
    dry_run: bool
    near: tuple[str, ...] = ()

    def __str__(self) -> str:
        done = "would be pruned" if self.dry_run else "pruned"
        kept = "".join(f"; {count:,} stay{'s' * (count == 1)}: {why}" for why, count in self.kept.items())
        tasks = f" with {so_many(self.tasks, 'task')}" if self.tasks else ""
        near = f"; did you mean {' or '.join(self.near)}?" if self.near else ""
        return f"{so_many(self.runs, 'run')}{tasks} {done}{kept}{near}"

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> PruneReport:
        """Return the report that `to_dict` has told."""
        ids = {name: tuple(told[name]) for name in ("ids", "kept_ids", "near")}
        return cls(**{**told, **ids, "ended_before": datetime.fromisoformat(told["ended_before"])})

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON encoders take; moments are ISO text."""
        return {
            "ended_before": self.ended_before.isoformat(),
            "runs": self.runs,
            "tasks": self.tasks,
            "ids": list(self.ids),
            "kept": dict(self.kept),
            "kept_ids": list(self.kept_ids),
            "position": self.position,
            "dry_run": self.dry_run,
            "near": list(self.near),
        }


class Living(Protocol):
    """The live objects of the process that prunes, where it has any."""

    def while_nothing_loads(self) -> AbstractAsyncContextManager[None]:
        """Return a block while which nothing at rest becomes live."""
        ...

    def keeps(self, key: str) -> bool:
        """Return whether a run or task is live, or a living entity has come to refer to it."""
        ...

    def leave(self, keys: Iterable[str], ticket: Ticket) -> None:
        """Take note of what is being pruned."""
        ...


@dataclass(slots=True)
class _Family:
    """A run, its child runs at any depth, and their tasks."""

    top: ListedRun
    members: list[ListedRun]
    tasks: dict[str, int] = field(default_factory=dict)

    def versions(self) -> dict[str, int]:
        """Return by key the versions that they have."""
        return {**{f"{RUN}{one.row.id}": one.row.version for one in self.members}, **self.tasks}


class _ChangedError(Exception):
    """What was to be pruned is not as it was when that was found out."""


def _moment(microseconds: int) -> datetime:
    """Return a moment by its microseconds since 1970; the first or last there is for one that a time zone has led beyond."""
    try:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    except OverflowError:
        return (datetime.min if microseconds < 0 else datetime.max).replace(tzinfo=UTC)


class Pruning:
    """One prune of a log.

    Args:
        log: the log. history: its past states. listing: the list of its runs.
        living: the live objects of this process; None where there are none.
    """

    def __init__(self, log: EventLog, history: StateHistory, listing: RunListing, living: Living | None = None) -> None:
        self._log = log
        self._history = history
        self._listing = listing
        self._living = living
        self._needed: dict[str, str] = {}
        self._gone: set[str] = set()  # forks that have been pruned: their originals may follow
        self._ids: list[str] = []
        self._kept: dict[str, str] = {}
        self._reasons: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._position: int | None = None

    async def run(self, wanted: RunFilter, ended_before: int, *, dry_run: bool = False) -> PruneReport:
        """Prune the runs that fit a filter and that nobody has started but the application, with all that belongs to them.

        Costs what is pruned, what is alive, and a look at the list of runs.

        Args:
            wanted: which; of a status that runs end with.
            ended_before: they and all their child runs ended then or earlier, microseconds since 1970.
            dry_run: append nothing.

        Raises:
            LogUnavailableError: the commit failed; what was pruned before is pruned.
        """
        await self._listing.catch_up()
        self._needed = await needed_keys(self._history, self._log.head)
        cursor: int | None = None
        while True:
            query = wanted.query()
            query.add("(runs.parent IS NULL OR NOT EXISTS (SELECT 1 FROM runs AS other WHERE other.id = runs.parent))")
            query.add("runs.ended <= ?", ended_before)
            if cursor is not None:
                query.add("runs.number < ?", cursor)
            tops = await self._listing.rows(query, PAGE)
            if not tops:
                break
            await self._prune([top.row.id for top in tops], tops, ended_before, dry_run=dry_run)
            cursor = tops[-1].number
        near = () if self._ids or self._kept else tuple(await self._listing.near(wanted))
        moment = _moment(ended_before)
        return PruneReport(
            ended_before=moment, runs=self._counts["runs"], tasks=self._counts["tasks"], ids=tuple(self._ids),
            kept=dict(self._reasons), kept_ids=tuple(self._kept), position=self._position, dry_run=dry_run, near=near,
        )  # fmt: skip

    async def _prune(self, ids: Sequence[str], tops: Sequence[ListedRun], ended_before: int, *, dry_run: bool) -> None:
        """Prune a page of runs; where one of them is changed meanwhile, what is left of the page is looked at again."""
        kept: dict[str, str] = {}
        for _ in range(PLANS):
            families, kept = await self._plan(tops, ended_before)
            try:
                for some in _batches(families):
                    if not dry_run:
                        await self._append(some)
                    self._note(some)
                break
            except (_ChangedError, ConcurrencyError):
                await self._listing.catch_up()
                tops = await self._rows_of("runs.id", ids)
        else:
            kept = {**kept, **{top.row.id: LIVE for top in tops if top.row.id not in kept}}
        for run_id, why in kept.items():
            self._reasons[why] += 1
            if len(self._kept) < MOST_IDS:
                self._kept[run_id] = why

    def _note(self, families: Iterable[_Family]) -> None:
        for family in families:
            self._counts["runs"] += len(family.members)
            self._counts["tasks"] += len(family.tasks)
            self._gone.update(one.row.id for one in family.members if one.row.original is not None)
            if len(self._ids) < MOST_IDS:
                self._ids.append(family.top.row.id)

    async def _plan(self, tops: Sequence[ListedRun], ended_before: int) -> tuple[list[_Family], dict[str, str]]:
        """Return the families that can be pruned, those of forks before those of their originals; and why others stay."""
        families = {top.row.id: _Family(top, [top]) for top in tops}
        belongs = dict(families)
        new = list(families)
        while new:
            children = await self._rows_of("runs.parent", new)
            new = [child.row.id for child in children if child.row.id not in belongs]
            for child in children:
                if child.row.id not in belongs and child.row.parent is not None:
                    belongs[child.row.id] = belongs[child.row.parent]
                    belongs[child.row.id].members.append(child)
        forks: dict[str, list[str]] = {}
        for fork in await self._rows_of("runs.original", list(belongs)):
            forks.setdefault(fork.row.original or "", []).append(fork.row.id)
        chosen: list[_Family] = []
        kept: dict[str, str] = {}
        going = set(self._gone)
        for run_id, family in families.items():
            family.tasks = {key: version for one in family.members for key, version in (await self._tasks(one)).items()}
            why = self._why_kept(family, forks, going, ended_before)
            if why is None:
                chosen.append(family)
                going.update(one.row.id for one in family.members)
            else:
                kept[run_id] = why
        return chosen, kept

    async def _rows_of(self, column: str, values: Sequence[str]) -> list[ListedRun]:
        found: list[ListedRun] = []
        for at in range(0, len(values), PAGE):
            some = values[at : at + PAGE]
            found += await self._listing.rows(RunQuery([f"{column} IN ({', '.join('?' * len(some))})"], list(some)), MOST_ROWS)
        return found

    async def _tasks(self, one: ListedRun) -> dict[str, int]:
        return await self._log.versions_below("Task", f"{one.row.id}/") if one.row.begun else {}

    def _why_kept(self, family: _Family, forks: dict[str, list[str]], going: set[str], ended_before: int) -> str | None:
        own = {one.row.id for one in family.members}
        for one in family.members:
            if one.row.status not in ENDED or one.row.ended is None or one.row.ended > ended_before:
                return CHILD
            if any(fork not in going and fork not in own for fork in forks.get(one.row.id, ())):
                return FORK
        keys = family.versions()
        why = [self._needed[key] for key in keys if key in self._needed]
        if why:
            return next((one for one in why if one is not REFERRED), REFERRED)
        return LIVE if self._living is not None and any(map(self._living.keeps, keys)) else None

    async def _append(self, families: Sequence[_Family]) -> None:
        """Prune some families by one transaction. A call that is cancelled ends when the transaction has."""
        versions = {key: version for family in families for key, version in family.versions().items()}
        events = await self._prepared(versions)
        if not self._log.has_room():
            await self._log.room()
        self._position = await to_the_end(self._submit(events))

    async def _prepared(self, versions: dict[str, int]) -> list[PreparedEvent]:
        prepared: list[PreparedEvent] = []
        first: bytes | None = None
        for key, version in versions.items():
            if len(prepared) % PREPARED_AT_ONCE == PREPARED_AT_ONCE - 1:
                await asyncio.sleep(0)  # others in the loop have their turn
            event = NewEvent(
                entity_key=key, version=version + 1, name=PRUNED_EVENTS[key.startswith(TASK)], changes=[(REMOVE, ())],
                metadata=current_attribution.get().metadata(), event_id=uuid7(time.time_ns(), os.urandom(16)), transaction_id=first,
            )  # fmt: skip
            first = first or event.event_id
            prepared.append(self._log.prepare(event))
        return prepared

    async def _submit(self, events: list[PreparedEvent]) -> int:
        living = self._living
        async with living.while_nothing_loads() if living is not None else nullcontext():
            keys = [event.entity_key for event in events]
            if living is not None and any(map(living.keeps, keys)):
                raise _ChangedError
            ticket = self._log.submit(events)
            if living is not None:
                living.leave(keys, ticket)
            return (await ticket.wait()).last


def _batches(families: Iterable[_Family]) -> Iterable[list[_Family]]:
    """Yield families by transactions."""
    some: list[_Family] = []
    size = 0
    for family in families:
        weight = len(family.members) + len(family.tasks)
        if some and size + weight > AT_ONCE:
            yield some
            some, size = [], 0
        some.append(family)
        size += weight
    if some:
        yield some


async def needed_keys(history: StateHistory, position: int) -> dict[str, str]:
    """Return keys of the runs and tasks that a resume at a position would make live, and why: those at work, and what living entities refer
    to.
    """
    fold, more = await history.living_at(position)
    alive = await asyncio.to_thread(live_states, fold)
    woken = await asyncio.to_thread(waking, alive, None, partly=more is not None)
    while more is not None and (found := await more.find(woken.missing, woken.runs)):
        alive = {**alive, **found}
        woken = await asyncio.to_thread(waking, alive, None, partly=True)
    return {key: _why_needed(state) for key, state in woken.states.items() if key.startswith((RUN, TASK))}


def _why_needed(state: EntityState) -> str:
    """Return why a run that has ended is live after a resume, or a task."""
    if state.damage is not None:
        return DAMAGED
    return UNTOLD if state.key.startswith(RUN) and not has_ended(state) else REFERRED
