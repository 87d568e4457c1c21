"""The database is deleted, moved or replaced while it is open: nothing is acknowledged any more that nobody could read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from symphony_es import Symphony, entity
from symphony_es.errors import EntityOutOfStepError, LogError, LogUnavailableError
from symphony_es.log.log import EventLog


@entity
class KeptNote:
    id: str = ""
    n: int = 0


def _replace(directory: Path) -> None:
    (directory / "events.db").unlink()
    (directory / "events.db").write_bytes(b"")


WAYS: dict[str, Callable[[Path], Any]] = {
    "the directory is deleted": shutil.rmtree,
    "the directory is moved": lambda directory: directory.rename(directory.with_name("elsewhere")),
    "the file is deleted": lambda directory: (directory / "events.db").unlink(),
    "the file is moved": lambda directory: (directory / "events.db").rename(directory / "other.db"),
    "the file is replaced": _replace,
    "a copy takes its place": lambda directory: (
        shutil.copy(directory / "events.db", directory / "copy"), (directory / "copy").replace(directory / "events.db")
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", ["flush", "transaction", "checkpoint", "event"])
@pytest.mark.parametrize("way", WAYS)
async def test_nothing_is_acknowledged_once_the_database_is_gone(tmp_path: Path, way: str, what: str) -> None:
    """Each call that would write says that the file is gone; a transaction is rolled back; closing ends."""
    symphony = await Symphony(tmp_path / "log").setup()
    note = symphony.entities.add(KeptNote(id="a"))
    await symphony.flush()
    WAYS[way](tmp_path / "log")
    with pytest.raises((LogError, EntityOutOfStepError), match="deleted, moved or replaced"):
        if what == "transaction":
            async with symphony.transaction("Changed"):
                note.n = 5
        elif what == "checkpoint":
            await symphony.create_checkpoint("c")
        elif what == "event":
            symphony.entities.record(note, "Said", {"a": 1})
            await symphony.flush()
        else:
            note.n = 5
            await symphony.flush()
    if what == "transaction":
        assert note.n == 0
    if what in ("flush", "event"):
        with pytest.raises(EntityOutOfStepError):
            await symphony.close()
    else:
        await symphony.close()
    assert symphony.state_dir is None


async def test_putting_it_back_is_enough(tmp_path: Path) -> None:
    """The same file under its name again is written as before."""
    async with Symphony(tmp_path / "log") as symphony:
        note = symphony.entities.add(KeptNote(id="a"))
        await symphony.flush()
        (tmp_path / "log").rename(tmp_path / "elsewhere")
        note.n = 5
        with pytest.raises(EntityOutOfStepError):
            await symphony.flush()
        (tmp_path / "elsewhere").rename(tmp_path / "log")
        await symphony.refresh(note)
        note.n = 6
        await symphony.flush()
    async with Symphony(tmp_path / "log") as symphony:
        await symphony.resume()
        assert symphony.entities.get("KeptNote:a").n == 6


@pytest.mark.parametrize("way", WAYS)
async def test_readers_do_not_answer_from_what_is_gone(tmp_path: Path, way: str) -> None:
    """A reader of a log that was deleted, moved or replaced says so at each question, and so does who follows it: it never answers from
    what nobody writes any more. Opened again, it reads what stands there."""
    async with Symphony(tmp_path / "log") as symphony:
        symphony.entities.add(KeptNote(id="a"))
    async with Symphony(tmp_path / "log", read_only=True, follow=True) as reader:
        assert (await reader.at("latest")).get("KeptNote:a")["n"] == 0
        WAYS[way](tmp_path / "log")
        for ask in (
            lambda: reader.at("latest"),
            lambda: reader.history("KeptNote:a"),
            lambda: reader.audit.find(),
            lambda: reader.log.refresh_head(),
        ):
            with pytest.raises(LogUnavailableError, match="deleted, moved or replaced since it was opened for reading"):
                await ask()
    if way == "a copy takes its place":
        async with Symphony(tmp_path / "log", read_only=True) as reader:
            assert (await reader.at("latest")).get("KeptNote:a")["n"] == 0


async def test_a_program_may_go_to_another_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that was opened by a relative path is the same one after a change of the working directory."""
    async with Symphony(tmp_path / "log") as symphony:
        symphony.entities.add(KeptNote(id="a"))
    monkeypatch.chdir(tmp_path)
    log = await EventLog.open_read_only(Path("log"))
    monkeypatch.chdir("/")
    assert await log.refresh_head() == 1
    await log.close()
