"""What docs/time-travel.md shows works as it stands, and prints what it says."""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import re
from pathlib import Path
from typing import Any

from symphony_es import Symphony
from tests.application import Invoice
from tests.conftest import Opener

PAGE = Path(__file__).parents[2] / "docs" / "time-travel.md"


async def test_time_travel(reopen: Opener, tmp_path: Path) -> None:
    """All programs of the page, one after the other, on one log."""
    symphony: Symphony = await reopen()
    names: dict[str, Any] = {"symphony": symphony, "Invoice": Invoice, "directory": tmp_path}
    programs = re.findall(r"```python\n(.*?)```(?:\n```text\n(.*?)```)?", PAGE.read_text(), re.DOTALL)
    assert len(programs) > 6
    for program, shown in programs:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            made = eval(compile(program, str(PAGE), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
            if inspect.isawaitable(made):
                await made
        assert printed.getvalue() == shown
