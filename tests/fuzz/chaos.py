"""Many requests of every kind at once to runs with child runs, from several tasks, in processes that die; then the log is looked at.

Nobody can say beforehand where the runs end. What has to hold whatever is asked of them: every request ends, with an answer or an error
that says why; no step is on record after its run's end, and none begins again that has completed, unless it was taken back; no two steps
have one idempotency key; in the end no run is left under way, and what failed has failed of its own steps; the fold of the log is the
state of the objects.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable
from typing import Any

from symphony_es import Symphony
from symphony_es.core.past.states import live_states
from symphony_es.errors import (
    ConfigurationError,
    EntityExistsError,
    IllegalTransitionError,
    RunCancelledError,
    RunFailedError,
    RunInterruptedError,
    RunsInProgressError,
)
from symphony_es.testing import states_of
from symphony_es.workflow import RunContext, WorkflowDefinition, gather, run_workflow, step, step_context, wait_for_signal
from tests.acceptance.every_workflow import JumpClock
from tests.fuzz.lives import Found, Life
from tests.fuzz.record import Broken, check_history

__all__ = ["Requests"]

ANSWERS = (
    ConfigurationError,
    EntityExistsError,
    IllegalTransitionError,
    RunCancelledError,
    RunFailedError,
    RunInterruptedError,
    RunsInProgressError,
)
"""What a request may be refused or ended with, when others are made at the same time."""
FAILURES = {"OSError", "RunFailedError", "RunCancelledError", "StepTimeoutError", "CleanupUnfinishedError"}
"""What a run of these workflows may fail of."""
ACTORS, REQUESTS = 4, 10
MOST_RUNS = 16
PATIENCE_S = 30.0


def _step(name: str, body: str = "work", **more: Any) -> dict[str, Any]:
    return {"kind": "function", "name": name, "function": body, **more}


RETRIED = {"max_attempts": 3, "delay_s": 0.01}
CHILD: dict[str, Any] = {
    "id": "child",
    "name": "child",
    "steps": [
        _step("first", undo="work"),
        {"kind": "wait", "name": "go", "signal": "go", "within_s": 5, "default": 0},
        _step("second"),
    ],
    "cleanup": [_step("tidy")],
}
WHOLE: dict[str, Any] = {
    "id": "whole",
    "name": "whole",
    "steps": [
        _step("begin", undo="work"),
        {
            "kind": "parallel",
            "name": "fan",
            "on_error": "collect",
            "branches": [
                _step("beside"),
                {"kind": "workflow", "name": "kid", "definition": CHILD},
                _step("flaky", "flaky", retry=RETRIED),
                _step("slow", "slow", timeout_s=0.01, retry=RETRIED),
            ],
        },
        {
            "kind": "map",
            "name": "each",
            "over": [1, 2, 3],
            "step": {"kind": "sequence", "name": "both", "steps": [_step("one", undo="work"), _step("two", atomic=True)]},
        },
        {
            "kind": "loop",
            "name": "again",
            "max_iterations": 2,
            "steps": [_step("turn"), {"kind": "sleep", "name": "nap", "seconds": 5}],
        },
        _step("at_times", "flaky"),
        {"kind": "wait", "name": "go", "signal": "go", "within_s": 10, "default": 1},
        _step("last"),
    ],
    "cleanup": [_step("tidy", "flaky", retry=RETRIED), _step("sweep")],
}


class Chaos:
    """One process: runs, and whoever makes requests to them.

    Args:
        symphony: the process.
        notes: what its bodies note outside.
        chosen: what is asked of whom, and what fails.
    """

    def __init__(self, symphony: Symphony, notes: list[str], chosen: random.Random) -> None:
        self._symphony = symphony
        self._notes = notes
        self._chosen = chosen
        self._requests: list[asyncio.Task[None]] = []
        self._engine = symphony.registry.get("workflow_engine")
        self._engine.clock = JumpClock()
        for body in (self.work, self.flaky, self.slow):
            symphony.functions.register(body.__name__, body)

        @symphony.workflow
        async def coded() -> int:
            async def strand(name: str) -> Any:
                await step(self.noted, name="before", undo=self.noted)
                return await run_workflow(WorkflowDefinition.from_dict(CHILD), name=name)

            await gather(strand("a"), strand("b"), return_exceptions=True)
            await wait_for_signal("go", timeout_s=5, default=0)
            await step(self.noted, name="after")
            return 1

        self._coded = coded

    async def work(self, context: RunContext) -> str:
        self._notes.append(f"{context.idempotency_key} {context.run_id}:{context.step}")
        for _ in range(self._chosen.choice((0, 1, 5))):
            await asyncio.sleep(0)
        return context.step

    async def noted(self) -> str:
        return await self.work(step_context())

    async def flaky(self, context: RunContext) -> None:
        await self.work(context)
        if self._chosen.random() < 0.4:
            raise OSError("at times")

    async def slow(self, context: RunContext) -> None:
        await self.work(context)
        if self._chosen.random() < 0.4:
            await asyncio.Event().wait()

    async def live(self) -> None:
        """Goes on where the record is, is asked for many things at once, and brings all runs to their end."""
        await self._symphony.resume()
        workflows = self._symphony.workflows
        await workflows.recover(False, wait=False)
        for number in range(2):
            await workflows.start(WHOLE, auto_checkpoint=False, run_id=f"declared{number}", if_exists="return")
            await workflows.start(self._coded, auto_checkpoint=False, run_id=f"coded{number}", if_exists="return")
        actors = [asyncio.ensure_future(self._act(random.Random(self._chosen.random()))) for _ in range(ACTORS)]
        try:
            await asyncio.gather(*actors)
            await asyncio.wait_for(self._settle(), PATIENCE_S)
            for request in self._requests:
                request.result()
        except TimeoutError as error:
            left = [request.get_name() for request in self._requests if not request.done()]
            runs = {run.id: str(run.status) for run in await workflows.get_all_runs()}
            raise Broken(f"hangs: {left}; runs: {runs}, of which execute {self._engine.active_runs}") from error
        finally:
            for task in (*actors, *self._requests):
                task.cancel()
            await asyncio.gather(*actors, *self._requests, return_exceptions=True)

    async def _act(self, chosen: random.Random) -> None:
        workflows = self._symphony.workflows
        for _ in range(REQUESTS):
            for _ in range(chosen.randint(0, 40)):
                await asyncio.sleep(0)
            runs = await workflows.get_all_runs()
            run = chosen.choice(runs)
            at = chosen.choice(list(run.attempts) or ["begin"])
            asked: dict[str, Any] = {
                "pause": lambda run=run: workflows.pause(run),
                "resume": lambda run=run: workflows.resume(run, False),
                "signal": lambda run=run: workflows.signal(run, "go", 1),
                "retry_from": lambda run=run, at=at: workflows.retry_from(run, at, False),
                "recover": lambda: workflows.recover(False),
                "result": lambda run=run: workflows.handle(run).wait(),
                "interrupt": lambda run=run: self._engine.interrupt([run.id]),
            }
            if chosen.random() < 0.3:
                asked["cancel"] = lambda run=run: workflows.cancel(run, grace_s=chosen.choice((0, 0.01)))
            if len(runs) < MOST_RUNS:
                asked["fork"] = lambda run=run, at=at: workflows.fork(run, at)
            what = chosen.choice(list(asked))
            self._requests.append(asyncio.create_task(self._ask(what, asked[what]()), name=f"{what} {run.id} {at}"))

    @staticmethod
    async def _ask(what: str, request: Awaitable[Any]) -> None:
        try:
            await request
        except ANSWERS:
            return
        except Exception as error:
            raise Broken(f"{what}: {type(error).__name__}: {error}") from error

    async def _settle(self) -> None:
        """Everything that is paused or was interrupted goes on, until nothing does and no request waits."""
        workflows = self._symphony.workflows
        while True:
            left = [run for run in await workflows.get_all_runs() if run.status in ("paused", "pending", "running", "cancelling")]
            waiting = [request for request in self._requests if not request.done()]
            if not left and not waiting:
                return
            for run in left:
                if run.status in ("paused", "pending") and run.id not in self._engine.active_runs:
                    await self._ask("start", workflows.start(run, auto_checkpoint=False))
            await self._ask("recover", workflows.recover(False, wait=False))
            for _ in range(20):
                await asyncio.sleep(0)
            await self._symphony.flush()

    async def check(self) -> None:
        """Looks at the log.

        Raises:
            Broken: something does not hold.
        """
        symphony = self._symphony
        for run in await symphony.workflows.get_all_runs():
            check_history(run.id, await symphony.log.read_entity(f"Workflow:{run.id}"))
            if run.status == "failed" and run.error is not None and run.error["type"] not in FAILURES:
                raise Broken(f"{run.id} failed of {run.error['type']}: {run.error['message']}")
        folded = {key: state.data for key, state in live_states(await symphony.state_history.states_at(symphony.log.head)).items()}
        live = states_of(symphony)
        for run in await symphony.workflows.get_all_runs():  # those at rest are not among the live ones
            live.setdefault(f"Workflow:{run.id}", symphony.world.record_for(run).shadow)
        if differ := [key for key in live.keys() | folded.keys() if live.get(key) != folded.get(key)]:
            raise Broken(f"the objects are not what the log says: {differ}")


class Requests:
    """Many requests at once, as a kind of programs."""

    undoable = frozenset({"begin", "one", "first", "before"})

    def life(self, seed: int) -> Life:
        """See `Fuzzer`."""

        async def live(symphony: Symphony, notes: list[str]) -> Found:
            chaos = Chaos(symphony, notes, random.Random(f"{seed} {len(notes)}"))
            await chaos.live()
            await chaos.check()
            return {}

        return live

    def deaths(self, chosen: random.Random) -> list[int]:
        """See `Fuzzer`."""
        return [chosen.randint(20, 150) for _ in range(chosen.randint(0, 2))]

    def compare(self, seed: int, found: Found, notes: list[str]) -> None:
        """Nobody can say how a run ends, but each key is of one step."""
        steps: dict[str, str] = {}
        for note in notes:
            key, _, at = note.partition(" ")
            if steps.setdefault(key, at) != at:
                raise Broken(f"the key {key} is of {at} and of {steps[key]}")
