"""Snapshot files: written whole, merged by copying what has not changed, and never trusted when damaged."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symphony_es import Symphony
from symphony_es.core.past.snapshots import writing as snapshot_writing
from symphony_es.core.past.snapshots.retention import spares_little
from symphony_es.core.past.snapshots.store import SnapshotStore
from symphony_es.errors import SnapshotDamagedError, StorageUnavailableError
from symphony_es.events.fold import Damage, EntityState
from symphony_es.events.values import plain_equal
from tests.application import Customer

ANCHOR = (b"e" * 16, b"c" * 32, 1_700_000_000_000_000_000)


def state(key: str, number: int = 0, *, deleted: bool = False, version: int = 3) -> EntityState:
    return EntityState(key, None if deleted else {"n": number, "text": key * 3}, version, number + 1, 2, number % 3)


def many(count: int) -> dict[str, EntityState]:
    """Some are deleted, some damaged, of these some have no good state."""
    made = {f"E:{number:06d}": state(f"E:{number:06d}", number, deleted=number % 17 == 3) for number in range(count)}
    for number in range(count):
        if number % 13 == 3:
            made[f"E:{number:06d}"].damage = Damage(2, number, "it does not fit: ä")
    return made


def kept(states: dict[str, EntityState]) -> dict[str, EntityState]:
    """What a snapshot keeps: no tombstones, unless the entity is damaged."""
    return {key: each for key, each in states.items() if not each.deleted or each.damage is not None}


def ordered(states: dict[str, EntityState]) -> list[EntityState]:
    return [states[key] for key in sorted(states)]


def same(one: EntityState | None, other: EntityState | None) -> bool:
    if one is None or other is None:
        return one is other
    return all(plain_equal(getattr(one, name), getattr(other, name)) for name in EntityState.__slots__)


def same_all(one: dict[str, EntityState], other: dict[str, EntityState]) -> bool:
    return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    return SnapshotStore(tmp_path / "snapshots")


class TestReading:
    @pytest.mark.parametrize("count", [0, 1, 5, 3000])
    async def test_what_is_written_is_read(self, store: SnapshotStore, count: int) -> None:
        """All of it, one, and some; damage, versions and generations included; the system's own entities are not counted."""
        states = many(count)
        states["symphony.Checkpoint:c"] = state("symphony.Checkpoint:c")
        info = await store.write(7, ANCHOR, ordered(states))
        assert (info.position, info.event_id, info.commitment, info.time_ns) == (7, *ANCHOR)
        assert info.entity_count == sum(not each.deleted for each in many(count).values())
        assert info.size_bytes == (store.directory / info.name).stat().st_size
        states = kept(states)
        assert same_all(store.read_all(info), states)
        for key in [*sorted(states)[:: max(1, count // 20)], "A:never", "E:000000x", "z:never"]:
            assert same(store.read_some(info, [key]).get(key), states.get(key)), key
        wanted = [*sorted(states)[::7], "never:1"]
        assert same_all(store.read_some(info, wanted), {key: states[key] for key in wanted if key in states})
        most = sorted(states)[1:]
        assert same_all(store.read_some(info, most), {key: states[key] for key in most})

    async def test_the_newest_first_and_the_nearest(self, store: SnapshotStore, tmp_path: Path) -> None:
        """A new store on the directory lists the same; names are made of positions only."""
        for position in (5, 50, 20):
            await store.write(position, ANCHOR, ordered(many(3)))
        assert [info.position for info in store.list()] == [50, 20, 5]
        again = await SnapshotStore(tmp_path / "snapshots").open()
        assert again.list() == store.list()
        assert [getattr(again.nearest(position), "position", None) for position in (4, 5, 49, 50, 99)] == [None, 5, 20, 50, 50]
        assert [info.name for info in again.list()] == [f"{position:020d}.snap" for position in (50, 20, 5)]
        assert store.delete(again.list()[0])
        assert not store.delete(again.list()[0])
        assert [info.position for info in store.list()] == [20, 5]

    async def test_files_are_private_and_leftovers_go(self, store: SnapshotStore, tmp_path: Path) -> None:
        """0700 and 0600; what a crash left is removed by the writer, never by a reader; other files are left alone."""
        await store.write(1, ANCHOR, [])
        directory = tmp_path / "snapshots"
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}
        leftover = directory / ".00000000000000000002.snap.0123456789abcdef.tmp"
        leftover.write_bytes(b"x")
        (directory / "notes.txt").write_text("mine")
        assert len(SnapshotStore(directory, read_only=True).list()) == 1
        assert leftover.exists()
        assert len((await SnapshotStore(directory).open()).list()) == 1
        assert not leftover.exists()
        assert (directory / "notes.txt").exists()


class TestMerging:
    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def test_a_merge_is_what_writing_everything_would_be(self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
        """For random bases and changes (changed, new, deleted), with small blocks so that many are copied."""
        before = snapshot_writing.BLOCK_BYTES
        snapshot_writing.BLOCK_BYTES = 400
        try:
            numbers = st.integers(0, 60)
            base = {f"E:{n:02d}": state(f"E:{n:02d}", n, deleted=n % 5 == 0) for n in data.draw(st.sets(numbers, max_size=40))}
            changed = {
                f"E:{n:02d}": state(f"E:{n:02d}", n + 1000, deleted=data.draw(st.booleans()), version=9)
                for n in data.draw(st.sets(numbers, max_size=10))
            }
            store = SnapshotStore(tmp_path_factory.mktemp("merge"))
            for each in data.draw(st.lists(st.sampled_from([*base.values(), *changed.values()] or [state("E:no")]), max_size=8)):
                each.damage = Damage(1, 2, "why")
            expected = kept({**base, **changed})

            async def run() -> None:
                info = await store.write(5, ANCHOR, ordered(base))
                merged = await store.merge(info, changed, 9, ANCHOR)
                assert same_all(store.read_all(merged), expected)
                assert merged.entity_count == sum(not each.deleted for each in expected.values())
                for key in list(expected)[:5]:
                    assert same(store.read_some(merged, [key]).get(key), expected[key])

            asyncio.run(run())
        finally:
            snapshot_writing.BLOCK_BYTES = before

    async def test_unchanged_ranges_are_copied_not_decoded(self, store: SnapshotStore, monkeypatch: pytest.MonkeyPatch) -> None:
        """Ten changes in 20,000 entities decode a few blocks only."""
        from symphony_es.core.past.snapshots import frames as snapshot_frames

        states = many(20_000)
        info = await store.write(1, ANCHOR, ordered(states))
        decoded = 0
        real = snapshot_frames.decode_value

        def counting(data: bytes) -> Any:
            nonlocal decoded
            decoded += 1
            return real(data)

        monkeypatch.setattr(snapshot_frames, "decode_value", counting)
        changed = {f"E:{number:06d}": state(f"E:{number:06d}", 7, version=5) for number in range(0, 20_000, 2000)}
        merged = await store.merge(info, changed, 2, ANCHOR)
        assert decoded < 20_000
        monkeypatch.undo()
        assert same_all(store.read_all(merged), kept({**states, **changed}))

    async def test_the_event_loop_goes_on_while_a_snapshot_is_written(self, store: SnapshotStore) -> None:
        """A heartbeat is never held up for long, however large the snapshot."""
        gaps: list[float] = []
        done = asyncio.Event()

        async def heartbeat() -> None:
            last = time.monotonic()
            while not done.is_set():
                await asyncio.sleep(0)
                now = time.monotonic()
                gaps.append(now - last)
                last = now

        task = asyncio.create_task(heartbeat())
        await store.write(1, ANCHOR, ordered(many(30_000)))
        done.set()
        await task
        assert sorted(gaps)[int(len(gaps) * 0.99)] < 0.05


class TestDamage:
    async def test_every_flipped_bit_is_found_by_reading_everything(self, store: SnapshotStore) -> None:
        """In whatever part of the file; the error names it."""
        info = await store.write(3, ANCHOR, ordered(many(6)))
        path = store.directory / info.name
        content = path.read_bytes()
        for position in range(len(content)):
            damaged = bytearray(content)
            damaged[position] ^= 1 << position % 8
            path.write_bytes(damaged)
            with pytest.raises(SnapshotDamagedError) as caught:
                store.read_all(info)
            assert caught.value.name == info.name
        for damaged_content in (b"", content[:-1], content[:20], content + b"x", content[: len(content) // 2]):
            path.write_bytes(damaged_content)
            with pytest.raises(SnapshotDamagedError):
                store.read_all(info)

    async def test_reading_one_entity_never_hands_out_a_damaged_state(self, store: SnapshotStore) -> None:
        """It is right, or a typed error; never altered, never missing."""
        states = many(6)
        states["E:000005"].damage = Damage(1, 2, "why")
        info = await store.write(3, ANCHOR, ordered(states))
        path = store.directory / info.name
        content = path.read_bytes()
        for position in range(len(content)):
            damaged = bytearray(content)
            damaged[position] ^= 16
            path.write_bytes(damaged)
            for key in ("E:000000", "E:000003", "E:000005"):
                try:
                    assert same(store.read_some(info, [key]).get(key), states[key])
                except SnapshotDamagedError:
                    continue

    async def test_damaged_files_are_listed_apart(self, store: SnapshotStore, tmp_path: Path) -> None:
        """A directory with good and bad files opens; distrusted ones are not offered again; thinning removes old bad ones."""
        for position in (1, 2, 3):
            await store.write(position, ANCHOR, ordered(many(5)))
        directory = tmp_path / "snapshots"
        names = [info.name for info in reversed(store.list())]
        (directory / names[0]).write_bytes(b"\x89SYMSNAP garbage")
        os.rename(directory / names[1], directory / f"{99:020d}.snap")
        (directory / f"{7:020d}.snap").symlink_to(directory / names[2])
        again = await SnapshotStore(directory).open()
        assert [info.position for info in again.list()] == [3]
        assert [name for name, _ in again.damaged] == sorted([names[0], f"{7:020d}.snap", f"{99:020d}.snap"])
        assert "position 2" in dict(again.damaged)[f"{99:020d}.snap"]
        again.distrust(again.list()[0], "looked odd")
        assert again.list() == []
        assert again.nearest(100) is None
        await again.write(50, ANCHOR, [])
        again.thin(0)
        assert [name for name, _ in again.damaged] == [f"{99:020d}.snap"]

    async def test_a_failing_disk_leaves_no_half_file(self, store: SnapshotStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A typed error; what was there is there; nothing else is."""
        await store.write(1, ANCHOR, [])

        def failing(*arguments: Any) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", failing)
            with pytest.raises(StorageUnavailableError, match="No space left"):
                await store.write(2, ANCHOR, ordered(many(3)))
        assert [path.name for path in (tmp_path / "snapshots").iterdir()] == [f"{1:020d}.snap"]
        assert [info.position for info in store.list()] == [1]


class TestKeeping:
    async def test_the_newest_stays_and_older_ones_at_even_distances(self, store: SnapshotStore) -> None:
        """Within their share of the log's weight."""
        for position in (10, 20, 30, 40, 50, 60, 70, 80):
            info = await store.write(position, ANCHOR, ordered(many(20)))
        removed = store.thin(8 * 3 * info.size_bytes)
        assert [each.position for each in store.list()] == [80, 60, 40, 20]
        assert sorted(each.position for each in removed) == [10, 30, 50, 70]
        store.thin(0)
        assert [each.position for each in store.list()] == [80]
        assert len(list(store.directory.glob("*.snap"))) == 1

    async def test_one_that_spares_little_goes_when_there_is_a_newer_one(self, tmp_path: Path) -> None:
        """A large creation weighs the same as an event and in a snapshot, so a later snapshot will do; what changed much stays."""
        async with Symphony({"state_dir": tmp_path}, persistence_enabled=True) as symphony:
            snapshotter = symphony._opened.snapshotter if symphony._opened is not None else None
            assert snapshotter is not None
            small = [symphony.entities.add(Customer(id=str(number))) for number in range(200)]
            symphony.entities.add(Customer(id="large", name="n" * 100_000))
            kept = []
            for rounds in (0, 40, 40):
                for number in range(rounds):
                    for customer in small:
                        customer.name = str(number)
                    await symphony.flush()
                await symphony.create_checkpoint()
                await snapshotter.close()
                kept.append([info.position for info in snapshotter.store.list()])
        first, second, third = kept
        assert len(first) == 1
        assert not set(first) & set(second)
        assert set(second) & set(third)

    @pytest.mark.parametrize(
        ("before", "events", "expected"), [(0, 100, True), (0, 149, True), (0, 150, False), (60, 89, True), (60, 90, False)]
    )
    async def test_sparing_little(self, store: SnapshotStore, before: int, events: int, expected: bool) -> None:
        """The way without it is less than one and a half times as heavy as the snapshot."""
        info = await store.write(9, ANCHOR, [])
        one, older = replace(info, size_bytes=100), replace(info, size_bytes=before) if before else None
        assert spares_little(one, older, events) is expected
