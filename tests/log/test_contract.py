"""What every log does: one suite over the memory log, which is the specification, and the log in SQLite."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest

from symphony_es.errors import (
    ConcurrencyError,
    LimitExceededError,
    LogUnavailableError,
    NotReadyError,
    PositionNotFoundError,
    UnstorableValueError,
)
from symphony_es.events.event import Event, EventMetadata, NewEvent
from symphony_es.events.fold import Fold
from symphony_es.events.values import Limits
from symphony_es.log import reading as reading_module
from symphony_es.log import writer as writer_module
from symphony_es.log.log import EventLog
from symphony_es.log.memory import MemoryLogRecorder
from symphony_es.log.recorder import LogRecorder
from symphony_es.log.sqlite import SQLiteLogRecorder


def new(key: str, version: int, name: str = "Changed", value: Any = None, transaction: bytes | None = None) -> NewEvent:
    changes = [(0, (), {"n": value})] if version == 1 else [(0, ("n",), value)]
    return NewEvent(
        entity_key=key,
        version=version,
        name=name,
        changes=changes,
        metadata=EventMetadata(),
        event_id=os.urandom(16),
        transaction_id=transaction,
    )


Opener = Callable[..., Awaitable[EventLog]]


@pytest.fixture(params=["memory", "sqlite"])
async def open_log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opener]:
    opened: list[EventLog] = []

    async def opener(**options: Any) -> EventLog:
        if request.param == "memory":
            opened.append(EventLog.in_memory(**options))
        else:
            opened.append(await EventLog.open(tmp_path / "log", **options))
        return opened[-1]

    yield opener
    for log in opened:
        await log.close()


@pytest.fixture
async def log(open_log: Opener) -> EventLog:
    return await open_log()


async def everything(log: EventLog, **options: Any) -> list[Event]:
    return [event async for page in log.read(**options) for event in page]


class TestAppending:
    async def test_positions_and_versions_count_from_one_without_gaps(self, log: EventLog) -> None:
        """Several entities in one append stand in a row, with one time and one transaction."""
        assert log.head == 0
        first = new("A:1", 1, value=1)
        appended = await log.append([first, new("B:1", 1, transaction=first.event_id), new("A:1", 2, transaction=first.event_id)])
        assert (appended.first, appended.last, log.head) == (1, 3, 3)
        events = await everything(log)
        assert [(e.position, e.entity_key, e.version) for e in events] == [(1, "A:1", 1), (2, "B:1", 1), (3, "A:1", 2)]
        assert {e.time_ns for e in events} == {appended.time_ns}
        assert {e.transaction_id for e in events} == {first.event_id}
        assert await log.transaction_bounds(2) == (1, 3)

    @pytest.mark.parametrize("version", [1, 2, 4, 0])
    async def test_a_version_that_is_not_the_next_is_a_conflict(self, log: EventLog, version: int) -> None:
        """The error names entity, expected and actual version; nothing is appended, neither of the others of the group."""
        await log.append([new("A:1", 1), new("A:1", 2)])
        with pytest.raises(ConcurrencyError) as caught:
            await log.append([new("B:1", 1), new("A:1", version)])
        assert (caught.value.entity, caught.value.expected, caught.value.actual) == ("A:1", version - 1, 2)
        assert log.head == 2
        assert log.entity_status_now("B:1") == (0, False)
        assert (await log.append([new("A:1", 3)])).first == 3

    async def test_in_one_commit_only_the_guilty_fails(self, log: EventLog) -> None:
        """Requests that share a commit with a conflicting one succeed, in order, without a gap."""
        tickets = [log.submit([log.prepare(new(f"E:{number}", 1 if number % 3 else 7))]) for number in range(1, 100)]
        outcomes = []
        for ticket in tickets:
            try:
                outcomes.append((await ticket.wait()).first)
            except ConcurrencyError:
                outcomes.append(None)
        assert [outcome is None for outcome in outcomes] == [number % 3 == 0 for number in range(1, 100)]
        assert [outcome for outcome in outcomes if outcome] == list(range(1, 67))

    async def test_appends_that_wait_share_a_commit(self, log: EventLog) -> None:
        """200 concurrent appends need far fewer commits, and each gets its own position."""
        results = await asyncio.gather(*(log.append([new(f"E:{number}", 1)]) for number in range(200)))
        assert sorted(result.first for result in results) == list(range(1, 201))
        assert log.commits < 100

    async def test_time_never_goes_back(self, open_log: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
        """A clock that jumps back does not take the log's time with it; at(datetime) finds the position before the first later event."""
        log = await open_log()
        times = iter([100, 50, 300])
        assert log._writer is not None
        monkeypatch.setattr(log._writer, "_clock_ns", lambda: next(times))
        for version in (1, 2, 3):
            await log.append([new("A:1", version)])
        assert [event.time_ns for event in await everything(log)] == [100, 100, 300]
        assert [await log.position_at(time) for time in (99, 100, 299, 300, 999)] == [0, 2, 2, 3, 3]

    async def test_what_cannot_be_stored_is_refused_before_anything_is_appended(self, open_log: Opener) -> None:
        """A value that is no plain data, and a body beyond the limit."""
        log = await open_log(limits=Limits(max_body_bytes=1000))
        with pytest.raises(UnstorableValueError, match="A:1"):
            await log.append([new("B:1", 1), new("A:1", 1, value=object())])
        with pytest.raises(LimitExceededError):
            await log.append([new("A:1", 1, value="x" * 1000)])
        assert log.head == 0

    async def test_cancelling_the_wait_takes_nothing_back(self, log: EventLog) -> None:
        """The append is in the log whole, and later ones work."""
        task = asyncio.create_task(log.append([new("A:1", 1), new("B:1", 1)]))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await log.append([new("A:1", 2)])
        assert log.head == 3

    async def test_callers_wait_while_too_much_is_pending(self, log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
        """room() returns when there is room again."""
        monkeypatch.setattr(writer_module, "MAX_PENDING_EVENTS", 10)
        tickets = [log.submit([log.prepare(new(f"E:{number}", 1))]) for number in range(500)]
        await log.room()
        assert log.has_room()
        await log.append([new("A:1", 1)])
        assert all([(await ticket.wait()).first for ticket in tickets])

    async def test_tickets_tell_their_outcome_once(self, log: EventLog) -> None:
        """result, wait and callbacks agree; a callback added late is called at once."""
        ticket = log.submit([log.prepare(new("A:1", 1))])
        seen: list[Any] = []
        ticket.add_done_callback(seen.append)
        await ticket.wait()
        await asyncio.sleep(0)
        assert ticket.done()
        ticket.add_done_callback(seen.append)
        assert seen == [ticket, ticket]
        assert ticket.result().first == 1

    async def test_a_callback_that_fails_keeps_nobody_waiting(self, log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
        """The loop is told of it; the others of the same commit are told as if nothing had happened."""
        gate, real = threading.Event(), log._recorder.append_groups

        def gated(groups: Any, time_ns: int) -> Any:
            assert gate.wait(5)
            return real(groups, time_ns)

        monkeypatch.setattr(log._recorder, "append_groups", gated)
        told: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        tickets = [log.submit([log.prepare(new(f"A:{number}", 1))]) for number in range(4)]
        tickets[1].add_done_callback(lambda ticket: 1 // 0)
        waits = [asyncio.ensure_future(ticket.wait()) for ticket in tickets]
        await asyncio.sleep(0)
        gate.set()
        await asyncio.wait_for(asyncio.gather(*waits), 10)
        await asyncio.sleep(0)
        assert [type(context["exception"]) for context in told] == [ZeroDivisionError]

    async def test_a_callback_that_fails_in_the_writers_thread_is_survived(self, log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
        """One that is added where no loop runs, before the outcome is known, is called there; the log goes on."""
        gate, real, called = threading.Event(), log._recorder.append_groups, threading.Event()

        def gated(groups: Any, time_ns: int) -> Any:
            assert gate.wait(5)
            return real(groups, time_ns)

        def failing(ticket: Any) -> None:
            called.set()
            raise ZeroDivisionError

        monkeypatch.setattr(log._recorder, "append_groups", gated)
        ticket = log.submit([log.prepare(new("A:1", 1))])
        await asyncio.to_thread(ticket.add_done_callback, failing)
        gate.set()
        assert await asyncio.to_thread(called.wait, 10)
        await asyncio.wait_for(log.append([new("B:1", 1)]), 10)

    async def test_threads_and_other_loops_append_too(self, log: EventLog) -> None:
        """submit is safe from plain threads; a ticket can be waited for in another loop."""

        def plain() -> None:
            ticket = log.submit([log.prepare(new("T:1", 1))])
            done: list[Any] = []
            ticket.add_done_callback(done.append)
            asyncio.run(_wait(ticket))
            asyncio.run(_append(log))

        await asyncio.gather(asyncio.to_thread(plain), log.append([new("A:1", 1)]))
        assert {event.entity_key for event in await everything(log)} == {"T:1", "L:1", "A:1"}

    async def test_a_store_that_fails_oddly_stops_the_log(self, log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
        """An unexpected error reaches the caller, and nothing is written any more: the outcome is unknown."""

        def broken(*arguments: Any) -> Any:
            raise MemoryError("odd")

        with monkeypatch.context() as patch:
            patch.setattr(log._recorder, "append_groups", broken)
            with pytest.raises(LogUnavailableError, match="unexpected error") as caught:
                await log.append([new("A:1", 1)])
        assert caught.value.outcome_unknown
        with pytest.raises(LogUnavailableError):
            await log.append([new("A:1", 1)])
        assert log.head == 0


async def _wait(ticket: Any) -> None:
    await ticket.wait()


async def _append(log: EventLog) -> None:
    await log.append([new("L:1", 1)])


class TestCancelling:
    @pytest.mark.parametrize("room", [False, True])
    async def test_at_every_suspension_point(self, log: EventLog, monkeypatch: pytest.MonkeyPatch, room: bool) -> None:
        """An append that is cancelled is in the log whole or not at all; nothing stays locked, and the next one works."""
        if room:
            monkeypatch.setattr(writer_module, "MAX_PENDING_EVENTS", 1)
        gate, real = threading.Event(), log._recorder.append_groups

        def gated(groups: Any, time_ns: int) -> Any:
            assert gate.wait(5)
            return real(groups, time_ns)

        monkeypatch.setattr(log._recorder, "append_groups", gated)
        point, finished = 1, False
        while not finished:
            gate.clear()
            before = [log.submit([log.prepare(new(f"Before:{point}.{number}", 1))]) for number in range(3)]
            keys = [f"A:{point}", f"B:{point}"]
            finished = await cancelled_at(log.append([new(key, 1) for key in keys]), point, gate)
            async with asyncio.timeout(5):
                await log.append([new(f"After:{point}", 1)])
                for ticket in before:
                    await ticket.wait()
            present = [log.entity_status_now(key)[0] for key in keys]
            assert present in ([0, 0], [1, 1])
            assert present == [1, 1] or not finished
            point += 1
        assert point > 2, "there was nothing to cancel"
        assert log.has_room()


async def cancelled_at(coroutine: Coroutine[Any, Any, Any], point: int, gate: threading.Event) -> bool:
    """Run a coroutine and cancel it where it waits for the `point`-th time; whether it finished before that.

    The gate opens once it has waited, so that it waits at least once.
    """
    outcome: list[bool] = []
    await _Cancelled(coroutine, point, outcome, gate)
    return outcome[0]


class _Cancelled:
    def __init__(self, coroutine: Coroutine[Any, Any, Any], point: int, outcome: list[bool], gate: threading.Event) -> None:
        self.coroutine, self.point, self.outcome, self.gate = coroutine, point, outcome, gate

    def __await__(self) -> Generator[Any, Any, None]:
        for waited in count(1):
            try:
                future = self.coroutine.send(None)
            except StopIteration:
                self.outcome.append(True)
                return
            if waited == self.point:
                with pytest.raises(asyncio.CancelledError):
                    self.coroutine.throw(asyncio.CancelledError())
                if future is not None:
                    future.cancel()
                    future._asyncio_future_blocking = False
                self.outcome.append(False)
                self.gate.set()
                return
            self.gate.set()
            yield future


class TestManyAtOnce:
    async def test_others_have_their_turn_while_many_events_are_encoded(self, log: EventLog) -> None:
        """A large transaction does not hold the event loop up until all of it is encoded, and is one transaction all the same."""
        turns: list[int] = []
        encoded = 0
        real = log.prepare

        def counted(event: NewEvent) -> Any:
            nonlocal encoded
            encoded += 1
            return real(event)

        async def other() -> None:
            while encoded < 2000:
                turns.append(encoded)
                await asyncio.sleep(0)

        log.prepare = counted  # type: ignore[method-assign]
        events = [new(f"A:{number}", 1, value=number) for number in range(2000)]
        appended, _ = await asyncio.gather(log.append(events), other())
        assert (appended.first, appended.last) == (1, 2000)
        assert len(turns) >= 7
        assert max(later - earlier for earlier, later in pairwise([0, *turns, 2000])) <= 256


class TestReading:
    @pytest.fixture
    async def full(self, log: EventLog) -> EventLog:
        for number in range(1, 31):
            await log.append([new(f"{'AB'[number % 2]}:{number % 3}", (number - 1) // 6 + 1, f"Name{number % 5}", number)])
        return log

    async def test_pages_are_complete_and_in_order(self, full: EventLog) -> None:
        """Whatever the page's size, every event comes once."""
        for page in (1, 7, 30, 100):
            assert [event.position for event in await everything(full, page=page)] == list(range(1, 31))
        assert [event.position for event in await everything(full, after=10, until=15)] == [11, 12, 13, 14, 15]
        assert await everything(full, after=30) == []

    async def test_filters(self, full: EventLog) -> None:
        """By name, by key range, and combined with positions; the order is that of positions."""
        assert {event.name for event in await everything(full, names=["Name1", "Name2"])} == {"Name1", "Name2"}
        rows = await full.read_rows(key_range=("A:", "A;"))
        assert [row[0] for row in rows] == list(range(2, 31, 2))
        rows = await full.read_rows(after=4, until=20, key_range=("A:1", "A:2"), limit=2)
        assert [(row[0], row[1]) for row in rows] == [(10, "A:1"), (16, "A:1")]
        assert await full.read_rows(names=("Never",)) == []

    async def test_one_entity(self, full: EventLog) -> None:
        """Its events only, by version; up to a position."""
        events = await full.read_entity("A:2")
        assert [event.version for event in events] == [1, 2, 3, 4, 5]
        assert [event.version for event in await full.read_entity("A:2", after_version=3)] == [4, 5]
        assert [event.version for event in await full.read_entity("A:2", until_position=events[1].position)] == [1, 2]
        assert len(await full.read_entity_rows("A:2", limit=2)) == 2
        assert await full.read_entity("Never:1") == []
        assert full.entity_status_now("A:2") == (5, True)
        assert full.entity_status_now("Never:1") == (0, False)

    async def test_some_entities_are_folded_each_from_where_its_fold_ends(self, log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
        """As the fold of all events has them at that position, by however many calls: of many entities, or of many events of one."""
        monkeypatch.setattr(reading_module, "PAGE", 3)
        monkeypatch.setattr(reading_module, "REPLAYED_PAGES", 20)
        for number in range(60):
            await log.append([new(f"A:{number % 6}", number // 6 + 1, value=number)])
        early, whole = Fold(), Fold()
        early.apply_rows(await log.read_rows(until=20))
        whole.apply_rows(await log.read_rows(until=50))
        folds = {key: Fold({key: early.states[key]}, 20) for key in ("A:1", "A:3")} | {key: Fold() for key in ("A:5", "Never:1")}
        await log.replay_entities(folds, 50)
        assert folds.pop("Never:1").states == {}
        for key, fold in folds.items():
            state, same = fold.states[key], whole.states[key]
            assert (state.data, state.version, state.position) == (same.data, same.version, same.position)

    async def test_a_deleted_entity_has_a_version_and_no_life(self, log: EventLog) -> None:
        """Until it is created again."""
        gone = NewEvent(entity_key="A:1", version=2, name="Deleted", changes=[(4, ())], metadata=EventMetadata(), event_id=os.urandom(16))
        await log.append([new("A:1", 1), gone])
        assert log.entity_status_now("A:1") == (2, False)
        await log.append([new("A:1", 3)])
        assert log.entity_status_now("A:1") == (3, True)

    async def test_positions_that_are_not_there(self, full: EventLog) -> None:
        """A typed error that names the head."""
        for position in (0, 31, -1):
            with pytest.raises(PositionNotFoundError, match="head is 30"):
                await full.row_at(position)

    async def test_weight_is_the_bytes_after_a_position(self, full: EventLog) -> None:
        """Exactly those of the states; the size on disk is at least that."""
        rows = await full.read_rows(after=20)
        assert await full.weight(20) == sum(len(row[4]) for row in rows)
        assert await full.weight(30) == 0
        assert await full.weight(20, 23) == sum(len(row[4]) for row in rows[:3])
        assert await full.size_bytes() >= await full.weight(0)


class TestFollowing:
    async def test_history_first_then_what_is_appended_each_once(self, log: EventLog) -> None:
        """No event twice, none missing, in order, while appends go on."""
        for version in range(1, 51):
            await log.append([new("A:1", version)])
        seen: list[int] = []

        async def follow() -> None:
            async for events in log.follow(after=10):
                seen.extend(event.position for event in events)
                if seen and seen[-1] >= 250:
                    return

        task = asyncio.create_task(follow())
        await asyncio.gather(*(log.append([new(f"B:{number}", 1)]) for number in range(200)))
        async with asyncio.timeout(5):
            await task
        assert seen == list(range(11, 251))

    async def test_filtered_following_passes_over_the_rest(self, log: EventLog) -> None:
        """Only the wanted names come, and the follower wakes for them."""
        await log.append([new("A:1", 1, "Other")])
        follower = log.follow(names=["Wanted"])
        waiting = asyncio.ensure_future(anext(follower))
        await asyncio.sleep(0)
        await log.append([new("A:1", 2, "Other")])
        await log.append([new("A:1", 3, "Wanted")])
        async with asyncio.timeout(5):
            assert [event.position for event in await waiting] == [3]
        await follower.aclose()

    async def test_waiting_for_a_position(self, log: EventLog) -> None:
        """Returns when it is durable; TimeoutError when it is not."""
        waiting = asyncio.ensure_future(log.wait_for(2, timeout_s=5))
        await log.append([new("A:1", 1)])
        assert not waiting.done()
        await log.append([new("A:1", 2)])
        await waiting
        with pytest.raises(TimeoutError):
            await log.wait_for(3, timeout_s=0.01)

    async def test_a_follower_ends_with_the_log(self, log: EventLog) -> None:
        """Closing wakes it."""
        follower = asyncio.ensure_future(_drain(log))
        await asyncio.sleep(0)
        await log.close()
        async with asyncio.timeout(5):
            assert await follower == 0


async def _drain(log: EventLog) -> int:
    return sum([len(events) async for events in log.follow()])


class TestClosing:
    async def test_everything_submitted_is_written(self, open_log: Opener) -> None:
        """And closing again, or using it afterwards, is harmless or a typed error."""
        log = await open_log()
        tickets = [log.submit([log.prepare(new(f"E:{number}", 1))]) for number in range(300)]
        await log.close()
        assert [ticket.result().first for ticket in tickets] == list(range(1, 301))
        await log.close()
        with pytest.raises(NotReadyError):
            log.submit([log.prepare(new("A:1", 1))])
        with pytest.raises(NotReadyError):
            await log.read_rows()


class TestMemoryBound:
    async def test_older_events_become_a_base_state(self) -> None:
        """Reading before it is a typed error; base and what is kept fold to the same as everything."""
        log, whole = EventLog.in_memory(max_events=40), EventLog.in_memory()
        for number in range(200):
            event = new(f"E:{number % 7}", number // 7 + 1, value=number)
            await log.append([event])
            await whole.append([event])
        base = log.base
        assert base is not None
        assert 150 <= base.position <= 170
        with pytest.raises(PositionNotFoundError, match="memory_events"):
            await log.read_rows(after=base.position - 1)
        with pytest.raises(PositionNotFoundError):
            await log.read_entity("E:1")
        base.apply_rows(await log.read_rows(after=base.position))
        full = Fold()
        full.apply_rows(await whole.read_rows())
        assert {k: (s.data, s.version) for k, s in base.states.items()} == {k: (s.data, s.version) for k, s in full.states.items()}
        assert await log.position_at(0) == log.base.position  # type: ignore[union-attr]
        for number in range(7):
            assert log.entity_status_now(f"E:{number}") == whole.entity_status_now(f"E:{number}")
        await log.append([new("Rare:1", 1)])
        for number in range(100):
            await log.append([new("E:0", 30 + number)])
        assert log.entity_status_now("Rare:1") == (1, True)
        await log.close()
        await whole.close()


def test_the_implementations_share_the_port(tmp_path: Path) -> None:
    """Every method and attribute of the port is there, and nothing above the stores asks which one it has."""
    wanted = {name for name in (*vars(LogRecorder), *LogRecorder.__annotations__) if not name.startswith("_")}
    stores: tuple[LogRecorder, ...] = (MemoryLogRecorder(), SQLiteLogRecorder(tmp_path / "events.db"))
    for store in stores:
        assert wanted <= set(dir(store))
        store.close()
