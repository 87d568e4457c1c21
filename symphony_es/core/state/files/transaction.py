"""Values that are stored together or not at all: what a caller holds of a storage's transaction.

It gathers in memory; making it durable is the storage's part, which also tells the order of steps.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from types import TracebackType
from typing import Any, Protocol

from symphony_es.core.state.files.values import MAX_VALUE_BYTES, check_storage_key
from symphony_es.errors import LimitExceededError, StorageTransactionError, UnstorableValueError
from symphony_es.shown import quoted

__all__ = ["Appliable", "StorageTransaction", "check_value"]


class Appliable(Protocol):
    """What stores several values at once."""

    async def apply(self, values: Mapping[str, bytes]) -> None:
        """Store them all, or none."""


class StorageTransaction:
    """Values that are stored together or not at all.

    As an async context manager it commits at the end of the block, and rolls back when the block raises. Made by
    `FileStorageProvider.create_transaction`.
    """

    def __init__(self, provider: Appliable) -> None:
        self._provider = provider
        self._values: dict[str, bytes] = {}
        self._ended = False

    def __await__(self) -> Generator[Any, None, StorageTransaction]:
        yield from ()
        return self

    async def __aenter__(self) -> StorageTransaction:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._ended:
            return
        if kind is None:
            await self.commit()
        else:
            await self.rollback()

    def _check_open(self) -> None:
        if self._ended:
            raise StorageTransactionError("this storage transaction has been committed or rolled back; create a new one")

    async def store(self, key: str, value: bytes) -> None:
        """Take a value into the transaction; of two for one key the later counts. Nothing is stored before `commit`.

        Raises:
            StorageTransactionError: the transaction has ended.
            InvalidIdentifierError, UnstorableValueError, LimitExceededError: key or value cannot be stored; the others stay.
        """
        self._check_open()
        check_value(key, value)
        self._values[key] = value

    async def commit(self) -> None:
        """Store everything, and end the transaction. Cancelled, it stores everything or nothing all the same.

        Raises:
            StorageTransactionError: the transaction has ended.
            StorageUnavailableError: nothing is stored; or, when the message says so, the next use completes it.
        """
        self._check_open()
        self._ended = True
        await self._provider.apply(self._values)

    async def rollback(self) -> None:
        """End the transaction; nothing is stored.

        Raises:
            StorageTransactionError: the transaction has ended.
        """
        self._check_open()
        self._ended = True


def check_value(key: str, value: bytes) -> None:
    """Check that a value can be stored under a key.

    Raises:
        InvalidIdentifierError: the key cannot be stored.
        UnstorableValueError, LimitExceededError: the value is not bytes, or too large.
    """
    check_storage_key(key)
    if not isinstance(value, bytes):
        why = f"{quoted(key)} has a {type(value).__name__}; a storage takes bytes, e.g. of StateBundle.serialize()"
        raise UnstorableValueError((), why)
    if len(value) > MAX_VALUE_BYTES:
        raise LimitExceededError(f"the value of {quoted(key)} has {len(value)} bytes; at most {MAX_VALUE_BYTES} are allowed")
