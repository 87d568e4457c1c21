"""An application of the library `eventsourcing`, unchanged, on the log of a Symphony.

Run it with `python examples/eventsourcing_application.py`. It works offline and cleans up after itself.

A step of a workflow puts money into an account of the application. The account's events stand in the same log as the run's, so the log
knows which step did it, and on whose behalf.
"""

import asyncio
import tempfile
from pathlib import Path
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import IntegrityError

from symphony_es import Symphony
from symphony_es.transfer import verify
from symphony_es.workflow import RunContext


class Account(Aggregate):
    """An aggregate, as that library has them."""

    @event("Opened")
    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.balance = 0

    @event("Deposited")
    def deposit(self, amount: int) -> None:
        """Add to the balance."""
        self.balance += amount


class Bank(Application[UUID]):
    """The application: it knows nothing of this log."""

    def open(self, owner: str) -> UUID:
        """Open an account."""
        account = Account(owner)
        self.save(account)
        return account.id

    def deposit(self, account_id: UUID, amount: int) -> int:
        """Put money into an account; returns what is in it then."""
        account: Account = self.repository.get(account_id)
        account.deposit(amount)
        self.save(account)
        return account.balance


def environment(directory: Path) -> dict[str, str]:
    """All that makes the application use this log."""
    return {"PERSISTENCE_MODULE": "symphony_es.adapters.eventsourcing", "STATE_DIR": str(directory)}


async def pay_wages(directory: Path) -> UUID:
    """A run whose step uses the application, in the process of both."""
    async with Symphony(directory) as symphony:
        with Bank(environment(directory)) as bank:
            account_id = await asyncio.to_thread(bank.open, "Ada")

            def deposit(context: RunContext) -> int:
                return bank.deposit(account_id, context["amount"])

            symphony.functions.register("deposit", deposit)
            definition = symphony.build_workflow().create("wages").add_function("pay", "deposit").build()
            with symphony.acting_as("payroll", reason="wages of November"):
                run = await symphony.workflows.execute_workflow(definition, {"amount": 30})
            print(f"run: {run.status}, the account has {run.outputs['pay']}")

        for version in await symphony.history(f"eventsourcing.Aggregate:{account_id}"):
            told = version.event.metadata
            print(f"  {version.event.name} at position {version.event.position}: by {told.actor}, step {told.step}")
    return account_id


def go_on(directory: Path, account_id: UUID) -> None:
    """The application alone: what it recorded is there, and of two decisions on one version the second is refused."""
    with Bank(environment(directory)) as bank:
        account: Account = bank.repository.get(account_id)
        bank.deposit(account_id, 5)
        account.deposit(1_000)
        try:
            bank.save(account)
        except IntegrityError:
            print("somebody else was first: nothing was recorded")
        account = bank.repository.get(account_id)
        print(f"the account of {account.owner} has {account.balance}")
        assert account.balance == 35


async def main() -> None:
    """Both, and a look at the log."""
    with tempfile.TemporaryDirectory() as made:
        directory = Path(made) / "state"
        account_id = await pay_wages(directory)
        await asyncio.to_thread(go_on, directory, account_id)
        report = await verify(directory)
        assert not report.problems
        print("every event of the log is good")
    print("done")


if __name__ == "__main__":
    asyncio.run(main())
