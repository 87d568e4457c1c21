"""Workflows inside a workflow: a child run for each order, linked both ways, with histories of their own.

Run it with `python examples/sub_workflow.py [STATE_DIR]`. Without a directory it works in a temporary one.
"""

import asyncio
import sys
import tempfile
from typing import Any

from symphony_es import Symphony
from symphony_es.workflow import RunContext

ORDERS = [{"customer": "Ada", "amounts": [10, 20]}, {"customer": "Grace", "amounts": [5]}]


def add_up(context: RunContext) -> int:
    """A step of the child runs: reads the context that the parent gave."""
    return sum(context["order"]["amounts"])


def send(context: RunContext) -> str:
    """The other one."""
    return f"invoice over {context.outputs['sum']} to {context['order']['customer']}"


async def invoice_all(state_dir: str) -> None:
    """One run with two child runs."""
    async with Symphony({"state_dir": state_dir}, persistence_enabled=True) as symphony:
        for function in (add_up, send):
            symphony.functions.register(function.__name__, function)
        invoice = await (
            symphony.build_workflow()
            .create("invoice")
            .add_function("sum", add_up)
            .add_function("send", send)
            .with_output({"sent": "{{ step.send.result }}", "sum": "{{ step.sum.result }}"})
            .save()
        )
        invoice_one = symphony.workflows.build_steps().add_workflow("invoice", invoice.id, {"order": "{{ item }}"})
        definition = (
            symphony.build_workflow()
            .create("all invoices")
            .add_map("orders", "{{ orders }}", invoice_one)
            .with_output("{{ step.orders.results }}")
            .build()
        )
        run = await symphony.workflows.execute_workflow(definition, {"orders": ORDERS})

        print(f"{run.name}: {run.status}")
        for address, child in sorted(run.children.items()):  # they run side by side: any of them may be the first
            print(f"  {address} -> run of {child.name!r}: {child.status}, {child.result['sent']}")
            print(f"    its parent: run of {child.parent.name!r} at {child.parent_step}; its steps: {list(child.outputs)}")
            assert child.parent is run
            assert child.parent_step == address
        expected: list[dict[str, Any]] = [{"sent": "invoice over 30 to Ada", "sum": 30}, {"sent": "invoice over 5 to Grace", "sum": 5}]
        assert run.result == expected
        children = [await child.load() for child in await symphony.workflows.list_runs(parent=run)]
        assert {child.parent_step for child in children} == set(run.children)
    print("done")


if __name__ == "__main__":
    if sys.argv[1:]:
        asyncio.run(invoice_all(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as directory:
            asyncio.run(invoice_all(directory))
