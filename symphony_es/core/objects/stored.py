"""Finding what a dict or set holds by something that equals it: what is recorded is what is stored, not what was given."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from symphony_es.core.objects.plain import MISSING

__all__ = ["stored"]


class _Probe:
    """Equals what a value equals, and keeps what it was found equal to."""

    __slots__ = ("_found", "_sought")

    def __init__(self, sought: Any) -> None:
        self._sought = sought
        self._found: Any = MISSING

    def __hash__(self) -> int:
        return hash(self._sought)

    def __eq__(self, other: object) -> bool:
        if self._sought is other or other == self._sought:
            self._found = other
            return True
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sought, name)  # an `==` of the user may look at attributes


def stored(holder: Collection[Any], sought: Any) -> Any:
    """Return the key or member that equals a value, or MISSING; one look-up.

    Raises:
        TypeError: the value cannot be hashed.
    """
    if sought not in holder:
        return MISSING
    if isinstance(sought, set):
        sought = frozenset(sought)
    probe = _Probe(sought)
    if probe in holder:
        return probe._found
    return next((item for item in holder if item is sought or item == sought), MISSING)  # one whose `==` looks at the class
