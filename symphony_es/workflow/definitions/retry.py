"""How failed attempts at a step are repeated. Pure: randomness comes in as an argument, and nothing is waited for here."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import field, replace
from typing import TYPE_CHECKING, Any, Self

from symphony_es.errors import (
    DefinitionError,
    ExpressionError,
    LimitExceededError,
    NotRegisteredError,
    NotTakenBackError,
    UnstorableValueError,
)
from symphony_es.late_dataclasses import dataclass
from symphony_es.shown import shown
from symphony_es.workflow.definitions.error_rules import matches, name_of_class, related_errors
from symphony_es.workflow.definitions.reading import MAX_SECONDS, DataReader

if TYPE_CHECKING:
    from symphony_es.registry import NamedCallables

__all__ = ["HOPELESS", "RetryPolicy"]

HOPELESS = (DefinitionError, ExpressionError, LimitExceededError, NotRegisteredError, NotTakenBackError, UnstorableValueError)
"""Errors that the same attempt would meet again: they are never retried."""

_GUESSED = {
    "backoff": "factor",
    "multiplier": "factor",
    "attempts": "max_attempts",
    "retries": "max_attempts (the first attempt counts)",
    "delay": "delay_s",
    "max_delay": "max_delay_s",
    "retry_on": "on",
    "retry_if": "when",
    "should_retry": "when",
    "predicate": "when",
}
_BOUNDS = {"delay_s": (0, MAX_SECONDS), "factor": (1, 1_000_000), "max_delay_s": (0, MAX_SECONDS), "jitter": (0, 1)}


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Attempts with a delay that grows exponentially, up to a limit, with jitter.

    Attributes:
        max_attempts: attempts in all, the first included; from 1 on.
        delay_s: seconds before the second attempt; from 0 to 100 years.
        factor: by which each further delay is longer; from 1 to 1,000,000.
        max_delay_s: no delay is longer, in seconds; from 0 to 100 years.
        jitter: from 0 to 1: each delay is longer or shorter by up to this part of it, so that many runs do not come back at once.
        on: error classes that are retried, or their names, as `ValueError` or `package.module.ValueError`; subclasses count, and so do
            the errors in a chain of causes and contexts and in a group. What is kept is the names.
        never_on: names of error classes that are not, whatever `on` says, wherever in a chain or group they are.
        when: a function, or its registered name, that is called with the error where `on` and `never_on` allow another attempt, and
            says whether there is one. A definition holds its name.

    An error that has an attribute `retry_after` (seconds, a `timedelta`, or a moment with its zone) says itself when the next attempt
    begins, in place of the delay.

    Source: exponential backoff with jitter, M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015; the delay is
    varied around its value, not from zero, so that a policy's delays can be read off it.
    """

    max_attempts: int = field(default=3, kw_only=False)
    delay_s: float = 1.0
    factor: float = 2.0
    max_delay_s: float = 60.0
    jitter: float = 0.1
    on: tuple[str, ...] = ("Exception",)
    never_on: tuple[str, ...] = ()
    when: str | Callable[[BaseException], Any] | None = None

    def __post_init__(self) -> None:
        for key, (least, most) in _BOUNDS.items():
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
                raise DefinitionError(key, f"must be a number between {least} and {most:,}, not {shown(value)}")
        if type(self.max_attempts) is not int or self.max_attempts < 1:
            raise DefinitionError("max_attempts", f"must be an int of at least 1, not {shown(self.max_attempts)}")
        for key in ("on", "never_on"):
            names = _names(getattr(self, key))
            if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) and name for name in names):
                raise DefinitionError(key, "must be a list of names of error classes")
            object.__setattr__(self, key, tuple(names))
        when: Any = self.when
        if when is not None and not callable(when) and not (isinstance(when, str) and when):
            raise DefinitionError("when", f"must be a function or the name of one, not {shown(when)}")

    def allows(self, error: BaseException, failed_attempts: int) -> bool:
        """Return whether another attempt follows this error, after so many that have failed."""
        if failed_attempts >= self.max_attempts or isinstance(error, HOPELESS):
            return False
        related = related_errors(error)
        # What is no Exception, as SystemExit, is not retried because of one that it was raised from: it has to be named itself.
        on = related if isinstance(error, (Exception, BaseExceptionGroup)) else [error]
        return matches(on, self.on) and not (self.never_on and matches(related, self.never_on))

    def delay_before(self, failed_attempts: int, random_0_1: float) -> float:
        """Return seconds to wait after so many failed attempts (from 1); `random_0_1` spreads them by the jitter."""
        exponent = min(failed_attempts - 1, 1000)
        try:
            delay_s = self.delay_s * float(self.factor) ** exponent
        except OverflowError:
            delay_s = self.max_delay_s if self.delay_s else 0.0
        return min(min(delay_s, self.max_delay_s) * (1 + self.jitter * (2 * random_0_1 - 1)), self.max_delay_s)

    def to_dict(self) -> dict[str, Any]:
        """Return the policy as plain data; values at their default are left out."""
        default = type(self)()
        held = self.named()
        written = {name: getattr(held, name) for name in type(self).__slots__ if getattr(held, name) != getattr(default, name)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in written.items()}

    def check(self, functions: NamedCallables) -> None:
        """Look, before a run is created, whether this process has the predicate.

        Raises:
            NotRegisteredError: it has not.
        """
        if isinstance(self.when, str):
            from symphony_es.workflow.kinds.function import find_function  # as in `named`

            find_function(self.when, functions)

    def named(self) -> Self:
        """Return the policy with the name of its predicate in place of the function, as a definition holds it.

        Raises:
            DefinitionError: the function has no name that another process could find it by.
        """
        if self.when is None or isinstance(self.when, str):
            return self
        from symphony_es.workflow.kinds.function import name_function  # it stands above definitions, and few policies have a predicate

        return replace(self, when=name_function(self.when, None, "when"))

    @classmethod
    def read(cls, data: Any, path: str) -> Self | None:
        """Return a policy from its dict, or from a number of attempts; None from None.

        Raises:
            DefinitionError: with the path of the fault.
        """
        if data is None:
            return None
        if isinstance(data, cls):
            try:
                return data.named()
            except DefinitionError as error:
                raise DefinitionError(f"{path}.{error.path}", error.why) from None
        if isinstance(data, int) and not isinstance(data, bool):
            data = {"max_attempts": data}
        if not isinstance(data, Mapping):
            raise DefinitionError(path, f"must be a number of attempts or the dict of a retry policy, not {type(data).__name__}")
        reader = DataReader(data, path)
        given = {name: reader.value(name) for name in cls.__slots__ if reader.value(name) is not None}
        reader.finish()
        try:
            return cls(**given).named()
        except DefinitionError as error:
            raise reader.fault(error.path, error.why) from None


def _naming_guesses(made: Callable[..., None]) -> Callable[..., None]:
    """Have the constructor refuse what other libraries call a setting, with the name that it has here."""

    @functools.wraps(made)
    def init(self: RetryPolicy, *positional: Any, **settings: Any) -> None:
        for guessed in _GUESSED.keys() & settings.keys():
            raise DefinitionError(guessed, f"there is no such setting of a retry policy: it is called {_GUESSED[guessed]}")
        made(self, *positional, **settings)

    return init


RetryPolicy.__init__ = _naming_guesses(RetryPolicy.__init__)  # type: ignore[method-assign]


def _names(given: Any) -> Any:
    """Return error classes by their names: of a built-in one its own, of others with their module; what is not a class stays as it is."""
    if isinstance(given, type):
        given = (given,)
    if not isinstance(given, (list, tuple)):
        return given
    return tuple(name_of_class(item) if isinstance(item, type) else item for item in given)
