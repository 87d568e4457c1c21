"""Blocks: where a transaction begins and ends, for code that cannot await and for code that can.

A block that ends well hands what it did to the enclosing one, or has it submitted; one that ends with an exception takes it back. Whatever
was changed outside of transactions before is submitted first, so that the log has it in the order it was made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextvars import Token
from typing import TYPE_CHECKING, Any, NoReturn, Self

from symphony_es.attribution import Standing, attribute, current_attribution
from symphony_es.contexts import reset_variable
from symphony_es.core.world.known_types import named_entities
from symphony_es.core.world.transaction import Scope, Transaction, current_scope, scope_of
from symphony_es.errors import ConfigurationError, SymphonyError, TransactionEndedError
from symphony_es.events.event import check_event_name
from symphony_es.events.values import check_plain, copy_plain
from symphony_es.left_blocks import LeftElsewhere
from symphony_es.shown import quoted

if TYPE_CHECKING:
    from symphony_es.core.world.live_entity import EntityRecord
    from symphony_es.core.world.world import World

__all__ = ["Recording", "TransactionBlock"]


class _Block:
    """What the two kinds of blocks share: attribution, joining an enclosing transaction, undoing."""

    def __init__(self, world: World, name: str | None, data: Any, attribution: dict[str, Any]) -> None:
        self.world = world
        self.name = check_event_name(name) if name is not None else None
        if data is not None:
            check_plain(data, ("data",))
        self._data = copy_plain(data)
        self._attribution = {key: item for key, item in attribution.items() if item is not None}
        self._attribution_token: Standing | None = None
        self._token: Token[Scope | None] | None = None
        self._scope: Scope | None = None
        self._outer = False
        self._alone = False

    @property
    def scope(self) -> Scope:
        """The block's scope; there is one between its beginning and its end."""
        assert self._scope is not None, "the block has not begun"
        return self._scope

    def _begin(self) -> None:
        enclosing = scope_of(self.world)
        if enclosing is not None:
            enclosing.standing()
        if self._attribution:
            self._attribution_token = attribute(**self._attribution)
        self._outer = enclosing is None
        transaction = Transaction(self.world, self.name or _unnamed()) if enclosing is None else enclosing.transaction
        self.world.open_transactions.add(transaction)
        around = enclosing.handed if enclosing is not None else None if self._alone else self.world.foreign.step()
        scope = self._scope = Scope(transaction, self.name, self._data, current_scope.get(), around)
        if self._outer:
            transaction.outermost = scope
        self._token = current_scope.set(scope)

    def _end(self) -> None:
        if self._scope is not None:
            self._scope.open = False
            self.world.foreign.release(self._scope.handed)
        if self._token is not None and not reset_variable(self._token):
            # It was entered by another task, which goes on outside of it; the one that leaves it was perhaps begun inside.
            self.scope.left = LeftElsewhere(self.scope.entered_by)
            if current_scope.get() is self._scope:
                current_scope.set(self.scope.outer)
        if self._attribution_token is not None:
            current_attribution.reset(self._attribution_token)
        self._token = self._attribution_token = None

    def _merge(self) -> None:
        """Hand what was done to the enclosing block.

        Raises:
            TransactionEndedError: that has been rolled back meanwhile, and this block with it.
        """
        if self.scope.undone:
            raise TransactionEndedError(
                f"the block {quoted(self.scope.title)} was rolled back with the one around it: nothing of it is stored"
            )
        self.scope.merge()


def _tell(error: BaseException | None, left: list[str]) -> None:
    """Say with what a block has failed of that objects were not put back."""
    for key in left:
        note = (
            f"{key} was not put back: blocks beside each other were handed it, and whose changes it has cannot be told; "
            "claim=[obj] keeps them apart"
        )
        if error is not None and note not in getattr(error, "__notes__", ()):
            error.add_note(note)


def _unnamed() -> str:
    """Return what errors call a block without a name: the step that runs in it, else nothing in particular."""
    origin = current_attribution.get()
    return "a block" if origin.step is None else f"step {origin.step} of run {origin.run_id}"


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
            self._refuse()
            self.world.lock.release()
            raise
        return self

    def _refuse(self) -> None:
        """End what has begun and may not go on: its transaction would be open for ever."""
        if self._scope is not None:
            self.scope.roll_back()
            if self._outer:
                self.scope.transaction.finish()
        self._end()

    def __exit__(self, exception_type: type[BaseException] | None, exception: BaseException | None, traceback: object) -> None:
        transaction = self.scope.transaction
        try:
            if exception_type is None:
                try:
                    self.world.record_foreign(self.scope.handed, enclosing=False)
                except BaseException as error:
                    self._undo(error)
                    raise
            if exception_type is not None:
                self._undo(exception)
            elif not self._outer:
                self._merge()
            else:
                self._submit(transaction)
        finally:
            if self._outer:
                transaction.finish()
            self._end()
            self.world.lock.release()
            self.world.foreign.settle_mixed(self.scope.handed)

    def _submit(self, transaction: Transaction) -> None:
        try:
            self.event_ids = self.world.outbox.submit_drafts(transaction)
        except BaseException as error:
            if not transaction.submitted:
                self.world.foreign.mix(self.scope.handed, enclosing=False)
                transaction.fail()
                _tell(error, self.world.reset_foreign(self.scope.handed, enclosing=False))
            raise

    def _undo(self, error: BaseException | None) -> None:
        if not self.scope.transaction.ended:
            self.world.foreign.mix(self.scope.handed, enclosing=False)
            self.scope.roll_back()
            _tell(error, self.world.reset_foreign(self.scope.handed, enclosing=False))


class TransactionBlock(_Block):
    """`async with symphony.transaction(...)`: awaits its commit; an exception inside appends nothing and puts objects back."""

    def __init__(
        self, world: World, name: str | None, claim: Iterable[Any] | None, attribution: dict[str, Any], data: Any = None,
        *, alone: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(world, name, data, attribution)
        self._alone = alone  # an atomic step: what it is handed is none of the composite step's around it, which outlives it
        self._claim = [] if claim is None else named_entities(claim, world)

    @property
    def left(self) -> list[str]:
        """After a rollback: the keys of the objects that were not put back."""
        return self._scope.transaction.left if self._scope is not None else []

    def __enter__(self) -> NoReturn:
        raise ConfigurationError(f"a transaction awaits its commit: write `async with symphony.transaction({quoted(self.name)}):`")

    def __exit__(self, *_: object) -> None:
        """Do nothing: it is never reached, as there is no beginning without await."""

    async def __aenter__(self) -> Transaction:
        self.world.check_process()
        around = self.world.foreign.holder()
        if around is not None:
            self.world.record_foreign(around)  # what the blocks around it have changed so far is theirs
        with self.world.lock:
            self._begin()
            self.scope.transaction.alone |= self._alone
        self.world.foreign.inherit(self.scope.handed)
        try:
            for target in self._claim:
                await self.world.claim(target)
        except BaseException as error:
            self._abandon(error)
            raise
        return self.scope.transaction

    def _reset(self, error: BaseException | None, *, claimed: bool = False) -> None:
        left = self.world.reset_foreign(self.scope.handed, claimed=claimed)
        if self._outer:  # all has been put back but this, whatever blocks inside could not
            self.scope.transaction.left = left
        else:
            self.scope.transaction.left += left
        _tell(error, left)

    def _abandon(self, error: BaseException | None) -> None:
        transaction = self.scope.transaction
        undone = not (transaction.ended or transaction.submitted)
        if undone:
            self.world.foreign.mix(self.scope.handed)
            with self.world.lock:
                self.scope.roll_back()
            self._reset(error)
        with self.world.lock:
            if self._outer:
                transaction.finish()
            self._end()
        self.world.foreign.settle_mixed(self.scope.handed)

    async def __aexit__(self, exception_type: type[BaseException] | None, exception: BaseException | None, traceback: object) -> None:
        transaction = self.scope.transaction
        if exception_type is not None:
            self._abandon(exception)
            return
        if not self._outer:
            try:
                self.world.record_foreign(self.scope.handed)
                self._check_said()
                with self.world.lock:
                    self._merge()
            except BaseException as error:
                self._abandon(error)
                raise
            self._end()
            self.world.foreign.settle_mixed(self.scope.handed)
            return
        try:
            self.world.record_foreign(self.scope.handed)
            self._check_said()
            if not self.world.log.has_room():
                await self.world.log.room()
            with self.world.lock:
                ticket = self.world.outbox.submit_transaction(transaction)
                transaction.ended = True  # what is changed from here on is no part of it
        except BaseException as error:
            self._abandon(error)
            raise
        self._end()
        transaction.ticket = ticket
        if ticket is None:
            transaction.finish()
            self.world.foreign.settle_mixed(self.scope.handed)
            return
        await self._settle(ticket)

    def _check_said(self) -> None:
        """Refuse to lose what the block's event should say: where nothing has changed, there is none.

        Raises:
            ConfigurationError: data, and no change.
        """
        if self.scope.data is not None:
            raise ConfigurationError(
                f"nothing changed in the transaction {quoted(self.name)}, so no event can say its data: "
                "use entities.record(entity, name, data)"
            )

    async def _settle(self, ticket: Any) -> None:
        """Wait for the commit; when it fails, or is found to have failed after a cancellation, put the objects back."""
        try:
            await ticket.wait()
        except asyncio.CancelledError:
            ticket.add_done_callback(self._settle_late)
            raise
        except SymphonyError as error:
            self._put_back(error)
            raise
        self._conclude()

    def _settle_late(self, ticket: Any) -> None:
        try:
            ticket.result()
        except SymphonyError as error:
            self._put_back(error)
        else:
            self._conclude()

    def _put_back(self, error: BaseException) -> None:
        self.world.foreign.mix(self.scope.handed)
        with self.world.lock:
            self.scope.transaction.fail()
        self._reset(error, claimed=True)
        with self.world.lock:
            self.scope.transaction.finish()
        self.world.foreign.settle_mixed(self.scope.handed)

    def _conclude(self) -> None:
        with self.world.lock:
            try:
                self.world.outbox.settle()
            finally:
                self.scope.transaction.finish()
        self.world.foreign.settle_mixed(self.scope.handed)
