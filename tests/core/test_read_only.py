"""A Symphony that reads what another one writes, and the ways in which a Symphony is made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from symphony_es import Symphony, entity, part
from symphony_es.errors import ConfigurationError, EntityNotFoundError, LogUnavailableError, NotReadyError, ReadOnlyError


@part
class Row:
    text: str = ""


@entity
class Sheet:
    id: str = ""
    title: str = ""
    rows: list[Row] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
    tags: set[str] = field(default_factory=set)
    beside: Any = None


@dataclass
class Gauge:
    id: str
    level: int = 0


@pytest.fixture
async def writer(tmp_path: Path) -> AsyncIterator[Symphony]:
    """A Symphony that writes."""
    async with Symphony(tmp_path / "log") as symphony:
        sheet = symphony.entities.add(Sheet(id="a", title="one", rows=[Row("r")], notes={"k": "v"}, tags={"t"}))
        with symphony.acting_as("ann", reason="because"):
            sheet.title = "two"
        symphony.entities.add(Gauge("g", 1))
        await symphony.create_checkpoint("first")
        yield symphony


async def test_questions_beside_a_writer(writer: Symphony) -> None:
    """All of them are answered, also about what is written meanwhile; nothing in the directory changes."""
    assert writer.state_dir is not None
    async with Symphony(writer.state_dir, read_only=True) as reader:
        before = {path.name: path.read_bytes() for path in writer.state_dir.iterdir() if path.is_file() and not path.name.endswith("-shm")}
        assert (await reader.at("latest")).get("Sheet:a")["title"] == "two"
        assert [version.event.name for version in await reader.history("Sheet:a")] == [
            version.event.name for version in await writer.history("Sheet:a")
        ]
        assert (await reader.blame("Sheet:a", "title"))[0].event.metadata.actor == "ann"
        assert (await reader.diff(0, "latest")).added
        assert [event.entity_key for event in await reader.audit.find(actor="ann")] == ["Sheet:a"]
        assert [entry["name"] for entry in await reader.list_checkpoints()] == ["first"]
        assert (await reader.at("first")).get("Sheet:a")["title"] == "two"
        after = {path.name: path.read_bytes() for path in writer.state_dir.iterdir() if path.is_file() and not path.name.endswith("-shm")}
        assert before == after
        writer.entities.get("Sheet:a").title = "three"
        await writer.flush()
        assert (await reader.at("latest")).get("Sheet:a")["title"] == "three"
        assert (await reader.blame("Sheet:a", "title"))[0].event.position == writer.log.head


CHANGES: dict[str, Callable[[Any], Any]] = {
    "assignment": lambda sheet: setattr(sheet, "title", "x"),
    "item deletion": lambda sheet: sheet.rows.__delitem__(0),
    "append": lambda sheet: sheet.rows.append(Row("n")),
    "part": lambda sheet: setattr(sheet.rows[0], "text", "x"),
    "item": lambda sheet: sheet.notes.update(k="x"),
    "pop": lambda sheet: sheet.notes.pop("k"),
    "sort": lambda sheet: sheet.rows.reverse() or sheet.rows.clear(),
    "set": lambda sheet: sheet.tags.add("x"),
    "reference": lambda sheet: setattr(sheet, "beside", Sheet(id="new")),
}


@pytest.mark.parametrize("brought", ["resume", "load", "refresh", "follow"])
@pytest.mark.parametrize("change", CHANGES)
async def test_live_objects_cannot_be_changed(writer: Symphony, change: str, brought: str) -> None:
    """However they became live: a typed error, and the object is what it was."""
    assert writer.state_dir is not None
    async with Symphony(writer.state_dir, read_only=True, follow=brought == "follow") as reader:
        if brought == "load":
            await reader.entities.load("Sheet:a")
        elif brought != "follow":
            await reader.resume()
        if brought == "refresh":
            await reader.refresh("Sheet:a")
        sheet = reader.entities.get("Sheet:a")
        before = repr(sheet)
        with pytest.raises(ReadOnlyError):
            CHANGES[change](sheet)
        assert repr(sheet) == before
        assert reader.log.head == writer.log.head


CALLS: dict[str, Callable[[Symphony], Any]] = {
    "add": lambda s: s.entities.add(Sheet(id="new")),
    "remove": lambda s: s.entities.remove(s.entities.get("Sheet:a")),
    "record": lambda s: s.entities.record(s.entities.get("Sheet:a"), "Named"),
    "transaction": lambda s: s.transaction("X").__aenter__(),
    "create_checkpoint": lambda s: s.create_checkpoint("c"),
    "delete_checkpoint": lambda s: s.delete_checkpoint("first"),
    "rewind": lambda s: s.rewind(1),
    "resume_from_checkpoint": lambda s: s.resume_from_checkpoint("first"),
    "create_agent": lambda s: s.agents.create_agent({"name": "n"}),
    "start": lambda s: s.workflows.start(s.build_workflow().create("W").add_sleep("later", seconds=1).build()),
    "append": lambda s: s.log.append([]),
}


@pytest.mark.parametrize("call", CALLS)
async def test_what_would_write_is_refused(writer: Symphony, call: str) -> None:
    """Each call, with a typed error; nothing is appended."""
    assert writer.state_dir is not None
    head = writer.log.head
    async with Symphony(state_dir=writer.state_dir, read_only=True) as reader:
        await reader.resume()
        with pytest.raises(ReadOnlyError):
            found = CALLS[call](reader)
            if asyncio.iscoroutine(found):
                await found
    assert writer.log.head == head


async def test_objects_are_as_of_the_last_resume_or_refresh(writer: Symphony) -> None:
    """They stand still until then; a refreshed object keeps its identity; a resume with a position has them as they were."""
    assert writer.state_dir is not None
    head = writer.log.head
    async with Symphony(writer.state_dir, read_only=True) as reader:
        report = await reader.resume()
        assert report.rewound == []
        sheet = reader.entities.get("Sheet:a")
        writer.entities.get("Sheet:a").title = "three"
        writer.entities.add(Sheet(id="b"))
        await writer.flush()
        assert sheet.title == "two"
        await reader.refresh(sheet)
        assert sheet.title == "three"
        with pytest.raises(EntityNotFoundError):
            reader.entities.get("Sheet:b")
        assert (await reader.entities.load("Sheet:b")).id == "b"
        await reader.resume()
        assert reader.entities.get("Sheet:a").title == "three"
        await reader.resume(replay_until=1)
        assert reader.entities.get("Sheet:a").title == "one"
        assert await reader.resume_latest_checkpoint() is not None
        assert reader.entities.get("Sheet:a").title == "three"
        await reader.flush()
    assert writer.log.head == head + 2


async def test_objects_that_follow(writer: Symphony) -> None:
    """What the writer changes, adds, refers to and removes is so in the reader's objects, which keep their identity."""
    assert writer.state_dir is not None
    async with Symphony(writer.state_dir, read_only=True, follow=True) as reader:
        following = reader._following
        assert following is not None
        sheet = reader.entities.get("Sheet:a")
        mine = writer.entities.get("Sheet:a")
        for turn in range(5):
            async with writer.transaction("Turned"):
                mine.title = f"turn {turn}"
                mine.rows.append(Row(str(turn)))
                mine.beside = writer.entities.add(Sheet(id=f"n{turn}", title=str(turn)))
            await asyncio.wait_for(following.wait_for(writer.log.head), 30)
            assert reader.entities.get("Sheet:a") is sheet
            assert (sheet.title, len(sheet.rows), sheet.beside.title) == (f"turn {turn}", turn + 2, str(turn))
        mine.beside = None
        writer.entities.remove(writer.entities.get("Sheet:n1"))
        await writer.flush()
        await asyncio.wait_for(following.wait_for(writer.log.head), 30)
        assert reader.entities.find("Sheet:n1") is None
        assert sheet.beside is None
        with pytest.raises(ReadOnlyError):
            sheet.title = "mine"


async def test_readers_need_no_writer(tmp_path: Path) -> None:
    """After the writer has closed; and where there is no log, a typed error."""
    async with Symphony(tmp_path / "log") as symphony:
        symphony.entities.add(Sheet(id="a", title="one"))
    async with Symphony(tmp_path / "log", read_only=True) as one, Symphony(tmp_path / "log", read_only=True) as two:
        await one.resume()
        await two.resume()
        assert one.entities.get("Sheet:a").title == two.entities.get("Sheet:a").title == "one"
    with pytest.raises(LogUnavailableError):
        await Symphony(tmp_path / "none", read_only=True).setup()
    assert not (tmp_path / "none").exists()


# -- how a Symphony is made -----------------------------------------------------------------------------------------------

MADE: dict[str, Callable[[Path], Symphony]] = {
    "a text": lambda at: Symphony(str(at)),
    "a path": lambda at: Symphony(at),
    "state_dir": lambda at: Symphony(state_dir=at),
    "state_dir as text": lambda at: Symphony(state_dir=str(at)),
    "config and state_dir": lambda at: Symphony({"memory_events": 5}, state_dir=at),
    "twice the same": lambda at: Symphony({"state_dir": at}, state_dir=at),
    "with persistence": lambda at: Symphony(at, True),
    "by name": lambda at: Symphony(state_dir=at, persistence_enabled=True),
    "as documented": lambda at: Symphony({"state_dir": at}, persistence_enabled=True),
    "by position": lambda at: Symphony({"state_dir": str(at)}, True),
}


@pytest.mark.parametrize("how", MADE)
async def test_a_directory_implies_persistence(tmp_path: Path, how: str) -> None:
    """Every way to name it, and the documented one."""
    async with MADE[how](tmp_path / "log") as symphony:
        assert symphony.state_dir == tmp_path / "log"
        symphony.entities.add(Sheet(id="a"))
    assert (tmp_path / "log" / "events.db").exists()


async def test_without_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory, and the default directory with persistence; the one given to `setup` holds."""
    monkeypatch.chdir(tmp_path)
    async with Symphony() as symphony:
        assert symphony.state_dir is None
    async with Symphony(persistence_enabled=True) as symphony:
        assert symphony.state_dir == tmp_path / ".symphony"
    symphony = Symphony(persistence_enabled=True)
    await symphony.setup(tmp_path / "other")
    assert symphony.state_dir == tmp_path / "other"
    await symphony.close()


REFUSED: dict[str, Callable[[Path], Symphony]] = {
    "two directories": lambda at: Symphony(at / "a", state_dir=at / "b"),
    "two by name": lambda at: Symphony({"state_dir": at / "a"}, state_dir=at / "b"),
    "memory with a directory": lambda at: Symphony(at, False),
    "memory that is read": lambda at: Symphony(None, False, read_only=True),
    "follow alone": lambda at: Symphony(at, follow=True),
    "a number": lambda at: Symphony(7),  # type: ignore[arg-type]
    "a list": lambda at: Symphony(["a"]),  # type: ignore[arg-type]
    "a bad directory": lambda at: Symphony(state_dir=7),  # type: ignore[arg-type]
    "bytes": lambda at: Symphony(b"dir"),  # type: ignore[arg-type]
    "nothing": lambda at: Symphony(""),
    "unknown settings": lambda at: Symphony({"state_dri": at}),
    "settings of other types": lambda at: Symphony({1: 2}),  # type: ignore[dict-item]
}


@pytest.mark.parametrize("how", REFUSED)
def test_what_contradicts_itself_is_refused_at_once(tmp_path: Path, how: str) -> None:
    """When it is made, not when it is opened; nothing is made on disk."""
    with pytest.raises(ConfigurationError):
        REFUSED[how](tmp_path)
    assert list(tmp_path.iterdir()) == []


# -- threads without an event loop ----------------------------------------------------------------------------------------


def test_a_program_without_a_loop(tmp_path: Path) -> None:
    """Opens, changes, asks and closes through the portal."""
    symphony = Symphony(tmp_path / "log")
    with symphony.portal() as portal:
        assert portal.call(symphony.setup) is symphony
        sheet = symphony.entities.add(Sheet(id="a", title="one"))
        with symphony.acting_as("ann"):
            sheet.title = "two"
            portal.call(symphony.create_checkpoint, "c", metadata={"a": 1})
        assert portal.call(symphony.list_checkpoints)[0]["name"] == "c"
        assert portal.call(symphony.blame, sheet, "title")[0].event.metadata.actor == "ann"

        async def sign() -> str:
            async with symphony.transaction("Signed"):
                sheet.title = "three"
            return sheet.title

        with symphony.acting_as("bob"):
            assert portal.call(sign) == "three"
        assert portal.call(symphony.blame, sheet, "title")[0].event.metadata.actor == "bob"
        assert portal.call(len, [1, 2]) == 2
        with pytest.raises(EntityNotFoundError):
            portal.call(symphony.history, "Sheet:none")
    with pytest.raises(NotReadyError, match="portal is not open"):
        portal.call(symphony.flush)
    with symphony.portal() as again:
        sheet.title = "four"
        again.call(symphony.close)
    asyncio.run(_check_title(tmp_path / "log", "four"))


async def _check_title(directory: Path, title: str) -> None:
    async with Symphony(directory) as symphony:
        await symphony.resume()
        assert symphony.entities.get("Sheet:a").title == title


async def test_threads_beside_a_running_loop(tmp_path: Path) -> None:
    """Many threads use one portal at once, beside the Symphony's own loop; nothing is lost and nothing waits for ever."""
    async with Symphony(tmp_path / "log") as symphony:
        with symphony.portal() as portal:

            def work(number: int) -> None:
                sheet = symphony.entities.add(Sheet(id=str(number)))
                for turn in range(5):
                    sheet.title = str(turn)
                    portal.call(symphony.flush)
                portal.call(symphony.resume) if number == 0 else portal.call(symphony.history, f"Sheet:{number}")

            await asyncio.gather(*(asyncio.to_thread(work, number) for number in range(1, 9)))
            await asyncio.gather(symphony.resume(), asyncio.to_thread(portal.call, symphony.resume), symphony.resume())
        assert {sheet.title for sheet in symphony.entities.all("Sheet")} == {"4"}


@pytest.mark.parametrize("guessed", ["a coroutine", "a task's result", "nothing"])
def test_a_portal_is_given_a_function(guessed: str) -> None:
    """What cannot be called is refused, with the call to make; a coroutine is closed, so that no warning comes of it."""
    symphony = Symphony()
    with symphony.portal() as portal:
        portal.call(symphony.setup)
        given: Any = symphony.flush() if guessed == "a coroutine" else {"a task's result": 5, "nothing": None}[guessed]
        with pytest.raises(ConfigurationError, match=r"portal\.call\(symphony\.flush\)"):
            portal.call(given)
        portal.call(symphony.close)


def test_a_portal_that_would_wait_for_itself(tmp_path: Path) -> None:
    """A call of the portal inside of a call of the portal is refused, as is a second block of the same portal."""
    symphony = Symphony()
    with symphony.portal() as portal:
        with pytest.raises(ConfigurationError, match="wait for itself"):
            portal.call(lambda: portal.call(symphony.setup))
        with pytest.raises(ConfigurationError, match="open already"), portal:
            pass


@pytest.mark.parametrize("follow", [False, True])
async def test_a_reader_that_has_resumed_nothing_gives_runs(writer: Symphony, follow: bool) -> None:
    """One that runs, one that has ended, a child run, and one that began later; of one that is not there, the error."""
    waits = {"name": "w", "steps": [{"kind": "wait", "name": "x", "signal": "x"}]}
    parent = {"name": "p", "steps": [{"kind": "workflow", "name": "kid", "definition": waits}]}
    await writer.workflows.start(parent, run_id="parent", auto_checkpoint=False)
    ended = await writer.workflows.start(waits, run_id="ended", auto_checkpoint=False)
    await ended.cancel()
    while "parent/kid" not in {run.id for run in await writer.workflows.get_all_runs()}:
        await asyncio.sleep(0)
    await writer.flush()
    async with Symphony(writer.state_dir, read_only=True, follow=follow) as reader:
        await writer.workflows.start(waits, run_id="later", auto_checkpoint=False)
        found = {run_id: (await reader.workflows.get_run(run_id)).status.value for run_id in ("parent", "parent/kid", "ended", "later")}
        assert found == {"parent": "running", "parent/kid": "running", "ended": "cancelled", "later": "running"}
        with pytest.raises(EntityNotFoundError, match="nobody"):
            await reader.workflows.get_run("nobody")
