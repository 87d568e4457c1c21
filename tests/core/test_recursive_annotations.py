"""Annotations that name themselves, as an alias for JSON does: what they name is found, and looking for it ends."""

from __future__ import annotations

import asyncio
import enum
import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pytest

from symphony_es.core.objects import annotations

HEAD = """
import enum, json, sys
from dataclasses import dataclass
from typing import Dict, List, NewType, TypeVar, Union
from symphony_es import entity, part, value

class Colour(enum.Enum):
    RED = "r"
"""
ALIASES = {
    "Union": 'It = Union[Dict[str, "It"], List["It"], Colour, str, None]',
    "text": 'It = "dict[str, It] | list[It] | Colour | None"',
    "two that name each other": 'It = Union[List["Other"], None]\nOther = Union[List["It"], Colour]',
    "a bound": 'It = TypeVar("It", bound="Union[List[It], Colour]")',
    "a generic alias": 'X = TypeVar("X")\nIt = Union[List["It"], Dict[str, X], Colour]',
    "a new type": 'It = NewType("It", "Union[List[It], Colour]")',
    "beside itself": 'It = Union["It", Colour]',
}
if sys.version_info >= (3, 12):
    ALIASES |= {
        "type": "type It = dict[str, It] | list[It] | Colour | None",
        "type with text": 'type It = list["It"] | Colour',
        "type with parameters": "type It[X] = It[list[X]] | X | Colour",
        "types that name each other": "type It = list[Other]\ntype Other = It | Colour",
    }
HOLDERS = {
    "entity": "@entity\nclass Holder:\n    id: str = ''\n    it: It = None",
    "part": "@part\nclass Holder:\n    it: 'It' = None",
    "value": "@value\nclass Holder:\n    it: 'list[It]' = ()",
    "dataclass": "@dataclass\nclass Holder:\n    id: str\n    it: 'It' = None",
    "function": "async def Holder(first: It) -> 'It':\n    return first",
}
TAIL = """
from symphony_es.core.objects.annotations import look_into
for name, alias, holder in json.loads(sys.argv[1]):
    exec(alias, globals())
    exec(holder, globals())
    print(name, sorted(cls.__name__ for cls in look_into(Holder, set()).classes if cls.__name__ == "Colour"))
"""


@pytest.mark.parametrize("holder", HOLDERS)
async def test_an_annotation_that_names_itself_is_looked_into(tmp_path: Path, holder: str) -> None:
    """Declaring the class returns, and what the alias names beside itself is found; one process for all aliases."""
    file = tmp_path / "program.py"
    file.write_text(HEAD + TAIL)
    told = json.dumps([(name, alias, HOLDERS[holder]) for name, alias in ALIASES.items()])
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(entry for entry in sys.path if entry))
    command = [sys.executable, str(file), told]
    result = await asyncio.to_thread(subprocess.run, command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert result.stdout.splitlines() == [f"{name} ['Colour']" for name in ALIASES], result.stderr


def test_annotations_of_plain_values_are_not_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    """What consists of the words of plain values names no class; a word that stands for another thing here is looked at."""

    class Shade(enum.Enum):
        DARK = 1

    evaluated = []
    evaluate = annotations._evaluated
    monkeypatch.setattr(annotations, "_evaluated", lambda text, names: evaluated.append(text) or evaluate(text, names))
    texts = {"a": "str", "b": "dict[str, Any] | None", "c": "list[datetime]", "d": "Shade", "e": "Literal['int']", "f": "timedelta"}
    cls: Any = type("Annotated", (), {"__annotations__": texts, "__module__": __name__, "__dataclass_fields__": {}})
    cls._symphony_names = {"Any": Any, "datetime": datetime, "Shade": Shade, "Literal": Literal, "timedelta": Shade}

    assert set(annotations.look_into(cls, set()).classes) == {cls, Shade}
    assert sorted(evaluated) == ["Literal['int']", "Shade", "timedelta"]
