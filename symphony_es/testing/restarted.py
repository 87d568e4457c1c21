"""The process that `check_restores` starts: it knows of the application what importing its modules does, as a restart would.

It reads a JSON object from its standard input and writes what came back into a file beside the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import json
import sys
from pathlib import Path
from typing import Any

from symphony_es.app import Symphony
from symphony_es.errors import EntityNotFoundError
from symphony_es.events.codec import encode_canonical
from symphony_es.testing import states_of

__all__ = ["restore"]


async def restore(directory: str, modules: list[str], prepare: str | None, keys: list[str]) -> dict[str, Any]:
    """Import an application's modules and restore a log, with entities at rest that have these keys.

    Returns:
        The report of the resume, and all states as the bytes they are compared by, and as text.
    """
    for module in modules:
        importlib.import_module(module)
    symphony = Symphony(directory, read_only=True)
    if prepare is not None:
        module, _, name = prepare.partition(":")
        prepared = getattr(importlib.import_module(module), name)(symphony)
        if inspect.isawaitable(prepared):
            await prepared
    async with symphony:
        report = await symphony.resume()
        for key in keys:
            if symphony.entities.find(key) is None:
                with contextlib.suppress(EntityNotFoundError):  # the comparison says that it is missing
                    await symphony.entities.load(key)
        states = states_of(symphony)
        return {
            "complete": report.complete,
            "report": report.to_dict(),
            "states": {key: [encode_canonical(state).hex(), repr(state)] for key, state in states.items()},
        }


def _main() -> None:
    order = json.load(sys.stdin)
    found = asyncio.run(restore(order["directory"], order["modules"], order["prepare"], order["keys"]))
    Path(order["into"]).write_text(json.dumps(found))


if __name__ == "__main__":
    _main()
