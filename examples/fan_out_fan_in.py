"""Many things at once, and their results together: a map, a parallel whose failures are collected, and a step that joins them.

Run it with `python examples/fan_out_fan_in.py [STATE_DIR]`. Without a directory it works in a temporary one.
"""

import asyncio
import sys
import tempfile
from typing import Any

from symphony_es import Symphony
from symphony_es.workflow import RunContext

REPORTS = ["Rain in the north.", "Sun.", "Wind from the west, later snow.", "Fog until noon."]


class Counting:
    """Counts words, and how many counts are under way at once."""

    def __init__(self) -> None:
        self.now = self.most = 0

    async def count(self, context: RunContext) -> int:
        """Reads the item of its branch; what it writes to the context stays in the branch's own key space."""
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.01)
        self.now -= 1
        context["longest"] = max(context["item"].split(), key=len)
        return len(context["item"].split())


def total(context: RunContext) -> int:
    """A branch of the parallel."""
    return sum(context.outputs["counts"])


def translate(context: RunContext) -> str:
    """A branch that fails."""
    raise ConnectionError("the translator is away")


def join(context: RunContext) -> dict[str, Any]:
    """Brings together what came of all branches, whichever ended first."""
    return {"counts": context.outputs["counts"], **context.outputs["analyses"], "longest": context.inputs["longest"]}


async def fan_out(state_dir: str) -> None:
    """One run."""
    async with Symphony({"state_dir": state_dir}, persistence_enabled=True) as symphony:
        counting = Counting()
        for name, function in (("count", counting.count), ("total", total), ("translate", translate), ("join", join)):
            symphony.functions.register(name, function)
        steps = symphony.workflows.build_steps
        definition = (
            symphony.build_workflow()
            .create("weather digest")
            .add_map("counts", "{{ reports }}", steps().add_function("count", "count"), max_concurrency=2)
            .add_parallel(
                "analyses",
                steps()
                .add_function("total", total)
                .add_task("summary", "", "Summarise {{ len(reports) }} reports", model="echo")
                .add_function("translation", translate),
                on_error="collect",
            )
            .add_function("join", join, inputs={"longest": "{{ step.counts.contexts['0'].longest }}"})
            .build()
        )
        run = await symphony.workflows.execute_workflow(definition, {"reports": REPORTS})

        print(f"run: {run.status}, never more than 2 counts at once: {counting.most <= 2}")
        for address, step in run.steps.items():
            print(f"  {address}: {step['status']}")
        for key, value in run.result.items():
            print(f"  {key} = {value}")
        assert counting.most <= 2
        assert run.outputs["counts"] == [4, 1, 6, 3], "in the order of the items"
        assert run.result["translation"] == {"error": {"type": "ConnectionError", "message": "the translator is away"}}
        assert "longest" not in run.context, "a branch writes to its own key space"
    print("done")


if __name__ == "__main__":
    if sys.argv[1:]:
        asyncio.run(fan_out(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as directory:
            asyncio.run(fan_out(directory))
