"""Objects that follow a log: whoever looks, sees all of them at the end of one commit, and never at an earlier one than before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import field
from pathlib import Path
from typing import Any

import pytest

from symphony_es import EntityRestorer, Symphony, entity
from symphony_es.core.objects.restorers import RestorationContext, UnrestoredEntity
from symphony_es.core.resume import following as following_module
from symphony_es.errors import (
    DamagedEventError,
    EntityBusyError,
    EntityNotFoundError,
    LogDamagedError,
    LogFormatError,
    LogUnavailableError,
    NotReadyError,
    RestorationError,
    StorageUnavailableError,
    SymphonyError,
)
from symphony_es.log.log import EventLog


@entity
class Scale:
    id: str = ""
    turn: int = 0
    beside: Any = None
    pans: list[Any] = field(default_factory=list)
    seen: dict[str, Any] = field(default_factory=dict)


@entity
class Beam:
    """One that looks at what it refers to when it has been restored, as an index that is kept beside the stored fields does."""

    id: str = ""
    turn: int = 0
    of: Any = None

    def __restored__(self) -> None:
        if isinstance(self.of, Scale):
            LOOKS.append((self.turn, self.of.turn))


LOOKS: list[tuple[int, int]] = []


class Weight:
    """Of a foreign class, whose restorer awaits."""

    def __init__(self, turn: int) -> None:
        self.turn = turn


class Iron(Weight):
    """The same; its restorer puts no object back, only new ones can be made."""


class SlowRestorer(EntityRestorer):
    entity_type = "Weight"  # type: ignore[assignment]
    made = Weight

    async def restore(self, entity_id: str, data: dict[str, Any], context: RestorationContext) -> Any:
        await asyncio.sleep(0.02)
        return self.made(data["turn"])


class StiffRestorer(SlowRestorer):
    entity_type = "Iron"  # type: ignore[assignment]
    made = Iron

    def reset(self, entity: Any, data: dict[str, Any]) -> None:
        raise OSError("iron does not bend")


def restorers(symphony: Symphony) -> Symphony:
    symphony.restore_manager.register_restorer(SlowRestorer())
    symphony.restore_manager.register_restorer(StiffRestorer())
    return symphony


@pytest.fixture
async def writer(tmp_path: Path) -> AsyncIterator[Symphony]:
    """A Symphony that writes, with two scales."""
    async with restorers(Symphony(tmp_path / "log")) as symphony:
        symphony.entities.add(Scale(id="a"))
        symphony.entities.add(Scale(id="b"))
        await symphony.flush()
        yield symphony


@asynccontextmanager
async def follower(writer: Symphony, look: Callable[[Symphony], Any]) -> AsyncIterator[Symphony]:
    """A reader that follows. At its end it stands where the writer does, and has been looked at all the time until then."""
    assert writer.state_dir is not None
    async with restorers(Symphony(writer.state_dir, read_only=True, follow=True)) as reader:
        looking = asyncio.create_task(_looks(reader, look))
        try:
            yield reader
            await caught_up(reader, writer)
        finally:
            looking.cancel()
            ended = (await asyncio.gather(looking, return_exceptions=True))[0]
        assert isinstance(ended, asyncio.CancelledError), ended
        look(reader)


async def caught_up(reader: Symphony, writer: Symphony) -> None:
    assert reader._following is not None
    await asyncio.wait_for(reader._following.wait_for(writer.log.head), 30)


async def _looks(reader: Symphony, look: Callable[[Symphony], Any]) -> None:
    before = 0
    while True:
        look(reader)
        now = reader.entities.get("Scale:a").turn
        assert now >= before, f"{now} was shown after {before}"
        before = now
        await asyncio.sleep(0.001)


def scale(symphony: Symphony, name: str) -> Scale:
    return symphony.entities.get(Scale, name)


async def test_two_that_change_together(writer: Symphony) -> None:
    """In every transaction one is the negative of the other, and so they are whenever somebody looks."""

    def look(reader: Symphony) -> None:
        assert scale(reader, "a").turn == -scale(reader, "b").turn

    async with follower(writer, look):
        for turn in range(1, 60):
            async with writer.transaction("Turned"):
                scale(writer, "a").turn, scale(writer, "b").turn = turn, -turn
            if turn % 7 == 0:
                await asyncio.sleep(0.01)


async def test_new_ones_and_removed_ones(writer: Symphony) -> None:
    """What comes, what refers to it, and what leaves in a transaction, come and leave together; so does one that restores slowly."""

    def look(reader: Symphony) -> None:
        turn, newest = scale(reader, "a").turn, scale(reader, "a").beside
        there = {item.id for item in reader.entities.all(Scale)} - {"a", "b"}
        assert there == ({f"n{turn}"} if turn else set())
        assert (newest.id if turn else newest) == (f"n{turn}" if turn else None)
        weights = [item.turn for item in reader.entities.all("Weight")]
        assert weights == ([turn] if turn else [])
        if turn:
            assert newest is scale(reader, f"n{turn}")
            assert newest.beside is scale(reader, "a")
            assert scale(reader, "b").pans == [newest]

    async with follower(writer, look):
        weight = None
        for turn in range(1, 12):
            async with writer.transaction("Replaced"):
                a, old = scale(writer, "a"), scale(writer, "a").beside
                a.turn = turn
                a.beside = new = writer.entities.add(Scale(id=f"n{turn}", beside=a))
                scale(writer, "b").pans = [new]
                if old is not None:
                    writer.entities.remove(old)
                if weight is not None:
                    writer.entities.remove(weight)
                weight = writer.entities.add(Weight(turn), entity_id=f"w{turn}")
            await asyncio.sleep(0.03)


async def test_one_that_only_lasts_within_what_is_read_at_once(writer: Symphony) -> None:
    """It comes and leaves between two looks: it never shows."""

    def look(reader: Symphony) -> None:
        assert reader.entities.find("Scale:short") is None

    async with follower(writer, look) as reader:
        for turn in range(1, 5):
            async with writer.transaction("Short"):
                short = writer.entities.add(Scale(id="short"))
                scale(writer, "a").beside, scale(writer, "a").turn = short, turn
                writer.entities.remove(short)
            await caught_up(reader, writer)


async def test_three_over_several_commits(writer: Symphony, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn that reads few events at once ends with a transaction, never in one; an object in a set and in a dict is the live one."""
    monkeypatch.setattr(following_module, "EVENTS_AT_ONCE", 4, raising=False)
    for name in "cd":
        writer.entities.add(Scale(id=name))
    await writer.flush()

    def look(reader: Symphony) -> None:
        a, b, c, d = (scale(reader, name) for name in "abcd")
        assert (a.turn, a.turn * 2, a.turn * 3) == (b.turn, c.turn, d.turn)
        assert a.seen == ({} if a.turn == 0 else {"of": (b if a.turn % 2 else c), "turn": a.turn})

    async with follower(writer, look):
        for turn in range(1, 40):
            async with writer.transaction("Turned"):
                a, b, c, d = (scale(writer, name) for name in "abcd")
                a.turn, b.turn, c.turn, d.turn = turn, turn, turn * 2, turn * 3
                a.seen = {"of": b if turn % 2 else c, "turn": turn}
            if turn % 9 == 0:
                await asyncio.sleep(0.15)


async def test_many_that_change_together(writer: Symphony) -> None:
    """A transaction of more entities than a page of the log has rows is seen whole."""
    for at in range(1500):
        writer.entities.add(Scale(id=f"m{at}"))
    await writer.flush()

    def look(reader: Symphony) -> None:
        turn = scale(reader, "a").turn
        assert all(scale(reader, f"m{at}").turn == turn for at in (0, 1, 700, 1001, 1499))

    async with follower(writer, look):
        for turn in range(1, 4):
            async with writer.transaction("Turned"):
                for item in writer.entities.all(Scale):
                    item.turn = turn
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("brought", ["load", "refresh"])
async def test_one_that_is_asked_for_is_where_the_others_are(writer: Symphony, brought: str) -> None:
    """A load and a refresh bring what was written before them, and all others with it."""
    late = writer.entities.add(Scale(id="late"))
    await writer.flush()

    def look(reader: Symphony) -> None:
        found = reader.entities.find("Scale:late")
        assert found is None or found.turn == scale(reader, "a").turn == scale(reader, "b").turn

    async with follower(writer, look) as reader:
        for turn in range(1, 40):
            async with writer.transaction("Turned"):
                scale(writer, "a").turn = scale(writer, "b").turn = late.turn = turn
                new = writer.entities.add(Scale(id=f"n{turn}", turn=turn))
            if brought == "load":
                assert (await reader.entities.load(Scale, new.id)).turn == turn
            else:
                await reader.refresh("Scale:late")
            assert scale(reader, "late").turn == scale(reader, "a").turn == scale(reader, "b").turn >= turn
            look(reader)
        with pytest.raises(EntityNotFoundError):
            await reader.entities.load(Scale, "nobody")


async def test_one_that_is_loaded_late(writer: Symphony) -> None:
    """A reader that has brought some types to life only loads another entity while the writer goes on: it comes as the others are."""

    def look(reader: Symphony) -> None:
        for item in reader.entities.all("Weight"):
            assert item.turn == scale(reader, "a").turn

    weight = writer.entities.add(Weight(0), entity_id="w")
    await writer.flush()

    async def write() -> None:
        for turn in range(1, 80):
            async with writer.transaction("Turned"):
                scale(writer, "a").turn = scale(writer, "b").turn = weight.turn = turn
                writer.entities.record(weight)
            await asyncio.sleep(0.002)

    async with follower(writer, look) as reader:
        await reader.resume(types=[Scale])
        writing = asyncio.create_task(write())
        await asyncio.sleep(0.02)
        assert (await reader.entities.load("Weight:w")).turn == scale(reader, "a").turn
        await writing


async def test_slow_and_stiff_restorers(writer: Symphony) -> None:
    """An object that its restorer cannot put back is made anew, also where others hold it; meanwhile its state stands for it."""
    iron = writer.entities.add(Iron(0), entity_id="i")
    scale(writer, "a").beside = iron
    await writer.flush()

    def look(reader: Symphony) -> None:
        turn, held = scale(reader, "a").turn, scale(reader, "a").beside
        assert held is reader.entities.get("Iron:i")
        assert (held.state["turn"] if isinstance(held, UnrestoredEntity) else held.turn) == turn == scale(reader, "b").turn

    async with follower(writer, look) as reader:
        for turn in range(1, 6):
            async with writer.transaction("Turned"):
                scale(writer, "a").turn = scale(writer, "b").turn = iron.turn = turn
                writer.entities.record(iron)
            await caught_up(reader, writer)
            look(reader)
        await reader.refresh("Scale:a")
        assert type(reader.entities.get("Iron:i")) is Iron


async def test_hooks_see_what_they_refer_to_as_it_is(writer: Symphony) -> None:
    """The hook of a new object, and of one that is put back, is called when all of the transaction is in place."""
    LOOKS.clear()

    def look(reader: Symphony) -> None:
        for beam in reader.entities.all(Beam):
            assert beam.turn == scale(reader, "a").turn

    async with follower(writer, look) as reader:
        beam = None
        for turn in range(1, 6):
            async with writer.transaction("Turned"):
                if beam is None:
                    beam = writer.entities.add(Beam(id="z", of=scale(writer, "a")))
                scale(writer, "a").turn = beam.turn = turn
            await caught_up(reader, writer)
        another = None
        async with writer.transaction("Turned"):
            another = writer.entities.add(Beam(id="0", turn=9, of=scale(writer, "a")))
            scale(writer, "a").turn = beam.turn = another.turn
    assert {of for of in LOOKS if of[0] != of[1]} == set()
    assert (9, 9) in LOOKS


async def test_a_resume_of_a_follower(writer: Symphony) -> None:
    """It goes on from where it was brought to, whatever that was."""
    async with follower(writer, lambda reader: None) as reader:
        for turn in range(1, 4):
            async with writer.transaction("Turned"):
                scale(writer, "a").turn, scale(writer, "b").turn = turn, -turn
            await reader.resume()
            assert (scale(reader, "a").turn, scale(reader, "b").turn) == (turn, -turn)


PASSING = [
    *(OSError("no more files"), MemoryError(), RuntimeError("can't start new thread"), asyncio.CancelledError()),
    *(LogUnavailableError("too many open files"), StorageUnavailableError("disk"), EntityBusyError("Scale:a", "a block", "following")),
]
LASTING = [
    *(LogUnavailableError("gone", lasting=True), LogFormatError("of format 9"), LogDamagedError("shorter")),
    *(DamagedEventError(1, "Scale:a", "its check value is wrong"), RestorationError("no way"), TypeError("no such argument")),
]
PROGRAMMING = [TypeError("no such argument"), KeyError("k"), RecursionError("too deep"), RuntimeError("changed while it was walked")]


class Failing:
    """Has a part of following fail while it is on, and counts how often."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, where: str, error: BaseException) -> None:
        self.on, self.times = True, 0
        owner, name = {"hooks": (following_module, "call_hooks"), "head": (EventLog, "refresh_head")}[where]
        real = getattr(owner, name)

        def fail(*given: Any) -> Any:
            following = where == "hooks" or asyncio.current_task().get_name() == "symphony-es-following"  # type: ignore[union-attr]
            if not (self.on and following):
                return real(*given)
            self.times += 1
            raise error

        monkeypatch.setattr(owner, name, fail)


class Lines:
    """A logger, of which each warning goes to a function."""

    def __init__(self, take: Callable[[str], None]) -> None:
        self.take = take

    def warning(self, event: str, **_: Any) -> None:
        self.take(event)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def plain_follower(writer: Symphony) -> AsyncIterator[Symphony]:
    assert writer.state_dir is not None
    async with Symphony(writer.state_dir, read_only=True, follow=True) as reader:
        yield reader


@pytest.mark.parametrize("where", ["hooks", "head"])
@pytest.mark.parametrize("error", PASSING, ids=lambda error: type(error).__name__)
async def test_what_may_pass_is_tried_again(writer: Symphony, monkeypatch: pytest.MonkeyPatch, error: BaseException, where: str) -> None:
    """Whoever waits goes on waiting; the failure is told until it works again, and then the objects are where the writer is."""
    async with plain_follower(writer) as reader:
        monkeypatch.setattr(following_module, "LONGEST_PAUSE_S", 0.1)
        failing = Failing(monkeypatch, where, error)
        writer.entities.add(Scale(id="late", turn=1))
        await writer.flush()
        waiting = asyncio.create_task(caught_up(reader, writer))
        await until(lambda: failing.times > 2)
        told = reader.following_failure
        assert told is error or (isinstance(told, RestorationError) and told.__cause__ is error)
        assert not waiting.done()
        failing.on = False
        await waiting
        assert scale(reader, "late").turn == 1
        await until(lambda: reader.following_failure is None)


@pytest.mark.parametrize("error", PROGRAMMING, ids=lambda error: type(error).__name__)
async def test_a_fault_of_a_program_ends_it(writer: Symphony, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """It would be the same in a second and for ever: whoever waits is told at once."""
    async with plain_follower(writer) as reader:
        failing = Failing(monkeypatch, "hooks", error)
        writer.entities.add(Scale(id="late", turn=1))
        await writer.flush()
        with pytest.raises(RestorationError, match=f"following the log failed: {type(error).__name__}") as caught:
            await caught_up(reader, writer)
        assert (caught.value.__cause__, failing.times) == (error, 1)


@pytest.mark.parametrize("brought", ["resume", "refresh", "load"])
@pytest.mark.parametrize("error", LASTING, ids=lambda error: type(error).__name__)
async def test_what_lasts_ends_it_until_it_is_set_going(
    writer: Symphony, monkeypatch: pytest.MonkeyPatch, error: Exception, brought: str
) -> None:
    """Whoever waits is told, then and later; what brings the objects to the head again has them followed again."""
    async with plain_follower(writer) as reader:
        failing = Failing(monkeypatch, "head", error)
        writer.entities.add(Scale(id="late", turn=1))
        await writer.flush()
        for _ in range(2):
            with pytest.raises(SymphonyError) as caught:
                await caught_up(reader, writer)
            assert caught.value is reader.following_failure
            assert error in (caught.value, caught.value.__cause__)
        assert failing.times == 1
        failing.on = False
        if brought == "resume":
            await reader.resume()
        elif brought == "refresh":
            await reader.refresh("Scale:a")
        else:
            await reader.entities.load("Scale:late")
        assert (reader.following_failure, scale(reader, "late").turn) == (None, 1)
        scale(writer, "late").turn = 2
        await writer.flush()
        await caught_up(reader, writer)
        assert scale(reader, "late").turn == 2


async def test_a_load_sets_it_going_at_once(writer: Symphony, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that would wait for long before it tries again does not, when it is known that it works."""
    async with plain_follower(writer) as reader:
        monkeypatch.setattr(following_module, "FIRST_PAUSE_S", 1000.0)
        monkeypatch.setattr(following_module, "LONGEST_PAUSE_S", 1000.0)
        failing = Failing(monkeypatch, "head", OSError("no file descriptors"))
        await until(lambda: failing.times)
        failing.on = False
        await reader.refresh("Scale:a")
        scale(writer, "a").turn = 3
        await writer.flush()
        await caught_up(reader, writer)
        assert scale(reader, "a").turn == 3


async def test_the_pauses_grow_and_the_warnings_are_few(writer: Symphony, monkeypatch: pytest.MonkeyPatch) -> None:
    """It warns at the first failure, and again when a minute has passed; a failure after it has worked is a first one."""
    lines: list[str] = []
    monkeypatch.setattr(following_module, "logger", Lines(lines.append))
    async with plain_follower(writer) as reader:
        monkeypatch.setattr(following_module, "LONGEST_PAUSE_S", 0.4)
        following = reader._following
        assert following is not None
        failing = Failing(monkeypatch, "head", OSError("no file descriptors"))
        await until(lambda: failing.times > 3)
        assert following._pause_s == 0.4
        assert lines == ["following_interrupted"]
        monkeypatch.setattr(following_module, "WARN_EACH_S", 0.0)
        following._warn_at = 0.0
        await until(lambda: len(lines) > 2)
        failing.on = False
        await until(lambda: reader.following_failure is None)
        assert following._pause_s == 0.0


@pytest.mark.parametrize("error", [OSError("no file descriptors"), LogDamagedError("shorter")])
async def test_a_log_line_that_fails_keeps_nobody_waiting(writer: Symphony, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """A log handler that raises as well neither ends it, nor leaves those waiting who are to be told of its end."""

    def no_line(_: str) -> None:
        raise OSError("the disk of the log lines is full")

    async with plain_follower(writer) as reader:
        monkeypatch.setattr(following_module, "logger", Lines(no_line))
        failing = Failing(monkeypatch, "head", error)
        scale(writer, "a").turn = 3
        await writer.flush()
        waiting = asyncio.create_task(caught_up(reader, writer))
        await until(lambda: failing.times)
        failing.on = False
        if isinstance(error, LogDamagedError):
            with pytest.raises(LogDamagedError):
                await waiting
        else:
            await waiting
            assert scale(reader, "a").turn == 3


async def test_whoever_waits_is_told_of_the_end(writer: Symphony) -> None:
    """A Symphony that is closed follows nothing any more."""
    async with plain_follower(writer) as reader:
        assert reader._following is not None
        waiting = asyncio.create_task(reader._following.wait_for(writer.log.head + 100))
        await asyncio.sleep(0.05)
    with pytest.raises(NotReadyError):
        await asyncio.wait_for(waiting, 30)


async def test_a_log_that_is_gone_ends_it(writer: Symphony) -> None:
    """Another file may stand in its place, which nobody has asked to follow."""
    async with plain_follower(writer) as reader:
        assert writer.state_dir is not None
        (Path(writer.state_dir) / "events.db").rename(Path(writer.state_dir) / "moved.db")
        await until(lambda: reader.following_failure)
        assert reader._following is not None
        with pytest.raises(LogUnavailableError, match="deleted, moved or replaced"):
            await asyncio.wait_for(reader._following.wait_for(writer.log.head + 1), 30)
        (Path(writer.state_dir) / "moved.db").rename(Path(writer.state_dir) / "events.db")


@entity
class Plug:
    """One whose hook refuses some of its states."""

    id: str = ""
    port: int = 0
    other: Any = None

    def __restored__(self) -> None:
        if self.port < 0:
            raise ValueError(f"no port {self.port}")


@pytest.mark.parametrize("resumed", [False, True])
async def test_one_whose_hook_has_failed_is_tried_again_when_it_changes(writer: Symphony, resumed: bool) -> None:
    """What stands for it meanwhile has its state, stays one object, and gives way where others hold it."""
    plug = writer.entities.add(Plug(id="p", port=1))
    scale(writer, "a").beside = plug
    await writer.flush()
    async with plain_follower(writer) as reader:

        async def written(port: int) -> Any:
            plug.port = port
            await writer.flush()
            await caught_up(reader, writer)
            assert scale(reader, "a").beside is reader.entities.get("Plug:p")
            return reader.entities.get("Plug:p")

        assert type(await written(2)) is Plug
        for bad in (-1, -3):
            stands = await written(bad)
            assert isinstance(stands, UnrestoredEntity)
            assert (stands.state["port"], f"no port {bad}" in stands.reason) == (bad, True)
            again = await written(bad - 1)
            assert again is stands
            assert (stands.state["port"], f"no port {bad - 1}" in stands.reason) == (bad - 1, True)
            if resumed:
                await reader.resume()
                assert isinstance(reader.entities.get("Plug:p"), UnrestoredEntity)
            good = await written(5)
            assert (type(good), good.port) == (Plug, 5)
            assert await written(6) is good
