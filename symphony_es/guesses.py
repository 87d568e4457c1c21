"""Names that people try first, because other libraries have them, and what the same thing is called here.

A call under such a name is an `AttributeError` as for any other that does not exist, and one of the library's own; its text says what to
write. There is one name for each thing: these are no second ones.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import NoReturn

from symphony_es.errors import ConfigurationError, GuessedNameError
from symphony_es.shown import quoted

__all__ = ["Guess", "answers_calls", "pointing_out"]


def pointing_out(calls: Mapping[str, str]) -> Callable[[object, str], object]:
    """Return a `__getattr__` whose error names the call to use.

    Args:
        calls: by the name that is guessed, what to write.
    """

    def missing(self: object, name: str) -> object:
        owner = type(self).__name__
        advice = calls.get(name)
        if advice is None:
            raise AttributeError(f"{type(self).__name__} has no {quoted(name)}", name=name, obj=self)
        raise GuessedNameError(owner, name, advice)

    return missing


class CalledPackage(ModuleType):
    """A package that is taken for what it has, and called: `@symphony_es.workflow` in place of the decorator.

    Attributes:
        __called__: what to write.
    """

    __called__: str

    def __call__(self, *args: object, **kwargs: object) -> NoReturn:
        """Refuse the call.

        Raises:
            ConfigurationError: always; it says what to write.
        """
        raise ConfigurationError(f"{self.__name__} is a package, and cannot be called: use {self.__called__}")


def answers_calls(package: str, advice: str) -> None:
    """Have the error of who calls a package say what to write."""
    module = sys.modules[package]
    module.__class__ = CalledPackage
    module.__dict__["__called__"] = advice


class Guess:
    """A name that is looked up on a class, or by a statement such as `with`, where `__getattr__` is not asked."""

    def __init__(self, advice: str) -> None:
        self.advice = advice

    def __set_name__(self, owner: type, name: str) -> None:
        self.owner, self.name = owner.__name__, name

    def __get__(self, instance: object, owner: type | None = None) -> NoReturn:
        raise GuessedNameError(self.owner, self.name, self.advice)
