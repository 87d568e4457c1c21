"""`check_restores` restores in a process of its own, so that it fails where a restart would."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from symphony_es import Symphony, entity
from symphony_es.core.state import EntityRestorer
from symphony_es.testing import check_restores

MODELS = """
import enum
from pydantic import BaseModel
from symphony_es import entity, part

class Status(enum.Enum):
    DRAFT = 1

class Hidden(enum.Enum):
    X = 1

class Address(BaseModel):
    town: str

class Contract(BaseModel):
    id: str
    status: Status = Status.DRAFT
    address: Address | None = None
    anything: object = None

@part
class Line:
    text: str
    of: "Order | None" = None

@entity
class Order:
    lines: list[Line] | None = None
    status: Status = Status.DRAFT
    anything: object = None
"""
RESTORERS = """
from symphony_es.core.state import EntityRestorer, restore_manager
from shop_models import Contract

class ContractRestorer(EntityRestorer):
    entity_type = "Contract"
    restored_class = Contract
    async def restore(self, entity_id, data, context):
        return Contract(**data)

def prepare(symphony):
    symphony.restore_manager.register_restorer(ContractRestorer(), replace=True)

async def prepare_later(symphony):
    prepare(symphony)
"""
ELSEWHERE = """
import enum

class Far(enum.Enum):
    AWAY = 1
"""
START = """
from shop_elsewhere import Far
from symphony_es import restore_manager

restore_manager.types.register(Far)
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An application of three modules that this process has imported."""
    (tmp_path / "shop_start.py").write_text(START)
    for name, source in {"shop_models": MODELS, "shop_restorers": RESTORERS, "shop_elsewhere": ELSEWHERE}.items():
        (tmp_path / f"{name}.py").write_text(source)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    loaded = [importlib.import_module(name) for name in ("shop_models", "shop_restorers", "shop_elsewhere")]
    yield ModuleType("shop")
    for module in loaded:
        monkeypatch.delitem(sys.modules, module.__name__, raising=False)


def names(*modules: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for module in modules:
        found.update(vars(sys.modules[module]))
    return found


@pytest.fixture(params=["in memory", "on disk"])
async def opened(request: pytest.FixtureRequest, tmp_path: Path, shop: Any) -> Any:
    """A Symphony of each kind; what it holds is gone afterwards."""
    async with Symphony(*([tmp_path / "log"] if request.param == "on disk" else [])) as symphony:
        yield symphony


async def test_what_a_restart_knows_comes_back(opened: Symphony) -> None:
    """Declared classes with parts, references, enums and cycles: the modules of the live classes are enough."""
    models = names("shop_models")
    one = opened.entities.add(models["Order"](id="1", lines=[models["Line"]("a")]))
    two = opened.entities.add(models["Order"](id="2", lines=[models["Line"]("b", of=one)]))
    one.lines[0].of = two
    await check_restores(opened)
    head = opened.log.head
    await check_restores(opened)
    assert opened.log.head == head


async def test_what_only_this_process_knows_does_not_pass(opened: Symphony) -> None:
    """A restorer that was registered at run time: one process succeeds, a restart does not, and the message says what to give."""
    models, restorers = names("shop_models"), names("shop_restorers")
    restorers["prepare"](opened)
    opened.entities.add(models["Contract"](id="7", address=models["Address"](town="Ulm")))
    await check_restores(opened, in_process=True)
    with pytest.raises(AssertionError, match=r"Contract:7.*no restorer is registered.*prepare="):
        await check_restores(opened)
    await check_restores(opened, prepare=restorers["prepare"])
    await check_restores(opened, prepare=restorers["prepare_later"])


@pytest.mark.parametrize("given", ["a name", "a module"])
async def test_what_another_module_registers_is_missing_until_that_is_named(opened: Symphony, given: str) -> None:
    """An enum in a field of any type has been met in this process; the next one has to import what registers it."""
    order, far = names("shop_models")["Order"], names("shop_elsewhere")["Far"]
    opened.entities.add(order(id="1", anything=far.AWAY))
    await check_restores(opened, in_process=True)
    with pytest.raises(AssertionError, match=r"shop_elsewhere:Far.*modules="):
        await check_restores(opened)
    await check_restores(opened, modules=["shop_start" if given == "a name" else ModuleType("shop_start")])


async def test_what_comes_back_otherwise_is_shown(opened: Symphony) -> None:
    """An object that was changed past the library differs from what the log says of it."""
    order = opened.entities.add(names("shop_models")["Order"](id="1", anything=1))
    await opened.flush()
    vars(order)["anything"] = 2
    with pytest.raises(AssertionError, match=r"Order:1 is .*'anything': 2.* and would come back as .*'anything': 1"):
        await check_restores(opened)
    vars(order)["anything"] = 1  # closing looks for what was written past the library


async def test_a_module_that_cannot_be_imported_is_the_answer(opened: Symphony, tmp_path: Path) -> None:
    """What the other process said is in the message."""
    opened.entities.add(names("shop_models")["Order"](id="1"))
    (tmp_path / "shop_broken.py").write_text("raise RuntimeError('no database')")
    with pytest.raises(AssertionError, match=r"(?s)shop_broken, shop_models cannot restore this log.*RuntimeError: no database"):
        await check_restores(opened, modules=["shop_broken"])


async def test_a_process_that_hangs_is_given_up(opened: Symphony, tmp_path: Path) -> None:
    """After the given time, with an AssertionError."""
    (tmp_path / "shop_slow.py").write_text("import threading\nthreading.Event().wait()")
    with pytest.raises(AssertionError, match=r"longer than 2 s"):
        await check_restores(opened, modules=["shop_slow"], timeout_s=2)


async def test_classes_that_no_other_process_can_import_are_named() -> None:
    """A class, a restorer or a function inside a function: the message names it, and the way out works."""

    @entity
    class Local:
        x: int = 0

    async with Symphony() as symphony:
        symphony.entities.add(Local(id="1"))
        with pytest.raises(AssertionError, match=r"the class of Local:1, .*<locals>.Local, cannot be imported.*in_process=True"):
            await check_restores(symphony)
        await check_restores(symphony, in_process=True)


async def test_a_restorer_inside_a_function_is_named(opened: Symphony) -> None:
    """The same for restorers and for the function that prepares."""
    contract = names("shop_models")["Contract"]

    class Inner(EntityRestorer):
        entity_type = "Contract"  # type: ignore[assignment]

        async def restore(self, entity_id: str, data: dict[str, Any], context: Any) -> Any:
            return contract(**data)

    opened.restore_manager.register_restorer(Inner())
    with pytest.raises(AssertionError, match=r"prepare=, .*<lambda>, cannot be imported"):
        await check_restores(opened, prepare=lambda symphony: None)
    opened.entities.add(contract(id="7"))
    with pytest.raises(AssertionError, match=r"the restorer of Contract:7, .*Inner, cannot be imported"):
        await check_restores(opened)


PROGRAM = """
import asyncio
from symphony_es import Symphony, entity
from symphony_es.testing import check_restores

@entity
class Order:
    x: int = 0

async def main():
    async with Symphony() as symphony:
        symphony.entities.add(Order(id="1"))
        await check_restores(symphony)
        print("checked")

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("seen", "in_process"),
    [*((seen, True) for seen in ("nobody has it", "held", "forked", "loaded", "task", "not resumed")), ("loaded", False)],
)
async def test_runs_that_have_ended_are_not_missing(seen: str, in_process: bool, tmp_path: Path) -> None:
    """A run that has ended leaves memory, as a resume leaves it in the log: that is no difference. One that was loaded is compared."""
    step = {"kind": "task", "name": "a", "template": "b"} if seen == "task" else {"kind": "sleep", "name": "a", "seconds": 0}
    async with Symphony(tmp_path) as symphony:
        run = await symphony.workflows.execute_workflow({"name": "ends", "steps": [step]}, run_id="r")
        if seen == "forked":
            await symphony.workflows.resume(await symphony.workflows.fork(run, at="a"))
        if seen != "held":
            del run
        if seen == "loaded":
            await symphony.entities.load("Workflow:r")
        if seen != "not resumed":
            await check_restores(symphony, in_process=in_process)
    if seen == "not resumed":
        async with Symphony(tmp_path) as symphony:
            await symphony.workflows.start({"name": "another", "steps": [{"kind": "wait", "name": "w", "signal": "w"}]})
            await check_restores(symphony, in_process=in_process)


@pytest.mark.parametrize("form", ["a file", "text"])
def test_the_program_s_own_classes(form: str, tmp_path: Path) -> None:
    """The program's file is imported like a module; a program without a file is told that it has none."""
    (tmp_path / "shop.py").write_text(PROGRAM)
    command = [sys.executable, "shop.py"] if form == "a file" else [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    if form == "a file":
        assert done.stdout == "checked\n", done.stderr
    else:
        assert "the class of Order:1, __main__:Order, cannot be imported by another process" in done.stderr
