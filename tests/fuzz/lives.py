"""What each process does with a random program, and what must come of it: runs are interrupted, paused, taken back on the way."""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from symphony_es import Symphony
from symphony_es.errors import IllegalTransitionError, RunInterruptedError
from symphony_es.workflow import RunContext, Workflow, step_context
from tests.acceptance.every_workflow import JumpClock
from tests.fuzz import coded, declared

__all__ = ["RUN", "Coded", "Declared", "Diverged", "Found", "Fuzzer", "Life", "same_work"]

RUN = "r"
MOST_DEATHS, MOST_COMMITS = 8, 30
MOST_TURNS = 60
"""Of the event loop, before a run is disturbed."""
FAILURES = 2
"""So many calls of a function that fails at first do."""


Found = dict[str, Any]
"""What has come of a program, as JSON can say it."""
Life = Callable[[Symphony, list[str]], Awaitable[Found]]
"""What one process does, given what has been noted outside so far."""


class Fuzzer(Protocol):
    """A kind of random programs.

    Attributes:
        undoable: the names of steps that have an undo.
    """

    undoable: frozenset[str]

    def life(self, seed: int) -> Life:
        """What each process does with the program of a seed: begin it, or go on with it, and bring it to its end."""

    def deaths(self, chosen: random.Random) -> list[int]:
        """After how many commits each of the processes dies; the one after them does not."""

    def compare(self, seed: int, found: Found, notes: list[str]) -> None:
        """Look at what has come of the program of a seed, and at what was noted outside.

        Raises:
            AssertionError: it should be something else.
        """


class Diverged(AssertionError):
    """A run is not what the plain interpreter of the same program says."""


class Functions:
    """The functions of the programs; each notes what it is called for, as a service outside would.

    Args:
        note: takes a line.
        notes: the lines so far, of all processes.
    """

    def __init__(self, notes: list[str]) -> None:
        self._notes = notes

    def _note(self, context: RunContext, seen: str) -> int:
        """How often the step has been called, this call included."""
        line = f"{context.idempotency_key} {seen}"
        self._notes.append(line)
        called = same_work(context.idempotency_key)
        return sum(same_work(noted.rpartition(" ")[0]) == called for noted in self._notes)

    async def work(self, context: RunContext) -> str:
        self._note(context, _seen(context))
        await asyncio.sleep(0)
        context.append("trail", context.step)
        return context.step

    async def flaky(self, context: RunContext) -> str:
        calls = self._note(context, _seen(context))
        context["junk"] = "of an attempt that fails"
        if calls <= FAILURES:
            raise OSError("flaky")
        del context["junk"]
        return "ok"

    async def once(self, context: RunContext) -> str:
        calls = self._note(context, _seen(context))
        await asyncio.sleep(0)
        if calls <= FAILURES:
            raise OSError("once")
        context.append("trail", context.step)
        return context.step

    async def bad(self, context: RunContext) -> None:
        self._note(context, _seen(context))
        raise ValueError("bad")

    async def fine(self, context: RunContext) -> str:
        return await self.work(context)

    async def call(self, kind: str, place: str) -> str:
        """The body of all steps of a program written as code."""
        calls = self._note(step_context(), place)
        await asyncio.sleep(0)
        if kind == "fail":
            raise ValueError(place)
        if kind in ("flaky", "once") and calls <= FAILURES:
            raise OSError(place)
        return place

    def register(self, symphony: Symphony) -> None:
        """Have definitions find them."""
        for body in (self.work, self.flaky, self.once, self.bad, self.fine):
            symphony.functions.register(body.__name__, body)


def _seen(context: RunContext) -> str:
    return f"{context['k']}|{context['m']}|{len(context['trail'])}"


def same_work(key: str) -> str:
    """An idempotency key without the generations in it."""
    return re.sub(r"@\d+|(:\d+$)", "", key)


def _without_generations(value: Any) -> Any:
    """A result, where errors name runs of any generation."""
    if isinstance(value, dict):
        return {key: _without_generations(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_generations(inner) for inner in value]
    return re.sub(r"@\d+", "", value) if isinstance(value, str) and value.startswith("run ") else value


def _life_of(seed: int, what: Any, *, failing: bool) -> Life:
    """What each process does with a program: go on with its run, disturb it, and bring it to its end.

    Args:
        seed: of the disturbances.
        what: a definition, or a program of code.
        failing: whether a failed run is resumed, or taken back to a step, until it completes.
    """

    async def live(symphony: Symphony, notes: list[str]) -> Found:
        chosen = random.Random(f"{seed} {len(notes)}")
        functions = Functions(notes)
        functions.register(symphony)
        engine = symphony.registry.get("workflow_engine")
        engine.clock = JumpClock()
        defined = what
        if not isinstance(what, dict):

            @symphony.workflow
            async def random_program() -> list[Any]:
                return await coded.interpret(what, "", functions.call)

            defined = random_program
        await symphony.resume()
        workflows = symphony.workflows
        await workflows.recover(False, wait=False)
        await workflows.start(defined, auto_checkpoint=False, run_id=RUN, if_exists="return")
        for _ in range(chosen.randint(0, 3)):
            for _ in range(chosen.randint(1, MOST_TURNS)):
                await asyncio.sleep(0)
            run = await workflows.get_run(RUN)
            if run.status == "running":
                await _disturb(symphony, run, chosen.choice(["interrupt", "pause"]))
        run = await _to_its_end(symphony)
        while failing and run.status == "failed":
            run = await _try_again(symphony, run, chosen)
        return {
            "status": str(run.status),
            "result": _without_generations(run.result),
            "context": dict(run.to_dict()["context"]),
            "error": run.error and [run.error["type"], run.error["step"]],
            "failures": await _failures(symphony),
        }

    return live


async def _disturb(symphony: Symphony, run: Workflow, how: str) -> None:
    try:
        if how == "pause":
            await symphony.workflows.pause(run)
        else:
            await symphony.registry.get("workflow_engine").interrupt([run.id])
    except IllegalTransitionError:
        return  # it has ended meanwhile


async def _to_its_end(symphony: Symphony) -> Workflow:
    while True:
        run = await symphony.workflows.get_run(RUN)
        if run.status in ("paused", "running") and run.id not in symphony.registry.get("workflow_engine").active_runs:
            await symphony.workflows.start(run, auto_checkpoint=False)
        try:
            run = await symphony.workflows.handle(run).wait()
        except RunInterruptedError:
            continue
        if run.status != "paused":
            return run


async def _try_again(symphony: Symphony, run: Workflow, chosen: random.Random) -> Workflow:
    if chosen.random() < 0.5:
        return await symphony.workflows.resume(run, False)
    steps = list(run.attempts)
    return await symphony.workflows.retry_from(run, chosen.choice(steps), False)


async def _failures(symphony: Symphony) -> dict[str, int]:
    """How often each step has failed, but for those of bodies that fail at first, which are called again by processes that die."""
    counted: Counter[str] = Counter()
    async for page in symphony.log.read(names=["WorkflowStepFailed"]):
        for event in page:
            if event.data["type"] in ("ValueError", "RunFailedError"):
                counted[f"{event.entity_key.removeprefix('Workflow:')}:{event.metadata.step}"] += 1
    return dict(counted)


def _compare(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for what, value in expected.items():
        if found[what] != value:
            raise Diverged(f"{what}: {found[what]!r}, expected {value!r}")


def _compare_calls(notes: list[str], expected: set[str], *, once: bool) -> None:
    calls = {tuple(note.rsplit(" ", 1)) for note in notes}
    found = {f"{same_work(key)} {seen}" for key, seen in calls}
    if found != expected:
        raise Diverged(f"calls: {sorted(found - expected)} too many, {sorted(expected - found)} missing")
    keys = {key for key, _ in calls}
    if once and len(keys) != len({same_work(key) for key in keys}):
        raise Diverged(f"a step was called under two keys: {sorted(keys)}")


class _Dying:
    """Programs whose processes die one soon after the other."""

    undoable = frozenset[str]()

    def deaths(self, chosen: random.Random) -> list[int]:
        """See `Fuzzer`."""
        return [chosen.randint(1, MOST_COMMITS) for _ in range(MOST_DEATHS)]


@dataclass(frozen=True)
class Declared(_Dying):
    """Random definitions of steps of some kinds."""

    kinds: Sequence[str] = declared.KINDS

    @property
    def _failing(self) -> bool:
        return "once" in self.kinds

    def life(self, seed: int) -> Life:
        """See `Fuzzer`."""
        return _life_of(seed, declared.definition(seed, self.kinds), failing=self._failing)

    def compare(self, seed: int, found: Found, notes: list[str]) -> None:
        """The run completes as the interpreter's does."""
        plain = declared.Plain(declared.definition(seed, self.kinds), RUN)
        _compare(found, {"status": "completed", "result": plain.result, "context": plain.context, "error": None})
        _compare_calls(notes, {f"{run_id}:{at} {seen}" for run_id, at, seen in plain.calls}, once=not self._failing)
        if not self._failing:
            _compare(found, {"failures": dict(plain.failures)})


@dataclass(frozen=True)
class Coded(_Dying):
    """Random programs of code-first workflows; those that are `failing` fail their run a few times."""

    failing: bool

    def life(self, seed: int) -> Life:
        """See `Fuzzer`."""
        return _life_of(seed, coded.program(seed, failing=self.failing), failing=self.failing)

    def compare(self, seed: int, found: Found, notes: list[str]) -> None:
        """The run ends as the interpreter's does."""
        plain = coded.Plainly(coded.program(seed, failing=self.failing))
        status, error = ("completed", None) if plain.error is None else ("failed", ["ValueError", plain.error])
        _compare(found, {"status": status, "result": plain.result, "error": error})
        _compare_calls(notes, {f"{RUN}:{at} {place}" for at, place in plain.calls}, once=not self.failing)
