"""Type checkers know the fields of declared classes, and the names of packages that import them late."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
from symphony_es import Symphony, entity, part, value

@value
class Money:
    amount: int

@part
class Line:
    text: str
    price: Money = Money(0)

@entity
class Order:
    id: str = ""
    lines: list[Line] | None = None

@entity(type="Renamed", state_version=2)
class Other:
    id: str
    size: int

order = Order(id="1", lines=[Line("a", Money(3))])
reveal_type(order.lines)
Order(id=1)
Line()
Money(amount="x")
Other(id="1", size="x")
Money(3).amount = 4

from symphony_es.workflow import StepLsit
"""


def test_fields_are_known(tmp_path: Path) -> None:
    """Right uses pass, wrong ones are errors, one each."""
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--no-error-summary",
        "--cache-dir",
        str(tmp_path / "cache"),
        str(tmp_path / "program.py"),
    ]
    lines = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False).stdout.splitlines()
    assert sum("error" in line for line in lines) == 6, lines
    assert any("Line" in line and "Revealed" in line for line in lines)
