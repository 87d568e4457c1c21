"""What the calls of workflows tell of runs is data for JSON, by one name: `to_dict`."""

import json
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.workflow import RunContext

ASKED: dict[str, Any] = {
    "handle": lambda workflows, run: workflows.handle(run),
    "run": lambda workflows, run: run,
    "summary": lambda workflows, run: _first(workflows.list_runs()),
    "progress": lambda workflows, run: workflows.handle(run).progress,
    "usage": lambda workflows, run: workflows.usage(run),
    "model": lambda workflows, run: _model(workflows.usage(run)),
    "attempt": lambda workflows, run: _first(workflows.step_attempts(run)),
    "prune": lambda workflows, run: workflows.prune_runs(older_than=3600, dry_run=True),
    "drain": lambda workflows, run: workflows.drain(),
    "recover": lambda workflows, run: workflows.recover(wait=False),
}


async def _first(asked: Any) -> Any:
    return (await asked)[0]


async def _model(asked: Any) -> Any:
    return (await asked).by_model[0]


@pytest.mark.parametrize("what", ASKED)
async def test_what_is_told_of_runs_is_data(what: str) -> None:
    """An endpoint returns `to_dict()` of whatever it has got, and JSON encoders take it."""
    async with Symphony() as symphony:

        async def work(context: RunContext) -> str:
            context.used("small", input_tokens=3, cost=0.01)
            return "done"

        symphony.functions.register("work", work)
        steps = [{"kind": "function", "name": "work", "function": "work"}, {"kind": "wait", "name": "wait", "signal": "go"}]
        handle = await symphony.workflows.start({"name": "told", "steps": steps}, run_id="r", metadata={"of": "ann"})
        async for event in handle.events():
            if event.metadata.step == "wait":
                break
        told = ASKED[what](symphony.workflows, handle.run)
        told = await told if hasattr(told, "__await__") and what != "handle" else told
        written = json.loads(json.dumps(told.to_dict()))
        assert isinstance(written, dict)
        assert written
