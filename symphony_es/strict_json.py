"""JSON texts of people, files and other processes, read without letting anything pass in silence.

Python's own reader takes the last of two values under one key, `NaN` and `Infinity`, which JSON does not have, and makes an infinity of
a number that no float can hold. Every text that is not this process's own is read here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

from symphony_es.shown import quoted

__all__ = ["DoubledKeyError", "read_strictly"]


class DoubledKeyError(ValueError):
    """An object of a JSON text has a key twice, so it says two things at once.

    Attributes:
        key: the key.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(f"the key {quoted(key)} is there twice")


def read_strictly(text: str | bytes, *, finite: bool = True) -> Any:
    """Return what a JSON text says.

    Args:
        finite: refuse numbers that no float can hold. Without it they are infinities, for who refuses those with their places.

    Raises:
        DoubledKeyError: one of its objects has a key twice.
        ValueError: it is not JSON, or has a number that no float can hold, or is nested too deeply to be read.
    """
    try:
        return json.loads(text, object_pairs_hook=_without_doubles, parse_float=_finite if finite else None, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply to be read") from None


def _without_doubles(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in pairs:
        if key in made:
            raise DoubledKeyError(key)
        made[key] = value
    return made


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text:.40} is larger than a float can be")
    return number


def _refuse(constant: str) -> Any:
    raise ValueError(f"JSON has no {constant:.40}")
