"""The storage of files: values under keys, all of a transaction or nothing of it, and nothing outside the directory."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symphony_es import EntityReference
from symphony_es.core.state.files import atomic as storage_module
from symphony_es.core.state.files import directory as directory_module
from symphony_es.core.state.files.atomic import FileStorageProvider, write_file_atomically
from symphony_es.core.state.files.bundle import StateBundle
from symphony_es.core.state.files.values import decode_journal, encode_journal, file_name_of, key_of_file_name
from symphony_es.errors import (
    DecodeError,
    InvalidIdentifierError,
    LimitExceededError,
    StorageError,
    StorageTransactionError,
    StorageUnavailableError,
    StoredValueDamagedError,
    UnstorableValueError,
)

HOSTILE = ["../../x", "/etc/passwd", "a/b", "A", "a", "CON", "x" * 512, "\u202eevil", ".", "..", "%41", "\n", "é" * 200, "LOCK", ".journal"]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def provider(tmp_path: Path) -> FileStorageProvider:
    return FileStorageProvider(tmp_path / "store")


class TestValues:
    async def test_what_is_stored_is_retrieved(self, provider: FileStorageProvider, tmp_path: Path) -> None:
        """Any key, any bytes; replaced, listed by prefix, deleted; by another provider on the same directory, too."""
        for number, key in enumerate(HOSTILE):
            await provider.store(key, bytes([number]) * number)
        await provider.store("A", b"replaced")
        other = FileStorageProvider(tmp_path / "store")
        for number, key in enumerate(HOSTILE):
            assert await other.retrieve(key) == (b"replaced" if key == "A" else bytes([number]) * number)
        assert await other.list_keys() == sorted(HOSTILE)
        assert await other.list_keys("a") == ["a", "a/b"]
        assert await other.delete("a")
        assert not await other.delete("a")
        assert await provider.retrieve("a") is None
        assert await provider.retrieve("A") == b"replaced"
        assert {path.parent for path in tmp_path.rglob("*") if path.is_file()} == {tmp_path / "store"}

    @pytest.mark.parametrize("key", ["", "nul\0", "x" * 10_000, "\ud800", 5])
    async def test_keys_that_are_refused(self, provider: FileStorageProvider, key: Any) -> None:
        """A typed error, and nothing is made."""
        for call in (provider.store(key, b""), provider.retrieve(key), provider.delete(key)):
            with pytest.raises(InvalidIdentifierError):
                await call

    @given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=60))
    def test_names_of_files_are_tame_and_tell_their_key(self, key: str) -> None:
        """Lower-case letters, digits and a few signs; no two keys share a name, also where case does not count."""
        name = file_name_of(key)
        assert len(name) < 220
        assert name == name.lower()
        assert not name.startswith(".")
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_%.=~")
        assert key_of_file_name(name) in (key, None)

    async def test_only_bytes_of_bearable_size_are_stored(self, provider: FileStorageProvider, monkeypatch: pytest.MonkeyPatch) -> None:
        """Anything else is a typed error; what was there is untouched."""
        await provider.store("k", b"old")
        with pytest.raises((UnstorableValueError, TypeError)):
            await provider.store("k", "text")  # type: ignore[arg-type]
        from symphony_es.core.state.files import transaction as storage_transaction

        monkeypatch.setattr(storage_transaction, "MAX_VALUE_BYTES", 10)
        with pytest.raises(LimitExceededError):
            await provider.store("k", b"x" * 11)
        assert await provider.retrieve("k") == b"old"

    async def test_an_empty_directory_has_no_keys(self, provider: FileStorageProvider, tmp_path: Path) -> None:
        """Reading makes nothing."""
        assert await provider.list_keys() == []
        assert await provider.retrieve("k") is None
        assert not (tmp_path / "store").exists()
        assert not await provider.delete("k")

    async def test_files_are_private(self, provider: FileStorageProvider, tmp_path: Path) -> None:
        """0700 and 0600."""
        await provider.store("k", b"v")
        assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "store").iterdir()} == {0o600}

    async def test_every_flipped_bit_is_found(self, provider: FileStorageProvider, tmp_path: Path) -> None:
        """The error names the key; a link in the file's place is not followed."""
        await provider.store("key", b"value")
        (path,) = [path for path in (tmp_path / "store").iterdir() if not path.name.startswith(".")]
        content = path.read_bytes()
        for position in range(len(content)):
            for bit in (1, 128):
                damaged = bytearray(content)
                damaged[position] ^= bit
                path.write_bytes(damaged)
                with pytest.raises(StoredValueDamagedError, match="'key'"):
                    await provider.retrieve("key")
        for damaged in (b"", content[:-1], content + b"x", content[:10]):
            path.write_bytes(damaged)
            with pytest.raises(StoredValueDamagedError):
                await provider.retrieve("key")
        path.unlink()
        (tmp_path / "target").write_bytes(content)
        path.symlink_to(tmp_path / "target")
        with pytest.raises(StorageError):
            await provider.retrieve("key")


class TestTransactions:
    async def test_all_of_it_or_nothing(self, provider: FileStorageProvider) -> None:
        """store, commit, rollback; as a context manager; used after its end it is an error."""
        transaction = provider.create_transaction()
        await transaction.store("a", b"1")
        await transaction.store("b", b"2")
        await transaction.store("a", b"3")
        assert await provider.list_keys() == []
        await transaction.commit()
        assert (await provider.retrieve("a"), await provider.retrieve("b")) == (b"3", b"2")
        for call in (transaction.store("c", b""), transaction.commit()):
            with pytest.raises(StorageTransactionError):
                await call
        dropped = await provider.create_transaction()
        await dropped.store("a", b"lost")
        await dropped.rollback()
        with pytest.raises(ValueError, match="stop"):
            async with provider.create_transaction() as inner:
                await inner.store("a", b"lost")
                raise ValueError("stop")
        async with provider.create_transaction() as last:
            await last.store("c", b"4")
        assert (await provider.retrieve("a"), await provider.list_keys()) == (b"3", ["a", "b", "c"])
        async with provider.create_transaction() as empty:
            assert empty is not None
        with pytest.raises(InvalidIdentifierError):
            await provider.create_transaction().store("", b"")

    async def test_many_at_once_take_their_turns(self, provider: FileStorageProvider, tmp_path: Path) -> None:
        """Two keys are always of one transaction, whoever writes; two providers respect each other."""
        other = FileStorageProvider(tmp_path / "store")

        async def write(number: int) -> None:
            async with (provider if number % 2 else other).create_transaction() as transaction:
                await transaction.store("a", str(number).encode())
                await transaction.store("b", str(number).encode())

        await asyncio.gather(*(write(number) for number in range(20)))
        assert await provider.retrieve("a") == await provider.retrieve("b")

    async def test_a_crash_at_any_file_operation_leaves_all_or_nothing(self, tmp_path: Path) -> None:
        """kill -9 before the n-th rename, fsync or unlink, for every n: the next use finds the old pair or the new one."""
        outcomes = set()
        for point in range(1, 40):
            directory = tmp_path / str(point)
            provider = FileStorageProvider(directory)
            async with provider.create_transaction() as transaction:
                await transaction.store("a", b"old")
                await transaction.store("b", b"old")
            finished = await asyncio.to_thread(crash_at, directory, point)
            reopened = FileStorageProvider(directory)
            values = (await reopened.retrieve("a"), await reopened.retrieve("b"))
            assert values in ((b"old", b"old"), (b"new", b"new")), point
            outcomes.add(values[0])
            await reopened.store("c", b"goes on")
            assert not [path.name for path in directory.iterdir() if path.name.endswith(".tmp") or path.name == ".journal"]
            if finished:
                break
        else:
            raise AssertionError("the transaction has more operations than expected")
        assert outcomes == {b"old", b"new"}

    def test_a_journal_is_read_as_it_was_written_or_refused(self) -> None:
        """Damaged ones are typed errors."""
        entries = [("key", ".a.value.0123456789abcdef.tmp"), ("é", ".b.value.0123456789abcdef.tmp")]
        data = encode_journal(entries)
        assert decode_journal(data) == entries
        for position in range(len(data)):
            damaged = bytearray(data)
            damaged[position] ^= 1
            with pytest.raises(StorageError):
                decode_journal(bytes(damaged))
        for cut in (0, 5, len(data) - 1):
            with pytest.raises(StorageError):
                decode_journal(data[:cut])


CRASHING = """
import asyncio, os, signal, sys
from symphony_es.core.state.files.atomic import FileStorageProvider
count, point = 0, int(sys.argv[2])
def counted(name):
    real = getattr(os, name)
    def call(*arguments, **named):
        global count
        count += 1
        if count == point:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **named)
    setattr(os, name, call)
for name in ("rename", "replace", "fsync", "unlink", "remove"):
    counted(name)
async def main():
    async with FileStorageProvider(sys.argv[1]).create_transaction() as transaction:
        await transaction.store("a", b"new")
        await transaction.store("b", b"new")
asyncio.run(main())
"""


def crash_at(directory: Path, point: int) -> bool:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = subprocess.run([sys.executable, "-c", CRASHING, str(directory), str(point)], env=environment, capture_output=True, text=True)
    assert child.returncode in (0, -9), child.stderr
    return child.returncode == 0


class TestBadLuck:
    async def test_a_failing_disk_is_told_and_leaves_what_was_there(
        self, provider: FileStorageProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An error of each operation: typed, the old value stands, no temporary file is left behind."""
        await provider.store("k", b"old")

        def failing(*arguments: Any, **named: Any) -> Any:
            raise OSError(28, "No space left on device")

        for name in ("fsync", "replace", "rename"):
            with monkeypatch.context() as patch:
                patch.setattr(os, name, failing)
                try:
                    await provider.store("k", b"new" * 1000)
                except StorageUnavailableError as error:
                    assert "No space left" in str(error)  # noqa: PT017  rename and replace are not both used
            assert await provider.retrieve("k") in (b"old", b"new" * 1000)
            await provider.store("k", b"old")
        assert not [path.name for path in (tmp_path / "store").iterdir() if path.name.endswith(".tmp")]

    async def test_a_file_where_the_directory_should_be(self, tmp_path: Path) -> None:
        """A typed error for every call."""
        (tmp_path / "file").write_text("x")
        provider = FileStorageProvider(tmp_path / "file")
        for call in (lambda: provider.store("k", b""), provider.list_keys, lambda: provider.retrieve("k"), lambda: provider.delete("k")):
            with pytest.raises(StorageUnavailableError):
                await call()

    async def test_chunks_are_written_in_pieces_without_stopping_the_loop(self, tmp_path: Path) -> None:
        """From plain and asynchronous iterables; an error of the iterable leaves nothing."""

        async def asynchronous() -> Any:
            for _ in range(3):
                yield b"y" * 100

        await write_file_atomically(tmp_path / "a", (b"x" * 300_000 for _ in range(10)))
        await write_file_atomically(tmp_path / "b", asynchronous())
        assert (tmp_path / "a").read_bytes() == b"x" * 3_000_000
        assert (tmp_path / "b").read_bytes() == b"y" * 300

        def broken() -> Any:
            yield b"z"
            raise ValueError("stop")

        with pytest.raises(ValueError, match="stop"):
            await write_file_atomically(tmp_path / "a", broken())
        assert (tmp_path / "a").read_bytes() == b"x" * 3_000_000
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]

    async def test_cancelling_a_write_leaves_old_or_new(self, tmp_path: Path) -> None:
        """Never a half, and no temporary file."""
        await write_file_atomically(tmp_path / "a", [b"old"])
        writing = write_file_atomically(tmp_path / "a", (b"n" * 100_000 for _ in range(50)))
        task = asyncio.ensure_future(writing)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (tmp_path / "a").read_bytes() in (b"old", b"n" * 5_000_000)
        assert [path.name for path in tmp_path.iterdir()] == ["a"]

    async def test_a_lock_that_is_never_given_back_is_told(
        self, provider: FileStorageProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Another process that holds it makes a typed error after a while."""
        import fcntl

        await provider.store("k", b"v")
        monkeypatch.setattr(storage_module, "_LOCK_WAIT_S", 0.02)
        descriptor = os.open(tmp_path / "store" / ".lock", os.O_RDWR)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(StorageUnavailableError):
            await provider.store("k", b"w")
        os.close(descriptor)
        await provider.store("k", b"w")

    def test_directories_are_made_durable(self, tmp_path: Path) -> None:
        """Each new level is synced into the one above; a missing one to sync is a typed error."""
        directory_module.make_directory(tmp_path / "a" / "b" / "c")
        assert (tmp_path / "a" / "b" / "c").is_dir()
        with pytest.raises(StorageUnavailableError):
            directory_module.sync_directory(tmp_path / "missing")


class TestBundles:
    @settings(max_examples=50)
    @given(
        st.dictionaries(st.text("abc", min_size=1), st.integers() | st.text("xyz") | st.lists(st.booleans()), max_size=3),
        st.none() | st.dictionaries(st.text("k", min_size=1), st.integers(), max_size=1),
    )
    def test_what_is_serialised_is_deserialised(self, data: dict[str, Any], metadata: dict[str, Any] | None) -> None:
        """Type, id, version, data and metadata."""
        bundle = StateBundle("Agent", "a:b", 2, data, metadata)
        assert StateBundle.deserialize(bundle.serialize()) == bundle

    def test_what_is_no_bundle_is_refused(self) -> None:
        """Every flipped bit, cut ends, and values that cannot be stored."""
        content = StateBundle("Agent", "1", 1, {"boss": EntityReference("Agent", "2")}).serialize()
        for position in range(len(content)):
            damaged = bytearray(content)
            damaged[position] ^= 4
            with pytest.raises(DecodeError):
                StateBundle.deserialize(bytes(damaged))
        for cut in (b"", content[:5], content[:-1]):
            with pytest.raises(DecodeError):
                StateBundle.deserialize(cut)
        with pytest.raises(UnstorableValueError):
            StateBundle("Agent", "1", 1, {"x": object()}).serialize()
        with pytest.raises(InvalidIdentifierError):
            StateBundle("not a type", "1", 1, {})

    def test_a_bundle_of_another_shape_is_refused(self) -> None:
        """A right check value over the wrong content, or another format."""
        from zlib import crc32

        from symphony_es.core.state.files import bundle as module
        from symphony_es.events.codec import encode_value

        for content in ([1, 2], ["Agent", "", 1, {}, None], ["Agent", "1", "1", {}, None]):
            body = encode_value(content)
            with pytest.raises(DecodeError):
                StateBundle.deserialize(module._HEAD.pack(module._MAGIC, module._FORMAT, crc32(body)) + body)
        body = encode_value(["Agent", "1", 1, {}, None])
        with pytest.raises(DecodeError, match="format 9"):
            StateBundle.deserialize(module._HEAD.pack(module._MAGIC, 9, crc32(body)) + body)
