"""What the log can never take is the trouble of whoever made it: it is put back, and nobody else is told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from symphony_es import Symphony, entity
from symphony_es.entities.task import Task
from symphony_es.errors import LimitExceededError, UnstorableValueError

LARGE = "z" * 17_000_000


@entity(type="Doc")
class Doc:
    id: str = ""
    text: str = ""


def adds(symphony: Symphony, context: Any) -> None:
    """A new entity."""
    symphony.entities.add(Doc(id="new", text=LARGE))


def changes(symphony: Symphony, context: Any) -> None:
    """One that is there."""
    symphony.entities.get("Doc:old").text = LARGE


def adds_and_fails(symphony: Symphony, context: Any) -> None:
    """A new one, in an attempt that fails of something else."""
    adds(symphony, context)
    raise ValueError("of something else")


@pytest.mark.parametrize("atomic", [False, True], ids=["step", "atomic"])
@pytest.mark.parametrize("plain", [False, True], ids=["coroutine", "thread"])
@pytest.mark.parametrize("make", [adds, changes, adds_and_fails], ids=lambda each: each.__name__)
async def test_what_a_step_cannot_have_appended_is_put_back(symphony: Symphony, make: Any, plain: bool, atomic: bool) -> None:
    """Its run has failed by name, at the first attempt; other runs, checkpoints and flushes go on, and what was there is as it was."""
    symphony.entities.add(Doc(id="old", text="short"))
    await symphony.flush()
    calls: list[int] = []

    def called(context: Any) -> None:
        calls.append(context.attempt)
        make(symphony, context)

    async def awaited(context: Any) -> None:
        called(context)

    symphony.functions.register("work", called if plain else awaited)
    one = {
        "kind": "function",
        "name": "a",
        "function": "work",
        "atomic": atomic,
        "retry": {"max_attempts": 3, "delay_s": 0, "on": ["OSError"]},
    }
    run = await symphony.workflows.execute_workflow({"name": "w", "steps": [one]})
    refused = "LimitExceededError" if atomic else "EntityOutOfStepError"
    assert (run.status, (run.error or {})["type"], calls) == ("failed", "ValueError" if make is adds_and_fails else refused, [1])
    assert symphony.world.find("Doc:new") is None
    assert symphony.entities.get("Doc:old").text == "short"
    other = await symphony.workflows.execute_workflow({"name": "other", "steps": [{"kind": "sleep", "name": "z", "seconds": 0}]})
    assert "WorkflowHookFailed" not in [event.name for event in await symphony.log.read_entity(f"Workflow:{other.id}")]
    await symphony.flush()
    await symphony.create_checkpoint("whole")
    symphony.entities.get("Doc:old").text = "changed again"
    await symphony.flush()


async def test_a_task_that_is_too_large_fails_its_step_alone(symphony: Symphony) -> None:
    """The task is not live, and the message says which parts are large."""
    steps = [{"kind": "task", "name": "a", "template": "{{ x }}{{ x }}"}]
    run = await symphony.workflows.execute_workflow({"name": "w", "steps": steps}, {"x": "y" * 8_388_600})
    assert (run.status, (run.error or {})["type"]) == ("failed", "EntityOutOfStepError")
    assert symphony.world.all("Task") == []
    await symphony.flush()


Save = Callable[[Symphony], Awaitable[Any]]
SAVED: dict[str, Save] = {
    "definition": lambda symphony: symphony.workflows.save_workflow({"name": "w", "context": {"x": LARGE}, "steps": []}),
    "task": lambda symphony: symphony.tasks.save_task(Task(name="t", description=LARGE)),
    "agent": lambda symphony: symphony.agents.create_agent({"name": "a", "note": LARGE}),
}


@pytest.mark.parametrize("what", SAVED)
async def test_what_is_saved_and_too_large_is_refused(symphony: Symphony, what: str) -> None:
    """The call raises, nothing of it is live, and the Symphony goes on."""
    with pytest.raises((LimitExceededError, UnstorableValueError)):
        await SAVED[what](symphony)
    await symphony.flush()
    await symphony.create_checkpoint("whole")
    assert not [*symphony.world.all("WorkflowDefinition"), *symphony.world.all("Task"), *symphony.world.all("Agent")]


async def test_an_entity_out_of_step_is_its_maker_s_and_no_run_s(symphony: Symphony) -> None:
    """The application has made it outside of runs: flushing all says so until it is put back; the checkpoints of a run are made."""
    doc = symphony.entities.add(Doc(id="own", text="short"))
    await symphony.flush()
    doc.text = LARGE
    run = await symphony.workflows.execute_workflow({"name": "w", "steps": [{"kind": "sleep", "name": "z", "seconds": 0}]})
    assert run.status == "completed"
    assert "WorkflowHookFailed" not in [event.name for event in await symphony.log.read_entity(f"Workflow:{run.id}")]
    with pytest.raises(Exception, match="out of step"):
        await symphony.flush()
    await symphony.refresh(doc)
    await symphony.flush()
    assert doc.text == "short"
