"""`list_runs` and `count_runs`: the list of runs, which is made of the log's events, however it is made."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.errors import ConfigurationError, EntityNotFoundError, NotReadyError
from symphony_es.workflow import RunSummary, StepList, Workflow
from symphony_es.workflow.runs import listing
from symphony_es.workflow.runs.filters import RunFilter
from symphony_es.workflow.runs.listing import FILE_NAME, RunListing
from symphony_es.workflow.runs.notes import row_of_run

pytestmark = pytest.mark.usefixtures("small_pages")


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of a few events: many of them even in a short log."""
    monkeypatch.setattr(listing, "PAGE", 7)


def shop(symphony: Symphony, mended: Collection[int] = ()) -> Any:
    """A definition whose second step fails for odd orders, and whose third one waits where it is told to."""

    async def check(context: Any) -> str:
        if context["order"] % 2 and context["order"] not in mended:
            raise ValueError(f"order {context['order']} is odd (id {context['order']:08x})")
        return "even"

    symphony.functions.register("note", lambda context: context["order"], replace=True)
    symphony.functions.register("check", check, replace=True)
    builder = symphony.build_workflow("shop").add_function("note", "note").add_function("check", "check")
    return builder.add_conditional("maybe", "waits", StepList().add_wait("answer")).build()


async def some_runs(symphony: Symphony) -> list[Workflow]:
    """Runs in every status, some of which were taken back, changed and removed."""
    mended: set[int] = set()
    definition, runs = shop(symphony, mended), []
    for order in range(6):
        context = {"order": order, "waits": False}
        runs.append(
            await symphony.workflows.execute_workflow(definition, context, run_id=f"r{order}", metadata={"customer": f"c{order % 3}"})
        )
    waiting = await symphony.workflows.start(definition, {"order": 8, "waits": True}, run_id="waits", auto_checkpoint=False)
    stopped = await symphony.workflows.start(definition, {"order": 10, "waits": True}, run_id="stopped")
    for handle in (waiting, stopped):
        while not any(address.endswith("answer") for address in handle.run.attempts):
            await asyncio.sleep(0)
    await stopped.cancel()
    for again in ("r1", "r2"):
        mended.add(1)
        await symphony.workflows.retry_from(again, "check")
    await symphony.workflows.fork("r0", "check", run_id="fork")
    run = await symphony.workflows.get_run("r3")
    run.metadata["customer"] = "changed"
    async with symphony.transaction("Gone"):
        symphony.entities.remove(await symphony.workflows.get_run("r4"))
    await symphony.flush()
    return [*runs, waiting.run, stopped.run]


MADE: list[RunListing] = []


@pytest.fixture(autouse=True)
async def close_lists() -> AsyncIterator[None]:
    """Newer Pythons warn of a database that nobody has closed."""
    yield
    while MADE:
        await MADE.pop().close()


def listing_of(symphony: Symphony, path: Path | None = None, *, writes: bool = False) -> RunListing:
    """A list made of the events alone: it knows nothing of what is live."""
    MADE.append(RunListing(symphony.log, symphony.state_history, path, writes=writes))
    return MADE[-1]


async def rows_of(runs: RunListing) -> list[Any]:
    """All rows, oldest first."""
    await runs.catch_up()
    return [listed[:] for listed in runs._list.find(RunFilter().query(), 1000, newest_first=False)]


async def test_every_way_to_the_list_gives_the_same(symphony: Symphony, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Asked after each change or only at the end, of live runs or of events alone, in pages of any size: the same rows."""
    asked: list[RunListing] = []
    original = Symphony.flush

    async def some_more(self: Symphony) -> None:
        await original(self)
        await symphony.run_listing.catch_up()

    monkeypatch.setattr(Symphony, "flush", some_more)
    await some_runs(symphony)
    expected = await rows_of(symphony.run_listing)
    for size in (1, 3, 50, 4000):
        monkeypatch.setattr(listing, "PAGE", size)
        asked.append(listing_of(symphony, tmp_path / str(size), writes=True))
        assert await rows_of(asked[-1]) == expected
        await asked[-1].close()
    by_id = {found[2].id: found[2] for found in expected}
    for run in symphony.entities.all("Workflow"):
        version = symphony.world.record_for(run).version
        assert by_id.pop(run.id) == row_of_run(run, version)
    assert not by_id or all(row.status in ("completed", "failed", "cancelled") for row in by_id.values())


@pytest.mark.parametrize("seed", range(6))
async def test_a_list_that_is_brought_on_in_parts_is_the_list_made_at_once(symphony: Symphony, seed: int) -> None:
    """Wherever the log was when it was asked for before."""
    await some_runs(symphony)
    chance, runs, head = random.Random(seed), listing_of(symphony), symphony.log.head
    for until in sorted(chance.sample(range(1, head), 5)):
        runs.log = _Until(symphony.log, until)  # type: ignore[assignment]
        await runs.catch_up()
    runs.log = symphony.log
    assert await rows_of(runs) == await rows_of(listing_of(symphony))


class _Until:
    """A log as it was when its head was somewhere else."""

    def __init__(self, log: Any, head: int) -> None:
        self._log, self._head = log, head

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def refresh_head(self) -> int:
        return self._head


FILTERS: list[tuple[dict[str, Any], set[str]]] = [
    ({}, {"r0", "r1", "r2", "r3", "r5", "waits", "stopped", "fork"}),
    ({"status": "failed"}, {"r3", "r5"}),
    ({"status": ["Running", "cancelled"]}, {"waits", "stopped"}),
    ({"name": "shop", "status": "pending"}, {"fork"}),
    ({"name": ["other", "shop"], "error": True}, {"r3", "r5"}),
    ({"name": "other"}, set()),
    ({"metadata": {"customer": "c0"}}, {"r0"}),
    ({"metadata": {"customer": "changed"}}, {"r3"}),
    ({"metadata": {"customer": "c"}}, set()),
    ({"metadata": {"custom": "c0"}}, set()),
    ({"error": ValueError}, {"r3", "r5"}),
    ({"error": "valueerror"}, {"r3", "r5"}),
    ({"error": "order 5 is"}, {"r5"}),
    ({"error": "100%"}, set()),
    ({"error": False, "status": "cancelled"}, {"stopped"}),
    ({"step": "check"}, {"r3", "r5"}),
    ({"step": "answer"}, {"waits", "stopped"}),
    ({"since": timedelta(hours=1), "status": "failed"}, {"r3", "r5"}),
    ({"since": "2200-01-01"}, set()),
    ({"until": "2200-01-01T00:00:00+01:00", "status": "failed"}, {"r3", "r5"}),
    ({"created_after": datetime(2200, 1, 1, tzinfo=UTC)}, set()),
]


async def test_filters_find_what_they_say(symphony: Symphony) -> None:
    """Each alone and together; a count is of the same runs."""
    await some_runs(symphony)
    for filters, expected in FILTERS:
        assert {run.id for run in await symphony.workflows.list_runs(**filters)} == expected, filters
        if "created_after" not in filters:
            assert sum((await symphony.workflows.count_runs(**filters)).values()) == len(expected), filters
    assert await symphony.workflows.count_runs() == {"completed": 3, "failed": 2, "cancelled": 1, "pending": 1, "running": 1}
    assert await symphony.workflows.count_runs("name") == {"shop": 8}
    groups = await symphony.workflows.count_runs("error")
    assert groups == {"ValueError at check: order # is odd (id #)": 2}
    assert len(await symphony.workflows.list_runs(error=next(iter(groups)))) == 2


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"status": "faild"}, "did you mean failed"),
        ({"status": ["running", "complete"]}, "did you mean completed"),
        ({"status": 3}, "statuses are"),
        ({"since": "yesterday"}, "since='yesterday'"),
        ({"until": datetime(2026, 1, 1)}, "no time zone"),
        ({"since": 5}, "a timedelta"),
        ({"metadata": "customer"}, "it is a dict"),
        ({"name": 5}, "it is a text"),
        ({"step": ["a"]}, "it is a text"),
        ({"error": ["ValueError"]}, "it is a text"),
        ({"limit": 0}, "at least one run"),
        ({"limit": "5"}, "at least one run"),
        ({"newest_first": "no"}, "True or False"),
        ({"newest_first": None}, "True or False"),
        ({"parent": 5}, "a run is named by"),
    ],
)
async def test_a_filter_that_means_nothing_is_an_error(symphony: Symphony, wrong: dict[str, Any], said: str) -> None:
    """It is never an empty list, which would say that there are none."""
    with pytest.raises(ConfigurationError, match=said):
        await symphony.workflows.list_runs(**wrong)


async def test_pages_go_on_where_they_ended(symphony: Symphony) -> None:
    """By the page's `next`, a summary or an id; also where the last run has been removed, and others have begun meanwhile."""
    await some_runs(symphony)
    every = [run.id for run in await symphony.workflows.list_runs()]
    first = await symphony.workflows.list_runs(limit=3)
    assert [run.id for run in first] == every[:3]
    for after in (first.next, first[-1], first[-1].id, f"Workflow:{first[-1].id}"):
        assert [run.id for run in await symphony.workflows.list_runs(limit=3, after=after)] == every[3:6]
    await symphony.workflows.cancel(first[-1].id)
    symphony.entities.remove(await first[-1].load())
    await symphony.workflows.execute_workflow(shop(symphony), {"order": 2, "waits": False})
    second = await symphony.workflows.list_runs(limit=3, after=first.next)
    third = await symphony.workflows.list_runs(limit=3, after=second.next)
    assert [run.id for run in second + third] == every[3:]
    assert third.next is None
    with pytest.raises(EntityNotFoundError, match="begin with the first page"):
        await symphony.workflows.list_runs(after=first[-1])
    with pytest.raises(EntityNotFoundError):
        await symphony.workflows.list_runs(parent="nobody")


async def test_a_summary_tells_of_its_run_and_loads_it(symphony: Symphony) -> None:
    """What it says is what the run says; it is frozen, and goes to JSON."""
    await some_runs(symphony)
    (summary,) = await symphony.workflows.list_runs(error="order 5")
    run = await summary.load()
    assert (summary.id, summary.status, summary.created_at, summary.ended_at) == (run.id, run.status, run.created_at, run.ended_at)
    assert (summary.begun_steps, summary.completed_steps, summary.errors, summary.step) == (2, 1, 1, "check")
    assert summary.error_type == "ValueError"
    assert summary.to_dict()["error_message"] == "order 5 is odd (id 00000005)"
    assert summary.duration_s is not None
    with pytest.raises(AttributeError):
        summary.status = "completed"  # type: ignore[misc, assignment]
    (alone,) = await listing_of(symphony).page(RunFilter(error="order 5"))
    assert alone == summary
    with pytest.raises(NotReadyError, match="without a Symphony"):
        await alone.load()


async def test_what_was_begun_a_moment_ago_is_listed(symphony: Symphony) -> None:
    """A run reads its own list: from inside of a step, and after a change that nobody has waited for."""
    seen: list[RunSummary] = []

    async def look(context: Any) -> None:
        seen.extend(await symphony.workflows.list_runs())

    symphony.functions.register("look", look)
    run = await symphony.workflows.execute_workflow(symphony.build_workflow("w").add_function("look", "look").build())
    assert [(summary.id, summary.status, summary.step) for summary in seen] == [(run.id, "running", "look")]
    run.metadata["k"] = 1
    assert [summary.metadata for summary in await symphony.workflows.list_runs()] == [{"k": 1}]


async def test_other_processes_read_the_list_and_leave_it_alone(symphony: Symphony, tmp_path: Path) -> None:
    """Beside a writer, whether that has a list or not, and how far it has got."""
    await some_runs(symphony)
    path = tmp_path / "state" / "projections" / FILE_NAME
    for listed in (False, True, True):
        if listed:
            await symphony.workflows.list_runs()
        before = path.read_bytes() if path.exists() else None
        async with Symphony(tmp_path / "state", read_only=True) as reader:
            assert len(await reader.workflows.list_runs()) == 8 + (await reader.workflows.count_runs(name="more")).get("completed", 0)
            assert (await reader.workflows.list_runs(status="failed"))[0].id == "r5"
        assert (path.read_bytes() if path.exists() else None) == before
        await symphony.workflows.execute_workflow(symphony.build_workflow("more").add_function("note", "note").build(), {"order": 1})


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def _scribble(path: Path) -> None:
    path.write_bytes(b"no database at all" * 100)


@pytest.mark.parametrize("damage", [_cut, _scribble, Path.unlink])
async def test_a_list_that_is_damaged_or_gone_is_made_anew(reopen: Any, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """It is a cache of the log."""
    symphony = await reopen()
    await some_runs(symphony)
    before = await symphony.workflows.list_runs()
    await symphony.close()
    path = tmp_path / "state" / "projections" / FILE_NAME
    for beside in path.parent.glob(f"{FILE_NAME}-*"):
        beside.unlink()
    damage(path)
    symphony = await reopen()
    assert await symphony.workflows.list_runs() == [*before]


async def test_the_list_of_another_log_is_not_taken_for_this_ones(reopen: Any, tmp_path: Path) -> None:
    """A directory whose log was put in another one's place, or put back to what it was before."""
    symphony = await reopen()
    await some_runs(symphony)
    await symphony.workflows.list_runs()
    await symphony.close()
    async with Symphony(tmp_path / "other") as other:
        for number in range(30):
            await other.workflows.execute_workflow(shop(other), {"order": 2, "waits": False}, run_id=f"o{number}")
        await other.workflows.list_runs()
    (tmp_path / "other" / "projections" / FILE_NAME).replace(tmp_path / "state" / "projections" / FILE_NAME)
    symphony = await reopen()
    assert {run.id for run in await symphony.workflows.list_runs()} == FILTERS[0][1]


async def test_a_log_in_memory_that_has_forgotten_events_lists_all_runs() -> None:
    """Their states are kept."""
    async with Symphony({"memory_events": 40}) as symphony:
        for number in range(9):
            await symphony.workflows.execute_workflow(shop(symphony), {"order": number, "waits": False}, run_id=f"r{number}")
        assert symphony.log.base_position > 0
        assert {run.id for run in await symphony.workflows.list_runs()} == {f"r{number}" for number in range(9)}
        assert await symphony.workflows.count_runs() == {"completed": 5, "failed": 4}


async def test_questions_while_it_closes_end_with_an_error_of_the_library(symphony: Symphony) -> None:
    """Each question has its answer or `NotReadyError`, at any moment of the closing; who asks later does not open the file again."""
    await symphony.workflows.start(symphony.build_workflow("waits").add_wait("answer").build())
    await symphony.workflows.list_runs()
    kept = symphony._run_listing
    assert kept is not None

    async def asked(turns: int) -> object:
        for _ in range(turns):
            await asyncio.sleep(0)
        return await (symphony.workflows.list_runs() if turns % 2 else symphony.workflows.count_runs())

    questions = [asyncio.create_task(asked(turns)) for turns in range(60)]
    await symphony.close()
    told = await asyncio.gather(*questions, return_exceptions=True)
    assert {type(each) for each in told if isinstance(each, BaseException)} <= {NotReadyError}
    for late in (kept.count(RunFilter()), kept.catch_up(), kept._asked(kept._list.count, RunFilter().query(), "status")):
        with pytest.raises(NotReadyError, match="closed"):
            await late
    assert kept._list._db is None


@pytest.mark.parametrize(
    ("asked", "found"), [(1, {"int", "float"}), (1.0, {"int", "float"}), (True, {"bool"}), (1.5, {"half"}), ("1", {"text"}), (10, set())]
)
async def test_numbers_of_the_metadata_are_equal_by_value(symphony: Symphony, asked: Any, found: set[str]) -> None:
    """1 and 1.0 are one number, True is none, and a text is a text."""
    definition: Any = {"name": "n", "steps": [{"kind": "sleep", "name": "s", "seconds": 0}]}
    for name, value in {"int": 1, "float": 1.0, "bool": True, "half": 1.5, "text": "1"}.items():
        await symphony.workflows.execute_workflow(definition, run_id=name, metadata={"k": value}, auto_checkpoint=False)
    assert {summary.id for summary in await symphony.workflows.list_runs(metadata={"k": asked})} == found
