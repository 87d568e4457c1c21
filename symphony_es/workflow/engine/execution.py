"""One attempt at one step: what a kind of step gets to work with.

Everything that a step can do to its run goes through here, also for kinds that an application adds. What has been recorded is not
done again: after a crash a composite step is entered anew, finds its own `progress`, and its completed children give their outputs.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from symphony_es.failures import is_failure
from symphony_es.late_dataclasses import dataclass
from symphony_es.workflow.definitions.definition import UNDO
from symphony_es.workflow.runs.cleanup import undoes_taken_back
from symphony_es.workflow.runs.context import RunContext
from symphony_es.workflow.runs.outputs import Frame, TemplateScope
from symphony_es.workflow.runs.parts import handed_on, output_at
from symphony_es.workflow.runs.run import ON_PARENT_END
from symphony_es.workflow.runs.thawing import thaw
from symphony_es.workflow.runs.unmade import handed

if TYPE_CHECKING:
    from symphony_es.core.host import Host
    from symphony_es.workflow.definitions.definition import WorkflowDefinition
    from symphony_es.workflow.definitions.steps import Step
    from symphony_es.workflow.engine.runner import Runner
    from symphony_es.workflow.runs.run import Workflow

__all__ = ["Branch", "StepExecution", "fitting_id", "idempotency_key"]

MAX_MADE_ID_BYTES = 480
"""How long an id may become that is made of a run's id and an address, in UTF-8: an entity's may take 512, and a number can follow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """One of the steps that run beside each other.

    Attributes:
        part: what its address ends with.
        step: what runs there.
        names: what its steps can read beside the run's context.
    """

    part: str
    step: Step
    names: Mapping[str, Any] = field(default_factory=dict)


class Made:
    """What a template gave before the step began: a value, or an error."""

    __slots__ = ("_error", "value")

    def __init__(self, value: Any, error: BaseException | None = None) -> None:
        self.value = value
        self._error = error

    def get(self) -> Any:
        """Give the value.

        Raises:
            BaseException: it could not be made.
        """
        if self._error is not None:
            raise self._error
        return self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class StepExecution:
    """Handed to `Step.perform`.

    Attributes:
        symphony: the Symphony that the run belongs to.
        run: the run; a step reads it, and writes through `context` and the methods here only.
        address: the step's address in the run.
        attempt: number of this attempt, from 1.
        context: the context as this attempt sees it; what is written there is recorded when the step completes.
        frame: the step's place in the run.
        runner: runs the steps inside of it.
        prepared: what templates gave before the start was on record.
        entered_again: whether the attempt began before: a crash or a pause has left it on the way.
    """

    symphony: Host
    run: Workflow
    address: str
    attempt: int
    context: RunContext
    frame: Frame
    runner: Runner
    prepared: dict[Any, Any] = field(default_factory=dict)
    entered_again: bool = False

    @property
    def run_id(self) -> str:
        """Id of the run."""
        return self.run.id

    @property
    def unique_id(self) -> str:
        """An id for what the step creates: the same for every attempt after a crash, another one once the step was taken back."""
        address, generation = executed_as(self.address, self.generation)
        return fitting_id(f"{self.run.id}/{address}{f'@{generation}' if generation else ''}")

    @property
    def generation(self) -> int:
        """How often the step, or one around it, has been taken back by a rewind or by `retry_from`."""
        return self.runner.generations.of(self.address)

    @property
    def progress(self) -> Any:
        """What `note` has recorded last, as a copy; None while nothing has been."""
        return thaw(self.run.progress.get(self.address))

    def now(self) -> datetime:
        """Return the present moment of the engine's clock, UTC."""
        return self.runner.clock.now()

    def render(self, template: Any) -> Any:
        """Return the template with its expressions replaced, as a copy of its own.

        Raises:
            TemplateError: it names what is not there.
        """
        if self.run.definition.code is not None:
            return handed(template, self.symphony.world)  # code gives values, whose braces are text
        made = self.prepared.pop(id(template), None)
        if made is not None:
            return made.get()
        from symphony_es.workflow.language.templates import render  # late: only texts in definitions need the language

        return handed(thaw(render(template, TemplateScope(self.frame, self.context.reads))), self.symphony.world)

    def prepare(self, template: Any) -> Any:
        """Return the same, before the step's start is on record, for `Step.works_with`; `render` gives it out once.

        An error in it is kept for `render`, which raises it where the step performs: it is a failure of the attempt.
        """
        if self.run.definition.code is not None:
            return template
        return self._prepared(id(template), lambda: self.render(template))

    def prepare_condition(self, expression: str) -> Any:
        """Return the value of an expression, as `prepare` does it; `evaluate` gives it out once."""
        return self._prepared(expression, lambda: self.evaluate(expression))

    def _prepared(self, key: Any, make: Callable[[], Any]) -> Any:
        try:
            made = Made(make())
        except BaseException as error:  # values of the application's classes are asked for what they are
            if not is_failure(error, asyncio.current_task()):
                raise
            made = Made(None, error)
        self.prepared[key] = made
        return made.value

    def evaluate(self, expression: str, names: Mapping[str, Any] | None = None, *parts: str, steps: Sequence[Step] = ()) -> Any:
        """Return the value of an expression, as a copy of its own.

        Args:
            expression: in the language of conditions.
            names: what it can read beside what this step can.
            *parts: with `steps`, where they ran: it reads their outputs as they read each other's.
            steps: of a sequence inside this step.

        Raises:
            ExpressionError: it cannot be evaluated.
        """
        made = self.prepared.pop(expression, None)
        if made is not None:
            return made.get()
        frame = Frame(self.run, "/".join((self.address, *parts, "")), steps, self.frame, names=names)
        from symphony_es.workflow.language.expressions import evaluate

        return thaw(evaluate(expression, TemplateScope(frame, self.context.reads)))

    def output_of(self, *parts: str) -> Any:
        """Return the output of a nested step that has completed, as a copy."""
        return thaw(output_at(self.run, "/".join((self.address, *parts))))

    async def note(self, event_name: str, progress: Any) -> None:
        """Record what the step must not decide again; durable before the next body or wait begins.

        Args:
            event_name: what happened, in the past tense.
            progress: plain data; replaces what was noted before.
        """
        await self.runner.note(self.address, event_name, progress)

    async def run_sequence(self, steps: Sequence[Step], *parts: str, names: Mapping[str, Any] | None = None) -> Any:
        """Run steps one after the other, at the step's address followed by `parts` and their ids; give the last one's output.

        Args:
            steps: none give None.
            *parts: between the step's address and the ids of the steps.
            names: what they can read beside what this step can.
        """
        prefix = "/".join((self.address, *parts, ""))
        await self.runner.run_sequence(Frame(self.run, prefix, steps, self.frame, names=names))
        return thaw(output_at(self.run, prefix + steps[-1].id)) if steps else None

    async def run_in_place(self, steps: Sequence[Step], *parts: str) -> Any:
        """Run steps like `run_sequence`, for a step whose own output the last one's is: that stands on record once."""
        prefix = "/".join((self.address, *parts, ""))
        await self.runner.run_sequence(Frame(self.run, prefix, steps, self.frame))
        return handed_on(self.run, self.address, "/".join((*parts, steps[-1].id))) if steps else None

    async def run_step(self, step: Step, *parts: str, own_keys: bool = False, names: Mapping[str, Any] | None = None) -> Any:
        """Run one step at the step's address followed by `parts`, and give its output.

        Args:
            step: what runs.
            *parts: at least one.
            own_keys: what it writes stays in a key space of its own.
            names: what it can read beside what this step can.
        """
        address = "/".join((self.address, *parts))
        frame = Frame(self.run, outer=self.frame, names=names, key_space=address if own_keys else None)
        await self.runner.run_step(step, address, frame)
        return thaw(output_at(self.run, address))

    async def run_together(
        self, branches: Sequence[Branch], *, max_concurrency: int | None = None, collect: bool = False
    ) -> dict[str, Any]:
        """Run steps beside each other, each with a key space of its own.

        Args:
            branches: in the order in which they begin.
            max_concurrency: how many at once; None for all.
            collect: let the others go on when one fails. Otherwise they are cancelled, and the failure is raised.

        Returns:
            outputs by part, in the order given; of a failed one `{"error": {"type", "message"}}`.
        """
        return await self.runner.run_together(self, branches, max_concurrency, collect=collect)

    async def sleep_until(self, moment: datetime) -> None:
        """Wait for a moment, across pauses and crashes; note it before, so that it stays the same."""
        await self.runner.sleep_until(moment)

    async def take_signal(self, name: str, until: datetime | None = None) -> Any:
        """Take the oldest signal of a name that nobody has taken, or wait for one; recorded at once, so it is taken once.

        Raises:
            TimeoutError: `until` has passed.
        """
        return await self.runner.take_signal(self.address, name, until)

    async def run_workflow(
        self, definition: WorkflowDefinition, context: Mapping[str, Any], *, on_parent_end: str = ON_PARENT_END[0]
    ) -> Workflow:
        """Run a definition as a run of its own, linked both ways, and wait for its end; after a crash it goes on with that run.

        Args:
            definition: what to run.
            context: values for the child run's context.
            on_parent_end: what becomes of a child run that has not ended when this run ends: `cancel`, `terminate` or `abandon`.

        Raises:
            RunFailedError: it failed; another attempt at the step resumes it.
            RunCancelledError: it was cancelled.
        """
        return await self.runner.run_child(self, definition, context, on_parent_end)


def idempotency_key(run_id: str, address: str, generation: int) -> str:
    """Return the key of one step execution: a crash keeps it, what takes the step back raises the generation, a fork has another run."""
    address, generation = executed_as(address, generation)
    return f"{run_id}:{address}:{generation}"


def executed_as(address: str, generation: int) -> tuple[str, int]:
    """Return the address and generation that keys and ids of a step execution are made of.

    What undoes a step that was taken back has those that it had before: it may have begun then, and is done once.
    """
    undone = undoes_taken_back(address) if generation == 0 else None
    return (address, generation) if undone is None else (f"{UNDO}/{undone[0]}", undone[1])


def fitting_id(made: str) -> str:
    """Return an id that is made of others, as it is where an entity's id may be so long; else its beginning and a digest of all of it.

    A run of a run of a run has an id that grows with each: none of them fails because of that.
    """
    encoded = made.encode()
    if len(encoded) <= MAX_MADE_ID_BYTES:
        return made
    kept = encoded[: MAX_MADE_ID_BYTES // 2].decode(errors="ignore")
    return f"{kept}~{hashlib.sha256(encoded).hexdigest()[:32]}"
