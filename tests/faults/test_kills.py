"""A part of `python -m tests.faults.kills`: each operation is killed before some of its calls of the system, always the same ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("operations", [("backup", "export over a file", "fork"), ("import", "prune", "rebuild")], ids="-".join)
def test_some_kills(operations: tuple[str, ...]) -> None:
    """The target is whole or absent, what it is made of is untouched, and a second call ends well, with nothing left beside it."""
    only = [text for name in operations for text in ("--only", name)]
    command = [sys.executable, "-m", "tests.faults.kills", "--every", "15", *only]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "projections")))}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    lines = ended.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == list(operations)
    assert not any("; 0 killed" in line for line in lines), lines
