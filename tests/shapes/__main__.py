"""Store every shape with one release, read it with the next: `python -m tests.shapes`. Prints what came back; ends with 1 if it is wrong.

`python -m tests.shapes store|read FOLDER` is what the processes of the two releases run.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

from symphony_es import Symphony
from symphony_es.core.objects.restorers import UnrestoredEntity
from symphony_es.errors import SymphonyError
from symphony_es.events.values import Tagged
from tests.shapes.releases import Shape, shapes, write_release

EQUAL, REPORTED, REFUSED, WRONG = "equal", "reported", "refused", "wrong"
TOGETHER = 25
"""So many shapes are added before a flush, which compares all that there are."""


def parts_of(item: Any) -> list[Any]:
    """What a value holds, at any depth, itself first."""
    found, stack, seen = [], [item], set()
    while stack:
        one = stack.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        found.append(one)
        if isinstance(one, dict):
            stack.extend([*one.keys(), *one.values()])
        elif isinstance(one, (list, tuple, set, frozenset)):
            stack.extend(one)
        elif isinstance(one, Tagged):
            continue
        else:
            held = vars(one) if hasattr(one, "__dict__") and not isinstance(one, type) else {}
            stack.extend(item for name, item in held.items() if not name.startswith("_symphony"))  # those lead to the world
            stack.extend(
                getattr(one, slot)
                for slot in getattr(type(one), "__slots__", ())
                if not slot.startswith("_symphony") and hasattr(one, slot)
            )
    return found


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, their classes too, and what they hold besides their state."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if type(one) is not type(other) or repr(one) != repr(other):
        return False
    if hasattr(one, "_scaled") != hasattr(other, "_scaled"):
        return False
    if hasattr(type(one), "model_fields") and getattr(one, "__pydantic_private__", None) != getattr(other, "__pydantic_private__", None):
        return False
    if getattr(type(one), "_symphony_kind", None) == "part" or type(one).__name__.startswith("M_"):
        return all(same(mine, getattr(other, name)) for name, mine in _fields_of(one).items())
    return bool(one == other)


def _fields_of(item: Any) -> dict[str, Any]:
    names = [*getattr(item, "__dict__", ()), *getattr(type(item), "__slots__", ())]
    return {name: getattr(item, name) for name in names if not name.startswith("_")}


async def store(folder: Path) -> dict[str, str]:
    """Add an object of each shape; what is refused is told of all that are added with it."""
    import program  # type: ignore[import-not-found]

    outcome = {}
    async with Symphony({"state_dir": str(folder / "state")}, persistence_enabled=True) as symphony:
        some = iter(shapes())
        while together := list(islice(some, TOGETHER)):
            try:
                for shape in together:
                    symphony.entities.add(program.MADE[shape.kind, shape.place, shape.change](), entity_type=shape.holder)
                await symphony.flush()
            except SymphonyError as error:
                outcome |= {shape.holder: f"{type(error).__name__}: {error}" for shape in together}
    return outcome


async def read(folder: Path, refused: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Resume, and compare what came back with what this release would make."""
    import program

    outcome: dict[str, tuple[str, str]] = {}
    async with Symphony({"state_dir": str(folder / "state")}, persistence_enabled=True) as symphony:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            report = await symphony.resume()
        for shape in shapes():
            key = f"{shape.holder}:1"
            if shape.holder in refused:
                outcome[shape.holder] = REFUSED, refused[shape.holder]
                continue
            obj = symphony.entities.get(key)
            expected = program.MADE[shape.kind, shape.place, shape.change]()
            if isinstance(obj, UnrestoredEntity):
                told = key in report.unrestored and (shape.name in report.unrestored[key] or shape.kind in report.unrestored[key])
                outcome[shape.holder] = (REPORTED if told else WRONG), obj.reason
            elif any(isinstance(item, Tagged) for item in parts_of(obj)):
                outcome[shape.holder] = WRONG, f"a placeholder: {obj!r}"
            elif same(obj.held, expected.held):
                outcome[shape.holder] = EQUAL, ""
            else:
                outcome[shape.holder] = WRONG, f"{obj.held!r} is not {expected.held!r}"
    return outcome


def run_both(folder: Path) -> dict[str, tuple[str, str]]:
    """Write both releases, run each in a process of its own, and return what the second one found, by shape."""
    for release, command in ((1, "store"), (2, "read")):
        write_release(folder / f"release{release}", release)
        path = os.pathsep.join([str(folder / f"release{release}"), *sys.path])
        run = subprocess.run(
            [sys.executable, "-m", "tests.shapes", command, str(folder)],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        if run.returncode != 0:
            raise RuntimeError(f"release {release} ends with {run.returncode}:\n{run.stderr[-3000:]}")
    found: dict[str, tuple[str, str]] = json.loads((folder / "found.json").read_text())
    return found


def main(arguments: list[str]) -> int:
    """Run one of the two processes, or both."""
    if arguments:
        command, folder = arguments[0], Path(arguments[1])
        if command == "store":
            (folder / "refused.json").write_text(json.dumps(asyncio.run(store(folder))))
        else:
            refused = json.loads((folder / "refused.json").read_text())
            (folder / "found.json").write_text(json.dumps(asyncio.run(read(folder, refused))))
        return 0
    with tempfile.TemporaryDirectory() as made:
        found = run_both(Path(made))
    counts = Counter(kind for kind, _ in found.values())
    for shape in shapes():
        kind, why = found[shape.holder]
        if kind != EQUAL:
            print(f"{kind:9} {shape.kind:14} {shape.place:7} {shape.change:10} {why[:150]}")
    print(f"{len(found)} shapes: {dict(counts)}")
    return 1 if counts[WRONG] or counts[REFUSED] + counts[REPORTED] > len(found) // 10 else 0


__all__ = ["Shape", "run_both"]

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
