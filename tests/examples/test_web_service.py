"""The web service of the examples, as a process of its own, killed in the middle of its orders: a soak of a minute."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.soak import Soak


def test_no_order_is_lost_or_done_twice(tmp_path: Path) -> None:
    """One kill under orders: each is charged and written to once, failed ones say why, the stock is right."""
    soak = Soak(tmp_path, stock=10_000)
    try:
        asyncio.run(soak.run(duration_s=60, orders_per_s=10, kill_every_s=35))
    finally:
        if soak.server.process is not None and soak.server.process.poll() is None:
            soak.server.kill()
    assert not soak.wrong, soak.report()
    assert soak.kills >= 1
    assert soak.states.keys() == {"completed", "failed"}
    assert sum(soak.states.values()) == len(soak.placed) == 600
