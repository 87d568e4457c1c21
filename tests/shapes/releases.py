"""Write the source of two releases of one program: classes of every kind, in every place of a holder, changed in every way.

A shape is (kind of class, place in the holder, change between the releases). Both releases are plain Python files, so that each is run
by a process of its own, as an application would be.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DECLARED = ("part", "value")
ENUMS = ("enum", "int_enum", "str_enum", "auto_enum", "text_mixin", "flag", "int_flag")
DATACLASSES = ("dataclass", "slots", "frozen", "init_var", "factory", "inherited", "generic")
ATTRS = ("attrs", "attrs_frozen")
PYDANTIC = ("model", "validated", "aliased", "discriminated", "open", "private", "frozen_model", "generic_model")
TUPLES = ("named_tuple",)
KINDS = (*DECLARED, *ENUMS, *DATACLASSES, *ATTRS, *PYDANTIC, *TUPLES)
PLACES = ("field", "list", "dict", "union", "nested")
CHANGES = ("unchanged", "added", "removed", "renamed", "moved")


@dataclass(frozen=True)
class Shape:
    """One class that is stored, and what happens to it."""

    kind: str
    place: str
    change: str

    @property
    def name(self) -> str:
        """The class's name."""
        return f"K_{self.kind}_{self.place}_{self.change}"

    @property
    def holder(self) -> str:
        """The name of the class that holds it, which is the entity's type."""
        return f"H_{self.kind}_{self.place}_{self.change}"

    @property
    def held_by_entity(self) -> bool:
        """Whether an `@entity` holds it; what the library does not know of is held by a class of its own kind."""
        return self.kind in DECLARED + ENUMS


def shapes() -> Iterator[Shape]:
    """Every shape."""
    for kind, place, change in itertools.product(KINDS, PLACES, CHANGES):
        yield Shape(kind, place, change)


def write_release(folder: Path, release: int) -> None:
    """Write the modules of a release: `program.py`, and `moved.py` with what has moved."""
    program, moved = [_HEAD, "import moved\n" if release == 2 else ""], [_HEAD]
    for shape in shapes():
        source = _class_source(shape, release)
        if release == 2 and shape.change == "moved":
            moved.append(source)
            program.append(f"{shape.name} = moved.{shape.name}\n")
            if shape.kind == "discriminated":
                program.append(f"{shape.name}_other = moved.{shape.name}_other\n")
            program.append(f"restore_manager.types.alias('program:{shape.name}', moved.{shape.name})\n")
        else:
            program.append(source)
        program.append(_holder_source(shape))
        program.append(_table_source(shape, release))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "program.py").write_text("\n".join(program))
    (folder / "moved.py").write_text("\n".join(moved))


_HEAD = """
import dataclasses, enum
from dataclasses import dataclass, field, InitVar
from typing import Annotated, Any, ClassVar, Generic, Literal, NamedTuple, Optional, TypeVar, Union
import attrs
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator
from symphony_es import entity, part, value
from symphony_es.core.state import EntityRestorer
from symphony_es.core.objects.restorers import restore_manager

T = TypeVar("T")
MADE = globals().setdefault("MADE", {})

def rename(data, version):
    data = dict(data)
    if "b" in data:
        data["beta"] = data.pop("b")
    return data

"""


def _fields(shape: Shape, release: int) -> list[tuple[str, str, str]]:
    """Name, annotation and default of the fields of a release."""
    first, second = ("a", "int", "0"), ("b", "str", '"b"')
    if release == 1 or shape.change in ("unchanged", "moved"):
        return [first, second]
    if shape.change == "added":
        return [first, second, ("c", "int", "7")]
    if shape.change == "removed":
        return [first]
    return [first, ("beta", "str", '"b"')]


def _class_source(shape: Shape, release: int) -> str:
    name, fields = shape.name, _fields(shape, release)
    if shape.kind in ENUMS:
        return _enum_source(shape, release)
    lines = "\n".join(f"    {field}: {kind} = {default}" for field, kind, default in fields)
    renames = release == 2 and shape.change == "renamed"
    if shape.kind in DECLARED:
        options = "(state_version=2, upcast=rename)" if renames else ""
        return f"@{shape.kind}{options}\nclass {name}:\n{lines}\n"
    source = _TEMPLATES[shape.kind].format(name=name, lines=lines, first=fields[0][0])
    if renames:
        source += f"restore_manager.types.register({name}, state_version=2, upcast=rename)\n"
    return source


_TEMPLATES = {
    "dataclass": "@dataclass\nclass {name}:\n{lines}\n",
    "slots": "@dataclass(slots=True)\nclass {name}:\n{lines}\n",
    "frozen": "@dataclass(frozen=True)\nclass {name}:\n{lines}\n",
    "init_var": (
        "@dataclass\nclass {name}:\n{lines}\n    scale: InitVar[int] = 3\n"
        "    def __post_init__(self, scale):\n        self._scaled = self.a * scale\n"
    ),
    "factory": "@dataclass\nclass {name}:\n{lines}\n    tags: list = field(default_factory=lambda: ['t'])\n",
    "inherited": "@dataclass\nclass {name}_base:\n    zero: int = 0\n@dataclass\nclass {name}({name}_base):\n{lines}\n",
    "generic": "@dataclass\nclass {name}(Generic[T]):\n{lines}\n    item: Any = None\n",
    "attrs": "@attrs.define\nclass {name}:\n{lines}\n",
    "attrs_frozen": "@attrs.frozen\nclass {name}:\n{lines}\n",
    "model": "class {name}(BaseModel):\n{lines}\n",
    "validated": (
        "class {name}(BaseModel):\n{lines}\n    @field_validator('a')\n    @classmethod\n    def check(cls, number):\n"
        "        if number < 0:\n            raise ValueError('negative')\n        return number\n"
    ),
    "aliased": "class {name}(BaseModel):\n{lines}\n    other: int = Field(default=1, alias='otherName')\n",
    "discriminated": (
        "class {name}(BaseModel):\n    kind: Literal['one'] = 'one'\n{lines}\n"
        "class {name}_other(BaseModel):\n    kind: Literal['two'] = 'two'\n    z: int = 0\n"
    ),
    "open": "class {name}(BaseModel):\n    model_config = ConfigDict(extra='allow')\n{lines}\n",
    "private": "class {name}(BaseModel):\n{lines}\n    _client: Any = PrivateAttr(default_factory=lambda: 'client')\n",
    "frozen_model": "class {name}(BaseModel):\n    model_config = ConfigDict(frozen=True)\n{lines}\n",
    "generic_model": "class {name}(BaseModel, Generic[T]):\n{lines}\n    item: Optional[T] = None\n",
    "named_tuple": "class {name}(NamedTuple):\n{lines}\n",
}


_BASES = {
    "enum": "enum.Enum",
    "int_enum": "enum.IntEnum",
    "str_enum": "enum.StrEnum",
    "auto_enum": "enum.Enum",
    "text_mixin": "str, enum.Enum",
    "flag": "enum.Flag",
    "int_flag": "enum.IntFlag",
}


def _enum_source(shape: Shape, release: int) -> str:
    values = {"enum": ("'x'", "'y'", "'z'"), "str_enum": ("'x'", "'y'", "'z'"), "text_mixin": ("'x'", "'y'", "'z'")}.get(
        shape.kind, ("1", "2", "4")
    )
    if shape.kind == "auto_enum":
        values = ("enum.auto()",) * 3
    members = [("ONE", values[0]), ("TWO", values[1])]
    if release == 2 and shape.change == "added":
        members.append(("THREE", values[2]))
    if release == 2 and shape.change == "removed":
        del members[1]
    if release == 2 and shape.change == "renamed":
        members[1] = ("ZWEI", members[1][1])
    return f"class {shape.name}({_BASES[shape.kind]}):\n" + "\n".join(f"    {name} = {item}" for name, item in members) + "\n"


def _annotation(shape: Shape) -> str:
    name = f"{shape.name}[int]" if shape.kind in ("generic", "generic_model") else shape.name
    if shape.kind == "discriminated":
        name = f"Annotated[Union[{name}, {name}_other], Field(discriminator='kind')]"
    return {
        "field": name,
        "list": f"list[{name}]",
        "dict": f"dict[str, {name}]",
        "union": f"Optional[{name}]" if shape.kind == "discriminated" else f"Union[int, {name}, None]",
        "nested": f"M_{shape.holder}",
    }[shape.place]


def _holder_source(shape: Shape) -> str:
    holder, annotation, source = shape.holder, _annotation(shape), ""
    if shape.place == "nested":
        inner = _annotation(Shape(shape.kind, "list", shape.change)).replace(Shape(shape.kind, "list", shape.change).name, shape.name)
        source = f"{_head_of(shape, middle=True)}class M_{holder}{_base_of(shape)}:\n    deep: {inner}\n"
    source += f"{_head_of(shape)}class {holder}{_base_of(shape)}:\n    id: str = ''\n    held: {annotation} = None\n"
    if not shape.held_by_entity:
        source += (
            f"class R_{holder}(EntityRestorer):\n    entity_type = '{holder}'\n    restored_class = {holder}\n"
            f"    async def restore(self, entity_id, data, context):\n        return {holder}(**data)\n"
            f"restore_manager.register_restorer(R_{holder}())\n"
        )
    return source


def _head_of(shape: Shape, *, middle: bool = False) -> str:
    if shape.held_by_entity:
        return "@part\n" if middle else "@entity\n"
    return "" if shape.kind in PYDANTIC else "@attrs.define\n" if shape.kind in ATTRS else "@dataclass\n"


def _base_of(shape: Shape) -> str:
    return "(BaseModel)" if shape.kind in PYDANTIC else ""


def _table_source(shape: Shape, release: int) -> str:
    """How the stored object, or what it should come back as, is made in this release."""
    one = _expected(shape, release)
    held = {
        "field": one,
        "list": f"[{one}, {one}]",
        "dict": f"{{'k': {one}}}",
        "union": one,
        "nested": f"M_{shape.holder}(deep=[{one}])",
    }[shape.place]
    return f"MADE[{shape.kind!r}, {shape.place!r}, {shape.change!r}] = lambda: {shape.holder}(id='1', held={held})\n"


def _expected(shape: Shape, release: int) -> str:
    name = shape.name
    if shape.kind in ENUMS:
        if release == 2 and shape.change == "removed" and shape.kind == "int_flag":
            return f"{name}(2)"  # a number that has no member is one of its values all the same
        if release == 2 and shape.change == "removed":
            return f"{name}.ONE"  # what is stored has no member any more: anything but a report is wrong
        return f"{name}.ZWEI" if release == 2 and shape.change == "renamed" else f"{name}.TWO"
    arguments = ["a=5"]
    if release == 1 or shape.change != "removed" or shape.kind == "open":  # an open model keeps it as an extra
        arguments.append("beta='stored'" if release == 2 and shape.change == "renamed" else "b='stored'")
    extra = {"aliased": "otherName=9", "open": "more=[1, 2]", "inherited": "zero=4", "generic": "item=3", "generic_model": "item=3"}
    arguments += [extra[shape.kind]] if shape.kind in extra else []
    name = f"{name}[int]" if shape.kind == "generic_model" else name
    return f"{name}({', '.join(arguments)})"
