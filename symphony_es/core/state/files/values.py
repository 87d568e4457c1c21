"""Names and bytes of what a storage directory holds: value files and the journal of a transaction. Pure.

A key becomes a file name that is reversible and the same on every file system: only lower-case letters, digits, `-` and `_` stand
for themselves, so case-insensitive directories, Unicode normalisation, reserved names such as `CON`, dots and slashes cannot make
two keys one file or lead out of the directory. A name that would be too long is a hash instead. Every file also holds its key.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from hashlib import sha256

from symphony_es.errors import InvalidIdentifierError, StoredValueDamagedError

__all__ = [
    "JOURNAL_KEY",
    "MAX_HEAD_BYTES",
    "MAX_VALUE_BYTES",
    "TEMPORARY_NAME",
    "check_storage_key",
    "decode_journal",
    "decode_value_file",
    "encode_journal",
    "encode_value_file",
    "file_name_of",
    "is_hashed_name",
    "key_in_value_file",
    "key_of_file_name",
    "value_file_bytes",
]

MAX_HEAD_BYTES = 20 + 512
"""No value file has more bytes before its value."""

MAX_VALUE_BYTES = 64 * 1024 * 1024
JOURNAL_KEY = "(journal)"
"""How errors name a transaction's journal; no file name of a value stands for it."""

TEMPORARY_NAME = re.compile(r"\.[a-z0-9%_.-]+\.[0-9a-f]{16}\.tmp")
"""Names of files that are being written. Whoever finds one that nobody writes may remove it."""

_MAX_KEY_BYTES = 512
_MAX_NAME_CHARS = 200  # with what a temporary file adds, below the 255 bytes of every file system
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_")
_SUFFIX = ".value"
_VALUE_MAGIC = b"\x89SYMVALU"
_JOURNAL_MAGIC = b"\x89SYMJOUR"
_FORMAT = 1
_VALUE = struct.Struct(">8sHHQ")  # magic, format, length of the key, length of the value
_JOURNAL = struct.Struct(">8sHI")  # magic, format, number of entries
_ENTRY = struct.Struct(">HH")  # lengths of key and temporary name
_HASH_BYTES = 32


def check_storage_key(key: str) -> str:
    """The key itself.

    Raises:
        InvalidIdentifierError: it is empty, no text, longer than 512 bytes in UTF-8, or has NUL or a lone surrogate in it.
    """
    if type(key) is not str or not key:
        raise InvalidIdentifierError("storage key", key, "it must be a text that is not empty")
    if "\0" in key:
        raise InvalidIdentifierError("storage key", key, "it has NUL in it")
    try:
        encoded = key.encode()
    except UnicodeEncodeError as error:
        raise InvalidIdentifierError("storage key", key, "it has a lone surrogate in it, which no UTF-8 text can hold") from error
    if len(encoded) > _MAX_KEY_BYTES:
        raise InvalidIdentifierError("storage key", key, f"it has {len(encoded)} bytes, at most {_MAX_KEY_BYTES} are allowed")
    return key


def file_name_of(key: str) -> str:
    """The name of a key's file: `k-` and the escaped key, or `h-` and its hash where that would be too long."""
    encoded = key.encode()
    escaped = "".join([chr(byte) if byte in _PLAIN else f"%{byte:02x}" for byte in encoded])
    if len(escaped) > _MAX_NAME_CHARS:
        return f"h-{sha256(encoded).hexdigest()}{_SUFFIX}"
    return f"k-{escaped}{_SUFFIX}"


def is_hashed_name(name: str) -> bool:
    """Whether the key of a value file is to be read from the file itself."""
    return name.startswith("h-") and name.endswith(_SUFFIX)


def key_of_file_name(name: str) -> str | None:
    """The key of a value file whose name is reversible; None for every other file."""
    if not (name.startswith("k-") and name.endswith(_SUFFIX)):
        return None
    escaped = name[2 : -len(_SUFFIX)]
    try:
        key = re.sub(rb"%([0-9a-f]{2})", lambda found: bytes([int(found[1], 16)]), escaped.encode()).decode()
    except UnicodeError:
        return None
    return key if key and file_name_of(key) == name else None


def value_file_bytes(key: str, value_bytes: int) -> int:
    """Size of the file of a value."""
    return _VALUE.size + len(key.encode()) + value_bytes + _HASH_BYTES


def encode_value_file(key: str, value: bytes) -> list[bytes]:
    """A value file: header, key, value, SHA-256 of all that."""
    head = _VALUE.pack(_VALUE_MAGIC, _FORMAT, len(key.encode()), len(value)) + key.encode()
    digest = sha256(head)
    digest.update(value)
    return [head, value, digest.digest()]


def decode_value_file(key: str, data: bytes) -> bytes:
    """The value stored under a key.

    Raises:
        StoredValueDamagedError: the bytes are not what was stored under this key.
    """
    _check_hash(key, data, _VALUE.size)
    magic, version, key_length, length = _VALUE.unpack_from(data)
    if magic != _VALUE_MAGIC or version != _FORMAT:
        raise StoredValueDamagedError(key, "it is no value file of a format that this version knows")
    start = _VALUE.size + key_length
    if start + length + _HASH_BYTES != len(data):
        raise StoredValueDamagedError(key, "its length is not what its header says")
    if data[_VALUE.size : start] != key.encode():
        raise StoredValueDamagedError(key, "its file holds the value of another key")
    return data[start : start + length]


def key_in_value_file(name: str, data: bytes) -> str:
    """The key in the first bytes of a value file that is named by a hash.

    Raises:
        StoredValueDamagedError: the file's name is not the hash of the key in it.
    """
    key = ""
    if len(data) >= _VALUE.size:
        key = data[_VALUE.size : _VALUE.size + _VALUE.unpack_from(data)[2]].decode(errors="replace")
    if file_name_of(key) != name:
        raise StoredValueDamagedError(name, "the key in the file is not the one that the file is named after")
    return key


def _check_hash(key: str, data: bytes, least: int) -> None:
    if len(data) < least + _HASH_BYTES:
        raise StoredValueDamagedError(key, "it is cut off")
    if sha256(memoryview(data)[:-_HASH_BYTES]).digest() != data[-_HASH_BYTES:]:
        raise StoredValueDamagedError(key, "its hash is wrong")


def encode_journal(entries: Sequence[tuple[str, str]]) -> bytes:
    """The journal of a transaction: keys, and the temporary files that hold their values."""
    parts = [_JOURNAL.pack(_JOURNAL_MAGIC, _FORMAT, len(entries))]
    for key, temporary in entries:
        key_bytes, name_bytes = key.encode(), temporary.encode()
        parts += [_ENTRY.pack(len(key_bytes), len(name_bytes)), key_bytes, name_bytes]
    data = b"".join(parts)
    return data + sha256(data).digest()


def decode_journal(data: bytes) -> list[tuple[str, str]]:
    """The entries of a journal.

    Raises:
        StoredValueDamagedError: it is not what was written.
    """
    _check_hash(JOURNAL_KEY, data, _JOURNAL.size)
    magic, version, count = _JOURNAL.unpack_from(data)
    if magic != _JOURNAL_MAGIC or version != _FORMAT:
        raise StoredValueDamagedError(JOURNAL_KEY, "it is no journal of a format that this version knows")
    try:
        entries, end = _decode_entries(data, count)
    except (struct.error, UnicodeDecodeError, InvalidIdentifierError) as error:
        raise StoredValueDamagedError(JOURNAL_KEY, f"its entries cannot be read ({error})") from error
    if end + _HASH_BYTES != len(data):
        raise StoredValueDamagedError(JOURNAL_KEY, "its length is not what its entries need")
    return entries


def _decode_entries(data: bytes, count: int) -> tuple[list[tuple[str, str]], int]:
    entries, at = [], _JOURNAL.size
    for _ in range(count):
        key_length, name_length = _ENTRY.unpack_from(data, at)
        name_at = at + _ENTRY.size + key_length
        key = check_storage_key(data[at + _ENTRY.size : name_at].decode())
        temporary = data[name_at : name_at + name_length].decode()
        if not TEMPORARY_NAME.fullmatch(temporary):
            raise InvalidIdentifierError("temporary file name", temporary, "no file is named like this while it is written")
        entries.append((key, temporary))
        at = name_at + name_length
    return entries, at
