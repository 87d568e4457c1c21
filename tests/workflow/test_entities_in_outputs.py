"""Entities in what steps give: after a restart the same objects as before it, as everywhere in a run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from symphony_es import Symphony, entity
from symphony_es.workflow import RunContext, step, wait_for_signal
from tests.conftest import Opener


@entity
class GivenEntity:
    id: str = ""
    seen: int = 0


async def give(context: RunContext) -> Any:
    return context.symphony.entities.get("GivenEntity:1")


async def give_inside(context: RunContext) -> Any:
    found = context.symphony.entities.get("GivenEntity:1")
    return {"one": found, "several": [found], "pair": (found, 1)}


async def see(context: RunContext) -> int:
    given = context.outputs["give"]
    for found in (given["one"], given["several"][0], given["pair"][0]) if isinstance(given, dict) else (given,):
        found.seen += 1
    return int(context.symphony.entities.get("GivenEntity:1").seen)


async def see_it(given: Any) -> int:
    given.seen += 1
    return int(given.seen)


def define(symphony: Symphony) -> dict[str, Any]:
    for function in (give, give_inside, see):
        symphony.functions.register(function.__name__, function)

    async def fetch_here() -> Any:
        return symphony.entities.get("GivenEntity:1")

    @symphony.workflow(name="entities-in-outputs")
    async def code() -> int:
        given = await step(fetch_here, name="fetch")
        await wait_for_signal("go")
        return await step(see_it, given)

    def declared(function: str) -> Any:
        return symphony.build_workflow("w").add_function("give", function).add_wait("go").add_function("see", "see").build()

    return {"code": code, "alone": declared("give"), "inside": declared("give_inside")}


@pytest.mark.parametrize(("kind", "seen"), [("code", 1), ("alone", 1), ("inside", 3)])
async def test_a_step_is_handed_the_entity_after_a_restart(kind: str, seen: int, reopen: Opener) -> None:
    symphony = await reopen()
    symphony.entities.add(GivenEntity(id="1"))
    handle = await symphony.workflows.start(define(symphony)[kind], run_id="r")
    while not any("go" in address for address in handle.run.attempts):
        await asyncio.sleep(0)
    await symphony.flush()
    del handle
    symphony = await reopen()
    define(symphony)
    await symphony.resume()
    await symphony.workflows.signal("r", "go")
    await symphony.workflows.recover()
    assert (await symphony.workflows.get_run("r")).result == seen
    assert symphony.entities.get("GivenEntity:1").seen == seen
