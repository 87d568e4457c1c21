"""What reading data of a stranger may cost: the bounds of all decoders, in one place.

Most of what decoding costs grows with the bytes that are there. Three things do not, and have a bound here, which writers keep as readers
do, so that what was written can be read:

* members of a set and keys of a dict whose hashes are equal: each is compared with all others. The hash of text and bytes has a key that
  nobody knows, and so have the hashes that stand on them; those of whole numbers, and of what is made of them, anybody can choose.
* lists, dicts and values of other types than text and numbers: three bytes become two hundred.
* the digits of a whole number that is read from text, where they are not counted in a table of bits.

docs/security.md, "What reading costs", tells all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from decimal import Decimal
from typing import Any
from uuid import UUID

__all__ = [
    "MOST_ALIKE", "MOST_DIGITS", "MOST_PARTS", "TOO_ALIKE", "TOO_MANY_PARTS",
    "has_room", "is_crowded", "is_wide", "may_have_too_many_parts", "read_digits",
]  # fmt: skip

MOST_ALIKE = 256
"""So many members of a set, or keys of a dict, may have one hash; to compare each with all others takes some milliseconds.

Of values that nobody has chosen for it, few have one, but for tuples of small whole numbers: Python has hash(-1) == hash(-2), so all tuples
of these two, of one length, are alike. As many are alike as this in the largest set of vectors that fits into an event: those of eight
numbers from -2 to 2. Of ten numbers, -1 or -2 each, 1,024 are: their comparing takes 50 ms, and they are refused, since nothing tells them
from what was made to cost that.
"""
TOO_ALIKE = (
    f"more than {MOST_ALIKE} of its members or keys have one hash, as few have that nobody made for it (hash(-1) == hash(-2) is one): "
    "store them as text"
)
MOST_PARTS = 1_000_000
"""So many lists, dicts and values of other types than text and numbers may stand in one event: they take 250 MB in memory."""
TOO_MANY_PARTS = f"it has more than {MOST_PARTS:,} lists, dicts, and values of other types than text and numbers"
MOST_DIGITS = 600
"""So many digits may a whole number have that stands in a text: Python takes a time that grows with their square, and may refuse 641."""

WIDE_BITS = 61
"""A whole number of fewer bits has a hash that few others of 64 bits have."""
_OPENING = bytes([*range(0x80, 0xA0), 0xC7, 0xC8, 0xC9, *range(0xD4, 0xD9), *range(0xDC, 0xE0)])
"""What lists, dicts and extension values begin with in msgpack; such bytes stand elsewhere, too."""


def read_digits(text: str) -> int:
    """Return the whole number that a text of digits says; of more than `MOST_DIGITS` of them, one that is larger than all others."""
    said = text.lstrip("0")
    return int(said or "0") if len(said) <= MOST_DIGITS else 10**MOST_DIGITS


def is_wide(value: object) -> bool:
    """Return whether a value is a whole number so large that any number of others have its hash."""
    return type(value) is int and value.bit_length() > WIDE_BITS + 3


def is_crowded(members: Collection[Any]) -> bool:
    """Return whether more than `MOST_ALIKE` of some values that have hashes have the same one; equal ones count once each.

    It costs the number of values, and compares none of them.
    """
    if len(members) <= MOST_ALIKE:
        return False
    hashes = list(map(hash, members))
    return len(hashes) - len(set(hashes)) >= MOST_ALIKE and max(Counter(hashes).values()) > MOST_ALIKE


def has_room(holder: Collection[Any], value: Any) -> bool:
    """Return whether a set or dict may take one more member or key, by the same rule. It costs a look for it."""
    if len(holder) < MOST_ALIKE or type(value) not in _CHOSEN or (type(value) is int and not is_wide(value)) or value in holder:
        return True
    asked = _Asked(hash(value))
    return asked not in holder and asked.compared < MOST_ALIKE


_CHOSEN = frozenset({int, tuple, Decimal, UUID})
"""Types whose hashes anybody can choose."""


class _Asked:
    """Counts the members of a set or dict that it is compared with, those that have its hash; it is equal to none of them."""

    __slots__ = ("_hash", "compared")

    def __init__(self, hashed: int) -> None:
        self._hash = hashed
        self.compared = 0

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        self.compared += 1
        return False


def may_have_too_many_parts(data: bytes) -> bool:
    """Return whether encoded data may have more than `MOST_PARTS` of what counts; where it may, they are to be counted."""
    return len(data) > MOST_PARTS and len(data) - len(data.translate(None, _OPENING)) > MOST_PARTS
