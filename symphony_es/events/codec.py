"""Format 1: how values and events are written as bytes, and read back. The only module that knows msgpack.

The state of an event is `format u8 | flags u8 | event id 16 | time u64 | body | check u32`; the body is 16 bytes of salt and the
msgpack of `[transaction id, changes, metadata, data]`. docs/format.md describes every byte. Whatever decoding can raise becomes one
typed error, and nothing is handed out whose check value does not match.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Context, Decimal, InvalidOperation
from hashlib import sha256
from operator import attrgetter
from typing import Any
from uuid import UUID
from zlib import crc32

import msgpack

from symphony_es.errors import (
    ChangeError,
    DamagedEventError,
    DecodeError,
    InvalidIdentifierError,
    LimitExceededError,
    UnstorableValueError,
)  # fmt: skip
from symphony_es.events.changes import ADD, APPEND, DISCARD, INSERT, KEY_TYPES, MAX_DEPTH, SCALARS, Change, check_change
from symphony_es.events.event import Event, EventMetadata, NewEvent
from symphony_es.events.identifiers import check_event_name, split_key
from symphony_es.events.references import EntityReference
from symphony_es.events.values import DEFAULT_LIMITS, Encrypted, Limits, Redacted, Tagged, check_plain, check_types, zone_from, zone_parts

__all__ = [
    "UNREADABLE", "Row", "body_stream", "check_row", "check_rows", "commitment", "decode_changes", "decode_row", "decode_value",
    "encode_body", "encode_canonical", "encode_value", "seal_state",
]  # fmt: skip

Row = tuple[int, str, int, str, bytes]
"""Position, entity key, version, event name, state: one row of the log."""

Packed: Any = msgpack  # it ships no types: the one untyped name of this module

FORMAT = 1
POSITION_COVERED = 0x01
KNOWN_FLAGS = POSITION_COVERED
SALT_BYTES = 16
ID_BYTES = 16
_HEADER = struct.Struct(">BB16sQ")
_COLUMNS = struct.Struct(">QQHI")  # position, version, length of the name, length of the state
_CHECK = struct.Struct("<I")
HEADER_BYTES = _HEADER.size
CONTENT_START = HEADER_BYTES + SALT_BYTES
CHECK_BYTES = _CHECK.size
LEAST_STATE_BYTES = CONTENT_START + CHECK_BYTES
CHECK_RESIDUE = 0x2144DF1C
"""What CRC-32 makes of anything that ends with its own CRC-32, least byte first: so a check is one call, and no slice."""
_UINT64 = b"\xcf"  # in msgpack, before 8 bytes
BUFFER_BYTES = 1024
STREAM_BYTES = 8 * 1024 * 1024
"""Up to how many bytes of bodies are decoded as one stream."""
_INTO = frozenset({INSERT, APPEND, ADD, DISCARD})  # what they bring stands one level below their path

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
    return _ext(DATETIME, _pack([wall, value.fold, *zone_parts(value)]))


def _pack_time(value: time) -> Any:
    wall = ((value.hour * 60 + value.minute) * 60 + value.second) * 1_000_000 + value.microsecond
    return _ext(TIME, _pack([wall, value.fold, *zone_parts(value)]))


def _pack_tagged(value: Tagged) -> Any:
    code = {"enum": ENUM, "value": VALUE, "part": PART}[value.kind]
    return _ext(code, _pack([value.name, value.data]))


def _pack_members(value: set[Any]) -> Any:
    return _ext(SET, Packed.Packer(buf_size=BUFFER_BYTES).pack_array_header(len(value)) + b"".join(sorted(map(_pack, value))))


_PACKERS: dict[type, Callable[[Any], Any]] = {
    tuple: lambda value: _ext(TUPLE, _pack(list(value))),
    set: _pack_members,
    datetime: _pack_datetime,
    date: lambda value: _ext(DATE, _pack(value.toordinal())),
    time: _pack_time,
    timedelta: lambda value: _ext(TIMEDELTA, _pack(value // _MICROSECOND)),
    Decimal: lambda value: _ext(DECIMAL, _DECIMALS.to_sci_string(value).encode("ascii")),
    UUID: lambda value: _ext(UUID_, value.bytes),
    int: _pack_int,
    EntityReference: lambda value: _ext(REFERENCE, value.key.encode()),
    Tagged: _pack_tagged,
    Redacted: lambda value: _ext(REDACTED, value.reason.encode()),
    Encrypted: lambda value: _ext(ENCRYPTED, _pack([value.key_id, value.data])),
}


def _default(value: Any) -> Any:
    packer = _PACKERS.get(type(value))
    if packer is None:
        raise UnstorableValueError((), f"{type(value).__name__} is no plain data")
    return packer(value)


def _pack(value: Any) -> bytes:
    # A packer of its own each time, since packing an extension value packs again; with a buffer that grows, not 256 KiB at once.
    packed: bytes = Packed.Packer(default=_default, strict_types=True, buf_size=BUFFER_BYTES).pack(value)
    return packed


def encode_value(value: Any) -> bytes:
    """The bytes of a plain value; dicts keep their order, sets are written in the order of their members' encodings.

    Raises:
        UnstorableValueError: it is no plain data.
    """
    check_types(value)
    try:
        return _pack(value)
    except UnicodeEncodeError:
        check_plain(value)  # says where
        raise


def encode_canonical(value: Any) -> bytes:
    """The bytes of a plain value with dict keys in order (ints, then text): equal values, equal bytes.

    Raises:
        UnstorableValueError: it is no plain data.
    """
    check_types(value)
    try:
        return _pack(_ordered(value))
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
    if cls is Tagged and value.kind != "enum":
        return Tagged(value.kind, value.name, _ordered(value.data))
    if cls is float and value != value:
        return float("nan")
    return value


class _CanonicalSet:
    """A set whose members are written canonically too."""

    def __init__(self, members: set[Any]) -> None:
        self.encoded = sorted(_pack(_ordered(member)) for member in members)


def _pack_canonical_set(value: _CanonicalSet) -> Any:
    return _ext(SET, Packed.Packer(buf_size=BUFFER_BYTES).pack_array_header(len(value.encoded)) + b"".join(value.encoded))


_PACKERS[_CanonicalSet] = _pack_canonical_set


def _pairs(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise DecodeError("a map has a key twice")
    if not KEY_TYPES.issuperset(map(type, made)):  # True would pass for 1 otherwise
        raise DecodeError("a map has a key that is neither text nor a whole number")
    return made


def decode_value(data: bytes) -> Any:
    """The plain value of its bytes.

    Raises:
        DecodeError: the bytes are no value of format 1.
    """
    value = _Decoder().decode(data)
    try:
        check_types(value)
    except (UnstorableValueError, RecursionError) as error:
        raise DecodeError(f"the bytes are no value of format {FORMAT}: {error!r:.200}") from error
    return value


UNREADABLE = (DecodeError, ValueError, TypeError, KeyError, OverflowError, RecursionError, Packed.UnpackException, InvalidOperation)


class _Decoder:
    """Decodes one value; counts how deep extension types are nested, which msgpack's own limit does not see."""

    __slots__ = ("depth",)

    def __init__(self) -> None:
        self.depth = 0

    def decode(self, data: bytes) -> Any:
        try:
            return self._unpack(data)
        except DecodeError:
            raise
        except UNREADABLE as error:
            raise DecodeError(f"the bytes are no value of format {FORMAT}: {error!r:.200}") from error

    def _unpack(self, data: bytes) -> Any:
        return Packed.unpackb(data, ext_hook=self.hook, object_pairs_hook=_pairs, strict_map_key=False, raw=False)

    def hook(self, code: int, payload: bytes) -> Any:
        """What an extension value of msgpack means."""
        reader = _READERS.get(code)
        if reader is None:
            raise DecodeError(f"extension type {code} is unknown")
        self.depth += 1
        if self.depth > MAX_DEPTH:
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
    made = set(items)
    if len(made) != len(items):
        raise DecodeError("a set has a member twice")
    return made


def _moment(decoder: _Decoder, payload: bytes) -> tuple[datetime, int | None, str | None]:
    wall, fold, offset, name = decoder.array(payload, 4)
    if type(wall) is not int or type(fold) is not int or type(offset) not in (int, type(None)) or type(name) not in (str, type(None)):
        raise DecodeError("a date or time has another shape")
    return (_EPOCH + wall * _MICROSECOND).replace(fold=fold), offset, name


def _read_datetime(decoder: _Decoder, payload: bytes) -> datetime:
    moment, offset, name = _moment(decoder, payload)
    if offset is None and name is not None:
        raise DecodeError("a datetime has a zone without an offset")
    return moment.replace(tzinfo=zone_from(offset, name, moment))


def _read_time(decoder: _Decoder, payload: bytes) -> time:
    moment, offset, name = _moment(decoder, payload)
    if moment - _EPOCH >= _DAY:
        raise DecodeError("a time is later than its day")
    return moment.time().replace(tzinfo=zone_from(offset, name, None))


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
        name, data = decoder.array(payload, 2)
        made = Tagged(kind, name, data)
        if type(name) is not str:
            raise DecodeError("a tagged value has no name")
        if (kind == "enum" and type(data) not in (str, int)) or (kind != "enum" and type(data) is not dict):
            raise DecodeError("a tagged value has another shape than its kind")
        return made

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


# -- events -----------------------------------------------------------------------------------------------------------

_METADATA_FIELDS = (
    "run_id", "step", "attempt", "cause", "actor", "reason", "correlation_id", "trace_id", "state_version", "generation", "user",
)  # fmt: skip
_metadata_values = attrgetter(*_METADATA_FIELDS)
_NO_METADATA = (None,) * len(_METADATA_FIELDS)
_STATE_VERSION = _METADATA_FIELDS.index("state_version")
_GENERATION = _METADATA_FIELDS.index("generation")
PLAIN_METADATA = _STATE_VERSION
"""Metadata of at most so many slots say nothing that concerns a state."""
_METADATA_TYPES: tuple[type, ...] = (str, str, int, bytes, str, str, str, str, int, int, dict)
_LEAST = {"attempt": 1, "state_version": 1, "generation": 0}


def _fault_of_metadata(fields: list[Any]) -> str | None:
    """What is wrong with the metadata slots, None if nothing is."""
    if len(fields) > len(_METADATA_FIELDS):
        return "the metadata have more slots than there are"
    for name, wanted, value in zip(_METADATA_FIELDS, _METADATA_TYPES, fields, strict=False):
        if value is None:
            continue
        cls = type(value)
        if cls is not wanted:
            return f"{name} is a {cls.__name__}, not {wanted.__name__}"
        if wanted is int and not _LEAST[name] <= value < 2**63:
            return f"{name} is {value:.20g}"
        if name == "cause" and len(value) != ID_BYTES:
            return f"cause has {len(value)} bytes, not {ID_BYTES}"
        if name == "user" and not all(type(key) is str for key in value):
            return "user has a key that is no text"
    return None


def _metadata_list(metadata: EventMetadata) -> list[Any]:
    values = _metadata_values(metadata)
    if values == _NO_METADATA:
        return []
    fields = list(values)
    while fields and fields[-1] is None:
        fields.pop()
    return fields


def encode_body(event: NewEvent, salt: bytes, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """The body of an event: salt, then what it says.

    Raises:
        UnstorableValueError: a value or a metadata slot that is no plain data, or is nested too deep.
        ChangeError: something among the changes that is no change.
        LimitExceededError: the body is larger than the limit.
    """
    metadata = _metadata_list(event.metadata)
    try:
        _check_event(event, metadata, min(limits.max_depth, MAX_DEPTH))
    except UnstorableValueError as error:
        raise error.within(event.entity_key) from None
    if len(salt) != SALT_BYTES or len(event.event_id) != ID_BYTES or len(event.transaction_id or event.event_id) != ID_BYTES:
        raise ValueError(f"salt and ids have {ID_BYTES} bytes")
    changes = [[operation, [*path], *values] for operation, path, *values in event.changes]
    try:
        packed = _pack([event.transaction_id, changes, metadata, event.data])
    except UnicodeEncodeError:
        _find_surrogate(event)
        raise
    if len(packed) + SALT_BYTES > limits.max_body_bytes:
        raise LimitExceededError(
            f"the event {event.name} of {event.entity_key} takes {len(packed):,} bytes; {limits.max_body_bytes:,} are allowed"
        )
    return salt + packed


def _check_event(event: NewEvent, metadata: list[Any], max_depth: int) -> None:
    for change in event.changes:
        check_change(change)
        for value in change[2:]:
            if type(value) not in SCALARS:
                check_types(value, change[1], max_depth=max_depth - len(change[1]) - (change[0] in _INTO))
    if event.data is not None:
        check_types(event.data, ("data",), max_depth=max_depth)
    fault = _fault_of_metadata(metadata) if metadata else None
    if fault is not None:
        raise UnstorableValueError(("metadata",), fault)
    if event.metadata.user is not None:
        check_types(event.metadata.user, ("metadata", "user"), max_depth=max_depth)


def _find_surrogate(event: NewEvent) -> None:
    """Raise the error that names the text which could not be encoded."""
    try:
        for change in event.changes:
            check_plain(list(change[1]), change[1])
            for value in change[2:]:
                check_plain(value, change[1])
        check_plain(event.data, ("data",))
        for name in _METADATA_FIELDS:
            check_plain(getattr(event.metadata, name), ("metadata", name))
    except UnstorableValueError as error:
        raise error.within(event.entity_key) from None


def seal_state(position: int, entity_key: str, version: int, name: str, event_id: bytes, time_ns: int, body: bytes) -> bytes:
    """The state column of an event at a position (0: the store will choose one): header, body, and the check value over the whole row."""
    checked = _HEADER.pack(FORMAT, POSITION_COVERED if position else 0, event_id, time_ns) + body
    return checked + _CHECK.pack(crc32(checked, _columns_crc(position, entity_key, version, name, len(checked) + CHECK_BYTES)))


def _columns_crc(position: int, key: str, version: int, name: str, state_bytes: int) -> int:
    """CRC-32 over the other columns: what has a fixed width or tells a length first, so that no two rows run together."""
    return crc32(_COLUMNS.pack(position, version, len(name), state_bytes) + (name + key).encode())


def check_rows(rows: Iterable[Row]) -> None:
    """Check rows as they came from a store: what `check_row` does for each, at half its cost; versions below 1 are left to the reader.

    Raises:
        DamagedEventError: something is wrong with a row; nothing of it may be used.
    """
    columns, residue = _COLUMNS.pack, CHECK_RESIDUE
    row: Any = None
    try:
        for row in rows:
            position, key, version, name, state = row
            size = len(state)
            if (
                crc32(state, crc32(columns(position, version, len(name), size) + (name + key).encode())) != residue
                or state[0] != FORMAT
                or state[1] != POSITION_COVERED
                or size < LEAST_STATE_BYTES
            ):
                check_row(row)  # says what is wrong, or that the position is not covered
    except (TypeError, ValueError, AttributeError, IndexError, struct.error):  # a column of another type; text that is none
        check_row(row)
        raise


def check_row(row: Row) -> None:
    """Check a row as it came from a store: the types of its columns, format, flags, and check value.

    Raises:
        DamagedEventError: something is wrong; nothing of the row may be used.
    """
    try:
        position, key, version, name, state = row
    except (TypeError, ValueError):
        raise DamagedEventError(None, None, "a row has five columns") from None
    if type(position) is not int or type(key) is not str or type(version) is not int or type(name) is not str or type(state) is not bytes:
        raise DamagedEventError(position, key, "a column has the wrong type")
    if len(state) < LEAST_STATE_BYTES or position < 1 or version < 1:
        raise DamagedEventError(position, key, "the state is too short, or position or version is not positive")
    if state[0] != FORMAT or state[1] & ~KNOWN_FLAGS:
        raise DamagedEventError(position, key, f"format {state[0]} with flags {state[1]:#04x} is unknown here")
    covered = position if state[1] & POSITION_COVERED else 0
    try:
        residue = crc32(state, _columns_crc(covered, key, version, name, len(state)))
    except (struct.error, UnicodeEncodeError):
        raise DamagedEventError(position, key, "a column is out of range") from None
    if residue != CHECK_RESIDUE:
        raise DamagedEventError(position, key, "the check value does not match")


def body_stream(rows: Sequence[Row]) -> tuple[Iterator[Any], int]:
    """The bodies of checked rows, decoded as one stream, which costs a third of decoding them one by one.

    Nothing of a body has been checked, not even its shape. Many large bodies are not worth their copies: the stream is empty then.

    Returns:
        an iterator over a body, a mark, a body, a mark, …, which raises one of `UNREADABLE` for a body that cannot be read; and the mark.
        Something else in its place says that the body before it ends elsewhere than its row. It is random, so that no body contains it.
    """
    contents = [row[4][CONTENT_START:-CHECK_BYTES] for row in rows]
    if sum(map(len, contents)) > STREAM_BYTES:
        return iter(()), 0
    mark = os.urandom(8)
    stream = Packed.Unpacker(ext_hook=_Decoder().hook, object_pairs_hook=_pairs, strict_map_key=False, raw=False, max_buffer_size=0)
    stream.feed((_UINT64 + mark).join([*contents, b""]))
    return stream, int.from_bytes(mark, "big")


def _decode_body(row: Row) -> list[Any]:
    """The body's four parts. Of them, the changes are checked: whoever applies them meets plain data only."""
    try:
        body = _Decoder().decode(row[4][CONTENT_START:-CHECK_BYTES])
    except DecodeError as error:
        raise DamagedEventError(row[0], row[1], str(error)) from error
    return _checked_body(row, body)


def _checked_body(row: Row, body: Any) -> list[Any]:
    try:
        if type(body) is not list or len(body) != 4 or type(body[1]) is not list or type(body[2]) is not list:
            raise DecodeError("the body has another shape")
        for change in body[1]:
            check_change(change)
            for value in change[2:]:
                if type(value) not in SCALARS:
                    check_types(value, change[1], max_depth=MAX_DEPTH - len(change[1]) - (change[0] in _INTO))
    except (DecodeError, ChangeError, UnstorableValueError, RecursionError) as error:
        raise DamagedEventError(row[0], row[1], str(error)) from error
    return body


def _check_metadata(row: Row, metadata: list[Any]) -> None:
    fault = _fault_of_metadata(metadata)
    if fault is not None:
        raise DamagedEventError(row[0], row[1], fault)


def decode_changes(row: Row, body: Any = None) -> tuple[list[Change], int | None, int | None]:
    """What folding needs of a checked row: changes, state version and generation, the latter two None where the event says nothing.

    Args:
        row: as a store handed it out: it has been checked.
        body: what `decode_bodies` read of it; None has it decoded here.

    Raises:
        DamagedEventError: what the row says is no event.
    """
    _, changes, metadata, _ = _decode_body(row) if body is None else _checked_body(row, body)
    size = len(metadata)
    if size > _STATE_VERSION:
        _check_metadata(row, metadata)
        return changes, metadata[_STATE_VERSION], metadata[_GENERATION] if size > _GENERATION else None
    return changes, None, None


def decode_row(row: Row) -> Event:
    """The event of a row.

    Raises:
        DamagedEventError: the row is damaged.
    """
    check_row(row)
    transaction_id, changes, metadata, data = _decode_body(row)
    position, key, version, name, state = row
    _check_metadata(row, metadata)
    if transaction_id is not None and (type(transaction_id) is not bytes or len(transaction_id) != ID_BYTES):
        raise DamagedEventError(position, key, "the transaction id has another shape")
    try:
        split_key(key)
        check_event_name(name)
        check_types(data, ("data",))
        check_types(metadata, ("metadata",), max_depth=MAX_DEPTH + 1)
    except (InvalidIdentifierError, UnstorableValueError, RecursionError) as error:
        raise DamagedEventError(position, key, str(error)) from error
    _, _, event_id, time_ns = _HEADER.unpack_from(state)
    return Event(
        position=position,
        entity_key=key,
        version=version,
        name=name,
        event_id=event_id,
        time_ns=time_ns,
        transaction_id=transaction_id or event_id,
        changes=tuple((change[0], tuple(change[1]), *change[2:]) for change in changes),
        metadata=EventMetadata(**dict(zip(_METADATA_FIELDS, metadata, strict=False))),
        data=data,
    )


def time_of(state: bytes) -> int:
    """The commit time in a state's header, nanoseconds since 1970."""
    time_ns: int = _HEADER.unpack_from(state)[3]
    return time_ns


def event_id_of(state: bytes) -> bytes:
    """The event id in a state's header."""
    event_id: bytes = _HEADER.unpack_from(state)[2]
    return event_id


def commitment(state: bytes) -> bytes:
    """The salted commitment to an event: SHA-256 over its body, salt included; 32 bytes."""
    return sha256(state[HEADER_BYTES:-CHECK_BYTES]).digest()
