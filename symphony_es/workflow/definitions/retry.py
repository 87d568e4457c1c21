"""How failed attempts at a step are repeated. Pure: randomness comes in as an argument, and nothing is waited for here."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from symphony_es.errors import (
    DefinitionError,
    ExpressionError,
    LimitExceededError,
    NotRegisteredError,
    UnstorableValueError,
)
from symphony_es.workflow.definitions.reading import MAX_SECONDS, DataReader, shown

__all__ = ["HOPELESS", "RetryPolicy"]

HOPELESS = (DefinitionError, ExpressionError, LimitExceededError, NotRegisteredError, UnstorableValueError)
"""Errors that the same attempt would meet again: they are never retried."""

_GUESSED = {
    "backoff": "factor",
    "multiplier": "factor",
    "attempts": "max_attempts",
    "retries": "max_attempts (the first attempt counts)",
    "delay": "delay_s",
    "max_delay": "max_delay_s",
    "retry_on": "on",
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
        on: error classes that are retried, or their names, as `ValueError` or `package.module.ValueError`; subclasses count. What is
            kept is the names.
        never_on: names of error classes that are not, whatever `on` says.

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

    def allows(self, error: BaseException, failed_attempts: int) -> bool:
        """Whether another attempt follows this error, after so many that have failed."""
        if failed_attempts >= self.max_attempts or isinstance(error, HOPELESS):
            return False
        names = {name for cls in type(error).__mro__ for name in (cls.__name__, f"{cls.__module__}.{cls.__qualname__}")}
        return not names.isdisjoint(self.on) and names.isdisjoint(self.never_on)

    def delay_before(self, failed_attempts: int, random_0_1: float) -> float:
        """Seconds to wait after so many failed attempts (from 1); `random_0_1` spreads them by the jitter."""
        exponent = min(failed_attempts - 1, 1000)
        try:
            delay_s = self.delay_s * float(self.factor) ** exponent
        except OverflowError:
            delay_s = self.max_delay_s if self.delay_s else 0.0
        return min(min(delay_s, self.max_delay_s) * (1 + self.jitter * (2 * random_0_1 - 1)), self.max_delay_s)

    def to_dict(self) -> dict[str, Any]:
        """The policy as plain data; values at their default are left out."""
        default = type(self)()
        written = {name: getattr(self, name) for name in type(self).__slots__ if getattr(self, name) != getattr(default, name)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in written.items()}

    @classmethod
    def read(cls, data: Any, path: str) -> Self | None:
        """A policy from its dict, or from a number of attempts; None from None.

        Raises:
            DefinitionError: with the path of the fault.
        """
        if data is None or isinstance(data, cls):
            return data
        if isinstance(data, int) and not isinstance(data, bool):
            data = {"max_attempts": data}
        if not isinstance(data, Mapping):
            raise DefinitionError(path, f"must be a number of attempts or the dict of a retry policy, not {type(data).__name__}")
        reader = DataReader(data, path)
        given = {name: reader.value(name) for name in cls.__slots__ if reader.value(name) is not None}
        reader.finish()
        try:
            return cls(**given)
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
    """Error classes by their names: of a built-in one its own, of others with their module; what is no class stays as it is."""
    if isinstance(given, type):
        given = (given,)
    if not isinstance(given, (list, tuple)):
        return given
    return tuple(_name(item) if isinstance(item, type) else item for item in given)


def _name(cls: type) -> str:
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
