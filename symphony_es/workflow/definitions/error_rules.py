"""Error classes by their names, as retry policies hold them, and what an error itself says of another attempt.

An error stands for all that it was made of: its chain of causes and contexts, and the errors of a group. Nothing is imported because a
policy names it: a name stands for a class of that name that this process has loaded.
"""

from __future__ import annotations

import builtins
import math
import sys
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any

from symphony_es.errors import DefinitionError
from symphony_es.naming import names_in
from symphony_es.raised import asks_the_program_to_end
from symphony_es.shown import quoted
from symphony_es.workflow.definitions.reading import MAX_SECONDS

__all__ = ["check_error_names", "matches", "name_of_class", "related_errors", "retry_moment", "unknown_names"]

MAX_RELATED = 1_000
"""So many errors of a chain and its groups are looked at."""


def name_of_class(cls: type) -> str:
    """Return the name that a policy holds a class by: of a built-in one its own, of others with their module."""
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def related_errors(error: BaseException) -> list[BaseException]:
    """Return an error, those that it was raised from or while handling, and those of groups among them; the outermost first."""
    found: dict[int, BaseException] = {}
    waiting = [error]
    while waiting and len(found) < MAX_RELATED:
        looked_at = waiting.pop(0)
        if id(looked_at) in found:
            continue
        found[id(looked_at)] = looked_at
        if isinstance(looked_at, BaseExceptionGroup):
            waiting.extend(looked_at.exceptions[:MAX_RELATED])
        if looked_at.__cause__ is not None:
            waiting.append(looked_at.__cause__)
        elif looked_at.__context__ is not None and not looked_at.__suppress_context__:
            waiting.append(looked_at.__context__)
    return list(found.values())


def matches(errors: Iterable[BaseException], names: Iterable[str]) -> bool:
    """Return whether one of some errors is of a class that is named; subclasses count."""
    wanted = set(names)
    classes = {cls for error in errors for cls in type(error).__mro__}
    if any(cls.__name__ in wanted or f"{cls.__module__}.{cls.__qualname__}" in wanted for cls in classes):
        return True
    # A package may offer a class that one of its modules defines: the name is that of the offer.
    return any(_loaded(name) in classes for name in wanted if "." in name)


def retry_moment(error: BaseException, now: datetime) -> datetime | None:
    """Return when an error asks to be tried again, or None where it does not.

    It does so by an attribute `retry_after` of it or of a related error: seconds as a number or a text, a `timedelta`, or a moment with
    its zone. A value that makes no sense is passed over.
    """
    for related in related_errors(error):
        moment = _moment(_asked(related), now)
        if moment is not None:
            return moment
    return None


def _asked(error: BaseException) -> Any:
    try:
        return getattr(error, "retry_after", None)
    except BaseException as second:  # a property of the application's: an error that cannot say it does not ask for it
        if asks_the_program_to_end(second):
            raise
        return None


def _moment(asked: Any, now: datetime) -> datetime | None:
    if isinstance(asked, datetime):
        return None if asked.tzinfo is None else min(max(asked, now), now + timedelta(seconds=MAX_SECONDS)).astimezone(now.tzinfo)
    if isinstance(asked, timedelta):
        asked = asked.total_seconds()
    if isinstance(asked, str):
        try:
            asked = float(asked)
        except ValueError:
            return None
    if isinstance(asked, bool) or not isinstance(asked, (int, float)) or not 0 <= asked < math.inf:
        return None
    return now + timedelta(seconds=min(asked, MAX_SECONDS))


def unknown_names(names: Iterable[str]) -> list[str]:
    """Return those names that no error class can have that this process has loaded; names in modules that it has not are passed over."""
    unsure = [name for name in names if not _is_error(getattr(builtins, name, None))]
    if not unsure:
        return []
    known = {name for cls in _error_classes() for name in (cls.__name__, f"{cls.__module__}.{cls.__qualname__}")}
    return [name for name in unsure if name not in known and not _is_error(_loaded(name)) and _can_be_told(name)]


def check_error_names(names: Iterable[str], path: str) -> None:
    """Look, before a run is created, whether the error classes that a policy names can be met.

    Raises:
        DefinitionError: one is of no class that this process has loaded; near misses are named.
    """
    for name in unknown_names(names):
        known = sorted({shown for cls in _error_classes() for shown in (cls.__name__, name_of_class(cls))})
        from difflib import get_close_matches  # late: only a message needs it

        near = get_close_matches(name, known, n=3, cutoff=0.75)
        meant = f"; near: {', '.join(near)}" if near else ""
        raise DefinitionError(
            path,
            f"no error class that is loaded is called {quoted(name)}{meant}; give the class itself, or its name with a module that is "
            "loaded later, as 'package.module.Error'",
        )


def _error_classes() -> Iterator[type[BaseException]]:
    seen: set[type[BaseException]] = set()
    waiting: list[type[BaseException]] = [BaseException]
    while waiting:
        cls = waiting.pop()
        if cls not in seen:
            seen.add(cls)
            yield cls
            waiting.extend(cls.__subclasses__())


def _is_error(found: object) -> bool:
    return isinstance(found, type) and issubclass(found, BaseException)


def _loaded(name: str) -> object:
    """Return what a dotted name stands for among the modules that are loaded, or None."""
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        found: object = sys.modules.get(".".join(parts[:length]))
        if found is not None:
            for part in parts[length:]:
                found = names_in(found).get(part)
            return found
    return None


def _can_be_told(name: str) -> bool:
    """Return whether a class of this name would be loaded by now: its module is, and is not a package that may load more."""
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        module = sys.modules.get(".".join(parts[:length]))
        if module is not None:
            return length == len(parts) - 1 or "__path__" not in names_in(module)
    return len(parts) == 1
