"""The outbox: recorded changes on their way from objects to the log.

Changes made outside transactions leave together at the next turn of the event loop, as one transaction; an explicit transaction
leaves when its block ends. The order of submission is the order in the log. What cannot be appended marks its entities as out of
step with the log: nothing later of them is submitted until they are refreshed.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from symphony_es.core.state.records import EntityRecord, Segment
from symphony_es.diagnostics import get_logger
from symphony_es.errors import EntityOutOfStepError, LimitExceededError, SymphonyError, UnstorableValueError, format_path
from symphony_es.events.changes import REMOVE, SET
from symphony_es.events.codec import encode_value
from symphony_es.events.event import NewEvent
from symphony_es.events.identifiers import uuid7
from symphony_es.events.rows import CHECK_BYTES, HEADER_BYTES

if TYPE_CHECKING:
    from symphony_es.core.state.transactions import Transaction
    from symphony_es.log.log import EventLog, Ticket
    from symphony_es.log.recorder import PreparedEvent

__all__ = ["Outbox"]

Part = tuple[EntityRecord, Segment]
TURN_RECORDS = 1000
"""How many entities' changes one turn of the event loop encodes: more would hold it up for longer than other tasks should wait."""
RANDOM_BYTES_PER_ID = 8

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
        on_submitted: called with the number of bytes of each submission.
    """

    def __init__(self, log: EventLog, lock: threading.RLock, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self.log = log
        self.lock = lock
        self.clock_ns = clock_ns
        self.on_submitted: Callable[[int], None] = lambda size_bytes: None
        self.broken: dict[EntityRecord, None] = {}
        self.settled_position = 0
        self._dirty: dict[EntityRecord, None] = {}
        self._flights: deque[Flight] = deque()
        self._last: Ticket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._scheduled_on: asyncio.AbstractEventLoop | None = None
        self._waiting_for_room: asyncio.Task[None] | None = None
        self._random = b""

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
            self.submit_pending(TURN_RECORDS)
            self.settle()
            if self._dirty:
                self.mark_dirty(next(iter(self._dirty)))

    async def _submit_when_there_is_room(self) -> None:
        await self.log.room()
        with self.lock:
            self.submit_pending()

    def submit_pending(self, most: int | None = None) -> None:
        """Submit the changes made outside transactions, as one transaction; called with the lock held.

        Args:
            most: of how many entities at the most; the rest stays for the next call, so that the loop is not held up.
        """
        if not self._dirty:
            return
        dirty = dict(self._dirty)
        if most is not None and len(dirty) > most:
            dirty = dict(islice(dirty.items(), most))
        for record in dirty:
            del self._dirty[record]
        if not self._dirty:
            self._scheduled_on = None
        prepared: list[PreparedEvent] = []
        parts: list[Part] = []
        first: bytes | None = None
        for record in dirty:
            if record.broken is not None:
                continue
            version, mark = record.version, len(prepared)
            try:
                record.pending = [segment for segment in record.pending if not segment.empty]
                for segment in record.pending:
                    for event in self._prepare_split(record, segment, version, first):
                        version += 1
                        first = first or event.event_id
                        prepared.append(event)
            except (UnstorableValueError, LimitExceededError) as error:
                del prepared[mark:]
                first = prepared[0].event_id if prepared else None
                self.mark_broken(record, error)
                continue
            record.version = version
            parts.extend((record, segment) for segment in record.pending)
        if prepared:
            self._submit(prepared, parts)

    def _submit(self, prepared: list[PreparedEvent], parts: list[Part], *, transaction: bool = False) -> Ticket:
        ticket = self._last = self.log.submit(prepared)
        for record, _ in parts:
            record.pending = []  # of a transaction's there is nothing: it was submitted when they were claimed
        self._flights.append(Flight(ticket, parts, transaction))
        self.on_submitted(ticket.size_bytes + len(prepared) * (HEADER_BYTES + CHECK_BYTES))
        return ticket

    def _prepare_split(self, record: EntityRecord, segment: Segment, version: int, first: bytes | None) -> list[PreparedEvent]:
        """The events of a segment: one, or several where it is too large for one."""
        batches = [segment.changes]  # the next one last
        prepared: list[PreparedEvent] = []
        while batches:
            changes = batches.pop()
            transaction_id = first or (prepared[0].event_id if prepared else None)
            try:
                event = self._prepare(record, segment, changes, version + len(prepared) + 1, transaction_id)
            except LimitExceededError as error:
                if len(changes) < 2:
                    raise self._name_largest(record, changes, error) from error
                half = len(changes) // 2
                batches += [changes[half:], changes[:half]]
                continue
            prepared.append(event)
        return prepared

    def _prepare(
        self, record: EntityRecord, segment: Segment, changes: list[tuple[object, ...]], version: int, transaction_id: bytes | None
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
            data=segment.data,
            event_id=self._event_id(),
            transaction_id=transaction_id,
        )
        try:
            return self.log.prepare(event)
        except UnstorableValueError as error:
            raise error.within(record.key) from None

    def _event_id(self) -> bytes:
        """A new id."""
        # Random bytes come in portions: to ask for some lets go of the interpreter lock, and the writer thread, which waits for it, would
        # begin a commit with half of what is being submitted.
        if not self._random:
            self._random = os.urandom(256 * RANDOM_BYTES_PER_ID)
        random, self._random = self._random[:RANDOM_BYTES_PER_ID], self._random[RANDOM_BYTES_PER_ID:]
        return uuid7(self.clock_ns(), random)

    @staticmethod
    def _name_largest(record: EntityRecord, changes: Iterable[tuple[object, ...]], error: LimitExceededError) -> LimitExceededError:
        sizes = sorted(((len(encode_value(list(change[2:]))), change[1]) for change in changes), reverse=True, key=lambda pair: pair[0])
        shown = ", ".join(f"{format_path(path) or 'the whole state'} ({size:,} bytes)" for size, path in sizes[:5])  # type: ignore[arg-type]
        return LimitExceededError(f"{record.key}: {error}; the largest changes are at {shown}: keep large data in a file and refer to it")

    def submit_transaction(self, transaction: Transaction) -> Ticket | None:
        """Submit a transaction's drafts; None when it changed nothing. Its entities keep their claims until the outcome is known.

        Raises:
            UnstorableValueError: a value that is no plain data. Nothing is submitted.
            LimitExceededError: an event is too large; the largest changes are named. Nothing is submitted.
        """
        prepared, _ = self._prepare_drafts(transaction)
        if not prepared:
            return None
        return self._submit(prepared, [(draft.record, draft.segment) for draft in transaction.drafts], transaction=True)

    def submit_drafts(self, transaction: Transaction) -> dict[str, bytes]:
        """Submit a synchronous block's drafts, without waiting; returns the last event id of each entity."""
        prepared, ids = self._prepare_drafts(transaction)
        if prepared:
            self._submit(prepared, [(draft.record, draft.segment) for draft in transaction.drafts])
        return ids

    def _prepare_drafts(self, transaction: Transaction) -> tuple[list[PreparedEvent], dict[str, bytes]]:
        versions: dict[EntityRecord, int] = {}
        prepared: list[PreparedEvent] = []
        for draft in transaction.drafts:
            record, segment = draft.record, draft.segment
            if segment.empty:
                continue
            version = versions.get(record, record.version) + 1
            try:
                event = self._prepare(record, segment, segment.changes, version, prepared[0].event_id if prepared else None)
            except LimitExceededError as error:
                raise self._name_largest(record, segment.changes, error) from error
            versions[record] = version
            prepared.append(event)
        for record, version in versions.items():
            record.version = version
        return prepared, {event.entity_key: event.event_id for event in prepared}

    def mark_broken(self, record: EntityRecord, error: SymphonyError) -> None:
        """Mark an entity as out of step with the log."""
        if record.broken is None:
            record.broken = error
            self.broken[record] = None
            logger.warning("entity_out_of_step", entity=record.key, error=str(error))

    def forget(self, record: EntityRecord) -> None:
        """Nothing of an entity is to be submitted any more."""
        self._dirty.pop(record, None)
        self.broken.pop(record, None)

    def settle(self) -> None:
        """Take note of the submissions whose outcome has come; called with the lock held."""
        while self._flights and self._flights[0].ticket.done():
            ticket, parts, transaction = self._flights.popleft()
            try:
                self._count(parts, ticket.result().last)
            except SymphonyError as error:
                for record, segment in () if transaction else parts:
                    self.mark_broken(record, error)
                    record.dropped.append(segment)

    def _count(self, parts: Iterable[Part], position: int) -> None:
        """Take note of a submission that is durable: what was created and removed, and how far the log is settled."""
        self.settled_position = max(self.settled_position, position)
        for record, segment in parts:
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
        for record in self.broken if records is None else records:
            raise_if_broken(record)

    def undone(self) -> dict[str, int]:
        """By entity how many changes are not known to be durable; called with the lock held."""
        counts: dict[str, int] = {}
        for record in self.broken:
            counts[record.key] = len(record.lost_changes())
        waiting = [(record, segment) for record in self._dirty if record.broken is None for segment in record.pending]
        for record, segment in (*waiting, *(part for flight in self._flights for part in flight.parts)):
            counts[record.key] = counts.get(record.key, 0) + len(segment.changes)
        return {key: count for key, count in counts.items() if count}

    def disown(self) -> None:
        """In a child process: what is on its way is the parent's."""
        self._dirty.clear()
        self._flights.clear()
        self._last = self._scheduled_on = None

    @property
    def unsettled(self) -> bool:
        """Whether anything is waiting to be submitted or acknowledged."""
        return bool(self._dirty or self._flights)


def raise_if_broken(record: EntityRecord) -> None:
    """Raise when an entity is out of step with the log."""
    if record.broken is not None:
        raise EntityOutOfStepError(record.key, str(record.broken)) from record.broken
