"""Definitions as JSON text: what JSON can hold, and reading it without letting anything pass in silence. Pure."""

from __future__ import annotations

import math
from typing import Any

from symphony_es.errors import DefinitionError
from symphony_es.shown import quoted, shown
from symphony_es.strict_json import DoubledKeyError, read_strictly
from symphony_es.workflow.definitions.nesting import check_depth

__all__ = ["check_json", "read_json"]

_MAX_INT_BITS = 14_000
"""Python neither writes nor reads an int of more than 4,300 digits."""


_Place = tuple["_Place", str] | None
"""Where something stands: around it, and its own part. It is written out for a message alone: of a long key with many values below it,
the paths would be many times the data."""


def check_json(value: Any, path: str) -> None:
    """Check whether a plain value comes back from JSON as what it is.

    Raises:
        DefinitionError: it does not, with its path.
    """
    check_depth(value, path)
    _check(value, (None, path) if path else None)


def _check(value: Any, place: _Place) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise DefinitionError(_path((place, f".{quoted(key)}")), f"JSON has text as keys, and this one is {shown(key)}")
            _check(item, (place, f".{key}"))
    elif type(value) is list:
        for index, item in enumerate(value):
            _check(item, (place, f"[{index}]"))
    elif isinstance(value, float) and not math.isfinite(value):
        raise DefinitionError(_path(place), f"JSON has no {shown(value)}")
    elif isinstance(value, int) and value.bit_length() > _MAX_INT_BITS:
        why = f"an int of {value.bit_length():,} bits has more digits than are read from JSON: write it as text"
        raise DefinitionError(_path(place), why)
    elif value is not None and type(value) not in (bool, int, float, str):
        why = f"JSON has no form for a {type(value).__name__}: write it as text, or keep the definition as a dict"
        raise DefinitionError(_path(place), why)


def _path(place: _Place) -> str:
    parts: list[str] = []
    while place is not None:
        place, part = place
        parts.append(part)
    return "".join(reversed(parts)).removeprefix(".")


def read_json(text: str | bytes) -> dict[str, Any]:
    """Return the dict in a JSON text.

    Raises:
        DefinitionError: it is no JSON or no dict, or a key is there twice.
    """
    try:
        data = read_strictly(text, finite=False)
    except DoubledKeyError as error:
        raise DefinitionError(error.key, "this key is there twice") from error
    except (TypeError, ValueError) as error:
        raise DefinitionError("", f"this is no JSON: {quoted(error)}") from error
    if not isinstance(data, dict):
        raise DefinitionError("", f"a definition is a dict, and this JSON is a {type(data).__name__}")
    check_json(data, "")  # 1e999 has become an infinity
    return data
