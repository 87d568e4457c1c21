"""Types of your own: declared with @entity, or of a class that cannot be changed, with a restorer.

Run it with `python examples/custom_entity_example.py`. It works offline and cleans up after itself.
"""

import asyncio
import tempfile
from dataclasses import field
from decimal import Decimal
from typing import Any

from symphony_es import EntityReference, Symphony, entity, part
from symphony_es.core.state import EntityRestorer, RestorationContext
from symphony_es.core.state.restore import restore_manager


@part
class Line:
    """One line of an invoice: it belongs to its invoice and changes with it."""

    text: str = ""
    amount: Decimal = Decimal(0)


@entity
class Customer:
    """An entity: every change of it is recorded."""

    id: str = ""
    name: str = ""


@entity
class Invoice:
    """Refers to another entity, and holds parts."""

    id: str = ""
    customer: Customer | None = None
    lines: list[Line] = field(default_factory=list[Line])
    paid: bool = False


class LegacyAccount:
    """Stands for a class of somebody else's: it tracks nothing, and has a constructor of its own."""

    def __init__(self, account_id: str, balance: int) -> None:
        self.id = account_id
        self.balance = balance
        self.owner: Any = None


class LegacyAccountRestorer(EntityRestorer):
    """Says how such an object is made from its state."""

    @property
    def entity_type(self) -> str:
        """The type it is for."""
        return "LegacyAccount"

    async def restore(self, entity_id: str, data: dict[str, Any], context: RestorationContext) -> Any:
        """Makes the object; the reference in `owner` is connected afterwards."""
        account = LegacyAccount(entity_id, data["balance"])
        account.owner = data["owner"]
        return account


restore_manager.register_restorer(LegacyAccountRestorer())


async def first_process(state_dir: str) -> None:
    """Adds, changes and pays."""
    symphony = Symphony(persistence_enabled=True)
    await symphony.setup(state_dir=state_dir)

    customer = Customer(id="ada", name="Ada")
    invoice = symphony.entities.add(Invoice(id="2024-1", customer=customer))  # its customer is added with it
    account = LegacyAccount("main", 100)
    account.owner = customer
    symphony.entities.add(account)

    async with symphony.transaction("InvoicePaid", actor="alice", reason="wire received"):
        invoice.lines.append(Line("work", Decimal("30.00")))
        invoice.paid = True
        account.balance -= 30

    symphony.entities.record(account, "AccountAudited", {"by": "bob"})
    await symphony.close()


async def second_process(state_dir: str) -> None:
    """Everything is back, connected."""
    symphony = Symphony(persistence_enabled=True)
    await symphony.setup(state_dir=state_dir)
    report = await symphony.resume()
    print(f"restored {report.restored} entities, complete: {report.complete}")

    invoice = symphony.entities.get("Invoice", "2024-1")
    account = symphony.entities.get(EntityReference("LegacyAccount", "main"))
    print(f"{invoice.customer.name} paid {invoice.lines[0].amount} for {invoice.lines[0].text}; the account holds {account.balance}")
    assert invoice.paid
    assert account.balance == 70
    assert account.owner is invoice.customer is symphony.entities.get("Customer:ada")

    for event in await symphony.log.read_entity("Invoice:2024-1"):
        print(f"{event.position}: {event.name} by {event.metadata.actor}: {event.metadata.reason}")
    await symphony.close()


async def main() -> None:
    """Both processes, one after the other, over one directory."""
    with tempfile.TemporaryDirectory() as state_dir:
        await first_process(state_dir)
        await second_process(state_dir)
    print("done")


if __name__ == "__main__":
    asyncio.run(main())
