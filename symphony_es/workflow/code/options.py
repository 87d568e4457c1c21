"""The options of a recorded call, told apart from the arguments of the function that it calls, and checked.

A keyword belongs to the function where that has a parameter of its name which no argument fills already. Where nobody can tell whose it
is (the function takes any keywords), the call is refused: `step_with(…)(fn, …)` says it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from types import FunctionType, MethodType
from typing import Any, TypeVar, cast

from symphony_es.annotated import signature
from symphony_es.errors import ConfigurationError, DefinitionError, near_misses
from symphony_es.late_dataclasses import dataclass
from symphony_es.shown import quoted, shown
from symphony_es.workflow.definitions.reading import MAX_SECONDS
from symphony_es.workflow.definitions.retry import RetryPolicy
from symphony_es.workflow.definitions.steps import MAX_STEP_ID_CHARS

__all__ = [
    "NO_OPTIONS",
    "UNSET",
    "StepOptions",
    "advising",
    "check_function",
    "check_moment",
    "check_name",
    "check_seconds",
    "check_signal",
    "told_apart",
]

F = TypeVar("F", bound=Callable[..., Any])

UNSET: Any = type("Unset", (), {"__repr__": lambda self: "UNSET"})()
"""Stands for an option that was not given; None may be an argument of the function."""

_MARKS = ("__wrapped__", "__signature__")

_OPTIONS = ("name", "retry", "timeout_s", "atomic", "undo")

_CALLED_ELSEWHERE = {
    **dict.fromkeys(("timeout", "timeout_seconds", "start_to_close_timeout"), "timeout_s"),
    **dict.fromkeys(("retries", "max_retries", "max_attempts", "attempts", "retry_policy"), "retry"),
    **dict.fromkeys(("id", "step_id", "step_name", "key"), "name"),
    **dict.fromkeys(("on_cancel", "compensate", "rollback"), "undo"),
}
"""What options are called in other libraries."""


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
        """Return options as they were given, checked.

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
    """Return the options of a call, and the keywords for its function, of keywords that may be either.

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
    """Return which of some names are parameters of a function that no argument fills; and whether it takes any keywords."""
    if type(fn) is FunctionType and not any(mark in fn.__dict__ for mark in _MARKS):
        code = fn.__code__
        if not code.co_flags & inspect.CO_VARKEYWORDS and not any(name in code.co_varnames for name in names):
            return [], False  # the usual case, without the cost of a signature
    try:
        parameters = signature(fn).parameters.values()
    except (TypeError, ValueError):
        return [], False  # a function in C that does not say what it takes
    filled = {parameter.name for parameter in list(parameters)[: len(args)] if parameter.kind is parameter.POSITIONAL_OR_KEYWORD}
    if isinstance(fn, functools.partial):
        filled |= fn.keywords.keys()
    by_keyword = [parameter.name for parameter in parameters if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)]
    own = [name for name in names if name in by_keyword and name not in filled]
    return own, any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


def check_function(fn: Any, kwargs: Mapping[str, Any]) -> None:
    """Check whether `step` was handed a function, and keywords that it takes.

    Raises:
        ConfigurationError: it was not; of a keyword that looks like a misspelt option, the option is named.
    """
    if not callable(fn):
        if inspect.iscoroutine(fn):
            fn.close()
            called = getattr(fn, "__name__", "fn")
            raise ConfigurationError(f"step({called}(…)): hand over the function, and its arguments after it: step({called}, …)")
        raise ConfigurationError(f"step({shown(fn)}): the first argument is a function, and its arguments come after it: step(fn, …)")
    if not kwargs:
        return
    plain = fn.__func__ if isinstance(fn, MethodType) else fn
    if type(plain) is not FunctionType or any(mark in plain.__dict__ for mark in _MARKS):
        return  # what it takes is found out when it is called
    code = plain.__code__
    if code.co_flags & inspect.CO_VARKEYWORDS:
        return
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    for key in kwargs:
        if key not in names:
            raise ConfigurationError(
                f"step({fn.__name__}, {key}=…): {fn.__name__} takes no {quoted(key)}{_meant(key, _OPTIONS, 'the option')}"
            )


def _meant(key: str, known: Sequence[str], what: str) -> str:
    elsewhere = _CALLED_ELSEWHERE.get(key)
    if elsewhere in known:
        return f"; {what} is called {elsewhere}"
    alike = near_misses(key, known)
    if alike:
        return f"; did you mean {what} {' or '.join(alike)}?"
    return "" if what == "the option" else f" (known: {', '.join(known)})"


def advising(fn: F) -> F:
    """Return the same call, whose error names the keyword that was meant where another one is given."""
    parameters = signature(fn).parameters.values()
    names = [one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    known = frozenset(names)
    positional = [one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
    most = None if any(one.kind is one.VAR_POSITIONAL for one in parameters) else len(positional)

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        for key in kwargs:
            if key not in known:
                elsewhere = "within_s" if key in ("timeout", "timeout_seconds") and "within_s" in known else None
                meant = f"; that is called {elsewhere}" if elsewhere else _meant(key, names, "the keyword")
                raise ConfigurationError(f"{fn.__name__}(…, {key}=…) takes no {quoted(key)}{meant}")
        if most is not None and len(args) > most:
            by_name = ", ".join(f"{name}=…" for name in names if name not in positional)
            said = f"{fn.__name__} takes {' and '.join(positional) or 'nothing'} by position, and {len(args)} were given"
            raise ConfigurationError(f"{said}: the others have names ({by_name})")
        return fn(*args, **kwargs)

    return cast("F", call)


def check_moment(moment: object) -> None:
    """Check whether something is a moment that a run can sleep until.

    Raises:
        ConfigurationError: it is not.
    """
    if isinstance(moment, str):
        return  # in the form of ISO 8601; the step reads it
    if not isinstance(moment, datetime):
        raise ConfigurationError(f"sleep_until({shown(moment)}): a datetime with a time zone; sleep(seconds) waits for so many seconds")
    if moment.tzinfo is None:
        raise ConfigurationError(f"sleep_until({shown(moment)}): the datetime has no time zone: datetime.now(UTC) has one")


def check_signal(signal: object) -> None:
    """Check whether something can be the name of a signal.

    Raises:
        ConfigurationError: it cannot.
    """
    if not isinstance(signal, str) or not signal:
        raise ConfigurationError(f"wait_for_signal({shown(signal)}): the name of a signal is a text that is not empty")


def check_name(name: object) -> None:
    """Check whether a name can be part of an address.

    Raises:
        ConfigurationError: it cannot.
    """
    if not isinstance(name, str) or not 0 < len(name) <= MAX_STEP_ID_CHARS:
        raise ConfigurationError(f"name={shown(name)}: the name of a step is a text of 1 to {MAX_STEP_ID_CHARS} characters")


def check_seconds(key: str, value: object, *, least: str = "greater than 0") -> None:
    """Check whether a duration makes sense; None does.

    Raises:
        ConfigurationError: it does not.
    """
    if value is None:
        return
    if isinstance(value, timedelta):
        raise ConfigurationError(f"{key}={shown(value)}: a number of seconds; write {key}={value.total_seconds():g}")
    too_short = isinstance(value, (int, float)) and (value < 0 or (value == 0 and least == "greater than 0"))
    if isinstance(value, bool) or not isinstance(value, (int, float)) or too_short or not value <= MAX_SECONDS:
        raise ConfigurationError(f"{key}={shown(value)}: a number of seconds, {least}, and at most {MAX_SECONDS:,} (100 years)")
