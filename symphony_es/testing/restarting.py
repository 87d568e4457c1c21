"""Restoring in a process of its own: what has to be imported there, and what is asked of it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from symphony_es.core.objects.restorers import UnrestoredEntity
from symphony_es.naming import stored_module
from symphony_es.system import absolute

if TYPE_CHECKING:
    from symphony_es.app import Symphony

__all__ = ["restart"]


async def restart(
    symphony: Symphony,
    modules: Iterable[str | ModuleType],
    prepare: Callable[[Symphony], object] | None,
    timeout_s: float,
    keys: Sequence[str],
) -> dict[str, Any]:
    """Restore a flushed log in another process, those that are live here (`keys`) as well; returns what `restarted.restore` does.

    Raises:
        AssertionError: a class cannot be found there by importing its module, or that process failed; the message says how.
    """
    chosen = sorted({*_modules_of(symphony), *(item if isinstance(item, str) else item.__name__ for item in modules)})
    with tempfile.TemporaryDirectory(prefix="symphony-restart-") as scratch:
        directory = symphony.state_dir
        if directory is None:
            directory = Path(scratch) / "log"
            await symphony.past.fork(directory)
        order = {
            "directory": str(directory),
            "modules": chosen,
            "keys": list(keys),
            "prepare": None if prepare is None else _importable(prepare, "the function given as prepare="),
            "into": str(Path(scratch) / "found.json"),
        }
        return await asyncio.to_thread(_run, order, timeout_s)


def _run(order: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "symphony_es.testing.restarted"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry or str(absolute(Path())) for entry in sys.path)}
    try:
        done = subprocess.run(  # noqa: S603  this interpreter, and a module of this package
            command, input=json.dumps(order), capture_output=True, text=True, env=environment, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise AssertionError(f"restoring in another process took longer than {timeout_s:g} s") from None
    if done.returncode != 0:
        said = "\n".join(done.stderr.strip().splitlines()[-12:])
        raise AssertionError(f"a process that imports {', '.join(order['modules']) or 'nothing'} cannot restore this log:\n{said}")
    found: dict[str, Any] = json.loads(Path(order["into"]).read_text())
    return found


def _modules_of(symphony: Symphony) -> set[str]:
    """Return the modules of the classes that are live now, and of the restorers for them: what the application would import."""
    found: set[str] = set()
    for record in symphony.world.records.values():
        if isinstance(record.obj, UnrestoredEntity):
            continue
        found.add(_importable(type(record.obj), f"the class of {record.key}").partition(":")[0])
        restorer = symphony.restore_manager.restorer_for(record.reference.entity_type)
        if restorer is not None:
            found.add(_importable(type(restorer), f"the restorer of {record.key}").partition(":")[0])
    return {module for module in found if module.partition(".")[0] != __name__.partition(".")[0]}


def _importable(item: Any, what: str) -> str:
    """Return the `module:qualname` by which another process finds a class or function.

    Raises:
        AssertionError: no other process would find it.
    """
    module, name = stored_module(item.__module__), item.__qualname__
    loaded = sys.modules.get(item.__module__)
    found: Any = loaded
    for part in name.split("."):
        found = getattr(found, part, None)
    if getattr(loaded, "__file__", None) is None or found is not item:
        raise AssertionError(
            f"{what}, {module}:{name}, cannot be imported by another process: define it at the top level of a module that has a file, "
            "or say check_restores(symphony, in_process=True), which does not notice what a new process would not know"
        )
    return f"{module}:{name}"
