"""Histories of runs that are asked for often: read once, and from then on as far as they are new; bounded in memory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.workflow import RunContext
from symphony_es.workflow.engine.histories import MOST_BYTES, MOST_RUNS, Kept, Timelines, read_timeline, state_at
from symphony_es.workflow.engine.timeline import Timeline

STEPS = [{"kind": "function", "name": name, "function": "act", "undo": "act"} for name in "abc"]


@pytest.fixture
def reads(symphony: Symphony, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows of single entities each reading has given."""

    async def act(context: RunContext) -> str:
        return context.idempotency_key

    symphony.functions.register("act", act)
    found: list[int] = []
    recorder: Any = symphony.log._recorder
    read = recorder.read_entity

    def counted(*arguments: Any, **named: Any) -> Any:
        rows = read(*arguments, **named)
        found.append(len(rows))
        return rows

    monkeypatch.setattr(recorder, "read_entity", counted)
    return found


async def retried(symphony: Symphony) -> None:
    await symphony.workflows.retry_from("r", "b", auto_checkpoint=False)


async def rewound(symphony: Symphony) -> None:
    starts = [event for event in await symphony.log.read_entity("Workflow:r") if event.metadata.step == "b"]
    await symphony.rewind(starts[0].position - 1)
    await symphony.workflows.resume(await symphony.workflows.get_run("r"), auto_checkpoint=False)


async def forked(symphony: Symphony) -> None:
    (last,) = await symphony.workflows.list_runs(limit=1)
    fork = await symphony.workflows.fork(last.id, "c")
    await symphony.workflows.resume(fork, auto_checkpoint=False)


@pytest.mark.parametrize("asked", [retried, forked])
async def test_a_request_reads_what_is_new(symphony: Symphony, reads: list[int], asked: Callable[[Symphony], Awaitable[None]]) -> None:
    """A run that is taken back again and again, and a fork of a fork of a fork, cost what they have done since, not all they ever did."""
    await symphony.workflows.execute_workflow({"name": "w", "steps": STEPS}, run_id="r", auto_checkpoint=False)
    batches = []
    for _ in range(3):
        reads.clear()
        for _ in range(4):
            await asked(symphony)
        batches.append(sum(reads))
    assert batches[2] <= batches[1] <= 100


async def test_so_does_a_rewind(symphony: Symphony, reads: list[int]) -> None:
    """But for what the test itself reads."""
    await symphony.workflows.execute_workflow({"name": "w", "steps": STEPS}, run_id="r", auto_checkpoint=False)
    batches = []
    for _ in range(3):
        await rewound(symphony)
        reads.clear()
        await rewound(symphony)
        batches.append(sum(reads) - reads[0])
    assert batches[2] <= batches[1] <= 50


async def test_a_clean_up_reads_a_history_once(symphony: Symphony, reads: list[int]) -> None:
    """However often steps of the run were taken back, each time at a place of its own."""
    steps = [*STEPS, {"kind": "function", "name": "d", "function": "fail"}]
    symphony.functions.register("fail", lambda context: 1 / 0)
    read = []
    for times in (3, 6):
        await symphony.workflows.execute_workflow({"name": "w", "steps": steps}, run_id=f"r{times}", auto_checkpoint=False)
        for _ in range(times):
            await symphony.workflows.retry_from(f"r{times}", "b", auto_checkpoint=False)
        reads.clear()
        run = await symphony.workflows.cancel(f"r{times}")
        read.append(sum(reads))
        assert len([address for address in run.outputs if address.startswith("undo/")]) == 3 + 2 * times
    assert read[1] <= 2 * read[0] + 10


async def test_states_are_what_they_were_in_any_order(symphony: Symphony, reads: list[int]) -> None:
    """Whatever was asked for before, and from whatever it goes on."""
    run = await symphony.workflows.execute_workflow({"name": "w", "steps": STEPS}, run_id="r", auto_checkpoint=False)
    run = await symphony.workflows.retry_from("r", "b", auto_checkpoint=False)
    await read_timeline(symphony, run)
    head = symphony.log.head
    for position in [head, 3, 7, 7, 5, head - 2, head]:
        there, expected = await state_at(symphony, "Workflow:r", position), await symphony.state_history.entity_at("Workflow:r", position)
        assert (there and (there.data, there.version, there.position)) == (
            expected and (expected.data, expected.version, expected.position)
        )
        if there is not None and there.data is not None:
            there.data.clear()  # what is handed out is the caller's own
    assert sum(reads) > 0


def test_what_is_kept_is_bounded() -> None:
    """So many runs, and so many bytes of histories: those asked for last; one that is too long by itself is not kept."""
    timelines = Timelines()
    for number in range(3 * MOST_RUNS):
        timelines.keep(f"Workflow:{number}", Kept(Timeline(), 1, 1))
    assert [timelines.knows(f"Workflow:{number}") for number in range(3 * MOST_RUNS)] == [False] * 2 * MOST_RUNS + [True] * MOST_RUNS
    timelines.keep("Workflow:half", Kept(Timeline(), 1, MOST_BYTES - MOST_RUNS))
    timelines.keep("Workflow:rest", Kept(Timeline(), 1, MOST_RUNS))
    assert (timelines.knows("Workflow:half"), timelines.knows("Workflow:rest")) == (True, True)
    assert not timelines.knows(f"Workflow:{3 * MOST_RUNS - 1}")
    timelines.keep("Workflow:long", Kept(Timeline(), 1, MOST_BYTES + 1))
    assert (timelines.knows("Workflow:long"), timelines.knows("Workflow:rest")) == (False, True)
