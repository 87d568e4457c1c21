"""An event that does not fit damages its entity alone: every reader goes on, says the same, and a repair brings the entity back."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from symphony_es import Symphony
from symphony_es.cli.main import main
from symphony_es.core.objects.restorers import UnrestoredEntity
from symphony_es.errors import (
    ConfigurationError,
    EntityDamagedError,
    EntityNotFoundError,
    RestorationError,
    UnstorableValueError,
)
from symphony_es.events.changes import APPEND, DISCARD, INSERT, REMOVE, SET, SPLICE, Change
from symphony_es.events.event import EventMetadata, NewEvent
from symphony_es.events.fold import REPAIR_EVENT, Damage, EntityState
from symphony_es.events.identifiers import uuid7
from symphony_es.events.rows import seal_state
from symphony_es.log.sqlite_schema import COLUMNS
from symphony_es.transfer import backup, export_cloudevents, export_csv, export_jsonl, import_jsonl, restore, verify
from symphony_es_projections.entity_states import EntityStates
from symphony_es_projections.references import References
from tests.application import Customer, Invoice, Line
from tests.conftest import Opener
from tests.events.test_rows import body
from tests.transfer.logs import tamper

UNFIT: dict[str, list[Change]] = {
    "popped from an empty list": [(REMOVE, ("friends", 0))],
    "half of it fits": [(SET, ("name",), "half"), (APPEND, ("friends",), 1), (REMOVE, ("notes", "no"))],
    "half of it is slow": [(SET, ("notes",), {"k": [1]}), (INSERT, ("friends",), 0, [1]), (SPLICE, ("friends",), 9, 9, [])],
    "a set that is none": [(SET, ("name",), "half"), (DISCARD, ("name",), 1)],
    "the whole, then too much": [(SET, (), {"name": "other"}), (REMOVE, ("gone",))],
    "a removal, then a change": [(REMOVE, ()), (SET, ("name",), "ghost")],
}


def event(key: str, version: int, *changes: Change, name: str = "CustomerChanged") -> NewEvent:
    """An event as a writer with a fault would append it."""
    return NewEvent(
        entity_key=key,
        version=version,
        name=name,
        changes=changes,
        metadata=EventMetadata(),
        event_id=uuid7(time.time_ns(), os.urandom(16)),
    )


async def a_damaged_log(symphony: Symphony, changes: list[Change]) -> int:
    """Ada is damaged at version 3, and goes on; Bob, who is her boss, and an invoice of hers are fine. Returns the position before it."""
    bob = symphony.entities.add(Customer(id="bob", name="Bob"))
    ada = symphony.entities.add(Customer(id="ada", name="Ada", boss=bob))
    symphony.entities.add(Invoice(id="i", customer=ada, lines=[Line("a")]))
    await symphony.flush()
    ada.notes["k"] = 1
    await symphony.flush()
    good = symphony.log.head
    await symphony.log.append([event("Customer:ada", 3, *changes)])
    await symphony.log.append([event("Customer:ada", 4, (SET, ("name",), "later"))])
    bob.name = "Rob"
    await symphony.flush()
    return good


@pytest.fixture(params=UNFIT.values(), ids=UNFIT)
def unfit(request: pytest.FixtureRequest) -> list[Change]:
    changes: list[Change] = request.param
    return changes


async def test_a_resume_brings_all_others_and_reports_it(reopen: Opener, unfit: list[Change]) -> None:
    """The damaged one is its last good state, and a target for references; it can be neither changed, removed nor added again."""
    good = await a_damaged_log(await reopen(), unfit)
    symphony = await reopen()
    report = await symphony.resume()
    damage = report.damaged["Customer:ada"]
    assert (list(report.damaged), damage.version, damage.position) == (["Customer:ada"], 3, good + 1)
    assert not report.complete
    assert report.as_dict()["damaged"]["Customer:ada"]["reason"] == damage.reason
    kept = symphony.entities.get("Customer:ada")
    assert isinstance(kept, UnrestoredEntity)
    assert kept.reason.startswith(f"damaged from version 3 (position {good + 1}): ")
    assert "symphony.entities.repair('Customer:ada')" in kept.reason
    assert (kept.state["name"], kept.state["notes"], kept.state["friends"]) == ("Ada", {"k": 1}, [])
    assert symphony.entities.get("Customer:bob").name == "Rob"
    assert symphony.entities.get("Invoice:i").customer is kept
    for refused in (
        lambda: symphony.entities.remove("Customer:ada"),
        lambda: symphony.entities.record("Customer:ada", "Noticed"),
        lambda: symphony.entities.add(Customer(id="ada")),
    ):
        with pytest.raises(EntityDamagedError, match=r"entities\.repair\('Customer:ada'\)") as caught:
            refused()
        assert caught.value.damage == damage
    symphony.entities.get("Customer:bob").name = "Bob"
    await symphony.flush()


async def test_every_look_at_the_past_goes_on(reopen: Opener, unfit: list[Change], tmp_path: Path) -> None:
    """`at`, `history`, `blame`, `diff`, projections, snapshots and forks: before the damage, at it, and behind it."""
    symphony = await reopen()
    good = await a_damaged_log(symphony, unfit)
    damage = (await symphony.past.state_of("Customer:ada")).damage
    assert isinstance(damage, Damage)
    for position in range(good, symphony.log.head + 1):
        view = await symphony.at(position)
        state = view.state("Customer:ada")
        assert state.data is not None
        assert (state.data["name"], state.damage) == ("Ada", damage if position > good else None)
        assert (await view.objects()).get("Customer:bob").name == ("Bob" if position < symphony.log.head else "Rob")
    versions = await symphony.history("Customer:ada")
    assert [(version.version, version.damage) for version in versions] == [(1, None), (2, None), (3, damage), (4, damage)]
    assert [len(version.changes) for version in versions[2:]] == [0, 0]
    assert [version.version for version in await symphony.history("Customer:ada", after_version=3)] == [4]
    assert [found.event.version for found in await symphony.blame("Customer:ada", "name")] == [1]
    difference = await symphony.diff(good)
    assert [each.entity.key for each in difference] == ["Customer:bob"]
    assert not await symphony.diff(good, entity="Customer:ada")
    states, references = EntityStates(), References()
    symphony.projections.add(states)
    symphony.projections.add(references)
    await symphony.projections.catch_up("entity_states", symphony.log.head)
    await symphony.projections.catch_up("references", symphony.log.head)
    found = states.get("Customer:ada")
    assert found is not None
    assert found.damage == damage
    assert references.incoming("Customer:ada") == ["Invoice:i"]
    fork = await symphony.fork(into=tmp_path / "fork")
    assert (list(fork.damaged), fork.entities) == (["Customer:ada"], 3)
    assert len(await symphony.audit.find(entity="Customer:ada")) == 4
    other = Symphony(persistence_enabled=True)
    await other.setup(state_dir=tmp_path / "fork", resume="latest")
    assert (other.entities.get("Customer:ada").name, other.last_resume is not None and other.last_resume.damaged) == ("Ada", {})
    await other.close()


async def test_a_snapshot_carries_the_mark(reopen: Opener, unfit: list[Change]) -> None:
    """Snapshot and replay equal the fold, wherever the snapshot was taken; merged ones too."""
    symphony = await reopen()
    good = await a_damaged_log(symphony, unfit)
    assert symphony._opened is not None
    expected = {at: told((await symphony.state_history.states_at(at)).states) for at in range(symphony.log.head + 1)}
    for position in (good, good + 1, good + 2, symphony.log.head):
        assert symphony._opened.snapshotter is not None
        await symphony._opened.snapshotter.take(position)
    symphony = await reopen()
    assert symphony.state_history.snapshots is not None
    assert symphony.state_history.snapshots.list()
    for at, states in expected.items():
        assert told((await symphony.state_history.states_at(at)).states) == states
        found = await symphony.state_history.entity_at("Customer:ada", at)
        assert (found is None) == ("Customer:ada" not in states)
        if found is not None:
            assert told({found.key: found})[found.key] == states[found.key]
    report = await symphony.resume()
    assert list(report.damaged) == ["Customer:ada"]


def told(states: dict[str, EntityState]) -> dict[str, Any]:
    return {
        key: (each.data, each.version, each.position, each.state_version, each.generation, each.damage)
        for key, each in states.items()
        if not each.deleted or each.damage is not None
    }


async def test_rewinds_work_past_it_and_to_before_it(reopen: Opener, unfit: list[Change]) -> None:
    """To before the damage: it is repaired to what it was then, by an event that says so. To behind it: it stays as damaged as it was."""
    symphony = await reopen()
    good = await a_damaged_log(symphony, unfit)
    behind = symphony.log.head - 1
    report = await symphony.rewind(behind)
    assert (report.rewound, list(report.damaged)) == (["Customer:bob"], ["Customer:ada"])
    report = await symphony.rewind(good)
    assert (report.rewound, report.damaged) == (["Customer:ada"], {})
    ada = symphony.entities.get("Customer:ada")
    assert (ada.name, ada.notes, ada.boss) == ("Ada", {"k": 1}, symphony.entities.get("Customer:bob"))
    last = (await symphony.history("Customer:ada"))[-1]
    assert (last.event.name, last.version, last.damage) == (REPAIR_EVENT, 5, None)
    ada.name = "Adele"
    await symphony.flush()
    symphony = await reopen(resume="latest")
    assert symphony.entities.get("Customer:ada").name == "Adele"
    assert symphony.last_resume is not None
    assert symphony.last_resume.complete
    report = await symphony.rewind(behind)  # it was damaged then, and is not any more
    assert not report.damaged
    assert symphony.entities.get("Customer:ada").name == "Ada"
    report = await symphony.rewind(0)
    assert symphony.entities.find("Customer:ada") is None


async def test_a_rewind_to_before_its_creation_removes_it(reopen: Opener, unfit: list[Change]) -> None:
    """The mark goes with it, and its id can be used again."""
    symphony = await reopen()
    await a_damaged_log(symphony, unfit)
    await symphony.rewind(0)
    assert symphony.entities.all() == []
    symphony = await reopen(resume="latest")
    assert symphony.last_resume is not None
    assert symphony.last_resume.damaged == {}
    symphony.entities.add(Customer(id="ada", name="new"))
    await symphony.flush()
    symphony = await reopen(resume="latest")
    assert symphony.entities.get("Customer:ada").name == "new"


REPAIRS: dict[str, tuple[dict[str, Any], str]] = {
    "the last good state": ({}, "Ada"),
    "a state": ({"state": {"id": "ada", "name": "given", "friends": [1], "boss": None, "notes": {}}}, "given"),
    "a version": ({"to": 1}, "Ada"),
}


@pytest.mark.parametrize(("how", "name"), REPAIRS.values(), ids=REPAIRS)
@pytest.mark.parametrize("live", ["resumed", "live", "not loaded", "loaded"])
async def test_a_repair_brings_it_back(reopen: Opener, unfit: list[Change], how: dict[str, Any], name: str, live: str) -> None:
    """Resumed, a live object whose log turned out to be damaged, loaded by itself, or at rest: it is live, and who holds it has it."""
    symphony = await reopen()
    await a_damaged_log(symphony, unfit)
    if live != "live":
        symphony = await reopen(resume="latest" if live == "resumed" else None)
    elif live == "live":
        ada = symphony.entities.get("Customer:ada")
        with pytest.raises(EntityDamagedError):
            await symphony.refresh(ada)
        with pytest.raises(EntityDamagedError):
            ada.name = "lost"
        assert ada.name == "Ada"
    if live == "loaded":
        invoice = await symphony.entities.load("Invoice:i")
        assert isinstance(invoice.customer, UnrestoredEntity)
        assert symphony.last_load is not None
        assert list(symphony.last_load.damaged) == ["Customer:ada"]
    with symphony.acting_as("carol", reason="mended"):
        made = await symphony.entities.repair("Customer:ada", **how)
    assert (made.name, symphony.entities.get("Customer:ada")) == (name, made)
    if live != "not loaded":
        assert symphony.entities.get("Invoice:i").customer is made
    made.name = "goes on"
    await symphony.flush()
    last, repaired = reversed((await symphony.history("Customer:ada"))[-2:])
    assert (repaired.event.name, repaired.version, repaired.event.metadata.actor) == (REPAIR_EVENT, 5, "carol")
    assert (repaired.event.data["version"], last.version, last.damage) == (3, 6, None)
    symphony = await reopen(resume="latest")
    assert symphony.last_resume is not None
    assert symphony.last_resume.complete
    assert symphony.entities.get("Customer:ada").name == "goes on"
    assert symphony.entities.get("Invoice:i").customer is symphony.entities.get("Customer:ada")


async def test_what_cannot_be_repaired_says_so(reopen: Opener) -> None:
    """Nothing is appended: not damaged, no such entity or version, two states, one that cannot be stored, inside a transaction."""
    symphony = await reopen()
    await a_damaged_log(symphony, UNFIT["half of it fits"])
    head = symphony.log.head
    repair = symphony.entities.repair
    for refused, error in (
        (repair("Customer:bob"), ConfigurationError),
        (repair("Customer:nobody"), EntityNotFoundError),
        (repair("Customer:ada", to=99), EntityNotFoundError),
        (repair("Customer:ada", to=0), EntityNotFoundError),
        (repair("Customer:ada", {"name": 1}, to=1), ConfigurationError),
        (repair("Customer:ada", {"name": object()}), UnstorableValueError),
    ):
        with pytest.raises(error):
            await refused
    async with symphony.transaction("Tried"):
        with pytest.raises(RestorationError):
            await repair("Customer:ada")
    assert symphony.log.head == head


async def test_one_that_never_had_a_state(reopen: Opener) -> None:
    """Its first event does not fit: there is no object, the report names it, `load` says why, and a state brings it to life."""
    symphony = await reopen()
    symphony.entities.add(Customer(id="bob"))
    await symphony.flush()
    await symphony.log.append([event("Customer:x", 1, (SET, ("name",), "x"))])
    symphony = await reopen(resume="latest")
    assert symphony.last_resume is not None
    assert list(symphony.last_resume.damaged) == ["Customer:x"]
    assert symphony.entities.find("Customer:x") is None
    with pytest.raises(EntityDamagedError):
        symphony.entities.add(Customer(id="x"))
    with pytest.raises(EntityDamagedError):
        await symphony.entities.load("Customer:x")
    with pytest.raises(EntityNotFoundError, match="state="):
        await symphony.entities.repair("Customer:x")
    made = await symphony.entities.repair("Customer:x", {"id": "x", "name": "mended", "friends": [], "boss": None, "notes": {}})
    assert made.name == "mended"
    symphony = await reopen(resume="latest")
    assert [customer.name for customer in symphony.entities.all("Customer")] == ["", "mended"]


async def test_verify_backup_and_files(reopen: Opener, unfit: list[Change], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`verify` finds it by default, with entity, position, version and reason; copies carry it along; after the repair all is well."""
    symphony = await reopen()
    good = await a_damaged_log(symphony, unfit)
    await symphony.close()
    directory = tmp_path / "state"
    report = await verify(directory)
    (problem,) = report.problems
    assert (problem.entity, problem.position, problem.version) == ("Customer:ada", good + 1, 3)
    assert "does not fit" in problem.what or "does not exist" in problem.what
    assert not report.ok
    assert report.whole
    assert (await verify(directory, fold=False)).ok
    assert await asyncio.to_thread(main, ["verify", "--state-dir", str(directory)]) == 1
    assert "entities.repair('Customer:ada')" in capsys.readouterr().out
    for command in (["show", "Customer:ada"], ["history", "Customer:ada"], ["stats"]):
        assert await asyncio.to_thread(main, [*command, "--state-dir", str(directory)]) == 0
    assert "damaged" in capsys.readouterr().out
    await backup(directory, tmp_path / "backup")
    await restore(tmp_path / "backup", tmp_path / "restored")
    async with Symphony({"state_dir": str(directory)}, persistence_enabled=True) as opened:
        await export_jsonl(opened.log, tmp_path / "all.jsonl")
        await export_csv(opened.log, tmp_path / "all.csv")
        await export_cloudevents(opened.log, tmp_path / "all.cloudevents", source="test")
    await import_jsonl(tmp_path / "all.jsonl", tmp_path / "imported")
    for copy in ("restored", "imported"):
        assert list((await verify(tmp_path / copy)).damaged) == ["Customer:ada"]
    symphony = await reopen()
    await symphony.entities.repair("Customer:ada")
    await symphony.close()
    report = await verify(directory)
    assert report.ok
    assert list(report.repaired) == ["Customer:ada"]


async def test_what_was_deleted_weighs_nothing(reopen: Opener) -> None:
    """Snapshots have no tombstones; an id that is used again goes on with its version and generation, whatever the snapshot says."""
    symphony = await reopen()
    for number in range(200):
        symphony.entities.add(Customer(id=f"gone{number}"))
    symphony.entities.add(Customer(id="stays"))
    await symphony.flush()
    start = symphony.log.head
    symphony.entities.get("Customer:gone1").name = "x"
    await symphony.flush()
    await symphony.rewind(start)  # another generation
    for number in range(200):
        symphony.entities.remove(f"Customer:gone{number}")
    await symphony.flush()
    assert symphony._opened is not None
    assert symphony._opened.snapshotter is not None
    info = await symphony._opened.snapshotter.take(symphony.log.head)
    assert info is not None
    assert (info.entity_count, info.size_bytes < 500) == (1, True)
    symphony.entities.add(Customer(id="gone1", name="again"))
    await symphony.flush()
    expected = (await symphony.state_history.states_at(0)).states
    await symphony.log.replay(fold := type(await symphony.state_history.states_at(0))(expected), symphony.log.head)
    by_snapshot = await symphony.state_history.states_at(symphony.log.head)
    assert told(by_snapshot.states) == told(fold.states)
    assert fold.states["Customer:gone1"].generation == 1
    symphony = await reopen(resume="latest")
    assert symphony.last_resume is not None
    assert symphony.last_resume.damaged == {}
    again = symphony.entities.get("Customer:gone1")
    again.name = "and again"
    await symphony.flush()
    found = await symphony.state_history.entity_at("Customer:gone1", symphony.log.head)
    assert found is not None
    assert found.version == fold.states["Customer:gone1"].version + 1
    difference = await symphony.diff(start, symphony.log.head)
    assert len(difference.removed) == 199
    (other,) = [each for each in difference if each.entity.entity_id == "gone2"]
    assert [event.name for event in await other.events()] == ["CustomerDeleted"]


READERS = ["a body that cannot be read", "a version that jumps", "a key that is none"]


@pytest.mark.parametrize("kind", READERS)
async def test_what_checks_and_is_no_event_harms_nobody_else(reopen: Opener, tmp_path: Path, kind: str) -> None:
    """Bytes as they were written that say nothing, versions that jump, a key that is none: every reader goes on and names the entity."""
    symphony = await reopen()
    symphony.entities.add(Customer(id="bob", name="Bob"))
    symphony.entities.add(Customer(id="ada", name="Ada"))
    await symphony.flush()
    head = symphony.log.head
    await symphony.close()
    key, version, packed = {
        "a body that cannot be read": ("Customer:ada", 2, b"\xc1"),
        "a version that jumps": ("Customer:ada", 4, body(changes=[[SET, ["name"], "later"]])),
        "a key that is none": ("9:1", 1, body(changes=[[SET, [], {}]])),
    }[kind]
    event_id = uuid7(time.time_ns(), os.urandom(16))
    state = seal_state(head + 1, key, version, "Changed", event_id, time.time_ns(), bytes(16) + packed)
    tamper(
        tmp_path / "state", (f"INSERT INTO stored_events ({COLUMNS}) VALUES (?, ?, ?, ?, ?)", (head + 1, key, version, "Changed", state))
    )
    # An import puts every entity's versions together anew, and refuses those that jump.
    copies = ["state", "restored"] if kind == "a version that jumps" else ["state", "restored", "imported"]
    for copy in copies:
        symphony = Symphony(persistence_enabled=True)
        await symphony.setup(state_dir=tmp_path / copy)
        await symphony.create_checkpoint("counted")
        report = await symphony.resume()
        assert list(report.damaged) == [key]
        assert symphony.entities.get("Customer:bob").name == "Bob"
        damage = report.damaged[key]
        assert (damage.version, damage.position) == (version, head + 1)
        if kind != "a key that is none":  # which nobody can ask about
            assert (await symphony.history(key))[-1].damage == damage
            assert [each.version for each in await symphony.audit.find(entity=key)] == [1, version]
        found = await symphony.state_history.entity_at(key, symphony.log.head)
        assert found is not None
        assert found.damage == damage
        assert [each.position for each in await symphony.audit.find(after_position=head, limit=1)] == [head + 1]
        await symphony.diff(0)
        await symphony.fork(into=tmp_path / f"fork of {copy}")
        assert symphony._opened is not None
        assert symphony._opened.snapshotter is not None
        await symphony._opened.snapshotter.take(symphony.log.head)
        if copy == "state":
            await export_jsonl(symphony.log, tmp_path / "all.jsonl")
            await export_csv(symphony.log, tmp_path / "all.csv")
            await export_cloudevents(symphony.log, tmp_path / "all.cloudevents", source="test")
            if "imported" in copies:
                await import_jsonl(tmp_path / "all.jsonl", tmp_path / "imported")
        await symphony.close()
        if copy == "state":
            await backup(tmp_path / "state", tmp_path / "backup")
            await restore(tmp_path / "backup", tmp_path / "restored")
        verified = await verify(tmp_path / copy)
        assert list(verified.damaged) == [key]
        assert verified.whole


step = st.tuples(
    st.sampled_from(["ada", "bob"]),
    st.sampled_from(["name", "friends", "remove", "flush", "unfit", "repair", "rewind", "snapshot", "resume"]),
    st.integers(0, 9),
)


@pytest.mark.exhaustive
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(step, min_size=4, max_size=20))
async def test_random_histories_tell_the_same_whoever_reads_them(tmp_path_factory: pytest.TempPathFactory, steps: list[Any]) -> None:
    """Fold, snapshot and replay, one entity, projection and resume agree at every position, with damage and repairs anywhere."""
    directory = tmp_path_factory.mktemp("random")
    symphony = await Symphony(persistence_enabled=True).setup(state_dir=directory)
    try:
        for which, what, number in steps:
            await _do(symphony, f"Customer:{which}", what, number)
        await symphony.resume()
        await _compare(symphony)
    finally:
        await symphony.close()
    report = await verify(directory)
    assert report.whole


async def _do(symphony: Symphony, key: str, what: str, number: int) -> None:
    here = symphony.entities.find(key)
    state = await symphony.state_history.entity_at(key, symphony.log.head)
    damaged = state is not None and state.damage is not None
    if here is None and not damaged and what not in ("rewind", "resume"):
        here = symphony.entities.add(Customer(id=key.partition(":")[2]))
        await symphony.flush()
    if what == "resume" or (damaged and what not in ("unfit", "repair", "rewind", "snapshot")):
        await symphony.resume()
    elif what == "repair" and damaged:
        await symphony.entities.repair(
            key, *([] if state is not None and state.data is not None else [{"name": "", "friends": [], "boss": None, "notes": {}}])
        )
    elif what == "unfit":
        state = await symphony.state_history.entity_at(key, symphony.log.head)
        changes = list(UNFIT.values())[number % len(UNFIT)]
        await symphony.log.append([event(key, (state.version if state is not None else 0) + 1, *changes)])
        await symphony.resume()
    elif what == "rewind":
        position = symphony.log.head * number // 9
        await symphony.rewind((await symphony.log.transaction_bounds(position))[1] if position else 0)
    elif what == "snapshot" and symphony.log.head:
        assert symphony._opened is not None
        assert symphony._opened.snapshotter is not None
        await symphony._opened.snapshotter.take(max(1, symphony.log.head * number // 9))
    elif isinstance(here, Customer):
        if what == "name":
            here.name = str(number)
        elif what == "friends":
            here.friends.insert(number % (len(here.friends) + 1), number)
        elif what == "remove":
            symphony.entities.remove(here)
        await symphony.flush()


async def _compare(symphony: Symphony) -> None:
    snapshots = symphony.state_history.snapshots
    assert snapshots is not None
    projection = EntityStates()
    async for events in symphony.log.read(0):
        for each in events:
            projection.apply(each)
            by_projection = told(projection._fold.states)
            fold = type(projection._fold)()
            await symphony.log.replay(fold, each.position)
            assert told(fold.states) == by_projection
            by_snapshot = await symphony.state_history.states_at(each.position)
            assert told(by_snapshot.states) == by_projection
            for key in fold.states:
                found = await symphony.state_history.entity_at(key, each.position)
                assert found is not None
                assert told({key: found}) == told({key: fold.states[key]})
    for key, state in projection._fold.states.items():
        if key.startswith("Customer:"):
            here = symphony.entities.find(key)
            assert (here is None) == (state.data is None)
            assert isinstance(here, UnrestoredEntity) == (state.damage is not None and state.data is not None)
            if isinstance(here, Customer):
                assert state.data is not None
                assert (here.name, here.friends) == (state.data["name"], state.data["friends"])
