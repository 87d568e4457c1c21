"""Transactions: changes of any number of entities, appended together or not at all.

A transaction claims each entity it touches until it ends, so that per entity the order in the log is the order in which its
changes happened. Whose change it is, a context variable says: tasks and threads started inside a transaction belong to it. A
block inside a block joins the outer transaction and can be rolled back alone; see `scopes.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from symphony_es.attribution import current_attribution
from symphony_es.core.world.scopes import Draft, Handed, Scope, current_scope, open_scope_of, scope_of
from symphony_es.errors import EntityBusyError, EntityOutOfStepError, SymphonyError, TransactionEndedError
from symphony_es.events.identifiers import SYSTEM_PREFIX
from symphony_es.shown import quoted

if TYPE_CHECKING:
    from symphony_es.core.world.live_entity import EntityRecord, Segment
    from symphony_es.core.world.world import World
    from symphony_es.log.writer import Ticket

__all__ = ["Draft", "Handed", "Scope", "Transaction", "current_scope", "open_scope_of", "scope_of", "wait_for_commits"]

NOTED_S = 1.0
"""How long it may take, after a commit, until the event loop that has waited for it takes note; one that has ended never does."""


class Transaction:
    """What one unit of work changes, until it is appended or rolled back. Used with the world's lock held.

    Attributes:
        ended: whether its end has come: nothing can be changed in it any more.
        claimed: the entities that it was told to claim, besides those it has by changing them.
        alone: whether it claims the objects of foreign classes that it is handed, since it is to run again when it is taken back.
        left: the keys of objects that it could not put back: they may have changes of others.
        unrecorded: states of objects that are compared at `record` only, as they were when an atomic step was handed them.
        barred_by: transactions whose end it waits for, besides that of those that claim what it waits for.
        submitted: whether its events have been submitted, so that only a failed commit takes them back.
        at_end: called when it has ended and holds nothing any more, whether it is durable or was taken back.
    """

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.drafts: list[Draft] = []
        self.records: dict[EntityRecord, int] = {}
        self.claimed: set[EntityRecord] = set()
        self.alone = False
        self.left: list[str] = []
        self.unrecorded: dict[EntityRecord, dict[str, Any]] = {}
        self.waiting_for: set[EntityRecord] = set()
        self.barred_by: set[Transaction] = set()
        self.outermost: Scope | None = None
        self.ended = False
        self.ticket: Ticket | None = None
        self.submitted = False
        self.at_end: list[Callable[[], None]] = []
        self._latest: dict[EntityRecord, Draft] = {}

    @property
    def position(self) -> int | None:
        """After the block: the position of the last event that was appended; None where nothing changed, or it failed."""
        ticket = self.ticket
        return ticket.result().last if ticket is not None and ticket.done() else None

    @property
    def versions(self) -> dict[str, int]:
        """After the block: the version that each entity has by the events that were appended, by key."""
        ticket = self.ticket
        events = ticket.events if ticket is not None and self.position is not None else ()
        return {event.entity_key: event.version for event in events if not event.entity_key.startswith(SYSTEM_PREFIX)}

    def take(self, record: EntityRecord) -> None:
        """Claim an entity.

        Raises:
            TransactionEndedError: this transaction has ended.
            EntityBusyError: another one claims it.
            EntityOutOfStepError: its earlier changes could not be appended.
        """
        self.check_open(record.key)
        if record.holder is self:
            return
        self.world.check_open(record)
        if record.holder is not None:
            raise EntityBusyError(record.key, record.holder.name, f"the transaction {quoted(self.name)}")
        if record.pending:
            self.world.outbox.submit_pending()
        if record.broken is not None:
            raise EntityOutOfStepError(record.key, str(record.broken)) from record.broken
        record.holder = self
        self.records[record] = record.version
        if self.waiting_for:
            self.world.look_again(record)

    def check_open(self, what: str) -> None:
        """Refuse what comes after the end, which is when the drafts are submitted.

        Raises:
            TransactionEndedError: it has ended.
        """
        if self.ended:
            raise TransactionEndedError(
                f"the transaction {quoted(self.name)} has ended, and {what} is changed by a task or thread that belongs to it: "
                "await it inside the block, or start it outside of the block"
            )

    def draft(self, record: EntityRecord, scope: Scope, *, new: bool = False, name: str | None = None) -> Draft:
        """Return the draft that a change of an entity belongs to; a new one after a draft of another block or attribution."""
        standing = current_attribution.innermost()
        attribution = standing.value if standing.left is None else current_attribution.get()
        latest = self._latest.get(record)
        if (
            latest is not None
            and latest.scope is scope
            and record.block is scope
            and not (new or self.ended)
            and latest.segment.attribution is attribution
        ):
            return latest  # the next change of the same event, as most are
        scope = scope.standing()
        self.take(record)
        scope.own(record)
        if record.adoption is not None:
            self._adopt(record, scope)
        segment = self.world.new_segment(record, name or scope.name or f"{record.entity_type}Changed", attribution, scope.data)
        scope.data = None  # it belongs to the first event of the block
        made = self._latest[record] = self._add(record, scope, segment)
        return made

    def _adopt(self, record: EntityRecord, scope: Scope) -> None:
        changes = record.adoption
        self._add(record, scope, record.take_adoption())  # an event of its own: no change joins it
        scope.undo_log.append((record, (setattr, record, "adoption", changes), ()))

    def _add(self, record: EntityRecord, scope: Scope, segment: Segment) -> Draft:
        draft = Draft(record, scope, segment, self._latest.get(record))
        self.drafts.append(draft)
        scope.drafts.append(draft)
        return draft

    def drop(self, draft: Draft) -> None:
        """Leave a draft out; called newest first."""
        draft.dropped = True
        if self._latest.get(draft.record) is draft:
            if draft.before is not None and not draft.before.dropped:
                self._latest[draft.record] = draft.before
            else:
                del self._latest[draft.record]
        while self.drafts and self.drafts[-1].dropped:
            self.drafts.pop()

    def fail(self) -> None:
        """Put versions and objects back to what they were, after a commit that failed or could not be submitted."""
        for record, version in self.records.items():
            record.version = version
        if self.outermost is not None:
            self.outermost.roll_back()
        self.ended = True

    def finish(self) -> None:
        """End it and release all claims."""
        self.ended = True
        self.world.open_transactions.discard(self)
        for record in self.records:
            if record.holder is self:
                record.holder = record.block = record.born = None
        if self.outermost is not None:
            self.outermost.forget()
        self.drafts, self._latest = [], {}
        self.world.wake_claimants(self.records)
        following, self.at_end = self.at_end, []
        for call in following:
            call()

    def would_wait_for(self, holder: Transaction) -> bool:
        """Return whether `holder` waits, directly or through others, for an entity that this transaction claims."""
        seen: set[int] = set()
        stack = [holder]
        while stack:
            transaction = stack.pop()
            if transaction is self:
                return True
            if id(transaction) not in seen:
                seen.add(id(transaction))
                stack.extend(record.holder for record in transaction.waiting_for if record.holder is not None)
                stack.extend(transaction.barred_by)
        return False


async def wait_for_commits(world: World) -> None:
    """Wait until the transactions whose blocks have ended have ended themselves; those whose blocks are open are left alone."""
    ends: list[asyncio.Future[None]] = []
    with world.lock:
        committing = [transaction for transaction in world.open_transactions if transaction.submitted]
        for transaction in committing:
            ends.append(asyncio.get_running_loop().create_future())
            transaction.at_end.append(partial(_tell, ends[-1]))
    for transaction in committing:
        if transaction.ticket is not None:
            with suppress(SymphonyError):  # told to those whose transaction it is
                await transaction.ticket.wait()
    if ends:
        await asyncio.wait(ends, timeout=NOTED_S)


def _tell(end: asyncio.Future[None]) -> None:
    """Tell, from whichever thread, the event loop that waits; where that has ended, nobody waits."""

    def told() -> None:
        if not end.done():
            end.set_result(None)

    with suppress(RuntimeError):
        end.get_loop().call_soon_threadsafe(told)
