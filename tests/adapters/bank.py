"""An application of `eventsourcing`, as its users write them, and one that follows it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import UUID

from eventsourcing.application import Application, ProcessingEvent
from eventsourcing.dispatch import singledispatchmethod
from eventsourcing.domain import Aggregate, event
from eventsourcing.system import ProcessApplication

MODULE = "symphony_es.adapters.eventsourcing"


def environment(directory: object, **more: str) -> dict[str, str]:
    """Where the log is, and what else an application is told."""
    return {"PERSISTENCE_MODULE": MODULE, "STATE_DIR": str(directory), **more}


class Account(Aggregate):
    """An account with an owner and a balance."""

    @event("Opened")
    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.balance = Decimal(0)

    @event("Deposited")
    def deposit(self, amount: Decimal) -> None:
        """Add to the balance."""
        self.balance += amount


class Bank(Application):
    """Opens accounts, and puts money in."""

    is_snapshotting_enabled = True

    def open(self, owner: str) -> UUID:
        """Open an account."""
        account = Account(owner)
        self.save(account)
        return account.id

    def deposit(self, account_id: UUID, amount: int) -> None:
        """Put money into an account."""
        account = self.repository.get(account_id)
        account.deposit(Decimal(amount))
        self.save(account)

    def balance(self, account_id: UUID, version: int | None = None) -> Decimal:
        """What is in an account."""
        balance: Decimal = self.repository.get(account_id, version=version).balance
        return balance


class Letter(Aggregate):
    """A letter to the owner of a new account."""

    @event("Written")
    def __init__(self, owner: str) -> None:
        self.owner = owner


class Post(ProcessApplication):
    """Follows the bank: each new account's owner gets a letter."""

    @singledispatchmethod
    def policy(self, domain_event: Any, processing_event: ProcessingEvent) -> None:
        """Nothing is due."""

    @policy.register(Account.Opened)
    def _(self, domain_event: Any, processing_event: ProcessingEvent) -> None:
        processing_event.collect_events(Letter(domain_event.owner))


class Archive(Post):
    """Follows the bank as well."""
