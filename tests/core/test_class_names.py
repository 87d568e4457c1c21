"""Two releases of one application's code, in two processes: what a stored value is in the second one.

One process per release for all shapes: each writes, or reads, one entity per shape.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

FIRST = """
from __future__ import annotations
import enum
from dataclasses import field
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, NewType, Optional, TypeVar, Union
from symphony_es import entity, part, value
if TYPE_CHECKING:
    from nowhere import Nothing

class Plain(enum.Enum): OPEN = "open"; DONE = "done"
class Text(enum.StrEnum): OPEN = enum.auto(); DONE = enum.auto()
class Number(enum.IntEnum): ONE = 1; TWO = 2
class Rights(enum.Flag): READ = 1; WRITE = 2; RUN = 4
class IntRights(enum.IntFlag): READ = 1; WRITE = 2
class Planet(enum.Enum): EARTH = (5.97, 6.37); MARS = (0.64, 3.39)
class Größe(enum.Enum): KLEIN = None; GROSS = b"g"
class Opaque(enum.Enum): A = object()
class Outer:
    class Inner(enum.Enum): X = 1
class Renamed(enum.Enum): OLD = "same"
class Gone(enum.Enum): STAYS = 1; GOES = 2
class Changed(enum.Enum): A = "before"
class Moved(enum.Enum): M = "m"
class Lost(enum.Enum): L = "l"
class Legacy(enum.Enum): NEW = "n"; OLD = "o"

@value
class Money: amount: int = 0; kind: Plain = Plain.OPEN
@part
class Line: text: str = ""; kind: Text = Text.OPEN; price: Money = Money()
@part
class Special(Line): extra: Optional[Number] = None
@part
class Grows: text: str = ""
@value
class GrowsToo: text: str = ""
@part
class Shrinks: text: str = ""; gone: int = 0
@value
class ShrinksToo: text: str = ""; gone: int = 0
@part
class Upcast: name: str = ""; kind: Plain = Plain.OPEN
@value
class UpcastToo: name: str = ""
@part
class Demands: text: str = ""
@part
class MovedPart: text: str = ""
@value
class MovedValue: text: str = ""
@part(name="given.name")
class Named: text: str = ""
@part
class BecomesValue: text: str = ""
@value
class BecomesPart: text: str = ""
@part
class Box(Generic[T := TypeVar("T")]): item: Any = None
Alias = NewType("Alias", Line)

@entity
class Holder:
    id: str = ""
    anything: Any = None
    nothing: Nothing = None
    plain: Plain | None = None
    text: Annotated[Optional[Text], "a note"] = None
    number: "Union[int, Number, None]" = None
    rights: Rights | None = None
    int_rights: "dict[str, Nothing | IntRights] | None" = None
    planet: Literal[Planet.EARTH, Planet.MARS] | None = None
    grösse: tuple[Größe, ...] = ()
    opaque: Opaque | None = None
    inner: Outer.Inner | None = None
    renamed: Renamed | None = None
    gone: Gone | None = None
    changed: Changed | None = None
    lines: list[Line | Special | Alias] = field(default_factory=list)
    box: Box[Legacy] | None = None
    grows: list[Grows | GrowsToo | Shrinks | ShrinksToo | Upcast | UpcastToo | Demands] = field(default_factory=list)
"""

CASES: dict[str, str] = {
    "plain": "Plain.DONE",
    "text": "Text.DONE",
    "number": "Number.TWO",
    "rights": "Rights.READ | Rights.RUN",
    "single right": "Rights.WRITE",
    "int rights": "IntRights.READ | IntRights.WRITE",
    "planet": "Planet.MARS",
    "none as value": "Größe.KLEIN",
    "bytes as value": "Größe.GROSS",
    "opaque": "Opaque.A",
    "inner": "Outer.Inner.X",
    "in list": "[Plain.DONE, [Text.OPEN]]",
    "in dict": "{'a': {1: Number.ONE}}",
    "in tuple": "(Plain.OPEN, (Plain.DONE,))",
    "in set": "{Plain.OPEN, 'open'}",
    "in value": "Money(3, Plain.DONE)",
    "in part": "Line('a', Text.DONE, Money(1, Plain.DONE))",
    "in parts": "[Line('a'), {'b': [Line('c', Text.DONE)]}]",
    "subclass": "Special('a', Text.DONE, Money(2), Number.TWO)",
    "in generic": "Box(Legacy.OLD)",
    "named": "Named('n')",
    "renamed member": "[Renamed.OLD]",
    "member gone": "Gone.GOES",
    "value changed": "Changed.A",
    "moved enum": "[Moved.M]",
    "moved part": "[MovedPart('m')]",
    "moved value": "(MovedValue('m'),)",
    "lost enum": "{'deep': [(Lost.L,)]}",
    "part grows": "[Grows('g')]",
    "value grows": "[GrowsToo('g')]",
    "part shrinks": "[Shrinks('s', 7)]",
    "value shrinks": "{'k': ShrinksToo('s', 7)}",
    "part upcast": "[Upcast('Ada Lovelace', Plain.DONE)]",
    "value upcast": "UpcastToo('Ada Lovelace')",
    "part demands": "Demands('d')",
    "part becomes value": "BecomesValue('x')",
    "value becomes part": "BecomesPart('x')",
}
"""What the first release stores, by the id of its entity."""

SECOND = (
    FIRST.replace('class Renamed(enum.Enum): OLD = "same"', 'class Renamed(enum.Enum): NEW = "same"')
    .replace("class Gone(enum.Enum): STAYS = 1; GOES = 2", "class Gone(enum.Enum): STAYS = 1")
    .replace('class Changed(enum.Enum): A = "before"', 'class Changed(enum.Enum): A = "after"')
    .replace('class Moved(enum.Enum): M = "m"\nclass Lost(enum.Enum): L = "l"\n', "")
    .replace('class Grows: text: str = ""', 'class Grows: text: str = ""; stars: int = 5; tags: list = field(default_factory=list)')
    .replace('class GrowsToo: text: str = ""', 'class GrowsToo: text: str = ""; stars: int = 5; tags: tuple = ()')
    .replace('class Shrinks: text: str = ""; gone: int = 0', 'class Shrinks: text: str = ""')
    .replace('class ShrinksToo: text: str = ""; gone: int = 0', 'class ShrinksToo: text: str = ""')
    .replace(
        '@part\nclass Upcast: name: str = ""; kind: Plain = Plain.OPEN',
        '@part(state_version=2, upcast=lambda data, version: {"first": data["name"].split()[0], "done": data["kind"] is Plain.DONE})\n'
        'class Upcast: first: str = ""; done: bool = False',
    )
    .replace(
        '@value\nclass UpcastToo: name: str = ""',
        '@value(state_version=3, upcast=lambda data, version: {"first": data["name"].split()[0], "version": version})\n'
        'class UpcastToo: first: str = ""; version: int = 0',
    )
    .replace('class Demands: text: str = ""', "class Demands: text: str; more: int")
    .replace('@part\nclass MovedPart: text: str = ""\n@value\nclass MovedValue: text: str = ""\n', "")
    .replace('@part\nclass BecomesValue: text: str = ""', '@value\nclass BecomesValue: text: str = ""')
    .replace('@value\nclass BecomesPart: text: str = ""', '@part\nclass BecomesPart: text: str = ""')
)

ELSEWHERE = """
import enum
from symphony_es import part, value
class Moved(enum.Enum): M = "m"
@part
class MovedPart: text: str = ""
@value
class MovedValue: text: str = ""
"""

CHANGED: dict[str, str] = {
    "renamed member": "[Renamed.NEW]",
    "moved enum": "[Moved.M]",
    "part grows": "[Grows('g', 5, [])]",
    "value grows": "[GrowsToo('g', 5, ())]",
    "part shrinks": "[Shrinks('s')]",
    "value shrinks": "{'k': ShrinksToo('s')}",
    "part upcast": "[Upcast('Ada', True)]",
    "value upcast": "UpcastToo('Ada', 1)",
}
"""What the second release reads where that is written in another way."""

UNRESTORED: dict[str, str] = {
    "member gone": "shop:Gone has no member 'GOES' (value 2)",
    "lost enum": "symphony.types.register(Lost)",
    "part demands": "a stored shop:Demands has no 'more'",
}
"""What keeps the whole entity as it is stored, and what the report says."""

DIFFERENT = {
    "value changed", "renamed member", "moved enum", "moved part", "moved value", "part grows", "value grows",
    "part shrinks", "value shrinks", "part upcast", "value upcast", "part becomes value", "value becomes part",
}  # fmt: skip
"""What differs from what is stored, and is reported."""

WRITE = """
import asyncio, sys
from shop import *
from symphony_es import Symphony
async def main(folder, cases):
    symphony = await Symphony({"state_dir": folder}, persistence_enabled=True).setup()
    for name, code in cases.items():
        symphony.entities.add(Holder(id=name, anything=code))
    await symphony.close()
CASES = {%s}
asyncio.run(main(sys.argv[1], CASES))
"""

READ = """
import asyncio, json, sys
from shop import *
from elsewhere import *
from symphony_es import Symphony
from symphony_es.core.state import UnrestoredEntity
CASES = {%s}
async def main(folder):
    symphony = await Symphony({"state_dir": folder}, persistence_enabled=True).setup()
    for name in ("Moved", "MovedPart", "MovedValue"):
        symphony.types.alias("shop:" + name, globals()[name])
    report = await symphony.resume()
    told = {}
    for name, expected in CASES.items():
        found = symphony.entities.get("Holder:" + name)
        kept = isinstance(found, UnrestoredEntity)
        told[name] = {
            "whole": kept and "anything" in found.state,
            "equal": not kept and expected is not None and found.anything == expected and type(found.anything) is not str,
            "repr": repr(found),
            "reason": report.unrestored.get("Holder:" + name),
            "different": [[list(path) for path in item.paths] for item in report.different if item.entity == "Holder:" + name],
            "removed": [list(path) for path in report.removed_fields.get("Holder:" + name, ())],
        }
        if not kept:
            found.nothing = "changed"  # what was adopted is appended first
    await symphony.flush()
    again = await symphony.resume()
    for name in CASES:
        told[name]["settled"] = all(item.entity != "Holder:" + name for item in again.different)
        told[name]["still"] = repr(symphony.entities.get("Holder:" + name)).replace("nothing='changed'", "nothing=None")
    told["loaded"] = sorted({name.partition(".")[0] for name in sys.modules} & {"nowhere", "lost"})
    await symphony.close()
    print(json.dumps(told))
asyncio.run(main(sys.argv[1]))
"""


def environment() -> dict[str, str]:
    """What a process of its own needs to find what this one finds."""
    path = os.pathsep.join(str(Path(entry).resolve()) for entry in sys.path if entry)
    return {**os.environ, "PYTHONPATH": path, "PYTHONUTF8": "1"}


def run(folder: Path, modules: dict[str, str], *arguments: str) -> str:
    """Run `main.py` of a release in a process of its own; returns what it prints."""
    folder.mkdir()
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(dedent(text), encoding="utf-8")
    command = [sys.executable, str(folder / "main.py"), *arguments]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def as_dict(values: dict[str, str]) -> str:
    """The items of a dict as source."""
    return ", ".join(f"{name!r}: {code}" for name, code in values.items())


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the second release found, by case."""
    folder = tmp_path_factory.mktemp("releases")
    run(folder / "first", {"shop": FIRST, "main": WRITE % as_dict(CASES)}, str(folder / "log"))
    unmade = dict.fromkeys(UNRESTORED, "None")
    expected = {**CASES, **CHANGED, **unmade}
    printed = run(folder / "second", {"shop": SECOND, "elsewhere": ELSEWHERE, "main": READ % as_dict(expected)}, str(folder / "log"))
    found: dict[str, Any] = json.loads(printed)
    for modules, code in (((), 0), (("shop", "elsewhere"), 1)):
        imports = [word for module in modules for word in ("--app", module)]
        command = [sys.executable, "-m", "symphony_es.cli", "types", "--json", "--state-dir", str(folder / "log"), *imports]
        listed = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=folder / "second", env=environment())
        assert listed.returncode == code, listed.stderr
        found["types" if modules else "types without imports"] = [json.loads(line) for line in listed.stdout.splitlines()]
    return found


@pytest.mark.parametrize("case", [case for case in CASES if case not in UNRESTORED])
def test_a_value_comes_back_as_an_object_of_its_class(case: str, told: dict[str, Any]) -> None:
    """Equal to what was stored, or to what the changed class makes of it; and a difference is reported once, then adopted."""
    found = told[case]
    assert found["equal"], (found["repr"], found["reason"])
    assert "Tagged" not in found["repr"]
    assert bool(found["different"]) == (case in DIFFERENT), found["different"]
    assert found["settled"]
    assert found["still"] == found["repr"]


@pytest.mark.parametrize("case", list(UNRESTORED))
def test_what_cannot_be_made_keeps_its_entity_whole(case: str, told: dict[str, Any]) -> None:
    """The state is intact, and the report says which call mends it."""
    found = told[case]
    assert found["whole"]
    assert UNRESTORED[case] in found["reason"], found["reason"]


def test_removed_fields_are_reported_with_their_paths(told: dict[str, Any]) -> None:
    """Of parts and values, wherever they stand."""
    removed = {name: found["removed"] for name, found in told.items() if isinstance(found, dict) and found["removed"]}
    assert removed == {"part shrinks": [["anything", 0, "gone"]], "value shrinks": [["anything", "k", "gone"]]}


def test_nothing_is_imported_because_a_log_names_it(told: dict[str, Any]) -> None:
    """Neither the module of a lost class nor one that only type checkers know."""
    assert told["loaded"] == []


def test_the_command_line_lists_the_classes_of_a_log(told: dict[str, Any]) -> None:
    """Each with whether it is known; it is the named modules of the application that make them known, never the log."""
    here = {row["class"]: row["here"] for row in told["types"]}
    assert here["shop:Plain"] == here["shop:Outer.Inner"] == here["given.name"] == here["elsewhere:MovedPart"] == "known"
    assert here["shop:Lost"] == "unknown"
    plain = next(row for row in told["types"] if row["class"] == "shop:Plain")
    assert (plain["kind"], plain["entities"]) == ("enum", 8)
    assert {row["here"] for row in told["types without imports"]} == {"unknown"}
