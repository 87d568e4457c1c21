"""Random programs do the same to tracked objects as to plain ones, and the log and a resume agree; `python -m tests.model` runs more."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from tests.model.__main__ import run_one

PROGRAMS, OPERATIONS, SHARES = 400, 50, 4


@pytest.mark.parametrize("share", range(SHARES))
def test_live_is_plain_is_fold_is_resumed(share: int) -> None:
    """After each operation, at each check and after a resume; at most 5 % of the operations are refused, and nothing changes then."""
    refused: Counter[str] = Counter()
    operations = 0
    for seed in range(share, PROGRAMS, SHARES):
        program = asyncio.run(run_one(seed, OPERATIONS))
        operations += program.outcome.operations
        refused += program.outcome.refused
    assert sum(refused.values()) <= operations * 0.05, refused.most_common(5)
