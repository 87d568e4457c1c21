"""Values for messages. What a caller has given may be anything: a text of a megabyte, an int that has no text, an object that raises.

Nothing here costs more than what is shown, and what is shown is one line without control characters, so that no name of a stranger's moves
the cursor of a terminal, forges a line of a log, or hides what stands behind it.
"""

from __future__ import annotations

import re

__all__ = ["MOST_MESSAGE", "digits", "message", "one_line", "quoted", "shown", "so_many", "type_shown"]

LONGEST = 60
"""Characters of a value that a message shows; the type and the beginning say which one is meant."""
MOST_NAME = 200
"""Characters of a name or id that a message shows."""
MOST_MESSAGE = 4_000
"""Characters of a whole message; of a longer one the middle is left out: the beginning says what is wrong, and the end what to do."""
_LONG_WORD = re.compile(rf"\S{{{MOST_NAME + 1},}}")
DEEPEST = 4
MOST_BITS = 400


def shown(value: object, longest: int = LONGEST) -> str:
    """Return a value for a message, cut where it is long; an int of thousands of digits has no text at all."""
    text = one_line(_told(value, longest, 0))
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def quoted(value: object, longest: int = MOST_NAME) -> str:
    """Return a name, a key or an id for a message, as Python writes it, cut where it is longer than names are."""
    return shown(value, longest)


def _told(value: object, room: int, depth: int) -> str:
    """Return at least the first characters of what a value's repr is."""
    kind = type(value)
    if kind is str or kind is bytes:
        return repr(value[: room + 1])  # type: ignore[index]
    if kind is int:
        return digits(value)  # type: ignore[arg-type]
    if kind in _BRACKETS:
        opening, closing = _BRACKETS[kind]
        if depth == DEEPEST:
            return f"{opening}…{closing}"
        told, left = [], room
        for item in value:  # type: ignore[attr-defined]
            if left < 0:
                break
            text = _told(item, left, depth + 1)
            if kind is dict:
                text = f"{text}: {_told(value[item], left, depth + 1)}"  # type: ignore[index]
            told.append(text)
            left -= len(text) + 2
        if kind is set and not told:
            return "set()"
        return f"{opening}{', '.join(told)}{',' if kind is tuple and len(told) == 1 else ''}{closing}"
    if isinstance(value, BaseException):  # it may hold all that was being read
        told = _places_of(value) or [_told(argument, room, depth + 1) for argument in value.args[:5]]
        return f"{kind.__name__}({', '.join(told)})"
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001  __repr__ is the application's code, and the message is about something else
        return f"a {kind.__name__} ({type(error).__name__})"


def _places_of(error: BaseException) -> list[str]:
    """Return where a model of pydantic did not validate, and how, without the values that were given: such an error has no arguments."""
    if not type(error).__module__.startswith("pydantic"):
        return []
    try:
        faults = error.errors(include_url=False, include_context=False, include_input=False)  # type: ignore[attr-defined]
        return [f"{'.'.join(map(str, fault['loc'])) or 'the whole'}: {fault['type']}" for fault in faults[:5]]
    except (AttributeError, TypeError, KeyError, ValueError):
        return []


_BRACKETS: dict[type, tuple[str, str]] = {list: ("[", "]"), tuple: ("(", ")"), dict: ("{", "}"), set: ("{", "}")}


def digits(number: int) -> str:
    """Return a whole number for a message; of one that is long, how long it is."""
    return str(number) if number.bit_length() <= MOST_BITS else f"an int of {number.bit_length():,} bits"


def one_line(text: str) -> str:
    """Return a text with what is no visible character written as an escape, line breaks and marks of direction too."""
    if text.isprintable():
        return text
    return "".join([sign if sign.isprintable() else sign.encode("unicode_escape").decode("ascii") for sign in text])


def message(text: str, *, lines: bool = False, names: bool = True) -> str:
    """Return a whole message as it may be shown.

    Args:
        text: the message.
        lines: it is a report of several lines.
        names: cut what is longer than a name may be, too.
    """
    if len(text) > 4 * MOST_MESSAGE:  # what is looked at below is as long as what is shown
        text = f"{text[: 2 * MOST_MESSAGE]}{text[-2 * MOST_MESSAGE :]}"
    if names:
        text = _LONG_WORD.sub(lambda found: f"{found[0][: MOST_NAME - 70]}…{found[0][-60:]}", text)
    if len(text) > MOST_MESSAGE:
        end = MOST_MESSAGE // 4
        text = f"{text[: MOST_MESSAGE - end - 20]} … {text[-end:]}"
    text = "\n".join(map(one_line, text.split("\n"))) if lines else one_line(text)
    return text if len(text) <= MOST_MESSAGE else f"{text[: MOST_MESSAGE - 1]}…"  # escapes are longer than what they stand for


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
