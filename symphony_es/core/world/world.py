"""A world: the live objects of one Symphony, and everything that can be done to them.

A world is under construction (while restorers run), open, or closed (replaced by a resume: its objects are detached). This module
holds what changes entities: blocks, claims, objects of foreign classes, and waiting until all of it is durable.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

from symphony_es.core.objects.connect import connect
from symphony_es.core.objects.rebuilding import revive
from symphony_es.core.world.blocks import Recording, TransactionBlock
from symphony_es.core.world.constants import Constant
from symphony_es.core.world.extending import check_extension, extend_object, place_of, set_raw
from symphony_es.core.world.foreign import ForeignObjects, raise_first
from symphony_es.core.world.live_entity import EntityRecord, Segment
from symphony_es.core.world.members import EntityLike, Members
from symphony_es.core.world.transaction import Handed, Transaction, current_scope, open_scope_of, scope_of
from symphony_es.errors import CheckpointError, EntityBusyError, SymphonyError, UnrecordedChangeError, UnstorableValueError
from symphony_es.events.changes import EXTEND
from symphony_es.events.references import Path, find_references
from symphony_es.events.values import check_plain, copy_plain
from symphony_es.shown import quoted
from symphony_es.turns import TaskLock

if TYPE_CHECKING:
    from symphony_es.log.log import Ticket

__all__ = ["EntityLike", "World"]

CLAIM_TIMEOUT_S = 60.0
"""For so long one transaction may hold what others wait for; how long a wait takes in which one after the other has it, has no bound."""

_Claimant = tuple[int, asyncio.Future[None], Callable[[], Transaction | None]]
"""One that waits for an entity: its place, which no other has at a time, what wakes it, and what says whom it waits for."""


async def _comes_behind(ticket: Ticket, position: int) -> bool:
    """Return whether a submission stands behind a position, once that is known: else the entities counted there lack its own."""
    try:
        return (await ticket.wait()).first > position
    except SymphonyError:  # nothing was appended, which whoever submitted it is told; those behind it are looked at next
        return False


class World(Members):
    """The live objects of one Symphony, and what changes them."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._claimants: dict[EntityRecord, list[_Claimant]] = {}  # a heap each, by places
        self._places = itertools.count()  # of those that wait for entities: whoever began to wait first comes first
        self._called: dict[EntityRecord, set[asyncio.Future[None]]] = {}  # those woken that have not run since
        self.foreign = ForeignObjects(self)
        self._counting = TaskLock()

    # -- blocks -------------------------------------------------------------------------------------------------------

    def recording(self, event_name: str, data: Any = None, *, entity: EntityLike | None = None, **attribution: Any) -> Recording:
        """Return a synchronous block whose changes become events of one name, one per entity, submitted together at its end.

        Args:
            event_name: what happened, in the past tense.
            data: what the first event says beyond its effect; plain data.
            entity: write an event for it even if nothing of it changes.
            **attribution: fields of `Attribution` for the block.
        """
        record = self.record_for(entity) if entity is not None and not self.restoring else None
        return Recording(self, event_name, data, record, attribution)

    def transaction(
        self, name: str | None, *, claim: Iterable[EntityLike] | None = (), data: Any = None, alone: bool = False, **attribution: Any
    ) -> TransactionBlock:
        """Return an asynchronous block, appended when it ends; see `Symphony.transaction`. Without a name its events are named by type.

        Args:
            alone: it claims objects of foreign classes that it is handed; see `Transaction`.
        """
        return TransactionBlock(self, name, claim, attribution, data, alone=alone)

    async def claim(self, entity: EntityLike) -> None:
        """Wait until no other transaction claims an entity; inside a transaction, claim it. Those who wait longer come first.

        Raises:
            EntityBusyError: the wait would close a circle of transactions that wait for each other, or one of them has held the entity
                for 60 s meanwhile. A long queue is no error.
        """
        record = self.record_for(entity)
        scope = open_scope_of(self)
        mine = scope.transaction if scope is not None else None
        place: int | None = None
        try:
            before = self._handed_before(record, mine)
            while record.holder is not mine or before:
                if self._in_the_way(record, mine, before) is not None:
                    place = next(self._places) if place is None else place
                    await self._wait_for(record, mine, place, before)
                elif record.holder is not mine and place is None and self._is_called(record):
                    await asyncio.sleep(0)  # else a task that claims it again and again would always be before those that it has woken
                else:
                    break
            if record.is_compared:
                self.foreign.hand([record.obj], waited=True)
                self.foreign.before_claim(record)
            if mine is not None:
                with self.lock:
                    mine.take(record)
                    mine.claimed.add(record)
        finally:
            if place is not None and record.holder is None:
                self._call(record)  # this one was called and has not taken it: the turn is the next one's

    def check_nameable(self) -> None:
        """Refuse to name a position inside a transaction: its changes are not in the log before it ends.

        Raises:
            CheckpointError: the running code is inside of one.
        """
        if open_scope_of(self) is not None:
            raise CheckpointError(
                "a checkpoint cannot be made inside a transaction, whose changes are not in the log before it ends: make it after the block"
            )

    async def position_to_name(self, count: Callable[[int], Awaitable[int]], *, compare: bool) -> tuple[int, int]:
        """Bring all changes so far into the log; return the position that has them, and how many entities there are.

        Args:
            count: counts the entities at a position of the log: asked once, since nobody needs to know before the first checkpoint asks.
            compare: record what changed in objects of foreign classes first, and compare the others that were changed or handed out.

        Raises:
            EntityOutOfStepError: changes of an entity could not be appended.
            UnrecordedChangeError, UnstorableValueError: found by comparing.
        """
        if self.uncounted_until:
            async with self._counting:  # after a start a hundred runs take their first checkpoint at once, and one reads the log
                if self.uncounted_until:
                    counted = await count(self.uncounted_until)
                    with self.lock:
                        self.entity_count, self.uncounted_until = self.entity_count + counted, 0
        if compare:
            failures = self.foreign.record_others()
            raise_first([*failures, *await self.compare_objects()])
        await (self.flush() if compare else self.outbox.flush([]))  # the engine's own names a position, whoever is out of step
        while True:
            with self.lock:
                head = self.log.head  # with what others append past this world: pruning, requests, applications of other kinds
                self.outbox.settle()
                position, entity_count, waits = max(head, self.outbox.settled_position), self.entity_count, self.outbox.first_unsettled
            if waits is None or await _comes_behind(waits, position):
                return position, entity_count

    def is_free(self, entity: Any) -> bool:
        """Return whether claiming an entity that tracks itself would neither wait nor claim anything: so no call of `claim` is needed."""
        record: EntityRecord | None = entity.__dict__.get("_symphony_record")
        return (
            record is not None and record.holder is None and current_scope.get() is None and record not in self._called
            and record.world is self and record.closed is None
        )  # fmt: skip

    def _handed_before(self, record: EntityRecord, mine: Transaction | None) -> list[Transaction]:
        """Return whom an atomic step has to wait for that is to claim an object, besides those that claim it: who was handed it before."""
        holder = self.foreign.holder() if mine is not None and mine.alone and record.is_compared else None
        return [] if holder is None or record.holder is mine else self.foreign.transactions_beside(record, holder)

    def _in_the_way(self, record: EntityRecord, mine: Transaction | None, before: list[Transaction]) -> Transaction | None:
        return next(iter(self._all_in_the_way(record, mine, before)), None)

    def _all_in_the_way(self, record: EntityRecord, mine: Transaction | None, before: list[Transaction]) -> list[Transaction]:
        """Return whom a claim waits for: the one that holds the entity, and those still open that were handed it before."""
        holder = record.holder
        if holder is not None and holder is mine:
            return []
        having = self.foreign.transactions_with(record) if before else ()
        handed = [other for other in before if other is not holder and not other.ended and other in having]
        return handed if holder is None else [holder, *handed]

    async def _wait_for(self, record: EntityRecord, mine: Transaction | None, place: int, before: list[Transaction]) -> None:
        claimant = f"the transaction {quoted(mine.name)}" if mine is not None else "a call outside it"
        for holder in self._all_in_the_way(record, mine, before):
            if mine is not None and mine.would_wait_for(holder):
                raise EntityBusyError.in_a_circle(record.key, holder.name, claimant)

        def find() -> Transaction | None:
            return self._in_the_way(record, mine, before)

        future = asyncio.get_running_loop().create_future()
        with self.lock:
            if find() is None:
                return  # a transaction of another thread has ended in between
            heappush(self._claimants.setdefault(record, []), (place, future, find))
        if mine is not None:
            mine.waiting_for.add(record)
            mine.barred_by.update(before)
        patience = _Patience(record, claimant, future, find)
        try:
            await future
        finally:
            patience.end()
            with self.lock:
                called = self._called.get(record)
                if called is not None:
                    called.discard(future)
                    if not called:
                        del self._called[record]
            if mine is not None:
                mine.waiting_for.discard(record)
                mine.barred_by.difference_update(before)

    def _is_called(self, record: EntityRecord) -> bool:
        """Return whether tasks of this loop have been woken for an entity and have not run since; they run within the next turns of the
        loop.
        """
        if record not in self._called:
            return False
        loop = asyncio.get_running_loop()
        with self.lock:
            return any(future.get_loop() is loop for future in self._called.get(record, ()))

    def wake_claimants(self, records: Iterable[EntityRecord]) -> None:
        """Let the one go on who has waited longest for each of some entities that have been released; its end calls the next one.

        Whoever still waits for others is passed over: what ends that wait comes here again.
        """
        for record in records:
            if record in self._claimants:
                self._call(record)

    def look_again(self, record: EntityRecord) -> None:
        """Have all who wait for an entity ask who holds it now: a holder that waits for another entity may wait for one of them."""
        with self.lock:
            for _, future, _ in sorted(self._claimants.pop(record, ())):
                self._wake(record, future)

    def _call(self, record: EntityRecord) -> None:
        """Wake the one with the first place that nothing is in the way of."""
        with self.lock:  # a wait that is given up takes its future out with the lock, after the future is done
            waiting, barred = self._claimants.get(record, []), list[_Claimant]()
            while waiting:
                claimant = heappop(waiting)
                _, future, find = claimant
                if not future.done() and find() is not None:
                    barred.append(claimant)
                elif self._wake(record, future):
                    break
            for claimant in barred:
                heappush(waiting, claimant)
            if not waiting:
                self._claimants.pop(record, None)

    def _wake(self, record: EntityRecord, future: asyncio.Future[None]) -> bool:
        """Wake one that waits for an entity; return whether it is there to be woken."""
        loop = future.get_loop()
        if future.done() or loop.is_closed():
            return False
        self._called.setdefault(record, set()).add(future)
        loop.call_soon_threadsafe(_wake, future)
        return True

    def raise_generation(self, entity: EntityLike) -> None:
        """Note, with the changes of the present block, that an entity is taken back: what it does from now on is another generation."""
        with self.lock:
            record = self.record_for(entity)
            scope = scope_of(self)
            assert scope is not None, "a generation is raised inside a block, together with what takes the entity back"
            draft = scope.transaction.draft(record, scope)
            draft.scope.undo_log.append((record, (setattr, record, "generation", record.generation), ()))
            record.generation += 1
            draft.segment.generation = record.generation

    def name_constant(self, entity: EntityLike, constant: Constant) -> None:
        """Note, with the changes of the present block, that an entity names a constant entity from now on: the log is to have it."""
        with self.lock:
            record = self.record_for(entity)
            scope = scope_of(self)
            assert scope is not None, "a constant is named inside a block, together with the change that names it"
            scope.transaction.draft(record, scope).segment.constant = self.constants.keep(constant)

    def new_segment(self, record: EntityRecord, name: str, attribution: Any, data: Any) -> Segment:
        """Return a segment of a transaction; it is appended even when it holds no change if it says something."""
        return Segment(record=record, name=name, attribution=attribution, data=data)

    # -- objects of foreign classes -----------------------------------------------------------------------------------

    def record(self, entity: EntityLike, event_name: str | None = None, data: Any = None) -> None:
        """Compare an object with its last known state and record the difference; or record that something happened to it.

        Args:
            entity: whose state is looked at. An `@entity` object tracks itself: only a name or data has an effect.
            event_name: the event's name; written even if nothing changed.
            data: what the event says beyond its effect; plain data.

        Raises:
            UnstorableValueError: a value that is no plain data. Nothing is recorded.
        """
        if data is not None:
            check_plain(data, ("data",))
            data = copy_plain(data)  # the caller may change what it has given before this is submitted
        record = self.record_for(entity)
        if self.damaged:
            with self.lock:
                self.check_open(record)
        if event_name is None and data is None:
            self.foreign.record(record, None)
        else:
            name = event_name or f"{record.entity_type}Changed"
            self.foreign.record(record, lambda: self.recording(name, data, entity=record.obj))

    def extend(self, entity: EntityLike, path: Path, tail: str | bytes) -> None:
        """Put a text or bytes at the end of the one at a path; see `Entities.extend`."""
        record = self.record_for(entity)
        check_extension(record, path, tail)
        if record.is_compared:
            extend_object(record.obj, path, tail)
            self.foreign.record(record, None)
            return
        with self.lock:
            holder, key, old = place_of(record, path, tail)
            sink = record.sink()
            set_raw(holder, key, old + tail)
            sink.keep((EXTEND, path, tail), (set_raw, holder, key, old))

    def record_foreign(self, handed: Handed, *, enclosing: bool = True) -> None:
        """Record, for the running block or step, what changed in the objects that it was handed; see `ForeignObjects.record_handed`."""
        if handed.records or (enclosing and handed.outer is not None):
            self.foreign.record_handed(handed, enclosing=enclosing)

    def reset_foreign(self, handed: Handed, *, enclosing: bool = True, claimed: bool = False) -> list[str]:
        """Put the objects that a block was handed back to their last known state; see `ForeignObjects.put_back`."""
        return self.foreign.put_back(handed, enclosing=enclosing, claimed=claimed)

    def reset(self, record: EntityRecord, state: dict[str, Any]) -> None:
        """Put an object of a foreign class into a state; references become live objects."""
        self.restorer_of(record.entity_type).reset(record.obj, self.revived(state))

    def revived(self, plain: Any) -> Any:
        """Return plain data as live values: tagged ones become objects of their classes, references live objects where there are any."""
        live = revive(plain, self.types)
        for path, reference in find_references(plain):
            target = self.held(reference)
            if target is not None:
                live = connect(live, path, reference, target)
        return live

    # -- durability and life cycle ------------------------------------------------------------------------------------

    async def flush(self, *entities: EntityLike) -> None:
        """Wait until everything changed so far is durable.

        Args:
            *entities: whose changes the caller depends on; none for everybody's.

        Raises:
            EntityOutOfStepError: changes of one of them could not be appended; the cause is chained.
        """
        if self.restoring:
            return
        self.check_process()
        await self.outbox.flush([self.record_for(entity) for entity in entities] or None)

    async def compare_objects(self, *, everything: bool = False) -> list[UnrecordedChangeError]:
        """Compare the objects that were changed or handed out with what was recorded; returns what differs. See `Suspects`."""
        if everything:
            self.suspect_at_rest()
        return await self.outbox.suspects.compare(self.lock, everything=everything)

    def remove(self, entity: EntityLike, *, event_name: str | None = None, data: Any = None) -> None:
        """Remove an entity; what an object that does not track itself has changed so far is compared first. See `Members.remove`."""
        record = self.record_for(entity)
        if record.is_compared and not (record.manual or self.restoring):
            with suppress(UnstorableValueError):  # what cannot be stored is no reason to keep it
                self.foreign.record(record, None)
        super().remove(entity, event_name=event_name, data=data)

    async def unload(self, record: EntityRecord) -> None:
        """Make an entity not live any more, once all that was changed in it is durable; see `Entities.unload`."""
        while True:
            self.foreign.record(record, None)
            await self.flush(record.reference)
            if self.let_go(record):
                return

    def close(self, why: str) -> None:
        """Detach all objects that are this world's own: changing one raises `DetachedEntityError` from now on."""
        with self.lock:
            for record in self.records.values():
                if record.world is self:
                    record.closed = why
            self.close_at_rest(why)


class _Patience:
    """Ends a wait for an entity with an error when one transaction has held it for too long meanwhile; a queue that moves is waited in."""

    __slots__ = ("_claimant", "_find", "_future", "_holder", "_record", "_timer")

    def __init__(self, record: EntityRecord, claimant: str, future: asyncio.Future[None], find: Callable[[], Transaction | None]) -> None:
        self._record = record
        self._claimant = claimant
        self._future = future
        self._find = find
        self._begin()

    def _begin(self) -> None:
        self._holder = self._find()
        self._timer = self._future.get_loop().call_later(CLAIM_TIMEOUT_S, self._look)

    def _look(self) -> None:
        holder = self._find()
        if holder is None or holder is not self._holder:
            self._begin()
        elif not self._future.done():
            self._future.set_exception(EntityBusyError.held(self._record.key, holder.name, self._claimant, CLAIM_TIMEOUT_S))

    def end(self) -> None:
        """Look no more."""
        self._timer.cancel()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
