"""Rows of the log: how an event is written as one, checked, and read back.

The state of an event is `format u8 | flags u8 | event id 16 | time u64 | body | check u32`; the body is 16 bytes of salt and the
encoding of `[transaction id, changes, metadata, data]`. docs/format.md describes every byte. Whatever reading can raise becomes one
typed error, and nothing is handed out whose check value does not match.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from hashlib import sha256
from operator import attrgetter
from typing import Any
from zlib import crc32

from symphony_es.errors import ChangeError, DamagedEventError, DecodeError, InvalidIdentifierError, LimitExceededError, UnstorableValueError
from symphony_es.events.bounds import MOST_PARTS, may_have_too_many_parts
from symphony_es.events.changes import ADD, APPEND, DISCARD, INSERT, MAX_DEPTH, SCALARS, Change, check_change
from symphony_es.events.codec import FORMAT_BYTE, decode, decode_stream, pack
from symphony_es.events.event import Event, EventMetadata, NewEvent
from symphony_es.events.identifiers import check_event_name, split_key
from symphony_es.events.values import DEFAULT_LIMITS, Limits, check_plain, check_types
from symphony_es.shown import shown

__all__ = [
    "Row", "body_stream", "check_row", "check_rows", "commitment", "decode_changes", "decode_data", "decode_row", "encode_body",
    "event_id_of", "seal_state", "substitute_row", "time_of", "with_transaction",
]  # fmt: skip

Row = tuple[int, str, int, str, bytes]
"""Position, entity key, version, event name, state: one row of the log."""

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
_ANEW = bytes.fromhex("81d59d4c")
"""Four bytes after which a CRC-32 that was `CHECK_RESIDUE` is 0, as that of nothing."""
_USUAL = bytes((FORMAT_BYTE, POSITION_COVERED))
SMALL_STATE_BYTES = 4096
"""Up to this size, copies of a state cost less than calls for it alone."""
STREAM_BYTES = 8 * 1024 * 1024
"""Up to how many bytes of bodies are decoded as one stream."""
DAMAGED_EVENT = "symphony.DamagedEvent"
_INTO = frozenset({INSERT, APPEND, ADD, DISCARD})  # what they bring stands one level below their path

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
    """Return what is wrong with the metadata slots, None if nothing is."""
    if len(fields) > len(_METADATA_FIELDS):
        return "the metadata have more slots than there are"
    for name, wanted, value in zip(_METADATA_FIELDS, _METADATA_TYPES, fields, strict=False):
        if value is None:
            continue
        cls = type(value)
        if cls is not wanted:
            return f"{name} is a {cls.__name__}, not {wanted.__name__}"
        if wanted is int and not _LEAST[name] <= value < 2**63:
            return f"{name} is {shown(value)}"
        if name == "cause" and len(value) != ID_BYTES:
            return f"cause has {len(value)} bytes, not {ID_BYTES}"
        if name == "user" and not all(type(key) is str for key in value):
            return "user has a key that is no text"
    return None


def _metadata_list(metadata: EventMetadata) -> list[Any]:
    values = _metadata_values(metadata)
    if values == _NO_METADATA:
        return []
    last = len(values)
    while values[last - 1] is None:  # one of them is not
        last -= 1
    return list(values[:last])


def encode_body(event: NewEvent, salt: bytes, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """Return the body of an event: salt, then what it says.

    Raises:
        UnstorableValueError: a value or a metadata slot that is no plain data, or is nested too deep.
        ChangeError: something among the changes that is no change.
        InvalidIdentifierError: its key or name cannot be stored.
        LimitExceededError: the body is larger than the limit.
    """
    metadata = _metadata_list(event.metadata)
    _check_name(event.name)
    if event.version <= 1:  # a later one is appended only behind a first one of the same key
        split_key(event.entity_key)
    try:
        _check_event(event, metadata, min(limits.max_depth, MAX_DEPTH))
    except UnstorableValueError as error:
        raise error.within(event.entity_key) from None
    if len(salt) != SALT_BYTES or len(event.event_id) != ID_BYTES or len(event.transaction_id or event.event_id) != ID_BYTES:
        raise ValueError(f"salt and ids have {ID_BYTES} bytes")
    changes = [[operation, [*path], *values] for operation, path, *values in event.changes]
    try:
        packed = pack([event.transaction_id, changes, metadata, event.data])
    except UnicodeEncodeError:
        _find_surrogate(event)
        raise
    if len(packed) + SALT_BYTES > limits.max_body_bytes:
        raise LimitExceededError(
            f"the event {event.name} of {event.entity_key} takes {len(packed):,} bytes; {limits.max_body_bytes:,} are allowed"
        )
    if may_have_too_many_parts(packed):
        try:
            decode(packed, bounded=True)
        except DecodeError as error:
            raise LimitExceededError(f"the event {event.name} of {event.entity_key}: {error}; make it several changes") from error
    return salt + packed


@lru_cache(maxsize=1024)
def _check_name(name: str) -> None:
    check_event_name(name)


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


def with_transaction(body: bytes, transaction_id: bytes | None) -> bytes:
    """Return a body that says another transaction; None where the event is its transaction's first."""
    _, *rest = decode(body[SALT_BYTES:])
    return body[:SALT_BYTES] + pack([transaction_id, *rest])


def seal_state(position: int, entity_key: str, version: int, name: str, event_id: bytes, time_ns: int, body: bytes) -> bytes:
    """Return the state column of an event at a position (0: the store will choose one): header, body, and the check value over the whole
    row.
    """
    checked = _HEADER.pack(FORMAT_BYTE, POSITION_COVERED if position else 0, event_id, time_ns) + body
    return checked + _CHECK.pack(crc32(checked, _columns_crc(position, entity_key, version, name, len(checked) + CHECK_BYTES)))


def substitute_row(position: int, entity_key: str, version: int, time_ns: int, why: str) -> Row:
    """Return a row for the place of one that is damaged: its check value holds, and whoever reads its body is told why there is none.

    It is made for readers, and never stored.
    """
    event_id = position.to_bytes(ID_BYTES, "big")
    body = bytes(SALT_BYTES) + pack([None, why, [], None])
    return position, entity_key, version, DAMAGED_EVENT, seal_state(position, entity_key, version, DAMAGED_EVENT, event_id, time_ns, body)


def _columns_crc(position: int, key: str, version: int, name: str, state_bytes: int) -> int:
    """Return CRC-32 over the other columns: what has a fixed width or tells a length first, so that no two rows run together."""
    return crc32(_COLUMNS.pack(position, version, len(name), state_bytes) + (name + key).encode())


def check_rows(rows: Sequence[Row]) -> None:
    """Check rows as they came from a store: as `check_row` does, at about half its cost; versions below 1 are the reader's business.

    Raises:
        DamagedEventError: something is wrong with a row; nothing of it may be used.
    """
    columns, least, most, usual = _COLUMNS.pack, LEAST_STATE_BYTES, SMALL_STATE_BYTES, _USUAL
    try:
        joined = [
            columns(position, version, len(name), len(state)) + (name + key).encode() + state
            for position, key, version, name, state in rows
            if least <= len(state) <= most and state.startswith(usual)
        ]
    except (TypeError, ValueError, AttributeError, struct.error):  # a column of another type; text that is none
        joined = []
    # All at once: after each row the CRC is the residue, if the row is right, and four bytes take it back to where a CRC begins.
    if crc32(_ANEW.join(joined)) == CHECK_RESIDUE:
        if len(joined) == len(rows):
            return
        rows = [row for row in rows if not (least <= len(row[4]) <= most and row[4].startswith(usual))]
    for row in rows:
        check_row(row)  # says what is wrong, or that a row is only unusual


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
    if state[0] != FORMAT_BYTE or state[1] & ~KNOWN_FLAGS:
        raise DamagedEventError(position, key, f"format {state[0]} with flags {state[1]:#04x} is unknown here")
    covered = position if state[1] & POSITION_COVERED else 0
    try:
        residue = crc32(state, _columns_crc(covered, key, version, name, len(state)))
    except (struct.error, UnicodeEncodeError):
        raise DamagedEventError(position, key, "a column is out of range") from None
    if residue != CHECK_RESIDUE:
        raise DamagedEventError(position, key, "the check value does not match")


def body_stream(rows: Sequence[Row]) -> tuple[Iterator[Any], int]:
    """Return the bodies of checked rows as `decode_stream` gives them: nothing of a body has been checked, not even its shape.

    Many large bodies are not worth their copies: the stream is empty then.
    """
    contents = [row[4][CONTENT_START:-CHECK_BYTES] for row in rows]
    size = sum(map(len, contents))
    if size > STREAM_BYTES or (size > MOST_PARTS and any(map(may_have_too_many_parts, contents))):  # each part takes a byte
        return iter(()), 0
    return decode_stream(contents)


def _decode_body(row: Row) -> list[Any]:
    """Return the body's four parts. Of them, the changes are checked: whoever applies them meets plain data only."""
    try:
        body = decode(row[4][CONTENT_START:-CHECK_BYTES], bounded=True)
    except DecodeError as error:
        raise DamagedEventError(row[0], row[1], str(error)) from error
    return _checked_body(row, body)


def _checked_body(row: Row, body: Any) -> list[Any]:
    try:
        if row[3] == DAMAGED_EVENT and type(body) is list and len(body) == 4 and type(body[1]) is str:
            raise DecodeError(body[1])
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
    """Return what folding needs of a checked row: changes, state version and generation, the latter two None where the event says nothing.

    Args:
        row: as a store handed it out: it has been checked.
        body: what `body_stream` read of it; None has it decoded here.

    Raises:
        DamagedEventError: what the row says is no event.
    """
    try:
        _, changes, metadata, _ = _decode_body(row) if body is None else _checked_body(row, body)
    except DamagedEventError:
        if body is None:
            raise
        _, changes, metadata, _ = _decode_body(row)  # among others it may seem another one; what is wrong with it, it says alone
    size = len(metadata)
    if size > _STATE_VERSION:
        _check_metadata(row, metadata)
        return changes, metadata[_STATE_VERSION], metadata[_GENERATION] if size > _GENERATION else None
    return changes, None, None


def decode_data(row: Row) -> Any:
    """Decode what the event of a checked row says beyond its effect; make an object of nothing else in it. Types are the reader's business.

    Raises:
        DamagedEventError: what the row says is no event.
    """
    return _decode_body(row)[3]


def decode_row(row: Row, *, checked: bool = False) -> Event:
    """Return the event of a row. One whose check value holds, and whose changes or key cannot be read, has a `fault` and no changes.

    Args:
        row: the row.
        checked: it comes from a log's reader, which has checked it.

    Raises:
        DamagedEventError: the row is damaged.
    """
    if not checked:
        check_row(row)
    position, key, version, name, state = row
    fault: str | None = None
    try:
        _check_key(key)
        transaction_id, changes, metadata, data = _decode_body(row)
        if len(metadata) > _STATE_VERSION:
            _check_metadata(row, metadata)
    except (InvalidIdentifierError, DamagedEventError) as error:
        # What a fold cannot take in damages the entity for every reader, and nobody else: the event is told as far as it can be.
        fault = error.why if isinstance(error, DamagedEventError) else str(error)
        transaction_id, changes, metadata, data = None, [], [], None
    _check_metadata(row, metadata)
    if transaction_id is not None and (type(transaction_id) is not bytes or len(transaction_id) != ID_BYTES):
        raise DamagedEventError(position, key, "the transaction id has another shape")
    try:
        _check_known_name(name)
        if data is not None:
            check_types(data, ("data",))
        if len(metadata) == len(_METADATA_FIELDS):  # the last one alone consists of others, and of these the types are right
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
        changes=tuple([(change[0], tuple(change[1]), *change[2:]) for change in changes]),
        metadata=_known_metadata(tuple(metadata))
        if len(metadata) <= PLAIN_METADATA and len(state) <= SMALL_STATE_BYTES
        else _metadata(metadata),
        data=data,
        fault=fault,
    )


def _metadata(metadata: Sequence[Any]) -> EventMetadata:
    return EventMetadata(**dict(zip(_METADATA_FIELDS, metadata, strict=False)))


# What the events of a log have in common is looked at once. What is refused is not kept, and what is kept is short.
_check_key = lru_cache(1024)(split_key)
_check_known_name = lru_cache(1024)(_check_name)
_known_metadata = lru_cache(64)(_metadata)


def time_of(state: bytes) -> int:
    """Return the commit time in a state's header, nanoseconds since 1970."""
    time_ns: int = _HEADER.unpack_from(state)[3]
    return time_ns


def event_id_of(state: bytes) -> bytes:
    """Return the event id in a state's header."""
    event_id: bytes = _HEADER.unpack_from(state)[2]
    return event_id


def commitment(state: bytes) -> bytes:
    """Return the salted commitment to an event: SHA-256 over its body, salt included; 32 bytes."""
    return sha256(state[HEADER_BYTES:-CHECK_BYTES]).digest()
