"""A log has each definition once: runs name it by its content, whoever starts them, in whatever order and process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.errors import DefinitionError
from symphony_es.events.changes import SET
from symphony_es.events.event import EventMetadata, NewEvent
from symphony_es.log import log as log_module
from symphony_es.transfer.backups import backup, restore
from symphony_es.transfer.jsonl import export_jsonl, import_jsonl
from symphony_es.workflow import Workflow, WorkflowDefinition
from tests.core.test_skipping import bad_bytes, gone

BORN = "DefinitionCreated"


def double(context: Any) -> int:
    """A step."""
    return int(context.get("n", 1)) * 2


def many_steps(count: int = 3, **rest: Any) -> dict[str, Any]:
    """A definition of so many steps and a wait."""
    steps = [{"kind": "function", "id": f"s{at}", "name": f"step {at}", "function": "double"} for at in range(count)]
    return {"name": "long", "id": "long", **rest, "steps": [*steps, {"kind": "wait", "id": "go", "name": "go", "signal": "go"}]}


async def opened(directory: Path | None, **options: Any) -> Symphony:
    """A Symphony that knows the step."""
    symphony = Symphony(persistence_enabled=directory is not None)
    symphony.functions.register("double", double)
    await symphony.setup(**options, **({} if directory is None else {"state_dir": directory}))
    return symphony


async def births(symphony: Symphony) -> list[str]:
    """Keys of the definitions that the log has, in order; each has one event."""
    await symphony.flush()
    born = [event async for page in symphony.log.read() for event in page if event.entity_key.startswith("symphony.Definition:")]
    assert all(event.version == 1 for event in born)
    return [event.entity_key for event in born]


async def waiting(symphony: Symphony, definition: Any, **options: Any) -> Workflow:
    """A run that has come to its wait."""
    run = (await symphony.workflows.start(definition, **options)).run
    while "go" not in run.attempts:
        await asyncio.sleep(0)
    await symphony.flush()
    return run


async def one_after_the_other(symphony: Symphony) -> int:
    for number in range(3):
        await symphony.workflows.start(many_steps(), {"n": number})
    return 3


async def at_once(symphony: Symphony) -> int:
    await asyncio.gather(*(symphony.workflows.start(many_steps(), {"n": number}) for number in range(20)))
    return 20


async def in_two_open_blocks(symphony: Symphony) -> int:
    async with asyncio.TaskGroup() as group:
        met = asyncio.Barrier(2)

        async def start() -> None:
            async with symphony.transaction("Order"):
                await symphony.workflows.start(many_steps())
                await met.wait()

        group.create_task(start())
        group.create_task(start())
    return 2


async def after_one_that_is_rolled_back(symphony: Symphony) -> int:
    with pytest.raises(ZeroDivisionError):
        async with symphony.transaction("Order"):
            await symphony.workflows.start(many_steps())
            raise ZeroDivisionError
    assert await births(symphony) == []
    await symphony.workflows.start(many_steps())
    return 1


async def several_in_one_block(symphony: Symphony) -> int:
    async with symphony.transaction("Orders"):
        for _ in range(3):
            await symphony.workflows.start(many_steps())
    return 3


async def objects_that_are_equal(symphony: Symphony) -> int:
    for identity in ("one", "two"):
        await symphony.workflows.start(WorkflowDefinition.from_dict(many_steps(id=identity)))
    return 2


async def a_fork_and_a_child(symphony: Symphony) -> int:
    run = await waiting(symphony, many_steps())
    await symphony.workflows.fork(run, at="s1")
    parent = {"name": "parent", "steps": [{"kind": "function", "id": "p", "name": "p", "function": "starts"}]}
    symphony.functions.register("starts", outside(symphony))
    await symphony.workflows.execute_workflow(parent)
    return 3


def outside(symphony: Symphony) -> Callable[[Any], Awaitable[None]]:
    async def starts(context: Any) -> None:
        await symphony.workflows.start(many_steps())

    return starts


WAYS = (
    one_after_the_other, at_once, in_two_open_blocks, several_in_one_block, after_one_that_is_rolled_back, objects_that_are_equal,
    a_fork_and_a_child,
)  # fmt: skip


@pytest.mark.parametrize("known", [0, 1, 10_000])
@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("begin", WAYS)
async def test_a_definition_is_written_once(
    begin: Callable[[Symphony], Awaitable[int]], on_disk: bool, known: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever starts runs of equal definitions, the log has the definition once, also where it is not remembered that it has it."""
    monkeypatch.setattr(log_module, "MAX_KNOWN_CONSTANTS", known)
    symphony = await opened(tmp_path / "log" if on_disk else None)
    count = await begin(symphony)
    runs = [run for run in symphony.world.all("Workflow") if run.name == "long"]
    assert len(runs) == count
    expected = WorkflowDefinition.from_dict(many_steps())
    assert (await births(symphony)).count(f"symphony.Definition:{expected.version}") == 1
    assert {run.definition.version for run in runs} == {expected.version}
    await symphony.close()
    if on_disk:
        again = await opened(tmp_path / "log", resume="latest")
        found = [run for run in again.world.all("Workflow") if run.name == "long"]
        assert {run.definition.version for run in found} == {expected.version}
        await again.workflows.start(many_steps())
        assert (await births(again)).count(f"symphony.Definition:{expected.version}") == 1
        await again.close()


async def test_a_transaction_that_leaves_the_definition_out_is_one_transaction(symphony: Symphony) -> None:
    """Where another one has written the definition first, the rest of the transaction stands together under its own first event."""
    symphony.functions.register("double", double)
    met = asyncio.Barrier(2)

    async def start(run_id: str) -> None:
        async with symphony.transaction("Order"):
            await symphony.workflows.start(many_steps(), run_id=run_id)
            await met.wait()

    await asyncio.gather(start("a"), start("b"))
    brought = []
    for run_id in "ab":
        first = (await symphony.log.read_entity(f"Workflow:{run_id}"))[0]
        low, high = await symphony.log.transaction_bounds(first.position)
        events = [event async for page in symphony.log.read(low - 1, high) for event in page]
        assert {event.transaction_id for event in events} == {events[0].event_id}
        assert {event.entity_key for event in events if event.name != BORN} == {f"Workflow:{run_id}"}
        brought.append(events[0].name == BORN)
    assert sorted(brought) == [False, True]


async def test_what_a_run_takes_does_not_grow_with_its_definition(tmp_path: Path) -> None:
    """A run names its definition: of 300 steps that have not begun, its state has no byte more than of one."""
    sizes = []
    symphony = await opened(tmp_path / "log")
    for count in (0, 300):
        run = await waiting(symphony, {**many_steps(count), "steps": list(reversed(many_steps(count)["steps"]))})
        rows = await symphony.log.read_entity_rows(f"Workflow:{run.id}")
        sizes.append(sum(len(row[4]) for row in rows))
        assert run.definition.steps
    await symphony.close()
    assert sizes[0] == sizes[1]


async def by_a_resume(directory: Path, elsewhere: Path) -> Symphony:
    return await opened(directory, resume="latest")


async def by_recover_alone(directory: Path, elsewhere: Path) -> Symphony:
    symphony = await opened(directory)
    await symphony.workflows.recover(wait=False)
    return symphony


async def by_a_load(directory: Path, elsewhere: Path) -> Symphony:
    symphony = await opened(directory)
    await symphony.entities.load("Workflow:run")
    return symphony


async def from_a_snapshot(directory: Path, elsewhere: Path) -> Symphony:
    symphony = await opened(directory, resume="latest")
    await symphony._opened.snapshotter.take(symphony.log.head)  # type: ignore[union-attr]
    assert symphony._opened.snapshotter.store.list()  # type: ignore[union-attr]
    await symphony.close()
    return await opened(directory, resume="latest")


async def in_a_fork_of_the_log(directory: Path, elsewhere: Path) -> Symphony:
    symphony = await opened(directory, resume="latest")
    await symphony.fork(into=elsewhere)
    await symphony.close()
    return await opened(elsewhere, resume="latest")


async def in_a_backup(directory: Path, elsewhere: Path) -> Symphony:
    await backup(directory, elsewhere / "copy")
    await restore(elsewhere / "copy", elsewhere / "log")
    return await opened(elsewhere / "log", resume="latest")


async def in_an_import(directory: Path, elsewhere: Path) -> Symphony:
    elsewhere.mkdir()
    symphony = await opened(directory)
    await export_jsonl(symphony.log, elsewhere / "log.jsonl")
    await symphony.close()
    await import_jsonl(elsewhere / "log.jsonl", elsewhere / "log")
    return await opened(elsewhere / "log", resume="latest")


async def after_a_rewind_to_before_it(directory: Path, elsewhere: Path) -> Symphony:
    symphony = await opened(directory, resume="latest")
    await symphony.rewind(0)
    assert symphony.world.all("Workflow") == []
    await waiting(symphony, many_steps(metadata={"team": "sky"}), run_id="run")
    await symphony.close()
    return await opened(directory, resume="latest")


@pytest.mark.parametrize(
    "found",
    [
        by_a_resume,
        by_recover_alone,
        by_a_load,
        from_a_snapshot,
        in_a_fork_of_the_log,
        in_a_backup,
        in_an_import,
        after_a_rewind_to_before_it,
    ],
)
async def test_a_run_has_its_definition_wherever_it_goes_on(found: Callable[[Path, Path], Awaitable[Symphony]], tmp_path: Path) -> None:
    """The definition is the one that the run began with, id and metadata too, and the run goes on to its end."""
    symphony = await opened(tmp_path / "log")
    given = (await waiting(symphony, many_steps(metadata={"team": "sky"}), run_id="run")).definition.to_dict()
    await symphony.close()
    symphony = await found(tmp_path / "log", tmp_path / "elsewhere")
    run = symphony.world.get("Workflow:run")
    assert run.definition.to_dict() == given
    assert len(await births(symphony)) == 1
    assert await symphony.workflows.start(many_steps(metadata={"team": "sky"}))
    assert len(await births(symphony)) == 1
    await symphony.workflows.recover(wait=False)
    await symphony.workflows.signal(run, "go")
    assert (await symphony.workflows.handle(run).result()) is None
    assert run.status == "completed"
    await symphony.close()


async def test_definitions_that_differ_in_ids_or_metadata_come_back_as_they_were(tmp_path: Path) -> None:
    """Equal content is stored once; each run has the id that its own definition had, and the metadata."""
    variants = [
        {"id": "one"},
        {"id": "two"},
        {"id": ""},
        {"id": "one", "metadata": {"team": "sky"}},
        {"id": "two", "metadata": {"team": "sea"}},
    ]
    symphony = await opened(tmp_path / "log")
    given = {}
    for variant in variants:
        run = await waiting(symphony, many_steps(**variant))
        given[run.id] = run.definition.to_dict()
    assert len(await births(symphony)) == 3
    await symphony.close()
    again = await opened(tmp_path / "log", resume="latest")
    assert {run.id: run.definition.to_dict() for run in again.world.all("Workflow")} == given
    await again.close()


@pytest.mark.parametrize("rolls_back", [False, True])
async def test_going_on_with_another_definition_stores_that(rolls_back: bool, tmp_path: Path) -> None:
    """`resume(run, definition=new)` stores the new one with the change; where the change is rolled back, the run keeps the old one."""
    symphony = await opened(tmp_path / "log")
    run = await waiting(symphony, many_steps(2), run_id="run")
    await symphony.registry.get("workflow_engine").interrupt()
    new = WorkflowDefinition.from_dict({**many_steps(2), "description": "mended"})
    if rolls_back:
        with pytest.raises(ZeroDivisionError):
            async with symphony.transaction("Mended", claim=[run]):
                run.follow(new)
                symphony.world.name_constant(run, new.stored)
                raise ZeroDivisionError
    else:
        resumed = asyncio.ensure_future(symphony.workflows.resume(run, definition=new))
        while run.definition != new:
            await asyncio.sleep(0)
        await symphony.flush()
        await symphony.registry.get("workflow_engine").interrupt()
        await asyncio.wait([resumed])
    assert run.definition.description == ("" if rolls_back else "mended")
    assert len(await births(symphony)) == (1 if rolls_back else 2)
    await symphony.close()
    again = await opened(tmp_path / "log", resume="latest")
    assert again.world.get("Workflow:run").definition.description == ("" if rolls_back else "mended")
    await again.close()


async def test_the_past_has_the_definition_of_then(symphony: Symphony) -> None:
    """Objects of a past position have the definition that the run had there, and no list of entities names definitions."""
    symphony.functions.register("double", double)
    run = await waiting(symphony, many_steps(2))
    view = await symphony.at(symphony.log.head)
    past = (await view.objects()).get(f"Workflow:{run.id}")
    assert past.definition == run.definition
    assert [reference.entity_type for reference in view.all()] == [found.entity_type for found in view.all("Workflow")]
    assert all(not key.startswith("symphony.") for key in symphony.world.records)


async def test_a_definition_that_the_log_has_lost_is_missing(tmp_path: Path) -> None:
    """A run whose definition is not there is left alone, and its reason names it; others go on."""
    symphony = await opened(tmp_path / "log")
    await waiting(symphony, many_steps(), run_id="whole")
    states = await symphony.state_history.states_at(symphony.log.head)
    lost = {**states.states["Workflow:whole"].data, "id": "lost", "definition_hash": "0" * 64}
    event = NewEvent(
        entity_key="Workflow:lost",
        version=1,
        name="WorkflowCreated",
        changes=[(SET, (), lost)],
        metadata=EventMetadata(),
        event_id=bytes(range(16)),
    )
    await symphony.log.append([event])
    await symphony.close()
    again = await opened(tmp_path / "log", resume="latest")
    report = await again.workflows.recover(wait=False)
    assert [left.run_id for left in report.missing] == ["lost"]
    assert "symphony.Definition:0000" in report.missing[0].reason
    assert [handle.id for handle in report.handles] == ["whole"]
    with pytest.raises(DefinitionError, match="Definition:0000"):
        again.world.get("Workflow:lost").definition.to_dict()
    await again.close()


@pytest.mark.parametrize("resumes", [False, True])
@pytest.mark.parametrize("damage", [bad_bytes, gone])
async def test_a_definition_whose_event_is_damaged(damage: Callable[[Path, int], None], resumes: bool, tmp_path: Path) -> None:
    """Runs that name it are missing it, others go on; a new run brings it again, and then the old ones go on, in later processes too."""
    log = tmp_path / "log"
    symphony = await opened(log)
    await waiting(symphony, many_steps(), run_id="old")
    await waiting(symphony, many_steps(1, name="other", id="other"), run_id="other")
    born = next(event for event in await symphony.log.read_entity((await births(symphony))[0]))
    await symphony.close()
    damage(log / "events.db", born.position)
    again = await opened(log, skip_damaged=True, resume="latest")
    report = await again.workflows.recover(wait=False)
    assert [left.run_id for left in report.missing] == ["old"]
    assert "start a run of the same definition" in report.missing[0].reason
    assert [handle.id for handle in report.handles] == ["other"]
    if not resumes:
        await again.close()
        again = await opened(log, skip_damaged=True)
    await waiting(again, many_steps(), run_id="new")
    await again.flush()
    if resumes:
        assert again.world.get("Workflow:old").definition.version == again.world.get("Workflow:new").definition.version
    await again.close()
    later = await opened(log, skip_damaged=True, resume="latest")
    report = await later.workflows.recover(wait=False)
    assert report.missing == []
    assert sorted(handle.id for handle in report.handles) == ["new", "old", "other"]
    await waiting(later, many_steps(), run_id="newer")
    found = await later.state_history.entity_at(born.entity_key, later.log.head)
    assert found is not None
    assert found.version <= 2
    await later.close()
