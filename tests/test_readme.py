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
