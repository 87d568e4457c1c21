"""Every way leads to the same state: fold, snapshot and replay, restored objects captured again; at every position of random histories."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from symphony_es import Symphony
from symphony_es.core.objects.plain import entities_in
from symphony_es.core.past.snapshots import snapshotter
from symphony_es.core.past.states import is_system
from symphony_es.core.report import ResumeReport
from symphony_es.core.resume.building import build_world
from symphony_es.errors import PositionInsideTransactionError
from symphony_es.events.codec import encode_canonical
from symphony_es.events.fold import Fold
from tests.application import Customer, Invoice, Line, Money, Priority, Thermometer

NAMES = ["a", "b", "c"]
name = st.sampled_from(NAMES)
step = st.one_of(
    st.tuples(st.just("customer"), name, st.text("xyz", max_size=3)),
    st.tuples(st.just("boss"), name, name),
    st.tuples(st.just("friend"), name, name),
    st.tuples(
        st.just("notes"), name, st.dictionaries(st.text("kl", max_size=1) | st.integers(0, 2), st.integers() | st.floats(), max_size=2)
    ),
    st.tuples(st.just("invoice"), name, st.integers(0, 9)),
    st.tuples(st.just("line"), name, st.integers(0, 3)),
    st.tuples(st.just("measure"), name, st.floats(allow_nan=False)),
    st.tuples(st.just("remove"), name),
    st.tuples(st.just("transaction"), name, name),
    st.tuples(st.just("rolled_back"), name, name),
    st.tuples(st.just("checkpoint"), name),
    st.tuples(st.just("rewind"), name),
    st.tuples(st.just("resume")),
    st.tuples(st.just("flush")),
)


class Application:
    """Does to a Symphony what a history says."""

    def __init__(self, symphony: Symphony) -> None:
        self.symphony = symphony
        self.checkpoints: dict[str, tuple[str, bytes]] = {}

    def customer(self, which: str) -> Customer:
        found = self.symphony.entities.find(f"Customer:{which}")
        return found if found is not None else self.symphony.entities.add(Customer(id=which))

    def invoice(self, which: str) -> Invoice:
        found = self.symphony.entities.find(f"Invoice:{which}")
        return found if found is not None else self.symphony.entities.add(Invoice(id=which))

    async def do(self, what: str, *arguments: Any) -> None:
        method = getattr(self, f"do_{what}")
        result = method(*arguments)
        if result is not None:
            await result

    def do_customer(self, which: str, text: str) -> None:
        self.customer(which).name = text

    def do_boss(self, which: str, other: str) -> None:
        self.customer(which).boss = self.customer(other)

    def do_friend(self, which: str, other: str) -> None:
        friends = self.customer(which).friends
        friends.insert(0, self.customer(other)) if len(friends) % 2 else friends.append([self.customer(other)])
        if len(friends) > 3:
            friends.reverse()
            del friends[1]

    def do_notes(self, which: str, items: dict[Any, Any]) -> None:
        self.customer(which).notes |= {"set": set(items), **items}

    def do_invoice(self, which: str, amount: int) -> None:
        invoice = self.invoice(which)
        invoice.total, invoice.customer = Money(amount), self.customer(which)
        invoice.labels ^= {str(amount), "x"}
        invoice.extra[amount] = (amount, self.customer(which))

    def do_line(self, which: str, index: int) -> None:
        lines = self.invoice(which).lines
        if index < len(lines):
            lines[index].tags.append("t")
            lines[index].price = Money(index)
        else:
            lines.append(Line(str(index)))

    def do_measure(self, which: str, degrees: float) -> None:
        found = self.symphony.entities.find(f"Thermometer:{which}")
        if not isinstance(found, Thermometer):
            if found is None:
                self.symphony.entities.add(Thermometer(which, degrees))
            return
        found.degrees = degrees
        found.readings.append(degrees)

    def do_remove(self, which: str) -> None:
        for kind in ("Customer", "Invoice"):
            found = self.symphony.entities.find(f"{kind}:{which}")
            if found is not None:
                self.symphony.entities.remove(found)

    async def do_transaction(self, which: str, other: str) -> None:
        async with self.symphony.transaction("Agreed", actor="test"):
            self.customer(which).name = other
            self.invoice(other).paid = True
            self.invoice(other).priority = Priority.HIGH

    async def do_rolled_back(self, which: str, other: str) -> None:
        with pytest.raises(ZeroDivisionError):
            async with self.symphony.transaction("Failed"):
                self.do_invoice(which, 5)
                self.do_friend(other, which)
                self.do_remove(which)
                raise ZeroDivisionError

    async def do_checkpoint(self, which: str) -> None:
        checkpoint = await self.symphony.create_checkpoint(which)
        self.checkpoints[which] = (checkpoint, await self.picture())

    async def do_rewind(self, which: str) -> None:
        if which in self.checkpoints:
            checkpoint, picture = self.checkpoints[which]
            await self.symphony.resume_from_checkpoint(checkpoint)
            assert await self.picture() == picture, "the state after going back is the state at the checkpoint"
            again = await self.symphony.create_checkpoint(which)
            assert await self.picture(again) == picture, "a checkpoint taken, rewound and taken again is equal"

    async def do_resume(self) -> None:
        await self.symphony.flush()
        before = await self.picture()
        await self.symphony.resume()
        assert captured(self.symphony.world) == before
        await self.symphony.resume()
        assert captured(self.symphony.world) == before, "a resume of a resume equals one resume"

    async def do_flush(self) -> None:
        await self.symphony.flush()

    async def picture(self, moment: Any = None) -> bytes:
        await self.symphony.flush()
        return picture(
            await self.symphony.state_history.states_at(
                self.symphony.log.head if moment is None else (await self.symphony.at(moment)).position
            )
        )


def picture(fold: Fold) -> bytes:
    return encode_canonical({key: state.data for key, state in fold.states.items() if not state.deleted and not is_system(key)})


def captured(world: Any) -> bytes:
    states = {}
    for key, record in world.records.items():
        plain = getattr(record.obj, "state", None)
        states[key] = plain if plain is not None else world.capture(record.obj, record.reference)
    return encode_canonical(states)


async def load_one_by_one(symphony: Symphony, fold: Fold) -> None:
    """Each load connects to what is live already, and the objects go on from the versions of the log."""
    for key in reversed([key for key, state in sorted(fold.states.items()) if not state.deleted and not is_system(key)]):
        loaded = await symphony.entities.load(key)
        assert loaded is symphony.entities.get(key)
    for key, record in symphony.world.records.items():
        assert (record.version, record.generation) == (fold.states[key].version, fold.states[key].generation)
        for held in entities_in(list(getattr(record.obj, "__dict__", {}).values())):
            assert symphony.world.record_of(held) is not None, "every object that is referred to is the live one"


@pytest.mark.exhaustive
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(st.lists(step, max_size=25))
def test_fold_snapshot_and_restored_objects_agree_at_every_position(
    monkeypatch: pytest.MonkeyPatch, history: list[tuple[Any, ...]]
) -> None:
    """With snapshots at every opportunity, all ways give byte-equal canonical states for every k, live and in a new process."""
    monkeypatch.setattr(snapshotter, "FLOOR_BYTES", 0)

    async def run(directory: Path) -> None:
        async with Symphony({"state_dir": directory}, persistence_enabled=True) as symphony:
            application = Application(symphony)
            for what, *arguments in history:
                await application.do(what, *arguments)
            await application.picture()
            live = captured(symphony.world)
        async with Symphony({"state_dir": directory}, persistence_enabled=True) as symphony:
            fold = Fold()
            for position in range(symphony.log.head + 1):
                fold.apply_rows(await symphony.log.read_rows(after=fold.position, until=position))
                expected = picture(fold)
                states = await symphony.state_history.states_at(position)
                assert picture(states) == expected, position
                world = symphony.world_under_construction()
                await build_world(symphony.shell(world), world, states, ResumeReport(position=position), strict=False)
                assert captured(world) == expected, position
                for key in fold.states:
                    one = await symphony.state_history.entity_at(key, position)
                    assert one is not None
                    assert (one.version, one.data is None) == (fold.states[key].version, fold.states[key].deleted)
            assert picture(fold) == live
            await load_one_by_one(symphony, fold)
            assert captured(symphony.world) == live
            await symphony.resume()
            assert captured(symphony.world) == live
            if symphony.log.head > 2:
                try:
                    await symphony.resume(replay_until=symphony.log.head // 2)
                except PositionInsideTransactionError as error:
                    await symphony.resume(replay_until=error.last)
                assert symphony.last_resume is not None
                there = picture(await symphony.state_history.states_at(symphony.last_resume.position))
                assert captured(symphony.world) == there
                assert picture(await symphony.state_history.states_at(symphony.log.head)) == there

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(run(Path(directory)))
