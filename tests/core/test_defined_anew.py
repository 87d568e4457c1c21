"""A class of data that a cell defines anew, or a module that is reloaded, replaces the old one, without a word from the application."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest

from symphony_es.core.state import EntityRestorer

from ..conftest import Opener

NAMES = "import enum, dataclasses\nfrom typing import NamedTuple\nfrom pydantic import BaseModel\nfrom symphony_es import entity, value\n"
KINDS = {
    "enum": ("class Kind(enum.Enum):\n    A = 'a'\n", "    B = 'b'\n", "Kind.A", "Kind.B"),
    "flag": ("class Kind(enum.Flag):\n    A = 1\n", "    B = 2\n", "Kind.A", "Kind.B"),
    "value": ("@value\nclass Kind:\n    a: int = 0\n", "    b: int = 1\n", "Kind()", "Kind(b=5)"),
    "dataclass": ("@dataclasses.dataclass\nclass Kind:\n    a: int = 0\n", "    b: int = 1\n", "Kind()", "Kind(b=5)"),
    "model": ("class Kind(BaseModel):\n    a: int = 0\n", "    b: int = 1\n", "Kind()", "Kind(b=5)"),
    "named tuple": ("class Kind(NamedTuple):\n    a: int = 0\n", "    b: int = 1\n", "Kind()", "Kind(b=5)"),
}
DECLARED = "@entity(type='DefinedAnew')\nclass Data:\n    id: str = ''\n    kind: Kind = None\n"
ADOPTED = "class Data:\n    kind: Kind\n    def __init__(self, id, kind):\n        self.id, self.kind = id, kind\n"


@pytest.fixture
def cells() -> Iterator[dict[str, Any]]:
    """A notebook's names."""
    module = types.ModuleType("defined_anew_cells")
    sys.modules[module.__name__] = module
    exec(NAMES, module.__dict__)
    yield module.__dict__
    del sys.modules[module.__name__]


def adopted(cells: dict[str, Any]) -> EntityRestorer:
    """A restorer of the class that the cells define now."""

    class Restorer(EntityRestorer):
        entity_type = "DefinedAnew"
        restored_class = cells["Data"]

        async def restore(self, entity_id: str, data: dict[str, Any], context: Any) -> Any:
            return cells["Data"](**data)

    return Restorer()


@pytest.mark.parametrize("registered", [False, True])
@pytest.mark.parametrize("kind", KINDS)
async def test_the_newest_class_is_the_one_that_comes_back(kind: str, registered: bool, reopen: Opener, cells: dict[str, Any]) -> None:
    """Only its own cell is run again; the same Symphony and the next one make objects of it."""
    one, more, first, second = KINDS[kind]
    declared = kind in ("enum", "flag", "value")
    exec(one + (DECLARED if declared else ADOPTED), cells)

    async def opened() -> Any:
        symphony = await reopen()
        if not declared:
            symphony.restore_manager.register_restorer(adopted(cells))
        return symphony

    symphony = await opened()
    if registered:
        symphony.restore_manager.types.register(cells["Kind"], f"defined-anew.{kind}")
    data = symphony.entities.add(cells["Data"](id="1", kind=eval(first, cells)), entity_type="DefinedAnew", entity_id="1")
    await symphony.flush()
    await symphony.resume()
    exec(one + more, cells)
    await symphony.resume()
    data = symphony.entities.get("DefinedAnew:1")
    assert type(data.kind) is cells["Kind"]
    data.kind = eval(second, cells)
    await symphony.flush()
    for again in (False, True):
        symphony = await opened()
        if registered:
            symphony.restore_manager.types.register(cells["Kind"], f"defined-anew.{kind}")
        if again:
            exec(DECLARED if declared else ADOPTED, cells)
        report = await symphony.resume()
        assert report.unrestored == {}
        found = symphony.entities.get("DefinedAnew:1").kind
        assert type(found) is cells["Kind"]
        assert found == eval(second, cells)
