"""The options of a recorded call, told apart from the arguments of the function that it calls, and checked.

A keyword belongs to the function where that has a parameter of its name which no argument fills already. Where nobody can tell whose it
is (the function takes any keywords), the call is refused: `step_with(…)(fn, …)` says it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from symphony_es.errors import ConfigurationError, DefinitionError
from symphony_es.workflow.definitions.reading import MAX_SECONDS, shown
from symphony_es.workflow.definitions.retry import RetryPolicy
from symphony_es.workflow.definitions.steps import MAX_STEP_ID_CHARS

__all__ = ["NO_OPTIONS", "UNSET", "StepOptions", "check_name", "check_seconds", "told_apart"]

UNSET: Any = type("Unset", (), {"__repr__": lambda self: "UNSET"})()
"""Stands for an option that was not given; None may be an argument of the function."""

_MARKS = ("__wrapped__", "__signature__")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOptions:
    """How a call is recorded and run; see `symphony_es.workflow.step`."""

    name: str | None = None
    retry: RetryPolicy | None = None
    timeout_s: float | None = None
    atomic: bool = False
    undo: Callable[..., Any] | None = None
    record_inputs: bool | None = None
    check_arguments: bool = True

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> StepOptions:
        """Options as they were given, checked.

        Raises:
            ConfigurationError: one of them makes no sense.
        """
        name, atomic = given.get("name"), given.get("atomic", False)
        if name is not None:
            check_name(name)
        check_seconds("timeout_s", given.get("timeout_s"))
        if not isinstance(atomic, bool):
            raise ConfigurationError(f"atomic={shown(atomic)}: it is True or False")
        undo = given.get("undo")
        if undo is not None and not callable(undo):
            raise ConfigurationError(f"undo={shown(undo)}: it is a function, which is called with the arguments of the step")
        retry = given.get("retry")
        if not isinstance(retry, RetryPolicy):  # one that is there may have a predicate without a name: code gives it anew each time
            try:
                retry = RetryPolicy.read(retry, "retry")
            except DefinitionError as error:
                raise ConfigurationError(f"retry={shown(retry)}: {error}") from error
        records, checks = given.get("record_inputs"), given.get("check_arguments", True)
        if records is not None and not isinstance(records, bool):
            raise ConfigurationError(f"record_inputs={shown(records)}: it is True, False, or None for what the workflow says")
        if not isinstance(checks, bool):
            raise ConfigurationError(f"check_arguments={shown(checks)}: it is True or False")
        return cls(
            name=name,
            retry=retry,
            timeout_s=given.get("timeout_s"),
            atomic=atomic,
            undo=undo,
            record_inputs=records,
            check_arguments=checks,
        )


NO_OPTIONS = StepOptions()


def told_apart(
    fn: Callable[..., Any], args: Sequence[Any], keywords: dict[str, Any], given: Mapping[str, Any]
) -> tuple[StepOptions, dict[str, Any]]:
    """The options of a call, and the keywords for its function, of keywords that may be either.

    Args:
        fn: the function.
        args: its positional arguments.
        keywords: the keywords that can only be the function's.
        given: those that have the name of an option.

    Raises:
        ConfigurationError: an option makes no sense, or nobody can tell whose a keyword is.
    """
    own, takes_any = _own_parameters(fn, args, given)
    options = {key: value for key, value in given.items() if key not in own}
    if options and takes_any:
        key, name = next(iter(options)), getattr(fn, "__qualname__", None) or type(fn).__qualname__
        raise ConfigurationError(
            f"{key}=… of step({name}, …) may be an option of the step, or an argument of {name}, which takes any keywords: write "
            f"step_with({key}=…)({name}, …) for the option, step_with()({name}, {key}=…) for the argument"
        )
    return StepOptions.read(options), {**keywords, **{key: given[key] for key in own}}


def _own_parameters(fn: Callable[..., Any], args: Sequence[Any], names: Mapping[str, Any]) -> tuple[list[str], bool]:
    """Which of some names are parameters of a function that no argument fills; and whether it takes any keywords."""
    if type(fn) is FunctionType and not any(mark in fn.__dict__ for mark in _MARKS):
        code = fn.__code__
        if not code.co_flags & inspect.CO_VARKEYWORDS and not any(name in code.co_varnames for name in names):
            return [], False  # the usual case, without the cost of a signature
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):
        return [], False  # a function in C that does not say what it takes
    filled = {parameter.name for parameter in list(parameters)[: len(args)] if parameter.kind is parameter.POSITIONAL_OR_KEYWORD}
    if isinstance(fn, functools.partial):
        filled |= fn.keywords.keys()
    by_keyword = [parameter.name for parameter in parameters if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)]
    own = [name for name in names if name in by_keyword and name not in filled]
    return own, any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


def check_name(name: object) -> None:
    """Looks whether a name can be part of an address.

    Raises:
        ConfigurationError: it cannot.
    """
    if not isinstance(name, str) or not 0 < len(name) <= MAX_STEP_ID_CHARS:
        raise ConfigurationError(f"name={shown(name)}: the name of a step is a text of 1 to {MAX_STEP_ID_CHARS} characters")


def check_seconds(key: str, value: object, *, least: str = "greater than 0") -> None:
    """Looks whether a duration makes sense; None does.

    Raises:
        ConfigurationError: it does not.
    """
    if value is None:
        return
    too_short = isinstance(value, (int, float)) and (value < 0 or (value == 0 and least == "greater than 0"))
    if isinstance(value, bool) or not isinstance(value, (int, float)) or too_short or not value <= MAX_SECONDS:
        raise ConfigurationError(f"{key}={shown(value)}: a number of seconds, {least}, and at most {MAX_SECONDS:,} (100 years)")
