"""Resuming: bringing the live world to a position of the log, all of it or nothing.

The order is written here and in docs/architecture.md: (1) refuse while runs execute, flush, seal the old world; (2) read the
states at the target; (3) build the new world beside the old one; (4) when the target lies before the head, append the
compensating events, computed from folded states, as one transaction that expects the versions it has seen; (5) put the new world in
place and detach the old one. A failure before (4) has appended nothing; one in (4) appends nothing either.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from symphony_es.core.state.attribution import attributed, current_attribution
from symphony_es.core.state.builder import build_world
from symphony_es.core.state.history import PAGE, StateHistory, is_system
from symphony_es.core.state.report import ResumeReport
from symphony_es.core.state.transactions import open_scope_of
from symphony_es.core.state.world import World
from symphony_es.diagnostics import get_logger
from symphony_es.errors import ConfigurationError, PositionInsideTransactionError, PositionNotFoundError, RestorationError
from symphony_es.events.changes import REMOVE, SET, Change
from symphony_es.events.diff import diff
from symphony_es.events.event import NewEvent
from symphony_es.events.fold import EntityState, Fold
from symphony_es.events.identifiers import uuid7

if TYPE_CHECKING:
    from symphony_es.core.state.host import Host
    from symphony_es.log.log import EventLog
    from symphony_es_projections.checkpoints import CheckpointEntry

__all__ = ["ReplayUntil", "Resumption", "target_position"]

ReplayUntil = str | int | datetime
"""`"checkpoint"`, `"latest"`, a position, or a moment with a time zone."""

logger = get_logger(__name__)


async def target_position(log: EventLog, until: ReplayUntil, checkpoint: CheckpointEntry | None) -> int:
    """The position that a `replay_until` means.

    Raises:
        ConfigurationError: it means nothing, or a moment without a time zone.
        PositionNotFoundError: a position the log does not have.
    """
    if until == "latest":
        return log.head
    if until == "checkpoint" and checkpoint is not None:
        return checkpoint.position
    if isinstance(until, datetime):
        if until.tzinfo is None:
            raise ConfigurationError(f"{until!r} has no time zone: give one, for example datetime.now(UTC)")
        return await log.position_at(round((until - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1_000_000) * 1000)
    if isinstance(until, int) and not isinstance(until, bool):
        if not 0 <= until <= log.head:
            raise PositionNotFoundError(f"position {until} is not in the log: its head is {log.head}")
        return until
    raise ConfigurationError(f"replay_until is 'checkpoint', 'latest', a position or a datetime, not {until!r}")


class Resumption:
    """One resume, from the reading of states to the new world.

    Args:
        host: the Symphony.
        shell: makes the Symphony that restorers see, for a new world.
        install: puts the new world in the old one's place.
    """

    def __init__(self, host: Host, history: StateHistory, shell: Callable[[World], Host], install: Callable[[World], None]) -> None:
        self.host = host
        self.log = host.log
        self.history = history
        self.shell = shell
        self.install = install

    async def run(
        self,
        choose_target: Callable[[], Awaitable[int]],
        *,
        checkpoint: CheckpointEntry | None,
        strict: bool,
        new_world: Callable[[], World],
    ) -> ResumeReport:
        """Bring the world to a position; see the module for the order of steps.

        Raises:
            RestorationError: inside a transaction, or a restorer failed; the old world is in place and nothing was appended.
            PositionInsideTransactionError: going back into the middle of a transaction.
            ConcurrencyError: another writer was first; nothing was appended.
        """
        old = self.host.world
        if open_scope_of(old) is not None:
            raise RestorationError("a resume cannot happen inside a transaction: end it first")
        started = time.monotonic()
        with old.lock:
            old.record_foreign()
            if old.open_transactions:
                names = ", ".join(sorted(repr(transaction.name) for transaction in old.open_transactions))
                raise RestorationError(f"transactions are open ({names}): wait for their end before a resume")
            if old.sealed is not None:
                raise RestorationError(f"{old.sealed} is under way already")
            old.sealed = "a resume"
        try:
            while old.outbox.unsettled:
                await old.outbox.flush([])
            target = await choose_target()
            report = ResumeReport(position=target, checkpoint=checkpoint.id if checkpoint is not None else None)
            report.dropped = {record.key: record.lost_changes() for record in old.outbox.broken}
            fold = await self.history.states_at(target)
            heads = await self._heads(fold)
            if heads and target:
                first, last = await self.log.transaction_bounds(target)
                if target != last:
                    raise PositionInsideTransactionError(target, first, last)
            compensations = self._compensate(fold, heads, checkpoint)
            world = new_world()
            await build_world(self.shell(world), world, fold, report, strict=strict)
            await _to_the_end(self._replace(old, world, heads, compensations))
            report.rewound = [event.entity_key for event in compensations]
        finally:
            old.sealed = None
        report.damaged_snapshots = list(self.history.damaged)
        report.duration_s = time.monotonic() - started
        logger.info("world_resumed", position=target, checkpoint_id=report.checkpoint, duration_ms=round(report.duration_s * 1000, 1))
        return report

    async def _replace(self, old: World, world: World, heads: dict[str, EntityState], compensations: list[NewEvent]) -> None:
        if compensations:
            await self.log.append(compensations)
        self._take_over_versions(world, heads, compensations)
        world.restoring = False
        old.close("its world has been replaced by a resume")
        self.install(world)

    async def _heads(self, fold: Fold) -> dict[str, EntityState]:
        """The present states of the application's entities that have events after a fold's position; one pass over those."""
        present, after = Fold(position=fold.position), fold.position
        while after < self.log.head:
            rows = await self.log.read_rows(after=after, until=self.log.head, limit=PAGE)
            if not rows:
                break
            for row in rows:
                if is_system(row[1]):
                    continue
                if row[1] not in present.states and row[1] in fold.states:
                    present.states[row[1]] = fold.states[row[1]].copy()
                present.apply_row(row)
            after = rows[-1][0]
        return dict(sorted(present.states.items()))

    @staticmethod
    def _compensate(fold: Fold, heads: dict[str, EntityState], checkpoint: CheckpointEntry | None) -> list[NewEvent]:
        """The events that take every entity changed since back to its state in `fold`."""
        events: list[NewEvent] = []
        with attributed(cause=checkpoint.event_id if checkpoint is not None else None):
            for key, now in heads.items():
                then = fold.states.get(key)
                changes = _way_back(now, then)
                if changes:
                    events.append(_rewound(key, now, then, changes, events))
        return events

    @staticmethod
    def _take_over_versions(world: World, heads: dict[str, EntityState], compensations: list[NewEvent]) -> None:
        """The new world's entities have the states of the target, and the versions that the log has now."""
        latest = {key: (state.version, state.generation) for key, state in heads.items()}
        latest.update({event.entity_key: (event.version, event.metadata.generation or 0) for event in compensations})
        for key, (version, generation) in latest.items():
            record = world.records.get(key)
            if record is not None:
                record.version, record.generation = version, generation


def _way_back(now: EntityState, then: EntityState | None) -> list[Change]:
    if then is None or then.deleted:
        return [] if now.deleted else [(REMOVE, ())]
    if now.deleted:
        return [(SET, (), then.data)]
    return diff(now.data or {}, then.data or {})


def _rewound(key: str, now: EntityState, then: EntityState | None, changes: list[Change], before: list[NewEvent]) -> NewEvent:
    state_version = then.state_version if then is not None and then.state_version != now.state_version else None
    return NewEvent(
        entity_key=key,
        version=now.version + 1,
        name="Rewound",
        changes=changes,
        metadata=current_attribution.get().metadata(state_version=state_version, generation=now.generation + 1),
        event_id=uuid7(time.time_ns(), os.urandom(16)),
        transaction_id=before[0].event_id if before else None,
    )


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Await something that must not be left half done; a cancellation takes effect when it is."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        task.result()
        raise
