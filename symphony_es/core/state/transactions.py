"""Transactions: changes of any number of entities, appended together or not at all.

A transaction claims each entity it touches until it ends, so that per entity the order in the log is the order in which its
changes happened. Whose change it is, a context variable says: tasks and threads started inside a transaction belong to it. A
block inside a block joins the outer transaction and can be rolled back alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, Self

from symphony_es.core.state.attribution import Attribution, attribute, current_attribution
from symphony_es.errors import EntityBusyError, EntityOutOfStepError, SymphonyError, TransactionEndedError
from symphony_es.events.changes import Change
from symphony_es.events.event import check_event_name

if TYPE_CHECKING:
    from symphony_es.core.state.membership import Membership
    from symphony_es.core.state.records import EntityRecord, Segment, Sink
    from symphony_es.core.state.tracking.shape import Shape
    from symphony_es.core.state.world import World

__all__ = ["Handed", "Recording", "Scope", "Transaction", "TransactionBlock", "current_scope", "open_scope_of", "scope_of"]

Undo = tuple[Any, ...]


def scope_of(world: Membership) -> Scope | None:
    """The innermost block around the running code that belongs to a world; blocks of other Symphonies are passed over."""
    scope = current_scope.get()
    while scope is not None and scope.transaction.world is not world:
        scope = scope.outer
    return scope


def open_scope_of(world: Membership) -> Scope | None:
    """The same, and None when its transaction has ended: a task may outlive the block that it was started in."""
    scope = scope_of(world)
    return None if scope is None or scope.transaction.ended else scope


class Draft:
    """An event in the making, inside a transaction."""

    __slots__ = ("record", "scope", "segment", "transaction")

    def __init__(self, transaction: Transaction, record: EntityRecord, scope: Scope, segment: Segment) -> None:
        self.transaction = transaction
        self.record = record
        self.scope = scope
        self.segment = segment

    def keep(self, change: Change, undo: Undo) -> None:
        """Record a change and what undoes it."""
        self.segment.changes.append(change)
        self.transaction.undo_log.append((self.scope, undo))


class Handed:
    """The objects of foreign classes that a block, or an attempt at a step, was handed in its own context.

    Attributes:
        outer: what the block around it was handed.
        attribution: of what the block changes.
        records: the objects' records, with what they were made of when they were handed to it.
        inherited: the same of what the blocks around it were handed, as it was at its beginning.
        open: whether the block has not ended.
    """

    __slots__ = ("attribution", "inherited", "open", "outer", "records", "scope", "world")

    def __init__(self, world: Membership, outer: Handed | None, scope: Scope | None = None) -> None:
        self.world = world
        self.outer = outer
        self.scope = scope
        self.attribution = current_attribution.get()
        self.records: dict[EntityRecord, Shape | None] = {}
        self.inherited: dict[EntityRecord, Shape | None] = {}
        self.open = True

    @property
    def transaction(self) -> Transaction | None:
        """The block's transaction; a step's attempt has none."""
        return self.scope.transaction if self.scope is not None else None

    def has(self, record: EntityRecord) -> bool:
        """Whether it, or a block around it, was handed an object."""
        holder: Handed | None = self
        while holder is not None:
            if record in holder.records:
                return True
            holder = holder.outer
        return False

    def encloses(self, other: Handed) -> bool:
        """Whether this is another one's block, or lies around it."""
        holder: Handed | None = other
        while holder is not None and holder is not self:
            holder = holder.outer
        return holder is self

    def reach(self) -> list[EntityRecord]:
        """What it and the blocks around it were handed."""
        return [*self.records] if self.outer is None else [*self.records, *self.outer.reach()]

    @contextmanager
    def resumed(self) -> Iterator[None]:
        """Whatever is recorded in this block belongs to the block that this was handed to."""
        scope = current_scope.set(self.scope)
        attribution = current_attribution.set(self.attribution)
        try:
            yield
        finally:
            current_attribution.reset(attribution)
            current_scope.reset(scope)


class Scope:
    """One block: the transaction it belongs to, and the name that events of its changes get.

    Attributes:
        handed: the objects of foreign classes that it was handed.
    """

    __slots__ = ("data", "handed", "name", "open", "outer", "transaction")

    def __init__(self, transaction: Transaction, name: str | None, data: Any, outer: Scope | None, around: Handed | None = None) -> None:
        self.handed = Handed(transaction.world, around, self)
        self.transaction = transaction
        self.name = name
        self.data = data
        self.outer = outer
        self.open = True

    def within(self, other: Scope) -> bool:
        """Whether this block is another one, or inside it."""
        scope: Scope | None = self
        while scope is not None:
            if scope is other:
                return True
            scope = scope.outer
        return False

    def sink(self, record: EntityRecord) -> Sink:
        """Where a change of an entity made in this block is recorded."""
        return self.transaction.draft(record, self)


current_scope: ContextVar[Scope | None] = ContextVar("symphony_es_scope", default=None)


class Transaction:
    """What one unit of work changes, until it is appended or rolled back. Used with the world's lock held."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.drafts: list[Draft] = []
        self.undo_log: list[tuple[Scope, Undo]] = []
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
        self.check_open(record.key)
        if record.holder is self:
            return
        self.world.check_open(record)
        if record.holder is not None:
            raise EntityBusyError(record.key, record.holder.name, f"the transaction {self.name!r}")
        if record.pending:
            self.world.outbox.submit_pending()
        if record.broken is not None:
            raise EntityOutOfStepError(record.key, str(record.broken)) from record.broken
        record.holder = self
        self.records[record] = record.version

    def check_open(self, what: str) -> None:
        """Refuse what comes after the end, which is when the drafts are submitted.

        Raises:
            TransactionEndedError: it has ended.
        """
        if self.ended:
            raise TransactionEndedError(
                f"the transaction {self.name!r} has ended; {what} cannot be changed by a task or thread that belongs to it"
            )

    def draft(self, record: EntityRecord, scope: Scope, *, new: bool = False, name: str | None = None) -> Draft:
        """The draft that a change of an entity belongs to; a new one after a draft of another block or attribution."""
        attribution = current_attribution.get()
        latest = self._latest.get(record)
        if latest is not None and latest.scope is scope and not (new or self.ended) and latest.segment.attribution is attribution:
            return latest  # the next change of the same event, as most are
        self.take(record)
        if record.adoption is not None:
            self._adopt(record, scope, attribution)
            latest = self._latest.get(record)
        if latest is not None and latest.scope.open and not (scope.within(latest.scope) or latest.scope.within(scope)):
            raise EntityBusyError(record.key, latest.scope.name or self.name, f"another block of {self.name!r} that runs beside it")
        segment = self.world.new_segment(name or scope.name or f"{record.entity_type}Changed", attribution, scope.data)
        scope.data = None  # it belongs to the first event of the block
        return self._add(Draft(self, record, scope, segment))

    def _adopt(self, record: EntityRecord, scope: Scope, attribution: Attribution) -> None:
        changes = record.adoption
        self.drafts.append(Draft(self, record, scope, record.take_adoption(attribution)))  # an event of its own: no change joins it
        self.undo_log.append((scope, (setattr, record, "adoption", changes)))

    def _add(self, draft: Draft) -> Draft:
        self.drafts.append(draft)
        self._latest[draft.record] = draft
        return draft

    def roll_back(self, scope: Scope) -> None:
        """Undo what a block and the blocks inside it have done, newest first; what others did beside it stays.

        After the transaction's end nothing is undone: it has been submitted.
        """
        if self.ended:
            return
        kept: list[tuple[Scope, Undo]] = []
        while self.undo_log:
            owner, undo = self.undo_log.pop()
            if owner.within(scope):
                function, *arguments = undo
                function(*arguments)
            else:
                kept.append((owner, undo))
        self.undo_log.extend(reversed(kept))
        self.drafts = [draft for draft in self.drafts if not draft.scope.within(scope)]
        self._latest = {draft.record: draft for draft in self.drafts if draft.segment.name != "StateAdopted"}

    def fail(self, scope: Scope) -> None:
        """After a commit that failed: versions and objects are what they were before."""
        for record, version in self.records.items():
            record.version = version
        self.ended = False
        self.roll_back(scope)
        self.ended = True

    def finish(self) -> None:
        """End it and release all claims."""
        self.ended = True
        self.undo_log.clear()
        self.world.open_transactions.discard(self)
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
        self._attribution_token: Token[Attribution] | None = None
        self._token: Token[Scope | None] | None = None
        self._scope: Scope | None = None
        self._outer = False

    @property
    def scope(self) -> Scope:
        """The block's scope; there is one between its beginning and its end."""
        assert self._scope is not None, "the block has not begun"
        return self._scope

    def _begin(self) -> None:
        enclosing = scope_of(self.world)
        if enclosing is not None:
            enclosing.transaction.check_open(f"what the block {self.name!r} would change")
        if self._attribution:
            self._attribution_token = attribute(**self._attribution)
        self._outer = enclosing is None
        transaction = Transaction(self.world, self.name or "a block") if enclosing is None else enclosing.transaction
        self.world.open_transactions.add(transaction)
        around = enclosing.handed if enclosing is not None else self.world.foreign.step()
        self._scope = Scope(transaction, self.name, self._data, current_scope.get(), around)
        self._token = current_scope.set(self._scope)

    def _end(self) -> None:
        if self._scope is not None:
            self._scope.open = False
            self.world.foreign.release(self._scope.handed)
        if self._token is not None:
            current_scope.reset(self._token)
            self._token = None
        if self._attribution_token is not None:
            current_attribution.reset(self._attribution_token)
            self._attribution_token = None


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
            if exception_type is None:
                try:
                    self.world.record_foreign(self.scope.handed, enclosing=False)
                except BaseException:
                    self._undo()
                    raise
            if exception_type is not None:
                self._undo()
            elif self._outer:
                try:
                    self.event_ids = self.world.outbox.submit_drafts(transaction)
                except SymphonyError:
                    transaction.fail(self.scope)
                    raise
        finally:
            if self._outer:
                transaction.finish()
            self._end()
            self.world.lock.release()

    def _undo(self) -> None:
        self.scope.transaction.roll_back(self.scope)
        self.world.reset_foreign(self.scope.handed, enclosing=False)


class TransactionBlock(_Block):
    """`async with symphony.transaction(...)`: awaits its commit; an exception inside appends nothing and puts objects back."""

    def __init__(self, world: World, name: str | None, claim: Iterable[Any], attribution: dict[str, Any]) -> None:
        super().__init__(world, name, None, attribution)
        self._claim = list(claim)

    async def __aenter__(self) -> Transaction:
        self.world.check_process()
        around = self.world.foreign.holder()
        if around is not None:
            self.world.record_foreign(around)  # what the blocks around it have changed so far is theirs
        with self.world.lock:
            self._begin()
        self.world.foreign.inherit(self.scope.handed)
        try:
            for target in self._claim:
                await self.world.claim(target)
        except BaseException:
            self._abandon()
            raise
        return self.scope.transaction

    def _abandon(self) -> None:
        transaction = self.scope.transaction
        undone = not transaction.ended
        with self.world.lock:
            transaction.roll_back(self.scope)
        if undone:
            self.world.reset_foreign(self.scope.handed)
        with self.world.lock:
            if self._outer:
                transaction.finish()
            self._end()

    async def __aexit__(self, exception_type: type[BaseException] | None, *rest: object) -> None:
        transaction = self.scope.transaction
        if exception_type is not None:
            self._abandon()
            return
        if not self._outer:
            try:
                self.world.record_foreign(self.scope.handed)
            except BaseException:
                self._abandon()
                raise
            self._end()
            return
        try:
            self.world.record_foreign(self.scope.handed)
            if not self.world.log.has_room():
                await self.world.log.room()
            with self.world.lock:
                ticket = self.world.outbox.submit_transaction(transaction)
                transaction.ended = True  # what is changed from here on is no part of it
        except BaseException:
            self._abandon()
            raise
        self._end()
        if ticket is None:
            transaction.finish()
            return
        await self._settle(ticket)

    async def _settle(self, ticket: Any) -> None:
        """Wait for the commit; when it fails, or is found to have failed after a cancellation, put the objects back."""
        try:
            await ticket.wait()
        except asyncio.CancelledError:
            ticket.add_done_callback(self._settle_late)
            raise
        except SymphonyError:
            self._put_back()
            raise
        self._conclude()

    def _settle_late(self, ticket: Any) -> None:
        try:
            ticket.result()
        except SymphonyError:
            self._put_back()
        else:
            self._conclude()

    def _put_back(self) -> None:
        with self.world.lock:
            self.scope.transaction.fail(self.scope)
        self.world.reset_foreign(self.scope.handed, claimed=True)
        with self.world.lock:
            self.scope.transaction.finish()

    def _conclude(self) -> None:
        with self.world.lock:
            self.world.outbox.settle()
            self.scope.transaction.finish()
