"""The examples run as they stand, each in a process of its own, and say that they are done."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
LAST_LINES = {"crash_and_resume.py": "Everything is as it should be."}


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_runs_and_checks_itself(example: Path, tmp_path: Path) -> None:
    """It ends with status 0, warns of nothing, and leaves nothing in the directory it was started in."""
    command = [sys.executable, "-W", "error", str(example)]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.splitlines()[-1] == LAST_LINES.get(example.name, "done")
    assert list(tmp_path.iterdir()) == []
