"""What callers give to the reading calls of a log, looked at before a store would take it for damage, or fail at it in words of its own."""

from __future__ import annotations

from symphony_es.errors import ConfigurationError
from symphony_es.shown import shown

__all__ = ["LARGEST", "check_key_range", "check_names", "check_numbers", "check_numbers_if_given", "check_texts"]

LARGEST = 2**63 - 1  # what a store takes as a number


def check_numbers(*numbers: object) -> None:
    """Refuse what no store takes as a number.

    Raises:
        ConfigurationError: one is not a whole number, or is too large.
    """
    for number in numbers:
        if type(number) is not int or not -LARGEST <= number <= LARGEST:
            raise ConfigurationError(f"positions, versions and limits are whole numbers of at most 63 bits, not {shown(number)}")


def check_numbers_if_given(*numbers: object) -> None:
    """Check, like `check_numbers`, those that are not None."""
    check_numbers(*[number for number in numbers if number is not None])


def check_texts(*texts: object) -> None:
    """Refuse what is no key, type or prefix.

    Raises:
        ConfigurationError: one is not a text.
    """
    for text in texts:
        if not isinstance(text, str):
            raise ConfigurationError(f"a log is asked for entities by texts, such as 'Type:id', not by {shown(text)}")


def check_names(names: object) -> None:
    """Refuse what is no names of events.

    Raises:
        ConfigurationError: it is not a list, tuple or set of texts.
    """
    if not isinstance(names, list | tuple | set | frozenset) or not all(isinstance(name, str) for name in names):
        raise ConfigurationError(f"names are names of events, in a list, not {shown(names)}")


def check_key_range(given: object) -> None:
    """Refuse what is not the first key of a range and the one behind it.

    Raises:
        ConfigurationError: it is not a pair of texts.
    """
    if not isinstance(given, tuple) or len(given) != 2:
        raise ConfigurationError(f"key_range is a pair of keys, not {shown(given)}")
    check_texts(*given)
