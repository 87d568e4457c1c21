"""Lists steps by a chain of calls: what a definition does, and what is nested inside of its steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from symphony_es.core.objects.frozen import copied
from symphony_es.errors import ConfigurationError, DefinitionError
from symphony_es.shown import quoted, shown
from symphony_es.workflow.definitions.retry import RetryPolicy
from symphony_es.workflow.definitions.steps import NO_DEFAULT, Step, StepLike, written
from symphony_es.workflow.kinds.function import name_function

if TYPE_CHECKING:
    from symphony_es.core.host import Host
    from symphony_es.workflow.definitions.definition import WorkflowDefinition

__all__ = ["NestedSteps", "StepList", "as_dicts"]

NestedSteps: TypeAlias = "StepList | Sequence[StepLike] | Step | Mapping[str, Any]"
"""What goes inside a step: a list of steps, steps, the dicts of steps, or one of them alone."""


class StepList:
    """Steps in the making, in order; every method returns the list. Nothing is checked before a definition is made of it.

    What is given is copied: it is there as it was when it was given.

    All `add_…` take `description`, `output_key`, `retry` (a policy, its dict, or a number of attempts), `timeout_s` and `id` as well.

    Example:
        >>> steps = StepList().add_task("draft", "", "Draft {{ topic }}").add_task("check", "", "Check {{ step.draft.result }}")
        >>> [step["name"] for step in steps.to_dicts()]
        ['draft', 'check']

    Args:
        symphony: where functions are looked up by name.

    Raises:
        ConfigurationError: something else is given, as a name or steps.
    """

    def __init__(self, symphony: Host | None = None) -> None:
        if symphony is not None and not hasattr(symphony, "functions"):
            how = f"{type(self).__name__}()" + (".create(name)" if hasattr(self, "create") else ".add_function(...)")
            raise ConfigurationError(
                f"{type(self).__name__} takes a Symphony or nothing, not {type(symphony).__name__} {shown(symphony)}: begin with {how}"
            )
        self._symphony = symphony
        self._steps: list[dict[str, Any]] = []

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return the steps as plain dicts."""
        return list(map(copied, self._steps))

    def add_task(
        self,
        name: str,
        description: str = "",
        task_template: str = "",
        agent_id: str | None = None,
        *,
        agent: Any = None,
        agent_type: str | None = None,
        model: str | None = None,
        inputs: Mapping[str, Any] | None = None,
        **common: Any,
    ) -> Self:
        """Add a task step.

        Args:
            name: unique among its siblings.
            description: for readers; also what is asked when there is no template.
            task_template: what is asked, with `{{ … }}`.
            agent_id: who performs it.
            agent: the same, as an Agent or an EntityReference.
            agent_type: any agent whose config has this `agent_type`.
            model: model client to use in place of the agent's own.
            inputs: further input data of the task; texts in it may be templates.
            **common: what all steps take.
        """
        return self._add(
            "task",
            name,
            description=description,
            template=task_template or description,
            agent_id=agent_id if agent is None else _id_of(agent),
            agent_type=agent_type,
            model=model,
            inputs=dict(inputs or {}),
            **common,
        )

    def add_function(
        self,
        name: str | Callable[..., Any],
        function: str | Callable[..., Any] | None = None,
        description: str = "",
        *,
        inputs: Mapping[str, Any] | None = None,
        atomic: bool = False,
        **common: Any,
    ) -> Self:
        """Add a function step: `add_function("rate", rate)`, or `add_function(rate)`, which is named like its function.

        Args:
            name: unique among its siblings; or the function alone.
            function: registered name, `module:qualname`, or a function that has either.
            description: for readers.
            inputs: handed to the function as `context.inputs`; texts in it may be templates.
            atomic: what the function changes in entities and the step's completion are one transaction.
            **common: what all steps take.

        Raises:
            DefinitionError: a lambda, closure or method that no other process could find by name.
        """
        if function is None:
            if not callable(name):
                raise DefinitionError(f"steps[{len(self._steps)}].function", f"is missing: add_function({shown(name)}, function)")
            name, function = getattr(name, "__name__", ""), name
        if not isinstance(name, str):
            place = f"steps[{len(self._steps)}].name"
            raise DefinitionError(place, f"must be a str, not {type(name).__name__}: add_function('name', function)")
        functions = self._symphony.functions if self._symphony is not None else None
        named = name_function(function, functions, f"steps[{len(self._steps)}].function")
        return self._add(
            "function", name, description=description, function=named, inputs=dict(inputs or {}), atomic=atomic or None, **common
        )

    def add_processing_step(
        self,
        name: str,
        description: str = "",
        processing_function: str | Callable[..., Any] = "",
        context_data: Mapping[str, Any] | None = None,
        **common: Any,
    ) -> Self:
        """Return `add_function`, in the order of arguments that the original library has."""
        return self.add_function(name, processing_function, description, inputs=context_data, **common)

    def add_sequence(self, name: str, steps: NestedSteps, *more: NestedSteps, **common: Any) -> Self:
        """Add several steps in the place of one, for example as a branch: in one list, or one after the other."""
        return self._add("sequence", name, steps=_all_dicts(steps, *more), **common)

    def add_conditional(self, name: str, condition: str, then: NestedSteps, otherwise: NestedSteps = (), **common: Any) -> Self:
        """Add a conditional step: `then` where the condition is true, `otherwise` where it is not."""
        return self._add("conditional", name, condition=condition, then=as_dicts(then), **{"else": as_dicts(otherwise) or None}, **common)

    def add_parallel(
        self, name: str, branches: NestedSteps, max_concurrency: int | None = None, on_error: str = "fail_fast", **common: Any
    ) -> Self:
        """Add branches that run beside each other, one step each.

        Args:
            name: unique among its siblings.
            branches: a sequence step is a branch of several steps.
            max_concurrency: how many run at once; None for all.
            on_error: `fail_fast`: the first failure cancels the others; `collect`: it is among the outputs.
            **common: what all steps take.
        """
        return self._add("parallel", name, branches=as_dicts(branches), max_concurrency=max_concurrency, on_error=on_error, **common)

    def add_loop(
        self,
        name: str,
        steps: NestedSteps,
        max_iterations: int,
        until: str | None = None,
        while_: str | None = None,
        on_limit: str = "complete",
        **common: Any,
    ) -> Self:
        """Add steps that are repeated until `until` is true, or while `while_` is, or `max_iterations` times."""
        given = {"max_iterations": max_iterations, "until": until, "while": while_, "on_limit": on_limit}
        return self._add("loop", name, steps=as_dicts(steps), **given, **common)

    def add_map(
        self,
        name: str,
        over: Any,
        step: NestedSteps,
        *more: NestedSteps,
        item_name: str = "item",
        max_concurrency: int | None = None,
        on_error: str = "fail_fast",
        **common: Any,
    ) -> Self:
        """Add one step that is run for each item of a list; several given steps become a sequence."""
        inner = _all_dicts(step, *more)
        one = inner[0] if len(inner) == 1 else {"kind": "sequence", "name": f"{name} item", "steps": inner}
        given = {"over": over, "step": one, "as": item_name, "max_concurrency": max_concurrency, "on_error": on_error}
        return self._add("map", name, **given, **common)

    def add_wait(self, name: str, signal: str = "", within_s: float | str | None = None, default: Any = NO_DEFAULT, **common: Any) -> Self:
        """Add a wait for a signal (named like the step by default); `default` is the output when `within_s` seconds are up.

        Raises:
            DefinitionError: a default beside `timeout_s`, which ends the attempt as a failure and begins anew after a crash.
        """
        if default is not NO_DEFAULT and within_s is None and common.get("timeout_s") is not None:
            raise DefinitionError(
                f"steps[{len(self._steps)}].default",
                f"is for within_s, how long to wait: add_wait({shown(name)}, within_s={quoted(common['timeout_s'])}, default=...); "
                "timeout_s ends an attempt as a failure",
            )
        self._add("wait", name, signal=signal or name, within_s=within_s, **common)
        if default is not NO_DEFAULT:
            self._steps[-1]["default"] = copied(default)
        return self

    def add_sleep(self, name: str, seconds: float | str | None = None, until: datetime | str | None = None, **common: Any) -> Self:
        """Add a wait of so many seconds, or until a moment."""
        return self._add("sleep", name, seconds=seconds, until=until, **common)

    def add_workflow(
        self, name: str, workflow: WorkflowDefinition | Mapping[str, Any] | str, context: Mapping[str, Any] | None = None, **common: Any
    ) -> Self:
        """Add a child run of a definition, or of a saved one by its id; texts in `context` may be templates."""
        if not isinstance(workflow, (str, Mapping)) and not hasattr(workflow, "to_nested_dict"):
            why = f"must be a definition, the dict of one, or the id of a saved one, not {shown(workflow)}"
            raise DefinitionError(
                f"steps[{len(self._steps)}].definition", f"{why}; steps alone are a sequence, add_sequence({shown(name)}, steps)"
            )
        if isinstance(workflow, str):
            given: dict[str, Any] = {"workflow_id": workflow}
        else:
            given = {"definition": dict(workflow) if isinstance(workflow, Mapping) else workflow.to_nested_dict()}
        return self._add("workflow", name, context=dict(context or {}), **given, **common)

    def add_step(self, step: Step | Mapping[str, Any]) -> Self:
        """Add a step of any kind, as an object or as the dict of one."""
        self._steps.extend(map(copied, written([step])))
        return self

    def _add(self, kind: str, name: str, *, retry: Any = None, **data: Any) -> Self:
        step = {key: value for key, value in {"kind": kind, "name": name, **data}.items() if value is not None and value not in ("", {})}
        for key in _NO_STEPS.intersection(step):
            if _are_steps(step[key]):
                path, call = f"steps[{len(self._steps)}].{key}", f"add_{kind}({shown(name)}, …)"
                raise DefinitionError(path, f"steps are given where no steps are due: {call} takes {_TAKES.get(kind, 'one list of them')}")
        undo = step.get("undo")
        if isinstance(undo, StepList):
            undos = undo.to_dicts()
            step["undo"] = undos[0] if len(undos) == 1 else undos  # several are refused with their path
        elif isinstance(undo, Step):
            step["undo"] = undo.to_dict()
        elif callable(undo):
            functions = self._symphony.functions if self._symphony is not None else None
            step["undo"] = name_function(undo, functions, f"steps[{len(self._steps)}].undo")
        if retry is not None:
            step["retry"] = retry.to_dict() if isinstance(retry, RetryPolicy) else retry
        self._steps.append(copied(step))
        return self


_NO_STEPS = frozenset(
    {"max_concurrency", "on_error", "condition", "over", "max_iterations", "until", "while", "on_limit", "retry", "timeout_s"}
)
_TAKES = {
    "parallel": "its branches as one list, [first, second], and a branch of several steps is a sequence",
    "map": "first what it goes over, then its steps as one list",
    "conditional": "first the condition, then one list of steps for each of its two ways",
    "loop": "its steps as one list, then max_iterations",
}


def _are_steps(given: Any) -> bool:
    """Return whether something is a step, or several of them."""
    if isinstance(given, (list, tuple)):
        return bool(given) and all(map(_are_steps, given))
    return isinstance(given, (StepList, Step)) or (isinstance(given, Mapping) and isinstance(given.get("kind"), str) and "name" in given)


def as_dicts(steps: NestedSteps) -> list[dict[str, Any]]:
    """Return steps that were given in one way or another, as plain dicts; what is no step stays among them, to be refused with its path."""
    if isinstance(steps, StepList):
        return steps.to_dicts()
    several: Any = steps if isinstance(steps, Iterable) and not isinstance(steps, (Step, Mapping, str)) else [steps]
    return list(written(list(several)))


def _all_dicts(*several: NestedSteps) -> list[dict[str, Any]]:
    return [step for steps in several for step in as_dicts(steps)]


def _id_of(agent: Any) -> str:
    return str(getattr(agent, "entity_id", None) or agent.id)
