"""Function steps: a function of the application, called with the run's context.

The definition holds the function's name: one registered with `symphony.functions`, or `module:qualname` of a function that
can be imported. Lambdas and closures have no name that another process could find, so they are refused when the definition
is made, not after a crash.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FunctionType
from typing import TYPE_CHECKING, Any, ClassVar, Self

from symphony_es.errors import DefinitionError, NotRegisteredError
from symphony_es.registry import NamedCallables, invoke
from symphony_es.workflow.definitions.reading import DataReader
from symphony_es.workflow.definitions.steps import Step, register_step_kind

if TYPE_CHECKING:
    from symphony_es.core.state.host import Host
    from symphony_es.workflow.engine.execution import StepExecution

__all__ = ["FunctionStep", "find_function", "name_function"]


@register_step_kind
@dataclass(frozen=True, kw_only=True)
class FunctionStep(Step):
    """Calls a function with the run's context; what it returns is the step's output.

    A coroutine function runs on the event loop, any other in a thread.

    Attributes:
        function: registered name, or `module:qualname`.
        inputs: values handed to the function as `context.inputs`; texts in them may be templates.
    """

    kind: ClassVar[str] = "function"
    can_be_atomic: ClassVar[bool] = True

    function: str
    inputs: dict[str, Any] = field(default_factory=dict)

    def data(self) -> dict[str, Any]:
        """The function's name and the inputs."""
        return {"function": self.function, **({"inputs": self.inputs} if self.inputs else {})}

    @classmethod
    def read(cls, reader: DataReader, **common: Any) -> Self:
        """Reads `function` and `inputs`; a function itself stands for the name by which it is imported."""
        inputs = reader.template("inputs") or {}
        if not isinstance(inputs, dict):
            raise reader.fault("inputs", "must be a dict")
        function = reader.value("function")
        named = name_function(function, None, reader.at("function")) if callable(function) else reader.text("function")
        return cls(**common, function=named, inputs=inputs)

    def check(self, symphony: Host) -> None:
        """Looks the function up.

        Raises:
            NotRegisteredError: nobody has registered it in this process.
        """
        find_function(self.function, symphony.functions)

    async def perform(self, execution: StepExecution) -> Any:
        """Calls the function.

        Raises:
            NotRegisteredError: nobody has registered the function in this process.
        """
        function = find_function(self.function, execution.symphony.functions)
        if self.inputs:
            execution.context.inputs = execution.render(self.inputs)
        return await invoke(function, execution.context)


def name_function(function: str | Callable[..., Any], functions: NamedCallables | None, path: str = "function") -> str:
    """The name under which a definition can hold a function.

    Args:
        function: a name, which is returned as it is, or a callable.
        functions: where registered names are looked up first.
        path: where it stands in the definition, for messages.

    Raises:
        DefinitionError: a lambda, closure, method or other callable that no other process could find by name.
    """
    if isinstance(function, str):
        return function
    registered = functions.name_of(function) if functions is not None else None
    if registered is not None:
        return registered
    if isinstance(function, FunctionType):
        module = _importable_module(function)
        name = f"{module}:{function.__qualname__}"
        if module is not None and _import_function(name) is function:
            return name
    what = getattr(function, "__qualname__", None) or type(function).__qualname__
    raise DefinitionError(
        path,
        f"{what} has no name that another process could find it by (a lambda, closure, method or callable object); "
        f"register it: symphony.functions.register('a_name', {what if what.isidentifier() else 'fn'}), and use that name",
    )


def find_function(name: str, functions: NamedCallables) -> Callable[..., Any]:
    """The function behind a name of a definition: a registered one first, else `module:qualname`.

    Only a function that the named module itself defines is accepted; a name that leads elsewhere is not called.

    Raises:
        NotRegisteredError: there is none.
    """
    if name in functions or ":" not in name:
        return functions.get(name)
    function = _import_function(name)
    if function is None:
        how = f"{name} cannot be imported as a function of that module; or functions.register({name!r}, fn) names one"
        raise NotRegisteredError(functions.kind, name, functions.names(), how)
    return function


def _importable_module(function: FunctionType) -> str | None:
    # `python -m package.module` runs the module as __main__: its spec has the name that others import it by.
    if function.__module__ != "__main__":
        return function.__module__
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name if spec is not None else "__main__"


def _import_function(name: str) -> FunctionType | None:
    module_name, _, qualname = name.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), *qualname.split("."))):
        return None
    try:
        found: Any = sys.modules.get(module_name) or importlib.import_module(module_name)
        for attribute in qualname.split("."):
            found = getattr(found, attribute)
    except (ImportError, AttributeError):
        return None
    if not isinstance(found, FunctionType) or found.__qualname__ != qualname:
        return None
    return found if found.__module__ in (module_name, "__main__") else None
