"""What undoes an atomic step, given as a function, is atomic itself: it waits for busy entities, and none of its changes is lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from symphony_es import Symphony, entity
from symphony_es.workflow import RunContext, WorkflowDefinition, step

AT_ONCE = 12


@entity
class UndoneStock:
    """What all of the runs reserve from."""

    id: str = ""
    left: int = 100


async def change(symphony: Symphony, by: int) -> None:
    """Read, have the others their turn, and write: two of these that mix lose a change."""
    stock = symphony.entities.get("UndoneStock:m")
    left = stock.left
    await asyncio.sleep(0)
    stock.left = left + by


def declared(symphony: Symphony, given: str) -> Any:
    async def reserve(context: RunContext) -> None:
        await change(symphony, -1)

    async def release(context: RunContext) -> None:
        await change(symphony, 1)

    async def deliver(context: RunContext) -> None:
        raise ValueError("no such address")

    for function in (reserve, release, deliver):
        symphony.functions.register(function.__name__, function)
    undo: Any = {"a name": "release", "a function": release}[given]
    built = symphony.build_workflow("w").add_function("reserve", "reserve", atomic=True, undo=undo)
    return built.add_function("deliver", "deliver").cleanup_on("failure").build()


def by_code(symphony: Symphony) -> Any:
    async def reserve() -> None:
        await change(symphony, -1)

    async def release() -> None:
        await change(symphony, 1)

    @symphony.workflow(name="w", cleanup_on=["failure"])
    async def order() -> None:
        await step(reserve, atomic=True, undo=release)
        raise ValueError("no such address")

    return order


@pytest.mark.parametrize("what", ["a name", "a function", "code"])
async def test_many_runs_that_are_undone_at_once_take_back_all_they_did(symphony: Symphony, what: str) -> None:
    """Each undo meets an entity that others hold, waits for it, and is carried out once."""
    symphony.entities.add(UndoneStock(id="m"))
    await symphony.flush()
    definition = by_code(symphony) if what == "code" else declared(symphony, what)
    runs = await asyncio.gather(*(symphony.workflows.start(definition, auto_checkpoint=False) for _ in range(AT_ONCE)))
    ended = [await handle.wait() for handle in runs]
    assert [run.status for run in ended] == ["failed"] * AT_ONCE
    assert [address for run in ended for address in run.failures if address.startswith("undo/")] == []
    assert all("undo/reserve" in run.outputs for run in ended)
    assert (await symphony.at("latest")).get("UndoneStock:m")["left"] == 100


def test_a_step_that_undoes_is_what_it_says() -> None:
    """Only a function takes over what its step is; a step that is written out stays as written, and so does what undoes another step."""

    def undo_of(**more: Any) -> dict[str, Any]:
        definition = WorkflowDefinition(name="w", steps=[{"kind": "function", "name": "a", "function": "do", **more}])
        return dict(definition.to_dict()["steps"][0]["undo"])

    written = {"kind": "function", "function": "undo"}
    assert undo_of(atomic=True, undo="undo")["atomic"] is True
    assert "atomic" not in undo_of(undo="undo")
    assert "atomic" not in undo_of(atomic=True, undo=written)
    stored = undo_of(atomic=True, undo="undo")
    assert undo_of(atomic=True, undo=stored) == stored
