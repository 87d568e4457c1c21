"""The README's program is the first thing a user runs: it runs."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


async def test_the_first_program_runs_twice(tmp_path: Path) -> None:
    """Once on an empty directory and once on its own log."""
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    for _ in range(2):
        child = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert child.stderr == ""
        assert child.stdout.splitlines() == ["paid: True | before: False", "after going back: False"]


def test_the_readme_has_the_two_commands_that_there_are() -> None:
    """`make demo` and `make test` stand in it and in the Makefile."""
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    for command in ("demo", "test"):
        assert f"make {command}" in readme
        assert f"\n{command}:" in makefile


def test_the_readme_opens_with_what_a_newcomer_asks() -> None:
    """What it is and for whom; when to use it, and when not; a program; what else there is comes after."""
    readme = (ROOT / "README.md").read_text()
    assert readme.startswith("# symphony_es\n\nsymphony_es is a Python library: ")
    assert re.findall(r"^## (.*)$", readme, re.M)[:3] == ["When to use this, and when not", "A first program", "Try it"]


def test_diagrams_use_words_that_have_been_explained() -> None:
    """Each word of the drawing stands in the text of its section, before it."""
    sections = re.split(r"^## ", (ROOT / "README.md").read_text(), flags=re.M)
    (section,) = [each for each in sections if "──▶" in each]
    text, drawing, _ = re.split(r"^```$", section, flags=re.M)
    before = {word.lower().removesuffix("s") for word in re.findall(r"[A-Za-z]+", text)}
    assert {word.lower().removesuffix("s") for word in re.findall(r"[A-Za-z]+", drawing)} <= before
