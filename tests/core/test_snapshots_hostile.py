"""Snapshot files that lie although their check values are right, and disks that refuse."""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from zlib import crc32

import pytest

from symphony_es.core.past.snapshots.format import (
    HEADER_BYTES,
    TRAILER_BYTES,
    BlockEntry,
    close_trailer,
    encode_header,
    encode_index,
    encode_trailer,
)
from symphony_es.core.past.snapshots.frames import encode_frame
from symphony_es.core.past.snapshots.store import SnapshotStore
from symphony_es.errors import ConfigurationError, LimitExceededError, SnapshotDamagedError, StorageUnavailableError
from symphony_es.events.codec import encode_value
from symphony_es.events.fold import EntityState

ANCHOR = (b"e" * 16, b"c" * 32, 1)
ROOT = Path(__file__).parents[2]


def frame(
    key: bytes = b"E:1", data: bytes | None = None, *, flags: int = 0, length: int | None = None, key_length: int | None = None
) -> bytes:
    """A frame whose check value is right, whatever else is wrong with it."""
    data = encode_value({"n": 1}) if data is None else data
    body = struct.pack(">BQQQQH", flags, 1, 1, 1, 0, len(key) if key_length is None else key_length) + key + data
    return struct.pack(">II", len(body) if length is None else length, crc32(body)) + body


def snapshot(
    blocks: list[list[bytes]],
    *,
    first_keys: list[bytes] | None = None,
    entries: Callable[[list[BlockEntry]], list[BlockEntry]] = lambda made: made,
    index: Callable[[bytes], bytes] = lambda made: made,
    frames: int | None = None,
    index_offset: int | None = None,
    count: int | None = None,
    resting: int | None = None,
    part: bytes = b"\0",
) -> bytes:
    """A snapshot whose check values and hash are right, whatever else is wrong with it."""
    content, made = encode_header(1, ANCHOR), []
    for number, block in enumerate(blocks):
        data = b"".join(block)
        key = first_keys[number] if first_keys else b"E:%d" % (number + 1)
        made.append(BlockEntry(len(content), len(data), crc32(data), len(block), part + key))
        content += data
    at = len(content)
    encoded = index(encode_index(entries(made)))
    total = sum(len(block) for block in blocks) if frames is None else frames
    content += encoded
    content += encode_trailer(
        at if resting is None else resting,
        at if index_offset is None else index_offset,
        len(blocks) if count is None else count,
        total,
        0,
        crc32(encoded),
    )
    return content + close_trailer(sha256(content).digest())


def moved(offset: int = 0, length: int = 0) -> Callable[[list[BlockEntry]], list[BlockEntry]]:
    return lambda made: [entry._replace(offset=entry.offset + offset, length=entry.length + length) for entry in made]


LIES = {
    "a frame that is cut off": snapshot([[frame()[:20]]]),
    "a frame longer than its block": snapshot([[frame(length=10**9)]]),
    "a key longer than its frame": snapshot([[frame(key_length=60_000)]]),
    "unknown flags": snapshot([[frame(flags=2)]]),
    "a key that is no text": snapshot([[frame(b"\xff\xfe")]], first_keys=[b"\xff\xfe"]),
    "a key twice": snapshot([[frame(), frame()]]),
    "keys that fall from block to block": snapshot([[frame(), frame(b"E:9")], [frame(b"E:2")]]),
    "a state that cannot be decoded": snapshot([[frame(data=b"\xc1")]]),
    "a state that is no mapping": snapshot([[frame(data=encode_value([1]))]]),
    "a tombstone with data": snapshot([[frame(flags=1)]]),
    "another first key than in the index": snapshot([[frame()]], first_keys=[b"E:0"]),
    "an index entry before the first block": snapshot([[frame()]], entries=moved(offset=-20)),
    "an index entry of a terabyte": snapshot([[frame()]], entries=moved(length=2**40)),
    "a block that overlaps the next": snapshot([[frame()], [frame(b"E:2")]], entries=moved(length=5)),
    "an empty block": snapshot([[]]),
    "an index that leaves bytes out": snapshot([[frame()], [frame(b"E:2")]], entries=lambda made: made[:1], count=1),
    "an index that is cut off": snapshot([[frame()]], index=lambda made: made[:-1]),
    "an index with more entries than the trailer says": snapshot([[frame()]], count=0),
    "2^60 blocks": snapshot([[frame()]], count=2**60),
    "an index behind the end": snapshot([[frame()]], index_offset=2**50),
    "an index inside the header": snapshot([[frame()]], index_offset=3),
    "a part that begins inside the header": snapshot([[frame()]], resting=3),
    "a part that begins behind the index": snapshot([[frame()]], resting=2**50),
    "a part that begins before its blocks": snapshot([[frame()]], resting=80),
    "a part that nobody knows": snapshot([[frame()]], part=b"\2"),
    "more frames than there are": snapshot([[frame()]], frames=2),
    "a header of format 9": struct.pack(">8sHH", b"\x89SYMSNAP", 9, 0) + snapshot([[frame()]])[12:],
    "no snapshot at all": b"PK\x03\x04" * 100,
}


@pytest.mark.parametrize("lie", LIES)
def test_a_snapshot_that_lies_is_refused(tmp_path: Path, lie: str) -> None:
    """With one typed error that names the file, at once, however long it says it is."""
    (tmp_path / f"{1:020d}.snap").write_bytes(LIES[lie])
    store = SnapshotStore(tmp_path)
    infos = store.list()
    if infos:
        with pytest.raises(SnapshotDamagedError, match=f"{1:020d}"):
            store.read_all(infos[0])
        with contextlib.suppress(SnapshotDamagedError):
            store.read_some(infos[0], ["E:1", "E:2"])
    else:
        assert [name for name, _ in store.damaged] == [f"{1:020d}.snap"]


async def test_a_header_of_a_later_format_is_named(tmp_path: Path) -> None:
    """A file of a later version is not called damaged for its check value."""
    header = struct.pack(">8sHHQQ16s32s", b"\x89SYMSNAP", 4, 0, 1, 1, b"e" * 16, b"c" * 32)
    rest = snapshot([])[HEADER_BYTES:]
    (tmp_path / f"{1:020d}.snap").write_bytes(header + struct.pack(">I", crc32(header)) + rest)
    ((_, why),) = SnapshotStore(tmp_path).damaged
    assert "format 4" in why


async def test_a_lying_base_is_not_merged(tmp_path: Path) -> None:
    """Damage is not handed on: the merge fails, and no file is there."""
    (tmp_path / f"{1:020d}.snap").write_bytes(LIES["a key twice"])
    store = SnapshotStore(tmp_path)
    with pytest.raises(SnapshotDamagedError):
        await store.merge(store.list()[0], {"E:1": EntityState("E:1", {}, 2, 2)}, 2, ANCHOR)
    assert [path.name for path in tmp_path.iterdir()] == [f"{1:020d}.snap"]


async def test_a_damaged_range_is_not_copied(tmp_path: Path) -> None:
    """The check values of copied blocks are looked at on the way."""
    store = SnapshotStore(tmp_path)
    base = await store.write(1, ANCHOR, [EntityState(f"E:{n:05d}", {"text": "x" * 500}, 1, 1) for n in range(1000)])
    path = tmp_path / base.name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(SnapshotDamagedError, match="block"):
        await store.merge(base, {"E:00000": EntityState("E:00000", {}, 2, 2)}, 2, ANCHOR)


async def test_a_file_that_is_gone_or_no_file_is_a_damaged_snapshot(tmp_path: Path) -> None:
    """The log rebuilds it; a named pipe is not waited for."""
    store = SnapshotStore(tmp_path)
    info = await store.write(1, ANCHOR, [])
    (tmp_path / info.name).unlink()
    with pytest.raises(SnapshotDamagedError, match="cannot be read"):
        store.read_all(info)
    os.mkfifo(tmp_path / info.name)
    with pytest.raises(SnapshotDamagedError, match="no plain file"):
        store.read_all(info)


async def test_a_process_without_descriptors_does_not_blame_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says nothing about the snapshot, so it must not be passed over in silence."""
    store = SnapshotStore(tmp_path)
    info = await store.write(1, ANCHOR, [])

    def refuse(*_: object, **__: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with pytest.raises(StorageUnavailableError):
            store.read_all(info)
    assert store.read_all(info) == {}


async def test_what_does_not_fit_is_refused_before_a_file_is_there(tmp_path: Path) -> None:
    """A key or number too large; states that are not in order."""
    store = SnapshotStore(tmp_path / "snapshots")
    for state in (EntityState("E:" + "x" * 2000, {}, 1, 1), EntityState("E:1", {}, 2**64, 1), EntityState("E:1", {}, -1, 1)):
        with pytest.raises(LimitExceededError):
            await store.write(1, ANCHOR, [state])
    with pytest.raises(ConfigurationError, match="sorted"):
        await store.write(1, ANCHOR, [EntityState("E:2", {}, 1, 1), EntityState("E:1", {}, 1, 1)])
    assert list((tmp_path / "snapshots").iterdir()) == []
    assert len(encode_frame(EntityState("E:1", None, 1, 1))) == 46


async def test_a_directory_that_cannot_be_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A parent without the right to pass through it: writing says so with the typed error."""
    store = SnapshotStore(tmp_path / "s")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "stat", refuse)
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StorageUnavailableError, match="Permission denied"):
        await store.write(1, ANCHOR, [])


def test_a_snapshot_directory_that_cannot_be_read(tmp_path: Path) -> None:
    """A typed error that names it; none at all is no error."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageUnavailableError, match="file"):
        SnapshotStore(tmp_path / "file", read_only=True).list()
    assert SnapshotStore(tmp_path / "none").list() == []


FULL_DISK = """
import asyncio, os, resource, sys
from pathlib import Path
from symphony_es.core.past.snapshots.store import SnapshotStore
from symphony_es.errors import StorageUnavailableError
from symphony_es.events.fold import EntityState
root, how = Path(sys.argv[1]), sys.argv[2]
states = [EntityState(f"E:{n:04d}", {"text": "x" * 1000}, 1, 1) for n in range(300)]
anchor = (b"e" * 16, b"c" * 32, 1)
def refuse():
    if how == "full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    else:
        (root / "s").chmod(0o500)
        if os.geteuid() == 0:
            for path in (root, *root.rglob("*")):
                os.chown(path, 65534, 65534)
            os.seteuid(65534)
async def main():
    store = SnapshotStore(root / "s")
    info = await store.write(1, anchor, states)
    refuse()
    for attempt in (store.write(2, anchor, states), store.merge(info, {}, 2, anchor)):
        try:
            await attempt
        except StorageUnavailableError as error:
            assert error.errno, error
        else:
            raise AssertionError("the disk has taken it")
    assert [i.position for i in SnapshotStore(root / "s").list()] == [1] and len(store.read_all(info)) == 300
    assert sorted(path.name for path in root.rglob("*") if path.is_file()) == [f"{1:020d}.snap"]
asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_a_disk_that_refuses_leaves_everything_as_it_was(how: str) -> None:
    """Full in the middle of a file, or read-only: a typed error, the earlier files whole, no temporary file."""
    with tempfile.TemporaryDirectory() as directory:  # pytest's own is closed to the user that the child becomes when it is root
        done = subprocess.run(
            [sys.executable, "-c", FULL_DISK, directory, how], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
        )
    assert done.returncode == 0, done.stderr


def test_the_sizes_of_the_format() -> None:
    """docs/format.md says so."""
    assert (HEADER_BYTES, TRAILER_BYTES) == (80, 88)
