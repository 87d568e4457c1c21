"""An interrupt ends the command line as a shell expects it, without a traceback, whatever is being imported at that moment."""

from __future__ import annotations

import asyncio
import importlib.abc
import importlib.machinery
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.cli import entry
from symphony_es.cli.main import main


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Also where the tests themselves run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Interrupted(importlib.abc.MetaPathFinder):
    """Interrupts the import of a module."""

    def __init__(self, name: str) -> None:
        self.name = name

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if fullname == self.name:
            raise KeyboardInterrupt
        return None


@pytest.mark.parametrize("name", ["symphony_es.cli.main", "symphony_es.cli.commands.types"])
def test_while_the_command_line_is_imported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """The entry imports nothing before it can be interrupted."""
    known = [module for module in sys.modules if module.startswith("symphony_es.cli.") and module != "symphony_es.cli.entry"]
    for module in known:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "meta_path", [Interrupted(name), *sys.meta_path])
    assert entry.main() == 130
    assert capsys.readouterr() == ("", "")


def test_while_a_module_of_the_application_is_imported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """At once: the rest of it does not run, and nothing is printed."""

    async def make() -> None:
        async with Symphony(tmp_path / "state") as symphony:
            await symphony.create_checkpoint("first")

    asyncio.run(make())
    (tmp_path / "interrupted_app.py").write_text(
        "import os, pathlib, signal\nos.kill(os.getpid(), signal.SIGINT)\nfor _ in range(100): pass\npathlib.Path('gone_on').touch()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert main(["types", "--state-dir", str(tmp_path / "state"), "--app", "interrupted_app"]) == 130
    assert capsys.readouterr() == ("", "")
    assert not (tmp_path / "gone_on").exists()
