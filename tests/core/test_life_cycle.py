"""Opening and closing: again in one process, in later event loops, half way, in too little time."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import inspect
import os
import sys
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from symphony_es import Symphony, entity
from symphony_es.core.past import opening
from symphony_es.errors import (
    CloseTimeoutError,
    ConfigurationError,
    DetachedEntityError,
    LogInUseError,
    LogUnavailableError,
    NotReadyError,
    SymphonyError,
)
from symphony_es.log import directory as directory_module
from symphony_es.log.log import EventLog
from symphony_es.log.sqlite import SQLiteLogRecorder
from tests.core.programs import HEAD, run


@entity
class Page:
    id: str = ""
    number: int = 0


def on_disk(directory: Path, **settings: Any) -> Symphony:
    """A Symphony that keeps its log there."""
    return Symphony({"state_dir": directory, **settings}, persistence_enabled=True)


async def number(directory: Path) -> int:
    """What the log says of the one page."""
    async with on_disk(directory) as symphony:
        await symphony.resume()
        page: Page = symphony.entities.get("Page:a")
        return page.number


# -- again in one process -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"clean\n"])
async def test_one_who_is_just_opening_or_closing_is_waited_for(tmp_path: Path, content: bytes) -> None:
    """For a moment: whoever closes has let go by then, whoever opens has written who it is."""
    async with on_disk(tmp_path / "log"):
        pass
    held = os.open(tmp_path / "log" / "LOCK", os.O_RDWR)
    os.ftruncate(held, 0)
    os.pwrite(held, content, 0)
    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    asyncio.get_running_loop().call_later(0.1, fcntl.flock, held, fcntl.LOCK_UN)
    async with on_disk(tmp_path / "log"):
        pass
    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with pytest.raises(LogInUseError, match="just opening or closing"):
        await on_disk(tmp_path / "log").setup()
    os.close(held)


async def test_who_is_refused_while_this_process_lets_go_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory is this process's until the lock is free: what waits for its own then waits, instead of failing."""
    told: list[int | None] = []
    unlock = directory_module.unlock

    def asked(descriptor: int) -> None:
        with pytest.raises(LogInUseError) as refused:
            directory_module.DirectoryLock(tmp_path / "log")
        told.append(refused.value.process)
        unlock(descriptor)

    async with on_disk(tmp_path / "log"):
        monkeypatch.setattr(directory_module, "unlock", asked)
    assert told == [os.getpid()]


async def test_a_directory_that_is_open_here_names_this_process_and_the_way(tmp_path: Path) -> None:
    """The error says that this process has it, and the call that it names finds the Symphony."""
    async with on_disk(tmp_path / "log") as first:
        with pytest.raises(LogInUseError, match="in this process") as caught:
            await on_disk(tmp_path / "log").setup()
        assert caught.value.process == os.getpid()
        assert f"Symphony.opened({str(tmp_path / 'log')!r})" in str(caught.value)
        assert Symphony.opened(tmp_path / "log") is first
        (tmp_path / "link").symlink_to(tmp_path / "log")
        assert Symphony.opened(str(tmp_path / "link")) is first
        await Symphony.opened(tmp_path / "log").close()
        async with on_disk(tmp_path / "log") as second:
            assert Symphony.opened(tmp_path / "log") is second
    with pytest.raises(NotReadyError):
        Symphony.opened(tmp_path / "log")


@pytest.mark.parametrize("missing", ["log", "nowhere/log"])
def test_what_is_not_open_is_not_found(tmp_path: Path, missing: str) -> None:
    """A typed error, also where there is no such directory."""
    with pytest.raises(NotReadyError, match=r"await symphony\.setup"):
        Symphony.opened(tmp_path / missing)


async def test_a_process_that_holds_the_log_is_named(tmp_path: Path) -> None:
    """The other process's number, and the way to read beside it; not that of a process which has ended."""
    program = f"""{HEAD}
async def main():
    await symphony().setup()
    print(os.getpid(), flush=True)
    sys.stdin.read(1)
    os._exit(0)
asyncio.run(main())
"""
    for _ in range(2):  # the second time the directory was left open by the first
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, str(tmp_path / "log"),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)),
        )  # fmt: skip
        assert child.stdout is not None
        pid = int(await child.stdout.readline())
        with pytest.raises(LogInUseError, match="read_only=True") as caught:
            await on_disk(tmp_path / "log").setup()
        assert caught.value.process == pid
        await child.communicate(b"x")


async def set_up(names: dict[str, Any], directory: Path) -> None:
    """A notebook's cell."""
    names["symphony"] = on_disk(directory)
    await names["symphony"].setup(resume="latest")
    names["page"] = names["symphony"].entities.find("Page:a") or names["symphony"].entities.add(Page(id="a"))


@pytest.mark.parametrize("flushes", [True, False])
async def test_a_cell_that_opens_can_be_run_again(tmp_path: Path, flushes: bool) -> None:
    """The variable is bound anew: what the earlier Symphony had is stored, flushed or not, and its log is let go of."""
    names: dict[str, Any] = {}
    for time in range(4):
        await set_up(names, tmp_path / "log")
        assert names["page"].number == time
        names["page"].number += 1
        if flushes:
            await names["symphony"].flush()
    await names["symphony"].close()
    assert await number(tmp_path / "log") == 4


async def test_a_symphony_that_something_holds_is_not_pushed_aside(tmp_path: Path) -> None:
    """A cell run again while the first result is held, as a notebook's list of results does: the error names it."""
    names: dict[str, Any] = {}
    await set_up(names, tmp_path / "log")
    held = [names["symphony"]]
    with pytest.raises(LogInUseError, match=r"Symphony\.opened"):
        await set_up(names, tmp_path / "log")
    held[0].entities.get("Page:a").number = 3
    await Symphony.opened(tmp_path / "log").close()
    await set_up(names, tmp_path / "log")
    assert names["page"].number == 3
    await names["symphony"].close()


HOLDERS = {
    "nothing": lambda symphony: None,
    "an entity": lambda symphony: symphony.entities.find("Page:a"),
    "the log": lambda symphony: symphony.log,
    "a task that has ended": lambda symphony: asyncio.ensure_future(asyncio.sleep(0)),
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("used", ["barely", "much"])
async def test_a_collected_symphony_lets_go(tmp_path: Path, holder: str, used: str) -> None:
    """Neither threads nor loops keep it; its entities say that it has ended."""
    symphony = on_disk(tmp_path / "log")
    await symphony.setup()
    page = symphony.entities.add(Page(id="a"))
    if used == "much":
        async with symphony.transaction("Numbered"):
            page.number = 1
        await symphony.create_checkpoint("c")
        await symphony.resume()
        await symphony.history("Page:a")
        await symphony.audit.find(entity="Page:a")
        await symphony.at("latest")
        page = symphony.entities.get("Page:a")
    page.number = 2
    kept = HOLDERS[holder](symphony)
    gone = weakref.ref(symphony)
    del symphony
    gc.collect()
    assert gone() is None
    assert await number(tmp_path / "log") == 2
    with pytest.raises(DetachedEntityError, match="without close"):
        page.number = 3
    del kept


async def test_a_facade_keeps_its_symphony(tmp_path: Path) -> None:
    """Whoever holds something that needs the Symphony holds the Symphony."""
    entities = (await on_disk(tmp_path / "log").setup()).entities
    gc.collect()
    entities.add(Page(id="a", number=1))
    await Symphony.opened(tmp_path / "log").close()
    assert await number(tmp_path / "log") == 1


# -- later loops ----------------------------------------------------------------------------------------------------------


def in_loops(directory: Path, between: str) -> None:
    symphony = on_disk(directory)
    asyncio.run(symphony.setup())

    async def use() -> None:
        page = symphony.entities.find("Page:a") or symphony.entities.add(Page(id="a"))
        page.number += 1
        if between == "checkpoint":
            await symphony.create_checkpoint("c")
        elif between == "flush":
            await symphony.flush()
        elif between == "resume":
            await asyncio.gather(symphony.resume(), symphony.resume())
        elif between == "history":
            await symphony.history(page)
        elif between == "large":
            symphony.entities.add(Page(id="x" * 200 + str(page.number)))
            for n in range(600):
                symphony.entities.add(Page(id=f"{page.number}-{n}"))
            await symphony.create_checkpoint("c")

    for _ in range(3):
        asyncio.run(use())
    asyncio.run(symphony.close())
    asyncio.run(symphony.close())
    assert asyncio.run(number(directory)) == 3


@pytest.mark.parametrize("between", ["nothing", "flush", "checkpoint", "resume", "history", "large"])
async def test_one_symphony_in_several_loops(tmp_path: Path, between: str) -> None:
    """Opened in one, used in three, closed in another; what each left behind, cancelled or not begun, is in nobody's way."""
    await asyncio.to_thread(in_loops, tmp_path / "log", between)


async def test_a_run_whose_loop_has_ended_is_in_nobodys_way(tmp_path: Path) -> None:
    """Closing in a later loop waits for no task of the loop that was closed with it."""
    program = """
import logging
logging.disable()  # asyncio tells of tasks that nobody ends
async def begin():
    await s.setup()
    await s.workflows.start(s.build_workflow().create("Waits").add_wait("later", within_s=1000).build())
    await asyncio.sleep(0)
s = symphony()
loop = asyncio.new_event_loop()
loop.run_until_complete(begin())
loop.close()
asyncio.run(s.close(timeout_s=20))
print("closed", flush=True)
os._exit(0)
"""
    result = await run(program, tmp_path / "log")
    assert result.stdout == "closed\n", result.stderr


# -- half way -------------------------------------------------------------------------------------------------------------


async def test_setup_and_close_can_be_repeated(tmp_path: Path) -> None:
    """Also beside each other; a Symphony that was closed can be opened again."""
    symphony = on_disk(tmp_path / "log")
    for n in range(3):
        opened = await asyncio.gather(*(symphony.setup() for _ in range(3)))
        assert {id(one) for one in opened} == {id(symphony)}
        symphony.entities.add(Page(id=str(n)))
        await asyncio.gather(*(symphony.close() for _ in range(3)))
        await symphony.close()
    async with on_disk(tmp_path / "log") as again:
        await again.resume()
        assert len(again.entities.all("Page")) == 3


@pytest.mark.parametrize("turns", range(0, 12))
async def test_a_setup_that_is_cancelled_leaves_the_directory_free(tmp_path: Path, turns: int) -> None:
    """At whatever point; another Symphony, or the same one, opens it."""
    async with on_disk(tmp_path / "log") as symphony:
        symphony.entities.add(Page(id="a", number=1))
    symphony = on_disk(tmp_path / "log", resume="latest")
    task = asyncio.ensure_future(symphony.setup())
    for _ in range(turns):
        await asyncio.sleep(0)
        if task.done():
            break
    task.cancel()
    await asyncio.wait([task])
    await symphony.close()
    assert await number(tmp_path / "log") == 1


@pytest.mark.parametrize("breaks", ["snapshots", "resume", "settings", "populate"])
async def test_a_setup_that_fails_leaves_the_directory_free(tmp_path: Path, breaks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is told, the lock is not kept, and the same Symphony can be set up again."""
    async with on_disk(tmp_path / "log") as symphony:
        symphony.entities.add(Page(id="a", number=1))
    symphony = on_disk(tmp_path / "log")

    def refuse(*_: object, **__: object) -> None:
        raise LogUnavailableError("refused")

    async def refuse_later(*_: object, **__: object) -> None:
        refuse()

    resume: Any = "latest"
    with monkeypatch.context() as patch:
        if breaks == "snapshots":
            patch.setattr(opening.Snapshotter, "open", refuse)
        elif breaks == "resume":
            patch.setattr(Symphony, "resume", refuse_later)
        elif breaks == "populate":
            patch.setattr("symphony_es.app.ThreadPool", refuse)
        else:
            resume = "newest"
        with pytest.raises(SymphonyError):
            await symphony.setup(resume=resume)
    with pytest.raises(NotReadyError):
        Symphony.opened(tmp_path / "log")
    assert await number(tmp_path / "log") == 1
    await symphony.setup()
    await symphony.close()


def _file(path: Path) -> Path:
    path.write_text("")
    return path


def _loop(path: Path) -> Path:
    path.symlink_to(path)
    return path


BAD_PLACES = {
    "a file": lambda at: _file(at / "f"),
    "inside a file": lambda at: _file(at / "f") / "log",
    "a link to itself": lambda at: _loop(at / "l"),
    "a name too long": lambda at: at / ("x" * 300),
    "a null byte": lambda at: str(at / "a\0b"),
    "a number": lambda at: 7,
    "bytes": lambda at: str(at).encode(),
}


@pytest.mark.parametrize("place", BAD_PLACES)
async def test_a_place_where_no_log_can_be_is_a_typed_error(tmp_path: Path, place: str) -> None:
    """Said by the library, with the way out; nothing is made."""
    with pytest.raises((LogUnavailableError, ConfigurationError)):
        await on_disk(BAD_PLACES[place](tmp_path)).setup()


async def test_missing_parents_are_made(tmp_path: Path) -> None:
    """All of them, private."""
    async with on_disk(tmp_path / "a" / "b" / "log"):
        assert (tmp_path / "a" / "b" / "log").stat().st_mode & 0o777 == 0o700


# -- bounded closing ------------------------------------------------------------------------------------------------------


async def test_closing_takes_no_longer_than_it_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that hangs: a typed error tells what is not known to be durable; when the disk goes on, all is written and let go of."""
    gate = threading.Event()
    plain = SQLiteLogRecorder.append_groups

    def hang(self: SQLiteLogRecorder, groups: Sequence[Any], time_ns: int) -> Any:
        gate.wait()
        return plain(self, groups, time_ns)

    symphony = on_disk(tmp_path / "log")
    await symphony.setup()
    page = symphony.entities.add(Page(id="a"))
    await symphony.flush()
    monkeypatch.setattr(SQLiteLogRecorder, "append_groups", hang)
    page.number = 1
    await asyncio.sleep(0)
    page.number = 2
    with pytest.raises(CloseTimeoutError, match="2 changes of Page:a") as caught:
        await symphony.close(timeout_s=0.05)
    assert caught.value.undone == {"Page:a": 2}
    with pytest.raises(DetachedEntityError):
        page.number = 3
    with pytest.raises(NotReadyError):
        await symphony.flush()
    await symphony.close()
    gate.set()
    assert await number(tmp_path / "log") == 2


async def test_closing_in_time_says_nothing(tmp_path: Path) -> None:
    """Nor does a limit of none, or of no time at all where there is nothing to write."""
    for limit in (None, 30.0):
        symphony = on_disk(tmp_path / "log")
        await symphony.setup()
        symphony.entities.add(Page(id=f"p{limit}"))
        await symphony.close(timeout_s=limit)


async def test_closing_beside_writers(tmp_path: Path) -> None:
    """Tasks that change and record while it closes either are durable or are told; no lock is left."""
    symphony = on_disk(tmp_path / "log")
    await symphony.setup()
    page = symphony.entities.add(Page(id="a"))
    done = [0]

    async def write() -> None:
        while True:
            async with symphony.transaction("Counted", claim=[page]):
                page.number += 1
            done[0] = max(done[0], page.number)

    writers = [asyncio.ensure_future(write()) for _ in range(5)]
    while done[0] < 10:
        await asyncio.sleep(0)
    await symphony.close()
    results = await asyncio.gather(*writers, return_exceptions=True)
    assert all(isinstance(result, SymphonyError) for result in results)
    assert await number(tmp_path / "log") >= done[0]


@pytest.mark.parametrize("following", ["close", "close beside it", "setup"])
async def test_closing_again_after_a_close_that_was_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, following: str) -> None:
    """A call that finds the log being closed waits until it is: then the directory is free."""
    ends, gate = asyncio.Event(), threading.Event()
    loop, end = asyncio.get_running_loop(), EventLog.end

    def slowly(log: EventLog, timeout_s: float | None = None) -> None:
        loop.call_soon_threadsafe(ends.set)
        gate.wait(10)
        end(log, timeout_s)

    symphony = on_disk(tmp_path / "log")
    await symphony.setup()
    monkeypatch.setattr(EventLog, "end", slowly)
    closing = asyncio.ensure_future(symphony.close())
    await ends.wait()
    if following != "close beside it":
        closing.cancel()
        await asyncio.wait({closing})
    again = asyncio.ensure_future(symphony.setup() if following == "setup" else symphony.close())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not again.done()
    gate.set()
    await asyncio.wait({again, closing})
    if following != "setup":
        assert again.exception() is None
        await symphony.setup()
    assert again.result() is (symphony if following == "setup" else None)
    await symphony.close()


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("start", ({"name": "w", "steps": []},)),
        ("execute_workflow", ({"name": "w", "steps": []},)),
        ("retry_from", ("x", "a")),
        ("signal", ("x", "s", 1)),
        *[(name, ("x",)) for name in ("get_run", "handle", "cancel", "pause", "resume", "step_attempts", "usage")],
        *[(name, ()) for name in ("list_runs", "recover", "queue", "drain")],
    ],
)
async def test_calls_of_what_is_not_open_say_so(call: str, arguments: tuple[Any, ...], closed: bool) -> None:
    """Before setup and after close alike: what is to be done is to open it, not to register a service."""
    symphony = Symphony()
    if closed:
        await symphony.setup()
        await symphony.close()
    with pytest.raises(NotReadyError, match="setup"):
        answer = getattr(symphony.workflows, call)(*arguments)
        if inspect.isawaitable(answer):
            await answer
