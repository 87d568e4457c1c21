"""Bad input and bad luck: a typed error that names what is wrong, nothing lost, nothing written outside the directory."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.core.past.snapshots import snapshotter
from symphony_es.errors import (
    AnchorMismatchError,
    DamagedEventError,
    EntityOutOfStepError,
    LogUnavailableError,
    UnstorableValueError,
)
from tests.application import Customer
from tests.conftest import Opener


async def filled(reopen: Opener, monkeypatch: pytest.MonkeyPatch) -> Symphony:
    """A Symphony with some history and at least two snapshots."""
    monkeypatch.setattr(snapshotter, "FLOOR_BYTES", 0)
    symphony = await reopen()
    customers = [symphony.entities.add(Customer(id=str(number), name="x" * 50)) for number in range(20)]
    for round_ in range(3):
        for customer in customers:
            customer.friends.extend([str(round_) * 40] * 20)
        await symphony.create_checkpoint(f"round {round_}")
        assert symphony._opened is not None
        await symphony._opened.snapshotter.close()
    return symphony


def picture(symphony: Symphony) -> dict[str, Any]:
    return {customer.id: (customer.name, list(customer.friends)) for customer in symphony.entities.all("Customer")}


async def test_a_value_that_cannot_be_stored_is_named(symphony: Symphony) -> None:
    """Entity, path and way out are in the error; the next good change goes through."""
    customer = symphony.entities.add(Customer(id="c", notes={"client": {}}))
    with pytest.raises(UnstorableValueError, match=r"Customer:c: the value at notes\.client\.socket cannot be stored") as caught:
        customer.notes["client"]["socket"] = sys.stdout
    assert caught.value.path == ("notes", "client", "socket")
    customer.name = "fine"
    await symphony.flush()
    assert (await symphony.at(symphony.log.head)).get(customer)["notes"] == {"client": {}}


async def test_a_damaged_snapshot_costs_time_never_data(reopen: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever byte of the newest snapshot is damaged, the log gives the same state, and the report says so."""
    symphony = await filled(reopen, monkeypatch)
    before, directory = picture(symphony), symphony.state_dir
    assert directory is not None
    await symphony.close()
    files = sorted((directory / "snapshots").glob("*.snap"))
    assert files
    for file in files:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 0x40
        file.write_bytes(content)
    symphony = await reopen()
    report = await symphony.resume()
    assert picture(symphony) == before
    assert report.damaged_snapshots
    symphony.entities.get("Customer:1").name = "goes on"
    await symphony.create_checkpoint("after")
    symphony = await reopen(resume="latest")
    assert symphony.entities.get("Customer:1").name == "goes on"


async def test_missing_snapshots_cost_time_never_data(reopen: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them may be deleted."""
    symphony = await filled(reopen, monkeypatch)
    before, directory = picture(symphony), symphony.state_dir
    assert directory is not None
    await symphony.close()
    for file in (directory / "snapshots").iterdir():
        file.unlink()
    symphony = await reopen(resume="latest")
    assert picture(symphony) == before


async def test_a_damaged_event_is_never_handed_out(reopen: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names position and entity; nothing of the event comes through."""
    symphony = await filled(reopen, monkeypatch)
    directory = symphony.state_dir
    assert directory is not None
    await symphony.close()
    database = sqlite3.connect(directory / "events.db")
    database.execute("DROP TRIGGER stored_events_no_update")
    (state,) = database.execute("SELECT state FROM stored_events WHERE position = 7").fetchone()
    changed = state.replace(b"x" * 50, b"x" * 49 + b"y")
    assert changed != state
    database.execute("UPDATE stored_events SET state = ? WHERE position = 7", (changed,))
    database.execute(
        "CREATE TRIGGER stored_events_no_update BEFORE UPDATE ON stored_events BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END"
    )
    database.commit()
    database.close()
    symphony = await reopen()
    with pytest.raises(DamagedEventError, match="position 7") as caught:
        await symphony.log.read_entity("Customer:6")
    assert (caught.value.position, caught.value.entity) == (7, "Customer:6")
    await symphony.resume()  # a snapshot after it makes it unnecessary
    with pytest.raises(DamagedEventError):
        await symphony.at(8)


async def test_a_log_that_lost_its_end_is_refused(reopen: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest snapshot is the anchor: a shorter log is not opened, unless it is asked for."""
    symphony = await filled(reopen, monkeypatch)
    directory = symphony.state_dir
    assert directory is not None
    await symphony.close()
    database = sqlite3.connect(directory / "events.db")
    database.executescript(
        "DROP TRIGGER stored_events_no_delete; DELETE FROM stored_events WHERE position > 25; UPDATE sqlite_sequence SET seq = 25;"
        "CREATE TRIGGER stored_events_no_delete BEFORE DELETE ON stored_events BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END"
    )
    database.close()
    with pytest.raises(AnchorMismatchError, match="ends at position 25"):
        await reopen()
    other = Symphony(persistence_enabled=True)
    await other.setup(directory, ignore_anchor=True)
    await other.resume()
    assert len(other.entities.all("Customer")) == 20
    await other.close()


async def test_a_full_disk_is_told_and_nothing_acknowledged_is_lost(reopen: Opener) -> None:
    """The error is typed, the entity is out of step until refreshed, and all goes on when there is room again."""
    symphony = await reopen()
    customer = symphony.entities.add(Customer(id="c", name="before"))
    await symphony.flush()
    recorder: Any = symphony.log._recorder
    writer = recorder._store.writer
    (pages,) = writer.execute("PRAGMA page_count").fetchone()
    writer.execute(f"PRAGMA max_page_count={pages + 2}")
    customer.notes["big"] = "x" * 100_000
    with pytest.raises(EntityOutOfStepError, match="disk is full") as caught:
        await symphony.flush()
    assert isinstance(caught.value.__cause__, LogUnavailableError)
    with pytest.raises(LogUnavailableError, match="disk is full"):
        async with symphony.transaction("Big"):
            other = symphony.entities.add(Customer(id="other", name="x" * 100_000))
    assert symphony.entities.find("Customer:other") is None
    writer.execute("PRAGMA max_page_count=1000000")
    assert len(await symphony.refresh(customer)) == 1
    assert dict(customer.notes) == {}
    customer.name = "after"
    symphony.entities.add(other)
    symphony = await reopen(resume="latest")
    assert symphony.entities.get("Customer:c").name == "after"
    assert len(symphony.entities.get("Customer:other").name) == 100_000


FULL_FILE = """
import asyncio, resource, signal, sys
from symphony_es import Symphony
from symphony_es.errors import EntityOutOfStepError, LogUnavailableError
from tests.application import Customer

async def main():
    symphony = Symphony(persistence_enabled=True)
    await symphony.setup(sys.argv[1])
    customer = symphony.entities.add(Customer(id="c"))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
    acknowledged = 0
    try:
        for number in range(1000):
            customer.friends.append("x" * 1000)
            await symphony.flush()
            acknowledged = number + 1
    except EntityOutOfStepError as error:
        assert isinstance(error.__cause__, LogUnavailableError), error.__cause__
        print(acknowledged, flush=True)
asyncio.run(main())
"""


async def test_an_io_error_stops_the_log_and_nothing_acknowledged_is_lost(reopen: Opener, tmp_path: Path) -> None:
    """A write that the kernel refuses (a file size limit) is a typed error; a new process finds all that was acknowledged."""
    directory = tmp_path / "state"
    root = Path(__file__).parents[2]
    child = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", FULL_FILE, str(directory)],
        capture_output=True,
        text=True,
        check=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    acknowledged = int(child.stdout)
    assert acknowledged > 10
    symphony = await reopen(resume="latest")
    assert acknowledged <= len(symphony.entities.get("Customer:c").friends) <= acknowledged + 1
    symphony.entities.get("Customer:c").friends.append("after")
    await symphony.flush()


READ_ONLY = """
import asyncio, os, sys
from symphony_es import Symphony
from symphony_es.errors import LogUnavailableError

async def main():
    for path in sys.argv[1:]:
        try:
            await Symphony(persistence_enabled=True).setup(path)
        except LogUnavailableError as error:
            print("refused", error)
asyncio.run(main())
"""


async def test_a_directory_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """A typed error that names the path: read-only, somebody else's, or not a directory."""
    locked, file = tmp_path / "locked", tmp_path / "file"
    locked.mkdir(mode=0o500)
    file.write_text("x")
    with pytest.raises(LogUnavailableError, match="file"):
        await Symphony(persistence_enabled=True).setup(file)
    if os.geteuid() != 0:
        with pytest.raises(LogUnavailableError, match="locked"):
            await Symphony(persistence_enabled=True).setup(locked / "state")
        return
    os.chown(locked, 65534, 65534)
    with pytest.raises(LogUnavailableError, match="belongs to user 65534"):
        await Symphony(persistence_enabled=True).setup(locked)


async def test_hostile_ids_stay_inside_the_directory(reopen: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No id, name or key ever becomes a path; all of them come back."""
    monkeypatch.setattr(snapshotter, "FLOOR_BYTES", 0)
    hostile = ["../../x", "/etc/passwd", "a/b\\c", "\u202eevil", "..", ".", "CON", "%2e%2e", "x" * 512, "\n", "*?"]
    before = set(tmp_path.rglob("*"))
    symphony = await reopen()
    for name in hostile:
        symphony.entities.add(Customer(id=name, name=name))
        await symphony.create_checkpoint(name, {"name": name})
    symphony = await reopen(resume="latest")
    assert {customer.id: customer.name for customer in symphony.entities.all("Customer")} == {name: name for name in hostile}
    assert {entry["name"] for entry in await symphony.list_checkpoints()} == set(hostile)
    await symphony.resume_from_checkpoint("../../x")
    assert [customer.id for customer in symphony.entities.all("Customer")] == ["../../x"]
    made = set(tmp_path.rglob("*")) - before
    assert all(path.is_relative_to(tmp_path / "state") for path in made)
    assert not (tmp_path.parent / "x").exists()
