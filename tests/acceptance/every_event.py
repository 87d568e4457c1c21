"""The child process of the enumerated kills: goes on with a run, or begins it, and dies right after its k-th commit.

`python -m tests.acceptance.every_event` is a fork server: imports are done once. Each line of standard input is
`WORKFLOW DIRECTORY COMMITS`; the child dies when it has made so many commits durable and before anybody is told (0: never). Each
submission is a commit of its own, so that every boundary between transactions is one at which a child can die.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Self

from symphony_es import Symphony, entity
from symphony_es.log import writer as writer_module
from symphony_es.workflow import (
    DataReader,
    RunMoment,
    Step,
    StepExecution,
    StepList,
    WorkflowDefinition,
    WorkflowHook,
    gather,
    register_step_kind,
    run_workflow,
    sleep,
    step,
    step_context,
    wait_for_signal,
)

RUN = "main"


@entity(type="EveryEventCounter")
class Counter:
    id: str = ""
    total: int = 0


@register_step_kind
@dataclass(frozen=True, kw_only=True)
class DoublingStep(Step):
    """A kind that an application adds: runs one nested step, and gives twice its output."""

    kind: ClassVar[str] = "doubling"
    reentrant: ClassVar[bool] = True
    nested_keys: ClassVar[tuple[str, ...]] = ("inner",)

    inner: Step

    def children(self) -> dict[str, tuple[Step, ...]]:
        return {"": (self.inner,)}

    def data(self) -> dict[str, Any]:
        return {"inner": self.inner.to_dict()}

    @classmethod
    def read(cls, reader: DataReader, **common: Any) -> Self:
        return cls(**common, inner=Step.from_dict(reader.value("inner"), reader.at("inner")))

    async def perform(self, execution: StepExecution) -> Any:
        return 2 * await execution.run_step(self.inner, self.inner.id)


class JumpClock:
    """A clock on which no wait takes long: it jumps to the moment that is waited for."""

    def __init__(self) -> None:
        self._ahead = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self._ahead

    async def sleep_until(self, moment: datetime) -> None:
        await asyncio.sleep(0)
        self._ahead += max(moment - self.now(), timedelta())


def function(name: str, body: str | None = None, **more: Any) -> dict[str, Any]:
    """A function step whose function has the step's name, unless another is given."""
    return {"kind": "function", "name": name, "function": body or name, **more}


def declared_all() -> WorkflowDefinition:
    """Every kind of step, nested three deep and deeper."""
    deep = {"kind": "conditional", "name": "deep", "condition": "step.left.result == 'left'", "then": [function("leaf", "echo")]}
    fan = {
        "kind": "parallel",
        "name": "fan",
        "branches": [{"kind": "sequence", "name": "a", "steps": [function("left"), deep]}, function("b", "write")],
    }
    third = {"kind": "conditional", "name": "third", "condition": "True", "then": [function("else_if", "echo")]}
    inner = WorkflowDefinition(
        name="inner",
        steps=[
            function("first", "echo"),
            {"kind": "conditional", "name": "gate", "condition": "n == 3", "then": [function("second", "echo")]},
        ],
        output="{{ [n, step.gate.result] }}",
    )
    review = StepList().add_task("draft", "", "Draft {{ iteration }} on {{ topic }}").add_function("judge", "judge")
    return WorkflowDefinition(
        name="all",
        context={"topic": "rain", "items": [1, 2, 3]},
        steps=StepList()
        .add_function("plan", "plan", output_key="planned")
        .add_conditional("outer", "step.plan.result.score > 0.5", [fan], [function("never", "echo")])
        .add_conditional("second", "planned.score > 5", [function("never", "echo")], [third])
        .add_conditional(
            "flip", "topic == 'RAIN'", StepList().add_function("turn", "turn").add_function("turned", "echo"), [function("never", "echo")]
        )
        .add_loop("review", review, 5, until="step.judge.result >= 1")
        .add_map("each", "{{ items }}", StepList().add_function("one", "item").add_function("two", "written"))
        .add_parallel("collect", StepList().add_function("fine", "echo").add_function("bad", "bad"), on_error="collect")
        .add_wait("early")
        .add_wait("late")
        .add_wait("expiring", within_s=5, default="nobody came")
        .add_sleep("nap", 3600)
        .add_workflow("sub", inner, {"n": "{{ step.each.results[2] - 27 }}"})
        .add_function("flaky", "flaky", retry=3)
        .add_function("count", "count", atomic=True)
        .add_step({"kind": "doubling", "name": "twice", "inner": function("inner", "number")})
        .to_dicts(),
        output={"sub": "{{ step.sub.result }}", "twice": "{{ step.twice.result }}", "late": "{{ step.late.result.n }}"},
    )


def declared_small() -> WorkflowDefinition:
    """What `coded_small` does, as data."""
    parts = [{"kind": "sequence", "name": str(n), "steps": [function("draft", "draft"), function("check", "check")]} for n in range(3)]
    inner = WorkflowDefinition(name="inner", steps=[function("first", "number")])
    return WorkflowDefinition(
        name="small",
        steps=StepList()
        .add_function("plan", "small_plan")
        .add_parallel("fan", parts)
        .add_wait("late")
        .add_sleep("nap", 60)
        .add_workflow("sub", inner)
        .add_function("flaky", "flaky", retry=3)
        .to_dicts(),
        output="{{ [step.plan.result, step.fan.results, step.late.result, step.sub.result, step.flaky.result] }}",
    )


class Bodies:
    """The functions; each notes beside the log that it began."""

    def __init__(self, symphony: Symphony, effects: int) -> None:
        self.symphony = symphony
        self.effects = effects

    def note(self, context: Any) -> None:
        os.write(self.effects, f"{context.run_id} {context.step} {context.attempt} {context.idempotency_key}\n".encode())

    def register(self) -> None:
        for name, body in vars(type(self)).items():
            if name.startswith("do_"):
                self.symphony.functions.register(name.removeprefix("do_"), self._noted(body))

    def _noted(self, body: Callable[..., Any]) -> Callable[..., Any]:
        if asyncio.iscoroutinefunction(body):

            async def run(context: Any) -> Any:
                self.note(context)
                return await body(self, context)

            return run

        def run_in_thread(context: Any) -> Any:
            self.note(context)
            return body(self, context)

        return run_in_thread

    async def do_plan(self, context: Any) -> Any:
        context["topic"] = context["topic"].upper()
        return {"score": 0.7}

    async def do_turn(self, context: Any) -> Any:
        context["topic"] = "the condition of this branch does not hold any more"
        return None

    def do_echo(self, context: Any) -> Any:
        return context.step

    async def do_left(self, context: Any) -> Any:
        context["side"] = "left"
        return "left"

    async def do_write(self, context: Any) -> Any:
        context["side"] = "right"
        context["items"].append("mine alone")
        return context["items"]

    async def do_judge(self, context: Any) -> Any:
        context.append("judged", context["iteration"])
        return context["iteration"]

    async def do_item(self, context: Any) -> Any:
        context["seen"] = context["item"] * 10
        return context["item"]

    async def do_written(self, context: Any) -> Any:
        return context["seen"]

    async def do_bad(self, context: Any) -> Any:
        raise ValueError("always")

    async def do_flaky(self, context: Any) -> Any:
        run = context.symphony.entities.get(f"Workflow:{context.run_id}")
        if context.step not in run.failures:
            raise ConnectionError("not yet")
        return "at last"

    async def do_count(self, context: Any) -> Any:
        counter = self.symphony.entities.get("EveryEventCounter:c")
        counter.total += 1
        await asyncio.sleep(0)
        counter.total += 1
        return counter.total

    async def do_number(self, context: Any) -> Any:
        return 21

    async def do_small_plan(self, context: Any) -> Any:
        return ["a", "b", "c"]

    async def do_draft(self, context: Any) -> Any:
        return f"draft at {context.step.split('/')[1]}"

    async def do_check(self, context: Any) -> Any:
        return f"{context.outputs['draft']}, checked"


def coded_small(symphony: Symphony, bodies: Bodies) -> Any:
    """What `declared_small` does, as code."""

    async def noted(name: str) -> Any:
        context = step_context()
        bodies.note(context)
        return await getattr(bodies, f"do_{name}")(context)

    async def part(number: int) -> Any:
        draft = await step(noted, "draft", name="draft")

        async def check() -> str:
            bodies.note(step_context())
            return f"{draft}, checked"

        return await step(check, name="check")

    @symphony.workflow
    async def small() -> Any:
        plan = await step(noted, "small_plan", name="plan")
        parts = await gather(*(part(number) for number in range(len(plan))), name="fan")
        late = await wait_for_signal("late", name="late")
        await sleep(60, name="nap")
        sub = await run_workflow(WorkflowDefinition(name="inner", steps=[function("first", "number")]), name="sub")
        return [plan, parts, late, sub, await step(noted, "flaky", name="flaky", retry=3)]

    return small


class SendsLate(WorkflowHook):
    """Sends the signal `late` when the step that waits for it has begun; once, whatever dies."""

    def __init__(self) -> None:
        self.sending: asyncio.Task[None] | None = None

    async def step_started(self, moment: RunMoment) -> None:
        if moment.step == "late":
            self.sending = asyncio.ensure_future(send_once(moment.symphony, moment.run, "late", {"n": 7}))


async def send_once(symphony: Any, run: Any, name: str, payload: Any) -> None:
    """Sends a signal unless the log has it."""
    for event in await symphony.log.read_entity(f"Workflow:{run.id}"):
        if event.name == "WorkflowSignalReceived" and event.data["name"] == name:
            return
    await symphony.workflows.signal(run, name, payload)


async def go_on(kind: str, directory: str, commits: int) -> None:
    """One process: opens the log, goes on with the run or begins it, and waits for its end."""
    effects = os.open(f"{directory}.effects", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    writer_module.MAX_BATCH_EVENTS = 1
    symphony = Symphony({"state_dir": directory}, persistence_enabled=True)
    await symphony.setup()
    die_after(symphony.log, commits)
    await symphony.resume()
    bodies = Bodies(symphony, effects)
    bodies.register()
    coded = coded_small(symphony, bodies)
    engine = symphony.registry.get("workflow_engine")
    engine.clock = JumpClock()
    if symphony.entities.find("EveryEventCounter:c") is None:
        symphony.entities.add(Counter(id="c"))
        await symphony.flush()
    run = symphony.entities.find(f"Workflow:{RUN}")
    late = SendsLate()
    had_begun = run is not None and "late" in run.attempts and "late" not in run.outputs
    if run is None:
        definition = {"all": declared_all, "declared": declared_small, "coded": lambda: coded}[kind]()
        handle = await engine.start(definition, run_id=RUN, auto_checkpoint=False, hooks=[late])
    elif run.status in ("running", "pending"):
        handle = await engine.start(run, auto_checkpoint=False, hooks=[late])
    else:
        os.write(1, b"done\n")
        await symphony.close()
        return
    if kind == "all":
        await send_once(symphony, handle.run, "early", "bird")
    if had_begun:
        await send_once(symphony, handle.run, "late", {"n": 7})  # its step does not begin again, so the hook is not told
    await handle.result()
    if late.sending is not None:
        await late.sending
    await symphony.close()
    os.write(1, b"done\n")


def die_after(log: Any, commits: int) -> None:
    """Has this process killed when it has made so many commits."""
    writer = log._writer
    told = writer._on_appended
    made = 0

    def appended(head: int, time_ns: int) -> None:
        nonlocal made
        made += 1
        if made == commits:
            os.kill(os.getpid(), signal.SIGKILL)
        told(head, time_ns)

    writer._on_appended = appended


def serve() -> None:
    """Fork one child per line of standard input; say how it ended."""
    for line in sys.stdin:
        kind, directory, commits = line.split()
        pid = os.fork()
        if pid == 0:
            signal.alarm(30)  # a run that waits for what will never come is a failure, not a hanging test
            try:
                asyncio.run(go_on(kind, directory, int(commits)))
            except BaseException:
                sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        os.write(1, f"E {status}\n".encode())


if __name__ == "__main__":
    serve()
