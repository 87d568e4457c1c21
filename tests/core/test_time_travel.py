"""Looking back: states, differences, histories, blame, forks and rewinds, on a log in memory and on one on disk."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from symphony_es import EntityReference, Symphony
from symphony_es.core.past.opening import open_to_read
from symphony_es.errors import (
    CheckpointNotFoundError,
    ConfigurationError,
    DetachedEntityError,
    EntityNotFoundError,
    LogUnavailableError,
    PersistenceDisabledError,
    PositionInsideTransactionError,
    PositionNotFoundError,
    TargetOccupiedError,
    UnknownPathError,
)
from symphony_es.events.changes import REMOVE, SET
from symphony_es.events.codec import encode_canonical
from symphony_es.events.comparison import ValueChange, compare_states, trace_changes
from symphony_es.events.event import EventMetadata, NewEvent
from symphony_es.events.identifiers import uuid7
from symphony_es.events.paths import ABSENT, parse_path, value_at
from symphony_es.testing import states_of
from tests.application import Customer, Invoice, Line, Money, Thermometer
from tests.conftest import Opener


async def a_history(symphony: Symphony) -> tuple[Customer, list[int]]:
    """A customer with four versions; gives the positions right after each."""
    customer, positions = Customer(id="c", name="Ada"), []
    symphony.entities.add(customer)
    await symphony.flush()
    positions.append(symphony.log.head)
    for name, actor in (("Bea", "alice"), ("Bea", "bob"), ("Cleo", "carol")):
        async with symphony.transaction("CustomerRenamed", actor=actor, reason=f"now {name}"):
            customer.name = name
            customer.notes[actor] = len(positions)
        positions.append(symphony.log.head)
    return customer, positions


class TestViews:
    async def test_references_go_both_ways(self, symphony: Symphony) -> None:
        """What an entity referred to then, with the path; and who referred to it."""
        ann, bob = Customer(id="ann"), Customer(id="bob")
        ann.boss, ann.friends = bob, [bob]
        for customer in (ann, bob):
            symphony.entities.add(customer)
        await symphony.flush()
        before = symphony.log.head
        ann.boss = None
        await symphony.flush()
        then, now = await symphony.at(before), await symphony.at("latest")
        target = EntityReference("Customer", "bob")
        assert sorted(then.references(ann)) == [(("boss",), target), (("friends", 0), target)]
        assert then.referrers("Customer:bob") == now.referrers(bob) == [EntityReference("Customer", "ann")]
        assert now.references(ann) == [(("friends", 0), target)]
        assert then.referrers("Customer:nobody") == []

    async def test_objects_of_the_past_are_connected_and_cannot_be_changed(self, symphony: Symphony) -> None:
        """They are made by the restorers, and what they are changed to is refused: nothing is appended."""
        customer, positions = await a_history(symphony)
        friend = symphony.entities.add(Customer(id="f", boss=customer))
        await symphony.flush()
        view = await symphony.at("latest")
        customer.name = "later"
        await symphony.flush()
        head = symphony.log.head
        objects = await view.objects()
        past = objects.get(customer)
        assert (past.name, past is customer) == ("Cleo", False)
        assert objects.get("Customer:f").boss is past
        assert [made.id for made in objects.all("Customer")] == ["c", "f"]
        with pytest.raises(DetachedEntityError, match="read-only"):
            past.name = "x"
        with pytest.raises(DetachedEntityError):
            past.notes["x"] = 1
        assert objects.report.restored == 2
        await symphony.flush()
        assert (symphony.log.head, customer.name, friend.boss) == (head, "later", customer)
        assert (await (await symphony.at(positions[0])).objects()).get(customer).name == "Ada"

    async def test_one_entity_at_a_moment(self, symphony: Symphony) -> None:
        """A position, a point in time, the head; an entity that was not there yet, or no longer, says so."""
        customer, positions = await a_history(symphony)
        assert (await symphony.past.state_of(customer, positions[1])).data["name"] == "Bea"  # type: ignore[index]
        assert (await symphony.past.state_of("Customer:c")).version == 4
        second = (await symphony.history(customer))[1].event
        moment = datetime.fromtimestamp(second.time_ns // 10**9 + 1, UTC)
        assert (await symphony.past.state_of(customer, moment)).version >= 2
        symphony.entities.remove(customer)
        await symphony.flush()
        with pytest.raises(EntityNotFoundError, match=f"had been deleted at position {symphony.log.head}"):
            await symphony.past.state_of("Customer:c")
        with pytest.raises(EntityNotFoundError, match="did not exist yet at position 0"):
            await symphony.past.state_of("Customer:c", 0)

    async def test_a_time_is_that_of_the_events_that_show_it(self, symphony: Symphony) -> None:
        """Events are stamped in nanoseconds and show microseconds: the state at the time of an event is the one that it made."""
        customer, positions = await a_history(symphony)
        for version in await symphony.history(customer):
            view = await symphony.at(version.event.recorded_at)
            assert view.position >= version.event.position
        moment = (await symphony.history(customer))[-1].event.recorded_at
        assert (await symphony.at(moment)).position == positions[-1]
        assert (await symphony.at(moment.astimezone(timezone(timedelta(hours=-7))))).position == positions[-1]

    async def test_a_view_stays_what_it_was(self, symphony: Symphony) -> None:
        """What it hands out are copies."""
        customer, _ = await a_history(symphony)
        view = await symphony.at("latest")
        (view.state(customer).data or {})["name"] = "changed"
        view.get(customer)["notes"].clear()
        assert view.get(customer) == (await symphony.at("latest")).get(customer)

    async def test_in_memory_what_is_no_longer_kept_is_refused(self) -> None:
        """Never a later state instead: by position, by time, for one entity or all; the oldest kept position can be gone back to."""
        async with Symphony({"memory_events": 50}) as symphony:
            customer = symphony.entities.add(Customer(id="c"))
            await symphony.flush()
            early = (await symphony.history(customer))[0].event.recorded_at
            for number in range(300):
                customer.name = str(number)
                await symphony.flush()
            assert symphony.log.base is not None
            kept = symphony.log.base.position
            for moment in (0, 10, kept - 1, early):
                for look in (symphony.at(moment), symphony.past.state_of(customer, moment), symphony.diff(moment, entity=customer)):
                    with pytest.raises(PositionNotFoundError, match="memory"):
                        await look
            assert (await symphony.past.state_of(customer, kept)).position == kept
            then = (await symphony.past.state_of(customer, kept + 1)).data
            await symphony.rewind(kept + 1)
            assert (await symphony.past.state_of("Customer:c")).data == then

    async def test_objects_of_classes_that_know_nothing_of_the_library_have_a_past(self, symphony: Symphony) -> None:
        """Every question takes the object that was added."""
        meter = symphony.entities.add(Thermometer("t"), entity_type="Thermometer")
        await symphony.flush()
        meter.degrees = 3.5
        symphony.entities.record(meter)
        await symphony.flush()
        assert [version.version for version in await symphony.history(meter)] == [1, 2]
        assert (await symphony.blame(meter, "degrees"))[0].after == 3.5
        assert len(await symphony.diff(1, entity=meter)) == 1
        assert len(await symphony.audit.find(entity=meter)) == 2
        with pytest.raises(EntityNotFoundError, match="it was never added"):
            await symphony.history(Thermometer("nobody's"))

    async def test_moments_that_mean_nothing(self, symphony: Symphony) -> None:
        """Each is refused with a typed error."""
        with pytest.raises(PositionNotFoundError):
            await symphony.at(7)
        with pytest.raises(ConfigurationError, match="no time zone"):
            await symphony.at(datetime(2030, 1, 1))
        with pytest.raises(PersistenceDisabledError):
            await symphony.at("a checkpoint")
        for nothing in (True, 1.5, None):
            with pytest.raises(ConfigurationError, match="a moment is"):
                await symphony.at(nothing)  # type: ignore[arg-type]


class TestDiff:
    async def test_added_removed_and_changed_with_paths_and_events(self, symphony: Symphony) -> None:
        """Each entity that differs, its values before and after, and the events that did it."""
        _customer, positions = await a_history(symphony)
        invoice = symphony.entities.add(Invoice(id="i"))
        await symphony.flush()
        middle = symphony.log.head
        symphony.entities.remove(invoice)
        added = symphony.entities.add(Customer(id="new"))
        since = await symphony.diff(middle)
        assert (since.added, since.removed, since.changed) == ([EntityReference("Customer", "new")], [EntityReference("Invoice", "i")], [])
        changed = await symphony.diff(positions[0], positions[3])
        (one,) = changed
        assert (changed.changed, one.kind, one.versions) == ([customer_reference()], "changed", (2, 4))
        assert [(change.where, change.before, change.after, change.kind) for change in one.changes] == [
            ("name", "Ada", "Cleo", "changed"),
            ("notes.alice", ABSENT, 1, "added"),
            ("notes.bob", ABSENT, 2, "added"),
            ("notes.carol", ABSENT, 3, "added"),
        ]
        assert [event.metadata.actor for event in await one.events()] == ["alice", "bob", "carol"]
        back = await symphony.diff(positions[3], positions[0])
        assert next((change.before, change.after) for change in back.entities[0].changes) == ("Cleo", "Ada")
        assert len(await symphony.diff(positions[1], positions[1])) == 0
        alone = await symphony.diff(0, "latest", added)
        assert [difference.entity for difference in alone] == [EntityReference("Customer", "new")]

    async def test_an_entity_that_never_was_has_no_difference(self, symphony: Symphony) -> None:
        """It is said, since a mistyped id would look like one that has not changed; one that came later or is gone is no mistake."""
        customer, positions = await a_history(symphony)
        with pytest.raises(EntityNotFoundError, match="no event of it"):
            await symphony.diff(0, entity="Customer:nobody")
        assert len(await symphony.diff(0, 0, entity=customer)) == 0
        symphony.entities.remove(customer)
        assert [one.kind for one in await symphony.diff(positions[0], entity="Customer:c")] == ["removed"]

    async def test_a_change_that_was_taken_back_is_no_difference(self, symphony: Symphony) -> None:
        """Only states count: the events between are not looked at."""
        customer, positions = await a_history(symphony)
        customer.name = "x"
        await symphony.flush()
        customer.name = "Cleo"
        await symphony.flush()
        assert len(await symphony.diff(positions[-1])) == 0


def customer_reference() -> EntityReference:
    return EntityReference("Customer", "c")


class TestHistory:
    async def test_every_version_with_what_was_there_before(self, symphony: Symphony) -> None:
        """Who, why, from which value to which, in order; by pages."""
        customer, _ = await a_history(symphony)
        versions = await symphony.history(customer)
        assert [version.version for version in versions] == [1, 2, 3, 4]
        assert versions[0].changes[0].kind == "added"
        told = [(version.event.metadata.actor, [(c.where, c.before, c.after) for c in version.changes]) for version in versions[1:]]
        assert told == [
            ("alice", [("name", "Ada", "Bea"), ("notes.alice", ABSENT, 1)]),
            ("bob", [("name", "Bea", "Bea"), ("notes.bob", ABSENT, 2)]),
            ("carol", [("name", "Bea", "Cleo"), ("notes.carol", ABSENT, 3)]),
        ]
        assert [version.version for version in await symphony.history("Customer:c", after_version=1, limit=2)] == [2, 3]
        page = await symphony.history("Customer:c", after_version=3)
        assert page[0].changes == versions[3].changes
        assert await symphony.history(customer, until=0) == []
        with pytest.raises(EntityNotFoundError, match="no event of it"):
            await symphony.history("Customer:nobody")

    async def test_an_event_that_does_not_fit_is_damaged(self, symphony: Symphony) -> None:
        """History and blame mark it as every other look at the state does, and go on with the last good state."""
        await symphony.log.append([an_event(1, "Made", (SET, (), {"a": 1}))])
        await symphony.log.append([an_event(2, "Changed", (REMOVE, ("b",)))])
        await symphony.log.append([an_event(3, "Changed", (SET, ("a",), 2))])
        state = await symphony.past.state_of("Old:1")
        assert state.damage is not None
        assert (state.damage.version, state.damage.position) == (2, 2)
        assert (state.data, state.version) == ({"a": 1}, 3)
        versions = await symphony.history("Old:1")
        assert [(version.damage, len(version.changes)) for version in versions] == [(None, 1), (state.damage, 0), (state.damage, 0)]
        assert [blame.event.version for blame in await symphony.blame("Old:1", "a")] == [1]
        with pytest.raises(ConfigurationError, match="at least one"):
            await symphony.history("Old:1", limit=0)

    async def test_blame_looks_into_values(self, symphony: Symphony) -> None:
        """A field of a `@value` object is set by whoever sets the object to one with another field."""
        invoice = symphony.entities.add(Invoice(id="i", lines=[Line("a", Money(5))]))
        await symphony.flush()
        for total in (Money(7), Money(7, "USD"), Money(8, "USD")):
            invoice.total = total
            await symphony.flush()
        invoice.lines[0].price = Money(9)
        await symphony.flush()
        assert [(entry.before, entry.after) for entry in await symphony.blame(invoice, "total.amount")] == [(7, 8), (0, 7), (ABSENT, 0)]
        assert [entry.after for entry in await symphony.blame(invoice, "lines[0].price.amount")] == [9, 5]
        with pytest.raises(UnknownPathError, match="did you mean priority"):
            await symphony.blame(invoice, "priority.name")

    async def test_blame_names_who_set_a_value(self, symphony: Symphony) -> None:
        """The last one first, setting the same value again included; what is around and inside counts."""
        customer, positions = await a_history(symphony)
        assert [(b.event.metadata.actor, b.before, b.after) for b in await symphony.blame(customer, "name")] == [
            ("carol", "Bea", "Cleo"),
            ("bob", "Bea", "Bea"),
            ("alice", "Ada", "Bea"),
            (None, ABSENT, "Ada"),
        ]
        assert [b.event.metadata.actor for b in await symphony.blame(customer, ("notes", "bob"))] == ["bob"]
        assert [b.event.metadata.actor for b in await symphony.blame(customer, "notes")] == ["carol", "bob", "alice", None]
        assert len(await symphony.blame(customer, "")) == 4
        assert len(await symphony.blame(customer, "name", until=positions[1])) == 2
        with pytest.raises(UnknownPathError, match=r"notes\.nothing of Customer:c"):
            await symphony.blame(customer, "notes.nothing")
        symphony.entities.remove(customer)
        await symphony.flush()
        assert (await symphony.blame("Customer:c", "name"))[0].after is ABSENT

    async def test_blame_follows_list_items_by_their_index(self, symphony: Symphony) -> None:
        """An insertion before an item sets what stands at its index."""
        invoice = symphony.entities.add(Invoice(id="i"))
        invoice.lines.append(Line("a"))
        await symphony.flush()
        invoice.lines.insert(0, Line("b"))
        await symphony.flush()
        entries = await symphony.blame(invoice, "lines[0].text")
        assert [(entry.before, entry.after) for entry in entries] == [("a", "b"), (ABSENT, "a")]


class TestPaths:
    @pytest.mark.parametrize(
        ("text", "path"),
        [
            ("", ()),
            ("name", ("name",)),
            ("lines[0].amount", ("lines", 0, "amount")),
            ("notes['a b'][7]", ("notes", "a b", 7)),
            ('notes["it\'s"].x', ("notes", "it's", "x")),
            ("[3]", (3,)),
        ],
    )
    def test_text_is_read(self, text: str, path: tuple[Any, ...]) -> None:
        """Names, indexes, and keys in quotes."""
        assert parse_path(text) == path

    @pytest.mark.parametrize("text", [".a", "a..b", "a.", "a[", "a[x]", "a b", "a[1.5]", "a['x", "[0]x", "a.0"])
    def test_what_is_no_path_is_refused(self, text: str) -> None:
        """The message says where it stops to be one."""
        with pytest.raises(ConfigurationError, match=r"is no path.*column"):
            parse_path(text)

    def test_values_are_found(self) -> None:
        """Through dicts, lists and tuples; what leads nowhere is absent, which None is not."""
        state = {"a": [{"b": None}, (1, 2)]}
        assert value_at(state, ("a", 0, "b")) is None
        assert value_at(state, ("a", 1, 1)) == 2
        for nowhere in (("x",), ("a", 9), ("a", "b"), ("a", 0, "b", "c"), ("a", -1)):
            assert value_at(state, nowhere) is ABSENT


def test_changes_tell_what_was_there() -> None:
    """Every operation, on lists and sets too; the values told are copies."""
    state: dict[str, Any] = {"l": [1, 2, 3], "s": {1}, "d": {"k": [0]}}
    after, told = trace_changes(
        state, [(3, ("l",), 4), (1, ("l",), 0, 9), (2, ("l",), 1, 3, [7]), (5, ("s",), 2), (6, ("s",), 1), (4, ("d", "k")), (0, ("n",), 1)]
    )
    assert after == {"l": [9, 7, 3, 4], "s": {2}, "d": {}, "n": 1}
    assert told == [
        ValueChange(("l", 3), ABSENT, 4),
        ValueChange(("l", 0), ABSENT, 9),
        ValueChange(("l", 1), 1, ABSENT),
        ValueChange(("l", 2), 2, ABSENT),
        ValueChange(("l", 1), ABSENT, 7),
        ValueChange(("s",), ABSENT, 2),
        ValueChange(("s",), 1, ABSENT),
        ValueChange(("d", "k"), [0], ABSENT),
        ValueChange(("n",), ABSENT, 1),
    ]
    assert compare_states(None, None) == []
    assert compare_states({"a": 1}, None) == [ValueChange((), {"a": 1}, ABSENT)]
    assert compare_states({"l": [1, 2]}, {"l": [1]}) == [ValueChange(("l", 1), 2, ABSENT)]
    assert compare_states({"a": 1}, {"a": True}) == [ValueChange(("a",), 1, True)]


class TestRewinding:
    async def test_rewind_of_the_rewind_then_fork(self, reopen: Opener, tmp_path: Path) -> None:
        """States as expected each time, nothing is deleted, and the trail says who undid what."""
        symphony = await reopen()
        customer, positions = await a_history(symphony)
        await symphony.create_checkpoint("named")
        customer.name = "late"
        await symphony.flush()
        late = symphony.log.head
        with symphony.acting_as("eve", reason="wrong customer"):
            report = await symphony.rewind(positions[0])
        undone = symphony.log.head
        assert (report.position, report.rewound) == (positions[0], ["Customer:c"])
        assert symphony.entities.get("Customer:c").name == "Ada"
        with symphony.acting_as("mallory"):
            await symphony.rewind(late)
        assert symphony.entities.get("Customer:c").name == "late"
        await symphony.rewind("named")
        assert symphony.entities.get("Customer:c").name == "Cleo"
        trail = [version.event for version in await symphony.history("Customer:c")]
        assert [(e.name, e.metadata.actor, e.metadata.reason, e.data) for e in trail[-3:]] == [
            ("Rewound", "eve", "wrong customer", {"to": positions[0]}),
            ("Rewound", "mallory", None, {"to": late}),
            ("Rewound", None, None, {"to": positions[3]}),
        ]
        assert [event.version for event in trail] == list(range(1, 9))
        forked = await symphony.fork(into=tmp_path / "fork", at=undone)
        expected = (await symphony.at(undone)).get("Customer:c")
        async with Symphony({"state_dir": tmp_path / "fork"}, persistence_enabled=True) as other:
            await other.resume()
            assert other.entities.get("Customer:c").name == "Ada"
            assert encode_canonical((await other.at("latest")).get("Customer:c")) == encode_canonical(expected)
            assert (forked.entities, forked.events, other.log.head) == (1, 2, 2)
            (origin,) = [event async for page in other.log.read(until=1) for event in page]
            assert origin.name == "LogForked"
            assert origin.changes[0][2]["position"] == undone
            assert (await other.history("Customer:c"))[0].event.data == {"version": 6, "position": undone}

    async def test_unknown_targets_are_refused(self, reopen: Opener, tmp_path: Path) -> None:
        """Nothing is appended, and no directory is left behind."""
        symphony = await reopen()
        customer, _ = await a_history(symphony)
        async with symphony.transaction("Both"):
            customer.name = "x"
            symphony.entities.add(Customer(id="second"))
        inside = symphony.log.head - 1
        customer.name = "y"
        await symphony.flush()
        head = symphony.log.head
        with pytest.raises(CheckpointNotFoundError):
            await symphony.rewind("nothing")
        with pytest.raises(PositionInsideTransactionError):
            await symphony.rewind(inside)
        with pytest.raises(PositionInsideTransactionError):
            await symphony.fork(into=tmp_path / "fork", at=inside)
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "file").touch()
        (tmp_path / "link").symlink_to(tmp_path / "nowhere")
        for taken, why in (("full", "is not empty"), ("full/file", "no directory"), ("link", "no directory")):
            with pytest.raises(TargetOccupiedError, match=why):
                await symphony.fork(into=tmp_path / taken)
        assert symphony.log.head == head
        assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "link", "state"]

    async def test_a_fork_that_fails_leaves_nothing(self, symphony: Symphony, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The directory is put in place when it is whole."""
        await a_history(symphony)
        monkeypatch.setattr("symphony_es.core.past.forking._put_in_place", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            await symphony.fork(into=tmp_path / "fork")
        assert list(tmp_path.iterdir()) == []

    async def test_what_a_killed_fork_leaves_goes_with_the_next_one(
        self, symphony: Symphony, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is where it was built, under a name that nobody takes for a log, and that the next fork to the same place knows."""
        await a_history(symphony)
        left: list[Path] = []
        with monkeypatch.context() as killed:
            killed.setattr("symphony_es.core.past.forking._put_in_place", lambda built, *_: (left.append(built), 1 / 0))
            with pytest.raises(ZeroDivisionError):
                await symphony.fork(into=tmp_path / "fork")
        left[0].mkdir()
        (left[0] / "events.db").touch()
        await symphony.fork(into=tmp_path / "fork")
        assert [path.name for path in tmp_path.iterdir()] == ["fork"]

    async def test_a_fork_of_many_entities_keeps_versions_of_shape_and_generations(self, reopen: Opener, tmp_path: Path) -> None:
        """All states are what they were, byte for byte, and what is rewound later has another generation than before."""
        symphony = await reopen()
        for number in range(1200):
            symphony.entities.add(Customer(id=f"c{number}", name=str(number)))
        await symphony.flush()
        first = symphony.entities.get("Customer:c0")
        before = symphony.log.head
        first.name = "x"
        await symphony.flush()
        await symphony.rewind(before)
        told: list[tuple[int, int]] = []
        await symphony.fork(into=tmp_path / "fork", on_progress=lambda *done: told.append(done))
        assert told == [(1000, 1200), (1200, 1200)]
        there = await open_to_read(tmp_path / "fork")
        try:
            states = (await there.past.at("latest")).state("Customer:c0")
            assert (states.generation, states.version) == (1, 1)
            async with Symphony({"state_dir": tmp_path / "fork"}, persistence_enabled=True) as other:
                await other.resume()
                mine, others = states_of(symphony), states_of(other)
            assert {key: encode_canonical(state) for key, state in mine.items()} == {key: encode_canonical(s) for key, s in others.items()}
        finally:
            await there.close()

    async def test_a_deletion_that_is_rewound_keeps_the_version_of_the_shape(self, symphony: Symphony) -> None:
        """Else the state would be upcast a second time."""
        await symphony.log.append([an_event(1, "Made", (SET, (), {"a": 1}), state_version=2)])
        await symphony.log.append([an_event(2, "Deleted", (REMOVE, ()))])
        deleted = symphony.log.head
        for target, expected in ((1, 2), (deleted, None), (1, 2)):
            plan = await symphony.past.plan_rewind(target)
            await symphony.log.append(plan.events)
            state = (await symphony.state_history.states_at(symphony.log.head)).states["Old:1"]
            assert (None if state.deleted else state.state_version) == expected


def an_event(version: int, name: str, change: tuple[Any, ...], state_version: int | None = None) -> NewEvent:
    """An event of `Old:1` as an earlier version of an application may have written it."""
    metadata = EventMetadata(state_version=state_version)
    made = uuid7(time.time_ns(), os.urandom(16))
    return NewEvent(entity_key="Old:1", version=version, name=name, changes=[change], metadata=metadata, event_id=made)


class TestReadingOnly:
    async def test_a_log_that_is_being_written_can_be_looked_at(self, reopen: Opener, tmp_path: Path) -> None:
        """Without the application, beside the process that writes: new events and checkpoints are seen."""
        symphony = await reopen()
        customer, positions = await a_history(symphony)
        looking = await open_to_read(tmp_path / "state")
        try:
            assert (await looking.past.state_of("Customer:c", positions[1])).data["name"] == "Bea"  # type: ignore[index]
            await symphony.create_checkpoint("first")
            assert await looking.past.position("first") == positions[3]
            customer.name = "Dora"
            await symphony.create_checkpoint("second")
            assert (await looking.past.at("second")).get("Customer:c")["name"] == "Dora"
            assert (await looking.past.blame("Customer:c", "name"))[0].after == "Dora"
            assert len(await looking.past.diff("first", "second")) == 1
        finally:
            await looking.close()

    async def test_no_log_is_no_log(self, tmp_path: Path) -> None:
        """Looking does not create anything."""
        with pytest.raises(LogUnavailableError):
            await open_to_read(tmp_path / "nothing")
        assert list(tmp_path.iterdir()) == []
