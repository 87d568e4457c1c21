"""Walks of real data through the rooms: which files the calls of one operation enter, and how often they come back to one.

`python -m tests.walks [--against CHECKOUT] [--json]` prints a table: *calls* of functions of the library, *rooms* (files) entered, *stays*
(a call into another file than the call before it begins one), and *returns*, the stays in a room that had been left. Every wake-up of an
awaiting call enters its files again, so in the asynchronous walks about half of the returns are that, and no fault. A second run of each
walk is counted: what a first one imports or makes once is no part of it. Only the thread of the event loop is looked at.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import symphony_es
from symphony_es import Symphony, entity

LIBRARY = str(Path(symphony_es.__file__).parent) + os.sep
READ_MODELS = f"{os.sep}symphony_es_projections{os.sep}"
Walk = list[str]
"""The file of each call, in the order of the calls."""


@entity
class WalkedNote:
    """An entity with what most have."""

    id: str = ""
    text: str = ""
    config: dict[str, Any] | None = None
    other: Any = None


@contextmanager
def walked(walk: Walk) -> Iterator[None]:
    """Note the calls of the block."""

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            file = frame.f_code.co_filename
            if file.startswith(LIBRARY) or READ_MODELS in file:
                walk.append(file)

    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(None)


def figures(walk: Walk) -> dict[str, int]:
    """What is counted of a walk."""
    stays = [file for at, file in enumerate(walk) if at == 0 or walk[at - 1] != file]
    rooms = len(set(stays))
    return {"calls": len(walk), "rooms": rooms, "stays": len(stays), "returns": len(stays) - rooms}


async def walks(directory: Path) -> dict[str, dict[str, int]]:
    """The figures of every walk."""
    told: dict[str, dict[str, int]] = {}
    walk: Walk = []

    def take(name: str) -> None:
        told[name] = figures(walk)
        walk.clear()

    async with Symphony({"state_dir": str(directory)}, persistence_enabled=True) as symphony:
        if symphony._inbox is not None:
            await symphony._inbox.begun()  # by itself it begins 0.2 s after the opening: on a busy machine, in the middle of a walk
        for turn in (1, 2):
            note = symphony.entities.add(WalkedNote(id=f"n{turn}", config={"name": "a"}))
            other = symphony.entities.add(WalkedNote(id=f"o{turn}"))
            await symphony.flush()
            with walked(walk):
                note.text = "y"
            take("an assignment of a text")
            assert note.config is not None
            with walked(walk):
                note.config["name"] = "b"
            take("a key of a dict")
            with walked(walk):
                note.other = other
            take("an assignment of an entity")
            with walked(walk):
                await symphony.flush()
            take("... and its flush to disk")
            with walked(walk):
                async with symphony.transaction("t"):
                    note.text = "z"
            take("a transaction with one assignment")
            with walked(walk):
                checkpoint = await symphony.create_checkpoint(f"c{turn}")
            take("create_checkpoint")
            with walked(walk):
                await symphony.resume_from_checkpoint(checkpoint)
            take("resume_from_checkpoint")
        definition = _two_steps(symphony)
        for _ in (1, 2):
            with walked(walk):
                await symphony.workflows.execute_workflow(definition, auto_checkpoint=False)
            take("a run of two function steps")
        for _ in (1, 2):
            with walked(walk):
                await symphony.blame("WalkedNote:n1", "text")
            take("blame")
    return told


def _two_steps(symphony: Symphony) -> Any:
    async def first(context: Any) -> int:
        return 1

    for name in ("first_step", "second_step"):
        symphony.functions.register(name, first)
    return {
        "name": "two",
        "steps": [{"kind": "function", "name": name, "function": f"{name}_step"} for name in ("first", "second")],
    }


def of_checkout(checkout: Path) -> dict[str, dict[str, int]]:
    """The walks of another checkout, by this file's text."""
    with tempfile.TemporaryDirectory() as directory:
        script = Path(directory) / "walks_there.py"
        script.write_text(Path(__file__).read_text(encoding="utf-8"), encoding="utf-8")
        path = os.pathsep.join([str(checkout), str(checkout / "projections")])
        done = subprocess.run(
            [sys.executable, str(script), "--json"], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True
        )
    found: dict[str, dict[str, int]] = json.loads(done.stdout.splitlines()[-1])
    return found


def as_table(here: dict[str, dict[str, int]], there: dict[str, dict[str, int]] | None) -> str:
    """The figures as a table of Markdown; with those of another checkout, each stands before an arrow."""
    names = ("calls", "rooms", "stays", "returns")
    lines = [f"| datum | {' | '.join(names)} |", f"| --- |{' --- |' * len(names)}"]
    for walk, counted in here.items():
        before = (there or {}).get(walk)
        cells = [f"{before[name]} → {counted[name]}" if before is not None else str(counted[name]) for name in names]
        lines.append(f"| {walk} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(say: Callable[[str], object] = lambda text: sys.stdout.write(f"{text}\n")) -> None:
    """Print the walks."""
    parser = argparse.ArgumentParser(prog="python -m tests.walks", description=__doc__)
    parser.add_argument("--against", metavar="CHECKOUT", type=Path, help="print those of another checkout beside these")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        here = asyncio.run(walks(Path(directory) / "state"))
    if given.json:
        say(json.dumps(here))
    else:
        say(as_table(here, of_checkout(given.against) if given.against is not None else None))


if __name__ == "__main__":
    main()
