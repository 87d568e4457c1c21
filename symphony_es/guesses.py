"""Names that people try first, because other libraries have them, and what the same thing is called here.

A call under such a name is an `AttributeError` as for any other that does not exist; its text says what to write. There is one name for
each thing: these are no second ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

__all__ = ["pointing_out"]


def pointing_out(calls: Mapping[str, str]) -> Callable[[object, str], object]:
    """A `__getattr__` whose error names the call to use.

    Args:
        calls: by the name that is guessed, what to write.
    """

    def missing(self: object, name: str) -> object:
        owner = type(self).__name__
        advice = calls.get(name)
        message = f"{owner} has no {name!r}" + (f": use {advice}" if advice is not None else "")
        raise AttributeError(message, name=name, obj=self)

    return missing
