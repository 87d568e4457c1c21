"""Type checkers know the fields of declared classes, and the names of packages that import them late."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PROGRAM = """
from symphony_es import Symphony, entity, part, value

@value
class Money:
    amount: int

@part
class Line:
    text: str
    price: Money = Money(0)

@entity
class Order:
    id: str = ""
    lines: list[Line] | None = None

@entity(type="Renamed", state_version=2)
class Other:
    id: str
    size: int

order = Order(id="1", lines=[Line("a", Money(3))])
reveal_type(order.lines)
Order(id=1)
Line()
Money(amount="x")
Other(id="1", size="x")
Money(3).amount = 4

from symphony_es.workflow import StepLsit
"""


CALLS = """
import asyncio
from symphony_es import Symphony, entity, gather, run_workflow, step
from symphony_es.events.changes import EXTEND, INSERT, REMOVE, SET
from symphony_es.events.event import Event
from symphony_es.workflow import RunContext, RunMoment, Workflow

@entity
class Thing:
    id: str = ""

async def price(sku: str, count: int = 1) -> int:
    return count

def label(sku: str) -> str:
    return sku

symphony = Symphony()

@symphony.workflow
async def order(sku: str, count: int = 1) -> float:
    reveal_type(await step(price, sku, 2))
    reveal_type(await step(price, sku, count=count))
    reveal_type(await step(label, sku))
    reveal_type(await step(label, sku, retry=3, timeout_s=1.5))
    reveal_type(await step(price, sku, name="price", atomic=True))
    reveal_type(await gather(step(price, sku), step(price, sku)))
    reveal_type(await gather(step(price, sku), step(label, sku)))
    reveal_type(await gather(step(price, sku), step(label, sku), step(price, sku)))
    reveal_type(await gather(step(price, sku), step(price, sku), step(price, sku), *[price(sku)]))
    reveal_type(await gather(step(label, sku)))
    reveal_type(await gather(*[step(price, sku) for _ in range(3)]))
    reveal_type(await gather(step(price, sku), return_exceptions=True))
    await step(price, 5)
    await step(price)
    await step(price, sku, "2")
    await step(price, sku, cnt=2)
    await step(label, 5)
    await step(price, sku, retry="3")
    await step(price, sku, timeout_s="1")
    return 1.0

@symphony.workflow(name="other")
async def other(sku: str) -> bool:
    reveal_type(await run_workflow(order, {"sku": sku}))
    reveal_type(await order(sku))
    return True

async def main() -> None:
    handle = await symphony.workflows.start(order, sku="a")
    reveal_type(await handle.result())
    reveal_type(await handle)
    reveal_type(await (await symphony.workflows.start(other, "a")).result())
    reveal_type(await (await symphony.workflows.start("other", "a")).result())
    await order(5)
    run = await symphony.workflows.execute_workflow(order, {"sku": "a"})
    reveal_type(run.result)
    also: Workflow = run
    reveal_type((await symphony.workflows.execute_workflow("other", sku="a")).result)
    reveal_type(symphony.build_workflow("w"))
    reveal_type(symphony.entities.get(Thing, "1"))
    reveal_type(symphony.entities.find(Thing, "1"))
    reveal_type(symphony.entities.all(Thing))
    reveal_type(await symphony.entities.load(Thing, "1"))
    run.result.nothing
    symphony.build_workflow("w").add_fonction("w", price)

def plain(context: RunContext) -> None:
    reveal_type(context.symphony)
    reveal_type(context.symphony.entities.get(Thing, "1"))
    context.symphony.entites

def hook(moment: RunMoment) -> None:
    reveal_type(moment.symphony.entities.get(Thing, "1"))
    moment.symphony.entites

def told(event: Event) -> None:
    for change in event.changes:
        reveal_type(change[1])
        if change[0] == SET:
            reveal_type(change[2])
        elif change[0] == INSERT:
            reveal_type(change[2])
        elif change[0] == EXTEND:
            reveal_type(change[2])
        elif change[0] == REMOVE:
            change[2]
"""
REVEALED = ["int", "int", "str", "str", "int", "list[int]", "list[int | str]", "list[int | str]",
            "list[int]", "list[str]", "list[int]", "list[int | Exception]", "float", "float",
            "float", "float", "bool", "Any", "float | None", "Any", "WorkflowBuilder", "Thing", "Thing | None", "list[Thing]", "Thing",
            "Symphony", "Thing", "Thing", "tuple[str | int, ...]", "Any", "int", "str | bytes"]  # fmt: skip


_WRONG = {
    "await step(price, 5)",
    "await step(price)",
    'await step(price, sku, "2")',
    "await step(price, sku, cnt=2)",
    "await step(label, 5)",
    'await step(price, sku, retry="3")',
    'await step(price, sku, timeout_s="1")',
    "await order(5)",
    "run.result.nothing",
    'symphony.build_workflow("w").add_fonction("w", price)',
    "context.symphony.entites",
    "moment.symphony.entites",
    "change[2]",
}


def test_type_checkers_know_fields_arguments_and_results(tmp_path: Path) -> None:
    """Right uses pass, wrong ones are errors, one each.

    Of classes the fields; of steps the arguments of their functions and their results; of handles the results of their workflows.
    """
    classes, calls = mypy(tmp_path, classes=PROGRAM, calls=CALLS)
    assert sum("error" in line for line in classes) == 6, classes
    assert any("Line" in line and "Revealed" in line for line in classes)
    wrong = [number for number, line in enumerate(CALLS.splitlines(), 1) if line.strip() in _WRONG]
    found = sorted({int(line.split(":")[1]) for line in calls if ": error:" in line})
    assert found == wrong, calls
    revealed = [re.sub(r"[a-z_]+\.", "", line.split('"')[1]) for line in calls if "Revealed" in line]
    assert revealed == REVEALED


def mypy(tmp_path: Path, **programs: str) -> list[list[str]]:
    """What mypy says about each of some programs; it is started once, since it reads the whole library first."""
    for name, program in programs.items():
        (tmp_path / f"{name}.py").write_text(program)
    files = [str(tmp_path / f"{name}.py") for name in programs]
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", str(tmp_path / "cache"), *files]
    lines = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False).stdout.splitlines()
    return [[line for line in lines if line.startswith(f"{name}.py:")] for name in programs]
