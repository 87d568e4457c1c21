"""A world: the live objects of one Symphony, and everything that can be done to them.

A world is under construction (while restorers run), open, or closed (replaced by a resume: its objects are detached). This module
holds what changes entities: blocks, claims, objects of foreign classes, and waiting until all of it is durable.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from typing import Any

from symphony_es.core.state.blocks import Recording, TransactionBlock
from symphony_es.core.state.constants import Constant
from symphony_es.core.state.extending import check_extension, extend_object, place_of, set_raw
from symphony_es.core.state.foreign import ForeignObjects
from symphony_es.core.state.membership import EntityLike, Membership
from symphony_es.core.state.records import EntityRecord, Segment
from symphony_es.core.state.tracking.connect import connect
from symphony_es.core.state.tracking.rebuilding import revive
from symphony_es.core.state.transactions import Handed, Transaction, current_scope, open_scope_of, scope_of
from symphony_es.errors import EntityBusyError, UnrecordedChangeError
from symphony_es.events.changes import EXTEND
from symphony_es.events.references import Path, find_references
from symphony_es.events.values import check_plain, copy_plain
from symphony_es.shown import quoted

__all__ = ["EntityLike", "World"]

CLAIM_TIMEOUT_S = 60.0
"""For so long one transaction may hold what others wait for; how long a wait takes in which one after the other has it, has no bound."""


class World(Membership):
    """The live objects of one Symphony, and what changes them."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._claimants: dict[EntityRecord, list[tuple[int, asyncio.Future[None]]]] = {}  # a heap each, by places
        self._places = itertools.count()  # of those that wait for entities: whoever began to wait first comes first
        self._called: dict[EntityRecord, set[asyncio.Future[None]]] = {}  # those woken that have not run since
        self.foreign = ForeignObjects(self)

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
        if record.holder is not None:
            return record.holder if record.holder is not mine else None
        return next((other for other in before if not other.ended and self.foreign.has(record, other)), None)

    async def _wait_for(self, record: EntityRecord, mine: Transaction | None, place: int, before: list[Transaction]) -> None:
        holder = self._in_the_way(record, mine, before)
        if holder is None:
            return
        claimant = f"the transaction {quoted(mine.name)}" if mine is not None else "a call outside it"
        if mine is not None and mine.would_wait_for(holder):
            raise EntityBusyError.in_a_circle(record.key, holder.name, claimant)
        future = asyncio.get_running_loop().create_future()
        with self.lock:
            if self._in_the_way(record, mine, before) is None:
                return  # a transaction of another thread has ended in between
            heappush(self._claimants.setdefault(record, []), (place, future))
        if mine is not None:
            mine.waiting_for.add(record)
            mine.barred_by.update(before)
        patience = _Patience(record, claimant, future, lambda: self._in_the_way(record, mine, before))
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
        """Let the one go on who has waited longest for each of some entities that have been released; its end calls the next one."""
        for record in records:
            if record in self._claimants:
                self._call(record)

    def look_again(self, record: EntityRecord) -> None:
        """Have all who wait for an entity ask who holds it now: a holder that waits for another entity may wait for one of them."""
        while record in self._claimants:
            self._call(record)

    def _call(self, record: EntityRecord) -> None:
        with self.lock:  # a wait that is given up takes its future out with the lock, after the future is done
            waiting = self._claimants.get(record, [])
            while waiting:
                future = heappop(waiting)[1]
                loop = future.get_loop()
                if not future.done() and not loop.is_closed():
                    self._called.setdefault(record, set()).add(future)
                    loop.call_soon_threadsafe(_wake, future)
                    break
            if not waiting:
                self._claimants.pop(record, None)

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
