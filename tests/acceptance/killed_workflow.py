"""The child process of the kill test: a 30-step workflow that notes in a file beside the log each body it begins
and each step it knows to be acknowledged.

`python -m tests.acceptance.killed_workflow` is a fork server: imports are done once, and each line of standard input names a directory
whose run a forked child goes on with, or begins.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from symphony_es import Symphony, entity
from symphony_es.workflow.engine.hooks import WorkflowHook

STEPS = 30


@entity(type="KillCounter")
class Counter:
    id: str = ""
    total: int = 0
    seen: list[str] | None = None


def define(symphony: Symphony) -> Any:
    builder = symphony.build_workflow().create("thirty steps")
    for number in range(STEPS):
        builder.add_processing_step(f"step_{number}", "", ("count", "write", "answer")[number % 3])
    return builder.build()


def register(symphony: Symphony, effects: int) -> None:
    """Functions whose results depend only on what the run has; each attempt is noted outside of it with its key."""

    def note(context: Any) -> None:
        os.write(effects, f"began {context.step} {context.idempotency_key}\n".encode())

    async def count(context: Any) -> int:
        note(context)
        counter = symphony.entities.get("KillCounter:c")
        async with symphony.transaction("Counted"):
            if context.step not in counter.seen:
                counter.seen.append(context.step)
                counter.total += len(counter.seen)
        return int(counter.total)

    async def write(context: Any) -> str:
        note(context)
        context["trail"] = [*context.get("trail", []), context.step]
        await asyncio.sleep(0)
        return f"wrote {len(context['trail'])}"

    async def answer(context: Any) -> dict[str, Any]:
        note(context)
        return {"step": context.step, "before": len(context.outputs), "text": "x" * 100}

    symphony.functions.register("count", count)
    symphony.functions.register("write", write)
    symphony.functions.register("answer", answer)


class Acknowledged(WorkflowHook):
    """Notes each acknowledged step outside of the log, with the log's head then: the step's completion is durable, at or before it."""

    def __init__(self, effects: int) -> None:
        self.effects = effects

    async def step_completed(self, moment: Any) -> None:
        os.write(self.effects, f"acknowledged {moment.step} {moment.symphony.log.head}\n".encode())


async def go_on(directory: str) -> None:
    effects = os.open(f"{directory}.effects", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    async with Symphony({"state_dir": directory}, persistence_enabled=True) as symphony:
        await symphony.resume()
        register(symphony, effects)
        engine = symphony.registry.get("workflow_engine")
        engine.hooks.append(Acknowledged(effects))
        if symphony.entities.find("KillCounter:c") is None:
            symphony.entities.add(Counter(id="c", seen=[]))
            await symphony.flush()
        if await symphony.workflows.list_runs():
            await symphony.workflows.recover()
        else:
            await symphony.workflows.execute_workflow(define(symphony), {"topic": "rain"})
        os.write(1, b"done\n")


def serve() -> None:
    """Fork one child per line of standard input (a directory); say its process id, then how it ended."""
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try:
                asyncio.run(go_on(line.strip()))
            finally:
                os._exit(0)
        os.write(1, f"P {pid}\n".encode())
        _, status = os.waitpid(pid, 0)
        os.write(1, f"E {status}\n".encode())


if __name__ == "__main__":
    serve()
