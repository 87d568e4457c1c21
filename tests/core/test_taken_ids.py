"""Adding never asks the log in the event loop: the writer thread decides, and an id that is taken concerns nobody else."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from symphony_es import Symphony, entity
from symphony_es.core.past.snapshots.store import SnapshotStore
from symphony_es.errors import DetachedEntityError, EntityDamagedError, EntityExistsError
from symphony_es.events.changes import REMOVE, SET
from symphony_es.events.event import EventMetadata, NewEvent
from symphony_es.events.identifiers import uuid7
from symphony_es.log.log import EventLog
from symphony_es.log.sqlite_reading import SQLiteLogReader
from symphony_es.transfer import verify


@entity
class Taken:
    """An entity whose id may be taken."""

    id: str = ""
    n: int = 0


async def written(directory: Path) -> Path:
    """A log with a live entity, and one that was removed after some changes."""
    async with Symphony(directory) as symphony:
        symphony.entities.add(Taken(id="live", n=1))
        dead = symphony.entities.add(Taken(id="dead"))
        for number in range(3):
            await symphony.flush()
            dead.n = number
        symphony.entities.remove(dead)
    return directory


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("how", ["turn", "block", "recording"])
async def test_an_id_that_is_taken(tmp_path: Path, first: bool, how: str) -> None:
    """The next awaited call says so, once; the object is out, and what was added with it is stored, but for a block, which is one."""
    directory = await written(tmp_path / "log")
    async with Symphony(directory) as symphony:
        other, taken = Taken(id="other"), Taken(id="live", n=9)
        both = (taken, other) if first else (other, taken)
        if how == "block":
            with pytest.raises(EntityExistsError, match="load"):
                async with symphony.transaction("Both"):
                    for obj in both:
                        symphony.entities.add(obj)
            assert symphony.entities.find("Taken:other") is None
            symphony.entities.add(other)
        elif how == "recording":
            with symphony.world.recording("Both"):
                for obj in both:
                    symphony.entities.add(obj)
        else:
            for obj in both:
                symphony.entities.add(obj)
            taken.n = 10
            await asyncio.sleep(0)
            taken.n = 11
        other.n = 5
        if how != "block":
            with pytest.raises(EntityExistsError, match="load"):
                await symphony.flush()
            with pytest.raises(DetachedEntityError):
                taken.n = 12
        await symphony.flush()
        assert symphony.entities.find("Taken:live") is None
        assert symphony.entities.get("Taken:other").n == 5
        assert (await symphony.entities.load("Taken:live")).n == 1
        other.n = 6
    report = await verify(directory)
    assert report.problems == ()
    async with Symphony(directory) as symphony:
        await symphony.resume()
        assert {obj.id: obj.n for obj in symphony.entities.all(Taken)} == {"live": 1, "other": 6}


@pytest.mark.parametrize("how", ["turn", "block", "again", "slow"])
async def test_an_id_that_was_removed(tmp_path: Path, how: str) -> None:
    """Its versions go on counting, also where it is changed, or removed and added again, before the log has answered."""
    directory = await written(tmp_path / "log")
    async with Symphony(directory) as symphony:
        last = (await symphony.log.read_entity("Taken:dead"))[-1].version
        if how == "block":
            async with symphony.transaction("One") as transaction:
                obj = symphony.entities.add(Taken(id="dead", n=1))
            assert transaction.versions == {"Taken:dead": last + 1}
        else:
            obj = symphony.entities.add(Taken(id="dead", n=1))
        obj.n = 2
        if how == "slow":
            for number in range(5):
                await asyncio.sleep(0)
                obj.n = 10 + number
        if how == "again":
            await asyncio.sleep(0)
            symphony.entities.remove(obj)
            obj = symphony.entities.add(Taken(id="dead", n=1))
            await asyncio.sleep(0)
        obj.n = 3
        await symphony.flush()
        obj.n = 4
        await symphony.flush()
        events = await symphony.log.read_entity("Taken:dead")
        assert [event.version for event in events] == list(range(1, len(events) + 1))
        assert symphony.world.records["Taken:dead"].version == len(events) > last
    assert (await verify(directory)).problems == ()
    async with Symphony(directory) as symphony:
        await symphony.resume()
        assert symphony.entities.get("Taken:dead").n == 4


async def test_an_id_that_is_damaged_and_removed(tmp_path: Path) -> None:
    """The log's last event of it is a removal, and every reader says that it is damaged: it is not added."""
    log = await EventLog.open(tmp_path / "log")
    for version, changes in enumerate([[(SET, (), {"n": 1})], [(REMOVE, ("no", "such"))], [(REMOVE, ())]], 1):
        told = {"name": "Changed", "changes": changes, "metadata": EventMetadata(), "event_id": uuid7(version, bytes(8))}
        await log.append([NewEvent(entity_key="Taken:x", version=version, **told)])  # type: ignore[arg-type]
    await log.close()
    async with Symphony(tmp_path / "log") as symphony:
        symphony.entities.add(Taken(id="x"))
        with pytest.raises(EntityDamagedError):
            await symphony.flush()
        assert symphony.entities.find("Taken:x") is None


@pytest.mark.parametrize("known", ["snapshot", "loaded", "unloaded"])
async def test_what_is_known_to_be_taken_is_refused_at_once(tmp_path: Path, known: str) -> None:
    """By the newest snapshot, or by what was loaded or unloaded; an id that has been removed since is free."""
    directory = await written(tmp_path / "log")
    async with Symphony(directory) as symphony:
        await symphony.resume()
        symphony.entities.add(Taken(id="later"))
        await symphony.flush()
        await symphony._opened.snapshotter.take(symphony.log.head)  # type: ignore[union-attr]
        symphony.entities.remove("Taken:later")
    async with Symphony(directory) as symphony:
        if known != "snapshot":
            symphony.world.earlier_ids = None
            await symphony.entities.load("Taken:live")
        if known == "unloaded":
            symphony.world.known_ids.clear()
            await symphony.entities.unload("Taken:live")
        with pytest.raises(EntityExistsError):
            symphony.entities.add(Taken(id="live"))
        symphony.entities.add(Taken(id="later", n=3))
        await symphony.flush()
        assert [event.version for event in await symphony.log.read_entity("Taken:later")] == [1, 2, 3]


async def test_a_snapshot_is_asked_for_ids_when_one_is_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, at the first addition: opening, loading and changing read no snapshot for it."""
    directory = await written(tmp_path / "log")
    async with Symphony(directory) as symphony:
        await symphony._opened.snapshotter.take(symphony.log.head)  # type: ignore[union-attr]
    asked: list[object] = []
    original = SnapshotStore.live_keys
    monkeypatch.setattr(SnapshotStore, "live_keys", lambda self, info: asked.append(info) or original(self, info))
    async with Symphony(directory) as symphony:
        live = await symphony.entities.load("Taken:live")
        live.n = 7
        await symphony.flush()
        assert asked == []
        for number in range(3):
            symphony.entities.add(Taken(id=f"new {number}"))
        assert len(asked) == 1


async def test_the_event_loop_never_asks_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is added, SQLite works in other threads only."""
    directory = await written(tmp_path / "log")
    async with Symphony(directory) as symphony:
        await symphony.resume()
        asked: list[str] = []
        original = SQLiteLogReader._reading

        def reading(self: SQLiteLogReader) -> object:
            asked.append(threading.current_thread().name)
            return original(self)

        monkeypatch.setattr(SQLiteLogReader, "_reading", reading)
        with pytest.raises(EntityExistsError):
            symphony.entities.add(Taken(id="live"))  # what is live is known at once
        for number in range(20):
            symphony.entities.add(Taken(id=str(number)))
        removed = symphony.entities.add(Taken(id="dead"))
        await symphony.flush()
        symphony.entities.remove(removed)
        await symphony.flush()
        symphony.entities.add(Taken(id="dead"))
        await symphony.flush()
        assert asked
        assert threading.main_thread().name not in asked
