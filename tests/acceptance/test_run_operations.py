"""Requests to runs in any order, crashes included, against a simple model; SYMPHONY_EXAMPLES and SYMPHONY_EXAMPLE_STEPS for more of them.

500 examples of 50 steps: `SYMPHONY_EXAMPLES=500 SYMPHONY_EXAMPLE_STEPS=50 pytest tests/acceptance/test_run_operations.py`.
"""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from symphony_es import Symphony
from symphony_es.errors import IllegalTransitionError
from symphony_es.testing import ManualClock
from symphony_es.workflow import StepList, Workflow, WorkflowDefinition
from tests.acceptance.run_model import NAP_S, Illegal, ModelRun

MOST_RUNS = 4
PATIENCE_S = 5.0
names = st.sampled_from(["go", "x", "y"])
numbers = st.integers(min_value=0, max_value=63)


def definition() -> WorkflowDefinition:
    """The workflow of the model."""
    return WorkflowDefinition(
        id="model",
        name="model",
        steps=StepList()
        .add_wait("ask", "go")
        .add_function("work", "work")
        .add_sleep("nap", NAP_S)
        .add_parallel("both", StepList().add_wait("x").add_wait("y"))
        .add_function("done", "done")
        .to_dicts(),
        cleanup=StepList().add_function("tidy", "tidy").to_dicts(),
    )


class RunOperations(RuleBasedStateMachine):
    """Every request goes to the engine and to the model; then both have to agree."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = Path(tempfile.mkdtemp(prefix="run-operations-"))
        self.processes = 0
        self.failing = False
        self.clock = ManualClock()
        self.now = 0
        self.model: list[ModelRun] = []
        self.bodies: Counter[tuple[str, str]] = Counter()
        self.requests: list[asyncio.Task[Any]] = []
        self.symphony = Symphony(persistence_enabled=True)

    def teardown(self) -> None:
        self.runner.run(self._end_process())
        self.runner.close()
        shutil.rmtree(self.directory)

    # -- the two worlds -----------------------------------------------------------------------------------------------

    @initialize()
    def begin(self) -> None:
        self.runner.run(self._open())

    async def _open(self) -> None:
        await self.symphony.setup(state_dir=self.directory / str(self.processes))
        self.symphony.registry.get("workflow_engine").clock = self.clock

        async def body(context: Any) -> str:
            self.bodies[context.step, context.idempotency_key] += 1
            if context.step == "work" and self.failing:
                raise ValueError("it was told to")
            return str(context.step)

        for name in ("work", "done", "tidy"):
            self.symphony.functions.register(name, body)

    async def _end_process(self) -> None:
        await self.symphony.registry.get("workflow_engine").interrupt()
        await asyncio.gather(*self.requests, return_exceptions=True)
        self.requests.clear()
        await self.symphony.close()

    def run_of(self, model: ModelRun) -> Workflow:
        found = self.symphony.entities.get(f"Workflow:{model.name}")
        assert isinstance(found, Workflow)
        return found

    def request(self, model: Callable[[], None], engine: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Makes a request to both; one that the model refuses has to be refused with nothing appended."""
        self.runner.run(self._request(model, engine))

    async def _request(self, model: Callable[[], None], engine: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        head = self.symphony.log.head
        try:
            model()
        except Illegal:
            with pytest.raises(IllegalTransitionError) as refused:
                await engine()
            assert refused.value.status, "both statuses are named"
            assert refused.value.requested
            assert self.symphony.log.head == head, "a refused request appends nothing"
            return
        await engine()
        await self._agree()

    async def _agree(self) -> None:
        """Waits until the engine has come to where the model is; that it stays there, the next rule finds out."""
        await self._until(self._differences)
        await self.symphony.flush()

    async def _differences(self) -> list[str]:
        found = []
        active = set(self.symphony.registry.get("workflow_engine").active_runs)
        for model in self.model:
            run = self.run_of(model)
            tidied = "cleanup/tidy" in run.outputs
            real = {
                "status": str(run.status),
                "active": run.id in active,
                "completed": set(run.outputs) - {"cleanup/tidy"},
                "signals": {name: len(payloads) for name, payloads in run.signals.items() if payloads},
                "tidied": tidied,
                "generation": self.symphony.world.generation(run),
            }
            expected = {
                "status": model.status,
                "active": model.active,
                "completed": model.completed,
                "signals": {name: count for name, count in model.signals.items() if count},
                "tidied": model.status == "cancelled",
                "generation": model.generation,
            }
            found += [f"{run.id} {key}: {real[key]!r}, expected {expected[key]!r}" for key in real if real[key] != expected[key]]
        return found

    def pick(self, number: int) -> ModelRun:
        return self.model[number % len(self.model)]

    # -- requests -----------------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.model) < MOST_RUNS)
    @rule()
    def start(self) -> None:
        made = ModelRun(f"run{len(self.model)}")
        self.model.append(made)
        self.request(
            lambda: made.resume(self.now, failing=self.failing),
            lambda: self.symphony.workflows.start(definition(), run_id=made.name, auto_checkpoint=False),
        )

    @precondition(lambda self: self.model)
    @rule(number=numbers, name=names)
    def signal(self, number: int, name: str) -> None:
        run = self.pick(number)
        self.request(
            lambda: run.signal(name, self.now, failing=self.failing), lambda: self.symphony.workflows.signal(run.name, name, number)
        )

    @precondition(lambda self: self.model)
    @rule(number=numbers)
    def pause(self, number: int) -> None:
        run = self.pick(number)
        self.request(run.pause, lambda: self.symphony.workflows.pause(run.name))

    @precondition(lambda self: self.model)
    @rule(number=numbers)
    def resume(self, number: int) -> None:
        run = self.pick(number)
        self.request(
            lambda: run.resume(self.now, failing=self.failing),
            lambda: self.symphony.workflows.start(self.run_of(run), auto_checkpoint=False),
        )

    @precondition(lambda self: self.model)
    @rule(number=numbers)
    def cancel(self, number: int) -> None:
        run = self.pick(number)
        self.request(run.cancel, lambda: self.symphony.workflows.cancel(run.name))

    @precondition(lambda self: any(run.begun for run in self.model))
    @rule(number=numbers, place=numbers)
    def retry(self, number: int, place: int) -> None:
        begun = [run for run in self.model if run.begun]
        run = begun[number % len(begun)]
        step = run.begun[place % len(run.begun)]

        async def retry() -> None:
            # It waits for the run's end; what it refuses, it refuses before the first event.
            asked = asyncio.ensure_future(self.symphony.workflows.retry_from(run.name, step, auto_checkpoint=False))
            self.requests.append(asked)
            before = self.symphony.world.generation(self.run_of(run))
            while not asked.done() and self.symphony.world.generation(self.run_of(run)) == before:
                await asyncio.sleep(0)
            if asked.done() and asked.exception() is not None:
                raise asked.exception()  # type: ignore[misc]

        self.request(lambda: run.retry_from(step, self.now, failing=self.failing), retry)

    @precondition(lambda self: len(self.model) < MOST_RUNS and any(run.begun for run in self.model))
    @rule(number=numbers, place=numbers)
    def fork(self, number: int, place: int) -> None:
        begun = [run for run in self.model if run.begun]
        run = begun[number % len(begun)]
        step = run.begun[place % len(run.begun)]
        made = run.fork(step, f"run{len(self.model)}")
        self.request(lambda: self.model.append(made), lambda: self.symphony.workflows.fork(run.name, step, run_id=made.name))

    # -- the world around ---------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1, NAP_S]))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

        def pass_by() -> None:
            for run in self.model:
                run.go_on(self.now, failing=self.failing)

        async def advance() -> None:
            self.clock.advance(seconds)

        self.request(pass_by, advance)

    @rule()
    def work_fails_or_not(self) -> None:
        self.failing = not self.failing

    @rule(recovers=st.booleans())
    def crash(self, recovers: bool) -> None:
        """The process dies with all it has not made durable; another one opens what is on disk."""
        for run in self.model:
            run.crash()
        self.runner.run(self._crash())
        if recovers:
            self.recover()

    async def _crash(self) -> None:
        before = self.directory / str(self.processes)
        self.processes += 1
        shutil.copytree(before, self.directory / str(self.processes))
        await self._end_process()
        shutil.rmtree(before)
        self.symphony = Symphony(persistence_enabled=True)
        await self._open()
        await self.symphony.resume()
        await self._agree()

    @rule()
    def recover(self) -> None:
        def recovered() -> None:
            for run in self.model:
                run.recover(self.now, failing=self.failing)

        async def recover() -> None:
            self.requests.append(asyncio.ensure_future(self.symphony.workflows.recover(auto_checkpoint=False)))

        self.request(recovered, recover)

    # -- what always holds --------------------------------------------------------------------------------------------

    @invariant()
    def nothing_completed_runs_twice(self) -> None:
        """Of a generation of a run, each body runs once; work again only after it has failed."""
        for (step, key), count in self.bodies.items():
            assert count == 1 or step == "work", f"{step} ran {count} times with the key {key}"

    @invariant()
    def the_log_agrees_with_the_objects(self) -> None:
        """What a fold of the run's events gives is what its object holds."""
        self.runner.run(self._check_log())

    async def _check_log(self) -> None:
        for model in self.model:
            await self._until(functools.partial(self._differs_from_log, self.run_of(model)))

    async def _differs_from_log(self, run: Workflow) -> list[str]:
        await self.symphony.flush()
        live = {"outputs": dict(run.outputs), "attempts": dict(run.attempts), "signals": {k: list(v) for k, v in run.signals.items()}}
        folded = await self.symphony.history.entity_at(f"Workflow:{run.id}", self.symphony.log.head)
        assert folded is not None
        assert folded.data is not None
        return [f"{run.id} {key}: {live[key]!r}, the log has {folded.data[key]!r}" for key in live if folded.data[key] != live[key]]

    @staticmethod
    async def _until(differences: Callable[[], Awaitable[list[str]]]) -> None:
        """Waits until nothing differs: what a run does next may be under way."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE_S
        while (found := await differences()) and loop.time() < deadline:
            await asyncio.sleep(0.0005)
        assert not found, found


TestRunOperations = RunOperations.TestCase
TestRunOperations.settings = settings(
    max_examples=int(os.environ.get("SYMPHONY_EXAMPLES", "40")),
    stateful_step_count=int(os.environ.get("SYMPHONY_EXAMPLE_STEPS", "40")),
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
