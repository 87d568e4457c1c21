"""Types, ids, keys and positions: what may name an entity, and how new ids are made."""

from __future__ import annotations

import re
import struct
from typing import NewType

from symphony_es.errors import FOREIGN_PREFIX, InvalidIdentifierError
from symphony_es.shown import quoted

__all__ = [
    "DEFINITION_PREFIX", "FOREIGN_PREFIX", "SYSTEM_PREFIX", "UUID7_RANDOM_BYTES", "Position", "Version", "check_class_name",
    "check_entity_id", "check_entity_type", "check_event_name", "check_own_type", "entity_key", "split_key", "text_id", "uuid7",
]  # fmt: skip

Position = NewType("Position", int)
"""An event's place in the log: 1, 2, 3 …"""

Version = NewType("Version", int)
"""An event's place in the history of its own entity: 1, 2, 3 …"""

MAX_ID_BYTES = 512
SYSTEM_PREFIX = "symphony."
DEFINITION_PREFIX = "symphony.Definition:"
"""What the keys of constant entities begin with: a log writes each of them once, whoever brings it."""
_TYPE = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,99}")
_EVENT = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,126}")
_TWO_HALVES = struct.Struct(">QQ")
_BASE32HEX = "0123456789abcdefghijklmnopqrstuv"


def check_entity_type(name: str) -> str:
    """Return a type name as it is: a letter or underscore, then up to 99 letters, digits, underscores and dots.

    Raises:
        InvalidIdentifierError: it is none.
    """
    if type(name) is not str or _TYPE.fullmatch(name) is None:
        raise InvalidIdentifierError("entity type", name, "a letter or '_', then at most 99 letters, digits, '_' and '.'")
    return name


def check_own_type(name: str) -> str:
    """Return the name of a type of the application's, as it is.

    Raises:
        InvalidIdentifierError: it is no name of a type, or one of the library's own or an adapter's, which resumes leave out.
    """
    if check_entity_type(name).startswith(SYSTEM_PREFIX):
        raise InvalidIdentifierError("entity type", name, f"names that begin with {quoted(SYSTEM_PREFIX)} are the library's own")
    if name.startswith(FOREIGN_PREFIX):
        raise InvalidIdentifierError(
            "entity type", name, f"names that begin with {quoted(FOREIGN_PREFIX)} are those of the aggregates of eventsourcing applications"
        )
    return name


def check_event_name(name: str) -> str:
    """Return an event name as it is; the rules are those of types, but that it may be longer: `TypeChanged` is a name, whatever the type.

    Raises:
        InvalidIdentifierError: it is none.
    """
    if type(name) is not str or _EVENT.fullmatch(name) is None:
        raise InvalidIdentifierError("event name", name, "a letter or '_', then at most 126 letters, digits, '_' and '.'")
    return name


def check_class_name(name: str) -> str:
    """Return a class's stored name as it is: printable text that takes at most 512 bytes in UTF-8, as `shop.orders:Status` or `Status`
    does.

    Raises:
        InvalidIdentifierError: it is none.
    """
    if type(name) is not str or not name or not name.isprintable() or len(name.encode()) > MAX_ID_BYTES:
        raise InvalidIdentifierError("class name", name, f"it is printable text of at most {MAX_ID_BYTES} bytes in UTF-8")
    return name


def check_entity_id(identifier: str) -> str:
    """Return an entity id as it is: any text that is not empty, has no NUL, and takes at most 512 bytes in UTF-8.

    Raises:
        InvalidIdentifierError: it is none.
    """
    if type(identifier) is not str:
        raise InvalidIdentifierError("entity id", identifier, f"it must be text, not {type(identifier).__name__}")
    if not identifier:
        raise InvalidIdentifierError("entity id", identifier, "it is empty")
    if "\0" in identifier:
        raise InvalidIdentifierError("entity id", identifier, "it contains NUL")
    if len(identifier) > MAX_ID_BYTES:
        raise InvalidIdentifierError("entity id", identifier, f"it is longer than {MAX_ID_BYTES} bytes")
    try:
        size = len(identifier.encode())
    except UnicodeEncodeError:
        raise InvalidIdentifierError("entity id", identifier, "it contains a lone surrogate") from None
    if size > MAX_ID_BYTES:
        raise InvalidIdentifierError("entity id", identifier, f"it takes {size} bytes in UTF-8; {MAX_ID_BYTES} are allowed")
    return identifier


def entity_key(entity_type: str, entity_id: str) -> str:
    """Return `Type:id`, the key under which an entity is stored.

    Raises:
        InvalidIdentifierError: one of them cannot be stored.
    """
    return f"{check_entity_type(entity_type)}:{check_entity_id(entity_id)}"


def split_key(key: str) -> tuple[str, str]:
    """Return type and id of a key; the id may contain colons, the type does not.

    Raises:
        InvalidIdentifierError: it is no key.
    """
    entity_type, colon, entity_id = key.partition(":") if type(key) is str else ("", "", "")
    if not colon:
        raise InvalidIdentifierError("entity key", key, "a key is written Type:id")
    return check_entity_type(entity_type), check_entity_id(entity_id)


UUID7_RANDOM_BYTES = 8
"""So many random bytes a UUIDv7 takes."""


def uuid7(time_ns: int, random: bytes) -> bytes:
    """Return a UUIDv7: 48 bits of milliseconds, 12 bits of the fraction below, 62 random bits.

    Args:
        time_ns: nanoseconds since 1970.
        random: at least `UUID7_RANDOM_BYTES` random bytes.

    Source: RFC 9562, section 5.7 (method 3 of section 6.2).
    """
    milliseconds, rest = divmod(time_ns, 1_000_000)
    fraction = rest * 4096 // 1_000_000
    tail = int.from_bytes(random[:8], "big") & 0x3FFF_FFFF_FFFF_FFFF
    return _TWO_HALVES.pack((milliseconds & 0xFFFF_FFFF_FFFF) << 16 | 0x7 << 12 | fraction, 0x2 << 62 | tail)


def text_id(uuid: bytes) -> str:
    """Return a UUID as 26 characters of base32hex in lower case: the order of the texts is the order of the bytes.

    Source: RFC 4648, section 7, without padding; the two bits that are left over lead.
    """
    number = int.from_bytes(uuid, "big")
    return "".join(_BASE32HEX[number >> shift & 31] for shift in range(125, -1, -5))


def id_of_text(text: str) -> bytes:
    """Return the 16 bytes of an id that `text_id` wrote.

    Raises:
        InvalidIdentifierError: it is none.
    """
    if len(text) != 26 or text[0] not in _BASE32HEX[:8] or not set(text) <= set(_BASE32HEX):
        raise InvalidIdentifierError("event id", text, "it has 26 characters, digits and the letters a to v")
    number = 0
    for character in text:
        number = number << 5 | _BASE32HEX.index(character)
    return number.to_bytes(16, "big")
