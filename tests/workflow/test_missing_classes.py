"""Runs whose values need a class that this process does not know, or knows under another name."""

from __future__ import annotations

import asyncio
import enum
import logging
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.core.state import UnrestoredEntity
from symphony_es.errors import UnknownValueError
from symphony_es.workflow import run_workflow, step, wait_for_signal
from tests.conftest import Opener


class Verdict(enum.StrEnum):
    """What a step says."""

    APPROVE = "approve"
    REFUSE = "refuse"


async def judge(context: Any = None) -> Verdict:
    """Say yes."""
    return Verdict.APPROVE


def define(symphony: Symphony) -> Any:
    """A workflow that takes its branch by what a step has said before a signal came; and one that starts it as its child."""
    symphony.functions.register("judge", judge)

    @symphony.workflow
    async def flow() -> str:
        verdict = await step(judge)
        await wait_for_signal("go")
        return "shipped" if verdict == Verdict.APPROVE else "refused"

    @symphony.workflow
    async def parent() -> str:
        return await run_workflow(flow)

    return flow, parent


@pytest.mark.parametrize("kind", ["code", "child"])
async def test_a_run_waits_until_its_classes_are_known(kind: str, reopen: Opener, caplog: pytest.LogCaptureFixture) -> None:
    """It is neither driven nor failed: recover passes it over and warns, asking for it says what to do, and then it goes on."""
    symphony = await reopen()
    symphony.types.register(Verdict, "gone.module:Verdict")
    flow, parent = define(symphony)
    handle = await symphony.workflows.start(flow if kind == "code" else parent, run_id="r")
    while not any("judge" in "".join(run.outputs) for run in symphony.workflows._engine.runs()):
        await asyncio.sleep(0)
    child = next(run for run in symphony.workflows._engine.runs() if run.outputs).id
    await symphony.flush()
    del handle
    symphony = await reopen()
    define(symphony)
    report = await symphony.resume()
    assert report.unknown_values == {f"Workflow:{child}": ["gone.module:Verdict"]}
    assert isinstance(symphony.entities.get(f"Workflow:{child}"), UnrestoredEntity)
    head = symphony.log.head
    with caplog.at_level(logging.WARNING):
        assert await symphony.workflows.recover() == []
    assert "run_needs_what_is_missing" in caplog.text
    assert symphony.log.head == head, "it is nobody's event"
    with pytest.raises(UnknownValueError, match=r"symphony\.types\.alias\('gone\.module:Verdict', Verdict\)"):
        await symphony.workflows.resume("r")
    with pytest.raises(UnknownValueError):
        await symphony.workflows.signal(child, "go")
    assert symphony.log.head == head
    symphony.types.alias("gone.module:Verdict", Verdict)
    assert not (await symphony.resume()).unrestored
    await symphony.workflows.signal(child, "go")
    await symphony.workflows.recover()
    assert (await symphony.workflows.get_run("r")).result == "shipped"


async def test_what_a_step_returns_is_known_from_its_annotation(reopen: Opener) -> None:
    """Nobody registers the class in the second Symphony: the functions that are registered name it."""
    symphony = await reopen()
    flow, _ = define(symphony)
    await symphony.workflows.start(flow, run_id="r")
    while not symphony.entities.get("Workflow:r").outputs:
        await asyncio.sleep(0)
    symphony = await reopen()
    define(symphony)
    assert (await symphony.resume()).complete
    (verdict,) = [item for item in symphony.entities.get("Workflow:r").outputs.values() if item is not None]
    assert verdict is Verdict.APPROVE


async def test_forks_and_retries_work_with_objects(symphony: Symphony) -> None:
    """What they take from the past is made of it: members and parts, never what is stored of them."""
    seen = []

    async def look(context: Any) -> Any:
        seen.append(context["verdict"])
        return context["verdict"]

    symphony.functions.register("look", look)
    definition = symphony.build_workflow().create("w").add_function("first", "look").add_function("second", "look").build()
    run = await symphony.workflows.execute_workflow(definition, {"verdict": Verdict.REFUSE})
    run.context["verdict"] = Verdict.APPROVE
    await symphony.flush()
    fork = await symphony.workflows.fork(run, "second", run_id="fork")
    assert fork.context["verdict"] is Verdict.REFUSE
    assert fork.outputs["first"] is Verdict.REFUSE
    await symphony.workflows.retry_from(run, "second")
    assert seen[-1] is Verdict.REFUSE
    assert all(type(item) is Verdict for item in seen)
