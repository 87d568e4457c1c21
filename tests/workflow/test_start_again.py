"""Starting a run that may be there: the same id is the same run, whoever asks, whenever, in whatever process."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pydantic import BaseModel

from symphony_es import Symphony
from symphony_es.errors import ConfigurationError, EntityExistsError, InvalidIdentifierError, ReadOnlyError, RunExistsError
from symphony_es.workflow import step

DEFINITION = {"name": "order", "steps": [{"kind": "wait", "name": "paid", "signal": "paid"}]}
OTHER = {"name": "refund", "steps": [{"kind": "wait", "name": "paid", "signal": "paid"}]}


async def again(symphony: Symphony, definition: Any = DEFINITION, **options: Any) -> Any:
    return await symphony.workflows.start(definition, run_id="r", if_exists="return", auto_checkpoint=False, **options)


@pytest.mark.parametrize("number", [2, 20])
async def test_starts_at_once_give_one_run(symphony: Symphony, number: int) -> None:
    """All get a handle whose run has begun, and nothing is started twice."""
    handles = await asyncio.gather(*(again(symphony) for _ in range(number)))
    assert {id(handle.run) for handle in handles} == {id(handles[0].run)}
    assert handles[0].status == "running"
    assert len(await symphony.workflows.get_all_runs()) == 1
    names = [event.name for event in await symphony.log.read_entity("Workflow:r")]
    assert names.count("WorkflowCreated") == names.count("WorkflowStarted") == 1


@pytest.mark.parametrize("stands", ["running", "paused", "completed", "cancelled"])
async def test_a_run_is_given_as_it_stands(symphony: Symphony, stands: str) -> None:
    """Nothing is done to it: `recover`, `resume` and `retry_from` are."""
    handle = await again(symphony)
    while "paid" not in handle.run.attempts:
        await asyncio.sleep(0)
    if stands == "paused":
        await handle.pause()
        await handle.wait("paused")
    elif stands == "completed":
        await handle.signal("paid")
        await handle.wait()
    elif stands == "cancelled":
        await handle.cancel()
    await symphony.flush()
    before = await symphony.log.read_entity("Workflow:r")
    found = await again(symphony)
    assert (found.run, found.status) == (handle.run, stands)
    assert len(await symphony.log.read_entity("Workflow:r")) == len(before)


@pytest.mark.parametrize("resumed", [True, False])
async def test_a_run_of_another_process_is_found(reopen: Any, resumed: bool) -> None:
    """Also where nothing has been resumed; `recover` then goes on with it."""
    await again(await reopen())
    symphony = await reopen()
    if resumed:
        await symphony.resume()
    handle = await again(symphony)
    assert (handle.id, handle.status) == ("r", "running")
    going = asyncio.create_task(symphony.workflows.recover())
    while not symphony.registry.get("workflow_engine").active_runs:
        await asyncio.sleep(0)
    await (await again(symphony)).signal("paid")
    assert [run.id for run in await going] == ["r"]
    assert (await again(symphony)).status == "completed"


async def test_another_definition_has_no_such_run(symphony: Symphony) -> None:
    """The error names both; nothing is started."""
    await again(symphony)
    with pytest.raises(EntityExistsError, match=r"order.*refund"):
        await again(symphony, OTHER)
    assert len(await symphony.workflows.get_all_runs()) == 1


INPUTS: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "other-value": ({"amount": 1}, {"amount": 2}, ["amount"]),
    "other-type": ({"amount": 1}, {"amount": True}, ["amount"]),
    "float": ({"amount": 1}, {"amount": 1.0}, ["amount"]),
    "inside": ({"order": {"lines": [1, 2]}}, {"order": {"lines": [1, 3]}}, ["order"]),
    "one-more": ({"amount": 1}, {"amount": 1, "note": "x"}, ["note"]),
    "one-less": ({"amount": 1, "note": "x"}, {"amount": 1}, ["note"]),
    "none": ({"amount": 1}, {}, ["amount"]),
    "default": ({}, {"currency": "USD"}, ["currency"]),
    "several": ({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 3, "d": 4}, ["b", "c", "d"]),
}
ORDER = {**DEFINITION, "context": {"currency": "EUR"}}


@pytest.mark.parametrize("case", INPUTS)
async def test_another_input_is_another_run(symphony: Symphony, case: str) -> None:
    """The error names the keys that differ and no value; what the steps have made of the context since makes no difference."""
    first, second, differs = INPUTS[case]
    handle = await again(symphony, ORDER, context=first)
    handle.run.context["amount"] = 77
    await symphony.flush()
    for _ in range(2):
        assert (await again(symphony, ORDER, context={"currency": "EUR", **first})).run is handle.run
    head = symphony.log.head
    with pytest.raises(RunExistsError) as refused:
        await again(symphony, ORDER, context=second)
    assert (list(refused.value.differs), refused.value.entity, symphony.log.head) == (differs, "Workflow:r", head)
    assert "USD" not in str(refused.value)


@dataclass
class Line:
    """What a program makes of an order."""

    article: str
    counts: list[int]


class Order(BaseModel):
    """What a web framework makes of a request."""

    lines: list[str]


class Place(NamedTuple):
    """A tuple of a class of its own."""

    row: int
    column: list[int]


TAKEN: dict[str, Callable[[int], Any]] = {
    "dataclass": lambda n: Line("a", [n]),
    "model": lambda n: Order(lines=[str(n)]),
    "named tuple": lambda n: Place(1, [n]),
    "path": lambda n: Path(f"/orders/{n}"),
    "frozen set": lambda n: frozenset({1, n}),
    "bytearray": lambda n: bytearray([n]),
    "ordered": lambda n: OrderedDict(a=n),
    "counter": lambda n: Counter({"a": n}),
    "default": lambda n: defaultdict(list, {"a": [n]}),
    "deque": lambda n: deque([n]),
    "complex": lambda n: complex(n),
    "nested": lambda n: {"lines": [Line("a", [1]), (Line("b", [n]), float("nan"))]},
}
"""Values that a run takes as its input and that are no plain data, by a number in them."""


@pytest.mark.parametrize("kind", TAKEN)
async def test_an_equal_object_is_the_same_input(symphony: Symphony, kind: str) -> None:
    """What a run can begin with is compared by what is stored of it: in a block that starts it, and later."""
    given = TAKEN[kind]
    async with symphony.transaction("place"):
        handle = await again(symphony, context={"order": given(2)})
        assert (await again(symphony, context={"order": given(2)})).run is handle.run
    assert (await again(symphony, context={"order": given(2)})).run is handle.run
    with pytest.raises(RunExistsError, match="order"):
        await again(symphony, context={"order": given(3)})


async def test_a_later_definition_has_the_same_run(symphony: Symphony) -> None:
    """A process of a new release repeats a start: what its definition gives by default is not what the run began with."""
    handle = await again(symphony, ORDER, context={"amount": 1})
    later = {
        **ORDER,
        "context": {"currency": "CHF", "more": True},
        "steps": [*DEFINITION["steps"], {"kind": "sleep", "name": "s", "seconds": 0}],
    }
    assert (await again(symphony, later, context={"amount": 1})).run is handle.run


@pytest.mark.parametrize("stands", ["running", "completed"])
async def test_the_input_of_a_run_of_another_process(reopen: Any, stands: str) -> None:
    """Its beginning is in the log: it is compared where nothing is resumed as well; of an id that was used again, the last one's."""
    symphony = await reopen()
    handle = await again(symphony, context={"number": 1})
    await handle.cancel()
    symphony.entities.remove(handle.run)
    await symphony.flush()
    handle = await again(symphony, context={"number": 2})
    if stands == "completed":
        await handle.signal("paid")
        await handle.wait()
    symphony = await reopen()
    assert (await again(symphony, context={"number": 2})).status == stands
    with pytest.raises(RunExistsError, match="number"):
        await again(symphony, context={"number": 1})


async def test_the_input_of_a_run_that_begins_with_a_block(symphony: Symphony) -> None:
    """It is compared with what the block has given it, before that is durable."""
    async with symphony.transaction("place"):
        await again(symphony, context={"number": 1})
        await again(symphony, context={"number": 1})
        with pytest.raises(RunExistsError):
            await again(symphony, context={"number": 2})
    assert (await again(symphony, context={"number": 1})).id == "r"


async def test_a_run_that_was_removed_is_none(symphony: Symphony) -> None:
    """Its id may be used again, as without `if_exists`."""
    handle = await again(symphony)
    await handle.cancel()
    symphony.entities.remove(handle.run)
    await symphony.flush()
    assert (await again(symphony)).status == "running"


async def test_without_it_an_id_is_taken_once(symphony: Symphony) -> None:
    """One start begins, all others get the same error, at the same moment and later; the error names the way."""
    start = symphony.workflows.start
    outcomes = await asyncio.gather(*(start(DEFINITION, run_id="r") for _ in range(5)), return_exceptions=True)
    outcomes += await asyncio.gather(start(DEFINITION, run_id="r"), return_exceptions=True)
    errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert [type(error) for error in errors] == [EntityExistsError] * 5
    assert all("if_exists" in str(error) for error in errors)
    with pytest.raises(EntityExistsError):
        await symphony.workflows.execute_workflow(DEFINITION, run_id="r")


@pytest.mark.parametrize("block", [False, True])
async def test_the_id_of_a_run_at_rest_is_taken_too(symphony: Symphony, block: bool) -> None:
    """The error names the same way as for one that is live, not how to bring it to life; nothing has been appended."""
    symphony.functions.register("quick", lambda context: 1)
    quick = {"name": "quick", "steps": [{"kind": "function", "name": "quick", "function": "quick"}]}
    await symphony.workflows.execute_workflow(quick, run_id="rests", auto_checkpoint=False)
    assert symphony.entities.find("Workflow:rests") is None
    head = symphony.log.head
    with pytest.raises(EntityExistsError, match="if_exists='return'") as taken:
        async with symphony.transaction("Placed") if block else nullcontext():
            await symphony.workflows.start(quick, run_id="rests")
    assert "entities.load" not in str(taken.value)
    assert symphony.log.head == head


async def test_wrong_values_are_refused(symphony: Symphony) -> None:
    """A typo, or no id to look for."""
    with pytest.raises(ConfigurationError, match="if_exists='retrun'"):
        await symphony.workflows.start(DEFINITION, run_id="r", if_exists="retrun")  # type: ignore[call-overload]
    with pytest.raises(ConfigurationError, match="run_id"):
        await symphony.workflows.start(DEFINITION, if_exists="return")


async def test_a_step_that_starts_a_run_starts_one(symphony: Symphony) -> None:
    """Interrupted after the start and before its completion, the step finds the run that it has started."""
    gate, calls = asyncio.Event(), list[str]()

    async def begin_next() -> str:
        handle = await again(symphony)
        calls.append(handle.id)
        if len(calls) == 1:
            gate.set()
            await asyncio.Event().wait()
        return str(handle.id)

    @symphony.workflow
    async def actor() -> str:
        return await step(begin_next)

    going = await symphony.workflows.start(actor, run_id="first", auto_checkpoint=False)
    await gate.wait()
    await symphony.registry.get("workflow_engine").interrupt(["first"])
    assert await symphony.workflows.resume(going.run) is going.run
    assert (going.run.result, calls) == ("r", ["r", "r"])


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ({}, {"tax": 7}, True), ({"tax": 7}, {}, True), ({}, {"tax": 8}, False), ({"tax": 8}, {}, False), ({"notes": ["a"]}, {}, True),
        ({"extra": 1}, {}, False),
    ],
)  # fmt: skip
async def test_what_a_function_gives_by_default(symphony: Symphony, first: Any, second: Any, same: bool) -> None:
    """A default that is given is the same input as one that is left out, whichever comes first."""

    @symphony.workflow
    async def bill(amount: int, tax: int = 7, notes: list[str] = ["a"], **more: int) -> int:  # noqa: B006  what a default may be
        return amount + tax

    handle = await again(symphony, bill, context={"amount": 1, **first})
    expected = await handle.result()
    if same:
        assert await (await again(symphony, bill, context={"amount": 1, **second})).result() == expected
        return
    with pytest.raises(RunExistsError, match=r"differs at '(tax|extra)'"):
        await again(symphony, bill, context={"amount": 1, **second})


@pytest.mark.parametrize("depth", [1, 2])
async def test_the_input_of_a_fork(reopen: Any, depth: int) -> None:
    """It is that of its original with what the fork has changed, whatever steps wrote; also of a fork of a fork, and later."""

    async def write(context: Any) -> None:
        context["seen"] = True
        context["kept"] += 1

    steps = [{"kind": "function", "name": "write", "function": "write"}, {"kind": "function", "name": "more", "function": "write"}]
    definition = {"name": "w", "context": {"given": 5}, "steps": steps}
    symphony = await reopen()
    symphony.functions.register("write", write)
    await symphony.workflows.execute_workflow(definition, {"kept": 1, "changed": 1}, run_id="o")
    original = "o"
    for number in range(depth):
        fork = await symphony.workflows.fork(
            original, "more", {"changed": 2 + number, f"new{number}": 1}, run_id="r" if number == depth - 1 else "f"
        )
        await symphony.workflows.resume(fork)
        original = "f"
    began_with = {"kept": 1, "changed": 1 + depth, **{f"new{number}": 1 for number in range(depth)}}
    for process in range(2):
        assert (await again(symphony, definition, context=began_with)).run.forked_from is not None
        assert (await again(symphony, definition, context={**began_with, "given": 5})).run.id == "r"
        for key in began_with:
            with pytest.raises(RunExistsError, match=f"differs at '{key}'"):
                await again(symphony, definition, context={**began_with, key: 77})
        if process == 0:
            symphony = await reopen()
            symphony.functions.register("write", write)


@pytest.mark.parametrize("call", ["start", "execute_workflow"])
@pytest.mark.parametrize("what", ["dict", "code"])
async def test_a_reader_starts_nothing_and_says_so(symphony: Symphony, call: str, what: str) -> None:
    """That it only reads is why, and not that it has no functions; one that is there is given."""
    await again(symphony)

    async def flow() -> None: ...

    async with Symphony(symphony.state_dir, read_only=True) as reader:
        definition: Any = (
            reader.workflow(flow) if what == "code" else {"name": "w", "steps": [{"kind": "function", "name": "a", "function": "none"}]}
        )
        with pytest.raises(ReadOnlyError, match="open for reading only"):
            await getattr(reader.workflows, call)(definition)
        assert (await again(reader)).run.id == "r"


@pytest.mark.parametrize("call", ["start", "execute_workflow", "fork", "return"])
async def test_no_new_run_has_an_id_that_reads_as_the_key_of_another(symphony: Symphony, call: str) -> None:
    """Whoever asked for it by that id would be given the other one, and would signal or cancel that."""
    handle = await again(symphony)
    while "paid" not in handle.run.attempts:
        await asyncio.sleep(0)
    workflows = symphony.workflows
    calls: dict[str, Callable[[], Any]] = {
        "start": lambda: workflows.start(DEFINITION, run_id="Workflow:r"),
        "execute_workflow": lambda: workflows.execute_workflow(DEFINITION, run_id="Workflow:r"),
        "fork": lambda: workflows.fork(handle.run, at="paid", run_id="Workflow:r"),
        "return": lambda: workflows.start(DEFINITION, run_id="Workflow:r", if_exists="return"),
    }
    async with asyncio.timeout(10):
        with pytest.raises(InvalidIdentifierError, match="leave 'Workflow:' out"):
            await calls[call]()
    assert [run.id for run in await workflows.list_runs()] == ["r"]


@pytest.mark.parametrize("given", [None, 0, [], b""])
async def test_the_id_of_a_new_run_is_text(symphony: Symphony, given: Any) -> None:
    """An id that is none is refused with what to write; nothing is made of it."""
    run = await symphony.workflows.execute_workflow({"name": "w", "steps": [{"kind": "sleep", "name": "s", "seconds": 0}]}, run_id="r")
    with pytest.raises(InvalidIdentifierError, match="left out, one is made"):
        await symphony.workflows.start(DEFINITION, run_id=given)
    with pytest.raises(InvalidIdentifierError, match="left out, one is made"):
        await symphony.workflows.fork(run, at="s", run_id=given)
    assert [run.id for run in await symphony.workflows.list_runs()] == ["r"]
