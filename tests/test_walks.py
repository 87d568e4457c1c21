"""What an operation walks through does not grow unseen: bounds on rooms and returns, a little above what they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.walks import as_table, figures, walks

MOST = {  # rooms and returns
    "an assignment of a text": (4, 2),
    "a key of a dict": (5, 4),
    "an assignment of an entity": (14, 30),
    "... and its flush to disk": (20, 31),
    "a transaction with one assignment": (28, 60),
    "create_checkpoint": (34, 66),
    "resume_from_checkpoint": (58, 185),
    "a run of two function steps": (90, 1300),
    "blame": (32, 150),
}


@pytest.mark.usefixtures("no_check_at_each_flush")  # what is compared then is no part of a walk
async def test_no_walk_grows_unseen(tmp_path: Path) -> None:
    """Fewer is better: lower the bound then."""
    found = await walks(tmp_path / "state")
    assert found.keys() == MOST.keys()
    over = [name for name, (rooms, returns) in MOST.items() if found[name]["rooms"] > rooms or found[name]["returns"] > returns]
    assert not over, as_table(found, None)


def test_what_is_counted() -> None:
    """A stay begins with a call into another file than the one before it."""
    assert figures(["a", "a", "b", "a", "c", "c", "b"]) == {"calls": 7, "rooms": 3, "stays": 5, "returns": 2}
    assert figures([]) == {"calls": 0, "rooms": 0, "stays": 0, "returns": 0}
