"""A list that is larger than an event is gone over, read and handed on like any other: what grows with its length has no limit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.errors import ExpressionError, RunFailedError
from symphony_es.events.values import Limits
from symphony_es.log import log as log_module
from symphony_es.workflow.language import metering
from symphony_es.workflow.language.expressions import evaluate
from symphony_es.workflow.language.templates import render

Opener = Callable[..., Awaitable[Symphony]]
COUNT = 24
LIMIT = 8_000
"""Of an event; the items together take three times as much."""


@pytest.fixture(autouse=True)
def a_small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events are small, and what a template may give is as small."""
    monkeypatch.setattr(metering, "MAX_OUTPUT_BYTES", LIMIT)
    monkeypatch.setattr(log_module, "Limits", lambda: Limits(max_body_bytes=LIMIT))


def item(number: int) -> dict[str, Any]:
    return {"number": number, "text": f"{number:4}" * 250}


class Bodies:
    """Functions of steps, which fail at an item while they are told to."""

    def __init__(self) -> None:
        self.fails_at: int | None = None
        self.more = 0
        self.used: list[int] = []

    async def make(self, context: Any) -> dict[str, Any]:
        return item(context["item"] + self.more)

    async def use(self, context: Any) -> int:
        number: int = context["item"]["number"]
        if number == self.fails_at:
            raise ValueError(f"not {number}")
        self.used.append(number)
        return number

    async def count(self, context: Any) -> list[int]:
        return [one["number"] for one in context.inputs["all"]]

    async def open(self, reopen: Opener) -> Symphony:
        symphony = await reopen()
        for name in ("make", "use", "count"):
            symphony.functions.register(name, getattr(self, name))
        return symphony


def chained(over: str, **more: Any) -> dict[str, Any]:
    """A map, and a map over what that gave, one after the other."""
    steps: list[dict[str, Any]] = [
        {
            "kind": "map",
            "name": "m",
            "over": list(range(COUNT)),
            "max_concurrency": 8,
            "step": {"kind": "function", "name": "x", "function": "make"},
        },
        {"kind": "map", "name": "n", "over": over, "max_concurrency": 1, "step": {"kind": "function", "name": "y", "function": "use"}},
        {"kind": "function", "name": "c", "function": "count", "inputs": {"all": "{{ step.m.result }}"}},
    ]
    return {"name": "w", "steps": steps, **more}


OVER = {
    "{{ step.m.result }}": slice(None),
    "{{ step['m'].results }}": slice(None),
    "{{ step.m.result[2:] }}": slice(2, None),
    "{{ step.m.result if step.m.result else [] }}": slice(None),
    "{{ context.kept }}": slice(None),
}


@pytest.mark.parametrize("over", OVER)
async def test_a_map_goes_over_the_outputs_of_a_map(reopen: Opener, over: str) -> None:
    """Items that fail are done again in a later process, from what was fixed; what completed is not."""
    bodies = Bodies()
    symphony = await bodies.open(reopen)
    definition = chained(over)
    if "kept" in over:
        definition["steps"][0]["output_key"] = "kept"
    expected = list(range(COUNT))[OVER[over]]
    bodies.fails_at = 20
    run = await symphony.workflows.execute_workflow(definition, run_id="r")
    assert (run.status, bodies.used) == ("failed", [number for number in expected if number < 20])
    bodies.fails_at = None
    symphony = await bodies.open(reopen)
    run = await symphony.workflows.resume("r")
    assert (run.status, run.error, bodies.used) == ("completed", None, expected)
    assert (run.outputs["n"], run.outputs["c"]) == (expected, list(range(COUNT)))


async def test_what_is_fixed_stays_when_what_it_was_made_of_is_done_again(reopen: Opener) -> None:
    """Of two branches, one goes over the other's outputs; that one is taken back and gives others: the items stay what they were."""
    bodies = Bodies()
    symphony = await bodies.open(reopen)
    m, n, _ = chained("{{ step['both/m'].result }}")["steps"]
    later = {"kind": "sequence", "name": "later", "steps": [{"kind": "wait", "name": "go", "signal": "go"}, n]}
    bodies.fails_at = 10
    definition = {"name": "w", "steps": [{"kind": "parallel", "name": "both", "branches": [m, later]}]}
    handle = await symphony.workflows.start(definition, run_id="r")
    async for progress in handle.progress_changes():
        if progress.completed_steps > COUNT:  # the items, and the map
            break
    await handle.signal("go")
    with pytest.raises(RunFailedError, match="not 10"):
        await handle.result()
    bodies.fails_at, bodies.more = None, 100
    run = await symphony.workflows.retry_from("r", "both/m")
    assert (run.status, bodies.used) == ("completed", list(range(COUNT)))
    assert run.outputs["both"]["m"] == [item(number + 100) for number in range(COUNT)]


@pytest.mark.parametrize("again", ["retry_from", "fork at the step", "fork at a position", "rewind", "child", "past"])
async def test_what_is_larger_than_an_event_goes_back_and_aside(reopen: Opener, again: str) -> None:
    """A run under way in such a map is taken back, forked, rewound and looked back at, and is what it was."""
    bodies = Bodies()
    symphony = await bodies.open(reopen)
    definition = chained("{{ step.m.result }}")
    if again == "child":
        definition = {"name": "around", "steps": [{"kind": "workflow", "name": "inner", "definition": definition}]}
    bodies.fails_at = 20
    run = await symphony.workflows.execute_workflow(definition, run_id="r")
    ended = {e.metadata.step: e.position for e in await symphony.log.read_entity("Workflow:r") if e.name == "WorkflowStepCompleted"}
    position, expected = ended.get("n/19", symphony.log.head), list(range(20))
    bodies.fails_at = None
    if again == "retry_from":
        run, expected = await symphony.workflows.retry_from("r", "n/18"), [*expected, 18, *range(20, COUNT)]
    elif again.startswith("fork"):
        fork = await symphony.workflows.fork("r", "n" if again == "fork at the step" else position, run_id="f")
        run = await symphony.workflows.resume(fork)
        expected += range(0 if again == "fork at the step" else 20, COUNT)
    elif again == "rewind":
        checkpoint = await symphony.create_checkpoint("then")
        await symphony.workflows.resume("r")
        await symphony.resume_from_checkpoint(checkpoint, stop_runs=True)
        run, expected = await symphony.workflows.resume("r"), [*expected, *range(20, COUNT), *range(20, COUNT)]
    else:
        run, expected = await symphony.workflows.resume("r"), list(range(COUNT))
    if again == "child":
        run = run.children["inner"]
    assert (run.status, run.error, bodies.used, run.outputs["n"]) == ("completed", None, expected, list(range(COUNT)))
    if again == "past":
        then = (await symphony.at(position)).get("Workflow:r")
        assert then["outputs"]["m"] == then["progress"]["n"]["items"] == [item(number) for number in range(COUNT)]


def test_values_of_a_run_are_handed_on_once_and_counted_from_then_on() -> None:
    """A value may be as large as it is; what would be written twice is counted, and what is made of values always is."""
    scope = {"big": ["x" * 500] * 40, "other": {"big": "y" * 9_000}}
    assert render({"a": "{{ big }}", "b": "{{ other.big }}", "c": "{{ other }}"}, scope) == {
        "a": scope["big"],
        "b": "y" * 9_000,
        "c": scope["other"],
    }
    assert evaluate("big", scope) is scope["big"]
    for template in (
        {"a": "{{ big }}", "b": "{{ big }}"},
        {"a": "{{ big }}", "b": '{{ ["big"] and big[0:] }}'},
        "{{ big + [1] }}",
        "{{ [big] }}",
        "{{ big }} ",
    ):
        with pytest.raises(ExpressionError, match="8,000 bytes"):
            render(template, scope)
