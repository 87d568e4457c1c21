"""Map steps: one step for each item of a list. The items are on record, so a crash changes neither their number nor their order."""

from __future__ import annotations

import asyncio
from keyword import iskeyword
from typing import TYPE_CHECKING, Any, ClassVar, Self

from symphony_es.errors import ExpressionError, LimitExceededError
from symphony_es.late_dataclasses import dataclass
from symphony_es.shown import quoted
from symphony_es.workflow.definitions.reading import DataReader
from symphony_es.workflow.definitions.steps import Step, StepLike, as_step, register_step_kind, written
from symphony_es.workflow.engine.branches import AT_ONCE
from symphony_es.workflow.engine.execution import Branch
from symphony_es.workflow.kinds.parallel import ON_ERROR
from symphony_es.workflow.runs.parts import PartOutputs

if TYPE_CHECKING:
    from symphony_es.workflow.engine.execution import StepExecution

__all__ = ["MAX_ITEMS", "MapStep"]

MAX_ITEMS = 100_000
"""Each item is some events and a task of the event loop; more of them are work for runs of their own."""


@register_step_kind
@dataclass(frozen=True, kw_only=True)
class MapStep(Step):
    """Runs a step for each item of a list, beside each other; the output is the list of outputs, in the order of the items.

    Item n (from 0) executes at `<address>/<n>`, with a key space of its own; the step reads it as `item`, and its number as `index`.

    Attributes:
        over: a template that gives a list, or a list whose texts may be templates.
        step: what is done to each; a sequence step does several things.
        item_name: the name under which the item is read; `as` in the dict form.
        max_concurrency: how many run at once; None for all.
        on_error: `fail_fast` or `collect`, as in a parallel step.
    """

    kind: ClassVar[str] = "map"
    reentrant: ClassVar[bool] = True
    nested_keys: ClassVar[tuple[str, ...]] = ("step",)
    together: ClassVar[bool] = True

    over: Any
    step: StepLike
    item_name: str = "item"
    max_concurrency: int | None = None
    on_error: str = "fail_fast"

    def children(self) -> dict[str, tuple[Step, ...]]:
        """Return the step, at an index."""
        return {"*": (self.step,)} if isinstance(self.step, Step) else {}

    def names_inside(self, index: int, progress: Any) -> dict[str, Any]:
        """Return the item, and its number."""
        return {"index": index} if progress is None else {self.item_name: progress["items"][index], "index": index}

    def data(self) -> dict[str, Any]:
        """Return the items, the step, and how it runs."""
        return {
            "over": self.over,
            "step": written([self.step])[0],
            **({"as": self.item_name} if self.item_name != "item" else {}),
            **({"max_concurrency": self.max_concurrency} if self.max_concurrency is not None else {}),
            **({"on_error": self.on_error} if self.on_error != ON_ERROR[0] else {}),
        }

    @classmethod
    def read(cls, reader: DataReader, **common: Any) -> Self:
        """Read `over`, `step`, `as`, `max_concurrency` and `on_error`."""
        over = reader.template("over", required=True)
        if not isinstance(over, (str, list, tuple)):
            raise reader.fault("over", f"must be a template or a list, not {type(over).__name__}")
        if isinstance(over, str) and "{{" not in over:
            raise reader.fault("over", f"a text is no list; a template that gives one is {{{{ {over} }}}}")
        if isinstance(over, (list, tuple)) and len(over) > MAX_ITEMS:
            raise reader.fault("over", f"a map goes over at most {MAX_ITEMS:,} items, not {len(over):,}")
        name = reader.text("as", default="item")
        if name in ("index", "step", "context") or not _can_be_read(name):
            raise reader.fault(
                "as", f"{quoted(name)} is no name that expressions can read; 'index', 'step' and 'context' have other meanings"
            )
        if reader.value("step") is None:
            raise reader.fault("step", "is missing")
        return cls(
            **common,
            over=over,
            step=as_step(reader.value("step"), reader.at("step")),
            item_name=name,
            max_concurrency=reader.whole("max_concurrency", 1),
            on_error=reader.choice("on_error", ON_ERROR),
        )

    def works_with(self, execution: StepExecution) -> dict[str, Any]:
        """Return the items."""
        return {"over": execution.prepare(self.over)} if execution.progress is None else {}

    async def perform(self, execution: StepExecution) -> Any:
        """Fix the items, and run the step for each.

        Raises:
            TypeError: `over` gives no list.
            LimitExceededError: there are more than 100,000 items.
        """
        fixed = execution.progress
        if fixed is None:
            items = execution.render(self.over)
            if not isinstance(items, (list, tuple)):
                raise TypeError(f"a map goes over a list, and {quoted(self.over)} gives a {type(items).__name__}")
            if len(items) > MAX_ITEMS:
                raise LimitExceededError(f"a map goes over at most {MAX_ITEMS:,} items, and {quoted(self.over)} gives {len(items):,}")
            fixed = {"items": list(items)}
            await execution.note("WorkflowItemsFixed", fixed)
        (step,) = self.children()["*"]
        branches: list[Branch] = []
        for index, item in enumerate(fixed["items"]):
            branches.append(Branch(part=str(index), step=step, names={self.item_name: item, "index": index}))
            if index % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(0)  # others have their turn
        await execution.runner.run_parts(execution, branches, self.max_concurrency, collect=self.on_error == "collect")
        return PartOutputs(len(branches)) if branches else []


def _can_be_read(name: str) -> bool:
    from symphony_es.workflow.language.expressions import check_expression  # late: only texts in definitions need the language

    try:
        check_expression(name)
    except ExpressionError:
        return False
    return name.isidentifier() and not iskeyword(name)
