"""Programs whose processes die in this one process: at a commit, as `tests.mortal` has it."""

from __future__ import annotations

import random
from typing import Any

from tests.fuzz.lives import Found, Fuzzer
from tests.mortal import EMPTY, Mortal

__all__ = ["check_dying"]


async def check_dying(fuzzer: Fuzzer, seed: int) -> int:
    """Run the program of a seed in processes that die one after the other, until one does not; how many have died.

    Raises:
        AssertionError: what has come of it should be something else.
    """
    live, disk = fuzzer.life(seed), EMPTY
    for death, commits in enumerate([*fuzzer.deaths(random.Random(seed)), None]):
        found: Found = {}

        async def work(symphony: Mortal, found: dict[str, Any] = found) -> None:
            found.update(await live(symphony, symphony.notes))

        process = Mortal(disk, commits=commits)
        if await process.live(work):
            fuzzer.compare(seed, found, list(process.left().notes))
            return death
        disk = process.left()
    raise AssertionError("the last process does not die")
