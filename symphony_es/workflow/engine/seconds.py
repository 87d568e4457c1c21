"""Seconds that a call is given, checked before the call changes anything."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Any

from symphony_es.errors import ConfigurationError
from symphony_es.shown import shown
from symphony_es.workflow.definitions.reading import MAX_SECONDS

__all__ = ["check_deadline", "check_seconds", "deadline_after"]

MOST = 10**300
"""An int above this fits no float, which clocks have."""


def check_seconds(name: str, given: Any, *, negative: bool = False) -> None:
    """Refuse what no event loop can wait for.

    Args:
        name: of the argument, for the error.
        given: what was given.
        negative: whether less than 0 will do: a time that is over.

    Raises:
        ConfigurationError: it is not an int or a float, not a number, negative, or too large.
    """
    number = type(given) is float and not math.isnan(given)
    number = number or (type(given) is int and abs(given) <= MOST)
    if not number or not (negative or given >= 0):
        raise ConfigurationError(f"{name} is a number of seconds{'' if negative else ' from 0 on'}, not {shown(given)}")


def check_deadline(deadline_s: Any) -> None:
    """Refuse what makes no deadline; None is none.

    Raises:
        ConfigurationError: it is not a number, or more than a hundred years.
    """
    if deadline_s is None:
        return
    check_seconds("deadline_s", deadline_s, negative=True)
    if not abs(deadline_s) <= MAX_SECONDS:
        raise ConfigurationError(f"deadline_s is a number of seconds of a hundred years at most, not {shown(deadline_s)}")


def deadline_after(now: datetime, deadline_s: float | None) -> datetime | None:
    """Return the moment so many seconds from now; None for none. Errors are those of `check_deadline`."""
    check_deadline(deadline_s)
    return None if deadline_s is None else now + timedelta(seconds=deadline_s)
