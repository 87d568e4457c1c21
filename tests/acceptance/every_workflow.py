"""The workflows of the enumerated kills: every kind of step, as data and as code, and what is undone of them.

A body notes its run, step, attempt and key beside the log when it begins, as a service would that is called with that key.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Self

from symphony_es import Symphony, entity
from symphony_es.workflow import (
    DataReader,
    Step,
    StepExecution,
    StepList,
    WorkflowDefinition,
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
    mended: list[str] = field(default_factory=list)


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
        id="inner",
        name="inner",
        steps=[
            function("first", "echo"),
            {"kind": "conditional", "name": "gate", "condition": "n == 3", "then": [function("second", "echo")]},
        ],
        output="{{ [n, step.gate.result] }}",
    )
    review = StepList().add_task("draft", "", "Draft {{ iteration }} on {{ topic }}").add_function("judge", "judge")
    return WorkflowDefinition(
        id="all",
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
        .add_parallel("collect", StepList().add_function("fine", "echo").add_function("bad", "bad", retry=3), on_error="collect")
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
    inner = WorkflowDefinition(id="inner", name="inner", steps=[function("first", "number")])
    return WorkflowDefinition(
        id="small",
        name="small",
        steps=StepList()
        .add_function("plan", "small_plan")
        .add_parallel("fan", parts)
        .add_loop("review", [function("weigh", "weigh")], 5, until="step.weigh.result >= 2")
        .add_wait("late")
        .add_sleep("nap", 60)
        .add_workflow("sub", inner)
        .add_function("flaky", "flaky", retry=3)
        .to_dicts(),
        output="{{ [step.plan.result, step.fan.results, step.review.results, step.late.result, step.sub.result, step.flaky.result] }}",
    )


def undoable(name: str, body: str = "echo", **more: Any) -> dict[str, Any]:
    """A function step that is undone."""
    return function(name, body, undo="back", **more)


def declared_undone() -> WorkflowDefinition:
    """A run that fails, and undoes what it has begun: in branches, items, iterations and a child run; then it tidies up."""
    inner = WorkflowDefinition(id="inner", name="inner", steps=[undoable("first"), function("second", "echo"), undoable("third")])
    each = {"kind": "sequence", "name": "both", "steps": [undoable("one", "item")]}
    return WorkflowDefinition(
        id="undone",
        name="undone",
        steps=StepList()
        .add_step(function("book", "echo", undo={"kind": "function", "function": "flaky", "retry": 3}))
        .add_map("each", [1, 2], each, max_concurrency=1)
        .add_parallel("fan", StepList().add_step(undoable("left")).add_step(undoable("right")), max_concurrency=1)
        .add_loop("again", [undoable("turned")], 1)
        .add_workflow("sub", inner)
        .add_step(undoable("last", "bad", retry=2))
        .to_dicts(),
        cleanup=[function("tidy", "echo")],
        cleanup_on=("failure",),
    )


class Bodies:
    """The functions; each notes beside the log that it began."""

    def __init__(self, symphony: Symphony, note: Callable[[str], None]) -> None:
        self.symphony = symphony
        self._note = note

    def note(self, context: Any) -> None:
        self._note(f"{context.run_id} {context.step} {context.attempt} {context.idempotency_key}")

    def register(self) -> None:
        for name, body in vars(type(self)).items():
            if name.startswith("do_"):
                self.symphony.functions.register(name.removeprefix("do_"), self._noted(body))

    def _noted(self, body: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.iscoroutinefunction(body):

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
        if run.failures.get(context.step, {"count": 0})["count"] < 2:
            raise ConnectionError("not yet")
        return "at last"

    async def do_count(self, context: Any) -> Any:
        counter = self.symphony.entities.get("EveryEventCounter:c")
        counter.total += 1
        await asyncio.sleep(0)
        counter.total += 1
        return counter.total

    async def do_back(self, context: Any) -> Any:
        return [context.undoes.status, context.undoes.output, context.get("item")]

    async def do_second(self, context: Any) -> Any:
        if context.idempotency_key.endswith(":0"):
            raise ConnectionError("the first generation fails")
        return "done again"

    async def do_mended(self, context: Any) -> Any:
        if context.step.rpartition("/")[2] not in self.symphony.entities.get("EveryEventCounter:c").mended:
            raise ConnectionError(f"nobody has mended {context.step}")
        return context.step

    async def do_number(self, context: Any) -> Any:
        return 21

    async def do_small_plan(self, context: Any) -> Any:
        return ["a", "b", "c"]

    async def do_weigh(self, context: Any) -> Any:
        return context["iteration"]

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
        review: list[int] = []

        async def weigh() -> int:
            bodies.note(step_context())
            return len(review)

        while not review or review[-1] < 2:
            review.append(await step(weigh, name="weigh"))
        late = await wait_for_signal("late", name="late")
        await sleep(60, name="nap")
        sub = await run_workflow(WorkflowDefinition(id="inner", name="inner", steps=[function("first", "number")]), name="sub")
        return [plan, parts, review, late, sub, await step(noted, "flaky", name="flaky", retry=3)]

    return small


def coded_undone(symphony: Symphony, bodies: Bodies) -> Any:
    """A function that fails, and whose calls are undone with the arguments that they had."""

    async def noted(name: str) -> Any:
        bodies.note(step_context())
        return await getattr(bodies, f"do_{name}")(step_context()) if name == "bad" else name

    async def back(name: str) -> Any:
        bodies.note(step_context())
        undone = step_context().undoes
        assert undone is not None
        return [name, undone.status, undone.output]

    async def strand(name: str) -> Any:
        return await step(noted, name, name=name, undo=back)

    @symphony.workflow(cleanup_on="failure", cleanup=[function("tidy", "echo")])
    async def undone() -> Any:
        for name in ("a", "b"):
            await step(noted, name, name=name, undo=back)
        await gather(strand("left"))
        inner = WorkflowDefinition(id="inner", name="inner", steps=[undoable("first"), undoable("second")])
        await run_workflow(inner, name="sub")
        try:
            await step(noted, "bad", name="bad", undo=back)
        finally:
            await step(noted, "late", name="late", undo=back)

    return undone


def coded_resumed(symphony: Symphony, bodies: Bodies) -> Any:
    """A function whose clean-up fails until somebody has mended what it calls, as that of `declared_resumed` does."""

    async def noted(_name: str) -> Any:
        context = step_context()
        bodies.note(context)
        return await bodies.do_mended(context) if context.step in ("refund", "undo/pay", "undo/one") else context.step

    async def strand(name: str) -> None:
        try:
            await wait_for_signal("never", name="hold")
        finally:
            await step(noted, name, name=name)

    @symphony.workflow(
        cleanup=[{"kind": "wait", "name": "agree", "signal": "agree"}, function("tell", "mended"), function("tidy", "echo")],
    )
    async def resumed() -> Any:
        for name in ("pay", "pack", "one"):
            await step(noted, name, name=name, undo=noted)
        await strand("refund")

    return resumed
