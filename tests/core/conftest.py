"""Tests of the core run on a log in memory unless they ask for one on disk (`reopen`)."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from symphony_es import Symphony


@pytest.fixture
async def symphony() -> AsyncIterator[Symphony]:
    async with Symphony() as opened:
        yield opened
