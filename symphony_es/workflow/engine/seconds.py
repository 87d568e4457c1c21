"""Seconds that a call is given, checked before the call changes anything."""

from __future__ import annotations

import math
from typing import Any

from symphony_es.errors import ConfigurationError

__all__ = ["check_seconds"]

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
        shown = repr(given) if type(given) is not int or abs(given) <= MOST else "an int of more than 300 digits"
        raise ConfigurationError(f"{name} is a number of seconds{'' if negative else ' from 0 on'}, not {shown:.60}")
