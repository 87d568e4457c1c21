"""One program's classes have one name, however the program is run: as a file, as a module, under a profiler, from standard input."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import asyncio, enum, sys
from symphony_es import Symphony, entity, value

class Mood(enum.Enum):
    GOOD = "g"

@value
class Note:
    mood: Mood = Mood.GOOD

@entity
class Shelf:
    id: str = ""
    notes: list[Note] | None = None

async def main(directory, name):
    async with Symphony(directory) as symphony:
        report = await symphony.resume()
        print(sorted(shelf.id for shelf in symphony.entities if shelf.notes == [Note()]), report.unrestored)
        symphony.entities.add(Shelf(id=name, notes=[Note()]))

if __name__ == "__main__":
    asyncio.run(main(sys.argv[-2], sys.argv[-1]))
"""
WAYS = {
    "as a file": ["shelves.py"],
    "as a module": ["-m", "shelves"],
    "cProfile": ["-m", "cProfile", "-o", os.devnull, "shelves.py"],
    "trace": ["-m", "trace", "--count", "--coverdir", "counts", "shelves.py"],
    "as a file, by its whole path": ["./shelves.py"],
}


async def _run(arguments: list[str], directory: Path, name: str, typed: str | None = None) -> str:
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(entry for entry in sys.path if entry))
    command = [sys.executable, *arguments, str(directory / "log"), name]
    result = await asyncio.to_thread(
        subprocess.run, command, cwd=directory, env=environment, input=typed, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    return next(line for line in result.stdout.splitlines() if line.startswith("["))


@pytest.mark.parametrize("way", [way for way in WAYS if way != "as a file"])
async def test_a_log_is_read_however_the_program_is_run(tmp_path: Path, way: str) -> None:
    """What one way has written, the other makes objects of, in both directions."""
    (tmp_path / "shelves.py").write_text(PROGRAM)
    assert await _run(WAYS["as a file"], tmp_path, "a") == "[] {}"
    assert await _run(WAYS[way], tmp_path, "b") == "['a'] {}"
    assert await _run(WAYS["as a file"], tmp_path, "c") == "['a', 'b'] {}"


async def test_what_is_read_from_standard_input_is_no_file(tmp_path: Path) -> None:
    """It has the name of what is typed, as `python -c` has, in whichever directory it runs."""
    assert await _run(["-"], tmp_path, "a", PROGRAM) == "[] {}"
    elsewhere = PROGRAM.replace("import asyncio, enum, sys", "import asyncio, enum, os, sys\nos.chdir('/')")
    assert await _run(["-"], tmp_path, "b", elsewhere) == "['a'] {}"
    assert await _run(["-c", PROGRAM], tmp_path, "c") == "['a', 'b'] {}"
