"""A Symphony on disk, and new ones over the same directory, as a new process would open it."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from hypothesis import HealthCheck, settings

import symphony_es.facades.workflows  # noqa: F401  the library's own types are declared before a test has its own: see own_types
from symphony_es import Symphony
from symphony_es.core.objects.restorers import restore_manager

# The same examples each time, so that what is submitted is what was tried, and no slow machine fails a test. `SYMPHONY_RANDOM=1` makes
# new ones.
settings.register_profile(
    "project", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize="SYMPHONY_RANDOM" not in os.environ
)
settings.load_profile("project")

Opener = Callable[..., Awaitable[Symphony]]
COUNTED, UNCOUNTED = (tuple(os.environ.get(name, "").split()) for name in ("COUNTED", "UNCOUNTED"))
"""Paths of the tests that coverage is counted by, and of those among them that it is not: see the Makefile."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Where all tests run, those that coverage is not counted by are not traced: they would take longer, and some count calls."""
    tracer, of_threads = sys.gettrace(), threading.gettrace()
    counted = item.nodeid.startswith(COUNTED) and not item.nodeid.startswith(UNCOUNTED) and item.get_closest_marker("exhaustive") is None
    if not COUNTED or counted or tracer is None:
        return (yield)
    sys.settrace(None)
    threading.settrace(None)  # type: ignore[arg-type]
    try:
        return (yield)
    finally:
        threading.settrace(of_threads)  # type: ignore[arg-type]
        sys.settrace(tracer)


@pytest.fixture(autouse=True)
def own_types(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test has the types of its own module and of modules that are not tests; what it declares itself is gone after it."""
    here = request.module.__name__
    for table in ("_default", "_explicit"):
        known = {name: one for name, one in getattr(restore_manager, table).items() if not _of_another_test(one, here)}
        monkeypatch.setattr(restore_manager, table, known)


def _of_another_test(restorer: Any, here: str) -> bool:
    module: str = getattr(restorer.restored_class, "__module__", here)
    return module.rpartition(".")[2].startswith("test_") and module != here


@pytest.fixture(autouse=True)
def check_of_every_second(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the tests, always the same ones, compare objects with their fold at each flush; the environment may decide it for all."""
    if "SYMPHONY_CHECK" not in os.environ and _is_checked(request.node):
        monkeypatch.setenv("SYMPHONY_CHECK", "1")


def _is_checked(item: pytest.Item) -> bool:
    return bool(crc32(item.nodeid.encode()) & 1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """`make coverage` has the other half of the tests compare objects as well: `REST` leaves out those that have done so."""
    if "REST" in os.environ:
        config.hook.pytest_deselected(items=[item for item in items if _is_checked(item)])
        items[:] = [item for item in items if not _is_checked(item)]


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """What a test makes of the process's logging is gone after it: one that catches structlog's lines leaves structlog configured."""
    disabled = logging.root.manager.disable
    yield
    logging.disable(disabled)
    structlog = sys.modules.get("structlog")
    if structlog is not None and structlog.is_configured():
        structlog.reset_defaults()


@pytest.fixture
def no_check_at_each_flush(check_of_every_second: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What such a test writes past the methods is found by other means; with `SYMPHONY_CHECK=1` the flush before would find it first."""
    monkeypatch.delenv("SYMPHONY_CHECK", raising=False)


@pytest.fixture
async def reopen(tmp_path: Path) -> AsyncIterator[Opener]:
    """Opens the directory anew; the Symphony opened before is closed first, since one process writes a log."""
    opened: list[Symphony] = []

    async def open_anew(**options: Any) -> Symphony:
        while opened:
            await opened.pop().close()
        made = Symphony(persistence_enabled=True)
        await made.setup(state_dir=tmp_path / "state", **options)
        opened.append(made)
        return made

    yield open_anew
    for symphony in opened:
        await symphony.close()
    left = [task for task in asyncio.all_tasks() if task.get_name().startswith(("run ", "steps of run "))]
    assert not left, f"all are closed, and these run on: {left}"


@pytest.fixture
async def symphony(reopen: Opener) -> Symphony:
    """A new Symphony with an empty log on disk."""
    return await reopen()
