"""Runs that have ended are at rest in the log: they leave memory with their tasks and child runs, and come back when they are asked for."""

from __future__ import annotations

import asyncio
import gc
import heapq
import shutil
import weakref
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from symphony_es import Symphony, entity
from symphony_es.core.past.resting import may_rest
from symphony_es.errors import (
    EntityBusyError,
    EntityNotFoundError,
    ReadOnlyError,
    StorageUnavailableError,
    SymphonyError,
    UnrecordedChangeError,
)
from symphony_es.events.fold import EntityState
from symphony_es.events.values import Tagged
from symphony_es.workflow import RunHandle, StepList, Workflow
from symphony_es.workflow.engine.resting import Resting


@entity
class Order:
    id: str = ""
    run: Any = None
    runs: list[Any] = None  # type: ignore[assignment]


def shop(symphony: Symphony, *, fails: bool = False) -> Any:
    """A definition with a task step and a child run; the last step fails where it is told to."""
    failing = {"now": fails}

    def last(context: Any) -> str:
        if failing["now"]:
            failing["now"] = False
            raise ValueError("not yet")
        return "done"

    symphony.functions.register("last", last, replace=True)
    kid = symphony.build_workflow("kid").add_task("think", "", "Think").build()
    return symphony.build_workflow("shop").add_task("ask", "", "Ask").add_workflow("kid", kid).add_function("last", "last").build()


def told(states: dict[str, Any]) -> dict[str, Any]:
    """What states say."""
    return {key: (state.data, state.version, state.position, state.generation) for key, state in states.items()}


async def settled(symphony: Symphony) -> None:
    """What the hooks were told is durable, and nobody's objects are collected."""
    engine = symphony.registry.get("workflow_engine")
    await symphony.flush()
    while engine.resting._task is not None and not engine.resting._task.done():
        await asyncio.sleep(0)
    gc.collect()


def live(symphony: Symphony) -> list[str]:
    """Keys of the runs and tasks that are live."""
    found = [*symphony.entities.all("Workflow"), *symphony.entities.all("Task")]
    return sorted(f"{type(one).__name__}:{one.id}" for one in found)


@pytest.mark.parametrize("checkpoints", [None, False])
async def test_a_run_that_has_ended_leaves_memory_with_its_tasks_and_child_runs(symphony: Symphony, checkpoints: bool | None) -> None:
    """Nothing is kept of it in the world, and its object is collected once nobody has it; the log has it all."""
    run = await symphony.workflows.execute_workflow(shop(symphony), run_id="r", auto_checkpoint=checkpoints)
    await settled(symphony)
    assert live(symphony) == []
    assert run.result == "done"
    gone = weakref.ref(run)
    del run
    gc.collect()
    assert gone() is None
    with pytest.raises(EntityNotFoundError, match=r"at rest in the log: await symphony\.entities\.load\('Workflow:r'\)"):
        symphony.entities.get("Workflow:r")
    assert (await symphony.entities.load("Workflow:r")).result == "done"
    assert symphony.entities.get("Workflow:r/kid").status == "completed"


async def test_many_runs_leave_nothing_behind(symphony: Symphony) -> None:
    """No container of the world or the engine grows with the number of runs that have ended."""
    definition = shop(symphony)

    async def some(count: int) -> dict[str, int]:
        for _ in range(count):
            await symphony.workflows.execute_workflow(definition, auto_checkpoint=False)
        await settled(symphony)
        engine = symphony.registry.get("workflow_engine")
        holders = [
            symphony.world,
            symphony.world.outbox,
            symphony.world.outbox.suspects,
            engine,
            engine.active,
            engine.resting,
            symphony.tasks,
        ]
        return {
            f"{type(holder).__name__}.{name}": len(value)
            for holder in holders
            for name, value in vars(holder).items()
            if hasattr(value, "__len__") and not isinstance(value, (str, bytes))
        }

    few = await some(5)
    assert await some(10) == few


async def test_the_object_in_hand_is_the_run(symphony: Symphony) -> None:
    """It is read and changed as before: its next change brings it back, a request by its id finds it, and it rests again afterwards."""
    run = await symphony.workflows.execute_workflow(shop(symphony, fails=True), run_id="r")
    await settled(symphony)
    assert (run.status, live(symphony)) == ("failed", [])
    assert await symphony.workflows.get_run("r") is run
    run.metadata["seen"] = True
    assert live(symphony) == ["Workflow:r"]
    assert await symphony.workflows.resume("r") is run
    assert run.status == "completed"
    await settled(symphony)
    assert live(symphony) == []
    assert (await symphony.at("latest")).get("Workflow:r")["metadata"] == {"seen": True}


@pytest.mark.parametrize("how", ["resume", "retry_from", "execute_workflow_by_id", "start", "fork", "history", "cancel"])
@pytest.mark.parametrize("process", ["this one", "another one"])
async def test_calls_that_take_an_id_bring_the_run_back(symphony: Symphony, reopen: Any, how: str, process: str) -> None:
    """With its tasks: a task that has completed is not performed again; and it goes to rest when it has ended."""
    await symphony.workflows.execute_workflow(shop(symphony, fails=True), run_id="r", auto_checkpoint=False)
    await settled(symphony)
    if process == "another one":
        symphony = await reopen(resume="latest")
        assert live(symphony) == []
        shop(symphony)
    before = len(await symphony.tasks.get_tasks_by_workflow("r"))
    if how == "start":
        assert await (await symphony.workflows.start("r")).result() == "done"
    elif how == "fork":
        fork = await symphony.workflows.fork("r", "last")
        assert await symphony.workflows.execute_workflow_by_id(fork.id) is fork
        assert fork.status == "completed"
    elif how == "history":
        assert len(await symphony.history("Workflow:r")) > 3
        assert (await symphony.workflows.get_workflow_results("r"))["status"] == "failed"
        assert (await symphony.workflows.get_workflow("r")).id == "r"
    else:
        arguments = ["last"] if how == "retry_from" else []
        run = await getattr(symphony.workflows, how)("r", *arguments)
        assert run.status == ("cancelled" if how == "cancel" else "completed")
    await settled(symphony)
    assert (len(await symphony.tasks.get_tasks_by_workflow("r")), live(symphony)) == (before, [])
    task = await symphony.tasks.get_task("r/ask")
    assert (task.status, len(await symphony.workflows.get_all_runs())) == ("completed", 3 if how == "fork" else 2)


async def test_what_a_living_entity_refers_to_stays_live(symphony: Symphony, reopen: Any) -> None:
    """In this process and after a resume, whether it was referred to before its end or afterwards."""
    definition = shop(symphony)
    order = symphony.entities.add(Order(id="o", runs=[]))
    handle = await symphony.workflows.start(definition, run_id="a")
    order.run = handle.run
    await handle.result()
    order.runs.append(await symphony.workflows.execute_workflow(definition, run_id="b"))
    symphony.entities.add(Order(id="p", run=await symphony.workflows.execute_workflow(definition, run_id="c"), runs=[]))
    await symphony.workflows.execute_workflow(definition, run_id="d")
    await settled(symphony)
    kept = [f"Workflow:{name}" for name in "abc"]
    for name in kept:
        run = symphony.entities.get(name)
        assert (symphony.entities.find(f"{name}/kid"), symphony.entities.get(name)) == (run.children["kid"], run)
    with pytest.raises(EntityNotFoundError, match=r"entities\.load"):
        symphony.entities.get("Workflow:d")
    assert [key for key in live(symphony) if key in (*kept, "Workflow:d")] == kept
    again = await reopen(resume="latest")
    assert [key for key in live(again) if "/" not in key] == kept
    assert again.entities.get("Order:o").run is again.entities.get("Workflow:a")


async def test_child_runs_stay_with_a_parent_that_goes_on(symphony: Symphony, reopen: Any) -> None:
    """They rest together; a child run that goes on alone keeps the one that started it."""
    kid = symphony.build_workflow("kid").add_task("think", "", "Think").build()
    late = symphony.build_workflow("late").add_wait("later").build()
    branches = StepList().add_workflow("kid", kid).add_wait("go").add_workflow("late", late, on_parent_end="abandon")
    definition = symphony.build_workflow("w").add_parallel("both", branches).build()
    handle = await symphony.workflows.start(definition, run_id="r", auto_checkpoint=False)
    family = ["Workflow:r", "Workflow:r/both/kid", "Workflow:r/both/late"]
    while "both/kid" not in handle.run.outputs:
        await asyncio.sleep(0)
    await settled(symphony)
    assert live(symphony) == ["Task:r/both/kid/think", *family]
    again = await reopen(resume="latest")
    assert live(again) == ["Task:r/both/kid/think", *family]
    await again.workflows.recover(wait=False)
    while "r/both/late" not in again.registry.get("workflow_engine").active_runs:
        await asyncio.sleep(0)
    await again.workflows.cancel("r")
    await settled(again)
    assert live(again) == ["Task:r/both/kid/think", *family]
    await again.workflows.signal("r/both/late", "later")
    await again.workflows.handle("r/both/late").result()
    await settled(again)
    assert live(again) == []


async def test_a_rewind_to_before_the_end_brings_runs_back(symphony: Symphony) -> None:
    """Going back takes back what is at rest too; the object of the world before is detached."""
    definition = shop(symphony)
    await symphony.create_checkpoint("before")
    run = await symphony.workflows.execute_workflow(definition, run_id="r", auto_checkpoint=False)
    position = next(event.position for event in await symphony.log.read_entity("Workflow:r") if event.name == "WorkflowStarted")
    await settled(symphony)
    await symphony.rewind(position)
    assert symphony.entities.get("Workflow:r").status == "running"
    assert symphony.entities.get("Workflow:r") is not run
    with pytest.raises(Exception, match="replaced by a resume"):
        run.metadata["x"] = 1
    await symphony.resume_from_checkpoint("before")
    assert live(symphony) == []
    with pytest.raises(EntityNotFoundError):
        await symphony.workflows.get_run("r")


async def test_an_id_that_is_at_rest_is_taken(symphony: Symphony) -> None:
    """Nothing is begun under it, and `if_exists="return"` gives the run."""
    definition = shop(symphony)
    await symphony.workflows.execute_workflow(definition, run_id="r", auto_checkpoint=False)
    await settled(symphony)
    head = symphony.log.head
    with pytest.raises(ValueError, match="exists already"):
        await symphony.workflows.execute_workflow(definition, run_id="r", auto_checkpoint=False)
    assert (await symphony.workflows.start(definition, run_id="r", if_exists="return")).status == "completed"
    assert symphony.log.head == head


async def test_every_way_to_a_state_has_what_is_at_rest(symphony: Symphony, reopen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Snapshots at any time, merged from one another while runs end, fail, and go on again: their states are the fold's."""
    from symphony_es.core.past.states import StateHistory

    kept: list[Workflow] = []
    for number in range(6):
        definition = shop(symphony, fails=number % 2 == 1)
        kept.append(await symphony.workflows.execute_workflow(definition, run_id=f"r{number}", auto_checkpoint=False))
        await symphony._opened.snapshotter.take(symphony.log.head)  # type: ignore[union-attr]
        if number == 4:
            await symphony.workflows.resume("r1", auto_checkpoint=False)
            symphony.entities.add(Order(id="o", run=kept[2], runs=[]))
            await symphony.flush()
    whole = await StateHistory(symphony.log, None).states_at(symphony.log.head)
    at_head = await symphony.state_history.states_at(symphony.log.head)
    assert told(at_head.states) == told(whole.states)
    infos = symphony._opened.snapshotter.store.list()  # type: ignore[union-attr]
    assert infos[0].resting_bytes > 0
    for info in infos:
        states = symphony._opened.snapshotter.store.read_all(info)  # type: ignore[union-attr]
        then = await StateHistory(symphony.log, None).states_at(info.position)
        assert told(states) == told({key: state for key, state in then.states.items() if state.data is not None})
    again = await reopen(resume="latest")
    runs = [key for key in live(again) if key.startswith("Workflow:")]
    assert runs == ["Workflow:r2", "Workflow:r2/kid"]
    assert {key for key in live(again) if key.startswith("Task:")} == {"Task:r2/ask", "Task:r2/kid/think"}
    assert len(await again.workflows.get_all_runs()) == 12


async def test_a_process_that_dies_between_an_end_and_the_rest_loses_nothing(
    symphony: Symphony, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log as it was then has the whole run: it is in the list, nothing of it goes on, its outputs are there, and it is at rest."""
    monkeypatch.setattr(Resting, "rest", lambda self, run: True)
    await symphony.workflows.execute_workflow(shop(symphony), run_id="r")
    await symphony.flush()
    assert "Workflow:r" in live(symphony)
    shutil.copytree(tmp_path / "state", tmp_path / "died")
    monkeypatch.undo()
    async with Symphony({"state_dir": tmp_path / "died"}, persistence_enabled=True) as again:
        await again.resume()
        shop(again)
        head = again.log.head
        assert live(again) == []
        assert await again.workflows.recover() == []
        assert [(run.id, str(run.status)) for run in await again.workflows.list_runs(newest_first=False)] == [
            ("r", "completed"),
            ("r/kid", "completed"),
        ]
        assert (await again.workflows.get_run("r")).result == "done"
        assert again.log.head == head


@pytest.mark.parametrize("status", [Tagged("dataclass", "shop.Status", {"a": 1}), Tagged("set", None, ["x"]), "COMPLETED", None, ["x"]])
@pytest.mark.parametrize("key", ["Task:r/x", "Workflow:r"])
def test_a_status_that_is_another_value_is_no_end(key: str, status: Any) -> None:
    """A snapshot is written, and a resume goes on, whatever an application has put there."""
    state = EntityState(key, {"workflow_id": "r", "status": status}, 1, 1)
    assert not may_rest(state)


async def test_a_run_that_is_referred_to_stays_live_when_it_is_done_again_after_a_resume(symphony: Symphony, reopen: Any) -> None:
    """A living entity goes on referring to a live run."""
    run = await symphony.workflows.execute_workflow(shop(symphony), run_id="r", auto_checkpoint=False)
    symphony.entities.add(Order(id="o", run=run, runs=[]))
    await symphony.flush()
    again = await reopen(resume="latest")
    shop(again)
    await again.workflows.retry_from("r", "last", auto_checkpoint=False)
    await settled(again)
    assert again.entities.get("Workflow:r") is again.entities.get("Order:o").run


async def test_runs_stay_live_while_the_storage_fails(symphony: Symphony, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is raised aside, and they rest when the next run ends."""
    engine, outbox = symphony.registry.get("workflow_engine"), symphony.world.outbox
    run = await symphony.workflows.execute_workflow(shop(symphony), run_id="r", auto_checkpoint=False)
    await settled(symphony)
    run.metadata["seen"] = True

    async def fails(records: Any) -> None:
        raise StorageUnavailableError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(outbox, "flush", fails)
        engine.resting.ended(run)
        (outcome,) = await asyncio.gather(engine.resting._task, return_exceptions=True)
    assert (outcome, live(symphony)) == (None, ["Workflow:r"])
    await symphony.workflows.execute_workflow(shop(symphony), run_id="s", auto_checkpoint=False)
    await settled(symphony)
    assert live(symphony) == []


@pytest.mark.parametrize("in_hand", [True, False])
async def test_a_handle_of_a_run_at_rest(symphony: Symphony, in_hand: bool) -> None:
    """It is given at once; what is awaited brings the run, and what is not says what to await. Of no run there is no handle."""
    run = await symphony.workflows.execute_workflow(shop(symphony), run_id="r", auto_checkpoint=False)
    await settled(symphony)
    if not in_hand:
        del run
        gc.collect()

    async def first(events: Any) -> Any:
        async with aclosing(events):
            return await anext(events)

    calls: list[Callable[[RunHandle], Awaitable[Any]]] = [lambda handle: handle.result(), lambda handle: handle.wait()]
    calls += [lambda handle: first(handle.events()), lambda handle: first(handle.progress_changes())]
    calls += [lambda handle: symphony.workflows.get_run(handle), lambda handle: handle.load()]
    for call in calls:
        handle = symphony.workflows.handle("r")
        assert (handle.id, handle.run_id, handle.queue_position) == ("r", "r", None)
        assert symphony.workflows.handle(handle) is handle
        if not in_hand:
            with pytest.raises(EntityNotFoundError, match=r"at rest.*await handle\.load\(\)"):
                _ = handle.status
            assert "at rest" in repr(handle)
            assert handle._repr_html_()
        await call(handle)
        assert (handle.status, handle.name, handle.progress.done) == ("completed", "shop", 3)
        assert await handle.load() is await symphony.workflows.get_run("r")
        del handle
        gc.collect()
    assert live(symphony) == []
    with pytest.raises(EntityNotFoundError):
        symphony.workflows.handle("s")
    left = symphony.workflows.handle("r")
    symphony.entities.remove(await symphony.entities.load("Workflow:r"))
    await symphony.flush()
    with pytest.raises(EntityNotFoundError):
        symphony.workflows.handle("r")
    if not in_hand:
        with pytest.raises(EntityNotFoundError):
            await left.result()


async def test_what_a_step_has_read_has_its_name_when_all_is_at_rest(symphony: Symphony, reopen: Any) -> None:
    """The context's keys, another run that was read, and a task of it: as said while they were live."""

    def look(context: Any) -> str:
        return f"{context['a_key_that_is_long']} {context.inputs['before'].status}"

    before = await symphony.workflows.execute_workflow(shop(symphony), run_id="earlier-run", auto_checkpoint=False)
    symphony.functions.register("look", look)
    definition = {"name": "look", "steps": [{"kind": "function", "name": "look", "function": "look", "inputs": {"before": "{{ before }}"}}]}
    values = {"a_key_that_is_long": 1, "before": before}
    await symphony.workflows.execute_workflow(definition, values, run_id="r", auto_checkpoint=False)
    told = await symphony.workflows.step_attempts("r")
    del before, values
    await settled(symphony)
    assert live(symphony) == []
    assert await symphony.workflows.step_attempts("r") == told
    again = await reopen(resume="latest")
    assert await again.workflows.step_attempts("r") == told
    assert (await again.workflows.usage("r", children=True)).input_tokens == 0
    assert {read.name for attempt in told for read in (*attempt.reads, *attempt.body_reads)} >= {"//before", "//a_key_that_is_long"}
    assert all(read.name is not None for attempt in told for read in (*attempt.reads, *attempt.body_reads))


async def test_a_reader_that_follows_lets_runs_rest(symphony: Symphony) -> None:
    """Its memory keeps no run that has ended; the object in hand follows what the writer does to the run later."""
    definition = shop(symphony, fails=True)
    assert symphony.state_dir is not None
    async with Symphony(symphony.state_dir, read_only=True, follow=True) as reader:
        following = reader._following
        assert following is not None
        await symphony.workflows.execute_workflow(definition, run_id="r", auto_checkpoint=False)
        await settled(symphony)
        await asyncio.wait_for(following.wait_for(symphony.log.head), 30)
        gc.collect()
        assert live(reader) == []
        run = await reader.workflows.get_run("r")
        assert (run.status, live(reader)) == ("failed", [])
        await symphony.workflows.resume("r", auto_checkpoint=False)
        await symphony.flush()
        await asyncio.wait_for(following.wait_for(symphony.log.head), 30)
        assert (run.status, run.result, live(reader)) == ("completed", "done", [])
        assert await reader.workflows.get_run("r") is run
        assert len(await reader.tasks.get_tasks_by_workflow("r")) == 1
        with pytest.raises(ReadOnlyError):
            run.metadata["x"] = 1
        assert live(reader) == []


async def test_a_run_that_is_put_back_has_its_child_run(symphony: Symphony) -> None:
    """Its values refer to the object that it had, though that is at rest."""
    run = await symphony.workflows.execute_workflow(shop(symphony), run_id="r", auto_checkpoint=False)
    await settled(symphony)
    kid = run.children["kid"]
    assert isinstance(kid, Workflow)
    with pytest.raises(ValueError, match="no"):
        async with symphony.transaction("Changed"):
            run.metadata["x"] = 1
            run.children["kid"] = None
            raise ValueError("no")
    assert run.children["kid"] is kid
    del kid
    await symphony.refresh(run)
    assert isinstance(run.children["kid"], Workflow)
    assert run.children["kid"] is (await symphony.workflows.get_run("r/kid"))


@pytest.mark.parametrize("how", ["loaded", "fork"])
async def test_what_is_referred_to_stays_live_whatever_else_comes_to_rest(symphony: Symphony, reopen: Any, how: str) -> None:
    """A load brings a living entity with the run that it refers to; and a fork that ends again and again lets go of its original once."""
    definition = shop(symphony)
    run = await symphony.workflows.execute_workflow(definition, run_id="r", auto_checkpoint=False)
    if how == "fork":
        symphony.entities.add(Order(id="o", run=run, runs=[]))
        fork = await symphony.workflows.fork("r", "last", run_id="f")
        await symphony.workflows.resume(fork, auto_checkpoint=False)
        for _ in range(2):
            await symphony.workflows.retry_from("f", "last", auto_checkpoint=False)
        await settled(symphony)
        assert [key for key in live(symphony) if "/" not in key] == ["Workflow:r"]
        return
    symphony.entities.add(Order(id="o", run=run, runs=[]))
    await symphony.flush()
    again = await reopen()
    shop(again)
    order = await again.entities.load(Order, "o")
    order.run.metadata["seen"] = True
    await again.workflows.execute_workflow(shop(again), run_id="s", auto_checkpoint=False)
    await again.workflows.retry_from("r", "last", auto_checkpoint=False)
    await settled(again)
    assert again.entities.get("Workflow:r") is order.run


async def test_the_tasks_of_a_run_that_goes_on_again_are_all_there(symphony: Symphony) -> None:
    """A run is live again, and its tasks of before are asked for: they are brought, and rest with it."""
    symphony.functions.register("ok", lambda context: "ok")
    definition = symphony.build_workflow("w").add_task("ask", "", "Ask").add_function("ok", "ok").add_wait("go").build()
    handle = await symphony.workflows.start(definition, run_id="r", auto_checkpoint=False)
    await handle.signal("go")
    await handle.result()
    await settled(symphony)
    going = asyncio.create_task(symphony.workflows.retry_from("r", "go", auto_checkpoint=False))
    while "r" not in symphony.registry.get("workflow_engine").active_runs:
        await asyncio.sleep(0)
    assert [task.id for task in await symphony.tasks.get_tasks_by_workflow("r")] == ["r/ask"]
    await symphony.workflows.signal("r", "go")
    await going
    task = await symphony.tasks.get_task("r/ask")
    task.description = "seen"
    await symphony.workflows.execute_workflow(shop(symphony), auto_checkpoint=False)
    await settled(symphony)
    assert live(symphony) == []
    assert (await symphony.at("latest")).get("Task:r/ask")["description"] == "seen"


async def test_what_is_written_past_the_methods_of_a_run_at_rest_is_found(tmp_path: Path) -> None:
    """As of any other object: closing compares what somebody has in hand."""
    symphony = Symphony(tmp_path / "log")
    await symphony.setup()
    run = await symphony.workflows.execute_workflow(shop(symphony), {"heap": [3, 4]}, run_id="r", auto_checkpoint=False)
    await settled(symphony)
    heapq.heappush(run.context["heap"], 1)
    with pytest.raises(UnrecordedChangeError, match=r"Workflow:r.*heap"):
        await symphony.close()


async def test_a_request_to_a_run_at_rest_leaves_it_there(symphony: Symphony) -> None:
    """It is refused in its own words, and nothing is kept live by having been asked for."""
    await symphony.workflows.execute_workflow(shop(symphony), run_id="r", auto_checkpoint=False)
    await settled(symphony)
    assert symphony.state_dir is not None
    async with Symphony(symphony.state_dir, read_only=True) as reader:
        with pytest.raises(SymphonyError, match="completed"):
            await reader.requests.pause("r", timeout_s=60)
    await settled(symphony)
    assert live(symphony) == []


@pytest.mark.parametrize("named", ["object", "key", "type and id"])
@pytest.mark.parametrize("call", ["remove", "delete", "unload"])
async def test_a_run_that_executes_is_not_taken_away(symphony: Symphony, named: str, call: str) -> None:
    """It is cancelled first: without its record nobody could signal, cancel or await it."""
    handle = await symphony.workflows.start({"name": "w", "steps": [{"kind": "wait", "name": "a", "signal": "x"}]}, run_id="held")
    given = {"object": (handle.run,), "key": ("Workflow:held",), "type and id": (Workflow, "held")}[named]
    with pytest.raises(EntityBusyError, match="its execution is under way"):
        done = getattr(symphony.entities, call)(*given)
        if call == "unload":
            await done
    await handle.signal("x")
    assert (await handle.wait()).status == "completed"
