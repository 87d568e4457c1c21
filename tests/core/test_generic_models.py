"""Generic pydantic models with arguments: each combination is a class of its own, in the log as in the program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from pydantic import BaseModel

from symphony_es.core.objects.types import TypeTable
from symphony_es.naming import name_parts, stored_name

ROOT = Path(__file__).parent.parent.parent

MODELS = """
from __future__ import annotations
import enum
from typing import Any, Generic, TypeVar
from pydantic import BaseModel
T = TypeVar("T")
U = TypeVar("U")
class Item(BaseModel): number: int = 0
class Colour(enum.StrEnum): RED = "red"
class Box(BaseModel, Generic[T]): inner: Any = None
class Pair(BaseModel, Generic[T, U]):
    one: T
    two: U
class Crate(Box[Item]): label: str = ""
"""

SHELF = "from pydantic import BaseModel\nclass Item(BaseModel): number: int = 0\n"

MADE: dict[str, str] = {
    "a model": "Box[Item](inner=Item(number=1))",
    "a model of the same name from elsewhere": "Box[shelf.Item](inner=shelf.Item(number=1))",
    "plain": "Box[int](inner=1)",
    "anything": "Box[Any](inner=1)",
    "nothing": "Box[None](inner=None)",
    "a list": "Box[list[Item]](inner=[Item(number=1)])",
    "a dict": "Box[dict[str, list[int]]](inner={'a': [1]})",
    "a tuple": "Box[tuple[int, ...]](inner=(1, 2))",
    "a union": "Box[int | Item | None](inner=None)",
    "a union, as it was written once": "Box[Optional[shelf.Item]](inner=None)",
    "an enum": "Box[Colour](inner=Colour.RED)",
    "a moment": "Box[datetime](inner=datetime(2026, 1, 1))",
    "itself": "Box[Box[Item]](inner=Box[Item](inner=Item(number=1)))",
    "two": "Pair[Item, Box[shelf.Item]](one=Item(number=1), two=Box[shelf.Item](inner=shelf.Item(number=2)))",
    "derived": "Crate(inner=Item(number=1), label='c')",
    "without arguments": "Box(inner=1)",
}

PROGRAM = """
import asyncio, json, sys
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Optional
import models, shelf
from models import *
from symphony_es import Symphony
from symphony_es.core.state import EntityRestorer, restore_manager

@dataclass
class Holder:
    id: str
    held: Any = None

class HolderRestorer(EntityRestorer):
    entity_type = "Holder"
    restored_class = Holder
    async def restore(self, entity_id, data, context):
        return Holder(**data)

restore_manager.register_restorer(HolderRestorer())

async def main(mode, made):
    async with Symphony("state") as symphony:
        if mode == "write":
            for name, text in made.items():
                symphony.entities.add(Holder(name, eval(text)))
            return
        symphony.types.allow("models")
        symphony.types.allow("shelf")
        report = await symphony.resume()
        found = {}
        for name, text in made.items():
            holder = symphony.entities.get("Holder", name)
            held = getattr(holder, "held", report.unrestored.get("Holder:" + name))
            made_now = eval(text)
            found[name] = [type(held) is type(made_now) and held == made_now, repr(held)]
        print(json.dumps(found))

asyncio.run(main(sys.argv[1], json.loads(sys.argv[2])))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[bool, str]]:
    """What a second process, which has made none of these classes itself, finds in the log of the first."""
    folder = tmp_path_factory.mktemp("generic")
    for name, source in {"models.py": MODELS, "shelf.py": SHELF, "main.py": PROGRAM}.items():
        (folder / name).write_text(source)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "projections")])}
    printed = ""
    for mode in ("write", "read"):
        command = [sys.executable, "main.py", mode, json.dumps(MADE)]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        printed = done.stdout
    found: dict[str, tuple[bool, str]] = json.loads(printed)
    return found


@pytest.mark.parametrize("case", MADE)
def test_a_model_comes_back_with_its_arguments(case: str, told: dict[str, tuple[bool, str]]) -> None:
    """Of the very class, in a process where no annotation names it."""
    same, shown = told[case]
    assert same, shown


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("models")
    monkeypatch.setitem(sys.modules, "models", module)
    exec(MODELS, module.__dict__)
    return module


def test_two_classes_never_share_a_name(models: ModuleType) -> None:
    """The name that pydantic gives leaves out where the argument is from."""
    elsewhere = type("Item", (BaseModel,), {"__module__": "elsewhere", "__annotations__": {"number": int}})
    here, there = models.Box[models.Item], models.Box[elsewhere]
    assert here.__name__ == there.__name__
    assert stored_name(here) == "models:Box[models:Item]"
    assert stored_name(there) == "models:Box[elsewhere:Item]"


def test_an_argument_that_has_moved_is_found_by_its_alias(models: ModuleType) -> None:
    """As the class itself is."""
    table = TypeTable()
    table.register(models.Box[models.Item])
    table.register(models.Item)
    assert table.class_of("models:Box[models:Thing]") is None
    table.alias("models:Thing", models.Item)
    assert table.class_of("models:Box[models:Thing]") is models.Box[models.Item]
    table.alias("models:Carton", models.Box)
    assert table.class_of("models:Carton[models:Thing]") is models.Box[models.Item]


@pytest.mark.parametrize(
    "name",
    ["m:Box[", "m:Box]", "[int]", "m:Box[int]]", "m:Box[[int]", "m:Box[int][int]", "m:Box[]", "m:Box[,]", "m:Box[os:system]", "list[int]",
     "builtins:eval[int]", "Union[int]", "m:Box" + "[m:Box" * 80 + "]" * 80],
)  # fmt: skip
def test_other_text_means_no_class(name: str) -> None:
    """A log may hold any name; nothing is raised, and nothing is called but generic models."""
    assert TypeTable().class_of(name) is None
    name_parts(name)
