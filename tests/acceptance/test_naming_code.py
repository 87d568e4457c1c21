"""Data never chooses code: whatever names a stranger writes, wherever there is room for one, nothing of it runs and nothing is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NAMES_EACH = 3
"""Of the names, one in so many goes through every place where a definition has room for one; as a command, all of them can."""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the program in `naming_code.py` says of one round."""
    scratch = tmp_path_factory.mktemp("naming")
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(entry or os.getcwd() for entry in sys.path), PYTHONDONTWRITEBYTECODE="1")
    command = [sys.executable, "-m", "tests.acceptance.naming_code", str(scratch), str(NAMES_EACH)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_no_name_in_data_runs_or_imports_anything(told: dict[str, Any]) -> None:
    """No command, no process, no module, no object of a named class, no run that goes on: more than 200 attempts at 17 kinds of places."""
    assert told["ran"] == []
    assert told["imported"] == []
    assert not told["proof"]
    assert len(told["tried"]) >= 17
    assert sum(told["tried"].values()) >= 200


@pytest.mark.parametrize(
    "channel", ["function", "nested", "retry predicate", "log, run", "log, class", "import, run", "golden file", "command"]
)
def test_each_kind_of_place_was_tried_with_many_names(channel: str, told: dict[str, Any]) -> None:
    """An attempt that is not made shows nothing."""
    assert told["tried"][channel] >= 19
