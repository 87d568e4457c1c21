"""Plain data as what JSON encoders take, for answers of a service and for notebooks.

One way, and for readers: a member of an enum is its value (its name, where the value is no plain data), an object its fields, a moment
its ISO text, what is absent is null. What has to be read back without a loss is written by `symphony_es.transfer`.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from base64 import b64encode
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from typing import Any

from symphony_es.events.paths import ABSENT
from symphony_es.events.references import EntityReference
from symphony_es.events.values import Encrypted, Redacted, Tagged

__all__ = ["readable"]

_AS_THEY_ARE = frozenset({str, int, bool, type(None)})
LONG_BITS = 10_000
"""Integers beyond are written in hexadecimal, as text: Python refuses to write those of more than 4,300 digits out in decimal."""


def readable(value: Any) -> Any:
    """Return a value as dicts with text keys, lists, text, numbers, booleans and None; nothing of it is the value's own."""
    cls = type(value)
    if cls in _AS_THEY_ARE:
        return value if cls is not int or value.bit_length() <= LONG_BITS else hex(value)
    if cls is float:
        return value if math.isfinite(value) else str(value)
    if value is ABSENT:
        return None
    if cls is Tagged:
        return _tagged(value)
    if isinstance(value, enum.Enum):
        return readable(value.value) if type(value.value) in _AS_THEY_ARE or isinstance(value.value, (str, int, float)) else value.name
    if isinstance(value, Mapping):
        return {_key(key): readable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [readable(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((readable(item) for item in value), key=repr)
    return _leaf(value)


def _tagged(value: Tagged) -> Any:
    if value.kind != "enum":
        return readable(value.data)
    stored = getattr(value, "value", ...)  # the member's value, where the log has it
    return readable(value.data if stored is ... else stored)


def _key(key: Any) -> str:
    found = readable(key)
    return found if isinstance(found, str) else str(found)


def _leaf(value: Any) -> Any:
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return b64encode(bytes(value)).decode("ascii")
    if isinstance(value, EntityReference):
        return value.key
    if isinstance(value, Redacted):
        return f"(redacted: {value.reason})"
    if isinstance(value, Encrypted):
        return f"(encrypted with {value.key_id})"
    spec = getattr(type(value), "_symphony_spec", None)
    if spec is not None:  # a live object: an entity stands for itself by its key, a part or value by its fields
        return f"{spec.name}:{value.id}" if spec.kind == "entity" else {name: readable(getattr(value, name)) for name in spec.fields}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: readable(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return readable(int(value))
    if isinstance(value, float):
        return readable(float(value))
    return str(value)
