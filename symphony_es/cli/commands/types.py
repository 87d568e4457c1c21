"""Which classes the values of a log name, and which of them an application's modules define: `types`. Writes nothing."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import field
from pathlib import Path
from typing import Any

from symphony_es.cli import output
from symphony_es.cli.commands.registry import MOMENT, Parsers, moment, reading
from symphony_es.errors import ConfigurationError
from symphony_es.late_dataclasses import dataclass
from symphony_es.shown import quoted
from symphony_es.system import absolute

__all__ = ["register"]

FOUND_UNKNOWN = 1


def register(parsers: Parsers) -> None:
    """Add the command of this module."""
    command = parsers.add("types", types, "which classes the stored values name, and which of them are known", skips=True)
    command.add_argument("--at", type=moment, metavar="MOMENT", help=f"as it was then: {MOMENT}")
    command.add_argument(
        "--app", dest="modules", action="append", default=[], metavar="MODULE",
        help="a module of the application to import first, also several times; with it, the exit code is 1 where a class is unknown",
    )  # fmt: skip


@dataclass(slots=True)
class Uses:
    """Where one class is named."""

    kind: str
    values: int = 0
    entities: set[str] = field(default_factory=set)


async def types(given: argparse.Namespace) -> int:
    """Carry out `symphony-es types`."""
    import symphony_es.entities.task
    import symphony_es.workflow.runs.transitions  # noqa: F401  the library's own classes are known wherever it is installed
    from symphony_es.core.objects.restorers import restore_manager

    async with reading(given) as opened:
        view = await opened.past.at(given.at)
    uses: dict[str, Uses] = {}
    for reference in view:
        for tagged in _tagged_in(view.state(reference).data):
            found = uses.setdefault(tagged.name, Uses(tagged.kind))
            found.values += 1
            found.entities.add(reference.key)
    _import(given.modules)
    classes = {name: restore_manager.types.class_of(name) for name in uses}
    rows = [
        (name, found.kind, found.values, len(found.entities), "known" if classes[name] is not None else "unknown")
        for name, found in sorted(uses.items())
    ]
    columns = ("class", "kind", "values", "entities", "here")
    if given.json:
        for row in rows:
            output.json_line(dict(zip(columns, row, strict=True)))
    else:
        output.table(columns, rows, f"no value at position {view.position} names a class")
    return FOUND_UNKNOWN if given.modules and None in classes.values() else 0


def _import(modules: list[str]) -> None:
    if modules:
        sys.path.insert(0, str(absolute(Path())))
    for name in modules:
        try:
            with _interruptible():
                importlib.import_module(name)
        except (ImportError, ValueError) as error:
            raise ConfigurationError(f"the module {quoted(name)} cannot be imported: {error}") from error


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let an interrupt end what runs in the block at once; the event loop would wait until it has given the loop back."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):  # nobody can interrupt it, or it is ignored
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _tagged_in(plain: Any) -> Iterator[Any]:
    from symphony_es.events.values import Tagged

    stack = [plain]
    while stack:
        item = stack.pop()
        if type(item) is Tagged:
            yield item
            stack.append(item.data)
        elif isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, (list, tuple, set)):
            stack.extend(item)
