"""A read model of your own: a SQLite table over Symphony's entities, kept up to date, rebuilt at will, and read with SQL.

Run it with `python examples/custom_projection.py`. It works offline and cleans up after itself.
"""

import asyncio
import sqlite3
import tempfile
from collections.abc import Sequence
from typing import Any

from symphony_es import Symphony, entity
from symphony_es.events import changes as operations
from symphony_es.events.changes import Change
from symphony_es.events.event import Event
from symphony_es.projections import AuditFilter, AuditTrail, ProjectionRunner, SQLiteProjection


@entity
class Customer:
    """Somebody who gets invoices."""

    id: str = ""
    name: str = ""


@entity
class Invoice:
    """Refers to its customer."""

    id: str = ""
    customer: Any = None
    amount: int = 0
    paid: bool = False


class InvoicesPerCustomer(SQLiteProjection):
    """What each customer owes.

    An event carries its effect as changes (operation, path, value, …): the first one of an entity sets its whole state (path `()`),
    later ones set attributes (path `("paid",)`), and the last one may remove it.
    """

    name = "invoices_per_customer"
    version = 1  # raise it when schema or apply changes: it is then built anew
    schema = (
        "CREATE TABLE customers (id TEXT PRIMARY KEY, name TEXT)",
        "CREATE TABLE invoices (id TEXT PRIMARY KEY, customer TEXT, amount INTEGER, paid INTEGER)",
        "CREATE INDEX invoices_of ON invoices (customer)",
    )

    def apply(self, db: sqlite3.Connection, events: Sequence[Event]) -> None:
        """In one transaction with the position: nothing is ever counted twice or left out."""
        for event in events:
            for change in event.changes:
                if event.entity_type == "Customer":
                    self._customer(db, event.entity_id, change)
                elif event.entity_type == "Invoice":
                    self._invoice(db, event.entity_id, change)

    def _customer(self, db: sqlite3.Connection, customer_id: str, change: Change) -> None:
        match change:
            case (operations.SET, (), state):
                db.execute("INSERT OR REPLACE INTO customers VALUES (?, ?)", (customer_id, state["name"]))
            case (operations.SET, ("name",), name):
                db.execute("UPDATE customers SET name = ? WHERE id = ?", (name, customer_id))
            case (operations.REMOVE, ()):
                db.execute("DELETE FROM customers WHERE id = ?", (customer_id,))

    def _invoice(self, db: sqlite3.Connection, invoice_id: str, change: Change) -> None:
        match change:
            case (operations.SET, (), state):
                row = (invoice_id, _id_of(state["customer"]), state["amount"], state["paid"])
                db.execute("INSERT OR REPLACE INTO invoices VALUES (?, ?, ?, ?)", row)
            case (operations.SET, ("customer",), customer):
                db.execute("UPDATE invoices SET customer = ? WHERE id = ?", (_id_of(customer), invoice_id))
            case (operations.SET, ("amount" | "paid" as column,), value):
                db.execute(f"UPDATE invoices SET {column} = ? WHERE id = ?", (value, invoice_id))
            case (operations.REMOVE, ()):
                db.execute("DELETE FROM invoices WHERE id = ?", (invoice_id,))

    async def table(self) -> list[tuple[str, int, int]]:
        """Name, number of invoices and what is open, of each customer."""
        rows = await self.read(
            "SELECT customers.name, count(*) AS invoices, sum(CASE WHEN paid THEN 0 ELSE amount END) AS open"
            " FROM invoices JOIN customers ON customers.id = invoices.customer GROUP BY customers.id ORDER BY customers.name"
        )
        return [(row["name"], row["invoices"], row["open"]) for row in rows]


def _id_of(reference: Any) -> str | None:
    """An event names other entities by reference, never by copy."""
    return None if reference is None else str(reference.entity_id)


async def main() -> None:
    """Adds, changes, asks; rebuilds, asks again."""
    with tempfile.TemporaryDirectory() as state_dir:
        symphony = Symphony(persistence_enabled=True)
        await symphony.setup(state_dir=state_dir)
        invoices, audit = InvoicesPerCustomer(), AuditTrail()
        assert symphony.state_dir is not None
        async with ProjectionRunner(symphony.log, symphony.state_dir / "projections") as runner:
            runner.add(invoices)
            runner.add(audit)
            runner.start()

            ada, bob = Customer(id="ada", name="Ada"), Customer(id="bob", name="Bob")
            for number in range(6):
                symphony.entities.add(Invoice(id=f"2030-{number}", customer=(ada, bob)[number % 2], amount=10 * (number + 1)))
            async with symphony.transaction("InvoicePaid", actor="alice", reason="wire received"):
                symphony.entities.get("Invoice", "2030-3").paid = True
            symphony.entities.get("Invoice", "2030-4").customer = bob
            await symphony.flush()

            await runner.wait_for(symphony.log.head, timeout_s=30)
            table = await invoices.table()
            print(f"{'customer':10}{'invoices':>10}{'open':>8}")
            for name, count, left in table:
                print(f"{name:10}{count:>10}{left:>8}")
            assert table == [("Ada", 2, 40), ("Bob", 4, 130)]

            await runner.rebuild("invoices_per_customer")
            assert await invoices.table() == table
            for position in await AuditTrail.find(audit, AuditFilter(actor="alice")):
                event = (await symphony.log.read_rows(position - 1, position))[0]
                print(f"alice: {event[3]} of {event[1]}")
            for status in runner.status():
                print(f"{status.name}: {status.state}, {status.lag_events} events behind, {status.parked} parked")
        await symphony.close()
    print("done")


if __name__ == "__main__":
    asyncio.run(main())
