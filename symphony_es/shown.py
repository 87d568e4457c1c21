"""Values for messages. What a caller has given may be anything: a text of a megabyte, an int that has no text, an object that raises."""

from __future__ import annotations

__all__ = ["shown", "so_many", "type_shown"]

LONGEST = 60
"""Characters of a value that a message shows; the type and the beginning say which one is meant."""


def shown(value: object, longest: int = LONGEST) -> str:
    """Return a value for a message, cut where it is long; an int of thousands of digits has no text at all."""
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001  __repr__ is the application's code, and the message is about something else
        text = f"an int of {value.bit_length():,} bits" if isinstance(value, int) else f"a {type(value).__name__} ({type(error).__name__})"
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def type_shown(value: object) -> str:
    """Return what a value is, for a message that stays on record and shows no values: `a str`, `an int`, `None`, `an empty list`."""
    if value is None:
        return "None"
    kind = type(value)
    empty = kind in (str, bytes, list, tuple, dict, set, frozenset) and not value
    name = f"empty {kind.__name__}" if empty else kind.__qualname__
    return f"{'an' if name[:1] in 'aeiouAEIOU' else 'a'} {name}"


def so_many(count: int, one: str, several: str = "") -> str:
    """Return a number and what it counts: `1 run`, `2 runs`, `1,200 entities`.

    Args:
        count: how many.
        one: the word for one of them. several: for several, where that is not the same with an s.
    """
    return f"{count:,} {one if count == 1 else several or one + 's'}"
