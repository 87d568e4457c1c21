"""Programs that tests run in processes of their own: for what happens when a process forks or ends."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

__all__ = ["HEAD", "run", "stored"]

HEAD = """
import asyncio, gc, os, sys, threading, time
from symphony_es import Symphony, entity
from symphony_es.core.state import EntityRestorer
from symphony_es.core.objects.restorers import restore_manager
from symphony_es.errors import *

@entity
class Note:
    id: str = ""
    text: str = ""
    n: int = 0

class Plain:
    def __init__(self, id, n=0):
        self.id, self.n = id, n

class PlainRestorer(EntityRestorer):
    entity_type = "Plain"
    async def restore(self, entity_id, data, context):
        return Plain(**data)

restore_manager.register_restorer(PlainRestorer())

directory = sys.argv[1]

def symphony(**settings):
    return Symphony({"state_dir": directory, **settings}, persistence_enabled=True)

"""


async def run(
    program: str, directory: Path, *, options: tuple[str, ...] = (), typed: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program after `HEAD` to its end; `typed` is what stands on its standard input."""
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(entry for entry in sys.path if entry))
    fork_beside_threads = "ignore:This process:DeprecationWarning"  # newer Pythons warn of what is tried here on purpose
    command = [sys.executable, "-W", fork_beside_threads, *options, "-c", HEAD + program, str(directory)]
    return await asyncio.to_thread(
        subprocess.run, command, env=environment, input=typed, capture_output=True, text=True, timeout=120, check=False
    )


async def stored(directory: Path) -> dict[str, dict[str, object]]:
    """The states that a log holds, by key."""
    from symphony_es.core.past.opening import open_to_read

    opened = await open_to_read(directory)
    try:
        fold = await opened.history.states_at(opened.log.head)
        return {key: dict(state.data or {}) for key, state in fold.states.items()}
    finally:
        await opened.close()
