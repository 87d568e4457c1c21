"""A part of `python -m tests.faults.kills`: each operation is killed before some of its calls of the system, always the same ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


OPERATIONS = ("fork", "export over a file")


def test_some_kills() -> None:
    """The target is whole or absent, what it is made of is untouched, and a second call ends well, with nothing left beside it."""
    only = [text for name in OPERATIONS for text in ("--only", name)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "projections")))}
    command = [sys.executable, "-m", "tests.faults.kills", "--every", "6", "--first", "3", *only]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    lines = ended.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == list(OPERATIONS)
    assert not any("; 0 killed" in line for line in lines), lines
