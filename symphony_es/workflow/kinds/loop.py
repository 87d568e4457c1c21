"""Loop steps: steps again and again, until a condition holds or a limit is reached. Each iteration is on record before it begins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from symphony_es.errors import LimitExceededError
from symphony_es.late_dataclasses import dataclass
from symphony_es.workflow.definitions.reading import DataReader
from symphony_es.workflow.definitions.steps import Step, StepLike, read_steps, register_step_kind, written
from symphony_es.workflow.runs.parts import PartOutputs

if TYPE_CHECKING:
    from symphony_es.workflow.engine.execution import StepExecution

__all__ = ["MAX_ITERATIONS", "LoopStep"]

MAX_ITERATIONS = 100_000
"""A loop that is meant to run for ever is a workflow that starts itself anew."""

ON_LIMIT = ("complete", "fail")


@register_step_kind
@dataclass(frozen=True, kw_only=True)
class LoopStep(Step):
    """Runs its steps repeatedly; the output is the list of what the iterations gave: the output of their last step each.

    Iteration n (from 0) executes at `<address>/<n>/<id>`. Its steps and conditions read `iteration`, its number, and `results`, the
    outputs of the iterations before it (`until` reads the present one's as well).

    Attributes:
        steps: of one iteration.
        max_iterations: the most that there can be.
        until: an expression, evaluated after each iteration; where it is true, the loop ends.
        while_: an expression, evaluated before each; where it is false, the loop ends. `while` in the dict form. Neither of both: exactly
            `max_iterations`.
        on_limit: what reaching `max_iterations` means where a condition would have the loop go on: `complete`, or `fail`.
    """

    kind: ClassVar[str] = "loop"
    reentrant: ClassVar[bool] = True
    nested_keys: ClassVar[tuple[str, ...]] = ("steps",)

    steps: Sequence[StepLike]
    max_iterations: int
    until: str | None = None
    while_: str | None = None
    on_limit: str = "complete"

    def children(self) -> dict[str, tuple[Step, ...]]:
        """Return the steps, at an index."""
        return {"*": tuple(step for step in self.steps if isinstance(step, Step))}

    def names_inside(self, index: int, progress: Any) -> dict[str, Any]:
        """Return the number of the iteration."""
        return {"iteration": index}

    def data(self) -> dict[str, Any]:
        """Return the steps, and when the loop ends."""
        return {
            "steps": written(self.steps),
            "max_iterations": self.max_iterations,
            **({"until": self.until} if self.until is not None else {}),
            **({"while": self.while_} if self.while_ is not None else {}),
            **({"on_limit": self.on_limit} if self.on_limit != ON_LIMIT[0] else {}),
        }

    @classmethod
    def read(cls, reader: DataReader, **common: Any) -> Self:
        """Read `steps`, `max_iterations`, `until`, `while` and `on_limit`."""
        limit = reader.whole("max_iterations", 1, MAX_ITERATIONS)
        if limit is None:
            raise reader.fault("max_iterations", "is missing: a loop says how often it may run at the most")
        if reader.value("until") is not None and reader.value("while") is not None:
            raise reader.fault("while", "a loop has `until` or `while`, not both")
        return cls(
            **common,
            steps=read_steps(reader.sequence("steps"), reader.at("steps"), least=1),
            max_iterations=limit,
            until=reader.expression("until"),
            while_=reader.expression("while"),
            on_limit=reader.choice("on_limit", ON_LIMIT),
        )

    async def perform(self, execution: StepExecution) -> Any:
        """Run the iterations, from the one on record.

        What `until` says of an iteration is on record with the next one's beginning, or with the loop's completion.

        Raises:
            ExpressionError: a condition cannot be evaluated.
            LimitExceededError: `on_limit` is `fail`, and the limit is reached.
        """
        steps = self.children()["*"]
        noted = execution.progress
        begun = -1 if noted is None else noted["iteration"]
        results = [execution.output_of(str(iteration), steps[-1].id) for iteration in range(begun)]
        for iteration in range(max(begun, 0), self.max_iterations):
            names = _Names(iteration, results, iteration)
            if iteration > begun:
                if self.while_ is not None and not execution.evaluate(self.while_, names):
                    return _output(results, steps[-1].id)
                await execution.note("WorkflowIterationBegun", {"iteration": iteration})
            results.append(await execution.run_sequence(steps, str(iteration), names=names))
            after = _Names(iteration, results, iteration + 1)
            if self.until is not None and execution.evaluate(self.until, after, str(iteration), steps=steps):
                return _output(results, steps[-1].id)
        if self.on_limit == "fail" and (self.until is not None or (self.while_ is not None and self._would_go_on(execution, results))):
            raise LimitExceededError(f"the loop has run max_iterations={self.max_iterations:,} times, and its condition does not end it")
        return _output(results, steps[-1].id)

    def _would_go_on(self, execution: StepExecution, results: list[Any]) -> bool:
        return bool(execution.evaluate(self.while_ or "True", _Names(self.max_iterations, results, self.max_iterations)))


def _output(results: Sequence[Any], last: str) -> Any:
    return PartOutputs(len(results), f"/{last}") if results else []


class _Names(Mapping[str, Any]):
    """What the steps of an iteration can read: its number, and the results of those before it, a list that is made when it is read."""

    __slots__ = ("_iteration", "_results", "_size")

    def __init__(self, iteration: int, results: Sequence[Any], size: int) -> None:
        self._iteration = iteration
        self._results = results
        self._size = size

    def __getitem__(self, name: str) -> Any:
        if name == "iteration":
            return self._iteration
        if name == "results":
            return list(self._results[: self._size])
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return name in _NAMES

    def __iter__(self) -> Iterator[str]:
        return iter(_NAMES)

    def __len__(self) -> int:
        return len(_NAMES)


_NAMES = ("iteration", "results")
