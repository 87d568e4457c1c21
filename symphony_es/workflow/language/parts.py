"""Values that consist of others and are looked up part by part: an expression that reads one element of ten thousand costs one.

Expressions look keys and indexes up in them. Whatever else is done with one is done with the whole of it, as `complete` gives it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

__all__ = ["NamedParts", "NumberedParts", "Parts", "complete"]


class Parts:
    """An output whose parts are looked up when they are read."""

    def __len__(self) -> int:
        """Return how many parts it has."""
        raise NotImplementedError

    def made(self) -> Any:
        """Return the whole of it, in lists and dicts of its own; what the parts gave is not copied."""
        raise NotImplementedError


class NumberedParts(Parts, Sequence[Any]):
    """The list of the outputs of numbered parts.

    Args:
        size: how many there are.
        seen: gives the output of one.
    """

    __slots__ = ("_seen", "_size")

    def __init__(self, size: int, seen: Callable[[object], Any]) -> None:
        self._size = size
        self._seen = seen

    def __getitem__(self, index: Any) -> Any:
        return self._seen(range(self._size)[index])

    def __len__(self) -> int:
        return self._size

    def made(self) -> list[Any]:
        """Return the list."""
        return [complete(self._seen(index)) for index in range(self._size)]


class NamedParts(Parts, Mapping[str, Any]):
    """The outputs of named parts, by name.

    Args:
        names: in order.
        seen: gives the output of one.
    """

    __slots__ = ("_names", "_seen")

    def __init__(self, names: Sequence[str], seen: Callable[[object], Any]) -> None:
        self._names = names
        self._seen = seen

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            raise KeyError(name)
        return self._seen(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def made(self) -> dict[str, Any]:
        """Return the dict."""
        return {name: complete(self._seen(name)) for name in self._names}


def complete(found: Any) -> Any:
    """Return what has been looked up, without any `Parts`."""
    return found.made() if isinstance(found, Parts) else found
