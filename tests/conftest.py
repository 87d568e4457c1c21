"""A Symphony on disk, and new ones over the same directory, as a new process would open it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.core.state.restore import restore_manager

Opener = Callable[..., Awaitable[Symphony]]


@pytest.fixture(autouse=True)
def own_types(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test declares or registers in the process is gone after it: another test may have a type of that name."""
    for table in ("_default", "_explicit"):
        monkeypatch.setattr(restore_manager, table, dict(getattr(restore_manager, table)))


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


@pytest.fixture
async def symphony(reopen: Opener) -> Symphony:
    """A new Symphony with an empty log on disk."""
    return await reopen()
