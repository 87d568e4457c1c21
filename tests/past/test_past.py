"""Questions about the past are answered as brute force answers them: a part of `python -m tests.past`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.past.__main__ import ask_log


@pytest.mark.parametrize("seed", range(10))
async def test_a_random_log(tmp_path: Path, seed: int) -> None:
    """at, diff, history, blame and audit; of some logs by the command line, too."""
    done, wrong = await ask_log(seed, tmp_path / "log", commands=int(seed in (5, 8)))
    assert wrong == []
    assert min(done[kind] for kind in ("at", "diff", "history", "blame", "audit")) > 0
