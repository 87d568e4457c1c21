"""Nothing grows for ever: what a service does again and again leaves nothing in memory, counted in objects."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import field
from pathlib import Path
from typing import Any

import pytest

from symphony_es import EntityRestorer, Symphony, entity
from symphony_es.core.objects.restorers import RestorationContext
from symphony_es.core.world import members as membership
from symphony_es.errors import ConfigurationError
from symphony_es.workflow import AutoCheckpoint, RunContext, Workflow
from symphony_es.workflow.runs.notes import row_of_run
from symphony_es_projections.checkpoints import CheckpointEntry

Act = Callable[[Symphony, int], Awaitable[object]]
TRIES = 100
"""So often is looked whether what threads and the event loop have in hand for a moment has gone."""


KEPT_BY_SERVICES = ("symphony_es", "asyncio", "_asyncio", "_contextvars", "structlog", "tests.")
"""Modules of the classes whose objects are counted: late imports, caches and the test's own tools are none of them."""


async def settled(symphony: Symphony) -> Counter[str]:
    """How many objects there are of each class, once all is durable, ended runs are at rest and the list of runs has them."""
    await symphony.flush()
    resting = symphony.registry.get("workflow_engine").resting
    if resting._task is not None:
        await asyncio.wait([resting._task])
    await symphony.workflows.list_runs(limit=1)
    gc.collect()
    classes = map(type, gc.get_objects())
    return Counter(f"{one.__module__}.{one.__qualname__}" for one in classes if str(one.__module__).startswith(KEPT_BY_SERVICES))


async def growth(symphony: Symphony, act: Act, count: int = 6) -> Counter[str]:
    """Classes of which objects are left in memory most times that something is done."""
    for number in range(count):
        await act(symphony, number)
    before = await settled(symphony)
    for number in range(count, 3 * count):
        await act(symphony, number)
    for _ in range(TRIES):
        more = await settled(symphony) - before
        left = Counter({name: left for name, left in more.items() if left > count})
        if not left:
            break
        await asyncio.sleep(0.01)
    return left


async def work(context: object) -> str:
    """A step."""
    return "done"


async def order(symphony: Symphony, policy: bool | AutoCheckpoint) -> Act:
    """Executes runs of three steps."""
    symphony.functions.register("work", work)
    definition = symphony.build_workflow("w").add_function("a", "work").add_function("b", "work").add_function("c", "work").build()

    async def act(symphony: Symphony, number: int) -> None:
        await symphony.workflows.execute_workflow(definition, {"number": number}, auto_checkpoint=policy)

    return act


@pytest.mark.parametrize("policy", [True, AutoCheckpoint(every=1), AutoCheckpoint(every=1, keep_last=1)], ids=["default", "each", "last"])
async def test_automatic_checkpoints_of_ended_runs_are_not_in_memory(tmp_path: Path, policy: bool | AutoCheckpoint) -> None:
    """A run leaves fewer objects than one checkpoint has, also after all have been listed; and the list has them all."""
    async with Symphony(tmp_path) as symphony:
        act = await order(symphony, policy)
        await act(symphony, -1)
        each = len(await symphony.list_checkpoints())
        assert not await growth(symphony, act)
        assert len(await symphony.list_checkpoints()) == each * 19
        for _ in range(TRIES):  # the event loop and the thread that has read have the last answer at hand for a moment
            await asyncio.sleep(0.01)
            gc.collect()
            left = [one for one in gc.get_objects() if isinstance(one, CheckpointEntry)]
            if not left:
                break
        assert not left


@entity
class LastingBuyer:
    """Has had runs."""

    id: str
    last: Any = None
    some: list[Any] = field(default_factory=list)


async def one_field(symphony: Symphony, run: Workflow, number: int) -> None:
    """Another run takes its place."""
    symphony.entities.get(LastingBuyer, "c").last = run


async def in_a_list(symphony: Symphony, run: Workflow, number: int) -> None:
    """The list has the newest two."""
    some = symphony.entities.get(LastingBuyer, "c").some
    some.append(run)
    del some[:-2]


async def removed(symphony: Symphony, run: Workflow, number: int) -> None:
    """Each run has its own entity, which is removed."""
    symphony.entities.add(LastingBuyer(id=f"c{number}", last=run, some=[run]))
    await symphony.flush()
    symphony.entities.remove(LastingBuyer, f"c{number}")


async def unloaded(symphony: Symphony, run: Workflow, number: int) -> None:
    """Each run has its own entity, which is unloaded."""
    symphony.entities.add(LastingBuyer(id=f"c{number}", last=run))
    await symphony.entities.unload(LastingBuyer, f"c{number}")


async def taken_back(symphony: Symphony, run: Workflow, number: int) -> None:
    """A block that fails refers to it."""
    with pytest.raises(KeyError):
        async with symphony.transaction("Changed"):
            symphony.entities.get(LastingBuyer, "c").last = run
            raise KeyError


@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize("way", [one_field, in_a_list, removed, unloaded, taken_back], ids=lambda way: way.__name__)
async def test_runs_that_entities_have_referred_to_leave_memory(way: Any, *, ended: bool) -> None:
    """A run rests when nothing refers to it any more, however the reference ended, before its end or after it."""
    async with Symphony(persistence_enabled=False) as symphony:
        symphony.functions.register("work", work)
        definition = symphony.build_workflow("w").add_function("a", "work").build()
        symphony.entities.add(LastingBuyer(id="c"))

        async def act(symphony: Symphony, number: int) -> None:
            handle = await symphony.workflows.start(definition, {"number": number}, auto_checkpoint=False)
            if ended:
                await handle.result()
            await way(symphony, handle.run, number)
            await handle.result()

        assert not await growth(symphony, act)
        assert len(symphony.entities.all(Workflow)) <= 3


class LastingBasket:
    """An object of a class that was not declared: what it keeps of its state is its own affair."""

    def __init__(self, id: str, run: Workflow) -> None:
        self.id = id
        self.run = run


class BasketRestorer(EntityRestorer):
    entity_type = "LastingBasket"  # type: ignore[assignment]

    async def restore(self, entity_id: str, data: dict[str, Any], context: RestorationContext) -> Any:
        return LastingBasket(entity_id, data["run"])


async def test_runs_that_foreign_objects_have_referred_to_leave_memory(tmp_path: Path) -> None:
    """Entities that refer to runs are loaded and leave again: while one is live its run is, and afterwards nothing is left of either."""
    count = 10

    async with Symphony(tmp_path) as symphony:
        symphony.functions.register("work", work)
        definition = symphony.build_workflow("w").add_function("a", "work").build()
        for number in range(count):
            run = await symphony.workflows.execute_workflow(definition, run_id=f"r{number}", auto_checkpoint=False)
            symphony.entities.add(LastingBasket(f"b{number}", run))
    async with Symphony(tmp_path) as symphony:
        symphony.restore_manager.register_restorer(BasketRestorer())
        for number in range(count):
            basket: Any = await symphony.entities.load(LastingBasket, f"b{number}")
            assert symphony.world.is_kept(f"Workflow:r{number}")
            await settled(symphony)
            assert symphony.entities.get(f"Workflow:r{number}") is basket.run
            if number % 2:
                symphony.entities.remove(basket)
                await symphony.flush()
            else:
                await symphony.entities.unload(basket)
        assert not any(symphony.world.is_kept(f"Workflow:r{number}") for number in range(count))
        assert not symphony.world.keepers


@pytest.mark.parametrize("few", [4])
async def test_what_foreign_objects_have_referred_to_is_looked_through_now_and_then(
    tmp_path: Path, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody asks, what has left is forgotten as more comes: as many are known as are live, and as many again."""
    monkeypatch.setattr(membership, "FEW_REFERRED", few)
    async with Symphony(tmp_path) as symphony:
        symphony.functions.register("work", work)
        definition = symphony.build_workflow("w").add_function("a", "work").build()
        for number in range(5 * few):
            run = await symphony.workflows.execute_workflow(definition, run_id=f"r{number}", auto_checkpoint=False)
            symphony.entities.add(LastingBasket(f"b{number}", run))
    async with Symphony(tmp_path) as symphony:
        for number in range(5 * few):
            await symphony.entities.unload(await symphony.entities.load(LastingBasket, f"b{number}"))
            assert len(symphony.world.keepers) <= few + 4


async def test_what_is_known_of_a_run_that_is_listed_before_it_rests_is_let_go(tmp_path: Path) -> None:
    """Who lists runs while they end has the list know nothing twice."""
    async with Symphony(tmp_path) as symphony:
        act = await order(symphony, False)
        for number in range(3):
            await act(symphony, number)
            await settled(symphony)
            (run,) = [await symphony.workflows.get_run(one.id) for one in await symphony.workflows.list_runs(limit=1)]
            symphony.run_notes[f"Workflow:{run.id}"] = row_of_run(run, 1)
            await symphony.workflows.list_runs(limit=1)
            assert not symphony.run_notes


@pytest.mark.parametrize("how", ["follows", "resumes", "lists"])
async def test_readers_let_runs_go_that_have_ended(tmp_path: Path, how: str) -> None:
    """A reader beside the process that writes keeps nothing of runs that have ended, however it keeps up."""
    async with Symphony(tmp_path) as symphony, Symphony(tmp_path, read_only=True, follow=how == "follows") as reader:
        act = await order(symphony, False)

        async def also_read(symphony: Symphony, number: int) -> None:
            await act(symphony, number)
            if how == "follows":
                assert reader._following is not None
                await reader._following.wait_for(symphony.log.head)
                await reader.workflows.list_runs(limit=1)
            elif how == "resumes":
                await reader.resume()
            else:
                await reader.workflows.list_runs(limit=3)

        assert not await growth(symphony, also_read, 4)
        assert reader.entities.all(Workflow) == []


async def test_a_checkpoint_reads_no_list(tmp_path: Path) -> None:
    """Taking one, and deleting it by its id, leaves the list unread, however many there are; then the list has what there is."""
    async with Symphony(tmp_path) as symphony:
        for number in range(3):
            await symphony.create_checkpoint(f"c{number}")
    async with Symphony(tmp_path) as symphony:
        made = await symphony.create_checkpoint("last")
        assert await symphony.delete_checkpoint(await symphony.create_checkpoint("gone"))
        assert not (tmp_path / "projections" / "checkpoint_list.db").exists()
        assert [entry["name"] for entry in await symphony.list_checkpoints()] == ["last", "c2", "c1", "c0"]
        assert (tmp_path / "projections" / "checkpoint_list.db").exists()
        assert await symphony.delete_checkpoint(made)
        assert not await symphony.delete_checkpoint(made)


@pytest.mark.parametrize("damage", [b"no database", b""])
async def test_a_list_that_is_damaged_or_of_another_log_is_made_anew(tmp_path: Path, damage: bytes) -> None:
    """Whatever stands in the file, the list is the log's; also where it is read by another process."""
    for name in ("a", "b"):
        async with Symphony(tmp_path / name) as symphony:
            await symphony.create_checkpoint(f"of-{name}")
            await symphony.list_checkpoints()
    file = tmp_path / "a" / "projections" / "checkpoint_list.db"
    for content in (damage, (tmp_path / "b" / "projections" / "checkpoint_list.db").read_bytes()):
        for read_only in (True, False):
            file.write_bytes(content)
            async with Symphony(tmp_path / "a", read_only=read_only) as symphony:
                assert [entry["name"] for entry in await symphony.list_checkpoints()] == ["of-a"]


async def test_no_checkpoint_is_called_as_an_id(tmp_path: Path) -> None:
    """An id means the checkpoint that has it, also once that is gone: none is made that is called so."""
    async with Symphony(tmp_path) as symphony:
        gone = await symphony.create_checkpoint()
        assert await symphony.delete_checkpoint(gone)
        with pytest.raises(ConfigurationError, match="moment of its own"):
            await symphony.create_checkpoint(gone)
        assert not await symphony.delete_checkpoint(gone)
        assert await symphony.list_checkpoints() == []


@pytest.mark.parametrize("kind", ["plain", "reading", "failing", "failing in a thread"])
async def test_a_step_that_is_over_is_freed_at_once(tmp_path: Path, kind: str) -> None:
    """What a step worked with is in no circle: it waits for no pass of the collector, which would stop everybody for the longer the more
    steps there were."""
    attempts: list[str] = []

    def body(context: RunContext) -> str:
        attempts.append(context.step)
        if kind == "reading":
            return str(context.outputs.get("s0")) + str(context.get("messages"))
        if kind.startswith("failing") and attempts.count(context.step) == 1:
            raise OSError("down")
        return "done"

    async def in_the_loop(context: RunContext) -> str:
        return body(context)

    def definition(steps: int) -> dict[str, Any]:
        retry = {"max_attempts": 2, "delay_s": 0}
        parts = [{"kind": "function", "name": f"s{number}", "function": "work", "retry": retry} for number in range(steps)]
        return {"name": f"long {steps}", "context": {"messages": []}, "steps": parts}

    async with Symphony(tmp_path) as symphony:
        symphony.functions.register("work", body if "thread" in kind else in_the_loop)
        left = []
        runs = []
        gc.disable()
        try:
            for steps in (5, 65, 5, 65):  # what is made of a definition at its first run is not counted
                attempts.clear()
                gc.collect()
                runs.append(await symphony.workflows.execute_workflow(definition(steps), auto_checkpoint=False))
                left.append(gc.collect())
        finally:
            gc.enable()
    assert {run.status for run in runs} == {"completed"}
    assert left[3] - left[2] <= 60
