"""One entity's state as bytes of its own: what a storage keeps, and what travels between systems."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any
from zlib import crc32

from symphony_es.errors import DecodeError, InvalidIdentifierError
from symphony_es.events.codec import decode_value, encode_value
from symphony_es.events.identifiers import check_entity_id, check_entity_type
from symphony_es.late_dataclasses import dataclass

__all__ = ["StateBundle"]

_MAGIC = b"SYMB"
_FORMAT = 1
_HEAD = struct.Struct(">4sBI")  # magic, format, CRC-32 of the rest


@dataclass(frozen=True, slots=True)
class StateBundle:
    """One entity's stored state.

    Attributes:
        entity_type: as registered.
        entity_id: unique within the type.
        state_version: version of the state's shape, 1, 2, 3 …
        data: the state: plain data by name.
        metadata: anything else that is worth keeping with it; plain data.

    Raises:
        InvalidIdentifierError: type or id cannot be stored.
    """

    entity_type: str
    entity_id: str
    state_version: int
    data: Mapping[str, Any]
    metadata: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        check_entity_type(self.entity_type)
        check_entity_id(self.entity_id)

    def serialize(self) -> bytes:
        """The bundle as bytes with a check value; `deserialize` reads them.

        Raises:
            UnstorableValueError: a value in it is no plain data; the error names its path.
        """
        metadata = None if self.metadata is None else dict(self.metadata)
        body = encode_value([self.entity_type, self.entity_id, self.state_version, dict(self.data), metadata])
        return _HEAD.pack(_MAGIC, _FORMAT, crc32(body)) + body

    @classmethod
    def deserialize(cls, data: bytes) -> StateBundle:
        """The bundle that `serialize` has written.

        Raises:
            DecodeError: the bytes are no bundle, damaged, or of a format that this version does not know.
        """
        if len(data) < _HEAD.size or data[:4] != _MAGIC:
            raise DecodeError("these bytes are no state bundle")
        _, version, check = _HEAD.unpack_from(data)
        if crc32(data[_HEAD.size :]) != check:
            raise DecodeError("the check value of this state bundle is wrong")
        if version != _FORMAT:
            raise DecodeError(f"this state bundle has format {version}; this version reads format {_FORMAT}")
        match decode_value(data[_HEAD.size :]):
            case [str() as entity_type, str() as entity_id, int() as state_version, dict() as state, dict() | None as metadata]:
                try:
                    return cls(entity_type, entity_id, state_version, state, metadata)
                except InvalidIdentifierError as error:
                    raise DecodeError(f"this state bundle names no entity: {error}") from error
            case _:
                raise DecodeError("this state bundle does not hold what a state bundle holds")
