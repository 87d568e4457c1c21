"""What a map, a loop or another composite gives stands once, with the steps inside of it that gave it, and is read from there."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.cli.main import main
from symphony_es.errors import ExpressionError
from symphony_es.workflow.kinds.conditional import ConditionalStep
from symphony_es.workflow.kinds.loop import LoopStep
from symphony_es.workflow.kinds.map import MapStep
from symphony_es.workflow.kinds.parallel import ParallelStep
from symphony_es.workflow.kinds.sequence import SequenceStep
from symphony_es.workflow.language.expressions import evaluate
from symphony_es.workflow.language.parts import NumberedParts
from symphony_es.workflow.runs import outputs as outputs_module
from symphony_es.workflow.runs import parts as parts_module
from symphony_es.workflow.runs.parts import made_of_parts
from symphony_es.workflow.runs.thawing import thaw

Opener = Callable[..., Awaitable[Symphony]]
Shape = tuple[Any, ...]
LEAF: Shape = ("give",)


def text_of(address: str) -> str:
    """What the step at an address gives: long enough to be worth a note of where it is."""
    return f"<{address}>{'.' * 80}"


async def give(context: Any) -> str:
    return text_of(context.step)


async def fail(context: Any) -> str:
    raise ValueError(text_of(context.step))


async def register(reopen: Opener) -> Symphony:
    symphony = await reopen()
    symphony.functions.register("give", give)
    symphony.functions.register("fail", fail)
    symphony.functions.register("take", take)
    return symphony


def step_of(shape: Shape, name: str) -> dict[str, Any]:
    """The step that a shape stands for: a name of a kind, and the shapes inside or a number."""
    kind, *inside = shape
    if kind in ("give", "fail"):
        return {"kind": "function", "name": name, "function": kind}
    steps = [step_of(one, f"s{number}") for number, one in enumerate(inside) if isinstance(one, tuple)]
    rest = {
        "sequence": lambda: {"steps": steps},
        "conditional": lambda: {"condition": "True", "then": steps},
        "parallel": lambda: {"branches": steps, "on_error": "collect"},
        "map": lambda: {"over": list(range(inside[1])), "step": steps[0], "on_error": "collect"},
        "loop": lambda: {"max_iterations": inside[1], "steps": steps},
    }[kind]()
    return {"kind": kind, "name": name, **rest}


def expect(shape: Shape, address: str, found: dict[str, Any]) -> Any:
    """What it gives, and in `found` what all steps in it give, as a reader of the definition would say."""
    kind, *inside = shape
    if kind == "fail":
        return {"error": {"type": "ValueError", "message": text_of(address)}}
    if kind == "give":
        output: Any = text_of(address)
    elif kind == "map":
        output = [expect(inside[0], f"{address}/{number}", found) for number in range(inside[1])]
    elif kind == "loop":
        output = [expect(inside[0], f"{address}/{number}/s0", found) for number in range(inside[1])]
    elif kind == "parallel":
        output = {f"s{number}": expect(one, f"{address}/s{number}", found) for number, one in enumerate(inside)}
    else:
        below = f"{address}/then" if kind == "conditional" else address
        output = [expect(one, f"{below}/s{number}", found) for number, one in enumerate(inside)][-1]
    found[address] = output
    return output


def random_shape(draw: random.Random, depth: int = 3) -> Shape:
    """Composites in composites; what fails stands where failures are collected only."""
    kind = draw.choice(("map", "loop", "parallel", "sequence", "conditional")) if depth else "give"
    if kind in ("map", "parallel") and draw.random() < 0.3:
        return (kind, ("fail",), 2) if kind == "map" else (kind, LEAF, ("fail",))
    if kind in ("map", "loop"):
        return kind, random_shape(draw, depth - 1), draw.choice((0, 1, 2)) if kind == "map" else 2
    if kind == "give":
        return LEAF
    return kind, *(random_shape(draw, draw.randrange(depth)) for _ in range(draw.choice((1, 2))))


SHAPES: list[Shape] = [
    ("map", LEAF, 3),
    ("map", LEAF, 0),
    ("loop", LEAF, 3),
    ("map", ("map", LEAF, 2), 2),
    ("map", ("fail",), 2),
    ("loop", ("map", ("sequence", LEAF, LEAF), 2), 2),
    ("parallel", ("map", ("loop", LEAF, 2), 2), LEAF, ("fail",)),
    ("sequence", LEAF, ("conditional", ("map", LEAF, 2))),
    *(random_shape(random.Random(seed)) for seed in range(6)),
]


async def take(context: Any) -> Any:
    return [context.inputs["whole"], context.inputs["length"], context.outputs["top"]]


READER = {
    "kind": "function",
    "name": "reader",
    "function": "take",
    "inputs": {"whole": "{{ step.top.result }}", "length": "{{ len(step.top.result or '') }}"},
}


def holds_in(expected: dict[str, Any]) -> list[str]:
    """The texts that leaves gave."""
    return [found for address, found in expected.items() if found == text_of(address)]


@pytest.mark.parametrize("shape", SHAPES, ids=repr)
async def test_each_output_stands_once(reopen: Opener, shape: Shape) -> None:
    """Every step's output is what the definition says, live, as a result and restored; what a step gave stands in the log one time."""
    symphony = await register(reopen)
    expected: dict[str, Any] = {}
    result = expect(shape, "top", expected)
    run = await symphony.workflows.execute_workflow({"name": "w", "steps": [step_of(shape, "top")]}, run_id="r")
    assert (run.status, run.result, dict(run.outputs)) == ("completed", result, expected)
    events = repr([(event.changes, event.data) for event in await symphony.log.read_entity("Workflow:r")])
    assert [one for one in holds_in(expected) if events.count(one) != 1] == []
    symphony = await register(reopen)
    again = await symphony.workflows.get_run("r")
    assert (again.result, dict(again.outputs), again.completed_steps) == (result, expected, len(expected))


@pytest.mark.parametrize("shape", SHAPES, ids=repr)
@pytest.mark.parametrize("taken", ["now", "after a reopening", "by a fork", "of a log of before"])
async def test_later_steps_read_it(reopen: Opener, shape: Shape, taken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later step reads the whole output, from templates and from its context: in this process, the next one, a fork, an older log."""
    if taken == "of a log of before":
        as_copies(monkeypatch)
    symphony = await register(reopen)
    expected: dict[str, Any] = {}
    result = expect(shape, "top", expected)
    run = await symphony.workflows.execute_workflow({"name": "w", "steps": [step_of(shape, "top"), READER]}, run_id="r")
    if taken != "now":
        monkeypatch.undo()
        symphony = await register(reopen)
        if taken == "by a fork":
            run = await symphony.workflows.fork("r", at="reader")
            run = await symphony.workflows.execute_workflow_by_id(run.id)
        else:
            run = await symphony.workflows.retry_from("r", "reader")
    assert run.result == [result, len(result), result], run.error
    assert dict(run.outputs) == {**expected, "reader": run.result}


def as_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has composites give copies of what their parts gave, as they once did."""
    for kind in (MapStep, LoopStep, ParallelStep, SequenceStep, ConditionalStep):

        async def perform(step: Any, execution: Any, original: Any = kind.perform) -> Any:
            return thaw(made_of_parts(execution.run, execution.address, await original(step, execution)))

        monkeypatch.setattr(kind, "perform", perform)


async def test_one_item_again(reopen: Opener) -> None:
    """An item that is taken back and done again is what the list has then; a rewind brings the old one back."""
    symphony = await register(reopen)
    gave = "before"

    async def say(context: Any) -> str:
        return f"{gave} {context['item']} {'.' * 80}"

    symphony.functions.register("say", say)
    item = {"kind": "function", "name": "say", "function": "say"}
    steps = [{"kind": "map", "name": "top", "over": [0, 1, 2], "step": {"kind": "sequence", "name": "in", "steps": [item]}}, READER]
    run = await symphony.workflows.execute_workflow({"name": "w", "steps": steps}, run_id="r")
    first, position = run.result[0], await symphony.create_checkpoint("then")
    gave = "after"
    run = await symphony.workflows.retry_from(run, "top/1")
    second = [first[0], first[1].replace("before", "after"), first[2]]
    assert (run.result[0], run.outputs["top"], run.outputs["top/1"]) == (second, second, second[1])
    await symphony.resume_from_checkpoint(position, stop_runs=True)
    run = await symphony.workflows.get_run("r")
    assert (run.result[0], run.outputs["top"], run.outputs["top/1"]) == (first, first, first[1])


async def test_an_undo_reads_what_was_given(reopen: Opener) -> None:
    """The undo of an item gets its output, and reads that of the whole map."""
    symphony = await register(reopen)
    undone: dict[str, Any] = {}

    async def take_back(context: Any) -> None:
        undone[context.undoes.address] = context.undoes.output
        assert context.outputs["top"] == [text_of("top/0/in"), text_of("top/1/in")]

    symphony.functions.register("take back", take_back)
    item = {"kind": "sequence", "name": "s", "steps": [{"kind": "function", "name": "in", "function": "give", "undo": "take back"}]}
    steps = [{"kind": "map", "name": "top", "over": [0, 1], "step": item}, {"kind": "wait", "name": "go", "signal": "go"}]
    handle = await symphony.workflows.start({"name": "w", "steps": steps}, run_id="r")
    while "go" not in handle.run.attempts:
        await asyncio.sleep(0.001)
    await handle.cancel()
    assert undone == {f"top/{number}/in": text_of(f"top/{number}/in") for number in range(2)}


@pytest.mark.parametrize("read", ["{{ step.top.result[index] }}", "{{ step.top.results[index].s0 }}", "{{ len(step.top.result) }}"])
async def test_an_element_costs_one(reopen: Opener, read: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A template that reads one element of a map's output looks at so many parts, however many there are."""
    symphony = await register(reopen)
    size, looked_at = 30, 0
    shape = ("map", ("parallel", LEAF), size)
    original = parts_module.seen_at

    def counted(*arguments: Any) -> Any:
        nonlocal looked_at
        looked_at += 1
        return original(*arguments)

    async def run(template: str) -> int:
        nonlocal looked_at
        looked_at = 0
        item = {"kind": "function", "name": "i", "function": "give", "inputs": {"x": template}}
        steps = [step_of(shape, "top"), {"kind": "map", "name": "again", "over": [0] * size, "step": item}]
        done = await symphony.workflows.execute_workflow({"name": "w", "steps": steps})
        assert done.status == "completed", done.error
        return looked_at

    monkeypatch.setattr(parts_module, "seen_at", counted)
    monkeypatch.setattr(outputs_module, "seen_at", counted)
    assert await run(read) <= 6 * size


@pytest.mark.parametrize("wrong", ["of.top['x']", "of.top.name", "of.top < 1", "-of.top", "of.top[9]", "of.top.x.y"])
def test_an_error_says_what_an_output_is(wrong: str) -> None:
    """It is a list to those who write templates, however it is looked up: the message is that of a list."""
    outputs = [{"name": 1}, {"name": 2}]
    told = []
    for top in (outputs, NumberedParts(len(outputs), lambda index: outputs[index])):  # type: ignore[call-overload, list-item]
        with pytest.raises(ExpressionError) as refused:
            evaluate(wrong, {"of": {"top": top}})
        told.append(str(refused.value))
    assert told[0] == told[1]


async def test_a_limit_of_an_event_never_meets_the_number_of_items(reopen: Opener) -> None:
    """The event that completes a composite has the same size for ten items as for a hundred."""
    symphony = await register(reopen)
    sizes = []
    for count in (10, 100):
        inner = ("parallel", ("map", LEAF, count), ("loop", LEAF, count), ("map", ("fail",), count))
        run = await symphony.workflows.execute_workflow({"name": "w", "steps": [step_of(inner, "top")]})
        assert run.status == "completed"
        events = await symphony.log.read_entity(f"Workflow:{run.id}")
        changes = {change[1]: change[2] for event in events for change in event.changes if change[1][:1] == ("outputs",)}
        sizes.append([len(repr(changes["outputs", address])) for address in ("top", "top/s0", "top/s1", "top/s2")])
    assert [large - small for small, large in zip(*sizes, strict=True)] == [0, 1, 1, 1]  # the number has a digit more


async def test_output_key_has_a_copy(reopen: Opener) -> None:
    """What `output_key` puts into the context is the output itself."""
    symphony = await register(reopen)
    step = {**step_of(("map", LEAF, 2), "top"), "output_key": "kept"}
    run = await symphony.workflows.execute_workflow({"name": "w", "steps": [step]})
    assert run.context["kept"] == run.result == [text_of("top/0"), text_of("top/1")]


async def test_the_command_line_shows_it(reopen: Opener, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`run --json` has outputs as they are; the list of events says where a completed step's output is found."""
    symphony = await register(reopen)
    run = await symphony.workflows.execute_workflow({"name": "w", "steps": [step_of(("map", LEAF, 2), "top")]}, run_id="r")
    expected = {**run.outputs}
    await symphony.close()
    await asyncio.to_thread(main, ["--state-dir", str(tmp_path / "state"), "run", "r", "--json"])
    assert json.loads(capsys.readouterr().out.splitlines()[0])["outputs"] == expected
    await asyncio.to_thread(main, ["--state-dir", str(tmp_path / "state"), "run", "r", "--full"])
    assert "what top/* gave (2)" in capsys.readouterr().out


@pytest.mark.parametrize("by", ["at", "state", "find", "to_dict", "state_of", "show", "at --json"])
async def test_plain_states_have_outputs_as_they_are_read(
    reopen: Opener, tmp_path: Path, capsys: pytest.CaptureFixture[str], by: str
) -> None:
    """Whoever looks at a run's plain state, now or as it was, sees lists and dicts, and no note of where they stand."""
    symphony = await register(reopen)
    shape = ("parallel", ("map", LEAF, 2), ("loop", LEAF, 2), ("map", ("fail",), 2), ("sequence", LEAF, LEAF))
    run = await symphony.workflows.execute_workflow({"name": "w", "steps": [step_of(shape, "top")]}, run_id="r")
    expected = {**run.outputs}
    state: Any
    view = await symphony.at("latest")
    if by in ("show", "at --json"):
        await symphony.close()
        asked = ["show", "Workflow:r", "--json"] if by == "show" else ["at", "latest", "--type", "Workflow", "--json"]
        await asyncio.to_thread(main, ["--state-dir", str(tmp_path / "state"), *asked])
        state = json.loads(capsys.readouterr().out.splitlines()[0])["state"]
    elif by == "to_dict":
        state = view.to_dict()["entities"]["Workflow:r"]
    elif by == "find":
        state = view.find("Workflow:r")
    else:
        found = view.get(run) if by == "at" else view.state(run) if by == "state" else await symphony.past.state_of(run)
        state = found if isinstance(found, dict) else found.data
    assert state["outputs"] == expected
    assert "PartOutputs" not in repr(state)


async def test_the_view_is_a_mapping(reopen: Opener) -> None:
    """`run.outputs` compares, merges and is written as a dict is, and cannot be written to."""
    symphony = await register(reopen)
    run = await symphony.workflows.execute_workflow({"name": "w", "steps": [step_of(("map", LEAF, 1), "top")]})
    plain = {"top/0": text_of("top/0"), "top": [text_of("top/0")]}
    assert run.outputs == plain
    assert plain == run.outputs
    assert (run.outputs | {"x": 1}, {"x": 1} | run.outputs) == ({**plain, "x": 1}, {"x": 1, **plain})
    assert (repr(run.outputs), list(run.outputs), len(run.outputs)) == (repr(plain), list(plain), 2)
    assert ("top" in run.outputs, "no" in run.outputs, run.outputs.get("no")) == (True, False, None)
    with pytest.raises(TypeError):
        run.outputs["top"] = 1  # type: ignore[index]
    assert json.loads(json.dumps(dict(run.outputs))) == run.to_dict()["outputs"] == plain
