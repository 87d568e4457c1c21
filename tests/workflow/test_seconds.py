"""Seconds that calls are given: what is no number of seconds is refused before anything has happened."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.errors import ConfigurationError, ResultTimeoutError

NO_SECONDS: dict[str, Any] = {"text": "5", "nan": float("nan"), "true": True, "huge": 10**5000, "list": [1]}


async def waiting(symphony: Symphony) -> Any:
    """A run that waits for a signal."""
    return await symphony.workflows.start(symphony.build_workflow("waits").add_wait("answer").build(), run_id="r")


@pytest.mark.parametrize("given", [*NO_SECONDS.values(), -1], ids=[*NO_SECONDS, "negative"])
async def test_no_seconds_change_nothing(symphony: Symphony, given: Any) -> None:
    """`cancel` and `drain` raise a typed error that names the argument; the run waits on as before, and can be cancelled."""
    handle = await waiting(symphony)
    head = symphony.log.head
    for call in (handle.cancel, symphony.workflows.cancel):
        with pytest.raises(ConfigurationError, match="grace_s"):
            await call(*() if call == handle.cancel else (handle.run,), grace_s=given)
    with pytest.raises(ConfigurationError, match="timeout_s"):
        await symphony.workflows.drain(given)
    assert (handle.status.value, symphony.log.head) == ("running", head)
    assert (await handle.cancel(grace_s=0)).status.value == "cancelled"


@pytest.mark.parametrize("given", NO_SECONDS.values(), ids=NO_SECONDS)
@pytest.mark.parametrize("name", ["timeout_s", "timeout"])
async def test_a_result_is_not_awaited_for_no_seconds(symphony: Symphony, name: str, given: Any) -> None:
    """`result` raises a typed error at once; time that is over already is a time."""
    handle = await waiting(symphony)
    async with asyncio.timeout(10):
        with pytest.raises(ConfigurationError, match="timeout_s"):
            await handle.result(**{name: given})
    with pytest.raises(ResultTimeoutError):
        await handle.result(**{name: -0.5})
