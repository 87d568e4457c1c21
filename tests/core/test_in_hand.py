"""What a function has in hand is found without calling anything of the application."""

from __future__ import annotations

import functools
from collections import OrderedDict, UserDict, deque
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from symphony_es.core.objects.in_hand import objects_in_hand

CALLED: list[str] = []


def touched(*_: Any) -> Any:
    """What a lazy value does when it is looked at."""
    CALLED.append("touched")
    raise ConnectionError("the database is not there")


class LazyRows(Mapping[str, Any]):
    """Loads what it holds."""

    __getitem__ = __iter__ = __len__ = keys = values = items = touched


class OddDict(dict[str, Any]):
    __iter__ = keys = values = items = touched


class OddList(list[Any]):
    __iter__ = __len__ = touched


class OddSet(set[Any]):
    __iter__ = touched


class OddDeque(deque[Any]):
    __iter__ = touched


class Proxy:
    """Says that it is what it stands for, once that has been loaded."""

    @property
    def __class__(self) -> Any:
        return touched()


def take(value: Any) -> None:
    """A function that names nothing."""


@pytest.mark.parametrize("kind", [LazyRows, Proxy, UserDict])
@pytest.mark.parametrize("where", ["argument", "in a list", "in a partial", "in a closure"])
def test_what_is_lazy_is_not_loaded(where: str, kind: Any) -> None:
    """It is handed as the object that it is."""
    CALLED.clear()
    lazy = kind()

    def enclosing() -> Any:
        return lazy

    function, arguments = {
        "argument": (take, [lazy]),
        "in a list": (take, [[{"k": (lazy,)}]]),
        "in a partial": (functools.partial(take, lazy), []),
        "in a closure": (enclosing, []),
    }[where]
    assert any(found is lazy for found in objects_in_hand(function, arguments))
    assert not CALLED


@pytest.mark.parametrize(
    "made",
    [
        lambda till: OddDict(a=till), lambda till: OddList([till]), lambda till: OddSet([till]), lambda till: OddDeque([till]),
        lambda till: OrderedDict(a=till), lambda till: {"a": deque([frozenset([till])])}, lambda till: ([till],),
    ],
)  # fmt: skip
def test_what_containers_hold_is_found(made: Any) -> None:
    """Whatever a class that was made of one says it holds."""
    CALLED.clear()
    till = object()
    held: Iterator[Any] = objects_in_hand(None, [made(till)])
    assert [found for found in held if found is till] == [till]
    assert not CALLED
