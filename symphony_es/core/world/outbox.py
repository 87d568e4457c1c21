"""The outbox: recorded changes on their way from objects to the log.

Changes made outside transactions leave together at the next turn of the event loop, as one transaction; an explicit transaction
leaves when its block ends. The order of submission is the order in the log. What cannot be appended marks its entities as out of
step with the log: nothing later of them is submitted until they are refreshed.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from symphony_es.core.world.constants import Constant
from symphony_es.core.world.live_entity import EntityRecord, Segment
from symphony_es.core.world.suspects import Suspects
from symphony_es.diagnostics import get_logger
from symphony_es.errors import EntityOutOfStepError, LimitExceededError, SymphonyError, UnstorableValueError, format_path
from symphony_es.events.changes import REMOVE, SET, Change
from symphony_es.events.codec import encode_value
from symphony_es.events.event import NewEvent
from symphony_es.events.fold import REPAIR_EVENT
from symphony_es.events.identifiers import UUID7_RANDOM_BYTES, uuid7
from symphony_es.events.rows import CHECK_BYTES, HEADER_BYTES
from symphony_es.events.splitting import split_change
from symphony_es.system import RandomBytes

if TYPE_CHECKING:
    from symphony_es.core.world.transaction import Transaction
    from symphony_es.log.log import EventLog, Ticket
    from symphony_es.log.recorder import PreparedEvent

__all__ = ["Outbox"]

Part = tuple[EntityRecord, Segment]
TURN_RECORDS = 1000
"""How many entities' changes one turn of the event loop encodes: more would hold it up for longer than other tasks should wait."""

logger = get_logger(__name__)


class Flight(NamedTuple):
    """A submission whose outcome is not known yet."""

    ticket: Ticket
    parts: list[Part]
    transaction: bool = False  # then its failure is its own business: it puts its objects back


class Outbox:
    """What of one world waits to be submitted, and what has been submitted and not acknowledged.

    Attributes:
        broken: the entities that are out of step with the log.
        refused: the entities that were added and whose ids the log has; the next awaited call tells.
        on_submitted: called with the number of bytes of each submission.
        suspects: entities that were changed or handed out.
        checks: compare those at each flush, which `SYMPHONY_CHECK` asks for.
    """

    def __init__(self, log: EventLog, lock: threading.RLock, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self.log = log
        self.lock = lock
        self.clock_ns = clock_ns
        self.on_submitted: Callable[[int], None] = lambda size_bytes: None
        self.broken: dict[EntityRecord, None] = {}
        self.refused: dict[EntityRecord, SymphonyError] = {}
        self.suspects = Suspects()
        self.checks = False
        self.settled_position = 0
        self._dirty: dict[EntityRecord, None] = {}
        self._flights: deque[Flight] = deque()
        self._last: Ticket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._scheduled_on: asyncio.AbstractEventLoop | None = None
        self._waiting_for_room: asyncio.Task[None] | None = None
        self._random = RandomBytes(UUID7_RANDOM_BYTES)

    def mark_dirty(self, record: EntityRecord) -> None:
        """Note that an entity has changes to submit, and see to it that they are at the loop's next turn.

        Outside a running loop the turn is the next one of the loop that was used last; without any, the changes wait for the
        next awaited call.
        """
        self._dirty[record] = None
        try:
            loop = self._loop = asyncio.get_running_loop()
            call = loop.call_soon
        except RuntimeError:
            if self._loop is None or self._loop.is_closed():
                return
            loop, call = self._loop, self._loop.call_soon_threadsafe
        if self._scheduled_on is not loop:
            self._scheduled_on = loop
            call(self._turn)

    def _turn(self) -> None:
        self._scheduled_on = None
        if not self.log.has_room():
            self._waiting_for_room = asyncio.ensure_future(self._submit_when_there_is_room())
            return
        with self.lock:
            try:
                self.submit_pending(TURN_RECORDS)
            except SymphonyError as error:  # everything stays dirty, and the next awaited call raises it
                logger.warning("changes_not_submitted", entities=len(self._dirty), error=str(error))
                return
            self.settle()
            if self._dirty:
                self.mark_dirty(next(iter(self._dirty)))

    async def _submit_when_there_is_room(self) -> None:
        await self.log.room()
        self._turn()

    def submit_pending(self, most: int | None = None) -> None:
        """Submit the changes made outside transactions, as one transaction; called with the lock held.

        What cannot be encoded puts its entity out of step, and nobody else. What is dirty stays dirty until the log has taken it.

        Args:
            most: of how many entities at the most; the rest stays for the next call, so that the loop is not held up.

        Raises:
            NotReadyError: the log takes nothing. All is as it was before.
        """
        if not self._dirty:
            return
        taken = list(self._dirty if most is None else islice(self._dirty, most))
        prepared: list[PreparedEvent] = []
        ready: list[tuple[EntityRecord, int, list[Segment]]] = []
        first: bytes | None = None
        brought: set[str] = set()
        for record in taken:
            if record.broken is not None:
                continue
            mark, version = len(prepared), record.version
            segments = [segment for segment in record.pending if not segment.empty]
            try:
                for segment in segments:
                    if segment.constant is not None and self._is_to_bring(segment.constant, brought):
                        prepared += self._prepare_constant(record, segment, segment.constant, first)
                        first = first or prepared[0].event_id
                    made = self._prepare_split(record, segment, version, first)
                    first = first or made[0].event_id
                    prepared += made
                    version += len(made)
            except Exception as error:  # noqa: BLE001  whatever it is, it is this entity's alone
                del prepared[mark:]
                brought.intersection_update([event.entity_key for event in prepared])
                first = prepared[0].event_id if prepared else None
                self.mark_broken(record, error)
                continue
            ready.append((record, version, segments))
        unplaced = frozenset([record.key for record, _, _ in ready if record.unplaced])
        # What is submitted is the log's: what follows cannot fail.
        ticket = self.log.submit(prepared, unplaced, apart=True) if prepared else None
        parts: list[Part] = []
        for record, version, segments in ready:
            record.version, record.pending = version, ()
            parts += [(record, segment) for segment in segments]
        for record in taken:
            self._dirty.pop(record, None)
        if not self._dirty:
            self._scheduled_on = None
        if ticket is not None:
            self._await(ticket, parts)

    def _await(self, ticket: Ticket, parts: list[Part], *, transaction: bool = False) -> None:
        """Take note of a submission."""
        self._last = ticket
        self._flights.append(Flight(ticket, parts, transaction))
        recent = self.suspects.recent
        for record, _ in parts:
            if record.closed is None:
                recent[record] = None
        try:
            self.on_submitted(ticket.size_bytes + len(ticket.events) * (HEADER_BYTES + CHECK_BYTES))
        except Exception as error:  # noqa: BLE001  what is submitted is submitted, whatever those who are told make of it
            logger.error("told_of_submission_failed", error=repr(error))  # noqa: TRY400  a traceback may tell too much

    def _prepare_split(self, record: EntityRecord, segment: Segment, version: int, first: bytes | None) -> list[PreparedEvent]:
        """Return the events of a segment: one, or several where it is too large for one."""
        batches: list[Sequence[Change]] = [segment.changes]  # the next one last
        prepared: list[PreparedEvent] = []
        while batches:
            changes = batches.pop()
            transaction_id = first or (prepared[0].event_id if prepared else None)
            try:
                data = None if prepared else segment.data
                event = self._prepare(record, segment, changes, data, version + len(prepared) + 1, transaction_id)
            except LimitExceededError as error:
                pieces = changes if len(changes) > 1 else split_change(changes[0]) if changes else ()
                if len(pieces) < 2:
                    raise self._name_largest(record, changes, error) from error
                half = len(pieces) // 2
                batches += [pieces[half:], pieces[:half]]
                continue
            prepared.append(event)
        return prepared

    def _is_to_bring(self, constant: Constant, brought: set[str]) -> bool:
        """Return whether the events under way are to bring a constant entity, which is noted then: nobody knows that the log has it."""
        if self.log.has_written(constant.key) or constant.key in brought:
            return False
        brought.add(constant.key)
        return True

    def _prepare_constant(self, record: EntityRecord, segment: Segment, constant: Constant, first: bytes | None) -> list[PreparedEvent]:
        """Return the event of a constant entity that a segment names; the log leaves it out where it has it. One that is damaged is
        repaired.
        """
        beside = EntityRecord(record.world, constant.key, None, None)
        changes: list[Change] = [(SET, (), constant.state)]
        lost = self.log.lost_version(constant.key)
        name, data = ("DefinitionCreated", None) if not lost else (REPAIR_EVENT, {"version": lost, "alive": False})
        birth = Segment(record=beside, name=name, attribution=segment.attribution, changes=changes, data=data, open=False)
        return self._prepare_split(beside, birth, lost, first)

    def _prepare(
        self, record: EntityRecord, segment: Segment, changes: Sequence[Change], data: Any, version: int, transaction_id: bytes | None
    ) -> PreparedEvent:
        metadata = segment.attribution.metadata(state_version=segment.state_version, generation=segment.generation)
        if metadata.run_id is not None and record.key == f"Workflow:{metadata.run_id}":
            metadata.run_id = None  # the entity says it
        event = NewEvent(
            entity_key=record.key,
            version=version,
            name=segment.name,
            changes=changes,
            metadata=metadata,
            data=data,
            event_id=self._event_id(),
            transaction_id=transaction_id,
        )
        try:
            return self.log.prepare(event)
        except UnstorableValueError as error:
            raise error.within(record.key) from None

    def _event_id(self) -> bytes:
        """Return a new id of an event."""
        return uuid7(self.clock_ns(), self._random.take())

    @staticmethod
    def _name_largest(record: EntityRecord, changes: Iterable[Change], error: LimitExceededError) -> LimitExceededError:
        sizes = sorted(((len(encode_value(list(change[2:]))), change[1]) for change in changes), reverse=True, key=lambda pair: pair[0])
        shown = ", ".join(f"{format_path(path) or 'the whole state'} ({size:,} bytes)" for size, path in sizes[:5])
        return LimitExceededError(f"{record.key}: {error}; the largest changes are at {shown}: keep large data in a file and refer to it")

    def submit_transaction(self, transaction: Transaction) -> Ticket | None:
        """Submit a transaction's drafts, after all that was changed before; None when it changed nothing.

        Its entities keep their claims until the outcome is known.

        Raises:
            UnstorableValueError: a value that is no plain data. Nothing of it is submitted.
            LimitExceededError: a value is too large for an event; the largest changes are named. Nothing of it is submitted.
            NotReadyError: the log takes nothing.
        """
        prepared = self._prepare_drafts(transaction)
        if not prepared:
            return None
        return self._submit_drafts(transaction, prepared, awaited=True)

    def submit_drafts(self, transaction: Transaction) -> dict[str, bytes]:
        """Submit a synchronous block's drafts, without waiting; returns the last event id of each entity. Errors are the same."""
        prepared = self._prepare_drafts(transaction)
        if prepared:
            self._submit_drafts(transaction, prepared, awaited=False)
        return {event.entity_key: event.event_id for event in prepared}

    def submit_segment(self, segment: Segment, made: Callable[[], None]) -> bytes:
        """Submit the event of one entity, after all that was submitted before; called with the lock held.

        Args:
            segment: what the event says; nothing of it has been done.
            made: does it; called when the log has the event, before anybody is told. It cannot fail.

        Returns:
            The id of the event; of the last one where it was too large for one.

        Raises:
            UnstorableValueError: a value that is no plain data. Nothing has been done.
            LimitExceededError: a value is too large for an event; the largest changes are named. Nothing has been done.
            NotReadyError: the log takes nothing. Nothing has been done.
        """
        record = segment.record
        prepared = self._prepare_split(record, segment, record.version, None)
        ticket = self.log.submit(prepared, frozenset([record.key]) if record.unplaced else frozenset(), apart=True)
        record.version = prepared[-1].version
        made()
        self._await(ticket, [(record, segment)])
        return prepared[-1].event_id

    def _prepare_drafts(self, transaction: Transaction) -> list[PreparedEvent]:
        self.submit_pending()
        prepared: list[PreparedEvent] = []
        versions: dict[EntityRecord, int] = {}
        brought: set[str] = set()
        for draft in transaction.drafts:
            record = draft.record
            if not (draft.dropped or draft.segment.empty):
                version = versions.get(record, record.version)
                constant = draft.segment.constant
                if constant is not None and self._is_to_bring(constant, brought):
                    prepared += self._prepare_constant(record, draft.segment, constant, prepared[0].event_id if prepared else None)
                made = self._prepare_split(record, draft.segment, version, prepared[0].event_id if prepared else None)
                versions[record] = version + len(made)
                prepared += made
        return prepared

    def _submit_drafts(self, transaction: Transaction, prepared: list[PreparedEvent], *, awaited: bool) -> Ticket:
        unplaced = frozenset([record.key for record in transaction.records if record.unplaced])
        ticket = self.log.submit(prepared, unplaced, apart=not awaited)
        transaction.submitted = True
        by_key = {record.key: record for record in transaction.records}
        for event in prepared:
            if event.entity_key in by_key:  # a constant has no record
                by_key[event.entity_key].version = event.version
        self._await(ticket, [(draft.record, draft.segment) for draft in transaction.drafts if not draft.dropped], transaction=awaited)
        return ticket

    def mark_broken(self, record: EntityRecord, error: Exception) -> None:
        """Mark an entity as out of step with the log."""
        if record.broken is None:
            record.broken = error
            self.broken[record] = None
            logger.warning("entity_out_of_step", entity=record.key, error=str(error))

    def forget(self, record: EntityRecord) -> None:
        """Forget an entity: nothing of it is to be submitted any more."""
        self._dirty.pop(record, None)
        self.broken.pop(record, None)

    def holds(self, record: EntityRecord) -> bool:
        """Return whether changes of an entity are under way, or waiting; called with the lock held."""
        self.settle()
        return record in self._dirty or any(part[0] is record for flight in self._flights for part in flight.parts)

    def settle(self) -> None:
        """Take note of the submissions whose outcome has come; called with the lock held."""
        while self._flights and self._flights[0].ticket.done():
            ticket, parts, transaction = self._flights.popleft()
            if ticket.unplaced:
                parts = self._place(ticket, parts, transaction=transaction)
            try:
                self._count(parts, ticket.result().last)
            except SymphonyError as error:
                for record, segment in () if transaction else parts:
                    self.mark_broken(record, error)
                    record.dropped = [*record.dropped, segment]

    def _place(self, ticket: Ticket, parts: list[Part], *, transaction: bool) -> list[Part]:
        """Take note of what the log has decided about entities that were added; returns what it has not left out."""
        for key in ticket.unplaced if not (transaction and ticket.refused) else ():
            world = next((record.world for record, _ in parts if record.key == key), None)
            if world is not None and key not in ticket.refused:
                world.place(key, ticket.moved.get(key, 0))
        if transaction:
            return parts  # what was refused ends it, and it puts its objects back
        for record in {id(record): record for record, _ in parts if record.key in ticket.refused}.values():
            if record.unplaced:
                record.unplaced = False
                record.world.refuse(record, ticket.refused[record.key])
                self.refused[record] = ticket.refused[record.key]
                logger.warning("entity_refused", entity=record.key, error=str(ticket.refused[record.key]))
        return [part for part in parts if part[0].key not in ticket.refused]

    def _count(self, parts: Iterable[Part], position: int) -> None:
        """Take note of a submission that is durable: what was created and removed, and how far the log is settled."""
        self.settled_position = max(self.settled_position, position)
        for record, segment in parts:
            if segment.constant is not None:
                self.log.note_written(segment.constant.key)
            if segment.changes:
                first, last = segment.changes[0], segment.changes[-1]
                removes = last[0] == REMOVE and not last[1]
                births = (first[0] == SET and not first[1]) - removes
                if births or removes:
                    record.world.count(births, record if removes else None)

    async def flush(self, records: Collection[EntityRecord] | None = None) -> None:
        """Wait until everything changed so far is durable.

        Args:
            records: whose changes the caller depends on; None for everybody's.

        Raises:
            EntityExistsError, EntityDamagedError: one was added, and the log has its id: it is not live any more; told once, nobody else is
                concerned.
            EntityOutOfStepError: changes of one of them could not be appended; the cause is chained.
        """
        if not self.log.has_room():
            await self.log.room()
        while len(self._dirty) > TURN_RECORDS:
            with self.lock:
                self.submit_pending(TURN_RECORDS)
            await asyncio.sleep(0)
            await self.log.room()
        with self.lock:
            self.submit_pending()
            ticket = self._last
        if ticket is not None and not ticket.done():
            with suppress(SymphonyError):  # told below, by entity
                await ticket.wait()
        with self.lock:
            self.settle()
            if self.checks:
                self.suspects.compare_recent()
            for record in list(self.refused) if records is None else records:
                if record in self.refused:
                    raise self.refused.pop(record)
        for record in self.broken if records is None else records:
            raise_if_broken(record)

    def undone(self) -> dict[str, int]:
        """Return by entity how many changes are not known to be durable; called with the lock held."""
        counts: dict[str, int] = {}
        for record in self.broken:
            counts[record.key] = len(record.lost_changes())
        waiting = [(record, segment) for record in self._dirty if record.broken is None for segment in record.pending]
        for record, segment in (*waiting, *(part for flight in self._flights for part in flight.parts)):
            counts[record.key] = counts.get(record.key, 0) + len(segment.changes)
        return {key: count for key, count in counts.items() if count}

    def disown(self) -> None:
        """Leave, in a child process, what is on its way to the parent."""
        self._dirty.clear()
        self._flights.clear()
        self._last = self._scheduled_on = None

    @property
    def first_unsettled(self) -> Ticket | None:
        """The earliest submission of which no outcome has come."""
        return self._flights[0].ticket if self._flights else None

    @property
    def unsettled(self) -> bool:
        """Whether anything is waiting to be submitted or acknowledged."""
        return bool(self._dirty or self._flights)


def raise_if_broken(record: EntityRecord) -> None:
    """Raise when an entity is out of step with the log."""
    if record.broken is not None:
        raise EntityOutOfStepError(record.key, str(record.broken)) from record.broken
