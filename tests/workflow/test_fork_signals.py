"""A fork does not take along signals that nobody had taken where it begins, unless it is told to."""

from __future__ import annotations

from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.errors import ConfigurationError
from symphony_es.workflow import RunHandle, step, wait_for_signal


async def draft(context: Any) -> str:
    return f"text {context['number']}"


async def publish(context: Any) -> str:
    return f"text {context['number']}, approved by {context.outputs['approved']}"


DECLARED = {
    "name": "paper",
    "context": {"number": 1},
    "steps": [
        {"kind": "function", "name": "draft", "function": "draft"},
        {"kind": "function", "name": "again", "function": "draft"},
        {"kind": "wait", "name": "approved", "signal": "approved"},
        {"kind": "function", "name": "publish", "function": "publish"},
    ],
}


async def published(symphony: Symphony, signals: dict[str, list[Any]]) -> RunHandle:
    """A run whose signals have come before it asked for any, and which has ended."""
    symphony.functions.register("draft", draft)
    symphony.functions.register("publish", publish)
    async with symphony.transaction("Asked"):
        handle = await symphony.workflows.start(DECLARED, run_id="paper")
        for name, payloads in signals.items():
            for payload in payloads:
                await handle.signal(name, payload, signal_id=f"{name}{payload}")
    assert await handle.result() == "text 1, approved by ada"
    return handle


@pytest.mark.parametrize("place", ["again", "approved"])
@pytest.mark.parametrize(
    ("told", "along"),
    [
        ({}, {}),
        ({"signals": False}, {}),
        ({"signals": []}, {}),
        ({"signals": ["other"]}, {}),
        ({"signals": True}, {"approved": ["ada", "bob"], "noted": [1]}),
        ({"signals": ["approved"]}, {"approved": ["ada", "bob"]}),
        ({"signals": {"noted"}}, {"noted": [1]}),
    ],
)
async def test_what_nobody_had_taken(symphony: Symphony, place: str, told: Any, along: Any) -> None:
    """The other text is not published under an approval of the first one, and the same signal may be sent to the fork."""
    handle = await published(symphony, {"approved": ["ada", "bob"], "noted": [1]})
    fork = await symphony.workflows.fork(handle.run, place, {"number": 2}, run_id="fork", **told)
    assert fork.signals == along
    (said,) = [event.data for event in await symphony.log.read_entity("Workflow:fork")]
    assert said.get("signals", []) == list(along)
    forked = await symphony.workflows.start(fork)
    if "approved" not in along:
        await forked.signal("approved", "eve", signal_id="approvedada")  # an id of the original's is not one of the fork's
    assert await forked.result() == f"text 2, approved by {'ada' if 'approved' in along else 'eve'}"
    assert handle.run.signals == {"approved": ["bob"], "noted": [1]}


@pytest.mark.parametrize("at_position", [True, False])
async def test_what_a_step_had_taken_is_history(symphony: Symphony, at_position: bool) -> None:
    """Behind the step that took it, the fork has it as the run has."""
    handle = await published(symphony, {"approved": ["ada"]})
    taken = next(event for event in await symphony.log.read_entity("Workflow:paper") if event.name == "WorkflowSignalTaken")
    fork = await symphony.workflows.fork(handle.run, taken.position if at_position else "publish", {"number": 2})
    assert (await symphony.workflows.resume(fork)).result == "text 2, approved by ada"


async def test_a_code_first_run(symphony: Symphony) -> None:
    """The same, where code asks for signals."""

    async def write(number: int) -> str:
        return f"text {number}"

    @symphony.workflow
    async def paper(number: int = 1) -> str:
        text = await step(write, number)
        return f"{text}, approved by {await wait_for_signal('approved')}"

    async with symphony.transaction("Asked"):
        handle = await symphony.workflows.start(paper, {"number": 1})
        await handle.signal("approved", "ada")
    await handle.result()
    fork = await symphony.workflows.fork(handle.run, "write")
    forked = await symphony.workflows.start(fork)
    await forked.signal("approved", "eve")
    assert await forked.result() == "text 1, approved by eve"


async def test_a_text_is_no_list_of_names(symphony: Symphony) -> None:
    """It is refused, with what to write."""
    handle = await published(symphony, {"approved": ["ada"]})
    with pytest.raises(ConfigurationError, match=r"signals=\['approved'\]"):
        await symphony.workflows.fork(handle.run, "publish", signals="approved")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"topc": "snow"}, r"the context has 'topc', which is none of its parameters \(did you mean topic\?\)"),
        ({"topic": 5}, "the argument 'topic' is not a str"),
        ({"topic": "snow", "least": [1]}, "the argument 'least' is not a float"),
    ],
)
async def test_changes_that_do_not_fit_a_code_first_workflow_make_no_fork(symphony: Symphony, changes: dict[str, Any], said: str) -> None:
    """They are refused as those of a new run are, and nothing is appended; what fits makes a fork that completes."""

    @symphony.workflow
    async def research(topic: str, least: float = 0) -> str:
        return await step(lambda: f"{topic} {least}", name="plan")

    await symphony.workflows.execute_workflow(research, {"topic": "rain"}, run_id="r", auto_checkpoint=False)
    head = symphony.log.head
    with pytest.raises(ConfigurationError, match=said):
        await symphony.workflows.fork("r", "plan", changes)
    assert symphony.log.head == head
    fork = await symphony.workflows.resume(await symphony.workflows.fork("r", "plan", {"topic": "snow"}), auto_checkpoint=False)
    assert (fork.status, fork.result) == ("completed", "snow 0")
