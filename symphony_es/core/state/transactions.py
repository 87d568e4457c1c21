"""Transactions: changes of any number of entities, appended together or not at all.

A transaction claims each entity it touches until it ends, so that per entity the order in the log is the order in which its
changes happened. Whose change it is, a context variable says: tasks and threads started inside a transaction belong to it. A
block inside a block joins the outer transaction and can be rolled back alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import ExitStack
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, Self

from symphony_es.core.state.attribution import Attribution, attributed, current_attribution
from symphony_es.errors import EntityBusyError, EntityOutOfStepError, SymphonyError, TransactionEndedError
from symphony_es.events.changes import Change
from symphony_es.events.event import check_event_name

if TYPE_CHECKING:
    from symphony_es.core.state.records import EntityRecord, Segment, Sink
    from symphony_es.core.state.world import World

__all__ = ["Recording", "Scope", "Transaction", "TransactionBlock", "current_scope"]

Undo = tuple[Any, ...]


class Draft:
    """An event in the making, inside a transaction."""

    __slots__ = ("record", "scope", "segment", "transaction")

    def __init__(self, transaction: Transaction, record: EntityRecord, scope: Scope, segment: Segment) -> None:
        self.transaction = transaction
        self.record = record
        self.scope = scope
        self.segment = segment

    def sink(self, change: Change, undo: Undo) -> None:
        """Record a change and what undoes it."""
        self.segment.changes.append(change)
        self.transaction.undo_log.append(undo)


class Scope:
    """One block: the transaction it belongs to, and the name that events of its changes get."""

    __slots__ = ("data", "draft_mark", "name", "transaction", "undo_mark")

    def __init__(self, transaction: Transaction, name: str | None, data: Any = None) -> None:
        self.transaction = transaction
        self.name = name
        self.data = data
        self.undo_mark = len(transaction.undo_log)
        self.draft_mark = len(transaction.drafts)

    def sink(self, record: EntityRecord) -> Sink:
        """Where a change of an entity made in this block is recorded."""
        return self.transaction.draft(record, self).sink


current_scope: ContextVar[Scope | None] = ContextVar("symphony_es_scope", default=None)


class Transaction:
    """What one unit of work changes, until it is appended or rolled back. Used with the world's lock held."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.drafts: list[Draft] = []
        self.undo_log: list[Undo] = []
        self.records: dict[EntityRecord, int] = {}
        self.waiting_for: set[EntityRecord] = set()
        self.ended = False
        self._latest: dict[EntityRecord, Draft] = {}

    def take(self, record: EntityRecord) -> None:
        """Claim an entity.

        Raises:
            TransactionEndedError: this transaction has ended.
            EntityBusyError: another one claims it.
            EntityOutOfStepError: its earlier changes could not be appended.
        """
        if self.ended:
            raise TransactionEndedError(
                f"the transaction {self.name!r} has ended; {record.key} cannot be changed by a task or thread that belongs to it"
            )
        if record.holder is self:
            return
        if record.holder is not None:
            raise EntityBusyError(record.key, record.holder.name, f"the transaction {self.name!r}")
        if record.pending:
            self.world.outbox.submit_pending()
        if record.broken is not None:
            raise EntityOutOfStepError(record.key, str(record.broken)) from record.broken
        record.holder = self
        self.records[record] = record.version

    def draft(self, record: EntityRecord, scope: Scope, *, new: bool = False, name: str | None = None) -> Draft:
        """The draft that a change of an entity belongs to; a new one after a draft of another block or attribution."""
        self.take(record)
        attribution = current_attribution.get()
        if record.adoption is not None:
            self._adopt(record, scope, attribution)
        latest = self._latest.get(record)
        if latest is not None and not new and latest.scope is scope and latest.segment.attribution is attribution:
            return latest
        segment = self.world.new_segment(name or scope.name or f"{record.entity_type}Changed", attribution, scope.data)
        scope.data = None  # it belongs to the first event of the block
        return self._add(Draft(self, record, scope, segment))

    def _adopt(self, record: EntityRecord, scope: Scope, attribution: Attribution) -> None:
        changes = record.adoption
        self._add(Draft(self, record, scope, record.take_adoption(attribution)))
        self.undo_log.append((setattr, record, "adoption", changes))

    def _add(self, draft: Draft) -> Draft:
        self.drafts.append(draft)
        self._latest[draft.record] = draft
        return draft

    def roll_back(self, scope: Scope) -> None:
        """Undo everything since the beginning of a block, newest first; versions are what they were when it claimed its entities."""
        for record, version in self.records.items():
            record.version = version
        while len(self.undo_log) > scope.undo_mark:
            function, *arguments = self.undo_log.pop()
            function(*arguments)
        del self.drafts[scope.draft_mark :]
        self._latest = {draft.record: draft for draft in self.drafts}

    def finish(self) -> None:
        """Release all claims."""
        self.ended = True
        for record in self.records:
            if record.holder is self:
                record.holder = None
        self.world.wake_claimants(self.records)

    def would_wait_for(self, holder: Transaction) -> bool:
        """Whether `holder` waits, directly or through others, for an entity that this transaction claims."""
        seen: set[int] = set()
        stack = [holder]
        while stack:
            transaction = stack.pop()
            if transaction is self:
                return True
            if id(transaction) not in seen:
                seen.add(id(transaction))
                stack.extend(record.holder for record in transaction.waiting_for if record.holder is not None)
        return False


class _Block:
    """What the two kinds of blocks share: attribution, joining an enclosing transaction, undoing."""

    def __init__(self, world: World, name: str | None, data: Any, attribution: dict[str, Any]) -> None:
        self.world = world
        self.name = check_event_name(name) if name is not None else None
        self._data = data
        self._attribution = {key: item for key, item in attribution.items() if item is not None}
        self._stack = ExitStack()
        self._token: Token[Scope | None] | None = None
        self._scope: Scope | None = None
        self._outer = False

    @property
    def scope(self) -> Scope:
        """The block's scope; there is one between its beginning and its end."""
        assert self._scope is not None, "the block has not begun"
        return self._scope

    def _begin(self) -> None:
        if self._attribution:
            self._stack.enter_context(attributed(**self._attribution))
        enclosing = current_scope.get()
        joins = enclosing is not None and enclosing.transaction.world is self.world and not enclosing.transaction.ended
        self._outer = not joins
        transaction = enclosing.transaction if joins and enclosing is not None else Transaction(self.world, self.name or "a block")
        self._scope = Scope(transaction, self.name, self._data)
        self._token = current_scope.set(self._scope)

    def _end(self) -> None:
        if self._token is not None:
            current_scope.reset(self._token)
            self._token = None
        self._stack.close()


class Recording(_Block):
    """A synchronous block: its changes are submitted, as one transaction, when it ends.

    Attributes:
        event_ids: after the block, the id (16 bytes) of each entity's last event, by key.
    """

    def __init__(self, world: World, name: str | None, data: Any, entity: EntityRecord | None, attribution: dict[str, Any]) -> None:
        super().__init__(world, name, data, attribution)
        self.event_ids: dict[str, bytes] = {}
        self._entity = entity

    def __enter__(self) -> Self:
        self.world.lock.acquire()
        try:
            self._begin()
            if self._entity is not None:
                self.scope.transaction.draft(self._entity, self.scope, new=True).segment.open = False  # written even if nothing changes
        except BaseException:
            self._end()
            self.world.lock.release()
            raise
        return self

    def __exit__(self, exception_type: type[BaseException] | None, *rest: object) -> None:
        transaction = self.scope.transaction
        try:
            if exception_type is not None:
                transaction.roll_back(self.scope)
            elif self._outer:
                try:
                    self.event_ids = self.world.outbox.submit_drafts(transaction)
                except SymphonyError:
                    transaction.roll_back(self.scope)
                    raise
        finally:
            if self._outer:
                transaction.finish()
            self._end()
            self.world.lock.release()


class TransactionBlock(_Block):
    """`async with symphony.transaction(...)`: awaits its commit; an exception inside appends nothing and puts objects back."""

    def __init__(self, world: World, name: str, claim: Iterable[Any], attribution: dict[str, Any]) -> None:
        super().__init__(world, name, None, attribution)
        self._claim = list(claim)

    async def __aenter__(self) -> Transaction:
        with self.world.lock:
            self.world.record_foreign()
            self._begin()
        try:
            for target in self._claim:
                await self.world.claim(target)
        except BaseException:
            self._abandon()
            raise
        return self.scope.transaction

    def _abandon(self) -> None:
        with self.world.lock:
            self.scope.transaction.roll_back(self.scope)
            self.world.reset_foreign(self.scope.transaction)
            if self._outer:
                self.scope.transaction.finish()
            self._end()

    async def __aexit__(self, exception_type: type[BaseException] | None, *rest: object) -> None:
        transaction = self.scope.transaction
        if exception_type is not None:
            self._abandon()
            return
        if not self._outer:
            try:
                with self.world.lock:
                    self.world.record_foreign()
            except BaseException:
                self._abandon()
                raise
            self._end()
            return
        try:
            with self.world.lock:
                self.world.record_foreign()
            await self.world.log.room()
            with self.world.lock:
                ticket = self.world.outbox.submit_transaction(transaction)
        except BaseException:
            self._abandon()
            raise
        current_scope.reset(self._token) if self._token is not None else None
        self._token = None
        self._stack.close()
        if ticket is None:
            transaction.finish()
            return
        await self._settle(ticket)

    async def _settle(self, ticket: Any) -> None:
        """Wait for the commit; when it fails, or is found to have failed after a cancellation, put the objects back."""
        transaction = self.scope.transaction
        try:
            await ticket.wait()
        except asyncio.CancelledError:
            ticket.add_done_callback(self._settle_late)
            raise
        except SymphonyError:
            with self.world.lock:
                transaction.roll_back(self.scope)
                transaction.finish()
            raise
        with self.world.lock:
            transaction.finish()

    def _settle_late(self, ticket: Any) -> None:
        with self.world.lock:
            try:
                ticket.result()
            except SymphonyError:
                self.scope.transaction.roll_back(self.scope)
                self.scope.transaction.finish()
            else:
                self.scope.transaction.finish()
