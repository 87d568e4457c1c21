"""Where exports, backups, imports and forks build: beside the target, and never in what somebody else is about to remove."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from symphony_es.files import workplace
from symphony_es.files.workplace import building


@pytest.mark.parametrize("before", ["opened", "locked"])
async def test_a_workplace_that_another_build_has_removed_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    """A build for the same target that takes a new workplace for one that a kill has left makes this one begin another."""
    opened, locked = os.open, workplace.lock
    removed: list[Path] = []

    def remove() -> None:
        if not removed:
            removed.extend(tmp_path.glob(".target.*.part"))
            removed[0].rmdir()

    def open_(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if before == "opened" and str(path).endswith(".part"):
            remove()
        return opened(path, flags, *more, **named)

    def lock_(descriptor: int) -> None:
        if before == "locked":
            remove()
        locked(descriptor)

    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(workplace, "lock", lock_)
    async with building(tmp_path / "target") as place:
        assert place.is_dir()
        assert removed
        assert place not in removed
    assert list(tmp_path.iterdir()) == []
