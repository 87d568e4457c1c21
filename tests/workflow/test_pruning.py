"""Runs that are pruned: gone from lists and snapshots by events, whole families or none of it; the past still has them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from symphony_es import Symphony, entity
from symphony_es.core.past.states import StateHistory, live_states
from symphony_es.core.world.inbox import Request
from symphony_es.errors import (
    ConfigurationError,
    DetachedEntityError,
    EntityExistsError,
    EntityNotFoundError,
    LogUnavailableError,
    ReadOnlyError,
    RequestRefusedError,
    RunPrunedError,
    WorkflowError,
)
from symphony_es.events.references import EntityReference
from symphony_es.workflow.runs import pruning
from symphony_es.workflow.runs.pruning import CHILD, FORK, LIVE, REFERRED, PruneReport, Pruning
from tests.cli.document import answer

Opener = Callable[..., Awaitable[Symphony]]
RECORDS = ("Workflow:", "Task:")


@entity
class PrunedParcel:
    id: str = ""
    what: Any = None


def shop(symphony: Symphony, *, fails: bool = False) -> Any:
    """A definition with a task step and a child run that has a task, too; its last step fails where it is told to."""

    def last(context: Any) -> str:
        if fails:
            raise ValueError("no")
        return "done"

    symphony.functions.register("last", last, replace=True)
    kid = symphony.build_workflow("kid").add_task("think", "", "Think").build()
    return symphony.build_workflow("shop").add_task("ask", "", "Ask").add_workflow("kid", kid).add_function("last", "last").build()


def small(symphony: Symphony, name: str = "small", *, fails: bool = False) -> Any:
    """A definition with one step."""

    def act(context: Any) -> int:
        if fails:
            raise ValueError("no")
        return 1

    symphony.functions.register(f"act-{name}", act, replace=True)
    return symphony.build_workflow(name).add_function("act", f"act-{name}").build()


async def ran(symphony: Symphony, definition: Any, *ids: str, **options: Any) -> None:
    """Runs that have ended."""
    for run_id in ids:
        await symphony.workflows.execute_workflow(definition, run_id=run_id, auto_checkpoint=False, **options)


async def listed(symphony: Symphony) -> list[str]:
    """Ids of all runs in the list."""
    return sorted(summary.id for summary in await symphony.workflows.list_runs(limit=1000))


async def alive(symphony: Symphony, history: StateHistory | None = None) -> list[str]:
    """Keys of the runs and tasks that the fold has."""
    await symphony.flush()
    fold = await (history or symphony.state_history).states_at(symphony.log.head)
    return [key for key in live_states(fold) if key.startswith(RECORDS)]


async def snapshot(symphony: Symphony) -> Any:
    """A snapshot of the head."""
    assert symphony._opened is not None
    assert symphony._opened.snapshotter is not None
    await symphony.flush()
    return await symphony._opened.snapshotter.take(symphony.log.head)


@pytest.mark.parametrize("before", [False, True], ids=["no snapshot", "a snapshot before"])
@pytest.mark.parametrize("process", ["this one", "resumed", "not resumed", "command line"])
async def test_a_run_is_pruned_with_all_that_belongs_to_it(reopen: Opener, tmp_path: Path, process: str, before: bool) -> None:
    """No list, snapshot or fold has it any more, whoever prunes; what folds from a snapshot is what folds from the first event."""
    symphony = await reopen()
    await ran(symphony, shop(symphony), "a", "b")
    first = await snapshot(symphony) if before else None
    if process == "command line":
        await symphony.close()
        told, code = await asyncio.to_thread(answer, "prune-runs --older-than 0s --json", tmp_path)
        assert code == 0
        report = json.loads(told)
        assert (report["runs"], report["tasks"], report["ids"], report["kept"]) == (4, 4, ["b", "a"], {})
        symphony = await reopen()
    else:
        if process != "this one":
            symphony = await reopen(**({"resume": "latest"} if process == "resumed" else {}))
        made = await symphony.workflows.prune_runs(older_than=0)
        assert (made.runs, made.tasks, made.ids, made.kept, made.dry_run) == (4, 4, ("b", "a"), {}, False)
        assert made.position == symphony.log.head
        assert str(made) == "4 runs with 4 tasks pruned"
    assert await listed(symphony) == []
    assert await symphony.workflows.count_runs() == {}
    assert await alive(symphony) == []
    assert await alive(symphony, StateHistory(symphony.log, None)) == []
    assert await symphony.entities.ids("Workflow") == await symphony.entities.ids("Task") == []
    last = await snapshot(symphony)
    assert symphony.state_history.snapshots is not None
    assert symphony.state_history.snapshots.keys_at_rest(last, RECORDS) == []
    assert first is None or last.size_bytes < first.size_bytes / 2
    symphony = await reopen(resume="latest")
    assert await listed(symphony) == []
    assert [key for key in symphony.world.records if key.startswith(RECORDS)] == []
    await symphony.close()
    assert (await asyncio.to_thread(answer, "verify --fold", tmp_path))[1] == 0


CALLS: dict[str, Callable[[Symphony, Any], Awaitable[Any]]] = {
    "get_run": lambda s, d: s.workflows.get_run("r"),
    "key": lambda s, d: s.workflows.get_run("Workflow:r"),
    "reference": lambda s, d: s.workflows.get_run(EntityReference("Workflow", "r")),
    "handle": lambda s, d: asyncio.sleep(0, s.workflows.handle("r")),
    "results": lambda s, d: s.workflows.get_workflow_results("r"),
    "get_workflow": lambda s, d: s.workflows.get_workflow("r"),
    "resume": lambda s, d: s.workflows.resume("r"),
    "retry_from": lambda s, d: s.workflows.retry_from("r", "act"),
    "fork": lambda s, d: s.workflows.fork("r", "act"),
    "fork to it": lambda s, d: s.workflows.fork("other", "act", run_id="r"),
    "signal": lambda s, d: s.workflows.signal("r", "go"),
    "cancel": lambda s, d: s.workflows.cancel("r"),
    "pause": lambda s, d: s.workflows.pause("r"),
    "by id": lambda s, d: s.workflows.execute_workflow_by_id("r"),
    "start it": lambda s, d: s.workflows.start("r"),
    "start anew": lambda s, d: s.workflows.start(d, run_id="r", auto_checkpoint=False),
    "start or return": lambda s, d: s.workflows.start(d, run_id="r", if_exists="return", auto_checkpoint=False),
    "execute anew": lambda s, d: s.workflows.execute_workflow(d, run_id="r", auto_checkpoint=False),
    "load": lambda s, d: s.entities.load("Workflow:r"),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("process", ["this one", "resumed", "not resumed", "in memory"])
async def test_calls_of_a_pruned_run_say_that_it_was_pruned(reopen: Opener, symphony: Symphony, call: str, process: str) -> None:
    """They name the position, do nothing, and nobody does again under its id what was done."""
    if process == "in memory":
        symphony = Symphony()
        await symphony.setup()
    definition = small(symphony)
    await ran(symphony, definition, "r")
    await ran(symphony, small(symphony, "other"), "other")
    report = await symphony.workflows.prune_runs(older_than=0, name="small")
    if process in ("resumed", "not resumed"):
        symphony = await reopen(**({"resume": "latest"} if process == "resumed" else {}))
        definition = small(symphony)
        small(symphony, "other")
    head = symphony.log.head
    with pytest.raises(RunPrunedError, match=f"^Workflow:r was pruned at position {report.position}: ") as raised:
        await CALLS[call](symphony, definition)
    assert (raised.value.entity, raised.value.position) == ("Workflow:r", report.position)
    assert isinstance(raised.value, EntityNotFoundError)
    assert isinstance(raised.value, EntityExistsError)
    await symphony.flush()
    assert symphony.log.head == head
    assert await listed(symphony) == ["other"]
    if process == "in memory":
        await symphony.close()


async def test_a_transaction_that_starts_it_anew_is_rolled_back(symphony: Symphony) -> None:
    """All of it: what else the block does is part of the start."""
    definition = small(symphony)
    await ran(symphony, definition, "r")
    await symphony.workflows.prune_runs(older_than=0)
    parcel = symphony.entities.add(PrunedParcel(id="p"))
    with pytest.raises(RunPrunedError):
        async with symphony.transaction("Ordered"):
            parcel.what = 1
            await symphony.workflows.start(definition, run_id="r", auto_checkpoint=False)
    assert parcel.what is None


@pytest.mark.parametrize("ends", ["commit", "rollback"])
async def test_a_checkpoint_beside_an_open_transaction_comes_behind_the_pruning(symphony: Symphony, ends: str) -> None:
    """Pruning appends past the live entities; the position that is named has it all the same, and counts what is left."""
    parcel = symphony.entities.add(PrunedParcel(id="1"))
    run = await symphony.workflows.execute_workflow(small(symphony), auto_checkpoint=False)
    await symphony.flush()
    ending = asyncio.Event()

    async def hold() -> None:
        async with symphony.transaction("ParcelHeld"):
            parcel.what = 1
            await ending.wait()
            if ends == "rollback":
                raise ValueError("no")

    async with asyncio.TaskGroup() as group:
        held = group.create_task(asyncio.wait_for(asyncio.gather(hold(), return_exceptions=True), 30))
        await asyncio.sleep(0)
        await symphony.workflows.prune_runs(older_than=0)
        pruned = symphony.log.head
        await symphony.create_checkpoint("behind")
        ending.set()
        await held
    entry = (await symphony.list_checkpoints(name="behind"))[0]
    view = await symphony.at("behind")
    assert entry["position"] == pruned
    assert (f"Workflow:{run.id}" in view, view.get("PrunedParcel:1")["what"]) == (False, None)
    assert entry["entity_count"] == len([reference for reference in view if not reference.entity_type.startswith("symphony.")])


async def test_the_past_still_has_it(symphony: Symphony) -> None:
    """History, blame, audit, attempts and states of before answer for it, and a rewind brings it back as it was."""
    await ran(symphony, shop(symphony), "r")
    (task,) = await symphony.tasks.get_tasks_by_workflow("r/kid")
    checkpoint = await symphony.create_checkpoint("mine", {"run_id": "r"})
    async with symphony.acting_as(actor="ann", reason="two years are over"):
        report = await symphony.workflows.prune_runs(older_than=0)
    assert report.position is not None
    last = (await symphony.history("Workflow:r"))[-1]
    assert (last.event.name, last.event.metadata.actor, last.event.metadata.reason) == ("RunPruned", "ann", "two years are over")
    assert (await symphony.history(task))[-1].event.name == "TaskPruned"
    assert await symphony.blame("Workflow:r", "status")
    assert await symphony.workflows.step_attempts("r")
    assert (await symphony.workflows.usage("r")).by_model == ()
    assert (await symphony.at("mine")).get("Workflow:r")["status"] is not None
    assert (await symphony.at(report.position - 6)).get("Workflow:r/kid") is not None
    assert [entry["name"] for entry in await symphony.list_checkpoints(run="r")] == ["mine"]
    await symphony.rewind(checkpoint)
    assert await listed(symphony) == ["r", "r/kid"]
    assert (await symphony.workflows.get_run("r")).result == "done"
    assert (await symphony.workflows.prune_runs(older_than=0)).runs == 2


@pytest.mark.parametrize(
    ("filters", "left"),
    [
        ({}, ["bad", "other-bad"]), ({"status": "failed"}, ["good", "other-good"]), ({"status": ["failed", "completed"]}, []),
        ({"name": "one"}, ["bad", "other-bad", "other-good"]), ({"name": ["one", "two"]}, ["bad", "other-bad"]),
        ({"metadata": {"customer": 2}}, ["bad", "good", "other-bad"]),
        ({"status": "cancelled"}, ["bad", "good", "other-bad", "other-good"]),
    ],
)  # fmt: skip
async def test_filters(symphony: Symphony, filters: dict[str, Any], left: list[str]) -> None:
    """Failed runs, which may be tried again, go only where they are asked for."""
    for name, beginning in (("one", ""), ("two", "other-")):
        metadata = {"customer": 1 if name == "one" else 2}
        await ran(symphony, small(symphony, name), f"{beginning}good", metadata=metadata)
        await ran(symphony, small(symphony, name, fails=True), f"{beginning}bad", metadata=metadata)
    told = await symphony.workflows.prune_runs(older_than=timedelta(0), dry_run=True, **filters)
    assert told.position is None
    assert len(await listed(symphony)) == 4
    report = await symphony.workflows.prune_runs(older_than=timedelta(0), **filters)
    assert report == PruneReport(**{**_fields(told), "position": report.position, "dry_run": False, "ended_before": report.ended_before})
    assert await listed(symphony) == left


async def test_a_name_that_no_run_has_had(symphony: Symphony) -> None:
    """The report names those that are written like it; a name that there is has none, whether its runs fit or not."""
    await ran(symphony, small(symphony, "order"), "1")
    report = await symphony.workflows.prune_runs(older_than=timedelta(0), name="ordr", dry_run=True)
    assert str(report) == "0 runs would be pruned; did you mean order?"
    assert report.to_dict()["near"] == ["order"]
    for filters in ({"name": "order", "status": "failed"}, {"name": ["order", "ordr"]}, {"name": "quite another"}):
        assert (await symphony.workflows.prune_runs(older_than=timedelta(0), dry_run=True, **filters)).near == ()


def _fields(report: PruneReport) -> dict[str, Any]:
    return {name: getattr(report, name) for name in PruneReport.__slots__}


@pytest.mark.parametrize(
    "older_than",
    [
        60, 60.0, timedelta(minutes=1), lambda now: now - timedelta(minutes=1), lambda now: (now - timedelta(minutes=1)).isoformat(),
        "2020-01-01", "2020-01-01T08:00", 10**12, timedelta.max, datetime(2020, 1, 1, tzinfo=UTC),
    ],
)  # fmt: skip
async def test_ages_that_no_run_has(symphony: Symphony, older_than: Any) -> None:
    """Seconds, a timedelta, a moment and its ISO text all mean when the run ended."""
    await ran(symphony, small(symphony), "r")
    given = older_than(datetime.now(UTC)) if callable(older_than) else older_than
    assert (await symphony.workflows.prune_runs(older_than=given)).runs == 0
    later = datetime.now(UTC) + timedelta(seconds=1)
    assert (await symphony.workflows.prune_runs(older_than=later.isoformat())).runs == 1


@pytest.mark.parametrize(
    "given",
    [
        {"older_than": -1}, {"older_than": float("nan")}, {"older_than": True}, {"older_than": None}, {"older_than": "30 days"},
        {"older_than": "yesterday"}, {"older_than": datetime(2020, 1, 1)}, {"older_than": timedelta(-1)}, {"older_than": []},
        {"older_than": 1, "status": "running"}, {"older_than": 1, "status": "compleated"}, {"older_than": 1, "name": 3},
        {"older_than": 1, "metadata": 3}, {"older_than": 1, "dry_run": "yes"},
    ],
)  # fmt: skip
async def test_what_means_nothing_prunes_nothing(symphony: Symphony, given: dict[str, Any]) -> None:
    """A typed error that names what was given."""
    await ran(symphony, small(symphony), "r")
    with pytest.raises(ConfigurationError, match="|".join(given)):
        await symphony.workflows.prune_runs(**given)
    assert await listed(symphony) == ["r"]


@pytest.mark.parametrize("referred", ["Workflow:r", "Workflow:r/kid", "a task"])
@pytest.mark.parametrize("process", ["this one", "resumed", "not resumed", "command line"])
async def test_what_a_living_entity_refers_to_stays_whole(reopen: Opener, tmp_path: Path, referred: str, process: str) -> None:
    """The family of a run, child run or task that a living entity holds; others go."""
    symphony = await reopen()
    await ran(symphony, shop(symphony), "r", "s")
    key = referred if referred != "a task" else f"Task:{(await symphony.tasks.get_tasks_by_workflow('r/kid'))[0].id}"
    symphony.entities.add(PrunedParcel(id="p", what=await symphony.entities.load(key)))
    await symphony.flush()
    before = [each for each in await alive(symphony) if not each.partition(":")[2].startswith("s")]
    if process == "command line":
        await symphony.close()
        told, _ = await asyncio.to_thread(answer, "prune-runs --older-than 0s --json", tmp_path)
        report = json.loads(told)
        assert (report["ids"], sum(report["kept"].values()), report["kept_ids"]) == (["s"], 1, ["r"])
        symphony = await reopen()
    else:
        if process != "this one":
            symphony = await reopen(**({"resume": "latest"} if process == "resumed" else {}))
        made = await symphony.workflows.prune_runs(older_than=0)
        assert (made.ids, made.kept_ids) == (("s",), ("r",))
        assert made.kept in ({REFERRED: 1}, {LIVE: 1})
    assert await alive(symphony) == before
    symphony = await reopen(resume="latest")
    assert symphony.last_resume.unresolved == []


async def test_a_family_whose_child_has_ended_later_stays(symphony: Symphony) -> None:
    """A child run that was tried again after its run had ended keeps all of it, until it has ended as long ago."""
    await ran(symphony, shop(symphony), "r")
    (top,) = await symphony.workflows.list_runs(name="shop")
    await symphony.workflows.retry_from("r/kid", "think")
    (kid,) = await symphony.workflows.list_runs(name="kid")
    assert top.ended_at is not None
    assert kid.ended_at is not None
    assert top.ended_at < kid.ended_at
    report = await symphony.workflows.prune_runs(older_than=top.ended_at)
    assert (report.runs, report.kept, report.kept_ids) == (0, {CHILD: 1}, ("r",))
    assert (await symphony.workflows.prune_runs(older_than=kid.ended_at)).runs == 2


@pytest.mark.parametrize("waits", [False, True], ids=["ended", "at work"])
async def test_forks_and_their_originals(symphony: Symphony, waits: bool) -> None:
    """An original stays as long as a fork of it does, and goes with the last one; a fork may go alone."""
    definition = shop(symphony)
    await ran(symphony, definition, "r")
    fork = await symphony.workflows.fork("r", "last", run_id="f")
    if not waits:
        await symphony.workflows.resume(fork)
    del fork
    told = await symphony.workflows.prune_runs(older_than=0, dry_run=True)
    report = await symphony.workflows.prune_runs(older_than=0)
    assert (told.ids, told.kept) == (report.ids, report.kept)
    if waits:
        assert (report.runs, report.kept_ids) == (0, ("r",))
        assert report.kept in ({FORK: 1}, {REFERRED: 1}, {LIVE: 1})
        assert await listed(symphony) == ["f", "r", "r/kid"]
    else:
        assert report.ids == ("f", "r")
        assert await alive(symphony) == []


async def test_a_fork_that_does_not_fit_keeps_its_original(symphony: Symphony) -> None:
    """The original has ended long ago, and the fork has failed: both stay."""
    await ran(symphony, small(symphony), "r")
    fork = await symphony.workflows.fork("r", "act", run_id="f")
    small(symphony, fails=True)
    await symphony.workflows.resume(fork)
    del fork
    report = await symphony.workflows.prune_runs(older_than=0)
    assert (report.runs, report.kept) == (0, {FORK: 1})
    assert (await symphony.workflows.prune_runs(older_than=0, status=["failed", "completed"])).ids == ("f", "r")


@pytest.mark.parametrize("request_", ["fork", "retry_from"])
async def test_a_run_that_a_request_reads_stays(symphony: Symphony, monkeypatch: pytest.MonkeyPatch, request_: str) -> None:
    """A prune in the middle of a request leaves the run alone that this one works with: no fork is without its original."""
    await ran(symphony, small(symphony), "r", "s")
    reports = []
    read = symphony.log.read_entity_rows

    async def pruned_meanwhile(*arguments: Any, **named: Any) -> Any:
        monkeypatch.undo()
        reports.append(await symphony.workflows.prune_runs(older_than=0))
        return await read(*arguments, **named)

    monkeypatch.setattr(symphony.log, "read_entity_rows", pruned_meanwhile)
    if request_ == "fork":
        await symphony.workflows.fork("r", "act", run_id="f")
    else:
        await symphony.workflows.retry_from("r", "act", auto_checkpoint=False)
    assert (reports[0].ids, reports[0].kept) == (("s",), {LIVE: 1})
    assert "r" in await listed(symphony)


async def test_an_object_in_hand_is_detached(symphony: Symphony) -> None:
    """It is read as before; a change of it says that it was pruned, and brings nothing back."""
    definition = small(symphony)
    await ran(symphony, definition, "r")
    run = await symphony.workflows.get_run("r")
    await symphony.workflows.prune_runs(older_than=0)
    assert run.status == "completed"
    with pytest.raises(DetachedEntityError, match="it was pruned"):
        run.metadata["seen"] = True
    with pytest.raises(RunPrunedError):
        await symphony.workflows.get_run("r")
    assert await alive(symphony) == []


async def test_a_run_that_is_changed_meanwhile_stays_or_goes_whole(symphony: Symphony, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was changed between the look and the append is looked at again; the log has no version twice."""
    await ran(symphony, small(symphony), "r", "s")
    run = await symphony.workflows.get_run("r")
    prepared = Pruning._prepared
    changes = iter(range(2))

    async def changed(self: Pruning, versions: dict[str, int]) -> Any:
        made = await prepared(self, versions)
        if next(changes, None) is not None:
            run.metadata["seen"] = len(run.metadata)
            await symphony.flush()
            symphony.registry.get("workflow_engine").resting.rest(run)
        return made

    monkeypatch.setattr(Pruning, "_prepared", changed)
    report = await symphony.workflows.prune_runs(older_than=0)
    assert (report.runs, report.kept) == (2, {})
    assert await alive(symphony) == []


async def test_a_run_that_comes_to_be_referred_to_meanwhile_stays(symphony: Symphony, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look and the append a living entity has taken it: it stays, and others go."""
    await ran(symphony, small(symphony), "r", "s")
    run = await symphony.workflows.get_run("r")
    parcel = symphony.entities.add(PrunedParcel(id="p"))
    prepared = Pruning._prepared

    async def taken(self: Pruning, versions: dict[str, int]) -> Any:
        parcel.what = run
        return await prepared(self, versions)

    monkeypatch.setattr(Pruning, "_prepared", taken)
    report = await symphony.workflows.prune_runs(older_than=0)
    assert (report.ids, report.kept) == (("s",), {LIVE: 1})
    assert await alive(symphony) == ["Workflow:r"]


async def test_a_crash_leaves_whole_families(reopen: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each transaction: every run is there with all that belongs to it, or is not there at all; asking again goes on."""
    monkeypatch.setattr(pruning, "AT_ONCE", 1)
    symphony = await reopen()
    ids = [f"r{number}" for number in range(4)]
    await ran(symphony, shop(symphony), *ids)
    whole = len(await alive(symphony)) // 4
    submit = Pruning._submit
    for left in (3, 2, 1, 0):
        done = iter(range(1))

        async def some(self: Pruning, events: Any, done: Any = done) -> int:
            if next(done, None) is None:
                raise LogUnavailableError("the disk is gone")
            return await submit(self, events)

        monkeypatch.setattr(Pruning, "_submit", some)
        try:
            await symphony.workflows.prune_runs(older_than=0)
            assert left == 0
        except LogUnavailableError:
            assert left
        symphony = await reopen(resume="latest")
        shop(symphony)
        assert await listed(symphony) == sorted([*ids[:left], *(f"{each}/kid" for each in ids[:left])])
        assert len(await alive(symphony)) == left * whole


async def test_a_call_that_is_cancelled_leaves_whole_families(symphony: Symphony, monkeypatch: pytest.MonkeyPatch) -> None:
    """The transaction under way ends; what has been pruned counts, and the next call prunes the rest."""
    monkeypatch.setattr(pruning, "AT_ONCE", 1)
    await ran(symphony, small(symphony), *(f"r{number}" for number in range(6)))
    submit = Pruning._submit
    task: asyncio.Task[Any]

    async def cancelled(self: Pruning, events: Any) -> int:
        task.cancel()
        return await submit(self, events)

    with monkeypatch.context() as patched:
        patched.setattr(Pruning, "_submit", cancelled)
        task = asyncio.ensure_future(symphony.workflows.prune_runs(older_than=0))
        with pytest.raises(asyncio.CancelledError):
            await task
    assert len(await listed(symphony)) == len(await alive(symphony)) == 5
    assert (await symphony.workflows.prune_runs(older_than=0)).runs == 5


async def test_many_at_once(symphony: Symphony, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several prunes beside runs that begin and end: each run is pruned once, and what is at work is left alone."""
    monkeypatch.setattr(pruning, "PAGE", 3)
    definition = shop(symphony)
    await ran(symphony, definition, *(f"r{number}" for number in range(7)))
    waits = symphony.build_workflow("waits").add_wait("wait", "go").build()
    handle = await symphony.workflows.start(waits, run_id="w", auto_checkpoint=False)
    cut = datetime.now(UTC)
    *reports, _ = await asyncio.gather(
        *(symphony.workflows.prune_runs(older_than=cut) for _ in range(3)), ran(symphony, definition, "x", "y")
    )
    assert sum(report.runs for report in reports) == 14
    assert await listed(symphony) == ["w", "x", "x/kid", "y", "y/kid"]
    await symphony.workflows.signal("w", "go")
    await handle.result()
    assert await symphony.create_checkpoint("c")
    assert (await symphony.list_checkpoints())[0]["entity_count"] == len(await alive(symphony))


async def test_readers_follow(symphony: Symphony, tmp_path: Path) -> None:
    """A process that only reads lists it no more, says that it was pruned, and may ask what would be."""
    await ran(symphony, small(symphony), "r", "s")
    async with Symphony({"state_dir": tmp_path / "state"}, read_only=True) as reader:
        assert await listed(reader) == ["r", "s"]
        held = await reader.workflows.get_run("r")
        assert (await reader.workflows.prune_runs(older_than=0, dry_run=True)).ids == ("s", "r")
        with pytest.raises(ReadOnlyError, match="prune_runs"):
            await reader.workflows.prune_runs(older_than=0)
        await symphony.workflows.prune_runs(older_than=0)
        assert await listed(reader) == []
        assert held.status == "completed"


async def test_not_inside_a_transaction(symphony: Symphony) -> None:
    """What is changed in the block is not in the log yet."""
    await ran(symphony, small(symphony), "r")
    with pytest.raises(WorkflowError, match="inside a transaction"):
        async with symphony.transaction("Changed"):
            await symphony.workflows.prune_runs(older_than=0)
    assert await listed(symphony) == ["r"]


async def test_it_costs_what_is_pruned(symphony: Symphony, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look-ups and bytes grow with the runs, not with their square; the events are small, and the snapshot shrinks."""
    asked: list[str] = []
    rows = symphony.run_listing.rows

    async def counted(query: Any, limit: int) -> Any:
        asked.append(query.where)
        return await rows(query, limit)

    monkeypatch.setattr(symphony.run_listing, "rows", counted)
    costs = []
    for count in (20, 60):
        await ran(symphony, small(symphony), *(f"{count}-{number}" for number in range(count)))
        full = await snapshot(symphony)
        asked.clear()
        before = symphony.log.head
        report = await symphony.workflows.prune_runs(older_than=0)
        events = [row async for page in symphony.log.pages(before, symphony.log.head) for row in page]
        assert len(events) == report.runs == count
        assert sum(len(row[4]) for row in events) < 100 * count
        assert (await snapshot(symphony)).resting_bytes < full.resting_bytes / 2
        costs.append(len(asked))
    assert costs[0] == costs[1]


def test_the_command(tmp_path: Path) -> None:
    """It has a dry run, filters and exact JSON; what is no ended status is refused."""

    async def fill() -> None:
        async with Symphony({"state_dir": tmp_path / "state"}, persistence_enabled=True) as symphony:
            await ran(symphony, small(symphony), "good")
            await ran(symphony, small(symphony, "worse", fails=True), "bad")
            await ran(symphony, small(symphony, "worst", fails=True), "bad2")

    asyncio.run(fill())
    assert answer("prune-runs --older-than 30d", tmp_path) == ("0 runs pruned\n", 0)
    assert answer("prune-runs --older-than 0s --dry-run", tmp_path) == ("good\n1 run would be pruned\n", 0)
    assert answer("prune-runs --older-than 0s --status failed --name worse", tmp_path) == ("bad\n1 run pruned\n", 0)
    assert answer("prune-runs --older-than 0s --status running", tmp_path)[1] == 2
    assert answer("prune-runs", tmp_path)[1] == 2
    told, code = answer("run bad", tmp_path)
    assert code != 0
    assert "Workflow:bad was pruned at position" in told
    assert "symphony-es history Workflow:bad" in told
    assert "did you mean" not in told, "the name was right"


async def test_what_an_entity_comes_to_refer_to_meanwhile_stays(reopen: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the entity is unloaded again before the prune asks for that run; the next prune finds the reference in the log."""
    symphony = await reopen()
    for number in range(3):
        await symphony.workflows.execute_workflow(small(symphony), run_id=f"r{number}", auto_checkpoint=False)
    parcel = symphony.entities.add(PrunedParcel(id="p"))
    await symphony.flush()
    prepared, meanwhile = Pruning._prepared, [True]

    async def refer_first(self: Pruning, versions: dict[str, int]) -> Any:
        if meanwhile and meanwhile.pop():
            parcel.what = await symphony.workflows.get_run("r1")
            await symphony.entities.unload(parcel)
            await symphony.entities.unload("Workflow:r1")
            parcel.__dict__["what"] = None  # nobody has the object of the run
        return await prepared(self, versions)

    monkeypatch.setattr(Pruning, "_prepared", refer_first)
    report = await symphony.workflows.prune_runs(older_than=0)
    assert (report.runs, report.kept, report.kept_ids) == (2, {LIVE: 1}, ("r1",))
    assert (await symphony.workflows.prune_runs(older_than=0)).kept == {REFERRED: 1}
    parcel = await symphony.entities.load("PrunedParcel:p")
    assert parcel.what is await symphony.workflows.get_run("r1")
    assert symphony.world.reference_watches == ()


async def test_a_run_whose_end_was_not_told_stays_and_says_why(symphony: Symphony) -> None:
    """A rewind brings back the moment at which the checkpointer was still to be told of the end; `recover` tells it, and the run can go."""
    await symphony.workflows.execute_workflow(small(symphony), run_id="r")
    newest = (await symphony.list_checkpoints(run="r"))[0]
    await symphony.resume_from_checkpoint(newest["id"], stop_runs=True)
    report = await symphony.workflows.prune_runs(older_than=0)
    assert (report.runs, report.kept) == (0, {pruning.UNTOLD: 1})
    await symphony.workflows.recover()
    assert (await symphony.workflows.prune_runs(older_than=0)).runs == 1


@pytest.mark.parametrize("at", ["step", "position"])
async def test_the_object_of_a_pruned_run_is_not_forked(symphony: Symphony, at: str) -> None:
    """Who still has the object is told what who has the id is told, and nothing is appended."""
    await ran(symphony, small(symphony), "r")
    position, run = symphony.log.head - 1, await symphony.workflows.get_run("r")
    await symphony.workflows.prune_runs(older_than=0)
    head = symphony.log.head
    for given in (run, "r"):
        with pytest.raises(RunPrunedError):
            await symphony.workflows.fork(given, "act" if at == "step" else position)
    assert symphony.log.head == head


@pytest.mark.parametrize("by", ["terminal", "reader"])
async def test_a_live_process_is_asked(symphony: Symphony, by: str) -> None:
    """It prunes what fits and is not in use, once, with who asked and the request's id on each event, and says what came of it."""
    for run_id in ("a", "b", "c"):
        await ran(symphony, small(symphony, f"small-{run_id}"), run_id, metadata={"of": 1 if run_id == "c" else 2})
    in_use = symphony.entities.add(PrunedParcel(id="p", what=await symphony.workflows.get_run("b")))
    await symphony.flush()

    async def ask(older_than: Any = 0, **given: Any) -> PruneReport:
        if by == "reader":
            async with Symphony(symphony.state_dir, read_only=True) as reader:
                with reader.acting_as("ann", reason="nightly"):
                    return await reader.requests.prune_runs(older_than=older_than, request_id="once", timeout_s=60, **given)
        options = f"--older-than {older_than}s --request-id once --actor ann --reason nightly --timeout-s 60 --json"
        named = "".join(f" --name {name}" for name in given.get("name", ())) + "".join(
            f" --metadata of={of}" for of in given.get("metadata", {}).values()
        )
        told, code = await asyncio.to_thread(answer, f"prune-runs {options}{named}", symphony.state_dir.parent)
        if code:
            raise RequestRefusedError("prune", "once", str(code), told)
        return PruneReport.from_dict(json.loads(told))

    report = await ask(metadata={"of": 2})
    assert (report.runs, report.ids, report.kept, report.kept_ids, report.dry_run) == (1, ("a",), {REFERRED: 1}, ("b",), False)
    pruned = (await symphony.log.read_entity("Workflow:a"))[-1]
    assert (pruned.position, pruned.metadata.actor, pruned.metadata.reason) == (report.position, "ann", "nightly")
    assert pruned.metadata.correlation_id == "once"
    in_use.what = None
    await symphony.flush()
    assert await ask(metadata={"of": 2}) == report, "the same request has the first answer, and nothing more is done"
    with pytest.raises(RequestRefusedError, match="with other arguments"):
        await ask(name=["small-c"], metadata={"of": 2})
    assert sorted(summary.id for summary in await symphony.workflows.list_runs()) == ["b", "c"]


async def test_a_prune_that_nobody_takes_waits(reopen: Opener, tmp_path: Path) -> None:
    """The next process that has the log open does it; what is refused there is said."""
    symphony = await reopen()
    await ran(symphony, small(symphony), "a")
    await symphony.close()
    told, code = await asyncio.to_thread(answer, "prune-runs --older-than 0s --request-id one", tmp_path)
    assert (code, "nobody has this log open: the request stays" in told) == (3, True)
    symphony = await reopen(resume="latest")
    await symphony.workflows.recover()
    told, code = await asyncio.to_thread(answer, "prune-runs --older-than 0s --request-id one --timeout-s 60", tmp_path)
    assert (told, code) == ("a\n1 run pruned\n", 0)


@pytest.mark.parametrize(
    "given",
    [
        {"run": "r"}, {"arguments": {}}, {"arguments": {"older_than_s": 1, "before": "2020-01-01"}}, {"arguments": {"older_than_s": -1}},
        {"arguments": {"older_than_s": "1"}}, {"arguments": {"older_than_s": 1, "status": "completed"}},
        {"arguments": {"older_than_s": 1, "dry_run": True}}, {"arguments": {"older_than_s": 1, "metadata": [1]}},
    ],
)  # fmt: skip
def test_what_is_no_prune_is_no_request(given: dict[str, Any]) -> None:
    """It is refused where it is made, and in a file of the inbox."""
    with pytest.raises(ConfigurationError):
        Request(**{"verb": "prune", "run": "", "arguments": {"older_than_s": 1}, **given})


@pytest.mark.parametrize("moment", ["@9999-12-31T23:59:59-14:00", "@0001-01-01T00:00+14:00"])
async def test_a_moment_that_its_zone_leads_beyond_all_dates(moment: str) -> None:
    """The first or the last moment there is stands for it."""
    async with Symphony() as symphony:
        report = await symphony.workflows.prune_runs(older_than=moment, dry_run=True)
        assert report.ended_before.year in (1, 9999)
