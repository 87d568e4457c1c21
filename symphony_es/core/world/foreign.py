"""Objects of foreign classes in a world: who was handed which of them, and what is compared with its last known state, when and for whom.

Such an object does not track itself, so nothing tells who changed it. The rule: a block, and an attempt at a step, compares the
objects that it was handed in its own context (`add`, `get`, `find`, `load`, `all`, `record`, `claim=`), and puts back no others. All
others are compared by the public `flush`, `create_checkpoint`, `close` and `record`, and what is found there is never booked on a run.
An object that blocks beside each other were handed, that none of them claims, and that differs at the end of one is *mixed* until all of
them have ended: whose changes it has cannot be told, so they are booked on nobody, and no rollback takes them back.
An atomic step is to run again when it is taken back, so it *takes* what it is handed: it claims the object, which has to be free then.
Objects are read without the world's lock: what reads them may be the application's code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from symphony_es.attribution import NOBODY, Attribution, acting_attribution, current_attribution
from symphony_es.contexts import reset_variable
from symphony_es.core.objects.in_hand import objects_in_hand
from symphony_es.core.objects.plain import entities_in
from symphony_es.core.objects.restorers import EntityRestorer
from symphony_es.core.objects.shape import Shape, put_back, shape_of
from symphony_es.core.world.transaction import Handed, Transaction, current_scope, open_scope_of, scope_of
from symphony_es.diagnostics import get_logger
from symphony_es.errors import EntityBusyError, RestorationError, SymphonyError, TransactionEndedError
from symphony_es.events.diff import diff
from symphony_es.events.values import copy_plain
from symphony_es.failures import has_failed
from symphony_es.shown import quoted

if TYPE_CHECKING:
    from symphony_es.core.world.live_entity import EntityRecord
    from symphony_es.core.world.world import World

__all__ = ["ForeignObjects", "current_step", "raise_first"]

logger = get_logger(__name__)

current_step: ContextVar[Handed | None] = ContextVar("symphony_es_step_handed", default=None)
"""What the attempt at a step that the running code belongs to was handed."""


class ForeignObjects:
    """Hands out and compares the objects of one world whose classes do not track themselves."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._recorded = 0  # counts what is recorded and put back
        self._holders: dict[EntityRecord, list[Handed]] = {}  # the open blocks and steps that each was handed to
        self._mixed: set[EntityRecord] = set()  # whose changes nobody can tell, until no open block or step has them
        self._beside: set[EntityRecord] = set()  # what others have beside the atomic step that claims it: mixed once it has changed

    # -- handing ------------------------------------------------------------------------------------------------------

    def holder(self) -> Handed | None:
        """Return what keeps in mind what the running code is handed: its block, else its step, if it is in one."""
        scope = open_scope_of(self.world)
        return scope.handed if scope is not None else self.step()

    def step(self) -> Handed | None:
        """Return what the running code's step was handed, where it belongs to this world and has not ended."""
        step = current_step.get()
        return step if step is not None and step.world is self.world and step.open else None

    def hand(self, objects: Iterable[Any], *, compare: bool = True, on_record: bool = False, waited: bool = False) -> None:
        """Keep in mind that the running block or step was handed objects; those that track themselves are none of its business.

        What is found changed in one that nobody else has is not the block's: it is booked on nobody. Of one that another block has,
        nothing is booked or claimed here, since that would keep from then on what both change for the one alone.

        Args:
            compare: False when the caller compares them itself, or has just read them.
            on_record: also those that are compared at `record` only.
            waited: it has been waited for those that were handed them before, so that an atomic step can take them.

        Raises:
            EntityBusyError: an atomic step is handed what another open transaction has.
            TransactionEndedError: the atomic step that the code belongs to has been taken back.
        """
        self._refuse_taken_back()
        holder = self.holder()
        if holder is None:
            return
        taker = holder.transaction if holder.transaction is not None and holder.transaction.alone else None
        for obj in objects:
            record = self.world.record_of(obj)
            if record is None or not record.is_compared or record.closed is not None:
                continue
            if record.manual and not on_record and taker is None:
                continue
            if taker is not None:
                self._take(record, holder, taker, compare=compare, waited=waited)
            if holder.shares(record) if taker is not None else holder.has(record):
                continue
            if compare and taker is None:
                self._settle(record)
            shape = self._shape(record)
            with self.world.lock:
                holder.records[record] = shape
                self._holders.setdefault(record, []).append(holder)
                if record.holder is not None and record.holder.alone and record.holder is not holder.transaction:
                    self._beside.add(record)  # what it has from here on may be this one's, too

    def hand_function(self, function: Callable[..., Any] | None, arguments: Iterable[Any]) -> None:
        """Hand an atomic step the objects that a function it is about to call has in hand. Errors are those of `hand`."""
        if self.world.has_foreign:
            self.hand(objects_in_hand(function, arguments))

    def _take(self, record: EntityRecord, holder: Handed, taker: Transaction, *, compare: bool, waited: bool) -> None:
        """Hand an object to an atomic step: it claims it, and what the object has so far is not the step's.

        Raises:
            EntityBusyError: another open transaction claims it, or was handed it.
        """
        if record in taker.claimed or record.broken is not None:
            return
        if record.holder is None:
            for other in () if waited else self.transactions_beside(record, holder):
                raise EntityBusyError(record.key, other.name, f"the transaction {quoted(taker.name)}")
            if record.manual and compare:
                self._note_unrecorded(record, taker)
            elif compare:
                self._settle_unclaimed(record)
        with self.world.lock:
            taker.take(record)
            taker.claimed.add(record)
            if self._is_shared(record, holder):
                self._beside.add(record)  # steps that were handed it go on beside, and may change it

    def _note_unrecorded(self, record: EntityRecord, taker: Transaction) -> None:
        """Note what an object has that is compared at `record` only: that comes back when the step is taken back."""
        try:
            taker.unrecorded[record] = self.world.capture(record.obj, record.reference)
        except SymphonyError as error:
            logger.debug("foreign_object_unreadable", entity=record.key, error=str(error))

    def transactions_beside(self, record: EntityRecord, holder: Handed) -> list[Transaction]:
        """Return the open transactions that were handed an object, but for that of the block at hand and those around it."""
        found: dict[Transaction, None] = {}
        with self.world.lock:
            for other in self._holders.get(record, ()):
                transaction = other.transaction
                if transaction is not None and transaction is not holder.transaction and not other.encloses(holder):
                    found[transaction] = None
        return list(found)

    def transactions_with(self, record: EntityRecord) -> set[Transaction]:
        """Return the transactions of which an open block was handed an object."""
        with self.world.lock:
            return {holder.transaction for holder in self._holders.get(record, ()) if holder.transaction is not None}

    def _refuse_taken_back(self) -> None:
        scope = scope_of(self.world)
        if scope is None or not scope.transaction.alone:
            return
        outermost = scope.transaction.outermost
        if outermost is not None and outermost.undone:
            raise TransactionEndedError(f"{scope.title} has been taken back: a task or thread of it can be handed nothing any more")

    def inherit(self, holder: Handed) -> None:
        """Begin a block inside others: keep in mind what the objects are made of that these were handed."""
        if holder.outer is not None:
            holder.inherited = {record: self._shape(record) for record in holder.outer.reach()}

    def _shape(self, record: EntityRecord) -> Shape | None:
        """Return what an object is made of, where the library reads and puts back its attributes itself."""
        restorer = type(self.world.restorer_of(record.entity_type))
        standard = restorer.capture is EntityRestorer.capture and restorer.reset is EntityRestorer.reset
        return shape_of(record.obj) if standard else None

    def release(self, holder: Handed) -> None:
        """End a block or step: what it was handed is the enclosing one's from now on, else nobody's."""
        holder.open = False
        if not holder.records:
            return
        outer = holder.outer if holder.outer is not None and holder.outer.open else None
        with self.world.lock:
            for record, shape in holder.records.items():
                holders = self._holders[record]
                holders.remove(holder)
                if outer is not None and record not in outer.records:
                    outer.records[record] = shape
                    holders.append(outer)
                if not holders:
                    del self._holders[record]
                if record.holder is None:
                    self.world.wake_claimants([record])  # an atomic step may wait for what was handed it

    def _settle(self, record: EntityRecord) -> None:
        """Record what changed in an object before it is handed out; what cannot be read is left to the comparison that follows."""
        if record not in self._holders and record.holder is None:
            self._settle_unclaimed(record)

    def _settle_unclaimed(self, record: EntityRecord) -> None:
        if self._is_excluded(record):
            return
        try:
            with _outside(NOBODY):
                self._compare(record)
        except SymphonyError as error:
            logger.debug("foreign_object_unreadable", entity=record.key, error=str(error))

    def before_claim(self, record: EntityRecord) -> None:
        """Prepare a claim of the running block: what it and others have changed so far is nobody's, what follows its own."""
        holder = self.holder()
        try:
            if holder is not None and record.holder is None and self._is_mixed(record, holder):
                with _outside(NOBODY):
                    self._compare(record)
        except SymphonyError as error:
            logger.debug("foreign_object_unreadable", entity=record.key, error=str(error))

    def attempt(self) -> AbstractContextManager[Handed]:
        """Return an attempt at a step: what it is handed in this block is compared by its end, also when it fails."""
        return _Attempt(self)

    # -- comparing ----------------------------------------------------------------------------------------------------

    def record_handed(self, holder: Handed, *, enclosing: bool = True) -> None:
        """Record, for the running block or step, what changed in the objects that it was handed.

        What a mixed object has is booked on nobody; where a transaction has recorded something of it before, once that has ended.

        Args:
            enclosing: also what the blocks around it were handed.

        Raises:
            UnstorableValueError: an object holds what cannot be stored. What others hold is recorded.
        """
        failures: list[SymphonyError] = []
        for record in holder.reach() if enclosing else list(holder.records):
            if self._is_excluded(record):
                continue
            try:
                if self._is_mixed(record, holder):
                    if record.holder is None:
                        with _outside(NOBODY):
                            self._compare(record)
                elif record.holder in (None, holder.transaction):
                    self._compare(record)
            except SymphonyError as error:
                failures.append(error)
        raise_first(failures)

    def record_others(self) -> list[SymphonyError]:
        """Record what changed in all objects, but for those that open blocks and other steps were handed, which these compare.

        What the running step was not handed is booked on whom `acting_as` names, else on nobody, and is part of no block.

        Returns:
            why objects could not be compared, one for each; the others are recorded.
        """
        records = self.world.foreign_records()
        if self.world.restoring or not records:
            return []
        step = self.holder()
        own = set() if step is None or step.transaction is not None else set(step.records)
        failures: list[SymphonyError] = []
        for record in records:
            if record.holder is not None or self._is_excluded(record):
                continue
            try:
                if record in self._mixed or (record in own and step is not None and self._is_mixed(record, step)):
                    with _outside(NOBODY):
                        self._compare(record)
                elif record in own:
                    self._compare(record)
                elif record not in self._holders:
                    with _outside(acting_attribution.get()):
                        self._compare(record)
            except SymphonyError as error:
                failures.append(error)
        return failures

    @staticmethod
    def _is_excluded(record: EntityRecord) -> bool:
        return record.manual or record.broken is not None or record.closed is not None

    # -- mixed objects ------------------------------------------------------------------------------------------------

    def settle_mixed(self, holder: Handed) -> None:
        """Record, once a block, step or transaction has ended, what its mixed objects have that no transaction keeps any more."""
        if not (self._mixed or self._beside):
            return
        transaction = holder.transaction
        for record in {*holder.reach(), *(transaction.records if transaction is not None and transaction.ended else ())}:
            if record.holder is not None:
                continue  # its transaction's end comes here again
            self._beside.discard(record)  # who has it from here on has it like others: nothing of it is unrecorded, or it is mixed
            if record in self._mixed:
                self._settle_mixed(record)

    def _settle_mixed(self, record: EntityRecord) -> None:
        if not self._is_excluded(record):
            try:
                with _outside(NOBODY):
                    self._compare(record)
            except SymphonyError as error:  # the next flush raises it
                logger.warning("foreign_object_unreadable", entity=record.key, error=str(error))
        with self.world.lock:
            if record not in self._holders:
                self._mixed.discard(record)

    def mix(self, holder: Handed, *, enclosing: bool = True) -> None:
        """Find out, before a rollback, which objects are mixed, while what is known of them is as the block left it."""
        for record in holder.reach() if enclosing else list(holder.records):
            if not self._is_excluded(record):
                self._is_mixed(record, holder, unreadable=True)

    def _is_mixed(self, record: EntityRecord, holder: Handed, *, unreadable: bool | None = None) -> bool:
        """Return whether an object has changes of which nobody can tell whether they are those of the block at hand.

        Args:
            unreadable: what to answer where it cannot be read; else that is raised.
        """
        mine, theirs = holder.transaction, record.holder
        if theirs is not None and record in theirs.claimed and (theirs is mine or not (theirs.ended or record in self._beside)):
            return False  # whoever claims an object has it alone
        if theirs is not None and record.born is not None:
            return False  # it comes and goes with the transaction that has added it
        if record in self._mixed:
            return True
        if record not in self._beside and theirs in (None, mine) and not self._is_shared(record, holder):
            return False
        try:
            state = self.world.capture(record.obj, record.reference)
        except SymphonyError:
            if unreadable is None:
                raise
            differs = unreadable
        else:
            with self.world.lock:
                differs = bool(diff(record.shadow, state))
        if differs:
            logger.warning("foreign_object_mixed", entity=record.key, advice="claim=[obj] keeps blocks apart")
            with self.world.lock:
                self._mixed.add(record)
        return differs

    def _is_shared(self, record: EntityRecord, holder: Handed, *, within: bool = False) -> bool:
        """Return whether an object was handed to others too, but for blocks around or inside the one at hand.

        Args:
            within: count those of its own transaction as well, which are booked on the same one.
        """
        mine = holder.transaction if not within else None
        beside = (other for other in self._holders.get(record, ()) if mine is None or other.transaction is not mine)
        return any(not (other.encloses(holder) or holder.encloses(other)) for other in beside)

    # -- one object ---------------------------------------------------------------------------------------------------

    def record(self, record: EntityRecord, announce: Callable[[], AbstractContextManager[Any]] | None) -> None:
        """Compare one object for the running code; see `World.record`."""
        self.hand([record.obj], compare=False, on_record=True)
        holder = self.holder()
        mixable = holder is not None and record.is_compared and record.holder in (None, holder.transaction)
        if not (mixable and holder is not None and not self._is_excluded(record) and self._is_mixed(record, holder)):
            self._compare(record, announce)
            return
        if record.holder is None:
            with _outside(NOBODY):
                self._compare(record)
        if announce is not None:
            with self.world.lock, announce():
                """The event says what the caller has to say; what has changed may be another one's."""

    def _compare(self, record: EntityRecord, announce: Callable[[], AbstractContextManager[Any]] | None = None) -> None:
        """Record the difference between an object and its last known state, here and now.

        Args:
            announce: makes the block that gives the event its name, where it has one of its own.

        Raises:
            UnstorableValueError: it holds what cannot be stored. Nothing is recorded.
        """
        world = self.world
        while True:
            before = self._recorded
            if not record.is_compared and announce is None:
                return
            state = world.capture(record.obj, record.reference) if record.is_compared else None
            with world.lock:
                if self._recorded != before:
                    continue  # another thread has compared one meanwhile: what was read may be older than what is known now
                with announce() if announce is not None else nullcontext():
                    if record.is_compared and state is not None:
                        self._keep(record, state)
                return

    def _keep(self, record: EntityRecord, state: dict[str, Any]) -> None:
        changes = diff(record.shadow, state)
        if not changes:
            return
        self._recorded += 1
        if record in self._beside:
            self._mixed.add(record)  # it is booked on the step that claims it, and a part of it may be another one's
        for found in entities_in(list(getattr(record.obj, "__dict__", {}).values())):
            self.world.adopt_referred(found, record)
        sink = record.sink()
        for change in changes:
            sink.keep(change, _NOTHING)  # a rollback compares the object with its shadow

    # -- putting back -------------------------------------------------------------------------------------------------

    def put_back(self, holder: Handed, *, enclosing: bool = True, claimed: bool = False) -> list[str]:
        """Put the objects that a block was handed back to their last known state, after a rollback.

        A mixed one stays as it is: what is in it may be another block's. So does one that a block beside it in the same transaction has.

        Args:
            enclosing: also what the blocks around it were handed.
            claimed: only what its transaction claims: the block is over, and others may have changed the rest.

        Returns:
            the keys of those that were not put back.
        """
        left: list[str] = []
        for record in holder.reach() if enclosing else list(holder.records):
            if not record.is_compared or record.broken is not None or record.closed is not None:
                continue
            mine = record.holder is holder.transaction
            if record in self._mixed and not (mine and record in holder.transaction_claims()):
                logger.warning("foreign_object_not_put_back", entity=record.key)
                left.append(record.key)
                continue
            if not mine and (claimed or record.holder is not None):
                continue
            if record.manual and holder.transaction is not None and holder.transaction.outermost is not holder.scope:
                continue  # what of it was not put on record is the enclosing block's, too, and the shadow does not know it
            with self.world.lock:
                self._recorded += 1
                known: dict[str, Any] = copy_plain(self._known(record, holder))
            try:
                unchanged = not diff(known, self.world.capture(record.obj, record.reference))
            except SymphonyError:
                unchanged = False  # it holds something that cannot be stored: the reason of many a rollback
            if unchanged:
                continue
            if record in self._beside:
                self._mixed.add(record)
            mixed = record in self._mixed and holder.transaction is not None and holder.transaction.alone
            if mixed or (self._is_shared(record, holder, within=True) and not self._is_shared(record, holder)):
                logger.warning("foreign_object_not_put_back", entity=record.key)
                left.append(record.key)
                continue
            shape = holder.records.get(record) or holder.inherited.get(record)
            try:
                if shape is None:
                    self.world.reset(record, known)
                else:
                    put_back(shape, known, self.world.types, self.world.revived)
            except BaseException as error:  # the object's own code refuses: it is named, and the others are put back
                if not has_failed(error):
                    raise
                failure = RestorationError(f"a rollback could not put {record.key} back: {quoted(error)}")
                failure.__cause__ = error
                self.world.outbox.mark_broken(record, failure)
        return left

    @staticmethod
    def _known(record: EntityRecord, holder: Handed) -> Any:
        transaction = holder.transaction
        if transaction is not None and transaction.outermost is holder.scope:
            return transaction.unrecorded.get(record, record.shadow)
        return record.shadow


def _nothing() -> None:
    """Do nothing: this takes back a change that was not made by the library."""


_NOTHING = (_nothing,)


@contextmanager
def _outside(attribution: Attribution) -> Iterator[None]:
    """Record what the block changes as part of no transaction, with this attribution."""
    scope = current_scope.set(None)
    attributed = current_attribution.set(attribution)
    try:
        yield
    finally:
        current_attribution.reset(attributed)
        current_scope.reset(scope)


def raise_first(failures: list[SymphonyError]) -> None:
    """Raise the first of what went wrong, if anything did; the others are notes of it."""
    if failures:
        for other in failures[1:]:
            failures[0].add_note(f"and {other}")
        raise failures[0]


class _Attempt:
    """See `ForeignObjects.attempt`; it is entered for each step, so it is no generator."""

    __slots__ = ("_handed", "_objects", "_token")

    def __init__(self, objects: ForeignObjects) -> None:
        self._objects = objects

    def __enter__(self) -> Handed:
        self._handed = Handed(self._objects.world, None)
        self._token = current_step.set(self._handed)
        return self._handed

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: object) -> None:
        try:
            if kind is not None:
                self._objects.record_handed(self._handed)
        except SymphonyError as unreadable:  # the attempt has failed of something else
            logger.warning("foreign_object_unreadable", error=str(unreadable))
        finally:
            reset_variable(self._token)
            self._objects.release(self._handed)
            self._objects.settle_mixed(self._handed)
