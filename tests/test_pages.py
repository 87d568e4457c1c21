"""The programs of the pages for users run as they stand, one after another, and print what the page says."""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from symphony_es.core.objects.restorers import restore_manager

DOCS = Path(__file__).parents[1] / "docs"
PAGES = [
    "state-management.md",
    "entities.md",
    "transactions.md",
    "testing.md",
    "adopting-classes.md",
    "processes.md",
    "web-services.md",
    "deploying.md",
    "eventsourcing.md",
]


@pytest.mark.parametrize("page", PAGES)
async def test_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block of Python, in order; the block of text behind it is what it prints."""
    module = types.ModuleType(f"page_{Path(page).stem.replace('-', '_')}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    own = {name: one for name, one in restore_manager._default.items() if one.restored_class.__module__.startswith("symphony_es")}
    monkeypatch.setattr(restore_manager, "_default", own)  # a reader's program has no classes but its own
    names: dict[str, Any] = module.__dict__
    names["directory"] = tmp_path
    monkeypatch.setenv("PYTHONWARNINGS", "ignore:This process:DeprecationWarning")  # Python 3.12 and later say it of a fork beside threads
    programs = re.findall(r"```python\n(.*?)```(?:\n```text\n(.*?)```)?", (DOCS / page).read_text(), re.DOTALL)
    assert programs
    for program, shown in programs:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            made = eval(compile(program, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True), names)
            if inspect.isawaitable(made):
                await made
        assert printed.getvalue() == shown, program
