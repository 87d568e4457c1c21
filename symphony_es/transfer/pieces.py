"""JSON and table rows of large events, piece by piece: an event may have 16 MB, and its text several times as much.

What comes out is, piece after piece, what `text` and `tables` write of small events as a whole.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from symphony_es.transfer.text import Base64, is_object, json_text, one_level, plain_as_json

__all__ = ["LARGE_BYTES", "Later", "json_pieces", "taken"]

LARGE_BYTES = 256 * 1024
"""Events from this size on are written in pieces."""
PIECE = 48 * 1024
"""How many characters of a text, or bytes, are written at once: a multiple of three, so that base64 can be put together."""
TOGETHER = 500
"""So many values of a list, or of a dict, are written at once where they are simple."""
_SIMPLE = frozenset((type(None), bool, int, float, str))


class Later(NamedTuple):
    """Plain data that is made JSON when its turn comes."""

    value: Any


def json_pieces(value: Any) -> Iterator[str]:
    """Yield the JSON of what JSON has, `Later` for plain data in it."""
    kind = type(value)
    if kind is Later:
        yield from _plain(value.value)
    elif kind is dict:
        yield from _object(value, json_pieces)
    elif kind is list:
        yield from _list(value, json_pieces)
    elif kind is str:
        yield from _text(value)
    else:
        yield json_text(value)


def _plain(value: Any) -> Iterator[str]:
    kind = type(value)
    if kind is list:
        yield from _plain_items(value)
    elif kind is dict and is_object(value):
        if _is_simple(value.values()):
            yield json_text(plain_as_json(value))
        else:
            yield from _object(value, _plain)
    elif kind is dict:
        yield '{"$dict":['
        for number, pair in enumerate(value.items()):
            yield ",[" if number else "["
            yield from _plain(pair[0])
            yield ","
            yield from _plain(pair[1])
            yield "]"
        yield "]}"
    elif kind is Base64:
        yield from _base64(value.data)
    elif kind is str:
        yield from _text(value)
    else:
        yield from json_pieces(one_level(value, Later))


def _object(value: dict[str, Any], write: Any) -> Iterator[str]:
    begins = "{"
    for name, item in value.items():
        yield begins
        yield from _text(name)
        yield ":"
        yield from write(item)
        begins = ","
    yield "}" if value else "{}"


def _list(value: Sequence[Any], write: Any) -> Iterator[str]:
    begins = "["
    for item in value:
        yield begins
        yield from write(item)
        begins = ","
    yield "]" if value else "[]"


def _plain_items(items: list[Any]) -> Iterator[str]:
    yield "["
    for start in range(0, len(items), TOGETHER):
        some = items[start : start + TOGETHER]
        text = json_text(plain_as_json(some)) if _is_simple(some) else None
        if start:
            yield ","
        if text is not None:
            yield text[1:-1]
            continue
        for number, item in enumerate(some):
            if number:
                yield ","
            yield from _plain(item)
    yield "]"


def _is_simple(values: Any) -> bool:
    """Return whether values are few and none of them consists of others, or is long."""
    return len(values) <= TOGETHER and set(map(type, values)) <= _SIMPLE and sum(len(each) for each in values if type(each) is str) <= PIECE


def _text(value: str) -> Iterator[str]:
    if len(value) <= PIECE:
        yield json_text(value)
        return
    yield '"'
    for start in range(0, len(value), PIECE):
        yield json_text(value[start : start + PIECE])[1:-1]
    yield '"'


def _base64(data: bytes) -> Iterator[str]:
    yield '"'
    view = memoryview(data)
    for start in range(0, len(data), PIECE):
        yield b64encode(view[start : start + PIECE]).decode("ascii")
    yield '"'


def taken(pieces: Iterator[str], most: int) -> bytes:
    """Return the next pieces as UTF-8, about so many bytes; empty where there are no more."""
    found: list[bytes] = []
    left = most
    for piece in pieces:
        found.append(piece.encode())
        left -= len(found[-1])
        if left <= 0:
            break
    return b"".join(found)


def row_pieces(cells: Iterable[Iterable[str]]) -> Iterator[str]:
    """Yield a row of a table, each cell in quotes; a cell comes in pieces as well, and they are guarded already."""
    begins = '"'
    for cell in cells:
        yield begins
        for piece in cell:
            yield piece.replace('"', '""')
        begins = '","'
    yield '"\r\n'
