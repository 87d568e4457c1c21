"""Pages that go on with other filters, names that nothing has, runs that wait for a place, and counts in words."""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
import pickle
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from symphony_es import Symphony
from symphony_es.errors import ConfigurationError, EntityNotFoundError, NotReadyError, ReadOnlyError
from symphony_es.shown import so_many
from tests.cli.document import answer

Opener = Callable[..., Awaitable[Symphony]]


def report(symphony: Symphony, name: str = "report", *, fails: bool = False) -> Any:
    """A definition with one step."""

    def write(context: Any) -> int:
        if fails:
            raise ValueError("no")
        return 1

    symphony.functions.register(f"write-{name}", write, replace=True)
    return symphony.build_workflow(name).add_function("write", f"write-{name}").build()


async def ran(symphony: Symphony, definition: Any, count: int, **options: Any) -> None:
    """So many runs that have ended."""
    for _ in range(count):
        await symphony.workflows.execute_workflow(definition, auto_checkpoint=False, **options)


MOMENT = datetime(2020, 1, 1, tzinfo=UTC)
FILTERS: dict[str, dict[str, Any]] = {
    "none": {},
    "name": {"name": "report"},
    "names": {"name": ["report", "other"]},
    "status": {"status": "completed"},
    "statuses": {"status": ["completed", "failed"]},
    "metadata": {"metadata": {"customer": 1}},
    "since": {"since": MOMENT},
    "age": {"since": timedelta(days=1)},
    "other age": {"since": timedelta(days=2)},
    "until": {"until": timedelta(0)},
    "exclusive": {"created_after": MOMENT},
    "error": {"error": False},
    "order": {"newest_first": False},
}


@pytest.mark.parametrize(("made", "asked"), [*itertools.pairwise([*FILTERS, "none"])])
async def test_tokens_belong_to_their_filters(made: str, asked: str) -> None:
    """A page goes on with the filters that it was made with, and other ones are an error that says so."""
    async with Symphony() as symphony:
        await ran(symphony, report(symphony), 3, metadata={"customer": 1})
        page = await symphony.workflows.list_runs(limit=1, **FILTERS[made])
        assert page.next is not None
        with pytest.raises(ConfigurationError, match="other filters"):
            await symphony.workflows.list_runs(limit=1, after=page.next, **FILTERS[asked])


@pytest.mark.parametrize("filters", FILTERS)
async def test_pages_go_on(symphony: Symphony, filters: str) -> None:
    """However much time passes between them, and however many runs a page has; a run's id goes on with any filter."""
    await ran(symphony, report(symphony), 4, metadata={"customer": 1})
    whole = [run.id for run in await symphony.workflows.list_runs(**FILTERS[filters])]
    first = await symphony.workflows.list_runs(limit=1, **FILTERS[filters])
    second = await symphony.workflows.list_runs(limit=2, after=first.next, **FILTERS[filters])
    third = await symphony.workflows.list_runs(limit=9, after=second.next, **FILTERS[filters])
    assert [run.id for run in (*first, *second, *third)] == whole
    assert third.next is None
    assert len(await symphony.workflows.list_runs(after=first[0], name="report")) in (0, 3)


@pytest.mark.parametrize(
    ("one", "same"),
    [
        ({"name": ["a", "report"]}, {"name": ("report", "a", "a")}), ({"status": "completed"}, {"status": ["COMPLETED"]}),
        ({"metadata": {"a": 1, "b": 2}}, {"metadata": {"b": 2, "a": 1}}), ({"since": "2020-01-01"}, {"since": MOMENT}),
        ({}, {"since": None}),
    ],
)  # fmt: skip
async def test_filters_that_mean_the_same(symphony: Symphony, one: dict[str, Any], same: dict[str, Any]) -> None:
    """However they are written."""
    await ran(symphony, report(symphony), 2, metadata={"a": 1, "b": 2})
    page = await symphony.workflows.list_runs(limit=1, **one)
    assert len(await symphony.workflows.list_runs(limit=1, after=page.next, **same)) == 1


@pytest.mark.parametrize("token", ["@1", "@", "@x.00000000", f"@{10**30}.00000000", "@1.0000000g"])
async def test_what_is_no_token_is_no_run(symphony: Symphony, token: str) -> None:
    """It names a run that there is not."""
    await ran(symphony, report(symphony), 1)
    with pytest.raises(EntityNotFoundError):
        await symphony.workflows.list_runs(after=token)


@pytest.mark.parametrize(
    ("filters", "near"),
    [
        ({"name": "reprot"}, ["report"]), ({"name": "Report"}, ["report"]), ({"name": ["reprot", "x"]}, ["report"]),
        ({"step": "wriet"}, ["write"]), ({"name": "report"}, []), ({"name": "nothing of it"}, []), ({"step": "write"}, []),
        ({"name": ["report", "reprot"], "step": "none"}, []), ({}, []),
    ],
)  # fmt: skip
async def test_near_misses(symphony: Symphony, caplog: pytest.LogCaptureFixture, filters: dict[str, Any], near: list[str]) -> None:
    """An empty page names what is written like a name or step that nothing has, and so does the log; a full one, or one that is
    empty for another reason, names nothing.
    """
    await ran(symphony, report(symphony, fails=True), 1)
    page = await symphony.workflows.list_runs(status="failed", **filters)
    assert page.near == near
    assert ("no_run_is_called_so" in caplog.text) == bool(near)
    caplog.clear()
    assert bool(await symphony.workflows.count_runs(**filters)) == bool(page)
    assert ("no_run_is_called_so" in caplog.text) == bool(near)
    assert (await symphony.workflows.list_runs(status="completed", name="report")).near == []


WAITS = {"id": "waits", "name": "waits", "steps": [{"kind": "wait", "name": "go", "signal": "go"}]}


async def queued(symphony: Symphony) -> list[str]:
    """Ids of the runs that the list shows as queued."""
    await symphony.flush()
    return [run.id for run in await symphony.workflows.list_runs(status="queued")]


@pytest.mark.parametrize("way", ["retry", "resume", "pause", "recover"])
async def test_what_waits_for_a_place_is_listed_as_queued(reopen: Opener, tmp_path: Path, way: str) -> None:
    """A run that was taken back, tried again, paused and let go on, or interrupted: on record, for every process, until its turn."""
    symphony = await reopen()
    old = await symphony.workflows.start(WAITS, run_id="old", auto_checkpoint=False)
    if way in ("retry", "resume"):
        await old.signal("go")
        await old.result()
    if way == "resume":
        await symphony.workflows.execute_workflow(report(symphony, fails=True), run_id="failed", auto_checkpoint=False)
    if way == "recover":
        await symphony.workflows.start(WAITS, run_id="other", auto_checkpoint=False)
        symphony = await reopen(resume="latest")
    elif way == "pause":
        symphony.workflows.max_concurrent_runs = 1
        await symphony.workflows.start(WAITS, run_id="behind", auto_checkpoint=False)
        behind = symphony.workflows.handle("behind")
        await behind.pause()
        await symphony.workflows.start(behind.run)
    symphony.workflows.max_concurrent_runs = 1
    tasks: list[asyncio.Task[Any]] = []
    wanted = {"retry": "old", "resume": "failed", "pause": "behind", "recover": "other"}[way]
    if way in ("retry", "resume"):
        await symphony.workflows.start(WAITS, run_id="first", auto_checkpoint=False)
        calls = {"retry": lambda: symphony.workflows.retry_from("old", "go"), "resume": lambda: symphony.workflows.resume("failed")}
        tasks.append(asyncio.create_task(calls[way]()))
    elif way == "recover":
        await symphony.workflows.recover(wait=False)
    async with asyncio.timeout(60):
        while await queued(symphony) != [wanted]:
            await asyncio.sleep(0)
    assert [handle.id for handle in symphony.workflows.queue()] == [wanted]
    async with Symphony({"state_dir": tmp_path / "state"}, read_only=True) as reader:
        assert [run.id for run in await reader.workflows.list_runs(status="queued")] == [wanted]
        with pytest.raises(ReadOnlyError, match="status='queued'"):
            reader.workflows.queue()
    await symphony.workflows.signal("first" if tasks else "old", "go")
    async with asyncio.timeout(60):
        while await queued(symphony):
            await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def test_the_command_names_near_misses(tmp_path: Path) -> None:
    """Of workflows, actors, runs and fields: an empty answer says what there is that is written so."""

    async def fill() -> None:
        async with Symphony({"state_dir": tmp_path / "state"}, persistence_enabled=True) as symphony, symphony.acting_as(actor="annette"):
            await symphony.workflows.execute_workflow(report(symphony), run_id="order-17", auto_checkpoint=False)

    asyncio.run(fill())
    said = {
        "runs --name reprot": "no runs; did you mean report?\n",
        "runs --name report --status failed": "no runs\n",
        "audit --actor anette": "no events; did you mean --actor annette?\n",
        "audit --run-id order-71": "no events; did you mean --run-id order-17?\n",
        "audit --actor annette --event Nothing": "no events\n",
        "blame Workflow:order-17 status --actor anette": "no event of those that are asked for has set it; did you mean --actor annette?\n",
    }
    for command, expected in said.items():
        assert answer(command, tmp_path) == (expected, 0)
    file = tmp_path / "changes.csv"
    told, code = answer(f"export {file} --format changes --field statsu", tmp_path)
    assert (code, told.splitlines()[0]) == (0, "symphony-es: no changes; did you mean --field status?")


def test_the_command_takes_what_the_call_takes(tmp_path: Path) -> None:
    """Metadata, step, parent, and pages, each with the filters of the page before; what means nothing is said."""

    async def fill() -> None:
        async with Symphony({"state_dir": tmp_path / "state"}, persistence_enabled=True) as symphony:
            inner = report(symphony, "inner", fails=True)
            outer = symphony.build_workflow("outer").add_workflow("sub", inner).build()
            await ran(symphony, report(symphony), 5, metadata={"customer": "ann", "tier": 2})
            await ran(symphony, report(symphony), 2, metadata={"customer": "2", "tier": "2"})
            await symphony.workflows.execute_workflow(outer, run_id="o", auto_checkpoint=False)

    def asked(options: str) -> list[dict[str, Any]]:
        told, code = answer(f"runs --json {options}", tmp_path)
        assert code == 0, told
        return [json.loads(line) for line in told.splitlines() if line.startswith("{")]

    asyncio.run(fill())
    counts = {
        "--metadata customer=ann": 5, "--metadata customer=ann --metadata tier=2": 5, '--metadata tier="2"': 2, "--metadata tier=2": 5,
        "--metadata customer=ann --metadata tier=3": 0, "--parent o": 1, "--step write": 1, "--step sub": 1,
            "--step sub --status failed": 1,
        "--metadata tier=2 --at latest": 5,
    }  # fmt: skip
    assert {options: len(asked(options)) for options in counts} == counts
    seen: list[str] = []
    after = ""
    while True:
        told = answer(f"runs --full --limit 2 --metadata customer=ann {after}", tmp_path)[0]
        seen += re.findall(r"^(\S{26}) ", told, re.MULTILINE)
        token = re.search(r"(--after \S+) the next ones", told)
        if token is None:
            break
        after = token[1]
    assert seen == [one["run"] for one in asked("--metadata customer=ann")]
    said = {
        f"runs {after} --status failed": ("is the next page of a list with other filters", 2),
        "runs --metadata customer": ("'customer' is no KEY=VALUE", 2),
        "runs --step wriet": ("no runs; did you mean write?", 0),
        "runs --parent nobody": ("there is no such run", 3),
        "runs --at 3 --step write": ("--step are for those of now", 2),
    }
    for command, (expected, code) in said.items():
        told, ended = answer(command, tmp_path)
        assert (expected in told, ended) == (True, code), (command, told)


@pytest.mark.parametrize(
    ("count", "words", "text"),
    [
        (0, ("run",), "0 runs"), (1, ("run",), "1 run"), (2, ("run",), "2 runs"), (1200, ("step",), "1,200 steps"),
        (1, ("entity", "entities"), "1 entity"), (3, ("entity", "entities"), "3 entities"),
    ],
)  # fmt: skip
def test_counts_in_words(count: int, words: tuple[str, ...], text: str) -> None:
    """One is no plural."""
    assert so_many(count, *words) == text


def test_one_of_each_in_the_words_of_the_command_line(tmp_path: Path) -> None:
    """No command says `1 runs`, or that one thing are."""

    async def fill() -> None:
        async with Symphony({"state_dir": tmp_path / "state"}, persistence_enabled=True) as symphony:
            await symphony.workflows.execute_workflow(report(symphony, fails=True), run_id="r", auto_checkpoint=False)

    asyncio.run(fill())
    told = ""
    for command in (
        "verify", "doctor", "diff 0 1", "diff 1 2", "rewind 1 --dry-run", f"export {tmp_path / 'x.jsonl'} --after 1 --until 2",
        "runs", "run r",
        "retry --status failed --dry-run", "prune-runs --older-than 0s --status failed --dry-run", "prune --dry-run", "stats",
    ):  # fmt: skip
        told += answer(command, tmp_path)[0]
    assert "1 run would be tried again" in told
    assert re.findall(r"(?<![\d,.])1 (?:runs|steps|events|entities|snapshots|changes|requests|problems|tasks|checkpoints)\b", told) == []


@pytest.mark.parametrize("given", ["definition", "dict", "list", "function", "saved"])
async def test_a_name_may_be_what_has_it(symphony: Symphony, given: str) -> None:
    """A definition, the dict of one, several of these, a function under the decorator: whatever `start` takes names its runs."""

    @symphony.workflow
    async def flow() -> None: ...

    definition = report(symphony)
    await symphony.workflows.save_workflow(definition)
    for one in (definition, report(symphony, "other"), flow):
        await symphony.workflows.execute_workflow(one, auto_checkpoint=False)
    saved = symphony.entities.get(f"WorkflowDefinition:{definition.id}")
    names: dict[str, Any] = {
        "definition": definition, "dict": definition.to_dict(), "list": [definition.to_dict(), flow], "function": flow, "saved": saved,
    }  # fmt: skip
    page = await symphony.workflows.list_runs(name=names[given], newest_first=False)
    assert [one.name for one in page] == {"function": ["flow"], "list": ["report", "flow"]}.get(given, ["report"])
    with pytest.raises(ConfigurationError, match="it is a text"):
        await symphony.workflows.list_runs(name={"steps": []})


async def test_pages_go_to_other_processes(symphony: Symphony) -> None:
    """A page can be pickled and copied; what comes back is equal, and cannot bring its runs to life."""
    await ran(symphony, report(symphony), 3, metadata={"of": "ann"})
    page = await symphony.workflows.list_runs(limit=2)
    for other in (pickle.loads(pickle.dumps(page)), copy.deepcopy(page)):
        assert (list(other), other.next, other.near, type(other)) == (list(page), page.next, [], type(page))
        with pytest.raises(NotReadyError, match="without a Symphony"):
            await other[0].load()
    assert (await symphony.workflows.list_runs(limit=2, after=other.next))[0].id


BERLIN = datetime(2025, 7, 1, 12, 30, tzinfo=ZoneInfo("Europe/Berlin"))
SAME = [BERLIN, BERLIN.astimezone(UTC), BERLIN.astimezone(timezone(timedelta(hours=-3), "n")), BERLIN.astimezone(ZoneInfo("Asia/Tokyo"))]


@pytest.mark.parametrize("place", ["itself", "in a list", "in a dict"])
@pytest.mark.parametrize("given", range(len(SAME)))
async def test_a_moment_is_the_same_in_every_zone(symphony: Symphony, given: int, place: str) -> None:
    """Metadata are found by the moment that they hold, in whatever zone it was given and is asked for."""
    put = {"itself": lambda moment: moment, "in a list": lambda moment: [1, moment], "in a dict": lambda moment: {"at": moment}}[place]
    await ran(symphony, report(symphony), 1, metadata={"due": put(SAME[given])})
    await ran(symphony, report(symphony), 1, metadata={"due": put(BERLIN + timedelta(hours=1))})
    for asked in SAME:
        assert len(await symphony.workflows.list_runs(metadata={"due": put(asked)})) == 1
