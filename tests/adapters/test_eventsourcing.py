"""An `eventsourcing` application on this log: what its own test cases do not ask."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID, uuid4, uuid5

import pytest
from eventsourcing import utils
from eventsourcing.application import AggregateNotFoundError
from eventsourcing.cipher import AESCipher
from eventsourcing.domain import Aggregate
from eventsourcing.persistence import (
    DataError,
    InfrastructureFactory,
    InfrastructureFactoryError,
    IntegrityError,
    InterfaceError,
    InternalError,
    NotSupportedError,
    OperationalError,
    StoredEvent,
    Tracking,
)
from eventsourcing.popo import POPOApplicationRecorder
from eventsourcing.system import SingleThreadedRunner, System

from symphony_es import Symphony
from symphony_es.adapters.eventsourcing import LogFactory, LogProcessRecorder, _as_persistence_error
from symphony_es.adapters.loaded_topics import check_loaded
from symphony_es.adapters.open_logs import use_log
from symphony_es.cli.commands.caring import doctor
from symphony_es.cli.main import main
from symphony_es.core.state import EntityReference
from symphony_es.errors import EntityDamagedError, EntityNotFoundError, InvalidIdentifierError, LogInUseError, LogUnavailableError
from symphony_es.events.changes import SET
from symphony_es.events.event import EventMetadata, NewEvent
from symphony_es.events.fold import REPAIR_EVENT
from symphony_es.events.foreign import AGGREGATE, SNAPSHOT, Foreign, event_name, tracking_key
from symphony_es.events.identifiers import check_event_name, check_own_type
from symphony_es.log.log import EventLog
from symphony_es.log.sqlite import SQLiteLogRecorder
from symphony_es.transfer.backups import backup, restore
from symphony_es.transfer.jsonl import export_jsonl, import_jsonl
from symphony_es.transfer.verification import verify
from tests.adapters.bank import Account, Archive, Bank, Post, environment
from tests.core.test_skipping import bad_bytes


def stored(originator_id: UUID | str, version: int, state: bytes = b"state", topic: str = "topic") -> StoredEvent:
    return StoredEvent(originator_id=originator_id, originator_version=version, topic=topic, state=state)


def snapshots_of(bank: Bank, account: UUID) -> list[Any]:
    """All snapshots that an application has of an account."""
    assert bank.snapshots is not None
    return list(bank.snapshots.get(account))


@pytest.fixture
def factory() -> Iterator[LogFactory]:
    """The infrastructure of an application in memory whose ids are text."""
    made = LogFactory(environment(":memory:", ORIGINATOR_ID_TYPE="text"))
    yield made
    made.close()


@pytest.fixture
def recorder(factory: LogFactory) -> Any:
    """Its recorder, which follows others as well."""
    return factory.process_recorder()


class TestBothKinds:
    """One log of a Symphony and of an application: whatever looks at the log sees both."""

    async def test_history_audit_past_and_resume(self, tmp_path: Path) -> None:
        """The application's events are versions with an actor; they have no state, and a resume leaves them where they are."""
        async with Symphony(tmp_path / "log") as symphony:
            agent = await symphony.agents.create_agent(name="clerk")
            bank = Bank(environment(tmp_path / "log"))
            with symphony.acting_as("ann", reason="a new client"):
                account = await asyncio.to_thread(bank.open, "Bob")
            before = symphony.log.head
            assert symphony._opened is not None
            assert symphony._opened.snapshotter is not None
            await symphony._opened.snapshotter.take(before)  # it has nothing of an aggregate, and its later events go on behind it
            bank.deposit(account, 5)
            key = f"{AGGREGATE}:{account}"

            versions = await symphony.history(key)
            assert [version.event.name for version in versions] == ["Account.Opened", "Account.Deposited"]
            first = versions[0].event
            assert (first.metadata.actor, first.metadata.reason) == ("ann", "a new client")
            assert first.data["topic"] == "tests.adapters.bank:Account.Opened"
            assert first.data["state"] == bank.recorder.select_events(account)[0].state
            assert [event.position for event in await symphony.audit.find(actor="ann")] == [first.position]
            assert await symphony.entities.ids(AGGREGATE) == [str(account)]
            assert symphony.log.entity_status_now(key) == (2, False)

            view = await symphony.at(before)
            assert view.all() == [EntityReference("Agent", agent.id)]
            for asked in (view.get, symphony.entities.get):
                with pytest.raises(EntityNotFoundError, match=r"events and no state: await symphony\.history"):
                    asked(key)
            for loading in (
                symphony.entities.load(key), symphony.past.state_of(key), symphony.diff(1, entity=key), symphony.blame(key),
                symphony.blame(key, "balance"), symphony.history(key, "balance"),
            ):  # fmt: skip
                with pytest.raises(EntityNotFoundError, match="events and no state"):
                    await loading
            bank.close()
            assert await symphony.log.refresh_head() == before + 1  # the Symphony's log is still open
        async with Symphony(tmp_path / "log") as symphony:
            assert (await symphony.resume()).restored == 1
            with Bank(environment(tmp_path / "log")) as bank:
                assert bank.balance(account) == 5

    def test_the_command_line_counts_them(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """What has events and no state is there all the same; what asks for states says why there is none."""
        directory = tmp_path / "log"
        with Bank(environment(directory)) as bank:
            account, other = bank.open("Bob"), bank.open("Eve")
            bank.deposit(account, 5)
            bank.take_snapshot(account)
        key = f"{AGGREGATE}:{account}"
        for line, expected in (
            (["entities"], [{"type": AGGREGATE, "entities": 2}, {"type": SNAPSHOT, "entities": 1}]),
            (["entities", "--at", "1"], [{"type": AGGREGATE, "entities": 1}]),
            (["entities", AGGREGATE, "--at", "2"], [{"entity": key, "version": 1} for key in sorted((key, f"{AGGREGATE}:{other}"))]),
            (["stats"], [{"entities": 0, "eventsourcing_entities": 3}]),
            (["fork", str(tmp_path / "fork")], [{"entities": 0, "eventsourcing_entities": 3}]),
        ):
            assert main([*line, "--state-dir", str(directory), "--json"]) == 0
            told = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
            assert [{name: one[name] for name in like} for one, like in zip(told, expected, strict=True)] == expected, line
        for line in (["diff", "1", "--entity", key], ["blame", key], ["show", key]):
            assert main([*line, "--state-dir", str(directory)]) != 0
            assert f"`symphony-es history {key}` gives them" in capsys.readouterr().err

    async def test_copies_of_the_log_have_the_aggregates(self, tmp_path: Path) -> None:
        """A backup and an import have the same rows; an application goes on with each, and every event checks."""
        async with Symphony(tmp_path / "log") as symphony:
            await symphony.agents.create_agent(name="clerk")
            with Bank(environment(tmp_path / "log")) as bank:
                account = await asyncio.to_thread(bank.open, "Bob")
                bank.deposit(account, 5)
                bank.take_snapshot(account)
                bank.deposit(account, 7)
            await symphony.create_checkpoint("closing time")
            rows = await symphony.log.read_rows()
            await export_jsonl(symphony.log, tmp_path / "export.jsonl")
            await backup(tmp_path / "log", tmp_path / "backup")
        await import_jsonl(tmp_path / "export.jsonl", tmp_path / "imported")
        await restore(tmp_path / "backup", tmp_path / "restored")
        for copy in ("log", "imported", "restored"):
            assert not (await verify(tmp_path / copy)).problems, copy
            with Bank(environment(tmp_path / copy)) as bank:
                assert bank.balance(account) == 12
                assert bank.balance(account, version=2) == 5
                assert [found.id for found in bank.notification_log.select(1, 10)] == [2, 3, 5]
                assert bank.recorder.max_notification_id() == 5
                bank.deposit(account, 1)
            log = await EventLog.open_read_only(tmp_path / copy)
            assert (await log.read_rows())[: len(rows)] == rows
            await log.close()

    async def test_a_fork_takes_the_events_along(self, tmp_path: Path) -> None:
        """They are all there is of an aggregate; how far a follower has come is said in the positions of the fork."""
        async with Symphony(tmp_path / "log") as symphony:
            clerks = [await symphony.agents.create_agent(name=f"clerk {number}") for number in range(3)]
            symphony.entities.remove(clerks[0])
            for number in range(9):  # the fork has one event of each clerk: positions are others there
                clerks[1].config["desk"] = number
                await symphony.flush()
            with SingleThreadedRunner(System([[Bank, Post]]), environment(tmp_path / "log")) as runner:
                account = runner.get(Bank).open("Bob")
                runner.get(Bank).deposit(account, 5)
                await symphony.agents.create_agent(name="another")
                moment = symphony.log.head
                runner.get(Bank).deposit(account, 7)
            report = await symphony.fork(into=tmp_path / "fork", at=moment)
        assert (report.position, report.entities) == (moment, 3)
        with SingleThreadedRunner(System([[Bank, Post]]), environment(tmp_path / "fork")) as runner:
            bank, post = runner.get(Bank), runner.get(Post)
            assert bank.balance(account) == 5
            assert len(bank.notification_log.select(1, 10)) == 2
            assert post.recorder.max_tracking_id("Bank") == bank.recorder.max_notification_id() < moment
            assert len(post.notification_log.select(1, 10)) == 1
            bank.open("Eve")
            assert len(post.notification_log.select(1, 10)) == 2  # no letter is written twice, or missing
        assert not (await verify(tmp_path / "fork")).problems

    async def test_a_damaged_event_is_an_error(self, tmp_path: Path) -> None:
        """What is not a foreign event is never passed over in silence."""
        with Bank(environment(tmp_path / "log")) as bank:
            account = bank.open("Bob")
        log = await EventLog.open(tmp_path / "log")
        data: Any
        for version, data in ((2, {"topic": "x"}), (3, {"topic": 5, "state": b""}), (4, {"topic": "x", "state": b"", "number": "4"})):
            made = NewEvent(
                entity_key=f"{AGGREGATE}:{account}", version=version, name="Odd", changes=(), metadata=EventMetadata(), data=data,
                event_id=os.urandom(16),
            )  # fmt: skip
            await log.append([made])
        await log.close()
        with Bank(environment(tmp_path / "log")) as bank:
            for asked in (lambda: bank.recorder.select_events(account), lambda: bank.recorder.select_notifications(1, 10)):
                with pytest.raises(InternalError, match="not those of a foreign event"):
                    asked()


class TestDamage:
    """A damaged event of an aggregate: what is said, and what goes on."""

    async def test_the_ways_out(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """There is no state to repair, so nobody says so: a fork goes on, with no snapshot of what stays behind."""
        directory = tmp_path / "log"
        with Bank(environment(directory)) as bank:
            account, other = bank.open("Bob"), bank.open("Eve")
            for amount in (1, 2, 4):
                bank.deposit(account, amount)
                if amount == 1:
                    bank.take_snapshot(account)
            bank.take_snapshot(account)
        bad_bytes(directory / "events.db", 5)
        key = f"{AGGREGATE}:{account}"
        with Bank(environment(directory)) as bank:
            for asked in (lambda: bank.recorder.select_notifications(1, 9), lambda: bank.recorder.select_events(account)):
                with pytest.raises(InternalError, match=r"fork DIRECTORY --skip-damaged.* or go on without it with SKIP_DAMAGED=yes"):
                    asked()
        problems = (await verify(directory)).problems
        assert any("no state to repair" in problem.way_out for problem in problems)
        assert not any("entities.repair" in problem.way_out for problem in problems)
        given = argparse.Namespace(state_dir=str(directory), json=False, allow_shared_directory=False)
        assert await doctor(given)
        told = capsys.readouterr().out
        assert "no state to repair" in told
        assert "entities.repair" not in told
        with Bank(environment(directory, SKIP_DAMAGED="yes")) as bank:
            assert [found.id for found in bank.recorder.select_notifications(1, 9)] == [1, 2, 3, 6]
            assert bank.balance(other) == 0
            with pytest.raises(InternalError, match="is damaged"):
                bank.recorder.select_events(account)
        symphony = Symphony(directory)
        await symphony.setup(skip_damaged=True)
        async with symphony:
            for state in (None, {}, {"balance": 7}):
                with pytest.raises(EntityDamagedError, match="no state to repair: restore a backup, or go on in a fork"):
                    await symphony.entities.repair(key, state)
            with pytest.raises(EntityNotFoundError, match="events and no state"):
                await symphony.entities.repair(f"{AGGREGATE}:{other}", {})
            head = symphony.log.head
            await symphony.resume()
            report = await symphony.rewind(1)  # which repairs what was damaged since, where that has a state
            assert (list(report.damaged), symphony.log.head) == ([key], head)
            fork = await symphony.fork(into=tmp_path / "fork", at="latest")
            assert (list(fork.damaged), fork.eventsourcing_entities) == ([key], 3)
        with Bank(environment(tmp_path / "fork")) as bank:
            assert bank.balance(account) == 1
            bank.deposit(account, 9)
            assert bank.balance(account) == 10
            assert [found.originator_version for found in snapshots_of(bank, account)] == [2]

    async def test_a_fork_where_an_aggregate_was_repaired_or_says_what_is_none(self, tmp_path: Path) -> None:
        """It takes along what is good, and names the aggregate: there is no other way on."""
        with Bank(environment(tmp_path / "log")) as bank:
            account = bank.open("Bob")
        log = await EventLog.open(tmp_path / "log")
        repaired = {"version": 2, "position": 2, "reason": "odd", "alive": False}
        for version, name, changes, data in ((2, "Odd", [], {"topic": 5}), (3, REPAIR_EVENT, [(SET, (), {})], repaired)):
            made = NewEvent(
                entity_key=f"{AGGREGATE}:{account}", version=version, name=name, changes=changes, metadata=EventMetadata(), data=data,
                event_id=os.urandom(16),
            )  # fmt: skip
            await log.append([made])
        await log.close()
        async with Symphony(tmp_path / "log", read_only=True) as symphony:
            report = await symphony.fork(into=tmp_path / "fork", at="latest")
        assert report.damaged[f"{AGGREGATE}:{account}"].version == 2
        with Bank(environment(tmp_path / "fork")) as bank:
            assert bank.balance(account) == 0


class TestIdsAndNumbers:
    """What the other library numbers and names otherwise than this one."""

    def test_ids_that_a_log_cannot_hold(self, recorder: Any) -> None:
        """Each is an error of that library's, and nothing is appended; all others come back as they were given."""
        for hostile in ("", "a\0b", "x" * 513, "\ud800", "é" * 257):
            with pytest.raises(DataError, match="entity id"):
                recorder.insert_events([stored("fine", 1), stored(hostile, 1)])
            assert recorder.select_events(hostile) == []
        assert recorder.max_notification_id() is None
        good = [":", "a:b", " ", "é" * 256, "Workflow:1", "../x", "\n", "'; --", "%2F/", str(uuid4()).upper(), str(uuid4())]
        for name in good:
            recorder.insert_events([stored(name, 1)])
        assert [found.originator_id for found in recorder.select_notifications(1, 20)] == good
        assert [recorder.select_events(name)[0].originator_id for name in good] == good

    def test_ids_are_uuids_where_they_were(self) -> None:
        """Unless it is said that all are text; a text that is not written as a UUID is, stays what it is."""
        with InfrastructureFactory.construct(environment(":memory:")) as made:
            given = [uuid4(), "dog", str(uuid4()).upper()]
            recorder = made.application_recorder()
            for one in given:
                recorder.insert_events([stored(one, 1)])
            assert [found.originator_id for found in recorder.select_notifications(1, 9)] == given
            made.close()

    def test_what_is_no_stored_event(self, recorder: Any) -> None:
        """It is refused before anything is appended, and not when it is read; what holds bytes is stored as bytes."""
        for version in (-1, 2**63, "1", None):
            with pytest.raises(DataError, match="versions of aggregates"):
                recorder.insert_events([stored("fine", 1), stored("a", version)])  # type: ignore[arg-type]
        for state, topic in (("text", "topic"), (None, "topic"), (b"", 5), (b"", "\ud800")):
            with pytest.raises(DataError):
                recorder.insert_events([stored("fine", 1), stored("a", 1, state, topic)])  # type: ignore[arg-type]
        assert recorder.max_notification_id() is None
        recorder.insert_events([stored("a", 1, bytearray(b"x")), stored("a", 2, memoryview(b"y"))])  # type: ignore[arg-type]
        assert [event.state for event in recorder.select_events("a")] == [b"x", b"y"]

    def test_states_that_are_too_large(self, recorder: Any) -> None:
        """The limit is that of every event."""
        with pytest.raises(DataError, match="bytes"):
            recorder.insert_events([stored("a", 1, bytes(17 * 1024 * 1024))])
        recorder.insert_events([stored("a", 1, bytes(1024 * 1024))])

    def test_states_are_untouched(self, recorder: Any) -> None:
        """Whatever bytes they are: nothing reads them, and no topic is looked up."""
        states = [b"", bytes(range(256)), b"\xd4\x00" * 50, *(random.Random(5).randbytes(size) for size in (1, 30, 5000))]
        recorder.insert_events([stored("a", number, state, "this:d") for number, state in enumerate(states)])
        assert [event.state for event in recorder.select_events("a")] == states
        assert {event.topic for event in recorder.select_notifications(1, 20)} == {"this:d"}
        assert "this" not in sys.modules

    @pytest.mark.parametrize("seed", range(6))
    def test_any_order_of_versions(self, recorder: Any, seed: int) -> None:
        """From 0 or from anywhere, with gaps, back and forth: what that library's own recorder in memory says, this one says."""
        chance, plain = random.Random(seed), POPOApplicationRecorder()
        rising = seed % 3 == 0
        numbers = {"a": 0, "b": chance.randrange(5)}
        for _ in range(60):
            name = chance.choice("ab")
            events = []
            for _ in range(chance.randrange(1, 4)):
                number = numbers[name] + chance.choice((0, 1, 1, 1, 2) if rising else (-4, -1, 0, 1, 2, 7))
                events.append(stored(name, max(number, 0), chance.randbytes(3)))
                numbers[name] = max(numbers[name], number)
            outcomes = []
            for one in (plain, recorder):
                try:
                    outcomes.append(len(one.insert_events(events)))
                except IntegrityError:
                    outcomes.append(-1)
            assert outcomes[0] == outcomes[1], events
            gt, lte, limit = chance.choice((None, 0, 3, 20)), chance.choice((None, 1, 9, 40)), chance.choice((None, 1, 5))
            for desc in (False, True):
                found = recorder.select_events(name, gt=gt, lte=lte, desc=desc, limit=limit)
                expected = plain.select_events(name)
                expected = sorted(expected, key=lambda event: event.originator_version, reverse=desc)
                low, high = -1 if gt is None else gt, 2**63 if lte is None else lte
                inside = [one for one in expected if low < one.originator_version <= high]
                assert found == inside[:limit]
        assert recorder.select_notifications(3, 20, 50) == plain.select_notifications(3, 20, 50)

    def test_names_for_people(self) -> None:
        """Of any topic there is a name that an event can have."""
        expected = {
            "shop.domain:Order.Placed": "Order.Placed",
            "tests.x:test_it.<locals>.Order.Placed": "Order.Placed",
            "Order": "Order",
            "": "_",
            "a:": "_",
            "a:1b": "_1b",
            "a:.b": "_.b",
            "é: ü-x": "_x",
            "a:" + "x" * 300: "x" * 127,
            "a:9" + "x" * 300: "_9" + "x" * 125,
        }
        for topic, name in expected.items():
            assert check_event_name(event_name(topic)) == name

    def test_the_types_are_reserved(self) -> None:
        """No class of an application's can claim to be an aggregate."""
        for name in (AGGREGATE, SNAPSHOT, "eventsourcing.Other"):
            with pytest.raises(InvalidIdentifierError, match="eventsourcing applications"):
                check_own_type(name)


class TestConflicts:
    def test_the_second_one_is_told(self, tmp_path: Path) -> None:
        """Of two that decided on the same version one is recorded, and nothing of the other."""
        with Bank(environment(tmp_path / "log")) as bank:
            account = bank.open("Bob")
            first, second = bank.repository.get(account), bank.repository.get(account)
            for one in (first, second):
                one.deposit(Decimal(5))
            other = Account("Eve")
            bank.save(first)
            with pytest.raises(IntegrityError, match=f"{AGGREGATE}:{account} has the number 2 already"):
                bank.save(other, second)
            assert bank.balance(account) == 5
            with pytest.raises(AggregateNotFoundError):
                bank.balance(other.id)
            assert bank.recorder.max_notification_id() == 2

    @pytest.mark.parametrize("where", [":memory:", "log"])
    def test_threads(self, tmp_path: Path, where: str) -> None:
        """Threads that race for versions: each version is one thread's, positions have no gap, and none waits for ever."""
        with LogFactory(environment(where if where == ":memory:" else tmp_path / where)) as made:
            recorder = made.application_recorder()
            shared = uuid4()

            def race(thread: int) -> list[int]:
                won, own = [], uuid4()
                for number in range(20):
                    recorder.insert_events([stored(own, number)])
                    try:
                        recorder.insert_events([stored(shared, number, str(thread).encode())])
                    except IntegrityError:
                        continue
                    won.append(number)
                return won

            with ThreadPoolExecutor(6) as pool:
                won = list(pool.map(race, range(6)))
            assert sorted(number for numbers in won for number in numbers) == list(range(20))
            for event in recorder.select_events(shared):
                assert event.originator_version in won[int(event.state)]
            assert [found.id for found in recorder.select_notifications(1, 1000)] == list(range(1, 6 * 20 + 21))
            made.close()

    async def test_an_event_loop_that_stands_still(self, tmp_path: Path) -> None:
        """A coroutine may save: it waits for the writer thread, which needs no loop, while changes of the Symphony wait with it."""
        async with Symphony(tmp_path / "log") as symphony:
            with Bank(environment(tmp_path / "log")) as bank:
                agents = [asyncio.ensure_future(symphony.agents.create_agent(name=str(number))) for number in range(5)]
                await asyncio.sleep(0)
                account = bank.open("Bob")
                await asyncio.gather(*agents)
                assert bank.balance(account) == 0


class TestFollowing:
    """Applications that follow others, all on one log."""

    def test_two_followers(self, tmp_path: Path) -> None:
        """Each is told what the bank has recorded, and nothing else; how far it has come stands in the transaction of what it did."""
        with SingleThreadedRunner(System([[Bank, Post], [Bank, Archive]]), environment(tmp_path / "log")) as runner:
            bank = runner.get(Bank)
            for owner in ("Bob", "Eve"):
                bank.deposit(bank.open(owner), 5)
            assert len(bank.notification_log.select(1, 10)) == 4
            for follower in (runner.get(Post), runner.get(Archive)):
                assert len(follower.notification_log.select(1, 10)) == 2
                # What led to no letter is not recorded as seen: that is how the library does it.
                assert (follower.recorder.max_tracking_id("Bank") or 0) >= bank.notification_log.select(1, 10)[2].id
        log = asyncio.run(_rows(tmp_path / "log"))
        for follower_name in ("Post", "Archive"):
            tracked = [row for row in log if row.entity_key == tracking_key(follower_name, "Bank")]
            beside = [row for row in log if row.data.get("application") == follower_name and row.entity_key.startswith(f"{AGGREGATE}:")]
            assert {row.transaction_id for row in beside} <= {row.transaction_id for row in tracked}

    def test_what_conflicts_records_no_tracking(self, recorder: LogProcessRecorder) -> None:
        """And the other way round."""
        recorder.insert_events([stored("a", 1)], tracking=Tracking("up", 3))
        for events, tracking in (([stored("a", 1)], 4), ([stored("b", 1)], 3), ([stored("b", 1)], 2)):
            with pytest.raises(IntegrityError):
                recorder.insert_events(events, tracking=Tracking("up", tracking))
        assert (recorder.max_tracking_id("up"), recorder.select_events("b")) == (3, [])
        with pytest.raises(DataError):
            recorder.insert_tracking(Tracking("x" * 600, 1))

    def test_names_that_could_be_taken_for_others(self) -> None:
        """No two pairs of names have one key."""
        pairs = [("a", "b/c"), ("a/b", "c"), ("a%2Fb", "c"), ("", "a/b/c"), ("", "c")]
        assert len({tracking_key(*pair) for pair in pairs}) == len(pairs)

    def test_a_subscription_of_a_log_that_is_closed(self, factory: LogFactory) -> None:
        """Who waits is told."""
        subscription = factory.application_recorder().subscribe()
        factory.close()
        with pytest.raises(InterfaceError), subscription:
            next(subscription)


async def _rows(directory: Path) -> list[Any]:
    log = await EventLog.open_read_only(directory)
    events = [event async for page in log.read() for event in page]
    await log.close()
    return events


class TestOpening:
    """Which log an application has, and who closes it."""

    def test_another_process_goes_on(self, tmp_path: Path) -> None:
        """States are compressed and encrypted; the next process has the key, and decides on what the first one recorded."""
        more = {"COMPRESSOR_TOPIC": "zlib", "CIPHER_KEY": AESCipher.create_key(16)}
        with Bank(environment(tmp_path / "log", **more)) as bank:
            account = bank.open("Bob")
            assert b"Bob" not in bank.recorder.select_events(account)[0].state
        program = (
            "import os, sys\nfrom uuid import UUID\nfrom tests.adapters.bank import Bank\n"
            "bank = Bank()\nbank.deposit(UUID(sys.argv[1]), 5)\nprint(bank.balance(UUID(sys.argv[1])))\n"
        )
        told = {**os.environ, **environment(tmp_path / "log", **more), "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-W", "error", "-c", program, str(account)]
        ended = subprocess.run(command, env=told, capture_output=True, text=True, check=False)
        assert (ended.stdout, ended.stderr) == ("5\n", "")  # nobody closed it: its end did
        with Bank(environment(tmp_path / "log", **more)) as bank:
            assert bank.balance(account) == 5
        assert b"Bob" not in (tmp_path / "log" / "events.db").read_bytes()

    def test_applications_share_a_log_of_this_process(self, tmp_path: Path) -> None:
        """The last one closes it; each has its own notifications, and an aggregate is the log's."""
        first, second = Bank(environment(tmp_path / "log")), Post({**environment("nowhere"), "POST_STATE_DIR": str(tmp_path / "log")})
        account = first.open("Bob")
        assert second.recorder.max_notification_id() is None
        second.save(Account("Eve"))
        assert [len(one.notification_log.select(1, 10)) for one in (first, second)] == [1, 1]
        assert second.repository.get(account).owner == "Bob"
        first.close()
        first.close()
        with pytest.raises(InterfaceError, match="closed"):
            first.open("Eve")
        second.save(Account("Eve"))
        second.close()
        asyncio.run(_open_and_close(tmp_path / "log"))

    async def test_a_symphony_that_is_closed_first(self, tmp_path: Path) -> None:
        """The application is told, and a Symphony cannot open what an application has open."""
        async with Symphony(tmp_path / "log"):
            bank = Bank(environment(tmp_path / "log"))
        with pytest.raises(InterfaceError, match="closed"):
            bank.open("Bob")
        bank.close()
        with Bank(environment(tmp_path / "log")), pytest.raises(LogInUseError, match="an eventsourcing application"):
            await Symphony(tmp_path / "log").setup()

    async def test_one_that_nobody_closes(self, tmp_path: Path) -> None:
        """The collector of garbage lets go of the log; a recorder in hand keeps it."""
        recorder: Any = LogFactory(environment(tmp_path / "log")).application_recorder()
        gc.collect()
        recorder.insert_events([stored(uuid4(), 1)])
        del recorder
        async with Symphony(tmp_path / "log") as symphony:
            assert symphony.log.head == 1

    def test_garbage_that_was_not_closed(self, tmp_path: Path) -> None:
        """An application that is collected closes itself, in whatever thread the collector runs in: the log's own writer, too."""
        log = use_log(str(tmp_path / "log"), AGGREGATE)
        writer = log.sequences.log
        log.sequences.append([Foreign(f"{AGGREGATE}:a", 1, "topic", b"")])
        collected = threading.Event()
        ticket = writer.submit([writer.prepare(_changed("A:1"))])

        def collect(_: Any) -> None:
            log.close()
            collected.set()

        ticket.add_done_callback(collect)
        assert collected.wait(10)
        for owner in ("Bob", "Eve", "Ann"):  # what the collector has closed lets go in its own time: the next one waits for that
            bank = Bank(environment(tmp_path / "log"))
            bank.open(owner)
            bank.myself = bank  # type: ignore[attr-defined]
            del bank
            gc.collect()
        asyncio.run(_open_and_close(tmp_path / "log"))

    def test_an_idle_application_reads_nothing_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What others have recorded since is passed over once, however often it asks."""
        with Bank(environment(tmp_path / "log")) as bank, Post(environment(tmp_path / "log")) as post:
            bank.open("Bob")
            for _ in range(30):
                post.save(Account("Eve"))
            assert bank.recorder.max_notification_id() == 1
            seen: list[int] = []
            read_back = SQLiteLogRecorder.read_back
            monkeypatch.setattr(SQLiteLogRecorder, "read_back", lambda *given, **more: seen.append(1) or read_back(*given, **more))
            monkeypatch.setattr(SQLiteLogRecorder, "read", lambda *_, **__: seen.append(1))
            for _ in range(3):
                assert bank.notification_log.select(2, 10) == []
                assert bank.recorder.max_notification_id() == 1
            assert seen == []

    def test_a_log_of_another_process(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Cannot be written, and can be read."""
        with Bank(environment(tmp_path / "log")) as bank:
            account = bank.open("Bob")
            monkeypatch.setattr("symphony_es.adapters.open_logs._open_here", lambda *_: None)  # as it is in another process
            with pytest.raises(OperationalError, match="is open in this process"):
                Bank(environment(tmp_path / "log"))
            with Bank(environment(tmp_path / "log", READ_ONLY="yes")) as reader:
                assert reader.balance(account) == 0
                bank.deposit(account, 5)
                assert reader.balance(account) == 5
                assert [found.id for found in reader.notification_log.select(1, 10)] == [1, 2]
                assert reader.recorder.max_notification_id() == 2
                for call in (lambda: reader.open("Eve"), reader.recorder.subscribe):
                    with pytest.raises(NotSupportedError, match="reading only"):
                        call()

    def test_what_other_users_could_change(self, tmp_path: Path) -> None:
        """It is refused, and the error names the variable that takes it as it is."""
        with Bank(environment(tmp_path / "log")) as bank:
            account = bank.open("Ada")
        (tmp_path / "log").chmod(0o777)
        with pytest.raises(OperationalError, match="with ALLOW_SHARED_DIRECTORY=yes"):
            Bank(environment(tmp_path / "log"))
        for more in ({}, {"READ_ONLY": "yes"}):
            with Bank(environment(tmp_path / "log", ALLOW_SHARED_DIRECTORY="yes", **more)) as bank:
                assert bank.balance(account) == 0

    @pytest.mark.parametrize(
        ("advice", "instead"),
        [
            ("or read beside it with Symphony('/a(b), c', read_only=True)", "or read beside it with READ_ONLY=yes"),
            ("use a local disk, or pass force_network_fs=True", "use a local disk, or set FORCE_NETWORK_FS=yes"),
            ("or open with ignore_anchor=True to go on", "or open with IGNORE_ANCHOR=yes to go on"),
            ("with setup(skip_damaged=True), or with read_only=True", "with SKIP_DAMAGED=yes, or with READ_ONLY=yes"),
        ],
    )
    def test_advice_names_variables(self, advice: str, instead: str) -> None:
        """An application is given no arguments."""
        with pytest.raises(OperationalError) as told, _as_persistence_error():
            raise LogUnavailableError(advice)
        assert str(told.value) == instead

    def test_an_environment_that_makes_no_sense(self, tmp_path: Path) -> None:
        """Each error says what to set, and to what."""
        with pytest.raises(InfrastructureFactoryError, match="set BANK_STATE_DIR or STATE_DIR to its directory"):
            Bank({"PERSISTENCE_MODULE": LogFactory.__module__})
        for more, message in (
            ({"ORIGINATOR_ID_TYPE": "int"}, "'uuid' or 'text', not 'int'"),
            ({"READ_ONLY": "maybe"}, "READ_ONLY is 'yes' or 'no', not 'maybe'"),
            ({"SKIP_DAMAGED": "2"}, "SKIP_DAMAGED is 'yes' or 'no', not '2'"),
            ({"APPLICATION_RECORDER_TOPIC": "eventsourcing.popo:POPOApplicationRecorder"}, "a subclass of LogApplicationRecorder"),
        ):
            with pytest.raises(InfrastructureFactoryError, match=message):
                Bank(environment(":memory:", **more))
        with LogFactory(environment(":memory:")) as made:
            with pytest.raises(NotSupportedError, match="no 'drafts'"):
                made.aggregate_recorder("drafts")
            made.close()

    def test_nobody_else_imports_the_library(self) -> None:
        """It costs those nothing who have no such application."""
        program = "import sys, symphony_es.app, symphony_es.cli.main\nprint([name for name in sys.modules if 'eventsourcing' in name])"
        ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert ended.stdout == "[]\n"


class Said(Aggregate.Event):
    """An event that says something about something."""

    topic: str


class TestTopics:
    """A log chooses no code: a topic is a class that the application has loaded, or nothing."""

    known: ClassVar[list[str]] = ["tests.adapters.bank:Account", "tests.adapters.bank:Account.Opened"]

    def test_what_is_loaded(self) -> None:
        """Classes of modules that were imported, also by another name that was registered."""
        for topic in self.known:
            check_loaded(topic)
        utils.register_topic("old_bank", sys.modules["tests.adapters.bank"])
        utils.register_topic("tests.adapters.bank:OldAccount", Account)
        try:
            check_loaded("old_bank:Account.Opened")
            check_loaded("tests.adapters.bank:OldAccount.Opened")
        finally:
            utils.clear_topic_cache()

    @pytest.mark.parametrize(
        "topic",
        ["this:d", "antigravity:x.y", "os:system", "os:nothing", "", ":", "tests.adapters.bank", "tests.adapters.bank:Account.nothing",
         "symphony_es.transfer:backup", "tests.adapters.bank:MODULE"],
    )  # fmt: skip
    def test_what_is_not(self, topic: str, tmp_path: Path) -> None:
        """Nothing is imported or called, and the error says what to do."""
        utils.clear_topic_cache()
        before = set(sys.modules)
        with pytest.raises(utils.TopicError, match=r"register_topic\(\)"):
            check_loaded(topic)
        with Bank(environment(":memory:")) as bank:
            name = uuid5(UUID(int=1), topic)
            bank.recorder.insert_events([stored(name, 1, b"{}", topic)])
            with pytest.raises(utils.TopicError):
                bank.repository.get(name)
        assert set(sys.modules) == before

    def test_what_a_state_names(self) -> None:
        """The class of the aggregate stands in the state of its first event, and in its snapshots."""
        with Bank(environment(":memory:")) as bank:
            # The second one is loaded; an object of it with a state of somebody else's would delete a file when it is collected.
            for named in ("this:d", "tempfile:_TemporaryFileCloser", "tests.adapters.bank:Bank", ""):
                for topic, state in (
                    ("eventsourcing.domain:Aggregate.Created", f'{{"originator_topic": "{named}", "timestamp": 1}}'),
                    ("eventsourcing.domain:Snapshot", f'{{"topic": "{named}", "state": {{}}, "timestamp": 1}}'),
                ):
                    with pytest.raises(utils.TopicError, match=f"'{named}'"):
                        bank.mapper.to_domain_event(stored(uuid4(), 1, state.encode(), topic))
        assert "this" not in sys.modules

    def test_fields_that_are_called_topic(self) -> None:
        """What an application's own event calls so is its own business."""
        with Bank(environment(":memory:")) as bank:
            told = Said(originator_id=uuid4(), originator_version=1, timestamp=Said.create_timestamp(), topic="the weather")
            assert bank.mapper.to_domain_event(bank.mapper.to_stored_event(told)) == told


def _changed(key: str) -> NewEvent:
    return NewEvent(entity_key=key, version=1, name="Made", changes=[(SET, (), {})], metadata=EventMetadata(), event_id=os.urandom(16))


async def _open_and_close(directory: Path) -> None:
    await (await EventLog.open(directory)).close()
