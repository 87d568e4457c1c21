"""What comes to rest while it is being loaded is live when the load is over: two who ask for runs of one family at once both get them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from symphony_es import EntityRestorer, Symphony, entity


@entity
class LoadedParcel:
    id: str = ""


class Slow(EntityRestorer):
    """Makes parcels when it is told to."""

    entity_type = "LoadedParcel"
    restored_class = LoadedParcel

    def __init__(self) -> None:
        self.begun, self.told = asyncio.Event(), asyncio.Event()

    async def restore(self, entity_id: str, data: dict[str, Any], context: Any) -> LoadedParcel:
        self.begun.set()
        await self.told.wait()
        return LoadedParcel(**data)


async def make(directory: Path) -> None:
    """A run with a child run, both at rest, and an entity."""
    async with Symphony(directory) as symphony:
        kid = symphony.build_workflow("kid").add_task("think", "", "Think").build()
        await symphony.workflows.execute_workflow(symphony.build_workflow("main").add_workflow("kid", kid).build(), run_id="main")
        symphony.entities.add(LoadedParcel(id="p"))


def read_slowly(symphony: Symphony, monkeypatch: pytest.MonkeyPatch) -> tuple[asyncio.Event, asyncio.Event]:
    """Has states be read when they may: has begun, and may go on."""
    begun, told = asyncio.Event(), asyncio.Event()
    read: Callable[..., Awaitable[Any]] = symphony.state_history.entities_at

    async def slow(keys: Any, position: int) -> Any:
        begun.set()
        await told.wait()
        return await read(keys, position)

    monkeypatch.setattr(symphony.state_history, "entities_at", slow)
    return begun, told


@pytest.mark.parametrize("asked", ["main", "main/kid"])
@pytest.mark.parametrize("during", ["reading", "restoring"])
async def test_a_run_that_comes_to_rest_during_a_load_is_loaded(
    asked: str, during: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One loads a run with what waits in the log; another one's look at its family puts it to rest before the load is over."""
    await make(tmp_path)
    async with Symphony(tmp_path) as symphony:
        in_hand = {name: await symphony.workflows.get_run(name) for name in ("main", "main/kid")}
        (other,) = in_hand.keys() - {asked}
        if during == "restoring":
            restorer = Slow()
            symphony.restore_manager.register_restorer(restorer, replace=True)
            begun, told = restorer.begun, restorer.told
        else:
            begun, told = read_slowly(symphony, monkeypatch)
        load = asyncio.ensure_future(symphony.entities.load_all([f"Workflow:{asked}", "LoadedParcel:p"]))
        await begun.wait()
        assert await symphony.workflows.get_run(other) is in_hand[other]
        assert f"Workflow:{asked}" not in symphony.world.records
        told.set()
        run, parcel = await load
        assert (run, parcel.id) == (in_hand[asked], "p")
        assert symphony.entities.get(f"Workflow:{asked}") is in_hand[asked]
