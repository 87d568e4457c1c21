"""What plain data become on their way through JSON, where a value travels as such a text: nothing is changed in silence."""

from __future__ import annotations

import math
from typing import Any

from symphony_es.errors import UnstorableValueError
from symphony_es.events.values import check_plain
from symphony_es.shown import quoted, type_shown

__all__ = ["check_as_json"]


def check_as_json(value: Any, path: tuple[Any, ...], what: str) -> None:
    """Check that a value comes back from JSON as it is; Python's own writer makes texts of keys, lists of tuples, and plain what is not.

    Args:
        value: the value.
        path: where it stands, for the error.
        what: what travels as JSON, for the error.

    Raises:
        UnstorableValueError: JSON cannot say it, or would say something else.
    """
    check_plain(value, path)
    level = [(path, value)]
    while level:  # as deep as plain data may be
        place, item = level.pop()
        kind = type(item)
        if kind is dict:
            for key in item:
                if type(key) is not str:
                    way_out = "make it one, or send a list of pairs"
                    raise UnstorableValueError(place, f"{what} travels as JSON, where the key {quoted(key)} would become a text; {way_out}")
            level += [((*place, key), below) for key, below in item.items()]
        elif kind is list:
            level += [((*place, index), below) for index, below in enumerate(item)]
        elif kind is tuple:
            raise UnstorableValueError(place, f"{what} travels as JSON, where a tuple would become a list; make it one")
        elif (kind is float and not math.isfinite(item)) or (kind is int and not _is_written(item)):
            raise UnstorableValueError(place, f"{what} travels as JSON, which does not have the number {quoted(item)}; send it as a text")
        elif kind not in _IN_JSON:
            raise UnstorableValueError(place, f"{what} travels as JSON, which has no place for {type_shown(item)}; send a text")


_IN_JSON = frozenset({str, int, float, bool, type(None)})


def _is_written(number: int) -> bool:
    """Return whether a number has no more digits than Python reads."""
    try:
        int.__repr__(number)
    except ValueError:
        return False
    return True
