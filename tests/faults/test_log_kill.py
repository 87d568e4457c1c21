"""kill -9 at random moments: every position that was acknowledged is there afterwards, with its event."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

from symphony_es.events.rows import decode_row, event_id_of
from symphony_es.log.log import EventLog

ROOT = Path(__file__).parents[2]
KILLS = 30


def killed_writer(directory: Path, seconds: float) -> int:
    """The last position that a writer acknowledged before it was killed, `seconds` after its first acknowledgement."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.faults.log_workload", str(directory), "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        time.sleep(seconds)
        process.kill()
        lines += process.stdout.read().splitlines(keepends=True)
    complete = [line for line in lines if line.endswith(b"\n")]
    assert complete, "the writer could not open the log"
    return int(complete[-1].split()[1])


async def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    """The same log, killed again and again; nothing is missing, nothing is altered, and at most what was under way is more."""
    seed = random.randrange(2**32)
    rng, directory = random.Random(seed), tmp_path / "log"
    head = 0
    for _ in range(KILLS):
        acknowledged = killed_writer(directory, rng.uniform(0, 0.05))
        log = await EventLog.open_read_only(directory)
        assert acknowledged <= log.head <= acknowledged + 1, f"seed {seed}"
        assert log.head >= head
        head = log.head
        await log.close()
    log = await EventLog.open(directory)
    assert log.head == head
    position = 0
    while rows := await log.read_rows(position):
        for row in rows:
            position += 1
            event = decode_row(row)
            assert (event.position, event_id_of(row[4])) == (position, position.to_bytes(16, "big")), f"seed {seed}"
            assert event.changes[0][2] in (position, {"n": position})
    assert position == head
    assert head > KILLS, "the writers hardly wrote: the kills hit nothing"
    await log.close()
