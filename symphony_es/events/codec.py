"""Format 1: how values are written as bytes, and read back. The only module that knows msgpack.

docs/format.md describes every byte. Whatever decoding can raise becomes one typed error.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Context, Decimal, InvalidOperation
from typing import Any
from uuid import UUID

import msgpack

from symphony_es.errors import DecodeError, UnstorableValueError
from symphony_es.events.bounds import MOST_ALIKE, MOST_PARTS, TOO_ALIKE, TOO_MANY_PARTS, is_crowded, may_have_too_many_parts
from symphony_es.events.changes import KEY_TYPES, MAX_DEPTH
from symphony_es.events.references import EntityReference
from symphony_es.events.values import Encrypted, Redacted, Tagged, check_plain, check_types, zone_from, zone_parts
from symphony_es.shown import quoted

__all__ = [
    "FORMAT", "FORMAT_BYTE", "UNREADABLE", "decode", "decode_stream", "decode_value", "decode_values", "encode_canonical", "encode_value",
    "pack",
]  # fmt: skip

Packed: Any = msgpack  # it ships no types: the one untyped name of this module

FORMAT = 1
FORMAT_BYTE = 0xD4
"""What stands for format 1 until it is released: each change of it takes another value, so that what an earlier build wrote is refused."""
BUFFER_BYTES = 1024
KEPT_BUFFER_BYTES = 64 * 1024
MOST_EXTENSIONS = MAX_DEPTH + 2
"""How deep extension values of msgpack may be nested: containers, a leaf in the innermost one, and the large number a leaf may hold.

It bounds the recursion alone: how deep containers may be nested, `check_types` says, for writers and readers alike.
"""
_UINT64 = b"\xcf"  # in msgpack, before 8 bytes

_EPOCH = datetime(1, 1, 1)
_MICROSECOND = timedelta(microseconds=1)
_DAY = timedelta(days=1)
_DECIMALS = Context(capitals=1)  # the text of a Decimal must not depend on the caller's context

TUPLE, SET, DATETIME, DATE, TIME, TIMEDELTA, DECIMAL, UUID_, BIGINT, REFERENCE, ENUM, VALUE, PART, REDACTED, ENCRYPTED = range(1, 16)


# -- values -----------------------------------------------------------------------------------------------------------


def _ext(code: int, payload: bytes) -> Any:
    return Packed.ExtType(code, payload)


def _pack_int(value: int) -> Any:
    return _ext(BIGINT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _pack_datetime(value: datetime) -> Any:
    wall = (value.replace(tzinfo=None, fold=0) - _EPOCH) // _MICROSECOND
    return _ext(DATETIME, pack([wall, value.fold, *zone_parts(value)]))


def _pack_time(value: time) -> Any:
    wall = ((value.hour * 60 + value.minute) * 60 + value.second) * 1_000_000 + value.microsecond
    return _ext(TIME, pack([wall, value.fold, *zone_parts(value)]))


def _pack_tagged(value: Tagged) -> Any:
    code = {"enum": ENUM, "value": VALUE, "part": PART}[value.kind]
    parts = [value.name, value.data]
    if value.value is not ...:
        parts.append(value.value)
    elif value.state_version != 1:
        parts.append(value.state_version)
    return _ext(code, pack(parts))


def _pack_members(value: set[Any]) -> Any:
    return _ext(SET, Packed.Packer(buf_size=BUFFER_BYTES).pack_array_header(len(value)) + b"".join(sorted(map(pack, value))))


_PACKERS: dict[type, Callable[[Any], Any]] = {
    tuple: lambda value: _ext(TUPLE, pack(list(value))),
    set: _pack_members,
    datetime: _pack_datetime,
    date: lambda value: _ext(DATE, pack(value.toordinal())),
    time: _pack_time,
    timedelta: lambda value: _ext(TIMEDELTA, pack(value // _MICROSECOND)),
    Decimal: lambda value: _ext(DECIMAL, _DECIMALS.to_sci_string(value).encode("ascii")),
    UUID: lambda value: _ext(UUID_, value.bytes),
    int: _pack_int,
    EntityReference: lambda value: _ext(REFERENCE, value.key.encode()),
    Tagged: _pack_tagged,
    Redacted: lambda value: _ext(REDACTED, value.reason.encode()),
    Encrypted: lambda value: _ext(ENCRYPTED, pack([value.key_id, value.data])),
}


def _default(value: Any) -> Any:
    packer = _PACKERS.get(type(value))
    if packer is None:
        raise UnstorableValueError((), f"{type(value).__name__} is no plain data")
    return packer(value)


_idle_packers: list[Any] = []
"""Packers that nobody uses at the moment: making one costs more than packing a small value."""


def pack(value: Any) -> bytes:
    """Return the bytes of a value whose types have been checked."""
    # Each thread, and each level of nesting, has one of its own: packing an extension value packs again. One that has failed is not used
    # again, nor is one whose buffer has grown large.
    try:
        packer = _idle_packers.pop()
    except IndexError:
        packer = Packed.Packer(default=_default, strict_types=True, buf_size=BUFFER_BYTES)
    packed: bytes = packer.pack(value)
    if len(packed) <= KEPT_BUFFER_BYTES:
        _idle_packers.append(packer)
    return packed


def encode_value(value: Any) -> bytes:
    """Return the bytes of a plain value; dicts keep their order, sets are written in the order of their members' encodings.

    Raises:
        UnstorableValueError: it is no plain data.
    """
    check_types(value)
    try:
        return pack(value)
    except UnicodeEncodeError:
        check_plain(value)  # says where
        raise


def encode_canonical(value: Any) -> bytes:
    """Return the bytes of a plain value with dict keys in order (ints, then text): equal values, equal bytes.

    Raises:
        UnstorableValueError: it is no plain data.
    """
    check_types(value)
    try:
        return pack(_ordered(value))
    except UnicodeEncodeError:
        check_plain(value)  # says where
        raise


def _ordered(value: Any) -> Any:
    cls = type(value)
    if cls is dict:
        return {key: _ordered(value[key]) for key in sorted(value, key=lambda key: (type(key) is str, key))}
    if cls is list:
        return [_ordered(item) for item in value]
    if cls is tuple:
        return tuple(_ordered(item) for item in value)
    if cls is set:
        return _CanonicalSet(value)
    if cls is Tagged:
        held = value.value if value.value is ... else _ordered(value.value)
        return Tagged(value.kind, value.name, _ordered(value.data), value=held, state_version=value.state_version)
    if cls is float and value != value:
        return float("nan")
    return value


class _CanonicalSet:
    """A set whose members are written canonically too."""

    def __init__(self, members: set[Any]) -> None:
        self.encoded = sorted(pack(_ordered(member)) for member in members)


def _pack_canonical_set(value: _CanonicalSet) -> Any:
    return _ext(SET, Packed.Packer(buf_size=BUFFER_BYTES).pack_array_header(len(value.encoded)) + b"".join(value.encoded))


_PACKERS[_CanonicalSet] = _pack_canonical_set


def decode_value(data: bytes) -> Any:
    """Return the plain value of its bytes.

    Raises:
        DecodeError: the bytes are no value of format 1.
    """
    value = decode(data)
    try:
        check_types(value)
    except (UnstorableValueError, RecursionError) as error:
        raise DecodeError(f"the bytes are no value of format {FORMAT}: {quoted(error, 200)}") from error
    return value


def decode_values(pieces: Sequence[bytes | memoryview]) -> list[Any] | None:
    """Return what `decode_value` makes of each of many pieces, decoded as one stream; None where it refuses one of them, which then says
    why.
    """
    stream, mark = decode_stream(pieces)
    try:
        decoded = list(stream)
        values = decoded[::2]
        if len(decoded) != 2 * len(pieces) or decoded[1::2].count(mark) != len(pieces):
            return None  # one ends elsewhere than its piece
        for value in values:
            check_types(value)
    except (*UNREADABLE, UnstorableValueError):
        return None
    return values


def decode(data: bytes, *, bounded: bool = False) -> Any:
    """Return what bytes say, with its types unchecked.

    Args:
        bounded: they are those of one event: `MOST_PARTS` holds. A state may have grown by many.

    Raises:
        DecodeError: they cannot be read, or hold too much.
    """
    return _Decoder(counts=bounded and may_have_too_many_parts(data)).decode(data)


def decode_stream(pieces: Sequence[bytes | memoryview]) -> tuple[Iterator[Any], int]:
    """Decode many values as one stream, which costs a third of decoding them one by one; their types are unchecked.

    Returns:
        an iterator over a value, a mark, a value, a mark, …, which raises one of `UNREADABLE` where a piece cannot be read; and the mark.
        Something else in its place says that the value before it ends elsewhere than its piece. It is random, so that no piece contains it.
    """
    mark = os.urandom(8)
    decoder = _Decoder()
    data = (_UINT64 + mark).join([*pieces, b""])
    hooks: dict[str, Any] = {"ext_hook": decoder.hook, "object_pairs_hook": decoder.pairs}
    stream = Packed.Unpacker(**hooks, strict_map_key=False, raw=False, max_buffer_size=max(1, len(data)))  # nothing has more members
    stream.feed(data)
    return stream, int.from_bytes(mark, "big")


UNREADABLE = (DecodeError, ValueError, TypeError, KeyError, OverflowError, RecursionError, Packed.UnpackException, InvalidOperation)


class _Decoder:
    """Decodes one value; counts how deep extension types are nested, which msgpack's own limit does not see.

    Args:
        counts: count lists, dicts and extension values, too.
    """

    __slots__ = ("_list_hook", "depth", "left", "wide")

    def __init__(self, *, counts: bool = False) -> None:
        self.depth = 0
        self.wide = False
        self.left = MOST_PARTS
        self._list_hook = self._count if counts else None

    def decode(self, data: bytes) -> Any:
        try:
            return self._unpack(data)
        except DecodeError:
            raise
        except UNREADABLE as error:
            raise DecodeError(f"the bytes are no value of format {FORMAT}: {quoted(error, 200)}") from error

    def _unpack(self, data: bytes) -> Any:
        return Packed.unpackb(
            data, ext_hook=self.hook, object_pairs_hook=self.pairs, list_hook=self._list_hook, strict_map_key=False, raw=False
        )

    def _count(self, made: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise DecodeError(TOO_MANY_PARTS)
        return made

    def pairs(self, pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
        """Return a map of msgpack."""
        if self._list_hook is not None:
            self._count(None)
        if self.wide and len(pairs) > MOST_ALIKE and is_crowded([key for key, _ in pairs]):
            raise DecodeError(TOO_ALIKE)
        made = dict(pairs)
        if len(made) != len(pairs):
            raise DecodeError("a map has a key twice")
        if not KEY_TYPES.issuperset(map(type, made)):  # True would pass for 1 otherwise
            raise DecodeError("a map has a key that is neither text nor a whole number")
        return made

    def hook(self, code: int, payload: bytes) -> Any:
        """Return what an extension value of msgpack means."""
        reader = _READERS.get(code)
        if reader is None:
            raise DecodeError(f"extension type {code} is unknown")
        self.depth += 1
        self.wide = True
        if self._list_hook is not None:
            self._count(None)
        if self.depth > MOST_EXTENSIONS:
            raise DecodeError(f"values are nested deeper than {MAX_DEPTH} levels")
        made = reader(self, payload)
        self.depth -= 1
        return made

    def array(self, payload: bytes, size: int | None = None) -> list[Any]:
        items = self._unpack(payload)
        if type(items) is not list or (size is not None and len(items) != size):
            raise DecodeError("an extension value has another shape than its type")
        return items

    def of_type(self, payload: bytes, cls: type) -> Any:
        item = self._unpack(payload)
        if type(item) is not cls:
            raise DecodeError("an extension value has another shape than its type")
        return item


def _read_set(decoder: _Decoder, payload: bytes) -> set[Any]:
    items = decoder.array(payload)
    if is_crowded(items):
        raise DecodeError(TOO_ALIKE)
    made = set(items)
    if len(made) != len(items):
        raise DecodeError("a set has a member twice")
    return made


def _moment(decoder: _Decoder, payload: bytes) -> tuple[datetime, int | None, str | None, str | None]:
    """Return the naive moment, its offset, the name of its zone, and the name of its fixed offset, which is there only where it has one."""
    parts = decoder.array(payload)
    if len(parts) not in (4, 5):
        raise DecodeError("a date or time has another shape")
    wall, fold, offset, key, *name = parts
    if type(wall) is not int or type(fold) is not int or type(offset) not in (int, type(None)) or type(key) not in (str, type(None)):
        raise DecodeError("a date or time has another shape")
    if name and (type(name[0]) is not str or key is not None or offset is None):
        raise DecodeError("the name of a date's or time's offset stands without one, or beside a zone")
    return (_EPOCH + wall * _MICROSECOND).replace(fold=fold), offset, key, name[0] if name else None


def _read_datetime(decoder: _Decoder, payload: bytes) -> datetime:
    moment, offset, key, name = _moment(decoder, payload)
    if offset is None and key is not None:
        raise DecodeError("a datetime has a zone without an offset")
    return moment.replace(tzinfo=zone_from(offset, key, name, moment))


def _read_time(decoder: _Decoder, payload: bytes) -> time:
    moment, offset, key, name = _moment(decoder, payload)
    if moment - _EPOCH >= _DAY:
        raise DecodeError("a time is later than its day")
    return moment.time().replace(tzinfo=zone_from(offset, key, name, None))


def _read_decimal(decoder: _Decoder, payload: bytes) -> Decimal:
    text = payload.decode("ascii")
    number = Decimal(text)
    if _DECIMALS.to_sci_string(number) != text:
        raise DecodeError("a decimal number is not written the one way it can be")
    return number


def _read_bigint(decoder: _Decoder, payload: bytes) -> int:
    number = int.from_bytes(payload, "big", signed=True)
    if -(2**63) <= number < 2**64 or number.bit_length() // 8 + 1 != len(payload):
        raise DecodeError("a large integer is not written the one way it can be")
    return number


def _read_tagged(kind: Any) -> Callable[[_Decoder, bytes], Tagged]:
    def read(decoder: _Decoder, payload: bytes) -> Tagged:
        name, data, *more = decoder.array(payload)
        if type(name) is not str:
            raise DecodeError("a tagged value has no name")
        if len(more) > 1 or (kind == "enum" and type(data) not in (str, int)) or (kind != "enum" and type(data) is not dict):
            raise DecodeError("a tagged value has another shape than its kind")
        if not more:
            return Tagged(kind, name, data)
        if kind == "enum" and type(data) is str:
            return Tagged(kind, name, data, value=more[0])
        if kind == "enum" or type(more[0]) is not int or not 1 < more[0] < 2**63:
            raise DecodeError("a tagged value has another shape than its kind")
        return Tagged(kind, name, data, state_version=more[0])

    return read


def _read_encrypted(decoder: _Decoder, payload: bytes) -> Encrypted:
    key_id, data = decoder.array(payload, 2)
    if type(key_id) is not str or type(data) is not bytes:
        raise DecodeError("an encrypted value has another shape")
    return Encrypted(key_id, data)


_READERS: dict[int, Callable[[_Decoder, bytes], Any]] = {
    TUPLE: lambda decoder, payload: tuple(decoder.array(payload)),
    SET: _read_set,
    DATETIME: _read_datetime,
    DATE: lambda decoder, payload: date.fromordinal(decoder.of_type(payload, int)),
    TIME: _read_time,
    TIMEDELTA: lambda decoder, payload: decoder.of_type(payload, int) * _MICROSECOND,
    DECIMAL: _read_decimal,
    UUID_: lambda decoder, payload: UUID(bytes=payload),
    BIGINT: _read_bigint,
    REFERENCE: lambda decoder, payload: EntityReference.parse(payload.decode()),
    ENUM: _read_tagged("enum"),
    VALUE: _read_tagged("value"),
    PART: _read_tagged("part"),
    REDACTED: lambda decoder, payload: Redacted(payload.decode()),
    ENCRYPTED: _read_encrypted,
}
