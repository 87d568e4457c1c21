"""Requests to runs in any order, with crashes between them, against a simple model: no divergence.

After each of them every run has the model's status, outputs, attempts, signals, timers and children, and so has the fold of the log.
After some of the crashes another process goes on, recovers, and is killed, before the next one comes.

`SYMPHONY_RANDOM=1 SYMPHONY_EXAMPLES=500 SYMPHONY_STEPS=50 pytest --timeout 0 tests/acceptance/test_run_operations.py` is the full
measure; it takes most of an hour. Add `--hypothesis-show-statistics` to see which requests met which statuses.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from symphony_es import Symphony
from symphony_es.core.past.resting import may_rest
from symphony_es.core.past.states import live_states
from symphony_es.errors import ConfigurationError, IllegalTransitionError, RunsInProgressError, SymphonyError
from symphony_es.testing import ManualClock, states_of
from symphony_es.workflow import RunContext, Workflow, WorkflowDefinition
from symphony_es.workflow.engine.histories import Timelines, read_timeline
from tests.acceptance.recover_elsewhere import Elsewhere, fails
from tests.acceptance.run_model import ADDRESSES, CLEANUP, NAP_S, OF_CLEANUP, REST_S, Illegal, Mode, Model, ModelRun, NotBegun

MOST_RUNS = 5
"""Started runs and forks of one example; their child runs come on top."""

PATIENCE_S = 5.0
"""How long the engine may take to come to where the model is, once nothing moves any more."""

FOREVER_S = 3600.0
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
numbers = st.integers(min_value=0, max_value=63)
signals = st.sampled_from(["go", "x", "y", "all"])

CLEANUP_STEPS: list[dict[str, Any]] = [
    {"kind": "function", "name": "tidy", "function": "body"},
    {"kind": "sleep", "name": "rest", "seconds": REST_S},
    {"kind": "function", "name": "sweep", "function": "body"},
]
CHILD: dict[str, Any] = {
    "name": "child",
    "steps": [{"kind": "wait", "name": "ask", "signal": "go"}, {"kind": "function", "name": "labour", "function": "body", "undo": "body"}],
    "cleanup": CLEANUP_STEPS,
}
WHOLE: dict[str, Any] = {
    "id": "whole",
    "name": "whole",
    "steps": [
        {"kind": "wait", "name": "ask", "signal": "go"},
        {"kind": "function", "name": "work", "function": "body", "undo": "body"},
        {"kind": "sleep", "name": "nap", "seconds": NAP_S},
        {
            "kind": "parallel",
            "name": "both",
            "branches": [{"kind": "wait", "name": "x", "signal": "x"}, {"kind": "wait", "name": "y", "signal": "y"}],
        },
        {"kind": "workflow", "name": "kid", "definition": CHILD},
        {"kind": "function", "name": "done", "function": "body", "undo": "body"},
    ],
    "cleanup": CLEANUP_STEPS,
}


class RunOperations(RuleBasedStateMachine):
    """Every request goes to the model and to the engine; then both have to agree."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = Path(tempfile.mkdtemp(prefix="run-operations-", dir=MEMORY))
        self.processes = 0
        self.model = Model()
        self.clock = ManualClock()
        self.bodies: Counter[tuple[str, int]] = Counter()
        self.finished: Counter[str] = Counter()
        self.hanging: dict[str, asyncio.Future[bool]] = {}
        self.pending: list[tuple[str, asyncio.Task[Any]]] = []
        self.moments: list[tuple[int, dict[str, ModelRun]]] = []
        self.symphony = Symphony(persistence_enabled=True)
        self.known: dict[str, Workflow] = {}

    @initialize(runs=st.integers(min_value=1, max_value=3), pushes=st.integers(min_value=0, max_value=6))
    def begin(self, runs: int, pushes: int) -> None:
        """The first process opens an empty log, and starts runs; the first of them may have come some way."""
        self.runner.run(self._open())
        for _ in range(runs):
            self.start()
        for _ in range(pushes):
            self._push(self.pick(0))

    def teardown(self) -> None:
        """The last process ends."""
        self.runner.run(self._end())
        self.runner.close()
        shutil.rmtree(self.directory)

    # -- processes ----------------------------------------------------------------------------------------------------

    async def _open(self) -> None:
        self.symphony = Symphony(persistence_enabled=True)
        await self.symphony.setup(state_dir=self.directory / str(self.processes))
        self.engine.clock = self.clock
        self.symphony.functions.register("body", self._body)

    async def _end(self) -> None:
        for run in self.known.values():
            await self._check_history(run)
        await self.engine.interrupt()
        for _, task in self.pending:
            task.cancel()  # a request that still waits for the end of its run, which no longer comes
        await asyncio.gather(*(task for _, task in self.pending), return_exceptions=True)
        self.pending.clear()
        self.hanging.clear()
        await self.symphony.close()

    async def _check_history(self, run: Workflow) -> None:
        """What was kept of its history, and went on with the events since, is what the whole of it says."""
        engine, found = self.engine, []
        for _ in range(2):
            timeline = await read_timeline(self.symphony, run)
            executions = {address: timeline.execution(address) for address in timeline.begun}
            found.append((timeline.begun, timeline.completed, timeline.raised, executions, timeline.taken_back, timeline.undone))
            kept, engine.timelines = engine.timelines, Timelines()
        engine.timelines = kept
        assert found[0] == found[1]

    async def _crash(self) -> None:
        """A copy of the directory is what a dead process leaves: nothing of it is closed, its lock is free."""
        before = self.directory / str(self.processes)
        self.processes += 1
        after = self.directory / str(self.processes)
        shutil.copytree(before, after)
        for shared_memory in after.glob("*-shm"):
            shared_memory.unlink()
        await self._meanwhile(after)
        await self._end()
        shutil.rmtree(before)
        await self._open()
        await self.symphony.resume()
        await self._look()

    async def _meanwhile(self, directory: Path) -> None:
        """What happens to what a dead process has left, before this one opens it."""

    async def _body(self, context: RunContext) -> str:
        self.bodies[context.idempotency_key, context.attempt] += 1
        works = not fails(context.step, self.model.mode)
        if context.step == "work" and self.model.mode == "hangs":
            future = self.hanging[context.run_id] = asyncio.get_running_loop().create_future()
            works = await future
        if not works:
            raise ValueError("it was told to fail")
        self.finished[context.idempotency_key] += 1
        return context.step

    @property
    def engine(self) -> Any:
        return self.symphony.registry.get("workflow_engine")

    def run_of(self, name: str) -> Workflow:
        found = self.symphony.world.find(f"Workflow:{name}") or self.known[name]  # one that has ended is at rest
        assert isinstance(found, Workflow)
        return found

    async def _look(self) -> None:
        """Have the objects of all runs in hand."""
        self.known = {run.id: run for run in await self.symphony.workflows.get_all_runs()}

    # -- requests to both worlds --------------------------------------------------------------------------------------

    def ask(
        self,
        request: str,
        run: ModelRun | None,
        of_model: Callable[[], Any],
        of_engine: Callable[[], Awaitable[Any]],
        waits_for: str | None,
    ) -> None:
        """Makes a request to both; what the model refuses has to be refused with nothing appended.

        Args:
            request: its name.
            run: whom it is made to.
            of_model: makes it to the model.
            of_engine: makes it to the engine; may wait for the end of a run.
            waits_for: id of that run, "*" for any; None where it waits for none.
        """
        kind = "" if run is None else f"{'hanging ' if run.hanging else ''}{run.status} {'active' if run.active else 'idle'} {run.kind}"
        refusal: Illegal | NotBegun | None = None
        try:
            of_model()
        except (Illegal, NotBegun) as error:
            refusal = error
        event(f"{request} {kind}{f' {type(refusal).__name__}' if refusal else ''}")
        if refusal is not None:
            self.runner.run(self._is_refused(of_engine, refusal))
        else:
            self.model.settle()
            self.runner.run(self._does(of_engine, waits_for))

    async def _is_refused(self, of_engine: Callable[[], Awaitable[Any]], refusal: Illegal | NotBegun) -> None:
        head = self.symphony.log.head
        with pytest.raises(IllegalTransitionError if isinstance(refusal, Illegal) else ConfigurationError) as refused:
            await asyncio.wait_for(of_engine(), PATIENCE_S)
        if isinstance(refusal, Illegal) and isinstance(refused.value, IllegalTransitionError):
            error = refused.value
            assert (error.status.split()[0], error.requested) == (refusal.status, refusal.leads_to)
            cannot = "take a signal" if error.requested == "signal" else f"become {error.requested}"
            assert f"{error.status} and cannot {cannot}" in str(error)
        await self._agree()
        assert self.symphony.log.head == head, "a refused request appends nothing"

    async def _does(self, of_engine: Callable[[], Awaitable[Any]], waits_for: str | None) -> None:
        if waits_for is None:
            await of_engine()
        else:
            self.pending.append((waits_for, asyncio.ensure_future(of_engine())))
        await self._agree()

    # -- comparing them -----------------------------------------------------------------------------------------------

    async def _agree(self) -> None:
        """Waits until nothing moves; the engine is where the model is then, or comes there soon."""
        loop = asyncio.get_running_loop()
        deadline, agreed = None, 0
        while agreed < 2:  # a thread may have brought something in the last turn
            await self._come_to_rest()
            self._look_at_results()
            differences = self._differences()
            agreed = 0 if differences else agreed + 1
            if differences:
                deadline = deadline or loop.time() + PATIENCE_S
                assert loop.time() < deadline, "\n".join(differences)

    def _look_at_results(self) -> None:
        ended = [(name, task) for name, task in self.pending if task.done()]
        self.pending = [(name, task) for name, task in self.pending if not task.done()]
        for name, task in ended:
            if name in self.model.given_up and isinstance(task.exception(), IllegalTransitionError):
                self.model.given_up.remove(name)
            else:
                task.result()

    async def _come_to_rest(self) -> None:
        """Every task waits for what only a request, the clock or a body can bring: turns of the loop and commits bring nothing new."""
        quiet, last = 0, None
        while quiet < 2:
            await self.symphony.flush()
            for _ in range(8):
                await asyncio.sleep(0)
            seen = (self.symphony.log.head, self.engine.active_runs, len(self.bodies), [task.done() for _, task in self.pending])
            quiet, last = (quiet + 1, last) if seen == last else (0, seen)
        await self._look()

    def _differences(self) -> list[str]:
        """What the engine has otherwise than the model."""
        names = list(self.known)
        if sorted(names) != sorted(self.model.runs):
            return [f"runs: {names}, expected {list(self.model.runs)}"]
        active = set(self.engine.active_runs)
        found = [
            f"{name} {what}: {value!r}, expected {expected!r}"
            for name, model in self.model.runs.items()
            for what, (value, expected) in self._compared(self.run_of(name), model, active).items()
            if value != expected
        ]
        if self.finished != self.model.finished:
            found.append(f"finished bodies: {self.finished - self.model.finished} too many, {self.model.finished - self.finished} missing")
        active_in_model = {name for name, model in self.model.runs.items() if model.active or model.going_back or model.giving_up}
        found += [
            f"a request still waits for {name}"
            for name, task in self.pending
            if not task.done() and not (active_in_model if name == "*" else name in active_in_model)
        ]
        return found

    def _compared(self, run: Workflow, model: ModelRun, active: set[str]) -> dict[str, tuple[Any, Any]]:
        timers = {address: noted["until"] for address, noted in run.progress.items() if "until" in noted}
        start = ManualClock().now().timestamp()
        return {
            "status": (str(run.status), model.status),
            "active": (run.id in active, model.active),
            "outputs": (dict(run.outputs), model.outputs),
            "attempts": (dict(run.attempts), model.attempts),
            "signals": ({name: list(payloads) for name, payloads in run.signals.items()}, model.signals),
            "timers": ({address: until.timestamp() - start for address, until in timers.items()}, model.timers),
            "children": ({address: child.id for address, child in run.children.items()}, model.children),
            "parent": (run.parent and run.parent.id, model.parent),
            "taken back": (self.symphony.world.generation(run), model.taken_back),
            "ended": (run.ended_at is not None, model.status in ("completed", "failed", "cancelled")),
            # A failed run that is cancelled keeps what it failed of.
            "error": (run.error is not None and model.status not in ("cancelling", "cancelled"), model.status == "failed"),
        }

    def pick(self, number: int) -> ModelRun:
        """One of the runs."""
        runs = list(self.model.runs.values())
        return runs[number % len(runs)]

    # -- rules: requests ----------------------------------------------------------------------------------------------

    @precondition(lambda self: sum(run.parent is None for run in self.model.runs.values()) < MOST_RUNS)
    @rule()
    def start(self) -> None:
        """A new run."""
        name = f"run{len(self.model.runs)}"
        definition = WorkflowDefinition.from_dict(WHOLE)
        self.ask(
            "start",
            None,
            lambda: self.model.start(name),
            lambda: self.symphony.workflows.start(definition, run_id=name, auto_checkpoint=False),
            None,
        )

    @precondition(lambda self: self.model.runs)
    @rule(number=numbers, name=signals)
    def signal(self, number: int, name: str) -> None:
        """One signal, or all that its steps wait for."""
        run = self.pick(number)
        for one in ("go", "x", "y") if name == "all" else (name,):
            self._signal(run, one, number)

    def _signal(self, run: ModelRun, name: str, payload: int) -> None:
        self.ask(
            "signal",
            run,
            lambda: self.model.signal(run, name, payload),
            lambda: self.symphony.workflows.signal(run.name, name, payload),
            None,
        )

    @precondition(lambda self: self.model.runs)
    @rule(number=numbers)
    def pause(self, number: int) -> None:
        """Waits for the end of what is under way."""
        run = self.pick(number)
        self.ask("pause", run, lambda: self.model.pause(run), lambda: self.symphony.workflows.pause(run.name), run.name)

    @precondition(lambda self: self.model.runs)
    @rule(number=numbers, waits=st.booleans())
    def resume(self, number: int, waits: bool) -> None:
        """In the background, or waiting for its end; what a call changes comes after the steps under way, so one that pauses has none."""
        run = self.pick(number)
        workflows = self.symphony.workflows
        options: dict[str, Any] = {} if run.active else {"auto_checkpoint": False}
        self.ask(
            "resume",
            run,
            lambda: self.model.resume(run),
            lambda: (workflows.resume if waits else workflows.start)(self.run_of(run.name), **options),
            run.name,
        )

    @precondition(lambda self: self.model.runs)
    @rule(number=numbers, patient=st.booleans())
    def cancel(self, number: int, patient: bool) -> None:
        """Patiently it lets a body come to its end."""
        run = self.pick(number)
        self.ask(
            "cancel",
            run,
            lambda: self.model.cancel(run, patient=patient),
            lambda: self.symphony.workflows.cancel(run.name, grace_s=FOREVER_S if patient else 0),
            run.name,
        )

    def pick_step(self, run: ModelRun, place: int) -> str:
        """A step that the run has begun; once in a while any."""
        begun = [step for step in run.before if not step.startswith(OF_CLEANUP)]
        steps = list(ADDRESSES[run.kind] if place % 8 == 7 or not run.before else begun)
        return steps[place % len(steps)] if steps else "ask"

    @precondition(lambda self: self.model.runs)
    @rule(number=numbers, place=numbers)
    def retry_from(self, number: int, place: int) -> None:
        """Takes a run back; one that pauses with work under way is waited for, which `test_pausing` has."""
        run = self.pick(number)
        if run.active and run.status == "paused":
            return
        step = self.pick_step(run, place)
        self.ask(
            "retry_from",
            run,
            lambda: self.model.retry_from(run, step),
            lambda: self.symphony.workflows.retry_from(run.name, step, auto_checkpoint=False),
            run.name,
        )

    @precondition(lambda self: any(run.status in ("cancelling", "cancelled") for run in self.model.runs.values()))
    @rule(number=numbers, place=numbers)
    def retry_cleanup(self, number: int, place: int) -> None:
        """Does a step of a clean-up again; once in a while any step of that of any run."""
        runs = [run for run in self.model.runs.values() if run.status in ("cancelling", "cancelled")] if place % 8 else []
        run = runs[number % len(runs)] if runs else self.pick(number)
        begun = [address for address in run.attempts if address.startswith("cleanup/")] if place % 8 else []
        address = (begun or CLEANUP)[place % len(begun or CLEANUP)]
        self.ask(
            "retry_cleanup",
            run,
            lambda: self.model.retry_cleanup(run, address),
            lambda: self.symphony.workflows.retry_from(run.name, address, auto_checkpoint=False),
            run.name,
        )

    @precondition(lambda self: self.model.runs and sum(run.parent is None for run in self.model.runs.values()) < MOST_RUNS)
    @rule(number=numbers, place=numbers, along=st.booleans())
    def fork(self, number: int, place: int, along: bool) -> None:
        """Makes a run of another's past, and leaves the other alone."""
        run = self.pick(number)
        step = self.pick_step(run, place)
        if step == "both/y":
            step = "both"  # whether `x` has its signal when `y` begins is up to the event loop
        name = f"run{len(self.model.runs)}"

        async def fork() -> None:
            history = await self.symphony.log.read_entity(f"Workflow:{run.name}")
            made = await self.symphony.workflows.fork(run.name, step, run_id=name, signals=along)
            assert await self.symphony.log.read_entity(f"Workflow:{run.name}") == history, "the original is untouched"
            assert made.forked_from is not None
            assert (made.forked_from["run"], made.forked_from["step"]) == (self.run_of(run.name), step)

        self.ask("fork", run, lambda: self.model.fork(run, step, name, signals=along), fork, None)

    @rule()
    def recover(self) -> None:
        """Goes on with what a crash has interrupted, and with nothing else."""
        expected: list[str] = []

        async def recover() -> None:
            runs = await self.symphony.workflows.recover(auto_checkpoint=False)
            assert sorted(run.id for run in runs) == sorted(expected)
            assert runs == [run for run in await self.symphony.workflows.get_all_runs() if run in runs]

        self.ask("recover", None, lambda: expected.extend(self.model.recover()), recover, "*")

    @precondition(lambda self: self.moments)
    @rule(number=numbers, stops=st.booleans())
    def rewind(self, number: int, stops: bool) -> None:
        """Takes everything back to one of the moments at which nothing moved; what has happened since stays on record."""
        position, then = self.moments[-1 - number % len(self.moments)]
        names = [run.name for run in self.model.runs.values() if run.active or run.going_back or run.giving_up]
        event(f"rewind{' of what executes' if names else ''}")
        if names and not stops:
            self.runner.run(self._does_not_rewind(position))
        else:
            self.runner.run(self._rewind(position, then))

    async def _does_not_rewind(self, position: int) -> None:
        head = self.symphony.log.head
        with pytest.raises(RunsInProgressError):
            await self.symphony.rewind(position)
        await self._agree()
        assert self.symphony.log.head == head, "a refused request appends nothing"

    async def _rewind(self, position: int, then: dict[str, ModelRun]) -> None:
        report = await self.symphony.rewind(position, stop_runs=True)
        taken_back = {key.partition(":")[2] for key in report.rewound if key.startswith("Workflow:")}
        self.model.rewind(then, taken_back)
        waited = await asyncio.wait_for(asyncio.gather(*(task for _, task in self.pending), return_exceptions=True), PATIENCE_S)
        assert all(error is None or isinstance(error, (SymphonyError, Workflow)) for error in waited), waited
        self.pending.clear()
        self.hanging.clear()
        self.bodies.clear()  # an attempt that had begun since, and did not complete, is made again
        await self._agree()

    # -- rules: the world around --------------------------------------------------------------------------------------

    @rule(recovers=st.booleans())
    def crash(self, recovers: bool) -> None:
        """The process dies; another one opens what is on disk."""
        for run in self.model.runs.values():
            event(f"crash {'hanging ' if run.hanging else ''}{run.status} {'active' if run.active else 'idle'} {run.kind}")
        self.model.crash()
        self.runner.run(self._crash())
        self.runner.run(self._agree())
        if recovers:
            self.recover()

    @rule(seconds=st.sampled_from([1, REST_S, NAP_S]))
    def time_passes(self, seconds: int) -> None:
        """Sleeps end."""
        self.model.now += seconds
        self.model.settle()
        self.clock.advance(seconds)
        self.runner.run(self._agree())

    @rule(mode=st.sampled_from(["works", "fails", "hangs"]))
    def work_is_told(self, mode: Mode) -> None:
        """What becomes of work that begins from now on."""
        self.model.mode = mode

    @precondition(lambda self: any(run.hanging for run in self.model.runs.values()))
    @rule(number=numbers, works=st.booleans())
    def work_ends(self, number: int, works: bool) -> None:
        """Work that hangs comes to its end."""
        hanging = [run for run in self.model.runs.values() if run.hanging]
        self._end_work(hanging[number % len(hanging)], works=works)

    def _end_work(self, run: ModelRun, *, works: bool) -> None:
        event(f"work ends {run.status} {works}")
        self.model.release(run, works=works)
        self.model.settle()
        self.hanging.pop(run.name).set_result(works)
        self.runner.run(self._agree())

    @precondition(lambda self: any(run.active for run in self.model.runs.values()))
    @rule(number=numbers, times=st.integers(min_value=1, max_value=6))
    def gets_what_it_waits_for(self, number: int, times: int) -> None:
        """So many times: a run that would hardly ever come to its end by chance."""
        active = [run for run in self.model.runs.values() if run.active]
        for _ in range(times):
            self._push(active[number % len(active)])

    def _push(self, run: ModelRun) -> None:
        child = self.model.runs.get(run.children.get("kid", ""))
        if run.hanging:
            self._end_work(run, works=True)
        elif run.active and (to_come := [until for until in run.timers.values() if until > self.model.now]):
            self.time_passes(min(to_come) - self.model.now)  # a sleep that a cancellation has cut off may be over
        elif child is not None and child.active:
            self._push(child)
        elif run.status == "running":
            self._signal(run, next((name for name in ("x", "y") if "both" in run.attempts and f"both/{name}" not in run.outputs), "go"), 0)

    # -- what always holds --------------------------------------------------------------------------------------------

    @invariant()
    def no_body_runs_twice(self) -> None:
        """Each attempt at a step runs its body once, and of all attempts of a generation one at most comes to its end."""
        assert set(self.bodies.values()) <= {1}, self.bodies.most_common(3)
        assert set(self.finished.values()) <= {1}, self.finished.most_common(3)

    @invariant()
    def a_cancelled_run_has_cleaned_up_once(self) -> None:
        """Its clean-up steps have come to their end, each once under one key, or failed; a rewind to its end may have raised that since."""
        for run in self.model.runs.values():
            for address in ("cleanup/tidy", "cleanup/sweep"):
                if run.status == "cancelled" and (address == "cleanup/tidy" or address in run.outputs):
                    keys = [f"{run.name}:{address}:{generation}" for generation in range(run.generation(address) + 1)]
                    assert max(self.finished[key] for key in keys) == 1

    @invariant()
    def the_log_agrees_with_the_objects(self) -> None:
        """The fold of the log is the state of the objects."""
        self.runner.run(self._check_log())
        self.moments.append((self.symphony.log.head, self.model.moment()))

    async def _check_log(self) -> None:
        """As soon as nothing moves any more: a thread may bring something after the objects were looked at."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE_S
        while different := await self._differs_from_log():
            assert loop.time() < deadline, different
            await self._come_to_rest()

    async def _differs_from_log(self) -> list[str]:
        fold = await self.symphony.state_history.states_at(self.symphony.log.head)
        live = states_of(self.symphony)
        folded = {key: state.data for key, state in live_states(fold).items()}
        for run in await self.symphony.workflows.get_all_runs():  # those at rest are not among the live ones
            live.setdefault(f"Workflow:{run.id}", self.symphony.world.record_for(run).shadow)
        assert all(may_rest(state) for key, state in fold.states.items() if key in folded and key not in self.symphony.world.records)
        return [key for key in live.keys() | folded.keys() if live.get(key) != folded.get(key)]


TestRunOperations = RunOperations.TestCase
TestRunOperations.settings = settings(
    max_examples=int(os.environ.get("SYMPHONY_EXAMPLES", "60")),
    stateful_step_count=int(os.environ.get("SYMPHONY_STEPS", "40")),
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


class ElsewhereOperations(RunOperations):
    """The same, where another process recovers what a dead one has left, and is killed in its turn, before this one opens it."""

    server: ClassVar[Elsewhere]

    async def _meanwhile(self, directory: Path) -> None:
        self.model.recover()
        self.model.settle()
        self.model.crash()
        for what, key, attempt in await asyncio.to_thread(self.server.recover, directory, self.model.now, self.model.mode, self.model.runs):
            if what == "began":
                self.bodies[key, int(attempt)] += 1
            else:
                self.finished[key] += 1

    @rule(recovers=st.booleans())
    def crash_again(self, recovers: bool) -> None:
        """As often as all else."""
        self.crash(recovers)

    @rule(recovers=st.booleans())
    def crash_in_the_middle(self, recovers: bool) -> None:
        """Of what a run comes to by itself."""
        if any(run.active for run in self.model.runs.values()):
            self.gets_what_it_waits_for(0, 3)
        self.crash(recovers)


class TestElsewhereOperations(ElsewhereOperations.TestCase):
    """Crashes with a second process in between."""

    settings = settings(
        TestRunOperations.settings,
        max_examples=int(os.environ.get("SYMPHONY_EXAMPLES", "8")),
        stateful_step_count=int(os.environ.get("SYMPHONY_STEPS", "8")),
    )

    @classmethod
    def setUpClass(cls) -> None:
        """Imports are done once."""
        ElsewhereOperations.server = Elsewhere()

    @classmethod
    def tearDownClass(cls) -> None:
        """The server ends."""
        ElsewhereOperations.server.close()
