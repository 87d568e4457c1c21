"""Function steps: a function of the application, called with the run's context.

The definition holds the function's name: one registered with `symphony.functions`, or `module:qualname` of a function in a module. That
is called where the application has put the function itself into a definition, or allows its module; nothing is imported because a
definition names it. Lambdas and closures have no name that another process could find, so they are refused when the definition is made,
not after a crash.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import field
from types import FunctionType
from typing import TYPE_CHECKING, Any, ClassVar, Self
from weakref import WeakValueDictionary

from symphony_es.errors import DefinitionError, NotRegisteredError
from symphony_es.late_dataclasses import dataclass
from symphony_es.naming import defined_under, stored_module, stored_name
from symphony_es.registry import NamedCallables, invoke
from symphony_es.shown import shown
from symphony_es.workflow.definitions.reading import DataReader
from symphony_es.workflow.definitions.steps import Step, register_step_kind

if TYPE_CHECKING:
    from symphony_es.core.host import Host
    from symphony_es.workflow.engine.execution import StepExecution

__all__ = ["FunctionStep", "find_function", "name_function"]

MAX_NAME_SHOWN = 200
"""So many characters of a stored name are in a message: a definition may hold any text."""


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
        """Return the function's name and the inputs."""
        return {"function": self.function, **({"inputs": self.inputs} if self.inputs else {})}

    @classmethod
    def read(cls, reader: DataReader, **common: Any) -> Self:
        """Read `function` and `inputs`; a function itself stands for the name by which it is imported."""
        inputs = reader.template("inputs") or {}
        if not isinstance(inputs, dict):
            raise reader.fault("inputs", "must be a dict")
        function = reader.value("function")
        named = name_function(function, None, reader.at("function")) if callable(function) else reader.text("function")
        return cls(**common, function=named, inputs=inputs)

    def check(self, symphony: Host) -> None:
        """Look the function up.

        Raises:
            NotRegisteredError: nobody has registered it in this process.
        """
        find_function(self.function, symphony.functions)

    def works_with(self, execution: StepExecution) -> dict[str, Any]:
        """Return the inputs."""
        return {"inputs": execution.prepare(self.inputs)} if self.inputs else {}

    def function_of(self, symphony: Host) -> Callable[..., Any]:
        """Return the function."""
        return find_function(self.function, symphony.functions)

    async def perform(self, execution: StepExecution) -> Any:
        """Call the function.

        Raises:
            NotRegisteredError: nobody has registered the function in this process.
        """
        function = find_function(self.function, execution.symphony.functions)
        if self.inputs:
            execution.context.inputs = execution.render(self.inputs)
        return await invoke(function, execution.context)


def name_function(function: str | Callable[..., Any], functions: NamedCallables | None, path: str = "function") -> str:
    """Return the name under which a definition can hold a function.

    Args:
        function: a name, which is returned as it is, or a callable.
        functions: where registered names are looked up first.
        path: where it stands in the definition, for messages.

    Raises:
        DefinitionError: a lambda, closure, method or other callable that no other process could find by name.
    """
    if isinstance(function, str):
        return function
    if not callable(function):
        raise DefinitionError(path, f"must be a function, or the name of one, not {shown(function)}")
    registered = functions.name_of(function) if functions is not None else None
    if registered is not None:
        return registered
    if isinstance(function, FunctionType):
        name = stored_name(function)
        if defined_under(name) is function:
            _handed[name] = function
            return name
    what = getattr(function, "__qualname__", None) or type(function).__qualname__
    raise DefinitionError(
        path,
        f"{what} has no name that another process could find it by (a lambda, closure, method or callable object); "
        f"register it: symphony.functions.register('a_name', {what if what.isidentifier() else 'fn'}), and use that name",
    )


def find_function(name: str, functions: NamedCallables) -> Callable[..., Any]:
    """Return the function behind a name of a definition: a registered one, one that this process has put into a definition, an allowed one.

    Nothing is imported because a definition names it, and only a function that the named module itself defines is accepted.

    Raises:
        NotRegisteredError: there is none.
    """
    if name in functions or ":" not in name:
        return functions.get(name)
    handed, registered = _handed.get(name), functions.at(name)
    known = registered if handed is None else handed
    if known is not registered and registered is not None and defined_under(name) is registered:
        known = registered  # the module was reloaded between the two
    if known is not None:
        return known
    found = functions.allowed.find(name)
    if not isinstance(found, FunctionType):
        raise NotRegisteredError(functions.kind, name, functions.names(), _ways_out(name))
    return found


def _ways_out(name: str) -> str:
    module = name.partition(":")[0]
    register = f"symphony.functions.register({shown(name, MAX_NAME_SHOWN)}, fn)"
    allow = f"symphony.functions.allow({shown(module, MAX_NAME_SHOWN)})"
    program = stored_module(module)
    if program != module:
        how = f"the file that is run as the program goes by the name of its file: {shown(program + name[len(module) :], MAX_NAME_SHOWN)}"
    elif module.partition(".")[0] in sys.stdlib_module_names:  # nobody shall be talked into it by a definition
        how = f"a definition may not call what a module of Python's own defines: call {register} with a function of your own"
    else:
        how = f"import the module that defines it and call {allow}, or {register}"
    return f"{how}; nothing is imported because a definition names it"


_handed: WeakValueDictionary[str, FunctionType] = WeakValueDictionary()
"""Functions that the application itself has put into definitions, by the names that these hold: to hand one over is to register it."""
