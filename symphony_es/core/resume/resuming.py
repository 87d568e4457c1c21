"""Resuming: bringing the live world to a position of the log, all of it or nothing.

The order is written here and in docs/architecture.md: (1) refuse while runs execute, flush, seal the old world; (2) read the
states at the target; (3) build the new world beside the old one; (4) when the target lies before the head, append the
compensating events, computed from folded states, as one transaction that expects the versions it has seen; (5) put the new world in
place and detach the old one. A failure before (4) has appended nothing; one in (4) appends nothing either.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from symphony_es.core.past.moment_texts import Moment
from symphony_es.core.past.moments import position_of
from symphony_es.core.past.states import StateHistory
from symphony_es.core.report import ResumeReport
from symphony_es.core.resume.building import build_world
from symphony_es.core.world.foreign import raise_first
from symphony_es.core.world.shadow import unrecorded_changes
from symphony_es.core.world.transaction import open_scope_of
from symphony_es.core.world.world import World
from symphony_es.diagnostics import get_logger
from symphony_es.errors import REPLACED, ConfigurationError, RestorationError, format_path
from symphony_es.files.working import to_the_end

if TYPE_CHECKING:
    from symphony_es.core.host import Host
    from symphony_es.core.past.opening import OpenedLog
    from symphony_es.core.past.rewinding import Rewind
    from symphony_es.events.changes import Change
    from symphony_es_projections.checkpoints import CheckpointEntry

__all__ = ["ReplayUntil", "Resumption", "target_position"]

ReplayUntil = Moment
"""`"checkpoint"`, for that of the call, or any moment."""

logger = get_logger(__name__)


async def target_position(opened: OpenedLog, until: ReplayUntil | None, checkpoint: CheckpointEntry | None) -> int:
    """Return the position that a `replay_until` means; the head where none is given.

    Errors are those of `moments.position_of`, and `ConfigurationError` for `"checkpoint"` where the call has none.
    """
    if until != "checkpoint":
        return await position_of(opened.log, until, opened.checkpoint_list)
    if checkpoint is None:
        raise ConfigurationError("replay_until='checkpoint' is for a call that takes a checkpoint: name one here, as name:before")
    return checkpoint.position


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
        types: frozenset[str] | None = None,
    ) -> ResumeReport:
        """Bring the world to a position; see the module for the order of steps.

        Raises:
            RestorationError: inside a transaction, or `strict` and an object could not be made; the old world is in place, and nothing was
                appended.
            PositionInsideTransactionError: going back into the middle of a transaction.
            ConcurrencyError: another writer was first; nothing was appended.
        """
        old = self.host.world
        if open_scope_of(old) is not None:
            raise RestorationError("a resume cannot happen inside a transaction: end it first")
        started = time.monotonic()
        raise_first(old.foreign.record_others())
        with old.lock:
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
            report.lost_at_the_end = self.log.lost_at_the_end
            unrecorded = await _unrecorded(old)
            report.dropped = {record.key: record.lost_changes() for record in old.outbox.broken} | unrecorded
            wholly = types is not None or target != self.log.head  # going back compares all that there is
            fold, more = (await self.history.states_at(target), None) if wholly else await self.history.living_at(target)
            rewind = None
            if fold.position < self.log.head and not self.log.read_only:  # who only reads sees objects as they were, and appends nothing
                from symphony_es.core.past.rewinding import plan_rewind  # late: seldom does a program go back

                rewind = await plan_rewind(self.log, fold, checkpoint.event_id if checkpoint is not None else None)
                rewind.heal(fold)
            world = new_world()
            await build_world(self.shell(world), world, fold, report, strict=strict, everything=False, types=types, more=more)
            await to_the_end(self._replace(old, world, rewind))
            report.rewound = rewind.keys if rewind is not None else []
        finally:
            old.sealed = None
        if unrecorded:
            paths = {key: sorted({format_path(change[1]) for change in changes}) for key, changes in list(unrecorded.items())[:100]}
            logger.warning("unrecorded_changes_dropped", position=target, entities=paths, count=len(unrecorded))
        if report.damaged:
            logger.warning("entities_damaged", position=target, entities=list(report.damaged)[:100], count=len(report.damaged))
        if report.unrestored:
            logger.warning("entities_not_restored", position=target, entities=list(report.unrestored)[:100], count=len(report.unrestored))
        report.damaged_snapshots = list(self.history.damaged)
        report.duration_s = time.monotonic() - started
        logger.info("world_resumed", position=target, checkpoint_id=report.checkpoint, duration_ms=round(report.duration_s * 1000, 1))
        return report

    async def _replace(self, old: World, world: World, rewind: Rewind | None) -> None:
        if rewind is not None and rewind.events:
            from symphony_es.core.past.dividing import append_divided

            rewind = dataclasses.replace(rewind, events=list(await append_divided(self.log, rewind.events)))
        # The new world's entities have the states of the target, and the versions that the log has now.
        for key, (version, generation) in (rewind.versions() if rewind is not None else {}).items():
            record = world.records.get(key)
            if record is not None:
                record.version, record.generation = version, generation
        world.restoring = False
        old.close(REPLACED)
        self.install(world)


async def _unrecorded(old: World) -> dict[str, list[Change]]:
    """Return what was changed in the objects that are to go and recorded nowhere, by entity: a resume gives it up, and says so."""
    if old.read_only:
        return {}
    found: dict[str, list[Change]] = {}
    for error in await old.compare_objects(everything=True):
        with old.lock:
            record = old.records.get(error.entity) or old.at_rest(error.entity)
            changes = [] if record is None else unrecorded_changes(record)
        found |= {error.entity: changes} if changes else {}
    return found
