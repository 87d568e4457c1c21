"""An answer that was cut says so, and a question that nothing can answer is refused: in the API, for people and for programs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from symphony_es import Symphony, entity
from symphony_es.cli.main import main
from symphony_es.errors import ConfigurationError


@entity
class CountedInRanges:
    """An entity that changes twelve times."""

    id: str = ""
    count: int = 0


async def make(directory: Path) -> None:
    """Twelve changes of one entity by one actor, and three checkpoints, two of one name."""
    async with Symphony(directory) as symphony:
        with symphony.acting_as("ann"):
            one = symphony.entities.add(CountedInRanges(id="one"))
            await symphony.flush()
            for _ in range(12):
                one.count += 1
                await symphony.flush()
        for name in ("twice", "other", "twice"):
            await symphony.create_checkpoint(name)
        step = {"kind": "sleep", "name": "nap", "seconds": 0}
        for number in range(3):
            await symphony.workflows.execute_workflow({"name": "w", "steps": [step]}, run_id=f"r{number}", auto_checkpoint=False)


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of such a log."""
    directory = tmp_path_factory.mktemp("counted") / "state"
    asyncio.run(make(directory))
    return directory


CUT = {
    "audit --actor ann --limit 5": "--after 5",
    "audit --actor ann --limit 5 --newest-first": "--before 9",
    "log --limit 5 --until 13": "--until 8",
    "log --limit 5 --after 2": "--after 7",
    "log --limit 5 --entity CountedInRanges:one": "--until 8",
    "history CountedInRanges:one --limit 5": "--after-version 5",
    "checkpoints --limit 2": "--before ckpt_",
    "runs --limit 2": "--after @",
}
"""By command: the beginning of what asks for the next page."""


@pytest.mark.parametrize("command", CUT)
def test_an_answer_that_is_cut_says_so(command: str, counted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """People read it below the answer, programs beside it: standard output has JSON and nothing else."""
    assert main([*command.split(), "--state-dir", str(counted)]) == 0
    assert CUT[command] in capsys.readouterr().out.splitlines()[-1]
    assert main([*command.split(), "--json", "--state-dir", str(counted)]) == 0
    told = capsys.readouterr()
    assert all(json.loads(line) for line in told.out.splitlines())
    assert CUT[command] in told.err


def pages(command: str, directory: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[list[int]]:
    """The positions of each page, as a script reads them that follows what is said beside a page."""
    further: list[str] = []
    while True:
        assert main([*command.split(), *further, "--json", "--state-dir", str(directory)]) == 0
        told = capsys.readouterr()
        yield [json.loads(line)["position"] for line in told.out.splitlines()]
        if not told.err:
            return
        further = told.err.rpartition(": ")[2].split()


@pytest.mark.parametrize(
    "command", ["audit --actor ann --limit 5", "log --limit 5 --after 0", "log --limit 5", "history CountedInRanges:one --limit 4"]
)
def test_what_is_said_leads_to_all_the_rest(command: str, counted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The pages together have each event once, and the last one says nothing."""
    found = [position for page in pages(command, counted, capsys) for position in page]
    whole = command.replace("--limit 5", "--limit 0").replace("--limit 4", "--limit 0")
    (everything,) = pages(whole, counted, capsys)
    assert sorted(found) == everything
    assert len(everything) >= 13


REFUSED = [
    "audit --since 2026-11-29 --until 2026-11-28", "audit --since 2026-11-28 --until 2026-11-28", "audit --after 7 --before 7",
    "log --after 7 --until 3", "log --after 2026-11-28 --until 2026-11-28", "runs --since 2026-11-29 --until 2026-11-28",
    "runs --since 2026-11-28 --until 2026-11-28", "runs --since 2026-11-29 --until 2026-11-28 --at latest",
    "blame CountedInRanges:one count --since 9 --until 3", "blame CountedInRanges:one count --since 2026-11-28 --until 2026-11-28",
    "log --after 2000-11-29 --until 2000-11-28", "blame CountedInRanges:one count --since 2999-11-29 --until 2999-11-28",
    "export - --since 2000-11-29 --until 2000-11-28", "export - --since 9 --until 3",
    "export - --format changes --since 2026-11-28 --until 2026-11-28",
]  # fmt: skip


@pytest.mark.parametrize("command", REFUSED)
def test_a_range_that_can_hold_nothing_is_refused(command: str, counted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is no empty answer, which would say that nothing has happened."""
    assert main([*command.split(), "--state-dir", str(counted)]) == 2
    told = capsys.readouterr()
    assert not told.out
    assert "noth" in told.err or "no " in told.err


def test_a_day_and_the_next_one_are_a_day(counted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the refusal of a day and itself advises holds all of that day."""
    today = datetime.now(UTC).date()
    days = [(today + timedelta(days=number)).isoformat() for number in (-1, 0, 1)]
    assert main(["audit", "--since", days[1], "--until", days[1], "--state-dir", str(counted)]) == 2
    assert f"until {days[2]}" in capsys.readouterr().err
    assert main(["audit", "--actor", "ann", "--since", days[0], "--until", days[2], "--json", "--state-dir", str(counted)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 13


@pytest.mark.parametrize(
    ("day", "told"), [("9999-12-31", "until 9999-12-31T23:59:59"), ("2026-13-45", "2026-13-45"), ("@2026-11-28", "no time at all")]
)
async def test_any_day_and_itself(day: str, told: str, counted: Path) -> None:
    """The last day that there is, one that there is not, and one with the sign of a time: refused in so many words."""
    async with Symphony(counted, read_only=True) as symphony:
        with pytest.raises(ConfigurationError, match=told):
            await symphony.audit.find(since=day, until=day)


@contextmanager
def refused() -> Iterator[None]:
    """A block whose range can hold nothing."""
    with pytest.raises(ConfigurationError, match=r"nothing|no time at all|no run fits"):
        yield


async def everything(given: AsyncIterator[Any]) -> list[Any]:
    """All of them."""
    return [each async for each in given]


@pytest.mark.parametrize(
    ("since", "until"),
    [
        ("2999-11-29", "2000-11-28"),
        ("2000-11-29", "2000-11-28"),
        ("2999-11-29", "2999-11-28"),
        ("2000-11-28", "2000-11-28"),
        ("1h", "2h"),
        (datetime(2999, 11, 29, tzinfo=UTC), "2000-11-28"),
    ],
)
async def test_the_api_refuses_the_same(since: Any, until: Any, counted: Path) -> None:
    """Questions about the past, the audit and lists of runs."""
    async with Symphony(counted, read_only=True) as symphony:
        with refused():
            await symphony.audit.find(since=since, until=until)
        with refused():
            await everything(symphony.audit.stream(since=since, until=until))
        with refused():
            await symphony.workflows.list_runs(since=since, until=until)
        with refused():
            await symphony.history("CountedInRanges:one", since=since, until=until)
        with refused():
            await symphony.blame("CountedInRanges:one", "count", since=since, until=until)
        with refused():
            await symphony.history("CountedInRanges:one", since=9, until=3)
        assert [version.version for version in await symphony.history("CountedInRanges:one", since=3, until=3)] == []


def test_deleting_by_a_name_says_which_is_gone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of two checkpoints of one name the newest goes; its id is said, and that another one stays."""
    asyncio.run(make(tmp_path / "state"))
    given = ["checkpoints", "delete", "twice", "--json", "--state-dir", str(tmp_path / "state")]
    assert main(given) == 0
    first = json.loads(capsys.readouterr().out)
    assert (first["name"], first["others"]) == ("twice", 1)
    assert main(given) == 0
    second = json.loads(capsys.readouterr().out)
    assert second["others"] == 0
    assert first["id"] != second["id"]
    assert main(given) == 3


def test_times_of_stats_are_written_as_everywhere(counted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """ISO 8601, with a T."""
    assert main(["stats", "--json", "--state-dir", str(counted)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["first_event"][10] == told["last_event"][10] == "T"


def test_nothing_is_said_to_be_left_of_nothing(counted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All was asked for, and there is nothing."""
    assert main(["audit", "--following", "13", "--limit", "0", "--state-dir", str(counted)]) == 0
    assert capsys.readouterr().out.strip() == "no events"


@pytest.mark.parametrize("command", ["backup", "fork", "export", "import x", "restore x", "log --state-dir", "rewind #1 --state-dir"])
def test_an_empty_name_is_no_directory(command: str, counted: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """A variable of the shell that is not set means neither the working directory nor the log that lies there."""
    monkeypatch.chdir(counted)
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), ""])
    assert (ended.value.code, "is not set" in capsys.readouterr().err) == (2, True)


@pytest.mark.parametrize("turned", [False, True])
async def test_a_time_without_a_zone_beside_one_with_it(turned: bool, counted: Path) -> None:
    """They cannot be compared: the one without is refused by name, whichever end it is."""
    ends = [datetime(2000, 11, 28), datetime(2000, 11, 29, tzinfo=UTC)]
    since, until = reversed(ends) if turned else ends
    async with Symphony(counted, read_only=True) as symphony:
        questions = [
            lambda: symphony.history("CountedInRanges:one", since=since, until=until),
            lambda: symphony.blame("CountedInRanges:one", "count", since=since, until=until),
            lambda: symphony.audit.find(since=since, until=until),
            lambda: symphony.workflows.list_runs(since=since, until=until),
        ]
        for ask in questions:
            with pytest.raises(ConfigurationError, match="zone"):
                await ask()
