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
from typing import Any
from uuid import UUID

from symphony_es.events.changes import INSERT, OPERATION_NAMES, REMOVE, SPLICE, Change
from symphony_es.events.codec import encode_canonical
from symphony_es.events.event import Event, EventMetadata
from symphony_es.events.identifiers import text_id
from symphony_es.events.references import EntityReference
from symphony_es.events.rows import Row
from symphony_es.events.values import Encrypted, Redacted, Tagged, zone_parts

__all__ = ["changes_as_json", "event_as_json", "json_line", "metadata_as_json", "plain_as_json", "time_as_text"]

MAX_INT_BITS = 2000  # 603 digits: Python itself may be told to refuse more than 640
_MICROSECOND = timedelta(microseconds=1)


def event_as_json(event: Event, row: Row | None = None) -> dict[str, Any]:
    """An event as a dict for `json.dumps`, all of it readable; `data` and `metadata` only where there are any.

    Args:
        row: the event's row; with it the dict also has its stored bytes, as base64 under `state`.
    """
    told: dict[str, Any] = {
        "position": event.position,
        "time": time_as_text(event.time_ns),
        "entity": {"type": event.entity_type, "id": event.entity_id},
        "version": event.version,
        "name": event.name,
        "id": event.id,
        "transaction": text_id(event.transaction_id),
        "changes": changes_as_json(event.changes),
    }
    if event.data is not None:
        told["data"] = plain_as_json(event.data)
    metadata = metadata_as_json(event.metadata)
    if metadata:
        told["metadata"] = metadata
    if row is not None:
        told["state"] = _base64(row[4])
    return told


def plain_as_json(value: Any) -> Any:
    """Plain data as what `json.dumps(..., allow_nan=False)` takes; the module says how what JSON has not is written."""
    convert = _CONVERT.get(type(value))
    return value if convert is None else convert(value)


def time_as_text(time_ns: int) -> str:
    """Nanoseconds since 1970 as ISO 8601 in UTC, with all nine digits: the order of the texts is the order of the times."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    try:
        return f"{datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()}.{rest:09d}Z"
    except (ValueError, OverflowError, OSError):  # after the year 9999: a clock that was set to nonsense
        return f"@{seconds}.{rest:09d}"


def metadata_as_json(metadata: EventMetadata) -> dict[str, Any]:
    """Those fields of an event's metadata that are set; `cause` is the id of an event as text."""
    found: dict[str, Any] = {}
    for name in EventMetadata.__slots__:
        value = getattr(metadata, name)
        if value is not None:
            found[name] = text_id(value) if name == "cause" else plain_as_json(value)
    return found


def changes_as_json(changes: tuple[Change, ...]) -> list[dict[str, Any]]:
    """Changes as dicts: `op`, `path` (a list of keys and indexes), then what the operation brings."""
    return [_change(change) for change in changes]


def json_line(value: Any) -> bytes:
    """A value that JSON has as one line of UTF-8, with its end of line."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def _change(change: Change) -> dict[str, Any]:
    operation = change[0]
    told: dict[str, Any] = {"op": OPERATION_NAMES[operation], "path": [plain_as_json(key) for key in change[1]]}
    if operation == INSERT:
        told |= {"index": plain_as_json(change[2]), "value": plain_as_json(change[3])}
    elif operation == SPLICE:
        told |= {"start": plain_as_json(change[2]), "stop": plain_as_json(change[3]), "values": plain_as_json(change[4])}
    elif operation != REMOVE:
        told["value"] = plain_as_json(change[2])
    return told


def _int(value: int) -> Any:
    return value if value.bit_length() <= MAX_INT_BITS else {"$int": hex(value)}


def _float(value: float) -> Any:
    return value if math.isfinite(value) else {"$float": str(value)}


def _dict(value: dict[Any, Any]) -> dict[str, Any]:
    if all(type(key) is str and not key.startswith("$") for key in value):
        return {key: plain_as_json(item) for key, item in value.items()}
    return {"$dict": [[plain_as_json(key), plain_as_json(item)] for key, item in value.items()]}


def _moment(kind: str) -> Callable[[Any], dict[str, Any]]:
    def convert(value: Any) -> dict[str, Any]:
        told: dict[str, Any] = {f"${kind}": value.isoformat()}
        _, zone, *name = zone_parts(value)
        if zone is not None:
            told["zone"] = zone
        if name:
            told["offset_name"] = name[0]
        if value.fold:
            told["fold"] = value.fold
        return told

    return convert


def _tagged(value: Tagged) -> dict[str, Any]:
    if value.kind == "enum":
        told = {"$enum": value.name, "member": plain_as_json(value.data)}
        return told if value.value is ... else {**told, "value": plain_as_json(value.value)}
    told = {f"${value.kind}": value.name, "fields": _dict(value.data)}
    return told if value.state_version == 1 else {**told, "state_version": value.state_version}


def _named(name: str, text: Callable[[Any], Any]) -> Callable[[Any], dict[str, Any]]:
    return lambda value: {f"${name}": text(value)}


def _base64(value: bytes) -> str:
    return b64encode(value).decode("ascii")


def _list(value: Any) -> list[Any]:
    return [plain_as_json(item) for item in value]


_CONVERT: dict[type, Callable[[Any], Any]] = {
    int: _int,
    float: _float,
    list: _list,
    dict: _dict,
    tuple: _named("tuple", _list),
    set: _named("set", lambda value: _list(sorted(value, key=encode_canonical))),
    bytes: _named("bytes", _base64),
    Decimal: _named("decimal", str),
    UUID: _named("uuid", str),
    EntityReference: _named("ref", lambda value: value.key),
    datetime: _moment("datetime"),
    date: _named("date", date.isoformat),
    time: _moment("time"),
    timedelta: _named("timedelta", lambda value: value // _MICROSECOND),
    Tagged: _tagged,
    Redacted: _named("redacted", lambda value: value.reason),
    Encrypted: lambda value: {"$encrypted": value.key_id, "data": _base64(value.data)},
}
