"""A log that was written while the clock was wrong says so: its times go on from there."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from symphony_es.cli.main import FOUND_WRONG, main
from symphony_es.log.log import EventLog
from symphony_es.log.writer import AHEAD_NS
from tests.faults.log_workload import event


@pytest.mark.parametrize("ahead", [1000, 0])
def test_a_log_that_is_ahead_of_the_clock(
    tmp_path: Path, ahead: int, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """The next opening warns, and `doctor` finds it; beside a clock that was right neither does."""

    async def written(ahead_ns: int) -> None:
        log = await EventLog.open(tmp_path / "log")
        assert log._writer is not None
        log._writer._ahead_ns = ahead_ns
        await log.append([event(1)])
        await log.close()

    asyncio.run(written(ahead * AHEAD_NS or 1))
    assert "log_ahead_of_clock" not in caplog.text
    log = asyncio.run(EventLog.open(tmp_path / "log"))
    asyncio.run(log.close())
    assert ("log_ahead_of_clock" in caplog.text) == bool(ahead)
    answer = main(["doctor", "--state-dir", str(tmp_path / "log")])
    said = capsys.readouterr().out
    assert ("and the clock says" in said) == bool(ahead), said
    assert not ahead or answer == FOUND_WRONG
