"""Runs that begin with a transaction: their beginning is part of it, and they are driven when it is durable.

A block that is rolled back leaves no run. Where a crash comes between the commit and the first step, the run is on record as running, and
`recover` goes on with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from typing import TYPE_CHECKING

from symphony_es.core.world.transaction import Scope, Transaction, scope_of
from symphony_es.diagnostics import error_text, get_logger
from symphony_es.errors import DeadlockError, IllegalTransitionError, RunInterruptedError, SymphonyError, TransactionEndedError
from symphony_es.left_blocks import runner
from symphony_es.shown import quoted
from symphony_es.workflow.runs.run import Workflow
from symphony_es.workflow.runs.transitions import UNFINISHED, WorkflowStatus

if TYPE_CHECKING:
    from symphony_es.core.host import Host
    from symphony_es.core.world.world import World
    from symphony_es.workflow.engine.active import ActiveRuns
    from symphony_es.workflow.engine.drive import Drive

__all__ = ["Beginnings", "block_around", "refuse_inside"]

_log = get_logger(__name__)


def block_around(world: World) -> Scope | None:
    """Return the block of a transaction that the running code stands in.

    Raises:
        TransactionEndedError: it has ended, and the task or thread that belongs to it goes on.
    """
    scope = scope_of(world)
    return None if scope is None else scope.standing()


def refuse_inside(world: World, run: Workflow, request: str) -> None:
    """Refuse a request that cannot wait until nobody holds the run.

    Raises:
        IllegalTransitionError: the block around the calling code holds it, which would wait for its own end.
    """
    transaction = _own(world, run)
    if transaction is not None:
        state = f"part of the transaction {quoted(transaction.name)} around this call"
        raise IllegalTransitionError(run.id, state, request, why="ask for it after the block")


def _own(world: World, run: Workflow) -> Transaction | None:
    """Return the transaction that holds a run and cannot end before the running code goes on."""
    scope = scope_of(world)
    if scope is None or scope.transaction.ended or scope.entered_by != runner():
        return None
    record = world.record_of(run)
    return scope.transaction if record is not None and record.holder is scope.transaction else None


class Beginnings:
    """Those of one engine.

    Args:
        symphony: the Symphony.
        active: the runs that execute in this process.
    """

    def __init__(self, symphony: Host, active: ActiveRuns) -> None:
        self._symphony = symphony
        self._active = active

    def begin(
        self, transaction: Transaction, drive: Drive, prepare: Callable[[], None], launch: Callable[[], object], *, queued: bool
    ) -> None:
        """Put the beginning of a run on record in a transaction, and have it driven after that.

        Args:
            transaction: the one around the running code, which holds the run where it is not new.
            drive: its life.
            prepare: see `Drive.drive`.
            launch: begins to drive it.
            queued: the run has to wait for a place then.

        Raises:
            IllegalTransitionError: it executes already, or cannot go on. Nothing has been recorded.
        """
        run, loop, around = drive.run, asyncio.get_running_loop(), copy_context()
        is_new = self._symphony.world.record_of(run) is None
        self._active.refuse(run)
        if queued:
            drive.queue_within(prepare)
        else:
            drive.begin_within(prepare)
        self._active.begins_with(run, transaction)

        def ended() -> None:
            if asyncio._get_running_loop() is loop:
                go_on()
            elif not loop.is_closed():
                loop.call_soon_threadsafe(go_on)

        def go_on() -> None:
            self._active.has_begun(run, transaction)
            why = self._why_not(run, transaction)
            if why is not None:
                self._tell(run, why)
                return
            if is_new and transaction.ticket is not None:
                key = f"Workflow:{run.id}"
                drive.first_version = next(event.version for event in transaction.ticket.events if event.entity_key == key)
            try:
                around.run(launch)
            except SymphonyError as error:
                _log.warning("workflow_run_stopped", run_id=run.id, error=error_text(error))
                self._tell(run, error)

        transaction.at_end.append(ended)

    def _tell(self, run: Workflow, why: SymphonyError) -> None:
        """Tell whoever waits for the run; of one that is on record until somebody takes it up."""
        if self._symphony.world.record_of(run) is None:
            self._active.never_began(run, why)
        else:
            self._active.died(run, why)

    def _why_not(self, run: Workflow, transaction: Transaction) -> SymphonyError | None:
        """Return why a run is not driven after all."""
        world = self._symphony.world
        record = world.record_of(run)
        begun = run.status in UNFINISHED or (run.status is WorkflowStatus.PAUSED and f"Workflow:{run.id}" in transaction.versions)
        if transaction.position is None or record is None or not begun:
            within = f"run {run.id} was part of the transaction {quoted(transaction.name)}"
            return TransactionEndedError(f"{within}, and was rolled back with it, or with a block in it: it never began")
        if world.sealed is not None:
            return RunInterruptedError(f"run {run.id} is on record, and the Symphony closes: recover() goes on with it")
        return None

    def check_wait(self, run: Workflow) -> None:
        """Refuse to wait for a run from inside the block that it begins with.

        Raises:
            DeadlockError: the run begins after the block. At once.
        """
        transaction = _own(self._symphony.world, run)
        if transaction is not None and self._active.begins(run) is transaction:
            block = f"the transaction {quoted(transaction.name)}"
            raise DeadlockError([block, f"run {run.id}", block], advice="The run begins when the block has ended: wait for it after that")
