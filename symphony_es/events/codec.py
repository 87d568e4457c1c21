"""Format 1: how values and events are written as bytes, and read back. The only module that knows msgpack.

The state of an event is `check u32 | format u8 | flags u8 | event id 16 | time u64 | body`, big-endian; the body is 16 bytes of salt
and the msgpack of `[transaction id, changes, metadata, data]`. docs/format.md describes every byte. Whatever decoding can raise
becomes one typed error, and nothing is handed out whose check value does not match.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Context, Decimal, InvalidOperation
from hashlib import sha256
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
from symphony_es.events.changes import ADD, APPEND, DISCARD, INSERT, KEY_TYPES, MAX_DEPTH, Change, check_change
from symphony_es.events.event import Event, EventMetadata, NewEvent
from symphony_es.events.identifiers import check_event_name, split_key
from symphony_es.events.references import EntityReference
from symphony_es.events.values import DEFAULT_LIMITS, Encrypted, Limits, Redacted, Tagged, check_plain, check_types, zone_from, zone_parts

__all__ = [
    "Row", "check_row", "commitment", "decode_changes", "decode_row", "decode_value", "encode_body", "encode_canonical",
    "encode_value", "seal_state",
]  # fmt: skip

Row = tuple[int, str, int, str, bytes]
"""Position, entity key, version, event name, state: one row of the log."""

Packed: Any = msgpack  # it ships no types: the one untyped name of this module

FORMAT = 1
POSITION_COVERED = 0x01
KNOWN_FLAGS = POSITION_COVERED
SALT_BYTES = 16
ID_BYTES = 16
_HEADER = struct.Struct(">IBB16sQ")
HEADER_BYTES = _HEADER.size
BODY_START = HEADER_BYTES + SALT_BYTES
_REST = struct.Struct(">BB16sQ")
_CHECKED = struct.Struct(">QQHH")
_CHECK = struct.Struct(">I")
_INTO = frozenset({INSERT, APPEND, ADD, DISCARD})  # what they bring stands one level below their path
_SCALARS = frozenset({str, int, float, bool, type(None), bytes})  # as decoded, these need no further look

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
    return _ext(SET, Packed.Packer().pack_array_header(len(value)) + b"".join(sorted(map(_pack, value))))


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
    packed: bytes = Packed.packb(value, default=_default, strict_types=True)
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
    return _ext(SET, Packed.Packer().pack_array_header(len(value.encoded)) + b"".join(value.encoded))


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


class _Decoder:
    """Decodes one value; counts how deep extension types are nested, which msgpack's own limit does not see."""

    __slots__ = ("depth",)

    def __init__(self) -> None:
        self.depth = 0

    def decode(self, data: bytes) -> Any:
        try:
            return Packed.unpackb(data, ext_hook=self._hook, object_pairs_hook=_pairs, strict_map_key=False, raw=False)
        except DecodeError:
            raise
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError, Packed.UnpackException, InvalidOperation) as error:
            raise DecodeError(f"the bytes are no value of format {FORMAT}: {error!r:.200}") from error

    def _unpack(self, data: bytes) -> Any:
        return Packed.unpackb(data, ext_hook=self._hook, object_pairs_hook=_pairs, strict_map_key=False, raw=False)

    def _hook(self, code: int, payload: bytes) -> Any:
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
_STATE_VERSION = _METADATA_FIELDS.index("state_version")
_GENERATION = _METADATA_FIELDS.index("generation")
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
    fields = [getattr(metadata, name) for name in _METADATA_FIELDS]
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
    changes = [[change[0], list(change[1]), *change[2:]] for change in event.changes]
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
            if type(value) not in _SCALARS:
                check_types(value, change[1], max_depth=max_depth - len(change[1]) - (change[0] in _INTO))
    if event.data is not None:
        check_types(event.data, ("data",), max_depth=max_depth)
    fault = _fault_of_metadata(metadata)
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


def _check_value(position: int, version: int, name: str, key: str, rest: bytes) -> int:
    """CRC-32 over the row: everything with a fixed width or a length first, so that no two rows run together."""
    name_bytes, key_bytes = name.encode(), key.encode()
    return crc32(rest, crc32(_CHECKED.pack(position, version, len(name_bytes), len(key_bytes)) + name_bytes + key_bytes))


def seal_state(position: int, entity_key: str, version: int, name: str, event_id: bytes, time_ns: int, body: bytes) -> bytes:
    """The state column of an event at a position: header and body, with the check value over the whole row."""
    rest = _REST.pack(FORMAT, POSITION_COVERED, event_id, time_ns) + body
    return _CHECK.pack(_check_value(position, version, name, entity_key, rest)) + rest


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
    if len(state) < BODY_START or position < 1 or version < 1:
        raise DamagedEventError(position, key, "the state is too short, or position or version is not positive")
    if state[4] != FORMAT or state[5] & ~KNOWN_FLAGS:
        raise DamagedEventError(position, key, f"format {state[4]} with flags {state[5]:#04x} is unknown here")
    covered = position if state[5] & POSITION_COVERED else 0
    try:
        expected = _check_value(covered, version, name, key, state[4:])
    except (struct.error, UnicodeEncodeError):
        raise DamagedEventError(position, key, "a column is out of range") from None
    if expected != _CHECK.unpack_from(state)[0]:
        raise DamagedEventError(position, key, "the check value does not match")


def _decode_body(row: Row) -> list[Any]:
    """The body's four parts. Of them, the changes are checked: whoever applies them meets plain data only."""
    try:
        body: list[Any] = _Decoder().decode(row[4][BODY_START:])
        if type(body) is not list or len(body) != 4 or type(body[1]) is not list or type(body[2]) is not list:
            raise DecodeError("the body has another shape")
        for change in body[1]:
            if type(change) is list and len(change) == 3 and type(change[0]) is int and change[0] == 0 and type(change[2]) in _SCALARS:
                path = change[1]
                if type(path) is list and len(path) == 1 and type(path[0]) is str:
                    continue  # by far the most common one
            check_change(change)
            for value in change[2:]:
                if type(value) not in _SCALARS:
                    check_types(value, change[1], max_depth=MAX_DEPTH - len(change[1]) - (change[0] in _INTO))
    except (DecodeError, ChangeError, UnstorableValueError, RecursionError) as error:
        raise DamagedEventError(row[0], row[1], str(error)) from error
    return body


def _check_metadata(row: Row, metadata: list[Any]) -> None:
    fault = _fault_of_metadata(metadata)
    if fault is not None:
        raise DamagedEventError(row[0], row[1], fault)


def decode_changes(row: Row) -> tuple[list[Change], int | None, int | None]:
    """What folding needs of a row: changes, state version and generation, the latter two None where the event says nothing.

    Raises:
        DamagedEventError: the row is damaged.
    """
    check_row(row)
    _, changes, metadata, _ = _decode_body(row)
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
    _, _, _, event_id, time_ns = _HEADER.unpack_from(state)
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
    time_ns: int = _HEADER.unpack_from(state)[4]
    return time_ns


def event_id_of(state: bytes) -> bytes:
    """The event id in a state's header."""
    event_id: bytes = _HEADER.unpack_from(state)[3]
    return event_id


def commitment(state: bytes) -> bytes:
    """The salted commitment to an event: SHA-256 over its body, salt included; 32 bytes."""
    return sha256(state[HEADER_BYTES:]).digest()
