"""Events and plain data as JSON, for people and for tools that are not this library. Pure, and one way: the exact bytes are the log's.

What JSON has stands as it is: null, booleans, integers, finite floats, text, lists, and dicts whose keys are text that does not begin
with `$`. Everything else is an object whose first key begins with `$`, and no other object has such a key:

| value | JSON |
| --- | --- |
| bytes | `{"$bytes": "base64"}` |
| tuple, set | `{"$tuple": [...]}`, `{"$set": [...]}` (in the order of the members' stored bytes) |
| a dict with keys that are integers, or begin with `$` | `{"$dict": [[key, value], ...]}` |
| NaN, ±infinity | `{"$float": "nan"}`, `"inf"`, `"-inf"` |
| an integer of more than 2,000 bits | `{"$int": "0x..."}` (many readers refuse that many digits) |
| datetime, time | `{"$datetime": "ISO 8601", "zone": name, "fold": 1}`, `{"$time": ...}`; zone and fold only where there are any |
| date, timedelta | `{"$date": "2026-01-31"}`, `{"$timedelta": microseconds}` |
| Decimal, UUID | `{"$decimal": "1.50"}`, `{"$uuid": "..."}` |
| entity reference | `{"$ref": "Type:id"}` |
| tagged values | `{"$enum": name, "member": ...}`, `{"$value": name, "fields": {...}}`, `{"$part": name, "fields": {...}}` |
| redacted, encrypted | `{"$redacted": reason}`, `{"$encrypted": key id, "data": "base64"}` |
"""

from __future__ import annotations

import json
import math
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from symphony_es.events.changes import INSERT, OPERATION_NAMES, REMOVE, SPLICE, Change
from symphony_es.events.codec import encode_canonical
from symphony_es.events.event import Event, EventMetadata
from symphony_es.events.identifiers import text_id
from symphony_es.events.references import EntityReference
from symphony_es.events.rows import Row
from symphony_es.events.values import Encrypted, Redacted, Tagged, zone_parts

__all__ = [
    "Base64", "changes_as_json", "event_as_json", "is_object", "json_line", "json_text", "metadata_as_json", "one_level", "plain_as_json",
    "time_as_text",
]  # fmt: skip

MAX_INT_BITS = 2000  # 603 digits: Python itself may be told to refuse more than 640
_MICROSECOND = timedelta(microseconds=1)


class Base64(NamedTuple):
    """Bytes that are written as base64."""

    data: bytes


Convert = Callable[[Any], Any]
"""Makes plain data what JSON has: at once, or when its turn comes."""


def event_as_json(event: Event, row: Row | None = None, *, convert: Convert | None = None) -> dict[str, Any]:
    """Return an event as a dict for `json.dumps`, all of it readable; `data` and `metadata` only where there are any.

    Args:
        row: the event's row; with it the dict also has its stored bytes, as base64 under `state`.
        convert: makes plain data what JSON has; `plain_as_json` when it is left out.
    """
    convert = convert or plain_as_json
    told: dict[str, Any] = {
        "position": event.position,
        "time": time_as_text(event.time_ns),
        "entity": {"type": event.entity_type, "id": event.entity_id},
        "version": event.version,
        "name": event.name,
        "id": event.id,
        "transaction": text_id(event.transaction_id),
        "changes": changes_as_json(event.changes, convert),
    }
    if event.data is not None:
        told["data"] = convert(event.data)
    metadata = metadata_as_json(event.metadata)
    if metadata:
        told["metadata"] = metadata
    if row is not None:
        told["state"] = convert(Base64(row[4]))
    return told


def plain_as_json(value: Any) -> Any:
    """Return plain data as what `json.dumps(..., allow_nan=False)` takes; the module says how what JSON has not is written."""
    convert = _CONVERT.get(type(value))
    return value if convert is None else convert(value, plain_as_json)


def one_level(value: Any, convert: Convert) -> Any:
    """Return the same, with a function of your own for what the value consists of."""
    one = _CONVERT.get(type(value))
    return value if one is None else one(value, convert)


def time_as_text(time_ns: int) -> str:
    """Return nanoseconds since 1970 as ISO 8601 in UTC, with all nine digits: the order of the texts is the order of the times."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    try:
        return f"{datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()}.{rest:09d}Z"
    except (ValueError, OverflowError, OSError):  # after the year 9999: a clock that was set to nonsense
        return f"@{seconds}.{rest:09d}"


def metadata_as_json(metadata: EventMetadata) -> dict[str, Any]:
    """Return those fields of an event's metadata that are set; `cause` is the id of an event as text."""
    found: dict[str, Any] = {}
    for name in EventMetadata.__slots__:
        value = getattr(metadata, name)
        if value is not None:
            found[name] = text_id(value) if name == "cause" else plain_as_json(value)
    return found


def changes_as_json(changes: tuple[Change, ...], convert: Convert | None = None) -> list[dict[str, Any]]:
    """Return changes as dicts: `op`, `path` (a list of keys and indexes), then what the operation brings.

    `convert` as for `event_as_json`.
    """
    return [_change(change, convert or plain_as_json) for change in changes]


def json_text(value: Any) -> str:
    """Return a value that JSON has, without a blank, and without escapes where none is needed."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def json_line(value: Any) -> bytes:
    """Return a value that JSON has as one line of UTF-8, with its end of line."""
    return json_text(value).encode() + b"\n"


def _change(change: Change, convert: Convert) -> dict[str, Any]:
    operation = change[0]
    told: dict[str, Any] = {"op": OPERATION_NAMES[operation], "path": [convert(key) for key in change[1]]}
    if operation == INSERT:
        told |= {"index": convert(change[2]), "value": convert(change[3])}
    elif operation == SPLICE:
        told |= {"start": convert(change[2]), "stop": convert(change[3]), "values": convert(change[4])}
    elif operation != REMOVE:
        told["value"] = convert(change[2])
    return told


def is_object(value: dict[Any, Any]) -> bool:
    """Return whether a dict is one in JSON as it stands."""
    return all(type(key) is str and not key.startswith("$") for key in value)


def _int(value: int, _: Convert) -> Any:
    return value if value.bit_length() <= MAX_INT_BITS else {"$int": hex(value)}


def _float(value: float, _: Convert) -> Any:
    return value if math.isfinite(value) else {"$float": str(value)}


def _dict(value: dict[Any, Any], convert: Convert) -> dict[str, Any]:
    if is_object(value):
        return {key: convert(item) for key, item in value.items()}
    return {"$dict": [[convert(key), convert(item)] for key, item in value.items()]}


def _moment(kind: str) -> Callable[[Any, Convert], dict[str, Any]]:
    def moment(value: Any, _convert: Convert) -> dict[str, Any]:
        told: dict[str, Any] = {f"${kind}": value.isoformat()}
        _, zone, *name = zone_parts(value)
        if zone is not None:
            told["zone"] = zone
        if name:
            told["offset_name"] = name[0]
        if value.fold:
            told["fold"] = value.fold
        return told

    return moment


def _tagged(value: Tagged, convert: Convert) -> dict[str, Any]:
    if value.kind == "enum":
        told = {"$enum": value.name, "member": convert(value.data)}
        return told if value.value is ... else {**told, "value": convert(value.value)}
    told = {f"${value.kind}": value.name, "fields": convert(value.data)}
    return told if value.state_version == 1 else {**told, "state_version": value.state_version}


def _named(name: str, text: Callable[[Any], Any]) -> Callable[[Any, Convert], dict[str, Any]]:
    return lambda value, _: {f"${name}": text(value)}


def _list(value: Any, convert: Convert) -> list[Any]:
    return [convert(item) for item in value]


_CONVERT: dict[type, Callable[[Any, Convert], Any]] = {
    int: _int,
    float: _float,
    list: _list,
    dict: _dict,
    tuple: lambda value, convert: {"$tuple": convert(list(value))},
    set: lambda value, convert: {"$set": convert(sorted(value, key=encode_canonical))},
    bytes: lambda value, convert: {"$bytes": convert(Base64(value))},
    Base64: lambda value, _: b64encode(value.data).decode("ascii"),
    Decimal: _named("decimal", str),
    UUID: _named("uuid", str),
    EntityReference: _named("ref", lambda value: value.key),
    datetime: _moment("datetime"),
    date: _named("date", date.isoformat),
    time: _moment("time"),
    timedelta: _named("timedelta", lambda value: value // _MICROSECOND),
    Tagged: _tagged,
    Redacted: _named("redacted", lambda value: value.reason),
    Encrypted: lambda value, convert: {"$encrypted": value.key_id, "data": convert(Base64(value.data))},
}
