"""What `@symphony.workflow` makes of an async function."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Generic

from symphony_es.annotated import signature, signature_shown
from symphony_es.errors import ConfigurationError, near_misses
from symphony_es.guesses import pointing_out
from symphony_es.shown import quoted
from symphony_es.workflow.definitions.definition import WorkflowDefinition
from symphony_es.workflow.guessed import ON_CODE_WORKFLOWS

if TYPE_CHECKING:  # so that `CodeWorkflow` alone may be written; `typing` has defaults from 3.13 on
    from typing_extensions import ParamSpec, TypeVar

    P = ParamSpec("P", default=...)
    R = TypeVar("R", default=Any)
else:
    from typing import ParamSpec, TypeVar

    P = ParamSpec("P")
    R = TypeVar("R")

__all__ = ["CodeWorkflow", "check_arguments", "check_changes"]


class CodeWorkflow(Generic[P, R]):
    """A workflow that is written as code; execute it like any other: `symphony.workflows.execute_workflow(research, {"topic": "rain"})`.

    Attributes:
        function: the function.
        definition: names the function; the run's context becomes its arguments.
    """

    def __init__(self, function: Callable[P, Coroutine[Any, Any, R]], name: str | None = None, **options: Any) -> None:
        if not inspect.iscoroutinefunction(function):
            raise ConfigurationError(f"{getattr(function, '__qualname__', function)} must be an async function to be a workflow")
        chosen = name or function.__name__
        self.function = function
        self.definition = WorkflowDefinition(id=chosen, name=chosen, description=inspect.getdoc(function) or "", code=chosen, **options)
        functools.update_wrapper(self, function)

    @property
    def name(self) -> str:
        """What runs find it by."""
        return self.definition.name

    def __repr__(self) -> str:
        return f"<CodeWorkflow {self.name}{signature_shown(self.function)}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Return the function itself, for tests and for calls inside another workflow: its steps become steps of that run."""
        return self.function(*args, **kwargs)

    if not TYPE_CHECKING:  # a checker would take any misspelt name for one of them
        __getattr__ = pointing_out(ON_CODE_WORKFLOWS)


def check_arguments(function: Callable[..., Any], name: str, context: Mapping[str, Any]) -> None:
    """Look, before a run is created, whether a context fits the function's parameters.

    Raises:
        ConfigurationError: it does not, or a value does not fit the annotation of its parameter.
    """
    try:
        signature(function).bind(**context)
    except TypeError as error:
        raise ConfigurationError(
            f"the context of the workflow {quoted(name)} becomes its arguments: {error}{_unknown(function, context)}"
        ) from None
    from symphony_es.core.objects.arguments import fit_arguments  # late: runs of definitions have none

    fit_arguments(function, context)


def check_changes(function: Callable[..., Any], name: str, changes: Mapping[str, Any]) -> None:
    """Look, before a fork is created, whether the values that it is to have instead fit the function's parameters.

    Raises:
        ConfigurationError: a key is no parameter, or a value does not fit its annotation.
    """
    try:
        signature(function).bind_partial(**changes)
    except TypeError:
        raise ConfigurationError(f"changes become arguments of the workflow {quoted(name)}{_unknown(function, changes)}") from None
    from symphony_es.core.objects.arguments import fit_arguments

    fit_arguments(function, changes)


def _unknown(function: Callable[..., Any], context: Mapping[str, Any]) -> str:
    """Return the keys that no parameter has; `bind` may have told of a missing one alone."""
    parameters = signature(function).parameters
    unknown = [key for key in context if key not in parameters]
    near = [name for key in unknown for name in near_misses(key, parameters)]
    said = f"; the context has {', '.join(map(repr, unknown))}, which is none of its parameters" if unknown else ""
    return f"{said} (did you mean {' or '.join(near)}?)" if near else said
