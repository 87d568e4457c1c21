"""What the parts of an expression do with values: looking up, computing, comparing, calling.

Pure; below `compiling`, which says where in the text a part stands. Keeps the language's bounds: a result is at most as large as
its limit, and nothing of a value is ever reached by an attribute. Numbers are computed as their builtin types do it, whatever a
subclass says; Decimals in a context of their own, so that the same state gives the same answer in every thread.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from decimal import Context, Decimal, DecimalException
from itertools import islice
from math import isinf
from typing import Any

from symphony_es.shown import quoted
from symphony_es.workflow.language.parts import NumberedParts, Parts

__all__ = [
    "COMPARISONS",
    "FUNCTIONS",
    "MAX_INT_BITS",
    "MAX_ROUND_DIGITS",
    "MAX_SIZE",
    "RefusedError",
    "arithmetic",
    "cut",
    "describe",
    "look_up",
    "negative",
    "positive",
    "suggestion",
]

MAX_INT_BITS = 4_096
"""A whole number that is computed, or computed with, has at most 1,233 digits; `MAX_CHARS` leaves none longer to be written."""

MAX_SIZE = 100_000
"""Characters of a text, or elements of a list, that an expression makes."""

MAX_ROUND_DIGITS = 100
"""Rounding to a billion digits would compute the number with them."""

_MAX_NAMES = 1_000
_MAX_NAME_CHARS = 100
_DECIMALS = Context(prec=28)
_ELSEWHERE = {"true": "True", "false": "False", "none": "None", "null": "None", "nil": "None"}
_RUN = "the run's context"


class RefusedError(Exception):
    """An operation cannot be done with these values; `compiling` adds where it stands.

    Attributes:
        why: what is wrong.
        available: the names that are there, when one is missing.
        missing: the key that is missing, or None.
    """

    def __init__(self, why: str, available: Sequence[str] = (), missing: object = None) -> None:
        super().__init__(why)
        self.why = why
        self.available = available
        self.missing = missing


def look_up(value: Any, key: Any, seen: str = "") -> Any:
    """Return the element of a mapping, list, tuple or text under a key or index; `seen` is how the text calls the value.

    Raises:
        RefusedError: there is none, or the value has no elements.
    """
    if isinstance(value, Mapping):
        if type(key) is not int and not isinstance(key, str):
            raise RefusedError(f"a key is text or a whole number, not {_kind(key)}")
        try:
            if not isinstance(value, dict) or key in value:  # a defaultdict would make what is not there
                return value[key]
            reason = None
        except KeyError as error:
            reason = error.args[0] if error.args and error.args[0] != key else None
        names = [str(name) for name in islice(value, _MAX_NAMES) if isinstance(name, str) or type(name) is int]
        why = reason if isinstance(reason, str) else f"there is no {quoted(key)} in {seen or _RUN}"
        raise RefusedError(why, names, key)
    if not isinstance(value, (str, Sequence)) or isinstance(value, (bytes, bytearray)):
        raise RefusedError(f"{seen} is {_kind(value)}: it has no {quoted(key)} inside")
    if type(key) is not int:
        raise RefusedError(f"{seen} is a {_kind(value)}: it has indexes, and no {quoted(key)}")
    try:
        return value[key]
    except IndexError:
        raise RefusedError(f"{seen} has {len(value)} elements, and no [{key}]") from None


def suggestion(key: str, names: Sequence[str], seen: str) -> str:
    """Return a question for who mistyped a key, or nothing; what other languages call None and True is known outside of values."""
    if not seen and key in _ELSEWHERE:
        return f"; did you mean {_ELSEWHERE[key]}?"
    from difflib import get_close_matches  # late: only a message needs it

    close = get_close_matches(key[:_MAX_NAME_CHARS], [name for name in names if len(name) <= _MAX_NAME_CHARS], 1)
    return f"; did you mean {quoted(close[0])}?" if close else ""


def cut(value: Any, low: Any, high: Any, seen: str) -> Any:
    """Return `value[low:high]` of a list, tuple or text."""
    if not isinstance(value, (str, list, tuple)):
        raise RefusedError(f"{seen} is {_kind(value)}: only lists and texts have parts")
    for bound in (low, high):
        if bound is not None and type(bound) is not int:
            raise RefusedError(f"a part goes from one whole number to another, and not to {_kind(bound)}")
    bounds = slice(low, high)
    _check_size(len(range(*bounds.indices(len(value)))))
    kind: Any = next(kind for kind in (str, list, tuple) if isinstance(value, kind))
    return kind.__getitem__(value, bounds)


def _kind(value: Any) -> str:
    if isinstance(value, Parts):
        return "list" if isinstance(value, NumberedParts) else "dict"
    for kind in (list, tuple, dict, set):
        if isinstance(value, kind):
            return kind.__name__
    return type(value).__name__


def _check_size(size: int) -> None:
    if size > MAX_SIZE:
        raise RefusedError(f"the result would have {size:,} characters or elements; the limit is {MAX_SIZE:,}")


def _check_int(value: int) -> None:
    if value.bit_length() > MAX_INT_BITS:
        raise RefusedError(f"a whole number of more than {MAX_INT_BITS:,} bits is beyond the limit")


def _number(value: Any, sign: str) -> Any:
    """Return the builtin number that a value is, members of an IntEnum too."""
    if type(value) is float or type(value) is Decimal:
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        whole = int.__pos__(value)
        _check_int(whole)
        return whole
    if isinstance(value, float):
        return float.__pos__(value)
    raise RefusedError(f"{sign} computes with numbers, not with {_kind(value)}")


_PLAIN: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
}
_DECIMAL: dict[str, Callable[[Any, Any], Any]] = {
    "+": _DECIMALS.add,
    "-": _DECIMALS.subtract,
    "*": _DECIMALS.multiply,
    "/": _DECIMALS.divide,
    "//": _DECIMALS.divide_int,
    "%": _DECIMALS.remainder,
}


def arithmetic(sign: str, left: Any, right: Any) -> Any:
    """Return `left sign right` of two numbers, or `+` of two texts, two lists or two tuples.

    Raises:
        RefusedError: of anything else, or the result would be beyond its limit.
    """
    if sign == "+":
        kinds: tuple[Any, ...] = (str, list, tuple)
        for kind in kinds:
            if isinstance(left, kind) and isinstance(right, kind):
                _check_size(len(left) + len(right))
                return kind.__add__(left, right)
    one, other = _number(left, sign), _number(right, sign)
    if type(one) is Decimal or type(other) is Decimal:
        if type(one) is float or type(other) is float:
            raise RefusedError(f"{sign} mixes a Decimal with a float, and would lose what the Decimal is for")
        return _DECIMAL[sign](one, other)
    result = _PLAIN[sign](one, other)
    if type(result) is int:
        _check_int(result)
    elif isinf(result) and not (isinf(one) or isinf(other)):
        raise RefusedError("the result is too large for a float")
    return result


def negative(value: Any) -> Any:
    """Return `-value` of a number."""
    number = _number(value, "-")
    return _DECIMALS.minus(number) if type(number) is Decimal else -number


def positive(value: Any) -> Any:
    """Return `+value` of a number."""
    return _number(value, "+")


def _contains(value: Any, container: Any) -> bool:
    # Bytes would ask any value for a number that it stands for.
    if isinstance(container, (bytes, bytearray, memoryview)) or not isinstance(container, (str, Sequence, Set, Mapping)):
        raise RefusedError(f"nothing can be in {_kind(container)}")
    return value in container


COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "Eq": operator.eq,
    "NotEq": operator.ne,
    "Lt": operator.lt,
    "LtE": operator.le,
    "Gt": operator.gt,
    "GtE": operator.ge,
    "Is": operator.is_,
    "IsNot": operator.is_not,
    "In": _contains,
    "NotIn": lambda value, container: not _contains(value, container),
}
"""Class of `ast` -> what it does; the outcome counts as true or false."""


def _length(value: Any) -> int:
    if not isinstance(value, (str, Sequence, Set, Mapping)):
        raise RefusedError(f"{_kind(value)} has no length")
    return len(value)


def _extreme(choose: Callable[[Iterable[Any]], Any], values: tuple[Any, ...]) -> Any:
    first, *others = values
    candidates = values if others else first
    if not isinstance(candidates, (list, tuple, set, frozenset)):
        raise RefusedError(f"it needs a list, or two values or more, and not {_kind(candidates)}")
    if not candidates:
        raise RefusedError("nothing is in it")
    return choose(candidates)


def _absolute(value: Any) -> Any:
    number = _number(value, "abs()")
    return _DECIMALS.abs(number) if type(number) is Decimal else abs(number)


def _rounded(value: Any, digits: Any = None) -> Any:
    number = _number(value, "round()")
    if digits is not None and (type(digits) is not int or abs(digits) > MAX_ROUND_DIGITS):
        raise RefusedError(f"round() goes to a whole number of digits, at most {MAX_ROUND_DIGITS}")
    if type(number) is not Decimal:
        return round(number) if digits is None else round(number, digits)
    if digits is not None:
        return number.quantize(Decimal((0, (1,), -digits)), context=_DECIMALS)
    if not number.is_finite() or number.adjusted() > MAX_ROUND_DIGITS:
        raise RefusedError("it is too large to round to a whole number")
    return round(number)


FUNCTIONS: dict[str, tuple[int, int | None, Callable[..., Any]]] = {
    "len": (1, 1, _length),
    "min": (1, None, lambda *values: _extreme(min, values)),
    "max": (1, None, lambda *values: _extreme(max, values)),
    "abs": (1, 1, _absolute),
    "round": (1, 2, _rounded),
}
"""The calls there are: name -> fewest and most arguments, and what it does."""


_SAID: dict[type[Exception], str] = {ZeroDivisionError: "division by zero", OverflowError: "the number is too large"}
"""What goes on record of errors whose texts differ from one Python to the next."""


def describe(error: Exception) -> str:
    """Return what an exception of a value's own methods says, in one line; never raises."""
    if isinstance(error, DecimalException):
        return f"Decimal: {type(error).__name__}"
    if type(error) in _SAID:
        return _SAID[type(error)]
    try:
        text = " ".join(str(error).split())[:200]
    except Exception:  # noqa: BLE001 - the text of a foreign exception may fail too
        text = ""
    if isinstance(error, (TypeError, ArithmeticError)) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
